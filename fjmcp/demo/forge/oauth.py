"""
The endpoints that programs call: token, introspection, userinfo, discovery.

Every refusal of the token endpoint is a row of the table in forgejo.md §3.3,
in the order in which Forgejo looks; all are HTTP 400.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from attrs import define
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from fjmcp.demo.forge.accounts import Instance
from fjmcp.demo.forge.answers import Answer, basic_of, form_of, json_answer, text_answer
from fjmcp.demo.forge.bearers import Bearers, Rejected
from fjmcp.demo.forge.grants import Application, Grant, Grants
from fjmcp.demo.forge.tokens import REFRESH, SigningKey, Unreadable
from fjmcp.demo.forge.trouble import Troubles, serves

TOKEN: Final = "/login/oauth/access_token"
INTROSPECT: Final = "/login/oauth/introspect"
USERINFO: Final = "/login/oauth/userinfo"
KEYS: Final = "/login/oauth/keys"
DISCOVERY: Final = "/.well-known/openid-configuration"

_CACHE: Final = (("Cache-Control", "max-age=0, private, must-revalidate"),)


@define(slots=False, eq=False)
class OAuth:
    """The OAuth provider's machine side; the pages are in `forge_pages`."""

    clock: IReactorTime
    url: str
    instance: Instance
    grants: Grants
    key: SigningKey
    bearers: Bearers
    troubles: Troubles

    app: ClassVar[Klein] = Klein()

    @serves(app, TOKEN, "POST")
    def token(self, request: Request) -> Answer:
        """Exchange a code, or refresh."""
        form = form_of(request)
        refused = _fill_from_header(form, request)
        if refused is None:
            match form.get("grant_type"):
                case "refresh_token":
                    return self._refresh(form)
                case "authorization_code":
                    return self._exchange(form)
            refused = _refused(
                "unsupported_grant_type",
                "Only refresh_token or authorization_code grant type is supported",
            )
        return refused

    def _exchange(self, form: dict[str, str]) -> Answer:
        client_id = form.get("client_id", "")
        application = self.grants.applications.get(client_id)
        if application is None:
            # this one in simple quotes, the refresh's in double ones: as measured
            return _refused("invalid_client", f"cannot load client with client id: '{client_id}'")
        if complaint := _wrong_secret(application, form):
            return _refused("unauthorized_client", complaint)
        redirect_uri = form.get("redirect_uri", "")
        if redirect_uri and not application.takes(redirect_uri):
            return _refused("unauthorized_client", "unexpected redirect URI")
        code = self.grants.codes.get(form.get("code", ""))
        if code is None:
            return _refused("unauthorized_client", "client is not authorized")
        if not code.verified_by(form.get("code_verifier", "")):
            return _refused("unauthorized_client", "failed PKCE code challenge")
        if code.redirect_uri != redirect_uri:
            return _refused(
                "unauthorized_client", "redirect_uri does not match the authorization request"
            )
        if code.grant.application is not application:
            return _refused("invalid_grant", "invalid grant")
        if self.troubles.take(TOKEN, "race"):
            return _refused("invalid_request", "cannot proceed your request")
        del self.grants.codes[code.text]
        return self._pair(code.grant)

    def _refresh(self, form: dict[str, str]) -> Answer:
        client_id = form.get("client_id", "")
        application = self.grants.applications.get(client_id)
        if application is None:
            quoted = json.dumps(client_id, ensure_ascii=False)
            return _refused("invalid_client", f"cannot load client with client id: {quoted}")
        if complaint := _wrong_secret(application, form):
            return _refused("invalid_client", complaint)
        claims = self.key.read(form.get("refresh_token", ""), self.clock.seconds())
        if isinstance(claims, Unreadable):
            return _refused("unauthorized_client", "unable to parse refresh token")
        if claims.kind != REFRESH:
            return _refused("unauthorized_client", "token is not a refresh token")
        grant = self.grants.live.get(claims.grant)
        if grant is None:
            return _refused("invalid_grant", "grant does not exist")
        if grant.application is not application:
            return _refused("invalid_grant", "refresh token was not issued to this client")
        if self.grants.used(grant, claims.counter):
            return _refused("unauthorized_client", "token was already used")
        if self.troubles.take(TOKEN, "race"):
            return _refused("invalid_grant", "cannot increase the grant counter")
        return self._pair(grant)

    def _pair(self, grant: Grant) -> Answer:
        """Move the counter and sign; a blocked person gets it too (§3.4)."""
        return json_answer(self.pair(grant)).adding(_CACHE)

    def pair(self, grant: Grant) -> dict[str, Any]:
        """
        The members of a good answer, in Forgejo's order; there is no `scope`.

        Access tokens hold whole seconds and no number of their own: two of one
        grant made in the same second are the same text, as at Forgejo.
        """
        now, counter = self.clock.seconds(), self.grants.move(grant)
        pair: dict[str, Any] = {
            "access_token": self.key.access(grant.id, now, self.grants.access_seconds),
            "token_type": "bearer",
            "expires_in": int(self.grants.access_seconds),
            "refresh_token": self.key.refresh(grant.id, counter, now, self.grants.refresh_seconds),
        }
        if "openid" in grant.scope.split(" "):
            pair["id_token"] = self.key.sign(self._identity(grant, now))
        return pair

    def _identity(self, grant: Grant, now: float) -> dict[str, Any]:
        person, words = self.instance.by_id(grant.person), grant.scope.split(" ")
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": str(grant.person),
            "aud": [grant.application.client_id],
            "exp": int(now + self.grants.access_seconds),
            "iat": int(now),
        }
        if grant.nonce:
            claims["nonce"] = grant.nonce
        if person is not None and "profile" in words:
            claims |= {
                "name": person.full_name,
                "preferred_username": person.login,
                "profile": f"{self.url}/{person.login}",
                "picture": f"{self.url}/avatars/{person.login}",
                "locale": "en-US",
                "updated_at": 0,
            }
        if person is not None and "email" in words:
            claims |= {"email": person.email, "email_verified": person.active}
        return claims

    @serves(app, INTROSPECT, "POST")
    def introspect(self, request: Request) -> Answer:
        """
        What a token is worth, told to any application that shows its secret.

        A refresh token is active too, even one that was used: only form,
        signature, expiry and grant count.
        """
        basic = basic_of(request)
        application = self.grants.applications.get(basic[0]) if isinstance(basic, tuple) else None
        if (
            application is None
            or not isinstance(basic, tuple)
            or basic[1] != application.client_secret
        ):
            answer = text_answer("no valid authorization", 401)
            return answer.adding([("WWW-Authenticate", 'Basic realm=""')])
        claims = self.key.read(form_of(request).get("token", ""), self.clock.seconds())
        grant = None if isinstance(claims, Unreadable) else self.grants.live.get(claims.grant)
        if grant is None:
            return json_answer({"active": False})
        person = self.instance.by_id(grant.person)
        found: dict[str, Any] = {"active": True}
        if grant.scope:
            found["scope"] = grant.scope
        if person is not None:
            found["username"] = person.login
        return json_answer(
            found
            | {
                "iss": self.url,
                "sub": str(grant.person),
                "aud": [grant.application.client_id],
            }
        )

    @serves(app, USERINFO, "GET", "POST")
    def userinfo(self, request: Request) -> Answer:
        """Who the bearer is; any scope will do, the e-mail address included."""
        bearer = self.bearers.of(request)
        if isinstance(bearer, Rejected):
            return text_answer(bearer.message, 401)
        if bearer is None:
            answer = text_answer("no valid authorization", 401)
            return answer.adding([("WWW-Authenticate", 'Bearer realm=""')])
        person = bearer.person
        return json_answer(
            {
                "sub": str(person.id),
                "name": person.full_name,
                "preferred_username": person.login,
                "email": person.email,
                "picture": f"{self.url}/avatars/{person.login}",
            }
        )

    @serves(app, KEYS, "GET")
    def keys(self, request: Request) -> Answer:
        """The key set."""
        return json_answer(self.key.published())

    @serves(app, DISCOVERY, "GET")
    def discovery(self, request: Request) -> Answer:
        """No registration, no revocation endpoint, only OpenID's own scopes."""
        return json_answer(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/login/oauth/authorize",
                "token_endpoint": f"{self.url}{TOKEN}",
                "jwks_uri": f"{self.url}{KEYS}",
                "userinfo_endpoint": f"{self.url}{USERINFO}",
                "introspection_endpoint": f"{self.url}{INTROSPECT}",
                "response_types_supported": ["code", "id_token"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "subject_types_supported": ["public"],
                "scopes_supported": ["openid", "profile", "email", "groups"],
                "claims_supported": [
                    *("aud", "exp", "iat", "iss", "sub", "name", "preferred_username"),
                    *("profile", "picture", "website", "locale", "updated_at", "email"),
                    *("email_verified", "groups"),
                ],
                "code_challenge_methods_supported": ["plain", "S256"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
            }
        )


def _fill_from_header(form: dict[str, str], request: Request) -> Answer | None:
    """Where id or secret is not in the body, the Basic header says it, and must agree."""
    if form.get("client_id") and form.get("client_secret"):
        return None
    basic = basic_of(request)
    if basic is False:
        return None
    if not isinstance(basic, tuple):
        return _refused("invalid_request", "cannot parse basic auth header")
    for name, value in zip(("client_id", "client_secret"), basic, strict=True):
        if form.get(name, value) not in ("", value):
            return _refused(
                "invalid_request", f"{name} in request body inconsistent with Authorization header"
            )
        form[name] = value
    return None


def _wrong_secret(application: Application, form: dict[str, str]) -> str:
    """What is wrong with the secret, or nothing; public applications have none."""
    secret = form.get("client_secret", "")
    if not application.confidential or secret == application.client_secret:
        return ""
    return "invalid client secret" if secret else "invalid empty client secret"


def _refused(error: str, description: str) -> Answer:
    refusal = json_answer({"error": error, "error_description": description}, 400)
    return refusal.adding(_CACHE)
