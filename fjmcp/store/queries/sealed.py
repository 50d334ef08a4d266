"""Which columns hold sealed values, and with which keys they were sealed."""

from __future__ import annotations

from typing import Final

from fjmcp.store.transactions import Cursor
from fjmcp.store.vault import HEAD_LENGTH, key_id

COLUMNS: Final = (
    ("accounts", "credential"),
    ("signins", "upstream_verifier"),
    ("signins", "credential"),
    ("refresh_tokens", "successor"),
)
"""Table and column of everything that `fjmcp.store.vault` seals."""


def key_ids(cursor: Cursor) -> frozenset[bytes]:
    """The ids of all keys that sealed something which is still there."""
    heads = {
        bytes(head)
        for table, column in COLUMNS
        for (head,) in cursor.many(
            f"SELECT DISTINCT substr({column}, 1, {HEAD_LENGTH}) FROM {table}"
            f" WHERE {column} IS NOT NULL"
        )
    }
    return frozenset(key_id(head) for head in heads)
