"""
What the Go broker promised that fjmcp descends from, each by its own name.

Each is tried on the whole broker in memory: a stand-in Forgejo behind it, the
jobs of upkeep on the clock, children that are fakes.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.broker.pool import Bounds
from fjmcp.daemon.options import Options
from fjmcp.demo.forge.grants import ACCESS_SECONDS
from fjmcp.testing.children import FakeChild
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import FakeReactor
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import WholeBroker
from tests.promises.client import TOOLS, Client, able

EXCHANGE = "POST /login/oauth/access_token"


class PromiseCase(SynchronousTestCase):
    """A broker whose upkeep runs, and a client of Alice's."""

    def setUp(self) -> None:
        self.broker = WholeBroker(reactor=FakeReactor(able))
        self.broker.parts.upkeep.start()
        self.addCleanup(self.broker.parts.upkeep.stop)
        self.client = Client.of(self.broker)

    @property
    def alive(self) -> list[FakeChild]:
        """The children that live."""
        return self.broker.reactor.alive

    def stop(self) -> Deferred[None]:
        """Stop the pool, as the daemon does when it stops."""
        return Deferred.fromCoroutine(self.broker.parts.pool.stop(limits.DRAIN))

    def assertRefused(self, visit: Visit, refusal: refusals.McpRefusal) -> None:
        """The refusal, in its own words."""
        self.assertEqual(visit.status, refusal.status, visit.body)
        self.assertEqual(visit.json()["error"]["message"], refusal.message)


class SessionPromises(PromiseCase):
    """Whose session is whose, and which child serves it."""

    def test_first_initialize_mints_an_id_and_dispatches(self) -> None:
        """A first `initialize` is answered by a child, with an id that nobody can guess."""
        visit = self.client.initialize()
        self.assertEqual(visit.json()["result"]["serverInfo"]["name"], "fake")
        self.assertGreaterEqual(len(self.client.session or ""), 32)
        (child,) = self.alive
        self.assertEqual(child.methods(), ["initialize", "notifications/initialized"])
        other = self.client.again()
        other.initialize()
        self.assertNotEqual(other.session, self.client.session)

    def test_known_id_reuses_the_child(self) -> None:
        """Every request with a known id goes to the child that is there."""
        self.client.initialize()
        self.assertEqual(len({self.client.text() for _ in range(10)}), 1)
        self.assertEqual(len(self.broker.reactor.children), 1)

    def test_unknown_id(self) -> None:
        """An id that is none gets 404 and an error, or 410 as the original had it, and no child."""
        self.client.session = "none-of-ours"
        self.assertRefused(self.client.call(), refusals.UNKNOWN_SESSION)
        self.broker.parts.sessions.unknown = refusals.GONE_SESSION
        self.assertRefused(self.client.call(), refusals.GONE_SESSION)
        self.assertEqual(self.broker.reactor.children, [])

    def test_another_accounts_token_is_refused(self) -> None:
        """Bob with Alice's session id gets 403; her child hears nothing, her session stays."""
        self.client.initialize()
        heard = list(self.alive[0].heard)
        bob = Client.of(self.broker, "bob", self.client.app)
        bob.session = self.client.session
        self.assertRefused(bob.call(), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertRefused(bob.delete(), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertEqual([child.heard for child in self.broker.reactor.children], [heard])
        self.client.text()

    def test_no_caller_is_refused_loudly(self) -> None:
        """Without a token, or with a bad one, it is 401 and where to get one, whatever is sent."""
        self.client.initialize()
        self.client.tokens = {"access_token": "nobodys"}
        for visit in (self.client.call(), self.client.initialize(), self.client.delete()):
            self.assertRefused(visit, refusals.BAD_TOKEN)
            self.assertIn("/.well-known/oauth-protected-resource/mcp", challenge(visit))
        visit = self.broker.visitor().post_json("/mcp", {})
        self.assertRefused(visit, refusals.NO_TOKEN)
        self.assertIn("/.well-known/oauth-protected-resource/mcp", challenge(visit))
        self.assertEqual(len(self.broker.reactor.children), 1)


class ChildPromises(PromiseCase):
    """How children begin and end."""

    def test_cap_with_retry_after(self) -> None:
        """At the cap, with every child busy, it is 503 and when to come again; then it works."""
        self.broker.parts.pool.rebound(Bounds(children=1))
        self.client.initialize()
        busy = self.client.call("wait")
        other = Client.of(self.broker, "bob")
        refused = other.initialize()
        self.assertRefused(refused, refusals.CHILDREN_FULL)
        self.assertEqual(refused.header("retry-after"), str(limits.RETRY_AFTER))
        self.assertEqual(len(self.broker.reactor.children), 1)
        self.alive[0].answer_last({"content": []})
        self.assertTrue(busy.ended)
        self.assertEqual(other.initialize().status, 200)
        self.assertEqual(len(self.alive), 1)
        self.client.text()

    def test_childs_end_is_noticed(self) -> None:
        """A child that ends by itself answers nobody: its call says so, the next gets another."""
        self.client.initialize()
        waiting = self.client.call("wait")
        self.alive[0].exit(3)
        self.broker.settle()
        self.assertEqual(
            waiting.json()["error"]["message"], refusals.CHILD_CRASHED.message, waiting.body
        )
        self.assertEqual(self.broker.parts.pool.links(), ())
        self.client.text()
        self.assertEqual(len(self.alive), 1)

    def test_stop_ends_every_child(self) -> None:
        """After a stop no child lives, not one that ignores its signals either."""
        clients = [Client.of(self.broker, login) for login in ("alice", "bob")]
        for client in clients:
            client.initialize()
        self.alive[0].ignores |= {"EOF", "TERM"}
        stopped = self.stop()
        self.broker.advance(limits.CLOSE_WAIT)
        self.broker.advance(limits.TERM_WAIT)
        self.successResultOf(stopped)
        self.assertEqual(self.alive, [])
        self.assertRefused(clients[0].call(), refusals.SHUTTING_DOWN)

    def test_stop_twice_is_harmless(self) -> None:
        """A second stop, during the first and after it, ends as the first does."""
        self.client.initialize()
        self.alive[0].ignores.add("EOF")
        first, second = self.stop(), self.stop()
        self.broker.advance(limits.CLOSE_WAIT)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.stop())
        self.assertEqual(self.alive, [])

    def test_idle_eviction(self) -> None:
        """A child that nobody asks for long goes; its session does not."""
        self.client.initialize()
        before = self.client.text()
        self.broker.advance(limits.SESSION_IDLE + limits.REAP)
        self.assertEqual(self.alive, [])
        self.assertNotEqual(self.client.text(), before)
        self.assertEqual(len(self.broker.reactor.children), 2)

    def test_recently_active_survives_sweeps(self) -> None:
        """A child that is asked now and then survives every sweep."""
        self.client.initialize()
        for _ in range(8):
            self.broker.advance(limits.SESSION_IDLE / 4)
            self.client.text()
        self.assertEqual(len(self.broker.reactor.children), 1)

    def test_busy_survives_sweeps(self) -> None:
        """A child with a call in flight is not idle, however long the call takes."""
        self.client.initialize()
        self.client.call("wait")
        self.broker.advance(limits.CALL - 1)
        self.assertEqual(len(self.alive), 1)

    def test_child_outlives_the_request_that_started_it(self) -> None:
        """A client that leaves while its child starts leaves the child to whoever comes next."""
        self.broker.reactor.mind = lambda child, message: None
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
        }
        visit = self.broker.visitor().post_json(
            "/mcp", message, authorization=f"Bearer {self.client.tokens['access_token']}"
        )
        self.broker.settle()
        visit.leave()
        (child,) = self.alive
        child.mind = able
        able(child, child.heard[0])
        self.broker.settle()
        self.assertFalse(child.over)
        self.client.initialize()
        self.client.text()
        self.assertEqual(len(self.broker.reactor.children), 1)


class CredentialPromises(PromiseCase):
    """What a rotation of the upstream tokens does to sessions."""

    def token_of(self, child: FakeChild) -> str:
        """What a child was born with."""
        return child.env["FORGEJO_ACCESS_TOKEN"]

    def to_rotation(self) -> None:
        """Go on until the tokens are nearly due; somebody works all the while."""
        due = self.broker.reactor.seconds() + ACCESS_SECONDS - limits.REFRESH_LEAD
        while self.broker.reactor.seconds() < due - 2 * limits.ROTATE:
            self.client.text()
            self.broker.advance(limits.ROTATE)

    def sweep(self, times: int = 1) -> None:
        """Let a rotation happen, and Forgejo's answers come."""
        for _ in range(times):
            self.broker.advance(limits.ROTATE)
            for _ in range(3):
                self.broker.settle()

    def test_rotation_keeps_the_id_and_swaps_the_child(self) -> None:
        """Tokens are renewed ahead of their end: another child, the same session, no call lost."""
        self.client.initialize()
        session, (old,) = self.client.session, self.alive
        self.to_rotation()
        waiting = self.client.call("wait")
        while len(self.alive) == 1:
            self.broker.advance(1.0)
        new = next(child for child in self.alive if child is not old)
        self.assertNotEqual(self.token_of(new), self.token_of(old))
        self.assertEqual(new.methods()[:2], ["initialize", "notifications/initialized"])
        self.assertIn(f"child {new.number}", self.client.text())
        old.answer_last({"content": []})
        self.broker.settle()
        (answer,) = waiting.events()
        self.assertIn(b'"result"', answer)
        self.broker.advance(limits.DRAIN)
        self.assertEqual(self.alive, [new])
        self.assertEqual(self.client.session, session)
        self.client.text()

    def test_refresh_failure(self) -> None:
        """
        A refresh that is refused ends what it must, one in trouble nothing.

        Trouble: everything works on the old token, and is renewed when Forgejo
        is back.  Refused: 401, the grant sleeps without using up its refresh
        token, and one sign-in revives it with its session.
        """
        self.client.initialize()
        self.broker.forge.troubles.set("status", "/login/oauth/access_token", status=502)
        self.to_rotation()
        self.sweep(3)
        self.client.text()
        self.assertEqual(len(self.broker.reactor.children), 1)
        self.broker.forge.troubles.clear()
        self.sweep(2)
        self.client.text()
        self.assertEqual(len(self.broker.reactor.children), 2)

        self.broker.forge.revoke("alice")
        self.to_rotation()
        self.sweep(3)
        for _ in range(int(2 * limits.REFRESH_SETTLE / limits.REFRESH_POLL)):
            self.broker.advance(limits.REFRESH_POLL)
        self.assertRefused(self.client.call(), refusals.CREDENTIAL_DEAD)
        self.assertEqual(self.alive, [])
        refresh = self.client.tokens["refresh_token"]
        denied = self.client.app.refresh(refresh)
        self.assertEqual((denied.status, denied.json()["error"]), (400, "invalid_grant"))
        self.broker.signs_in_elsewhere("alice")
        self.client.tokens = self.client.app.refresh(refresh).json()
        self.client.text()


class WholePromises(PromiseCase):
    """From the registration to the first list of tools."""

    def test_end_to_end_through_register_authorize_callback_token_initialize_tools_list(
        self,
    ) -> None:
        """A stranger registers, a person allows it and signs in, and the tools are listed."""
        app = self.broker.register()
        back = app.sign_in("bob")
        self.assertEqual((back["state"], back["iss"]), ("the-state", PUBLIC_URL))
        self.assertEqual(self.broker.forge.calls(EXCHANGE), 1)
        tokens = app.redeem(back["code"]).json()
        client = Client(self.broker, app, tokens)
        self.assertEqual(client.initialize().status, 200)
        self.assertEqual(client.send("tools/list").json()["result"], TOOLS)
        self.assertEqual(client.delete().status, 204)
        self.assertRefused(client.call(), refusals.UNKNOWN_SESSION)


class ConfigurationPromises(SynchronousTestCase):
    """What is said before anything runs."""

    def end(self, *arguments: str) -> tuple[object, str, str]:
        """Status and both outputs of a command line that ends."""
        out, err = io.StringIO(), io.StringIO()
        environ = {"STATE_DIRECTORY": str(Path(self.mktemp()).absolute())}
        with redirect_stdout(out), redirect_stderr(err):
            ended = self.assertRaises(SystemExit, Options(environ).parseOptions, list(arguments))
        return ended.code, out.getvalue(), err.getvalue()

    def test_version_without_configuration(self) -> None:
        """`--version` needs no configuration."""
        status, out, err = self.end("--version")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"\Afjmcp \S+ \(revision \S+, built \S+\)\n")

    def test_configuration_errors_together(self) -> None:
        """All that is wrong is said at once, each with its option, variable and an example."""
        status, out, err = self.end("--max-sessions=none", "--session-idle-timeout=soon")
        self.assertEqual((status, out), (2, ""))
        for name in (
            "public-url",
            "forgejo-url",
            "forgejo-oauth-client-id",
            "forgejo-oauth-client-secret",
            "max-sessions",
            "session-idle-timeout",
        ):
            self.assertIn(f"--{name}", err)
            self.assertIn("FJMCP_" + name.upper().replace("-", "_"), err)


def challenge(visit: Visit) -> str:
    """How a client is told where to get a token."""
    return visit.header("www-authenticate") or ""
