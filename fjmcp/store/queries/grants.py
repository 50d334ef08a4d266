"""
Codes, grants and their tokens.

Each function is one step of a transaction; what may be done is judged by
`fjmcp.oauth.grants`, on the rows as these functions read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.grants import CodeRow, GrantRow, RefreshRow
from fjmcp.oauth.tokens import Digest
from fjmcp.refusals import GRANT_EXPIRED
from fjmcp.store.queries import consents
from fjmcp.store.transactions import Cursor

_GRANT: Final = (
    "grant_id, account_id, client_id, scopes, created_at, used_at, ended_at, end_reason, name,"
    " expires_at"
)

_BY_ITSELF: Final = frozenset({"expired", "room", GRANT_EXPIRED.reason})
"""Reasons of an end that nobody wanted; any other one ends the consent, too."""


# --- codes --------------------------------------------------------------------


def add_code(
    cursor: Cursor, code: Digest, account_id: int, request: AuthorizationRequest, now: float
) -> None:
    """Keep a code, and drop those that are of no use."""
    drop_codes(cursor, now)
    cursor.execute(
        "INSERT INTO codes (code, client_id, account_id, request, expires_at)"
        " VALUES (?, ?, ?, ?, ?)",
        code.value,
        request.client_id,
        account_id,
        request.to_json(),
        now + limits.CODE,
    )


def drop_codes(cursor: Cursor, now: float) -> None:
    """
    Drop codes that have expired.

    A used one is kept while its grant lives, so that a second use is noticed
    however late it comes (RFC 6749 §4.1.2).
    """
    cursor.execute(
        "DELETE FROM codes WHERE expires_at <= ? AND (grant_id IS NULL OR NOT EXISTS ("
        " SELECT 1 FROM grants WHERE grants.grant_id = codes.grant_id AND ended_at IS NULL))",
        now,
    )


def code(cursor: Cursor, code: Digest) -> CodeRow | None:
    """The row of a code, used or not."""
    row = cursor.one(
        "SELECT client_id, account_id, request, expires_at, grant_id FROM codes WHERE code = ?",
        code.value,
    )
    if row is None:
        return None
    client_id, account_id, request, expires_at, grant_id = row
    return CodeRow(
        client_id=client_id,
        account_id=account_id,
        request=AuthorizationRequest.from_json(request),
        expires_at=expires_at,
        grant_id=grant_id,
    )


def redeem_code(cursor: Cursor, code: Digest, grant_id: str) -> None:
    """Mark a code as used, by the grant that is born of it."""
    cursor.execute("UPDATE codes SET grant_id = ? WHERE code = ?", grant_id, code.value)


# --- grants -------------------------------------------------------------------


def add(
    cursor: Cursor,
    grant_id: str,
    account_id: int,
    client_id: str,
    scopes: str,
    now: float,
    *,
    secret: Digest | None = None,
    name: str | None = None,
    expires_at: float | None = None,
) -> list[str]:
    """
    Keep a new grant; answer the grants that had to end to make room.

    `secret`: the one that its client proved itself by.
    `name` and an end of its own has what an operator made (`personal_tokens`).
    An account has at most `limits.GRANTS_PER_ACCOUNT`; the longest idle end.
    """
    too_many = cursor.many(
        "SELECT grant_id FROM grants WHERE account_id = ? AND ended_at IS NULL"
        " ORDER BY used_at DESC, grant_id LIMIT 1000 OFFSET ?",
        account_id,
        limits.GRANTS_PER_ACCOUNT - 1,
    )
    for (old,) in too_many:
        end(cursor, old, "room", now)
    cursor.execute(
        "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at,"
        " secret_digest, name, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        grant_id,
        account_id,
        client_id,
        scopes,
        now,
        now,
        None if secret is None else secret.value,
        name,
        expires_at,
    )
    return [old for (old,) in too_many]


def grant(cursor: Cursor, grant_id: str) -> GrantRow | None:
    """The row of a grant, live or ended."""
    row = cursor.one(f"SELECT {_GRANT} FROM grants WHERE grant_id = ?", grant_id)
    return None if row is None else GrantRow(*row)


def touch(cursor: Cursor, used: Mapping[str, float]) -> None:
    """Note when grants were last used; one that was used later than that stays so."""
    for grant_id, used_at in used.items():
        cursor.execute(
            "UPDATE grants SET used_at = ? WHERE grant_id = ? AND used_at < ?",
            used_at,
            grant_id,
            used_at,
        )


def end(cursor: Cursor, grant_id: str, reason: str, now: float) -> bool:
    """
    Close a grant for ever, with all its tokens; False if it had ended before.

    Unless it ended by itself, its person is asked before the client gets another.
    Only `fjmcp.broker.endings` and what it names may lead here, since what runs
    for the grant must end with it; or another process than the daemon, which
    notices (`fjmcp.broker.elsewhere`).
    """
    row = cursor.one(
        "UPDATE grants SET ended_at = ?, end_reason = ?"
        " WHERE grant_id = ? AND ended_at IS NULL RETURNING account_id, client_id",
        now,
        reason,
        grant_id,
    )
    if row is not None and reason not in _BY_ITSELF:
        consents.forget(cursor, *row)
    cursor.execute("DELETE FROM access_tokens WHERE grant_id = ?", grant_id)
    # The digests of refresh tokens stay, so that a replay can be told from a
    # stranger's guess; their sealed successors go.
    cursor.execute("UPDATE refresh_tokens SET successor = NULL WHERE grant_id = ?", grant_id)
    return row is not None


def expired(cursor: Cursor, now: float, most: int) -> list[str]:
    """The ids of at most `most` grants that were idle too long or grew too old."""
    rows = cursor.many(
        "SELECT grant_id FROM grants WHERE ended_at IS NULL"
        " AND (used_at <= ? OR created_at <= ? OR expires_at <= ?) LIMIT ?",
        now - limits.GRANT_IDLE,
        now - limits.GRANT_LIFE,
        now,
        most,
    )
    return [grant_id for (grant_id,) in rows]


def over(cursor: Cursor, grant_ids: Iterable[str]) -> dict[str, str]:
    """Which of these grants have ended, and why; `gone` is one that has no row any more."""
    found: dict[str, str] = {}
    for grant_id in grant_ids:
        row = cursor.one("SELECT ended_at, end_reason FROM grants WHERE grant_id = ?", grant_id)
        if row is None:
            found[grant_id] = "gone"
        elif row[0] is not None:
            found[grant_id] = row[1]
    return found


def live_of_account(cursor: Cursor, account_id: int) -> list[str]:
    """The ids of an account's grants that have not ended."""
    rows = cursor.many(
        "SELECT grant_id FROM grants WHERE account_id = ? AND ended_at IS NULL", account_id
    )
    return [grant_id for (grant_id,) in rows]


def live_of_client(cursor: Cursor, client_id: str, secret: Digest | None = None) -> list[str]:
    """A client's grants that have not ended: their ids; only those of a secret, if one is given."""
    which = "client_id = ? AND ended_at IS NULL"
    params: list[object] = [client_id]
    if secret is not None:
        which += " AND secret_digest = ?"
        params.append(secret.value)
    rows = cursor.many(f"SELECT grant_id FROM grants WHERE {which}", *params)
    return [grant_id for (grant_id,) in rows]


# --- access tokens ---------------------------------------------------------------


@frozen
class Bearer:
    """All that one look at an access token tells."""

    grant: GrantRow
    login: str
    dead: bool
    """Forgejo has refused the account's credential, or its person may not come in."""
    expires_at: float
    dead_reason: str | None = None
    """Which of the two: None for the first."""


def add_access_token(
    cursor: Cursor, token: Digest, grant_id: str, expires_at: float, now: float
) -> None:
    """Keep an access token, and drop the grant's expired ones."""
    cursor.execute(
        "DELETE FROM access_tokens WHERE grant_id = ? AND expires_at <= ?", grant_id, now
    )
    cursor.execute(
        "INSERT INTO access_tokens (token, grant_id, expires_at) VALUES (?, ?, ?)",
        token.value,
        grant_id,
        expires_at,
    )


def bearer(cursor: Cursor, token: Digest) -> Bearer | None:
    """Whose access token this is; expiry and endings are for the caller to judge."""
    row = cursor.one(
        "SELECT g.grant_id, g.account_id, g.client_id, g.scopes, g.created_at, g.used_at,"
        " g.ended_at, g.end_reason, g.name, g.expires_at, a.login, a.dead_since, t.expires_at,"
        " a.dead_reason"
        " FROM access_tokens t JOIN grants g ON g.grant_id = t.grant_id"
        " JOIN accounts a ON a.account_id = g.account_id WHERE t.token = ?",
        token.value,
    )
    if row is None:
        return None
    *of_grant, login, dead_since, expires_at, dead_reason = row
    return Bearer(GrantRow(*of_grant), login, dead_since is not None, expires_at, dead_reason)


# --- refresh tokens ----------------------------------------------------------------


def add_refresh_token(
    cursor: Cursor, token: Digest, grant_id: str, predecessor: Digest | None, now: float
) -> None:
    """Keep the newest refresh token of a family."""
    cursor.execute(
        "INSERT INTO refresh_tokens (token, grant_id, predecessor, issued_at) VALUES (?, ?, ?, ?)",
        token.value,
        grant_id,
        None if predecessor is None else predecessor.value,
        now,
    )


def refresh_token(cursor: Cursor, token: Digest) -> RefreshRow | None:
    """The row of a refresh token, used or not."""
    row = cursor.one(
        "SELECT token, grant_id, predecessor, issued_at, used_at, successor"
        " FROM refresh_tokens WHERE token = ?",
        token.value,
    )
    return None if row is None else _refresh(row)


def successor_used(cursor: Cursor, token: Digest) -> bool:
    """Whether the refresh token that followed this one was itself used."""
    row = cursor.one(
        "SELECT 1 FROM refresh_tokens WHERE predecessor = ? AND used_at IS NOT NULL", token.value
    )
    return row is not None


def use_refresh_token(
    cursor: Cursor, token: Digest, predecessor: Digest | None, successor: bytes, now: float
) -> None:
    """
    Mark a refresh token as used, keeping the sealed pair that was given for it.

    The first use of a successor ends its predecessor's grace, so what was
    kept for that one goes (design D14).
    """
    cursor.execute(
        "UPDATE refresh_tokens SET used_at = ?, successor = ? WHERE token = ?",
        now,
        successor,
        token.value,
    )
    if predecessor is not None:
        cursor.execute(
            "UPDATE refresh_tokens SET successor = NULL WHERE token = ?", predecessor.value
        )


def forget_graces(cursor: Cursor, now: float) -> None:
    """Drop every sealed successor whose grace has ended."""
    cursor.execute(
        "UPDATE refresh_tokens SET successor = NULL WHERE successor IS NOT NULL AND used_at <= ?",
        now - limits.REFRESH_GRACE,
    )


def _refresh(row: tuple[Any, ...]) -> RefreshRow:
    token, grant_id, predecessor, issued_at, used_at, successor = row
    return RefreshRow(
        token=Digest(token),
        grant_id=grant_id,
        predecessor=None if predecessor is None else Digest(predecessor),
        issued_at=issued_at,
        used_at=used_at,
        successor=successor,
    )
