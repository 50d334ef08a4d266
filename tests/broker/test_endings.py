"""The two doors by which a grant ends or sleeps."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.callers import Caller
from fjmcp.broker.issuer import Issued
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD, GRANT_ENDED
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.reactor import now
from tests.broker.desk import ADA, BOB, TWO, Desk, Runs, kill_account


class EndingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.desk = Desk()
        self.issued = self.desk.issue()
        self.grant_id = self.desk.grant_of(self.issued.access)
        self.desk.find(self.issued.access)

    def start(self, reason: str = "revoked") -> Deferred[None]:
        return Deferred.fromCoroutine(self.desk.endings.end(self.grant_id, reason))

    def test_end(self) -> None:
        """An ended grant is closed with its reason, its tokens go, and what runs is told."""
        self.successResultOf(self.start("operator"))
        self.assertEqual(
            self.desk.rows("SELECT ended_at, end_reason FROM grants"),
            [(self.desk.clock.seconds(), "operator")],
        )
        self.assertEqual(self.desk.rows("SELECT * FROM access_tokens"), [])
        self.assertEqual(self.desk.runs.ended, [(self.grant_id, GRANT_ENDED)])

    def test_callers_first(self) -> None:
        """When what runs is told, no token of the grant is known any more."""
        self.successResultOf(self.start())
        self.assertEqual(self.desk.runs.seen, [0])

    def test_waits(self) -> None:
        """The end is answered when all that ran has ended, and the tokens are refused before."""
        self.desk.runs.waits = []
        slow = Runs(waits=[])
        self.desk.endings.also_end(slow)
        ending = self.start()
        self.assertEqual(len(slow.ended), 1)
        self.assertIs(self.desk.find(self.issued.access), BAD_TOKEN)
        self.desk.runs.waits[0].callback(None)
        self.assertNoResult(ending)
        assert slow.waits is not None
        slow.waits[0].callback(None)
        self.successResultOf(ending)

    def test_one_fails(self) -> None:
        """What fails to end keeps nothing else from it, and is logged."""
        self.desk.runs.fails = ZeroDivisionError()
        other = Runs()
        self.desk.endings.also_end(other)
        self.successResultOf(self.start())
        self.assertEqual(len(other.ended), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_twice(self) -> None:
        """A second end keeps the first one's reason."""
        self.successResultOf(self.start("first"))
        self.successResultOf(self.start("second"))
        self.assertEqual(self.desk.rows("SELECT end_reason FROM grants"), [("first",)])

    def test_store_down(self) -> None:
        """Without a store nothing ends, and who asked for it hears so."""
        self.desk.memory.fail_all()
        self.failureResultOf(self.start(), StoreDown)
        self.assertEqual(self.desk.runs.ended, [])
        self.desk.memory.fail_all(False)
        self.assertIsInstance(self.desk.find(self.issued.access), Caller)

    def test_suspend(self) -> None:
        """A suspended account's grants stop all at once, whatever the first one takes; their rows
        and families stay, and other accounts' go on."""
        second, theirs = self.desk.issue(TWO), self.desk.issue(account_id=BOB)
        self.desk.find(second.access)
        self.desk.find(theirs.access)
        now(self.desk.store.write(kill_account, ADA))
        self.desk.runs.waits = []
        suspending = Deferred.fromCoroutine(self.desk.endings.suspend(ADA))
        grants = {self.grant_id, self.desk.grant_of(second.access)}
        self.assertEqual({grant for grant, _ in self.desk.runs.ended}, grants)
        self.assertEqual({refusal for _, refusal in self.desk.runs.ended}, {CREDENTIAL_DEAD})
        self.assertNoResult(suspending)
        for wait in self.desk.runs.waits:
            wait.callback(None)
        self.successResultOf(suspending)
        self.assertEqual(self.desk.rows("SELECT 1 FROM grants WHERE ended_at IS NOT NULL"), [])
        self.assertIs(self.desk.find(self.issued.access), CREDENTIAL_DEAD)
        self.assertIsInstance(self.desk.find(theirs.access), Caller)

    def test_suspend_ended(self) -> None:
        """A grant that ended before is not told again."""
        self.successResultOf(self.start())
        now(self.desk.endings.suspend(ADA))
        self.assertEqual(len(self.desk.runs.ended), 1)

    def test_room(self) -> None:
        """A grant that makes room for another goes through the same door."""
        for _ in range(limits.GRANTS_PER_ACCOUNT):
            self.desk.clock.advance(1)
            self.assertIsInstance(self.desk.issue(), Issued)
        self.assertEqual(self.desk.runs.ended, [(self.grant_id, GRANT_ENDED)])
        self.assertEqual(
            self.desk.rows("SELECT grant_id, end_reason FROM grants WHERE ended_at IS NOT NULL"),
            [(self.grant_id, "room")],
        )
