"""
Sign-ins under way: one authorization in one browser, until it has its code.

`signin` and `browser` and `upstream_state` are digests; what they are digests
of exists only in that browser.

::

    asked       begin: our consent page is shown
    away        consent: at Forgejo, with a state and a verifier
    back        come_back: the state is spent
    questioned  ask: another person came back than the browser was known as; `came_as`
    confirmed   confirm: that person goes on, with a state again
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.tokens import Digest
from fjmcp.store.transactions import Cursor


@frozen
class SignIn:
    """A row of sign-ins: what was asked, by which client."""

    signin: Digest
    browser: Digest
    client_id: str
    request: AuthorizationRequest
    upstream_verifier: bytes | None
    """Sealed; bound to `bound_verifier(signin)`."""
    known_as: int | None
    """Whose its browser was when it began."""
    came_as: int | None
    """Who came back instead, and is asked about it."""
    remembered: bool
    """Whether a remembered consent stood for our page."""


_COLUMNS: Final = (
    "signin, browser, client_id, request, upstream_verifier, known_as, came_as, remembered"
)


def bound_verifier(signin: Digest) -> str:
    """What the vault binds the upstream verifier of this row to."""
    return f"signins.upstream_verifier:{signin.value.hex()}"


def begin(
    cursor: Cursor,
    signin: Digest,
    browser: Digest,
    request: AuthorizationRequest,
    now: float,
    *,
    known_as: int | None = None,
    remembered: bool = False,
) -> None:
    """Remember a request whose consent page is about to be shown, or is `remembered`."""
    cursor.execute("DELETE FROM signins WHERE expires_at <= ? AND credential IS NULL", now)
    # Anybody can make these rows, so their number is bounded; the oldest go first.
    cursor.execute(
        "DELETE FROM signins"
        " WHERE credential IS NULL AND exchange_until IS NULL AND signin IN ("
        " SELECT signin FROM signins ORDER BY expires_at DESC LIMIT 1000 OFFSET ?)",
        limits.PENDING_SIGN_INS - 1,
    )
    cursor.execute(
        "INSERT INTO signins (signin, browser, client_id, request, created_at, expires_at,"
        " known_as, remembered) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        signin.value,
        browser.value,
        request.client_id,
        request.to_json(),
        now,
        now + limits.SIGN_IN,
        known_as,
        1 if remembered else None,
    )


def consent(
    cursor: Cursor,
    signin: Digest,
    browser: Digest,
    upstream_state: Digest,
    upstream_verifier: bytes,
    now: float,
) -> SignIn | None:
    """
    Record that the person agreed; None if there is nothing to agree to (any more).

    Until Forgejo has sent the browser back the last consent counts: people
    press a button twice, and browsers send a form again when the answer is lost.
    """
    row = cursor.one(
        "UPDATE signins SET upstream_state = ?, upstream_verifier = ?"
        " WHERE signin = ? AND browser = ? AND expires_at > ? AND came_as IS NULL"
        " AND (upstream_verifier IS NULL OR upstream_state IS NOT NULL)"
        f" RETURNING {_COLUMNS}",
        upstream_state.value,
        upstream_verifier,
        signin.value,
        browser.value,
        now,
    )
    return None if row is None else _signin(row)


def deny(cursor: Cursor, signin: Digest, browser: Digest, now: float) -> SignIn | None:
    """End a sign-in whose person said no to either page; None if there is none that waits."""
    row = cursor.one(
        "DELETE FROM signins WHERE signin = ? AND browser = ? AND expires_at > ?"
        " AND upstream_verifier IS NULL AND upstream_state IS NULL"
        f" RETURNING {_COLUMNS}",
        signin.value,
        browser.value,
        now,
    )
    return None if row is None else _signin(row)


def come_back(cursor: Cursor, upstream_state: Digest, now: float) -> SignIn | None:
    """Take the sign-in that a redirect to our callback names; its state works once."""
    row = cursor.one(
        "UPDATE signins SET upstream_state = NULL"
        " WHERE upstream_state = ? AND expires_at > ?"
        f" RETURNING {_COLUMNS}",
        upstream_state.value,
        now,
    )
    return None if row is None else _signin(row)


def ask(cursor: Cursor, signin: Digest, renamed: Digest, came_as: int) -> bool:
    """
    Let a sign-in wait for its person's word that they go on as this account.

    It gets another name, which no form has been given yet, and its verifier has
    done its work.  False if it is gone.
    """
    row = cursor.one(
        "UPDATE signins SET signin = ?, came_as = ?, upstream_verifier = NULL"
        " WHERE signin = ? AND credential IS NULL RETURNING signin",
        renamed.value,
        came_as,
        signin.value,
    )
    return row is not None


def confirm(
    cursor: Cursor, signin: Digest, browser: Digest, upstream_state: Digest, now: float
) -> SignIn | None:
    """
    Record that the person goes on as who they came; None if that was not asked (any more).

    As with `consent`, the last time counts until the browser came back with its state.
    """
    row = cursor.one(
        "UPDATE signins SET upstream_state = ?"
        " WHERE signin = ? AND browser = ? AND expires_at > ? AND came_as IS NOT NULL"
        f" RETURNING {_COLUMNS}",
        upstream_state.value,
        signin.value,
        browser.value,
        now,
    )
    return None if row is None else _signin(row)


def follow(cursor: Cursor, old: Digest, new: Digest) -> None:
    """A browser has another cookie: what is under way in its other tabs goes by it, too."""
    cursor.execute("UPDATE signins SET browser = ? WHERE browser = ?", new.value, old.value)


def finish(cursor: Cursor, signin: Digest) -> None:
    """Forget a sign-in that has its answer."""
    cursor.execute("DELETE FROM signins WHERE signin = ? AND credential IS NULL", signin.value)


def _signin(row: tuple[Any, ...]) -> SignIn:
    signin, browser, client_id, request, verifier, known_as, came_as, remembered = row
    return SignIn(
        signin=Digest(signin),
        browser=Digest(browser),
        client_id=client_id,
        request=AuthorizationRequest.from_json(request),
        upstream_verifier=verifier,
        known_as=known_as,
        came_as=came_as,
        remembered=remembered is not None,
    )
