"""
Which redirect URI may be registered, and which presented one is which registered one.

RFC 9700 §2.1: redirect URIs are compared as exact strings, but for the port of
native apps' loopback URIs (RFC 8252 §7.3).  MCP: only localhost or HTTPS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from attrs import evolve

from fjmcp import limits
from fjmcp.oauth.uris import Uri, split
from fjmcp.refusals import REDIRECT_URI_REFUSED, OAuthRefusal

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Hosts that are the person's own computer.  RFC 8252 §8.3 would rather not have `localhost`;
most clients send it."""

PRIVATE: Final[Mapping[str, str]] = {
    "cursor://anysphere.cursor-mcp/oauth/callback": "www.cursor.com",
}
"""Private-use URIs that are taken, each as a whole, and the host of whose product they are: Cursor
registers this one beside two others and gives up when one is refused.  Any program may claim a
private scheme, so PKCE alone guards the code on this way; that is why there is no pattern here."""

_OURS: Final = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})
"""What we append; a redirect URI that brings its own would answer with two of them."""


def judge(uri: str) -> str | OAuthRefusal:
    """`uri` if it may be registered, else what is wrong with it."""
    if not uri:
        return REDIRECT_URI_REFUSED.saying("It is empty.")
    if len(uri) > limits.REDIRECT_URI:
        return REDIRECT_URI_REFUSED.saying(f"It is longer than {limits.REDIRECT_URI} characters.")
    if not all("!" <= character <= "~" for character in uri) or "\\" in uri:
        return REDIRECT_URI_REFUSED.saying(
            "It has a space, a control character, a backslash or a character outside ASCII."
            " Percent-encode it."
        )
    if uri in PRIVATE:
        return uri
    # RFC 6749 §3.1.2: "The endpoint URI MUST NOT include a fragment component."
    if "#" in uri:
        return REDIRECT_URI_REFUSED.saying("It has a fragment (#). Leave the fragment out.")
    if "*" in uri:
        return REDIRECT_URI_REFUSED.saying("It has a wildcard (*). Register each URI in full.")
    scheme = uri.partition(":")[0]
    if scheme not in ("http", "https"):
        return REDIRECT_URI_REFUSED.saying(
            "Its scheme is not https, nor http on localhost. Use one of these, in lower case."
        )
    parts = split(uri)
    if parts is None:
        return REDIRECT_URI_REFUSED.saying(
            "It is not a plain absolute URI: https://host/path without user, password,"
            " odd port or dot segments."
        )
    if parts.scheme == "http" and parts.host not in LOOPBACK:
        return REDIRECT_URI_REFUSED.saying(
            "It is http and not on this computer. Use https, or http on localhost, 127.0.0.1"
            " or [::1]."
        )
    if parts.address is not None and parts.address.is_unspecified:
        return REDIRECT_URI_REFUSED.saying(
            "Its host is the address of no computer. Use localhost, 127.0.0.1 or [::1]."
        )
    if any(name in _OURS for name, _ in parse_qsl(parts.query or "", keep_blank_values=True)):
        return REDIRECT_URI_REFUSED.saying(
            "Its query has a parameter that OAuth answers with (code, state, iss, error)."
        )
    return uri


def matches(registered: str, presented: str) -> bool:
    """Whether `presented` is the `registered` one, which was judged at registration."""
    # RFC 9700 §4.1.3: "simple string comparison", no normalization of any kind.
    if registered == presented:
        return True
    # RFC 8252 §7.3: "The authorization server MUST allow any port to be specified at the
    # time of the request for loopback IP redirect URIs" - and nothing else may differ.
    known, given = _native(registered), _native(presented)
    return known is not None and given is not None and known == given


def _native(uri: str) -> Uri | None:
    """A loopback URI without its port; None for any other."""
    parts = split(uri) if isinstance(judge(uri), str) else None
    if parts is None or parts.scheme != "http" or parts.host not in LOOPBACK:
        return None
    return evolve(parts, port=None)


def is_loopback(uri: str) -> bool:
    """Whether a judged URI ends on the person's own computer, where any program may listen."""
    parts = split(uri)
    if parts is None:
        return False
    if parts.address is not None:
        # Not only 127.0.0.1: RFC 1122 §3.2.1.3 has all of 127/8.  An unspecified address, which
        # may stand in an older registration, leads there too.
        return parts.address.is_loopback or parts.address.is_unspecified
    # RFC 6761 §6.3: names under localhost are loopback too.
    return parts.name.rpartition(".")[2] == "localhost"


def host(uri: str) -> str:
    """The host of a judged URI, or of an answer to it, for people to read; of a private one its
    scheme too."""
    parts = _judged(uri)
    return parts.name if parts.scheme in ("http", "https") else f"{parts.scheme}://{parts.name}"


def canonical_host(uri: str) -> str:
    """The host of a judged URI as hosts are compared."""
    return _judged(uri).canonical_host


def origin(uri: str) -> str:
    """The origin of a judged URI as a Content-Security-Policy names it."""
    parts = _judged(uri)
    return parts.origin if parts.scheme in ("http", "https") else f"{parts.scheme}:"


def _judged(uri: str) -> Uri:
    # An answer has a state in its query, which may hold what no redirect URI may.
    parts = split(uri.partition("?")[0])
    if parts is None:
        raise ValueError("a redirect URI that was never judged")
    return parts
