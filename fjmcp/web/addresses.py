"""
Whose address a request comes from, if that can be known.

Behind a reverse proxy every connection is the proxy's; the client's address
stands in a header that anybody can send.  Only what a trusted proxy wrote is
believed: each proxy appends the address that it saw, so the list is read from
its right end, and the first address that is no trusted proxy's is the client's
(RFC 7239 §8.1).
One header is believed, never both: a proxy that writes one passes the other on
as the client sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from attrs import define, field, frozen
from twisted.internet import address as peers
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.http_headers import Headers

from fjmcp import limits

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Header(Enum):
    """Where trusted proxies say for whom they speak."""

    X_FORWARDED_FOR = b"x-forwarded-for"
    FORWARDED = b"forwarded"


@frozen
class Proxies:
    """
    Whose word is taken.

    :ivar networks: addresses of proxies; with none of them, and no sockets,
        every connection is the client's own.
    :ivar sockets: whether Unix sockets lead to a proxy.
    :ivar header: the one header that they write.
    """

    networks: tuple[Network, ...] = ()
    sockets: bool = False
    header: Header = Header.X_FORWARDED_FOR

    def trusts(self, address: Address) -> bool:
        """Whether this is a proxy of ours."""
        return any(address in network for network in self.networks)

    def client(self, peer: IAddress, headers: Headers) -> Address | None:
        """
        Who sent a request that came over a connection from `peer`.

        None if a trusted proxy does not say, or says what is no address.
        """
        if isinstance(peer, peers.UNIXAddress):
            if not self.sockets:
                return None
        else:
            address = parse(getattr(peer, "host", ""))
            if address is None or not self.trusts(address):
                return address
        for named in self._named(headers):
            # Whoever wrote this entry is trusted; if it is no address, the chain ends here.
            if named is None or not self.trusts(named):
                return named
        return None

    def _named(self, headers: Headers) -> Iterator[Address | None]:
        """What the proxies wrote, the nearest first."""
        text = b",".join(headers.getRawHeaders(self.header.value, [])).decode("latin-1")
        read = _node if self.header is Header.X_FORWARDED_FOR else _forwarded
        if text.strip():
            yield from (read(entry.strip(" \t")) for entry in reversed(text.split(",")))


@define(eq=False)
class Addresses:
    """
    The addresses of clients, for limits.

    Without `proxies` nobody has said who is a proxy, and no address is known:
    a limit on the proxy's would strike everybody.
    """

    log = Logger()
    _proxies: Proxies | None
    _told: bool = field(default=False, init=False)

    def of(self, request: Request) -> Address | None:
        """Who sent a request; None if that cannot be known."""
        if self._proxies is None:
            return None
        peer = request.getClientAddress()
        found = self._proxies.client(peer, request.requestHeaders)
        if found is None and not self._told:
            self._told = True
            self.log.warn(
                "the proxy at {peer} does not say for whom it speaks in {header}; such requests"
                " are not limited by address. Have it append the client's address there",
                peer=getattr(peer, "host", "a Unix socket"),
                header=self._proxies.header.value.decode("ascii"),
            )
        return found


def block(address: Address) -> str:
    """
    The network that is taken for one sender.

    Whoever has one address of it can usually have them all.
    """
    hosted = hosted_by(address)
    if hosted is not None:
        return str(hosted)
    bits = limits.BLOCK_BITS_V4 if address.version == 4 else limits.BLOCK_BITS_V6
    return str(ip_network((address, bits), strict=False))


def nested(address: Address) -> list[tuple[str, int]]:
    """
    The networks with which an address counts, the narrowest first, each with how
    many blocks' share it has.

    Whoever was given a wide one has its blocks by the hundred.
    """
    wider = limits.WIDER_V4 if address.version == 4 else limits.WIDER_V6
    around = [
        (str(ip_network((address, bits), strict=False)), many) for bits, many in wider.items()
    ]
    return [(block(address), 1), *around]


_HOSTED: Final = tuple(ip_network(text) for text in limits.HOSTED_NETWORKS)


def hosted_by(address: Address) -> Network | None:
    """The range of hosted assistants in which an address lies."""
    return next((network for network in _HOSTED if address in network), None)


# --- spellings ------------------------------------------------------------------

_V4_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}\Z")
_V6_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?\Z")
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PAIR: Final = re.compile(rf'({_TOKEN})=(?:({_TOKEN})|"([^"\\]*)")\Z')


def parse(text: str) -> Address | None:
    """An address as a socket spells it; IPv4 in its IPv6 guise is IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _node(text: str) -> Address | None:
    """An address, perhaps with a port (RFC 7239 §6)."""
    match = _V4_PORT.match(text) or _V6_PORT.match(text)
    return parse(match[1] if match else text)


def _forwarded(element: str) -> Address | None:
    """The `for` of one element (RFC 7239 §4); half an element is none."""
    found = None
    for pair in element.split(";"):
        match = _PAIR.match(pair.strip(" \t"))
        if match is None:
            return None
        if match[1].lower() == "for":
            found = _node(match[2] or match[3] or "")
    return found
