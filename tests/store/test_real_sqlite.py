"""The store on a real SQLite file, through real threads."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from fjmcp import limits
from fjmcp.store.holder import Holder, announce, holder
from fjmcp.store.migrating import Script, ours
from fjmcp.store.queries import clients
from fjmcp.store.sqlite import is_locked, lock_file, open_sqlite
from fjmcp.store.transactions import Cursor, Store, StoreDown, StoreUnusable
from fjmcp.store.vault import Ring
from tests.store.accounts_contract import AccountsContract
from tests.store.consents_contract import ConsentsContract
from tests.store.contract import SharedContract, StoreContract, add, grants
from tests.store.documents_contract import DocumentsContract
from tests.store.grants_contract import GrantsContract, IssuerContract, SignInsContract
from tests.store.sealed_contract import SealedContract
from tests.store.tokens_contract import PersonalTokensContract

WRITER = """
import sys, time
from pathlib import Path
from fjmcp.store import sqlite

path = Path(sys.argv[1])
lock = sqlite._claim(path)
connection = sqlite._connect(path, "rw")
connection.execute("BEGIN IMMEDIATE")
connection.execute(
    "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at)"
    " VALUES ('a', 7, 'c', '', 0, 0)"
)
print("written", flush=True)
time.sleep(60)
"""
"""A daemon that stops in the middle of a transaction."""

QUICK = "PRAGMA busy_timeout=50"


def run(cursor: Cursor, sql: str) -> None:
    cursor.execute(sql)


class SqliteTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.path = self.folder / "fjmcp.sqlite3"

    def open_store(self) -> Store:
        return self.opened(alone=True)

    def open_again(self) -> Store:
        return self.opened(alone=False)

    def opened(
        self, *, alone: bool = True, upgrade: bool = True, scripts: list[Script] | None = None
    ) -> Store:
        from twisted.internet import reactor

        threads: Any = reactor
        store = open_sqlite(self.path, threads, alone=alone, upgrade=upgrade, scripts=scripts)
        self.addCleanup(lambda: Deferred.fromCoroutine(store.close()))
        return store

    def keep(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        return Deferred.fromCoroutine(work)

    def unusable(self, **given: Any) -> str:
        with self.assertRaises(StoreUnusable) as caught:
            self.opened(**given)
        self.assertIn(str(self.path), str(caught.exception))
        return str(caught.exception)


class SqliteStoreTests(SqliteTestCase, StoreContract, SharedContract):
    """The contract, on a file."""


class SqliteGrantsTests(
    SqliteTestCase, GrantsContract, SignInsContract, IssuerContract, AccountsContract
):
    """The contract of the rows of OAuth, on a file."""


class SqlitePersonalTokensTests(SqliteTestCase, PersonalTokensContract):
    """The contract of personal tokens, on a file."""


class SqliteDocumentsTests(SqliteTestCase, DocumentsContract):
    """The contract of metadata documents, on a file."""


class SqliteConsentsTests(SqliteTestCase, ConsentsContract):
    """The contract of what is remembered of people, on a file."""


class SqliteSealedTests(SqliteTestCase, SealedContract):
    """The contract of sealed values, on a file."""


class HolderTests(SqliteTestCase):
    """Who holds a store, and with which keys."""

    def test_held(self) -> None:
        """A daemon that holds the store is seen, and what it says of its keys; when it is gone,
        what it said is no more believed."""
        self.assertIsNone(holder(self.path))
        store = self.open_store()
        self.assertEqual(holder(self.path), Holder())
        ring = Ring.generate()
        announce(self.path, "/etc/fjmcp/keys", ring, 5.0)
        expected = Holder(os.getpid(), "/etc/fjmcp/keys", ring.ids, ring.current, 5.0)
        self.assertEqual(holder(self.path), expected)
        self.assertIn("in use by another fjmcp daemon", self.unusable())
        self.assertEqual(holder(self.path), expected)
        closed = Deferred.fromCoroutine(store.close())
        closed.addCallback(lambda _: self.assertIsNone(holder(self.path)))
        closed.addCallback(lambda _: self.open_store())
        closed.addCallback(lambda _: self.assertEqual(holder(self.path), Holder()))
        return closed  # type: ignore[return-value]

    def test_looking_harms_nothing(self) -> None:
        """A daemon starts while somebody looks whether one runs."""
        lock_file(self.path).touch()
        with lock_file(self.path).open("rb") as looking:
            self.assertFalse(is_locked(looking.fileno()))
            self.open_store()
            self.assertTrue(is_locked(looking.fileno()))

    def test_half_said(self) -> None:
        """Half a word of a daemon is that of one that starts."""
        said = Holder(1, "x", frozenset({b"1234"}), b"1234", 1.0).to_text()
        self.assertEqual(Holder.from_text(said).current, b"1234")
        for cut in (said[:10], b"", b"[]", b"{}", b'{"pid": 1}', said.replace(b"31", b"zz")):
            self.assertIsNone(Holder.from_text(cut).current, cut)


class AsItIsTests(SqliteTestCase):
    """A store that a tool opens beside the daemon, which alone makes and upgrades it."""

    async def test_opened(self) -> None:
        """What a daemon has made is opened and works."""
        await self.open_store().write(add, "a")
        beside = self.opened(alone=False, upgrade=False)
        self.assertEqual(await beside.read(grants), ["a"])

    def test_refused(self) -> None:
        """What is not there, is of another schema or is none of ours is refused and left alone."""
        self.assertIn("unable to open", self.unusable(alone=False, upgrade=False))
        self.assertFalse(self.path.exists())
        self.path.touch()
        self.assertIn("is none of fjmcp", self.unusable(alone=False, upgrade=False))
        self.path.unlink()
        self.open_store()
        later = [*ours(), Script(len(ours()) + 1, "later", "CREATE TABLE later (x INTEGER);")]
        said = self.unusable(alone=False, upgrade=False, scripts=later)
        self.assertIn(f"works with {len(later)}", said)


class LastsTests(SqliteTestCase):
    async def test_lasts(self) -> None:
        """What was written is there after the store was closed and opened again."""
        store = self.open_store()
        await store.write(add, "a")
        await store.close()
        self.assertEqual(await self.open_store().read(grants), ["a"])

    async def test_private(self) -> None:
        """No file of the store can be read by others."""
        await self.open_store().write(add, "a")
        modes = {path.name: path.stat().st_mode & 0o777 for path in self.folder.iterdir()}
        self.assertIn("fjmcp.sqlite3-wal", modes)
        self.assertEqual(set(modes.values()), {0o600}, modes)

    async def test_settings(self) -> None:
        """The file has a write-ahead log, and each commit waits for the disk."""
        store = self.open_store()

        def look(cursor: Cursor) -> list[Any]:
            return [cursor.one(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")]

        self.assertEqual(await store.write(look), [("wal",), (2,)])

    async def test_killed_midway(self) -> None:
        """A process that is killed in a transaction leaves nothing of it, and no lock."""
        await self.open_store().close()
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITER,
                str(self.path),
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        self.assertEqual(child.stdout.readline(), b"written\n")
        self.assertIn("in use", self.unusable())
        child.send_signal(signal.SIGKILL)
        child.communicate()
        store = self.open_store()
        self.assertEqual(await store.read(grants), [])
        await store.write(add, "b")

    async def test_one_state(self) -> None:
        """A read sees one state of the rows, however much is written meanwhile."""
        store, other = self.open_store(), self.open_again()
        await store.write(add, "a")

        def look_twice(cursor: Cursor) -> tuple[list[str], list[str]]:
            before = grants(cursor)
            connection = sqlite3.connect(self.path, isolation_level=None)
            connection.execute("UPDATE grants SET grant_id = 'b'")
            connection.close()
            return before, grants(cursor)

        self.assertEqual(await other.read(look_twice), (["a"], ["a"]))
        self.assertEqual(await other.read(grants), ["b"])


class TroubleTests(SqliteTestCase):
    async def test_locked(self) -> None:
        """While another process writes for too long the store is down for writes, not for reads."""
        store = self.open_store()
        await store.write(add, "a")
        await store.write(run, QUICK)
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(StoreDown):
            await store.write(add, "b")
        self.assertEqual(await store.read(grants), ["a"])
        other.execute("ROLLBACK")
        await store.write(add, "b")
        self.assertEqual(await store.read(grants), ["a", "b"])

    async def test_commits_elsewhere_while_locked(self) -> None:
        """To see what others committed no lock is waited for, and none is held after it."""
        store = self.open_store()
        before = await store.commits_elsewhere()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM grants")
        began = time.monotonic()
        self.assertEqual(await store.commits_elsewhere(), before)
        self.assertLess(time.monotonic() - began, limits.STORE_BUSY / 2)
        other.execute("COMMIT")
        self.assertNotEqual(await store.commits_elsewhere(), before)
        # A reader whose snapshot is held would keep the log from being begun anew.
        other.execute("PRAGMA busy_timeout=0")
        (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.assertEqual(busy, 0)

    async def test_disk_full(self) -> None:
        """A full disk is a `StoreDown` that loses nothing, and the store works again later."""
        store = self.open_store()
        await store.write(add, "a")

        def fill(cursor: Cursor) -> None:
            # Two pages more than now: SQLite says SQLITE_FULL as for a full disk.
            (pages,) = cursor.one("PRAGMA page_count") or (0,)
            cursor.execute(f"PRAGMA max_page_count={pages + 2}")

        await store.write(fill)
        for number in range(3):
            with self.assertRaises(StoreDown):
                await store.write(add, f"big{number}", "x" * 100_000)
            self.assertEqual(await store.read(grants), ["a"])
        await store.write(run, "PRAGMA max_page_count=100000")
        await store.write(add, "b", "x" * 100_000)
        self.assertEqual(await store.read(grants), ["a", "b"])

    async def test_failing_commit(self) -> None:
        """A function's own exception comes out although the rollback had been done for it."""
        store = self.open_store()

        def gives_up(cursor: Cursor) -> None:
            cursor.execute("ROLLBACK")
            raise KeyError("planned")

        with self.assertRaises(KeyError):
            await store.write(gives_up)
        await store.write(add, "a")

    async def test_damaged(self) -> None:
        """A damaged file is a `StoreDown` for whoever asks, and no crash."""
        store = self.open_store()
        for number in range(200):
            await store.write(add, f"{number}", "x" * 1000)
        await store.close()
        with self.path.open("r+b") as file:
            # Past the roots of all tables, so that it can still be opened.
            file.seek(4096 * 60)
            file.write(b"\xff" * 4096 * 20)
        store = self.open_store()
        with self.assertRaises(StoreDown):
            await store.read(run, "SELECT SUM(LENGTH(scopes)) FROM grants")


class OpeningTests(SqliteTestCase):
    def test_second_daemon(self) -> None:
        """A second daemon at the same file is refused with the way out; the tool is not."""
        self.open_store()
        said = self.unusable()
        self.assertIn("another fjmcp daemon", said)
        self.assertIn("--store", said)
        self.open_again()

    def test_second_daemon_by_a_link(self) -> None:
        """So it is where the same file has another name."""
        self.open_store()
        link = self.path.with_name("link.sqlite3")
        link.symlink_to(self.path)
        self.path = link
        self.assertIn("another fjmcp daemon", self.unusable())

    async def test_next_daemon(self) -> None:
        """After a store was closed the next daemon opens it, or after a start that failed."""
        await self.open_store().close()
        broken = Script(len(ours()) + 1, "broken.sql", "nonsense;")
        self.unusable(scripts=[*ours(), broken])
        self.open_store()

    def test_no_database(self) -> None:
        """A file that is no database is refused and left as it is."""
        self.path.write_text("Dear diary, " * 1000)
        self.unusable()
        self.assertTrue(self.path.read_text().startswith("Dear diary"))

    def test_no_folder(self) -> None:
        """A path whose folder is missing, or a folder itself, is refused by its name."""
        self.path = self.folder / "missing" / "fjmcp.sqlite3"
        self.unusable()
        self.path = self.folder / "fjmcp"
        self.path.mkdir()
        self.unusable()

    def test_odd_name(self) -> None:
        """A path with characters that mean something in a URI is just a path."""
        self.path = self.folder / "a b?mode=ro#x%41.sqlite3"
        self.open_store()
        self.assertTrue(self.path.exists())

    def test_first_schema_fails(self) -> None:
        """A store that could not be made leaves no file."""
        broken = Script(1, "0001-broken.sql", "CREATE TABLE a (b TEXT); nonsense;")
        self.unusable(scripts=[broken])
        left = {path.name for path in self.folder.iterdir()}
        self.assertEqual(left, {"fjmcp.sqlite3.lock"})


class UpgradeTests(SqliteTestCase):
    def more(self, text: str = "ALTER TABLE grants ADD COLUMN colour TEXT;") -> list[Script]:
        return [*ours(), Script(len(ours()) + 1, "more.sql", text)]

    @property
    def copy(self) -> Path:
        return self.folder / f"fjmcp.sqlite3.before-{len(ours()):04}"

    async def test_copy(self) -> None:
        """Before an upgrade the file is copied, private, and the copy works as it was."""
        store = self.open_store()
        await store.write(add, "a")
        await store.close()
        store = self.opened(scripts=self.more())
        await store.write(run, "UPDATE grants SET colour = 'red'")
        self.assertEqual(self.copy.stat().st_mode & 0o777, 0o600)
        await store.close()
        self.path.unlink()
        self.copy.rename(self.path)
        self.assertEqual(await self.open_store().read(grants), ["a"])

    async def test_fails_midway(self) -> None:
        """An upgrade that fails midway leaves the store as it was, for the version before."""
        store = self.open_store()
        await store.write(add, "a")
        await store.close()
        self.unusable(scripts=self.more("DROP TABLE grants; nonsense;"))
        self.assertEqual(await self.open_store().read(grants), ["a"])

    async def test_newer(self) -> None:
        """A store of a newer fjmcp is refused with what to do, and left alone."""
        await self.opened(scripts=self.more()).close()
        said = self.unusable()
        self.assertIn("newer fjmcp", said)
        self.assertIn("copy", said)
        await self.opened(scripts=self.more()).close()

    async def test_two_at_once(self) -> None:
        """Of two processes that open an old store one upgrades it, and both can use it."""
        await self.open_store().close()
        stores = [self.opened(alone=False, scripts=self.more()) for _ in range(2)]
        for store, grant in zip(stores, "ab", strict=True):
            await store.write(add, grant)
        self.assertEqual(await stores[0].read(grants), ["a", "b"])

    async def test_query_on_file(self) -> None:
        """A query of ours finds nothing in a fresh store, and says so."""
        self.assertIsNone(await self.open_store().read(clients.find, "fj-0"))
