"""What another process changes in the store, and how soon it holds here."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.callers import Caller
from fjmcp.broker.elsewhere import Elsewhere
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD, GRANT_ENDED, McpRefusal
from fjmcp.store.queries import grants
from fjmcp.tasks import Tasks
from fjmcp.testing.reactor import now
from tests.broker.desk import ADA, BOB, Desk, kill_account

UNSEEN = "what other processes change cannot be seen just now: {error}"


class Broken(Exception):
    """A bug, as planned."""


class ElsewhereTests(SynchronousTestCase):
    """Ada's grant and Bob's, both seen, and looks that have begun."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.ada, self.bob = self.desk.issue().access, self.desk.issue(account_id=BOB).access
        self.grant, self.other = self.desk.grant_of(self.ada), self.desk.grant_of(self.bob)
        self.tasks = Tasks()
        self.elsewhere = self.looks()
        self.elsewhere.start()
        self.find(self.ada)
        self.find(self.bob)

    def looks(self) -> Elsewhere:
        desk = self.desk
        looks = Elsewhere(desk.store, desk.callers, desk.endings, self.tasks, desk.clock)
        self.addCleanup(looks.stop)
        return looks

    def find(self, token: TokenText) -> Caller:
        caller = self.desk.find(token)
        assert isinstance(caller, Caller), caller
        return caller

    def end_elsewhere(self, grant_id: str, reason: str = "operator") -> None:
        self.desk.memory.elsewhere(grants.end, grant_id, reason, self.desk.clock.seconds())

    def next_look(self) -> None:
        self.desk.clock.advance(limits.ELSEWHERE)

    @property
    def seen(self) -> int:
        return len(self.desk.callers._seen)

    @property
    def ended(self) -> list[tuple[str, McpRefusal]]:
        return self.desk.runs.ended

    # --- what is noticed ---------------------------------------------------------------

    def test_ended(self) -> None:
        """A grant that ended elsewhere is refused after the next look, and what runs for it is
        told, with its reason in the log; nothing else ends."""
        self.end_elsewhere(self.grant)
        self.find(self.ada)
        with capturedLogs() as events:
            self.next_look()
        self.assertIs(self.desk.find(self.ada), BAD_TOKEN)
        self.find(self.bob)
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])
        said = [(event["log_format"], event["grant"], event["reason"]) for event in events]
        self.assertEqual(said, [("grant ended", self.grant, "operator")])

    def test_runs_unseen(self) -> None:
        """What runs for a grant ends, though no token of it is known any more."""
        self.desk.callers.forget(self.grant)
        self.desk.runs.ours = {self.grant}
        self.end_elsewhere(self.grant)
        self.next_look()
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])

    def test_nothing_ended(self) -> None:
        """Another change ends nothing; the next request asks the store, whatever was changed."""
        self.desk.memory.elsewhere(kill_account, ADA)
        self.next_look()
        self.assertEqual(self.ended, [])
        self.assertIs(self.desk.find(self.ada), CREDENTIAL_DEAD)
        self.find(self.bob)

    def test_own_changes(self) -> None:
        """What this process writes itself empties nothing."""
        now(self.desk.store.write(grants.touch, {self.grant: self.desk.clock.seconds() + 1}))
        self.next_look()
        self.assertEqual(self.seen, 2)

    def test_row_gone(self) -> None:
        """A grant whose row was deleted has ended, too."""
        self.desk.memory.elsewhere(
            lambda cursor: cursor.execute("DELETE FROM grants WHERE grant_id = ?", self.grant)
        )
        self.next_look()
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])

    def test_before_the_first_look(self) -> None:
        """The first look takes in what was changed before it."""
        self.elsewhere.stop()
        self.end_elsewhere(self.grant)
        self.looks().start()
        self.assertIs(self.desk.find(self.ada), BAD_TOKEN)
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])

    # --- in which order ------------------------------------------------------------------

    def test_forgotten_first(self) -> None:
        """The callers are empty before it is asked which grants have ended."""
        self.end_elsewhere(self.grant)
        self.desk.late.held = []
        self.next_look()
        self.assertEqual((self.seen, self.ended), (0, []))
        asked = Deferred.fromCoroutine(self.desk.callers.find(self.ada))
        self.desk.late.deliver()
        self.assertIs(self.successResultOf(asked), BAD_TOKEN)
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])

    def test_look_up_under_way(self) -> None:
        """A look-up that read before the change and answers after the look accepts nothing."""
        self.desk.callers.forget(self.grant)
        self.desk.late.held = []
        asked = Deferred.fromCoroutine(self.desk.callers.find(self.ada))
        self.end_elsewhere(self.grant)
        self.next_look()
        self.assertNoResult(asked)
        self.desk.late.deliver()
        self.assertIs(self.successResultOf(asked), BAD_TOKEN)
        self.assertNotIn(digest(self.ada).value, self.desk.callers._seen)

    def test_slow_end(self) -> None:
        """A grant that takes long to end delays no look, and is not ended twice."""
        self.desk.runs.ours = {self.grant, self.other}
        self.desk.runs.waits = []
        self.end_elsewhere(self.grant)
        self.next_look()
        self.end_elsewhere(self.other)
        self.next_look()
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED), (self.other, GRANT_ENDED)])
        settled = Deferred.fromCoroutine(self.tasks.settle())
        self.assertNoResult(settled)
        for wait in self.desk.runs.waits:
            wait.callback(None)
        self.successResultOf(settled)
        self.assertEqual(self.desk.endings._ending, set())

    # --- trouble ---------------------------------------------------------------------------

    def test_store_down(self) -> None:
        """While the store is down nothing ends and who is known goes on; it is said once, and
        what happened meanwhile is found after it."""
        self.desk.memory.fail_all()
        self.end_elsewhere(self.grant)
        with capturedLogs() as events:
            for _ in range(3):
                self.next_look()
        self.assertEqual([event["log_format"] for event in events], [UNSEEN])
        self.find(self.ada)
        self.assertEqual(self.ended, [])
        self.desk.memory.fail_all(False)
        self.next_look()
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])
        self.assertIs(self.desk.find(self.ada), BAD_TOKEN)

    def test_down_in_between(self) -> None:
        """Where the change was seen and the grants could not be asked for, they are at the next
        look, though nothing has changed since and no token is known any more."""
        self.desk.runs.ours = {self.grant}
        _, reader = self.desk.memory.lanes
        reader.down = True
        self.end_elsewhere(self.grant)
        self.next_look()
        self.assertEqual((self.seen, self.ended), (0, []))
        self.desk.runs.ours = set()
        reader.down = False
        self.next_look()
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])
        self.assertIs(self.desk.find(self.ada), BAD_TOKEN)

    def test_bug(self) -> None:
        """A look survives its own exception, which is logged once, and the next one works."""
        self.desk.runs.broken = Broken()
        self.end_elsewhere(self.grant)
        for _ in range(3):
            self.next_look()
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)
        self.desk.runs.broken = None
        self.next_look()
        self.assertEqual(self.ended, [(self.grant, GRANT_ENDED)])

    def test_end_fails(self) -> None:
        """What fails while a grant ends stops neither the other ends nor the looks."""
        self.desk.runs.fails = Broken()
        self.end_elsewhere(self.grant)
        self.end_elsewhere(self.other)
        self.next_look()
        self.assertEqual({grant for grant, _ in self.ended}, {self.grant, self.other})
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 2)
        self.assertEqual(self.desk.endings.running(), set())
        self.find(self.desk.issue().access)
        self.desk.memory.elsewhere(kill_account, ADA)
        self.next_look()
        self.assertEqual(self.seen, 0)

    # --- the end -----------------------------------------------------------------------------

    def test_stop(self) -> None:
        """After the stop nothing is looked for, and a look under way ends nothing."""
        self.end_elsewhere(self.grant)
        self.desk.late.held = []
        self.next_look()
        self.elsewhere.stop()
        self.desk.late.deliver()
        self.next_look()
        self.assertEqual((self.ended, self.desk.clock.getDelayedCalls()), ([], []))

    def test_stopped_before_its_answer(self) -> None:
        """A look whose answer comes after the stop asks the store nothing more, nor complains."""
        self.desk.memory.hold()
        self.end_elsewhere(self.grant)
        self.next_look()
        self.elsewhere.stop()
        with capturedLogs() as events:
            self.assertEqual(self.desk.memory.release(), 1)
        self.assertEqual((self.ended, self.seen, events), ([], 2, []))
