"""The page for somebody who comes back from Forgejo as another than their browser was known as."""

from __future__ import annotations

from fjmcp import limits
from fjmcp.demo.browser import Page
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import CLIENT_URL, App, walk
from tests.web.whole import CALLBACK, EXCHANGE, LOCAL_URL, ConsentCase, jar, said


class AnotherTests(ConsentCase):
    """Bob comes back in the browser that was Alice's."""

    def setUp(self) -> None:
        super().setUp()
        now(self.broker.store.write(lambda cursor: cursor.execute("DELETE FROM codes")))
        self.sign_out_at_forgejo()

    def come(self, app: App | None = None, **changes: str | None) -> Page:
        """Go the way until nobody but the page for another person is there."""
        page = (app or self.app).open(self.browser, **changes)
        while 'value="continue"' not in page.text:
            fields = page.form.fields
            if "password" in fields:
                page = now(self.browser.submit(page, user_name="bob", password="bob-demo-password"))
            else:
                buttons = {value for _, value in page.form.buttons}
                word = next(each for each in ("allow", "true") if each in buttons)
                page = now(self.browser.submit(page, word))
        return page

    def form(self, page: Page, decision: str = "continue", **changes: str) -> dict[str, str]:
        """What the page's form sends."""
        return page.form.fields | {"decision": decision} | changes

    def onward(self, page: Page) -> str:
        """Where a page of ours goes on to by itself."""
        onward = page.text.partition("0; url=")[2].partition('"')[0]
        self.assertTrue(onward, page.text)
        return onward.replace("&amp;", "&")

    def assert_nothing_out(self) -> None:
        """No code has been given, the browser is Alice's, and Bob's pair is kept."""
        self.assertEqual(self.count("codes"), 0)
        self.assertEqual(self.whose(), "alice")
        found = self.rows("SELECT login, credential IS NULL, dead_since FROM accounts ORDER BY 1")
        self.assertEqual(found, [("alice", 0, None), ("bob", 0, None)])

    def test_the_page(self) -> None:
        """The page says who was known and who came, for whom and where to, and what they may;
        it stands where the consent page was shown and where it was not."""
        for prompt in (None, "consent"):
            self.sign_out_at_forgejo()
            page = self.come(prompt=prompt)
            self.assertEqual(page.status, 200)
            for words in (
                ">alice</strong>",
                ">bob</strong>",
                "The client",
                ">client.example<",
                CLIENT_URL,
                "forge.example",
                "private ones included",
            ):
                self.assertIn(words, page.text)
            self.assertEqual(page.form.buttons, (("decision", "continue"), ("decision", "deny")))
            self.assertEqual(page.form.action, f"{PUBLIC_URL}/oauth/consent")
            self.assert_nothing_out()

    def test_goes_on(self) -> None:
        """Who goes on gets the code as who they are; the browser is theirs, and so is the consent,
        from then on."""
        for prompt in (None, "consent"):
            self.setUp()
            page = now(self.browser.submit(self.come(prompt=prompt), "continue"))
            answer = said(page)
            self.assertEqual(set(answer), {"code", "state", "iss"})
            self.assertEqual(self.whose(), "bob")
            tokens = self.app.redeem(answer["code"]).json()
            self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
            self.assertEqual(self.rows("SELECT account_id FROM grants"), [(3,)])
            self.assertEqual(self.count("signins"), 0)
            self.assert_remembered()
            self.assertEqual(
                self.rows("SELECT account_id FROM consents ORDER BY account_id"), [(2,), (3,)]
            )

    def test_says_so(self) -> None:
        """The page says that going on is remembered where it is, and nowhere else."""
        for uri, kept in ((CLIENT_URL, True), (LOCAL_URL, False)):
            for prompt in (None, "consent"):
                self.setUp()
                app = self.broker.register(redirect_uris=[uri])
                page = self.come(app, prompt=prompt)
                self.assertEqual(self.says_remembered(page), kept, (uri, prompt))
                self.assertIn("code", said(now(self.browser.submit(page, "continue"))))
                self.assertEqual(self.shows_page(self.visit(app)), not kept)

    def test_code_stands_in_no_page(self) -> None:
        """The code goes to the client by a redirect alone; the page before it has a state, whose
        cookie comes with it."""
        sent = self.send(self.form(self.come()))
        self.assertEqual(sent.status, 200)
        self.assertIsNone(sent.headers.getRawHeaders("location"))
        onward = self.onward(sent)
        self.assertEqual(onward.partition("?")[0], CALLBACK)
        self.assertEqual(set(said(onward)), {"state"})
        self.assertNotIn("fjc_", sent.text)
        (cookie,) = sent.headers.getRawHeaders("set-cookie", [])
        self.assertTrue(cookie.startswith("__Host-fjmcp_state_"), cookie)
        self.assert_nothing_out()

    def test_on_this_computer(self) -> None:
        """It is asked for a client on the person's own computer, too, and not remembered there."""
        app = self.broker.register(redirect_uris=[LOCAL_URL])
        page = self.come(app)
        self.assertIn("on your own computer", page.text)
        answer = said(now(self.browser.submit(page, "continue")))
        self.assertIn("code", answer)
        self.assertEqual(self.whose(), "bob")
        self.assert_asked(app)

    def test_refuses(self) -> None:
        """Who refuses sends the client access_denied; the browser stays Alice's, and what she
        allowed stands."""
        page = self.come()
        back = now(self.browser.submit(page, "deny"))
        self.assertEqual(back.url.partition("?")[0], CLIENT_URL)
        answer = said(back)
        self.assertEqual((answer["error"], answer["state"]), ("access_denied", "the-state"))
        self.assert_nothing_out()
        self.assertEqual(self.count("signins"), 0)
        self.assertEqual(self.rows("SELECT account_id FROM consents"), [(2,)])
        for decision in ("deny", "continue"):
            self.assert_page(self.send(self.form(page, decision)))
        self.assert_remembered()

    def test_only_the_answer_counts(self) -> None:
        """What was said on the page before is no answer to this one, nor one from elsewhere."""
        first = self.app.open(self.browser, prompt="consent")
        early = self.send(self.form(first))
        self.assert_page(early)
        self.browser.stops = (*self.browser.stops, CALLBACK)
        url = walk(self.browser, first, "bob").url
        self.browser.stops = self.browser.stops[:-1]
        self.assert_page(self.send(self.form(first)))
        page = self.open(self.browser, url)
        stranger, other = self.broker.browser(), self.broker.browser()
        self.app.open(other)
        for form, browser, headers in (
            (self.form(first, "allow"), self.browser, {}),
            (self.form(first, "continue"), self.browser, {}),
            (self.form(first, "deny"), self.browser, {}),
            (self.form(page, "allow"), self.browser, {}),
            (self.form(page, ""), self.browser, {}),
            (self.form(page, "CONTINUE"), self.browser, {}),
            (self.form(page, signin="x"), self.browser, {}),
            (self.form(page), stranger, {}),
            (self.form(page), other, {}),
            (self.form(page, "deny"), other, {}),
            (self.form(page), self.browser, {"origin": "https://evil.example"}),
            (self.form(page), self.browser, {"origin": f"{PUBLIC_URL}:8443"}),
            (self.form(page), self.browser, {"content_type": "text/plain"}),
        ):
            sent = self.send(form, browser, **headers)
            self.assert_page(sent)
            self.assertIsNone(sent.headers.getRawHeaders("set-cookie"))
        self.assert_page(self.open(self.browser, url))
        self.assert_nothing_out()
        self.assertIn("code", said(now(self.browser.submit(page, "continue"))))

    def test_pressed_twice(self) -> None:
        """Pressed twice, the last one counts, and there is one code."""
        page = self.come()
        first, second = (self.onward(self.send(self.form(page))) for _ in range(2))
        for url in (first, second):
            state = said(url)["state"]
            name = f"__Host-fjmcp_state_{digest(TokenText(state)).value.hex()[:12]}"
            jar(self.browser)[name] = state
        self.assert_page(self.open(self.browser, first))
        self.assertIn("code", said(self.open(self.browser, second)))
        self.assertEqual(self.count("codes"), 1)

    def test_once(self) -> None:
        """Once the code is out, neither form nor callback works again."""
        page = self.come()
        sent = self.send(self.form(page))
        self.keep_cookies(sent)
        url = self.onward(sent)
        kept = dict(jar(self.browser))
        self.assertIn("code", said(self.open(self.browser, url)))
        jar(self.browser).update(kept)
        self.assert_page(self.open(self.browser, url))
        for decision in ("continue", "deny", "allow"):
            self.assert_page(self.send(self.form(page, decision)))
        self.assertEqual(self.count("codes"), 1)

    def keep_cookies(self, page: Page) -> None:
        """What a browser does that was sent this page."""
        for cookie in page.headers.getRawHeaders("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            jar(self.browser)[name] = value

    def test_confirmed_elsewhere(self) -> None:
        """What was confirmed here works in this browser alone, and cannot be refused any more."""
        page = self.come()
        sent = self.send(self.form(page))
        url = self.onward(sent)
        other = self.broker.browser()
        self.app.open(other)
        self.assert_page(self.open(other, url))
        self.assert_page(self.open(self.browser, url))
        self.assert_page(self.send(self.form(page, "deny")))
        self.assert_nothing_out()
        self.keep_cookies(sent)
        self.assertIn("code", said(self.open(self.browser, url)))

    def test_forgejo_has_no_say(self) -> None:
        """Once confirmed, nothing beside the state counts at the callback."""
        page = self.come()
        sent = self.send(self.form(page))
        self.keep_cookies(sent)
        before = self.broker.forge.calls(EXCHANGE)
        url = f"{self.onward(sent)}&error=access_denied&code=x&iss=https%3A%2F%2Fevil.example"
        self.assertIn("code", said(self.open(self.browser, url)))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), before)
        self.assertEqual(self.rows("SELECT account_id FROM codes"), [(3,)])

    def test_expired(self) -> None:
        """Who takes too long begins anew, before the confirmation and after it."""
        page = self.come()
        self.broker.advance(limits.SIGN_IN)
        for decision in ("continue", "deny"):
            self.assert_page(self.send(self.form(page, decision)))
        self.sign_out_at_forgejo()
        page = self.come()
        sent = self.send(self.form(page))
        self.keep_cookies(sent)
        self.broker.advance(limits.SIGN_IN)
        self.assert_page(self.open(self.browser, self.onward(sent)))
        self.assert_nothing_out()

    def test_store_down(self) -> None:
        """While the store is down each step stops, and works after: the form, and the way back."""
        page = self.come()
        self.broker.store.fail_all()
        for decision in ("continue", "deny"):
            self.assert_down(self.send(self.form(page, decision)))
        self.broker.store.fail_all(False)
        sent = self.send(self.form(page))
        self.keep_cookies(sent)
        self.broker.store.fail_all()
        self.assert_down(self.open(self.browser, self.onward(sent)))
        self.broker.store.fail_all(False)
        self.assert_nothing_out()
        self.assertIn("code", said(self.open(self.browser, self.onward(sent))))

    def test_client_cannot_be_named(self) -> None:
        """Where nobody can say for whom the person is asked, the client is told, and nothing is
        out."""
        url = self.back_as_bob()
        reader = self.broker.store.lanes[1]
        reader.down = True
        answer = said(self.open(self.browser, url))
        reader.down = False
        self.assertEqual(answer["error"], "temporarily_unavailable")
        self.assertEqual(answer["state"], "the-state")
        self.assert_nothing_out()
        self.sign_out_at_forgejo()
        url = self.back_as_bob()
        now(self.broker.store.write(lambda cursor: cursor.execute("DELETE FROM clients")))
        self.assertEqual(said(self.open(self.browser, url))["error"], "invalid_request")
        self.assert_nothing_out()

    def back_as_bob(self) -> str:
        """Our callback, before Bob's browser goes there."""
        stops, self.browser.stops = self.browser.stops, (CALLBACK,)
        try:
            return walk(self.browser, now(self.browser.open(self.app.authorize_url())), "bob").url
        finally:
            self.browser.stops = stops

    def test_another_tab(self) -> None:
        """A browser that nobody knew when the tab was opened, and somebody does when it comes
        back, is somebody's."""
        browser = self.broker.browser()
        stops = browser.stops
        pages = [self.app.open(browser) for _ in range(2)]
        self.assertIn("code", said(walk(browser, pages[0], "alice")))
        self.sign_out_at_forgejo(browser)
        browser.stops = (*stops, CALLBACK)
        url = walk(browser, pages[1], "bob").url
        browser.stops = stops
        page = self.open(browser, url)
        self.assertIn('value="continue"', page.text)
        self.assertEqual(self.rows("SELECT account_id FROM codes"), [(2,)])

    def test_consent_of_somebody_else(self) -> None:
        """Where Alice's consent stood for the page, Bob is asked although the browser has become
        his meanwhile: he never allowed this client anything."""
        url = self.back_as_bob()
        other = self.broker.register()
        self.assertIn("code", said(now(self.browser.submit(self.come(other), "continue"))))
        self.assertEqual(self.whose(), "bob")
        page = self.open(self.browser, url)
        self.assertIn('value="continue"', page.text)
        self.assertEqual(self.rows("SELECT client_id FROM codes"), [(other.client_id,)])
        self.assertEqual(
            self.rows("SELECT client_id FROM consents WHERE account_id = 3"), [(other.client_id,)]
        )

    def test_back_again(self) -> None:
        """When Alice comes back in what is Bob's browser by then, she is asked in her turn."""
        now(self.browser.submit(self.come(), "continue"))
        self.sign_out_at_forgejo()
        page = walk(self.browser, now(self.browser.open(self.app.authorize_url())), "alice")
        self.assertIn('value="continue"', page.text)
        self.assertLess(page.text.index(">bob</strong>"), page.text.index("Refuse"))

    def test_same_person(self) -> None:
        """Alice herself is asked nothing, whatever she did at Forgejo."""
        page = walk(self.browser, now(self.browser.open(self.app.authorize_url())), "alice")
        self.assertIn("code", said(page))

    def test_login_in_the_page(self) -> None:
        """A login is shown to the letter, whatever Forgejo let it be."""
        now(
            self.broker.store.write(
                lambda cursor: cursor.execute(
                    "UPDATE accounts SET login = '<b>alice</b>\"&amp;' WHERE account_id = 2"
                )
            )
        )
        page = self.come()
        self.assertIn("&lt;b&gt;alice&lt;/b&gt;", page.text)
        self.assertNotIn("<b>", page.text)
