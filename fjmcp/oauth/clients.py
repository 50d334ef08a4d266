"""
A client: its metadata, judged, and whether a request is really from it.

Registration is open (RFC 7591 §3: "open dynamic registration"), so whatever
stands in the metadata is a stranger's word.  It is bounded, stripped of what
deceives the eye, and never fetched.
"""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth import redirects
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.scopes import Scopes
from fjmcp.oauth.tokens import Digest, TokenText, digest, same
from fjmcp.oauth.uris import split
from fjmcp.refusals import (
    CLIENT_AUTH_MALFORMED,
    CLIENT_AUTH_METHOD,
    CLIENT_AUTH_TWICE,
    CLIENT_SECRET_WRONG,
    CLIENT_UNKNOWN,
    CLIENT_UNNAMED,
    REDIRECT_URIS_MANY,
    REDIRECT_URIS_MISSING,
    REGISTRATION_AUTH_METHOD,
    REGISTRATION_GRANT_TYPES,
    REGISTRATION_MALFORMED,
    REGISTRATION_RESPONSE_TYPES,
    OAuthRefusal,
)

NONE: Final = "none"
POST: Final = "client_secret_post"
BASIC: Final = "client_secret_basic"
AUTH_METHODS: Final = (NONE, POST, BASIC)
"""In the order of our metadata; clients that choose by it should take `none`."""

GRANT_TYPES: Final = ("authorization_code", "refresh_token")
RESPONSE_TYPES: Final = ("code",)


@frozen
class ClientMetadata:
    """What is kept of a client's metadata (RFC 7591 §2)."""

    redirect_uris: tuple[str, ...]
    client_name: str = ""
    """Stripped and cut, and still a stranger's word; empty where none was given."""
    grant_types: tuple[str, ...] = ("authorization_code",)
    response_types: tuple[str, ...] = RESPONSE_TYPES
    token_endpoint_auth_method: str = BASIC
    scope: str | None = None
    client_uri: str | None = None

    def to_json(self) -> str:
        """For the store; `from_json` reads it back."""
        return json.dumps(self.members())

    @classmethod
    def from_json(cls, text: str) -> ClientMetadata:
        """What `to_json` wrote.  Members that this version does not know are passed over."""
        stored: dict[str, Any] = json.loads(text)
        return cls(
            redirect_uris=tuple(stored["redirect_uris"]),
            client_name=stored.get("client_name", ""),
            grant_types=tuple(stored["grant_types"]),
            response_types=tuple(stored["response_types"]),
            token_endpoint_auth_method=stored["token_endpoint_auth_method"],
            scope=stored.get("scope"),
            client_uri=stored.get("client_uri"),
        )

    def members(self) -> dict[str, object]:
        """The metadata as a registration response tells it: what is not there is left out, for
        clients' parsers refuse null."""
        members: dict[str, object] = {
            "redirect_uris": list(self.redirect_uris),
            "grant_types": list(self.grant_types),
            "response_types": list(self.response_types),
            "token_endpoint_auth_method": self.token_endpoint_auth_method,
        }
        if self.client_name:
            members["client_name"] = self.client_name
        if self.scope is not None:
            members["scope"] = self.scope
        if self.client_uri is not None:
            members["client_uri"] = self.client_uri
        return members


@frozen
class Client:
    """A client that may ask for authorization."""

    client_id: str
    secret_digest: Digest | None
    """None where its method is `none`."""
    metadata: ClientMetadata
    created_at: float

    @property
    def display_name(self) -> str:
        """Its name for people, as an attacker may have chosen it."""
        return self.metadata.client_name or "An application without a name"

    @property
    def loopback_only(self) -> bool:
        """Whether every redirect URI is on the person's own computer, where any program may
        call itself this client."""
        return all(redirects.is_loopback(uri) for uri in self.metadata.redirect_uris)


# --- registration -------------------------------------------------------------


def judge_registration(body: object) -> ClientMetadata | OAuthRefusal:
    """
    What a registration registers (RFC 7591 §3.1); `body` is the JSON as parsed.

    A member that is null counts as absent: clients send their empty fields so.
    """
    if not isinstance(body, dict):
        return REGISTRATION_MALFORMED
    # RFC 7591 §2: the server "MUST ignore any client metadata sent by the client that it does
    # not understand".  logo_uri, jwks_uri and their like are not even looked at.
    uris = _redirect_uris(body.get("redirect_uris"))
    if isinstance(uris, OAuthRefusal):
        return uris
    method = body.get("token_endpoint_auth_method")
    if method is None:
        # RFC 7591 §2: "If unspecified or omitted, the default is client_secret_basic".
        method = BASIC
    if method not in AUTH_METHODS:
        return REGISTRATION_AUTH_METHOD
    # RFC 7591 §2: "If omitted, the default behavior is that the client will use only the
    # authorization_code Grant Type" and "the code response type".
    grant_types = _chosen(body.get("grant_types"), GRANT_TYPES)
    if grant_types is None or "authorization_code" not in grant_types:
        return REGISTRATION_GRANT_TYPES
    response_types = _chosen(body.get("response_types"), RESPONSE_TYPES)
    if not response_types:
        return REGISTRATION_RESPONSE_TYPES
    name = body.get("client_name")
    if not isinstance(name, str | None):
        return REGISTRATION_MALFORMED.saying("client_name must be a string.")
    scope = body.get("scope")
    if not isinstance(scope, str | None):
        return REGISTRATION_MALFORMED.saying("scope must be a string of words.")
    return ClientMetadata(
        redirect_uris=uris,
        client_name=clean_name(name or ""),
        grant_types=grant_types,
        response_types=response_types,
        token_endpoint_auth_method=method,
        scope=None if scope is None else str(Scopes.parse(scope)),
        client_uri=_web_page(body.get("client_uri")),
    )


def registration_response(
    client: Client, secret: TokenText | None, endpoints: Endpoints
) -> dict[str, object]:
    """
    The body of the 201 (RFC 7591 §3.2.1).

    `endpoints` is where a `registration_client_uri` (RFC 7592) is made of, which is not
    promised while nothing answers there.
    """
    # RFC 7591 §3.2.1: the server "MUST return all registered metadata about this client".
    answer: dict[str, object] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(client.created_at),
        **client.metadata.members(),
    }
    if secret is not None:
        # RFC 7591 §3.2.1: client_secret_expires_at is "REQUIRED if client_secret is issued",
        # and 0 if it never expires.
        answer |= {"client_secret": secret.text, "client_secret_expires_at": 0}
    return answer


def clean_name(name: str) -> str:
    """
    A name that shows what it holds, at most `limits.CLIENT_NAME` characters.

    Controls, bidirectional and zero-width marks and what has no glyph at all go: with them a
    name reads other than it is.  So do marks that pile up on one letter over their neighbours.
    """
    kept: list[str] = []
    marks = 0
    for character in unicodedata.normalize("NFC", name[: 8 * limits.CLIENT_NAME]):
        category = unicodedata.category(character)
        if category in ("Cc", "Zs", "Zl", "Zp"):
            character = " "
        elif category[0] == "C":
            continue
        marks = marks + 1 if category[0] == "M" else 0
        if marks <= 2:
            kept.append(character)
    return " ".join("".join(kept).split())[: limits.CLIENT_NAME].strip()


def _redirect_uris(value: object) -> tuple[str, ...] | OAuthRefusal:
    if not isinstance(value, list) or not value:
        return REDIRECT_URIS_MISSING
    uris: dict[str, None] = {}
    for number, uri in enumerate(value):
        if not isinstance(uri, str):
            return REDIRECT_URIS_MISSING.saying(f"redirect_uris[{number}] must be a string.")
        judged = redirects.judge(uri)
        if isinstance(judged, OAuthRefusal):
            return judged.saying(f"redirect_uris[{number}] is refused. {judged.description}")
        uris[judged] = None
    if len(uris) > limits.REDIRECT_URIS:
        return REDIRECT_URIS_MANY
    return tuple(uris)


def _chosen(value: object, known: tuple[str, ...]) -> tuple[str, ...] | None:
    """
    Those of a list of words that we know, or the first one where there is no list.

    None where it is no list of words.
    """
    if value is None:
        return known[:1]
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    # RFC 7591 §3.2.1: the server may "reject or replace any of the client's requested metadata
    # values"; Claude's document names a grant type (jwt-bearer) that it can do without.
    return tuple(word for word in known if word in value)


def _web_page(value: object) -> str | None:
    """The address of a page, or None where it is not plainly one; nothing depends on it."""
    if not isinstance(value, str) or len(value) > limits.REDIRECT_URI:
        return None
    parts = split(value)
    return value if parts is not None and parts.scheme == "https" else None


# --- authentication -----------------------------------------------------------


@frozen
class Presented:
    """How a client presents itself at the token endpoint and its like."""

    client_id: str
    secret: Digest | None
    method: str
    """`none`, `client_secret_post` or `client_secret_basic`."""


def read_client_auth(
    authorization_header: str | None, form: Mapping[str, str]
) -> Presented | OAuthRefusal:
    """
    Who a request says it is from, and with what proof (RFC 6749 §2.3.1).

    A 401 for it carries `WWW-Authenticate: Basic` where the header was used (RFC 6749 §5.2).
    """
    named, posted = form.get("client_id"), form.get("client_secret")
    if authorization_header is None:
        if not named:
            return CLIENT_UNNAMED
        # RFC 6749 §2.3.1: a client "MAY omit the parameter if the client secret is an empty
        # string", so an empty one is none.
        if not posted:
            return Presented(named, None, NONE)
        return Presented(named, digest(TokenText(posted)), POST)
    basic = _basic(authorization_header)
    if basic is None:
        return CLIENT_AUTH_MALFORMED
    client_id, secret = basic
    # RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in each
    # request."
    if posted or (named and named != client_id):
        return CLIENT_AUTH_TWICE
    if not secret.text:
        return Presented(client_id, None, NONE)
    return Presented(client_id, digest(secret), BASIC)


def authenticate(client: Client | None, presented: Presented) -> OAuthRefusal | None:
    """
    None if the request is from `client`, which is the one found by its id, or None.

    Always `invalid_client` with 401: that is what makes clients register again.
    """
    if client is None or client.client_id != presented.client_id:
        return CLIENT_UNKNOWN
    # The method is part of the registration: a client with a secret is not let in without it,
    # nor one without a secret with any.
    if presented.method != client.metadata.token_endpoint_auth_method:
        return CLIENT_AUTH_METHOD
    if presented.method == NONE:
        return None
    if (
        client.secret_digest is None
        or presented.secret is None
        or not same(client.secret_digest, presented.secret)
    ):
        return CLIENT_SECRET_WRONG
    return None


def _basic(header: str) -> tuple[str, TokenText] | None:
    """Client id and secret of `Authorization: Basic` (RFC 7617), or None."""
    scheme, _, credentials = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    client_id, colon, secret = text.partition(":")
    if not colon or not client_id:
        return None
    # RFC 6749 §2.3.1: both are "encoded using the application/x-www-form-urlencoded encoding
    # algorithm" first.  Our own have no character that this would change.
    return unquote_plus(client_id), TokenText(unquote_plus(secret))
