"""
The cookies that bind a sign-in to its browser.

Over https they carry the `__Host-` prefix, which keeps other hosts of the
domain from setting them (RFC 6265bis §4.1.3.2).  Over http, which the public
URL allows for loopback only, browsers refuse that prefix and `Secure`.
"""

from __future__ import annotations

from attrs import frozen
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import TokenText, digest

_LONGEST = 128


@frozen
class Cookies:
    """Reads and sets the cookies of sign-ins."""

    endpoints: Endpoints

    @property
    def _secure(self) -> bool:
        return self.endpoints.public_url.startswith("https:")

    def browser(self, request: Request) -> TokenText | None:
        """What proves that a consent form comes from the browser that was shown the page, and
        that a browser is the one in which somebody signed in before."""
        return self._read(request, "browser")

    def set_browser(self, request: Request, browser: TokenText, seconds: float) -> None:
        """Mark a browser for so long."""
        self._set(request, "browser", browser.text, seconds)

    def state(self, request: Request, state: TokenText) -> TokenText | None:
        """The state that this browser holds under the name of `state`."""
        return self._read(request, _name(state))

    def set_state(self, request: Request, state: TokenText) -> None:
        """Let this browser hold a state: one cookie each, so that two tabs do not meet."""
        self._set(request, _name(state), state.text, limits.SIGN_IN)

    def drop_state(self, request: Request, state: TokenText) -> None:
        """A state works once; take its cookie back."""
        self._set(request, _name(state), "", 0)

    def _read(self, request: Request, name: str) -> TokenText | None:
        value = request.getCookie(self._full(name).encode("ascii"))
        if not value or len(value) > _LONGEST or not value.isascii():
            return None
        return TokenText(value.decode("ascii"))

    def _set(self, request: Request, name: str, value: str, seconds: float) -> None:
        request.addCookie(
            self._full(name),
            value,
            path=b"/",
            max_age=b"%d" % int(seconds),
            secure=self._secure,
            httpOnly=True,
            # Lax, not Strict: Forgejo's redirect to our callback is cross-site.
            sameSite=b"lax",
        )

    def _full(self, name: str) -> str:
        return f"__Host-fjmcp_{name}" if self._secure else f"fjmcp_{name}"


def _name(state: TokenText) -> str:
    return f"state_{digest(state).value.hex()[:12]}"
