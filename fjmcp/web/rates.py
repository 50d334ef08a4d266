"""
How often one may knock at the doors that stand open to everybody.

A request is counted under several names (its address block, its client, its
grant, everybody) and refused if one of them has used up its share.  A refused
request counts under none of them, so that a flood out of one network takes
nothing from the others.  Refusing comes before anything is read or written:
no code, refresh token or sign-in is used up by a 429.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.metadata import NONE
from fjmcp.refusals import (
    TOO_MANY,
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_OF_CLIENT,
    TOO_MANY_OF_GRANT,
    OAuthRefusal,
)
from fjmcp.tally import Rate, Tally
from fjmcp.web.addresses import Addresses, block, hosted_by
from fjmcp.web.channel import SiteRequest

T = TypeVar("T")


class Door(Enum):
    """What stands open to everybody, with its limits: see `fjmcp.limits`."""

    REGISTER = "register"
    AUTHORIZE = "authorize"
    CONSENT = "consent"
    TOKEN = "token"


@frozen
class _Share:
    """One name under which a request counts."""

    tally: Tally
    name: str
    rate: Rate
    refusal: OAuthRefusal


_TELL: Final = Rate(1, 60.0)
"""A minute between two lines of the log about the same name."""


@define(eq=False)
class Rates:
    """Counts requests at the doors; a refusal says when to come again."""

    log = Logger()
    _addresses: Addresses
    _clock: IReactorTime
    _blocks: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _clients: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _grants: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _doors: Tally = field(factory=lambda: Tally(len(Door)), init=False)
    _told: Tally = field(factory=lambda: Tally(limits.METERED), init=False)

    def at(
        self, door: Door, respond: Callable[[SiteRequest], Awaitable[T]]
    ) -> Callable[[SiteRequest], Awaitable[T | OAuthRefusal]]:
        """`respond`, for as many requests as a network, and all together, may send."""

        async def counted(request: SiteRequest) -> T | OAuthRefusal:
            refusal = self._refusal(door, self._of_network(door, request))
            return await respond(request) if refusal is None else refusal

        return counted

    def client(self, door: Door, request: Request, client: Client) -> OAuthRefusal | None:
        """Count a request of a client, which has authenticated if it can."""
        if door is Door.TOKEN and client.source is Source.DOCUMENT:
            # It is the same for everybody, and everybody knows its name: one share of it for all
            # of claude.ai would be too little, and anybody could use it up.
            return None
        name = client.client_id
        if door is Door.TOKEN and client.metadata.token_endpoint_auth_method == NONE:
            # Everybody can name a public client: let nobody use up what is another's.
            address = self._addresses.of(request)
            name += "" if address is None else f" {block(address)}"
        rate = Rate.of(limits.RATES_OF_CLIENT[door.value])
        return self._refusal(door, [_Share(self._clients, name, rate, TOO_MANY_OF_CLIENT)])

    def grant(self, grant_id: str) -> OAuthRefusal | None:
        """Count a refresh of a grant, by somebody who has a token of it."""
        share = _Share(self._grants, grant_id, Rate.of(limits.RATE_OF_GRANT), TOO_MANY_OF_GRANT)
        return self._refusal(Door.TOKEN, [share])

    def _of_network(self, door: Door, request: Request) -> list[_Share]:
        everybody = Rate.of(limits.RATES_OF_ALL[door.value])
        shares = [_Share(self._doors, door.value, everybody, TOO_MANY)]
        address = self._addresses.of(request)
        if address is not None:
            hosted = hosted_by(address) is not None
            rates = limits.RATES_OF_HOSTED if hosted else limits.RATES_OF_ADDRESS
            rate, name = Rate.of(rates[door.value]), f"{door.value} {block(address)}"
            shares.insert(0, _Share(self._blocks, name, rate, TOO_MANY_OF_ADDRESS))
        return shares

    def _refusal(self, door: Door, shares: list[_Share]) -> OAuthRefusal | None:
        now = self._clock.seconds()
        for share in shares:
            wait = share.tally.wait(share.name, share.rate, now)
            if wait > 0:
                self._tell(door, share, now)
                return evolve(share.refusal, retry_after=math.ceil(wait))
        for share in shares:
            share.tally.count(share.name, share.rate, now)
        return None

    def _tell(self, door: Door, share: _Share, now: float) -> None:
        name = f"{share.refusal.reason} {share.name}"
        if self._told.wait(name, _TELL, now) > 0:
            return
        self._told.count(name, _TELL, now)
        self.log.warn(
            "too many requests", door=door.value, of=share.name, reason=share.refusal.reason
        )
