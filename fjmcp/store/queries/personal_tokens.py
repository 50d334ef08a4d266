"""Personal tokens: the grants that have a name, because an operator made them."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from fjmcp.oauth.grants import GrantRow
from fjmcp.store.transactions import Cursor

_TOKEN: Final = (
    "SELECT g.grant_id, g.account_id, g.client_id, g.scopes, g.created_at, g.used_at, g.ended_at,"
    " g.end_reason, g.name, g.expires_at, a.login, a.dead_since IS NOT NULL OR a.credential IS NULL"
    " FROM grants g JOIN accounts a ON a.account_id = g.account_id WHERE g.name IS NOT NULL"
)


@frozen
class PersonalToken:
    """A token that an operator made, without its text, which nobody has but its program."""

    grant: GrantRow
    login: str
    asleep: bool
    """Its account has to sign in again first."""


def listed(cursor: Cursor, login: str | None = None, *, ended: bool = False) -> list[PersonalToken]:
    """Those of this login, or of everybody, the oldest first; the ended ones too, if asked."""
    rows = cursor.many(
        f"{_TOKEN} AND (? OR g.ended_at IS NULL) AND (? OR LOWER(a.login) = ?)"
        " ORDER BY LOWER(a.login), g.created_at, g.grant_id",
        ended,
        login is None,
        (login or "").lower(),
    )
    return [_token(row) for row in rows]


def beginning(cursor: Cursor, start: str) -> list[PersonalToken]:
    """Those whose id begins so, ended or not."""
    rows = cursor.many(
        f"{_TOKEN} AND SUBSTR(g.grant_id, 1, LENGTH(?)) = ? ORDER BY g.grant_id", start, start
    )
    return [_token(row) for row in rows]


def _token(row: tuple[Any, ...]) -> PersonalToken:
    *grant, login, asleep = row
    return PersonalToken(GrantRow(*grant), login, bool(asleep))
