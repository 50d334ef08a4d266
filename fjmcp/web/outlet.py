"""
The way out for a response, whose reader may be slow, stopped or gone.

A push producer: what a reader does not take waits here, bounded, and a
reader that takes nothing is cut (design D21).  Nobody else ever waits for it.
What waits for all the readers of an account is bounded too (`fjmcp.web.unread`).

::

    start ──write…──> finish ──all taken──> the response is whole
                │        └─── the reader leaves, or is cut ──> gone
                ├── the reader leaves, or is cut ────────────> gone
                └── close ──> the response ends at once
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from fjmcp import limits
from fjmcp.web.unread import Unread

_PIECE: Final = 16 * 1024
"""Bytes handed to the transport at a time: each piece that it asks for is a
sign that the reader took the one before."""


class Response(Protocol):
    """A `SiteRequest`, as far as writing to it is concerned."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> object:
        """Name who writes, to be paused and resumed."""

    def unregisterProducer(self) -> object:
        """Nobody writes any more."""

    def write(self, data: bytes) -> object:
        """Send some of the body."""

    def finish(self) -> object:
        """The body is whole."""

    def abort(self) -> object:
        """The body will never be whole; the reader must see that."""


@implementer(IPushProducer)
@define(eq=False)
class Outlet:
    """
    Writes messages to one response, whole and in order, or cuts it.

    `gone` is called once if the reader leaves or is cut before the response
    was whole or closed; never after.

    :ivar _whose: the account that reads.
    """

    log = Logger()
    _response: Response
    _clock: IReactorTime
    _gone: Callable[[], None]
    _unread: Unread
    _whose: int
    _waiting: deque[bytes] = field(factory=deque, init=False)
    _held: int = field(default=0, init=False)
    """Bytes of all messages that wait, the one being written among them."""
    _counted: int = field(default=0, init=False)
    """What `_unread` knows of it."""
    _offset: int = field(default=0, init=False)
    _paused: bool = field(default=False, init=False)
    _finishing: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _stall: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to write; the response's head must be set by then."""
        self._response.registerProducer(self, True)

    def write(self, message: bytes) -> None:
        """Send a message, or keep it for a reader that catches up; no effect after the end."""
        if self._ended or self._finishing:
            return
        self._waiting.append(message)
        self._held += len(message)
        if self._behind > limits.STREAM_BEHIND:
            self._cut("too much waits")
            return
        self._flush()

    def finish(self) -> None:
        """End the response once all was taken."""
        if not self._ended and not self._finishing:
            self._finishing = True
            self._flush()

    def close(self, last: bytes = b"") -> None:
        """
        End the response at once; messages that wait are dropped.

        :param last: written to a reader that is between two messages.
        """
        if self._ended:
            return
        halfway = self._offset > 0
        self._end()
        self._response.unregisterProducer()
        if halfway:
            self._response.abort()
            return
        if last:
            self._response.write(last)
        self._response.finish()

    def cut(self) -> None:
        """End the response halfway; its reader sees that."""
        if self._ended:
            return
        self._end()
        self._response.unregisterProducer()
        # RFC 9112 §8: a response that ends early must look incomplete.
        self._response.abort()
        self._gone()

    def lost(self) -> None:
        """The connection ended, as `notifyFinish` says."""
        if not self._ended:
            self._end()
            self._gone()

    # --- the transport's side ---------------------------------------------------

    def pauseProducing(self) -> None:
        """The reader has enough for the moment."""
        self._paused = True
        if self._stall is None and not self._ended:
            self._stall = self._clock.callLater(limits.STREAM_STALL, self._stalled)

    def resumeProducing(self) -> None:
        """The reader took what it was given."""
        self._paused = False
        self._calm()
        self._flush()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.lost()

    @property
    def left(self) -> int:
        """Bytes that the reader has yet to take."""
        return self._held - self._offset

    @property
    def _behind(self) -> int:
        """Bytes behind the message being written."""
        return self._held - len(self._waiting[0]) if self._waiting else 0

    def _flush(self) -> None:
        while self._waiting and not self._paused and not self._ended:
            message = self._waiting[0]
            piece = message[self._offset : self._offset + _PIECE]
            self._offset += len(piece)
            if self._offset >= len(message):
                self._waiting.popleft()
                self._offset = 0
                self._held -= len(message)
            self._response.write(piece)
        if self._finishing and not self._waiting and not self._ended:
            self._end()
            self._response.unregisterProducer()
            self._response.finish()
        # Most readers take all at once, and nothing is counted for them.
        if self._held != self._counted:
            self._count()

    def _count(self) -> None:
        self._counted = self._held
        self._unread.count(self._whose, self, self._held)

    def _stalled(self) -> None:
        self._stall = None
        self._cut("the reader takes nothing")

    def _cut(self, reason: str) -> None:
        self.log.warn("slow reader cut", reason=reason, behind=self._behind)
        self.cut()

    def _end(self) -> None:
        self._ended = True
        self._waiting.clear()
        self._held = 0
        if self._counted:
            self._count()
        self._calm()

    def _calm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
