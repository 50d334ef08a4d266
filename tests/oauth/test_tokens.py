"""Tests for `fjmcp.oauth.tokens`."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.tokens import Digest, Kind, TokenText, digest, mint, same


class Minting(SynchronousTestCase):
    """Fresh secrets."""

    def test_prefix_tells_the_kind(self) -> None:
        """Each kind of secret has a prefix of its own, and 43 characters of randomness."""
        texts = [mint(kind).text for kind in Kind]
        self.assertEqual(len({text[:4] for text in texts}), len(Kind))
        for kind, text in zip(Kind, texts, strict=True):
            self.assertTrue(text.startswith(kind.value))
            self.assertRegex(text, r"\A[A-Za-z0-9_-]{47}\Z")

    def test_never_the_same(self) -> None:
        """Two mintings never give one text."""
        self.assertEqual(len({mint(Kind.ACCESS).text for _ in range(1000)}), 1000)


class Secrecy(SynchronousTestCase):
    """What a secret does not tell."""

    def test_text_is_not_in_the_repr(self) -> None:
        """A token in a log line or a traceback shows nothing of itself."""
        token = mint(Kind.REFRESH)
        self.assertNotIn(token.text[4:], repr(token))
        self.assertNotIn(token.text[4:], str([token]))

    def test_texts_are_never_equal(self) -> None:
        """Texts cannot be compared by accident: only digests are equal."""
        self.assertNotEqual(TokenText("fja_1"), TokenText("fja_1"))
        self.assertEqual(digest(TokenText("fja_1")), digest(TokenText("fja_1")))

    def test_short_is_a_few_characters(self) -> None:
        """What the log shows of a digest is eight characters of it."""
        self.assertEqual(Digest(bytes(range(32))).short, "00010203")


class Digests(SynchronousTestCase):
    """SHA-256 of a text."""

    def test_is_sha_256(self) -> None:
        """The digest is that of the text's bytes, so that rows outlive this code."""
        self.assertEqual(digest(TokenText("fja_x")).value, hashlib.sha256(b"fja_x").digest())

    @given(st.text(st.characters()), st.text(st.characters()))
    def test_same_only_of_one_text(self, a: str, b: str) -> None:
        """Any two texts, lone surrogates included, have the same digest only if they are one."""
        self.assertEqual(same(digest(TokenText(a)), digest(TokenText(b))), a == b)

    def test_surrogate(self) -> None:
        """A lone surrogate, as JSON can smuggle it in, has a digest like any text."""
        self.assertNotEqual(digest(TokenText("\ud800")), digest(TokenText("?")))
