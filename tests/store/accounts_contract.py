"""
What the rows of accounts promise on every engine of people who may not come in, and of what
goes with an account.
"""

from __future__ import annotations

from collections.abc import Callable

from fjmcp.oauth.tokens import Digest, Kind, digest, mint
from fjmcp.store.queries import accounts, consents, grants
from fjmcp.store.queries.accounts import Account, SealedPair
from fjmcp.store.transactions import Cursor, Store
from tests.store.contract import _Contract, promise

ADA, BOB = 7, 8
AT = 1_800_000_000.0
NOWHERE = Digest(b"s" * 32)
WHY = "not-let-in"


def pair(count: int, received_at: float = AT, grant: int | None = 1) -> SealedPair:
    return SealedPair(b"%d" % count, grant, count, received_at, received_at + 3600)


class AccountsContract(_Contract):
    """Accounts that sleep because of their person."""

    async def admit(
        self,
        store: Store,
        count: int,
        now: float = AT,
        looked_at: float | None = None,
        person: int = ADA,
    ) -> Account:
        return await store.write(
            accounts.admit, NOWHERE, person, "ada", pair(count, now), now, looked_at
        )

    async def turn_away(
        self, store: Store, count: int, now: float = AT, looked_at: float = AT, person: int = ADA
    ) -> Account | None:
        return await store.write(
            accounts.turn_away, NOWHERE, person, pair(count, now), WHY, looked_at, now
        )

    async def asleep(self, store: Store, person: int = ADA) -> None:
        """An account whose first pair was looked at, with a clear no, at `AT`."""
        await self.admit(store, 1, AT - 9, person=person)
        await store.write(accounts.mark_dead, person, 1, "us", AT, WHY)

    async def row(self, store: Store) -> Account:
        row = await store.read(accounts.find, ADA)
        assert row is not None
        return row

    @promise
    async def test_looked_at(self) -> None:
        """A no is about the version that was looked at: one that is gone says nothing."""
        store = self.open_store()
        await self.admit(store, 1)
        await self.admit(store, 2)
        row = await store.write(accounts.mark_dead, ADA, 1, "us", AT, WHY)
        self.assertEqual(row and row.dead, False)
        row = await store.write(accounts.mark_dead, ADA, 2, "us", AT, WHY)
        self.assertEqual(row and (row.dead, row.dead_reason), (True, WHY))

    @promise
    async def test_first_reason(self) -> None:
        """An account that is dead keeps the reason for which it is."""
        store = self.open_store()
        await self.asleep(store)
        row = await store.write(accounts.mark_dead, ADA, 1, "us", AT + 9)
        self.assertEqual(row and (row.dead_since, row.dead_reason), (AT, WHY))

    @promise
    async def test_bearer(self) -> None:
        """A look at an access token tells why its account sleeps."""
        store, token = self.open_store(), digest(mint(Kind.ACCESS))
        await self.asleep(store)
        await store.write(grants.add, "g", ADA, "c", "s", AT)
        await store.write(grants.add_access_token, token, "g", AT + 10, AT)
        bearer = await store.read(grants.bearer, token)
        self.assertEqual(bearer and (bearer.dead, bearer.dead_reason), (True, WHY))

    @promise
    async def test_pairs_wake_nobody(self) -> None:
        """A refresh that was under way, and a sign-in that nobody looked at, bring their pairs;
        the account sleeps on, is not refreshed, and cannot be used."""
        store = self.open_store()
        await self.asleep(store)
        for row in (
            await store.write(accounts.keep, ADA, 1, "us", pair(2)),
            await store.write(accounts.readmit, NOWHERE, ADA, pair(3)),
        ):
            self.assertEqual(row and (row.dead_since, row.dead_reason), (AT, WHY))
        row = await self.row(store)
        self.assertEqual((row.version, row.forge_count, row.credential), (3, 3, b"3"))
        self.assertIsNone(await store.write(accounts.claim, ADA, 3, "us", AT + 9))
        await store.write(grants.add, "g", ADA, "c", "s", AT)
        self.assertEqual(await store.read(accounts.sleeping, AT + 9, AT + 9, 5), [])

    @promise
    async def test_wakes(self) -> None:
        """A person who may come in again wakes their account, whichever pair is the newer."""
        store = self.open_store()
        for person, count in ((ADA, 2), (BOB, 1)):
            await self.asleep(store, person)
            row = await self.admit(store, count, AT + 9, AT + 8, person)
            self.assertEqual((row.dead, row.dead_reason), (False, None))
            self.assertEqual(row.forge_count, count)
            claimed = await store.write(accounts.claim, person, row.version, "us", AT + 9)
            self.assertIsNotNone(claimed)

    @promise
    async def test_no_after_yes(self) -> None:
        """A look that was begun before the account was put to sleep does not wake it; but
        what lies far ahead of the look is from before the clock was set back."""
        store = self.open_store()
        await self.asleep(store)
        row = await self.admit(store, 2, AT + 9, AT - 1)
        self.assertEqual((row.dead_reason, row.forge_count), (WHY, 2))
        await self.asleep(store, BOB)
        row = await self.admit(store, 2, AT - 3600, AT - 3601, BOB)
        self.assertFalse(row.dead)

    @promise
    async def test_turned_away(self) -> None:
        """A known account whose person is turned away sleeps, live or dead before, with what may
        be its only good pair; an unknown one is not made."""
        store = self.open_store()
        self.assertIsNone(await self.turn_away(store, 1))
        self.assertIsNone(await store.read(accounts.find, ADA))
        await self.admit(store, 1, AT - 9)
        row = await self.turn_away(store, 2)
        self.assertEqual(row and (row.dead_reason, row.forge_count, row.dead_since), (WHY, 2, AT))
        row = await self.turn_away(store, 1, AT + 9, AT + 9)
        self.assertEqual(row and (row.forge_count, row.dead_since), (2, AT + 9))
        await self.admit(store, 3, AT - 9, person=BOB)
        await store.write(accounts.mark_dead, BOB, 1, "us", AT - 5)
        row = await self.turn_away(store, 2, person=BOB)
        self.assertEqual(row and (row.dead_reason, row.forge_count), (WHY, 2))

    @promise
    async def test_yes_after_no(self) -> None:
        """Who looked later and found that the person may come in has the last word."""
        store = self.open_store()
        await self.admit(store, 2, AT + 5, AT + 4)
        row = await self.turn_away(store, 1, AT + 9, AT + 3)
        self.assertEqual(row and (row.dead, row.forge_count), (False, 2))
        row = await self.turn_away(store, 1, AT + 9, AT + 6)
        self.assertEqual(row and row.dead_reason, WHY)

    @promise
    async def test_refused_and_not_looked_at(self) -> None:
        """A dead account keeps the pair of a person at whom nobody looked, and stays dead with
        it; a live one has it and lives."""
        store = self.open_store()
        await self.admit(store, 1, AT - 9)
        await store.write(accounts.mark_dead, ADA, 1, "us", AT - 5)
        for count in (2, 3):
            row = await store.write(accounts.readmit, NOWHERE, ADA, pair(count))
            self.assertEqual(
                row and (row.forge_count, row.expires_at, row.dead_since, row.dead_reason),
                (count, AT + 3600, AT - 5, accounts.NOT_LOOKED_AT),
            )
            self.assertIsNone(await store.write(accounts.claim, ADA, count, "us", AT + 9))
        row = await store.write(accounts.readmit, NOWHERE, ADA, pair(2, AT + 9))
        self.assertEqual(row and row.forge_count, 3)
        await self.admit(store, 1, AT - 9, person=BOB)
        row = await store.write(accounts.readmit, NOWHERE, BOB, pair(2))
        self.assertEqual(row and (row.forge_count, row.dead), (2, False))

    @promise
    async def test_looked_at_since(self) -> None:
        """The next look at its person decides: a yes wakes it, whenever that was begun and
        whichever pair is the newer, and a no is the reason from then on."""
        store = self.open_store()
        for count, looked_at in ((3, AT + 8), (1, AT + 8), (3, AT - 8), (1, AT - 8)):
            await self.admit(store, 0, AT - 9)
            row = await self.row(store)
            await store.write(accounts.mark_dead, ADA, row.version, "us", AT - 5)
            await store.write(accounts.readmit, NOWHERE, ADA, pair(2))
            row = await self.admit(store, count, AT + 9, looked_at)
            self.assertEqual((row.dead, row.dead_reason), (False, None))
            self.assertEqual(row.forge_count, max(count, 2))
            await store.write(lambda cursor: cursor.execute("DELETE FROM accounts"))
        await self.admit(store, 0, AT - 9)
        await store.write(accounts.mark_dead, ADA, 1, "us", AT - 5)
        await store.write(accounts.readmit, NOWHERE, ADA, pair(2))
        turned = await self.turn_away(store, 3)
        self.assertEqual(turned and (turned.dead_since, turned.dead_reason), (AT, WHY))
        turned = await store.write(accounts.readmit, NOWHERE, ADA, pair(4))
        self.assertEqual(turned and (turned.dead_since, turned.dead_reason), (AT, WHY))

    @promise
    async def test_consents_go(self) -> None:
        """What a person allowed is forgotten with their account's death, whatever it died of, and
        where their pair comes from another grant at Forgejo; nobody else's is."""
        store = self.open_store()
        await self.admit(store, 1, AT - 9)
        await self.admit(store, 1, AT - 9, person=BOB)
        kept = Digest(b"b" * 32)
        await store.write(consents.keep, kept, BOB, "c", AT)

        def refused(cursor: Cursor) -> None:
            accounts.mark_dead(cursor, ADA, 1, "us", AT)

        def looked_at(cursor: Cursor) -> None:
            accounts.mark_dead(cursor, ADA, 1, "us", AT, WHY)

        def stale(cursor: Cursor) -> None:
            accounts.mark_dead(cursor, ADA, 7, "us", AT)

        def turned_away(cursor: Cursor) -> None:
            accounts.turn_away(cursor, NOWHERE, ADA, pair(2), WHY, AT, AT)

        def refreshed(cursor: Cursor) -> None:
            accounts.keep(cursor, ADA, 1, "us", pair(2))

        def signed_in(cursor: Cursor) -> None:
            accounts.admit(cursor, NOWHERE, ADA, "ada", pair(2), AT)

        def unreadable(cursor: Cursor) -> None:
            accounts.admit(cursor, NOWHERE, ADA, "ada", pair(2, grant=None), AT)

        def granted_anew(cursor: Cursor) -> None:
            accounts.admit(cursor, NOWHERE, ADA, "ada", pair(1, grant=2), AT)

        def left_over(cursor: Cursor) -> None:
            accounts.readmit(cursor, NOWHERE, ADA, pair(1, grant=2))

        for what, there in (
            (refused, False),
            (looked_at, False),
            (turned_away, False),
            (granted_anew, False),
            (left_over, False),
            (stale, True),
            (refreshed, True),
            (signed_in, True),
            (unreadable, True),
        ):

            def happens(cursor: Cursor, what: Callable[[Cursor], None] = what) -> list[bool]:
                cursor.execute("DELETE FROM accounts WHERE account_id = ?", ADA)
                accounts.admit(cursor, NOWHERE, ADA, "ada", pair(1, AT - 9), AT - 9)
                for client in ("c", "d"):
                    consents.keep(cursor, Digest(client.encode() * 32), ADA, client, AT)
                what(cursor)
                digests = [Digest(client.encode() * 32) for client in ("c", "d")]
                return [consents.stands(cursor, each, AT) for each in (*digests, kept)]

            found = await store.write(happens)
            self.assertEqual(found, [there, there, True], what.__name__)
