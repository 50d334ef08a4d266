"""Tests for `fjmcp.oauth.marks`."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.marks import Place, marks, may_redirect_unseen
from fjmcp.oauth.metadata import ClientMetadata

CODE = "Visual Studio Code"
FORWARDER = "https://vscode.dev/redirect"
CLAUDE = "https://claude.ai/api/mcp/auth_callback"
CHATGPT = "https://chatgpt.com/connector_platform_oauth_redirect"
STRANGE = "https://client.example/callback"
LOCAL = "http://127.0.0.1:1/callback"
PRIVATE = "cursor://anysphere.cursor-mcp/oauth/callback"


class MarksTests(SynchronousTestCase):
    """What is told of a client."""

    def test_table(self) -> None:
        """The place is judged by the redirect URI alone, and the name against it."""
        for name, uri, place, owner, posed in (
            ("Claude", CLAUDE, Place.KNOWN, "Claude", None),
            ("", CLAUDE, Place.KNOWN, "Claude", None),
            ("Some tool", CLAUDE, Place.KNOWN, "Claude", None),
            ("Claude", CHATGPT, Place.KNOWN, "ChatGPT", "Claude"),
            ("ChatGPT, not Claude", CHATGPT, Place.KNOWN, "ChatGPT", None),
            ("Claude", "https://claude.ai/else", Place.BESIDE, "Claude", None),
            ("Some tool", f"{CLAUDE}?to=x", Place.BESIDE, "Claude", None),
            ("ChatGPT", "https://claude.ai/else", Place.BESIDE, "Claude", "ChatGPT"),
            ("Visual Studio Code", FORWARDER, Place.FORWARDING, CODE, None),
            ("Claude", FORWARDER, Place.FORWARDING, CODE, "Claude"),
            ("x", f"{FORWARDER}?url=vscode%3Ax", Place.BESIDE, CODE, None),
            ("Some tool", STRANGE, Place.STRANGE, None, None),
            ("", STRANGE, Place.STRANGE, None, None),
            ("Claude", STRANGE, Place.STRANGE, None, "Claude"),
            ("CIaude", STRANGE, Place.STRANGE, None, "Claude"),
            ("Claude", "https://claude.ai.evil.example/cb", Place.STRANGE, None, "Claude"),
            ("Claude", "https://evil.claude.ai/cb", Place.STRANGE, None, "Claude"),
            ("Claude Code", LOCAL, Place.LOOPBACK, None, None),
            ("Claude", "http://localhost/cb", Place.LOOPBACK, None, None),
            ("Claude", "https://localhost/cb", Place.LOOPBACK, None, None),
            ("x", "http://[::1]/cb", Place.LOOPBACK, None, None),
            ("Cursor", PRIVATE, Place.PRIVATE, None, None),
            ("Claude", PRIVATE, Place.PRIVATE, None, None),
        ):
            found = marks(name, uri)
            said = (
                found.place,
                found.owner and found.owner.name,
                found.posed and found.posed.name,
            )
            self.assertEqual(said, (place, owner, posed), (name, uri))

    def test_unseen(self) -> None:
        """A browser is sent unasked to known callbacks, to its own computer, and where an
        operator's client is, whatever a client calls itself; but never to what sends it on."""
        for uri, sent in (
            (CLAUDE, True),
            (CHATGPT, True),
            (LOCAL, True),
            ("http://localhost/cb", True),
            (STRANGE, False),
            ("https://claude.ai.evil.example/cb", False),
            (f"{CLAUDE}?to=x", False),
            ("https://claude.ai/else", False),
            ("https://chatgpt.com/connector/oauth/a/b", False),
            (PRIVATE, False),
            (FORWARDER, False),
            (f"{FORWARDER}?url=vscode%3Ax", False),
        ):
            client = Client("c", (), ClientMetadata((uri,), "Claude"), 0.0)
            self.assertEqual(may_redirect_unseen(client, uri), sent, uri)
            document = evolve(client, source=Source.DOCUMENT)
            self.assertEqual(may_redirect_unseen(document, uri), sent, uri)
            configured = evolve(client, source=Source.CONFIGURED)
            self.assertEqual(may_redirect_unseen(configured, uri), FORWARDER not in uri, uri)
