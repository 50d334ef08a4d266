"""
Forgejo over HTTP: the authorize URL, exchange, refresh, introspect, who somebody is.

Every answer is a value of `fjmcp.forge.answers` or `fjmcp.forge.people`.

No redirect is followed, no cookie kept, no body read further than
`limits.FORGE_BODY`, and no token stands in a description.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import partial
from http.cookiejar import Cookie
from typing import Any, Final
from urllib.parse import urlencode

from attrs import define, field
from OpenSSL import SSL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.logger import Logger
from twisted.web._newclient import RequestNotSent
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http import stringToDatetime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS
from zope.interface import implementer

from fjmcp import limits
from fjmcp.certificates import BadCertificate, Certificates
from fjmcp.forge import people
from fjmcp.forge.answers import (
    Answer,
    Introspected,
    NewPair,
    Outcome,
    Refused,
    Troubled,
    trouble,
)
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken, Pair, scrub
from fjmcp.responses import TooLong, timed_out, whole

AUTHORIZE: Final = "/login/oauth/authorize"
TOKEN: Final = "/login/oauth/access_token"
INTROSPECT: Final = "/login/oauth/introspect"
VERSION: Final = "/api/v1/version"


REFUSALS: Final = frozenset({"invalid_grant", "unauthorized_client"})
"""Errors of the token endpoint that are about this code or refresh token.
Forgejo says `unauthorized_client` of a refresh token that was used before."""

CODE_REFUSALS: Final = REFUSALS | {"invalid_request"}
"""Likewise for a code: two that race for one get `invalid_request`."""

WRONG_SECRET: Final = frozenset({"invalid client secret", "invalid empty client secret"})
"""Descriptions that are about us, whatever the error: with a code Forgejo
calls a wrong secret `unauthorized_client`."""


def forge_http(reactor: Any, policy: IPolicyForHTTPS | None = None) -> HTTPClient:
    """
    The HTTP client for `Forge`.

    No connection is used twice: one that Forgejo closes at the wrong moment
    would leave a refresh unsure.

    :param policy: whose certificates are good; by default what the system trusts.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)
    policy = policy or Certificates()
    return http_over(Agent(reactor, policy, connectTimeout=limits.FORGE_CONNECT, pool=pool))


def http_over(agent: IAgent) -> HTTPClient:
    """
    A client over any agent.

    No cookie is kept: a cookie of one account's answer must not travel with
    another's request.
    """
    return HTTPClient(agent, _NoCookies(), _WholeBody)


class _NoCookies(IndexableCookieJar):
    def set_cookie(self, cookie: Cookie) -> None:
        """Forget it."""


@implementer(IBodyProducer)
class _WholeBody:
    """A form's few bytes, written at once; treq's own producer takes the global reactor."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing left to pause."""

    def resumeProducing(self) -> None:
        """There is nothing left to resume."""

    def stopProducing(self) -> None:
        """There is nothing left to stop."""


def _no_slash(url: str) -> str:
    return url.rstrip("/")


def _one_line(scopes: str) -> str:
    # Forgejo splits at single spaces.
    return " ".join(scopes.split())


@define(eq=False)
class Forge:
    """One Forgejo, and our OAuth application there.  Remembers nothing."""

    log = Logger()
    http: HTTPClient
    url: str = field(converter=_no_slash)
    """Where it is, with the sub-path if it has one."""
    client_id: str
    _client_secret: str = field(repr=False)
    callback_url: str
    scopes: str = field(converter=_one_line)
    clock: IReactorTime
    user_agent: str = "fjmcp"

    def authorize_url(self, state: str, challenge: str) -> str:
        """Where to send the browser; `challenge` is our own PKCE, S256."""
        # Challenge and method always: without them Forgejo applies a stale
        # challenge of an earlier flow in the same browser.
        query = {
            "client_id": self.client_id,
            "redirect_uri": self.callback_url,
            "response_type": "code",
            "scope": self.scopes,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self.url}{AUTHORIZE}?{urlencode(query)}"

    def is_issuer(self, issuer: str) -> bool:
        """Whether `issuer` names this Forgejo (before version 12 it ended with a slash)."""
        return issuer.rstrip("/") == self.url

    async def exchange(self, code: str, verifier: str) -> Outcome:
        """Redeem the code of a sign-in."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback_url,
            "code_verifier": verifier,
        }
        return await self._token(form, CODE_REFUSALS, (code, verifier), None)

    async def refresh(self, token: ForgeToken) -> Outcome:
        """Spend a refresh token."""
        form = {"grant_type": "refresh_token", "refresh_token": token.text}
        return await self._token(form, REFUSALS, (token.text,), token)

    async def introspect(self, token: ForgeToken) -> Introspected | Troubled:
        """
        Whose token it is, for which application, with which scopes (RFC 7662).

        Takes access and refresh tokens alike, used ones too.
        """
        answer = await self._ask(
            "POST", INTROSPECT, limits.FORGE_ANSWER, self._basic(), {"token": token.text}
        )
        if isinstance(answer, Troubled):
            return answer
        if answer.status == 401:
            return Troubled("invalid_client")
        said = answer.members()
        active = said.get("active")
        if answer.status != 200 or not isinstance(active, bool):
            return trouble(answer)
        return Introspected(
            active,
            _text(said.get("sub")),
            _text(said.get("scope")),
            _audience(said.get("aud")),
            _text(said.get("username")),
        )

    async def user(self, access: ForgeToken) -> User | Refused | Troubled:
        """Whose token it is, by the API, and thereby whether the account may work."""
        answer = await self._ask("GET", people.USER, limits.FORGE_ANSWER, _bearer(access))
        return answer if isinstance(answer, Troubled) else people.read_user(answer, access)

    async def in_organization(
        self, access: ForgeToken, user: User, organization: str
    ) -> bool | Refused | Troubled:
        """Whether the person belongs to an organization."""
        get = partial(self._get, _bearer(access))
        return await people.in_organization(get, access, user, organization)

    async def in_team(
        self, access: ForgeToken, user: User, organization: str, team: str
    ) -> bool | Refused | Troubled:
        """Whether the person is in a team of an organization."""
        get = partial(self._get, _bearer(access))
        return await people.in_team(get, access, user, organization, team)

    async def version(self) -> str | Troubled:
        """Forgejo's version, as it says it to anybody."""
        answer = await self._ask("GET", VERSION, limits.FORGE_ANSWER, {})
        if isinstance(answer, Troubled):
            return answer
        version = answer.members().get("version")
        if answer.status != 200 or not isinstance(version, str):
            return trouble(answer)
        return scrub(version)

    # --- how ------------------------------------------------------------------

    async def _get(self, headers: Mapping[str, str], path: str) -> Answer | Troubled:
        return await self._ask("GET", path, limits.FORGE_ANSWER, headers)

    async def _token(
        self,
        form: Mapping[str, str],
        refusals: frozenset[str],
        secrets: tuple[str, ...],
        spent: ForgeToken | None,
    ) -> Outcome:
        asked_at = self.clock.seconds()
        answer = await self._ask("POST", TOKEN, limits.FORGE_TOKEN, self._basic(), form)
        if isinstance(answer, Troubled):
            return answer
        said = answer.members()
        if answer.status == 200:
            pair = Pair.read(said, asked_at, self.clock.seconds(), spent)
            return Troubled("malformed", unsure=True) if pair is None else NewPair(pair)
        error = said.get("error")
        if not isinstance(error, str) or not 400 <= answer.status < 500:
            return trouble(answer)
        description = scrub(_text(said.get("error_description")), self._client_secret, *secrets)
        if description in WRONG_SECRET:
            error = "invalid_client"
        if error in refusals:
            return Refused(error, description)
        error = scrub(error, self._client_secret, *secrets)
        self.log.warn(
            "Forgejo's token endpoint says {error}: {description}",
            error=error,
            description=description,
        )
        return Troubled(error, answer.retry_after)

    async def _ask(
        self,
        method: str,
        path: str,
        limit: float,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
    ) -> Answer | Troubled:
        """One request and its whole answer, within `limit` seconds."""
        work = Deferred.fromCoroutine(self._request(method, path, headers, form))
        try:
            return await work.addTimeout(limit, self.clock, timed_out)
        except TimeoutError:
            return Troubled("timeout", unsure=True)
        except CancelledError:
            raise
        except TooLong:
            return Troubled("too-large", unsure=True)
        except (ConnectError, DNSLookupError, RequestNotSent):
            return Troubled("unreachable")
        except (ResponseFailed, RequestTransmissionFailed) as failed:
            if any(reason.check(CancelledError) for reason in failed.reasons):
                raise CancelledError from failed
            for reason in failed.reasons:
                if reason.check(BadCertificate):
                    # The request waits for the handshake: nothing of it was sent.
                    wrong = scrub(str(reason.value))
                    self.log.error("Forgejo's certificate is not good", reason=wrong, url=self.url)
                    return Troubled("tls")
                if reason.check(SSL.Error):
                    # Which may as well be one in the middle of an answer.
                    return Troubled("tls", unsure=True)
            return Troubled("connection-lost", unsure=True)
        except ConnectionClosed:
            return Troubled("connection-lost", unsure=True)
        except Exception:
            self.log.failure("asking Forgejo {method} {path}", method=method, path=path)
            return Troubled("unexpected", unsure=True)

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Answer:
        response = await self.http.request(
            method,
            self.url + path,
            headers=Headers(
                {
                    "Accept": ["application/json"],
                    "User-Agent": [self.user_agent],
                    **{name: [value] for name, value in headers.items()},
                }
            ),
            data=None if form is None else dict(form),
            allow_redirects=False,
            unbuffered=True,
            # Unused without treq's time-out; but without it treq imports the global one.
            reactor=self.clock,  # type: ignore[arg-type]
        )
        body = await whole(response, limits.FORGE_BODY)
        waits = response.headers.getRawHeaders(b"Retry-After", [b""])
        counts = response.headers.getRawHeaders(b"X-Total-Count", [b""])
        places = response.headers.getRawHeaders(b"Location", [b""])
        return Answer(
            response.code,
            body,
            _retry_after(waits[-1], self.clock.seconds()),
            _count(counts[-1]),
            places[-1].decode("ascii", "replace"),
        )

    def _basic(self) -> dict[str, str]:
        # In the header, since introspection takes it nowhere else.
        credentials = b64encode(f"{self.client_id}:{self._client_secret}".encode())
        return {"Authorization": "Basic " + credentials.decode("ascii")}


def _bearer(access: ForgeToken) -> dict[str, str]:
    return {"Authorization": f"Bearer {access.text}"}


def _text(said: object) -> str:
    return said if isinstance(said, str) else ""


def _audience(said: object) -> frozenset[str]:
    """RFC 7662 §2.2: a string or a list of strings."""
    named = said if isinstance(said, list) else [said]
    return frozenset(each for each in named if isinstance(each, str))


def _count(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() and len(text) < 10 else None


def _retry_after(text: bytes, now: float) -> float | None:
    """RFC 9110 §10.2.3: seconds or a date."""
    text = text.strip()
    if text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, float(stringToDatetime(text)) - now)
    except Exception:  # of several kinds, for whatever is not a date
        return None
