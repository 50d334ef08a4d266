"""
Which pages may call us, and read what we answer: CORS, as the Fetch standard has it.

A browser names in `Origin` where a page comes from, and hands an answer to a
page of another origin only if the answer names that origin.  Before a request
that a form could not send it asks by OPTIONS: the preflight.  Programs send no
Origin, and nothing here touches them.

    no Origin           a program: answered
    our own             a page of ours: answered, and reads without CORS
    an allowed one      answered, and its page reads
    any other           /mcp and preflights: 403; else answered, but no page reads it

No page ever reads by a cookie: Access-Control-Allow-Credentials is never sent,
and an origin is named only to itself.

Browsers also say for what they send a request (Fetch Metadata), and no page can
have them say something else.  Programs say nothing of it, nor do browsers from
before 2023; so only what is said counts, never that nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen
from twisted.web.http_headers import Headers

from fjmcp import limits

READABLE: Final = b"WWW-Authenticate, Mcp-Session-Id"
"""What a page may read of an answer, beside what Fetch shows every page: where to sign in, and
in which session it is."""

SENDABLE: Final = (
    b"Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id,"
    b" Last-Event-ID, Mcp-Method, Mcp-Name"
)
"""What clients of MCP send, of every revision."""


@frozen
class Origins:
    """
    The origins whose pages are welcome, each as browsers spell it.

    :ivar own: the public URL's.
    :ivar allowed: those of `--allowed-origins`.
    """

    own: bytes
    allowed: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, public_url: str, allowed: Iterable[str] = ()) -> Origins:
        """From the settings, where they are spelt in one way already."""
        return cls(
            public_url.encode("ascii"), frozenset(origin.encode("ascii") for origin in allowed)
        )

    def may_call(self, headers: Headers) -> bool:
        """Whether a request comes from no page, or from one that is welcome."""
        origin = named(headers)
        return origin is None or origin == self.own or origin in self.allowed

    def answer(self, headers: Headers) -> Mapping[bytes, bytes]:
        """The CORS headers of whatever is answered to a request with these headers."""
        origin = named(headers)
        # Fetch, "CORS protocol and HTTP caches": also where no origin is named, or a cache
        # would give that answer to a page that may read.
        vary = {b"vary": b"Origin"}
        if origin is None or origin not in self.allowed:
            return vary
        return vary | {
            b"access-control-allow-origin": origin,
            b"access-control-expose-headers": READABLE,
        }

    def preflight(self, headers: Headers, methods: bytes) -> Mapping[bytes, bytes]:
        """What the answer to a preflight says beside that; `methods`: those of the path."""
        if named(headers) not in self.allowed:
            return {}
        return {
            b"access-control-allow-methods": methods,
            b"access-control-allow-headers": SENDABLE,
            b"access-control-max-age": b"%d" % limits.PREFLIGHT,
        }


def named(headers: Headers) -> bytes | None:
    """The origin that a request names; None if it names none, b"" if several, which nobody has."""
    origins = headers.getRawHeaders(b"origin", [])
    if not origins:
        return None
    return origins[0] if len(origins) == 1 else b""


def is_preflight(method: bytes, headers: Headers) -> bool:
    """Whether a browser asks what a page may send (Fetch, "CORS-preflight request")."""
    asks = headers.hasHeader(b"access-control-request-method")
    return method == b"OPTIONS" and asks and named(headers) is not None


def of_page(headers: Headers) -> bool:
    """Whether a browser says that it sent a request, for a page of whatever origin."""
    return named(headers) is not None or headers.hasHeader(b"sec-fetch-site")


def is_visit(headers: Headers) -> bool:
    """
    Whether a person's browser may be on its way here, to show what it is answered.

    It is not where it says that it wants a picture, a frame or data for a page, or
    a page that nobody has gone to yet.  `Sec-Fetch-Mode` is left aside: the `fetch`
    of Node.js sends it, and clients follow an authorization URL with that.
    """
    wants = headers.getRawHeaders(b"sec-fetch-dest", [])
    ahead = headers.getRawHeaders(b"sec-purpose", [])
    return all(want == b"document" for want in wants) and not any(
        purpose.startswith(b"prefetch") for purpose in ahead
    )
