"""The checklist: the way of a browser (items 1 to 9)."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from fjmcp import limits
from fjmcp.demo.browser import Browser
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import CLIENT_URL, FORGE_URL, walk
from tests.web.test_documents import DOCUMENT
from tests.web.whole import (
    CALLBACK,
    EXCHANGE,
    KNOWN_URL,
    LOCAL_URL,
    PRIVATE_URL,
    BrokerCase,
    ConsentCase,
    jar,
    said,
)


class AuthorizeTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.known = self.broker.register(redirect_uris=[KNOWN_URL])

    def assert_told(self, error: str, **changes: str | None) -> None:
        """A client of a known host is told of an error, with its state and our name."""
        answer = said(self.known.open(self.browser_of(self.known), **changes))
        self.assertEqual(
            (answer.get("error"), answer.get("state"), answer.get("iss")),
            (error, "the-state", PUBLIC_URL),
            changes,
        )

    def test_item_01_redirect_uri(self) -> None:
        """A redirect URI is compared letter by letter, loopback but for its port; what may not be
        registered is not, and while in doubt nobody is redirected."""
        register = self.broker.visitor()
        for uri in (
            "https://client.example/cb#fragment",
            "https://user@client.example/cb",
            "https://client.example/../cb",
            "https://client.example/%2e%2e/cb",
            "https://*.example/cb",
            "http://client.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp://callback",
            "cursor://other/oauth/callback",
        ):
            visit = register.post_json("/oauth/register", {"redirect_uris": [uri]})
            self.assert_error(visit, "invalid_redirect_uri")
        native = self.broker.register(redirect_uris=["http://127.0.0.1:1/cb"])
        for app, uri, good in (
            (self.app, CLIENT_URL, True),
            (self.app, f"{CLIENT_URL}/", False),
            (self.app, f"{CLIENT_URL}?x=1", False),
            (self.app, "https://client.example:443/callback", False),
            (self.app, "https://evil.example/callback", False),
            (native, "http://127.0.0.1:65535/cb", True),
            (native, "http://localhost:1/cb", False),
            (native, "http://127.0.0.1:1/other", False),
        ):
            page = app.open(redirect_uri=uri)
            if good:
                self.assertEqual(page.status, 200, uri)
            else:
                self.assert_page(page)
        for changes in ({"client_id": "fj-nobody"}, {"client_id": None}):
            self.assert_page(self.app.open(**changes))

    def test_item_02_parameters(self) -> None:
        """No parameter counts twice, `code` in the query is the only answer, request objects are
        refused, and what is unknown is ignored."""
        visitor = self.broker.visitor()
        for name in ("client_id", "redirect_uri", "state", "scope", "code_challenge", "prompt"):
            url = f"{self.app.authorize_url(scope='forge:read', prompt='consent')}&{name}=x"
            self.assert_page(visitor.get(url.removeprefix(PUBLIC_URL), accept="text/html"))
        self.assert_told("unsupported_response_type", response_type="token")
        self.assert_told("unsupported_response_type", response_type="code token")
        self.assert_told("invalid_request", response_type=None)
        self.assert_told("invalid_request", response_mode="fragment")
        self.assert_told("invalid_request", response_mode="form_post")
        self.assert_told("request_not_supported", request="e30.e30.")
        self.assert_told("request_uri_not_supported", request_uri="https://evil.example/r")
        page = self.app.open(display="popup", nonce="n", claims="{}", whatever="x")
        self.assertEqual(page.status, 200)

    def test_item_03_pkce(self) -> None:
        """Everybody sends an S256 challenge of the right length, and nobody gets a token without
        its verifier, whatever kind of client it is."""
        for changes in (
            {"code_challenge": None, "code_challenge_method": None},
            {"code_challenge_method": "plain"},
            {"code_challenge_method": None},
            {"code_challenge": "x" * 42},
            {"code_challenge": "x" * 129},
            {"code_challenge": "x" * 42 + "+"},
        ):
            self.assert_told("invalid_request", **changes)
        for method in ("none", "client_secret_post", "client_secret_basic"):
            app = self.broker.register(token_endpoint_auth_method=method)
            for verifier in (None, "", "w" * 43, "short", "v" * 129):
                self.assert_error(app.redeem(app.code(), code_verifier=verifier), "invalid_grant")

    def test_item_04_resource(self) -> None:
        """The resource is ours under any spelling that people type, and the token is for the
        canonical one; any other is `invalid_target`, at each step."""
        for alias in (None, f"{PUBLIC_URL}/mcp/", PUBLIC_URL, f"{PUBLIC_URL}/"):
            self.assertEqual(self.app.open(resource=alias).status, 200)
        self.assertEqual(
            {request for (request,) in self.rows("SELECT request ->> 'resource' FROM signins")},
            {f"{PUBLIC_URL}/mcp"},
        )
        foreign = "https://other.example/mcp"
        self.assert_told("invalid_target", resource=foreign)
        self.assert_error(self.app.redeem(self.app.code(), resource=foreign), "invalid_target")
        tokens = self.app.tokens()
        refused = self.app.refresh(tokens["refresh_token"], resource=foreign)
        self.assert_error(refused, "invalid_target")
        self.assertEqual(self.app.refresh(tokens["refresh_token"]).status, 200)

    def test_item_05_codes(self) -> None:
        """A code has 256 random bits, lives a minute, is bound to client, redirect URI and
        challenge, is kept as a digest, and used twice ends all that it gave."""
        codes = [self.app.sign_in()["code"] for _ in range(3)]
        self.assertEqual(len(set(codes)), 3)
        for code in codes:
            self.assertRegex(code, r"\Afjc_[A-Za-z0-9_-]{43}\Z")
        kept = {bytes(row) for (row,) in self.rows("SELECT code FROM codes")}
        self.assertEqual(kept, {digest(TokenText(code)).value for code in codes})
        self.assert_error(self.broker.register().redeem(codes[0]), "invalid_grant")
        elsewhere = self.app.redeem(codes[0], redirect_uri=f"{CLIENT_URL}2")
        self.assert_error(elsewhere, "invalid_grant")
        tokens = self.app.redeem(codes[0]).json()
        self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
        self.assert_error(self.app.redeem(codes[0]), "invalid_grant")
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)
        self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_grant")
        self.broker.advance(limits.CODE)
        self.assert_error(self.app.redeem(codes[1]), "invalid_grant")

    def test_item_06_mix_up(self) -> None:
        """We name ourselves in every answer, by the same letters as in every document; at Forgejo
        we come with a state and a challenge of our own, and an answer of another issuer is none."""
        self.assertEqual(self.app.sign_in()["iss"], PUBLIC_URL)
        self.assert_told("invalid_target", resource="https://other.example")
        visitor = self.broker.visitor()
        server = visitor.get("/.well-known/oauth-authorization-server").json()
        resource = visitor.get("/.well-known/oauth-protected-resource/mcp").json()
        self.assertEqual(server["issuer"], PUBLIC_URL)
        self.assertEqual(resource["authorization_servers"], [PUBLIC_URL])
        self.assertIs(server["authorization_response_iss_parameter_supported"], True)
        browser = self.broker.browser()
        app = self.broker.register()
        first = app.open(browser)
        there = Browser(browser.agent, (FORGE_URL,), browser.cookies)
        asked = said(now(there.submit(first, "allow")))
        mine = said(app.authorize_url())
        self.assertEqual(asked["code_challenge_method"], "S256")
        for name in ("state", "code_challenge"):
            self.assertNotEqual(asked[name], mine[name])
        self.assertEqual(asked["redirect_uri"], CALLBACK)
        state = quote(said(self.to_callback(browser, app))["state"])
        issuer = quote("https://evil.example", safe="")
        page = self.open(browser, f"{CALLBACK}?code=x&state={state}&iss={issuer}")
        self.assertEqual(said(page)["error"], "server_error")
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 1)

    def test_item_07_browser_binding(self) -> None:
        """Forgejo's redirect counts only in the browser that left, once, within ten minutes: an
        attacker's sign-in is not finished by a victim, nor a victim's by an attacker."""
        attacker, victim = self.broker.browser(), self.broker.browser()
        begun = {who: self.to_callback(who) for who in (attacker, victim)}
        for who, url in ((victim, begun[attacker]), (attacker, begun[victim])):
            self.assert_page(self.open(who, url))
        self.assert_page(self.open(self.broker.browser(), begun[victim]))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 0)
        names = [name for name in jar(victim) if "state" in name]
        self.assertTrue(all(name.startswith("__Host-") for name in names), names)
        self.assertIn("code", said(self.open(victim, begun[victim])))
        self.assert_page(self.open(victim, begun[victim]))
        self.broker.advance(limits.SIGN_IN)
        self.assert_page(self.open(attacker, begun[attacker]))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 1)

    def test_item_09_headers(self) -> None:
        """No page can be framed, stored, sniffed, scripted, or tells where it was; whoever is sent
        on is sent by 303, and no code or token stands in a page."""
        pages = [
            self.app.authorize_url(),
            self.app.authorize_url(redirect_uri="https://evil.example/"),
            f"{CALLBACK}?code=x&state=y",
            f"{PUBLIC_URL}/",
        ]
        visitor = self.broker.visitor()
        for url in pages:
            visit = visitor.get(url.removeprefix(PUBLIC_URL), accept="text/html")
            policy = visit.header("content-security-policy") or ""
            for words in (
                "default-src 'none'",
                "frame-ancestors 'none'",
                "form-action 'self'",
                "base-uri 'none'",
            ):
                self.assertIn(words, policy)
            self.assertNotIn("unsafe", policy)
            self.assertNotIn("script-src", policy)
            self.assertEqual(visit.header("x-frame-options"), "DENY")
            self.assertEqual(visit.header("referrer-policy"), "no-referrer")
            self.assertEqual(visit.header("cache-control"), "no-store")
            self.assertEqual(visit.header("x-content-type-options"), "nosniff")
            text = visit.body.decode()
            self.assertIsNone(re.search(r"(?i)<script|\son\w+=|style=|javascript:", text))
            self.assertIsNone(re.search(r"(?:src|href|action)=\"(?:https?:)?//", text), text)
        refused = self.known.authorize_url(response_type="token").removeprefix(PUBLIC_URL)
        visit = visitor.get(refused)
        self.assertEqual((visit.status, visit.body), (303, b""))
        browser = self.broker.browser()
        back = self.to_callback(browser)
        visitor.cookies = dict(jar(browser))
        visit = visitor.get(back.removeprefix(PUBLIC_URL))
        self.assertEqual((visit.status, visit.body), (303, b""))


class ConsentTests(ConsentCase):
    def test_item_08_consent(self) -> None:
        """A person is asked before Forgejo is, once for each client, redirect URI, scope and
        account, in each browser; whatever of it changes, they are asked again."""
        stranger = self.broker.browser()
        began = self.broker.forge.calls(EXCHANGE)
        self.assert_asked(browser=stranger)
        visit = self.visit(browser=stranger)
        self.assertFalse([c for c in visit.headers.getRawHeaders("set-cookie", []) if "state" in c])
        self.assertEqual(self.broker.forge.calls(EXCHANGE), began)
        self.assert_remembered()
        self.assert_asked(self.broker.register())
        self.assert_asked(scope="forge:read")
        self.assert_asked(prompt="consent")
        several = self.broker.register(redirect_uris=[CLIENT_URL, f"{CLIENT_URL}2"])
        several.sign_in(browser=self.browser)
        self.assert_remembered(several)
        self.assert_asked(several, redirect_uri=f"{CLIENT_URL}2")
        # What was allowed counts for who allowed it, not for whoever comes back from Forgejo.
        self.sign_out_at_forgejo()
        page = walk(self.browser, now(self.browser.open(self.app.authorize_url())), "bob")
        self.assertIn('value="continue"', page.text)
        self.assertIn(">bob</strong>", page.text)
        document = {**DOCUMENT, "redirect_uris": [CLIENT_URL]}
        self.broker.publishers.publish(document)
        named = self.broker.known_by(document)
        browser = self.broker.browser()
        named.sign_in(browser=browser)
        self.assert_remembered(named, browser)
        self.broker.publishers.publish({**document, "redirect_uris": [CLIENT_URL, KNOWN_URL]})
        self.broker.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assert_asked(named, browser)

    def test_item_08_client_text(self) -> None:
        """What a client says of itself is text on our page, none of its pictures is loaded, and
        the host where the code goes stands there, with what is known of it."""
        name = '<script>alert("x")</script><b>Claude</b>'
        for uri, words in (
            (CLIENT_URL, ("client.example",)),
            (KNOWN_URL, ("claude.ai", "Anthropic")),
            (LOCAL_URL, ("computer",)),
            (PRIVATE_URL, ("program",)),
        ):
            app = self.broker.register(
                redirect_uris=[uri],
                client_name=name,
                logo_uri="https://evil.example/logo.png",
                client_uri="https://evil.example/about",
            )
            page = app.open(self.broker.browser())
            self.assertEqual(page.status, 200)
            self.assertNotIn("<script", page.text)
            self.assertNotIn("<b>", page.text)
            self.assertIn("&lt;b&gt;Claude", page.text)
            self.assertNotIn("evil.example/logo", page.text)
            for word in words:
                self.assertIn(word, page.text)


class PostedTests(BrokerCase):
    def test_item_09_posts(self) -> None:
        """What a person presses is a POST of our own page, never of another origin."""
        browser = self.broker.browser()
        page = self.app.open(browser)
        form = {**page.form.fields, "decision": "allow"}
        cookies = "; ".join(f"{name}={value}" for name, value in jar(browser).items())
        for origin in ("https://evil.example", f"{PUBLIC_URL}.evil.example", FORGE_URL):
            visit = self.broker.visitor().post_form(
                "/oauth/consent", form, cookie=cookies, origin=origin
            )
            self.assert_page(visit)
        query = urlencode(form)
        self.assertEqual(self.broker.visitor().get(f"/oauth/consent?{query}").status, 405)
        self.assertIn("code", said(walk(browser, page)))
