"""
Server-sent events as a response, and the answer to one POST /mcp.

Answered within `limits.JSON_ANSWER` and nothing before it: one JSON response.
Else server-sent events, a comment at least every `limits.STREAM_COMMENT`,
until the answer.  What the client accepts decides where it leaves no choice:
without text/event-stream it is JSON whenever it comes, without
application/json it is a stream at once (design §3, step 7).
"""

from __future__ import annotations

from enum import Enum

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fjmcp import limits
from fjmcp.mcp import events
from fjmcp.web.channel import SiteRequest
from fjmcp.web.outlet import Outlet
from fjmcp.web.unread import Unread


class Form(Enum):
    """What the client lets us answer with (its Accept header)."""

    EITHER = "either"
    JSON = "application/json"
    STREAM = "text/event-stream"


def dress(request: SiteRequest) -> None:
    """Set the head of a response that carries server-sent events."""
    request.setHeader(b"content-type", b"text/event-stream")
    request.setHeader(b"cache-control", b"no-store")
    # nginx would hold events back until its buffer is full.
    request.setHeader(b"x-accel-buffering", b"no")


@define(eq=False)
class Events:
    """A response that carries server-sent events, and comments while it is silent."""

    _request: SiteRequest
    _clock: IReactorTime
    _outlet: Outlet
    _timer: IDelayedCall | None = field(default=None, init=False)

    def begin(self) -> None:
        """Write the head.  The first comment makes proxies pass it on."""
        dress(self._request)
        self._outlet.start()
        self._comment()

    def send(self, line: bytes) -> None:
        """A JSON-RPC message as an event."""
        self._outlet.write(events.event(line))

    def calm(self) -> None:
        """No more comments: the stream is about to end, or has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _comment(self) -> None:
        self._timer = self._clock.callLater(limits.STREAM_COMMENT, self._comment)
        self._outlet.write(events.COMMENT)


@define(eq=False)
class Answer:
    """
    Hears what a child says for one request, and writes it to the client.

    Its time begins when it is made, which is before there is a child: one
    that has to start may take longer than a silent response may.

    :ivar _whose: the account that asks.
    :ivar over: nothing more will be written: the answer was given, was
        withdrawn, or its client is gone.
    """

    _request: SiteRequest
    _clock: IReactorTime
    _unread: Unread
    _whose: int
    _form: Form
    over: bool = field(default=False, init=False)
    _outlet: Outlet = field(init=False)
    _events: Events | None = field(default=None, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._outlet = Outlet(self._request, self._clock, self._end, self._unread, self._whose)
        self._request.notifyFinish().addErrback(lambda _: self._outlet.lost())
        if self._form is Form.STREAM:
            self._stream()
        elif self._form is Form.EITHER:
            self._timer = self._clock.callLater(limits.JSON_ANSWER, self._stream)

    def withdraw(self) -> bool:
        """
        Write nothing, since somebody else will answer; False if it is too
        late for that, because a stream has begun.
        """
        if self._events is not None:
            return False
        self._end()
        return True

    def said(self, line: bytes) -> bool:
        """
        A message of the child before the answer; False if there is no place for it
        in this response.
        """
        if self._form is Form.JSON or self.over:
            return False
        self._stream().send(line)
        return True

    def answered(self, line: bytes) -> None:
        """The answer, or the error in its place."""
        if self.over:
            return
        self._end()
        if self._events is not None:
            self._events.send(line)
        else:
            self._request.setHeader(b"content-type", b"application/json")
            self._request.setHeader(b"content-length", b"%d" % len(line))
            self._outlet.start()
            self._outlet.write(line)
        self._outlet.finish()

    def _stream(self) -> Events:
        if self._events is None:
            self._calm()
            self._events = Events(self._request, self._clock, self._outlet)
            self._events.begin()
        return self._events

    def _end(self) -> None:
        self.over = True
        self._calm()
        if self._events is not None:
            self._events.calm()

    def _calm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
