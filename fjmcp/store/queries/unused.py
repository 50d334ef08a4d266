"""
What is kept of clients that nobody uses, registered or named by a URL: bounded, then forgotten.

Anybody can make either, so what nobody has used makes room and goes soon.  What
somebody used stays for long, since its client keeps the id; and what has a live
grant, or is about to, stays.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from fjmcp import limits
from fjmcp.store.transactions import Cursor

_IN_USE: Final = (
    "SELECT client_id FROM grants WHERE ended_at IS NULL UNION SELECT client_id FROM codes"
    " UNION SELECT client_id FROM signins"
)
"""Clients that something of theirs is under way of, registered or not."""


class Kept(Enum):
    """A table with a `client_id` and a `used_at`, and the column that says how old a row is."""

    CLIENTS = ("clients", "created_at")
    DOCUMENTS = ("documents", "fetched_at")


def make_room(cursor: Cursor, kept: Kept, most: int) -> int:
    """
    Drop what nobody ever used, oldest first, if there is more than `most` of it;
    answer how many rows went.

    A tenth of `most` goes at a time, so that a flood does not sweep at each one.
    """
    table, age = kept.value
    # What was used does not count: who has used much must not take the room of what is to come.
    counted = cursor.one(f"SELECT COUNT(*) FROM {table} WHERE used_at IS NULL")
    if counted is None or counted[0] <= most:
        return 0
    return _drop(
        cursor,
        table,
        f"used_at IS NULL AND client_id NOT IN ({_IN_USE}) ORDER BY {age}, client_id LIMIT ?",
        max(1, counted[0] - most + most // 10),
    )


def expire(cursor: Cursor, kept: Kept, most: int, now: float) -> int:
    """
    Drop what never came to a grant, and that whose last one is long over or, past
    `most` of it, longest over; answer how many rows went.
    """
    table, age = kept.value
    gone = _drop(
        cursor,
        table,
        f"((used_at IS NULL AND {age} <= ?) OR used_at <= ?) AND client_id NOT IN ({_IN_USE})",
        now - limits.CLIENT_UNUSED,
        now - limits.CLIENT_IDLE,
    )
    over = f"used_at IS NOT NULL AND client_id NOT IN ({_IN_USE})"
    counted = cursor.one(f"SELECT COUNT(*) FROM {table} WHERE {over}")
    if counted is not None and counted[0] > most:
        which = f"{over} ORDER BY used_at, client_id LIMIT ?"
        gone += _drop(cursor, table, which, counted[0] - most)
    return gone


def _drop(cursor: Cursor, table: str, which: str, *params: object) -> int:
    gone = cursor.many(
        f"DELETE FROM {table} WHERE client_id IN"
        f" (SELECT client_id FROM {table} WHERE {which}) RETURNING client_id",
        *params,
    )
    return len(gone)
