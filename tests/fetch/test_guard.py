"""Tests for `fjmcp.fetch.guard`: what an agent on a guarded reactor can be led to."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from fjmcp import limits
from fjmcp.fetch.guard import Errand, Strangers
from tests.fetch.test_addresses import NOT_PUBLIC, PUBLIC

GOOD = "93.184.216.34"
NAME = "client.example"


def address(host: str, port: int) -> IAddress:
    """The address of a host that is spelled so."""
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


@define(eq=False)
class Names:
    """
    A look-up whose answers a test knows.

    :ivar held: None, or those that wait to be answered.
    """

    known: dict[str, Sequence[str]] = field(factory=dict)
    asked: list[str] = field(factory=list)
    held: list[Deferred[Sequence[IAddress]]] | None = None

    def look_up(self, name: str, port: int) -> Deferred[Sequence[IAddress]]:
        self.asked.append(name)
        if self.held is not None:
            waiting: Deferred[Sequence[IAddress]] = Deferred()
            self.held.append(waiting)
            return waiting
        return succeed([address(host, port) for host in self.known.get(name, ())])


class Case(SynchronousTestCase):
    """A reactor in memory, and names."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.names = Names()
        self.strangers = Strangers(self.reactor, self.names.look_up)

    def connect(self, errand: Errand, name: str = NAME, port: int = 443) -> Deferred[IProtocol]:
        """Connect to a name, as the agent does."""
        return HostnameEndpoint(errand, name, port).connect(Factory.forProtocol(Protocol))

    def connected_to(self) -> list[tuple[str, int]]:
        """Where connections were begun to."""
        return [(client[0], client[1]) for client in self.reactor.tcpClients]


class AddressTests(Case):
    """Names and where they lead."""

    def test_public(self) -> None:
        """The address that was looked at is the one that is connected to, whatever its family."""
        for host in PUBLIC:
            self.names.known = {NAME: [host]}
            errand = self.strangers.errand()
            self.connect(errand)
            self.assertEqual(self.connected_to()[-1], (host, 443))
            self.assertFalse(errand.not_public)
        self.assertEqual(len(self.connected_to()), len(PUBLIC))

    def test_looked_up_once(self) -> None:
        """A name that would be another address the next time is not asked a second time."""
        self.names.known = {NAME: [GOOD]}
        self.connect(self.strangers.errand())
        self.names.known = {NAME: ["127.0.0.1"]}
        self.reactor.advance(limits.DOCUMENT_FETCH)
        self.assertEqual((self.names.asked, self.connected_to()), ([NAME], [(GOOD, 443)]))

    def test_not_public(self) -> None:
        """A name with an address that is not public leads nowhere."""
        for texts in NOT_PUBLIC.values():
            for host in texts:
                if host and "[" not in host:
                    self.names.known = {NAME: [host]}
                    errand = self.strangers.errand()
                    self.failureResultOf(self.connect(errand), DNSLookupError)
                    self.assertTrue(errand.not_public, host)
        self.assertEqual(self.connected_to(), [])

    def test_mixed(self) -> None:
        """One address that is not public spoils a name, wherever among the others it stands."""
        for hosts in (
            [GOOD, "127.0.0.1"],
            ["127.0.0.1", GOOD],
            [GOOD, "8.8.8.8", "::1", "1.1.1.1"],
            ["2606:2800:220:1::1", GOOD, "169.254.169.254"],
        ):
            self.names.known = {NAME: hosts}
            errand = self.strangers.errand()
            self.failureResultOf(self.connect(errand), DNSLookupError)
            self.assertTrue(errand.not_public)
        self.reactor.advance(60)
        self.assertEqual(self.connected_to(), [])

    def test_next_address(self) -> None:
        """Where one of a name's public addresses is slow, another of them is tried."""
        self.names.known = {NAME: [GOOD, "8.8.8.8"]}
        self.connect(self.strangers.errand())
        self.reactor.advance(1)
        self.assertEqual(self.connected_to(), [(GOOD, 443), ("8.8.8.8", 443)])

    def test_unknown(self) -> None:
        """A name without addresses leads nowhere, and is not blamed for it."""
        errand = self.strangers.errand()
        self.failureResultOf(self.connect(errand), DNSLookupError)
        self.assertFalse(errand.not_public)

    def test_literal(self) -> None:
        """An address in place of a name is no way round."""
        for host in ("127.0.0.1", "::1", "169.254.169.254"):
            self.names.known = {host: [host]}
            self.failureResultOf(self.connect(self.strangers.errand(), host), DNSLookupError)
        self.assertEqual(self.connected_to(), [])

    def test_connect_alone(self) -> None:
        """Who connects without looking up is looked at all the same."""
        errand = self.strangers.errand()
        for host in ("127.0.0.1", "localhost", NAME, "::ffff:8.8.8.8", ""):
            with self.assertRaises(ConnectError):
                errand.connectTCP(host, 443, ClientFactory.forProtocol(Protocol))
        self.assertEqual(self.connected_to(), [])

    def test_agent(self) -> None:
        """The agent of an errand goes through it and keeps no connection."""
        self.names.known = {NAME: [GOOD]}
        errand = self.strangers.errand()
        assert isinstance(errand.agent, Agent)
        self.assertFalse(errand.agent._pool.persistent)
        errand.agent.request(b"GET", b"http://client.example/x")
        self.assertEqual(self.connected_to(), [(GOOD, 80)])
        self.names.known = {NAME: ["10.0.0.1"]}
        asked = self.strangers.errand().agent.request(b"GET", b"http://client.example/x")
        self.failureResultOf(asked, DNSLookupError)


class SlowTests(Case):
    """Look-ups that are not answered yet."""

    def setUp(self) -> None:
        super().setUp()
        self.names.held = []

    def tearDown(self) -> None:
        """Let nothing wait for ever."""
        for held in self.names.held or ():
            if not held.called:
                held.callback([])

    def test_nobody_waits(self) -> None:
        """None waits for another: name servers that say nothing cost nobody else a turn."""
        for number in range(limits.DOCUMENT_FETCHES):
            self.connect(self.strangers.errand(), f"{number}.example").addErrback(lambda _: None)
        self.assertEqual(len(self.names.asked), limits.DOCUMENT_FETCHES)
        assert self.names.held is not None
        self.names.held[-1].callback([address(GOOD, 443)])
        self.assertEqual(self.connected_to(), [(GOOD, 443)])

    def test_closed_before(self) -> None:
        """A look-up for which nobody waits any more leads nowhere."""
        errand = self.strangers.errand()
        waiting = self.connect(errand)
        waiting.cancel()
        self.failureResultOf(waiting)
        errand.close()
        assert self.names.held is not None
        self.names.held[0].callback([address(GOOD, 443)])
        self.assertEqual(self.connected_to(), [])

    def test_look_up_fails(self) -> None:
        """A look-up that fails, which none should, is a bug that is told of."""
        waiting = self.connect(self.strangers.errand())
        assert self.names.held is not None
        self.names.held[0].errback(ZeroDivisionError())
        waiting.cancel()
        self.failureResultOf(waiting)
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class OftenTests(Case):
    """How often one address is connected to."""

    def connect_by(self, name: str, *hosts: str) -> Errand:
        """An errand to a name with these addresses."""
        self.names.known = {name: hosts}
        errand = self.strangers.errand()
        self.connect(errand, name).addErrback(lambda failure: failure.trap(ConnectError))
        return errand

    def test_one_address(self) -> None:
        """One address is connected to so often and no more, by whatever names, and others go
        on."""
        at_once, every = limits.RATE_OF_DOCUMENT_ADDRESS
        for number in range(at_once):
            self.assertFalse(self.connect_by(f"{number}.example", GOOD).busy)
        self.assertTrue(self.connect_by("more.example", GOOD).busy)
        self.assertEqual(self.connected_to(), [(GOOD, 443)] * at_once)
        self.assertFalse(self.connect_by("other.example", "8.8.8.8").busy)
        self.reactor.advance(every)
        self.assertFalse(self.connect_by("more.example", GOOD).busy)
        self.assertTrue(self.connect_by("more.example", GOOD).busy)

    def test_one_host(self) -> None:
        """In IPv6 a host has a whole /64; in IPv4 neighbours are others."""
        at_once, _ = limits.RATE_OF_DOCUMENT_ADDRESS
        for number in range(at_once):
            self.connect_by("a.example", f"2606:4700:1:2::{number:x}")
            self.connect_by("b.example", "8.8.8.8")
        self.assertTrue(self.connect_by("a.example", "2606:4700:1:2:ffff::1").busy)
        self.assertFalse(self.connect_by("a.example", "2606:4700:1:3::1").busy)
        self.assertTrue(self.connect_by("b.example", "8.8.8.8").busy)
        self.assertFalse(self.connect_by("b.example", "8.8.8.9").busy)

    def test_another_address(self) -> None:
        """A name goes on with its other addresses, each of which counts when it is tried."""
        at_once, _ = limits.RATE_OF_DOCUMENT_ADDRESS
        for _ in range(at_once):
            self.connect_by("a.example", GOOD, "8.8.8.8")
        self.connect_by("a.example", GOOD, "8.8.8.8")
        self.assertEqual(self.connected_to(), [(GOOD, 443)] * at_once)
        self.reactor.advance(0.3)
        # Those whose first address was slow have tried the second one, as often as it may be.
        self.assertEqual(self.connected_to()[at_once:], [("8.8.8.8", 443)] * at_once)

    def test_few_of_many(self) -> None:
        """A name has us try few addresses, however many it has; but all of them are judged."""
        many = [f"8.8.{number}.8" for number in range(200)]
        self.connect_by(NAME, *many)
        self.reactor.pump([0.3] * 50)
        self.assertEqual(len(self.connected_to()), limits.DOCUMENT_ADDRESSES)
        self.assertTrue(self.refused(*many, "10.0.0.1"))

    def refused(self, *hosts: str) -> bool:
        """Whether a name with these addresses leads nowhere for what they are."""
        self.names.known = {NAME: hosts}
        errand = self.strangers.errand()
        self.failureResultOf(self.connect(errand), DNSLookupError)
        return errand.not_public


class Heard(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.ended: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.append(reason)


class LineTests(Case):
    """The connection."""

    def setUp(self) -> None:
        super().setUp()
        self.errand = self.strangers.errand()
        self.heard = Heard()
        self.errand.connectTCP(GOOD, 443, ClientFactory.forProtocol(lambda: self.heard))
        factory = self.reactor.tcpClients[0][2]
        line = factory.buildProtocol(address(GOOD, 443))
        assert line is not None
        self.line = line
        self.transport = StringTransport()
        self.line.makeConnection(self.transport)

    def test_bounded(self) -> None:
        """So much may come, and with a byte more the connection is gone."""
        self.line.dataReceived(b"x" * limits.DOCUMENT_WIRE)
        self.assertEqual(len(self.heard.data), limits.DOCUMENT_WIRE)
        self.assertFalse(self.errand.overrun)
        self.line.dataReceived(b"x")
        self.assertTrue(self.errand.overrun)
        self.assertEqual(self.transport.disconnected, True)
        self.line.dataReceived(b"x")
        self.assertEqual(len(self.heard.data), limits.DOCUMENT_WIRE)

    def test_closed(self) -> None:
        """Who closes the errand closes its connections, and can begin no other."""
        self.errand.close()
        self.assertTrue(self.transport.disconnected)
        with self.assertRaises(ConnectError):
            self.errand.connectTCP(GOOD, 443, ClientFactory.forProtocol(Protocol))

    def test_closed_after(self) -> None:
        """A connection that is gone is left alone."""
        self.line.connectionLost(Failure(ConnectError()))
        self.assertEqual(len(self.heard.ended), 1)
        self.errand.close()
        self.assertFalse(self.transport.disconnected)
