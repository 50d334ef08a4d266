"""
What Forgejo answers, as values.

An answer of the token endpoint is one of

* `NewPair`: Forgejo gave tokens, and thereby killed the refresh token before;
* `Refused`: Forgejo said no to this very token or code;
* `Troubled`: neither is known.  `unsure` when Forgejo may have acted all the
  same, so that its reply, and with it a refresh token, may be lost.

An answer of the API is what was asked for, or one of the last two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from attrs import field, frozen

from fjmcp.forge.tokens import ForgeToken, Pair, scrub

PROHIBITED: Final = (
    "This account is prohibited from signing in",
    "This account is not activated",
    "You must change your password",
)
"""How the API begins the message of a 403 to somebody who may not use it
(routers/api/shared/middleware.go of Forgejo, from 11.0 to 16 alike)."""

SECOND_FACTOR: Final = "/user/settings/security"
"""In the message of a 403 to somebody who must first set up two factors: the page where.
Only newer versions say it, and the sentence around it is in the language of the instance."""

NARROW: Final = (
    "token does not have at least one of required scope(s)",
    "token scope is limited to public ",
)
"""Likewise of a 403 to a token that may not see what it asks for (routers/api/v1/api.go)."""


@frozen
class NewPair:
    """Forgejo gave a pair.  It is the only copy there is: store it, then use it."""

    pair: Pair


@frozen
class Refused:
    """
    Forgejo said no.

    `error` of the token endpoint is its OAuth error; of the API
    `invalid_token`, `insufficient_scope` or `prohibited`.
    """

    error: str
    description: str


@frozen
class Troubled:
    """
    No answer that says anything about the token.

    `retry_after`: seconds, where Forgejo named them.
    `unsure`: Forgejo may have acted, and the answer be lost.
    """

    reason: str
    retry_after: float | None = None
    unsure: bool = False


Outcome = NewPair | Refused | Troubled


@frozen
class Introspected:
    """What Forgejo says of a token (RFC 7662 §2.2).  `scope` is the string once asked for."""

    active: bool
    sub: str = ""
    scope: str = ""
    audience: frozenset[str] = frozenset()
    username: str = ""


@frozen
class Answer:
    """
    A response, whole.

    `total`: of a list that comes in pages, how many there are.  `location`: of a
    redirect, which nobody follows.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None
    total: int | None = None
    location: str = ""

    def members(self) -> Mapping[str, Any]:
        """The members of the JSON object that the body is; none if it is not one."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def message(self) -> str:
        """The member `message` of that object; empty if it is no text."""
        found = self.members().get("message")
        return found if isinstance(found, str) else ""


def trouble(answer: Answer) -> Troubled:
    """That an answer is none."""
    # A gateway's 5xx says nothing of what Forgejo behind it did.
    return Troubled(f"status-{answer.status}", answer.retry_after, unsure=answer.status >= 500)


def api_refusal(answer: Answer, access: ForgeToken) -> Refused | None:
    """
    What the API's 401 or 403 says of this token; None if the answer is no such.

    A 403 in other words than Forgejo's own is somebody else's on the way, or about
    something else, and blocks nobody: gateways say `{"message": "Forbidden"}`.
    """
    message = answer.message()
    description = scrub(message, access.text)
    if answer.status == 401:
        return Refused("invalid_token", description)
    if answer.status != 403:
        return None
    if message.startswith(NARROW):
        return Refused("insufficient_scope", description)
    if message.startswith(PROHIBITED) or SECOND_FACTOR in message:
        return Refused("prohibited", description)
    return None
