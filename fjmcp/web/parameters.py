"""
What a request to an OAuth endpoint carries: a query, a form, or JSON.

Each `with_…` turns `(request, parameters) -> answer` into the `request ->
answer` that `fjmcp.web.site.route` takes; what cannot be read is refused
before.  Twisted's own parsing is switched off: it takes any encoding.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from twisted.web.http import Request
from werkzeug.http import parse_options_header

from fjmcp import limits
from fjmcp.oauth.authorization import Params, once
from fjmcp.refusals import (
    FORM_MALFORMED,
    FORM_TYPE,
    QUERY_MALFORMED,
    REGISTRATION_NOT_JSON,
    REGISTRATION_TYPE,
    OAuthRefusal,
)
from fjmcp.web.channel import SiteRequest

T = TypeVar("T")


def read_query(request: SiteRequest) -> Params | OAuthRefusal:
    """The parameters of the URL's query, each once."""
    pairs = _pairs(request.uri.partition(b"?")[2])
    return QUERY_MALFORMED if pairs is None else once(pairs)


def read_form(request: SiteRequest) -> Params | OAuthRefusal:
    """The parameters of a urlencoded form, each once (RFC 6749 §3.2, appendix B)."""
    if _media_type(request) != "application/x-www-form-urlencoded":
        return FORM_TYPE
    pairs = _pairs(request.content.read())
    return FORM_MALFORMED if pairs is None else once(pairs)


def read_json(request: SiteRequest) -> object | OAuthRefusal:
    """The JSON body of a registration (RFC 7591 §3.1)."""
    if _media_type(request) != "application/json":
        return REGISTRATION_TYPE
    try:
        body: object = msgspec.json.decode(request.content.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return REGISTRATION_NOT_JSON
    return body


def with_query(
    respond: Callable[[Request, Params], Awaitable[T]],
) -> Callable[[SiteRequest], Awaitable[T | OAuthRefusal]]:
    """`respond`, given the parameters of the query."""

    async def asked(request: SiteRequest) -> T | OAuthRefusal:
        params = read_query(request)
        return params if isinstance(params, OAuthRefusal) else await respond(request, params)

    return asked


def with_form(
    respond: Callable[[Request, Params], Awaitable[T]],
) -> Callable[[SiteRequest], Awaitable[T | OAuthRefusal]]:
    """`respond`, given the parameters of the form."""

    async def asked(request: SiteRequest) -> T | OAuthRefusal:
        params = read_form(request)
        return params if isinstance(params, OAuthRefusal) else await respond(request, params)

    return asked


def with_json(
    respond: Callable[[Request, object], Awaitable[T]],
) -> Callable[[SiteRequest], Awaitable[T | OAuthRefusal]]:
    """`respond`, given the JSON of the body."""

    async def asked(request: SiteRequest) -> T | OAuthRefusal:
        body = read_json(request)
        return body if isinstance(body, OAuthRefusal) else await respond(request, body)

    return asked


def _media_type(request: SiteRequest) -> str:
    values = request.requestHeaders.getRawHeaders(b"content-type", [])
    if len(values) != 1:
        return ""
    return parse_options_header(values[0].decode("latin-1"))[0].lower()


def _pairs(text: bytes) -> list[tuple[str, str]] | None:
    """Names and values of a urlencoded text; None if it is none, in UTF-8."""
    try:
        return parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=limits.PARAMETERS,
        )
    except ValueError:  # not ASCII, not UTF-8, too many
        return None
