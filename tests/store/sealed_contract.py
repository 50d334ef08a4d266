"""What is promised, on every engine, of values that are sealed and sealed anew."""

from __future__ import annotations

from typing import Any

from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import accounts, exchanges, sealed, signins
from fjmcp.store.queries.sealed import COLUMNS, Column, Resealed
from fjmcp.store.transactions import Cursor, Store
from fjmcp.store.vault import Ring, key_id
from tests.store.contract import _Contract, promise

ACCOUNTS, VERIFIERS, EXCHANGES, SUCCESSORS = COLUMNS

OLD = Ring.generate()
RING = OLD.with_next().promoted()


def put_account(cursor: Cursor, number: int, value: bytes | None) -> None:
    cursor.execute(
        "INSERT INTO accounts (account_id, login, credential, version, received_at, expires_at,"
        " signed_in_at) VALUES (?, 'a', ?, 7, 0, 0, 0)",
        number,
        value,
    )


def put_successor(cursor: Cursor, token: bytes, value: bytes) -> None:
    cursor.execute(
        "INSERT INTO refresh_tokens (token, grant_id, issued_at, successor) VALUES (?, 'g', 0, ?)",
        token,
        value,
    )


def values(cursor: Cursor, column: Column) -> list[tuple[Any, Any]]:
    return cursor.many(
        f"SELECT {column.key}, {column.name} FROM {column.table}"
        f" WHERE {column.name} IS NOT NULL ORDER BY 1"
    )


async def fill(store: Store, count: int) -> None:
    for number in range(1, count + 1):
        await store.write(put_account, number, OLD.seal(b"%d" % number, ACCOUNTS.bound(number)))


async def reseal(
    store: Store, after: Any = None, most: int = 100, column: Column = ACCOUNTS
) -> Resealed:
    return await store.write(sealed.reseal, column, RING, after, most)


class SealedContract(_Contract):
    """Sealed columns."""

    @promise
    async def test_bounds(self) -> None:
        """A value is opened where its owner has bound it."""
        digest = Digest(bytes(range(32)))
        for column, key, bound in (
            (ACCOUNTS, 7, accounts.bound_credential(7)),
            (VERIFIERS, digest.value, signins.bound_verifier(digest)),
            (EXCHANGES, digest.value, exchanges.bound(digest)),
            (SUCCESSORS, digest.value, f"refresh_tokens.successor:{digest.value.hex()}"),
        ):
            self.assertEqual(column.bound(key), bound)

    @promise
    async def test_each_key_opens(self) -> None:
        """Rows that each key of a ring has sealed stand side by side, and each opens."""
        store = self.open_store()
        ring = OLD
        for number in range(1, 4):
            value = ring.seal(b"%d" % number, ACCOUNTS.bound(number))
            await store.write(put_account, number, value)
            ring = ring.with_next().promoted()
        rows = await store.read(values, ACCOUNTS)
        self.assertEqual(len({key_id(bytes(value)) for _, value in rows}), 3)
        for key, value in rows:
            self.assertEqual(ring.open(bytes(value), ACCOUNTS.bound(key)), b"%d" % key)

    @promise
    async def test_resealed(self) -> None:
        """Every value opens to the same, sealed with the current key."""
        store = self.open_store()
        await fill(store, 5)
        self.assertEqual(await reseal(store), Resealed(None, 5, ()))
        rows = await store.read(values, ACCOUNTS)
        self.assertEqual({key_id(bytes(value)) for _, value in rows}, {RING.current})
        opened = [RING.open(bytes(value), ACCOUNTS.bound(key)) for key, value in rows]
        self.assertEqual(opened, [b"1", b"2", b"3", b"4", b"5"])
        self.assertEqual((await reseal(store)).count, 0)

    @promise
    async def test_keyed_by_bytes(self) -> None:
        """So it is where a digest is the key, a few rows at a time."""
        store = self.open_store()
        for token in (b"\x00" * 32, b"\xff" * 32, b"A" * 32):
            await store.write(put_successor, token, OLD.seal(token, SUCCESSORS.bound(token)))
        first = await reseal(store, None, 2, SUCCESSORS)
        second = await reseal(store, first.last, 2, SUCCESSORS)
        self.assertEqual((first.count, second.count, second.last), (2, 1, None))
        for token, value in await store.read(values, SUCCESSORS):
            opened = RING.open(bytes(value), SUCCESSORS.bound(token))
            self.assertEqual(opened, bytes(token))

    @promise
    async def test_nothing_else(self) -> None:
        """A new seal is no new version of the credential, and no value is no work."""
        store = self.open_store()
        await fill(store, 1)
        await store.write(put_account, 2, None)
        self.assertEqual((await reseal(store)).count, 1)
        found = [await store.read(accounts.find, number) for number in (1, 2)]
        self.assertEqual([row and row.version for row in found], [7, 7])
        self.assertIsNone(found[1] and found[1].credential)

    @promise
    async def test_lost(self) -> None:
        """A value that does not open stays as it is, is named, and does not stop the others."""
        store = self.open_store()
        await fill(store, 2)
        swapped = OLD.seal(b"4", ACCOUNTS.bound(3))
        await store.write(put_account, 3, Ring.generate().seal(b"3", ACCOUNTS.bound(3)))
        await store.write(put_account, 4, swapped)
        done = await reseal(store)
        self.assertEqual(done.count, 2)
        self.assertEqual(
            [each.split(": ")[0] for each in done.lost],
            ["accounts.credential:3", "accounts.credential:4"],
        )
        left = await store.read(accounts.find, 4)
        self.assertEqual(left and left.credential, swapped)

    @promise
    async def test_census(self) -> None:
        """How much each key has sealed, over all columns."""
        store = self.open_store()
        await fill(store, 3)
        await reseal(store, None, 2)
        token = b"t" * 32
        await store.write(put_successor, token, OLD.seal(b"s", SUCCESSORS.bound(token)))
        counted = await store.read(sealed.census)
        self.assertEqual(counted, {OLD.current: 2, RING.current: 2})
        self.assertEqual(await store.read(sealed.key_ids), set(counted))
