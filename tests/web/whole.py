"""What the tests of the OAuth routes do again and again, on a whole broker."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.demo.browser import Browser, Page
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.testing.children import FakeChild
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import FORGE_URL, App, WholeBroker, walk

CALLBACK = f"{PUBLIC_URL}/oauth/callback"
EXCHANGE = "POST /login/oauth/access_token"
HOST = "broker.example"
FORGE_HOST = "forge.example"
KNOWN_URL = "https://claude.ai/api/mcp/auth_callback"
"""Where a known assistant wants its browsers back."""
FORWARDER_URL = "https://vscode.dev/redirect"
"""A known callback that sends browsers on to wherever `state` says."""
LOCAL_URL = "http://127.0.0.1:1/cb"
PRIVATE_URL = "cursor://anysphere.cursor-mcp/oauth/callback"


class BrokerCase(SynchronousTestCase):
    """Each test has a broker, and a client that has registered."""

    def setUp(self) -> None:
        self.broker = WholeBroker()
        self.app = self.broker.register()

    # --- looking ---------------------------------------------------------------

    def rows(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """What stands in the store."""
        return now(self.broker.store.read(lambda cursor: cursor.many(sql, *params)))

    def count(self, table: str) -> int:
        """How many rows a table has."""
        ((number,),) = self.rows(f"SELECT COUNT(*) FROM {table}")
        return int(number)

    def live_grants(self) -> int:
        """Grants that have not ended."""
        return len(self.rows("SELECT 1 FROM grants WHERE ended_at IS NULL"))

    def child(self) -> FakeChild:
        """The only child that lives."""
        (child,) = self.broker.reactor.alive
        return child

    # --- judging ---------------------------------------------------------------

    def assert_page(self, page: Page | Visit, status: int = 400) -> None:
        """A page of ours that leads nowhere: no redirect, no refresh, no form."""
        text = page.text if isinstance(page, Page) else page.body.decode()
        self.assertEqual(page.status, status, text)
        self.assertIsNone(page.headers.getRawHeaders("location"))
        self.assertIn("text/html", (page.headers.getRawHeaders("content-type") or [""])[0])
        self.assertIsNone(re.search(r"<form|http-equiv|<a ", text), text)

    def assert_error(self, visit: Visit, error: str, status: int = 400) -> None:
        """JSON as in RFC 6749 §5.2, not to be stored."""
        self.assertEqual((visit.status, visit.json()["error"]), (status, error), visit.body)
        self.assertEqual(set(visit.json()), {"error", "error_description"})
        self.assertEqual(visit.header("cache-control"), "no-store")
        self.assertEqual(visit.header("content-type"), "application/json")

    def assert_down(self, page: Page | Visit) -> None:
        """503, and when to come back."""
        self.assertEqual(page.status, 503)
        self.assertEqual(page.headers.getRawHeaders("retry-after"), ["5"])

    # --- going -----------------------------------------------------------------

    def to_callback(
        self, browser: Browser | None = None, app: App | None = None, login: str = "alice"
    ) -> str:
        """Allow, sign in at Forgejo, and stop before our callback: its URL, with code and state."""
        browser = browser or self.broker.browser()
        stops, browser.stops = browser.stops, (*browser.stops, CALLBACK)
        try:
            return walk(browser, (app or self.app).open(browser), login).url
        finally:
            browser.stops = stops

    def open(self, browser: Browser, url: str) -> Page:
        """Go there."""
        return now(browser.open(url))

    def browser_of(self, app: App) -> Browser:
        """A browser that stops where this client is, too."""
        browser = self.broker.browser()
        browser.stops = (*browser.stops, *app.registered["redirect_uris"])
        return browser


class ConsentCase(BrokerCase):
    """Each test has a browser, in which Alice has signed in once."""

    def setUp(self) -> None:
        super().setUp()
        self.browser = self.broker.browser()
        self.assertIn("code", self.app.sign_in(browser=self.browser))

    # --- going -----------------------------------------------------------------

    def visit(
        self, app: App | None = None, browser: Browser | None = None, **changes: str | None
    ) -> Visit:
        """What an authorization request is answered with, nothing followed."""
        target = (app or self.app).authorize_url(**changes).removeprefix(PUBLIC_URL)
        visitor = self.broker.visitor()
        visitor.cookies = dict(jar(browser or self.browser))
        return visitor.get(target, accept="text/html")

    def sign_out_at_forgejo(self, browser: Browser | None = None) -> None:
        """The next one to sign in there may be somebody else."""
        (browser or self.browser).cookies.pop(FORGE_HOST, None)

    def send(self, form: dict[str, str], browser: Browser | None = None, **headers: str) -> Page:
        """Send a form of ours with the cookies of a browser, and follow nothing."""
        cookies = "; ".join(f"{n}={v}" for n, v in jar(browser or self.browser).items())
        sent = {"origin": PUBLIC_URL} | headers | ({"cookie": cookies} if cookies else {})
        visit = self.broker.visitor().post_form("/oauth/consent", form, **sent)
        return Page("", visit.status, visit.body.decode(), visit.headers)

    # --- judging ---------------------------------------------------------------

    def says_remembered(self, page: Page) -> bool:
        """Whether a page says that the answer to it will be remembered."""
        return "you are not asked again in this browser for 30 days" in page.text

    def shows_page(self, visit: Visit) -> bool:
        """Whether our consent page is shown; if not, the browser goes to Forgejo."""
        if visit.status == 200:
            self.assertIn(b'value="allow"', visit.body)
            self.assertIsNone(visit.header("location"))
            return True
        self.assertEqual(visit.status, 303, visit.body)
        self.assertTrue((visit.header("location") or "").startswith(f"{FORGE_URL}/login/oauth/"))
        return False

    def assert_asked(
        self, app: App | None = None, browser: Browser | None = None, **changes: str | None
    ) -> None:
        """This request has its person asked."""
        self.assertTrue(self.shows_page(self.visit(app, browser, **changes)), changes)

    def assert_remembered(
        self, app: App | None = None, browser: Browser | None = None, **changes: str | None
    ) -> None:
        """For this request nobody is asked."""
        self.assertFalse(self.shows_page(self.visit(app, browser, **changes)), changes)

    def whose(self, browser: Browser | None = None) -> str | None:
        """As whom a browser is known, by login."""
        cookie = TokenText(jar(browser or self.browser).get("__Host-fjmcp_browser", ""))
        found = self.rows(
            "SELECT login FROM browsers JOIN accounts USING (account_id) WHERE browser = ?",
            digest(cookie).value,
        )
        return found[0][0] if found else None


def said(page: Page | Visit | str) -> dict[str, str]:
    """What the redirect's query says."""
    if isinstance(page, Visit):
        url = page.header("location") or ""
    else:
        url = page if isinstance(page, str) else page.url
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def jar(browser: Browser) -> dict[str, str]:
    """The cookies that a browser holds for us."""
    return browser.cookies.setdefault(HOST, {})


def texts(answers: Iterable[dict[str, Any]]) -> set[str]:
    """Every token in these token responses."""
    return {a[name] for a in answers for name in ("access_token", "refresh_token") if name in a}
