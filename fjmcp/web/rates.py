"""
How often one may knock at the doors that stand open to everybody.

A request is counted under several names (its address block and the networks
around it, its client, its grant, everybody) and refused if one of them has used
up its share.  A refused request counts under none of them, so that a flood out
of one network takes nothing from the others.  Refusing comes before anything is
read or written: no code, refresh token or sign-in is used up by a 429.

What a web page could have its visitors send does not empty what everybody has:
at authorize, consent and callback it is told from what a person sends, and
refused before it counts (`fjmcp.web.authorize`); at register and token, where
some clients are pages, all pages have one narrow share.
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
from fjmcp.refusals import (
    TOO_MANY,
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_OF_CLIENT,
    TOO_MANY_OF_GRANT,
    OAuthRefusal,
)
from fjmcp.tally import Rate, Seldom, Tally
from fjmcp.web.addresses import Addresses, block, hosted_by, nested
from fjmcp.web.channel import SiteRequest
from fjmcp.web.origins import of_page

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


_OF_PROGRAMS: Final = (Door.REGISTER, Door.TOKEN)
"""Doors at which clients knock; at the others it is people's browsers, which pages send there."""


@define(eq=False)
class Rates:
    """Counts requests at the doors; a refusal says when to come again."""

    log = Logger()
    _addresses: Addresses
    _clock: IReactorTime
    _blocks: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _clients: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _grants: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _doors: Tally = field(factory=lambda: Tally(2 * len(Door)), init=False)
    _told: Seldom = field(factory=lambda: Seldom(limits.METERED), init=False)

    def at(
        self, door: Door, respond: Callable[[SiteRequest], Awaitable[T]]
    ) -> Callable[[SiteRequest], Awaitable[T | OAuthRefusal]]:
        """`respond`, for as many requests as a network, and all together, may send."""

        async def counted(request: SiteRequest) -> T | OAuthRefusal:
            refusal = self._refusal(door, self._of_network(door, request))
            return await respond(request) if refusal is None else refusal

        return counted

    def client(self, request: Request, client: Client) -> OAuthRefusal | None:
        """Count a request of a client for tokens, which has authenticated if it can."""
        if client.source is Source.DOCUMENT:
            # It is the same for everybody, and everybody knows its name: one share of it for all
            # of claude.ai would be too little, and anybody could use it up.
            return None
        # Everybody can name a public client, and whoever registers the same within a minute gets
        # a good secret for it: let nobody use up what it has elsewhere.
        address = self._addresses.of(request)
        name = client.client_id + ("" if address is None else f" {block(address)}")
        rate = Rate.of(limits.RATE_OF_CLIENT)
        return self._refusal(Door.TOKEN, [_Share(self._clients, name, rate, TOO_MANY_OF_CLIENT)])

    def grant(self, grant_id: str) -> OAuthRefusal | None:
        """Count a refresh of a grant, by somebody who has a token of it."""
        share = _Share(self._grants, grant_id, Rate.of(limits.RATE_OF_GRANT), TOO_MANY_OF_GRANT)
        return self._refusal(Door.TOKEN, [share])

    def _of_network(self, door: Door, request: Request) -> list[_Share]:
        address = self._addresses.of(request)
        hosted = None if address is None else hosted_by(address)
        if hosted is not None:
            # Nothing of what everybody has: a flood from elsewhere leaves them theirs.
            rate = Rate.of(limits.RATES_OF_HOSTED[door.value])
            return [self._of_block(f"{door.value} {hosted}", rate)]
        one = Rate.of(limits.RATES_OF_ADDRESS[door.value])
        everybody = Rate.of(limits.RATES_OF_ALL[door.value])
        common = [_Share(self._doors, door.value, everybody, TOO_MANY)]
        name = door.value
        if door in _OF_PROGRAMS and of_page(request.requestHeaders):
            # Counted apart in each network, too: who visits a page is not to blame for it.
            name += " pages"
            common.append(_Share(self._doors, name, one.times(limits.PAGES), TOO_MANY))
        networks = [] if address is None else nested(address)
        blocks = [self._of_block(f"{name} {where}", one.times(many)) for where, many in networks]
        return blocks + common

    def _of_block(self, name: str, rate: Rate) -> _Share:
        return _Share(self._blocks, name, rate, TOO_MANY_OF_ADDRESS)

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
        if self._told.may_say(name, now):
            self.log.warn(
                "too many requests", door=door.value, of=share.name, reason=share.refusal.reason
            )
