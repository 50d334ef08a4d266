"""Where everything is: the addresses that we give out, all made of the public URL."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from attrs import field, frozen

from fjmcp.oauth.uris import split

if TYPE_CHECKING:
    from attrs import Attribute


def _an_origin(_: object, attribute: Attribute[str], value: str) -> None:
    parts = split(value)
    if parts is None or parts.scheme not in ("http", "https") or parts.path or parts.query:
        raise ValueError(f"{attribute.name} must be scheme://host[:port] and no more: {value!r}")


@frozen
class Endpoints:
    """
    The addresses of one broker.

    `public_url` is the origin under which people reach it, from the configuration and never
    from a request's Host, with neither path nor trailing slash.
    """

    public_url: str = field(validator=_an_origin)
    registration: bool = True
    """Whether strangers may register clients."""

    @property
    def issuer(self) -> str:
        """The authorization server's identity, equal letter by letter wherever it is told
        (RFC 8414 §3.3, RFC 9207 §2.4)."""
        return self.public_url

    @property
    def resource(self) -> str:
        """The MCP endpoint: what a person pastes into a client (RFC 8707, RFC 9728)."""
        return f"{self.public_url}/mcp"

    @property
    def authorize(self) -> str:
        """RFC 6749 §3.1."""
        return f"{self.public_url}/oauth/authorize"

    @property
    def consent(self) -> str:
        """Where our consent page is sent to."""
        return f"{self.public_url}/oauth/consent"

    @property
    def callback(self) -> str:
        """Where Forgejo sends the browser back to; registered there."""
        return f"{self.public_url}/oauth/callback"

    @property
    def token(self) -> str:
        """RFC 6749 §3.2."""
        return f"{self.public_url}/oauth/token"

    @property
    def register(self) -> str:
        """RFC 7591 §3."""
        return f"{self.public_url}/oauth/register"

    def registration_of(self, client_id: str) -> str:
        """Where a client reads or takes back its registration (RFC 7592 §2)."""
        return f"{self.register}?{urlencode({'client_id': client_id})}"

    @property
    def revoke(self) -> str:
        """RFC 7009 §2."""
        return f"{self.public_url}/oauth/revoke"

    @property
    def protected_resource_metadata(self) -> str:
        """RFC 9728 §3.1: the well-known string goes between host and the resource's path."""
        return f"{self.public_url}/.well-known/oauth-protected-resource/mcp"
