"""
`fjmcp.store.queries.accounts`: which pair is newer, and who may refresh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import accounts, exchanges
from fjmcp.store.queries.accounts import Account, SealedPair, supersedes
from fjmcp.store.transactions import Cursor
from fjmcp.testing.stores import MemoryStore, memory_store
from tests.store.accounts_contract import AccountsContract
from tests.store.test_grants import InMemory

T = TypeVar("T")

NOW = 1_000_000.0
ADA = 7
SIGN_IN = Digest(b"s" * 32)


def pair(
    grant: int | None = 1, count: int | None = 1, received_at: float = NOW, sealed: bytes = b"x"
) -> SealedPair:
    return SealedPair(sealed, grant, count, received_at, received_at + 3600)


def row(
    grant: int | None = 1,
    count: int | None = 5,
    received_at: float = NOW,
    dead_since: float | None = None,
    version: int = 3,
) -> Account:
    return Account(
        ADA,
        "ada",
        b"old",
        version,
        grant,
        count,
        received_at,
        NOW + 3600,
        dead_since,
        None,
        None,
        None,
        NOW,
    )


class SupersedesTests(SynchronousTestCase):
    """The rule of design D8."""

    def test_own_refresh(self) -> None:
        """What was given for the row's own refresh token is newer, whatever it says."""
        self.assertTrue(supersedes(pair(1, 2), row(), 3))
        self.assertTrue(supersedes(pair(None, None, NOW - 9), row(), 3))
        self.assertTrue(supersedes(pair(1, 2), row(dead_since=NOW), 3))

    def test_counters(self) -> None:
        """Of one grant the higher counter is newer, whenever it came."""
        for refreshed in (None, 2):
            self.assertTrue(supersedes(pair(1, 6, NOW - 9), row(), refreshed))
            self.assertFalse(supersedes(pair(1, 4, NOW + 9), row(), refreshed))
            self.assertFalse(supersedes(pair(1, 5, NOW + 9), row(), refreshed))

    def test_other_grant(self) -> None:
        """Of two grants the higher is newer, whenever it came; so is a lower that came later."""
        self.assertTrue(supersedes(pair(2, 1, NOW - 9), row(), None))
        self.assertTrue(supersedes(pair(2, 1, NOW + 9), row(), None))
        self.assertTrue(supersedes(pair(1, 1, NOW + 9), row(grant=2), None))
        self.assertFalse(supersedes(pair(1, 9, NOW - 9), row(grant=2), None))

    def test_refresh_of_other_grant(self) -> None:
        """A refresh under a grant that a sign-in has replaced is over."""
        self.assertFalse(supersedes(pair(2, 9, NOW + 9), row(), 2))
        self.assertFalse(supersedes(pair(1, 9, NOW + 9), row(grant=2), 2))

    def test_unreadable(self) -> None:
        """Where either cannot be read, the later reply is newer."""
        for there, (grant, count) in (
            (row(None, None), (None, None)),
            (row(1, None), (1, 3)),
            (row(1, 5), (1, None)),
        ):
            for refreshed in (None, 2):
                self.assertTrue(supersedes(pair(grant, count, NOW + 9), there, refreshed))
                self.assertFalse(supersedes(pair(grant, count, NOW - 9), there, refreshed))

    def test_dead(self) -> None:
        """A sign-in after the death is newer, whatever the counters; one before it is not."""
        self.assertTrue(supersedes(pair(1, 2, NOW + 9), row(dead_since=NOW), None))
        self.assertFalse(supersedes(pair(1, 2, NOW - 9), row(dead_since=NOW), None))
        self.assertTrue(supersedes(pair(1, 6, NOW - 9), row(dead_since=NOW), None))
        self.assertFalse(supersedes(pair(1, 2, NOW + 9), row(dead_since=NOW), 2))

    def test_asleep(self) -> None:
        """An account that sleeps because of its person has a good pair: the counters judge."""
        there = evolve(row(dead_since=NOW), dead_reason="not-let-in")
        self.assertFalse(supersedes(pair(1, 2, NOW + 9), there, None))
        self.assertTrue(supersedes(pair(1, 6, NOW - 9), there, None))

    def test_empty(self) -> None:
        """Anything is newer than nothing."""
        self.assertTrue(supersedes(pair(), evolve(row(), credential=None), None))


class RowsCase(SynchronousTestCase):
    """An empty store."""

    def setUp(self) -> None:
        self.store: MemoryStore = memory_store()

    def do(self, work: Callable[..., T], *args: object) -> T:
        done: list[T] = []
        self.store.lanes[0].run(lambda cursor: work(cursor, *args)).addCallback(done.append)
        return done[0]

    def admit(self, count: int = 1) -> Account:
        sealed = pair(1, count, NOW, b"%d" % count)
        return self.do(accounts.admit, SIGN_IN, ADA, "ada", sealed, NOW)

    def claim(self, version: int = 1, owner: str = "us", now: float = NOW) -> Account | None:
        return self.do(accounts.claim, ADA, version, owner, now)


class RowsTests(RowsCase):
    """The rule's SQL."""

    @given(st.permutations(range(1, 7)))
    def test_any_order(self, counts: list[int]) -> None:
        """In whatever order the pairs of one grant come in, the newest stays."""
        self.setUp()
        for count in counts:
            self.admit(count)
        kept = self.do(accounts.find, ADA)
        assert kept is not None
        self.assertEqual((kept.forge_count, kept.credential), (6, b"6"))

    def test_versions_grow(self) -> None:
        """Each pair that takes the place of another adds one to the version; no other does."""
        self.assertEqual(self.admit(1).version, 1)
        self.assertEqual(self.admit(3).version, 2)
        self.assertEqual(self.admit(2).version, 2)

    def test_claimed_once(self) -> None:
        """One claim at a time, and until its end."""
        self.admit()
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(claimed.refresh_until, NOW + limits.REFRESH_CLAIM)
        self.assertIsNone(self.claim(owner="them"))
        self.assertIsNone(self.claim())
        self.assertIsNone(self.claim(owner="them", now=NOW + limits.REFRESH_CLAIM - 1))
        self.assertIsNotNone(self.claim(owner="them", now=NOW + limits.REFRESH_CLAIM))

    def test_claim_refused(self) -> None:
        """No claim of another version, of a refresh that was put off, of the dead or unknown."""
        self.assertIsNone(self.claim())
        self.admit()
        self.assertIsNone(self.claim(version=2))
        self.do(accounts.put_off, ADA, 1, "us", NOW + 15)
        self.assertIsNone(self.claim(now=NOW + 14))
        self.assertIsNotNone(self.claim(now=NOW + 15))
        self.do(accounts.mark_dead, ADA, 1, "us", NOW)
        self.assertIsNone(self.claim(now=NOW + 99))

    def test_claim_of_others(self) -> None:
        """Only its owner holds or releases a claim."""
        self.admit()
        self.claim()
        self.do(accounts.release, ADA, "them")
        self.do(accounts.hold, ADA, "them", NOW + 999)
        kept = self.do(accounts.find, ADA)
        assert kept is not None
        self.assertEqual((kept.refresh_owner, kept.refresh_until), ("us", NOW + 75))
        self.do(accounts.hold, ADA, "us", NOW + 99)
        self.assertIsNone(self.claim(owner="them", now=NOW + 98))
        self.do(accounts.release, ADA, "us")
        self.assertIsNotNone(self.claim(owner="them"))

    def test_refused_meanwhile_replaced(self) -> None:
        """What befell a version that is gone says nothing of the one that is there."""
        self.admit(1)
        self.admit(2)
        dead = self.do(accounts.mark_dead, ADA, 1, "us", NOW)
        assert dead is not None
        self.assertFalse(dead.dead)
        late = self.do(accounts.put_off, ADA, 1, "us", NOW + 15)
        assert late is not None
        self.assertIsNone(late.retry_after)

    def test_new_pair_forgets(self) -> None:
        """With a new pair the claim, the death and the trouble of the old one are over."""
        self.admit(1)
        self.claim()
        self.do(accounts.put_off, ADA, 1, "them", NOW + 15)
        dead = self.do(accounts.mark_dead, ADA, 1, "them", NOW)
        self.assertTrue(dead is not None and dead.dead)
        fresh = self.admit(2)
        self.assertFalse(fresh.dead)
        self.assertIsNone(fresh.retry_after)
        self.assertIsNone(fresh.refresh_owner)
        self.assertIsNotNone(self.claim(version=2))

    def test_readmit_makes_none(self) -> None:
        """A pair without its person makes no account."""
        self.assertIsNone(self.do(accounts.readmit, SIGN_IN, ADA, pair()))
        self.assertIsNone(self.do(accounts.find, ADA))


class PeopleTests(InMemory, AccountsContract):
    """The contract of accounts that sleep because of their person, in memory."""


class ExchangesTests(RowsCase):
    """Pairs on their way."""

    def setUp(self) -> None:
        super().setUp()
        self.do(_sign_in)

    def pending(self, now: float, before: float = NOW) -> list[tuple[bytes | None, bool]]:
        found = self.do(exchanges.pending, before, now)
        return [(each.credential, each.abandoned(now)) for each in found]

    def test_life(self) -> None:
        """In flight until its limit; with a pair until that is admitted."""
        self.assertEqual(self.pending(NOW), [])
        self.assertTrue(self.do(exchanges.begin, SIGN_IN, NOW))
        self.assertFalse(self.do(exchanges.begin, SIGN_IN, NOW))
        end = NOW + limits.EXCHANGE_CLAIM
        self.assertEqual(self.pending(end - 1), [(None, False)])
        self.assertEqual(self.pending(end), [])
        self.assertEqual(self.pending(NOW, before=NOW - 1), [])
        self.assertTrue(self.do(exchanges.seal, SIGN_IN, b"pair"))
        self.assertEqual(self.pending(end - 1), [(b"pair", False)])
        self.assertEqual(self.pending(end), [(b"pair", True)])
        self.assertEqual(self.pending(end, before=NOW - 1), [(b"pair", True)])
        self.admit()
        self.assertEqual(self.pending(NOW), [])
        self.assertFalse(self.do(exchanges.begin, SIGN_IN, NOW))

    def test_release_all(self) -> None:
        """Who has the store alone waits for no claim and no exchange of others."""
        self.admit()
        self.claim(owner="them")
        self.do(exchanges.begin, SIGN_IN, NOW)
        self.do(accounts.release_all, "us")
        self.assertEqual(self.pending(NOW), [])
        self.assertIsNotNone(self.claim(owner="us"))
        self.do(exchanges.seal, SIGN_IN, b"pair")
        self.do(accounts.release_all, "us")
        self.assertEqual(self.pending(NOW), [(b"pair", True)])
        self.assertIsNone(self.claim(owner="them"), "a claim of ours stays")

    def test_taken_once(self) -> None:
        """An abandoned pair is taken by one, who has as long as the first had."""
        self.do(exchanges.begin, SIGN_IN, NOW)
        self.assertIsNone(self.do(exchanges.take, SIGN_IN, NOW + 999))
        self.do(exchanges.seal, SIGN_IN, b"pair")
        self.assertIsNone(self.do(exchanges.take, SIGN_IN, NOW))
        self.do(exchanges.abandon, SIGN_IN)
        taken = self.do(exchanges.take, SIGN_IN, NOW)
        assert taken is not None
        self.assertEqual(taken.credential, b"pair")
        self.assertIsNone(self.do(exchanges.take, SIGN_IN, NOW))
        self.assertEqual(self.pending(NOW), [(b"pair", False)])

    def test_unknown(self) -> None:
        """A sign-in that is gone begins nothing and keeps nothing."""
        gone = Digest(b"g" * 32)
        self.assertFalse(self.do(exchanges.begin, gone, NOW))
        self.assertFalse(self.do(exchanges.seal, gone, b"pair"))


def _sign_in(cursor: Cursor) -> None:
    cursor.execute(
        "INSERT INTO signins (signin, browser, client_id, request, created_at, expires_at)"
        " VALUES (?, ?, 'client', '{}', ?, ?)",
        SIGN_IN.value,
        b"",
        NOW,
        NOW + limits.SIGN_IN,
    )
