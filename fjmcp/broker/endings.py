"""
The two doors by which a grant ends or sleeps (design D23).

*End* closes the grant's row for ever: revocation, reuse, an operator, expiry.
*Suspend* leaves row and refresh family: a dead credential, a person who may not
come in (blocked at Forgejo, or by the operator's rule).
Either empties the callers, ends what runs for the grant with an error, and
only then is answered.  Sessions stay: the account and client may come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.meter import SILENT, Meter
from fjmcp.refusals import CREDENTIAL_DEAD, GRANT_ENDED, McpRefusal, asleep
from fjmcp.store.queries import accounts, grants
from fjmcp.store.transactions import Cursor, Store


class Runs(Protocol):
    """Something that runs for grants: the pool's children, the open streams."""

    def grants(self) -> set[str]:
        """The grants for which anything runs, or is about to."""

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        """
        End all that runs for this grant, at once.

        Whoever waits for an answer gets `refusal`.  Comes back when nothing
        of the grant can act any more.
        """


@define(eq=False)
class Endings:
    """The doors.  Every grant that ends or sleeps goes through one of them."""

    log = Logger()
    _store: Store
    _callers: Callers
    _clock: IReactorTime
    _meter: Meter = field(default=SILENT, kw_only=True)
    _runs: list[Runs] = field(factory=list, init=False)
    _ending: set[str] = field(factory=set, init=False)

    def also_end(self, runs: Runs) -> None:
        """Name something else that runs for grants."""
        self._runs.append(runs)

    def running(self) -> set[str]:
        """The grants that are in use here, but for those whose end is under way."""
        running = self._callers.grants()
        return running.union(*(runs.grants() for runs in self._runs)) - self._ending

    async def end(self, grant_id: str, reason: str) -> None:
        """Close a grant, its tokens, and all that runs for it."""
        await self._store.write(grants.end, grant_id, reason, self._clock.seconds())
        await self.ended([grant_id], reason)

    async def ended(self, grant_ids: Sequence[str], reason: str) -> None:
        """End what runs for grants whose rows are closed."""
        for grant_id in grant_ids:
            self._callers.forget(grant_id)
            self.log.info("grant ended", grant=grant_id, reason=reason)
            self._meter.grant_ended(reason)
        self._ending.update(grant_ids)
        try:
            await self._stop(grant_ids, GRANT_ENDED)
        finally:
            self._ending.difference_update(grant_ids)

    async def expire(self) -> None:
        """End the grants that were idle too long or grew too old, some at a time."""
        now = self._clock.seconds()
        for grant_id in await self._store.read(grants.expired, now, limits.EXPIRED_GRANTS):
            await self.end(grant_id, "expired")

    async def suspend(self, account_id: int) -> None:
        """Put every grant of an account to sleep until its next sign-in."""
        self._callers.forget_account(account_id)
        sleeping, reason = await self._store.read(_sleeping, account_id)
        for grant_id in sleeping:
            self.log.info("grant sleeps", grant=grant_id, account=account_id)
        await self._stop(sleeping, asleep(CREDENTIAL_DEAD, reason))

    async def _stop(self, grant_ids: Iterable[str], refusal: McpRefusal) -> None:
        # All at once: a child may take seconds to end, and the next one works on meanwhile.
        ends = [
            Deferred.fromCoroutine(self._stop_one(runs, grant_id, refusal))
            for grant_id in grant_ids
            for runs in self._runs
        ]
        await DeferredList(ends)

    async def _stop_one(self, runs: Runs, grant_id: str, refusal: McpRefusal) -> None:
        # One that fails must not keep the next from ending.
        with self.log.failuresHandled("while ending {grant}", grant=grant_id):
            await runs.end_grant(grant_id, refusal)


def _sleeping(cursor: Cursor, account_id: int) -> tuple[list[str], str | None]:
    """The live grants of an account, and why it sleeps."""
    row = accounts.find(cursor, account_id)
    reason = None if row is None else row.dead_reason
    return grants.live_of_account(cursor, account_id), reason
