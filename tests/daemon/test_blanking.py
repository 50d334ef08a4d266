"""What looks like a secret is taken out, what does not is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon.blanking import BLANK, blanking
from fjmcp.oauth.tokens import Kind, mint

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJnbnQiOjEsImV4cCI6MX0.c2lnbmF0dXJl-_x"


class BlankingTests(SynchronousTestCase):
    """Texts before and after."""

    def test_blanked(self) -> None:
        """Secrets of every known shape and place are blanked, their surroundings stay."""
        blank = blanking(["the configured secret"])
        for text, left in (
            ("token fja_AbCdEfGh12345678 seen", f"token fja_{BLANK} seen"),
            ("secret gto_abcdefghij1234567890x", f"secret gto_{BLANK}"),
            (f"upstream {JWT} refused", f"upstream eyJ{BLANK} refused"),
            (f"Authorization: Bearer {JWT}", f"Authorization: Bearer {BLANK}"),
            ("authorization: token 0123456789abcdef", f"authorization: token {BLANK}"),
            ("{'Authorization': 'Basic dXNlcjpwYXNz'}", f"{{'Authorization': 'Basic {BLANK}'}}"),
            ("sent Bearer 0123456789abcdef0123", f"sent Bearer {BLANK}"),
            ("access token does not exist [sha: 0a1b2c]", f"does not exist [sha: {BLANK}]"),
            ('{"refresh_token": "abc", "a": 1}', f'{{"refresh_token": "{BLANK}", "a": 1}}'),
            ("a=1&client_secret=abc&b=2", f"a=1&client_secret={BLANK}&b=2"),
            ("/cb?code=abc&state=def", f"/cb?code={BLANK}&state={BLANK}"),
            ("https://user:pw@git.example.org/x", f"https://{BLANK}@git.example.org/x"),
            ("with the configured secret in it", f"with {BLANK} in it"),
            ("Cookie: __Host-fjmcp=abc; b=c", f"Cookie: {BLANK}; b=c"),
        ):
            self.assertIn(left, blank(text))

    def test_left_alone(self) -> None:
        """Ordinary words, ids and errors stay as they are."""
        blank = blanking(["short"])
        for text in (
            "short words about a token that expired",
            "status code: 404, state: dead",
            "token endpoint of https://git.example.org:3000/login/oauth/access_token",
            "commit 0123456789abcdef0123456789abcdef01234567",
            "grant g_1234 of account 7",
        ):
            self.assertEqual(blank(text), text)

    @given(st.sampled_from(list(Kind)), st.text(max_size=20), st.text(max_size=20))
    def test_our_own(self, kind: Kind, before: str, after: str) -> None:
        """No token of ours survives, whatever stands round it."""
        token = mint(kind).text
        # Directly behind letters it is not a token any more but part of a word.
        text = f"{before} {token} {after}"
        self.assertNotIn(token, blanking()(text))
