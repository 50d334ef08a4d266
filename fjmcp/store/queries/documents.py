"""
Client ID Metadata Documents, as they were last good.

A document with which nobody ever connected can be fetched again, and makes
room; one that was used stays, since its client refreshes its tokens while its
host may be away.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.store.transactions import Cursor

# Between the consent page and the token its client must be found, too.
_UNUSED: Final = (
    "used_at IS NULL AND client_id NOT IN"
    " (SELECT client_id FROM codes UNION SELECT client_id FROM signins)"
)


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


def use(cursor: Cursor, client_id: str, now: float) -> None:
    """A grant of it was born or used; a client without a row (a shipped one) has none to note."""
    cursor.execute("UPDATE documents SET used_at = ? WHERE client_id = ?", now, client_id)


def make_room(cursor: Cursor, most: int) -> int:
    """
    Forget documents that nobody ever used, oldest first, if there are more than
    `most`; answer how many went.

    A tenth of `most` goes at a time, as with clients.
    """
    counted = cursor.one("SELECT COUNT(*) FROM documents")
    if counted is None or counted[0] <= most:
        return 0
    gone = cursor.many(
        "DELETE FROM documents WHERE client_id IN"
        f" (SELECT client_id FROM documents WHERE {_UNUSED}"
        " ORDER BY fetched_at, client_id LIMIT ?)"
        " RETURNING client_id",
        max(1, counted[0] - most + most // 10),
    )
    return len(gone)


def drop_unused(cursor: Cursor, before: float) -> None:
    """Drop documents that were fetched before then, and never used."""
    cursor.execute(f"DELETE FROM documents WHERE fetched_at <= ? AND {_UNUSED}", before)
