"""
A sign-in: one authorization under way in one browser, from authorize to the code.

::

    authorize  ->  begin      the request is kept; our consent page.  Or this person allowed
                              the same before: on to Forgejo at once
    consent    ->  consent    the person agreed; on to Forgejo, with a state and PKCE of ours
               ->  deny       the person refused; back to the client: access_denied
    callback   ->  come_back  Forgejo's code is exchanged; back to the client with our code.
                              Or another person came than this browser was known as: a page
    consent    ->  confirm    that person goes on; to our callback, with a state again
    callback   ->  come_back  back to the client with our code

Two cookies bind it to the browser: one proves that the consent form comes
from the browser that saw the page, the other, set only with the consent,
that Forgejo's redirect comes back to the browser that left.  The first one is
made anew when somebody has signed in, and stays: by it we know whom a browser
belongs to.  It lets nobody in; it says which page need not be shown, and whom
to expect.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final
from urllib.parse import urlencode

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker import steps
from fjmcp.broker.credentials import Credentials
from fjmcp.broker.steps import Another, Begun, Ending
from fjmcp.forge.client import Forge
from fjmcp.meter import SILENT, Meter, OAuth
from fjmcp.oauth.authorization import AuthorizationRequest, error_url, success_url
from fjmcp.oauth.endpoints import Endpoints
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
from fjmcp.store.queries import signins
from fjmcp.store.queries.signins import SignIn
from fjmcp.store.transactions import Store, StoreDown
from fjmcp.store.vault import Sealing, Unsealable


@frozen
class Asked:
    """The person is to be asked: what goes into the consent form."""

    signin: TokenText
    seconds: float
    """How long the browser must keep the cookie that it came with, or is given."""


@frozen
class Onward:
    """The person agreed: where the browser goes, and the state it must bring to our callback."""

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
    browser: TokenText | None = None
    """The cookie that this browser has had since it was shown our page, or is known by."""


@frozen
class ToClient:
    """The sign-in is over: where the browser takes its code or error."""

    url: str = field(repr=False)
    browser: TokenText | None = None
    """The cookie by which the browser is known from now on, in place of the one that it had."""


@frozen
class AnotherCame:
    """Another person came back than this browser was known as; nothing is given out yet."""

    signin: TokenText
    request: AuthorizationRequest
    known: str
    """As whom the browser was known, by login."""
    came: str
    """Likewise who came back."""


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

    async def begin(
        self, request: AuthorizationRequest, browser: TokenText, *, insists: bool = False
    ) -> Asked | Onward:
        """
        Keep a request, whose person is asked unless they allowed the same before.

        `insists`: the client wants them asked.
        """
        signin, state = mint(Kind.SIGN_IN), mint(Kind.STATE)
        verifier, sealed = self._verifier(digest(signin))
        now = self._clock.seconds()
        begun = Begun(digest(signin), digest(browser), digest(state), sealed, request)
        known, remembered = await self._store.write(steps.begin, begun, insists, now)
        if remembered and known is not None:
            self.log.info("consent remembered", client=request.client_id, account=known.account_id)
            self._meter.oauth(OAuth.REMEMBERED)
            return self._to_forge(state, verifier)
        lasts = 0.0 if known is None else known.until - now
        return Asked(signin, max(limits.SIGN_IN, lasts))

    async def covers(self, browser: TokenText, request: AuthorizationRequest) -> bool:
        """Whether a consent of the person whom this browser belongs to covers a request."""
        now = self._clock.seconds()
        return (await self._store.read(steps.known_and_covered, digest(browser), request, now))[1]

    async def consent(self, signin: TokenText, browser: TokenText) -> Onward | OAuthRefusal:
        """The person agreed: on to Forgejo."""
        state, key = mint(Kind.STATE), digest(signin)
        verifier, sealed = self._verifier(key)
        row = await self._store.write(
            signins.consent, key, digest(browser), digest(state), sealed, self._clock.seconds()
        )
        if row is None:
            return SIGN_IN_UNKNOWN
        self.log.info("consent given", client=row.client_id)
        self._meter.oauth(OAuth.CONSENTED)
        return self._to_forge(state, verifier)

    async def confirm(self, signin: TokenText, browser: TokenText) -> Onward | OAuthRefusal:
        """The person goes on as who they came: to our callback, which has the code for them."""
        state = mint(Kind.STATE)
        row = await self._store.write(
            signins.confirm, digest(signin), digest(browser), digest(state), self._clock.seconds()
        )
        if row is None:
            return SIGN_IN_UNKNOWN
        self.log.info("goes on as another account", client=row.client_id, account=row.came_as)
        # Not the code itself: it must not stand in a page.
        return Onward(f"{self._endpoints.callback}?{urlencode({'state': state.text})}", state)

    async def deny(self, signin: TokenText, browser: TokenText) -> str | OAuthRefusal:
        """The person refused: the client's redirect URI, with the error."""
        row = await self._store.write(
            steps.deny, digest(signin), digest(browser), self._clock.seconds()
        )
        if row is None:
            return SIGN_IN_UNKNOWN
        self.log.info("consent refused", client=row.client_id)
        self._meter.oauth(OAuth.DENIED)
        return self._error_url(row, ACCESS_DENIED)

    async def come_back(self, back: FromForge) -> ToClient | AnotherCame | Explained | OAuthRefusal:
        """
        The browser came to our callback: the client's redirect URI, with code or error.

        A bare refusal is for the browser: there is no client to send it to.
        """
        if back.state is None:
            return SIGN_IN_UNKNOWN
        # RFC 9700 §4.7.1: the state must be bound to the browser.  One that another
        # browser brings is refused and stays good for the browser that has it.
        if back.held is None or digest(back.held) != digest(back.state):
            return SIGN_IN_FORGED
        browser = None if back.browser is None else digest(back.browser)
        code, fresh, now = mint(Kind.CODE), mint(Kind.BROWSER), self._clock.seconds()
        ending = Ending(digest(code), browser, digest(fresh))
        row, known = await self._store.write(steps.come_back, digest(back.state), ending, now)
        if row is None:
            return SIGN_IN_UNKNOWN
        if isinstance(known, OAuthRefusal):
            self.log.info("sign-in ended", client=row.client_id, reason=known.reason)
            return self._told(row, known)
        if row.came_as is not None:
            return self._signed_in(row, row.came_as, code, fresh if known else None)
        if row.upstream_verifier is None:
            return SIGN_IN_UNKNOWN
        try:
            return await self._answered(row, row.upstream_verifier, back, browser)
        except StoreDown as down:
            # The state is spent: here the browser cannot try again, the client can.
            self.log.warn("store down in a sign-in", client=row.client_id, error=str(down))
            return self._refused(row, OAUTH_STORE_DOWN)

    async def _answered(
        self, row: SignIn, verifier: bytes, back: FromForge, browser: Digest | None
    ) -> ToClient | AnotherCame | Explained:
        refusal = self._judge(back)
        if refusal is None and back.code is not None:
            return await self._connect(row, verifier, back.code, browser)
        await self._store.write(signins.finish, row.signin)
        self.log.info("sign-in refused by Forgejo", client=row.client_id, error=back.error)
        return self._refused(row, refusal or UPSTREAM_FAILED)

    def _judge(self, back: FromForge) -> OAuthRefusal | None:
        # RFC 9207 §2.4: an issuer that is sent must be the one that was asked.
        if back.issuer is not None and not self._forge.is_issuer(back.issuer):
            return UPSTREAM_FAILED
        if back.error == "access_denied":
            return ACCESS_DENIED
        if back.error is not None or back.code is None:
            return UPSTREAM_FAILED
        return None

    async def _connect(
        self, row: SignIn, sealed: bytes, forge_code: str, browser: Digest | None
    ) -> ToClient | AnotherCame | Explained:
        try:
            verifier = self._ring.open(sealed, signins.bound_verifier(row.signin)).decode()
        except Unsealable:
            self.log.critical("a sign-in does not open: its key is lost", client=row.client_id)
            await self._store.write(signins.finish, row.signin)
            return self._refused(row, UPSTREAM_FAILED)
        person = await self._credentials.exchange(row.signin, forge_code, verifier)
        if isinstance(person, OAuthRefusal):
            await self._store.write(signins.finish, row.signin)
            return self._told(row, person)
        came, code, renamed = person.account_id, mint(Kind.CODE), mint(Kind.SIGN_IN)
        fresh, now = mint(Kind.BROWSER), self._clock.seconds()
        ending = Ending(digest(code), browser, digest(fresh))
        answer = await self._store.write(steps.answer, row, came, digest(renamed), ending, now)
        match answer:
            case Another():
                self.log.info(
                    "another account came back",
                    client=row.client_id,
                    account=came,
                    known_as=answer.account_id,
                )
                return AnotherCame(renamed, row.request, answer.login, person.login)
            case OAuthRefusal():
                self.log.info("sign-in ended", client=row.client_id, reason=answer.reason)
                return self._told(row, answer)
            case known:
                return self._signed_in(row, came, code, fresh if known else None)

    def _signed_in(
        self, row: SignIn, account_id: int, code: TokenText, browser: TokenText | None
    ) -> ToClient:
        self.log.info("signed in", client=row.client_id, account=account_id)
        self._meter.oauth(OAuth.SIGNED_IN)
        return ToClient(success_url(row.request, code, self._endpoints.issuer), browser)

    def _told(self, row: SignIn, refusal: OAuthRefusal) -> ToClient | Explained:
        """A refusal goes to the client, by way of the person where they must read it."""
        url = self._error_url(row, refusal)
        return Explained(refusal, url) if refusal.reason in FOR_THE_PERSON else ToClient(url)

    def _refused(self, row: SignIn, refusal: OAuthRefusal) -> ToClient:
        return ToClient(self._error_url(row, refusal))

    def _error_url(self, row: SignIn, refusal: OAuthRefusal) -> str:
        request = row.request
        return error_url(request.redirect_uri, request.state, refusal, self._endpoints.issuer)

    def _verifier(self, signin: Digest) -> tuple[TokenText, bytes]:
        """A verifier for Forgejo, and what is kept of it."""
        verifier = mint(Kind.VERIFIER)
        return verifier, self._ring.seal(verifier.text.encode(), signins.bound_verifier(signin))

    def _to_forge(self, state: TokenText, verifier: TokenText) -> Onward:
        return Onward(self._forge.authorize_url(state.text, challenge(verifier)), state)


def challenge(verifier: TokenText) -> str:
    """The S256 challenge of a verifier (RFC 7636 §4.2)."""
    hashed = hashlib.sha256(verifier.text.encode("ascii")).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode("ascii")
