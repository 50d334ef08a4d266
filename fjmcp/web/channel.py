"""
A connection and its requests, bounded before anything of them is understood.

Twisted reads a request's body whole before anybody looks at it; here it is
refused as soon as it is known to be larger than its path allows (413), or than
there is room for (`fjmcp.web.bodies`), and a request that comes in drops is
cut.  Headers are bounded by Twisted itself (16 KiB and 500 of them).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from fjmcp import limits
from fjmcp.refusals import BODIES_FULL, McpRefusal
from fjmcp.web.bodies import Bodies

if TYPE_CHECKING:
    from fjmcp.web.site import Site


class Channel(http.HTTPChannel):
    """One HTTP/1 connection of a `Site`."""

    site: Site
    _reading = False
    _discarding = False
    _lingering: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """A connection; it counts until it is lost."""
        self.site.connections += 1
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client; of no interest once the connection was given up."""
        if not self._discarding:
            super().dataReceived(data)

    def resetTimeout(self) -> None:
        """
        Count from the first byte of a request.

        Twisted calls this for each piece that arrives; then a client that sends
        a byte a minute would hold its buffer for ever.
        """
        if not self._reading:
            self._reading = True
            super().resetTimeout()

    def headerReceived(self, line: bytes) -> bool:
        """A header line.  Python reads no number of thousands of digits: that is no length."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False

    def _send100Continue(self) -> None:
        # Twisted sends it without a look at what became of the request.
        if not self._discarding:
            super()._send100Continue()

    def requestDone(self, request: http.Request) -> None:
        """A response was written; wait for the next request, or for the client to take it all."""
        self._reading = False
        super().requestDone(request)
        if not self.persistent:
            # Else a client that reads nothing would keep us in memory for ever.
            self.setTimeout(self.timeOut)

    def give_up(self) -> None:
        """
        The answer was written before the request was read: close, but linger.

        Closing at once would send a reset for what the client still sends, and
        the reset may overtake the answer (RFC 9112 §9.6).
        """
        self._discarding = True
        self._lingering = self.callLater(limits.LINGER, self._lingered)
        if ITCPTransport.providedBy(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.loseConnection()

    def _lingered(self) -> None:
        self._lingering = None
        self.forceAbortClient()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The connection is gone, and with it whoever waits for an answer on it."""
        self.site.connections -= 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        super().connectionLost(reason)


class Full(Protocol):
    """A connection for which there is no room: it is closed before anything is read."""

    def connectionMade(self) -> None:
        """Close it, without a descriptor that lingers."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.abortConnection()
        elif self.transport is not None:
            self.transport.loseConnection()


@provider(INonQueuedRequestFactory)
class SiteRequest(server.Request):
    """One request to a `Site`."""

    log = Logger()
    # Twisted deletes the attribute when a response has ended.
    channel: Any = None
    site: Any
    content: BytesIO
    _bodies: Bodies
    defaultContentType = None
    _ceiling = 0
    _refused = False
    _whose: int | None = None
    _held = 0

    @property
    def gone(self) -> bool:
        """Whether nobody waits for an answer: it was given, or the client has left."""
        return bool(self.finished or self._disconnected)

    @property
    def plain_path(self) -> str:
        """The path for the log: no query, no byte that a terminal obeys."""
        return printable(self.path or b"")

    def getRequestHostname(self) -> bytes:
        """The public URL's host: no address is ever made of the client's word."""
        return self.channel.site.hostname if self.channel is not None else b"localhost"

    # --- reading ------------------------------------------------------------------

    def gotLength(self, length: int | None) -> None:
        """All headers are there; `length` is the body's, None if it comes in chunks."""
        # In memory, since it is bounded: Twisted would write it to a file in /tmp.
        self.content = BytesIO()
        self._ceiling = self.channel.site.ceiling(self._target)
        if length is None:
            return
        if length > self._ceiling:
            self._refuse(None)
        elif length > limits.FORM_BODY:
            self._expect()

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        if self._refused:
            return
        before = self.content.tell()
        if before + len(data) > self._ceiling:
            self._refuse(None)
            return
        if before + len(data) > limits.FORM_BODY:
            self._hold(before + len(data) - max(before, limits.FORM_BODY))
        if not self._refused:
            super().handleContentChunk(data)

    def take_body(self, whose: int) -> bytes | McpRefusal:
        """
        All of the body, which is kept here no longer.

        Its bytes count for the account of the caller, who is known now, until
        `let_go` or what `hand_over` gives is called: they are held while a child
        is waited for, and by the child while it works.
        """
        if self._held and self._whose != whose:
            if not self._bodies.take(whose, self._held):
                return BODIES_FULL
            self._bodies.give_back(self._whose, self._held)
            self._whose = whose
        body, self.content = self.content.getvalue(), BytesIO()
        return body

    def hand_over(self) -> Callable[[], None] | None:
        """
        A child has the body now, whoever waits for its answer.

        Call what this returns when it has answered; None if nothing is counted.
        """
        if not self._held:
            return None
        bodies, whose, held = self._bodies, self._whose, self._held
        self._held = 0
        return lambda: bodies.give_back(whose, held)

    def let_go(self) -> None:
        """Nobody holds the body any more."""
        if self._held:
            self._bodies.give_back(self._whose, self._held)
            self._held = 0

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete."""
        if not self._refused:
            super().requestReceived(command, path, version)

    @property
    def _target(self) -> bytes:
        # Known to the channel alone until the body was read.
        target: bytes = self.channel._path
        return target.partition(b"?")[0]

    def _expect(self) -> None:
        """A large body begins: whose it is, as far as that can be told."""
        whose = self.channel.site.whose(self, self._target)
        if isinstance(whose, McpRefusal):
            self._refuse(whose)
        else:
            self._whose = whose

    def _hold(self, size: int) -> None:
        if not self._held:
            self._expect()
        if self._refused:
            return
        if self.channel.site.bodies.take(self._whose, size):
            self._held += size
            self._bodies = self.channel.site.bodies
        else:
            self._refuse(BODIES_FULL)

    def _refuse(self, refusal: McpRefusal | None) -> None:
        """Answer before the body was read; without a refusal it is too large."""
        self._refused = True
        self.let_go()
        self.content = BytesIO()
        self.method, self.path = self.channel._command, self._target
        self.clientproto = self.channel._version
        self.channel.persistent = False
        self.setHeader(b"connection", b"close")
        self.channel.site.refuse_unread(self, refusal)
        self.channel.give_up()

    def finish(self) -> None:
        """The response is whole."""
        self.let_go()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """Nobody waits any more."""
        self.let_go()
        super().connectionLost(reason)

    # --- answering ------------------------------------------------------------------

    def render(self, resrc: Any) -> None:
        """Hand the request to the site's routes, unless it refuses it at the door."""
        if self.site.admits(self):
            super().render(resrc)

    def processingFailed(self, reason: Failure) -> Failure:
        """Something raised outside of any route: a bug."""
        self.site.failed(self, reason)
        return reason

    def abort(self) -> None:
        """End a response that cannot be completed, so that it looks incomplete (RFC 9112 §8)."""
        if self.channel is not None:
            self.channel.transport.abortConnection()


def printable(text: bytes) -> str:
    """Bytes of a stranger for the log: ASCII, one line, of bounded length."""
    return text[:200].decode("ascii", "backslashreplace").encode("unicode_escape").decode("ascii")
