"""
The way of a client without a browser: token and revoke.

All answers are JSON and not to be stored (RFC 6749 §5.1).  Nothing here asks
Forgejo (design D16).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import define, evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request

from fjmcp.broker.issuer import Issuer
from fjmcp.broker.registrar import Registrar
from fjmcp.oauth.authorization import Params
from fjmcp.oauth.clients import (
    Client,
    authenticate,
    proof,
    read_client_auth,
)
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import (
    CLIENT_AUTH_TWICE,
    GRANT_TYPE_MISSING,
    GRANT_TYPE_UNSUPPORTED,
    TOKEN_MISSING,
    OAuthRefusal,
)
from fjmcp.tasks import Tasks
from fjmcp.web.parameters import with_form
from fjmcp.web.rates import Door, Rates
from fjmcp.web.routes import Respond, Route, Tongue, route


@define(eq=False)
class Token:
    """Answers a client that speaks for itself."""

    log = Logger()
    _registrar: Registrar
    _issuer: Issuer
    _tasks: Tasks
    _clock: IReactorTime
    _rates: Rates

    def routes(self) -> list[Route]:
        """What is answered here; the short paths are where 2025-03-26 clients look (D12)."""

        def token(
            respond: Callable[[Request, Params], Awaitable[dict[str, object] | OAuthRefusal]],
        ) -> Respond:
            return self._rates.at(Door.TOKEN, with_form(respond))

        # RFC 9700 §2.6: endpoints that clients in a browser access directly, "including the Token
        # Endpoint, Authorization Server Metadata Endpoint, [...] and Dynamic Client Registration
        # Endpoint MAY support the use of Cross-Origin Resource Sharing".  RFC 7009 §2.3 says so of
        # revocation: who gets tokens in a page must be able to give them back there.
        return [
            route("/oauth/token", "/token", speaks=Tongue.OAUTH, post=token(self.token), cors=True),
            route(
                "/oauth/revoke", "/revoke", speaks=Tongue.OAUTH, post=token(self.revoke), cors=True
            ),
        ]

    async def token(self, request: Request, form: Params) -> dict[str, object] | OAuthRefusal:
        """A code or a refresh token for the next tokens (RFC 6749 §4.1.3, §6)."""
        client = await self._client(request, form)
        if isinstance(client, OAuthRefusal):
            return client
        # Who is not taken any more gets no tokens, and may still give back what it has.
        refusal = self._registrar.clientele.judge(client)
        if refusal is not None:
            return refusal
        # All limits come before the issuer, so that a 429 uses up no code and no token.
        often = self._rates.client(request, client)
        if often is not None:
            return often
        match form.get("grant_type"):
            case "authorization_code":
                work = self._issuer.redeem(client, form)
            case "refresh_token":
                grant_id = await self._issuer.grant_of(client, form.get("refresh_token", ""))
                often = None if grant_id is None else self._rates.grant(grant_id)
                if often is not None:
                    return often
                work = self._issuer.refresh(client, form)
            case None:
                return GRANT_TYPE_MISSING
            case _:
                return GRANT_TYPE_UNSUPPORTED
        issued = await self._tasks.shield(work)
        if isinstance(issued, OAuthRefusal):
            return issued
        return issued.document(self._clock.seconds())

    async def revoke(self, request: Request, form: Params) -> dict[str, object] | OAuthRefusal:
        """The end of a grant, by either of its tokens (RFC 7009 §2.1)."""
        client = await self._client(request, form)
        if isinstance(client, OAuthRefusal):
            return client
        text = form.get("token")
        if text is None:
            return TOKEN_MISSING
        await self._tasks.shield(self._issuer.revoke(client, TokenText(text)))
        return {}

    async def _client(self, request: Request, form: Params) -> Client | OAuthRefusal:
        headers = request.requestHeaders.getRawHeaders(b"authorization", [])
        client = await self._authenticated(headers, form)
        # RFC 6749 §5.2: a client that used the header is told the scheme that it used.
        if headers and isinstance(client, OAuthRefusal) and client.status == 401:
            request.setHeader(b"www-authenticate", b'Basic realm="fjmcp"')
        return client

    async def _authenticated(self, headers: Sequence[bytes], form: Params) -> Client | OAuthRefusal:
        if len(headers) > 1:
            return CLIENT_AUTH_TWICE
        # Latin-1 takes any byte; what is not Basic is refused for what it is.
        header = headers[0].decode("latin-1") if headers else None
        presented = read_client_auth(header, form)
        if isinstance(presented, OAuthRefusal):
            return presented
        client = await self._registrar.find(presented.client_id)
        refusal = authenticate(client, presented)
        if refusal is not None:
            return refusal
        assert client is not None
        # As it proved to be: one of several registrations may be taken back.
        secret = proof(client, presented)
        return evolve(client, secrets=() if secret is None else (secret,))
