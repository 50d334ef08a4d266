"""
Client ID Metadata Documents, as they were last good.

A document with which nobody ever connected can be fetched again, and makes
room; one that was used stays, since its client refreshes its tokens while its
host may be away.  Long after its last grant was over it goes, too.
"""

from __future__ import annotations

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.store.queries.clients import IN_USE
from fjmcp.store.transactions import Cursor


@frozen
class Document:
    """A document that was fetched and good."""

    client_id: str
    """Its URL."""
    metadata: ClientMetadata
    fetched_at: float
    fresh_until: float


def find(cursor: Cursor, client_id: str) -> Document | None:
    """The document at that URL, however old."""
    row = cursor.one(
        "SELECT client_id, metadata, fetched_at, fresh_until FROM documents WHERE client_id = ?",
        client_id,
    )
    if row is None:
        return None
    found, metadata, fetched_at, fresh_until = row
    return Document(found, ClientMetadata.from_json(metadata), fetched_at, fresh_until)


def keep(cursor: Cursor, document: Document) -> None:
    """Keep a document in place of what was there before."""
    cursor.execute(
        "INSERT INTO documents (client_id, metadata, fetched_at, fresh_until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (client_id) DO UPDATE SET metadata = excluded.metadata,"
        " fetched_at = excluded.fetched_at, fresh_until = excluded.fresh_until",
        document.client_id,
        document.metadata.to_json(),
        document.fetched_at,
        document.fresh_until,
    )


def note_use(cursor: Cursor, client_id: str, now: float) -> None:
    """A grant of it was born or used; a client without a row (a shipped one) has none to note."""
    cursor.execute("UPDATE documents SET used_at = ? WHERE client_id = ?", now, client_id)


def make_room(cursor: Cursor, most: int) -> int:
    """
    Forget documents that nobody ever used, oldest first, if there are more than
    `most` of those; answer how many went.

    A tenth of `most` goes at a time, as with clients.
    """
    counted = cursor.one("SELECT COUNT(*) FROM documents WHERE used_at IS NULL")
    if counted is None or counted[0] <= most:
        return 0
    gone = cursor.many(
        "DELETE FROM documents WHERE client_id IN"
        f" (SELECT client_id FROM documents WHERE used_at IS NULL AND client_id NOT IN ({IN_USE})"
        " ORDER BY fetched_at, client_id LIMIT ?)"
        " RETURNING client_id",
        max(1, counted[0] - most + most // 10),
    )
    return len(gone)


def expire(cursor: Cursor, now: float) -> None:
    """
    Drop documents with which nobody connected within a day, and those whose last
    grant is long over or, if they are too many, longest over; one with a live grant
    stays, however old, as with clients.
    """
    cursor.execute(
        "DELETE FROM documents WHERE ((used_at IS NULL AND fetched_at <= ?) OR used_at <= ?)"
        f" AND client_id NOT IN ({IN_USE})",
        now - limits.CLIENT_UNUSED,
        now - limits.CLIENT_IDLE,
    )
    over = f"used_at IS NOT NULL AND client_id NOT IN ({IN_USE})"
    counted = cursor.one(f"SELECT COUNT(*) FROM documents WHERE {over}")
    if counted is not None and counted[0] > limits.DOCUMENTS:
        cursor.execute(
            "DELETE FROM documents WHERE client_id IN (SELECT client_id FROM documents"
            f" WHERE {over} ORDER BY used_at, client_id LIMIT ?)",
            counted[0] - limits.DOCUMENTS,
        )
