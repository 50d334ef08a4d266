"""Tests for `fjmcp.broker.sessions`."""

from __future__ import annotations

import base64
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.broker.callers import Caller
from fjmcp.broker.sessions import Session, Sessions, digest_of
from fjmcp.mcp.opening import PLAIN, Opened, Opening, read_result
from fjmcp.refusals import McpRefusal
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.stores import memory_store

T = TypeVar("T")

TOLD = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"tools":{"listChanged":true}},'
    b'"serverInfo":{"name":"fake","version":"1"}}'
)
OPENED = Opened(TOLD, "2025-11-25", b'{"logging":{},"tools":{"listChanged":true}}', "fake", "1")


class _Case(SynchronousTestCase):
    """Sessions on a store in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = memory_store()
        self.sessions = Sessions(self.store, self.clock)

    def open(
        self, account: int = 1, client: str = "c", opening: Opening = PLAIN, grant: str = "g"
    ) -> str:
        caller = Caller(grant, account, client, "alice", "", 0.0)
        return self.sessions.open(caller, opening, OPENED)

    def find(self, id: str, account: int = 1, client: str = "c") -> Session | McpRefusal:
        return self.wait(self.sessions.find(id, account, client))

    def forget(self, id: str, account: int = 1, client: str = "c") -> Session | McpRefusal:
        return self.wait(self.sessions.forget(id, account, client))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(work))
        return result

    def found(self, id: str, account: int = 1, client: str = "c") -> Session:
        session = self.find(id, account, client)
        assert isinstance(session, Session)
        return session

    def restart(self) -> None:
        """Another process on the same store."""
        self.sessions = Sessions(self.store, self.clock)


class SessionsTests(_Case):
    """Ids and whose they are."""

    def test_opened_and_found(self) -> None:
        """An id leads to what the session was opened with, again and again."""
        id = self.open()
        session = self.found(id)
        self.assertIs(self.found(id), session)
        self.assertEqual((session.opening, session.opened), (PLAIN, OPENED))
        self.assertEqual(session.revision, "2025-11-25")

    def test_ids(self) -> None:
        """192 bits, visible ASCII, never twice, and kept nowhere."""
        ids = {self.open(client=str(number)) for number in range(500)}
        self.assertEqual(len(ids), 500)
        held = repr(self.sessions)
        for id in ids:
            self.assertEqual(len(base64.urlsafe_b64decode(id)), 24)
            self.assertNotIn(id, held)

    def test_others(self) -> None:
        """Another client is told that there is none, another account that it is not its own."""
        id = self.open()
        self.assertIs(self.find(id, 1, "other"), refusals.OTHER_CLIENTS_SESSION)
        self.assertIs(self.find(id, 2, "c"), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertIs(self.forget(id, 2, "c"), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertIs(self.forget(id, 1, "other"), refusals.OTHER_CLIENTS_SESSION)
        self.found(id)

    def test_unknown(self) -> None:
        """An id that is none gets 404, or what the operator chose."""
        self.assertIs(self.find("nobody", 1, "c"), refusals.UNKNOWN_SESSION)
        gone = Sessions(self.store, self.clock, refusals.GONE_SESSION)
        self.assertIs(self.wait(gone.find("nobody", 1, "c")), refusals.GONE_SESSION)

    @given(st.text())
    def test_any_text(self, id: str) -> None:
        """Whatever a client sends as an id is looked up without a fault."""
        self.assertIs(self.find(id, 1, "c"), refusals.UNKNOWN_SESSION)

    def test_surrogates(self) -> None:
        """Even what is no Unicode text."""
        self.assertIs(self.find("\ud800" * 9, 1, "c"), refusals.UNKNOWN_SESSION)

    def test_longer_id(self) -> None:
        """An id with something behind it is another one."""
        self.assertIs(self.find(self.open() + "x" * 200, 1, "c"), refusals.UNKNOWN_SESSION)

    def test_forget(self) -> None:
        """A forgotten session is unknown, and forgotten once."""
        id = self.open()
        self.assertIsInstance(self.forget(id, 1, "c"), Session)
        self.assertIs(self.forget(id, 1, "c"), refusals.UNKNOWN_SESSION)
        self.assertEqual(len(self.sessions), 0)
        self.assertEqual(self.sessions._groups, {})

    def test_bound(self) -> None:
        """Of one account and client the longest unused one makes room, of no other."""
        other = self.open(client="other")
        ids = [self.open() for _ in range(limits.SESSIONS_PER_CONNECTION)]
        self.found(ids[0])
        self.open()
        self.found(ids[0])
        self.assertIs(self.find(ids[1], 1, "c"), refusals.UNKNOWN_SESSION)
        self.found(ids[2])
        self.found(other, client="other")
        self.assertEqual(len(self.sessions), limits.SESSIONS_PER_CONNECTION + 1)

    def test_bound_of_an_account(self) -> None:
        """Of all clients of one account the longest unused one makes room, of no other account."""
        other = self.open(account=2)
        first, second = self.open(client="c0"), self.open(client="c1")
        for number in range(limits.SESSIONS_PER_ACCOUNT - 2):
            self.open(client=f"c{number // 100 + 2}")
        self.found(first, client="c0")
        for number in range(50):
            self.open(client=f"new {number}")
        self.assertEqual(len(self.sessions), limits.SESSIONS_PER_ACCOUNT + 1)
        self.assertIsNotNone(self.sessions.held(digest_of(first)))
        self.assertIs(self.find(second, 1, "c1"), refusals.UNKNOWN_SESSION)
        self.found(other, account=2)

    def test_in_use_makes_no_room(self) -> None:
        """A session with a stream, or a child of its own, stays however long it is not used."""
        ids = [self.open(client="quiet") for _ in range(3)]
        busy = {digest_of(ids[0]), digest_of(ids[2])}
        self.sessions.in_use = lambda account: busy if account == 1 else set()
        ended: list[bytes] = []
        self.sessions.on_end = lambda session: ended.append(session.digest)
        for number in range(limits.SESSIONS_PER_ACCOUNT):
            self.open(client=f"c{number // 100}")
        self.assertEqual(len(self.sessions), limits.SESSIONS_PER_ACCOUNT)
        self.assertEqual(len(ended), 3)
        self.assertIs(self.find(ids[1], 1, "quiet"), refusals.UNKNOWN_SESSION)
        self.found(ids[0], client="quiet")
        self.found(ids[2], client="quiet")

    def test_several_assistants(self) -> None:
        """Nine assistants that open a session a call take none from a tenth that keeps one."""
        kept = self.open(client="editor")
        self.found(kept, client="editor")
        for number in range(9 * (limits.SESSIONS_PER_CONNECTION + 20)):
            id = self.open(client=f"hosted {number % 9}")
            self.found(id, client=f"hosted {number % 9}")
        self.found(kept, client="editor")

    def test_unused(self) -> None:
        """One that nobody used after its opening goes soon, but for the latest of its client."""
        ids = [self.open() for _ in range(4)]
        self.found(ids[1])
        asked = Opening("2025-06-18", b'{"roots":{}}')
        latest = self.open(opening=asked)
        self.clock.advance(limits.SESSION_UNUSED - 1)
        self.wait(self.sessions.expire())
        self.assertEqual(len(self.sessions), 5)
        self.clock.advance(1)
        self.wait(self.sessions.expire())
        self.assertEqual(len(self.sessions), 2)
        self.assertIs(self.sessions.latest_opening(1, "c"), asked)
        self.found(ids[1])
        self.found(latest)
        self.assertIs(self.find(ids[2]), refusals.UNKNOWN_SESSION)

    def test_life(self) -> None:
        """A session lives so long after its last use."""
        id = self.open()
        self.clock.advance(limits.SESSION_LIFE - 1)
        self.found(id)
        self.clock.advance(limits.SESSION_LIFE - 1)
        self.found(id)
        self.clock.advance(limits.SESSION_LIFE)
        self.assertIs(self.find(id, 1, "c"), refusals.UNKNOWN_SESSION)
        self.assertEqual(len(self.sessions), 0)

    def test_expired_ones_are_forgotten(self) -> None:
        """Sessions of which nobody asks any more go when one of the same client is opened."""
        for _ in range(10):
            self.open()
        self.clock.advance(limits.SESSION_LIFE)
        self.open()
        self.assertEqual(len(self.sessions), 1)

    def test_latest_opening(self) -> None:
        """Without a session: the opening of the one used last, else a plain one."""
        self.assertIs(self.sessions.latest_opening(1, "c"), PLAIN)
        asked = Opening("2025-06-18", b'{"roots":{}}')
        self.open(opening=asked)
        self.assertIs(self.sessions.latest_opening(1, "c"), asked)
        self.assertIs(self.sessions.latest_opening(1, "other"), PLAIN)
        self.assertIs(self.sessions.latest_opening(2, "c"), PLAIN)

    def test_successor(self) -> None:
        """A child of another build may serve a session, one that can less may not."""
        session = self.found(self.open())
        build = Opened(b"{}", "2025-11-25", OPENED.capabilities, "fake", "2")
        less = Opened(b"{}", "2025-11-25", b'{"tools":{"listChanged":true}}', "fake", "1")
        older = Opened(b"{}", "2025-06-18", OPENED.capabilities, "fake", "1")
        self.assertTrue(session.check_successor(build))
        self.assertFalse(session.check_successor(less))
        self.assertFalse(session.check_successor(older))


class SetBackTests(_Case):
    """A clock that was set back, with as many sessions as there may be."""

    def test_newest_stays(self) -> None:
        """The one that is kept just now makes room for none, though it seems to be the oldest."""
        self.clock.advance(10_000)
        for bound, client in ((limits.SESSIONS_PER_CONNECTION, "c"), (3, "d")):
            for _ in range(bound):
                self.found(self.open(client=client), client=client)
        self.patch(limits, "SESSIONS_PER_ACCOUNT", limits.SESSIONS_PER_CONNECTION)
        self.clock.rightNow = 5_000
        for client in ("c", "d"):
            fresh = self.open(client=client)
            self.found(fresh, client=client)
            self.sessions = Sessions(self.store, self.clock)
            self.found(fresh, client=client)


class DurableTests(_Case):
    """Sessions outlive the process."""

    def rows(self) -> int:
        return self.wait(
            self.store.read(lambda cursor: len(cursor.many("SELECT session FROM sessions")))
        )

    def test_told(self) -> None:
        """What stands in these tests is what a child's answer is read as."""
        self.assertEqual(read_result(TOLD), OPENED)

    def test_goes_on_after_a_restart(self) -> None:
        """A session that was used after its opening is found by another process, as it was."""
        asked = Opening("2025-06-18", b'{"roots":{}}', "debug", frozenset({"forgejo://x"}))
        id = self.open(opening=asked)
        self.found(id)
        self.restart()
        session = self.found(id)
        self.assertEqual((session.opening, session.opened), (asked, OPENED))
        self.assertIs(self.find(id, 2), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertIs(self.find(id, 1, "other"), refusals.OTHER_CLIENTS_SESSION)

    def test_whose_it_is_holds_after_a_restart(self) -> None:
        """Nobody else can take up a session that this process has not seen."""
        id = self.open()
        self.found(id)
        self.restart()
        self.assertIs(self.find(id, 2), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertIs(self.forget(id, 1, "other"), refusals.OTHER_CLIENTS_SESSION)
        self.found(id)

    def test_never_used_costs_no_row(self) -> None:
        """A session that is only opened, as hosted clients open one a call, leaves no row."""
        for _ in range(5):
            self.open()
        self.assertEqual(self.rows(), 0)

    def test_forgotten_stays_forgotten(self) -> None:
        """A session that its client ended does not come back with the next process."""
        id = self.open()
        self.found(id)
        self.forget(id)
        self.restart()
        self.assertIs(self.find(id), refusals.UNKNOWN_SESSION)
        self.assertEqual(self.rows(), 0)

    def test_rows_are_bounded(self) -> None:
        """Of one account and client the longest unused rows make room, in every process."""
        ids = []
        for _ in range(limits.SESSIONS_PER_CONNECTION + 3):
            self.clock.advance(1)
            ids.append(self.open())
            self.found(ids[-1])
        self.assertEqual(self.rows(), limits.SESSIONS_PER_CONNECTION)
        self.restart()
        self.assertIs(self.find(ids[2]), refusals.UNKNOWN_SESSION)
        self.found(ids[3])

    def test_rows_of_an_account_are_bounded(self) -> None:
        """So are those of one account over all its clients; what is in use stays."""
        ids = []
        for number in range(limits.SESSIONS_PER_ACCOUNT + 3):
            self.clock.advance(1)
            ids.append(self.open(client=f"c{number}"))
            self.sessions.in_use = lambda _: {digest_of(ids[0])}
            self.found(ids[-1], client=f"c{number}")
        self.assertEqual(self.rows(), limits.SESSIONS_PER_ACCOUNT)
        self.assertEqual(len(self.sessions), limits.SESSIONS_PER_ACCOUNT)
        self.restart()
        self.found(ids[0], client="c0")
        for number in (1, 2, 3):
            self.assertIs(self.find(ids[number], 1, f"c{number}"), refusals.UNKNOWN_SESSION)
        self.found(ids[4], client="c4")

    def end_grant(self, grant: str = "g") -> None:
        self.wait(self.sessions.end_grant(grant, refusals.GRANT_ENDED))

    def test_grant_ended(self) -> None:
        """What was used under it leaves memory, and goes on from its row under another grant."""
        used, unused, other = self.open(), self.open(), self.open(grant="h")
        session = self.found(used)
        self.end_grant()
        self.assertEqual(len(self.sessions), 1)
        self.assertTrue(session.released)
        self.assertFalse(self.sessions.note(session, "h"), "another object is the session now")
        self.assertTrue(self.sessions.note(self.found(used), "h"))
        self.assertIs(self.find(unused), refusals.UNKNOWN_SESSION)
        self.found(other)
        self.assertEqual(self.sessions.of_grant("g"), [])

    def test_grant_ended_while_in_use(self) -> None:
        """A session that another grant's stream or child serves stays where it is."""
        session = self.found(self.open())
        self.sessions.in_use = lambda _: {session.digest}
        self.end_grant()
        self.assertTrue(self.sessions.note(session, "h"))

    def test_grant_ended_while_the_store_is_down(self) -> None:
        """One that was used and has no row yet has nothing but memory, and keeps it."""
        id = self.open()
        self.store.fail_all()
        session = self.found(id)
        self.end_grant()
        self.assertIs(self.found(id), session)
        self.store.hold()
        self.store.fail_all(False)
        self.clock.advance(limits.SESSION_KEEP)
        keeping = Deferred.fromCoroutine(self.sessions.find(id, 1, "c"))
        self.end_grant()
        self.store.release()
        self.assertIs(self.successResultOf(keeping), session)
        self.assertIs(self.found(id), session)

    def test_last_use_is_written(self) -> None:
        """A flush writes when sessions were last used, so that the right ones expire."""
        busy, idle = self.open(), self.open()
        self.found(busy)
        self.found(idle)
        self.clock.advance(limits.SESSION_LIFE - 10)
        self.found(busy)
        self.wait(self.sessions.flush())
        self.clock.advance(20)
        self.restart()
        self.wait(self.sessions.expire())
        self.assertEqual(self.rows(), 1)
        self.found(busy)
        self.assertIs(self.find(idle), refusals.UNKNOWN_SESSION)

    def test_store_down(self) -> None:
        """While the store is down a session serves from memory, and is kept when it is up."""
        id = self.open()
        self.store.fail_all()
        self.found(id)
        self.assertFalse(self.found(id).kept)
        self.failureResultOf(Deferred.fromCoroutine(self.sessions.find("x", 1, "c")), StoreDown)
        self.store.fail_all(False)
        self.assertFalse(self.found(id).kept, "not asked again at each request")
        self.clock.advance(limits.SESSION_KEEP)
        self.found(id)
        self.restart()
        self.found(id)

    def test_ended_while_it_is_looked_up(self) -> None:
        """A session that is ended while its row is read does not come back."""
        id = self.open()
        self.found(id)
        self.restart()
        self.store.hold()
        looking = Deferred.fromCoroutine(self.sessions.find(id, 1, "c"))
        ending = Deferred.fromCoroutine(self.sessions.forget(id, 1, "c"))
        self.store.release()
        self.successResultOf(looking)
        self.assertIsInstance(self.successResultOf(ending), Session)
        self.assertIs(self.find(id), refusals.UNKNOWN_SESSION)
