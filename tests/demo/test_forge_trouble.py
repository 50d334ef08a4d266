"""The stand-in's troubles and switches."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.client import ResponseNeverReceived

from fjmcp.demo.forge.standin import StandIn
from tests.demo.standing import TOKEN, URL, Reply, StandInCase

VERSION = "/api/v1/version"


class TroubleTests(StandInCase):
    """Each trouble, in process."""

    def test_status(self) -> None:
        """`status` answers a page that is not JSON, and nothing happens."""
        pair = self.pair()
        self.forge.troubles.set("status", TOKEN, status=502)
        reply = self.refresh(pair["refresh_token"])
        self.assertEqual(reply.status, 502)
        self.assertIn("<html", reply.text)
        self.forge.troubles.clear()
        self.assertEqual(self.refresh(pair["refresh_token"]).status, 200)

    def test_path_and_times(self) -> None:
        """A trouble meets its path, and as often as it says."""
        self.forge.troubles.set("status", "/api/", times=2)
        self.assertEqual(self.ask("GET", "/user/login").status, 200)
        self.assertEqual([self.ask("GET", VERSION).status for _ in range(3)], [503, 503, 200])

    def test_drop(self) -> None:
        """`drop` closes the connection, and nothing happens."""
        pair = self.pair()
        self.forge.troubles.set("drop", times=1)
        self.assertLost(self.asked(pair["refresh_token"]))
        self.assertEqual(self.refresh(pair["refresh_token"]).status, 200)

    def test_lose(self) -> None:
        """`lose` moves the counter, then closes the connection: the token is burnt."""
        pair = self.pair()
        self.forge.troubles.set("lose", TOKEN, times=1)
        self.assertLost(self.asked(pair["refresh_token"]))
        self.assertRefused(
            self.refresh(pair["refresh_token"]), "unauthorized_client", "token was already used"
        )

    def test_hang(self) -> None:
        """`hang` does nothing until it is cleared, and then goes on."""
        pair = self.pair()
        self.forge.troubles.set("hang", TOKEN)
        waiting = self.asked(pair["refresh_token"])
        self.assertNoResult(waiting)
        self.assertEqual(self.forge.troubles.held, 1)
        [grant] = self.forge.grants.live.values()
        self.assertEqual(grant.counter, 1)
        self.forge.troubles.clear()
        self.agent.flush()
        self.assertEqual(self.successResultOf(waiting).status, 200)
        self.assertEqual((grant.counter, self.forge.troubles.held), (2, 0))

    def test_hang_left(self) -> None:
        """A client that leaves is not held any longer, and nothing happens."""
        pair = self.pair()
        self.forge.troubles.set("hang", TOKEN)
        waiting = self.asked(pair["refresh_token"])
        waiting.cancel()
        self.agent.flush()
        self.failureResultOf(waiting, CancelledError, ResponseNeverReceived)
        self.assertEqual(self.forge.troubles.held, 0)
        self.forge.troubles.clear()
        [grant] = self.forge.grants.live.values()
        self.assertEqual(grant.counter, 1)

    def test_slow(self) -> None:
        """`slow` does the work at once and answers later."""
        pair = self.pair()
        self.forge.troubles.set("slow", TOKEN, seconds=30.0, times=1)
        waiting = self.asked(pair["refresh_token"])
        [grant] = self.forge.grants.live.values()
        self.assertEqual(grant.counter, 2)
        self.clock.advance(29)
        self.agent.flush()
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.agent.flush()
        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_slow_until_cleared(self) -> None:
        """`slow` without seconds answers when it is cleared."""
        self.forge.troubles.set("slow")
        waiting = self.start("GET", VERSION)
        self.clock.advance(10_000)
        self.agent.flush()
        self.assertNoResult(waiting)
        self.forge.troubles.clear()
        self.agent.flush()
        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_garble(self) -> None:
        """`garble` does the work and answers 200 with something else than JSON."""
        pair = self.pair()
        self.forge.troubles.set("garble", TOKEN, times=1)
        reply = self.refresh(pair["refresh_token"])
        self.assertEqual(reply.status, 200)
        self.assertIn("<html", reply.text)

    def test_unknown(self) -> None:
        """A trouble that does not exist, or needs a listener, is an error."""
        self.assertRaises(ValueError, self.forge.troubles.set, "flood")
        self.assertRaises(ValueError, self.forge.troubles.set, "refuse")

    def test_refuse(self) -> None:
        """`refuse` closes the door that there is."""
        closed: list[float] = []
        forge = StandIn(self.clock, URL, refuse=closed.append)
        forge.troubles.set("refuse", seconds=3.0)
        self.assertEqual((closed, forge.troubles.current), ([3.0], []))

    def test_calls(self) -> None:
        """Each endpoint's calls are counted, those that met a trouble too."""
        self.forge.troubles.set("status", times=1)
        self.ask("GET", VERSION)
        self.ask("GET", VERSION)
        self.ask("GET", "/api/v1/repos/alice/garden")
        self.assertEqual(self.forge.calls("GET /api/v1/version"), 2)
        self.assertEqual(self.forge.calls("GET /api/v1/repos/<owner>/<name>"), 1)
        self.assertEqual(self.forge.calls("POST /login/oauth/access_token"), 0)

    def asked(self, refresh_token: str) -> Deferred[Reply]:
        """A refresh whose answer may never come."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self.forge.client_id,
            "client_secret": self.forge.client_secret,
        }
        return self.start("POST", TOKEN, form=form)

    def assertLost(self, waiting: Deferred[Reply]) -> None:
        """The connection was closed without an answer."""
        self.agent.flush()
        self.failureResultOf(waiting, ResponseNeverReceived)


class ControlTests(StandInCase):
    """The switches over HTTP."""

    def test_trouble(self) -> None:
        """A trouble is set, shown and cleared; the switches themselves are never troubled."""
        said = {"kind": "status", "path": "/", "status": 502}
        reply = self.ask("POST", "/_demo/trouble", data=said)
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.ask("GET", VERSION).status, 502)
        [trouble] = self.ask("GET", "/_demo/trouble").json["troubles"]
        self.assertEqual((trouble["kind"], trouble["status"]), ("status", 502))
        self.ask("DELETE", "/_demo/trouble")
        self.assertEqual(self.ask("GET", VERSION).status, 200)

    def test_wrong_trouble(self) -> None:
        """A trouble that is not one is refused, and says so."""
        for said in ({"kind": "flood"}, {"kind": "drop", "colour": "red"}, {}):
            reply = self.ask("POST", "/_demo/trouble", data=said)
            self.assertEqual(reply.status, 400)
            self.assertIn("error", reply.json)

    def test_calls(self) -> None:
        """The count of calls can be read and begun anew; switches don't count."""
        self.ask("GET", VERSION)
        self.assertEqual(self.ask("GET", "/_demo/calls").json, {"GET /api/v1/version": 1})
        self.assertEqual(self.ask("DELETE", "/_demo/calls").json, {})

    def test_tokens(self) -> None:
        """A pair without sign-in works as any other."""
        pair = self.ask("POST", "/_demo/tokens", data={"login": "bob", "scope": "all"}).json
        user = self.ask("GET", "/api/v1/user", bearer=pair["access_token"]).json
        self.assertEqual(user["login"], "bob")
        self.assertRaises(LookupError, self.forge.hand_out, "eve", "all")

    def test_revoke(self) -> None:
        """A person's grants end."""
        token = self.pair()["access_token"]
        self.pair("bob")
        left = self.ask("POST", "/_demo/revoke", data={"login": "alice"}).json
        self.assertEqual([grant["person"] for grant in left], [3])
        self.assertEqual(self.ask("GET", "/api/v1/user", bearer=token).status, 401)

    def test_grants(self) -> None:
        """The grants are shown with their counters."""
        self.pair()
        [grant] = self.ask("GET", "/_demo/grants").json
        self.assertEqual((grant["person"], grant["counter"]), (2, 1))

    def test_people(self) -> None:
        """A person can be blocked and let in again."""
        token = self.pair()["access_token"]
        for blocked, status in ((True, 403), (False, 200)):
            said = {"login": "alice", "prohibited": blocked}
            shown = self.ask("POST", "/_demo/people", data=said).json
            self.assertEqual(shown["prohibited"], blocked)
            self.assertEqual(self.ask("GET", "/api/v1/user", bearer=token).status, status)
        self.assertEqual(self.ask("POST", "/_demo/people", data={"login": "eve"}).status, 400)

    def test_administrator(self) -> None:
        """A person can be made an administrator and lose it."""
        token = self.pair()["access_token"]
        for rank in (True, False):
            shown = self.ask("POST", "/_demo/people", data={"login": "alice", "is_admin": rank})
            self.assertEqual(shown.json["is_admin"], rank)
            user = self.ask("GET", "/api/v1/user", bearer=token).json
            self.assertEqual(user["is_admin"], rank)

    def test_teams(self) -> None:
        """A person can be put into a team and taken out, twice as well as once."""
        for said, teams in (
            ({"allotment:visitors": True}, ["Allotment:Keepers", "Allotment:visitors"]),
            ({"allotment:visitors": True}, ["Allotment:Keepers", "Allotment:visitors"]),
            ({"ALLOTMENT:KEEPERS": False, "allotment:visitors": False}, []),
            ({"allotment:keepers": False}, []),
        ):
            shown = self.ask("POST", "/_demo/teams", data={"login": "alice", **said}).json
            self.assertEqual(shown, {"login": "alice", "teams": teams})
        for wrong in ({"login": "eve"}, {"login": "alice", "allotment:kings": True}, {"x": True}):
            self.assertEqual(self.ask("POST", "/_demo/teams", data=wrong).status, 400)

    def test_settings(self) -> None:
        """Lifetimes and invalidation can be changed while it runs."""
        said = {"access_token_seconds": 5, "invalidate_refresh_tokens": False}
        self.assertEqual(self.ask("POST", "/_demo/settings", data=said).status, 200)
        self.assertEqual(self.pair()["expires_in"], 5)
        self.assertFalse(self.forge.grants.invalidate)
        for wrong in ({"colour": 1}, {"access_token_seconds": "5"}):
            self.assertEqual(self.ask("POST", "/_demo/settings", data=wrong).status, 400)

    def test_not_for_browsers(self) -> None:
        """A request that a page makes is refused, at every switch."""
        for method, path in (
            ("GET", "calls"),
            ("POST", "trouble"),
            ("GET", "grants"),
            ("POST", "revoke"),
            ("POST", "people"),
            ("POST", "teams"),
            ("POST", "settings"),
            ("POST", "tokens"),
        ):
            reply = self.ask(method, f"/_demo/{path}", headers={"origin": "https://evil.example"})
            self.assertEqual(reply.status, 403, path)
