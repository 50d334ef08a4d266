"""
`fjmcp.forge.client`: every answer of Forgejo, and every way not to answer, is a value.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlsplit

from attrs import define, field
from OpenSSL import SSL
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, ResponseNeverReceived
from twisted.web.iweb import IAgent, IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from fjmcp import limits
from fjmcp.certificates import BadCertificate, Certificates
from fjmcp.forge.answers import Introspected, NewPair, Refused, Troubled
from fjmcp.forge.client import Forge, forge_http, http_over
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken, Pair
from tests.forge.test_tokens import REPLY

T = TypeVar("T")

SECRET = "gto_the-client-secret"
CLIENT = ("the-client-id", SECRET)
OLD = ForgeToken("eyJold.refresh.token")
ACCESS = ForgeToken("eyJan.access.token")

# forgejo.md §3.3: what its token endpoint says, and what that is to us.
REFRESH_ROWS = [
    ("invalid_client", 'cannot load client with client id: "x"', Troubled("invalid_client")),
    ("invalid_client", "invalid client secret", Troubled("invalid_client")),
    ("invalid_client", "invalid empty client secret", Troubled("invalid_client")),
    ("unauthorized_client", "unable to parse refresh token", Refused),
    ("unauthorized_client", "token is not a refresh token", Refused),
    ("invalid_grant", "grant does not exist", Refused),
    ("invalid_grant", "refresh token was not issued to this client", Refused),
    ("unauthorized_client", "token was already used", Refused),
    ("invalid_grant", "cannot increase the grant counter", Refused),
    ("invalid_request", "client_id in request body is not the same", Troubled("invalid_request")),
    (
        "unsupported_grant_type",
        "Only refresh_token or authorization_code grant type is supported",
        Troubled("unsupported_grant_type"),
    ),
    ("server_error", "", Troubled("server_error")),
]
CODE_ROWS = [
    ("invalid_client", "cannot load client with client id: 'x'", Troubled("invalid_client")),
    ("unauthorized_client", "invalid client secret", Troubled("invalid_client")),
    ("unauthorized_client", "invalid empty client secret", Troubled("invalid_client")),
    ("unauthorized_client", "client is not authorized", Refused),
    ("invalid_request", "cannot proceed your request", Refused),
    ("unauthorized_client", "failed PKCE code challenge", Refused),
    ("unauthorized_client", "unexpected redirect URI", Refused),
    (
        "unauthorized_client",
        "redirect_uri does not match the authorization request",
        Refused,
    ),
    ("invalid_grant", "invalid grant", Refused),
]

# What its API says of a token, and what that is to us.
API_REFUSALS = [
    (
        403,
        "This account is prohibited from signing in, please contact your site administrator.",
        "prohibited",
    ),
    (403, "This account is not activated.", "prohibited"),
    (
        403,
        "You must change your password. Change it at: https://forge.example//user/change_password",
        "prohibited",
    ),
    (
        403,
        (
            "This Forgejo instance requires users to enable two-factor authentication before they"
            " can access their accounts. Enable it at: https://forge.example/user/settings/security"
        ),
        "prohibited",
    ),
    (403, "Zwei Faktoren: https://forge.example/user/settings/security", "prohibited"),
    (
        403,
        "token does not have at least one of required scope(s): [read:user]",
        "insufficient_scope",
    ),
    (403, "token scope is limited to public orgs", "insufficient_scope"),
    (401, "oauth2 grant not found or revoked", "invalid_token"),
]


@define(eq=False)
class Forgejo(Resource):
    """Answers what a test says, and remembers what it was asked."""

    isLeaf = True
    status: int = 200
    body: bytes = b"{}"
    headers: dict[bytes, bytes] = field(factory=dict)
    silent: bool = False
    stalls: bool = False
    asked: list[IRequest] = field(factory=list)
    bodies: list[bytes] = field(factory=list)

    def __attrs_pre_init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Any) -> Any:
        self.asked.append(request)
        self.bodies.append(request.content.read())
        if self.silent:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        if self.stalls:
            request.write(self.body)
            return NOT_DONE_YET
        return self.body


@implementer(IAgent)
@define(eq=False)
class BrokenAgent:
    """No answer comes, for this reason."""

    reason: BaseException

    def request(self, *args: object, **kw: object) -> Deferred[Any]:
        return fail(self.reason)


class Case(SynchronousTestCase):
    """A client, and a Forgejo that says what it is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000.0)
        self.forgejo = Forgejo()
        self.agent = RequestTraversalAgent(self.forgejo)
        self.forge = self.on(http_over(self.agent))

    def on(self, http: HTTPClient, url: str = "https://forge.example/git/") -> Forge:
        return Forge(
            http,
            url,
            *CLIENT,
            "https://broker.example/oauth/callback",
            " read:user  write:issue ",
            self.clock,
            "fjmcp/1",
        )

    def start(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        waiting = Deferred.fromCoroutine(work)
        self.agent.flush()
        return self.successResultOf(waiting)

    def says(self, status: int, body: object, **headers: str) -> None:
        self.forgejo.status = status
        self.forgejo.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.forgejo.headers = {
            name.replace("_", "-").encode(): value.encode() for name, value in headers.items()
        }

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.forgejo.bodies[-1].decode(), strict_parsing=True))

    def header(self, name: str) -> str | None:
        value: str | None = self.forgejo.asked[-1].getHeader(name)
        return value


class TokenTests(Case):
    """The token endpoint."""

    def test_authorize_url(self) -> None:
        """The browser is sent with PKCE, one space between scopes, and the state."""
        url = urlsplit(self.forge.authorize_url("the state", "a-challenge"))
        self.assertEqual(
            f"{url.scheme}://{url.netloc}{url.path}",
            "https://forge.example/git/login/oauth/authorize",
        )
        self.assertEqual(
            parse_qs(url.query),
            {
                "client_id": ["the-client-id"],
                "redirect_uri": ["https://broker.example/oauth/callback"],
                "response_type": ["code"],
                "scope": ["read:user write:issue"],
                "state": ["the state"],
                "code_challenge": ["a-challenge"],
                "code_challenge_method": ["S256"],
            },
        )

    def test_issuer(self) -> None:
        """Its issuer, with a slash or without; nobody else's."""
        for issuer in ("https://forge.example/git", "https://forge.example/git/"):
            self.assertTrue(self.forge.is_issuer(issuer))
        for issuer in ("", "https://forge.example", "https://evil.example/git"):
            self.assertFalse(self.forge.is_issuer(issuer))

    def test_exchange(self) -> None:
        """A code is sent with its verifier and the callback, ourselves in the header."""
        self.says(200, REPLY)
        outcome = self.do(self.forge.exchange("gta_code", "the-verifier"))
        assert isinstance(outcome, NewPair)
        self.assertEqual(outcome.pair.access.text, REPLY["access_token"])
        self.assertEqual(
            self.form(),
            {
                "grant_type": "authorization_code",
                "code": "gta_code",
                "redirect_uri": "https://broker.example/oauth/callback",
                "code_verifier": "the-verifier",
            },
        )
        basic = b64encode(":".join(CLIENT).encode()).decode()
        self.assertEqual(self.header("authorization"), f"Basic {basic}")
        self.assertEqual(self.header("user-agent"), "fjmcp/1")
        self.assertEqual(self.header("accept"), "application/json")
        self.assertEqual(self.forgejo.asked[-1].uri, b"/git/login/oauth/access_token")

    def test_refresh(self) -> None:
        """A refresh token is sent, and a pair comes back."""
        self.says(200, REPLY)
        outcome = self.do(self.forge.refresh(OLD))
        assert isinstance(outcome, NewPair)
        self.assertEqual(outcome.pair.refresh.text, REPLY["refresh_token"])
        self.assertEqual(outcome.pair.expires_at, self.clock.seconds() + 3600)
        self.assertEqual(self.form(), {"grant_type": "refresh_token", "refresh_token": OLD.text})

    def test_refresh_keeps_old(self) -> None:
        """A refresh that gives no new refresh token leaves the old one."""
        self.says(200, {"access_token": "new", "token_type": "bearer", "expires_in": 60})
        outcome = self.do(self.forge.refresh(OLD))
        assert isinstance(outcome, NewPair)
        self.assertIs(outcome.pair.refresh, OLD)

    def test_refresh_rows(self) -> None:
        """Each error that Forgejo gives a refresh means what it means."""
        for error, description, meant in REFRESH_ROWS:
            with self.subTest(description):
                self.says(400, {"error": error, "error_description": description})
                expected = Refused(error, description) if meant is Refused else meant
                self.assertEqual(self.do(self.forge.refresh(OLD)), expected)

    def test_code_rows(self) -> None:
        """Each error that Forgejo gives a code likewise."""
        for error, description, meant in CODE_ROWS:
            with self.subTest(description):
                self.says(400, {"error": error, "error_description": description})
                expected = Refused(error, description) if meant is Refused else meant
                self.assertEqual(self.do(self.forge.exchange("gta_c", "v")), expected)

    def test_not_forgejo(self) -> None:
        """Whatever is not an answer of Forgejo's token endpoint is trouble, never a refusal."""
        for status, body, meant in (
            (200, b"", Troubled("malformed", unsure=True)),
            (200, b"<html>", Troubled("malformed", unsure=True)),
            (200, [], Troubled("malformed", unsure=True)),
            (200, {"access_token": "only"}, Troubled("malformed", unsure=True)),
            (200, {**REPLY, "access_token": "two words"}, Troubled("malformed", unsure=True)),
            (200, b"[" * 100_000, Troubled("malformed", unsure=True)),
            (200, b'{"access_token": "\xff"}', Troubled("malformed", unsure=True)),
            (400, b"<html>", Troubled("status-400")),
            (400, {"error": 5}, Troubled("status-400")),
            (401, {"error": "invalid_client"}, Troubled("invalid_client")),
            (403, b"", Troubled("status-403")),
            (404, b"", Troubled("status-404")),
            (500, {"error": "invalid_grant"}, Troubled("status-500", unsure=True)),
            (502, b"<html>", Troubled("status-502", unsure=True)),
            (302, b"", Troubled("status-302")),
        ):
            with self.subTest(status=status, body=body):
                self.says(status, body)
                self.assertEqual(self.do(self.forge.exchange("gta_c", "v")), meant)

    def test_retry_after(self) -> None:
        """Retry-After is read, as seconds or as a date."""
        for text, seconds in (
            ("120", 120.0),
            ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
            ("Fri, 15 Jan 2021 08:01:00 GMT", 0.0),
            ("soon", None),
            ("-5", None),
            ("9" * 400, 999999999.0),
        ):
            self.says(429, b"", Retry_After=text)
            outcome = self.do(self.forge.refresh(OLD))
            self.assertEqual(outcome, Troubled("status-429", seconds), text)

    def test_redirect(self) -> None:
        """No redirect is followed with a credential."""
        self.says(307, b"", Location="https://forge.example/elsewhere")
        for work in (
            self.forge.refresh(OLD),
            self.forge.introspect(ACCESS),
            self.forge.user(ACCESS),
        ):
            self.assertEqual(self.do(work), Troubled("status-307"))
        self.assertEqual(len(self.forgejo.asked), 3)

    def test_no_cookie(self) -> None:
        """A cookie of one answer does not travel with the next request."""
        self.says(200, REPLY, Set_Cookie="i_like_gitea=ada; Path=/")
        self.do(self.forge.refresh(OLD))
        self.do(self.forge.refresh(OLD))
        self.assertIsNone(self.header("cookie"))

    def test_descriptions_scrubbed(self) -> None:
        """A description that repeats what we sent does not repeat it to the log."""
        sent = (OLD.text, SECRET, "gta_code", "the-verifier")
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, events.append)  # type: ignore[arg-type]
        for error in ("invalid_grant", "server_error", OLD.text):
            said = {"error": error, "error_description": " ".join(sent)}
            self.says(400, said)
            told = repr(
                [
                    self.do(self.forge.refresh(OLD)),
                    self.do(self.forge.exchange("gta_code", "the-verifier")),
                ]
            )
            self.says(401, {"message": f"no token {ACCESS.text}"})
            told += repr(self.do(self.forge.user(ACCESS))) + repr(events)
            for secret in (*sent[:3], ACCESS.text):
                self.assertNotIn(secret, told)
        self.assertNotIn(SECRET, repr(self.forge))


class TroubleTests(Case):
    """No answer, or not all of one."""

    def test_no_connection(self) -> None:
        """What failed before anything was sent is trouble that is sure to have changed nothing."""
        for reason in (
            ConnectionRefusedError(),
            ConnectTimeout(),
            DNSLookupError(),
        ):
            forge = self.on(http_over(BrokenAgent(reason)))
            self.assertEqual(self.do(forge.refresh(OLD)), Troubled("unreachable"))

    def test_tls(self) -> None:
        """Likewise a certificate that does not hold; TLS may also break later, once it did."""
        for error, unsure in ((BadCertificate("expired"), False), (SSL.Error("bad mac"), True)):
            forge = self.on(http_over(BrokenAgent(ResponseNeverReceived([Failure(error)]))))
            self.assertEqual(self.do(forge.refresh(OLD)), Troubled("tls", unsure=unsure))

    def test_lost(self) -> None:
        """A connection that breaks once the request is on its way leaves it unsure."""
        for reason in (
            ResponseNeverReceived([Failure(ConnectionLost())]),
            ConnectionLost(),
        ):
            forge = self.on(http_over(BrokenAgent(reason)))
            meant = Troubled("connection-lost", unsure=True)
            self.assertEqual(self.do(forge.refresh(OLD)), meant)

    def test_unexpected(self) -> None:
        """What nobody thought of is trouble too, and stands in the log."""
        forge = self.on(http_over(BrokenAgent(ZeroDivisionError())))
        self.assertEqual(self.do(forge.refresh(OLD)), Troubled("unexpected", unsure=True))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def limited(self, work: Coroutine[Any, Any, object], limit: float) -> None:
        waiting = self.start(work)
        self.agent.flush()
        self.clock.advance(limit - 1)
        self.assertNoResult(waiting)
        self.clock.advance(1.0)
        self.assertEqual(self.successResultOf(waiting), Troubled("timeout", unsure=True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent(self) -> None:
        """The token endpoint has a minute, all else half of it."""
        self.forgejo.silent = True
        self.limited(self.forge.refresh(OLD), limits.FORGE_TOKEN)
        self.limited(self.forge.exchange("c", "v"), limits.FORGE_TOKEN)
        self.limited(self.forge.introspect(ACCESS), limits.FORGE_ANSWER)
        self.limited(self.forge.user(ACCESS), limits.FORGE_ANSWER)
        self.limited(self.forge.version(), limits.FORGE_ANSWER)

    def test_stalls(self) -> None:
        """The limit goes on to the end of the body."""
        self.says(200, b'{"access_token":')
        self.forgejo.stalls = True
        self.limited(self.forge.refresh(OLD), limits.FORGE_TOKEN)

    def test_cancelled(self) -> None:
        """A caller that stops waiting leaves nothing behind."""
        self.forgejo.silent = True
        waiting = self.start(self.forge.user(ACCESS))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_huge(self) -> None:
        """A body past the bound is not read."""
        self.says(200, b" " * (limits.FORGE_BODY + 1))
        meant = Troubled("too-large", unsure=True)
        self.assertEqual(self.do(self.forge.refresh(OLD)), meant)
        self.says(200, json.dumps(REPLY).encode() + b" " * 1000)
        self.assertIsInstance(self.do(self.forge.refresh(OLD)), NewPair)

    def test_real_client(self) -> None:
        """The real client keeps no connection and no cookie, and takes no bad certificate."""
        http = forge_http(MemoryReactorClock())
        agent = http._agent
        assert isinstance(agent, Agent)
        self.assertEqual(agent._endpointFactory._policyForHTTPS, Certificates())
        self.assertFalse(agent._pool.persistent)
        self.assertEqual(type(http._cookiejar), type(http_over(agent)._cookiejar))


class IntrospectTests(Case):
    """Introspection, user, version."""

    def test_active(self) -> None:
        """Who, for whom, with what."""
        self.says(
            200,
            {
                "active": True,
                "scope": "openid read:user",
                "username": "ada",
                "iss": "https://forge.example/git",
                "aud": ["the-client-id"],
                "sub": "7",
            },
        )
        self.assertEqual(
            self.do(self.forge.introspect(ACCESS)),
            Introspected(True, "7", "openid read:user", frozenset({"the-client-id"}), "ada"),
        )
        self.assertEqual(self.form(), {"token": ACCESS.text})
        self.assertEqual((self.header("authorization") or "")[:6], "Basic ")

    def test_sparse(self) -> None:
        """An audience may be one string; what is missing or odd is empty."""
        self.says(200, {"active": True, "aud": "the-client-id", "sub": 7, "scope": None})
        self.assertEqual(
            self.do(self.forge.introspect(ACCESS)),
            Introspected(True, audience=frozenset({"the-client-id"})),
        )
        self.says(200, {"active": False})
        self.assertEqual(self.do(self.forge.introspect(ACCESS)), Introspected(False))

    def test_introspection_troubled(self) -> None:
        """An answer that is none; 401 means that our own secret is wrong."""
        for status, body, meant in (
            (401, b"no", Troubled("invalid_client")),
            (200, b"{}", Troubled("status-200")),
            (200, {"active": "true"}, Troubled("status-200")),
            (404, b"", Troubled("status-404")),
            (503, b"", Troubled("status-503", unsure=True)),
        ):
            self.says(status, body)
            self.assertEqual(self.do(self.forge.introspect(ACCESS)), meant)

    def test_user(self) -> None:
        """Number, name and rank, asked with the token in the header."""
        for is_admin in (True, False):
            self.says(200, {"id": 7, "login": "ada", "is_admin": is_admin})
            self.assertEqual(self.do(self.forge.user(ACCESS)), User(7, "ada", is_admin))
        self.assertEqual(self.header("authorization"), f"Bearer {ACCESS.text}")
        self.assertEqual(self.forgejo.asked[-1].uri, b"/git/api/v1/user")

    def test_user_refused(self) -> None:
        """Blocked, not allowed to ask, and signed out are told apart, by Forgejo's own words."""
        for status, message, error in API_REFUSALS:
            self.says(status, {"message": message, "url": "…"})
            self.assertEqual(self.do(self.forge.user(ACCESS)), Refused(error, message))

    def test_forbidden_by_others(self) -> None:
        """A 403 in other words blocks nobody: a gateway on the way says such, or Forgejo says it
        of something else."""
        for message in (
            "Forbidden",
            "Missing Authentication Token",
            "You must change your Password",
            "Access denied: this account is prohibited from signing in",
            "required scope(s): [read:user]",
            "Only signed in user is allowed to call APIs.",
            "Must be an organization member",
            "Must be a team member",
            "See /user/settings",
        ):
            self.says(403, {"message": message, "url": "https://forge.example/git/api/swagger"})
            self.assertEqual(self.do(self.forge.user(ACCESS)), Troubled("status-403"), message)
        for message in (text for status, text, _ in API_REFUSALS if status == 403):
            for status in (400, 404, 429, 451):
                self.says(status, {"message": message})
                self.assertEqual(self.do(self.forge.user(ACCESS)), Troubled(f"status-{status}"))

    def test_user_troubled(self) -> None:
        """Anything else says nothing of the account, nor does a 403 that is not Forgejo's."""
        for status, body in (
            (200, b""),
            (200, {"id": "7", "login": "ada", "is_admin": False}),
            (200, {"id": True, "login": "ada", "is_admin": False}),
            (200, {"id": 7, "is_admin": False}),
            (200, {"id": 7, "login": "ada"}),
            (200, {"id": 7, "login": "ada", "is_admin": None}),
            (200, {"id": 7, "login": "ada", "is_admin": 0}),
            (403, b"<html>"),
            (403, {"message": ""}),
            (403, {"message": 403}),
            (404, b""),
        ):
            self.says(status, body)
            self.assertEqual(self.do(self.forge.user(ACCESS)), Troubled(f"status-{status}"))

    def test_version(self) -> None:
        """Forgejo's version, asked without a credential."""
        self.says(200, {"version": "16.0.0+gitea-1.22.0"})
        self.assertEqual(self.do(self.forge.version()), "16.0.0+gitea-1.22.0")
        self.assertIsNone(self.header("authorization"))
        self.says(403, {"message": "Only signed in user is allowed to call APIs."})
        self.assertEqual(self.do(self.forge.version()), Troubled("status-403"))

    def test_pair_reads(self) -> None:
        """The exported names are those of `fjmcp.forge.tokens`."""
        self.assertIs(Pair.__module__, ForgeToken.__module__)
