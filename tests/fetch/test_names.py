"""Tests for `fjmcp.fetch.names`: whom a look-up asks, and what it makes of what it hears."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
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
    :ivar unreachable: servers to which there is no way.
    """

    protocol: dns.DNSDatagramProtocol
    server: tuple[str, int] = ("", 0)
    question: dns.Message = field(factory=dns.Message)
    closed: bool = False
    unreachable: set[str] = field(factory=set)

    def write(self, data: bytes, server: tuple[str, int]) -> None:
        """The datagram of a question."""
        self.server = server
        self.question.fromStr(data)
        if server[0] in self.unreachable:
            raise OSError("Network is unreachable")

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
    """
    A clock with sockets for datagrams.

    :ivar closed: interfaces on which there are none.
    :ivar unreachable: servers to which there is no way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.closed: set[str] = set()
        self.unreachable: set[str] = set()

    def listenUDP(self, port: int, protocol: Any, interface: str = "") -> Asked:
        """A socket."""
        if interface in self.closed:
            raise CannotListenError(interface, port, OSError("Address family not supported"))
        self.asked.append(Asked(protocol, unreachable=self.unreachable))
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
        self.write("".join(f"nameserver {server}\n" for server in servers) + more)
        (self.folder / "hosts").write_text(hosts)
        return system_look_up(
            self.net, str(self.folder / "hosts"), str(self.folder / "resolv.conf")
        )

    def write(self, text: str) -> None:
        """What stands in resolv.conf."""
        (self.folder / "resolv.conf").write_text(text)

    def servers(self, look_up: LookUp) -> list[str]:
        """Whom a look-up asks, one after the other, while nobody answers."""
        self.net.asked.clear()
        looked = look_up(NAME, 443)
        while not looked.called:
            self.net.advance(limits.DOCUMENT_LOOKUP)
        asked = [server for server, kind, _ in self.net.questions() if kind == "A"]
        return asked[: len(asked) // 2]

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
        self.write("nameserver 192.0.2.54\n")
        self.net.advance(60)
        self.assertEqual(self.servers(look_up), ["192.0.2.54"])

    def test_file_as_written(self) -> None:
        """What people write into the file names the servers that it names; the rest is passed
        over, and said once."""
        both = ["192.0.2.53", "192.0.2.54"]
        for text, servers, odd in (
            ("nameserver\t192.0.2.53\n", ["192.0.2.53"], 0),
            ("  nameserver 192.0.2.53 # ours\r\nnameserver 192.0.2.54;x\n", both, 0),
            ("nameserver\nnameserver 192.0.2.53\nnameserver", ["192.0.2.53"], 2),
            ("nameserver # soon\n;nameserver 1\n#nameserver 192.0.2.1\n\n", ["127.0.0.1"], 1),
            ("nameserver \u00e9\n\u00e9\nnameserver 192.0.2.53\n", ["192.0.2.53"], 1),
            ("nameserver dns.example\nnameserver 192.0.2.999\n", ["127.0.0.1"], 2),
            ("nameservers 192.0.2.1\ndomain\nsearch\noptions\n", ["127.0.0.1"], 0),
            ("", ["127.0.0.1"], 0),
            ("nameserver 0:0:0:0:0:0:0:1\n", ["::1"], 0),
            ("nameserver 2001:DB8::0053\n", ["2001:db8::53"], 0),
            ("nameserver ::ffff:192.0.2.53\n", ["192.0.2.53"], 0),
            ("nameserver fe80::1%eth0\n", ["fe80::1%eth0"], 0),
        ):
            self.net = Net()
            with capturedLogs() as events:
                look_up = self.look_up_with(more=text)
                self.net.advance(180)
            self.assertEqual(self.servers(look_up), servers, text)
            warned = [event for event in events if event["log_level"] is LogLevel.warn]
            self.assertEqual(len(warned), odd, text)

    def test_bytes(self) -> None:
        """A file of any bytes whatever names servers all the same."""
        (self.folder / "resolv.conf").write_bytes(b"\0\xff nameserver\nnameserver \xff\n")
        (self.folder / "hosts").write_text("")
        path = self.folder / "resolv.conf"
        look_up = system_look_up(self.net, str(self.folder / "hosts"), str(path))
        self.assertEqual(self.servers(look_up), ["127.0.0.1"])

    def test_half_written(self) -> None:
        """A file that was read in the middle of being written is read again."""
        look_up = self.look_up_with("192.0.2.53")
        for text, server in (
            ("nameserver", "127.0.0.1"),
            ("nameserver 192.0.2.54\n", "192.0.2.54"),
            ("nameserver 192.0.2.55\n", "192.0.2.55"),
        ):
            self.write(text)
            # Of the same second, as far as the file system tells.
            os.utime(self.folder / "resolv.conf", (1, 1))
            self.net.advance(60)
            self.assertEqual(self.servers(look_up), [server])

    def test_unreadable(self) -> None:
        """While the file cannot be read what it said last holds; that is logged once a time."""
        look_up = self.look_up_with("192.0.2.53")
        path = self.folder / "resolv.conf"
        for _ in range(2):
            path.unlink()
            with capturedLogs() as events:
                self.net.advance(60)
                path.mkdir()
                self.net.pump([60] * 3)
            self.assertEqual(self.servers(look_up), ["192.0.2.53"])
            self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
            path.rmdir()
            self.write("nameserver 192.0.2.53\n")
            self.net.advance(60)
        self.write("nameserver 192.0.2.54\n")
        self.net.advance(60)
        self.assertEqual(self.servers(look_up), ["192.0.2.54"])

    def test_no_file(self) -> None:
        """Without a file the server on this machine is asked, until there is one."""
        (self.folder / "hosts").write_text("")
        path = self.folder / "resolv.conf"
        look_up = system_look_up(self.net, str(self.folder / "hosts"), str(path))
        self.assertEqual(self.servers(look_up), ["127.0.0.1"])
        self.write("nameserver 192.0.2.53\n")
        self.net.advance(60)
        self.assertEqual(self.servers(look_up), ["192.0.2.53"])

    def test_unwilling(self) -> None:
        """A server that did not find out is not believed: the next one is asked at once."""
        for code in (dns.ESERVER, dns.EREFUSED, dns.ENOTIMP):
            self.net.asked.clear()
            looked = self.look_up_with("192.0.2.53", "192.0.2.54")(NAME, 443)
            for each in list(self.net.asked):
                each.answer(code=code)
            self.assertEqual([each.server[0] for each in self.net.asked[2:]], ["192.0.2.54"] * 2)
            for each in self.net.asked[2:]:
                each.answer("8.8.8.8")
            self.assertEqual(self.found(looked), ["8.8.8.8", "8.8.8.8"])
            self.assertTrue(all(each.closed for each in self.net.asked))

    def test_no_such_name(self) -> None:
        """That there is no such name, or no address of it, is an answer: no other is asked."""
        for code in (dns.OK, dns.ENAME, dns.EFORMAT):
            self.net.asked.clear()
            looked = self.look_up_with("192.0.2.53", "192.0.2.54")(NAME, 443)
            for each in self.net.asked:
                each.answer(code=code)
            self.assertEqual((self.found(looked), len(self.net.asked)), ([], 2))

    def test_all_unwilling(self) -> None:
        """Each server that did not find out is asked once, and then there is no address."""
        looked = self.look_up_with("192.0.2.53", "192.0.2.54", "192.0.2.55")(NAME, 443)
        for number in range(0, 6, 2):
            for each in self.net.asked[number:]:
                each.answer(code=dns.ESERVER)
        self.assertEqual(self.found(looked), [])
        self.assertEqual(len(self.net.asked), 6)

    def test_unwilling_and_silent(self) -> None:
        """Beside one that did not find out a silent server is asked once more, in the same time
        as ever."""
        looked = self.look_up_with("192.0.2.53", "192.0.2.54")(NAME, 443)
        for each in list(self.net.asked):
            each.answer(code=dns.EREFUSED)
        self.net.advance(limits.DOCUMENT_LOOKUP)
        self.assertNoResult(looked)
        servers = [each.server[0] for each in self.net.asked]
        self.assertEqual(servers, ["192.0.2.53"] * 2 + ["192.0.2.54"] * 4)
        self.net.advance(limits.DOCUMENT_LOOKUP)
        self.assertEqual(self.found(looked), [])

    def test_no_way(self) -> None:
        """A server to which there is no way, or no socket, is passed over; with no other there
        is no address, and the same name can be asked for again."""
        self.net.closed = {"::"}
        self.net.unreachable = {"192.0.2.53"}
        for servers in (("2001:db8::53",), ("192.0.2.53",), ("fe80::1%eth0", "192.0.2.53")):
            self.net.asked.clear()
            look_up = self.look_up_with(*servers, "192.0.2.54")
            looked = look_up(NAME, 443)
            for each in self.net.asked:
                if each.server[0] == "192.0.2.54":
                    each.answer("8.8.8.8")
            self.assertEqual(self.found(looked), ["8.8.8.8", "8.8.8.8"], servers)
            look_up = self.look_up_with(*servers)
            for _ in range(2):
                self.assertEqual(self.found(look_up(NAME, 443)), [], servers)

    def test_spelt(self) -> None:
        """Addresses are spelt as `ipaddress` spells them, so that whoever judges them can read
        them."""
        for text in ("2606:4700:0000::1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "fe80::1"):
            self.net.asked.clear()
            looked = self.look_up_with("192.0.2.53")(NAME, 443)
            self.net.asked[0].answer()
            self.net.asked[1].answer(text)
            self.assertEqual(self.found(looked), [str(ip_address(text))])
