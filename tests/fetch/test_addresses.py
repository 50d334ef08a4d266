"""Tests for `fjmcp.fetch.addresses`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.fetch.addresses import host_of, is_public

PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "160.79.104.10",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::",
    "2001:200::",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    "2003::1",
    "2001:4860:4860::8888",
    "2606:2800:220:1:248:1893:25c8:1946",
    "2a00:1450:4001:82b::200e",
    "3fff:1000::",
    "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)

NOT_PUBLIC = {
    "this network": ("0.0.0.0", "0.1.2.3", "0.255.255.255", "::"),
    "loopback": ("127.0.0.1", "127.0.0.0", "127.255.255.255", "127.8.8.8", "::1"),
    "private": ("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1"),
    "carriers' NAT": ("100.64.0.0", "100.100.100.200", "100.127.255.255"),
    "link-local": ("169.254.0.1", "169.254.169.254", "169.254.170.2", "fe80::1", "febf::1"),
    "a cloud's own": ("168.63.129.16", "fd00:ec2::254", "192.0.0.192"),
    "protocol assignments": ("192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.255"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1"),
    "benchmarks": ("198.18.0.0", "198.19.255.255", "2001:2::1"),
    "AS112 and AMT": ("192.31.196.1", "192.175.48.6", "192.52.193.1", "2620:4f:8000::1"),
    "6to4 relays": ("192.88.99.0", "192.88.99.1"),
    "multicast": ("224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"),
    "reserved": ("240.0.0.1", "255.255.255.254", "255.255.255.255"),
    "IPv4 in IPv6": ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8"),
    "translated": ("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::808:808"),
    "6to4": ("2002::", "2002:7f00:1::", "2002:808:808::1", "2002:ffff::"),
    "Teredo": ("2001::", "2001:0:7f00:1::", "2001:0:ffff:ffff::1"),
    "ORCHID and the like": ("2001:10::1", "2001:20::1", "2001:3::1", "2001:4:112::1", "2001:1ff::"),
    "discard-only": ("100::", "100::1"),
    "unique local": ("fc00::1", "fd12:3456:789a::1", "fdff:ffff::1"),
    "site-local": ("fec0::1", "feff::1"),
    "segment routing": ("5f00::1",),
    "of no registry": ("200::1", "1fff:ffff::1", "4000::1", "8000::1", "e000::1"),
    "of one interface": ("fe80::1%eth0", "2001:4860:4860::8888%1"),
    "no address": (
        "",
        "x",
        "localhost",
        "1.2.3",
        "8.8.8.8:443",
        "8.8.8.8/32",
        "08.8.8.8",
        "8.8.8.8 ",
    ),
    "other spellings": ("08.8.8.8", "0x8.8.8.8", "134744072", "8.8.2056", "[2001:4860:4860::8888]"),
}


class PublicTests(SynchronousTestCase):
    """What is public."""

    def test_public(self) -> None:
        """Addresses of the public Internet, those right beside special ones among them."""
        for text in PUBLIC:
            self.assertTrue(is_public(text), text)

    def test_not_public(self) -> None:
        """No special-purpose address is, nor one that carries another in it."""
        for kind, texts in NOT_PUBLIC.items():
            for text in texts:
                self.assertFalse(is_public(text), f"{kind}: {text}")

    @given(st.ip_addresses())
    def test_never_more(self, address: IPv4Address | IPv6Address) -> None:
        """Nothing is public that Python's own tables call anything but global unicast."""
        if is_public(str(address)):
            for name in ("private", "loopback", "link_local", "multicast", "reserved"):
                self.assertFalse(getattr(address, f"is_{name}"), f"{name}: {address}")

    @given(st.ip_addresses(v=4))
    def test_in_disguise(self, address: IPv4Address | IPv6Address) -> None:
        """An IPv4 address in any IPv6 guise is not public, whatever it is itself."""
        for around, shift in (
            ("::", 0),
            ("::ffff:0:0", 0),
            ("64:ff9b::", 0),
            ("64:ff9b:1::", 0),
            ("2002::", 80),
            ("2001::", 64),
            ("2001::", 0),
        ):
            inside = IPv6Address(int(ip_address(around)) + (int(address) << shift))
            self.assertFalse(is_public(str(inside)), inside)

    @given(st.ip_addresses(v=6, network="2000::/3"))
    def test_unicast(self, address: IPv4Address | IPv6Address) -> None:
        """The rest of IPv6's global unicast is public."""
        special = ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
        expected = not any(address in ip_network(text) for text in special)
        self.assertEqual(is_public(str(address)), expected)

    def test_host(self) -> None:
        """One host is an address of IPv4, and a /64 of IPv6, however its addresses are spelt."""
        for one, other, same in (
            ("8.8.8.8", "8.8.8.9", False),
            ("2606:4700:1:2::1", "2606:4700:1:2:ffff::1", True),
            ("2606:4700:1:2::1", "2606:4700:1:3::1", False),
            ("2606:4700::", "2606:4700:0:0:0::1", True),
        ):
            self.assertEqual(host_of(one) == host_of(other), same, (one, other))
