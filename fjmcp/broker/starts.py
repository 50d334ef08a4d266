"""
Children on their way, and how often one may begin for an account.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.links import Link
from fjmcp.refusals import CHILD_START_FAILED, McpRefusal
from fjmcp.tally import Rate, Seldom, Tally

Key: TypeAlias = tuple[str, str, bytes]
"""A grant, the key of an opening, and the session whose own child it is, or b""."""

FIRST: Final = "first"
MORE: Final = "more"
SUCCESSOR: Final = "successor"


@define(eq=False)
class Start:
    """
    A child on its way: who waits for it, and what became of it.

    It belongs to the pool and not to the first who asked, who may leave.
    """

    key: Key
    account_id: int
    version: int
    why: str
    claimed: bool = False
    link: Link | None = None
    outcome: Link | McpRefusal | None = None
    waiting: list[Deferred[None]] = field(factory=list)
    _turn: Deferred[None] = field(factory=Deferred)

    async def pause(self, clock: IReactorTime, seconds: float) -> None:
        """Wait for its turn, or until it is settled."""
        due = clock.callLater(seconds, self._turn.callback, None)
        await self._turn
        if due.active():
            due.cancel()

    async def wait(self) -> Link | McpRefusal:
        """What became of it."""
        if self.outcome is None:
            settled: Deferred[None] = Deferred(self.waiting.remove)
            self.waiting.append(settled)
            await settled
        return self.outcome or CHILD_START_FAILED

    def settle(self, outcome: Link | McpRefusal) -> None:
        """Tell all who wait; only the first word counts."""
        if self.outcome is None:
            self.outcome = outcome
            waiting, self.waiting = self.waiting, []
            for settled in waiting:
                settled.callback(None)
            if not self._turn.called:
                self._turn.callback(None)


@define(eq=False)
class Turns:
    """Whose turn it is to have a child started, by account."""

    log = Logger()
    _begun: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _told: Seldom = field(factory=lambda: Seldom(limits.METERED), init=False)

    def book(self, account_id: int, rate: Rate, queue: int, now: float) -> float | None:
        """Count a start; in how many seconds it may begin, None if so many wait already."""
        name = str(account_id)
        wait = self._begun.book(name, rate, queue, now)
        if wait is None and self._told.may_say(name, now):
            self.log.warn("account starts too many children", account=account_id)
        return wait

    def give_back(self, account_id: int, rate: Rate) -> None:
        """There was no room for what was counted."""
        self._begun.give_back(str(account_id), rate)
