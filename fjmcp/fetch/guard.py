"""
The way out to a host that a stranger has named: to public addresses only.

A name is looked up once.  If any of its addresses is not public, none of them
is connected to; else the connection goes to one of those very addresses, while
TLS and HTTP go on speaking of the name.  So a name cannot lead to this machine,
to its network or to a cloud's metadata, nor to another address than the one
that was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from socket import AF_INET, AF_INET6, SOCK_STREAM, getaddrinfo
from typing import Any, cast

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
    ITCPTransport,
)
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from zope.interface import implementer

from fjmcp import limits
from fjmcp.fetch.addresses import is_public

# --- names ------------------------------------------------------------------------------

LookUp = Callable[[str, int], "Deferred[Sequence[IAddress]]"]
"""The addresses of a name, with a port; none if there are none.  Does not fail."""


def system_look_up(reactor: Any) -> LookUp:
    """The system's own way to look a name up, in the reactor's threads."""

    def look_up(name: str, port: int) -> Deferred[Sequence[IAddress]]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), _addresses, name, port)

    return look_up


def _addresses(name: str, port: int) -> Sequence[IAddress]:
    try:
        found = getaddrinfo(name, port, type=SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    kinds = {AF_INET: IPv4Address, AF_INET6: IPv6Address}
    return [kinds[family]("TCP", *where) for family, _, _, _, where in found if family in kinds]


# --- the way out --------------------------------------------------------------------------


@implementer(IReactorTime, IReactorPluggableNameResolver, IHostnameResolver)
@define(eq=False)
class Errand:
    """
    One request to a stranger's host: an agent, and the reactor under it, which is the guard.

    Whoever has it closes it, whatever came of it.

    :ivar agent: for one request; keeps nothing, and follows no redirect.
    :ivar not_public: whether the host had an address that is not public.
    :ivar overrun: whether more came than may come.
    """

    _reactor: Any
    _look_up: LookUp
    _turns: DeferredSemaphore
    _policy: IPolicyForHTTPS
    _is_public: Callable[[str], bool]
    agent: IAgent = field(init=False)
    not_public: bool = field(default=False, init=False)
    overrun: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _turn: Deferred[Any] | None = field(default=None, init=False)
    _lines: list[_Lines] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.agent = Agent(self, self._policy, connectTimeout=limits.DOCUMENT_FETCH)

    def close(self) -> None:
        """
        End it: what is under way comes to nothing, and every connection is gone.

        Not in good order: a host that never answers the end of TLS would keep it open.
        """
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()
        for lines in self._lines:
            for line in list(lines.protocols):
                line.abortConnection()

    def overran(self) -> None:
        """More came than may come."""
        self.overrun = True

    # --- the reactor, for the agent ---

    @property
    def nameResolver(self) -> IHostnameResolver:
        """IReactorPluggableNameResolver's: the guard."""
        return self

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """There is no other one."""
        raise NotImplementedError

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """IHostnameResolver's: all the addresses of a name, if all are public; else none."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        looked = Deferred.fromCoroutine(self._resolve(resolutionReceiver, hostName, portNumber))
        looked.addErrback(lambda failure: failure.trap(CancelledError))
        return resolution

    async def _resolve(self, receiver: IResolutionReceiver, name: str, port: int) -> None:
        # The turn is not given back before the thread is free, however long nobody waits for it.
        self._turn = self._turns.acquire()
        await self._turn
        try:
            addresses = await self._look_up(name, port)
        finally:
            self._turns.release()
        hosts = [getattr(address, "host", "") for address in addresses]
        if all(self._is_public(host) for host in hosts):
            for address in addresses:
                receiver.addressResolved(address)
        else:
            self.not_public = True
        receiver.resolutionComplete()

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: IProtocolFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """
        IReactorTCP's: a connection that is bounded and ends with the errand.

        :raises ConnectError: it is not to a public address.
        """
        # Only what was looked up is asked for here.  Looked at once more, that is no assumption.
        if self._closed or not self._is_public(host):
            raise ConnectError(string="not a public address")
        lines = _Lines(factory, self.overran)
        self._lines.append(lines)
        connector: IConnector = self._reactor.connectTCP(host, port, lines, timeout, bindAddress)
        return connector

    def seconds(self) -> float:
        """IReactorTime's."""
        return float(self._reactor.seconds())

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """IReactorTime's."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """IReactorTime's."""
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls


@define(eq=False)
class Strangers:
    """
    Where errands begin.

    :ivar policy: whose certificates are good.
    """

    _reactor: Any
    _look_up: LookUp
    _policy: IPolicyForHTTPS = field(factory=BrowserLikePolicyForHTTPS)
    _is_public: Callable[[str], bool] = is_public
    _turns: DeferredSemaphore = field(
        factory=lambda: DeferredSemaphore(limits.DOCUMENT_LOOKUPS), init=False
    )

    def errand(self) -> Errand:
        """A way out, for one request."""
        return Errand(self._reactor, self._look_up, self._turns, self._policy, self._is_public)


@implementer(IHostResolution)
@frozen
class _Resolution:
    name: str

    def cancel(self) -> None:
        """Who does not wait any more closes the errand."""
        raise NotImplementedError


class _Line(ProtocolWrapper):
    """One connection, on which so much may come and no more."""

    factory: _Lines
    _left = limits.DOCUMENT_WIRE

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self.wrappedProtocol.dataReceived(data)
        elif not self.factory.over:
            self.factory.over = True
            self.factory.overrun()
            self.abortConnection()

    def abortConnection(self) -> None:
        """Gone, without a word."""
        cast(ITCPTransport, self.transport).abortConnection()


class _Lines(WrappingFactory[_Line]):
    """The connection to one address."""

    protocol = _Line
    over = False

    def __init__(self, factory: IProtocolFactory, overrun: Callable[[], None]) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.overrun = overrun
