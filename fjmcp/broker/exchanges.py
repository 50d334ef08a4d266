"""
Signing in at Forgejo: from its code to a pair in the account's row (design D8).

::

    begin     the sign-in's row says that an exchange is in flight
    exchange  Forgejo gives a pair, and kills the account's refresh token
    seal      the pair stands in the sign-in's row
    identify  introspection: whose it is, for us, not too wide (design D11)
    look      the API takes it, and the person may come in (`fjmcp.broker.looks`)
    admit     one transaction moves it to the account's row

A person who may not come in gets nothing; but an account that is known keeps
the pair, since its own refresh token died of it, and sleeps.

What a crash, or a Forgejo that does not answer, leaves between *seal* and
*admit* is finished later: at the next start, or before an account is given up.
Nobody looks at its person then, or nobody could: a dead account keeps the pair and
stays dead, until they sign in once more and may come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import define, evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.looks import Admitted, Denied, Directory, Looks, Undecided
from fjmcp.broker.pairs import Pairs
from fjmcp.forge import scopes
from fjmcp.forge.answers import Introspected, NewPair, Outcome, Refused, Troubled
from fjmcp.forge.tokens import ForgeToken, Pair
from fjmcp.oauth.tokens import Digest
from fjmcp.refusals import (
    SCOPE_TOO_WIDE,
    SIGN_IN_MISCONFIGURED,
    SIGN_IN_MIXED_UP,
    SIGN_IN_REFUSED,
    SIGN_IN_TROUBLED,
    SIGN_IN_UNKNOWN,
    OAuthRefusal,
)
from fjmcp.store.queries import accounts, exchanges
from fjmcp.store.queries.accounts import Account
from fjmcp.store.queries.exchanges import Exchange
from fjmcp.store.transactions import Store
from fjmcp.store.vault import Unsealable


class Peer(Directory, Protocol):
    """What is asked of Forgejo; `fjmcp.forge.client.Forge` is one."""

    @property
    def client_id(self) -> str:
        """Our application there."""

    @property
    def scopes(self) -> str:
        """The scopes that we ask for."""

    async def exchange(self, code: str, verifier: str) -> Outcome:
        """Redeem a code."""

    async def refresh(self, token: ForgeToken) -> Outcome:
        """Spend a refresh token."""

    async def introspect(self, token: ForgeToken) -> Introspected | Troubled:
        """Whose token it is, for whom, with what scopes."""


@frozen
class SignedIn:
    """Who came back from Forgejo."""

    account_id: int
    login: str
    missing: frozenset[str] = frozenset()
    """Scopes that are configured and that this person's grant at Forgejo, being
    older, does not have; revoking it there and signing in again mends that."""
    extra: frozenset[str] = frozenset()
    """Scopes that it has beyond those configured; likewise."""


@define(eq=False)
class Exchanges:
    """
    The pairs between Forgejo's reply and their account.

    `sleeps` is told of an account that was put to sleep.
    """

    log = Logger()
    _store: Store
    _clock: IReactorTime
    _pairs: Pairs
    _forge: Peer
    _looks: Looks
    _sleeps: Callable[[Account], None]
    stopping: bool = False
    """Set at a stop: what waits for others ends."""

    async def run(self, signin: Digest, code: str, verifier: str) -> SignedIn | OAuthRefusal:
        """`Credentials.exchange`; must not be cancelled."""
        if not await self._store.write(exchanges.begin, signin, self._clock.seconds()):
            return SIGN_IN_UNKNOWN
        refusal: OAuthRefusal
        outcome = await self._forge.exchange(code, verifier)
        match outcome:
            case NewPair(pair):
                sealed = self._pairs.seal_exchange(signin, pair)
                if not await self._pairs.insist(exchanges.seal, signin, sealed):
                    self.log.error(
                        "sign-in {signin} is gone before its pair came", signin=signin.short
                    )
                return await self._connect(signin, pair)
            case Refused():
                self.log.warn(
                    "code refused, {error}: {description}",
                    signin=signin.short,
                    error=outcome.error,
                    description=outcome.description,
                )
                refusal = SIGN_IN_REFUSED
            case Troubled():
                self._pairs.alarm(outcome, "code exchange", signin=signin.short)
                refusal = _troubled(outcome)
        await self._store.write(exchanges.finish, signin)
        return refusal

    async def _connect(self, signin: Digest, pair: Pair) -> SignedIn | OAuthRefusal:
        """From a pair in its sign-in's row to the account's row, with the person there."""
        found = await self._identify(signin, pair)
        if isinstance(found, OAuthRefusal):
            return found
        looked_at = self._clock.seconds()
        verdict = await self._looks.look(pair.access, found.account_id)
        if verdict == Undecided(SIGN_IN_MIXED_UP):
            return await self._throw_away(signin, SIGN_IN_MIXED_UP)
        sealed, now = self._pairs.seal(found.account_id, pair), self._clock.seconds()
        match verdict:
            case Admitted(login):
                person = found if login is None else evolve(found, login=login)
                row = await self._pairs.insist(
                    accounts.admit,
                    signin,
                    person.account_id,
                    person.login,
                    sealed,
                    now,
                    looked_at,
                )
                return SIGN_IN_REFUSED if row.dead else person
            case Denied(refusal):
                turned = await self._pairs.insist(
                    accounts.turn_away,
                    signin,
                    found.account_id,
                    sealed,
                    refusal.reason,
                    looked_at,
                    now,
                )
                if turned is not None and turned.dead_reason == refusal.reason:
                    self._sleeps(turned)
                return refusal
            case Undecided(refusal):
                # An account that is known keeps it: its own refresh token died of this pair.
                # One that lives goes on with it when the trouble is over; one that is dead
                # does not, or whom the rule turns away would come in by the trouble.
                await self._pairs.insist(accounts.readmit, signin, found.account_id, sealed)
                return refusal

    async def _identify(self, signin: Digest, pair: Pair) -> SignedIn | OAuthRefusal:
        """Whose pair it is; judged by design D11.  The pair is dealt with if it is refused."""
        # After a long stop only the refresh token is still active; it names the same.
        alive = self._clock.seconds() < pair.expires_at
        said = await self._forge.introspect(pair.access if alive else pair.refresh)
        if isinstance(said, Troubled):
            self.log.error("introspection: {reason}", reason=said.reason, signin=signin.short)
            await self._pairs.insist(exchanges.abandon, signin)
            return _troubled(said)
        if not said.active:
            return await self._throw_away(signin, SIGN_IN_REFUSED)
        if self._forge.client_id not in said.audience or not _is_account_id(said.sub):
            self.log.critical("introspection names another application", signin=signin.short)
            return await self._throw_away(signin, SIGN_IN_MIXED_UP)
        judged = scopes.judge(said.scope, self._forge.scopes)
        if judged.too_wide:
            return await self._throw_away(signin, SCOPE_TOO_WIDE)
        return SignedIn(int(said.sub), said.username, judged.missing, judged.extra)

    async def _throw_away(self, signin: Digest, refusal: OAuthRefusal) -> OAuthRefusal:
        self.log.warn("pair thrown away: {reason}", reason=refusal.reason, signin=signin.short)
        await self._pairs.insist(exchanges.finish, signin)
        return refusal

    # --- after a crash ---------------------------------------------------------------

    async def recover(self) -> None:
        """`Credentials.recover`; must not be cancelled."""
        began = self._clock.seconds()
        while True:
            began = min(began, self._clock.seconds())
            if not await self.finish_abandoned(await self._left(began)):
                return
            if not await self._left(began):
                return
            if self.stopping or self._clock.seconds() >= began + 2 * limits.EXCHANGE_CLAIM:
                return
            await deferLater(self._clock, limits.PAIR_RETRY)

    async def _left(self, began: float) -> list[Exchange]:
        now = self._clock.seconds()
        pending = await self._store.read(exchanges.pending, began, now)
        return [each for each in pending if each.credential is not None]

    async def finish_abandoned(self, pending: Iterable[Exchange]) -> bool:
        """Work on those that nobody works on; False if Forgejo would not tell whose one is."""
        told = True
        for each in pending:
            now = self._clock.seconds()
            if each.abandoned(now):
                taken = await self._store.write(exchanges.take, each.signin, now)
                if taken is not None:
                    told = await self._finish(taken) and told
        return told

    async def _finish(self, taken: Exchange) -> bool:
        signin = taken.signin
        assert taken.credential is not None
        try:
            pair = self._pairs.open_exchange(signin, taken.credential)
        except Unsealable:
            self.log.critical("the pair of sign-in {signin} does not open", signin=signin.short)
            await self._pairs.insist(exchanges.finish, signin)
            return True
        found = await self._identify(signin, pair)
        if isinstance(found, OAuthRefusal):
            return found not in (SIGN_IN_TROUBLED, SIGN_IN_MISCONFIGURED)
        sealed = self._pairs.seal(found.account_id, pair)
        row = await self._pairs.insist(accounts.readmit, signin, found.account_id, sealed)
        self.log.info(
            "pair of an unfinished sign-in recovered",
            signin=signin.short,
            account=found.account_id,
            used=row is not None and row.credential == sealed.sealed,
        )
        return True


def _troubled(trouble: Troubled) -> OAuthRefusal:
    return SIGN_IN_MISCONFIGURED if trouble.reason == "invalid_client" else SIGN_IN_TROUBLED


def _is_account_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 2**63
