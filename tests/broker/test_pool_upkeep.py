"""Idle children and rotation, with children in memory."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from fjmcp import limits, refusals
from fjmcp.mcp.opening import PLAIN
from tests.broker.test_pool import OTHER, Caller, Credential, PoolCase


class ReapTests(PoolCase):
    """Idle eviction."""

    def test_idle_child_goes(self) -> None:
        """A child that nobody used for the idle time goes, and the next request starts another."""
        link = self.get()
        self.reactor.advance(900)
        self.pool.reap(900)
        self.reactor.turn()
        self.assertFalse(link.usable)
        self.assertEqual(self.pool.links(), ())
        self.assertIsNot(self.get(), link)

    def test_recently_active_stays(self) -> None:
        """A child that was used within the idle time survives sweep after sweep."""
        link = self.get()
        for _ in range(5):
            self.reactor.advance(800)
            asker = self.busy(link)
            self.child(link).answer_last({})
            self.reactor.turn()
            self.assertEqual(len(asker.replies), 1)
            self.pool.reap(900)
        self.assertTrue(link.usable)

    def test_busy_child_stays(self) -> None:
        """A child with a call in flight stays however long it takes."""
        link = self.get()
        self.busy(link)
        self.reactor.advance(limits.CALL - 1)
        self.pool.reap(1)
        self.assertTrue(link.usable)

    def test_idle_counts_from_the_end_of_the_last_call(self) -> None:
        """The idle time begins when the last call ends, not when it began."""
        link = self.get()
        self.busy(link)
        self.reactor.advance(600)
        self.child(link).answer_last({})
        self.reactor.turn()
        self.reactor.advance(600)
        self.pool.reap(900)
        self.assertTrue(link.usable)
        self.reactor.advance(300)
        self.pool.reap(900)
        self.assertFalse(link.usable)


class RotateTests(PoolCase):
    """Rotation of credentials and children."""

    def rotate(self) -> Deferred[None]:
        done = Deferred.fromCoroutine(self.pool.rotate())
        self.reactor.turn()
        return done

    def test_swaps_the_child(self) -> None:
        """A newer credential gets a successor, told the same opening; then the old child goes."""
        old = self.get(opening=OTHER)
        self.credentials.renew()
        self.successResultOf(self.rotate())
        new = self.pool.find(Caller(), OTHER)
        assert new is not None
        self.assertEqual((new.version, new.opening), (2, OTHER))
        self.assertFalse(old.usable)
        self.assertEqual(len(self.reactor.children), 2)

    def test_same_credential(self) -> None:
        """Without a newer credential nothing is started and nothing ended."""
        link = self.get()
        self.successResultOf(self.rotate())
        self.assertEqual(self.pool.links(), (link,))

    def test_started_while_a_refresh_runs(self) -> None:
        """A child that was started with the older credential is replaced at the next sweep."""
        first = self.get()
        self.credentials.renew()
        self.successResultOf(self.rotate())
        self.credentials.renew()
        second = self.pool.find(Caller(), PLAIN)
        self.successResultOf(self.rotate())
        third = self.pool.find(Caller(), PLAIN)
        assert second is not None and third is not None
        self.assertEqual([first.version, second.version, third.version], [1, 2, 3])

    def test_trouble_changes_nothing(self) -> None:
        """A credential that cannot be refreshed just now ends no child."""
        link = self.get()
        self.credentials.of[1] = refusals.CREDENTIAL_TROUBLED
        self.successResultOf(self.rotate())
        self.assertTrue(link.usable)

    def test_calls_in_flight_end_on_the_old_child(self) -> None:
        """A call that runs while its child is replaced is answered by that child."""
        link = self.get()
        child = self.child(link)
        asker = self.busy(link)
        self.credentials.renew()
        self.successResultOf(self.rotate())
        self.assertEqual(asker.replies, [])
        child.answer_last({})
        self.reactor.turn()
        self.assertEqual(len(asker.replies), 1)
        self.assertNotIn("error", asker.replies[0])

    def test_one_failure_is_one(self) -> None:
        """A fault with one account's credential keeps no other from its own."""
        self.get()
        two = Caller("g2", 2)
        self.get(two)
        self.credentials.renew(2)
        usable = self.credentials.usable

        class Faulty:
            """Fails for the first account."""

            async def usable(self, account_id: int) -> Credential | refusals.McpRefusal:
                if account_id == 1:
                    raise RuntimeError("as planned")
                return await usable(account_id)

        self.pool._credentials = Faulty()
        self.successResultOf(self.rotate())
        found = self.pool.find(two, PLAIN)
        assert found is not None
        self.assertEqual(found.version, 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_can_be_cut_short(self) -> None:
        """A rotation that is cancelled at a stop ends, and starts nothing more."""
        self.get()
        self.credentials.held = []
        rotation = self.rotate()
        rotation.cancel()
        self.failureResultOf(rotation, CancelledError)
