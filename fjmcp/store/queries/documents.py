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
from fjmcp.store.queries import unused
from fjmcp.store.queries.unused import Kept
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
    """Forget the oldest that nobody ever used past `most` (`unused.make_room`)."""
    return unused.make_room(cursor, Kept.DOCUMENTS, most)


def expire(cursor: Cursor, now: float) -> None:
    """Forget those that nobody uses, or not for long (`unused.expire`)."""
    unused.expire(cursor, Kept.DOCUMENTS, limits.DOCUMENTS, now)
