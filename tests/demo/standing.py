"""A stand-in Forgejo on a Clock, and what its tests do again and again."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen
from treq import content
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from fjmcp.demo.browser import Body, Browser, Page
from fjmcp.demo.forge.standin import CLIENT_ID, CLIENT_SECRET, StandIn

URL = "https://forge.example"
CALLBACK = "https://broker.example/oauth/callback"
TOKEN = "/login/oauth/access_token"
SCOPE = "openid profile read:user write:repository write:issue"
NOW = 1_800_000_000.0

VERIFIER = "a-verifier-that-is-long-enough-for-the-rule-of-43"
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@frozen
class Reply:
    """An answer as a test looks at it."""

    status: int
    headers: Headers
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    def header(self, name: str) -> str | None:
        """One header, None where it is missing."""
        return self.headers.getRawHeaders(name, [None])[0]


class StandInCase(SynchronousTestCase):
    """Each test has a stand-in, a clock, an agent, and Alice's browser."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.forge = StandIn(self.clock, URL, redirect_uris=(CALLBACK,))
        self.agent = RequestTraversalAgent(self.forge.resource)
        self.browser = Browser(self.agent, (CALLBACK,))

    def start(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        data: Any = None,
        bearer: str | None = None,
        basic: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Reply]:
        """Send a request whose answer may be late."""
        sent = Headers({name: [value] for name, value in (headers or {}).items()})
        body = b""
        if form is not None:
            sent.setRawHeaders("content-type", ["application/x-www-form-urlencoded"])
            body = urlencode(form).encode()
        if data is not None:
            sent.setRawHeaders("content-type", ["application/json"])
            body = json.dumps(data).encode()
        if bearer is not None:
            sent.setRawHeaders("authorization", [f"Bearer {bearer}"])
        if basic is not None:
            sent.setRawHeaders("authorization", [basic_header(*basic)])

        async def going() -> Reply:
            response: IResponse = await self.agent.request(
                method.encode(), f"{URL}{path}".encode(), sent, Body(body) if body else None
            )
            text = (await content(response)).decode()
            return Reply(response.code, response.headers, text)

        return Deferred.fromCoroutine(going())

    def ask(self, method: str, path: str, **more: Any) -> Reply:
        """Send a request and have the answer."""
        return self.successResultOf(self.start(method, path, **more))

    def see(self, going: Any) -> Page:
        """Where a walk of the browser ends."""
        page: Page = self.successResultOf(Deferred.fromCoroutine(going))
        return page

    def sign_in(self, login: str = "alice", browser: Browser | None = None) -> Page:
        """Sign in at the sign-in page."""
        person = browser or self.browser
        page = self.see(person.open(f"{URL}/user/login"))
        filled = {"user_name": login, "password": f"{login}-demo-password"}
        return self.see(person.submit(page, **filled))

    def authorize(self, **changes: str | None) -> Page:
        """Open the authorize page; a parameter that is None is left out."""
        asked: dict[str, str | None] = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": CALLBACK,
            "state": "the-state",
            "scope": SCOPE,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        query = {n: v for n, v in (asked | changes).items() if v is not None}
        return self.see(self.browser.open(f"{URL}/login/oauth/authorize?{urlencode(query)}"))

    def code(self, **changes: str | None) -> str:
        """A code, by way of the consent page if it is shown."""
        page = self.authorize(**changes)
        if page.forms:
            page = self.see(self.browser.submit(page, "true"))
        return said(page)["code"]

    def exchange(self, code: str | None, **changes: str | None) -> Reply:
        """Redeem a code; a field that is None is left out."""
        return self.token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": CALLBACK,
                "code_verifier": VERIFIER,
            },
            changes,
        )

    def refresh(self, refresh_token: str | None, **changes: str | None) -> Reply:
        """Refresh; a field that is None is left out."""
        return self.token({"grant_type": "refresh_token", "refresh_token": refresh_token}, changes)

    def token(self, fields: Mapping[str, str | None], changes: Mapping[str, str | None]) -> Reply:
        """Ask the token endpoint as our client, the secret in the body."""
        client: dict[str, str | None] = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        form = {n: v for n, v in (client | dict(fields) | dict(changes)).items() if v is not None}
        return self.ask("POST", TOKEN, form=form)

    def pair(self, login: str = "alice", scope: str = SCOPE) -> dict[str, Any]:
        """A token answer without the way to it."""
        return self.forge.hand_out(login, scope)

    def assertRefused(self, reply: Reply, error: str, description: str) -> None:
        """HTTP 400 with exactly this body."""
        self.assertEqual(
            (reply.status, reply.json), (400, {"error": error, "error_description": description})
        )


def said(page: Page) -> dict[str, str]:
    """What a redirect's query says."""
    return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))


def basic_header(user: str, password: str) -> str:
    """A Basic header."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
