"""
The registration of clients: made, read, taken back.

::

    POST   /oauth/register               RFC 7591 §3.1, open to everybody
    GET    /oauth/register?client_id=…   RFC 7592 §2.1, with the registration access token
    DELETE /oauth/register?client_id=…   RFC 7592 §2.3, likewise

RFC 7592 §2.2, the update, is not offered: what a person consented to stays what it was.
"""

from __future__ import annotations

from attrs import define
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.broker.registrar import Registrar
from fjmcp.oauth.authorization import Params
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.registrations import judge_registration, registration_response
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import MANAGEMENT_TOKEN, REGISTRATION_CLOSED, OAuthRefusal
from fjmcp.tasks import Tasks
from fjmcp.web.gate import bearer
from fjmcp.web.parameters import with_json, with_query
from fjmcp.web.rates import Door, Rates
from fjmcp.web.routes import Route, Tongue, route


@define(eq=False)
class Registration:
    """Answers a client that makes itself known, or is not needed any more."""

    _registrar: Registrar
    _endpoints: Endpoints
    _tasks: Tasks
    _rates: Rates

    def routes(self) -> list[Route]:
        """What is answered here; /register is where 2025-03-26 clients look (design D12)."""
        at = self._rates.at
        return [
            route(
                "/oauth/register",
                "/register",
                speaks=Tongue.OAUTH,
                post=at(Door.REGISTER, with_json(self.register)),
                get=at(Door.REGISTER, with_query(self.read)),
                delete=at(Door.REGISTER, with_query(self.withdraw)),
                ceiling=limits.REGISTRATION_BODY,
                # RFC 9700 §2.6 names this endpoint too.
                cors=True,
            )
        ]

    async def register(self, request: Request, body: object) -> dict[str, object] | OAuthRefusal:
        """A client makes itself known (RFC 7591 §3.1)."""
        if not self._endpoints.registration:
            return REGISTRATION_CLOSED
        metadata = judge_registration(body)
        if isinstance(metadata, OAuthRefusal):
            return metadata
        made = await self._registrar.register(metadata)
        if isinstance(made, OAuthRefusal):
            return made
        request.setResponseCode(201)
        return registration_response(made.client, made.secret, made.management, self._endpoints)

    async def read(self, request: Request, params: Params) -> dict[str, object] | OAuthRefusal:
        """What is registered (RFC 7592 §2.1); a secret is not told again."""
        token = _management(request)
        if token is None:
            return _unproved(request)
        client = await self._registrar.managed(params.get("client_id", ""), token)
        if isinstance(client, OAuthRefusal):
            return _unproved(request)
        return registration_response(client, None, token, self._endpoints)

    async def withdraw(self, request: Request, params: Params) -> bytes | OAuthRefusal:
        """A registration is taken back (RFC 7592 §2.3)."""
        token = _management(request)
        if token is None:
            return _unproved(request)
        work = self._registrar.withdraw(params.get("client_id", ""), token)
        if await self._tasks.shield(work) is not None:
            return _unproved(request)
        request.setResponseCode(204)
        return b""


def _management(request: Request) -> TokenText | None:
    token = bearer(request)
    return token if isinstance(token, TokenText) else None


def _unproved(request: Request) -> OAuthRefusal:
    # RFC 6750 §3: the request lacks what it needs, or brought what is not good.
    request.setHeader(b"www-authenticate", b'Bearer realm="fjmcp", error="invalid_token"')
    return MANAGEMENT_TOKEN
