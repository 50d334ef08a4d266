"""Which columns hold sealed values, with which keys they were sealed, and sealing them anew."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from fjmcp.store.transactions import Cursor
from fjmcp.store.vault import HEAD_LENGTH, VERSION, Ring, Unsealable, key_id


@frozen
class Column:
    """A column of sealed values, and the primary key of its table, which binds them."""

    table: str
    name: str
    key: str

    def bound(self, key: object) -> str:
        """What the vault binds the value in the row `key` to."""
        spelt = bytes(key).hex() if isinstance(key, bytes | memoryview) else str(key)
        return f"{self.table}.{self.name}:{spelt}"


COLUMNS: Final = (
    Column("accounts", "credential", "account_id"),
    Column("signins", "upstream_verifier", "signin"),
    Column("signins", "credential", "signin"),
    Column("refresh_tokens", "successor", "token"),
)
"""Everything that `fjmcp.store.vault` seals."""


def key_ids(cursor: Cursor) -> frozenset[bytes]:
    """The ids of all keys that sealed something which is still there."""
    return frozenset(census(cursor))


def census(cursor: Cursor) -> dict[bytes, int]:
    """How many values each key has sealed that are still there."""
    counted: dict[bytes, int] = {}
    for column in COLUMNS:
        for head, count in cursor.many(
            f"SELECT substr({column.name}, 1, {HEAD_LENGTH}), COUNT(*) FROM {column.table}"
            f" WHERE {column.name} IS NOT NULL GROUP BY 1"
        ):
            found = key_id(bytes(head))
            counted[found] = counted.get(found, 0) + count
    return counted


@frozen
class Resealed:
    """
    What one transaction did.

    :ivar last: the key of the last row that it looked at; None after the last of all.
    :ivar count: values that are sealed with the current key now.
    :ivar lost: the places of values that do not open.
    """

    last: Any
    count: int
    lost: tuple[str, ...]


def reseal(cursor: Cursor, column: Column, ring: Ring, after: Any, most: int) -> Resealed:
    """
    Seal anew with the current key what another sealed: `most` rows behind `after`.

    A value that does not open stays as it is.
    """
    beyond, arguments = ("", []) if after is None else (f" AND {column.key} > ?", [after])
    rows = cursor.many(
        f"SELECT {column.key}, {column.name} FROM {column.table}"
        f" WHERE {column.name} IS NOT NULL AND substr({column.name}, 1, {HEAD_LENGTH}) <> ?"
        f"{beyond} ORDER BY {column.key} LIMIT ?",
        VERSION + ring.current,
        *arguments,
        most,
    )
    lost = []
    for key, value in rows:
        bound = column.bound(key)
        try:
            fresh = ring.seal(ring.open(bytes(value), bound), bound)
        except Unsealable as error:
            lost.append(str(error))
            continue
        cursor.execute(
            f"UPDATE {column.table} SET {column.name} = ?"
            f" WHERE {column.key} = ? AND {column.name} = ?",
            fresh,
            key,
            value,
        )
    last = rows[-1][0] if len(rows) == most else None
    return Resealed(last, len(rows) - len(lost), tuple(lost))
