"""What nobody will need any more."""

from __future__ import annotations

from fjmcp import limits
from fjmcp.store.queries import consents, documents, grants
from fjmcp.store.transactions import Cursor


def sweep(cursor: Cursor, now: float) -> None:
    """
    Drop tokens, codes, sign-ins, known browsers and consents that have expired, what
    ended grants left, and documents that nobody uses.

    A grant that has expired is not ended here: what runs for it must end with
    it (`fjmcp.broker.endings`).
    """
    cursor.execute("DELETE FROM access_tokens WHERE expires_at <= ?", now)
    grants.drop_codes(cursor, now)
    # A sign-in that holds a pair of Forgejo's is for the credentials to finish.
    cursor.execute("DELETE FROM signins WHERE expires_at <= ? AND credential IS NULL", now)
    consents.drop_expired(cursor, now)
    grants.forget_graces(cursor, now)
    before = now - limits.ENDED_GRANT
    cursor.execute(
        "DELETE FROM refresh_tokens WHERE grant_id IN ("
        " SELECT grant_id FROM grants WHERE ended_at <= ?)",
        before,
    )
    cursor.execute("DELETE FROM grants WHERE ended_at <= ?", before)
    documents.expire(cursor, now)
