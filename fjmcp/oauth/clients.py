"""
A client, and whether a request is really from it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from enum import Enum
from typing import Final
from urllib.parse import unquote_plus

from attrs import frozen

from fjmcp.oauth.metadata import BASIC, NONE, POST, ClientMetadata
from fjmcp.oauth.tokens import Digest, TokenText, digest, same
from fjmcp.refusals import (
    CLIENT_AUTH_MALFORMED,
    CLIENT_AUTH_METHOD,
    CLIENT_AUTH_TWICE,
    CLIENT_SECRET_WRONG,
    CLIENT_UNKNOWN,
    CLIENT_UNNAMED,
    OAuthRefusal,
)


class Source(Enum):
    """How a client is known; the value is for people."""

    REGISTERED = "it registered itself"
    DOCUMENT = "its metadata document"
    CONFIGURED = "the configuration"


_WITH_SECRET: Final = frozenset({POST, BASIC})


@frozen
class Client:
    """A client that may ask for authorization."""

    client_id: str
    secrets: tuple[Digest, ...]
    """Any of them lets it in; none where its method is `none`."""
    metadata: ClientMetadata
    created_at: float
    source: Source = Source.REGISTERED

    @property
    def auth_methods(self) -> frozenset[str]:
        """The ways in which it may authenticate."""
        method = self.metadata.token_endpoint_auth_method
        # Who was given a secret by a person sends it in whichever way it has.
        by_hand = self.source is Source.CONFIGURED and self.secrets
        return _WITH_SECRET if by_hand else frozenset({method})


# --- authentication -----------------------------------------------------------


@frozen
class Presented:
    """How a client presents itself at the token endpoint and its like."""

    client_id: str
    secret: Digest | None
    method: str
    """`none`, `client_secret_post` or `client_secret_basic`."""
    unencoded: Digest | None = None
    """Of a secret in the header, as it stands there: not every client encodes it first."""


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
    client_id, secret, unencoded = basic
    # RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in each
    # request."
    if posted or (named and named != client_id):
        return CLIENT_AUTH_TWICE
    if not secret.text:
        return Presented(client_id, None, NONE)
    return Presented(client_id, digest(secret), BASIC, digest(unencoded))


def authenticate(client: Client | None, presented: Presented) -> OAuthRefusal | None:
    """
    None if the request is from `client`, which is the one found by its id, or None.

    Always `invalid_client` with 401: that is what makes clients register again.
    """
    if client is None or client.client_id != presented.client_id:
        return CLIENT_UNKNOWN
    # The method is part of the registration: a client with a secret is not let in without it,
    # nor one without a secret with any.
    if presented.method not in client.auth_methods:
        return CLIENT_AUTH_METHOD
    if presented.method != NONE and proof(client, presented) is None:
        return CLIENT_SECRET_WRONG
    return None


def proof(client: Client, presented: Presented) -> Digest | None:
    """Which of its secrets a client has presented, if any."""
    for secret in (presented.secret, presented.unencoded):
        for each in client.secrets:
            if secret is not None and same(each, secret):
                return each
    return None


def _basic(header: str) -> tuple[str, TokenText, TokenText] | None:
    """Client id and secret of `Authorization: Basic` (RFC 7617), and the secret unread; or None."""
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
    # algorithm" first.  Our own have no character that this would change; one that a person made up
    # may have, and most libraries do not encode it.
    return unquote_plus(client_id), TokenText(unquote_plus(secret)), TokenText(secret)
