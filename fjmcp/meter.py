"""
What happens in this process, told as it happens to somebody who counts.

Rooms tell a `Meter` and know no more of it.  This one forgets everything; the
daemon has one that counts (`fjmcp.daemon.metrics`).
No argument says whose it was: no account, client, grant or token.
"""

from __future__ import annotations

from enum import Enum


class OAuth(Enum):
    """Steps of the way from a client that nobody knows to its end."""

    REGISTERED = "registered"
    CONSENTED = "consent-given"
    DENIED = "consent-refused"
    REMEMBERED = "consent-remembered"
    SIGNED_IN = "signed-in"
    REDEEMED = "code-redeemed"
    REFRESHED = "refreshed"
    REPLAYED = "replayed"
    REVOKED = "revoked"


class Meter:
    """Is told of things that happen.  Times are seconds; nothing here may raise."""

    def child_started(self, cause: str, seconds: float) -> None:
        """A child answered `initialize` so long after it was started; why it was."""

    def child_not_started(self, reason: str, seconds: float) -> None:
        """A child did not come so far; a refusal's reason."""

    def child_ended(self, reason: str) -> None:
        """A child is gone."""

    def call_ended(self, method: str, outcome: str, seconds: float) -> None:
        """A child's answer came (`result`, `error`), or ours in its place (a refusal's reason)."""

    def oauth(self, step: OAuth) -> None:
        """A step was taken."""

    def refused(self, reason: str) -> None:
        """A request was refused, at whatever path."""

    def grant_ended(self, reason: str) -> None:
        """A grant ended for ever."""

    def answered(self, status: int) -> None:
        """An HTTP response was written."""

    def forge_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Forgejo answered, or did not."""

    def document(self, outcome: str) -> None:
        """A client's metadata document was fetched, or refused, or was not (the reason)."""

    def store_hop(self, lane: str, outcome: str, seconds: float) -> None:
        """A transaction ended, its wait for the lane's thread counted."""

    def lag(self, seconds: float) -> None:
        """The reactor came so late to something that was due."""


SILENT = Meter()
"""For parts that nobody watches."""
