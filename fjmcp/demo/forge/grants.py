"""
Applications, grants and codes: the part of Forgejo that a broker depends on.

There is one grant for a person and application, with one refresh counter.
Every code exchange and every refresh moves it, so each kills the refresh
token that was given out before, whoever holds it (§0.1).
"""

from __future__ import annotations

import ipaddress
from base64 import urlsafe_b64encode
from hashlib import sha256
from secrets import token_hex
from typing import Final
from urllib.parse import urlsplit

from attrs import define, field, frozen

ACCESS_SECONDS: Final = 3600.0
"""Forgejo's ACCESS_TOKEN_EXPIRATION_TIME."""

REFRESH_SECONDS: Final = 730 * 3600.0
"""Forgejo's REFRESH_TOKEN_EXPIRATION_TIME, 730 hours."""


@define(eq=False)
class Application:
    """An OAuth application as an administrator creates it."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    confidential: bool = True
    name: str = "fjmcp demo"
    id: int = 0

    def takes(self, redirect_uri: str) -> bool:
        """
        Whether a redirect URI is registered (§3.2).

        The whole string counts, ASCII case and one trailing slash aside; for
        public applications the port of an IP loopback is ignored, if the URI
        was registered without one.
        """
        if not self.confidential:
            portless = _without_loopback_port(redirect_uri)
            if portless is not None and self._has(portless):
                return True
        return self._has(redirect_uri)

    def _has(self, uri: str) -> bool:
        return _folded(uri) in map(_folded, self.redirect_uris)


@define(eq=False)
class Grant:
    """What a person allowed an application; its scope never changes."""

    id: int
    person: int
    application: Application
    scope: str
    counter: int = 0
    nonce: str = ""


@frozen
class Code:
    """An authorization code: single use, no expiry (§3.2)."""

    text: str = field(repr=False)
    grant: Grant
    redirect_uri: str
    challenge: str
    method: str

    def verified_by(self, verifier: str) -> bool:
        """PKCE as Forgejo does it: a challenge without method fits nothing."""
        if self.method == "S256":
            digest = sha256(verifier.encode("utf-8", "replace")).digest()
            return urlsafe_b64encode(digest).rstrip(b"=").decode() == self.challenge
        return verifier == self.challenge if self.method == "plain" else not self.challenge


@define(eq=False)
class Grants:
    """
    Every application, grant and code.

    `invalidate` is INVALIDATE_REFRESH_TOKENS: False brings back Forgejo 8,
    where the counter stands still and refresh tokens can be used again.
    """

    access_seconds: float = ACCESS_SECONDS
    refresh_seconds: float = REFRESH_SECONDS
    invalidate: bool = True
    applications: dict[str, Application] = field(factory=dict)
    live: dict[int, Grant] = field(factory=dict)
    codes: dict[str, Code] = field(factory=dict, repr=False)
    _last: int = 0

    def register(self, application: Application) -> Application:
        """
        Create an application, or create it anew.

        Anew means another number, so that tokens of its grants are void.
        """
        self.delete_application(application.client_id)
        self._last += 1
        application.id = self._last
        self.applications[application.client_id] = application
        return application

    def delete_application(self, client_id: str) -> None:
        """Delete an application and its grants."""
        if self.applications.pop(client_id, None) is not None:
            for grant in list(self.live.values()):
                if grant.application.client_id == client_id:
                    self.revoke(grant)

    def of(self, person: int, application: Application) -> Grant | None:
        """The one grant of a person and an application."""
        found = (
            g for g in self.live.values() if g.person == person and g.application is application
        )
        return next(found, None)

    def allow(self, person: int, application: Application, scope: str) -> Grant:
        """A person said yes on the consent page."""
        self._last += 1
        grant = Grant(self._last, person, application, scope)
        self.live[grant.id] = grant
        return grant

    def revoke(self, grant: Grant) -> None:
        """The person, or an administrator, took it back."""
        self.live.pop(grant.id, None)
        self.codes = {t: c for t, c in self.codes.items() if c.grant is not grant}

    def code(self, grant: Grant, redirect_uri: str, challenge: str, method: str) -> Code:
        """A code for a grant."""
        code = Code(f"gta_{token_hex(26)}", grant, redirect_uri, challenge, method)
        self.codes[code.text] = code
        return code

    def move(self, grant: Grant) -> int:
        """Move the grant's counter; answer where it stands."""
        if self.invalidate:
            grant.counter += 1
        return grant.counter

    def used(self, grant: Grant, counter: int) -> bool:
        """Whether a refresh token with this counter is an old one."""
        return self.invalidate and (grant.counter != counter or counter == 0)


def _folded(uri: str) -> str:
    lowered = "".join(c.lower() if c.isascii() else c for c in uri)
    return lowered.removesuffix("/")


def _without_loopback_port(uri: str) -> str | None:
    """`http://127.0.0.1:5/x` -> `http://127.0.0.1/x`; None for any other URI."""
    try:
        parts = urlsplit(uri)
        port, host = parts.port, parts.hostname or ""
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        return None
    if parts.scheme != "http" or port is None or not loopback:
        return None
    return parts._replace(netloc=f"[{host}]" if ":" in host else host).geturl()
