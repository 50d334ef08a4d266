"""
The well-known documents, and the challenge that leads to them.

They announce only what works: a client that believes a promise here and finds
it broken does not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fjmcp.oauth.authorization import plain_text
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import AUTH_METHODS, GRANT_TYPES, RESPONSE_TYPES
from fjmcp.oauth.scopes import BOTH, OFFLINE
from fjmcp.refusals import McpRefusal

Document = Callable[[Endpoints], dict[str, object]]


def protected_resource(endpoints: Endpoints) -> dict[str, object]:
    """What the MCP endpoint says of itself (RFC 9728 §2)."""
    return {
        "resource": endpoints.resource,
        "resource_name": "Forgejo",
        "authorization_servers": [endpoints.issuer],
        # MCP 2026-07-28: offline_access is no scope of the resource; it stands only in the
        # authorization server's document.
        "scopes_supported": str(BOTH).split(),
        # RFC 6750 §2.2, §2.3: a token in the body or the query is not taken.
        "bearer_methods_supported": ["header"],
    }


def authorization_server(endpoints: Endpoints) -> dict[str, object]:
    """What the authorization server says of itself (RFC 8414 §2)."""
    document: dict[str, object] = {
        # RFC 8414 §3.3: identical to the URL that the well-known path was made of.
        "issuer": endpoints.issuer,
        "authorization_endpoint": endpoints.authorize,
        "token_endpoint": endpoints.token,
        "revocation_endpoint": endpoints.revoke,
        "response_types_supported": list(RESPONSE_TYPES),
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        # MCP: a client must refuse to go on where this is absent.
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        # Clients ask for offline_access only if it stands here.
        "scopes_supported": [*str(BOTH).split(), OFFLINE],
        # draft-ietf-oauth-client-id-metadata-document §5.  Claude names itself by a URL only where
        # this is true and "none" stands among the methods above; else it registers.
        "client_id_metadata_document_supported": True,
        # RFC 9207 §3.
        "authorization_response_iss_parameter_supported": True,
    }
    if endpoints.registration:
        document["registration_endpoint"] = endpoints.register
    return document


METADATA_PATHS: Final[Mapping[str, Document]] = {
    # RFC 9728 §3.1: with the resource's path, the one that the challenge names, and without.
    "/.well-known/oauth-protected-resource/mcp": protected_resource,
    "/.well-known/oauth-protected-resource": protected_resource,
    # RFC 8414 §3 for an issuer without a path, and OpenID Connect Discovery §4, which MCP
    # 2025-11-25 lets clients try instead.
    "/.well-known/oauth-authorization-server": authorization_server,
    "/.well-known/openid-configuration": authorization_server,
    # Not ours by any rule: clients that take the MCP endpoint for the issuer probe them.
    "/.well-known/oauth-authorization-server/mcp": authorization_server,
    "/.well-known/openid-configuration/mcp": authorization_server,
    "/mcp/.well-known/openid-configuration": authorization_server,
}
"""Every path at which a document is found, without trailing slash."""


def challenge(endpoints: Endpoints, refusal: McpRefusal) -> str:
    """
    The `WWW-Authenticate` value of a refusal whose `challenge` is not None.

    Every value in it is of our own making or stripped of quotes, so none can end its string.
    """
    parameters = {"realm": "fjmcp"}
    # RFC 6750 §3.1: "If the request lacks any authentication information [...] the resource
    # server SHOULD NOT include an error code or other error information."
    if refusal.challenge:
        parameters["error"] = refusal.challenge
        parameters["error_description"] = plain_text(refusal.message)
    # RFC 9728 §5.1.
    parameters["resource_metadata"] = endpoints.protected_resource_metadata
    # RFC 6750 §3; MCP 2025-11-25: clients ask for what stands here before anything else.
    parameters["scope"] = str(BOTH)
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())
