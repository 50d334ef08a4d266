"""
Who an API request speaks for.

A refused token is repeated in the words of the refusal, twice, as Forgejo 16
does it: each way of signing in says why it failed, two of them with the whole
token (§0.9, §3.6).
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from fjmcp.demo.forge.accounts import Instance, Person
from fjmcp.demo.forge.answers import basic_of, query_of
from fjmcp.demo.forge.grants import Grants
from fjmcp.demo.forge.scopes import Effective, effective
from fjmcp.demo.forge.tokens import ACCESS, SEGMENTS, SigningKey, Unreadable

REVOKED: Final = "oauth2 grant not found or revoked"
NOT_ACCESS: Final = "token was not an oauth2 access token"
GONE: Final = "oauth2 grant owner does not exist"

_FOREIGN_METHOD: Final = (
    "token is unverifiable: error while executing keyfunc: unexpected signing method: RS256"
)
_NO_ISSUER: Final = 'token is unverifiable: error while executing keyfunc: invalid `iss` claim: ""'


@frozen
class Bearer:
    """A good token: whose, and what for."""

    person: Person
    scope: Effective


@frozen
class Rejected:
    """A bad token; the message holds it."""

    message: str = field(repr=False)


@define(eq=False)
class Bearers:
    """Reads and judges the credentials of requests."""

    clock: IReactorTime
    instance: Instance
    grants: Grants
    key: SigningKey

    def of(self, request: Request) -> Bearer | Rejected | None:
        """Whose request it is; None where no credential came along."""
        token = _token_of(request)
        if token is None:
            return None
        claims = self.key.read(token, self.clock.seconds())
        if isinstance(claims, Unreadable):
            return _rejected(claims.reason, token)
        grant = self.grants.live.get(claims.grant)
        if grant is None:
            return _rejected(REVOKED, token)
        if claims.kind != ACCESS:
            return _rejected(NOT_ACCESS, token)
        person = self.instance.by_id(grant.person)
        if person is None:
            return _rejected(GONE, token)
        return Bearer(person, effective(grant.scope))


def _token_of(request: Request) -> str | None:
    """The URL first, then Basic (user or password), then Bearer or token in any case."""
    if token := query_of(request).get("access_token"):
        return token
    basic = basic_of(request)
    if isinstance(basic, tuple):
        user, password = basic
        return user if password in ("", "x-oauth-basic") else password
    kind, _, token = (request.getHeader("authorization") or "").partition(" ")
    return token.strip() if kind.lower() in ("bearer", "token") else None


def _rejected(reason: str, token: str) -> Rejected:
    """
    Five lines: OAuth, access token, Actions runtime token, Actions task, and
    authorized integration.
    """
    malformed = token.count(".") != 2
    return Rejected(
        "\n".join(
            (
                reason,
                f"access token does not exist [sha: {token}]",
                SEGMENTS if malformed else _FOREIGN_METHOD,
                f'task with token "{token}": resource does not exist',
                "authorized integration: parse JWT error: "
                + (SEGMENTS if malformed else _NO_ISSUER),
            )
        )
    )
