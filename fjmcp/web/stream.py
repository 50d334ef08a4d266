"""
The answer to one POST /mcp, as one JSON response or as a stream of events.

Answered within `limits.JSON_ANSWER` and nothing before it: one JSON response.
Else server-sent events, a comment at least every `limits.STREAM_COMMENT`,
until the answer.  What the client accepts decides where it leaves no choice:
without text/event-stream it is JSON whenever it comes, without
application/json it is a stream at once (design §3, step 7).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fjmcp import limits
from fjmcp.mcp import events
from fjmcp.web.channel import SiteRequest
from fjmcp.web.outlet import Outlet


class Form(Enum):
    """What the client lets us answer with (its Accept header)."""

    EITHER = "either"
    JSON = "application/json"
    STREAM = "text/event-stream"


@define(eq=False)
class Answer:
    """
    Hears what a child says for one request, and writes it to the client.

    `done` fires when nothing more will be written: the answer was given, or
    the client is gone.  `left` is called in the second case only.
    """

    _request: SiteRequest
    _clock: IReactorTime
    _form: Form
    _left: Callable[[], None]
    done: Deferred[None] = field(factory=Deferred, init=False)
    _outlet: Outlet = field(init=False)
    _streaming: bool = field(default=False, init=False)
    _answered: bool = field(default=False, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._outlet = Outlet(self._request, self._clock, self._gone)
        self._request.notifyFinish().addErrback(lambda _: self._outlet.lost())
        if self._form is Form.STREAM:
            self._stream()
        elif self._form is Form.EITHER:
            self._timer = self._clock.callLater(limits.JSON_ANSWER, self._stream)

    def said(self, line: bytes) -> None:
        """A message of the child that belongs to this request, before its answer."""
        if self._form is Form.JSON or self._answered:
            return  # a JSON response has room for the answer only
        self._stream()
        self._outlet.write(events.event(line))

    def answered(self, line: bytes) -> None:
        """The answer, or the error in its place."""
        if self._answered:
            return
        self._answered = True
        self._calm()
        if self._streaming:
            self._outlet.write(events.event(line))
        else:
            self._request.setHeader(b"content-type", b"application/json")
            self._request.setHeader(b"content-length", b"%d" % len(line))
            self._outlet.start()
            self._outlet.write(line)
        self._outlet.finish()
        self._finish()

    def _stream(self) -> None:
        self._calm()
        if not self._streaming:
            self._streaming = True
            open_stream(self._request)
            self._outlet.start()
            self._outlet.write(events.COMMENT)
        self._timer = self._clock.callLater(limits.STREAM_COMMENT, self._comment)

    def _comment(self) -> None:
        self._timer = self._clock.callLater(limits.STREAM_COMMENT, self._comment)
        self._outlet.write(events.COMMENT)

    def _gone(self) -> None:
        self._calm()
        if not self._answered:
            self._answered = True
            self._left()
            self._finish()

    def _finish(self) -> None:
        if not self.done.called:
            self.done.callback(None)

    def _calm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def open_stream(request: SiteRequest) -> None:
    """Set the head of a response that carries server-sent events."""
    request.setHeader(b"content-type", b"text/event-stream")
    request.setHeader(b"cache-control", b"no-store")
    # nginx would hold events back until its buffer is full.
    request.setHeader(b"x-accel-buffering", b"no")
