"""
`fjmcp.forge.tokens`: what is read in a token, and what keeps it out of logs.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.forge.tokens import Claims, ForgeToken, Pair, scrub


def jwt(claims: object) -> str:
    body = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{body}.c2lnbmF0dXJl"


REPLY = {
    "access_token": jwt({"gnt": 4, "tt": 0, "exp": 4600, "iat": 1000}),
    "token_type": "bearer",
    "expires_in": 3600,
    "refresh_token": jwt({"gnt": 4, "tt": 1, "cnt": 2, "exp": 9000, "iat": 1000}),
}


class ClaimsTests(SynchronousTestCase):
    """What a token says of itself."""

    def test_read(self) -> None:
        """Grant, counter and times of Forgejo's JWTs."""
        self.assertEqual(ForgeToken(REPLY["refresh_token"]).claims(), Claims(4, 2, 1000.0, 9000.0))  # type: ignore[arg-type]

    def test_unreadable(self) -> None:
        """Whatever is no JWT has no claims; nor has one whose claims are no numbers."""
        for text in (
            "",
            "opaque",
            "a.b.c",
            "a.b",
            jwt([1]),
            jwt({}),
            jwt({"gnt": True, "cnt": "2", "exp": None, "iat": [1]}),
            jwt({"gnt": 2**63, "cnt": -1, "exp": -1, "iat": 1e300}),
            "e." + "[" * 4000 + ".s",
            "e.é.s",
        ):
            self.assertEqual(ForgeToken(text).claims(), Claims(), text)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """No text breaks it."""
        ForgeToken(text).claims()
        ForgeToken(f"a.{text}.b").claims()

    def test_hidden(self) -> None:
        """A token says nothing when it is printed."""
        pair = Pair.read(REPLY, 1000.0, 1001.0)
        self.assertNotIn("eyJ", repr(pair))


class PairTests(SynchronousTestCase):
    """A token response, read and kept."""

    def test_read(self) -> None:
        """Both tokens; the end is counted from the question."""
        pair = Pair.read(REPLY, 1000.0, 1007.0)
        assert pair is not None
        self.assertEqual(pair.access.text, REPLY["access_token"])
        self.assertEqual(pair.refresh.text, REPLY["refresh_token"])
        self.assertEqual((pair.expires_at, pair.received_at), (4600.0, 1007.0))

    def test_life_not_said(self) -> None:
        """Without a usable expires_in the JWT says it, else Forgejo's default."""
        for odd in (None, 0, -5, "3600", True, float("inf"), float("nan"), 1e300):
            said = {**REPLY, "expires_in": odd}
            pair = Pair.read(said, 0.0, 0.0)
            assert pair is not None
            self.assertEqual(pair.expires_in, 3600.0, odd)
            pair = Pair.read({**said, "access_token": "opaque"}, 0.0, 0.0)
            assert pair is not None
            self.assertEqual(pair.expires_in, limits.FORGE_TOKEN_LIFE)

    def test_no_new_refresh_token(self) -> None:
        """A refresh may give no new refresh token: then the old one goes on (RFC 6749 §6)."""
        old = ForgeToken("old")
        said = {"access_token": "new", "expires_in": 60}
        pair = Pair.read(said, 0.0, 0.0, old)
        assert pair is not None
        self.assertIs(pair.refresh, old)
        self.assertIsNone(Pair.read(said, 0.0, 0.0))

    def test_no_pair(self) -> None:
        """What could not travel in a header is no token."""
        for odd in (None, "", 5, ["x"], "with space", "line\nend", "é", "x" * 5000, "nul\0"):
            self.assertIsNone(Pair.read({**REPLY, "access_token": odd}, 0.0, 0.0), odd)
            self.assertIsNone(Pair.read({**REPLY, "refresh_token": odd}, 0.0, 0.0), odd)

    def test_kept(self) -> None:
        """What the vault seals is read again as it was."""
        pair = Pair.read(REPLY, 1000.0, 1007.5)
        assert pair is not None
        again = Pair.from_bytes(pair.to_bytes())
        self.assertEqual(again.to_bytes(), pair.to_bytes())
        self.assertEqual(again.expires_at, pair.expires_at)


class ScrubTests(SynchronousTestCase):
    """Texts of Forgejo's, before they are logged."""

    def test_known_secrets(self) -> None:
        """What we sent is not repeated."""
        said = 'no such token [sha: abc.def] with token "abc.def"'
        self.assertEqual(
            scrub(said, "abc.def", "such", ""),
            'no such token [sha: [token]] with token "[token]"',
        )

    def test_shapes(self) -> None:
        """Nor is what has the shape of a token, whoever's it is."""
        for secret in (str(REPLY["access_token"]), "gto_abcdefgh123", "gta_xyz", "0a" * 20):
            self.assertEqual(scrub(f"bad {secret}!"), "bad [token]!")

    def test_plain(self) -> None:
        """Line ends, controls and what turns writing round are blanked, and length is bounded."""
        self.assertEqual(scrub("a\r\nb\x1b[31mc\u202ed\x00"), "a b [31mc d ")
        self.assertEqual(len(scrub("x" * 9999)), limits.FORGE_ERROR + 1)

    @given(st.text(), st.text(min_size=1))
    def test_never(self, text: str, secret: str) -> None:
        """One line, and bounded, whatever comes."""
        said = scrub(text + secret, secret)
        self.assertEqual(len(said.splitlines()) <= 1, True)
        self.assertLessEqual(len(said), limits.FORGE_ERROR + 1)
