"""Tests for `fjmcp.children.blank`."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.children.blank import BLANKED, blank

secrets = st.text(
    st.one_of(st.characters(min_codepoint=33, max_codepoint=126), st.sampled_from('é/<&>"\\')),
    min_size=8,
    max_size=40,
)


class BlankTests(SynchronousTestCase):
    """A secret taken out of lines."""

    @given(secrets, st.text(max_size=20), st.text(max_size=20))
    def test_secret_is_gone(self, secret: str, before: str, after: str) -> None:
        """However JSON writes the secret, it is not in the line."""
        for line in (
            f"{before}{secret}{after}".encode("utf-8", "replace"),
            json.dumps({"text": before + secret + after}).encode(),
            json.dumps({"text": before + secret + after}, ensure_ascii=False).encode(
                "utf-8", "replace"
            ),
        ):
            shown = blank(secret).line(line)
            self.assertIn(BLANKED, shown)
            self.assertNotIn(secret.encode(), shown.replace(BLANKED, b""))

    @given(secrets, st.text(max_size=20))
    def test_json_stays_json(self, secret: str, other: str) -> None:
        """A message that said the secret is still a message."""
        line = json.dumps({"text": [other, secret]}).encode()
        self.assertIn("[blanked]", json.loads(blank(secret).line(line))["text"][1])

    def test_escapes_of_go(self) -> None:
        """Go writes < > & as escapes; the secret is found all the same."""
        self.assertEqual(blank("a<b&c>d").line(rb'"a\u003cb\u0026c\u003ed"'), b'"[blanked]"')

    def test_other_lines_are_the_same_object(self) -> None:
        """A line without the secret is not copied: it may be 64 MiB."""
        line = b"x" * 100
        self.assertIs(blank("secret-token").line(line), line)

    def test_empty_secret(self) -> None:
        """A child without a token has nothing to blank."""
        self.assertEqual(blank("").line(b"abc"), b"abc")

    def test_repr(self) -> None:
        """The secret is not in the repr."""
        self.assertNotIn("hunter2", repr(blank("hunter2hunter2")))
