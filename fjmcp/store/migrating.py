"""
The schema, from any earlier version to ours, all or nothing.

A script is `migrations/NNNN-name.sql`; `{blob}` in it stands for the engine's
type of bytes.  The table `schema_version` has one row: the number of the last
script that ran.  Forward only: the copy made before an upgrade is the way back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from fjmcp.store.transactions import Cursor


class TooNew(Exception):
    """The database was written by a later fjmcp; the text says what to do."""


@frozen
class Script:
    """One step of the schema."""

    version: int
    name: str
    text: str


def ours() -> list[Script]:
    """The scripts of this fjmcp, in order."""
    folder = resources.files("fjmcp.store") / "migrations"
    found = [
        Script(int(file.name.partition("-")[0]), file.name, file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda script: script.version)


def statements(text: str) -> list[str]:
    """
    The statements of a script.

    Raises `ValueError` when the last one has no end.
    """
    found: list[str] = []
    rest = ""
    # A semicolon may also stand in a string or a comment: SQLite knows.
    for piece in text.split(";")[:-1]:
        rest += piece + ";"
        if sqlite3.complete_statement(rest):
            found.append(rest.strip())
            rest = ""
    rest += text.rpartition(";")[2]
    for line in rest.splitlines():
        if line.strip() and not line.strip().startswith("--"):
            raise ValueError(f"no semicolon after {line.strip()!r}")
    return found


def version(cursor: Cursor) -> int:
    """The schema of a database that fjmcp has made."""
    row = cursor.one("SELECT version FROM schema_version")
    return 0 if row is None else int(row[0])


def upgrade(
    cursor: Cursor, scripts: Sequence[Script], *, blob: str, before: Callable[[int], None]
) -> tuple[int, int]:
    """
    Run the scripts that this database has not seen, in the caller's transaction.

    `before` is called with the old version before the first change to a
    database that holds anything; what it raises stops the upgrade.
    Answers the versions before and after.  Raises `TooNew`.
    """
    versions = [script.version for script in scripts]
    if versions != list(range(1, len(scripts) + 1)):
        raise ValueError(f"the scripts are not numbered 1, 2, 3...: {versions}")
    cursor.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    row = cursor.one("SELECT version FROM schema_version")
    have = 0 if row is None else int(row[0])
    want = len(scripts)
    if have > want:
        raise TooNew(
            f"its schema is {have} and this fjmcp knows {want} at most. Run the newer fjmcp again,"
            " or restore the copy that it made beside the store before its upgrade."
        )
    if have == want:
        return have, want
    if have:
        before(have)
    for script in scripts[have:]:
        for statement in statements(script.text.replace("{blob}", blob)):
            cursor.execute(statement)
    cursor.execute("DELETE FROM schema_version")
    cursor.execute("INSERT INTO schema_version (version) VALUES (?)", want)
    return have, want
