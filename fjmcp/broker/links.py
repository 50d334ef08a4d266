"""
A link: one child, and the conversation with it.

::

    STARTING ──initialize answered──> OPEN ──drain──> DRAINING ──> ENDED
        └───────── it fails, is too slow, or is killed ──────────────┘

Every asker is answered exactly once, unless it leaves: by the child, or with
an error when the child ends, takes too long, or is taken away.
A link belongs to one grant for all its life, and perhaps to one session of it.
What its child says that answers nobody is for that session; of a link that
several share it is nobody's, but that a list has changed (design §3).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.calls import Asker, Call, Calls
from fjmcp.broker.questions import Questions
from fjmcp.children.launch import Launcher
from fjmcp.children.process import Child, End
from fjmcp.children.profiles import Command
from fjmcp.children.stderr import Trickle
from fjmcp.mcp.conversation import (
    Answer,
    Aside,
    Conversation,
    Progress,
    Question,
    Stray,
    Withdrawn,
)
from fjmcp.mcp.opening import Opened, Opening, initialize_params, read_result
from fjmcp.mcp.wire import (
    NULL,
    Notice,
    Reply,
    Request,
    encode_notice,
    encode_reply,
    error_reply,
    read_line,
)
from fjmcp.meter import SILENT, Meter
from fjmcp.refusals import (
    CHILD_CRASHED,
    CHILD_DRAINED,
    CHILD_MISSING,
    CHILD_START_FAILED,
    CHILD_START_SLOW,
    CHILD_UNREADABLE,
    NO_QUESTIONS,
    TOO_DEEP,
    McpRefusal,
)

_INITIALIZE: Final = Request(b"0", "initialize")
_INITIALIZED: Final = encode_notice("notifications/initialized")


class LinkHearer(Protocol):
    """Who a link belongs to: the pool."""

    def link_ended(self, link: Link, end: End) -> None:
        """Its child is gone and its askers are answered."""

    def link_said(self, link: Link, notice: Notice) -> None:
        """Its child said something that answers nobody and that no stream took."""

    def link_tells(self, link: Link, line: bytes) -> bool:
        """
        Its child has a message for its session: for the stream of that, which
        belongs to no call.  False if there is none.
        """


class Phase(Enum):
    """How far the life of a link has come."""

    STARTING = "starting"
    OPEN = "open"
    DRAINING = "draining"
    ENDED = "ended"


@define(eq=False, repr=False)
class Link:
    """
    One child of one grant.

    :ivar opening: what its child was told.
    :ivar owner: the only session that it serves, by the digest of its id; b""
        if any with an equal opening may share it.
    :ivar version: of the account's credential that the child was born with.
    :ivar expires_at: when that credential's access token ends, epoch seconds.
    :ivar idle_since: when its last call or question ended, by its clock;
        means something only while it is idle.
    :ivar leaving: why it is taken away; "" while it is not.
    """

    log = Logger()

    grant_id: str
    account_id: int
    opening: Opening
    version: int
    expires_at: float
    _hearer: LinkHearer
    _clock: IReactorTime
    owner: bytes = field(default=b"", kw_only=True)
    _meter: Meter = field(default=SILENT, kw_only=True)
    phase: Phase = field(default=Phase.STARTING, init=False)
    idle_since: float = field(default=0.0, init=False)
    leaving: str = field(default="", init=False)
    _child: Child = field(init=False)
    _conversation: Conversation = field(init=False)
    _questions: Questions = field(init=False)
    _calls: Calls = field(init=False)
    _replays: dict[int, str] = field(factory=dict, init=False)
    """The methods of what is told again, by number, until it is answered."""
    _opened: Opened | None = field(default=None, init=False)
    _start: Deferred[Reply | McpRefusal] | None = field(default=None, init=False)
    _replayed: Deferred[None] | None = field(default=None, init=False)
    _strays: Trickle = field(init=False)

    @classmethod
    def to(
        cls,
        launcher: Launcher,
        command: Command,
        *,
        grant_id: str,
        account_id: int,
        opening: Opening,
        owner: bytes = b"",
        version: int,
        expires_at: float,
        hearer: LinkHearer,
        clock: IReactorTime,
        meter: Meter = SILENT,
    ) -> Link:
        """A link to a child that is not started yet."""
        link = cls(
            grant_id,
            account_id,
            opening,
            version,
            expires_at,
            hearer,
            clock,
            owner=owner,
            meter=meter,
        )
        link._child = Child(launcher, command, link, clock)
        link._strays = Trickle(clock)
        # Unlike that of any other child, those of an earlier process included.
        link._conversation = Conversation(secrets.token_hex(4))
        link._calls = Calls(
            link._conversation,
            clock,
            meter,
            link._child.send,
            link._rest,
            lambda: link.pid,
        )
        link._questions = Questions(
            link._conversation,
            clock,
            link._child.send,
            link._place,
            link._rest,
            None if owner else NO_QUESTIONS,
        )
        return link

    @property
    def pid(self) -> int | None:
        """The child's process number."""
        return self._child.pid

    @property
    def was_open(self) -> bool:
        """Whether the child ever answered `initialize`."""
        return self._opened is not None

    @property
    def opened(self) -> Opened:
        """What the child answered to `initialize`; only of a link that was started."""
        if self._opened is None:
            raise RuntimeError("this link was not started")
        return self._opened

    @property
    def in_flight(self) -> int:
        """The calls without an answer."""
        return len(self._calls)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for it, nor it for anybody."""
        return not self._calls and not self._questions

    @property
    def crowd(self) -> int:
        """Those who wait in `room`."""
        return self._calls.crowd

    @property
    def usable(self) -> bool:
        """Whether it takes requests."""
        return self.phase is Phase.OPEN and self._child.usable

    @property
    def last_words(self) -> list[str]:
        """The last lines of the child's stderr, its token blanked."""
        return self._child.last_words

    def gone(self) -> Deferred[End]:
        """Fires when the child has ended; may be cancelled without harm."""
        return self._child.ended()

    # --- its life -----------------------------------------------------------

    async def start(self, version: str, limit: float) -> Opened | McpRefusal:
        """
        Start the child and tell it the opening, all that a session set included.

        Must not be cancelled: the child would be nobody's.

        :param version: of fjmcp, for `clientInfo`.
        :param limit: seconds until the answer to `initialize`.
        """
        answered: Deferred[Reply | McpRefusal] = Deferred()
        self._start = answered
        deadline = self._clock.callLater(limit, self._too_slow)
        self._child.start()
        params = initialize_params(self.opening, version)
        ask = self._conversation.ask(Request(_INITIALIZE.id, _INITIALIZE.method, params))
        self._child.send(ask.line)
        reply = await answered
        if deadline.active():
            deadline.cancel()
        if isinstance(reply, McpRefusal):
            return reply
        opened = None if reply.result is None else read_result(reply.result)
        if opened is None:
            self.log.warn(
                "child's answer to initialize is not one",
                pid=self.pid,
                error=(reply.error or b"")[:500].decode("utf-8", "replace"),
            )
            self.kill(CHILD_START_FAILED)
            return CHILD_START_FAILED
        self._opened = opened
        self._child.send(_INITIALIZED)
        await self._replay()
        if self.phase is not Phase.STARTING:
            return CHILD_START_FAILED
        self.phase = Phase.OPEN
        self.idle_since = self._clock.seconds()
        return opened

    async def _replay(self) -> None:
        self._tell_again(self.opening.replay())
        if not self._replays:
            return
        told = self._replayed = Deferred()
        try:
            await told.addTimeout(limits.REPLAY, self._clock)
        except TimeoutError:
            self.log.warn("child is slow to take up a session", pid=self.pid)
        finally:
            self._replayed = None

    def _tell_again(self, requests: Iterable[tuple[str, bytes]]) -> None:
        for method, params in requests:
            ask = self._conversation.ask(Request(_INITIALIZE.id, method, params))
            if self._child.send(ask.line):
                self._replays[ask.number] = method
            else:
                self._conversation.forget(ask.number)

    def _told_again(self, number: int, reply: Reply) -> None:
        method = self._replays.pop(number)
        if reply.error is not None:
            self.log.warn(
                "child refuses what its session had set",
                pid=self.pid,
                method=method,
                error=reply.error[:500].decode("utf-8", "replace"),
            )
        if not self._replays and self._replayed is not None:
            self._replayed.callback(None)

    def catch_up(self, opening: Opening) -> None:
        """
        Bring the child to `opening`, of the same base as its own.

        What it is asked next it is asked after this.
        """
        if self._opened is not None and self.phase in (Phase.STARTING, Phase.OPEN):
            self._tell_again(opening.since(self.opening))
        self.opening = opening

    async def drain(self, limit: float) -> End:
        """
        Take nothing new, let the calls in flight end, then end the child.

        Calls that `limit` seconds are not enough for get CHILD_DRAINED.
        May run twice at a time; the shorter limit holds.
        """
        self._take_no_more()
        await self._calls.none(limit)
        self._questions.close(CHILD_DRAINED)
        self._calls.end(CHILD_DRAINED)
        self._settle(CHILD_DRAINED)
        return await self._child.stop()

    def kill(self, refusal: McpRefusal) -> Deferred[End]:
        """End the calls with `refusal` and the child at once."""
        self._take_no_more()
        self._questions.close(refusal)
        self._calls.end(refusal)
        self._settle(refusal)
        return self._child.kill()

    def _take_no_more(self) -> None:
        if self.phase in (Phase.STARTING, Phase.OPEN):
            self.phase = Phase.DRAINING
        self._calls.wake()

    def _too_slow(self) -> None:
        self.kill(CHILD_START_SLOW)

    def _settle(self, outcome: Reply | McpRefusal) -> None:
        start, self._start = self._start, None
        if start is not None:
            start.callback(outcome)
        elif self._replayed is not None:
            self._replayed.callback(None)

    # --- requests -------------------------------------------------------------

    def ask(self, request: Request, asker: Asker) -> int:
        """
        Ask the child; the number is for `cancel` and `leave`.

        A link that takes nothing more answers `asker` with CHILD_BUSY, after
        this returned.
        """
        return self._calls.ask(request, asker, self.usable)

    def cancel(self, number: int, params: bytes = b"") -> None:
        """
        Tell the child that a call is cancelled.

        :param params: of the client's notice.

        The asker still gets an answer: the child's, or soon an error.
        """
        self._calls.cancel(number, params)

    def leave(self, number: int) -> None:
        """The asker is gone.  The call goes on; nobody hears its answer."""
        self._calls.leave(number)

    async def room(self, limit: float) -> None:
        """Comes back when a call has ended, none is taken any more, or after `limit` seconds."""
        await self._calls.room(limit)

    def _rest(self) -> None:
        if self.idle:
            self.idle_since = self._clock.seconds()

    # --- what its session says, besides requests --------------------------------------

    def answer(self, reply: Reply) -> bool:
        """The client answers a question of the child; False if it is of none of these."""
        return self._questions.answer(reply)

    def progress(self, params: bytes) -> bool:
        """The client tells of a question of the child; False if it is of none of these."""
        return self._questions.progress(params)

    def tell(self, notice: Notice) -> None:
        """A notification for the child, if it is one that is not about to go."""
        if self._opened is not None and self.phase in (Phase.STARTING, Phase.OPEN):
            self._child.send(encode_notice(notice.method, notice.params))

    def orphan(self, refusal: McpRefusal) -> None:
        """Its session has ended: nobody can be asked any more; what is open gets `refusal`."""
        self._questions.close(refusal)

    # --- what the child says ------------------------------------------------------

    def heard(self, line: bytes) -> None:
        """The child said a line."""
        message = read_line(line)
        match self._conversation.hear(message):
            case Answer(number=number, reply=reply, line=answer):
                if self._start is not None:
                    self._settle(reply)
                elif number in self._replays:
                    self._told_again(number, reply)
                else:
                    outcome = "result" if reply.error is None else "error"
                    self._calls.answer(number, answer, outcome)
            case Progress(number=number, line=news):
                self._calls.tell(number, news)
            case Question() as question:
                self._questions.ask(question)
            case Withdrawn() as withdrawn:
                self._questions.withdraw(withdrawn)
            case Aside(notice=notice):
                if not self._place(encode_notice(notice.method, notice.params)):
                    self._hearer.link_said(self, notice)
            case Stray(reason=reason):
                self._stray(message, reason)

    def _place(self, line: bytes) -> bool:
        """
        Say to one stream of the session what names no request of ours: to the
        only call, to the stream that it opened, to the oldest call that hears it.
        """
        if not self.owner:
            return False
        only = self._calls.only()
        if only is not None and only[1].hears(line):
            return True
        return self._hearer.link_tells(self, line) or self._calls.any_hears(line)

    def missed(self) -> None:
        """A line of the child is lost.  It can only be told whose if one waits."""
        self._only_call(lambda call: error_reply(call.id, CHILD_UNREADABLE))

    def ended(self, end: End) -> None:
        """The child is gone."""
        self.phase = Phase.ENDED
        self._calls.wake()
        self._questions.close(CHILD_CRASHED)
        self._settle(CHILD_MISSING if end.missing else CHILD_START_FAILED)
        self._calls.end(CHILD_CRASHED)
        self._hearer.link_ended(self, end)

    def _stray(self, message: object, reason: str) -> None:
        if self._strays.passes():
            self.log.debug(
                "child says what nobody asked",
                pid=self.pid,
                reason=reason,
                left_out=self._strays.held(),
            )
        if message is TOO_DEEP:
            self.missed()
        elif isinstance(message, Reply) and message.id == NULL and message.error is not None:
            # forgejo-mcp answers so when a tool panics.
            if self._start is not None:
                self._settle(message)
            else:
                self._only_call(lambda call: encode_reply(call.id, error=message.error))

    def _only_call(self, reply: Callable[[Call], bytes]) -> None:
        """Answer what names no call: if one is in flight, it is meant."""
        only = self._calls.only()
        if only is not None:
            number, call = only
            self._calls.answer(number, reply(call), "error")
