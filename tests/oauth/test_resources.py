"""Tests for `fjmcp.oauth.resources`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.resources import canonical
from fjmcp.refusals import RESOURCE_FOREIGN

HOME = Endpoints("https://mcp.example.org")
OURS = "https://mcp.example.org/mcp"

ALIASES = [
    OURS,
    "https://mcp.example.org/mcp/",
    "https://mcp.example.org",
    "https://mcp.example.org/",
    "https://mcp.example.org:443/mcp",
    "https://mcp.example.org:443",
    "HTTPS://MCP.Example.ORG/mcp",
]
FOREIGN = [
    "",
    "mcp",
    "/mcp",
    "//mcp.example.org/mcp",
    "http://mcp.example.org/mcp",
    "https://mcp.example.org:8443/mcp",
    "https://mcp.example.org:80/mcp",
    "https://mcp.example.org/MCP",
    "https://mcp.example.org/mcp2",
    "https://mcp.example.org/mcp/x",
    "https://mcp.example.org//mcp",
    "https://mcp.example.org/mcp//",
    "https://mcp.example.org/x/../mcp",
    "https://mcp.example.org/%6dcp",
    "https://mcp.example.org/%" + 8000 * "25" + "6dcp",
    "https://mcp.example.org/mcp?x=1",
    "https://mcp.example.org/mcp?",
    "https://mcp.example.org/mcp#",
    "https://mcp.example.org/mcp#x",
    "https://user@mcp.example.org/mcp",
    "https://mcp.example.org@evil.example/mcp",
    "https://mcp.example.org.evil.example/mcp",
    "https://mcp.example.org./mcp",
    "https://evil.example/mcp",
    "https://example.org/mcp",
    "https://mcp.example.org/mcp ",
    "https://mcp.example.org\\mcp",
    "https://mcp.example.org/mcp\n",
    "urn:mcp",
]


class Canonical(SynchronousTestCase):
    """Which resource is meant."""

    def test_absent(self) -> None:
        """A client that names no resource means ours."""
        self.assertEqual(canonical([], HOME), OURS)

    def test_aliases(self) -> None:
        """Everything that people type for our URL is our URL, one or many of them."""
        for alias in ALIASES:
            self.assertEqual(canonical([alias], HOME), OURS, alias)
        self.assertEqual(canonical(ALIASES, HOME), OURS)

    def test_foreign(self) -> None:
        """Anything else is invalid_target, also beside one that is ours."""
        for foreign in FOREIGN:
            self.assertEqual(canonical([foreign], HOME), RESOURCE_FOREIGN, foreign)
            self.assertEqual(canonical([OURS, foreign], HOME), RESOURCE_FOREIGN, foreign)
        self.assertEqual(RESOURCE_FOREIGN.error, "invalid_target")

    def test_on_loopback(self) -> None:
        """A broker on loopback has its port in its name; the scheme's default stands for none."""
        here = Endpoints("http://127.0.0.1:8080")
        self.assertEqual(canonical(["http://127.0.0.1:8080/"], here), "http://127.0.0.1:8080/mcp")
        self.assertEqual(canonical(["http://127.0.0.1/mcp"], here), RESOURCE_FOREIGN)
        self.assertEqual(canonical(["http://localhost:8080/mcp"], here), RESOURCE_FOREIGN)
        bare = Endpoints("http://[::1]")
        self.assertEqual(canonical(["http://[::1]:80/mcp"], bare), "http://[::1]/mcp")

    @given(st.text(st.characters()))
    def test_any_text(self, text: str) -> None:
        """Any text is judged, and none that is not in the table means ours."""
        for named in (text, OURS + text, f"https://{text}"):
            if named not in ALIASES:
                self.assertEqual(canonical([named], HOME), RESOURCE_FOREIGN)
