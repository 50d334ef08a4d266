"""
One upstream credential per account (design D8).

Forgejo keeps ONE refresh counter per person and application: every code
exchange and every refresh kills the refresh token given out before, whichever
client it was for.  A refresh token that is spent and whose successor is not
stored is a person who has to sign in again.  Therefore:

* here, with `exchanges` behind it, is the only caller of Forgejo's token endpoint;
* a call of it is never cut short by who waits for it, and is claimed in the
  account's row first, so that of all nodes one makes it;
* a pair is stored before it is used, and kept trying to be while the store is down;
* which of two pairs is newer is decided by their counters, not by who came last;
* *refused* means dead only after everybody who may hold a newer pair had the
  time to store it; whatever else goes wrong changes nothing but a time in the row.

A good refresh proves no good account, so one look at the API follows each
(`fjmcp.broker.looks`): a person who may not come in any more is put to sleep.
The claim ends with the commit of the pair, before the look, which needs none:
a claim is about the refresh token, of which one may be spent at a time, and a
look changes nothing at Forgejo.  Its no is written only while the row still has
the version that was looked at; a pair that came in meanwhile brings a look of
its own.  Hence:

* who asks in this process waits for the look, but no longer than for a slow
  refresh; another process may work with the new pair meanwhile, as it might
  have with the old one, whose token lives on at Forgejo anyway;
* an end of the process between the commit and the verdict, a stop, or a store
  that does not take the verdict, loses it: the account works until the next
  refresh looks again, an access token's life later at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import ceil

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.exchanges import Exchanges, Peer, SignedIn
from fjmcp.broker.flights import Flights
from fjmcp.broker.looks import Denied, Looks
from fjmcp.broker.pairs import Pairs
from fjmcp.forge.admission import Admission
from fjmcp.forge.answers import NewPair, Refused, Troubled
from fjmcp.forge.tokens import ForgeToken, Pair
from fjmcp.oauth.tokens import Digest
from fjmcp.refusals import (
    CREDENTIAL_DEAD,
    CREDENTIAL_TROUBLED,
    McpRefusal,
    OAuthRefusal,
    asleep,
)
from fjmcp.store.queries import accounts, exchanges
from fjmcp.store.queries.accounts import Account
from fjmcp.store.queries.exchanges import Exchange
from fjmcp.store.transactions import Cursor, Store, StoreDown
from fjmcp.store.vault import Sealing, Unsealable
from fjmcp.tasks import Tasks

__all__ = ["Credential", "Credentials", "SignedIn"]


@frozen
class Credential:
    """An account's right to use Forgejo, good until `expires_at`."""

    account_id: int
    access: ForgeToken
    version: int
    """Grows with each pair: a child born with a lower one has an older token."""
    expires_at: float


async def _nobody(account_id: int) -> None:
    """Nothing runs for accounts."""


@define(eq=False)
class Credentials:
    """
    Every account's credential: kept fresh, and fetched at sign-in.

    `owner` names this process, differently after each start.  `lead`: a
    credential with fewer seconds left is refreshed first.  `suspend` is told of
    an account whose credential has died, or whose person may not come in.
    """

    log = Logger()
    _store: Store
    _ring: Sealing
    _forge: Peer
    _clock: IReactorTime
    _owner: str
    lead: float = limits.REFRESH_LEAD
    _suspend: Callable[[int], Awaitable[None]] = _nobody
    _tasks: Tasks = field(factory=Tasks, init=False)
    _pairs: Pairs = field(init=False)
    _looks: Looks = field(init=False)
    _exchanges: Exchanges = field(init=False)
    _refreshes: Flights[int, Account | None] = field(init=False)
    _stopping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._pairs = Pairs(self._store, self._ring, self._clock)
        self._looks = Looks(self._forge, self._clock)
        self._exchanges = Exchanges(
            self._store, self._clock, self._pairs, self._forge, self._looks, self._slept
        )
        self._refreshes = Flights(self._tasks)

    @property
    def admission(self) -> Admission:
        """Who may come in; holds from the next look on."""
        return self._looks.admission

    @admission.setter
    def admission(self, rule: Admission) -> None:
        self._looks.admission = rule

    # --- using ------------------------------------------------------------------

    async def usable(self, account_id: int) -> Credential | McpRefusal:
        """
        A credential to work with, refreshed first when less than the lead is left.

        :raises StoreDown: the row cannot be read.
        """
        row = await self._store.read(accounts.find, account_id)
        for _ in range(limits.REFRESH_ROUNDS):
            # A refresh under way may have stored its pair, and be looking at the person.
            if row is None or row.dead or not (self._due(row) or account_id in self._refreshes):
                break
            fresh = self._refreshes.join(account_id, partial(self._renew, row))
            if row.expires_at > self._clock.seconds():
                fresh.addTimeout(limits.REFRESH_PATIENCE, self._clock)
            try:
                latest = await fresh
            except TimeoutError:
                break  # the old access token serves, and the refresh goes on
            changed = latest is None or latest.version != row.version
            row = latest
            if not changed:
                break
        if row is None or row.dead:
            return asleep(CREDENTIAL_DEAD, None if row is None else row.dead_reason)
        now = self._clock.seconds()
        if row.expires_at <= now:
            wait = max(1, ceil((row.retry_after or 0.0) - now))
            return evolve(CREDENTIAL_TROUBLED, retry_after=wait)
        try:
            pair = self._pairs.open(row)
        except Unsealable:
            await self._lost(row)
            return CREDENTIAL_DEAD
        return Credential(account_id, pair.access, row.version, row.expires_at)

    async def refresh_sleeping(self) -> None:
        """
        Refresh what nobody used for long, while its refresh token still lives.

        One that is in trouble is left for a later sweep.
        """
        now = self._clock.seconds()
        before = now - limits.SLEEPING_AGE
        rows = await self._store.read(accounts.sleeping, before, now, limits.SLEEPING_REFRESHES)
        for row in rows:
            await self._refreshes.join(row.account_id, partial(self._renew, row))

    async def settle(self) -> None:
        """
        At a stop: wait for the calls in flight and their commits, and begin no other.

        Comes back after `limits.CREDENTIALS_SETTLE` at the latest.
        """
        self._stopping = self._exchanges.stopping = True
        settled: Deferred[bool] = Deferred()
        ended = Deferred.fromCoroutine(self._tasks.settle())
        timer = self._clock.callLater(limits.CREDENTIALS_SETTLE, settled.callback, False)

        def in_time(ignored: object) -> None:
            if timer.active():
                timer.cancel()
                settled.callback(True)

        ended.addBoth(in_time)
        if not await settled:
            self.log.critical("stopped with calls of Forgejo's token endpoint in flight")

    def _due(self, row: Account) -> bool:
        now = self._clock.seconds()
        # Where Forgejo's tokens live shorter than the lead, each request would refresh.
        lead = min(self.lead, (row.expires_at - row.received_at) / 2)
        # Received in the future: the clock was set back, and Forgejo's was not.
        set_back = now < row.received_at - limits.CLOCK_STEP
        return (set_back or now >= row.expires_at - lead) and not row.put_off(now)

    # --- refreshing ---------------------------------------------------------------

    async def _renew(self, old: Account) -> Account | None:
        """The row once its version is another, or as it is when that must wait."""
        give_up = self._clock.seconds() + limits.REFRESH_CLAIM
        while True:
            row = await self._store.read(accounts.find, old.account_id)
            now = self._clock.seconds()
            if row is None or row.dead or row.version != old.version or row.put_off(now):
                return row
            # A clock that was set back must not make this longer than it is.
            give_up = min(give_up, now + limits.REFRESH_CLAIM)
            if self._stopping or now >= give_up:
                return row
            if not row.claimed(now):
                claimed = await self._store.write(
                    accounts.claim, row.account_id, row.version, self._owner, now
                )
                if claimed is not None:
                    return await self._spend(claimed)
            await deferLater(self._clock, limits.REFRESH_POLL)

    async def _spend(self, row: Account) -> Account | None:
        """Spend the refresh token of a row that we have claimed."""
        try:
            old = self._pairs.open(row)
        except Unsealable:
            return await self._lost(row)
        outcome = await self._forge.refresh(old.refresh)
        match outcome:
            case NewPair(pair):
                sealed = self._pairs.seal(row.account_id, pair)
                kept = await self._pairs.insist(
                    accounts.keep, row.account_id, row.version, self._owner, sealed
                )
                used = kept is not None and kept.credential == sealed.sealed
                self.log.info(
                    "credential refreshed",
                    account=row.account_id,
                    count=sealed.forge_count,
                    used=used,
                )
                # One that was not needed is used for nothing: what is there had a look of its own.
                return await self._look(kept, pair) if used else kept
            case Refused():
                self.log.warn(
                    "refresh refused, {error}: {description}",
                    account=row.account_id,
                    count=row.forge_count,
                    error=outcome.error,
                    description=outcome.description,
                )
                return await self._refused(row)
            case Troubled():
                self._pairs.alarm(outcome, "refresh", account=row.account_id)
                return await self._put_off(row, outcome.retry_after)

    async def _look(self, kept: Account | None, pair: Pair) -> Account | None:
        """The row after a look at its person with a new pair; only a clear no changes it."""
        if kept is None or kept.dead or self._stopping:
            return kept
        verdict = await self._looks.look(pair.access, kept.account_id)
        if not isinstance(verdict, Denied):
            return kept
        return await self._bury(kept, verdict.refusal.reason)

    async def _refused(self, row: Account) -> Account | None:
        """
        Dead, unless somebody has a newer pair, or may have.

        Exchanges that began before may have killed our refresh token: they end
        first, and what a crash left of them is finished.  Another node whose
        refresh won has `limits.REFRESH_SETTLE` to commit.
        """
        began = self._clock.seconds()
        while True:
            now = self._clock.seconds()
            began = min(began, now)
            latest, pending = await self._store.read(_standing, row.account_id, began, now)
            if latest is None or latest.version != row.version:
                await self._store.write(accounts.release, row.account_id, self._owner)
                return latest
            if not pending and now >= began + limits.REFRESH_SETTLE:
                buried = await self._bury(row, began=began)
                if buried is None or buried.dead or buried.version != row.version:
                    return buried
            if self._stopping or now >= began + 2 * limits.EXCHANGE_CLAIM:
                return await self._put_off(row, None)
            if not await self._exchanges.finish_abandoned(pending):
                # What Forgejo would not tell may be this account's.
                return await self._put_off(row, None)
            if latest.claimed(now) and not latest.claimed(now + limits.REFRESH_CLAIM / 2):
                await self._store.write(
                    accounts.hold, row.account_id, self._owner, now + limits.REFRESH_CLAIM
                )
            await deferLater(self._clock, limits.REFRESH_POLL)

    async def _put_off(self, row: Account, retry_after: float | None) -> Account | None:
        wait = max(limits.REFRESH_RETRY, min(retry_after or 0.0, limits.FORGE_RETRY_AFTER))
        until = self._clock.seconds() + wait
        return await self._store.write(
            accounts.put_off, row.account_id, row.version, self._owner, until
        )

    async def _bury(
        self, row: Account, reason: str | None = None, *, began: float | None = None
    ) -> Account | None:
        buried = await self._store.write(
            _give_up, row, self._owner, began, self._clock.seconds(), reason
        )
        if buried is not None and buried.dead:
            self._slept(buried)
        return buried

    def _slept(self, row: Account) -> None:
        if row.dead_reason is None:
            self.log.warn("credential is dead", account=row.account_id, version=row.version)
        else:
            self.log.warn(
                "account may not come in any more", account=row.account_id, reason=row.dead_reason
            )
        # Not awaited: what it ends may be waiting for us.
        self._tasks.start(self._tell(row.account_id), "putting an account to sleep")

    async def _lost(self, row: Account) -> Account | None:
        self.log.critical(
            "the credential of account {account} does not open: its key is lost, or the row was"
            " changed. The person must sign in again",
            account=row.account_id,
        )
        return await self._bury(row)

    async def _tell(self, account_id: int) -> None:
        await self._suspend(account_id)

    # --- signing in -----------------------------------------------------------------

    async def exchange(self, signin: Digest, code: str, verifier: str) -> SignedIn | OAuthRefusal:
        """
        Redeem the code with which a person came back from Forgejo.

        Runs to its end whoever waits for it.

        :raises StoreDown: nothing is known; a pair that came is finished later.
        """
        return await self._tasks.shield(self._exchanges.run(signin, code, verifier))

    async def recover(self, *, alone: bool = False) -> None:
        """
        At a start: finish, or throw away, the pairs that a crash left on their way.

        `alone`: no other process works on this store.  Else this waits, some
        minutes at most, until what one was working on is given up; so nothing
        should wait for it.
        """
        await self._tasks.shield(self._recover(alone))

    async def _recover(self, alone: bool) -> None:
        if alone:
            # Tried once, before all else that this process writes here: later it might give up
            # an exchange of ours.  Without it the wait is as long as for another process.
            with suppress(StoreDown):
                await self._store.write(accounts.release_all, self._owner)
        await self._exchanges.recover()


def _standing(
    cursor: Cursor, account_id: int, began: float, now: float
) -> tuple[Account | None, list[Exchange]]:
    # One state of the rows: a pair is in either place.
    return accounts.find(cursor, account_id), exchanges.pending(cursor, began, now)


def _give_up(
    cursor: Cursor, row: Account, owner: str, began: float | None, now: float, reason: str | None
) -> Account | None:
    # A pair that came since the last look may be this account's.
    if began is not None and exchanges.pending(cursor, began, now):
        return accounts.find(cursor, row.account_id)
    return accounts.mark_dead(cursor, row.account_id, row.version, owner, now, reason)
