"""
Hosts, in memory: the broker as browsers find it, and strangers that publish documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from fjmcp.demo.browser import Body
from fjmcp.testing.visitors import Visit, dashed

if TYPE_CHECKING:
    from fjmcp.testing.whole import WholeBroker

PUBLIC_URL: Final = "https://broker.example"


@implementer(IResponse)
@define(eq=False)
class _Response:
    """A complete `Visit`, or what was published, as an agent answers it."""

    visit: Visit | Published
    version: Any = (b"HTTP", 1, 1)
    phrase: bytes = b""
    request: Any = None
    previousResponse: Any = None

    @property
    def code(self) -> int:
        return self.visit.status

    @property
    def headers(self) -> Headers:
        return self.visit.headers

    @property
    def length(self) -> int:
        return len(self.visit.body)

    def deliverBody(self, protocol: IProtocol) -> None:
        protocol.dataReceived(self.visit.body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        self.previousResponse = response


@frozen
class Published:
    """What a host answers to a GET."""

    body: bytes
    status: int = 200
    headers: Headers = field(factory=lambda: Headers({"content-type": ["application/json"]}))


@implementer(IAgent)
@define(eq=False)
class Publishers:
    """
    The hosts of strangers, and the way out to them (`fjmcp.fetch.documents.Errand`).

    A host that has nothing at a URL cannot be reached.

    :ivar published: what is at which URL.
    :ivar asked: the URLs that were asked for, in their order.
    :ivar held: None, or the requests that wait for `release`.
    """

    published: dict[str, Published] = field(factory=dict)
    asked: list[str] = field(factory=list, init=False)
    held: list[tuple[str, Deferred[IResponse]]] | None = field(default=None, init=False)
    agent: IAgent = field(init=False)
    not_public: bool = field(default=False, init=False)
    busy: bool = field(default=False, init=False)
    overrun: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.agent = self

    def publish(self, document: Mapping[str, Any], **headers: str) -> None:
        """A metadata document stands at the URL that it names; a header with `_` for `-`."""
        sent = {"content-type": "application/json"} | dashed(headers)
        answer = Published(
            json.dumps(dict(document)).encode(),
            headers=Headers({name: [value] for name, value in sent.items()}),
        )
        self.published[document["client_id"]] = answer

    def errand(self) -> Publishers:
        """A way out."""
        return self

    def close(self) -> None:
        """Nothing is open."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """One request; its answer may be late."""
        url = uri.decode("ascii")
        self.asked.append(url)
        if self.held is None:
            return execute(self._answer, url)
        waiting: Deferred[IResponse] = Deferred()
        self.held.append((url, waiting))
        return waiting

    def release(self) -> None:
        """Answer what waits."""
        held, self.held = self.held or [], None
        for url, waiting in held:
            execute(self._answer, url).addCallbacks(waiting.callback, waiting.errback)

    def _answer(self, url: str) -> IResponse:
        if url not in self.published:
            raise ConnectionRefusedError()
        return _Response(self.published[url])


@implementer(IAgent)
@define(eq=False)
class Hosts:
    """An agent for browsers: the host of a URL picks the broker's site or the forge."""

    _broker: WholeBroker

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """One request; its answer may be late."""
        url = uri.decode("ascii")
        target = url.removeprefix(PUBLIC_URL)
        if target == url:
            answer: Deferred[IResponse] = self._broker.wires.request(
                method, uri, headers, bodyProducer
            )
            return answer
        named = (headers or Headers()).getAllRawHeaders()
        sent = {name.decode().lower(): values[-1].decode() for name, values in named}
        body = b"" if bodyProducer is None else cast("Body", bodyProducer).data
        # Not the visitor's own cookies: the browser keeps them.
        visit = self._broker.visitor().send(method.decode(), target or "/", body, sent)
        waiting: Deferred[IResponse] = Deferred()

        def look() -> None:
            if visit.ended:
                visit.wire.heard = None
                waiting.callback(_Response(visit))

        visit.wire.heard = look
        look()
        return waiting
