"""Tests for `fjmcp.oauth.documents` and `fjmcp.oauth.endpoints`."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import refusals
from fjmcp.oauth.documents import (
    METADATA_PATHS,
    authorization_server,
    challenge,
    protected_resource,
)
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.refusals import McpRefusal

HOME = Endpoints("https://mcp.example.org")


class Addresses(SynchronousTestCase):
    """What is made of the public URL."""

    def test_all(self) -> None:
        """Every address stands under the public URL, where design D12 puts it."""
        self.assertEqual(HOME.issuer, "https://mcp.example.org")
        for name, path in [
            ("resource", "/mcp"),
            ("authorize", "/oauth/authorize"),
            ("consent", "/oauth/consent"),
            ("callback", "/oauth/callback"),
            ("token", "/oauth/token"),
            ("register", "/oauth/register"),
            ("revoke", "/oauth/revoke"),
            ("protected_resource_metadata", "/.well-known/oauth-protected-resource/mcp"),
        ]:
            self.assertEqual(getattr(HOME, name), HOME.public_url + path)

    def test_public_url(self) -> None:
        """A public URL with anything behind its host and port is a bug, and says so."""
        for wrong in (
            "https://mcp.example.org/",
            "https://mcp.example.org/x",
            "https://mcp.example.org?x",
            "https://u@mcp.example.org",
            "mcp.example.org",
            "ftp://mcp.example.org",
            "",
        ):
            self.assertRaises(ValueError, Endpoints, wrong)
        for right in ("http://127.0.0.1:8080", "http://[::1]:8080", "https://a.example:8443"):
            self.assertEqual(Endpoints(right).resource, right + "/mcp")


class Documents(SynchronousTestCase):
    """The two documents."""

    def test_protected_resource(self) -> None:
        """The resource is what people paste, its issuer is ours, offline_access is not in it."""
        self.assertEqual(
            protected_resource(HOME),
            {
                "resource": "https://mcp.example.org/mcp",
                "resource_name": "Forgejo",
                "authorization_servers": ["https://mcp.example.org"],
                "scopes_supported": ["forge:read", "forge:write"],
                "bearer_methods_supported": ["header"],
            },
        )

    def test_authorization_server(self) -> None:
        """All that clients need to go on stands there, and nothing that does not work."""
        self.assertEqual(
            authorization_server(HOME),
            {
                "issuer": "https://mcp.example.org",
                "authorization_endpoint": "https://mcp.example.org/oauth/authorize",
                "token_endpoint": "https://mcp.example.org/oauth/token",
                "registration_endpoint": "https://mcp.example.org/oauth/register",
                "revocation_endpoint": "https://mcp.example.org/oauth/revoke",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": [
                    "none",
                    "client_secret_post",
                    "client_secret_basic",
                ],
                "revocation_endpoint_auth_methods_supported": [
                    "none",
                    "client_secret_post",
                    "client_secret_basic",
                ],
                "scopes_supported": ["forge:read", "forge:write", "offline_access"],
                "client_id_metadata_document_supported": True,
                "authorization_response_iss_parameter_supported": True,
            },
        )

    def test_paths(self) -> None:
        """Every path that a client was seen to probe has its document, and is JSON."""
        self.assertEqual(
            sorted(METADATA_PATHS),
            [
                "/.well-known/oauth-authorization-server",
                "/.well-known/oauth-authorization-server/mcp",
                "/.well-known/oauth-protected-resource",
                "/.well-known/oauth-protected-resource/mcp",
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/mcp",
                "/mcp/.well-known/openid-configuration",
            ],
        )
        for path, document in METADATA_PATHS.items():
            made = json.loads(json.dumps(document(HOME)))
            key = "resource" if "protected-resource" in path else "issuer"
            self.assertTrue(made[key].startswith(HOME.public_url), path)
        self.assertIn(HOME.protected_resource_metadata[len(HOME.public_url) :], METADATA_PATHS)

    def test_documents_are_fresh(self) -> None:
        """Who changes a document that was handed out does not change the next one."""
        first = authorization_server(HOME)
        scopes = first["scopes_supported"]
        assert isinstance(scopes, list)
        scopes.clear()
        self.assertNotEqual(authorization_server(HOME), first)


class Challenge(SynchronousTestCase):
    """The `WWW-Authenticate` header."""

    def test_without_a_token(self) -> None:
        """Who sent no token is told where to go, and of no error (RFC 6750 §3.1)."""
        self.assertEqual(
            challenge(HOME, refusals.NO_TOKEN),
            'Bearer realm="fjmcp",'
            ' resource_metadata="https://mcp.example.org/.well-known/oauth-protected-resource/mcp",'
            ' scope="forge:read forge:write"',
        )

    def test_with_a_bad_token(self) -> None:
        """Who sent a bad token is told that it is one."""
        header = challenge(HOME, refusals.BAD_TOKEN)
        self.assertIn(' error="invalid_token",', header)
        self.assertIn(" resource_metadata=", header)
        self.assertNotIn("offline_access", header)

    @given(st.text(st.characters()))
    def test_any_sentence(self, message: str) -> None:
        """Whatever a refusal says, the header stays one line of quoted strings."""
        refusal = McpRefusal("r", 401, -32001, message, challenge="invalid_token")
        pair = r'[a-z_]+="[ !#-\[\]-~]*"'
        self.assertTrue(re.fullmatch(rf"Bearer {pair}(, {pair})*", challenge(HOME, refusal)))
