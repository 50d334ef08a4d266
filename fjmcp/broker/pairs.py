"""
A pair of Forgejo's on its way into a row: sealed, and stored whatever it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.forge.answers import Troubled
from fjmcp.forge.tokens import Pair
from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import accounts, exchanges
from fjmcp.store.queries.accounts import Account, SealedPair
from fjmcp.store.transactions import Cursor, Store, StoreDown
from fjmcp.store.vault import Sealing

P = ParamSpec("P")
T = TypeVar("T")


@define(eq=False)
class Pairs:
    """Opens and seals pairs, and writes the rows that they stand in."""

    log = Logger()
    _store: Store
    _ring: Sealing
    _clock: IReactorTime

    def open(self, row: Account) -> Pair:
        """
        The pair in an account's row that has one.

        :raises Unsealable: its key is lost, or the row was changed.
        """
        assert row.credential is not None
        bound = accounts.bound_credential(row.account_id)
        return Pair.from_bytes(self._ring.open(row.credential, bound))

    def seal(self, account_id: int, pair: Pair) -> SealedPair:
        """For an account's row."""
        claims = pair.refresh.claims()
        return SealedPair(
            self._ring.seal(pair.to_bytes(), accounts.bound_credential(account_id)),
            claims.grant,
            claims.count,
            pair.received_at,
            pair.expires_at,
        )

    def open_exchange(self, signin: Digest, sealed: bytes) -> Pair:
        """The pair in a sign-in's row.

        :raises Unsealable: likewise.
        """
        return Pair.from_bytes(self._ring.open(sealed, exchanges.bound(signin)))

    def seal_exchange(self, signin: Digest, pair: Pair) -> bytes:
        """For a sign-in's row."""
        return self._ring.seal(pair.to_bytes(), exchanges.bound(signin))

    async def insist(
        self, work: Callable[Concatenate[Cursor, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """
        Write, and while the store is down write again: we hold the only copy.

        :raises StoreDown: after `limits.PAIR_KEEP`; the pair is lost.
        """
        give_up = self._clock.seconds() + limits.PAIR_KEEP
        while True:
            try:
                return await self._store.write(work, *args, **kw)
            except StoreDown as down:
                if self._clock.seconds() >= give_up:
                    self.log.critical("a pair could not be stored and is lost: {down}", down=down)
                    raise
                self.log.error("a pair cannot be stored yet: {down}", down=down)
            await deferLater(self._clock, limits.PAIR_RETRY)

    def alarm(self, trouble: Troubled, what: str, **fields: object) -> None:
        """Say in the log what a troubled call of the token endpoint may mean."""
        if trouble.unsure:
            self.log.critical(
                "{what}: {reason}. Forgejo may have acted and its reply be lost; then the"
                " refresh token is burnt and the person must sign in again",
                what=what,
                reason=trouble.reason,
                **fields,
            )
        elif trouble.reason == "invalid_client":
            self.log.critical(
                "{what}: Forgejo does not take our OAuth client id and secret."
                " Check both options; nothing is lost",
                what=what,
                **fields,
            )
        else:
            self.log.error("{what}: {reason}", what=what, reason=trouble.reason, **fields)
