"""Who may come in, from the browser to the child, on a whole broker."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from twisted.internet.defer import Deferred

from fjmcp import limits
from fjmcp.demo.browser import Browser, Page
from fjmcp.demo.forge.accounts import Person
from fjmcp.forge.admission import Admission
from fjmcp.forge.scopes import DEFAULT
from fjmcp.refusals import WHY_ASLEEP
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import CLIENT_URL, WholeBroker, walk
from tests.web.whole import CALLBACK, FORGE_HOST, BrokerCase, said

LIFE = 3600.0
USER = "/api/v1/user"


class AdmissionCase(BrokerCase):
    """A broker that may see organizations; Alice is a keeper of the allotment, Bob owns it."""

    def setUp(self) -> None:
        self.broker = WholeBroker(scopes=DEFAULT)
        self.app = self.broker.register()
        self.alice, self.bob = self.person("alice"), self.person("bob")

    def admit(self, *users: str, orgs: tuple[str, ...] = (), deny_admins: bool = False) -> None:
        """From now on these may come in."""
        self.broker.parts.credentials.admission = Admission(users, orgs, deny_admins)

    def person(self, login: str) -> Person:
        """Somebody at Forgejo."""
        person = self.broker.forge.instance.person(login)
        assert person is not None
        return person

    def join(self, person: Person, named: str, member: bool = True) -> None:
        """Somebody joins a team, or leaves it."""
        team = self.broker.forge.instance.team(named)
        assert team is not None
        team.members = [each for each in team.members if each is not person]
        team.members += [person] * member

    def come(self, login: str = "alice", browser: Browser | None = None) -> Page:
        """Somebody allows the application and signs in; where they end."""
        browser = browser or self.broker.browser()
        return walk(browser, self.app.open(browser), login)

    def late(self, browser: Browser) -> Page:
        """Where a sign-in ends that has to wait for Forgejo."""
        waiting = Deferred.fromCoroutine(browser.open(self.to_callback(browser)))
        self.broker.settle()
        return self.successResultOf(waiting)

    def tokens(self, login: str = "alice") -> dict[str, Any]:
        """The same for somebody who is let in: what the application gets."""
        visit = self.app.redeem(said(self.come(login))["code"])
        self.assertEqual(visit.status, 200, visit.body)
        answer: dict[str, Any] = visit.json()
        return answer

    def assert_let_in(self, login: str = "alice") -> None:
        """Somebody comes in and works."""
        self.assertEqual(self.app.knocks(self.tokens(login)["access_token"]), 200)

    def assert_turned_away(self, words: str, login: str = "alice") -> None:
        """Somebody reads why they do not come in, and the application hears of it after that."""
        before = self.count("codes"), self.live_grants()
        page = self.come(login)
        self.assertEqual(page.status, 403)
        self.assertTrue(page.url.startswith(CALLBACK), page.url)
        self.assertIn(words, page.text)
        self.assertIn(f'at Forgejo as <strong dir="auto">{login}</strong>.', page.text)
        (link,) = map(unescape, re.findall(r'<a [^>]*href="([^"]*)"', page.text))
        self.assertTrue(link.startswith(CLIENT_URL), link)
        told = said(link)
        self.assertEqual(
            (told["error"], told["state"], told["iss"]), ("access_denied", "the-state", PUBLIC_URL)
        )
        self.assertNotIn(login, told["error_description"])
        self.assertEqual((self.count("codes"), self.live_grants()), before)
        self.assertEqual(self.count("signins"), 0)


class SignInTests(AdmissionCase):
    """At a sign-in."""

    def test_everybody(self) -> None:
        """Without a rule whoever can sign in at Forgejo comes in, and nothing is asked of
        organizations."""
        for login in ("alice", "bob"):
            self.assert_let_in(login)
        for path in ("orgs/<name>/members/<login>", "orgs/<name>/teams/search"):
            self.assertEqual(self.broker.forge.calls(f"GET /api/v1/{path}"), 0)

    def test_configured(self) -> None:
        """A rule of the configuration holds from the start."""
        self.broker = WholeBroker(scopes=DEFAULT, admission=Admission(["bob"]))
        self.app = self.broker.register()
        self.assert_turned_away("only certain accounts")
        self.assert_let_in("bob")

    def test_users(self) -> None:
        """Those who are named come in, in whatever case; others read why not, and leave nothing."""
        self.admit("ALICE", "carol")
        self.assert_let_in("alice")
        self.assert_turned_away("only certain accounts", "bob")
        self.assertEqual(self.rows("SELECT login FROM accounts"), [("alice",)])

    def test_organization(self) -> None:
        """Members of an organization come in, of whichever team; nobody else does."""
        self.admit(orgs=("allotment",))
        for login in ("alice", "bob"):
            self.assert_let_in(login)
        self.join(self.bob, "allotment:owners", False)
        self.assert_turned_away("only certain accounts", "bob")

    def test_team(self) -> None:
        """Members of a team come in; those of another team of the same organization do not."""
        self.admit(orgs=("Allotment:keepers",))
        self.assert_let_in("alice")
        self.assert_turned_away("only certain accounts", "bob")
        self.join(self.bob, "allotment:visitors")
        self.assert_turned_away("only certain accounts", "bob")
        self.join(self.bob, "allotment:keepers")
        self.assert_let_in("bob")

    def test_either(self) -> None:
        """With both lists either suffices."""
        self.admit("bob", orgs=("allotment:keepers",))
        for login in ("alice", "bob"):
            self.assert_let_in(login)

    def test_administrator(self) -> None:
        """An administrator is turned away although the lists name them."""
        self.admit("alice", orgs=("allotment",), deny_admins=True)
        self.assert_let_in("alice")
        self.bob.is_admin = True
        self.assert_turned_away("no administrators", "bob")

    def test_narrow_grant(self) -> None:
        """Who lets us see too little reads what to do about it."""
        self.broker.forge.hand_out("alice", "read:user read:repository")
        self.admit(orgs=("allotment",))
        self.assert_turned_away("revoke it; then connect again", "alice")
        self.broker.forge.revoke("alice")
        self.assert_let_in("alice")

    def test_trouble(self) -> None:
        """Where Forgejo does not say who it is, the application hears that it may try again."""
        self.admit(orgs=("zoo", "allotment:keepers"))
        for path in (
            USER,
            "/api/v1/orgs/zoo/members/alice",
            "/api/v1/orgs/allotment/teams/search",
            "/api/v1/teams/2/members/alice",
        ):
            for kind in ("status", "drop", "garble"):
                self.broker.forge.troubles.set(kind, path, times=1)
                told = said(self.late(self.broker.browser()))
                self.assertEqual(told["error"], "temporarily_unavailable", (path, kind))
        self.assertEqual(self.count("codes"), 0)
        self.assert_let_in()


class WorkingTests(AdmissionCase):
    """While somebody works, by two applications."""

    def setUp(self) -> None:
        super().setUp()
        self.admit(orgs=("allotment:keepers",))
        self.first, self.second = self.tokens(), self.tokens()
        self.join(self.bob, "allotment:keepers")
        self.bobs = self.tokens("bob")

    def works(self, tokens: dict[str, Any]) -> Visit:
        """A call that reaches a child, which answers."""
        heard = {child: len(child.heard) for child in self.broker.reactor.children}
        visit = self.app.call(tokens["access_token"])
        for child in self.broker.reactor.alive:
            if len(child.heard) > heard.get(child, 0) and child.methods()[-1] == "tools/list":
                child.answer_last({"tools": []})
        return visit

    def to_refresh(self, before: float = 0.0) -> None:
        """The sweep that refreshes comes; or time passes until so many seconds before it."""
        self.broker.advance(LIFE - limits.REFRESH_LEAD + 1 - before)
        if not before:
            self.sweep()

    def sweep(self) -> None:
        """The sweep that refreshes."""
        rotating = Deferred.fromCoroutine(self.broker.parts.pool.rotate())
        self.broker.settle()
        self.successResultOf(rotating)

    def assert_asleep(self, reason: str) -> None:
        """Alice's children are gone, and every token of hers is refused with the reason, used
        up by nothing; Bob works on."""
        for _ in range(2):
            for tokens in (self.first, self.second):
                visit = self.app.call(tokens["access_token"])
                self.assertEqual(visit.status, 401)
                self.assertIn('error="invalid_token"', visit.header("www-authenticate") or "")
                self.assertEqual(visit.json()["error"]["message"], WHY_ASLEEP[reason])
                visit = self.app.refresh(tokens["refresh_token"])
                self.assert_error(visit, "invalid_grant")
                self.assertEqual(visit.json()["error_description"], WHY_ASLEEP[reason])
        found = self.rows("SELECT login, dead_reason FROM accounts ORDER BY login")
        self.assertEqual(found, [("alice", reason), ("bob", None)])
        self.assertEqual(self.works(self.bobs).status, 200)
        alive = {child.env["FORGEJO_ACCESS_TOKEN"] for child in self.broker.reactor.alive}
        self.assertEqual(len(alive), 1)

    def test_nothing_happens(self) -> None:
        """Who may still come in works on through refresh after refresh."""
        for _ in range(3):
            for tokens in (self.first, self.bobs):
                self.assertEqual(self.works(tokens).status, 200)
            self.to_refresh()

    def test_removed(self) -> None:
        """Who leaves the team works until the next refresh; then the calls under way end with
        the reason, the children go, and only a sign-in helps, once the person is back."""
        self.works(self.first)
        self.works(self.bobs)
        self.join(self.alice, "allotment:keepers", False)
        self.assertEqual(self.works(self.second).status, 200)
        self.to_refresh(before=5.0)
        call = self.app.call(self.first["access_token"])
        self.broker.advance(5.0)
        self.assertFalse(call.answered)
        self.sweep()
        self.assertIn(WHY_ASLEEP["not-let-in"].encode(), call.body)
        self.assert_asleep("not-let-in")
        self.assert_turned_away("only certain accounts")
        self.assert_asleep("not-let-in")
        self.join(self.alice, "allotment:keepers")
        self.assert_asleep("not-let-in")
        self.broker.advance(1)
        self.assert_let_in()
        for tokens in (self.first, self.second):
            self.assertEqual(self.works(tokens).status, 200)
            self.assertEqual(self.app.refresh(tokens["refresh_token"]).status, 200)

    def test_blocked(self) -> None:
        """Whom Forgejo blocks is found out by the next refresh, though Forgejo goes on
        refreshing; unblocked, a sign-in helps."""
        self.works(self.first)
        self.alice.prohibited = True
        self.to_refresh()
        self.assert_asleep("account-prohibited")
        self.alice.prohibited = False
        self.broker.advance(1)
        self.assert_let_in()
        self.assertEqual(self.works(self.first).status, 200)

    def test_idle(self) -> None:
        """Who has no child is found out by the request that needs one."""
        self.join(self.alice, "allotment:keepers", False)
        self.broker.advance(2 * LIFE)
        visit = self.app.call(self.first["access_token"])
        self.assertEqual(visit.status, 401)
        self.assert_asleep("not-let-in")

    def test_sign_in_elsewhere(self) -> None:
        """A person who is turned away at one application sleeps at all of them at once."""
        self.works(self.first)
        self.alice.is_admin = True
        self.admit(orgs=("allotment",), deny_admins=True)
        self.assert_turned_away("no administrators")
        self.broker.settle()
        self.assert_asleep("admin-not-let-in")

    def test_dead_and_away(self) -> None:
        """Whom the rule does not let in, and who has revoked us, works no more by a sign-in at
        which Forgejo does not say who they are; once they may again, one sign-in helps."""
        self.works(self.first)
        self.broker.forge.revoke("alice")
        self.broker.advance(LIFE)
        call = self.app.call(self.first["access_token"])
        self.broker.advance(limits.REFRESH_SETTLE + 1)
        self.assertEqual(call.status, 401)
        self.join(self.alice, "allotment:keepers", False)
        self.broker.forge.troubles.set("status", USER)
        told = said(self.late(self.broker.browser()))
        self.assertEqual(told["error"], "temporarily_unavailable")
        for _ in range(3):
            for tokens in (self.first, self.second):
                self.assertEqual(self.app.call(tokens["access_token"]).status, 401)
                self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_grant")
            self.broker.advance(LIFE / 4)
            self.sweep()
        self.broker.forge.troubles.clear()
        self.assertEqual(self.app.call(self.first["access_token"]).status, 401)
        self.assert_turned_away("only certain accounts")
        self.join(self.alice, "allotment:keepers")
        self.broker.advance(1)
        self.assert_let_in()
        self.assertEqual(self.app.refresh(self.first["refresh_token"]).status, 200)

    def test_turned_away_at_the_question(self) -> None:
        """Who is turned away while they are asked whether to go on as who they are reads why, and
        has no code by their answer; the browser stays whose it was."""
        browser = self.broker.browser()
        self.come("alice", browser)
        browser.cookies.pop(FORGE_HOST)
        page = self.come("bob", browser)
        self.assertIn('value="continue"', page.text)
        codes = self.count("codes")
        self.bob.is_admin = True
        self.admit(orgs=("allotment",), deny_admins=True)
        self.come("bob")
        page = now(browser.submit(page, "continue"))
        self.assertEqual(page.status, 403)
        self.assertIn("no administrators", page.text)
        self.assertIn('at Forgejo as <strong dir="auto">bob</strong>.', page.text)
        self.assertEqual((self.count("codes"), self.count("signins")), (codes, 0))
        self.assertEqual(self.rows("SELECT 1 FROM consents WHERE account_id = ?", self.bob.id), [])
        known = self.rows("SELECT account_id FROM browsers ORDER BY expires_at DESC LIMIT 1")
        self.assertEqual(known, [(self.alice.id,)])

    def test_api_away(self) -> None:
        """An API that is away during the look ends nothing and holds nothing up; the next look
        counts."""
        self.join(self.alice, "allotment:keepers", False)
        for kind in ("status", "drop", "lose", "garble"):
            self.works(self.first)
            self.broker.forge.troubles.set(kind, USER, times=2)
            self.to_refresh()
            self.broker.forge.troubles.clear()
            self.assertEqual(self.works(self.first).status, 200, kind)
        self.to_refresh()
        self.assert_asleep("not-let-in")

    def test_api_hangs(self) -> None:
        """One that hangs holds a request up for a while only."""
        self.works(self.first)
        self.broker.forge.troubles.set("hang", USER)
        self.broker.advance(LIFE - limits.REFRESH_LEAD + 1)
        call = self.app.call(self.first["access_token"])
        self.assertFalse(call.answered)
        self.broker.advance(limits.REFRESH_PATIENCE)
        self.broker.reactor.alive[-1].answer_last({"tools": []})
        self.assertEqual(call.status, 200)
        self.broker.forge.troubles.clear()
        self.broker.settle()
        self.to_refresh()
        self.assertEqual(self.works(self.first).status, 200)
