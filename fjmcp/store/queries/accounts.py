"""
Accounts, each with its one credential, and the pairs that are on their way there.

Forgejo keeps one refresh counter per person and application: every pair that
it gives kills the refresh token of the pair before.  So which of two pairs is
newer decides everything, and the rule stands here beside the SQL that obeys it
(`supersedes`).

A pair's way: a sign-in's row says that an exchange is in flight
(`exchanges.begin`), takes the sealed pair (`exchanges.seal`), and gives it to the
account's row (`admit`).  A refresh is claimed in the account's row (`claim`)
and comes back to it (`keep`), or does not (`put_off`, `mark_dead`).

An account is dead because Forgejo refused its pair, or, with a `dead_reason`,
because its person may not come in.  The pair of a sign-in does not end it: only a
person who is there and may come in does (`admit`).  A dead account keeps what pairs
come to it all the same, since each killed the one before; one that was refused, and
has the pair of a person at whom nobody could look, is marked `NOT_LOOKED_AT`.

With either goes all that the person had allowed clients and need not have been
asked again: who revokes us at Forgejo may do so to be rid of one of them.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from fjmcp import limits
from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import consents, exchanges
from fjmcp.store.transactions import Cursor

_LONGEST_CLAIM: Final = 2 * limits.REFRESH_CLAIM
_LONGEST_WAIT: Final = 2 * limits.FORGE_RETRY_AFTER
"""What ends later than this was written before the clock was set back, and would
hold for as long; the clocks of several nodes may differ by half of it."""
_LONGEST_LOOK: Final = limits.EXCHANGE_CLAIM + limits.PAIR_KEEP
"""Likewise of what was written while a sign-in looked at its person and was kept."""

NOT_LOOKED_AT: Final = "not-looked-at"
"""The `dead_reason` of an account whose pair was refused and which has a good one since; whether
its person may come in is not known."""


@frozen
class SealedPair:
    """A pair as it is kept: what is sealed, and what the rule must know of it."""

    sealed: bytes = field(repr=False)
    """Bound to `bound_credential(account_id)`."""
    forge_grant: int | None
    forge_count: int | None
    received_at: float
    expires_at: float


@frozen
class Account:
    """A row of accounts."""

    account_id: int
    login: str
    credential: bytes | None = field(repr=False)
    """Sealed; bound to `bound_credential(account_id)`."""
    version: int
    forge_grant: int | None
    forge_count: int | None
    received_at: float
    expires_at: float
    dead_since: float | None
    refresh_owner: str | None
    refresh_until: float | None
    retry_after: float | None
    signed_in_at: float
    dead_reason: str | None = None
    """Why its person may not come in, or `NOT_LOOKED_AT`; None where Forgejo refused the pair."""

    @property
    def dead(self) -> bool:
        """Whether only a new sign-in helps."""
        return self.dead_since is not None or self.credential is None

    def claimed(self, now: float) -> bool:
        """Whether somebody is refreshing it."""
        until = self.refresh_until
        return until is not None and now < until <= now + _LONGEST_CLAIM

    def put_off(self, now: float) -> bool:
        """Whether a troubled refresh has put the next one off."""
        until = self.retry_after
        return until is not None and now < until <= now + _LONGEST_WAIT


def bound_credential(account_id: int) -> str:
    """What the vault binds the credential of this account to."""
    return f"accounts.credential:{account_id}"


def supersedes(pair: SealedPair, row: Account, refreshed: int | None) -> bool:
    """
    Whether `pair` takes the place of what `row` holds (design D8).

    `refreshed`: the version whose refresh token was spent for the pair; None
    if it comes from a sign-in.
    """
    if row.credential is None or refreshed == row.version:
        return True
    refused = row.dead_since is not None and row.dead_reason is None
    if refreshed is None and refused and pair.received_at >= (row.dead_since or 0.0):
        # Whatever the counters say (Forgejo's may have gone back with a backup):
        # the row's pair was refused, and this one given after that.
        return True
    same_grant = row.forge_grant is not None and row.forge_grant == pair.forge_grant
    if same_grant and row.forge_count is not None and pair.forge_count is not None:
        return pair.forge_count > row.forge_count
    if row.forge_grant is not None and pair.forge_grant is not None and not same_grant:
        if refreshed is not None:
            return False  # a sign-in under another grant came in between; ours is over
        if pair.forge_grant > row.forge_grant:
            return True  # Forgejo numbers its grants, and there is one at a time
    return pair.received_at >= row.received_at


# --- accounts -----------------------------------------------------------------

_COLUMNS: Final = (
    "account_id, login, credential, version, forge_grant, forge_count, received_at, expires_at,"
    " dead_since, refresh_owner, refresh_until, retry_after, signed_in_at, dead_reason"
)


def find(cursor: Cursor, account_id: int) -> Account | None:
    """The row of this account."""
    row = cursor.one(f"SELECT {_COLUMNS} FROM accounts WHERE account_id = ?", account_id)
    return None if row is None else Account(*row)


def by_login(cursor: Cursor, login: str) -> Account | None:
    """
    The account with this login, upper and lower case aside.

    A login may have had another owner, who was renamed and has not signed in since.
    So of several it is the one that signed in last: at that time it was theirs alone.
    """
    row = cursor.one(
        f"SELECT {_COLUMNS} FROM accounts WHERE LOWER(login) = ?"
        " ORDER BY signed_in_at DESC, account_id LIMIT 1",
        login.lower(),
    )
    return None if row is None else Account(*row)


def sleeping(cursor: Cursor, before: float, now: float, most: int) -> list[Account]:
    """Accounts with a live grant whose pair was given before `before`, the oldest first."""
    rows = cursor.many(
        f"SELECT {_COLUMNS} FROM accounts"
        " WHERE received_at <= ? AND dead_since IS NULL AND credential IS NOT NULL"
        " AND (retry_after IS NULL OR retry_after <= ? OR retry_after > ?)"
        " AND EXISTS (SELECT 1 FROM grants"
        "  WHERE grants.account_id = accounts.account_id AND ended_at IS NULL)"
        " ORDER BY received_at LIMIT ?",
        before,
        now,
        now + _LONGEST_WAIT,
        most,
    )
    return [Account(*row) for row in rows]


def claim(cursor: Cursor, account_id: int, version: int, owner: str, now: float) -> Account | None:
    """
    Take the right to refresh this version, for `limits.REFRESH_CLAIM`.

    None if another has it, the version is another, it is dead, or a refresh was
    put off.
    """
    row = cursor.one(
        "UPDATE accounts SET refresh_owner = ?, refresh_until = ?"
        " WHERE account_id = ? AND version = ?"
        " AND dead_since IS NULL AND credential IS NOT NULL"
        " AND (refresh_until IS NULL OR refresh_until <= ? OR refresh_until > ?)"
        " AND (retry_after IS NULL OR retry_after <= ? OR retry_after > ?)"
        f" RETURNING {_COLUMNS}",
        owner,
        now + limits.REFRESH_CLAIM,
        account_id,
        version,
        now,
        now + _LONGEST_CLAIM,
        now,
        now + _LONGEST_WAIT,
    )
    return None if row is None else Account(*row)


def hold(cursor: Cursor, account_id: int, owner: str, until: float) -> None:
    """Keep a claim of ours until then."""
    cursor.execute(
        "UPDATE accounts SET refresh_until = ? WHERE account_id = ? AND refresh_owner = ?",
        until,
        account_id,
        owner,
    )


def release(cursor: Cursor, account_id: int, owner: str) -> None:
    """Give up a claim of ours, if it still is."""
    cursor.execute(
        "UPDATE accounts SET refresh_owner = NULL, refresh_until = NULL"
        " WHERE account_id = ? AND refresh_owner = ?",
        account_id,
        owner,
    )


def release_all(cursor: Cursor, owner: str) -> None:
    """
    Give up the claims of all others, on refreshes and on exchanges.

    At the start of a process that has the store alone: whoever made them is
    gone, and what was on the way to them comes to nobody.
    """
    cursor.execute(
        "UPDATE accounts SET refresh_owner = NULL, refresh_until = NULL WHERE refresh_owner <> ?",
        owner,
    )
    cursor.execute("UPDATE signins SET exchange_until = NULL WHERE exchange_until IS NOT NULL")


def keep(
    cursor: Cursor, account_id: int, refreshed: int, owner: str, pair: SealedPair
) -> Account | None:
    """
    Store what a refresh of version `refreshed` gave, unless something newer is
    there, and release the claim.  The row as it is then; None if it is gone.
    """
    release(cursor, account_id, owner)
    row = find(cursor, account_id)
    if row is None or not supersedes(pair, row, refreshed):
        return row
    return _put(cursor, row, pair)


def put_off(
    cursor: Cursor, account_id: int, refreshed: int, owner: str, retry_after: float
) -> Account | None:
    """Release the claim after a troubled refresh: no other before `retry_after`."""
    release(cursor, account_id, owner)
    cursor.execute(
        "UPDATE accounts SET retry_after = ? WHERE account_id = ? AND version = ?",
        retry_after,
        account_id,
        refreshed,
    )
    return find(cursor, account_id)


def mark_dead(
    cursor: Cursor,
    account_id: int,
    refused: int,
    owner: str,
    now: float,
    reason: str | None = None,
) -> Account | None:
    """
    Release the claim, and mark the account dead if its version still is the one
    that Forgejo refused, or, with a `reason`, by which its person was looked at.
    The row as it is then.
    """
    release(cursor, account_id, owner)
    died = cursor.one(
        "UPDATE accounts SET dead_since = ?, dead_reason = ?, retry_after = NULL"
        " WHERE account_id = ? AND version = ? AND dead_since IS NULL RETURNING account_id",
        now,
        reason,
        account_id,
        refused,
    )
    if died is not None:
        consents.forget_all(cursor, account_id)
    return find(cursor, account_id)


def admit(
    cursor: Cursor,
    signin: Digest,
    account_id: int,
    login: str,
    pair: SealedPair,
    now: float,
    looked_at: float | None = None,
) -> Account:
    """
    Move a sign-in's pair to its account, made if need be, unless something
    newer is there.  Only a person who is there, and may come in, signs in so.

    `looked_at`: when it was begun to look whether they may; an account that was
    put to sleep after that stays asleep.
    """
    exchanges.finish(cursor, signin)
    row = find(cursor, account_id)
    if row is None:
        made = cursor.one(
            "INSERT INTO accounts (account_id, login, credential, version, forge_grant,"
            " forge_count, received_at, expires_at, signed_in_at)"
            f" VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
            account_id,
            login,
            pair.sealed,
            pair.forge_grant,
            pair.forge_count,
            pair.received_at,
            pair.expires_at,
            now,
        )
        assert made is not None
        return Account(*made)
    # What is not known of the person is known now; what is, may be younger than the look.
    unknown = row.dead_reason == NOT_LOOKED_AT
    if row.dead_reason is not None and (unknown or not _after(row.dead_since, looked_at)):
        cursor.execute(
            "UPDATE accounts SET dead_since = NULL, dead_reason = NULL WHERE account_id = ?",
            account_id,
        )
    cursor.execute(
        "UPDATE accounts SET login = ?, signed_in_at = ? WHERE account_id = ?",
        login,
        now,
        account_id,
    )
    if supersedes(pair, row, None):
        return _put(cursor, row, pair)
    row = find(cursor, account_id)
    assert row is not None
    return row


def readmit(cursor: Cursor, signin: Digest, account_id: int, pair: SealedPair) -> Account | None:
    """
    Likewise for a sign-in that nobody waits for, or of whose person nothing is
    known: an account that is known gets what may be its only good pair, no
    other is made, and one that is dead stays so.
    """
    exchanges.finish(cursor, signin)
    row = find(cursor, account_id)
    if row is None or not supersedes(pair, row, None):
        return row
    if row.dead and row.dead_reason is None:
        cursor.execute(
            "UPDATE accounts SET dead_since = COALESCE(dead_since, ?), dead_reason = ?"
            " WHERE account_id = ?",
            pair.received_at,
            NOT_LOOKED_AT,
            account_id,
        )
    return _put(cursor, row, pair)


def turn_away(
    cursor: Cursor,
    signin: Digest,
    account_id: int,
    pair: SealedPair,
    reason: str,
    looked_at: float,
    now: float,
) -> Account | None:
    """
    Likewise for a sign-in whose person may not come in, for this reason: an
    account that is known sleeps, unless somebody who looked after `looked_at`
    found that they may.
    """
    row = readmit(cursor, signin, account_id, pair)
    if row is None or _after(row.signed_in_at, looked_at):
        return row
    cursor.execute(
        "UPDATE accounts SET dead_since = ?, dead_reason = ?, retry_after = NULL"
        " WHERE account_id = ?",
        now,
        reason,
        account_id,
    )
    consents.forget_all(cursor, account_id)
    return find(cursor, account_id)


def _after(when: float | None, looked_at: float | None) -> bool:
    """Whether that was written after the look was begun."""
    if when is None or looked_at is None:
        return False
    return looked_at < when <= looked_at + _LONGEST_LOOK


def _put(cursor: Cursor, old: Account, pair: SealedPair) -> Account:
    if None not in (old.forge_grant, pair.forge_grant) and old.forge_grant != pair.forge_grant:
        # Forgejo makes another grant only when the one before was revoked: the account should
        # have died, and nobody noticed.
        consents.forget_all(cursor, old.account_id)
    row = cursor.one(
        "UPDATE accounts SET credential = ?, version = version + 1, forge_grant = ?,"
        " forge_count = ?, received_at = ?, expires_at = ?,"
        " dead_since = CASE WHEN dead_reason IS NULL THEN NULL ELSE dead_since END,"
        " refresh_owner = NULL, refresh_until = NULL, retry_after = NULL"
        f" WHERE account_id = ? RETURNING {_COLUMNS}",
        pair.sealed,
        pair.forge_grant,
        pair.forge_count,
        pair.received_at,
        pair.expires_at,
        old.account_id,
    )
    assert row is not None
    return Account(*row)
