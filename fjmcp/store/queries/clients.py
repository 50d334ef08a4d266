"""
Registered clients: their metadata as judged at registration, and what each registration was given.

Identical registrations shortly after one another are one client, as long as
nobody has used it.  Each of them has its own secret and its own management
token, so that none can be had by registering the same again.
"""

from __future__ import annotations

from fjmcp import limits
from fjmcp.oauth.clients import Client
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import unused
from fjmcp.store.queries.unused import Kept
from fjmcp.store.transactions import Cursor


def add(cursor: Cursor, client: Client) -> None:
    """Keep a new client."""
    cursor.execute(
        "INSERT INTO clients (client_id, auth_method, metadata, created_at, fingerprint)"
        " VALUES (?, ?, ?, ?, ?)",
        client.client_id,
        client.metadata.token_endpoint_auth_method,
        client.metadata.to_json(),
        client.created_at,
        client.metadata.fingerprint.value,
    )


def find(cursor: Cursor, client_id: str) -> Client | None:
    """The client of that id."""
    row = cursor.one(
        "SELECT client_id, secret_digest, metadata, created_at FROM clients WHERE client_id = ?",
        client_id,
    )
    if row is None:
        return None
    found, first, metadata, created_at = row
    rows = cursor.many("SELECT secret_digest FROM registrations WHERE client_id = ?", client_id)
    secrets = [secret for (secret,) in [(first,), *rows] if secret is not None]
    return Client(
        client_id=found,
        secrets=tuple(Digest(bytes(secret)) for secret in secrets),
        metadata=ClientMetadata.from_json(metadata),
        created_at=created_at,
    )


def twin(cursor: Cursor, metadata: ClientMetadata, now: float) -> Client | None:
    """The client that just registered with the same metadata, and that nobody has used."""
    # The newest alone: it is there because those before it were not to be had any more.  So this
    # costs the same however many there are, and anybody can register as many as they like.
    row = cursor.one(
        "SELECT client_id FROM (SELECT client_id, used_at FROM clients WHERE fingerprint = ?"
        "  AND created_at <= ? ORDER BY created_at DESC LIMIT 1) AS newest WHERE used_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM grants"
        "  WHERE grants.client_id = newest.client_id AND ended_at IS NULL)"
        " AND NOT EXISTS (SELECT 1 FROM codes WHERE codes.client_id = newest.client_id)"
        " AND NOT EXISTS (SELECT 1 FROM signins WHERE signins.client_id = newest.client_id)"
        " AND (SELECT MAX(created_at) FROM registrations"
        "  WHERE registrations.client_id = newest.client_id) BETWEEN ? AND ?"
        " AND (SELECT COUNT(*) FROM registrations"
        "  WHERE registrations.client_id = newest.client_id) < ?",
        metadata.fingerprint.value,
        now,
        now - limits.TWIN,
        now,
        limits.TWINS,
    )
    return None if row is None else find(cursor, row[0])


def note_use(cursor: Cursor, client_id: str, now: float) -> None:
    """A grant of it was born or used."""
    cursor.execute("UPDATE clients SET used_at = ? WHERE client_id = ?", now, client_id)


# --- registrations ------------------------------------------------------------------


def register(
    cursor: Cursor, client_id: str, token: Digest, secret: Digest | None, now: float
) -> None:
    """Keep what a registration was given."""
    cursor.execute(
        "INSERT INTO registrations (token, client_id, secret_digest, created_at)"
        " VALUES (?, ?, ?, ?)",
        token.value,
        client_id,
        None if secret is None else secret.value,
        now,
    )


def managed(cursor: Cursor, client_id: str, token: Digest) -> Client | None:
    """The client, if this management token is of one of its registrations."""
    row = cursor.one(
        "SELECT 1 FROM registrations WHERE token = ? AND client_id = ?", token.value, client_id
    )
    return None if row is None else find(cursor, client_id)


def withdraw(cursor: Cursor, token: Digest) -> tuple[bool, Digest | None]:
    """
    Forget a registration, and its client if it has no other; whether the client went, and
    the secret that the registration had.

    The grants of either are for the caller to end, in the same transaction.
    """
    row = cursor.one(
        "DELETE FROM registrations WHERE token = ? RETURNING client_id, secret_digest", token.value
    )
    if row is None:
        return False, None
    client_id, secret = row
    gone = cursor.one(
        "DELETE FROM clients WHERE client_id = ?"
        " AND client_id NOT IN (SELECT client_id FROM registrations) RETURNING client_id",
        client_id,
    )
    return gone is not None, None if secret is None else Digest(bytes(secret))


# --- the forgotten ----------------------------------------------------------------------


def make_room(cursor: Cursor, most: int) -> int:
    """Forget the oldest that nobody ever used past `most` (`unused.make_room`)."""
    return _tidied(cursor, unused.make_room(cursor, Kept.CLIENTS, most))


def expire(cursor: Cursor, now: float) -> int:
    """Forget those that nobody uses, or not for long; answer how many went (`unused.expire`)."""
    return _tidied(cursor, unused.expire(cursor, Kept.CLIENTS, limits.CLIENTS, now))


def _tidied(cursor: Cursor, gone: int) -> int:
    if gone:
        cursor.execute(
            "DELETE FROM registrations WHERE client_id NOT IN (SELECT client_id FROM clients)"
        )
    return gone
