"""
A Client ID Metadata Document: a client whose name is the URL of its metadata.

draft-ietf-oauth-client-id-metadata-document (sections as in -01), and what MCP
2025-11-25 adds to it.  Where it was fetched from proves that whoever controls
that host wrote it, and nothing more.  What it links to is never fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final

import msgspec
from attrs import frozen

from fjmcp import limits
from fjmcp.oauth.metadata import (
    GRANT_TYPES,
    NONE,
    RESPONSE_TYPES,
    ClientMetadata,
    chosen,
    clean_name,
    judged_redirect_uris,
    web_page,
)
from fjmcp.oauth.scopes import Scopes
from fjmcp.oauth.uris import Uri, split
from fjmcp.refusals import AUTHORIZE_DOCUMENT_REFUSED, AUTHORIZE_DOCUMENT_URL, OAuthRefusal

# --- the URL ------------------------------------------------------------------------

# A name of the public DNS: two labels or more, the last of which is no number.
_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


def is_document_url(client_id: str) -> bool:
    """Whether a client id is meant as a URL; ours never begin so."""
    return client_id[:8].lower() == "https://"


def judge_url(client_id: str) -> Uri | OAuthRefusal:
    """The parts of a URL at which a document may be, else what is wrong with it (§3)."""
    if len(client_id) > limits.DOCUMENT_URL:
        return _wrong_url(f"It is longer than {limits.DOCUMENT_URL} characters.")
    # §3: "MUST have an https scheme", "MUST NOT contain single-dot or double-dot path segments",
    # "a fragment component", "a username or password".  What is not ASCII goes here too.
    uri = split(client_id)
    if uri is None or uri.scheme != "https":
        return _wrong_url(
            "It is not a plain URL: https://host/path in ASCII, without user, password, fragment"
            " or dot segments."
        )
    # §3: it "MAY contain a port", but strangers could then have us knock at any port.
    if uri.port is not None:
        return _wrong_url("It has a port. Leave the port out.")
    if not _NAME.fullmatch(uri.name):
        return _wrong_url("Its host is not a public name.")
    # §3: "MUST contain a path component".
    if not uri.path.strip("/"):
        return _wrong_url("It has no path.")
    return uri


def _wrong_url(problem: str) -> OAuthRefusal:
    return AUTHORIZE_DOCUMENT_URL.saying(
        f"{AUTHORIZE_DOCUMENT_URL.description} {problem} Tell whoever makes the application."
    )


# --- the document -------------------------------------------------------------------


def judge_document(client_id: str, body: bytes) -> ClientMetadata | OAuthRefusal:
    """
    What the document at the URL `client_id` says, else what is wrong with it (§4.1).

    The sentence of a refusal is about the document alone, and has nothing of it.
    """
    if len(body) > limits.DOCUMENT_BODY:
        return _wrong(f"It is longer than {limits.DOCUMENT_BODY} bytes.")
    try:
        members = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _wrong("It is not valid JSON in UTF-8.")
    if not isinstance(members, dict):
        return _wrong("It is not a JSON object.")
    return judge_members(client_id, members)


def judge_members(client_id: str, members: Mapping[str, Any]) -> ClientMetadata | OAuthRefusal:
    """The same for a document that was parsed.  A member that is null counts as absent."""
    # §4.1: client_id "MUST match the URL of the document using simple string comparison".
    if members.get("client_id") != client_id:
        return _wrong("Its client_id is not the URL that it was fetched from, letter by letter.")
    # §4.1: "the client_secret and client_secret_expires_at properties MUST NOT be used".
    secrets = ("client_secret", "client_secret_expires_at")
    if any(members.get(name) is not None for name in secrets):
        return _wrong("It has a client_secret, which is no secret there.")
    if not _does_without_secret(members):
        return _wrong("Its token_endpoint_auth_method must be none.")
    uris = judged_redirect_uris(members.get("redirect_uris"))
    if isinstance(uris, OAuthRefusal):
        return _wrong(uris.description)
    # MCP 2025-11-25: "The metadata document MUST include at least the following properties:
    # client_id, client_name, redirect_uris".
    name = members.get("client_name")
    name = clean_name(name) if isinstance(name, str) else ""
    if not name:
        return _wrong("It has no client_name that can be read.")
    # RFC 7591 §2: "If omitted, the default behavior is that the client will use only the
    # authorization_code Grant Type".  MCP 2026-07-28 asks clients that want refresh tokens to
    # name the other one, and all known ones do.
    grant_types = chosen(members.get("grant_types"), GRANT_TYPES)
    if grant_types is None or "authorization_code" not in grant_types:
        return _wrong("Its grant_types must contain authorization_code.")
    response_types = chosen(members.get("response_types"), RESPONSE_TYPES)
    if not response_types:
        return _wrong("Its response_types must contain code.")
    scope = members.get("scope")
    if not isinstance(scope, str | None):
        return _wrong("Its scope must be a string of words.")
    return ClientMetadata(
        redirect_uris=uris,
        client_name=name,
        grant_types=grant_types,
        response_types=response_types,
        token_endpoint_auth_method=NONE,
        scope=None if scope is None else str(Scopes.parse(scope)),
        client_uri=web_page(members.get("client_uri")),
    )


def _does_without_secret(members: Mapping[str, Any]) -> bool:
    method = members.get("token_endpoint_auth_method")
    if method is None or method == NONE:
        # RFC 7591 §2 has client_secret_basic for the absent one, which no document can mean.
        return True
    # §4.1: it "MUST NOT include client_secret_post, client_secret_basic, client_secret_jwt, or
    # any other method based around a shared symmetric secret".
    if not isinstance(method, str) or method.startswith("client_secret"):
        return False
    # ChatGPT's would rather sign assertions, and lists what else it can do.
    others = members.get("token_endpoint_auth_methods_supported")
    return isinstance(others, list) and NONE in others


def _wrong(problem: str) -> OAuthRefusal:
    return AUTHORIZE_DOCUMENT_REFUSED.saying(problem)


# --- how long it is fresh -----------------------------------------------------------


@frozen
class Caching:
    """The headers that say how long a response is fresh (RFC 9111 §4.2.1), each "" if absent."""

    cache_control: str = ""
    age: str = ""
    expires: str = ""
    date: str = ""


def fresh_until(caching: Caching, now: float) -> float:
    """
    Until when a document that came at `now` need not be fetched again.

    §4.4: the server "SHOULD respect HTTP cache headers [...] but MAY define its own upper
    and/or lower bounds": one that is not to be stored at all has the lower one too.
    """
    seconds = _lifetime(caching, now) - _number(caching.age)
    return now + min(max(seconds, limits.DOCUMENT_FRESH_LEAST), limits.DOCUMENT_FRESH_MOST)


# RFC 9110 §5.6.2, §5.6.4: a token, perhaps with "=" and a token or a quoted string.
_DIRECTIVE: Final = re.compile(r'([\w!#$%&\'*+.^`|~-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')


def _lifetime(caching: Caching, now: float) -> float:
    directives: dict[str, str] = {}
    for name, quoted, plain in _DIRECTIVE.findall(caching.cache_control):
        # RFC 9111 §4.2.1: of a directive that is there twice, "either the first occurrence
        # should be used or the response should be considered stale".
        directives.setdefault(name.lower(), quoted or plain)
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    # RFC 9111 §5.3: a max-age stands above Expires.
    if "max-age" in directives:
        return _number(directives["max-age"])
    expires, date = _moment(caching.expires), _moment(caching.date)
    if expires is None:
        return 0.0
    return expires - (now if date is None else date)


def _number(text: str) -> float:
    """A delta-seconds (RFC 9111 §1.2.2), 0 where it is none."""
    text = text.strip()
    return float(text[:10]) if text.isascii() and text.isdigit() else 0.0


def _moment(text: str) -> float | None:
    """An HTTP date in epoch seconds, None where it is none."""
    try:
        parts = parsedate_tz(text)
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
