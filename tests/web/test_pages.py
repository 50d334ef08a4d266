"""The pages that a person sees."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.demo.browser import Page, read_page
from fjmcp.oauth import redirects
from fjmcp.oauth.authorization import AuthorizationRequest, error_url, success_url
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.marks import marks
from fjmcp.oauth.metadata import ClientMetadata, clean_name
from fjmcp.oauth.tokens import Kind, TokenText, mint
from fjmcp.refusals import ACCESS_DENIED, SIGN_IN_FORGED
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import CLIENT_URL, walk
from fjmcp.web import pages
from tests.web.whole import FORWARDER_URL, KNOWN_URL, BrokerCase

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


def client_of(name: str, uri: str) -> Client:
    return Client("c", (), ClientMetadata((uri,), name), 0.0)


def consent(name: str, uri: str = CLIENT_URL, signin: str = "s") -> str:
    """Our consent page."""
    page = pages.consent(client_of(name, uri), uri, "forge.example", TokenText(signin))
    return now(html(page))


def another(name: str, uri: str = CLIENT_URL, known: str = "alice", came: str = "bob") -> str:
    """The page for another person than before."""
    page = pages.another(
        client_of(name, uri), uri, "forge.example", TokenText("s"), known=known, came=came
    )
    return now(html(page))


class EscapingTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Whatever a client calls itself, the page has the same elements, and says the name to
        the letter."""
        for page_of in (consent, another):
            plain = Elements(page_of("A name"))
            for name in HOSTILE:
                page = Elements(page_of(name))
                self.assertEqual((page.found, page.addresses), (plain.found, plain.addresses), name)
                self.assertEqual(page.words.count(name), plain.words.count("A name"), name)

    def test_logins(self) -> None:
        """Likewise whatever people are called at Forgejo."""
        plain = Elements(another("A name"))
        for login in HOSTILE:
            page = Elements(another("A name", known=login, came=login))
            self.assertEqual((page.found, page.addresses), (plain.found, plain.addresses), login)
            self.assertIn(login, page.words)

    def test_addresses(self) -> None:
        """Whatever redirect URI may be registered, it is said to the letter and is no link."""
        plain = Elements(consent("A name"))
        for uri in REDIRECTS:
            page = Elements(consent("A name", uri))
            self.assertEqual(page.addresses, plain.addresses, uri)
            self.assertIn(uri, page.words)
            self.assertEqual({tag for tag, _ in page.found}, {tag for tag, _ in plain.found})

    @given(st.text(), st.sampled_from(REDIRECTS), st.sampled_from(Source))
    def test_any_metadata(self, name: str, uri: str, source: Source) -> None:
        """Whatever a client says of itself, no element, attribute or address comes in by it."""
        client_id = "https://client.example/document" if source is Source.DOCUMENT else name
        for cleaned in (name, clean_name(name)):
            asker = Client(client_id, (), ClientMetadata((uri,), cleaned), 0.0, source)
            quiet = evolve(asker, metadata=ClientMetadata((uri,), said_as(cleaned, uri)))
            pair = [
                Elements(now(html(pages.consent(each, uri, "forge.example", TokenText("s")))))
                for each in (asker, quiet)
            ]
            self.assertEqual(pair[0].found, pair[1].found)
            self.assertEqual(pair[0].addresses, pair[1].addresses)

    def test_no_name(self) -> None:
        """A client without a name is said to have none."""
        for page_of in (consent, another):
            self.assertIn("without a name", page_of(""))

    def test_form(self) -> None:
        """What goes into the form comes back out of it, and nothing else is asked."""
        page = read_page("", 200, consent("n", signin='"><x &amp;'))
        self.assertEqual(page.form.fields, {"signin": '"><x &amp;'})
        self.assertEqual(page.form.buttons, (("decision", "allow"), ("decision", "deny")))
        page = read_page("", 200, another("n"))
        self.assertEqual(page.form.fields, {"signin": "s"})
        self.assertEqual(page.form.buttons, (("decision", "continue"), ("decision", "deny")))

    def test_onward(self) -> None:
        """The pages that lead on lead to the very address, by themselves or by a link, and
        name the host."""
        for uri in REDIRECTS:
            for state in (None, "s", "'\"><script>;url=https://evil.example", "ä\n\0 &amp;"):
                request = AuthorizationRequest("c", uri, state, "x" * 43, "", "")
                for url in (
                    error_url(uri, state, ACCESS_DENIED, PUBLIC_URL),
                    success_url(request, mint(Kind.CODE), PUBLIC_URL),
                ):
                    text = now(html(pages.onward(url)))
                    self.assertEqual(read_page("", 200, text).refresh, url)
                    explained = now(html(pages.explained(ACCESS_DENIED, url, unseen=True)))
                    self.assertIsNone(read_page("", 200, explained).refresh)
                    for page in (Elements(text), Elements(explained)):
                        self.assertIn(url, page.addresses)
                        self.assertIn(redirects.host(uri), page.words)
                        tags = [tag for tag, _ in page.found]
                        self.assertEqual(set(tags) & {"script", "form"}, set())

    def test_refusal(self) -> None:
        """What a refusal says stands there escaped."""
        for page in (
            pages.refusal(ACCESS_DENIED.saying("<b>bold</b>")),
            pages.explained(ACCESS_DENIED.saying("<b>bold</b>"), CLIENT_URL),
        ):
            text = now(html(page))
            self.assertIn("<b>bold</b>", Elements(text).words)
            self.assertNotIn("b", [tag for tag, _ in Elements(text).found])

    def test_nothing_from_elsewhere(self) -> None:
        """No page has a script, a style of its own or an address but ours and the next one."""
        onward = now(html(pages.onward(CLIENT_URL)))
        explained = now(html(pages.explained(SIGN_IN_FORGED, CLIENT_URL, unseen=True)))
        refusal = now(html(pages.refusal(SIGN_IN_FORGED)))
        front = now(html(pages.front(PUBLIC_URL)))
        for text in (consent("n"), another("n"), onward, explained, refusal, front):
            page = Elements(text)
            tags = {tag for tag, _ in page.found}
            self.assertEqual(tags & {"script", "style", "img", "iframe", "object"}, set())
            attributes = {name for _, names in page.found for name in names}
            self.assertEqual({n for n in attributes if n == "style" or n.startswith("on")}, set())
            known = {pages.STYLE_PATH, "/oauth/consent", CLIENT_URL}
            self.assertLessEqual(set(page.addresses), known)


def said_as(name: str, uri: str) -> str:
    """A harmless name for which the page has the same warnings."""
    posed = marks(name, uri).posed
    return "A name" if posed is None else posed.name


class PagesApartTests(SynchronousTestCase):
    def test_nothing_stays(self) -> None:
        """A page shows nothing of those that were shown before it."""
        for page_of in (consent, another):
            first = page_of("A name")
            page_of("Somebody else", "http://localhost/elsewhere")
            self.assertEqual(page_of("A name"), first)


class MarksTests(SynchronousTestCase):
    """What a page says of where a client goes back to."""

    WORDS: Mapping[str, str] = {
        "known": "This address belongs to",
        "forwarding": "It sends you on to a program on your own computer",
        "beside": "is not known to use it",
        "strange": "does not know who this address belongs to",
        "loopback": "This address is on your own computer",
        "private": "opens a program on your own computer",
        "posed": "Somebody may be trying to deceive you",
        "document": "describes itself at",
    }

    def assert_marked(self, text: str, *marked: str) -> None:
        """These marks stand there, and no others."""
        for mark, words in self.WORDS.items():
            self.assertEqual(words in Elements(text).words, mark in marked, (mark, text))

    def test_table(self) -> None:
        """Known addresses are marked, strangers said to be, pretenders warned of; so is what is
        beside a known address or sends on from it; a client on this computer is warned of and no
        more, whatever its name."""
        for name, uri, marked in (
            ("Claude", KNOWN_URL, ["known"]),
            ("Some tool", KNOWN_URL, ["known"]),
            ("Some tool", CLIENT_URL, ["strange"]),
            ("Claude", CLIENT_URL, ["strange", "posed"]),
            ("Cursor", KNOWN_URL, ["known", "posed"]),
            ("Claude", f"{KNOWN_URL}?to=x", ["beside"]),
            ("Cursor", "https://claude.ai/else", ["beside", "posed"]),
            ("Visual Studio Code", FORWARDER_URL, ["forwarding"]),
            ("Claude", FORWARDER_URL, ["forwarding", "posed"]),
            ("Visual Studio Code", f"{FORWARDER_URL}?url=vscode%3Ax", ["beside"]),
            ("Claude Code", "http://127.0.0.1:1/cb", ["loopback"]),
            ("Cursor", "cursor://anysphere.cursor-mcp/oauth/callback", ["private"]),
        ):
            self.assert_marked(consent(name, uri), *marked)
            self.assert_marked(another(name, uri), *marked)

    def test_words(self) -> None:
        """The mark names product and maker; the warning names who is not met."""
        words = Elements(consent("Claude", KNOWN_URL)).words
        self.assertIn("This address belongs to Claude, by Anthropic.", words)
        words = Elements(consent("Claude", "https://claude.com/else")).words
        self.assertIn("on the host of Claude, by Anthropic, but Claude is not known to use", words)
        words = Elements(consent("Code", FORWARDER_URL)).words
        self.assertIn("This address is that of Visual Studio Code, by Microsoft.", words)
        words = Elements(consent("CIaude", CLIENT_URL)).words
        self.assertIn("The application calls itself after Claude, but you would not", words)
        self.assertIn("an address that Claude is known to use", words)
        self.assertIn("itself after OpenAI,", Elements(consent("0penAI", CLIENT_URL)).words)

    def test_document(self) -> None:
        """Of a client with a document the page names the document's host, and of no other."""
        metadata = ClientMetadata((KNOWN_URL,), "Claude")
        for source, marked in (
            (Source.DOCUMENT, ["known", "document"]),
            (Source.REGISTERED, ["known"]),
            (Source.CONFIGURED, ["known"]),
        ):
            asker = Client("https://docs.example/client", (), metadata, 0.0, source)
            page = pages.consent(asker, KNOWN_URL, "forge.example", TokenText("s"))
            text = now(html(page))
            self.assert_marked(text, *marked)
            self.assertEqual("docs.example" in text, source is Source.DOCUMENT)


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
        seen.append((400, self.app.open(response_type="token")))
        login = walk(browser, self.app.open(browser), "alice")
        self.assertIn("code=", login.url)
        del browser.cookies["forge.example"]
        seen.append((200, walk(browser, self.app.open(browser, prompt="login"), "bob")))
        denying = self.app.open(browser, prompt="login")
        visitor.cookies = dict(browser.cookies["broker.example"])
        visit = visitor.post_form("/oauth/consent", denying.form.fields | {"decision": "deny"})
        seen.append((200, Page("", visit.status, visit.body.decode(), visit.headers)))
        question = seen[-2][1].form.fields
        visit = visitor.post_form("/oauth/consent", question | {"decision": "continue"})
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
        app = self.broker.register(redirect_uris=[KNOWN_URL])
        visit = self.broker.visitor().get(
            app.authorize_url(response_type="token").removeprefix(PUBLIC_URL)
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
