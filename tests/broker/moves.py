"""What may be sent about a grant, well or badly: names for it, and the requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fjmcp.oauth.clients import Client
from tests.broker.ledger import Ask, End, Grant, Link, Redeem, Refresh, Revoke, Use
from tests.broker.world import CLIENTS


def another(grant: Grant) -> Client:
    """A client that it was not given to."""
    return CLIENTS[CLIENTS.index(grant.client) - 1]


def told(grant: Grant, back: int) -> Link:
    """A pair that its client knows, counted back from the newest."""
    return grant.told[max(0, len(grant.told) - 1 - back)]


CODE: Final[dict[str, Callable[[Grant, int], Ask]]] = {
    "code": lambda g, at: Redeem(grant=g, client=g.client, place=at),
    "code, wrong verifier": lambda g, at: Redeem(
        grant=g, client=g.client, place=at, verifier=False
    ),
    "code, wrong redirect": lambda g, at: Redeem(
        grant=g, client=g.client, place=at, redirect=False
    ),
    "code, elsewhere": lambda g, at: Redeem(grant=g, client=g.client, place=at, ours=False),
    "code, wrong secret": lambda g, at: Redeem(
        grant=g, client=g.client, place=at, secret="another"
    ),
    "code, no secret": lambda g, at: Redeem(grant=g, client=g.client, place=at, secret="none"),
    "code, by another": lambda g, at: Redeem(grant=g, client=another(g), place=at),
}
"""Its code is presented."""

TOKEN: Final[dict[str, Callable[[Grant, int], Ask]]] = {
    "newest": lambda g, at: Refresh(grant=g, client=g.client, place=at, link=told(g, 0)),
    "used": lambda g, at: Refresh(grant=g, client=g.client, place=at, link=told(g, 1)),
    "older": lambda g, at: Refresh(grant=g, client=g.client, place=at, link=told(g, 2)),
    "oldest": lambda g, at: Refresh(grant=g, client=g.client, place=at, link=told(g, 99)),
    "newest, for reading": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 0), scope="forge:read"
    ),
    "newest, for writing": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 0), scope="forge:write"
    ),
    "used, for writing": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 1), scope="forge:write"
    ),
    "newest, for nothing of ours": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 0), scope="openid profile"
    ),
    "newest, elsewhere": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 0), ours=False
    ),
    "used, elsewhere": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 1), ours=False
    ),
    "newest, wrong secret": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 0), secret="another"
    ),
    "newest, no secret": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 0), secret="none"
    ),
    "used, wrong secret": lambda g, at: Refresh(
        grant=g, client=g.client, place=at, link=told(g, 1), secret="another"
    ),
    "newest, by another": lambda g, at: Refresh(
        grant=g, client=another(g), place=at, link=told(g, 0)
    ),
    "used, by another": lambda g, at: Refresh(
        grant=g, client=another(g), place=at, link=told(g, 1)
    ),
}
"""A refresh token of it is presented."""

USE: Final[dict[str, Callable[[Grant, int], Ask]]] = {
    "use": lambda g, at: Use(grant=g, client=g.client, place=at, link=told(g, 0)),
    "use of an older one": lambda g, at: Use(grant=g, client=g.client, place=at, link=told(g, 1)),
}
"""An access token of it comes with a request."""

END: Final[dict[str, Callable[[Grant, int], Ask]]] = {
    "revoke": lambda g, at: Revoke(grant=g, client=g.client, place=at, link=told(g, 0)),
    "revoke, by a used one": lambda g, at: Revoke(
        grant=g, client=g.client, place=at, link=told(g, 1)
    ),
    "revoke, by access token": lambda g, at: Revoke(
        grant=g, client=g.client, place=at, link=told(g, 1), by_access=True
    ),
    "revoke, by another": lambda g, at: Revoke(
        grant=g, client=another(g), place=at, link=told(g, 0)
    ),
    "revoke, wrong secret": lambda g, at: Revoke(
        grant=g, client=g.client, place=at, link=told(g, 0), secret="another"
    ),
    "end": lambda g, at: End(grant=g, client=g.client, place=at),
}
"""Somebody wants it to end."""

MOVES: Final = CODE | TOKEN | USE | END
