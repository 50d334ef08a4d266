"""The way of a browser, from authorize to the code."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred

from fjmcp import limits
from fjmcp.demo.browser import Browser, Page
from fjmcp.oauth.documents import METADATA_PATHS
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import CLIENT_URL, FORGE_URL, walk
from tests.web.whole import CALLBACK, EXCHANGE, KNOWN_URL, BrokerCase, jar, said

TOKEN_PATH = "/login/oauth/access_token"
DENIED = {"error": "access_denied", "state": "the-state", "iss": PUBLIC_URL}


def without_words(answer: dict[str, str]) -> dict[str, str]:
    """An error without its description, which is for people."""
    return {name: value for name, value in answer.items() if name != "error_description"}


class WholeWayTests(BrokerCase):
    def test_every_kind_of_client(self) -> None:
        """From nothing to tokens and back, for clients without secret, with one in the form and
        with one in the header."""
        for method in ("none", "client_secret_post", "client_secret_basic"):
            app = self.broker.register(token_endpoint_auth_method=method)
            self.assertEqual("client_secret" in app.registered, method != "none")
            answer = app.sign_in()
            self.assertEqual(set(answer), {"code", "state", "iss"})
            self.assertEqual((answer["state"], answer["iss"]), ("the-state", PUBLIC_URL))
            tokens = app.redeem(answer["code"]).json()
            self.assertEqual(app.knocks(tokens["access_token"]), 200)
            later = app.refresh(tokens["refresh_token"]).json()
            self.assertEqual(app.knocks(later["access_token"]), 200)
            self.assertEqual(app.revoke(later["refresh_token"]).status, 200)
            self.assertEqual(app.knocks(later["access_token"]), 401)

    def test_documents(self) -> None:
        """Both documents are found at every path, and each address in them answers."""
        visitor = self.broker.visitor()
        endpoints = Endpoints(PUBLIC_URL)
        for path, document in METADATA_PATHS.items():
            for spelling in (path, f"{path}/"):
                visit = visitor.get(spelling)
                self.assertEqual((visit.status, visit.json()), (200, document(endpoints)), spelling)
        server = visitor.get("/.well-known/oauth-authorization-server").json()
        addresses = [value for name, value in server.items() if name.endswith("_endpoint")]
        self.assertEqual(len(addresses), 4)
        for address in addresses:
            visit = visitor.get(address.removeprefix(PUBLIC_URL))
            self.assertIn(visit.status, (400, 401, 405), address)

    def test_challenge_leads_here(self) -> None:
        """The 401 without a token leads to the resource's document, and that to ours."""
        visitor = self.broker.visitor()
        challenge = visitor.post_json("/mcp", {}).header("www-authenticate") or ""
        url = challenge.partition('resource_metadata="')[2].partition('"')[0]
        document = visitor.get(url.removeprefix(PUBLIC_URL)).json()
        self.assertEqual(document["resource"], f"{PUBLIC_URL}/mcp")
        self.assertEqual(document["authorization_servers"], [PUBLIC_URL])

    def test_short_paths(self) -> None:
        """Clients of 2025-03-26 find authorize, token, register and revoke at the root."""
        short = self.app.authorize_url().replace("/oauth/authorize", "/authorize")
        page = self.open(self.broker.browser(), short)
        self.assertEqual(page.status, 200)
        self.assertIn(("decision", "allow"), page.form.buttons)
        tokens = self.app.ask(
            "/token",
            {"grant_type": "refresh_token", "refresh_token": self.app.tokens()["refresh_token"]},
        )
        self.assertEqual(tokens.status, 200)
        token = tokens.json()["access_token"]
        self.assertEqual(self.app.ask("/revoke", {"token": token}).status, 200)
        self.assertEqual(self.app.knocks(token), 401)
        registered = self.broker.visitor().post_json("/register", {"redirect_uris": [CLIENT_URL]})
        self.assertEqual(registered.status, 201)

    def test_people_apart(self) -> None:
        """What each person consents to is theirs: two people at one client are two accounts."""
        for login in ("alice", "bob"):
            tokens = self.app.redeem(self.app.sign_in(login)["code"]).json()
            self.app.call(tokens["access_token"])
        found = self.rows("SELECT login FROM accounts ORDER BY login")
        self.assertEqual(found, [("alice",), ("bob",)])
        environments = [child.env["FORGEJO_ACCESS_TOKEN"] for child in self.broker.reactor.children]
        self.assertEqual(len(set(environments)), 2)


class RequestTests(BrokerCase):
    def test_shown_never_redirected(self) -> None:
        """While the redirect URI is in doubt a refusal is a page, whatever nearly matches."""
        several = self.broker.register(redirect_uris=[CLIENT_URL, f"{CLIENT_URL}2"])
        nearly = [
            f"{CLIENT_URL}/",
            f"{CLIENT_URL}?",
            f"{CLIENT_URL}?a=b",
            f"{CLIENT_URL}#f",
            f"{CLIENT_URL}/../callback",
            f"{CLIENT_URL}/%2e%2e/callback",
            "https://client.example/Callback",
            "https://client.example/%63allback",
            "https://client.example//callback",
            "https://client.example:443/callback",
            "https://client.example:8443/callback",
            "https://CLIENT.example/callback",
            "HTTPS://client.example/callback",
            "http://client.example/callback",
            "https://client.example.evil.example/callback",
            "https://evil.client.example/callback",
            "https://client.example@evil.example/callback",
            "https://evil.example/https://client.example/callback",
            "https://client.example\\@evil.example/callback",
            " https://client.example/callback",
            "https://client.example/callback\n",
            "https://client.exam\u2024ple/callback",
            "//client.example/callback",
            "/callback",
            "javascript:alert(1)",
            "x",
        ]
        asked = [self.app.authorize_url(redirect_uri=uri) for uri in nearly]
        asked += [
            several.authorize_url(redirect_uri=None),
            self.app.authorize_url(client_id=None),
            self.app.authorize_url(client_id="fj-nobody"),
            self.app.authorize_url(client_id="ä\0"),
            self.app.authorize_url(state="s" * (limits.CLIENT_STATE + 1)),
            f"{PUBLIC_URL}/oauth/authorize",
            f"{PUBLIC_URL}/oauth/authorize?client_id=%ff",
        ]
        for name in ("client_id", "redirect_uri", "state", "code_challenge", "scope"):
            twice = urlencode({name: "https://evil.example/"})
            asked.append(f"{self.app.authorize_url(scope='forge:read')}&{twice}")
        visitor = self.broker.visitor()
        for url in asked:
            visit = visitor.get(url.removeprefix(PUBLIC_URL), accept="text/html")
            self.assert_page(visit)
            self.assertIsNone(visit.header("set-cookie"))
        self.assertEqual(self.count("signins"), 0)

    def test_loopback_any_port(self) -> None:
        """A loopback redirect URI may come with any port, and differ in nothing else."""
        for registered, good, bad in (
            (
                "http://127.0.0.1:1/cb",
                ("http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb", "http://127.0.0.1/cb"),
                ("http://127.0.0.1:1/cb/", "http://127.0.0.2:1/cb", "https://127.0.0.1:1/cb"),
            ),
            (
                "http://localhost/cb?x=1",
                ("http://localhost:33418/cb?x=1",),
                ("http://localhost:33418/cb", "http://127.0.0.1/cb?x=1"),
            ),
            ("http://[::1]/", ("http://[::1]:8080/",), ("http://[::2]/", "http://[::1]:0/")),
        ):
            app = self.broker.register(redirect_uris=[registered])
            for uri in good:
                self.assertEqual(app.open(redirect_uri=uri).status, 200, uri)
            for uri in bad:
                self.assert_page(app.open(redirect_uri=uri))

    def test_loopback_to_the_end(self) -> None:
        """The code goes to the port of the request, and is redeemed with it."""
        app = self.broker.register(redirect_uris=["http://127.0.0.1/cb"])
        here = "http://127.0.0.1:49152/cb"
        browser = self.broker.browser()
        page = walk(browser, app.open(browser, redirect_uri=here))
        self.assertEqual(page.url.partition("?")[0], here)
        code = said(page)["code"]
        wrong = app.redeem(code, redirect_uri="http://127.0.0.1/cb")
        self.assert_error(wrong, "invalid_grant")
        self.assertEqual(app.redeem(code, redirect_uri=here).status, 200)

    def test_refused_to_the_client(self) -> None:
        """Once the redirect URI is sure, and somebody's whom we know, a refusal goes there, with
        state and iss."""
        app = self.broker.register(redirect_uris=[KNOWN_URL])
        for changes, error in (
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge_method": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"code_challenge_method": "s256"}, "invalid_request"),
            ({"code_challenge": "short"}, "invalid_request"),
            ({"code_challenge": "x" * 129}, "invalid_request"),
            ({"code_challenge": "ü" * 43}, "invalid_request"),
            ({"response_type": None}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": "code id_token"}, "unsupported_response_type"),
            ({"response_mode": "fragment"}, "invalid_request"),
            ({"request": "e30.e30."}, "request_not_supported"),
            ({"request_uri": "https://evil.example/"}, "request_uri_not_supported"),
            ({"resource": "https://other.example/mcp"}, "invalid_target"),
            ({"resource": f"{PUBLIC_URL}/mcp#f"}, "invalid_target"),
            ({"resource": f"{PUBLIC_URL}/other"}, "invalid_target"),
            ({"resource": "mcp"}, "invalid_target"),
            ({"prompt": "none"}, "interaction_required"),
            ({"prompt": "none consent"}, "invalid_request"),
        ):
            page = app.open(self.browser_of(app), **changes)
            self.assertEqual((page.status, page.url.partition("?")[0]), (303, KNOWN_URL), changes)
            self.assertEqual(
                without_words(said(page)),
                {"error": error, "state": "the-state", "iss": PUBLIC_URL},
                changes,
            )
        self.assertEqual(self.count("signins"), 0)

    def test_resource_aliases(self) -> None:
        """What people paste for our URL means our resource; so does leaving it out."""
        for alias in (
            None,
            f"{PUBLIC_URL}/mcp",
            f"{PUBLIC_URL}/mcp/",
            PUBLIC_URL,
            f"{PUBLIC_URL}/",
            "https://BROKER.example/mcp",
            "HTTPS://broker.example:443/mcp",
        ):
            self.assertEqual(self.app.open(resource=alias).status, 200, alias)
        again = f"{self.app.authorize_url()}&{urlencode({'resource': PUBLIC_URL})}"
        self.assertEqual(self.open(self.broker.browser(), again).status, 200)
        known = self.broker.register(redirect_uris=[KNOWN_URL])
        mixed = f"{known.authorize_url()}&{urlencode({'resource': 'https://other.example'})}"
        self.assertEqual(said(self.open(self.browser_of(known), mixed))["error"], "invalid_target")

    def test_state_as_it_came(self) -> None:
        """The client has its state back to the letter, and none where it sent none."""
        for state in ("a b+c&d=e", "ä漢\U0001f4a9", '"><script>', "%41%", "s" * 2048):
            browser = self.broker.browser()
            denied = now(browser.submit(self.app.open(browser, state=state), "deny"))
            self.assertEqual(said(denied)["state"], state)
        self.assertEqual(set(self.app.sign_in(state=None)), {"code", "iss"})

    def test_query_is_kept(self) -> None:
        """The redirect URI's own query stays, before ours."""
        app = self.broker.register(redirect_uris=[f"{CLIENT_URL}?tenant=7"])
        answer = app.sign_in()
        self.assertEqual(set(answer), {"tenant", "code", "state", "iss"})

    def test_unknown_parameters(self) -> None:
        """Parameters of other specifications change nothing."""
        page = self.app.open(prompt="consent", nonce="n", scope="openid profile", login_hint="x")
        self.assertEqual(page.status, 200)

    def test_methods(self) -> None:
        """Authorize and callback are for GET, consent for POST; all else is a 405."""
        visitor = self.broker.visitor()
        for method, path in (
            ("POST", "/oauth/authorize"),
            ("POST", "/oauth/callback"),
            ("GET", "/oauth/consent"),
            ("DELETE", "/oauth/consent"),
        ):
            self.assert_page(visitor.send(method, path), 405)

    def test_store_down(self) -> None:
        """Without a store the way stops at a page that says when to come back."""
        self.broker.store.fail_all()
        self.assert_down(self.app.open())
        self.broker.store.fail_all(False)
        self.assertEqual(self.app.open().status, 200)


class ConsentTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.browser = self.broker.browser()
        self.page = self.app.open(self.browser)

    def form(self, **changes: str | None) -> dict[str, str]:
        """What the consent form sends, changed."""
        asked: dict[str, str | None] = {**self.page.form.fields, "decision": "allow"}
        return {n: v for n, v in (asked | changes).items() if v is not None}

    def post(self, form: dict[str, str], browser: Browser | None = None, **headers: str) -> Page:
        """Send a form with the cookies of a browser, and follow nothing."""
        cookies = "; ".join(f"{n}={v}" for n, v in jar(browser or self.browser).items())
        sent = {"origin": PUBLIC_URL} | headers | ({"cookie": cookies} if cookies else {})
        visit = self.broker.visitor().post_form("/oauth/consent", form, **sent)
        return Page("", visit.status, visit.body.decode(), visit.headers)

    def test_what_it_says(self) -> None:
        """The page names the client, where it goes back to and at which very address, the forge,
        and that it is not shown again."""
        for words in ("The client", ">client.example<", CLIENT_URL, "forge.example", "30 days"):
            self.assertIn(words, self.page.text)

    def test_warns_of_this_computer(self) -> None:
        """A client on the person's own computer is warned of, and no other."""
        for uri, warned in (
            (CLIENT_URL, False),
            ("http://127.0.0.1:1/cb", True),
            ("http://localhost/cb", True),
            ("http://[::1]/cb", True),
            ("https://localhost/cb", True),
            ("cursor://anysphere.cursor-mcp/oauth/callback", True),
        ):
            page = self.broker.register(redirect_uris=[uri]).open()
            self.assertEqual("on your own computer" in page.text, warned, uri)

    def test_cookies_in_order(self) -> None:
        """The page marks the browser; the state's cookie comes with the consent, not before."""
        self.assertEqual(list(jar(self.browser)), ["__Host-fjmcp_browser"])
        self.assertEqual(self.rows("SELECT upstream_state FROM signins"), [(None,)])
        visit = self.post(self.form())
        (cookie,) = visit.headers.getRawHeaders("set-cookie", [])
        self.assertTrue(cookie.startswith("__Host-fjmcp_state_"), cookie)

    def test_allowed(self) -> None:
        """Allowing sends the browser to Forgejo, by a page and not by a redirect, with a
        state and a challenge of our own."""
        page = self.post(self.form())
        self.assertEqual(page.status, 200)
        self.assertIsNone(page.headers.getRawHeaders("location"))
        self.assertIn('http-equiv="refresh"', page.text)
        there = now(self.browser.submit(self.page, "allow"))
        self.assertTrue(there.url.startswith(FORGE_URL), there.url)

    def test_own_pkce(self) -> None:
        """What Forgejo sees of state and PKCE is ours, never the client's."""
        browser = Browser(self.browser.agent, (FORGE_URL,), self.browser.cookies)
        query = said(now(browser.submit(self.page, "allow")))
        self.assertEqual(query["code_challenge_method"], "S256")
        mine = said(self.app.authorize_url())
        self.assertNotEqual(query["code_challenge"], mine["code_challenge"])
        self.assertNotEqual(query["state"], mine["state"])
        self.assertEqual(query["redirect_uri"], CALLBACK)

    def test_denied(self) -> None:
        """Refusing tells the client access_denied with state and iss; Forgejo hears nothing."""
        page = now(self.browser.submit(self.page, "deny"))
        self.assertEqual(page.url.partition("?")[0], CLIENT_URL)
        self.assertEqual(without_words(said(page)), DENIED)
        self.assertEqual(self.broker.forge.calls("GET /login/oauth/authorize"), 0)
        self.assertEqual(self.count("signins"), 0)
        self.assert_page(self.post(self.form()))

    def test_refused(self) -> None:
        """A consent from elsewhere, or that says nothing, is refused, and the true one still
        counts after it."""
        other = self.broker.browser()
        self.app.open(other)
        nobody = self.broker.browser()
        for form, browser, headers in (
            (self.form(), nobody, {}),
            (self.form(), other, {}),
            (self.form(decision="deny"), other, {}),
            (self.form(), self.browser, {"origin": "https://evil.example"}),
            (self.form(), self.browser, {"origin": "https://broker.example.evil.example"}),
            (self.form(), self.browser, {"origin": "http://broker.example"}),
            (self.form(), self.browser, {"origin": f"{PUBLIC_URL}:8443"}),
            (self.form(decision=None), self.browser, {}),
            (self.form(decision=""), self.browser, {}),
            (self.form(decision="ALLOW"), self.browser, {}),
            (self.form(signin=None), self.browser, {}),
            (self.form(signin="x"), self.browser, {}),
            (self.form(signin="\ufffd\0"), self.browser, {}),
            (self.form(), self.browser, {"content_type": "application/json"}),
            (self.form(), self.browser, {"content_type": "text/plain"}),
        ):
            page = self.post(form, browser, **headers)
            self.assert_page(page)
            self.assertIsNone(page.headers.getRawHeaders("set-cookie"))
        self.assertEqual(self.post(self.form()).status, 200)

    def test_twice_in_one_form(self) -> None:
        """A form that says both is refused."""
        both = [*self.form(decision="deny").items(), ("decision", "allow")]
        body = urlencode(both)
        visitor = self.broker.visitor()
        visitor.cookies = dict(jar(self.browser))
        sent = {"content-type": "application/x-www-form-urlencoded"}
        self.assert_page(visitor.send("POST", "/oauth/consent", body.encode(), sent))

    def test_too_large(self) -> None:
        """A form over the limit is refused before it is read."""
        form = self.form(padding="x" * limits.FORM_BODY)
        visitor = self.broker.visitor()
        self.assertEqual(visitor.post_form("/oauth/consent", form).status, 413)

    def test_opaque_origin(self) -> None:
        """`Origin: null`, which our own Referrer-Policy makes of some forms, leaves it to the
        cookie."""
        self.assert_page(self.post(self.form(), self.broker.browser(), origin="null"))
        self.assertEqual(self.post(self.form(), origin="null").status, 200)

    def test_expired(self) -> None:
        """A page that lay open too long is refused, whatever is pressed."""
        self.broker.advance(limits.SIGN_IN)
        self.assert_page(self.post(self.form()))
        self.assert_page(self.post(self.form(decision="deny")))

    def test_pressed_twice(self) -> None:
        """Of a consent pressed twice the last counts; the first one's state is worth nothing."""
        stops = (FORGE_URL,)
        agent, cookies = self.browser.agent, self.browser.cookies
        first, second = (
            said(now(Browser(agent, stops, cookies).submit(self.page, "allow"))) for _ in range(2)
        )
        self.assertNotEqual(first["state"], second["state"])
        stale = self.open(self.browser, f"{CALLBACK}?code=x&state={quote(first['state'])}")
        self.assert_page(stale)
        page = walk(self.browser, now(self.browser.submit(self.page, "allow")))
        self.assertIn("code", said(page))

    def test_pressed_after_the_answer(self) -> None:
        """A consent sent again when the sign-in has its answer is refused, refusing too."""
        self.assertIn("code", said(walk(self.browser, self.page)))
        self.assert_page(self.post(self.form()))
        self.assert_page(self.post(self.form(decision="deny")))

    def test_deny_after_allow(self) -> None:
        """Once allowed, the form cannot be answered with a refusal."""
        self.assertEqual(self.post(self.form()).status, 200)
        self.assert_page(self.post(self.form(decision="deny")))

    def test_two_tabs(self) -> None:
        """Two sign-ins in one browser do not disturb each other."""
        other = self.broker.register()
        urls = [self.to_callback(self.browser, app) for app in (self.app, other)]
        for url in reversed(urls):
            self.assertIn("code", said(self.open(self.browser, url)))
        self.assertEqual(
            sorted(self.rows("SELECT client_id FROM codes")),
            sorted([(self.app.client_id,), (other.client_id,)]),
        )

    def test_store_down(self) -> None:
        """A consent while the store is down is lost on nobody: the same form works after."""
        self.broker.store.fail_all()
        self.assert_down(self.post(self.form()))
        self.broker.store.fail_all(False)
        self.assertIn("code", said(walk(self.browser, self.page)))


class CallbackTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.browser = self.broker.browser()
        self.url = self.to_callback(self.browser)

    def assert_refused(self, browser: Browser, url: str) -> None:
        """A page, and Forgejo's code is left alone."""
        before = self.broker.forge.calls(EXCHANGE)
        self.assert_page(self.open(browser, url))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), before)
        self.assertEqual(self.count("codes"), 0)

    def assert_works(self) -> None:
        """The true browser's callback brings a code."""
        self.assertIn("code", said(self.open(self.browser, self.url)))

    def test_bound_to_the_browser(self) -> None:
        """A callback that another browser brings is refused, and works where it was begun."""
        other = self.broker.browser()
        theirs = self.to_callback(other)
        self.assert_refused(self.broker.browser(), self.url)
        self.assert_refused(other, self.url)
        self.assert_refused(self.browser, theirs)
        self.assert_works()

    def test_cookie_of_another_state(self) -> None:
        """A state is not vouched for by the cookie of another one put in its place."""
        other = self.broker.browser()
        theirs = said(self.to_callback(other))["state"]
        (name,) = [name for name in jar(self.browser) if "state" in name]
        thief = self.broker.browser()
        jar(thief)[name] = theirs
        self.assert_refused(thief, self.url)
        self.assert_works()

    def test_forged_state(self) -> None:
        """A state that we never gave out is refused, even with a cookie that says the same."""
        good = said(self.url)["state"]
        for state in ("x", good[:-1], good.swapcase(), "\0", "ä", "s" * 4000):
            self.assert_refused(self.browser, f"{CALLBACK}?code=x&state={quote(state)}")
        self.assert_refused(self.browser, f"{CALLBACK}?code=x")
        self.assert_refused(self.browser, f"{CALLBACK}?code=x&state=")
        self.assert_refused(self.browser, f"{self.url}&state={quote(good)}")
        self.assert_refused(self.browser, f"{self.url}&code=other")
        self.assert_works()

    def test_forged_state_with_cookie(self) -> None:
        """A made-up state with a made-up cookie leads nowhere."""
        name = f"__Host-fjmcp_state_{digest(TokenText('mine')).value.hex()[:12]}"
        jar(self.browser)[name] = "mine"
        self.assert_refused(self.browser, f"{CALLBACK}?code=x&state=mine")

    def test_twice(self) -> None:
        """A state works once; a reload says that the sign-in is over."""
        kept = dict(jar(self.browser))
        self.assert_works()
        self.assertEqual([name for name in jar(self.browser) if "state" in name], [])
        self.assert_page(self.open(self.browser, self.url))
        jar(self.browser).update(kept)
        self.assert_page(self.open(self.browser, self.url))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 1)
        self.assertEqual(self.count("codes"), 1)

    def test_expired(self) -> None:
        """Who takes too long at Forgejo begins anew."""
        self.broker.advance(limits.SIGN_IN)
        self.assert_refused(self.browser, self.url)

    def test_denied_at_forgejo(self) -> None:
        """A refusal at Forgejo's own page reaches the client as access_denied."""
        browser = self.broker.browser()
        page = now(browser.submit(self.broker.register().open(browser), "allow"))
        page = now(browser.submit(page, user_name="bob", password="bob-demo-password"))
        page = now(browser.submit(page, "false"))
        self.assertEqual(page.url.partition("?")[0], CLIENT_URL)
        self.assertEqual(without_words(said(page)), DENIED)
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 0)

    def test_other_errors(self) -> None:
        """Whatever else Forgejo says, the client hears of it, and the state is spent."""
        for query in (
            "&error=server_error&error_description=%3Cb%3E",
            "&error=%00%0d%0a",
            "",
            "&code=x&iss=https%3A%2F%2Fevil.example",
        ):
            browser = self.broker.browser()
            state = said(self.to_callback(browser))["state"]
            base = f"{CALLBACK}?state={quote(state)}"
            page = self.open(browser, base + query)
            self.assertEqual(without_words(said(page)), DENIED | {"error": "server_error"}, query)
            self.assert_page(self.open(browser, base + query))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 0)

    def test_issuer_of_forgejo(self) -> None:
        """Forgejo's own issuer is accepted."""
        page = self.open(self.browser, f"{self.url}&iss={quote(FORGE_URL)}")
        self.assertIn("code", said(page))

    def test_code_forged(self) -> None:
        """A code that Forgejo does not know ends the sign-in at the client."""
        state = said(self.url)["state"]
        page = self.open(self.browser, f"{CALLBACK}?code=forged&state={quote(state)}")
        self.assertEqual(without_words(said(page)), DENIED)
        self.assertEqual(self.count("accounts"), 0)

    def test_forgejo_down(self) -> None:
        """A Forgejo that fails midway is the client's to hear: try again."""
        for kind in ("status", "drop", "garble"):
            browser = self.broker.browser()
            url = self.to_callback(browser)
            self.broker.forge.troubles.set(kind, TOKEN_PATH, times=1)
            answer = without_words(said(self.late(browser.open(url))))
            self.assertEqual(answer, DENIED | {"error": "temporarily_unavailable"}, kind)
        self.assertEqual(self.count("codes"), 0)

    def late(self, going: Coroutine[Any, Any, Page]) -> Page:
        """Where a walk ends that has to wait for Forgejo."""
        waiting = Deferred.fromCoroutine(going)
        self.broker.settle()
        return self.successResultOf(waiting)

    def test_client_leaves(self) -> None:
        """A browser that closes during the exchange loses no pair: it is stored all the same."""
        self.broker.forge.troubles.set("slow", TOKEN_PATH)
        visitor = self.broker.visitor()
        visitor.cookies = dict(jar(self.browser))
        visit = visitor.get(self.url.removeprefix(PUBLIC_URL))
        self.assertFalse(visit.answered)
        self.assertEqual(self.broker.forge.troubles.held, 1)
        visit.leave()
        self.broker.forge.troubles.clear()
        self.broker.settle()
        self.assertEqual(self.rows("SELECT login, dead_since FROM accounts"), [("alice", None)])
        ((credential,),) = self.rows("SELECT credential FROM accounts")
        self.assertTrue(credential)
        self.assertEqual(self.count("codes"), 1)

    def test_store_down(self) -> None:
        """While the store is down the callback waits for it: the same URL works after."""
        self.broker.store.fail_all()
        self.assert_down(self.open(self.browser, self.url))
        self.broker.store.fail_all(False)
        self.assert_works()

    def test_no_trace(self) -> None:
        """What was needed for a sign-in is forgotten with it."""
        self.assert_works()
        self.assertEqual(self.count("signins"), 0)


class FloodTests(BrokerCase):
    def test_expired_are_dropped(self) -> None:
        """A new sign-in sweeps those away that are over."""
        self.app.open()
        self.broker.advance(limits.SIGN_IN)
        self.app.open()
        self.assertEqual(self.count("signins"), 1)


class OwnWordsTests(BrokerCase):
    def test_request_headers(self) -> None:
        """Nothing in an answer is made of the request's own words about where we are."""
        target = self.app.authorize_url().removeprefix(PUBLIC_URL)
        visit = self.broker.visitor().get(
            target, x_forwarded_host="evil.example", forwarded="host=evil.example"
        )
        self.assertEqual(visit.status, 200)
        self.assertNotIn(b"evil.example", visit.body)
        self.assertEqual(self.broker.visitor().get(target, host="evil.example").status, 421)
