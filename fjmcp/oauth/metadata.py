"""
A client's metadata: what is kept of it, and how each member is judged.

It comes from a registration (`fjmcp.oauth.registrations`) or from a document
(`fjmcp.oauth.metadata_documents`), and either is a stranger's word.  It is
bounded, stripped of what deceives the eye, and what it links to is never fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import Any, Final

from attrs import frozen

from fjmcp import limits
from fjmcp.oauth import redirects
from fjmcp.oauth.tokens import Digest
from fjmcp.oauth.uris import split
from fjmcp.refusals import REDIRECT_URIS_MANY, REDIRECT_URIS_MISSING, OAuthRefusal

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

    @property
    def fingerprint(self) -> Digest:
        """What differs as soon as any member does."""
        return Digest(hashlib.sha256(self.to_json().encode("utf-8")).digest())


# --- one member each --------------------------------------------------------------


# Letters, marks and signs that show nothing: those of Unicode's Default_Ignorable_Code_Point that
# are no format characters, and a few that are blank by their name.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)


def clean_name(name: str) -> str:
    """
    A name that shows what it holds, at most `limits.CLIENT_NAME` characters.

    Controls, bidirectional and zero-width marks and what has no glyph at all go: with them a
    name reads other than it is.  So do marks that pile up on one letter over their neighbours.
    """
    kept: list[str] = []
    marks = 0
    for character in _BLANK.sub("", unicodedata.normalize("NFC", name[: 8 * limits.CLIENT_NAME])):
        category = unicodedata.category(character)
        if category in ("Cc", "Zs", "Zl", "Zp"):
            character = " "
        elif category[0] == "C":
            continue
        marks = marks + 1 if category[0] == "M" else 0
        if marks <= 2:
            kept.append(character)
    return " ".join("".join(kept).split())[: limits.CLIENT_NAME].strip()


def judged_redirect_uris(value: object) -> tuple[str, ...] | OAuthRefusal:
    """Redirect URIs, each of which may be registered, in the order given."""
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


def chosen(value: object, known: tuple[str, ...]) -> tuple[str, ...] | None:
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


def web_page(value: object) -> str | None:
    """The address of a page, or None where it is not plainly one; nothing depends on it."""
    if not isinstance(value, str) or len(value) > limits.REDIRECT_URI:
        return None
    parts = split(value)
    return value if parts is not None and parts.scheme == "https" else None
