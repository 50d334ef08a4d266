"""Tests for `fjmcp.oauth.known`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth import redirects
from fjmcp.oauth.known import DOCUMENTS, HOSTS, assistant, called, shipped
from tests.oauth.captured import REGISTRATIONS


class AssistantTests(SynchronousTestCase):
    """Who is known."""

    def test_by_host(self) -> None:
        """An assistant is known by the whole host of an https redirect URI, and by nothing else."""
        for uri, name in (
            ("https://claude.ai/api/mcp/auth_callback", "Claude"),
            ("https://claude.com/api/mcp/auth_callback", "Claude"),
            ("https://CLAUDE.ai/api/mcp/auth_callback", "Claude"),
            ("https://chatgpt.com/connector/oauth/abc", "ChatGPT"),
            ("https://insiders.vscode.dev/redirect", "Visual Studio Code"),
            ("https://www.cursor.com/agents/mcp/oauth/callback", "Cursor"),
            ("https://evil.claude.ai/cb", None),
            ("https://claude.ai.evil.example/cb", None),
            ("http://localhost/claude.ai", None),
            ("cursor://anysphere.cursor-mcp/oauth/callback", None),
        ):
            found = assistant(uri)
            self.assertEqual(None if found is None else found.name, name, uri)

    def test_by_name(self) -> None:
        """What a client calls itself names the assistants that it is, or pretends to be, however
        it is spelt."""
        for said, names in (
            ("Claude Code (forge)", ["Claude"]),
            ("the real CHATGPT", ["ChatGPT"]),
            ("Claude for Cursor", ["Claude", "Cursor"]),
            ("MCP Inspector", []),
            ("cloud", []),
            ("", []),
            ("C l a u d e", ["Claude"]),
            ("visual-studio-code", ["Visual Studio Code"]),
            ("Cl\u00e1ude", ["Claude"]),
            ("CIaude", ["Claude"]),
            ("C1aude", ["Claude"]),
            ("Curs0r", ["Cursor"]),
            ("\uff23\uff4c\uff41\uff55\uff44\uff45", ["Claude"]),
            ("\u0421l\u0430ud\u0435", ["Claude"]),
            ("C\u041dAT\u0410 C\u041datG\u0420\u0422", ["ChatGPT"]),
            ("Curs\u03bf\U0001d42b", ["Cursor"]),
        ):
            self.assertEqual([each.name for each in called(said)], names, said)

    def test_registrations(self) -> None:
        """Every https redirect URI that a captured client registers is of a known host."""
        for name, body in REGISTRATIONS.items():
            for uri in body["redirect_uris"]:
                if uri.startswith("https://"):
                    self.assertIn(redirects.host(uri), HOSTS, name)


class DocumentTests(SynchronousTestCase):
    """The shipped documents."""

    def test_named_by_their_url(self) -> None:
        """Each document stands under its own client_id, and its redirect URIs may be registered."""
        for url, document in DOCUMENTS.items():
            self.assertEqual(document["client_id"], url)
            self.assertIs(shipped(url), document)
            for uri in document["redirect_uris"]:
                self.assertEqual(redirects.judge(uri), uri)

    def test_connector(self) -> None:
        """A connector of ChatGPT has a document of its own, with its own callback alone."""
        document = shipped("https://chatgpt.com/oauth/Zx81_kQ-a2/client.json")
        assert document is not None
        self.assertEqual(
            document["redirect_uris"], ["https://chatgpt.com/connector/oauth/Zx81_kQ-a2"]
        )
        for other in (
            "https://chatgpt.com/oauth/a/b/client.json",
            "https://chatgpt.com/oauth//client.json",
            "https://chatgpt.com/oauth/x/client.json?y",
            "https://chatgpt.com.evil.example/oauth/x/client.json",
            "https://claude.ai/oauth/other",
        ):
            self.assertIsNone(shipped(other), other)
