"""Tests for `fjmcp.oauth.known`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth import redirects
from fjmcp.oauth.known import DOCUMENTS, HOSTS, assistant, at_host, called, forwards, shipped
from tests.oauth.captured import REGISTRATIONS


class AssistantTests(SynchronousTestCase):
    """Who is known."""

    def test_by_address(self) -> None:
        """An assistant is known by the whole address of its callback, and nothing more stands
        there: no other path, no query, no port; what is on its host beside that is told apart."""
        for uri, callback, host in (
            ("https://claude.ai/api/mcp/auth_callback", "Claude", "Claude"),
            ("https://claude.com/api/mcp/auth_callback", "Claude", "Claude"),
            ("https://CLAUDE.ai/api/mcp/auth_callback", None, "Claude"),
            ("https://claude.ai:443/api/mcp/auth_callback", None, "Claude"),
            ("https://claude.ai:8443/api/mcp/auth_callback", None, "Claude"),
            ("https://claude.ai/api/mcp/auth_callback/", None, "Claude"),
            ("https://claude.ai/api/mcp/auth_callback?to=x", None, "Claude"),
            ("https://claude.ai/api/mcp/auth_callback?", None, "Claude"),
            ("https://claude.ai/api/mcp/auth_callback2", None, "Claude"),
            ("https://claude.ai/public/artifacts/x", None, "Claude"),
            ("https://claude.ai", None, "Claude"),
            ("https://claudexai/api/mcp/auth_callback", None, None),
            ("https://chatgpt.com/connector_platform_oauth_redirect", "ChatGPT", "ChatGPT"),
            ("https://chatgpt.com/connector/oauth/Zx81_kQ-a2", "ChatGPT", "ChatGPT"),
            ("https://chatgpt.com/connector/oauth/", None, "ChatGPT"),
            ("https://chatgpt.com/connector/oauth/a/b", None, "ChatGPT"),
            ("https://chatgpt.com/connector/oauth/a?b", None, "ChatGPT"),
            ("https://chatgpt.com/connector/oauth/a%2Fb", None, "ChatGPT"),
            ("https://chatgpt.com/connector/oauth/" + 65 * "a", None, "ChatGPT"),
            ("https://chatgpt.com/g/some-gpt", None, "ChatGPT"),
            ("https://vscode.dev/redirect", "Visual Studio Code", "Visual Studio Code"),
            ("https://insiders.vscode.dev/redirect", "Visual Studio Code", "Visual Studio Code"),
            ("https://vscode.dev/redirect?url=vscode%3Ax", None, "Visual Studio Code"),
            ("https://insidersxvscode.dev/redirect", None, None),
            ("https://www.cursor.com/agents/mcp/oauth/callback", "Cursor", "Cursor"),
            ("https://cursor.com/agents/mcp/oauth/callback", None, "Cursor"),
            ("http://claude.ai/api/mcp/auth_callback", None, None),
            ("https://evil.claude.ai/api/mcp/auth_callback", None, None),
            ("https://claude.ai.evil.example/api/mcp/auth_callback", None, None),
            ("http://localhost/claude.ai", None, None),
            ("cursor://anysphere.cursor-mcp/oauth/callback", None, None),
        ):
            found = tuple(each and each.name for each in (assistant(uri), at_host(uri)))
            self.assertEqual(found, (callback, host), uri)

    def test_forwards(self) -> None:
        """Of a host that sends browsers on everything counts as sending on, however its path is
        spelt."""
        for uri, there in (
            ("https://vscode.dev/redirect", True),
            ("https://VSCODE.dev/redirect", True),
            ("https://insiders.vscode.dev/redirect", True),
            ("https://vscode.dev/redirect?url=vscode%3Ax", True),
            ("https://vscode.dev/%72edirect", True),
            ("https://vscode.dev/redirect/", True),
            ("https://vscode.dev:8443/redirect", True),
            ("https://claude.ai/api/mcp/auth_callback", False),
            ("https://client.example/redirect", False),
            ("http://localhost/redirect", False),
            ("cursor://anysphere.cursor-mcp/oauth/callback", False),
        ):
            self.assertEqual(forwards(uri), there, uri)

    def test_by_name(self) -> None:
        """What a client calls itself names the assistants that it is, or pretends to be, however
        it is spelt."""
        for said, names in (
            ("Claude Code (forge)", ["Claude"]),
            ("the real CHATGPT", ["ChatGPT"]),
            ("Claude for Cursor", ["Claude", "Cursor"]),
            ("Claude\u2019s notes", ["Claude"]),
            ("Anthropic", ["Anthropic"]),
            ("OpenAI Codex", ["OpenAI"]),
            ("codex cli", ["Codex"]),
            ("Chat GPT", ["ChatGPT"]),
            ("VS Code", ["VS Code"]),
            ("VSCode - Insiders", ["VS Code"]),
            ("GitHub Copilot", ["GitHub Copilot"]),
            ("anysphere, inc.", ["Anysphere"]),
            ("MCP Inspector", []),
            ("cloud", []),
            ("", []),
            ("?????? ? ????", []),
            ("Claudette's notes", []),
            ("Claud\u00e9tte", []),
            ("Claudette's Claude", ["Claude"]),
            ("Claude tte", ["Claude"]),
            ("PowerDNS Recursor", []),
            ("A cursory look", []),
            ("Cursor, yes", ["Cursor"]),
            ("Philanthropic giving", []),
            ("Copilot of something", []),
            ("Code", []),
            ("Microsoft Teams", []),
            ("GitHub", []),
            ("\u041a\u0443\u0440\u0441\u043e\u0440", []),
            ("\u30af\u30ed\u30fc\u30c9\u3067\u691c\u7d22\u3059\u308b", []),
            ("\u05d0\u05d1\u05d2ude", ["Claude"]),
            ("\u05d0\u05d1\u05d2\u05d3de", []),
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
            ("Cl\u0251ude", ["Claude"]),
            ("\u1d04laude", ["Claude"]),
            ("\u1d04\u029f\u1d00\u1d1c\u1d05\u1d07", ["Claude"]),
            ("C\u0142aude", ["Claude"]),
            ("C\u039bUDE CL\u039bUDE", ["Claude"]),
            ("CL\u0245UDE", ["Claude"]),
            ("Clau\u0257\u0247", ["Claude"]),
            ("Cl@ud\u20ac", ["Claude"]),
            ("\U0001f152\U0001f15b\U0001f150\U0001f164\U0001f153\U0001f154", ["Claude"]),
            ("\U0001f1e8\U0001f1f1\U0001f1e6\U0001f1fa\U0001f1e9\U0001f1ea", ["Claude"]),
            ("Cl\u2605a\u2605u\u2605d\u2605e", ["Claude"]),
            ("C\ua4e1aude", ["Claude"]),
            ("\u13df\u13deaude", ["Claude"]),
            ("Anthrop\u0131c", ["Anthropic"]),
            ("\u041epenA\u0406", ["OpenAI"]),
            ("C\u2223aude C\u23d0aude", ["Claude"]),
            ("Claud\u212e", ["Claude"]),
            ("Code\u0445", ["Codex"]),
            ("Code\u03c7", ["Codex"]),
            ("V\u0405 \u0421ode", ["VS Code"]),
            ("G\u0456t\u041dub C\u043epilot", ["GitHub Copilot"]),
        ):
            self.assertEqual([each.name for each in called(said)], names, said)
        (claim,) = called("OpenAI Codex")
        self.assertEqual(claim.assistant.name, "ChatGPT")

    def test_registrations(self) -> None:
        """Every https redirect URI that a captured client registers, or that is in a shipped
        document, is a known callback, and each callback's host is that assistant's."""
        for body in (*REGISTRATIONS.values(), *DOCUMENTS.values()):
            for uri in body["redirect_uris"]:
                if uri.startswith("https://"):
                    self.assertIsNotNone(assistant(uri), uri)
                    self.assertEqual(assistant(uri), at_host(uri))
                    self.assertIn(redirects.host(uri), HOSTS)


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
