"""Tests for `fjmcp.oauth.consents`."""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.consents import consent_digest, may_be_kept

REQUEST = AuthorizationRequest(
    client_id="c1",
    redirect_uri="https://client.example/callback",
    state="s",
    challenge="x" * 43,
    scopes="forge:read",
    resource="https://mcp.example.org/mcp",
    fingerprint="00" * 32,
)
COVERED = ("client_id", "redirect_uri", "scopes", "resource", "fingerprint")

cuts = st.lists(st.integers(0, 8), min_size=4, max_size=4).map(sorted)


def spread(text: str, at: list[int]) -> AuthorizationRequest:
    """A request whose covered fields are the pieces of a text, cut there."""
    pieces = [text[start:end] for start, end in pairwise([0, *at, len(text)])]
    return evolve(REQUEST, **dict(zip(COVERED, pieces, strict=True)))


class DigestTests(SynchronousTestCase):
    """What a remembered consent covers."""

    def test_each_field(self) -> None:
        """Another account, client, redirect URI, scope, resource or metadata is another consent;
        state and challenge are of one request alone."""
        kept = consent_digest(7, REQUEST)
        self.assertEqual(consent_digest(7, evolve(REQUEST, state=None, challenge="y")), kept)
        self.assertNotEqual(consent_digest(8, REQUEST), kept)
        for name in COVERED:
            changed = evolve(REQUEST, **{name: getattr(REQUEST, name) + "x"})
            self.assertNotEqual(consent_digest(7, changed), kept, name)

    @given(st.text('ab"\\,[', max_size=8), cuts, cuts)
    def test_boundaries(self, text: str, one: list[int], two: list[int]) -> None:
        """The same text, spread over the fields in two ways, is two consents."""
        asked, other = spread(text, one), spread(text, two)
        self.assertEqual(
            consent_digest(7, asked) == consent_digest(7, other),
            [getattr(asked, name) for name in COVERED]
            == [getattr(other, name) for name in COVERED],
        )


class KeptTests(SynchronousTestCase):
    """What may be remembered."""

    def test_table(self) -> None:
        """Only what goes back to a host by https (RFC 8252 §8.6) that sends nobody on from there,
        and whose metadata is known."""
        for uri, kept in (
            ("https://client.example/callback", True),
            ("https://claude.ai/api/mcp/auth_callback", True),
            ("https://vscode.dev/redirect", False),
            ("https://insiders.vscode.dev/redirect", False),
            ("https://vscode.dev/redirect?url=vscode%3Ax", False),
            ("https://vscode.dev/%72edirect", False),
            ("http://127.0.0.1:1/cb", False),
            ("http://localhost/cb", False),
            ("http://[::1]/cb", False),
            ("https://localhost/cb", False),
            ("https://127.0.0.1/cb", False),
            ("https://[0:0:0:0:0:0:0:1]:8443/cb", False),
            ("https://[::ffff:127.0.0.1]/cb", False),
            ("https://0.0.0.0/cb", False),
            ("cursor://anysphere.cursor-mcp/oauth/callback", False),
        ):
            self.assertEqual(may_be_kept(evolve(REQUEST, redirect_uri=uri)), kept, uri)
        self.assertFalse(may_be_kept(evolve(REQUEST, fingerprint="")))
