"""Registrations: made, read, taken back."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.daemon import preregistered
from fjmcp.oauth.clientele import Clientele
from fjmcp.store.queries import expiry
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import CLIENT_URL, FORGE_URL, WholeBroker
from tests.oauth.captured import CLAUDE, REGISTRATIONS, Registration
from tests.web.whole import BrokerCase

FORM = "application/x-www-form-urlencoded"


class RegisterTests(BrokerCase):
    def register(self, body: object) -> Visit:
        return self.broker.visitor().post_json("/oauth/register", body)

    def test_methods(self) -> None:
        """Each of the three methods is registered; only those with a secret are given one."""
        for method, secret in (
            ("none", False),
            ("client_secret_post", True),
            ("client_secret_basic", True),
        ):
            visit = self.register(
                {"redirect_uris": [CLIENT_URL], "token_endpoint_auth_method": method}
            )
            answer = visit.json()
            self.assertEqual((visit.status, answer["token_endpoint_auth_method"]), (201, method))
            self.assertEqual("client_secret" in answer, secret)
            self.assertEqual(answer.get("client_secret_expires_at"), 0 if secret else None)
            self.assertEqual(visit.header("cache-control"), "no-store")

    def test_refused(self) -> None:
        """What cannot be registered is refused in the words of RFC 7591, and not kept."""
        before = self.count("clients")
        for body, error in (
            ([], "invalid_client_metadata"),
            ("x", "invalid_client_metadata"),
            ({}, "invalid_redirect_uri"),
            ({"redirect_uris": []}, "invalid_redirect_uri"),
            ({"redirect_uris": [CLIENT_URL, 1]}, "invalid_redirect_uri"),
            ({"redirect_uris": ["https://client.example/#x"]}, "invalid_redirect_uri"),
            ({"redirect_uris": ["https://*.example/"]}, "invalid_redirect_uri"),
            ({"redirect_uris": ["http://client.example/"]}, "invalid_redirect_uri"),
            ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
            (
                {"redirect_uris": [f"https://c.example/{n}" for n in range(11)]},
                "invalid_redirect_uri",
            ),
            (
                {"redirect_uris": [CLIENT_URL], "token_endpoint_auth_method": "private_key_jwt"},
                "invalid_client_metadata",
            ),
            (
                {"redirect_uris": [CLIENT_URL], "grant_types": ["client_credentials"]},
                "invalid_client_metadata",
            ),
            (
                {"redirect_uris": [CLIENT_URL], "response_types": ["token"]},
                "invalid_client_metadata",
            ),
        ):
            self.assert_error(self.register(body), error)
        self.assertEqual(self.count("clients"), before)

    def test_unreadable(self) -> None:
        """A body that is no JSON, not UTF-8, of another type or too large is refused."""
        visitor = self.broker.visitor()
        good = b'{"redirect_uris":["https://client.example/callback"]}'
        for body, content_type, status in (
            (b"{", "application/json", 400),
            (b"\xff", "application/json", 400),
            (b"[" * 10_000, "application/json", 400),
            (good, "text/plain", 400),
            (good, FORM, 400),
            (b" " * limits.REGISTRATION_BODY + good, "application/json", 413),
        ):
            visit = visitor.send("POST", "/oauth/register", body, {"content-type": content_type})
            self.assertEqual(visit.status, status, body[:20])
            self.assertIn("error", visit.json())
        visit = visitor.send(
            "POST", "/oauth/register", good, {"content-type": "application/json; charset=utf-8"}
        )
        self.assertEqual(visit.status, 201)

    def test_store_down(self) -> None:
        """Without a store nobody is registered: 503, and when to come back."""
        self.broker.store.fail_all()
        self.assert_down(self.register({"redirect_uris": [CLIENT_URL]}))

    def test_real_clients(self) -> None:
        """Every captured client registers, is told nothing that is null, comes to its consent page
        with each of its redirect URIs, and reads its registration."""
        for name, body in REGISTRATIONS.items():
            visit = self.register(body)
            self.assertEqual(visit.status, 201, name)
            answer = visit.json()
            self.assertEqual(answer["redirect_uris"], body["redirect_uris"], name)
            self.assertNotIn(None, answer.values(), name)
            secret = body["token_endpoint_auth_method"] != "none"
            self.assertEqual(answer.get("client_secret_expires_at"), 0 if secret else None, name)
            app = self.broker.app(answer)
            for uri in body["redirect_uris"]:
                self.assertEqual(app.open(redirect_uri=uri).status, 200, (name, uri))
            self.assertEqual(read(self, answer).status, 200, name)

    def test_twice(self) -> None:
        """claude.ai registers twice, a second apart: it is one client, and either answer works to
        the end."""
        first = self.register(CLAUDE).json()
        self.broker.advance(1.0)
        second = self.register(CLAUDE).json()
        self.assertEqual(first["client_id"], second["client_id"])
        self.assertNotEqual(first["client_secret"], second["client_secret"])
        for answer in (first, second):
            app = self.broker.app(answer)
            self.assertEqual(app.refresh(app.tokens()["refresh_token"]).status, 200)

    def test_never_trapped(self) -> None:
        """A client with a live grant is known after a year of other registrations and sweeps; one
        that nobody used is told to register again."""
        unused = self.register(CLAUDE | {"client_name": "unused"}).json()
        app = self.broker.app(self.register(CLAUDE).json())
        tokens = app.tokens()
        for _ in range(8):
            self.broker.advance(limits.GRANT_IDLE - 1)
            tokens = app.refresh(tokens["refresh_token"]).json()
            now(self.broker.parts.registrar.expire())
            if "refresh_token" not in tokens:
                break
        self.assertEqual(tokens["error"], "invalid_grant", "the grant is a year old")
        self.assertEqual(self.broker.app(unused).redeem("x").json()["error"], "invalid_client")
        self.assertEqual(app.redeem("x").json()["error"], "invalid_grant")


class ClosedTests(BrokerCase):
    """A server that takes certain clients, or registers none."""

    def test_clients(self) -> None:
        """A client that comes back to a host that is not taken is neither registered nor, once the
        list is shorter, let on: a page, and `invalid_client` at the token endpoint."""
        tokens = self.app.tokens()
        self.broker.parts.registrar.clientele = Clientele.parse("known")
        visit = self.broker.visitor().post_json("/oauth/register", {"redirect_uris": [CLIENT_URL]})
        self.assert_error(visit, "invalid_redirect_uri")
        self.assertIn("client.example", visit.json()["error_description"])
        page = self.app.open()
        self.assert_page(page, 403)
        self.assertIn("client.example", page.text)
        self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_client", 401)
        self.assertEqual(self.broker.visitor().post_json("/oauth/register", CLAUDE).status, 201)
        self.broker.parts.registrar.clientele = Clientele()
        self.assertEqual(self.app.refresh(tokens["refresh_token"]).status, 200)

    def test_our_own_hosts(self) -> None:
        """Nobody comes back to this server's host or to Forgejo's, which people trust, whether it
        registers, did so at an older version, or is named by a document there."""
        ours = self.broker.parts.registrar.clientele
        for uri in (f"{PUBLIC_URL}/mcp", f"{FORGE_URL}:8443/alice/page", f"{FORGE_URL}/"):
            self.broker.parts.registrar.clientele = Clientele()
            app = self.broker.register(redirect_uris=[uri])
            self.broker.parts.registrar.clientele = ours
            self.assert_page(app.open(), 403)
            again = {"redirect_uris": [uri, CLIENT_URL]}
            visit = self.broker.visitor().post_json("/oauth/register", again)
            self.assert_error(visit, "invalid_redirect_uri")
        document = {"client_id": f"{FORGE_URL}/client.json", "redirect_uris": [CLIENT_URL]}
        self.broker.publishers.publish(document)
        self.assert_page(self.broker.known_by(document).open(), 403)
        self.assertEqual(self.broker.publishers.asked, [])

    def test_closed(self) -> None:
        """Without registration nobody is registered, and the metadata does not promise it; who is
        registered goes on."""
        broker = WholeBroker(settings={"registration": False})
        visit = broker.visitor().post_json("/oauth/register", CLAUDE)
        self.assert_error(visit, "access_denied", 403)
        server = broker.visitor().get("/.well-known/oauth-authorization-server").json()
        self.assertNotIn("registration_endpoint", server)


class PreregisteredTests(SynchronousTestCase):
    """Clients of the configuration."""

    def test_whole_way(self) -> None:
        """Id and secret typed into an assistant lead to tokens, whichever way the secret is sent,
        though nobody may register and only other hosts are taken."""
        mine = preregistered.parse("id=our-claude redirect=https://claude.ai/api/mcp/auth_callback")
        secret = "a-secret-of-ours"
        broker = WholeBroker(
            settings={
                "registration": False,
                "clients": Clientele.parse("chatgpt.com"),
                "preregistered_clients": (mine.client(secret),),
            }
        )
        for method in ("client_secret_post", "client_secret_basic"):
            app = broker.app(
                {
                    "client_id": "our-claude",
                    "client_secret": secret,
                    "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
                    "token_endpoint_auth_method": method,
                }
            )
            browser = broker.browser()
            browser.stops = ("https://claude.ai/",)
            answer = app.sign_in(browser=browser)
            tokens = app.redeem(answer["code"]).json()
            self.assertEqual(app.knocks(tokens["access_token"]), 200)
            self.assertEqual(app.refresh(tokens["refresh_token"]).status, 200)
            other = broker.app(app.registered | {"client_secret": "another"})
            self.assert_client_unknown(other.refresh(tokens["refresh_token"]))

    def assert_client_unknown(self, visit: Visit) -> None:
        self.assertEqual((visit.status, visit.json()["error"]), (401, "invalid_client"))


class UseTests(BrokerCase):
    def test_upkeep(self) -> None:
        """The daemon's upkeep forgets a client that nobody came to use, and no other."""
        self.app.tokens()
        unused = self.broker.register()
        self.broker.parts.upkeep.start()
        self.addCleanup(self.broker.parts.upkeep.stop)
        self.broker.advance(limits.CLIENT_UNUSED - 1)
        self.assertEqual(read(self, unused.registered).status, 200)
        self.broker.advance(limits.EXPIRE + 1)
        self.assertEqual(read(self, unused.registered).status, 401)
        self.assertEqual(read(self, self.app.registered).status, 200)

    def test_refresh_is_use(self) -> None:
        """A client is known for a year after its last refresh, not only after its last code."""
        tokens = self.app.tokens()
        self.broker.advance(limits.GRANT_IDLE / 2)
        tokens = self.app.refresh(tokens["refresh_token"]).json()
        self.assertEqual(self.app.revoke(tokens["refresh_token"]).status, 200)
        self.broker.advance(limits.CLIENT_IDLE - 1)
        self.expire()
        self.assertEqual(read(self, self.app.registered).status, 200)
        self.broker.advance(1)
        self.expire()
        self.assertEqual(read(self, self.app.registered).status, 401)

    def expire(self) -> None:
        now(self.broker.store.write(expiry.sweep, self.broker.reactor.seconds()))
        now(self.broker.parts.registrar.expire())


class ManageTests(BrokerCase):
    """RFC 7592."""

    def test_read(self) -> None:
        """A registration is read as it was answered, but for the secret, which is told once."""
        for method in ("none", "client_secret_post", "client_secret_basic"):
            answer = self.broker.register(token_endpoint_auth_method=method).registered
            visit = read(self, answer)
            self.assertEqual(visit.status, 200)
            told = {n: v for n, v in answer.items() if not n.startswith("client_secret")}
            self.assertEqual(visit.json(), told)

    def test_delete(self) -> None:
        """A registration that is taken back ends its client: 204, then its tokens and codes are
        refused, and reading is a 401."""
        tokens = self.app.tokens()
        self.app.call(tokens["access_token"])
        child = self.child()
        code = self.app.code()
        visit = manage(self, "DELETE", self.app.registered)
        self.assertFalse(visit.answered, "nothing is said before all has ended")
        self.broker.settle()
        self.assertTrue(child.over)
        self.assertEqual((visit.status, visit.body), (204, b""))
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)
        self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_client", 401)
        self.assert_error(self.app.redeem(code), "invalid_client", 401)
        self.assert_page(self.app.open())
        self.assertEqual(read(self, self.app.registered).status, 401)

    def test_delete_of_many(self) -> None:
        """No token of a client that goes works on while the children of its others still end."""
        tokens = [self.app.tokens() for _ in range(4)]
        for each in tokens:
            self.app.call(each["access_token"])
        for child in self.broker.reactor.alive:
            child.ignores = {"EOF", "TERM", "KILL"}
        visit = manage(self, "DELETE", self.app.registered)
        self.broker.advance(1)
        self.assertFalse(visit.answered)
        self.assertEqual([self.app.knocks(each["access_token"]) for each in tokens], [401] * 4)
        while not visit.answered:
            self.broker.advance(1)
        self.assertEqual(visit.status, 204)

    def test_delete_one_of_two(self) -> None:
        """A client that registered twice, as claude.ai does, takes back what it used with the
        tokens that came of it; the other registration, and whoever has it, goes on."""
        same = {"client_name": "Twice", "token_endpoint_auth_method": "client_secret_post"}
        one, two = self.broker.register(**same), self.broker.register(**same)
        self.assertEqual(one.client_id, two.client_id)
        mine, theirs = one.tokens(), two.tokens()
        code = two.code()
        self.assertEqual(manage(self, "DELETE", two.registered).status, 204)
        self.assertEqual(two.knocks(theirs["access_token"]), 401)
        self.assert_error(two.refresh(theirs["refresh_token"]), "invalid_client", 401)
        self.assert_error(two.redeem(code), "invalid_client", 401)
        self.assertEqual(one.knocks(mine["access_token"]), 200)
        self.assertEqual(one.refresh(mine["refresh_token"]).status, 200)

    def test_delete_in_mid_redeem(self) -> None:
        """A code that is redeemed while its client is taken back gives no grant."""
        same = {"client_name": "Twice", "token_endpoint_auth_method": "client_secret_post"}
        alone, twin = self.broker.register(), self.broker.register(**same)
        self.broker.register(**same)
        for app in (alone, twin):
            code = app.code()
            self.broker.store.hold()
            redeemed = app.redeem(code)
            self.broker.store.release(1)
            deleted = manage(self, "DELETE", app.registered)
            # The withdrawal is written first, as it may be where several write.
            held = self.broker.store.lanes[0].held
            assert held is not None
            held.insert(0, held.pop())
            self.broker.store.release()
            self.broker.settle()
            self.assertEqual(deleted.status, 204)
            self.assert_error(redeemed, "invalid_client", 401)
            self.assertEqual(self.live_grants(), 0)

    def test_unproved(self) -> None:
        """Without the token of this very registration: 401 with a challenge, and nothing ends."""
        other = self.broker.register()
        mine = self.app.registered
        for token in (
            None,
            "",
            "fjm_wrong",
            other.registered["registration_access_token"],
            self.app.tokens()["access_token"],
        ):
            for method in ("GET", "DELETE"):
                visit = manage(self, method, mine, token=token)
                self.assert_error(visit, "invalid_token", 401)
                self.assertIn("Bearer", visit.header("www-authenticate") or "")
        for target in ("/oauth/register", "/oauth/register?client_id=fj-nobody"):
            visit = self.broker.visitor().send(
                "GET",
                target,
                headers={"authorization": f"Bearer {mine['registration_access_token']}"},
            )
            self.assert_error(visit, "invalid_token", 401)
        self.assertEqual(read(self, mine).status, 200)

    def test_update(self) -> None:
        """A registration is not updated: what a person consented to stays what it was."""
        self.assertEqual(manage(self, "PUT", self.app.registered).status, 405)

    def test_store_down(self) -> None:
        """Without a store: 503, and when to come back."""
        self.broker.store.fail_all()
        for method in ("GET", "DELETE"):
            self.assert_down(manage(self, method, self.app.registered))


def read(case: BrokerCase, answer: Registration) -> Visit:
    """GET of a registration, with its own token."""
    return manage(case, "GET", answer)


def manage(case: BrokerCase, method: str, answer: dict[str, Any], **changes: str | None) -> Visit:
    """A request to where a registration says that it is managed."""
    token = {"token": answer["registration_access_token"]} | changes
    headers = {} if token["token"] is None else {"authorization": f"Bearer {token['token']}"}
    target = answer["registration_client_uri"].removeprefix(PUBLIC_URL)
    return case.broker.visitor().send(method, target, headers=headers)
