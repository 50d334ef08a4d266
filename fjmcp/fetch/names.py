"""
How the name of a stranger's host is looked up.

Not in the system's own way, getaddrinfo: it holds one of the reactor's few
threads until a name server that says nothing is given up, half a minute later,
and nothing can stop it.  Whoever names hosts of such servers would have all the
threads, and Forgejo's name is looked up in them.  Here a look-up is a few
datagrams on the reactor, with a time-out of its own.

Asked are /etc/hosts and the name servers of /etc/resolv.conf, which is read
again when it changes; no search domain, and no other source that the system
may have (docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.hosts import Resolver as Hosts
from twisted.names.resolve import ResolverChain

from fjmcp import limits

LookUp = Callable[[str, int], "Deferred[Sequence[IAddress]]"]
"""The addresses of a name, with a port; none if there are none.  Does not fail."""


def system_look_up(
    reactor: Any, hosts: str = "/etc/hosts", resolv: str = "/etc/resolv.conf"
) -> LookUp:
    """A look-up by the system's name servers, over this reactor."""
    patience = (limits.DOCUMENT_LOOKUP, limits.DOCUMENT_LOOKUP)
    servers = Resolver(resolv=resolv, timeout=patience, reactor=reactor)
    return look_up_at(ResolverChain([Hosts(hosts.encode()), servers]))


def look_up_at(resolver: ResolverBase) -> LookUp:
    """A look-up by this resolver, of both families at once."""

    def look_up(name: str, port: int) -> Deferred[Sequence[IAddress]]:
        # maybeDeferred: what is no name raises at once.
        asked: list[Deferred[Any]] = [
            maybeDeferred(resolver.lookupAddress, name),
            maybeDeferred(resolver.lookupIPV6Address, name),
        ]
        return DeferredList(asked, consumeErrors=True).addCallback(partial(_addresses, port))

    return look_up


def _addresses(port: int, answers: Sequence[tuple[bool, Any]]) -> Sequence[IAddress]:
    """The addresses in what came; a family that has none, or whose answer failed, adds nothing."""
    records = [record.payload for good, answer in answers if good for record in answer[0]]
    found: list[IAddress] = []
    for record in records:
        if isinstance(record, dns.Record_A):
            found.append(IPv4Address("TCP", record.dottedQuad(), port))
        elif isinstance(record, dns.Record_AAAA):
            found.append(IPv6Address("TCP", str(ip_address(record.address)), port))
    return found
