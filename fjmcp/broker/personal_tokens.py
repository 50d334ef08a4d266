"""
Personal tokens: grants that an operator makes for a program.

A program has no browser to sign in with.  The account that it works as did so
once, through any assistant.  A token for it is a grant like any other: it counts
among its account's, sleeps and wakes with it, and ends as all do.  It has one
access token, which lives as long as the grant, and no refresh token.  Each is a
client of its own, so that the sessions of two stay apart.

These are steps of a transaction.  The operator's tool runs them beside the daemon,
which notices by itself (`fjmcp.broker.elsewhere`).
"""

from __future__ import annotations

import os
from typing import Final

from attrs import frozen

from fjmcp.oauth import scopes
from fjmcp.oauth.grants import GrantRow
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.store.queries import accounts, grants, personal_tokens
from fjmcp.store.queries.personal_tokens import PersonalToken
from fjmcp.store.transactions import Cursor

OPERATOR: Final = "operator"
"""Why a grant ended that an operator revoked."""


@frozen
class Made:
    """A token, the only time that it is seen."""

    token: TokenText
    grant: GrantRow
    login: str
    """As Forgejo spells it."""
    made_room: tuple[GrantRow, ...]
    """What had to end for it, since its account had too many."""


@frozen
class Unknown:
    """There is no token: nobody signed in with that login."""


@frozen
class Asleep:
    """There is no token: the account has to sign in again first."""

    reason: str | None
    """For what it was put to sleep; None where Forgejo ended the sign-in."""


NotMade = Unknown | Asleep


def make(cursor: Cursor, login: str, name: str, expires_at: float, now: float) -> Made | NotMade:
    """A token for the account with this login, upper and lower case aside."""
    account = accounts.by_login(cursor, login)
    if account is None:
        return Unknown()
    if account.dead:
        return Asleep(account.dead_reason)
    token, grant_id = mint(Kind.ACCESS), os.urandom(12).hex()
    old = grants.add(
        cursor,
        grant_id,
        account.account_id,
        f"token-{grant_id}",
        str(scopes.BOTH),
        now,
        name=name,
        expires_at=expires_at,
    )
    grants.add_access_token(cursor, digest(token), grant_id, expires_at, now)
    grant, *made_room = (_row(cursor, each) for each in (grant_id, *old))
    return Made(token, grant, account.login, tuple(made_room))


def revoke(cursor: Cursor, start: str, now: float) -> list[PersonalToken]:
    """
    End the token whose id begins so, for ever; answers those that do, as they were.

    Where several do, none ends.
    """
    found = personal_tokens.beginning(cursor, start)
    if len(found) == 1:
        grants.end(cursor, found[0].grant.grant_id, OPERATOR, now)
    return found


def _row(cursor: Cursor, grant_id: str) -> GrantRow:
    row = grants.grant(cursor, grant_id)
    assert row is not None, "it was just written"
    return row
