"""A fetch from real TLS servers on loopback, which behave as strangers may."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field
from cryptography.x509 import DNSName
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fjmcp import limits
from fjmcp.certificates import Certificates
from fjmcp.fetch.documents import (
    CERTIFICATE,
    CONTENT_TYPE,
    CUT_SHORT,
    ENCODED,
    NOT_PUBLIC,
    REDIRECT,
    TIME_OUT,
    TOO_LARGE,
    UNREACHABLE,
    Fetched,
    Fetcher,
    Unfetched,
)
from fjmcp.fetch.guard import Strangers
from fjmcp.fetch.names import LookUp
from tests.authority import IMPOSTORS, Authority, Secured, self_signed

NAME = "client.example"
URL = f"https://{NAME}/oauth/metadata.json?v=1"
JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

# --- hosts ------------------------------------------------------------------------------


class Connection(Protocol):
    """A host's end of a connection: keeps what was asked, and says what the test wants."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self.data.endswith(b"\r\n\r\n"):
            self.host.asked.append(self.data)
            self.host.says(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.host.gone.callback(None)
        self.host.gone = Deferred()

    def say(self, data: bytes) -> None:
        """Write, and go on."""
        assert self.transport is not None
        self.transport.write(data)

    def end(self) -> None:
        """Close."""
        assert self.transport is not None
        self.transport.loseConnection()


Says = Callable[[Connection], None]


@define(eq=False)
class Host:
    """
    A stranger's host.

    :ivar asked: the requests that came.
    :ivar gone: fires when the connection is gone that is open now, or comes next.
    """

    says: Says = lambda connection: None
    asked: list[bytes] = field(factory=list)
    gone: Deferred[None] = field(factory=Deferred)
    number: int = 0

    def built(self) -> Factory[Connection]:
        """Its connections."""
        return Factory.forProtocol(lambda: Connection(self))


def whole(body: bytes, *headers: bytes) -> Says:
    """An answer with a length, after which the host waits for us to close."""
    head = JSON + b"".join(header + b"\r\n" for header in headers)
    return lambda connection: connection.say(
        head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


@define(eq=False)
class Elsewhere:
    """The reactor, on which port 443 is the port of a test's host."""

    reactor: Any
    number: int = 0
    connected: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reactor, name)

    def connectTCP(self, host: str, port: int, *args: Any) -> Any:
        assert (host, port) == ("127.0.0.1", 443)
        self.connected += 1
        return self.reactor.connectTCP(host, self.number, *args)


class Relay(Protocol):
    """
    A wire between us and a host, which can be cut for what we say.

    :ivar deaf: whether the host hears us no more.
    """

    def __init__(self, reactor: Any, number: int) -> None:
        self.endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        self.before = b""
        self.beyond: Any = None
        self.deaf = False
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        beyond = Beyond(self)
        connectProtocol(self.endpoint, beyond).addErrback(lambda failure: None)

    def dataReceived(self, data: bytes) -> None:
        if self.beyond is None:
            self.before += data
        elif not self.deaf:
            self.beyond.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)
        self.beyond.abortConnection()


class Beyond(Protocol):
    """The other end of the wire."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.relay.beyond = self.transport
        self.transport.write(self.relay.before)

    def dataReceived(self, data: bytes) -> None:
        assert self.relay.transport is not None
        self.relay.transport.write(data)


def port_of(port: IListeningPort) -> int:
    """Its number."""
    address = port.getHost()
    assert isinstance(address, IPv4Address)
    return address.port


# --- tests ------------------------------------------------------------------------------


class RealCase(TestCase):
    """A host on loopback, which a name leads to, and which is public for once."""

    timeout = 10

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.clock = Clock()
        self.authority = Authority()
        self.host = Host()
        self.elsewhere = Elsewhere(reactor)

    def look_up(self, name: str, port: int) -> Deferred[Sequence[IAddress]]:
        """Every name leads here."""
        return succeed([IPv4Address("TCP", "127.0.0.1", port)])

    async def stand(self, context: SSL.Context | None = None) -> None:
        """The host listens, by default with a good certificate."""
        tls = Secured(context or self.authority.server(DNSName(NAME)))
        await self.listen(SSL4ServerEndpoint(self.reactor, 0, tls, interface="127.0.0.1"))

    async def listen(
        self, endpoint: IStreamServerEndpoint, factory: Factory[Any] | None = None
    ) -> None:
        """Connections to port 443 come to this endpoint."""
        port = await endpoint.listen(factory or self.host.built())
        self.addCleanup(port.stopListening)
        self.elsewhere.number = port_of(port)

    def fetcher(self, look_up: LookUp | None = None, **changes: Any) -> Fetcher:
        """A fetcher that trusts the authority, and takes 127.0.0.1 for public."""
        made: dict[str, Any] = {
            "policy": Certificates(self.authority),
            "is_public": lambda host: host == "127.0.0.1",
        }
        strangers = Strangers(self.elsewhere, look_up or self.look_up, **(made | changes))
        return Fetcher(strangers.errand, self.clock)

    def fetch(self, url: str = URL) -> Deferred[Fetched | Unfetched]:
        return Deferred.fromCoroutine(self.fetcher().fetch(url))

    async def asked(self) -> None:
        """Wait until the host was asked."""
        heard: Deferred[None] = Deferred()
        said = self.host.says

        def says(connection: Connection) -> None:
            said(connection)
            self.reactor.callLater(0, heard.callback, None)

        self.host.says = says
        await heard


class AnswerTests(RealCase):
    """Answers of hosts that can be reached."""

    async def test_fetched(self) -> None:
        """The document, asked for by the name at the port of https, with nothing of ours."""
        self.host.says = whole(b"{}", b"Cache-Control: max-age=60", b"Set-Cookie: a=b; Path=/")
        await self.stand()
        for _ in range(2):
            found = await self.fetch()
            assert isinstance(found, Fetched), found
            self.assertEqual((found.body, found.caching.cache_control), (b"{}", "max-age=60"))
            await self.host.gone
        for request in self.host.asked:
            line, *headers = request.decode().strip().split("\r\n")
            self.assertEqual(line, "GET /oauth/metadata.json?v=1 HTTP/1.1")
            self.assertEqual(
                sorted(headers),
                [
                    "Accept: application/json",
                    "Connection: close",
                    f"Host: {NAME}",
                    "User-Agent: fjmcp",
                ],
            )
        self.assertEqual(len(self.host.asked), 2)

    async def test_until_closed(self) -> None:
        """A document whose end is the connection's is taken."""

        def says(connection: Connection) -> None:
            connection.say(JSON + b"\r\n{}")
            connection.end()

        self.host.says = says
        await self.stand()
        found = await self.fetch()
        assert isinstance(found, Fetched), found
        self.assertEqual(found.body, b"{}")

    async def refused(self, says: Says, expected: Unfetched) -> None:
        """An answer that is no document; its connection is gone at once."""
        self.host.says = says
        gone = self.host.gone
        found = await self.fetch()
        assert isinstance(found, Unfetched), found
        self.assertEqual(found.reason, expected.reason)
        await gone

    async def test_refused(self) -> None:
        """A redirect, a wrong type, something packed: none is read, none is followed."""
        await self.stand()
        there = f"Location: https://{NAME}/other\r\n".encode()
        moved = b"HTTP/1.1 302 Found\r\n" + there + b"Content-Length: 0\r\n\r\n"
        await self.refused(lambda connection: connection.say(moved), REDIRECT)
        packed = gzip.compress(b"x" * 10_000_000)
        await self.refused(whole(packed, b"Content-Encoding: gzip"), ENCODED)
        page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9999\r\n\r\n<html>"
        await self.refused(lambda connection: connection.say(page), CONTENT_TYPE)
        self.assertEqual(len(self.host.asked), 3)

    async def test_too_large(self) -> None:
        """What is too large is not read to its end: by its length, in pieces, or in headers."""
        await self.stand()
        await self.refused(whole(b"x" * (limits.DOCUMENT_BODY + 1)), TOO_LARGE)

        def pieces(connection: Connection) -> None:
            connection.say(JSON + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                connection.say(b"400\r\n" + b"x" * 1024 + b"\r\n")

        await self.refused(pieces, TOO_LARGE)
        header = b"X: " + b"x" * 1000 + b"\r\n"
        await self.refused(lambda connection: connection.say(JSON + header * 200), TOO_LARGE)

    async def test_cut_short(self) -> None:
        """An answer that ends before its end is none."""

        def says(connection: Connection) -> None:
            connection.say(JSON + b"Content-Length: 100\r\n\r\n{}")
            connection.end()

        await self.stand()
        await self.refused(says, CUT_SHORT)
        await self.refused(Connection.end, CUT_SHORT)
        await self.refused(lambda connection: connection.say(b"x\r\n\r\n"), CUT_SHORT)

    async def test_never_closes(self) -> None:
        """A host that does not answer the end of TLS keeps no connection open."""
        await self.stand()
        relays: list[Relay] = []

        def deafened(connection: Connection) -> None:
            whole(b"{}")(connection)
            relays[0].deaf = True

        def relayed() -> Relay:
            relays.append(Relay(self.reactor, number))
            return relays[-1]

        self.host.says = deafened
        number = self.elsewhere.number
        wire = Factory.forProtocol(relayed)
        await self.listen(TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1"), wire)
        gone = self.host.gone
        self.assertIsInstance(await self.fetch(), Fetched)
        await relays[0].gone
        await gone


class TimeTests(RealCase):
    """Hosts that take their time."""

    async def slow(self, says: Says) -> None:
        """The time is over after the host said this; it sees the connection go."""
        self.host.says = says
        await self.stand()
        gone, waiting = self.host.gone, self.fetch()
        await self.asked()
        self.clock.advance(limits.DOCUMENT_FETCH - 0.1)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(await waiting, TIME_OUT)
        await gone

    async def test_no_answer(self) -> None:
        """A host that hears us and says nothing."""
        await self.slow(lambda connection: None)

    async def test_slow_headers(self) -> None:
        """A host that has begun to answer."""
        await self.slow(lambda connection: connection.say(JSON))

    async def test_slow_body(self) -> None:
        """A host that has said half."""
        await self.slow(lambda connection: connection.say(JSON + b"Content-Length: 9\r\n\r\n{"))

    async def test_no_handshake(self) -> None:
        """A host that speaks no TLS, and waits."""
        connected: Deferred[None] = Deferred()

        class Silent(Connection):
            def dataReceived(self, data: bytes) -> None:
                connected.callback(None)

        silent = Factory.forProtocol(lambda: Silent(self.host))
        await self.listen(TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1"), silent)
        gone, waiting = self.host.gone, self.fetch()
        await connected
        self.clock.advance(limits.DOCUMENT_FETCH)
        self.assertEqual(await waiting, TIME_OUT)
        await gone


class TrustTests(RealCase):
    """Hosts that are not who they say, or where nobody may go."""

    async def test_certificates(self) -> None:
        """A certificate of somebody else, of last week, or of another name is none, however
        the name is given; nothing is sent to that host."""
        name, sign = DNSName(NAME), self.authority.server
        bad = {
            "of another authority": Authority().server(name),
            "of no authority": self_signed(name),
            "over": sign(name, days=-1),
            **{odd: sign(*names) for odd, names in IMPOSTORS.items()},
        }
        self.host.says = whole(b"{}")
        for odd, context in bad.items():
            await self.stand(context)
            self.assertEqual(await self.fetch(), CERTIFICATE, odd)
        self.assertEqual(self.host.asked, [])
        await self.stand(sign(DNSName("printer.example"), name))
        self.assertIsInstance(await self.fetch(), Fetched)

    async def test_unreachable(self) -> None:
        """Nobody listens there."""
        await self.stand()
        port = await TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1").listen(Factory())
        self.elsewhere.number = port_of(port)
        await port.stopListening()
        self.assertEqual(await self.fetch(), UNREACHABLE)

    async def test_not_public(self) -> None:
        """Without the test's permission loopback is not gone to."""
        await self.stand()
        strangers = Strangers(self.elsewhere, self.look_up)
        self.assertEqual(await Fetcher(strangers.errand, self.clock).fetch(URL), NOT_PUBLIC)
        self.assertEqual(self.elsewhere.connected, 0)
