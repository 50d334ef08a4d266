"""
The way out to a host that a stranger has named: to public addresses only.

A name is looked up once.  If any of its addresses is not public, none of them
is connected to; else the connection goes to one of those very addresses, while
TLS and HTTP go on speaking of the name.  So a name cannot lead to this machine,
to its network or to a cloud's metadata, nor to another address than the one
that was looked at.

Anybody may have any number of names lead to an address of somebody else's.  So
it is addresses that are counted here, and each is connected to so often and no
more, by whatever names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
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
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import Agent
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from zope.interface import implementer

from fjmcp import limits
from fjmcp.certificates import Certificates
from fjmcp.fetch.addresses import host_of, is_public
from fjmcp.fetch.names import LookUp
from fjmcp.tally import Rate, Tally


@implementer(IReactorTime, IReactorPluggableNameResolver, IHostnameResolver)
@define(eq=False)
class Errand:
    """
    One request to a stranger's host: an agent, and the reactor under it, which is the guard.

    Whoever has it closes it, whatever came of it.

    :ivar agent: for one request; keeps nothing, and follows no redirect.
    :ivar not_public: whether the host had an address that is not public.
    :ivar busy: whether an address was connected to too often just now.
    :ivar overrun: whether more came than may come.
    """

    _reactor: Any
    _look_up: LookUp
    _connected: Tally
    _policy: IPolicyForHTTPS
    _is_public: Callable[[str], bool]
    agent: IAgent = field(init=False)
    not_public: bool = field(default=False, init=False)
    busy: bool = field(default=False, init=False)
    overrun: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _lines: list[_Lines] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.agent = Agent(self, self._policy, connectTimeout=limits.DOCUMENT_FETCH)

    def close(self) -> None:
        """
        End it: what is under way comes to nothing, and every connection is gone.

        Not in good order: a host that never answers the end of TLS would keep it open.
        """
        self._closed = True
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
        addresses = await self._look_up(name, port)
        hosts = [getattr(address, "host", "") for address in addresses]
        if all(self._is_public(host) for host in hosts):
            for address in addresses[: limits.DOCUMENT_ADDRESSES]:
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

        :raises ConnectError: it is not to a public address, or to one that was asked too often.
        """
        # Only what was looked up is asked for here.  Looked at once more, that is no assumption.
        if self._closed or not self._is_public(host):
            raise ConnectError(string="not a public address")
        where, rate = host_of(host), Rate.of(limits.RATE_OF_DOCUMENT_ADDRESS)
        if self._connected.wait(where, rate, self.seconds()) > 0:
            self.busy = True
            raise ConnectError(string="asked too often")
        self._connected.count(where, rate, self.seconds())
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
    _policy: IPolicyForHTTPS = field(factory=Certificates)
    _is_public: Callable[[str], bool] = is_public
    _connected: Tally = field(factory=lambda: Tally(limits.METERED), init=False)

    def errand(self) -> Errand:
        """A way out, for one request."""
        return Errand(self._reactor, self._look_up, self._connected, self._policy, self._is_public)


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
