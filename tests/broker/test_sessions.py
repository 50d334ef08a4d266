"""Tests for `fjmcp.broker.sessions`."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.broker.sessions import Session, Sessions
from fjmcp.mcp.opening import PLAIN, Opened, Opening

OPENED = Opened(b"{}", "2025-11-25", b'{"logging":{},"tools":{"listChanged":true}}', "fake", "1")


class SessionsTests(SynchronousTestCase):
    """Ids and whose they are."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sessions = Sessions(self.clock)

    def open(self, account: int = 1, client: str = "c") -> str:
        return self.sessions.open(account, client, PLAIN, OPENED)

    def found(self, id: str, account: int = 1, client: str = "c") -> Session:
        session = self.sessions.find(id, account, client)
        assert isinstance(session, Session)
        return session

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
        for id in ids:
            self.assertEqual(len(base64.urlsafe_b64decode(id)), 24)
            self.assertNotIn(id, repr(self.sessions))

    def test_others(self) -> None:
        """Another client is told that there is none, another account that it is not its own."""
        id = self.open()
        self.assertIs(self.sessions.find(id, 1, "other"), refusals.OTHER_CLIENTS_SESSION)
        self.assertIs(self.sessions.find(id, 2, "c"), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertIs(self.sessions.forget(id, 2, "c"), refusals.OTHER_ACCOUNTS_SESSION)
        self.assertIs(self.sessions.forget(id, 1, "other"), refusals.OTHER_CLIENTS_SESSION)
        self.found(id)

    def test_unknown(self) -> None:
        """An id that is none gets 404, or what the operator chose."""
        self.assertIs(self.sessions.find("nobody", 1, "c"), refusals.UNKNOWN_SESSION)
        gone = Sessions(self.clock, refusals.GONE_SESSION)
        self.assertIs(gone.find("nobody", 1, "c"), refusals.GONE_SESSION)

    @given(st.text())
    def test_any_text(self, id: str) -> None:
        """Whatever a client sends as an id is looked up without a fault."""
        self.assertIs(self.sessions.find(id, 1, "c"), refusals.UNKNOWN_SESSION)

    def test_surrogates(self) -> None:
        """Even what is no Unicode text."""
        self.assertIs(self.sessions.find("\ud800" * 9, 1, "c"), refusals.UNKNOWN_SESSION)

    def test_longer_id(self) -> None:
        """An id with something behind it is another one."""
        self.assertIs(self.sessions.find(self.open() + "x" * 200, 1, "c"), refusals.UNKNOWN_SESSION)

    def test_forget(self) -> None:
        """A forgotten session is unknown, and forgotten once."""
        id = self.open()
        self.assertIsInstance(self.sessions.forget(id, 1, "c"), Session)
        self.assertIs(self.sessions.forget(id, 1, "c"), refusals.UNKNOWN_SESSION)
        self.assertEqual(len(self.sessions), 0)
        self.assertEqual(self.sessions._groups, {})

    def test_bound(self) -> None:
        """Of one account and client the longest unused one makes room, of no other."""
        other = self.open(client="other")
        ids = [self.open() for _ in range(limits.SESSIONS_PER_CONNECTION)]
        self.found(ids[0])
        self.open()
        self.found(ids[0])
        self.assertIs(self.sessions.find(ids[1], 1, "c"), refusals.UNKNOWN_SESSION)
        self.found(ids[2])
        self.found(other, client="other")
        self.assertEqual(len(self.sessions), limits.SESSIONS_PER_CONNECTION + 1)

    def test_life(self) -> None:
        """A session lives so long after its last use."""
        id = self.open()
        self.clock.advance(limits.SESSION_LIFE - 1)
        self.found(id)
        self.clock.advance(limits.SESSION_LIFE - 1)
        self.found(id)
        self.clock.advance(limits.SESSION_LIFE)
        self.assertIs(self.sessions.find(id, 1, "c"), refusals.UNKNOWN_SESSION)
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
        self.sessions.open(1, "c", asked, OPENED)
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
