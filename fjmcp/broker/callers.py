"""
Who a bearer token speaks for.

A dictionary by digest, filled from the store on a miss, checked for expiry on
each hit, and emptied of a grant before its end is answered (design D14).
It is one of the three places where state lives.  Here it is noted, too, which
grants are in use; `fjmcp.broker.uses` writes it down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from fjmcp import limits
from fjmcp.oauth.grants import grant_end, grant_live
from fjmcp.oauth.tokens import Digest, TokenText, digest
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD, McpRefusal, asleep
from fjmcp.store.queries import grants
from fjmcp.store.transactions import Store


@frozen
class Caller:
    """Who speaks: a grant, with the client and the account that it joins."""

    grant_id: str
    account_id: int
    client_id: str
    login: str
    scopes: str
    expires_at: float


@define(eq=False)
class Callers:
    """The bearer tokens seen by this process, and whose they are."""

    _store: Store
    _clock: IReactorTime
    _most: int = limits.CALLERS
    _seen: OrderedDict[bytes, Caller] = field(factory=OrderedDict, init=False)
    _used: dict[str, float] = field(factory=dict, init=False)
    """When grants were last used, where their rows do not say so yet."""
    _forgets: int = field(default=0, init=False)

    async def find(self, token: TokenText) -> Caller | McpRefusal:
        """
        The caller that a token names, or why it names none.

        :raises StoreDown: the store cannot be read.
        """
        key = digest(token)
        caller = self._seen.get(key.value)
        if caller is None:
            return await self._look_up(key)
        now = self._clock.seconds()
        if caller.expires_at <= now:
            del self._seen[key.value]
            return BAD_TOKEN
        self._seen.move_to_end(key.value)
        self._used[caller.grant_id] = now
        return caller

    def glance(self, token: TokenText) -> Caller | None:
        """The caller that a token names, if that is known without asking the store."""
        caller = self._seen.get(digest(token).value)
        if caller is None or caller.expires_at <= self._clock.seconds():
            return None
        return caller

    def forget(self, grant_id: str) -> None:
        """Ask the store anew about every token of this grant."""
        self._drop(lambda caller: caller.grant_id == grant_id)

    def forget_account(self, account_id: int) -> None:
        """Ask the store anew about every token of this account."""
        self._drop(lambda caller: caller.account_id == account_id)

    def forget_all(self) -> None:
        """Ask the store anew about every token."""
        self._drop(lambda caller: True)

    def grants(self) -> set[str]:
        """The grants of all tokens that need not be asked for."""
        return {caller.grant_id for caller in self._seen.values()}

    def take_uses(self) -> dict[str, float]:
        """When grants were last used, where their rows do not say so: whoever takes it writes."""
        used, self._used = self._used, {}
        return used

    def return_uses(self, used: Mapping[str, float]) -> None:
        """What was taken could not be written."""
        self._used = {**used, **self._used}

    async def _look_up(self, key: Digest) -> Caller | McpRefusal:
        while True:
            forgets = self._forgets
            bearer = await self._store.read(grants.bearer, key)
            if forgets == self._forgets:
                break
            # Something was forgotten while we read: what we read may be from before its end.
        now = self._clock.seconds()
        if bearer is None or bearer.expires_at <= now or not grant_live(bearer.grant, now):
            return BAD_TOKEN
        if bearer.dead:
            return asleep(CREDENTIAL_DEAD, bearer.dead_reason)
        grant = bearer.grant
        caller = Caller(
            grant_id=grant.grant_id,
            account_id=grant.account_id,
            client_id=grant.client_id,
            login=bearer.login,
            scopes=grant.scopes,
            # Who has seen the token need not look at the grant again.
            expires_at=min(bearer.expires_at, grant_end(grant)),
        )
        self._seen[key.value] = caller
        self._used[caller.grant_id] = now
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return caller

    def _drop(self, gone: Callable[[Caller], bool]) -> None:
        self._forgets += 1
        for key in [key for key, caller in self._seen.items() if gone(caller)]:
            del self._seen[key]
