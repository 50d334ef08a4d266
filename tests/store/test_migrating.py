from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.store.migrating import Script, TooNew, ours, statements, upgrade
from fjmcp.store.sqlite import WRITE, SqliteCursor, in_transaction

ONE = Script(1, "0001-one.sql", "CREATE TABLE one (a {blob} PRIMARY KEY);")
TWO = Script(2, "0002-two.sql", "ALTER TABLE one ADD COLUMN b TEXT;\nCREATE TABLE two (a TEXT);")
BROKEN = Script(2, "0002-broken.sql", "CREATE TABLE two (a TEXT);\nCREATE TABLE two (a TEXT);")


ROWS: Final[Mapping[int, Mapping[str, list[tuple[Any, ...]]]]] = {
    1: {
        "clients": [
            ("used", "none", None, "{}", 100.0),
            ("unused", "client_secret_post", b"secret", "{}", 110.0),
        ],
        "accounts": [
            (7, "Ada", b"pair", 3, 11, 5, 100.0, 200.0, None, None, None, None, 90.0),
            (8, "bob", None, 1, None, None, 100.0, 200.0, 150.0, "node", 160.0, 170.0, 90.0),
        ],
        "signins": [
            (b"in", b"tab", "used", "{}", b"state", b"pkce", 1.0, 2.0, b"pair", 100.0, 700.0)
        ],
        "codes": [(b"code", "unused", 7, "{}", 160.0, None)],
        "grants": [
            ("live", 7, "used", "forge:read", 100.0, 300.0, None, None),
            ("over", 7, "used", "forge:read", 100.0, 200.0, 210.0, "revoked"),
        ],
        "access_tokens": [(b"access", "live", 900.0)],
        "refresh_tokens": [(b"refresh", "live", b"before", 100.0, 101.0, b"sealed")],
    },
    2: {"sessions": [(b"session", 7, "used", "{}", b"told", 100.0, 300.0)]},
}
"""A row or two for each table of a version of our schema."""


class StatementsTests(SynchronousTestCase):
    def test_split(self) -> None:
        """Statements end at their semicolons, not at those in strings and comments."""
        text = "-- a; b\nSELECT ';' ; /* c; */ SELECT 2;\n\nSELECT 3 -- d;\n;\n-- the end\n"
        found = statements(text)
        self.assertEqual(len(found), 3)
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        rows = [connection.execute(each).fetchone()[0] for each in found]
        self.assertEqual(rows, [";", 2, 3])

    def test_no_end(self) -> None:
        """A statement without its semicolon is an error and is not skipped."""
        for text in ("SELECT 1", "SELECT 1; SELECT 2", "SELECT 'a;"):
            with self.assertRaises(ValueError):
                statements(text)


class UpgradeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)
        self.copied: list[int] = []

    def upgrade(self, *scripts: Script) -> tuple[int, int]:
        return in_transaction(
            self.connection,
            WRITE,
            lambda cursor: upgrade(cursor, scripts, blob="BLOB", before=self.copied.append),
        )

    def tables(self, kind: str = "%") -> set[str]:
        rows = SqliteCursor(self.connection).many(
            "SELECT name FROM sqlite_master WHERE sql > '' AND type LIKE ?", kind
        )
        return {name for (name,) in rows}

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return SqliteCursor(self.connection).many(f"SELECT * FROM {table}")

    def test_from_ours(self) -> None:
        """From each older version of our schema all rows are there afterwards, as they were, and
        the schema is that of an empty store; a client is in use since its last grant was."""
        scripts = ours()
        self.upgrade(*scripts)
        whole = self.schema()
        self.assertEqual(sorted(ROWS), list(range(1, len(scripts))))
        for have in ROWS:
            self.setUp()
            self.upgrade(*scripts[:have])
            filled = {
                table: rows
                for since in ROWS
                if since <= have
                for table, rows in ROWS[since].items()
            }
            self.assertEqual({*filled, "schema_version"}, self.tables("table"))
            for table, rows in filled.items():
                for row in rows:
                    marks = ", ".join("?" * len(row))
                    self.connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
            self.upgrade(*scripts)
            self.assertEqual(self.schema(), whole)
            for table, rows in filled.items():
                kept = [row[: len(rows[0])] for row in self.rows(table)]
                self.assertEqual(kept, rows, table)
            used = SqliteCursor(self.connection).many("SELECT client_id, used_at FROM clients")
            self.assertEqual(used, [("used", 300.0), ("unused", None)])

    def schema(self) -> list[tuple[Any, ...]]:
        cursor = SqliteCursor(self.connection)
        return cursor.many("SELECT type, name, sql FROM sqlite_master ORDER BY name")

    def test_from_nothing(self) -> None:
        """An empty database gets every script, in order, and no copy is made of it."""
        self.assertEqual(self.upgrade(ONE, TWO), (0, 2))
        self.assertEqual(self.tables(), {"one", "two", "schema_version"})
        self.assertEqual(self.copied, [])

    def test_from_earlier(self) -> None:
        """A database gets the scripts that it has not seen, after the caller made a copy."""
        self.upgrade(ONE)
        self.assertEqual(self.upgrade(ONE, TWO), (1, 2))
        self.assertEqual(self.copied, [1])
        self.assertEqual(self.tables(), {"one", "two", "schema_version"})

    def test_nothing_to_do(self) -> None:
        """A database that is up to date stays as it is, uncopied."""
        self.upgrade(ONE, TWO)
        self.assertEqual(self.upgrade(ONE, TWO), (2, 2))
        self.assertEqual(self.copied, [])

    def test_fails_midway(self) -> None:
        """An upgrade that fails at its last statement leaves the version before it, whole."""
        self.upgrade(ONE)
        with self.assertRaises(sqlite3.OperationalError):
            self.upgrade(ONE, BROKEN)
        self.assertEqual(self.tables(), {"one", "schema_version"})
        self.assertEqual(self.upgrade(ONE, TWO), (1, 2))

    def test_copy_fails(self) -> None:
        """Without the copy nothing is upgraded."""
        self.upgrade(ONE)

        def fail(version: int) -> None:
            raise OSError("disk full")

        with self.assertRaises(OSError):
            in_transaction(
                self.connection,
                WRITE,
                lambda cursor: upgrade(cursor, (ONE, TWO), blob="BLOB", before=fail),
            )
        self.assertEqual(self.tables(), {"one", "schema_version"})

    def test_too_new(self) -> None:
        """A schema newer than the code is refused and left alone."""
        self.upgrade(ONE, TWO)
        with self.assertRaises(TooNew) as caught:
            self.upgrade(ONE)
        self.assertIn("schema is 2", str(caught.exception))

    def test_numbers(self) -> None:
        """Scripts with a gap, a double or a wrong start are a bug, found before any of them ran."""
        for scripts in ((TWO,), (ONE, ONE), (TWO, ONE)):
            with self.assertRaises(ValueError):
                self.upgrade(*scripts)
        self.assertEqual(self.tables(), set())

    def test_ours(self) -> None:
        """Our own scripts run from nothing."""
        self.assertEqual(self.upgrade(*ours()), (0, len(ours())))
        self.assertIn("accounts", self.tables())
