"""
The body of an HTTP response, as far as a bound.

For answers of Forgejo and documents of strangers alike: neither is read on
once it is too long, and who stops waiting closes the connection.
"""

from __future__ import annotations

from typing import NoReturn

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse


class TooLong(Exception):
    """A body went past its bound."""


async def whole(response: IResponse, bound: int) -> bytes:
    """
    All of the body.

    :raises TooLong: it has more than `bound` bytes; the connection is closed.
    """
    # Not treq's collect: a wait for it that ends early leaves the connection open.
    body = _Body(bound)
    response.deliverBody(body)
    return await body.whole


class _Body(Protocol):
    """Collects a body up to `bound` bytes; who stops waiting closes the connection."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._chunks: list[bytes] = []
        self.whole: Deferred[bytes] = Deferred(lambda whole: self._close())

    def dataReceived(self, data: bytes) -> None:
        self._bound -= len(data)
        if self._bound >= 0:
            self._chunks.append(data)
        elif not self.whole.called:
            self._close()
            self.whole.errback(TooLong())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        # A body without a declared end is taken as it is: its JSON tells.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._chunks))
        else:
            self.whole.errback(reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def timed_out(result: object, limit: float) -> NoReturn:
    """
    For `Deferred.addTimeout` round a request.

    A cancelled request ends with whatever error its connection then had.
    """
    raise TimeoutError(limit)
