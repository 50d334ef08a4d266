"""
The way of a browser: authorize, consent, callback.

::

    GET  /oauth/authorize   the request judged; our consent page, or on to Forgejo if it was
                            consented to before
    POST /oauth/consent     allowed: on to Forgejo; refused: back to the client
    GET  /oauth/callback    from Forgejo: back to the client with our code; or a page, if
                            another person came back than before
    POST /oauth/consent     they go on: to the callback
"""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.broker.registrar import Registrar
from fjmcp.broker.signins import (
    AnotherCame,
    Explained,
    FromForge,
    Onward,
    SignIns,
)
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.authorization import (
    Params,
    error_url,
    intended,
    judge_redirect,
    judge_request,
    judge_unmet,
    wants_page,
)
from fjmcp.oauth.clients import Client
from fjmcp.oauth.consents import may_be_kept
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.marks import may_redirect_unseen
from fjmcp.oauth.tokens import Kind, TokenText, mint
from fjmcp.refusals import (
    CONSENT_UNCLEAR,
    NO_VISIT,
    OAUTH_STORE_DOWN,
    SIGN_IN_FORGED,
    SIGN_IN_UNKNOWN,
    OAuthRefusal,
)
from fjmcp.store.transactions import StoreDown
from fjmcp.tasks import Tasks
from fjmcp.web import pages
from fjmcp.web.channel import SiteRequest
from fjmcp.web.cookies import Cookies
from fjmcp.web.origins import is_visit
from fjmcp.web.parameters import with_form, with_query
from fjmcp.web.rates import Door, Rates
from fjmcp.web.routes import Answer, Respond, Route, Tongue, route


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
                get=_visited(at(Door.AUTHORIZE, with_query(self.authorize))),
            ),
            route(
                "/oauth/consent",
                speaks=Tongue.PAGE,
                post=self._of_our_page(at(Door.CONSENT, with_form(self.consent))),
            ),
            route(
                "/oauth/callback",
                speaks=Tongue.PAGE,
                get=_visited(at(Door.CONSENT, with_query(self.callback))),
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
            return await self._unseen(request, params, client, redirect_uri, asked)
        # One browser, one cookie: a second tab must not invalidate the form in the first.
        browser = self._cookies.browser(request) or mint(Kind.BROWSER)
        begun = await self._signins.begin(asked, browser, insists=wants_page(params))
        if isinstance(begun, Onward):
            # BP, "Confused Deputy": the state's cookie is set immediately before the redirect.
            self._cookies.set_state(request, begun.state)
            return _send(request, begun.url)
        self._cookies.set_browser(request, browser, begun.seconds)
        return await pages.consent(
            client,
            redirect_uri,
            self._forge_host,
            begun.signin,
            remembered=may_be_kept(asked),
        )

    async def _unseen(
        self,
        request: Request,
        params: Params,
        client: Client,
        redirect_uri: str,
        refusal: OAuthRefusal,
    ) -> bytes:
        """Refuse what nobody has seen: to the client, or on a page (docs/decisions/0009)."""
        url = error_url(redirect_uri, params.get("state"), refusal, self._endpoints.issuer)
        trusted = may_redirect_unseen(client, redirect_uri)
        browser = self._cookies.browser(request)
        if not trusted and browser is not None:
            wanted = intended(params, client, redirect_uri, self._endpoints)
            trusted = await self._signins.covers(browser, wanted)
        if trusted:
            return _send(request, url)
        request.setResponseCode(refusal.status)
        return await pages.explained(refusal, url, unseen=True)

    async def _met(self, client_id: str, params: Params) -> Client | OAuthRefusal | None:
        return await self._registrar.meet(client_id, lambda: judge_unmet(params, self._endpoints))

    async def consent(self, request: Request, form: Params) -> bytes | OAuthRefusal:
        """The person's word about it."""
        browser = self._cookies.browser(request)
        assert browser is not None
        signin = TokenText(form.get("signin", ""))
        match form.get("decision"):
            case "allow":
                onward = await self._signins.consent(signin, browser)
            case "continue":
                onward = await self._signins.confirm(signin, browser)
            case "deny":
                back = await self._signins.deny(signin, browser)
                if isinstance(back, OAuthRefusal):
                    return back
                return await pages.onward(back)
            case _:
                return CONSENT_UNCLEAR
        if isinstance(onward, OAuthRefusal):
            return onward
        # BP, "Confused Deputy": the state's cookie is set with the consent, not before.
        self._cookies.set_state(request, onward.state)
        return await pages.onward(onward.url)

    async def callback(self, request: Request, params: Params) -> bytes | OAuthRefusal:
        """Forgejo's redirect (we are its client here), or our own after a confirmation."""
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
            browser=self._cookies.browser(request),
        )
        # Forgejo's reply to the exchange is not lost with a browser that closes.
        came = await self._tasks.shield(self._signins.come_back(back))
        if isinstance(came, OAuthRefusal):
            return came
        self._cookies.drop_state(request, state)
        if isinstance(came, AnotherCame):
            return await self._another(request, came)
        if isinstance(came, Explained):
            request.setResponseCode(came.refusal.status)
            return await pages.explained(came.refusal, came.url)
        if came.browser is not None:
            self._cookies.set_browser(request, came.browser, limits.KNOWN_BROWSER)
        return _send(request, came.url)

    async def _another(self, request: Request, came: AnotherCame) -> bytes:
        """Ask who came back as another than before; the client waits."""
        wanted = came.request
        try:
            client = await self._registrar.find(wanted.client_id)
            refusal = SIGN_IN_UNKNOWN
        except StoreDown as down:
            self.log.warn("store down in a sign-in", client=wanted.client_id, error=str(down))
            client, refusal = None, OAUTH_STORE_DOWN
        if client is None:
            # The state is spent: here the browser cannot try again, the client can.
            issuer = self._endpoints.issuer
            return _send(request, error_url(wanted.redirect_uri, wanted.state, refusal, issuer))
        return await pages.another(
            client,
            wanted.redirect_uri,
            self._forge_host,
            came.signin,
            known=came.known,
            came=came.came,
            remembered=may_be_kept(wanted),
        )

    def _of_our_page(self, respond: Respond) -> Respond:
        """`respond`, for what comes of a page that we have shown; nothing else is counted."""

        async def sent(request: SiteRequest) -> Answer:
            if not self._is_our_page(request) or self._cookies.browser(request) is None:
                return SIGN_IN_FORGED
            return await respond(request)

        return sent

    def _is_our_page(self, request: Request) -> bool:
        # Browsers send Origin with every form; "null" comes with our Referrer-Policy or from a
        # sandboxed frame, and the cookie, which is SameSite=Lax, judges then.
        origins = request.requestHeaders.getRawHeaders(b"origin", [])
        ours = self._endpoints.public_url.encode("ascii")
        return all(origin in (ours, b"null") for origin in origins)


def _visited(respond: Respond) -> Respond:
    """`respond`, for a browser that is on its way here; nothing else is counted, since a page
    could have each of its visitors send it."""

    async def came(request: SiteRequest) -> Answer:
        return await respond(request) if is_visit(request.requestHeaders) else NO_VISIT

    return came


def _send(request: Request, url: str) -> bytes:
    """Send the browser on.  303: whatever it sent here is not sent again there (RFC 9700 §4.12)."""
    request.setResponseCode(303)
    request.setHeader(b"location", url.encode("ascii"))
    return b""
