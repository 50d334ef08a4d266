"""The cookies that bind a sign-in to its browser."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import Kind, TokenText, mint
from fjmcp.testing.visitors import Visitor
from fjmcp.web.channel import SiteRequest
from fjmcp.web.cookies import Cookies
from fjmcp.web.routes import Answer, Tongue, route
from fjmcp.web.site import Site


class CookieTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = mint(Kind.STATE)
        self.browser = mint(Kind.BROWSER)
        self.seconds = limits.SIGN_IN
        self.make("https://broker.example")

    def make(self, url: str) -> None:
        """A site that sets the cookies at one path, and remembers what it reads at another."""
        endpoints = Endpoints(url)
        self.cookies = Cookies(endpoints)
        self.read: list[TokenText | None] = []
        clock = Clock()
        routes = [
            route("/set", speaks=Tongue.PAGE, get=self.set),
            route("/drop", speaks=Tongue.PAGE, get=self.drop),
            route("/read", speaks=Tongue.PAGE, get=self.look),
        ]
        host = url.partition("//")[2]
        self.visitor = Visitor(Site(endpoints, routes, clock), clock, host)

    async def set(self, request: SiteRequest) -> Answer:
        self.cookies.set_browser(request, self.browser, self.seconds)
        self.cookies.set_state(request, self.state)
        return b"."

    async def drop(self, request: SiteRequest) -> Answer:
        self.cookies.drop_state(request, self.state)
        return b"."

    async def look(self, request: SiteRequest) -> Answer:
        self.read = [self.cookies.browser(request), self.cookies.state(request, self.state)]
        return b"."

    def texts(self) -> list[str | None]:
        """What is read of the cookies that the visitor holds."""
        self.visitor.get("/read")
        return [None if token is None else token.text for token in self.read]

    def test_https(self) -> None:
        """Over https nobody else can set them, read them by script, or get them unencrypted; they
        live as long as a sign-in."""
        lines = self.visitor.get("/set").headers.getRawHeaders("set-cookie", [])
        self.assertEqual(len(lines), 2)
        for line in lines:
            pair, *attributes = line.split("; ")
            self.assertTrue(pair.startswith("__Host-fjmcp_"), line)
            said = {attribute.lower() for attribute in attributes}
            wanted = {"path=/", "secure", "httponly", "samesite=lax"}
            self.assertEqual(said, wanted | {f"max-age={int(limits.SIGN_IN)}"})

    def test_known(self) -> None:
        """The cookie of a browser that is known lasts as long as it is known; the state's does
        not."""
        self.seconds = limits.KNOWN_BROWSER
        lines = self.visitor.get("/set").headers.getRawHeaders("set-cookie", [])
        ages = {line.partition("=")[0]: line.lower() for line in lines}
        browser = ages.pop("__Host-fjmcp_browser")
        self.assertIn(f"max-age={30 * 86400}", browser)
        (state,) = ages.values()
        self.assertIn(f"max-age={int(limits.SIGN_IN)}", state)

    def test_http(self) -> None:
        """Over http, on loopback, they have neither the prefix nor Secure, which browsers would
        refuse there."""
        self.make("http://127.0.0.1:8080")
        for line in self.visitor.get("/set").headers.getRawHeaders("set-cookie", []):
            self.assertTrue(line.startswith("fjmcp_"), line)
            self.assertNotIn("secure", line.lower())
            self.assertIn("httponly", line.lower())
        self.assertEqual(self.texts(), [self.browser.text, self.state.text])

    def test_there_and_back(self) -> None:
        """What was set is read; what was dropped is not."""
        self.visitor.get("/set")
        self.assertEqual(self.texts(), [self.browser.text, self.state.text])
        self.visitor.get("/drop")
        self.assertEqual(self.texts(), [self.browser.text, None])

    def test_name_tells_nothing(self) -> None:
        """The name of a state's cookie is another for each state, and no part of it."""
        self.visitor.get("/set")
        first = set(self.visitor.cookies)
        self.assertFalse([name for name in first if self.state.text[:12] in name])
        self.state = mint(Kind.STATE)
        self.visitor.get("/set")
        self.assertEqual(len(self.visitor.cookies), 3)

    def test_prefix_is_required(self) -> None:
        """Over https a cookie without the prefix, which a neighbour could set, is not ours."""
        self.visitor.get("/set")
        self.visitor.cookies = {
            name.removeprefix("__Host-"): value for name, value in self.visitor.cookies.items()
        }
        self.assertEqual(self.texts(), [None, None])

    def test_odd_values(self) -> None:
        """A value that was never ours counts as none."""
        self.visitor.get("/set")
        for value in ("", "x" * 129, "\xff", "ä"):
            self.visitor.cookies = dict.fromkeys(self.visitor.cookies, value)
            self.assertEqual(self.texts(), [None, None], value)
