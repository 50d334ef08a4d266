"""Parts that do what another one does, and tell a meter how long it took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fjmcp.broker.exchanges import Peer
from fjmcp.forge.answers import Introspected, NewPair, Outcome, Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken
from fjmcp.meter import Meter
from fjmcp.store.transactions import Lane, StoreDown, Work

T = TypeVar("T")

Ticks = Callable[[], float]
"""Seconds of a clock that nobody sets."""


@define(eq=False)
class MeasuredPeer:
    """Forgejo, as the credentials know it."""

    _peer: Peer
    _meter: Meter
    _ticks: Ticks

    @property
    def client_id(self) -> str:
        """The peer's."""
        return self._peer.client_id

    @property
    def scopes(self) -> str:
        """The peer's."""
        return self._peer.scopes

    async def exchange(self, code: str, verifier: str) -> Outcome:
        """The peer's."""
        return await self._told("exchange", self._peer.exchange(code, verifier))

    async def refresh(self, token: ForgeToken) -> Outcome:
        """The peer's."""
        return await self._told("refresh", self._peer.refresh(token))

    async def introspect(self, token: ForgeToken) -> Introspected | Troubled:
        """The peer's."""
        return await self._told("introspect", self._peer.introspect(token))

    async def user(self, access: ForgeToken) -> User | Refused | Troubled:
        """The peer's."""
        return await self._told("user", self._peer.user(access))

    async def in_organization(
        self, access: ForgeToken, user: User, organization: str
    ) -> bool | Refused | Troubled:
        """The peer's."""
        asking = self._peer.in_organization(access, user, organization)
        return await self._told("organization", asking)

    async def in_team(
        self, access: ForgeToken, user: User, organization: str, team: str
    ) -> bool | Refused | Troubled:
        """The peer's."""
        return await self._told("team", self._peer.in_team(access, user, organization, team))

    async def _told(self, operation: str, answer: Awaitable[T]) -> T:
        began = self._ticks()
        outcome = "failed"
        try:
            answered = await answer
            outcome = _outcome(answered)
            return answered
        finally:
            self._meter.forge_answered(operation, outcome, self._ticks() - began)


def _outcome(answer: object) -> str:
    match answer:
        case NewPair():
            return "new-pair"
        case Refused():
            return "refused"
        case Troubled():
            return "troubled"
        case _:
            return "answered"


@define(eq=False)
class MeasuredLane:
    """A lane of the store."""

    _lane: Lane
    _name: str
    _meter: Meter
    _ticks: Ticks

    def run(self, work: Work[T]) -> Deferred[T]:
        """The lane's."""
        began = self._ticks()

        def told(result: T | Failure) -> T | Failure:
            outcome = "done"
            if isinstance(result, Failure):
                outcome = "down" if result.check(StoreDown) else "failed"
            self._meter.store_hop(self._name, outcome, self._ticks() - began)
            return result

        return self._lane.run(work).addBoth(told)

    def commits_elsewhere(self) -> Deferred[int]:
        """The lane's; it is no transaction, so it is not counted."""
        return self._lane.commits_elsewhere()

    def close(self) -> Deferred[None]:
        """The lane's."""
        return self._lane.close()
