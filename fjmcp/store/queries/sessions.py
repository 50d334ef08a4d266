"""
Sessions that outlive their child and this process (design D2).

A row belongs to an account and a client; its id stands here only as a digest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from attrs import frozen

from fjmcp import limits
from fjmcp.mcp.opening import Opening
from fjmcp.store.transactions import Cursor

_COLUMNS = "session, account_id, client_id, opening, told, created_at, used_at"


@frozen
class SessionRow:
    """A session as it is kept.  Times are epoch seconds."""

    digest: bytes
    account_id: int
    client_id: str
    opening: Opening
    told: bytes
    """The result of `initialize` that the client was given."""
    created_at: float
    used_at: float


def keep(cursor: Cursor, row: SessionRow, spared: Collection[bytes] = ()) -> list[bytes]:
    """
    Keep a session, or what has changed in it; the digests of those that made room.

    Of one account and client at most `limits.SESSIONS_PER_CONNECTION` are kept,
    and of one account `limits.SESSIONS_PER_ACCOUNT`.

    :param spared: sessions that make no room for those of other clients.
    """
    cursor.execute(
        f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (session) DO UPDATE SET opening = excluded.opening,"
        " told = excluded.told, used_at = excluded.used_at",
        row.digest,
        row.account_id,
        row.client_id,
        row.opening.to_json(),
        row.told,
        row.created_at,
        row.used_at,
    )
    rows = cursor.many(
        "DELETE FROM sessions WHERE session IN ("
        " SELECT session FROM sessions WHERE account_id = ? AND client_id = ? AND session <> ?"
        " ORDER BY used_at DESC, session LIMIT 1000 OFFSET ?) RETURNING session",
        row.account_id,
        row.client_id,
        # Itself it makes no room, though a clock that was set back makes it the oldest.
        row.digest,
        limits.SESSIONS_PER_CONNECTION - 1,
    )
    count = cursor.one("SELECT COUNT(*) FROM sessions WHERE account_id = ?", row.account_id)
    if count is not None and count[0] > limits.SESSIONS_PER_ACCOUNT:
        stay = {row.digest, *spared}
        rows += cursor.many(
            "DELETE FROM sessions WHERE session IN ("
            " SELECT session FROM sessions WHERE account_id = ?"
            f" AND session NOT IN ({', '.join('?' * len(stay))})"
            " ORDER BY used_at DESC, session LIMIT 1000 OFFSET ?) RETURNING session",
            row.account_id,
            *stay,
            max(limits.SESSIONS_PER_ACCOUNT - len(stay), 0),
        )
    return [digest for (digest,) in rows]


def find(cursor: Cursor, digest: bytes) -> SessionRow | None:
    """The session with the id of this digest."""
    row = cursor.one(f"SELECT {_COLUMNS} FROM sessions WHERE session = ?", digest)
    return None if row is None else _row(row)


def latest(cursor: Cursor, account_id: int, client_id: str) -> SessionRow | None:
    """The session of this account and client that was used last."""
    row = cursor.one(
        f"SELECT {_COLUMNS} FROM sessions WHERE account_id = ? AND client_id = ?"
        " ORDER BY used_at DESC LIMIT 1",
        account_id,
        client_id,
    )
    return None if row is None else _row(row)


def touch(cursor: Cursor, used: Mapping[bytes, float]) -> None:
    """Note when sessions were last used; a digest that is gone stays gone."""
    for digest, used_at in used.items():
        cursor.execute("UPDATE sessions SET used_at = ? WHERE session = ?", used_at, digest)


def forget(cursor: Cursor, digest: bytes) -> None:
    """Drop a session."""
    cursor.execute("DELETE FROM sessions WHERE session = ?", digest)


def expire(cursor: Cursor, now: float) -> int:
    """Drop the sessions that nobody used for `limits.SESSION_LIFE`; how many there were."""
    rows = cursor.many(
        "DELETE FROM sessions WHERE used_at <= ? RETURNING session", now - limits.SESSION_LIFE
    )
    return len(rows)


def _row(row: tuple[Any, ...]) -> SessionRow:
    digest, account_id, client_id, opening, told, created_at, used_at = row
    return SessionRow(
        digest, account_id, client_id, Opening.from_json(opening), told, created_at, used_at
    )
