"""The stand-in's sign-in, authorize and consent pages, after forgejo.md §3.1 and §3.2."""

from __future__ import annotations

from urllib.parse import urlencode

from fjmcp.demo.browser import Browser
from fjmcp.demo.forge.grants import Application
from fjmcp.demo.forge.standin import CLIENT_ID
from tests.demo.standing import CALLBACK, CHALLENGE, SCOPE, URL, StandInCase, said

AUTHORIZE = "/login/oauth/authorize"
CONSENT = "/login/oauth/grant"


class SignInTests(StandInCase):
    """Who is at the browser."""

    def test_form(self) -> None:
        """The form has the fields user_name and password."""
        page = self.see(self.browser.open(f"{URL}/user/login"))
        self.assertEqual(set(page.form.fields), {"user_name", "password"})
        self.assertEqual((page.form.action, page.form.method), (f"{URL}/user/login", "POST"))

    def test_signed_in(self) -> None:
        """The right password leads to the front page, with a session that scripts can't read."""
        self.assertIn("Signed in as alice", self.sign_in().text)
        form = {"user_name": "Alice@Demo.invalid", "password": "alice-demo-password"}
        reply = self.ask("POST", "/user/login", form=form)
        self.assertEqual((reply.status, reply.header("location")), (303, "/"))
        cookies = reply.headers.getRawHeaders("set-cookie", [])
        self.assertTrue(any("HttpOnly; SameSite=Lax" in cookie for cookie in cookies))

    def test_wrong_password(self) -> None:
        """A wrong password shows the form again, and what was typed as text."""
        page = self.see(self.browser.open(f"{URL}/user/login"))
        page = self.see(self.browser.submit(page, user_name='"><b>', password="no"))
        self.assertIn("Username or password is incorrect.", page.text)
        self.assertEqual(page.form.fields["user_name"], '"><b>')

    def test_prohibited(self) -> None:
        """A prohibited person does not get in, and falls out of a session."""
        alice = self.forge.instance.people[0]
        alice.prohibited = True
        self.assertIn("prohibited", self.sign_in().text)
        alice.prohibited = False
        self.sign_in()
        alice.prohibited = True
        self.assertIn("prohibited", self.authorize().text)

    def test_sign_out(self) -> None:
        """Signing out ends the session."""
        self.sign_in()
        self.assertIn("Sign in", self.see(self.browser.open(f"{URL}/user/logout")).text)

    def test_cookies_lead_nowhere_else(self) -> None:
        """Where to go on is never another site."""
        form = {"user_name": "alice", "password": "alice-demo-password"}
        for wish in ("https://evil.example/", "//evil.example", "/\\evil.example"):
            reply = self.ask(
                "POST", "/user/login", form=form, headers={"cookie": f"redirect_to={wish}"}
            )
            self.assertEqual(reply.header("location"), "/")


class AuthorizeTests(StandInCase):
    """The authorize endpoint."""

    def test_anonymous(self) -> None:
        """Nobody signed in: 303 to the sign-in page, and back to authorize after it."""
        query = urlencode({"client_id": CLIENT_ID, "redirect_uri": CALLBACK})
        reply = self.ask("GET", f"{AUTHORIZE}?{query}")
        self.assertEqual((reply.status, reply.header("location")), (303, "/user/login"))
        page = self.authorize()
        self.assertEqual(page.url, f"{URL}/user/login")
        filled = {"user_name": "alice", "password": "alice-demo-password"}
        page = self.see(self.browser.submit(page, **filled))
        self.assertEqual(page.title, "Authorize fjmcp demo")

    def test_one_cookie_for_two_tabs(self) -> None:
        """Of two anonymous tabs, sign-in in the first goes on with the second's request."""
        first = self.authorize(state="first")
        self.authorize(state="second")
        filled = {"user_name": "alice", "password": "alice-demo-password"}
        page = self.see(self.browser.submit(first, **filled))
        self.assertEqual(page.form.fields["state"], "second")

    def test_consent(self) -> None:
        """Consent sends code and state to the redirect URI."""
        self.sign_in()
        page = self.authorize()
        self.assertIn("access and write to all your account information", page.text)
        self.assertIn(f"With scopes: {SCOPE}.", page.text)
        page = self.see(self.browser.submit(page, "true"))
        self.assertEqual((page.status, page.url.partition("?")[0]), (303, CALLBACK))
        self.assertEqual(set(said(page)), {"code", "state"})
        self.assertTrue(said(page)["code"].startswith("gta_"))
        self.assertEqual(said(page)["state"], "the-state")

    def test_denial(self) -> None:
        """Denial is access_denied, with state."""
        self.sign_in()
        page = self.see(self.browser.submit(self.authorize(), "false"))
        self.assertEqual(
            said(page),
            {
                "error": "access_denied",
                "error_description": "the request is denied",
                "state": "the-state",
            },
        )
        self.assertEqual(self.forge.grants.live, {})

    def test_no_second_consent(self) -> None:
        """A confidential application with a grant gets its code without a page."""
        self.sign_in()
        self.code()
        self.assertIn("code", said(self.authorize()))

    def test_old_scope_stays(self) -> None:
        """Another scope is ignored in silence: the grant keeps its own."""
        self.sign_in()
        self.code()
        self.code(scope="all")
        self.assertEqual([g.scope for g in self.forge.grants.live.values()], [SCOPE])

    def test_nothing_forces_the_page(self) -> None:
        """Parameters that Forgejo does not know are ignored, prompt and resource too."""
        self.sign_in()
        self.code()
        page = self.authorize(
            prompt="consent", max_age="0", login_hint="bob", resource="x", audience="y"
        )
        self.assertIn("code", said(page))

    def test_consent_after_revocation(self) -> None:
        """After a revocation the page is shown again."""
        self.sign_in()
        self.code()
        self.forge.revoke("alice")
        self.assertTrue(self.authorize().forms)

    def test_post(self) -> None:
        """The parameters may come by POST."""
        self.sign_in()
        form = {"response_type": "code", "client_id": CLIENT_ID, "redirect_uri": CALLBACK}
        reply = self.ask("POST", AUTHORIZE, form=form, headers=self.cookie())
        self.assertEqual(reply.status, 200)
        self.assertIn("Authorize fjmcp demo", reply.text)

    def test_never_redirected(self) -> None:
        """An unknown client, or a redirect URI not registered, is a page with 400."""
        self.sign_in()
        for changes in (
            {"client_id": "nobody"},
            {"client_id": None},
            {"redirect_uri": "https://elsewhere.example/"},
            {"redirect_uri": CALLBACK + "?more=1"},
            {"redirect_uri": None},
        ):
            page = self.authorize(**changes)
            self.assertEqual((page.status, page.title), (400, "Authorization failed"))

    def test_redirect_matching(self) -> None:
        """ASCII case and one slash at the end don't count, and it is returned as sent."""
        self.sign_in()
        for uri in (CALLBACK.replace("callback", "CALLBACK"), CALLBACK + "/"):
            browser = Browser(self.agent, (uri,), self.browser.cookies)
            self.browser = browser
            page = self.authorize(redirect_uri=uri)
            if page.forms:
                page = self.see(browser.submit(page, "true"))
            self.assertTrue(page.url.startswith(f"{uri}?code="), page.url)
        self.assertEqual(self.authorize(redirect_uri=CALLBACK + "//").status, 400)

    def test_loopback_port(self) -> None:
        """Public applications have any port on an IP loopback registered without one."""
        registered = ("http://127.0.0.1/cb", "http://[::1]/cb", "http://127.0.0.1:7/other")
        public = Application("public", "", registered, confidential=False)
        for uri, taken in (
            ("http://127.0.0.1:5555/cb", True),
            ("http://[::1]:5555/cb", True),
            ("http://127.0.0.1/cb", True),
            ("http://127.0.0.1:7/other", True),
            ("http://127.0.0.1:8/other", False),
            ("http://localhost:5555/cb", False),
            ("https://127.0.0.1:5555/cb", False),
            ("http://127.0.0.1:5555/other", False),
            ("http://127.0.0.1:99999999/cb", False),
        ):
            self.assertEqual(public.takes(uri), taken, uri)
        public.confidential = True
        self.assertFalse(public.takes("http://127.0.0.1:5555/cb"))

    def test_query_of_the_redirect_uri(self) -> None:
        """A registered query is kept."""
        uri = CALLBACK + "?keep=1"
        self.forge.application.redirect_uris = (uri,)
        self.sign_in()
        page = self.see(self.browser.submit(self.authorize(redirect_uri=uri), "true"))
        self.assertEqual(set(said(page)), {"keep", "code", "state"})

    def test_response_type(self) -> None:
        """Any response type but `code`, or none, is redirected as unsupported."""
        self.sign_in()
        for kind in ("token", None):
            self.assertEqual(
                said(self.authorize(response_type=kind)),
                {
                    "error": "unsupported_response_type",
                    "error_description": "Only code response type is supported.",
                    "state": "the-state",
                },
            )

    def test_challenge_method(self) -> None:
        """A challenge method that is not S256 or plain is redirected as invalid."""
        self.sign_in()
        self.assertEqual(
            said(self.authorize(code_challenge_method="S512"))["error_description"],
            "unsupported code challenge method",
        )

    def test_public_needs_pkce(self) -> None:
        """A public application must send a challenge."""
        self.forge.application.confidential = False
        self.sign_in()
        self.assertEqual(
            said(self.authorize(code_challenge=None, code_challenge_method=None)),
            {
                "error": "invalid_request",
                "error_description": "PKCE is required for public clients",
                "state": "the-state",
            },
        )

    def test_public_is_asked_each_time(self) -> None:
        """A public application gets the page each time, and one scope for ever."""
        self.forge.application.confidential = False
        self.sign_in()
        self.code()
        self.assertTrue(self.authorize().forms)
        page = self.see(self.browser.submit(self.authorize(scope="read:user"), "true"))
        self.assertEqual(said(page)["error"], "server_error")
        self.assertEqual(said(page)["error_description"], "a grant exists with different scope")

    def test_last_consent_page_wins(self) -> None:
        """Of two consent pages the older one's answer is a Bad Request."""
        self.sign_in()
        first = self.authorize(state="first")
        second = self.authorize(state="second")
        self.assertEqual(self.see(self.browser.submit(first, "true")).status, 400)
        self.assertEqual(said(self.see(self.browser.submit(second, "true")))["state"], "second")

    def test_consent_unasked(self) -> None:
        """A consent that follows no page is a Bad Request."""
        self.sign_in()
        form = {"client_id": CLIENT_ID, "redirect_uri": CALLBACK, "state": "", "granted": "true"}
        reply = self.ask("POST", CONSENT, form=form, headers=self.cookie())
        self.assertEqual((reply.status, reply.text), (400, "Bad Request\n"))

    def test_stale_challenge(self) -> None:
        """On the way over the page, an earlier flow's challenge applies if this one sent none."""
        self.sign_in()
        self.authorize(code_challenge=CHALLENGE)
        code = self.code(code_challenge=None, code_challenge_method=None)
        self.assertRefused(
            self.exchange(code, code_verifier=None),
            "unauthorized_client",
            "failed PKCE code challenge",
        )
        self.assertEqual(self.exchange(code).status, 200)

    def test_cross_origin(self) -> None:
        """A POST from another site is refused, whichever header tells it."""
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            for path in (AUTHORIZE, CONSENT):
                reply = self.ask("POST", path, form={"x": "y"}, headers=headers)
                self.assertEqual(reply.status, 403)
                self.assertIn("cross-origin request detected", reply.text)
        reply = self.ask("POST", CONSENT, form={"x": "y"}, headers={"Origin": URL})
        self.assertEqual(reply.status, 303)

    def test_settings_page(self) -> None:
        """The settings page revokes a person's own grant, and nobody else's."""
        self.sign_in()
        pair = self.exchange(self.code()).json
        bob = Browser(self.agent)
        self.sign_in("bob", bob)
        page = self.see(self.browser.open(f"{URL}/user/settings/applications"))
        self.assertIn(SCOPE, page.text)
        self.assertIn("None.", self.see(bob.open(f"{URL}/user/settings/applications")).text)
        path = page.form.action.removeprefix(URL)
        self.ask("POST", path, form={"x": "y"}, headers=self.cookie(bob))
        self.assertEqual(self.ask("GET", "/api/v1/user", bearer=pair["access_token"]).status, 200)
        self.see(self.browser.submit(page))
        self.assertEqual(self.ask("GET", "/api/v1/user", bearer=pair["access_token"]).status, 401)

    def cookie(self, browser: Browser | None = None) -> dict[str, str]:
        """The cookies of a browser as a header."""
        jar = (browser or self.browser).cookies["forge.example"]
        return {"cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
