from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import accounts, sealed, signins
from fjmcp.store.queries.sealed import COLUMNS, Column, Resealed
from fjmcp.store.transactions import Cursor
from fjmcp.store.vault import Ring, key_id
from fjmcp.testing import memory_store, now

ACCOUNTS, VERIFIERS, EXCHANGES, SUCCESSORS = COLUMNS


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


class SealedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = memory_store()
        self.old = Ring.generate()
        self.ring = self.old.with_next().promoted()

    def fill(self, count: int) -> None:
        for number in range(1, count + 1):
            value = self.old.seal(b"%d" % number, ACCOUNTS.bound(number))
            now(self.store.write(put_account, number, value))

    def reseal(self, after: Any = None, most: int = 100, column: Column = ACCOUNTS) -> Resealed:
        return now(self.store.write(sealed.reseal, column, self.ring, after, most))

    def test_bounds(self) -> None:
        """A value is opened where its owner has bound it."""
        digest = Digest(bytes(range(32)))
        for column, key, bound in (
            (ACCOUNTS, 7, accounts.bound_credential(7)),
            (VERIFIERS, digest.value, signins.bound_verifier(digest)),
            (EXCHANGES, digest.value, accounts.bound_exchange(digest)),
            (SUCCESSORS, digest.value, f"refresh_tokens.successor:{digest.value.hex()}"),
        ):
            self.assertEqual(column.bound(key), bound)

    def test_resealed(self) -> None:
        """Every value opens to the same, sealed with the current key."""
        self.fill(5)
        self.assertEqual(self.reseal(), Resealed(None, 5, ()))
        rows = now(self.store.read(values, ACCOUNTS))
        self.assertEqual({key_id(value) for _, value in rows}, {self.ring.current})
        opened = [self.ring.open(value, ACCOUNTS.bound(key)) for key, value in rows]
        self.assertEqual(opened, [b"1", b"2", b"3", b"4", b"5"])
        self.assertEqual(self.reseal().count, 0)

    def test_keyed_by_bytes(self) -> None:
        """So it is where a digest is the key."""
        for token in (b"\x00" * 32, b"\xff" * 32, b"A" * 32):
            value = self.old.seal(token, SUCCESSORS.bound(token))
            now(self.store.write(put_successor, token, value))
        first = self.reseal(None, 2, SUCCESSORS)
        second = self.reseal(first.last, 2, SUCCESSORS)
        self.assertEqual((first.count, second.count, second.last), (2, 1, None))
        for token, value in now(self.store.read(values, SUCCESSORS)):
            self.assertEqual(self.ring.open(value, SUCCESSORS.bound(token)), token)

    def test_nothing_else(self) -> None:
        """A new seal is no new version of the credential, and no value is no work."""
        self.fill(1)
        now(self.store.write(put_account, 2, None))
        self.reseal()
        rows = now(self.store.read(lambda c: c.many("SELECT version, credential FROM accounts")))
        self.assertEqual([row[0] for row in rows], [7, 7])
        self.assertEqual(rows[1][1], None)

    def test_lost(self) -> None:
        """A value that does not open stays as it is, is named, and does not stop the others."""
        self.fill(2)
        stranger = Ring.generate()
        swapped = self.old.seal(b"4", ACCOUNTS.bound(3))
        for number, value in ((3, stranger.seal(b"3", ACCOUNTS.bound(3))), (4, swapped)):
            now(self.store.write(put_account, number, value))
        done = self.reseal()
        self.assertEqual(done.count, 2)
        self.assertEqual(
            [each.split(": ")[0] for each in done.lost],
            ["accounts.credential:3", "accounts.credential:4"],
        )
        self.assertEqual(now(self.store.read(values, ACCOUNTS))[3], (4, swapped))

    def test_census(self) -> None:
        """How much each key has sealed, over all columns."""
        self.fill(3)
        self.reseal(None, 2)
        token = b"t" * 32
        value = self.old.seal(b"s", SUCCESSORS.bound(token))
        now(self.store.write(put_successor, token, value))
        counted = now(self.store.read(sealed.census))
        self.assertEqual(counted, {self.old.current: 2, self.ring.current: 2})
        self.assertEqual(now(self.store.read(sealed.key_ids)), set(counted))
