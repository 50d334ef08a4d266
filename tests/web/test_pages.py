"""The pages that a person sees."""

from __future__ import annotations

from html.parser import HTMLParser

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.demo.browser import Page, read_page
from fjmcp.oauth.authorization import AuthorizationRequest, error_url, success_url
from fjmcp.oauth.clients import Client
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.tokens import Kind, TokenText, mint
from fjmcp.refusals import ACCESS_DENIED, SIGN_IN_FORGED
from fjmcp.testing import CLIENT_URL, PUBLIC_URL, now
from fjmcp.web import pages
from tests.web.whole import BrokerCase

HOSTILE = (
    "<script>alert(1)</script>",
    "</strong></q><form action=https://evil.example><input name=password>",
    '"><img src=https://evil.example/x>',
    "' onmouseover='alert(1)",
    "]]><b>",
    "<!-- ",
    "&lt;b&gt; &amp; &#60;b&#62;",
    "{forge} ${forge} {{forge}} <t:slot name='signin'/>",
    "</title><style>p{display:none}</style>",
)
"""Names that a client may have chosen, had they come through registration as they are."""

REDIRECTS = (
    CLIENT_URL,
    "https://client.example",
    "https://client.example?x=%22%3E&amp;y='(1);url=https://evil.example",
    "https://client.example/a;url=b",
    "https://192.0.2.1:8443/",
    "http://127.0.0.1:1/cb",
    "http://[::1]:49152/",
    "http://localhost/",
    "cursor://anysphere.cursor-mcp/oauth/callback",
)


class Elements(HTMLParser):
    """What a page is made of, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [v or "" for n, v in attrs if n in ("href", "src", "action", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words += data


async def html(page: object) -> str:
    """A page's text."""
    body: bytes = await page  # type: ignore[misc]
    return body.decode("utf-8")


def consent(name: str, uri: str = CLIENT_URL, signin: str = "s") -> str:
    client = Client("c", (), ClientMetadata((uri,), name), 0.0)
    return now(html(pages.consent(client, uri, "forge.example", TokenText(signin))))


class EscapingTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Whatever a client calls itself, the page has the same elements, and says the name to
        the letter."""
        plain = Elements(consent("A name"))
        for name in HOSTILE:
            page = Elements(consent(name))
            self.assertEqual((page.found, page.addresses), (plain.found, plain.addresses), name)
            self.assertEqual(page.words.count(name), plain.words.count("A name"), name)

    def test_no_name(self) -> None:
        """A client without a name is said to have none."""
        self.assertIn("without a name", consent(""))

    def test_form(self) -> None:
        """What goes into the form comes back out of it, and nothing else is asked."""
        page = read_page("", 200, consent("n", signin='"><x &amp;'))
        self.assertEqual(page.form.fields, {"signin": '"><x &amp;'})
        self.assertEqual(page.form.buttons, (("decision", "allow"), ("decision", "deny")))

    def test_onward(self) -> None:
        """The page that sends on leads to the very address, by itself and by its link, and
        names the host."""
        for uri in REDIRECTS:
            for state in (None, "s", "'\"><script>;url=https://evil.example", "ä\n\0 &amp;"):
                request = AuthorizationRequest("c", uri, state, "x" * 43, "", "")
                for url in (
                    error_url(uri, state, ACCESS_DENIED, PUBLIC_URL),
                    success_url(request, mint(Kind.CODE), PUBLIC_URL),
                ):
                    text = now(html(pages.onward(url)))
                    self.assertEqual(read_page("", 200, text).refresh, url)
                    self.assertIn(url, Elements(text).addresses)
                    self.assertEqual(
                        [tag for tag, _ in Elements(text).found if tag in ("script", "form")], []
                    )

    def test_refusal(self) -> None:
        """What a refusal says stands there escaped."""
        text = now(html(pages.refusal(ACCESS_DENIED.saying("<b>bold</b>"))))
        self.assertIn("<b>bold</b>", Elements(text).words)
        self.assertNotIn("b", [tag for tag, _ in Elements(text).found])

    def test_nothing_from_elsewhere(self) -> None:
        """No page has a script, a style of its own or an address but ours and the next one."""
        onward = now(html(pages.onward(CLIENT_URL)))
        refusal = now(html(pages.refusal(SIGN_IN_FORGED)))
        front = now(html(pages.front(PUBLIC_URL)))
        for text in (consent("n"), onward, refusal, front):
            page = Elements(text)
            tags = {tag for tag, _ in page.found}
            self.assertEqual(tags & {"script", "style", "img", "iframe", "object"}, set())
            attributes = {name for _, names in page.found for name in names}
            self.assertEqual({n for n in attributes if n == "style" or n.startswith("on")}, set())
            known = {pages.STYLE_PATH, "/oauth/consent", CLIENT_URL}
            self.assertLessEqual(set(page.addresses), known)


class HeaderTests(BrokerCase):
    def test_every_page(self) -> None:
        """No page may be framed, stored, sniffed, named in a Referer, or load or send anything
        elsewhere."""
        browser = self.broker.browser()
        consenting = self.app.open(browser)
        visitor = self.broker.visitor()
        visitor.cookies = dict(browser.cookies["broker.example"])
        form = consenting.form.fields
        seen: list[tuple[int, Page]] = [(200, consenting)]
        for status, visit in (
            (400, visitor.post_form("/oauth/consent", form)),
            (200, visitor.post_form("/oauth/consent", form | {"decision": "allow"})),
            (400, visitor.post_form("/oauth/consent", form | {"decision": "deny"})),
            (405, visitor.get("/oauth/consent")),
            (400, visitor.get("/oauth/authorize")),
            (400, visitor.get("/oauth/callback?state=x")),
            (404, visitor.get("/nothing", accept="text/html")),
            (200, visitor.get("/")),
        ):
            seen.append((status, Page("", visit.status, visit.body.decode(), visit.headers)))
        denying = self.app.open(browser)
        visit = visitor.post_form("/oauth/consent", denying.form.fields | {"decision": "deny"})
        seen.append((200, Page("", visit.status, visit.body.decode(), visit.headers)))
        self.broker.store.fail_all()
        seen.append((503, self.app.open(browser)))
        for status, page in seen:
            self.assertEqual(page.status, status)

            def header(name: str, page: Page = page) -> str:
                return (page.headers.getRawHeaders(name) or [""])[0]

            self.assertEqual(header("content-type"), "text/html; charset=utf-8")
            self.assertEqual(header("cache-control"), "no-store")
            self.assertEqual(header("referrer-policy"), "no-referrer")
            self.assertEqual(header("x-content-type-options"), "nosniff")
            self.assertEqual(header("x-frame-options"), "DENY")
            policy = set(header("content-security-policy").split("; "))
            self.assertEqual(
                policy,
                {
                    "default-src 'none'",
                    "style-src 'self'",
                    "form-action 'self'",
                    "frame-ancestors 'none'",
                    "base-uri 'none'",
                },
            )

    def test_redirects(self) -> None:
        """A redirect is a 303, not to be stored, and tells no Referer."""
        visit = self.broker.visitor().get(
            self.app.authorize_url(response_type="token").removeprefix(PUBLIC_URL)
        )
        self.assertEqual(visit.status, 303)
        self.assertEqual(visit.header("cache-control"), "no-store")
        self.assertEqual(visit.header("referrer-policy"), "no-referrer")

    def test_name_as_registered(self) -> None:
        """A name is cleaned at registration, so that it reads as what it is."""
        app = self.broker.register(client_name="A\u202eB\u200b\x00\n" + "x" * 500)
        page = app.open()
        self.assertIn("AB", page.text)
        self.assertNotIn("\u202e", page.text)
        self.assertNotIn("x" * limits.CLIENT_NAME, page.text)
