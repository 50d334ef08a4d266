"""
Which links a grant has: shared or one session's own, started, replaced, capped.

The only place where children live (design §3).  What is found here by one
grant was started for that grant: links are kept by grant and opening, and are
looked up by the *caller's* grant alone (design D1, D4).  A link with an owner
is one session's: nobody else ever gets it, and it has one at a time, but while
a successor takes the place of another.

Two kinds of limit hold: `link_for` starts nothing past a cap, but asks the
longest idle child to go first; and of several who want the same child one
start serves all (design D2, D6).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from random import SystemRandom
from typing import Generic, Protocol, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.links import Link, Phase
from fjmcp.broker.starts import FIRST, MORE, SUCCESSOR, Key, Start, Turns
from fjmcp.children.launch import Launcher
from fjmcp.children.process import End
from fjmcp.children.profiles import Command
from fjmcp.mcp.opening import Opened, Opening
from fjmcp.mcp.wire import Notice
from fjmcp.meter import SILENT, Meter
from fjmcp.refusals import (
    CHILD_BUSY,
    CHILD_START_FAILED,
    CHILDREN_FULL,
    CHILDREN_TOO_OFTEN,
    SHUTTING_DOWN,
    McpRefusal,
)
from fjmcp.tally import Rate
from fjmcp.tasks import Tasks


class Belongs(Protocol):
    """A caller, as far as children are concerned."""

    @property
    def grant_id(self) -> str:
        """The grant; a child is only ever its."""

    @property
    def account_id(self) -> int:
        """The account, whose credential the child is born with."""


class Born(Protocol):
    """A credential, as far as children are concerned."""

    @property
    def version(self) -> int:
        """Counts the account's pairs; a newer one replaces children of older ones."""

    @property
    def expires_at(self) -> float:
        """End of the access token, epoch seconds."""


C = TypeVar("C", bound=Born)
C_co = TypeVar("C_co", bound=Born, covariant=True)


class Usable(Protocol[C_co]):
    """Where credentials come from."""

    async def usable(self, account_id: int) -> C_co | McpRefusal:
        """A credential that is good for a while, refreshed if need be."""


@frozen
class Bounds:
    """
    How much of everything.

    :ivar children: live ones in total.
    :ivar per_account: live ones of one account.
    :ivar in_flight: requests at one child before another one starts.
    :ivar starts: how often one may start for one account.
    :ivar queue: how many wait for that, of one account.
    :ivar start: seconds from spawn to the answer to `initialize`.
    """

    children: int = limits.CHILDREN
    per_account: int = limits.CHILDREN_PER_ACCOUNT
    in_flight: int = limits.CHILD_IN_FLIGHT
    starts: Rate = field(factory=lambda: Rate.of(limits.CHILD_STARTS))
    queue: int = limits.CHILD_STARTS_QUEUE
    start: float = limits.CHILD_START


def _key(grant_id: str, opening: Opening, owner: bytes) -> Key:
    # What a session sets tells no child of its own from another; it is caught up.
    return grant_id, (opening.base if owner else opening).key, owner


@define(eq=False)
class _Ticket:
    """A `link_for` under way.  The end of its grant or session is written on it."""

    grant_id: str
    owner: bytes
    refusal: McpRefusal | None = None


@frozen
class _Failure:
    version: int
    refusal: McpRefusal
    until: float


@define(eq=False, repr=False)
class Pool(Generic[C]):
    """
    The children of this process.

    :ivar counts: of what happened: started, failed, ended, crashed, evicted,
        reaped, replaced.
    :ivar on_link_ended: told of each link that is gone.
    :ivar on_link_said: told what a child says that answers nobody.
    :ivar on_link_tells: is given what a child has for its session, and answers
        whether it could be told; see `LinkHearer.link_tells`.
    """

    log = Logger()

    _launcher: Launcher
    _command_for: Callable[[C], Command]
    _credentials: Usable[C]
    _clock: IReactorTime
    _version: str
    _bounds: Bounds = field(factory=Bounds)
    _meter: Meter = field(default=SILENT, kw_only=True)
    _epoch: Callable[[], float] = field(kw_only=True)
    """The time by which credentials end, which may be set; the clock measures."""
    on_link_ended: Callable[[Link], None] = field(default=lambda link: None)
    on_link_said: Callable[[Link, Notice], None] = field(default=lambda link, notice: None)
    on_link_tells: Callable[[Link, bytes], bool] = field(default=lambda link, line: False)
    counts: Counter[str] = field(factory=Counter, init=False)
    _open: dict[Key, list[Link]] = field(factory=dict, init=False)
    _starts: list[Start] = field(factory=list, init=False)
    _leaving: set[Link] = field(factory=set, init=False)
    _tickets: set[_Ticket] = field(factory=set, init=False)
    _failures: dict[str, _Failure] = field(factory=dict, init=False)
    _answers: OrderedDict[tuple[str, str], Opened] = field(factory=OrderedDict, init=False)
    _turns: Turns = field(factory=Turns, init=False)
    _stopping: bool = field(default=False, init=False)
    _tasks: Tasks = field(factory=Tasks, init=False)

    @_epoch.default
    def _same_clock(self) -> Callable[[], float]:
        return self._clock.seconds

    # --- asking ----------------------------------------------------------------

    async def link_for(
        self, caller: Belongs, opening: Opening, owner: bytes = b""
    ) -> Link | McpRefusal:
        """
        A link of the caller's grant that was told `opening` and has room.

        With an `owner`, the digest of a session's id, it is that session's own;
        it may have been told of other things that the session set: see
        `Link.catch_up`.

        Ask it without an `await` between: what is true of it here may be
        otherwise after one.
        """
        ticket = _Ticket(caller.grant_id, owner)
        self._tickets.add(ticket)
        try:
            return await self._find_or_start(ticket, caller.account_id, opening)
        finally:
            self._tickets.discard(ticket)

    def rebound(self, bounds: Bounds) -> None:
        """Other bounds, for what starts from now on; nothing is ended for them."""
        self._bounds = bounds

    async def opened_for(
        self, caller: Belongs, opening: Opening, owner: bytes = b""
    ) -> Opened | McpRefusal:
        """
        The answer to a client's `initialize`: as it was given to this grant
        for an equal opening, else a child's (design D1), as `link_for` finds it.
        """
        key = (caller.grant_id, opening.key)
        opened = self._answers.get(key)
        if opened is not None and not self._stopping:
            self._answers.move_to_end(key)
            return opened
        link = await self.link_for(caller, opening, owner)
        return link if isinstance(link, McpRefusal) else link.opened

    def find(self, caller: Belongs, opening: Opening) -> Link | None:
        """A shared link of the caller's grant that is there already; None starts nothing."""
        links = self._open.get(_key(caller.grant_id, opening, b""), [])
        return next((link for link in reversed(links) if link.usable), None)

    def owned(self, caller: Belongs, owner: bytes) -> list[Link]:
        """A session's own links under the caller's grant, those that start or leave among them."""
        return [
            link
            for link in self.links()
            if owner and link.owner == owner and link.grant_id == caller.grant_id
        ]

    def owners(self, account_id: int) -> set[bytes]:
        """The sessions of an account that have a child of their own, unless it leaves."""
        return {
            link.owner
            for link in self.links()
            if link.owner and link.account_id == account_id and not link.leaving
        }

    def links(self) -> tuple[Link, ...]:
        """All that live, those that start or leave among them."""
        starting = (start.link for start in self._starts if start.outcome is None)
        return (
            *(link for links in self._open.values() for link in links),
            *(link for link in starting if link is not None and link not in self._leaving),
            *self._leaving,
        )

    def grants(self) -> set[str]:
        """The grants that have a child, or for which one is asked."""
        return {
            *(ticket.grant_id for ticket in self._tickets),
            *(start.key[0] for start in self._starts),
            *(link.grant_id for link in self.links()),
        }

    async def _find_or_start(
        self, ticket: _Ticket, account_id: int, opening: Opening
    ) -> Link | McpRefusal:
        key = _key(ticket.grant_id, opening, ticket.owner)
        until: float | None = None
        while True:
            refusal = self._refusal(ticket)
            if refusal is not None:
                return refusal
            credential = await self._credentials.usable(account_id)
            refusal = self._refusal(ticket)
            if refusal is not None:
                return refusal
            if isinstance(credential, McpRefusal):
                return credential
            link = self._roomy(key, credential.version)
            if link is not None:
                return link
            full = self._full(key, credential.version)
            if full is not None:
                now = self._clock.seconds()
                until = now + limits.ROOM if until is None else until
                if until <= now or full.crowd >= limits.ROOM_WAITERS:
                    return CHILD_BUSY
                await full.room(until - now)
                continue
            start = self._joinable(key, credential.version)
            if start is None:
                failure = self._failure(ticket.grant_id, credential.version)
                if failure is not None:
                    return self._older(key) or failure
                why = self._why(key, credential.version)
                wait = 0.0 if why == SUCCESSOR else self._turn(account_id)
                if wait is None:
                    return CHILDREN_TOO_OFTEN
                start = self._begin(key, account_id, opening, credential, why, wait)
            elif len(start.waiting) >= self._bounds.in_flight + limits.ROOM_WAITERS:
                # As many as would find room or wait for it; each holds its request.
                return CHILD_BUSY
            outcome = await start.wait()
            refusal = self._refusal(ticket)
            if refusal is not None:
                return refusal
            if isinstance(outcome, McpRefusal):
                return self._older(key) or outcome
            if not outcome.usable:
                return CHILD_START_FAILED
            if outcome.in_flight < self._bounds.in_flight:
                return outcome

    def _refusal(self, ticket: _Ticket) -> McpRefusal | None:
        return SHUTTING_DOWN if self._stopping else ticket.refusal

    def _roomy(self, key: Key, version: int) -> Link | None:
        """The link to ask: the fullest that has room, so that others fall idle."""
        roomy = [
            link
            for link in self._open.get(key, ())
            if link.usable and link.version >= version and link.in_flight < self._bounds.in_flight
        ]
        return max(roomy, key=lambda link: link.in_flight, default=None)

    def _full(self, key: Key, version: int) -> Link | None:
        """A session's own link that has no room: no other one could stand in for it."""
        _, _, owner = key
        links = self._open.get(key, ()) if owner else ()
        return next((link for link in links if link.usable and link.version >= version), None)

    def _older(self, key: Key) -> Link | None:
        """
        A link that a successor was to replace but could not.

        Its credential is not the newest; it serves while it has not ended.
        """
        now = self._epoch()
        for link in self._open.get(key, ()):
            if link.usable and link.expires_at > now and link.in_flight < self._bounds.in_flight:
                return link
        return None

    def _joinable(self, key: Key, version: int) -> Start | None:
        for start in self._starts:
            if (
                start.key == key
                and start.version >= version
                and start.outcome is None
                and (start.key[2] or len(start.waiting) < self._bounds.in_flight)
            ):
                return start
        return None

    # --- starting -----------------------------------------------------------------

    def _why(self, key: Key, version: int) -> str:
        """For what one starts now."""
        here = [link for link in self._open.get(key, ()) if link.usable]
        if not here:
            return FIRST
        return MORE if any(link.version >= version for link in here) else SUCCESSOR

    def _turn(self, account_id: int) -> float | None:
        return self._turns.book(
            account_id, self._bounds.starts, self._bounds.queue, self._clock.seconds()
        )

    def _begin(
        self, key: Key, account_id: int, opening: Opening, credential: C, why: str, wait: float
    ) -> Start:
        start = Start(key, account_id, credential.version, why)
        self._starts.append(start)
        self._tasks.start(self._run(start, opening, credential, wait), "starting a child")
        return start

    async def _run(self, start: Start, opening: Opening, credential: C, wait: float) -> None:
        outcome: Link | McpRefusal = CHILD_START_FAILED
        try:
            if wait > 0:
                await start.pause(self._clock, wait)
            refusal = await self._make_room(start)
            if refusal is CHILDREN_FULL and start.why != SUCCESSOR:
                self._turns.give_back(start.account_id, self._bounds.starts)
            outcome = refusal or await self._spawn(start, opening, credential)
        finally:
            # Even if the above has a fault: nobody may wait for ever, no child be nobody's.
            self._starts.remove(start)
            if isinstance(outcome, McpRefusal) and start.link is not None:
                self._discard(start.link, outcome)
            start.settle(outcome)

    async def _make_room(self, start: Start) -> McpRefusal | None:
        """Claim a place for one more child, or say that there is none."""
        while start.outcome is None:
            crowd = self._crowd(start)
            if crowd is None:
                start.claimed = True
                return None
            idle = [link for link in crowd if link.idle and not link.leaving]
            going = [link for link in crowd if link.in_flight == 0 and link.leaving]
            if idle:
                victim = min(idle, key=lambda link: link.idle_since)
                self.counts["evicted"] += 1
                self._retire(victim, "evicted", 0.0)
            elif going:
                victim = going[0]
            else:
                self.log.warn("no room for a child", grant=start.key[0], account=start.account_id)
                return CHILDREN_FULL
            await victim.gone()
        return CHILD_START_FAILED

    def _crowd(self, start: Start) -> list[Link] | None:
        """The links of which one must go first; None if there is room."""
        # Design D6: one successor at a time may exceed a cap.
        spare = 1 if start.why == SUCCESSOR else 0
        claims = [other for other in self._starts if other.claimed]
        settled = [
            *(link for links in self._open.values() for link in links),
            *self._leaving,
        ]
        ours = [link for link in settled if link.account_id == start.account_id]
        our_claims = [claim for claim in claims if claim.account_id == start.account_id]
        if len(ours) + len(our_claims) >= self._bounds.per_account + spare:
            return ours
        if len(settled) + len(claims) >= self._bounds.children + spare:
            return settled
        return None

    async def _spawn(self, start: Start, opening: Opening, credential: C) -> Link | McpRefusal:
        if start.outcome is not None:
            return start.outcome
        command = self._command_for(credential)
        link = start.link = Link.to(
            self._launcher,
            command,
            grant_id=start.key[0],
            account_id=start.account_id,
            opening=opening,
            owner=start.key[2],
            version=credential.version,
            expires_at=credential.expires_at,
            hearer=self,
            clock=self._clock,
            meter=self._meter,
        )
        born = self._clock.seconds()
        opened = await link.start(self._version, self._bounds.start)
        seconds = self._clock.seconds() - born
        if isinstance(opened, Opened) and not link.usable:
            opened = CHILD_START_FAILED
        if isinstance(opened, McpRefusal):
            self._not_started(start, link, command.program, opened, seconds)
            return opened
        self._started(start, link, opened, seconds)
        return link

    def _started(self, start: Start, link: Link, opened: Opened, seconds: float) -> None:
        self.counts["started"] += 1
        self._meter.child_started(start.why, seconds)
        self.log.info(
            "child started",
            pid=link.pid,
            grant=link.grant_id,
            account=link.account_id,
            opening=link.opening.base.key[:8],
            shared=not link.owner,
            revision=opened.revision,
            server=opened.server_name,
            server_version=opened.server_version,
            credential=link.version,
            cause=start.why,
            seconds=round(seconds, 3),
        )
        self._failures.pop(link.grant_id, None)
        told = start.key[:2]
        self._answers[told] = opened
        self._answers.move_to_end(told)
        while len(self._answers) > limits.OPENINGS:
            self._answers.popitem(last=False)
        links = self._open.setdefault(start.key, [])
        older = [other for other in links if other.version < link.version]
        links.append(link)
        for other in older:
            self.counts["replaced"] += 1
            self._retire(other, "replaced", limits.DRAIN)

    def _not_started(
        self, start: Start, link: Link, program: str, refusal: McpRefusal, seconds: float
    ) -> None:
        self.counts["failed"] += 1
        self._meter.child_not_started(refusal.reason, seconds)
        if link.leaving:
            return
        self.log.error(
            "child did not start",
            pid=link.pid,
            program=program,
            grant=link.grant_id,
            account=link.account_id,
            reason=refusal.reason,
            seconds=round(seconds, 3),
            last_words=link.last_words,
        )
        now = self._clock.seconds()
        for grant_id in [grant for grant, old in self._failures.items() if old.until <= now]:
            del self._failures[grant_id]
        self._failures[link.grant_id] = _Failure(start.version, refusal, now + limits.CHILD_RETRY)

    def _failure(self, grant_id: str, version: int) -> McpRefusal | None:
        failure = self._failures.get(grant_id)
        if failure is None or failure.version != version:
            return None
        left = failure.until - self._clock.seconds()
        # More than all of it is left when the clock was set back.
        return failure.refusal if 0 < left <= limits.CHILD_RETRY else None

    # --- upkeep --------------------------------------------------------------------

    def reap(self, idle: float) -> None:
        """
        Let the children go that nobody asked for `idle` seconds.

        Their sessions stay, and get another child at their next request.
        """
        before = self._clock.seconds() - idle
        for link in [link for links in self._open.values() for link in links]:
            if link.usable and link.idle and link.idle_since <= before:
                self.counts["reaped"] += 1
                self._retire(link, "idle", 0.0)

    async def rotate(self) -> None:
        """
        Refresh the credentials of accounts with a live child where they end soon,
        and replace children that were born with an older one (design D7).

        A credential in trouble changes nothing; one that is dead has ended its
        children by itself.
        """
        newest = [max(links, key=lambda link: link.version) for links in self._open.values()]
        # In no order of theirs, so that one that takes long does not always delay the same.
        SystemRandom().shuffle(newest)
        for link in newest:
            try:
                credential = await self._credentials.usable(link.account_id)
                if isinstance(credential, McpRefusal) or not link.usable:
                    continue
                if link.version < credential.version:
                    await self.link_for(link, link.opening, link.owner)
            except CancelledError:
                raise
            except Exception:
                self.log.failure("while rotating {pid}", pid=link.pid)

    # --- ending --------------------------------------------------------------------

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        """
        End at once all that runs for a grant; whoever waits gets `refusal`.

        Comes back when no child of the grant lives.  The grant may come back
        (a credential that died and was renewed): nothing of it is remembered.
        """
        self._failures.pop(grant_id, None)
        for key in [key for key in self._answers if key[0] == grant_id]:
            del self._answers[key]
        for ticket in self._tickets:
            if ticket.grant_id == grant_id:
                ticket.refusal = refusal
        for start in [start for start in self._starts if start.key[0] == grant_id]:
            self._abort(start, refusal)
        ours = [link for link in self.links() if link.grant_id == grant_id]
        await DeferredList([self._kill(link, "grant ended", refusal) for link in ours])

    def end_session(self, owner: bytes, refusal: McpRefusal) -> None:
        """
        A session has ended: its own child drains, whatever grant it is of.

        Whoever waits for it gets `refusal`, and so do its open questions.
        """
        for ticket in self._tickets:
            if ticket.owner == owner:
                ticket.refusal = refusal
        for start in [start for start in self._starts if start.key[2] == owner]:
            self._abort(start, refusal)
        for link in [link for link in self.links() if link.owner == owner]:
            link.orphan(refusal)
            if not link.leaving:
                self._retire(link, "session ended", limits.DRAIN)

    async def stop(self, drain: float) -> None:
        """
        End all children: calls in flight get `drain` seconds.

        Comes back when none lives.  May be called again; nothing starts after.
        """
        self._stopping = True
        for start in list(self._starts):
            self._abort(start, SHUTTING_DOWN)
        for link in self.links():
            if link.leaving:
                self._tasks.start(link.drain(drain), "stopping a child")
            else:
                self._retire(link, "stopped", drain)
        await DeferredList([link.gone() for link in self.links()])
        await self._tasks.settle()

    def _abort(self, start: Start, refusal: McpRefusal) -> None:
        link = start.link
        start.settle(refusal)
        if link is not None:
            self._kill(link, "aborted", refusal)

    def _kill(self, link: Link, why: str, refusal: McpRefusal) -> Deferred[End]:
        self._leave(link, why)
        return link.kill(refusal)

    def _retire(self, link: Link, why: str, drain: float) -> None:
        self._leave(link, why)
        self._tasks.start(link.drain(drain), "stopping a child")

    def _discard(self, link: Link, refusal: McpRefusal) -> None:
        if link.phase is not Phase.ENDED:
            self._kill(link, "not started", refusal)

    def _leave(self, link: Link, why: str) -> None:
        link.leaving = link.leaving or why
        self._drop(link)
        self._leaving.add(link)

    def _drop(self, link: Link) -> None:
        key = _key(link.grant_id, link.opening, link.owner)
        links = self._open.get(key, [])
        if link in links:
            links.remove(link)
            if not links:
                del self._open[key]

    # --- what links tell -------------------------------------------------------------

    def link_ended(self, link: Link, end: End) -> None:
        """A link: its child is gone."""
        self._drop(link)
        self._leaving.discard(link)
        self.counts["ended"] += 1
        reason = link.leaving or ("crashed" if link.was_open else "not started")
        self._meter.child_ended(reason)
        if reason == "crashed":
            self.counts["crashed"] += 1
            self.log.warn("child crashed", pid=link.pid, last_words=link.last_words)
        self.log.info(
            "child ended",
            pid=link.pid,
            grant=link.grant_id,
            account=link.account_id,
            reason=reason,
            code=end.code,
            signal=end.signal,
            seconds=round(end.seconds, 3),
            trouble=end.trouble,
        )
        with self.log.failuresHandled("while telling of the end of child {pid}", pid=link.pid):
            self.on_link_ended(link)

    def link_said(self, link: Link, notice: Notice) -> None:
        """A link: its child said something that answers nobody."""
        self.on_link_said(link, notice)

    def link_tells(self, link: Link, line: bytes) -> bool:
        """A link: its child has a message for its session."""
        return self.on_link_tells(link, line)
