"""
What every store promises, whatever engine is under it.

An engine joins by a class that mixes `StoreContract` into a test case, opens
an empty store in `open_store` and runs a coroutine in `keep`.  An engine that
several processes can share mixes in `SharedContract` too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.store.transactions import Cursor, Store, StoreDown

if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object

T = TypeVar("T")
C = TypeVar("C", bound="_Contract")


def promise(test: Callable[[C], Coroutine[Any, Any, None]]) -> Callable[[C], Any]:
    """A test that is a coroutine, run as its class says."""

    @wraps(test)
    def kept(self: C) -> Any:
        return self.keep(test(self))

    return kept


class Planned(Exception):
    """Raised by a transaction because the test wants it."""


class _Contract(_Case):
    def open_store(self) -> Store:
        """An empty store with our schema, closed again by the test case."""
        raise NotImplementedError

    def keep(self, work: Coroutine[Any, Any, None]) -> Any:
        """Run a test to its end."""
        raise NotImplementedError


def start(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)


async def all_of(*works: Coroutine[Any, Any, T]) -> list[T]:
    return await gatherResults([start(work) for work in works], consumeErrors=True)


def add(cursor: Cursor, grant: str, scopes: str = "") -> str:
    cursor.execute(
        "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at)"
        " VALUES (?, 7, 'c', ?, 0, 0)",
        grant,
        scopes,
    )
    return grant


def grants(cursor: Cursor) -> list[str]:
    return [grant for (grant,) in cursor.many("SELECT grant_id FROM grants ORDER BY grant_id")]


def count_up(cursor: Cursor) -> int:
    """Read, then write what was read and one."""
    row = cursor.one("SELECT used_at FROM grants WHERE grant_id = 'counter'")
    assert row is not None
    cursor.execute("UPDATE grants SET used_at = ? WHERE grant_id = 'counter'", row[0] + 1)
    return int(row[0]) + 1


def add_token(cursor: Cursor, token: bytes, predecessor: bytes | None = None) -> None:
    cursor.execute(
        "INSERT INTO refresh_tokens (token, grant_id, predecessor, issued_at)"
        " VALUES (?, 'g', ?, 0)",
        token,
        predecessor,
    )


def rotate(cursor: Cursor, token: bytes, successor: bytes) -> bool:
    """Use a refresh token, unless it was used; whether it was given to this caller."""
    row = cursor.one("SELECT used_at FROM refresh_tokens WHERE token = ?", token)
    assert row is not None
    if row[0] is not None:
        return False
    cursor.execute("UPDATE refresh_tokens SET used_at = 1 WHERE token = ?", token)
    add_token(cursor, successor, token)
    return True


def successors(cursor: Cursor, token: bytes) -> list[bytes]:
    rows = cursor.many("SELECT token FROM refresh_tokens WHERE predecessor = ?", token)
    return [bytes(successor) for (successor,) in rows]


class StoreContract(_Contract):
    """Promises to one process."""

    @promise
    async def test_value(self) -> None:
        """What the function answers is what the `await` gives, arguments and all."""
        store = self.open_store()
        self.assertEqual(await store.write(add, "a", scopes="x"), "a")
        self.assertEqual(await store.read(grants), ["a"])

    @promise
    async def test_read_sees_writes(self) -> None:
        """A read sees every write whose `await` has ended."""
        store = self.open_store()
        for number in range(20):
            await store.write(add, f"{number:02}")
            self.assertEqual(len(await store.read(grants)), number + 1)

    @promise
    async def test_exception_undoes_all(self) -> None:
        """An exception out of a transaction comes to the caller, and nothing of it is kept."""
        store = self.open_store()

        def half(cursor: Cursor) -> None:
            add(cursor, "a")
            raise Planned

        with self.assertRaises(Planned):
            await store.write(half)
        self.assertEqual(await store.read(grants), [])
        await store.write(add, "b")
        self.assertEqual(await store.read(grants), ["b"])

    @promise
    async def test_wrong_statement(self) -> None:
        """A wrong statement or a broken constraint is a bug and no `StoreDown`; all is undone."""
        store = self.open_store()
        await store.write(add, "a")

        def nonsense(cursor: Cursor) -> None:
            add(cursor, "b")
            cursor.execute("SELECT nothing FROM nowhere")

        def twice(cursor: Cursor) -> None:
            add(cursor, "c")
            add(cursor, "a")

        for wrong in (nonsense, twice):
            with self.assertRaises(Exception) as caught:
                await store.write(wrong)
            self.assertNotIsInstance(caught.exception, StoreDown)
            self.assertEqual(await store.read(grants), ["a"])

    @promise
    async def test_reads_cannot_write(self) -> None:
        """A read that tries to write fails as a bug and changes nothing."""
        store = self.open_store()
        with self.assertRaises(Exception) as caught:
            await store.read(add, "a")
        self.assertNotIsInstance(caught.exception, StoreDown)
        self.assertEqual(await store.read(grants), [])

    @promise
    async def test_racing_writers(self) -> None:
        """What is read in a writing transaction does not change before it is written."""
        store = self.open_store()
        await store.write(add, "counter")
        counted = await all_of(*(store.write(count_up) for _ in range(50)))
        self.assertEqual(sorted(counted), list(range(1, 51)))

    @promise
    async def test_racing_refreshes(self) -> None:
        """Of many refreshes of one token at the same instant one gets the successor."""
        store = self.open_store()
        await store.write(add_token, b"first")
        won = await all_of(*(store.write(rotate, b"first", bytes([n])) for n in range(16)))
        self.assertEqual(sum(won), 1)
        self.assertEqual(await store.read(successors, b"first"), [bytes([won.index(True)])])

    @promise
    async def test_cancelled(self) -> None:
        """Whoever stops waiting for a write does not stop the write."""
        store = self.open_store()
        waiting = start(store.write(add, "a"))
        waiting.cancel()
        try:
            await waiting
        except CancelledError:
            pass
        await store.write(add, "b")
        self.assertEqual(await store.read(grants), ["a", "b"])

    @promise
    async def test_values_survive(self) -> None:
        """Bytes, any text, numbers up to 64 bits, fractions and NULL come back as they went."""
        store = self.open_store()
        whole = bytes(range(256))
        text = "naïve \u202e 漢字 \U0001f4a9 'quoted' ? %s :x"

        def put(cursor: Cursor) -> None:
            cursor.execute(
                "INSERT INTO codes (code, client_id, account_id, request, expires_at, grant_id)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                *(whole, "", 2**63 - 1, text, 1763712345.678901, None),
            )

        await store.write(put)
        row = await store.read(lambda cursor: cursor.one("SELECT * FROM codes"))
        assert row is not None
        self.assertEqual(bytes(row[0]), whole)
        self.assertEqual(row[1:], ("", 2**63 - 1, text, 1763712345.678901, None))

    @promise
    async def test_common_sql(self) -> None:
        """ON CONFLICT and RETURNING work, and `one` runs a statement to its end."""
        store = self.open_store()
        for grant in "abc":
            await store.write(add, grant)

        def change(cursor: Cursor) -> tuple[Any, ...] | None:
            cursor.execute(
                "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at)"
                " VALUES ('a', 7, 'c', 'new', 0, 0)"
                " ON CONFLICT (grant_id) DO UPDATE SET scopes = excluded.scopes"
            )
            return cursor.one("UPDATE grants SET used_at = 5 RETURNING used_at")

        self.assertEqual(await store.write(change), (5,))
        rows = await store.read(
            lambda cursor: cursor.many("SELECT scopes, used_at FROM grants ORDER BY grant_id")
        )
        self.assertEqual(rows, [("new", 5), ("", 5), ("", 5)])
        self.assertIsNone(await store.read(lambda cursor: cursor.one("SELECT 1 WHERE 1 = 0")))

    @promise
    async def test_close(self) -> None:
        """Closing waits for what was asked for; afterwards the store is down."""
        store = self.open_store()
        asked = [start(store.write(add, f"{n}")) for n in range(5)]
        await store.close()
        self.assertEqual([await each for each in asked], ["0", "1", "2", "3", "4"])
        for ask in (store.write, store.read):
            with self.assertRaises(StoreDown):
                await ask(grants)
        with self.assertRaises(StoreDown):
            await store.commits_elsewhere()

    @promise
    async def test_own_commits(self) -> None:
        """What a store commits itself is no commit of elsewhere."""
        store = self.open_store()
        before = await store.commits_elsewhere()
        for grant in "ab":
            await store.write(add, grant)
            await store.read(grants)
        self.assertEqual(await store.commits_elsewhere(), before)


class SharedContract(_Contract):
    """Promises to several processes at one database."""

    def open_again(self) -> Store:
        """Another way into the database of `open_store`, with connections of its own."""
        raise NotImplementedError

    @promise
    async def test_writes_meet(self) -> None:
        """A write that ended is seen by everybody."""
        one, two = self.open_store(), self.open_again()
        await one.write(add, "a")
        self.assertEqual(await two.read(grants), ["a"])
        await two.write(add, "b")
        self.assertEqual(await one.read(grants), ["a", "b"])

    @promise
    async def test_commits_elsewhere(self) -> None:
        """Each process sees that the other has committed, once, whatever it wrote itself."""
        one, two = self.open_store(), self.open_again()
        ours, theirs = await one.commits_elsewhere(), await two.commits_elsewhere()
        await two.write(add, "a")
        seen = await one.commits_elsewhere()
        self.assertNotEqual(seen, ours)
        self.assertEqual(await one.commits_elsewhere(), seen)
        self.assertEqual(await two.commits_elsewhere(), theirs)
        await two.write(add, "b")
        await one.write(add, "c")
        self.assertNotEqual(await one.commits_elsewhere(), seen)

    @promise
    async def test_racing_processes(self) -> None:
        """Two processes that count together lose no step."""
        one, two = self.open_store(), self.open_again()
        await one.write(add, "counter")
        works = [store.write(count_up) for store in (one, two) for _ in range(25)]
        self.assertEqual(sorted(await all_of(*works)), list(range(1, 51)))

    @promise
    async def test_racing_refreshes_of_two(self) -> None:
        """Of the refreshes of one token at two processes one gets the successor."""
        one, two = self.open_store(), self.open_again()
        await one.write(add_token, b"first")
        won = await all_of(
            *(store.write(rotate, b"first", bytes([n])) for n, store in enumerate([one, two] * 8))
        )
        self.assertEqual(sum(won), 1)
        self.assertEqual(await two.read(successors, b"first"), [bytes([won.index(True)])])
