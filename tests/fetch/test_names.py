"""Tests for `fjmcp.fetch.names`: whom a look-up asks, and what it makes of what it hears."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.fetch.names import LookUp, system_look_up

NAME = "client.example"


@define(eq=False)
class Asked:
    """
    A socket on which one question was asked.

    :ivar closed: whether it was closed.
    """

    protocol: dns.DNSDatagramProtocol
    server: tuple[str, int] = ("", 0)
    question: dns.Message = field(factory=dns.Message)
    closed: bool = False

    def write(self, data: bytes, server: tuple[str, int]) -> None:
        """The datagram of a question."""
        self.server = server
        self.question.fromStr(data)

    def stopListening(self) -> None:
        """No answer is waited for."""
        self.closed = True

    def answer(self, *texts: str, code: int = dns.OK) -> None:
        """Answer with these addresses, and a name that stands for another one before them."""
        said = dns.Message(self.question.id, answer=1, rCode=code)
        said.queries = self.question.queries
        alias = dns.Record_CNAME("another.example", 60)
        said.answers = [dns.RRHeader(NAME, dns.CNAME, payload=alias)] if texts else []
        for text in texts:
            record = (dns.Record_AAAA if ":" in text else dns.Record_A)(text)
            said.answers.append(dns.RRHeader("another.example", record.TYPE, payload=record))
        self.protocol.datagramReceived(said.toStr(), self.server)


class Net(Clock):
    """A clock with sockets for datagrams."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []

    def listenUDP(self, port: int, protocol: Any, interface: str = "") -> Asked:
        """A socket."""
        self.asked.append(Asked(protocol))
        protocol.makeConnection(self.asked[-1])
        return self.asked[-1]

    def questions(self) -> list[tuple[str, str, str]]:
        """Who was asked for what of which name, since the last look."""
        asked = [(each.server[0], each.question.queries[0]) for each in self.asked]
        kinds = {dns.A: "A", dns.AAAA: "AAAA"}
        return [(server, kinds[query.type], str(query.name)) for server, query in asked]


class LookUpTests(SynchronousTestCase):
    """The system's look-up, with files of its own."""

    def setUp(self) -> None:
        self.net = Net()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def look_up_with(self, *servers: str, hosts: str = "", more: str = "") -> LookUp:
        """A look-up whose machine has these name servers and hosts."""
        lines = [f"nameserver {server}\n" for server in servers]
        (self.folder / "resolv.conf").write_text("".join(lines) + more)
        (self.folder / "hosts").write_text(hosts)
        return system_look_up(
            self.net, str(self.folder / "hosts"), str(self.folder / "resolv.conf")
        )

    def found(self, looked: Deferred[Sequence[IAddress]]) -> list[str]:
        """The addresses that came, all with the port."""
        addresses: Any = self.successResultOf(looked)
        self.assertEqual({each.port for each in addresses} - {443}, set())
        return [each.host for each in addresses]

    def test_both_families(self) -> None:
        """A name server is asked for the addresses of both families, at once; then the sockets
        are closed."""
        looked = self.look_up_with("192.0.2.53")(NAME, 443)
        self.assertEqual(
            self.net.questions(), [("192.0.2.53", "A", NAME), ("192.0.2.53", "AAAA", NAME)]
        )
        self.net.asked[0].answer("8.8.8.8", "127.0.0.1")
        self.assertNoResult(looked)
        self.net.asked[1].answer("2606:4700::1111", "::1")
        expected = ["8.8.8.8", "127.0.0.1", "2606:4700::1111", "::1"]
        self.assertEqual(self.found(looked), expected)
        self.assertTrue(all(each.closed for each in self.net.asked))

    def test_one_family(self) -> None:
        """What one family has is enough, whatever becomes of the other."""
        look_up = self.look_up_with("192.0.2.53")
        for code in (dns.OK, dns.ENAME, dns.ESERVER, dns.EREFUSED):
            self.net.asked.clear()
            looked = look_up(NAME, 443)
            self.net.asked[0].answer("8.8.8.8")
            self.net.asked[1].answer(code=code)
            self.assertEqual(self.found(looked), ["8.8.8.8"])

    def test_nothing(self) -> None:
        """A name without addresses has none, and so has what is no name."""
        look_up = self.look_up_with("192.0.2.53")
        looked = look_up(NAME, 443)
        for each in self.net.asked:
            each.answer(code=dns.ENAME)
        self.assertEqual(self.found(looked), [])
        for name in ("x" * 64 + ".example", "a..example"):
            self.assertEqual(self.found(look_up(name, 443)), [], name)

    def test_silent(self) -> None:
        """Name servers that say nothing are given up in seconds, and hold nothing any more."""
        looked = self.look_up_with("192.0.2.53")(NAME, 443)
        self.net.advance(limits.DOCUMENT_LOOKUP)
        self.assertNoResult(looked)
        self.net.advance(limits.DOCUMENT_LOOKUP)
        self.assertEqual(self.found(looked), [])
        self.assertTrue(all(each.closed for each in self.net.asked))
        self.assertLessEqual(2 * limits.DOCUMENT_LOOKUP, limits.DOCUMENT_FETCH)

    def test_next_server(self) -> None:
        """Where the first name server is silent the next one is asked, in time for a fetch."""
        looked = self.look_up_with("192.0.2.53", "2001:db8::53")(NAME, 443)
        self.net.asked.clear()
        self.net.advance(limits.DOCUMENT_LOOKUP)
        self.assertEqual({server for server, _, _ in self.net.questions()}, {"2001:db8::53"})
        for each in list(self.net.asked):
            each.answer("8.8.8.8")
        self.assertEqual(self.found(looked), ["8.8.8.8", "8.8.8.8"])

    def test_hosts(self) -> None:
        """A name of /etc/hosts is looked up there, and leads where the system would go."""
        hosts = f"127.0.0.1 localhost {NAME.upper()} # {NAME}2\n::1 localhost\n"
        look_up = self.look_up_with("192.0.2.53", hosts=hosts)
        self.assertEqual(self.found(look_up("localhost", 443)), ["127.0.0.1", "::1"])
        self.assertEqual(self.net.asked, [])
        looked = look_up(NAME, 443)
        # Of the family that does not stand there the name servers are asked.
        self.assertEqual(self.net.questions(), [("192.0.2.53", "AAAA", NAME)])
        self.net.asked[0].answer()
        self.assertEqual(self.found(looked), ["127.0.0.1"])

    def test_no_search(self) -> None:
        """A name is asked for as it is, in no domain of this network."""
        look_up = self.look_up_with("192.0.2.53", more="search corp.example\noptions ndots:5\n")
        looked = look_up("a.b", 443)
        for each in self.net.asked:
            each.answer(code=dns.ENAME)
        self.assertEqual(self.found(looked), [])
        self.assertEqual({name for _, _, name in self.net.questions()}, {"a.b"})

    def test_changed_servers(self) -> None:
        """Other name servers are asked within a minute after the file was changed."""
        look_up = self.look_up_with("192.0.2.53")
        (self.folder / "resolv.conf").write_text("nameserver 192.0.2.54\n")
        self.net.advance(60)
        look_up(NAME, 443)
        self.assertEqual({server for server, _, _ in self.net.questions()}, {"192.0.2.54"})

    def test_spelt(self) -> None:
        """Addresses are spelt as `ipaddress` spells them, so that whoever judges them can read
        them."""
        for text in ("2606:4700:0000::1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "fe80::1"):
            self.net.asked.clear()
            looked = self.look_up_with("192.0.2.53")(NAME, 443)
            self.net.asked[0].answer()
            self.net.asked[1].answer(text)
            self.assertEqual(self.found(looked), [str(ip_address(text))])
