"""A program with a token that an operator made, before a whole broker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker import personal_tokens
from fjmcp.broker.personal_tokens import Made
from fjmcp.broker.upkeep import Job
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD, UNKNOWN_SESSION, McpRefusal
from fjmcp.testing.reactor import FakeReactor, now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import WholeBroker
from tests.promises.client import Client, able

DAY = 86400.0


class PersonalTokenTests(SynchronousTestCase):
    """Alice has signed in once, and a token was made for a program of hers."""

    def setUp(self) -> None:
        self.broker = WholeBroker(reactor=FakeReactor(able))
        parts = self.broker.parts
        for part in (parts.upkeep, parts.elsewhere):
            part.start()
            self.addCleanup(part.stop)
        self.app = self.broker.register()
        self.made: list[Made] = []
        self.broker.account("alice")
        self.program = self.make()

    def make(self, life: float = 90 * DAY) -> Client:
        """As the operator's tool does, in another process."""
        at = self.broker.reactor.seconds()
        made = self.broker.store.elsewhere(personal_tokens.make, "Alice", "", at + life, at)
        assert isinstance(made, Made)
        self.made.append(made)
        return Client(self.broker, self.app, {"access_token": made.token.text})

    def assert_refused(self, visit: Visit, refusal: McpRefusal) -> None:
        self.assertEqual(visit.status, refusal.status, visit.body)
        self.assertEqual(visit.json()["error"]["message"], refusal.message)

    def ended(self) -> list[object]:
        """Why grants have ended."""
        return self.rows("SELECT end_reason FROM grants WHERE ended_at IS NOT NULL")

    def rows(self, ask: str) -> list[object]:
        """What stands in the store."""
        rows = now(self.broker.store.read(lambda cursor: cursor.many(ask)))
        return [value for (value,) in rows]

    def test_calls(self) -> None:
        """It opens a session and calls tools as its account, and makes nobody sign in."""
        self.assertEqual(self.program.initialize().status, 200)
        self.program.text()
        (child,) = self.broker.reactor.alive
        alice = Client.of(self.broker, "alice")
        alice.text()
        (_, hers) = self.broker.reactor.alive
        self.assertEqual(hers.env, child.env)

    def test_sessions_apart(self) -> None:
        """The session of one token is none for another, of the same account."""
        other = self.make()
        self.program.initialize()
        other.session = self.program.session
        self.assert_refused(other.call(), UNKNOWN_SESSION)
        self.program.text()

    def test_used(self) -> None:
        """A token that is used now and then works to its own end, not only for the idle days of a
        grant; its child ends with it."""
        for _ in range(3):
            self.broker.advance(29 * DAY)
            self.program.send("ping")
            used = self.broker.reactor.seconds()
            self.broker.advance(limits.FLUSH)
            self.assertEqual(self.rows("SELECT used_at FROM grants"), [used])
        self.assertEqual(self.ended(), [])
        self.broker.advance(3 * DAY - 3 * limits.FLUSH - 1)
        self.program.text()
        self.assertEqual(len(self.broker.reactor.alive), 1)
        self.broker.advance(1)
        self.assert_refused(self.program.send("ping"), BAD_TOKEN)
        self.broker.reactor.pump([limits.EXPIRE / 2] * 2)
        self.assertEqual((self.ended(), self.broker.reactor.alive), (["expired"], []))

    def test_used_just_now(self) -> None:
        """A use counts before it is written down: the sweep for idle grants takes it along."""
        parts = self.broker.parts
        # As if that job had just been done.
        parts.upkeep.also(Job("writing down the use of sessions", DAY, parts.uses.write_down))
        self.broker.advance(limits.GRANT_IDLE - 1)
        self.assertEqual(self.program.send("ping").status, 200)
        self.broker.advance(limits.EXPIRE)
        self.assertEqual(self.ended(), [])

    def test_unused(self) -> None:
        """A token that nothing uses ends as idle, long before its own end."""
        self.broker.advance(limits.GRANT_IDLE)
        self.assertEqual(self.ended(), ["expired"])
        self.assert_refused(self.program.send("ping"), BAD_TOKEN)

    def test_asleep(self) -> None:
        """When Forgejo refuses its account the token sleeps, and wakes when its person signs in
        again, with its session."""
        self.program.initialize()
        self.program.text()
        self.broker.forge.revoke("alice")
        self.broker.advance(3600)
        self.program.call()
        for _ in range(int(2 * limits.REFRESH_SETTLE)):
            self.broker.advance(1)
        self.assert_refused(self.program.call(), CREDENTIAL_DEAD)
        self.assertEqual((self.broker.reactor.alive, self.ended()), ([], []))
        self.broker.signs_in_elsewhere("alice")
        self.program.text()

    def test_revoked(self) -> None:
        """Revoked by the tool it is refused, its child ends, and Alice's assistant goes on."""
        alice, other = Client.of(self.broker, "alice"), self.make()
        for client in (alice, other, self.program):
            client.text()
        started = self.broker.reactor.alive
        at = self.broker.reactor.seconds()
        self.broker.store.elsewhere(personal_tokens.revoke, self.made[0].grant.grant_id, at)
        self.broker.advance(limits.ELSEWHERE)
        self.assert_refused(self.program.call(), BAD_TOKEN)
        self.assertEqual(self.broker.reactor.alive, started[:2])
        for client in (alice, other):
            client.text()
