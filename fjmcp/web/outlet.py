"""
The way out for an answer, whose reader may be slow, stopped or gone.

A push producer: what a reader does not take waits here, bounded, and a
reader that takes nothing is cut (design D21).  Nobody else ever waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from fjmcp import limits
from fjmcp.web.channel import SiteRequest

_PIECE = 16 * 1024
"""Bytes handed to the transport at a time: each piece that it asks for is a
sign that the reader took the one before."""


@implementer(IPushProducer)
@define(eq=False)
class Outlet:
    """
    Writes messages to one response, whole and in order, or cuts it.

    `gone` is called once when the reader has left or was cut, and not after
    `finish` was reached.
    """

    log = Logger()
    _request: SiteRequest
    _clock: IReactorTime
    _gone: Callable[[], None]
    _waiting: deque[bytes] = field(factory=deque, init=False)
    _behind: int = field(default=0, init=False)
    _offset: int = field(default=0, init=False)
    _paused: bool = field(default=False, init=False)
    _finishing: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _stall: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to write; the response's head must be set by then."""
        self._request.registerProducer(self, True)

    def write(self, message: bytes) -> None:
        """Send a message, or keep it for a reader that catches up; no effect after the end."""
        if self._ended or self._finishing:
            return
        # What waits behind the message being written is what a slow reader costs us.
        if self._waiting:
            self._behind += len(message)
        self._waiting.append(message)
        if self._behind > limits.STREAM_BEHIND:
            self._cut("too much waits")
            return
        self._flush()

    def finish(self) -> None:
        """End the response once all was taken."""
        if not self._ended and not self._finishing:
            self._finishing = True
            self._flush()

    def lost(self) -> None:
        """The connection ended, as `notifyFinish` says."""
        if not self._ended:
            self._end()
            self._gone()

    # --- the transport's side ---------------------------------------------------

    def pauseProducing(self) -> None:
        """The reader has enough for the moment."""
        self._paused = True
        self._watch()

    def resumeProducing(self) -> None:
        """The reader took what it was given."""
        self._paused = False
        self._calm()
        self._flush()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.lost()

    def _flush(self) -> None:
        while self._waiting and not self._paused and not self._ended:
            message = self._waiting[0]
            piece = message[self._offset : self._offset + _PIECE]
            self._offset += len(piece)
            if self._offset >= len(message):
                self._waiting.popleft()
                self._offset = 0
                if self._waiting:
                    self._behind -= len(self._waiting[0])
            self._request.write(piece)
        if self._finishing and not self._waiting and not self._ended:
            self._end()
            self._request.unregisterProducer()
            self._request.finish()

    def _watch(self) -> None:
        if self._stall is None and not self._ended:
            self._stall = self._clock.callLater(limits.STREAM_STALL, self._stalled)

    def _stalled(self) -> None:
        self._stall = None
        self._cut("the reader takes nothing")

    def _cut(self, reason: str) -> None:
        self.log.warn("slow reader cut", reason=reason, behind=self._behind)
        self._end()
        self._request.unregisterProducer()
        # RFC 9112 §8: a response that ends early must look incomplete.
        self._request.abort()
        self._gone()

    def _end(self) -> None:
        self._ended = True
        self._waiting.clear()
        self._behind = 0
        self._calm()

    def _calm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
