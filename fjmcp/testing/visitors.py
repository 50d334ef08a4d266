"""
HTTP clients of a `Site`, in memory: one connection for each request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import implementer

if TYPE_CHECKING:
    from fjmcp.web.site import Site


@implementer(ITCPTransport)
class Wire(StringTransport):
    """
    A client's end of a connection: what the server wrote, and how it closed.

    `half_closed`: the server writes no more; `closed`: it is gone, in good
    order or (`aborted`) with a reset.  `full`: the client reads nothing, and
    what it has not read fills the server's buffer.
    """

    full = False
    half_closed = False
    closed = False
    aborted = False

    def __init__(self, clock: Clock, peer: IAddress | None = None) -> None:
        super().__init__(hostAddress=IPv4Address("TCP", "192.0.2.1", 8085), peerAddress=peer)
        self._clock = clock
        self.protocol: IProtocol | None = None
        self.heard: Callable[[], None] | None = None
        """Called after each write of the server."""

    def write(self, data: bytes) -> None:
        """Bytes of the server; dropped once it has closed."""
        if not (self.closed or self.half_closed):
            super().write(data)
            if self.full and self.producer is not None:
                # Twisted says it again at each write past what its buffer should hold.
                self.producer.pauseProducing()
            if self.heard is not None:
                self.heard()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """The same in pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close; the protocol hears of it a turn later, as from a real transport."""
        if not self.closed:
            self.closed = self.disconnecting = True
            self._clock.callLater(0, self.lost, ConnectionDone())

    def abortConnection(self) -> None:
        """Reset the connection."""
        self.aborted = True
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """Write no more."""
        self.half_closed = True

    def lost(self, reason: Exception) -> None:
        """The connection is gone: tell the protocol, once."""
        self.closed = True
        if self.connected and self.protocol is not None:
            self.connected = False
            self.protocol.connectionLost(Failure(reason))

    def getTcpKeepAlive(self) -> bool:
        """Nothing to keep alive."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to keep alive."""

    def getTcpNoDelay(self) -> bool:
        """Nothing is delayed."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed."""


@define(eq=False)
class Visit:
    """
    One request of a `Visitor` and what came back so far.

    Everything is read off the wire at each look, so a stream can be watched as
    it grows.
    """

    wire: Wire
    protocol: IProtocol

    def send(self, data: bytes) -> None:
        """More bytes of the client, the rest of a body say."""
        self.protocol.dataReceived(data)

    def leave(self) -> None:
        """The client closes the connection."""
        self.wire.lost(ConnectionDone())

    def stop_reading(self) -> None:
        """The client takes no more bytes; what the server writes now piles up there."""
        assert self.wire.producer is not None
        self.wire.full = True
        self.wire.producer.pauseProducing()

    def read_on(self) -> None:
        """The client takes what waits."""
        assert self.wire.producer is not None
        self.wire.full = False
        self.wire.producer.resumeProducing()

    @property
    def head(self) -> bytes | None:
        """Status line and headers, once they are there."""
        head, end, _ = self._final.partition(b"\r\n\r\n")
        return head if end else None

    @property
    def answered(self) -> bool:
        """Whether a response has begun."""
        return self.head is not None

    @property
    def status(self) -> int:
        """The response's status."""
        assert self.head is not None, "no response yet"
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> Headers:
        """The response's headers."""
        assert self.head is not None, "no response yet"
        headers = Headers()
        for line in self.head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            headers.addRawHeader(name, value.strip())
        return headers

    def header(self, name: str) -> str | None:
        """One header of the response."""
        values = self.headers.getRawHeaders(name)
        return None if values is None else values[-1]

    @property
    def body(self) -> bytes:
        """What came of the body."""
        return self._body()[0]

    @property
    def ended(self) -> bool:
        """Whether the response is complete."""
        return self.answered and self._body()[1]

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def events(self) -> list[bytes]:
        """The `data` of the server-sent events that came, comments left out."""
        found = []
        for block in self.body.split(b"\n\n")[:-1]:
            lines = [line for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                found.append(b"\n".join(line[5:].removeprefix(b" ") for line in lines))
        return found

    @property
    def _final(self) -> bytes:
        written: bytes = self.wire.value()
        while written.startswith(b"HTTP/1.1 100 "):
            written = written.partition(b"\r\n\r\n")[2]
        return written

    def _body(self) -> tuple[bytes, bool]:
        rest = self._final.partition(b"\r\n\r\n")[2]
        if self.header("transfer-encoding") != "chunked":
            length = self.header("content-length")
            bare = self.status in (204, 304)
            return rest, bare or (length is not None and len(rest) >= int(length))
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if int(size, 16) == 0:
                return body, True
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body, False


@define(eq=False)
class Visitor:
    """
    An HTTP client of a `Site`, in memory and on a Clock: a connection for each
    request, and the cookies kept like a browser's.

    `send` answers at once with a `Visit`, which is complete if nothing in the
    site had to wait.
    """

    site: Site
    clock: Clock
    host: str = "broker.example"
    cookies: dict[str, str] = field(factory=dict)
    peer: IAddress = field(factory=lambda: IPv4Address("TCP", "198.51.100.7", 40000))
    """Where its connections come from."""

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Visit:
        """One request.  A header given here stands in place of the one that would be made."""
        visit = self.connect()
        visit.send(self.request(method, target, body, headers))
        self._keep_cookies(visit)
        return visit

    def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        chunk: int = 0,
    ) -> bytes:
        """What `send` sends; with `chunk` the body is in chunks of so many bytes."""
        made = {"host": self.host, "content-length": str(len(body))}
        if chunk:
            del made["content-length"]
            made["transfer-encoding"] = "chunked"
            chunks = [body[n : n + chunk] for n in range(0, len(body), chunk)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*chunks, b""])
        if self.cookies:
            made["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        made |= {name.lower(): value for name, value in (headers or {}).items()}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {made[name]}" for name in made)]
        return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body

    def connect(self) -> Visit:
        """A connection on which nothing was said; `Visit.send` says it, byte for byte."""
        protocol = self.site.buildProtocol(self.peer)
        assert protocol is not None
        wire = Wire(self.clock, self.peer)
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return Visit(wire, protocol)

    def get(self, target: str, **headers: str) -> Visit:
        """GET; a header's name with `_` for `-`."""
        return self.send("GET", target, headers=dashed(headers))

    def post_form(self, target: str, form: Mapping[str, str], **headers: str) -> Visit:
        """POST of a urlencoded form."""
        sent = {"content-type": "application/x-www-form-urlencoded"} | dashed(headers)
        return self.send("POST", target, urlencode(form).encode("ascii"), sent)

    def post_json(self, target: str, value: object, **headers: str) -> Visit:
        """POST of JSON, in the way of an MCP client."""
        sent = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        } | dashed(headers)
        return self.send("POST", target, json.dumps(value).encode("utf-8"), sent)

    def _keep_cookies(self, visit: Visit) -> None:
        if not visit.answered:
            return
        for line in visit.headers.getRawHeaders("set-cookie", []):
            pair, _, rest = line.partition(";")
            name, _, value = pair.partition("=")
            self.cookies[name.strip()] = value
            if "max-age=0" in rest.lower().replace(" ", ""):
                del self.cookies[name.strip()]


def dashed(named: Mapping[str, str]) -> dict[str, str]:
    """Headers that were given as arguments, `content_type` as `content-type`."""
    return {name.replace("_", "-"): value for name, value in named.items()}
