"""
A registration: what a client says of itself, judged, and what it is told (RFC 7591).

Registration is open (RFC 7591 §3: "open dynamic registration"): whoever comes
is a client, and nothing that it says is proved.
"""

from __future__ import annotations

from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import (
    AUTH_METHODS,
    BASIC,
    GRANT_TYPES,
    RESPONSE_TYPES,
    ClientMetadata,
    chosen,
    clean_name,
    judged_redirect_uris,
    web_page,
)
from fjmcp.oauth.scopes import Scopes
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import (
    REGISTRATION_AUTH_METHOD,
    REGISTRATION_GRANT_TYPES,
    REGISTRATION_MALFORMED,
    REGISTRATION_RESPONSE_TYPES,
    OAuthRefusal,
)


def judge_registration(body: object) -> ClientMetadata | OAuthRefusal:
    """
    What a registration registers (RFC 7591 §3.1); `body` is the JSON as parsed.

    A member that is null counts as absent: clients send their empty fields so.
    """
    if not isinstance(body, dict):
        return REGISTRATION_MALFORMED
    # RFC 7591 §2: the server "MUST ignore any client metadata sent by the client that it does
    # not understand".  logo_uri, jwks_uri and their like are not even looked at.
    uris = judged_redirect_uris(body.get("redirect_uris"))
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
    grant_types = chosen(body.get("grant_types"), GRANT_TYPES)
    if grant_types is None or "authorization_code" not in grant_types:
        return REGISTRATION_GRANT_TYPES
    response_types = chosen(body.get("response_types"), RESPONSE_TYPES)
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
        client_uri=web_page(body.get("client_uri")),
    )


def registration_response(
    client: Client, secret: TokenText | None, management: TokenText, endpoints: Endpoints
) -> dict[str, object]:
    """
    The body of the 201 (RFC 7591 §3.2.1), and of a read (RFC 7592 §3).

    `secret` is None where the client has none, and at a read: it is told once.
    """
    # RFC 7591 §3.2.1: the server "MUST return all registered metadata about this client".
    answer: dict[str, object] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(client.created_at),
        "registration_client_uri": endpoints.registration_of(client.client_id),
        "registration_access_token": management.text,
        **client.metadata.members(),
    }
    if secret is not None:
        # RFC 7591 §3.2.1: client_secret_expires_at is "REQUIRED if client_secret is issued",
        # and 0 if it never expires.
        answer |= {"client_secret": secret.text, "client_secret_expires_at": 0}
    return answer
