"""
The door: every request comes in here and every refusal goes out here.

A `Route` (`fjmcp.web.routes`) says what a path answers and in which tongue it
refuses; `Site` looks at Host, Origin and size, finds the route (Klein), and
turns what the route answers into a response.

`StoreDown` out of a route is a 503; any other exception is a bug, a 500 with
an incident id that stands in the log.  A route is cancelled when its client
leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from secrets import token_hex
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from werkzeug.exceptions import HTTPException

from fjmcp import limits
from fjmcp.mcp import wire
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.documents import challenge
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.refusals import (
    FOREIGN_HOST,
    FOREIGN_HOST_OAUTH,
    FOREIGN_ORIGIN,
    FOREIGN_ORIGIN_OAUTH,
    METHOD,
    METHOD_OAUTH,
    NOT_FOUND_OAUTH,
    OAUTH_STORE_DOWN,
    STORE_DOWN,
    TOO_LARGE,
    TOO_LARGE_OAUTH,
    UNEXPECTED,
    UNEXPECTED_OAUTH,
    McpRefusal,
    OAuthRefusal,
)
from fjmcp.store.transactions import StoreDown
from fjmcp.tally import Seldom
from fjmcp.web import pages
from fjmcp.web.bodies import Bodies
from fjmcp.web.channel import Channel, Full, SiteRequest, printable
from fjmcp.web.origins import Origins, is_preflight
from fjmcp.web.routes import Answer, Refusal, RefusedRequest, Route, Tongue

HEADERS: Final = {
    b"server": b"fjmcp",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
"""Headers of every response, which a route may replace."""

PAGE_HEADERS: Final = {
    # form-action 'self' holds, since the consent form is answered with a page
    # that goes on by itself: Chromium applies it to redirects too.
    b"content-security-policy": (
        b"default-src 'none'; style-src 'self'; form-action 'self';"
        b" frame-ancestors 'none'; base-uri 'none'"
    ),
    b"x-frame-options": b"DENY",
}
"""Headers of every page (RFC 9700 §4.16)."""


class Site(server.Site):
    """
    The HTTP server: routes behind one door.

    :ivar room: how many connections there may be.
    :ivar connections: how many there are.
    """

    _log = Logger(namespace="fjmcp.web.site")
    protocol = Channel  # type: ignore[assignment]
    requestFactory = SiteRequest

    def __init__(
        self,
        endpoints: Endpoints,
        routes: Iterable[Route],
        clock: IReactorTime,
        meter: Meter = SILENT,
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self._meter = meter
        self._endpoints = endpoints
        self.allow(allowed_origins)
        self.bodies = Bodies()
        self.room = limits.CONNECTIONS
        self.connections = 0
        self._clock = clock
        self._told = Seldom(1)
        self._routes: dict[bytes, Route] = {}
        for each in routes:
            for path in each.paths:
                self._mount(path, each)
        app = Klein()
        # One rule for every path: a route is looked up by the letters of its path, so that no
        # other spelling (//mcp, /%6dcp) leads to it past the rules of the door.
        app.route("/", branch=True)(self._dispatch)
        app.handle_errors(HTTPException)(cast("Any", self._not_found))
        public = urlsplit(endpoints.public_url)
        self.hostname = (public.hostname or "").encode("ascii")
        default = {"https": 443, "http": 80}[public.scheme]
        self._hosts = {public.netloc.lower().encode("ascii")}
        if public.port in (None, default):
            bare = public.netloc.lower().removesuffix(f":{default}")
            self._hosts |= {bare.encode("ascii"), f"{bare}:{default}".encode("ascii")}
        super().__init__(
            app.resource(),
            timeout=limits.CONNECTION_IDLE,
            reactor=clock,
            parsePOSTFormSubmission=False,
        )

    @property
    def routes(self) -> Mapping[bytes, Route]:
        """What is answered where, each path in both spellings."""
        return self._routes

    def allow(self, origins: Iterable[str]) -> None:
        """Let pages of these origins, and of no others, read the routes with `cors`."""
        self._origins = Origins.of(self._endpoints.public_url, origins)

    def _mount(self, path: str, each: Route) -> None:
        # Both spellings answer in place: a redirect would lose a POST's body.
        for spelling in {path, path.rstrip("/") + "/"}:
            if spelling.encode() in self._routes:
                raise ValueError(f"two routes for {spelling}")
            self._routes[spelling.encode()] = each

    async def _dispatch(self, request: SiteRequest) -> None:
        found = self._routes.get(request.path)
        if found is None:
            await self._say(self._tongue(request), request, NOT_FOUND_OAUTH)
        else:
            await self._respond(found, request)

    # --- Twisted's side of it ---------------------------------------------------------

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted: somebody has connected."""
        if self.connections < self.room:
            return super().buildProtocol(addr)
        if self._told.may_say("", self._clock.seconds()):
            self._log.warn("no room for a connection", connections=self.connections)
        return Full()

    def startFactory(self) -> None:
        """Nothing to start: Twisted would open a log file and tick each second for it."""

    def stopFactory(self) -> None:
        """Nothing to stop."""

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 alone, should TLS ask: the bounds of `Channel` are made for it."""
        return [b"http/1.1"]

    def log(self, request: SiteRequest) -> None:  # type: ignore[override]
        """A response was written."""
        self._meter.answered(request.code)
        self._log.debug(
            "answered",
            method=printable(request.method),
            path=request.plain_path,
            status=request.code,
            bytes=request.sentLength,
        )

    # --- the door -----------------------------------------------------------------------

    def ceiling(self, path: bytes) -> int:
        """Bytes that a body may have at this path."""
        found = self._routes.get(path)
        return limits.FORM_BODY if found is None else found.ceiling

    def whose(self, request: SiteRequest, path: bytes) -> int | McpRefusal | None:
        """The account behind a request, None if it must be looked up, or why it has none."""
        found = self._routes.get(path)
        return None if found is None else found.whose(request)

    def refuse_unread(self, request: SiteRequest, refusal: McpRefusal | None) -> None:
        """Answer a request before its body was read; without a refusal it is too large."""
        found = self._routes.get(request.path)
        too_large = TOO_LARGE if found and found.speaks is Tongue.MCP else TOO_LARGE_OAUTH
        self._dress(request, Tongue.OAUTH, found)
        request.write(self._worded(request, refusal or too_large))

    def admits(self, request: SiteRequest) -> bool:
        """Whether a request may reach its route; if not, it has been answered."""
        found = self._routes.get(request.path)
        tongue = self._tongue(request) if found is None else found.speaks
        self._dress(request, tongue, found)
        refusal: Refusal | None = None
        if not (found and found.any_host) and not self._is_ours(request):
            refusal = FOREIGN_HOST if tongue is Tongue.MCP else FOREIGN_HOST_OAUTH
        elif not self._may_call(request, found):
            refusal = FOREIGN_ORIGIN if tongue is Tongue.MCP else FOREIGN_ORIGIN_OAUTH
        elif not _is_text(request.path):
            refusal = NOT_FOUND_OAUTH
        if refusal is None:
            return True
        request.write(self._worded(request, refusal))
        request.finish()
        return False

    def failed(self, request: SiteRequest, reason: Failure) -> None:
        """Answer for a bug: 500, and an incident id that stands in the log."""
        refusal = self._incident(request, reason)
        if request.gone:
            return
        if request.startedWriting:
            request.abort()
            return
        request.write(self._worded(request, refusal))
        request.finish()

    def _incident(self, request: SiteRequest, reason: Failure) -> Refusal:
        incident = token_hex(4)
        self._log.failure(
            "unexpected error, incident {incident}",
            reason,
            incident=incident,
            method=printable(request.method),
            path=request.plain_path,
        )
        if self._tongue(request) is Tongue.MCP:
            return UNEXPECTED.saying(f"{UNEXPECTED.message} Incident {incident}.")
        return UNEXPECTED_OAUTH.saying(f"{UNEXPECTED_OAUTH.description} Incident {incident}.")

    def _is_ours(self, request: SiteRequest) -> bool:
        # DNS rebinding: a page of a stranger's name that points at us.
        hosts = request.requestHeaders.getRawHeaders(b"host", [])
        return len(hosts) == 1 and hosts[0].strip().lower() in self._hosts

    def _may_call(self, request: SiteRequest, found: Route | None) -> bool:
        headers = request.requestHeaders
        if found is None or self._origins.may_call(headers):
            return True
        # 2025-11-25/basic/transports: "If the Origin header is present and invalid,
        # servers MUST respond with HTTP 403 Forbidden".
        if found.speaks is Tongue.MCP:
            return False
        # Fetch, "HTTP responses", of who does not take part in CORS: "The server is encouraged
        # to use the 403 status".  Then the log says why a page cannot work.  What is no
        # preflight is answered: a program that is built of a browser may name an origin of its
        # own kind, and read without CORS.
        return not (found.cors and is_preflight(request.method, headers))

    def _tongue(self, request: SiteRequest) -> Tongue:
        found = self._routes.get(request.path)
        if found is not None:
            return found.speaks
        # Clients probe /.well-known and look at the status; HTML confuses some.
        if b"/.well-known" in request.path or request.path.startswith(b"/mcp"):
            return Tongue.OAUTH
        accept = request.getHeader(b"accept") or b""
        return Tongue.PAGE if b"text/html" in accept else Tongue.OAUTH

    # --- answers ----------------------------------------------------------------------------

    async def _respond(self, found: Route, request: SiteRequest) -> None:
        if found.cors and request.method == b"OPTIONS":
            await self._tell_options(found, request)
            return
        respond = found.methods.get(request.method)
        if respond is None:
            request.setHeader(b"allow", found.allow)
            refusal = METHOD if found.speaks is Tongue.MCP else METHOD_OAUTH
            await self._say(found.speaks, request, refusal)
            return
        try:
            answer = await respond(request)
            if not request.gone:
                await self._say(found.speaks, request, answer)
        except StoreDown as down:
            self._log.warn("store down", error=str(down), path=request.plain_path)
            if not request.gone:
                mcp = found.speaks is Tongue.MCP
                await self._say(found.speaks, request, STORE_DOWN if mcp else OAUTH_STORE_DOWN)
        except CancelledError:
            if request.gone:
                raise
            self.failed(request, Failure())
            await _ended(request)
        except Exception:
            if found.speaks is Tongue.PAGE and not (request.gone or request.startedWriting):
                await self._say(Tongue.PAGE, request, self._incident(request, Failure()))
                return
            self.failed(request, Failure())
            await _ended(request)

    async def _tell_options(self, found: Route, request: SiteRequest) -> None:
        """Answer OPTIONS, for which nobody has to be known: a preflight brings no token."""
        # RFC 9110 §9.3.7: "A server generating a successful response to OPTIONS SHOULD send any
        # header that might indicate optional features implemented by the server and applicable
        # to the target resource (e.g., Allow)".
        request.setHeader(b"allow", found.allow)
        headers = request.requestHeaders
        if is_preflight(request.method, headers):
            for name, value in self._origins.preflight(headers, found.allow).items():
                request.setHeader(name, value)
        request.setResponseCode(http.NO_CONTENT)
        await self._say(found.speaks, request, b"")

    async def _not_found(self, request: SiteRequest, failure: Failure) -> None:
        await self._say(self._tongue(request), request, NOT_FOUND_OAUTH)

    async def _say(self, tongue: Tongue, request: SiteRequest, answer: Answer) -> None:
        if answer is None:
            # Klein would end the response when the route returns.
            await _ended(request)
            return
        if isinstance(answer, OAuthRefusal) and tongue is Tongue.PAGE:
            self._mark(request, answer)
            answer = await pages.refusal(answer)
        if isinstance(answer, RefusedRequest):
            body = self._worded(request, answer.refusal, answer.id)
        elif isinstance(answer, OAuthRefusal | McpRefusal):
            body = self._worded(request, answer)
        elif isinstance(answer, bytes):
            body = answer
            if body and not request.responseHeaders.hasHeader(b"content-type"):
                request.setHeader(b"content-type", b"text/html; charset=utf-8")
        else:
            body = msgspec.json.encode(answer)
            request.setHeader(b"content-type", b"application/json")
        if request.code != http.NO_CONTENT:
            # RFC 9110 §8.6: not even a zero with a 204.
            request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)

    def _worded(self, request: SiteRequest, refusal: Refusal, id: bytes | None = None) -> bytes:
        """The body of a refusal in JSON, with status and headers set for it."""
        self._mark(request, refusal)
        if isinstance(refusal, McpRefusal):
            body = wire.error_reply(id, refusal)
        else:
            body = msgspec.json.encode(
                {"error": refusal.error, "error_description": refusal.description}
            )
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"content-length", b"%d" % len(body))
        return body

    def _mark(self, request: SiteRequest, refusal: Refusal) -> None:
        """Status and headers of a refusal, and a line in the log."""
        self._meter.refused(refusal.reason)
        self._log.info(
            "refused",
            reason=refusal.reason,
            status=refusal.status,
            method=printable(request.method),
            path=request.plain_path,
        )
        request.setResponseCode(refusal.status)
        if refusal.retry_after is not None:
            request.setHeader(b"retry-after", b"%d" % refusal.retry_after)
        if isinstance(refusal, McpRefusal) and refusal.challenge is not None:
            words = challenge(self._endpoints, refusal)
            request.setHeader(b"www-authenticate", words.encode("ascii"))

    def _dress(self, request: SiteRequest, tongue: Tongue, found: Route | None) -> None:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        if tongue is Tongue.PAGE:
            for name, value in PAGE_HEADERS.items():
                request.setHeader(name, value)
        # Here, so that a page that may read an answer reads every one, a bug's among them.  Not
        # under another Host: with DNS rebinding that is the page's own, and no business of ours.
        if found is not None and found.cors and self._is_ours(request):
            for name, value in self._origins.answer(request.requestHeaders).items():
                request.setHeader(name, value)


def _is_text(path: bytes) -> bool:
    """Whether a path is UTF-8 once it is decoded."""
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


async def _ended(request: SiteRequest) -> None:
    """Wait until a response was written or its client has left."""
    if request.gone:
        return
    await request.notifyFinish().addErrback(lambda left: None)
