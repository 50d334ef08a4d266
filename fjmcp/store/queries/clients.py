"""Registered clients: how they authenticate, and their metadata as judged at registration."""

from __future__ import annotations

from fjmcp.oauth.clients import Client
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.tokens import Digest
from fjmcp.store.transactions import Cursor


def add(cursor: Cursor, client: Client) -> None:
    """Keep a new client."""
    cursor.execute(
        "INSERT INTO clients (client_id, auth_method, secret_digest, metadata, created_at)"
        " VALUES (?, ?, ?, ?, ?)",
        client.client_id,
        client.metadata.token_endpoint_auth_method,
        client.secrets[0].value if client.secrets else None,
        client.metadata.to_json(),
        client.created_at,
    )


def find(cursor: Cursor, client_id: str) -> Client | None:
    """The client of that id."""
    row = cursor.one(
        "SELECT client_id, secret_digest, metadata, created_at FROM clients WHERE client_id = ?",
        client_id,
    )
    if row is None:
        return None
    found, secret, metadata, created_at = row
    return Client(
        client_id=found,
        secrets=() if secret is None else (Digest(bytes(secret)),),
        metadata=ClientMetadata.from_json(metadata),
        created_at=created_at,
    )


def make_room(cursor: Cursor, most: int) -> int:
    """
    Forget clients that nobody ever used, oldest first, if there are more than
    `most` clients; answer how many went.

    A tenth of `most` goes at a time, so that a flood of registrations does not
    sweep at each one.  A client with a grant, live or ended, a code or a
    sign-in under way stays.
    """
    counted = cursor.one("SELECT COUNT(*) FROM clients")
    if counted is None or counted[0] <= most:
        return 0
    gone = cursor.many(
        "DELETE FROM clients WHERE client_id IN"
        " (SELECT client_id FROM clients WHERE client_id NOT IN"
        " (SELECT client_id FROM grants UNION SELECT client_id FROM codes"
        " UNION SELECT client_id FROM signins)"
        " ORDER BY created_at, client_id LIMIT ?)"
        " RETURNING client_id",
        max(1, counted[0] - most + most // 10),
    )
    return len(gone)
