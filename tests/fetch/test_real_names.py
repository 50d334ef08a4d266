"""A look-up by a real name server on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.error import DomainError
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import TestCase

from fjmcp import limits
from fjmcp.fetch.names import look_up_at

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
