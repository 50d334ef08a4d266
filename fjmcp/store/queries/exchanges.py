"""
Pairs on their way from Forgejo to an account's row.

A sign-in's row says that an exchange is in flight (`begin`), takes the sealed pair
(`seal`), and gives it to the account's row (`fjmcp.store.queries.accounts`), in one
transaction with `finish`.
"""

from __future__ import annotations

from attrs import field, frozen

from fjmcp import limits
from fjmcp.oauth.tokens import Digest
from fjmcp.store.transactions import Cursor


@frozen
class Exchange:
    """A sign-in's row whose pair is not in its account's row yet."""

    signin: Digest
    until: float | None
    """While somebody works on it; nobody does after it."""
    credential: bytes | None = field(repr=False)
    """Sealed; bound to `bound(signin)`.  None while Forgejo has not answered."""

    def abandoned(self, now: float) -> bool:
        """Whether the pair is here and nobody works on it."""
        return self.credential is not None and (self.until is None or self.until <= now)


def bound(signin: Digest) -> str:
    """What the vault binds the pair in this sign-in's row to."""
    return f"signins.credential:{signin.value.hex()}"


def begin(cursor: Cursor, signin: Digest, now: float) -> bool:
    """
    Say in a sign-in's row that its code goes to Forgejo.

    False if there is no such row, or its code went there before.
    """
    until = now + limits.EXCHANGE_CLAIM
    return (
        cursor.one(
            # It must not expire with a pair on the way to it.
            "UPDATE signins SET exchange_from = ?, exchange_until = ?,"
            " expires_at = CASE WHEN expires_at < ? THEN ? ELSE expires_at END"
            " WHERE signin = ? AND exchange_from IS NULL RETURNING signin",
            now,
            until,
            until,
            until,
            signin.value,
        )
        is not None
    )


def seal(cursor: Cursor, signin: Digest, sealed: bytes) -> bool:
    """Keep the pair in its sign-in's row; False if the row is gone."""
    return (
        cursor.one(
            "UPDATE signins SET credential = ? WHERE signin = ? RETURNING signin",
            sealed,
            signin.value,
        )
        is not None
    )


def finish(cursor: Cursor, signin: Digest) -> None:
    """Nothing of this exchange is on its way any more."""
    cursor.execute(
        "UPDATE signins SET exchange_until = NULL, credential = NULL WHERE signin = ?",
        signin.value,
    )


def abandon(cursor: Cursor, signin: Digest) -> None:
    """Leave the pair in the row, for `recover` to finish."""
    cursor.execute("UPDATE signins SET exchange_until = NULL WHERE signin = ?", signin.value)


def take(cursor: Cursor, signin: Digest, now: float) -> Exchange | None:
    """Take an abandoned pair to work on; None if another has it, or it is done."""
    row = cursor.one(
        "UPDATE signins SET exchange_until = ?"
        " WHERE signin = ? AND credential IS NOT NULL"
        " AND (exchange_until IS NULL OR exchange_until <= ?)"
        " RETURNING signin, exchange_until, credential",
        now + limits.EXCHANGE_CLAIM,
        signin.value,
        now,
    )
    return None if row is None else _exchange(row)


def pending(cursor: Cursor, before: float, now: float) -> list[Exchange]:
    """What began until `before` and may still bring a pair, and all that hold one."""
    rows = cursor.many(
        "SELECT signin, exchange_until, credential FROM signins"
        " WHERE (exchange_from <= ? AND exchange_until > ?) OR credential IS NOT NULL"
        " ORDER BY exchange_from",
        before,
        now,
    )
    return [_exchange(row) for row in rows]


def _exchange(row: tuple[bytes, float | None, bytes | None]) -> Exchange:
    signin, until, credential = row
    return Exchange(Digest(bytes(signin)), until, credential)
