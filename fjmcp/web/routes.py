"""
What a path answers: a `Route`, made by `route`, in the tongue of its callers.

What a route answers, `fjmcp.web.site` turns into a response:

    bytes        a page (HTML), or whatever Content-Type the route has set
    a mapping    JSON
    a refusal    status, headers and body in the tongue of the route; a
                 `RefusedRequest` names the request that it refuses
    None         the route has written the response itself, or still will
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from attrs import frozen

from fjmcp import limits
from fjmcp.refusals import McpRefusal, OAuthRefusal
from fjmcp.web.channel import SiteRequest

Refusal = OAuthRefusal | McpRefusal


@frozen
class RefusedRequest:
    """The refusal of the JSON-RPC request with this id (JSON text)."""

    refusal: McpRefusal
    id: bytes


Answer = bytes | Mapping[str, object] | Refusal | RefusedRequest | None
Respond = Callable[[SiteRequest], Awaitable[Answer]]


class Tongue(Enum):
    """In which form a path is refused, which is the form that its callers read."""

    PAGE = "an HTML page"
    OAUTH = "JSON as in RFC 6749 §5.2"
    MCP = "a JSON-RPC error"


Whose = Callable[[SiteRequest], int | McpRefusal | None]


def _nobodys(request: SiteRequest) -> None:
    """Whose a request is where nobody signs in."""


@frozen
class Route:
    """What is answered at some paths."""

    paths: tuple[str, ...]
    speaks: Tongue
    methods: Mapping[bytes, Respond]
    ceiling: int
    any_host: bool
    whose: Whose
    cors: bool

    @property
    def allow(self) -> bytes:
        """The methods that it answers, as in an Allow header."""
        return b", ".join([*self.methods, b"OPTIONS"] if self.cors else self.methods)


def route(
    *paths: str,
    speaks: Tongue,
    get: Respond | None = None,
    post: Respond | None = None,
    delete: Respond | None = None,
    ceiling: int = limits.FORM_BODY,
    any_host: bool = False,
    whose: Whose = _nobodys,
    cors: bool = False,
) -> Route:
    """
    What `paths` answer, each also with a slash behind it.

    `ceiling`: bytes of a body.  `any_host`: also for a Host that is not the
    public URL's.  `whose`: the account behind a request whose large body is being
    read, None if that is not known yet.  `cors`: whether pages of `--allowed-origins`
    may read the answers; then OPTIONS is answered too.
    GET answers HEAD too, but for /mcp, where GET is a stream.
    """
    given = {b"GET": get, b"POST": post, b"DELETE": delete}
    if speaks is not Tongue.MCP:
        given[b"HEAD"] = get
    methods = {name: respond for name, respond in given.items() if respond is not None}
    return Route(paths, speaks, methods, ceiling, any_host, whose, cors)
