"""The page that is not shown again: what is remembered, for how long, and what ends it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from fjmcp import limits
from fjmcp.demo.browser import Browser
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.consents import consent_digest
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.store.queries import consents
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import CLIENT_URL, walk
from tests.web.whole import (
    CALLBACK,
    EXCHANGE,
    FORWARDER_URL,
    LOCAL_URL,
    PRIVATE_URL,
    ConsentCase,
    jar,
    said,
)


class RememberedTests(ConsentCase):
    def test_not_asked_again(self) -> None:
        """Who allowed it is not asked the same again: to Forgejo, and back with a code that is
        good."""
        answer = said(now(self.browser.open(self.app.authorize_url())))
        self.assertEqual(set(answer), {"code", "state", "iss"})
        tokens = self.app.redeem(answer["code"]).json()
        self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
        self.assertEqual(self.count("signins"), 0)

    def test_to_forgejo(self) -> None:
        """The state's cookie comes with the very redirect, and is all that comes; state and PKCE
        at Forgejo are our own."""
        visit = self.visit()
        self.assertEqual(visit.status, 303)
        (cookie,) = visit.headers.getRawHeaders("set-cookie", [])
        query = said(visit)
        self.assertIn(query["state"], cookie)
        self.assertTrue(cookie.startswith("__Host-fjmcp_state_"), cookie)
        self.assertEqual(query["redirect_uri"], CALLBACK)
        self.assertEqual(query["code_challenge_method"], "S256")
        mine = said(self.app.authorize_url())
        self.assertNotEqual(query["code_challenge"], mine["code_challenge"])
        self.assertNotEqual(query["state"], mine["state"])
        ((state,),) = self.rows("SELECT upstream_state FROM signins")
        self.assertEqual(state, digest(TokenText(query["state"])).value)

    def test_cookie_lasts(self) -> None:
        """The cookie of a browser in which somebody signed in lasts for thirty days, and the page
        does not shorten its life."""
        browser = self.broker.browser()
        url = self.to_callback(browser)
        visitor = self.broker.visitor()
        visitor.cookies = dict(jar(browser))
        visit = visitor.get(url.removeprefix(PUBLIC_URL))
        self.assertEqual(self.age_of_cookie(visit), limits.KNOWN_BROWSER)
        jar(browser).update(visitor.cookies)
        self.broker.advance(86400.0)
        visit = self.visit(browser=browser, prompt="consent")
        self.assertEqual(self.age_of_cookie(visit), limits.KNOWN_BROWSER - 86400)
        # A form must be sent in its time, however soon the browser is a stranger.
        self.broker.advance(limits.KNOWN_BROWSER - 86400 - 5)
        visit = self.visit(browser=browser, prompt="consent")
        self.assertEqual(self.age_of_cookie(visit), limits.SIGN_IN)

    def age_of_cookie(self, visit: Visit) -> float:
        """For how long the browser's cookie is set."""
        cookies = visit.headers.getRawHeaders("set-cookie", [])
        (cookie,) = [each for each in cookies if each.startswith("__Host-fjmcp_browser=")]
        return float(cookie.lower().partition("max-age=")[2].partition(";")[0])

    def test_same_in_other_words(self) -> None:
        """State, challenge, and other names of our resource are no other question."""
        same: tuple[dict[str, Any], ...] = (
            {"state": "another"},
            {"state": None},
            {"code_challenge": "y" * 43},
            {"resource": None},
            {"resource": f"{PUBLIC_URL}/"},
            {"scope": "forge:write forge:read"},
            {"scope": "openid"},
            {"prompt": "unheard-of"},
        )
        for changes in same:
            self.assert_remembered(**changes)

    def test_each_difference(self) -> None:
        """Another client, redirect URI or scope is another question."""
        twin = self.broker.register()
        several = self.broker.register(redirect_uris=[CLIENT_URL, f"{CLIENT_URL}2"])
        several.sign_in(browser=self.browser)
        self.assert_remembered(several)
        self.assert_asked(several, redirect_uri=f"{CLIENT_URL}2")
        self.assert_asked(twin)
        for scope in ("forge:read", "forge:read forge:write offline_access"):
            self.assert_asked(scope=scope)

    def test_client_changed(self) -> None:
        """A client that changed what it says of itself is another question."""
        ((stored,),) = self.rows("SELECT metadata FROM clients")
        for changes in (
            {"client_name": "Another name"},
            {"redirect_uris": [CLIENT_URL, "https://client.example/more"]},
            {"client_uri": "https://client.example/about"},
            {"scope": "forge:read"},
        ):
            self.change_client(json.dumps(json.loads(stored) | changes))
            self.assert_asked()
        self.change_client(stored)
        self.assert_remembered()

    def change_client(self, metadata: str) -> None:
        now(
            self.broker.store.write(
                lambda cursor: cursor.execute("UPDATE clients SET metadata = ?", metadata)
            )
        )

    def test_client_changed_meanwhile(self) -> None:
        """What is remembered is what the person was shown, not what a client made of it since."""
        app = self.broker.register()
        url = self.to_callback(self.browser, app)
        now(
            self.broker.store.write(
                lambda cursor: cursor.execute(
                    "UPDATE clients SET metadata = replace(metadata, 'The client', 'Claude')"
                    " WHERE client_id = ?",
                    app.client_id,
                )
            )
        )
        self.assertIn("code", said(self.open(self.browser, url)))
        self.assert_asked(app)

    def test_thirty_days(self) -> None:
        """After thirty days the person is asked again, and not before."""
        self.broker.advance(limits.CONSENT_KEPT - 1)
        self.assert_remembered()
        self.broker.advance(1)
        self.assert_asked()

    def test_not_stretched(self) -> None:
        """A sign-in without the page makes the browser known for longer, and not the consent."""
        self.broker.advance(limits.CONSENT_KEPT - 86400)
        self.assertIn("code", said(now(self.browser.open(self.app.authorize_url()))))
        self.broker.advance(86400)
        self.assertEqual(self.whose(), "alice")
        self.assert_asked()

    def test_given_anew(self) -> None:
        """A consent that was given on the page once more counts from then on."""
        self.broker.advance(limits.CONSENT_KEPT - 86400)
        self.assertIn("code", self.app.sign_in(browser=self.browser, prompt="consent"))
        self.broker.advance(86400)
        self.assert_remembered()

    def test_swept(self) -> None:
        """What has run out is dropped by the daemon's upkeep."""
        self.broker.parts.trust.look()
        self.broker.advance(limits.KNOWN_BROWSER)
        jobs = self.broker.parts.upkeep
        self.assertEqual((self.count("browsers"), self.count("consents")), (1, 1))
        jobs.start()
        self.broker.advance(limits.EXPIRE)
        self.broker.advance(limits.CLOCK_TRUST + limits.EXPIRE)
        self.assertEqual((self.count("browsers"), self.count("consents")), (0, 0))
        jobs.stop()

    def test_other_browser(self) -> None:
        """In another browser the person is asked, until they signed in there."""
        other, app = self.broker.browser(), self.broker.register()
        self.assert_asked(browser=other)
        app.sign_in(browser=other)
        self.assert_remembered(browser=other)

    def test_cookie_is_no_key(self) -> None:
        """Who has the cookie is sent to Forgejo as everybody is, and what was allowed there is no
        account of theirs."""
        thief = self.broker.browser()
        jar(thief).update(jar(self.browser))
        page = walk(thief, now(thief.open(self.app.authorize_url())), "bob")
        self.assertIn("known as", page.text)
        self.assertEqual(self.rows("SELECT 1 FROM codes WHERE account_id <> 2"), [])
        self.assertEqual(self.whose(), "alice")

    def cookie(self, browser: Browser | None = None) -> str:
        return jar(browser or self.browser)["__Host-fjmcp_browser"]

    def test_cookie_is_made_anew(self) -> None:
        """Each sign-in, with the page or without it, gives its browser another cookie; the one
        before is nobody's, and says nothing of who signed in."""
        browser, app = self.broker.browser(), self.broker.register()
        page = app.open(browser)
        for another in (page, None, app.open(browser, prompt="consent")):
            before = self.cookie(browser)
            page = another or self.open(browser, app.authorize_url())
            self.assertIn("code", said(walk(browser, page)))
            self.assertNotEqual(self.cookie(browser), before)
            self.assertEqual(self.whose(browser), "alice")
            planter = self.broker.browser()
            jar(planter)["__Host-fjmcp_browser"] = before
            self.assertIsNone(self.whose(planter))
            self.assert_asked(app, planter)
            page = walk(planter, app.open(planter), "bob")
            self.assertIn("code", said(page))
        self.assertEqual(self.rows("SELECT COUNT(*) FROM browsers WHERE account_id = 2"), [(2,)])

    def test_cookie_planted_before(self) -> None:
        """Who gave a browser its cookie, and began sign-ins by it before its person did, can
        neither answer for them after, nor learn whom it belongs to."""
        planter, victim, app = self.broker.browser(), self.broker.browser(), self.broker.register()
        waiting = self.app.open(planter)
        away = self.to_callback(planter, app, "bob")
        jar(victim)["__Host-fjmcp_browser"] = self.cookie(planter)
        self.assertIn("code", self.app.sign_in(browser=victim))
        self.assert_page(self.send(waiting.form.fields | {"decision": "allow"}, planter))
        self.assert_page(self.send(waiting.form.fields | {"decision": "deny"}, planter))
        back = self.open(planter, away)
        self.assertNotIn("alice", back.text)
        self.assertIn("code", said(back))
        self.assertIsNone(self.whose(planter))
        self.assertEqual(self.whose(victim), "alice")

    def test_tabs_follow(self) -> None:
        """What is under way in other tabs of the browser, at our page or at Forgejo, goes on by
        its new cookie, and is remembered as ever."""
        browser = self.broker.browser()
        apps = [self.broker.register() for _ in range(4)]
        asked = [app.open(browser) for app in apps[:3]]
        away = self.to_callback(browser, apps[3])
        self.assertIn("code", said(walk(browser, asked[0])))
        self.assertIn("code", said(self.open(browser, away)))
        self.assertIn("code", said(walk(browser, asked[1])))
        back = now(browser.submit(asked[2], "deny"))
        self.assertEqual(said(back)["error"], "access_denied")
        self.assertEqual(self.count("signins"), 0)
        for app in (apps[0], apps[3], apps[1]):
            self.assert_remembered(app, browser)
        self.assert_asked(apps[2], browser)

    def test_cookie_that_nobody_knows(self) -> None:
        """A cookie of somebody's own making is a browser that nobody knows."""
        for value in ("x", "fjb_" + "A" * 43):
            browser = self.broker.browser()
            jar(browser)["__Host-fjmcp_browser"] = value
            self.assert_asked(browser=browser)

    def test_prompt(self) -> None:
        """A client that wants its person asked has them asked, whatever words stand beside it."""
        for prompt, asked in (
            ("consent", True),
            ("login", True),
            ("select_account", True),
            ("login consent", True),
            ("unheard-of consent", True),
            ("unheard-of", False),
            ("CONSENT", False),
        ):
            visit = self.visit(prompt=prompt)
            self.assertEqual(self.shows_page(visit), asked, prompt)

    def test_says_so(self) -> None:
        """The page says that the answer is remembered where it is, and nowhere else, also to who is
        asked because the client wants it."""
        for uri, kept in (
            (CLIENT_URL, True),
            (LOCAL_URL, False),
            (PRIVATE_URL, False),
            (FORWARDER_URL, False),
        ):
            for prompt in (None, "unheard-of", "consent", "login", "select_account"):
                app = self.broker.register(redirect_uris=[uri])
                browser = self.browser_of(app)
                page = app.open(browser, prompt=prompt)
                self.assertEqual(self.says_remembered(page), kept, (uri, prompt))
                self.assertIn("code", said(walk(browser, page)))
                self.assertEqual(self.shows_page(self.visit(app, browser)), not kept)

    def test_prompt_none(self) -> None:
        """prompt=none cannot be had, even where nobody would be asked; the client is told."""
        for prompt, error in (("none", "interaction_required"), ("none login", "invalid_request")):
            visit = self.visit(prompt=prompt)
            self.assertEqual((visit.status, said(visit)["error"]), (303, error))
            self.assertEqual(said(visit)["state"], "the-state")

    def test_two_tabs(self) -> None:
        """Two sign-ins without the page, and one with it, do not disturb each other."""
        other = self.broker.register()
        stops, self.browser.stops = self.browser.stops, (CALLBACK,)
        urls = [now(self.browser.open(self.app.authorize_url())).url for _ in range(2)]
        self.browser.stops = stops
        urls.append(self.to_callback(self.browser, other))
        for url in reversed(urls):
            self.assertIn("code", said(self.open(self.browser, url)))
        self.assertEqual(self.count("signins"), 0)

    def test_never_on_this_computer(self) -> None:
        """Where any program may listen, or claim the scheme, or be sent on to, the person is asked
        each time."""
        for uri in (
            LOCAL_URL,
            "http://localhost/cb",
            "http://[::1]/cb",
            "https://localhost/cb",
            PRIVATE_URL,
            FORWARDER_URL,
            f"{FORWARDER_URL}?url=vscode%3Ax",
        ):
            app = self.broker.register(redirect_uris=[uri])
            browser = self.browser_of(app)
            for _ in range(2):
                page = app.open(browser)
                self.assertEqual(page.status, 200, uri)
                self.assertIn("code", said(walk(browser, page)))
            self.assertEqual(self.whose(browser), "alice")
            self.assert_asked(app, browser)
        self.assertEqual(self.count("consents"), 1)

    def test_kept_by_mistake(self) -> None:
        """Not even a consent that stands in the store, of an older version say, is taken for a
        client on this computer, or for one whose address sends on."""
        for uri in (LOCAL_URL, FORWARDER_URL):
            self.keep_by_mistake(uri)

    def keep_by_mistake(self, uri: str) -> None:
        app = self.broker.register(redirect_uris=[uri])
        self.browser.stops = (*self.browser.stops, uri)
        walk(self.browser, app.open(self.browser))
        ((stored,),) = self.rows("SELECT metadata FROM clients WHERE client_id = ?", app.client_id)
        request = AuthorizationRequest(
            client_id=app.client_id,
            redirect_uri=uri,
            state=None,
            challenge="",
            scopes="forge:read forge:write",
            resource=f"{PUBLIC_URL}/mcp",
            fingerprint=ClientMetadata.from_json(stored).fingerprint.value.hex(),
        )
        consent, at = consent_digest(2, request), self.broker.reactor.seconds()
        now(self.broker.store.write(consents.keep, consent, 2, app.client_id, at))
        self.assert_asked(app)

    def test_only_at_the_end(self) -> None:
        """A sign-in that does not come to its end leaves neither browser nor consent."""
        before = (self.count("browsers"), self.count("consents"))
        for prohibited in (False, True):
            browser, app = self.broker.browser(), self.broker.register()
            url = self.to_callback(browser, app, "bob")
            self.assert_asked(app, browser)
            person = self.broker.forge.instance.person("bob")
            assert person is not None
            person.prohibited = prohibited
            state = said(url)["state"]
            self.open(browser, url if prohibited else f"{CALLBACK}?error=x&state={quote(state)}")
            person.prohibited = False
            self.assert_asked(app, browser)
        self.assertEqual(self.count("codes"), 1)
        now(self.browser.submit(self.broker.register().open(self.broker.browser()), "deny"))
        self.assertEqual((self.count("browsers"), self.count("consents")), before)

    def test_cookie_lost_on_the_way(self) -> None:
        """A browser that comes back without its cookie, or with another, gets its code and is not
        known."""
        for other in (None, "fjb_other"):
            browser, app = self.broker.browser(), self.broker.register()
            url = self.to_callback(browser, app)
            del jar(browser)["__Host-fjmcp_browser"]
            if other is not None:
                jar(browser)["__Host-fjmcp_browser"] = other
            visitor = self.broker.visitor()
            visitor.cookies = dict(jar(browser))
            visit = visitor.get(url.removeprefix(PUBLIC_URL))
            self.assertIn("code", said(visit))
            cookies = "".join(visit.headers.getRawHeaders("set-cookie", []))
            self.assertNotIn("fjmcp_browser", cookies)
            self.assert_asked(app, browser)
        self.assertEqual((self.count("browsers"), self.count("consents")), (1, 1))

    def test_login_csrf(self) -> None:
        """A sign-in without the page belongs to the browser that began it, like any other."""
        victim = self.broker.browser()
        stops, self.browser.stops = self.browser.stops, (CALLBACK,)
        url = now(self.browser.open(self.app.authorize_url())).url
        self.browser.stops = stops
        before = self.broker.forge.calls(EXCHANGE)
        self.assert_page(self.open(victim, url))
        theirs = self.to_callback(victim)
        self.assert_page(self.open(self.browser, theirs))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), before)
        self.assertIn("code", said(self.open(self.browser, url)))
        self.assertIn("code", said(self.open(victim, theirs)))

    def test_store_down(self) -> None:
        """While the store is down the way stops at a page, and the same URL works after."""
        self.broker.store.fail_all()
        self.assert_down(self.open(self.browser, self.app.authorize_url()))
        self.broker.store.fail_all(False)
        self.assert_remembered()


class ForgottenTests(ConsentCase):
    def tokens(self) -> dict[str, str]:
        """Of a grant that began with the consent which is remembered."""
        answer = said(now(self.browser.open(self.app.authorize_url())))
        tokens: dict[str, str] = self.app.redeem(answer["code"]).json()
        return tokens

    def test_revoked(self) -> None:
        """Who removed the client is asked when it comes again; other clients are as before."""
        other = self.broker.register()
        other.sign_in(browser=self.browser)
        tokens = self.tokens()
        self.assert_remembered()
        self.assertEqual(self.app.revoke(tokens["access_token"]).status, 200)
        self.assert_asked()
        self.assert_remembered(other)

    def test_reused(self) -> None:
        """A refresh token or code used twice, which may be a thief's, ends the consent too."""
        tokens = self.tokens()
        first = tokens["refresh_token"]
        second = self.app.refresh(first).json()["refresh_token"]
        self.app.refresh(second)
        self.broker.advance(limits.REFRESH_GRACE)
        self.assert_error(self.app.refresh(first), "invalid_grant")
        self.assert_asked()
        code = self.app.sign_in(browser=self.browser)["code"]
        self.app.redeem(code)
        self.assert_remembered()
        self.assert_error(self.app.redeem(code), "invalid_grant")
        self.assert_asked()

    def test_revoked_at_forgejo(self) -> None:
        """Who revokes us at Forgejo is asked by every client from then on, whoever notices it
        first: a refresh, or the next sign-in; other people are not."""
        other, bobs = self.broker.register(), self.broker.browser()
        other.sign_in(browser=self.browser)
        other.sign_in("bob", bobs)
        tokens = self.tokens()
        self.broker.forge.revoke("alice")
        self.broker.advance(3600)
        for _ in range(3):
            self.app.call(tokens["access_token"])
            self.broker.advance(limits.REFRESH_SETTLE)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)
        for app in (self.app, other):
            self.assert_asked(app)
        self.assert_remembered(other, bobs)
        self.assertIn("code", other.sign_in(browser=self.browser))
        self.assert_remembered(other)
        self.assert_asked()

    def test_revoked_at_forgejo_unnoticed(self) -> None:
        """Likewise who comes back by a remembered consent before anybody here has noticed: no code
        leaves, although Forgejo was told yes once more."""
        other = self.broker.register()
        other.sign_in(browser=self.browser)
        self.broker.forge.revoke("alice")
        before = self.count("codes")
        page = walk(self.browser, now(self.browser.open(self.app.authorize_url())))
        self.assertEqual(said(page)["error"], "access_denied")
        self.assertEqual(self.count("codes"), before)
        for app in (self.app, other):
            self.assert_asked(app)
        self.assertIn("code", self.app.sign_in(browser=self.browser))
        self.assert_remembered()

    def test_blocked(self) -> None:
        """Who may not come in any more, and then may again, is asked."""
        other = self.broker.register()
        other.sign_in(browser=self.browser)
        person = self.broker.forge.instance.person("alice")
        assert person is not None
        stops, self.browser.stops = self.browser.stops, (CALLBACK,)
        url = self.open(self.browser, self.app.authorize_url()).url
        self.browser.stops = stops
        person.prohibited = True
        self.assert_remembered(other)
        self.assertEqual(self.open(self.browser, url).status, 403)
        person.prohibited = False
        for app in (self.app, other):
            self.assert_asked(app)

    def test_made_room(self) -> None:
        """A grant that made room for others ended by itself; nobody withdrew anything."""
        self.tokens()
        for _ in range(limits.GRANTS_PER_ACCOUNT):
            self.app.tokens()
        self.assertEqual(self.live_grants(), limits.GRANTS_PER_ACCOUNT)
        self.assert_remembered()

    def test_refused(self) -> None:
        """Who refuses on the page what they allowed before is asked from then on."""
        other = self.broker.register()
        other.sign_in(browser=self.browser)
        now(self.browser.submit(self.app.open(self.browser, prompt="consent"), "deny"))
        self.assert_asked()
        self.assert_remembered(other)

    def test_refused_elsewhere(self) -> None:
        """A refusal in a browser that nobody knows withdraws nobody's consent."""
        stranger = self.broker.browser()
        now(stranger.submit(self.app.open(stranger), "deny"))
        self.assert_remembered()

    def test_withdrawn_meanwhile(self) -> None:
        """A consent that was withdrawn while the browser was at Forgejo lets no code out."""
        tokens = self.tokens()
        stops, self.browser.stops = self.browser.stops, (CALLBACK,)
        url = now(self.browser.open(self.app.authorize_url())).url
        self.browser.stops = stops
        self.app.revoke(tokens["access_token"])
        before = self.count("codes")
        answer = said(self.open(self.browser, url))
        self.assertEqual((answer["error"], answer["state"]), ("access_denied", "the-state"))
        self.assertEqual((self.count("codes"), self.count("signins")), (before, 0))
        self.assert_asked()

    def test_asked_meanwhile(self) -> None:
        """One whose person was asked and is at Forgejo goes on: they have just allowed it."""
        tokens = self.tokens()
        self.browser.stops = (*self.browser.stops, CALLBACK)
        url = walk(self.browser, self.app.open(self.browser, prompt="consent")).url
        self.browser.stops = self.browser.stops[:-1]
        self.app.revoke(tokens["access_token"])
        self.assertIn("code", said(self.open(self.browser, url)))
        self.assert_remembered()
