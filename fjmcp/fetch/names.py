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

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.hosts import Resolver as Hosts
from twisted.names.resolve import ResolverChain
from twisted.python.failure import Failure

from fjmcp import limits

LookUp = Callable[[str, int], "Deferred[Sequence[IAddress]]"]
"""The addresses of a name, with a port; none if there are none.  Does not fail."""


def system_look_up(
    reactor: Any, hosts: str = "/etc/hosts", resolv: str = "/etc/resolv.conf"
) -> LookUp:
    """A look-up by the system's name servers, over this reactor."""
    return look_up_at(ResolverChain([Hosts(hosts.encode()), Servers(resolv, reactor)]))


class _Unsaid(dns.DNSQueryTimeoutError):
    """A server could not be asked, or answered that it could not find out."""

    def __init__(self) -> None:
        # No id: the next question has one of its own.
        super().__init__(None)  # type: ignore[no-untyped-call]


class Servers(Resolver):
    """
    Twisted's resolver, by a file as people write it and servers as they are.

    :ivar _text: what stood in the file; None before it was looked at.
    """

    log = Logger()
    dynServers: Any = ()
    _text: bytes | None = None
    _unreadable = False

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        patience = (limits.DOCUMENT_LOOKUP, limits.DOCUMENT_LOOKUP)
        super().__init__(resolv=path, timeout=patience, reactor=reactor)  # type: ignore[no-untyped-call]

    def maybeParseConfig(self) -> None:
        """Twisted's: at the start, and again and again.  Whatever is wrong, it goes on."""
        try:
            text = Path(self._path).read_bytes()
            self._unreadable = False
        except OSError as trouble:
            if not self._unreadable:
                self.log.warn("cannot read {path}: {trouble}", path=self._path, trouble=trouble)
            text, self._unreadable = self._text or b"", True
        if text != self._text:
            self._text = text
            self.parseConfig(text.splitlines())
        self._parseCall = self._reactor.callLater(self._resolvReadInterval, self.maybeParseConfig)

    def parseConfig(self, lines: Iterable[bytes]) -> None:
        """Twisted's: the servers that these lines name; a line that names none is passed over."""
        found: list[tuple[str, int]] = []
        for line in lines:
            key, *values = _WORD.findall(line.decode("ascii", "replace")) or [""]
            if key != "nameserver":
                continue
            address = _address(values[0]) if values else None
            if address is None:
                self.log.warn("no address of a name server: {line}", line=repr(line[:80]))
            else:
                found.append((address, dns.PORT))
        # resolv.conf(5): "If no nameserver entries are present, the default is to use the
        # name server on the local machine."
        self.dynServers = found or [("127.0.0.1", dns.PORT)]

    def _query(self, *args: Any) -> Deferred[Any]:
        """Twisted's: ask one server."""
        return maybeDeferred(super()._query, *args).addCallbacks(_answered, _unasked)

    def _reissue(
        self, reason: Failure, left: list[Any], used: list[Any], query: Any, timeout: Any
    ) -> Any:
        """Twisted's: ask the next server, and after the last the first, until the time is over."""
        if reason.check(_Unsaid):
            # Not this one again, which was not silent.
            used.pop()
            if not left and not used:
                return reason
        return super()._reissue(reason, left, used, query, timeout)  # type: ignore[no-untyped-call]


_WORD: Final = re.compile(r"[^\s#;]+|[#;].*")
"""A word of a line; or a comment, which is the rest of it."""


def _address(text: str) -> str | None:
    """An address as the socket spells it, where an answer comes from; None if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def _answered(message: dns.Message) -> dns.Message:
    if message.rCode in (dns.ESERVER, dns.EREFUSED, dns.ENOTIMP):
        raise _Unsaid()
    return message


def _unasked(failure: Failure) -> Failure:
    if failure.check(OSError, CannotListenError):
        raise _Unsaid()
    return failure


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
