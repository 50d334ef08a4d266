"""
Code to tokens, tokens to tokens, and their end.

Every step is one transaction: the rows are read, `fjmcp.oauth.grants` judges
them, and the answer is written before anything else can happen.  Forgejo is
never asked here (design D16).
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.endings import Endings
from fjmcp.meter import SILENT, Meter, OAuth
from fjmcp.oauth import grants as rules
from fjmcp.oauth import resources
from fjmcp.oauth.authorization import Params
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.scopes import Scopes, narrow_refresh
from fjmcp.oauth.tokens import Digest, Kind, TokenText, digest, mint
from fjmcp.refusals import (
    ACCOUNT_DEAD,
    CLIENT_UNKNOWN,
    CODE_MISSING,
    REFRESH_REUSED,
    REFRESH_TOKEN_MISSING,
    RESOURCE_FOREIGN,
    OAuthRefusal,
    asleep,
)
from fjmcp.store.queries import accounts, clients, documents, grants
from fjmcp.store.transactions import Cursor, Store
from fjmcp.store.vault import Sealing, Unsealable


@frozen
class Issued:
    """A token response (RFC 6749 §5.1)."""

    access: TokenText
    refresh: TokenText | None
    access_expires_at: float
    scopes: str
    """What is granted, space-separated."""
    replayed: bool = False
    """Whether it was answered before, and the answer was lost."""

    def document(self, now: float) -> dict[str, object]:
        """The members of the JSON answer."""
        answer: dict[str, object] = {
            "access_token": self.access.text,
            "token_type": "Bearer",
            "expires_in": max(0, round(self.access_expires_at - now)),
            "scope": self.scopes,
        }
        if self.refresh is not None:
            answer["refresh_token"] = self.refresh.text
        return answer


@frozen
class _Ended:
    """A grant was closed in the transaction; what runs for it must follow."""

    grant_id: str
    reason: str


@define(eq=False)
class Issuer:
    """Redeems codes, rotates refresh tokens, and revokes either kind of token."""

    log = Logger()
    _store: Store
    _ring: Sealing
    _endings: Endings
    _endpoints: Endpoints
    _clock: IReactorTime
    _meter: Meter = field(default=SILENT, kw_only=True)

    async def redeem(self, client: Client, form: Params) -> Issued | OAuthRefusal:
        """
        `grant_type=authorization_code` (RFC 6749 §4.1.3), for an authenticated client.

        :raises StoreDown: nothing was issued, or the answer to it was lost.
        """
        answer = await self._judged(self._store.write(self._redeem, client, form))
        if isinstance(answer, Issued):
            self._meter.oauth(OAuth.REDEEMED)
        return answer

    async def refresh(self, client: Client, form: Params) -> Issued | OAuthRefusal:
        """
        `grant_type=refresh_token` (RFC 6749 §6), for an authenticated client.

        :raises StoreDown: nothing was rotated, or the answer to it was lost;
            a replay within the grace gives the same pair.
        """
        answer = await self._judged(self._store.write(self._refresh, client, form))
        if isinstance(answer, Issued):
            self._meter.oauth(OAuth.REPLAYED if answer.replayed else OAuth.REFRESHED)
        return answer

    async def revoke(self, client: Client, token: TokenText) -> None:
        """
        End the grant of a token of either kind (RFC 7009 §2.1).

        A token that is unknown, or another client's, is no error (§2.2).
        """
        grant_id = await self.grant_of(client, token.text)
        if grant_id is not None:
            await self._endings.end(grant_id, "revoked")
            self._meter.oauth(OAuth.REVOKED)

    async def grant_of(self, client: Client, token: str) -> str | None:
        """
        The live grant of this client that a token of either kind belongs to, used or not.

        :raises StoreDown: the store cannot be asked.
        """
        return await self._store.read(_grant_of, client.client_id, digest(TokenText(token)))

    async def _judged(
        self, write: Awaitable[tuple[Issued | OAuthRefusal, list[_Ended]]]
    ) -> Issued | OAuthRefusal:
        answer, ended = await write
        for each in ended:
            await self._endings.ended([each.grant_id], each.reason)
        if isinstance(answer, OAuthRefusal):
            self.log.info("token refused", reason=answer.reason)
        return answer

    # --- in the transaction ---------------------------------------------------

    def _redeem(
        self, cursor: Cursor, client: Client, form: Params
    ) -> tuple[Issued | OAuthRefusal, list[_Ended]]:
        now = self._clock.seconds()
        text = form.get("code")
        if not text:
            return CODE_MISSING, []
        code = digest(TokenText(text))
        row = grants.code(cursor, code)
        verdict = rules.judge_code(
            row,
            client_id=client.client_id,
            redirect_uri=form.get("redirect_uri"),
            verifier=form.get("code_verifier"),
            resource_ok=self._is_ours(form),
            now=now,
        )
        if not isinstance(verdict, rules.Redeem):
            return self._no(cursor, verdict, now)
        dead = _dead(cursor, verdict.account_id)
        if dead is not None:
            return dead, []
        if not _is_known(cursor, client):
            # Taken back since it was authenticated, and its grants have ended.
            return CLIENT_UNKNOWN, []
        granted = Scopes.granted(Scopes.parse(verdict.request.scopes))
        grant_id = os.urandom(12).hex()
        made_room = grants.add(
            cursor,
            grant_id,
            verdict.account_id,
            client.client_id,
            str(granted),
            now,
            secret=client.secrets[0] if client.secrets else None,
        )
        grants.redeem_code(cursor, code, grant_id)
        _note_use(cursor, client, now)
        life = now + limits.GRANT_LIFE
        issued = self._mint(cursor, client, grant_id, granted, None, life, now)
        return issued, [_Ended(old, "room") for old in made_room]

    def _refresh(
        self, cursor: Cursor, client: Client, form: Params
    ) -> tuple[Issued | OAuthRefusal, list[_Ended]]:
        now = self._clock.seconds()
        text = form.get("refresh_token")
        if not text:
            return REFRESH_TOKEN_MISSING, []
        token = digest(TokenText(text))
        row = grants.refresh_token(cursor, token)
        grant = None if row is None else grants.grant(cursor, row.grant_id)
        dead = None if grant is None else _dead(cursor, grant.account_id)
        verdict = rules.judge_refresh(
            row,
            grant,
            client_id=client.client_id,
            successor_used=grants.successor_used(cursor, token),
            account_dead=dead is not None,
            now=now,
        )
        if dead is not None and verdict == rules.Refuse(ACCOUNT_DEAD):
            return dead, []
        if isinstance(verdict, rules.Refuse | rules.EndGrant):
            return self._no(cursor, verdict, now)
        assert row is not None and grant is not None
        if not self._is_ours(form):
            return RESOURCE_FOREIGN, []
        granted = Scopes.parse(grant.scopes)
        widened = narrow_refresh(granted, form.get("scope"))
        if isinstance(widened, OAuthRefusal):
            return widened, []
        if isinstance(verdict, rules.Replay):
            try:
                return self._open(row.token, verdict.successor), []
            except Unsealable:
                # Its key is lost, so there is as little to replay as after the grace.
                return self._no(cursor, rules.EndGrant(grant.grant_id, REFRESH_REUSED), now)
        grants.touch(cursor, {grant.grant_id: now})
        _note_use(cursor, client, now)
        life = rules.grant_end(grant)
        issued = self._mint(cursor, client, grant.grant_id, granted, row.token, life, now)
        sealed = self._seal(row.token, issued)
        grants.use_refresh_token(cursor, row.token, row.predecessor, sealed, now)
        grants.forget_graces(cursor, now)
        return issued, []

    def _no(
        self, cursor: Cursor, verdict: rules.Refuse | rules.EndGrant, now: float
    ) -> tuple[OAuthRefusal, list[_Ended]]:
        if isinstance(verdict, rules.Refuse):
            return verdict.refusal, []
        grants.end(cursor, verdict.grant_id, verdict.refusal.reason, now)
        return verdict.refusal, [_Ended(verdict.grant_id, verdict.refusal.reason)]

    def _is_ours(self, form: Params) -> bool:
        # There is one resource here, so what was authorized and what is asked for agree
        # as soon as both are it.
        return isinstance(resources.canonical(form.all("resource"), self._endpoints), str)

    def _mint(
        self,
        cursor: Cursor,
        client: Client,
        grant_id: str,
        granted: Scopes,
        predecessor: Digest | None,
        life: float,
        now: float,
    ) -> Issued:
        # No longer than its grant, so that who has seen the token need not look at the grant.
        access, expires_at = mint(Kind.ACCESS), min(now + limits.ACCESS_TOKEN, life)
        grants.add_access_token(cursor, digest(access), grant_id, expires_at, now)
        refresh = None
        # A chain that was begun goes on, whatever its client's document says by now.
        if predecessor is not None or "refresh_token" in client.metadata.grant_types:
            refresh = mint(Kind.REFRESH)
            grants.add_refresh_token(cursor, digest(refresh), grant_id, predecessor, now)
        # RFC 6749 §5.1: scope is required if it differs from what was requested, which we
        # keep in our own words only; so it always stands there.
        return Issued(access, refresh, expires_at, str(granted))

    def _seal(self, token: Digest, issued: Issued) -> bytes:
        assert issued.refresh is not None
        pair = [issued.access.text, issued.refresh.text, issued.access_expires_at, issued.scopes]
        return self._ring.seal(json.dumps(pair).encode(), _bound(token))

    def _open(self, token: Digest, successor: bytes) -> Issued:
        pair = json.loads(self._ring.open(successor, _bound(token)))
        access, refresh, expires_at, scopes = pair
        return Issued(TokenText(access), TokenText(refresh), expires_at, scopes, replayed=True)


def _is_known(cursor: Cursor, client: Client) -> bool:
    """Whether the registration by which a client proved itself still stands."""
    if client.source is not Source.REGISTERED:
        return True
    latest = clients.find(cursor, client.client_id)
    return latest is not None and set(client.secrets) <= set(latest.secrets)


def _note_use(cursor: Cursor, client: Client, now: float) -> None:
    if client.source is Source.DOCUMENT:
        documents.note_use(cursor, client.client_id, now)
    else:
        clients.note_use(cursor, client.client_id, now)


def _dead(cursor: Cursor, account_id: int) -> OAuthRefusal | None:
    """How a dead account's code or refresh token is refused; None if it is not dead."""
    row = accounts.find(cursor, account_id)
    if row is None:
        return ACCOUNT_DEAD
    return asleep(ACCOUNT_DEAD, row.dead_reason) if row.dead else None


def _bound(token: Digest) -> str:
    return f"refresh_tokens.successor:{token.value.hex()}"


def _grant_of(cursor: Cursor, client_id: str, token: Digest) -> str | None:
    """The live grant that a token of either kind belongs to, if it is this client's."""
    bearer = grants.bearer(cursor, token)
    grant = None if bearer is None else bearer.grant
    if grant is None:
        row = grants.refresh_token(cursor, token)
        grant = None if row is None else grants.grant(cursor, row.grant_id)
    if grant is None or grant.client_id != client_id or grant.ended_at is not None:
        return None
    return grant.grant_id
