"""
The way of a browser: authorize, consent, callback.

::

    GET  /oauth/authorize   the request judged; our consent page
    POST /oauth/consent     allowed: on to Forgejo; refused: back to the client
    GET  /oauth/callback    from Forgejo: back to the client with our code
"""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger
from twisted.web.http import Request

from fjmcp.broker.registrar import Registrar
from fjmcp.broker.signins import Explained, FromForge, SignIns
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.authorization import (
    Params,
    error_url,
    judge_redirect,
    judge_request,
    judge_unmet,
)
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import Kind, TokenText, mint
from fjmcp.refusals import CONSENT_UNCLEAR, SIGN_IN_FORGED, SIGN_IN_UNKNOWN, OAuthRefusal
from fjmcp.tasks import Tasks
from fjmcp.web import pages
from fjmcp.web.cookies import Cookies
from fjmcp.web.parameters import with_form, with_query
from fjmcp.web.rates import Door, Rates
from fjmcp.web.site import Route, Tongue, route


@define(eq=False)
class Authorize:
    """Answers a browser that a client has sent to sign in."""

    log = Logger()
    _registrar: Registrar
    _signins: SignIns
    _endpoints: Endpoints
    _cookies: Cookies
    _tasks: Tasks
    _forge_host: str
    """What the consent page calls Forgejo."""
    _meter: Meter = field(default=SILENT, kw_only=True)
    _rates: Rates

    def routes(self) -> list[Route]:
        """What is answered here; /authorize is where 2025-03-26 clients look (design D12)."""
        at = self._rates.at
        return [
            route(
                "/oauth/authorize",
                "/authorize",
                speaks=Tongue.PAGE,
                get=at(Door.AUTHORIZE, with_query(self.authorize)),
            ),
            route(
                "/oauth/consent",
                speaks=Tongue.PAGE,
                post=at(Door.CONSENT, with_form(self.consent)),
            ),
            route(
                "/oauth/callback",
                speaks=Tongue.PAGE,
                get=at(Door.CONSENT, with_query(self.callback)),
            ),
        ]

    async def authorize(self, request: Request, params: Params) -> bytes | OAuthRefusal:
        """A client's authorization request (RFC 6749 §4.1.1)."""
        client_id = params.get("client_id")
        client = None if client_id is None else await self._met(client_id, params)
        if isinstance(client, OAuthRefusal):
            return client
        redirect_uri = judge_redirect(params, client)
        if isinstance(redirect_uri, OAuthRefusal):
            return redirect_uri
        assert client is not None
        asked = judge_request(params, client, redirect_uri, self._endpoints)
        if isinstance(asked, OAuthRefusal):
            self.log.info("authorization refused", reason=asked.reason, client=client_id)
            self._meter.refused(asked.reason)
            state = params.get("state")
            return _send(request, error_url(redirect_uri, state, asked, self._endpoints.issuer))
        often = self._rates.client(Door.AUTHORIZE, request, client)
        if often is not None:
            return often
        # One browser, one cookie: a second tab must not invalidate the form in the first.
        browser = self._cookies.browser(request) or mint(Kind.BROWSER)
        signin = await self._signins.begin(asked, browser)
        self._cookies.set_browser(request, browser)
        return await pages.consent(client, redirect_uri, self._forge_host, signin)

    async def _met(self, client_id: str, params: Params) -> Client | OAuthRefusal | None:
        return await self._registrar.meet(client_id, lambda: judge_unmet(params, self._endpoints))

    async def consent(self, request: Request, form: Params) -> bytes | OAuthRefusal:
        """The person's word about it."""
        browser = self._cookies.browser(request)
        if not self._is_our_page(request) or browser is None:
            return SIGN_IN_FORGED
        signin = TokenText(form.get("signin", ""))
        match form.get("decision"):
            case "allow":
                onward = await self._signins.consent(signin, browser)
                if isinstance(onward, OAuthRefusal):
                    return onward
                # BP, "Confused Deputy": the state's cookie is set with the consent, not before.
                self._cookies.set_state(request, onward.state)
                return await pages.onward(onward.url)
            case "deny":
                back = await self._signins.deny(signin, browser)
                if isinstance(back, OAuthRefusal):
                    return back
                return await pages.onward(back)
            case _:
                return CONSENT_UNCLEAR

    async def callback(self, request: Request, params: Params) -> bytes | OAuthRefusal:
        """Forgejo's redirect (we are its client here)."""
        text = params.get("state")
        if text is None:
            return SIGN_IN_UNKNOWN
        state = TokenText(text)
        back = FromForge(
            state=state,
            held=self._cookies.state(request, state),
            code=params.get("code"),
            error=params.get("error"),
            issuer=params.get("iss"),
        )
        # Forgejo's reply to the exchange is not lost with a browser that closes.
        url = await self._tasks.shield(self._signins.come_back(back))
        if isinstance(url, OAuthRefusal):
            return url
        self._cookies.drop_state(request, state)
        if isinstance(url, Explained):
            request.setResponseCode(url.refusal.status)
            return await pages.explained(url.refusal, url.url)
        return _send(request, url)

    def _is_our_page(self, request: Request) -> bool:
        # Browsers send Origin with every form; "null" comes with our Referrer-Policy or from a
        # sandboxed frame, and the cookie, which is SameSite=Lax, judges then.
        origins = request.requestHeaders.getRawHeaders(b"origin", [])
        ours = self._endpoints.public_url.encode("ascii")
        return all(origin in (ours, b"null") for origin in origins)


def _send(request: Request, url: str) -> bytes:
    """Send the browser on.  303: whatever it sent here is not sent again there (RFC 9700 §4.12)."""
    request.setResponseCode(303)
    request.setHeader(b"location", url.encode("ascii"))
    return b""
