"""
The calls in flight at one child, and those who wait for one of them to end.

Every asker is answered exactly once, unless it leaves: by the child, or with
an error in place of its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.mcp.conversation import Conversation
from fjmcp.mcp.wire import Request, error_reply
from fjmcp.meter import Meter
from fjmcp.refusals import CALL_CANCELLED, CALL_TOO_LONG, CHILD_BUSY, McpRefusal


class Asker(Protocol):
    """Who waits for the answer to a request.  Lines are JSON-RPC messages."""

    def said(self, line: bytes) -> bool:
        """
        What comes before the answer: progress, and what the child says besides.

        False if the client does not hear it, since its answer is one JSON
        response, or it is gone.
        """

    def answered(self, line: bytes) -> None:
        """The answer, or an error in its place.  Comes once, and last."""


@define(eq=False)
class Call:
    """One request that a child has not answered; `id` is its client's."""

    id: bytes
    method: str
    began: float
    asker: Asker | None
    deadline: IDelayedCall
    cancelled: bool = False

    def hears(self, line: bytes) -> bool:
        """Say it to the client of this call; False if that does not hear it."""
        return self.asker is not None and self.asker.said(line)


@define(eq=False)
class Calls:
    """The calls of one child, by our numbers, oldest first."""

    log = Logger()
    _conversation: Conversation
    _clock: IReactorTime
    _meter: Meter
    _send: Callable[[bytes], bool]
    _ended: Callable[[], None]
    """Called after each call that ended, before its asker hears."""
    _pid: Callable[[], int | None]
    _calls: dict[int, Call] = field(factory=dict, init=False)
    _idlers: list[Deferred[None]] = field(factory=list, init=False)
    _rooms: list[Deferred[None]] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def crowd(self) -> int:
        """Those who wait in `room`."""
        return len(self._rooms)

    def ask(self, request: Request, asker: Asker, usable: bool) -> int:
        """
        Ask the child.

        One that is not usable, or has read too little, answers `asker` with
        CHILD_BUSY, after this returned.
        """
        ask = self._conversation.ask(request)
        taken = usable and self._send(ask.line)
        deadline = self._clock.callLater(
            limits.CALL if taken else 0.0,
            self._give_up,
            ask.number,
            CALL_TOO_LONG if taken else CHILD_BUSY,
        )
        began = self._clock.seconds()
        self._calls[ask.number] = Call(request.id, request.method, began, asker, deadline)
        return ask.number

    def cancel(self, number: int, params: bytes = b"") -> None:
        """
        Tell the child that a call is cancelled.

        :param params: of the client's notice.

        The asker still gets an answer: the child's, or soon an error.
        """
        call = self._calls.get(number)
        line = self._conversation.cancel(number, params)
        if call is None or line is None or call.cancelled:
            return
        call.cancelled = True
        self._send(line)
        if call.deadline.active():
            call.deadline.cancel()
        call.deadline = self._clock.callLater(
            limits.CANCELLED_CALL, self._give_up, number, CALL_CANCELLED
        )

    def leave(self, number: int) -> None:
        """The asker is gone.  The call goes on; nobody hears its answer."""
        call = self._calls.get(number)
        if call is not None:
            call.asker = None

    # --- what they hear ---------------------------------------------------------

    def tell(self, number: int, line: bytes) -> None:
        """News of one call."""
        call = self._calls.get(number)
        if call is not None:
            call.hears(line)

    def only(self) -> tuple[int, Call] | None:
        """The call that is meant where none is named: the only one."""
        if len(self._calls) != 1:
            return None
        ((number, call),) = self._calls.items()
        return number, call

    def any_hears(self, line: bytes) -> bool:
        """Say it to the oldest that hears it; False if none does."""
        return any(call.hears(line) for call in tuple(self._calls.values()))

    def answer(self, number: int, line: bytes, outcome: str) -> None:
        """The end of one call; `outcome` is for the meter."""
        call = self._calls.pop(number, None)
        if call is None:
            return
        self._conversation.forget(number)
        self._meter.call_ended(call.method, outcome, self._clock.seconds() - call.began)
        if call.deadline.active():
            call.deadline.cancel()
        self._ended()
        if call.asker is not None:
            with self.log.failuresHandled("while answering a call of {pid}", pid=self._pid()):
                call.asker.answered(line)
        self.wake()
        if not self._calls:
            idlers, self._idlers = self._idlers, []
            for idle in idlers:
                idle.callback(None)

    def end(self, refusal: McpRefusal) -> None:
        """Answer all of them with an error."""
        for number in tuple(self._calls):
            self._refuse(number, refusal)

    def _give_up(self, number: int, refusal: McpRefusal) -> None:
        if refusal is CALL_TOO_LONG:
            self.log.warn("call takes too long", pid=self._pid(), limit=limits.CALL)
            line = self._conversation.cancel(number)
            if line is not None:
                self._send(line)
        self._refuse(number, refusal)

    def _refuse(self, number: int, refusal: McpRefusal) -> None:
        call = self._calls.get(number)
        if call is not None:
            self.answer(number, error_reply(call.id, refusal), refusal.reason)

    # --- waiting for their end ------------------------------------------------------

    async def none(self, limit: float) -> None:
        """Comes back when none is in flight, or after `limit` seconds."""
        if self._calls and limit > 0:
            await self._wait(self._idlers, limit)

    async def room(self, limit: float) -> None:
        """Comes back when a call has ended, somebody called `wake`, or after `limit` seconds."""
        await self._wait(self._rooms, limit)

    def wake(self) -> None:
        """Let those in `room` look again."""
        # All of them: one that is woken may have left by the time it looks.
        for woken in tuple(self._rooms):
            if woken in self._rooms:
                self._rooms.remove(woken)
                woken.callback(None)

    async def _wait(self, waiting: list[Deferred[None]], limit: float) -> None:
        ended: Deferred[None] = Deferred(waiting.remove)
        waiting.append(ended)
        try:
            await ended.addTimeout(limit, self._clock)
        except TimeoutError:
            pass
