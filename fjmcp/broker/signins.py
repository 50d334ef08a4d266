"""
A sign-in: one authorization under way in one browser, from authorize to the code.

::

    authorize  ->  begin      the request is kept; our consent page
    consent    ->  consent    the person agreed; on to Forgejo, with a state and PKCE of ours
               ->  deny       the person refused; back to the client: access_denied
    callback   ->  come_back  Forgejo's code is exchanged; back to the client with our code

Two cookies bind it to the browser: one proves that the consent form comes
from the browser that saw the page, the other, set only with the consent,
that Forgejo's redirect comes back to the browser that left.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp.broker.credentials import Credentials
from fjmcp.forge.client import Forge
from fjmcp.meter import SILENT, Meter, OAuth
from fjmcp.oauth.authorization import AuthorizationRequest, error_url, success_url
from fjmcp.oauth.documents import Endpoints
from fjmcp.oauth.tokens import Digest, Kind, TokenText, digest, mint
from fjmcp.refusals import (
    ACCESS_DENIED,
    ACCOUNT_PROHIBITED,
    ADMIN_NOT_LET_IN,
    NOT_LET_IN,
    OAUTH_STORE_DOWN,
    SCOPE_TOO_NARROW,
    SCOPE_TOO_WIDE,
    SIGN_IN_FORGED,
    SIGN_IN_MISCONFIGURED,
    SIGN_IN_UNKNOWN,
    UPSTREAM_FAILED,
    OAuthRefusal,
)
from fjmcp.store.queries import grants, signins
from fjmcp.store.queries.signins import SignIn
from fjmcp.store.transactions import Cursor, Store, StoreDown
from fjmcp.store.vault import Sealing, Unsealable


@frozen
class ToForge:
    """The person agreed: where the browser goes, and the state it must bring back."""

    url: str = field(repr=False)
    state: TokenText


@frozen
class FromForge:
    """What Forgejo's redirect to our callback carried."""

    state: TokenText | None
    held: TokenText | None
    """The state that the browser's cookie holds."""
    code: str | None = field(repr=False)
    error: str | None
    issuer: str | None


@frozen
class Explained:
    """A refusal that the person must read, and where the client is told of it after that."""

    refusal: OAuthRefusal
    url: str = field(repr=False)


FOR_THE_PERSON: Final = frozenset(
    refusal.reason
    for refusal in (
        SCOPE_TOO_WIDE,
        SCOPE_TOO_NARROW,
        ACCOUNT_PROHIBITED,
        NOT_LET_IN,
        ADMIN_NOT_LET_IN,
        SIGN_IN_MISCONFIGURED,
    )
)
"""What only the person can mend, or can tell somebody of (design D11); clients show little."""


@define(eq=False)
class SignIns:
    """The sign-ins under way at this server."""

    log = Logger()
    _store: Store
    _ring: Sealing
    _forge: Forge
    _credentials: Credentials
    _endpoints: Endpoints
    _clock: IReactorTime
    _meter: Meter = field(default=SILENT, kw_only=True)

    async def begin(self, request: AuthorizationRequest, browser: TokenText) -> TokenText:
        """Keep a request; what is answered goes into the consent form."""
        signin = mint(Kind.SIGN_IN)
        await self._store.write(
            signins.begin, digest(signin), digest(browser), request, self._clock.seconds()
        )
        return signin

    async def consent(self, signin: TokenText, browser: TokenText) -> ToForge | OAuthRefusal:
        """The person agreed: on to Forgejo."""
        state, verifier = mint(Kind.STATE), mint(Kind.VERIFIER)
        key = digest(signin)
        sealed = self._ring.seal(verifier.text.encode(), signins.bound_verifier(key))
        row = await self._store.write(
            signins.consent, key, digest(browser), digest(state), sealed, self._clock.seconds()
        )
        if row is None:
            return SIGN_IN_UNKNOWN
        self.log.info("consent given", client=row.client_id)
        self._meter.oauth(OAuth.CONSENTED)
        return ToForge(self._forge.authorize_url(state.text, challenge(verifier)), state)

    async def deny(self, signin: TokenText, browser: TokenText) -> str | OAuthRefusal:
        """The person refused: the client's redirect URI, with the error."""
        row = await self._store.write(
            signins.deny, digest(signin), digest(browser), self._clock.seconds()
        )
        if row is None:
            return SIGN_IN_UNKNOWN
        self.log.info("consent refused", client=row.client_id)
        self._meter.oauth(OAuth.DENIED)
        return self._back(row, ACCESS_DENIED)

    async def come_back(self, back: FromForge) -> str | Explained | OAuthRefusal:
        """
        Forgejo sent the browser back: the client's redirect URI, with code or error.

        A bare refusal is for the browser: there is no client to send it to.
        """
        if back.state is None:
            return SIGN_IN_UNKNOWN
        # RFC 9700 §4.7.1: the state must be bound to the browser.  One that another
        # browser brings is refused and stays good for the browser that has it.
        if back.held is None or digest(back.held) != digest(back.state):
            return SIGN_IN_FORGED
        row = await self._store.write(signins.come_back, digest(back.state), self._clock.seconds())
        if row is None or row.upstream_verifier is None:
            return SIGN_IN_UNKNOWN
        try:
            return await self._answered(row, row.upstream_verifier, back)
        except StoreDown as down:
            # The state is spent: here the browser cannot try again, the client can.
            self.log.warn("store down in a sign-in", client=row.client_id, error=str(down))
            return self._back(row, OAUTH_STORE_DOWN)

    async def _answered(self, row: SignIn, verifier: bytes, back: FromForge) -> str | Explained:
        refusal = self._judge(back)
        if refusal is None and back.code is not None:
            return await self._connect(row, verifier, back.code)
        await self._store.write(signins.finish, row.signin)
        self.log.info("sign-in refused by Forgejo", client=row.client_id, error=back.error)
        return self._back(row, refusal or UPSTREAM_FAILED)

    def _judge(self, back: FromForge) -> OAuthRefusal | None:
        # RFC 9207 §2.4: an issuer that is sent must be the one that was asked.
        if back.issuer is not None and not self._forge.is_issuer(back.issuer):
            return UPSTREAM_FAILED
        if back.error == "access_denied":
            return ACCESS_DENIED
        if back.error is not None or back.code is None:
            return UPSTREAM_FAILED
        return None

    async def _connect(self, row: SignIn, sealed: bytes, code: str) -> str | Explained:
        try:
            verifier = self._ring.open(sealed, signins.bound_verifier(row.signin)).decode()
        except Unsealable:
            self.log.critical("a sign-in does not open: its key is lost", client=row.client_id)
            await self._store.write(signins.finish, row.signin)
            return self._back(row, UPSTREAM_FAILED)
        person = await self._credentials.exchange(row.signin, code, verifier)
        if isinstance(person, OAuthRefusal):
            await self._store.write(signins.finish, row.signin)
            url = self._back(row, person)
            return Explained(person, url) if person.reason in FOR_THE_PERSON else url
        ours = mint(Kind.CODE)
        await self._store.write(
            _answer, row, digest(ours), person.account_id, self._clock.seconds()
        )
        self.log.info("signed in", client=row.client_id, account=person.account_id)
        self._meter.oauth(OAuth.SIGNED_IN)
        return success_url(row.request, ours, self._endpoints.issuer)

    def _back(self, row: SignIn, refusal: OAuthRefusal) -> str:
        request = row.request
        return error_url(request.redirect_uri, request.state, refusal, self._endpoints.issuer)


def _answer(cursor: Cursor, row: SignIn, code: Digest, account_id: int, now: float) -> None:
    grants.add_code(cursor, code, account_id, row.request, now)
    signins.finish(cursor, row.signin)


def challenge(verifier: TokenText) -> str:
    """The S256 challenge of a verifier (RFC 7636 §4.2)."""
    hashed = hashlib.sha256(verifier.text.encode("ascii")).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode("ascii")
