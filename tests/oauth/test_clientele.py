"""Tests for `fjmcp.oauth.clientele`."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.clientele import Clientele
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.known import DOCUMENTS
from fjmcp.oauth.metadata import ClientMetadata
from tests.oauth.captured import REGISTRATIONS


def client(*uris: str, source: Source = Source.REGISTERED, client_id: str = "c") -> Client:
    return Client(client_id, (), ClientMetadata(uris), 0.0, source)


class ParseTests(SynchronousTestCase):
    def test_wrong(self) -> None:
        """What is no host is a problem that quotes it."""
        for text in (
            "",
            "  ",
            "any known",
            "https://claude.ai",
            "claude.ai/cb",
            "*.claude.ai",
            "claude.ai:443",
            "localhost",
            "user@claude.ai",
            "-",
        ):
            with self.assertRaises(ValueError) as caught:
                Clientele.parse(text)
            self.assertIn(text.split()[0] if text.split() else "any", str(caught.exception))


class JudgeTests(SynchronousTestCase):
    def assert_taken(self, text: str, client: Client, taken: bool) -> None:
        refusal = Clientele.parse(text).judge(client)
        self.assertEqual(refusal is None, taken, (text, client))

    def test_table(self) -> None:
        """A client is taken if every address that it comes back to is."""
        web = "https://app.example.org/cb"
        local = "http://127.0.0.1:1/cb"
        for text, uris, taken in (
            ("any", (web, local), True),
            ("app.example.org", (web,), True),
            ("APP.example.org, other.example", (web,), True),
            ("app.example.org", (web, local), False),
            ("app.example.org loopback", (web, local), True),
            ("loopback", (local, "http://localhost/", "http://[::1]/"), True),
            ("loopback", (web,), False),
            ("known", (web,), False),
            ("known", (local,), True),
            ("known app.example.org", (web, local), True),
            ("known", ("https://claude.ai/api/mcp/auth_callback",), True),
            ("known", ("https://claude.ai/else",), False),
            ("known", ("https://claude.ai/api/mcp/auth_callback?to=x",), False),
            ("known", ("https://vscode.dev/redirect?url=vscode%3Ax",), False),
            ("known", ("https://chatgpt.com/connector/oauth/a/b",), False),
            ("known claude.ai", ("https://claude.ai/else",), True),
            ("claude.ai", ("https://claude.ai/else",), True),
            ("known", ("cursor://anysphere.cursor-mcp/oauth/callback",), True),
            ("www.cursor.com", ("cursor://anysphere.cursor-mcp/oauth/callback",), True),
            ("claude.ai", ("cursor://anysphere.cursor-mcp/oauth/callback",), False),
            ("example.org", (web,), False),
            ("app.example.org", ("https://app.example.org.evil.example/cb",), False),
            ("app.example.org", ("https://evil.example/app.example.org",), False),
            ("app.example.org", ("https://app.example.org:8443/cb",), True),
        ):
            self.assert_taken(text, client(*uris), taken)

    def test_known(self) -> None:
        """`known` takes every client that is captured, by registration or by document."""
        for body in REGISTRATIONS.values():
            self.assert_taken("known", client(*body["redirect_uris"]), True)
            self.assert_taken("other.example", client(*body["redirect_uris"]), False)
        for url, document in DOCUMENTS.items():
            named = client(*document["redirect_uris"], source=Source.DOCUMENT, client_id=url)
            self.assert_taken("known", named, True)
            self.assert_taken("other.example", named, False)

    def test_document(self) -> None:
        """The host of a document vouches for loopback, and for no other host."""
        url = "https://claude.ai/oauth/claude-code-client-metadata"
        for text, uri, taken in (
            ("claude.ai", "http://127.0.0.1/callback", True),
            ("claude.ai", "https://claude.ai/cb", True),
            ("claude.ai", "https://evil.example/cb", False),
            ("loopback", "http://127.0.0.1/callback", False),
            ("known", "http://127.0.0.1/callback", True),
            ("known", "https://claude.ai/api/mcp/auth_callback", True),
            ("known", "https://claude.ai/cb", False),
        ):
            named = client(uri, source=Source.DOCUMENT, client_id=url)
            self.assert_taken(text, named, taken)

    def test_trusted(self) -> None:
        """No client goes by a host that people trust for another reason, at whatever port, and
        even if it is named; but for one of the configuration, and for programs on the person's own
        computer."""
        trusted = frozenset(
            {"mcp.example.org", "git.example.org", "localhost", "203.0.113.5", "2001:db8::1"}
        )
        for text in ("any", "known", "mcp.example.org git.example.org loopback"):
            judging = evolve(Clientele.parse(text), trusted=trusted)
            for uri, taken in (
                ("https://mcp.example.org/cb", False),
                ("https://MCP.example.org:8443/cb", False),
                ("https://git.example.org/ada/pages/raw/cb.html", False),
                ("https://203.0.113.5/cb", False),
                ("https://[::ffff:203.0.113.5]/cb", False),
                ("https://[::ffff:cb00:7105]:8443/cb", False),
                ("https://[2001:DB8:0::1]/cb", False),
                ("http://localhost:1/cb", True),
            ):
                self.assertEqual(judging.judge(client(uri)) is None, taken, (text, uri))
                several = client("http://localhost/", uri)
                self.assertEqual(judging.judge(several) is None, taken, (text, uri))
                configured = client(uri, source=Source.CONFIGURED)
                self.assertIsNone(judging.judge(configured), (text, uri))
            refusal = judging.judge_document("https://git.example.org/ada/client.json")
            assert refusal is not None
            self.assertIn("git.example.org", refusal.description)
            self.assertIn("preregistered-client", refusal.description)

    def test_configured(self) -> None:
        """A client of the configuration is taken wherever it comes back to."""
        own = client("https://app.example.org/cb", source=Source.CONFIGURED)
        self.assert_taken("claude.ai", own, True)

    def test_says_which(self) -> None:
        """The refusal names the host that is not taken, and the option."""
        refusal = Clientele.parse("claude.ai").judge(client("https://app.example.org/cb"))
        assert refusal is not None
        self.assertIn("app.example.org", refusal.description)
        self.assertIn("--clients", refusal.description)
        refusal = Clientele.parse("known").judge(client("https://claude.ai/else"))
        assert refusal is not None
        self.assertIn("that address at claude.ai is not among them", refusal.description)
