"""A look-up by a real name server on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.error import DomainError
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import SkipTest, TestCase

from fjmcp import limits
from fjmcp.fetch.names import Servers, look_up_at

MANY = [f"8.8.{number}.8" for number in range(100)]
"""More addresses than a datagram holds."""
KNOWN = {b"few.example": ["8.8.8.8"], b"many.example": MANY}


class Zone(ResolverBase):
    """Names that a test knows, of one family."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Sequence[int]) -> Deferred[Any]:
        if name not in KNOWN:
            raise DomainError(name)
        texts = KNOWN[name] if type == dns.A else []
        answers = [dns.RRHeader(name, dns.A, payload=dns.Record_A(text)) for text in texts]
        return succeed((answers, [], []))


class Unwilling(DNSServerFactory):
    """A name server that cannot find out."""

    noisy = False

    def handleQuery(self, message: dns.Message, protocol: Any, address: Any) -> None:
        message.answer, message.rCode = 1, dns.ESERVER
        self.sendReply(protocol, message, address)


class ServersTests(TestCase):
    """Several name servers, of which one knows."""

    timeout = 10

    def setUp(self) -> None:
        from twisted.internet import reactor

        net: Any = reactor
        self.knows = self.serve(net, DNSServerFactory(clients=[Zone()]), "127.0.0.1")
        self.unwilling = self.serve(net, Unwilling(clients=[Zone()]), "127.0.0.1")
        self.servers = Servers("/dev/null", net)
        self.addCleanup(lambda: self.servers._parseCall.cancel())

    def serve(self, net: Any, served: DNSServerFactory, interface: str) -> tuple[str, int]:
        """Where it is served from now on."""
        served.noisy = False
        port = net.listenUDP(0, dns.DNSDatagramProtocol(served), interface=interface)
        self.addCleanup(port.stopListening)
        return (interface, port.getHost().port)

    async def test_next(self) -> None:
        """Those that cannot be asked, or cannot find out, are passed over."""
        for bad in (self.unwilling, ("fe80::1%nowhere", 53)):
            self.servers.dynServers = [bad, self.knows]
            found: Any = await look_up_at(self.servers)("few.example", 443)
            self.assertEqual([each.host for each in found], ["8.8.8.8"], bad)

    async def test_spelt(self) -> None:
        """A server of IPv6 is heard, however its address is spelt in the file."""
        try:
            knows = self.serve(self.servers._reactor, DNSServerFactory(clients=[Zone()]), "::1")
        except CannotListenError as no:
            raise SkipTest("no IPv6 here") from no
        self.servers.parseConfig([b"nameserver 0:0:0:0:0:0:0:1"])
        ((address, _),) = self.servers.dynServers
        self.servers.dynServers = [(address, knows[1])]
        found: Any = await look_up_at(self.servers)("few.example", 443)
        self.assertEqual([each.host for each in found], ["8.8.8.8"])


class NameServerTests(TestCase):
    """A name server, over datagrams and connections."""

    timeout = 10

    def setUp(self) -> None:
        from twisted.internet import reactor

        net: Any = reactor
        served = DNSServerFactory(clients=[Zone()])
        served.noisy = False
        connections = net.listenTCP(0, served, interface="127.0.0.1")
        number = connections.getHost().port
        datagrams = net.listenUDP(number, dns.DNSDatagramProtocol(served), interface="127.0.0.1")
        for port in (connections, datagrams):
            self.addCleanup(port.stopListening)
        patience = (limits.DOCUMENT_LOOKUP,)
        self.resolver = Resolver(servers=[("127.0.0.1", number)], timeout=patience, reactor=net)
        self.look_up = look_up_at(self.resolver)

    async def hosts(self, name: str) -> list[str]:
        """The addresses of a name."""
        found: Any = await self.look_up(name, 443)
        return [each.host for each in found]

    async def test_answers(self) -> None:
        """Names have the addresses that the server knows, and others none."""
        self.assertEqual(await self.hosts("few.example"), ["8.8.8.8"])
        self.assertEqual(await self.hosts("none.example"), [])

    async def test_large(self) -> None:
        """What a datagram does not hold is asked for over a connection."""
        self.assertEqual(await self.hosts("many.example"), MANY)
