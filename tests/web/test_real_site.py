"""The door over real sockets: what only a kernel's buffers can show."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fjmcp import limits
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.web.channel import SiteRequest
from fjmcp.web.routes import Answer, Tongue, route
from fjmcp.web.site import Site


class Client(Protocol):
    """Sends what it is told to, and keeps what comes."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.ended.callback(None)


class RealSiteTests(TestCase):
    timeout = 60

    async def connected(self) -> Client:
        from twisted.internet import reactor

        self.reactor = reactor

        async def stream(request: SiteRequest) -> Answer:
            request.write(b"data: 1\n\n")
            await deferLater(reactor, 0.05)
            request.write(b"data: 2\n\n")
            request.finish()
            return None

        routes = [route("/mcp", speaks=Tongue.MCP, post=stream, ceiling=limits.FORM_BODY)]
        site = Site(Endpoints("http://localhost:8085"), routes, reactor)
        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await server.listen(site)
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        client: Client = await connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", number), Client()
        )
        return client

    async def test_refused_while_it_sends(self) -> None:
        """A client that goes on sending a body that is too large still reads its 413."""
        client = await self.connected()
        assert client.transport is not None
        client.transport.write(
            b"POST /mcp HTTP/1.1\r\nHost: localhost:8085\r\nContent-Length: 9000000\r\n\r\n"
        )
        for _ in range(20):
            client.transport.write(b"x" * 100_000)
            await deferLater(self.reactor, 0.005)
        client.transport.loseConnection()
        await client.ended
        self.assertTrue(client.heard.startswith(b"HTTP/1.1 413 "), client.heard[:100])
        self.assertIn(b'"jsonrpc":"2.0"', client.heard)

    async def test_stream(self) -> None:
        """What a route writes leaves in chunks, and the connection closes when it was asked to."""
        client = await self.connected()
        assert client.transport is not None
        client.transport.write(
            b"POST /mcp HTTP/1.1\r\nHost: localhost:8085\r\nContent-Length: 0\r\n"
            b"Connection: close\r\n\r\n"
        )
        await client.ended
        self.assertTrue(client.heard.endswith(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"), client.heard)
