"""
Sign-ins under way: one authorization in one browser, until it has its code.

`signin` and `browser` and `upstream_state` are digests; what they are digests
of exists only in that browser.
"""

from __future__ import annotations

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.tokens import Digest
from fjmcp.store.transactions import Cursor


@frozen
class SignIn:
    """A row of sign-ins: what was asked, by which client."""

    signin: Digest
    client_id: str
    request: AuthorizationRequest
    upstream_verifier: bytes | None
    """Sealed; bound to `bound_verifier(signin)`."""


def bound_verifier(signin: Digest) -> str:
    """What the vault binds the upstream verifier of this row to."""
    return f"signins.upstream_verifier:{signin.value.hex()}"


def begin(
    cursor: Cursor, signin: Digest, browser: Digest, request: AuthorizationRequest, now: float
) -> None:
    """Remember a request whose consent page is about to be shown."""
    cursor.execute("DELETE FROM signins WHERE expires_at <= ? AND credential IS NULL", now)
    # Anybody can make these rows, so their number is bounded; the oldest go first.
    cursor.execute(
        "DELETE FROM signins"
        " WHERE credential IS NULL AND exchange_until IS NULL AND signin IN ("
        " SELECT signin FROM signins ORDER BY created_at DESC LIMIT 1000 OFFSET ?)",
        limits.PENDING_SIGN_INS - 1,
    )
    cursor.execute(
        "INSERT INTO signins (signin, browser, client_id, request, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        signin.value,
        browser.value,
        request.client_id,
        request.to_json(),
        now,
        now + limits.SIGN_IN,
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
        " WHERE signin = ? AND browser = ? AND expires_at > ?"
        " AND (upstream_verifier IS NULL OR upstream_state IS NOT NULL)"
        " RETURNING signin, client_id, request, upstream_verifier",
        upstream_state.value,
        upstream_verifier,
        signin.value,
        browser.value,
        now,
    )
    return None if row is None else _signin(row)


def deny(cursor: Cursor, signin: Digest, browser: Digest, now: float) -> SignIn | None:
    """End a sign-in whose person said no; None if there is none that waits."""
    row = cursor.one(
        "DELETE FROM signins"
        " WHERE signin = ? AND browser = ? AND expires_at > ? AND upstream_verifier IS NULL"
        " RETURNING signin, client_id, request, upstream_verifier",
        signin.value,
        browser.value,
        now,
    )
    return None if row is None else _signin(row)


def come_back(cursor: Cursor, upstream_state: Digest, now: float) -> SignIn | None:
    """Take the sign-in that Forgejo's redirect names; its state works once."""
    row = cursor.one(
        "UPDATE signins SET upstream_state = NULL"
        " WHERE upstream_state = ? AND expires_at > ?"
        " RETURNING signin, client_id, request, upstream_verifier",
        upstream_state.value,
        now,
    )
    return None if row is None else _signin(row)


def finish(cursor: Cursor, signin: Digest) -> None:
    """Forget a sign-in that has its answer."""
    cursor.execute("DELETE FROM signins WHERE signin = ? AND credential IS NULL", signin.value)


def _signin(row: tuple[object, ...]) -> SignIn:
    signin, client_id, request, verifier = row
    assert isinstance(signin, bytes) and isinstance(client_id, str) and isinstance(request, str)
    assert verifier is None or isinstance(verifier, bytes)
    return SignIn(Digest(signin), client_id, AuthorizationRequest.from_json(request), verifier)
