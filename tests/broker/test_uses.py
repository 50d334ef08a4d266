"""When sessions and grants were last used, as it comes into the store."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.callers import Caller
from fjmcp.broker.sessions import Session, Sessions
from fjmcp.broker.uses import Uses
from fjmcp.mcp.opening import PLAIN, Opened, read_result
from fjmcp.oauth.tokens import Kind, mint
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import EPOCH
from tests.broker.desk import BOB, Desk

TOLD = b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"x","version":"1"}}'


class UsesTests(SynchronousTestCase):
    """Two grants, one of which has a session."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.tokens = [self.desk.issue().access, self.desk.issue(account_id=BOB).access]
        self.grants = [self.desk.grant_of(token) for token in self.tokens]
        self.sessions = Sessions(self.desk.store, self.desk.clock)
        self.uses = Uses(self.desk.store, self.sessions, self.desk.callers)

    def find(self, number: int) -> Caller:
        caller = self.desk.find(self.tokens[number])
        assert isinstance(caller, Caller), caller
        return caller

    def used(self) -> list[float]:
        """Seconds since the beginning at which the grants were last used, by their rows."""
        rows = self.desk.rows("SELECT grant_id, used_at FROM grants")
        used = {grant: float(str(at)) - EPOCH for grant, at in rows}
        return [used[grant] for grant in self.grants]

    def test_written(self) -> None:
        """Each request counts, of a token that was seen and of one that was not; what is not
        used is not touched."""
        self.desk.clock.advance(10)
        self.find(0)
        self.assertEqual(self.used(), [0, 0])
        now(self.uses.write_down())
        self.assertEqual(self.used(), [10, 0])
        self.desk.clock.advance(10)
        self.find(0)
        self.find(1)
        now(self.uses.write_down())
        self.assertEqual(self.used(), [20, 20])

    def test_refused(self) -> None:
        """A token that is refused has used nothing."""
        self.find(0)
        now(self.uses.write_down())
        self.desk.find(mint(Kind.ACCESS))
        self.desk.clock.advance(limits.ACCESS_TOKEN)
        self.desk.find(self.tokens[0])
        self.desk.find(self.tokens[1])
        now(self.uses.write_down())
        self.assertEqual(self.used(), [0, 0])

    def test_nothing(self) -> None:
        """What was written down is not written again: without a use the store is not asked."""
        self.find(0)
        now(self.uses.write_down())
        self.desk.memory.fail_all()
        now(self.uses.write_down())

    def test_at_once(self) -> None:
        """Sessions and grants are written in one transaction."""
        opened = read_result(TOLD)
        assert isinstance(opened, Opened)
        id = self.sessions.open(self.find(0), PLAIN, opened)
        now(self.sessions.find(id, 7, "fj-one"))
        self.desk.clock.advance(10)
        self.assertIsInstance(now(self.sessions.find(id, 7, "fj-one")), Session)
        self.find(0)
        self.find(1)
        self.desk.memory.hold()
        writing = Deferred.fromCoroutine(self.uses.write_down())
        self.assertEqual(self.desk.memory.release(1), 1)
        self.successResultOf(writing)
        self.assertEqual(self.used(), [10, 10])
        self.assertEqual(self.desk.rows("SELECT used_at FROM sessions"), [(EPOCH + 10,)])

    def test_store_down(self) -> None:
        """What could not be written is kept, and a use that came meanwhile is not lost for it."""
        self.desk.clock.advance(10)
        self.find(0)
        self.find(1)
        self.desk.memory.hold()
        writing = Deferred.fromCoroutine(self.uses.write_down())
        self.desk.clock.advance(10)
        self.find(0)
        self.desk.memory.fail_all()
        self.desk.memory.release()
        self.failureResultOf(writing, StoreDown)
        self.assertEqual(self.used(), [0, 0])
        self.desk.memory.fail_all(False)
        now(self.uses.write_down())
        self.assertEqual(self.used(), [20, 10])

    def test_never_back(self) -> None:
        """A use that is written late takes nothing from a later one."""
        self.desk.clock.advance(10)
        self.find(0)
        self.desk.memory.elsewhere(
            lambda cursor: cursor.execute("UPDATE grants SET used_at = ?", EPOCH + 15)
        )
        now(self.uses.write_down())
        self.assertEqual(self.used(), [15, 15])
