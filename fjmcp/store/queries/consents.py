"""
As whom a browser is known, and what that person need not be asked again.

Both are written only where a sign-in comes to its end, so that nobody makes
rows here without an account.  `browser` and `consent` are digests.
"""

from __future__ import annotations

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth.tokens import Digest
from fjmcp.store.transactions import Cursor

# --- browsers -------------------------------------------------------------------


@frozen
class KnownAs:
    """Whose a browser is."""

    account_id: int
    until: float


def known_as(cursor: Cursor, browser: Digest, now: float) -> KnownAs | None:
    """Who signed in last in this browser, unless that is too long ago."""
    row = cursor.one(
        "SELECT account_id, expires_at FROM browsers WHERE browser = ? AND expires_at > ?",
        browser.value,
        now,
    )
    return None if row is None else KnownAs(*row)


def know(cursor: Cursor, browser: Digest, account_id: int, now: float) -> None:
    """From now on this browser is this account's, whosever it was before."""
    cursor.execute(
        "DELETE FROM browsers WHERE browser IN ("
        " SELECT browser FROM browsers WHERE account_id = ? AND browser <> ?"
        " ORDER BY expires_at DESC LIMIT 1000 OFFSET ?)",
        account_id,
        browser.value,
        limits.BROWSERS_PER_ACCOUNT - 1,
    )
    cursor.execute(
        "INSERT INTO browsers (browser, account_id, expires_at) VALUES (?, ?, ?)"
        " ON CONFLICT (browser) DO UPDATE"
        " SET account_id = excluded.account_id, expires_at = excluded.expires_at",
        browser.value,
        account_id,
        now + limits.KNOWN_BROWSER,
    )


def unknow(cursor: Cursor, browser: Digest) -> None:
    """From now on this browser is nobody's."""
    cursor.execute("DELETE FROM browsers WHERE browser = ?", browser.value)


# --- consents -------------------------------------------------------------------


def stands(cursor: Cursor, consent: Digest, now: float) -> bool:
    """Whether this was consented to, and not too long ago."""
    row = cursor.one(
        "SELECT 1 FROM consents WHERE consent = ? AND expires_at > ?", consent.value, now
    )
    return row is not None


def keep(cursor: Cursor, consent: Digest, account_id: int, client_id: str, now: float) -> None:
    """Remember a consent, from now on where it was remembered already."""
    cursor.execute(
        "DELETE FROM consents WHERE consent IN ("
        " SELECT consent FROM consents WHERE account_id = ? AND consent <> ?"
        " ORDER BY expires_at DESC LIMIT 1000 OFFSET ?)",
        account_id,
        consent.value,
        limits.CONSENTS_PER_ACCOUNT - 1,
    )
    cursor.execute(
        "INSERT INTO consents (consent, account_id, client_id, expires_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (consent) DO UPDATE SET expires_at = excluded.expires_at",
        consent.value,
        account_id,
        client_id,
        now + limits.CONSENT_KEPT,
    )


def forget(cursor: Cursor, account_id: int, client_id: str) -> None:
    """Whatever this account allowed this client, it is asked again."""
    cursor.execute(
        "DELETE FROM consents WHERE account_id = ? AND client_id = ?", account_id, client_id
    )


def forget_all(cursor: Cursor, account_id: int) -> None:
    """Whatever this account allowed anybody, it is asked again."""
    cursor.execute("DELETE FROM consents WHERE account_id = ?", account_id)


def drop_expired(cursor: Cursor, now: float) -> None:
    """Drop what is of no use any more."""
    cursor.execute("DELETE FROM browsers WHERE expires_at <= ?", now)
    cursor.execute("DELETE FROM consents WHERE expires_at <= ?", now)
