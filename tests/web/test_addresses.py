from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from fjmcp.oauth.endpoints import Endpoints
from fjmcp.testing.visitors import Visitor
from fjmcp.web.addresses import Addresses, Header, Proxies, block, hosted_by, nested, parse
from fjmcp.web.channel import SiteRequest
from fjmcp.web.routes import Answer, Tongue, route
from fjmcp.web.site import Site

CLIENT = "203.0.113.9"
SPOOFED = "192.0.2.66"


def peer(host: str) -> IAddress:
    if host == "unix":
        return UNIXAddress("")
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 40000)


def proxies(*networks: str, sockets: bool = False, forwarded: bool = False) -> Proxies:
    header = Header.FORWARDED if forwarded else Header.X_FORWARDED_FOR
    return Proxies(tuple(ip_network(network) for network in networks), sockets, header)


LOCAL = proxies("127.0.0.0/8", "::1/128", "10.0.0.0/8")

X_FORWARDED_FOR: tuple[tuple[str, str, list[str], str | None], ...] = (
    # what it shows                       peer, lines of X-Forwarded-For, whose request it is
    ("one proxy", "127.0.0.1", [CLIENT], CLIENT),
    ("the client lies to its left", "127.0.0.1", [f"{SPOOFED}, {CLIENT}"], CLIENT),
    ("it lies with a proxy's address", "127.0.0.1", [f"10.0.0.1, {CLIENT}"], CLIENT),
    ("it lies with a line of its own", "127.0.0.1", [SPOOFED, CLIENT], CLIENT),
    ("it lies with rubbish", "127.0.0.1", [f'", for="x, ,,, {CLIENT}'], CLIENT),
    ("two proxies", "127.0.0.1", [f"{SPOOFED}, {CLIENT}, 10.1.2.3"], CLIENT),
    ("two proxies, two lines", "127.0.0.1", [f"{SPOOFED}, {CLIENT}", "10.1.2.3"], CLIENT),
    ("IPv6 everywhere", "::1", ["2001:db8::1"], "2001:db8::1"),
    ("with a port", "127.0.0.1", [f"{CLIENT}:61234"], CLIENT),
    ("IPv6 with a port", "127.0.0.1", ["[2001:db8::1]:61234"], "2001:db8::1"),
    ("IPv6 in brackets", "127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
    ("IPv4 dressed as IPv6", "127.0.0.1", [f"::ffff:{CLIENT}"], CLIENT),
    ("a proxy dressed as IPv6", "::ffff:127.0.0.1", [CLIENT], CLIENT),
    ("with a zone", "127.0.0.1", ["fe80::1%eth0"], "fe80::1"),
    ("no proxy of ours", CLIENT, [SPOOFED], CLIENT),
    ("no proxy of ours, ours named", CLIENT, ["127.0.0.1"], CLIENT),
    ("nobody named", "127.0.0.1", [], None),
    ("an empty header", "127.0.0.1", [" "], None),
    ("only proxies named", "127.0.0.1", ["10.0.0.1, 10.0.0.2"], None),
    ("a proxy that hides it", "127.0.0.1", [f"{SPOOFED}, unknown"], None),
    ("rubbish of a proxy", "127.0.0.1", [f"{SPOOFED}, 1.2.3"], None),
    ("a comma too many", "127.0.0.1", [f"{CLIENT},"], None),
    ("a network", "127.0.0.1", ["10.0.0.0/8"], None),
    ("letters that are digits elsewhere", "127.0.0.1", ["1.2.3.\u00b2"], None),
    ("a socket that nobody trusts", "unix", [CLIENT], None),
)

FORWARDED: tuple[tuple[str, list[str], str | None], ...] = (
    ("one proxy", [f"for={CLIENT}"], CLIENT),
    ("all that may stand there", [f"by=10.0.0.1;FOR={CLIENT};host=a.example;proto=https"], CLIENT),
    ("quoted, with a port", ['for="[2001:db8::1]:4711"'], "2001:db8::1"),
    ("the client lies to its left", [f"for={SPOOFED}, for={CLIENT}"], CLIENT),
    ("it lies with half a quote", [f'for="{SPOOFED}, for={CLIENT}'], CLIENT),
    ("it lies by its Host", [f'for={CLIENT};host="a,for={SPOOFED}"'], None),
    ("it lies by its Host, better", [f'for={CLIENT};host="a,for={SPOOFED};b="'], None),
    ("two proxies", [f"for={SPOOFED}", f"for={CLIENT}, for=10.0.0.9"], CLIENT),
    ("a proxy that hides it", ["for=unknown"], None),
    ("a name of its own", ["for=_gateway"], None),
    ("no for", ["proto=https"], None),
    ("no pair", [CLIENT], None),
)


class ProxiesTests(SynchronousTestCase):
    def test_x_forwarded_for(self) -> None:
        """The rightmost address that is no trusted proxy's, whatever the client wrote itself."""
        for shows, host, lines, expected in X_FORWARDED_FOR:
            headers = Headers({"x-forwarded-for": lines})
            found = LOCAL.client(peer(host), headers)
            self.assertEqual(None if found is None else str(found), expected, shows)

    def test_forwarded(self) -> None:
        """Likewise in RFC 7239's spelling, and only where the operator has said so."""
        trusting = proxies("127.0.0.1", "10.0.0.0/8", forwarded=True)
        for shows, lines, expected in FORWARDED:
            headers = Headers({"forwarded": lines, "x-forwarded-for": [SPOOFED]})
            found = trusting.client(peer("127.0.0.1"), headers)
            self.assertEqual(None if found is None else str(found), expected, shows)

    def test_one_header(self) -> None:
        """The header that the proxy does not write is the client's own, and means nothing."""
        headers = Headers({"x-forwarded-for": [CLIENT], "forwarded": [f"for={SPOOFED}"]})
        self.assertEqual(LOCAL.client(peer("127.0.0.1"), headers), ip_address(CLIENT))
        for name in ("forwarded", "x-real-ip", "true-client-ip", "x-client-ip", "via"):
            headers = Headers({name: [SPOOFED]})
            self.assertIsNone(LOCAL.client(peer("127.0.0.1"), headers), name)

    def test_sockets(self) -> None:
        """A Unix socket leads to a proxy if the operator says so."""
        headers = Headers({"x-forwarded-for": [CLIENT]})
        self.assertEqual(proxies(sockets=True).client(peer("unix"), headers), ip_address(CLIENT))
        self.assertEqual(proxies(sockets=True).client(peer(SPOOFED), headers), ip_address(SPOOFED))

    def test_none(self) -> None:
        """Without any proxy every connection is the client's own, whatever it says."""
        headers = Headers({"x-forwarded-for": [SPOOFED]})
        self.assertEqual(Proxies().client(peer(CLIENT), headers), ip_address(CLIENT))

    @given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=4))
    def test_spoofed(self, spoofed: list[str]) -> None:
        """Nothing that a client sends changes whose request it is."""
        sent = [text.replace("\n", "").replace("\r", "") for text in spoofed]
        lines = [text.encode("latin-1") for text in sent] + [CLIENT.encode()]
        for given_lines in (lines, [b", ".join(lines)]):
            headers = Headers({b"x-forwarded-for": given_lines})
            self.assertEqual(LOCAL.client(peer("127.0.0.1"), headers), ip_address(CLIENT))
            forwarded = Headers({b"forwarded": [*given_lines, b"for=" + CLIENT.encode()]})
            trusting = proxies("127.0.0.1", forwarded=True)
            self.assertEqual(trusting.client(peer("127.0.0.1"), forwarded), ip_address(CLIENT))


class AddressesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.found: list[object] = []

    def ask(self, addresses: Addresses, host: str, **headers: str) -> object:
        async def respond(request: SiteRequest) -> Answer:
            self.found.append(addresses.of(request))
            return {}

        doors = [route("/door", speaks=Tongue.OAUTH, get=respond)]
        site = Site(Endpoints("https://broker.example"), doors, self.clock)
        self.assertEqual(
            Visitor(site, self.clock, peer=peer(host)).get("/door", **headers).status, 200
        )
        return self.found[-1]

    def test_unsaid(self) -> None:
        """As long as nobody has named the proxies, no address is known."""
        for host in ("127.0.0.1", CLIENT, "unix"):
            self.assertIsNone(self.ask(Addresses(None), host, x_forwarded_for=SPOOFED))

    def test_request(self) -> None:
        """The address comes from the connection and the headers of a request."""
        found = self.ask(Addresses(LOCAL), "127.0.0.1", x_forwarded_for=f"{SPOOFED}, {CLIENT}")
        self.assertEqual(found, ip_address(CLIENT))
        self.assertEqual(self.ask(Addresses(LOCAL), CLIENT), ip_address(CLIENT))

    def test_silent_proxy(self) -> None:
        """A proxy that names nobody is told of in the log, once."""
        addresses = Addresses(LOCAL)
        with capturedLogs() as events:
            for _ in range(3):
                self.assertIsNone(self.ask(addresses, "127.0.0.1"))
        said = [event for event in events if "does not say" in event["log_format"]]
        self.assertEqual([event["peer"] for event in said], ["127.0.0.1"])


class BlockTests(SynchronousTestCase):
    def test_neighbours(self) -> None:
        """Who can have one address of a block can have them all, so they are one sender."""
        for one, other, same in (
            ("203.0.113.9", "203.0.113.250", True),
            ("203.0.113.9", "203.0.114.9", False),
            ("2001:db8:0:1::1", "2001:db8:0:ff:9::", True),
            ("2001:db8:0:1::1", "2001:db8:0:101::1", False),
            ("160.79.104.1", "160.79.111.254", True),
            ("160.79.104.1", "160.79.112.1", False),
        ):
            blocks = [block(ip_address(address)) for address in (one, other)]
            self.assertEqual(len(set(blocks)) == 1, same, (one, other))

    def test_nested(self) -> None:
        """An address counts with ever wider networks, each of which may send more."""
        for address, expected in (
            ("203.0.113.9", [("203.0.113.0/24", 1), ("203.0.0.0/16", 4)]),
            (
                "2001:470:1f0b:1234::1",
                [("2001:470:1f0b:1200::/56", 1), ("2001:470:1f0b::/48", 2), ("2001:470::/32", 4)],
            ),
        ):
            self.assertEqual(nested(ip_address(address)), expected)

    def test_hosted(self) -> None:
        """Anthropic's egress is known, its neighbours are not taken for it."""
        self.assertEqual(str(hosted_by(ip_address("160.79.106.77"))), "160.79.104.0/21")
        for address in ("160.79.103.255", "160.79.112.0", "2001:db8::1"):
            self.assertIsNone(hosted_by(ip_address(address)), address)

    @given(st.one_of(st.ip_addresses().map(str), st.text()))
    def test_parse(self, text: str) -> None:
        """Whatever stands there is an address or nothing."""
        found = parse(text)
        if found is not None:
            self.assertIn(found, ip_network(block(found)))
