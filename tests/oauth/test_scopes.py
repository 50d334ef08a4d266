"""Tests for `fjmcp.oauth.scopes` (design D17)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.scopes import BOTH, Scopes, narrow_refresh
from fjmcp.refusals import SCOPE_WIDENED, OAuthRefusal

words = st.sampled_from(
    ["forge:read", "forge:write", "offline_access", "openid", "read:user", "FORGE:READ", "", "*"]
)
texts = st.none() | st.lists(words).map(" ".join)


class Parsing(SynchronousTestCase):
    """A client's words."""

    def test_table(self) -> None:
        """Absent, empty or foreign words mean both; write includes read; order says nothing."""
        for asked, meant in [
            (None, "forge:read forge:write"),
            ("", "forge:read forge:write"),
            ("openid profile", "forge:read forge:write"),
            ("forge:read", "forge:read"),
            ("forge:write", "forge:read forge:write"),
            ("forge:write forge:read", "forge:read forge:write"),
            ("forge:read openid", "forge:read"),
            ("offline_access", "forge:read forge:write offline_access"),
            ("offline_access forge:read", "forge:read offline_access"),
            ("Forge:Read", "forge:read forge:write"),
            ("  forge:read\tforge:read ", "forge:read"),
        ]:
            self.assertEqual(str(Scopes.parse(asked)), meant, asked)

    @given(texts)
    def test_canonical_text_is_a_fixed_point(self, asked: str | None) -> None:
        """What is stored of any wish reads back as the same wish."""
        scopes = Scopes.parse(asked)
        self.assertEqual(Scopes.parse(str(scopes)), scopes)


class Granting(SynchronousTestCase):
    """What a grant holds."""

    @given(texts)
    def test_always_both(self, asked: str | None) -> None:
        """Whatever is asked, a grant holds both words, and offline_access only if asked."""
        held = Scopes.granted(Scopes.parse(asked))
        self.assertTrue(held.covers(BOTH))
        self.assertTrue(held.covers(Scopes.parse(asked)))
        self.assertEqual(
            "offline_access" in held.words, "offline_access" in (asked or "").split(" ")
        )


class Refreshing(SynchronousTestCase):
    """The scope parameter of a refresh."""

    def test_nothing_asked_is_all(self) -> None:
        """Without a scope, or with foreign words only, a refresh keeps what was granted."""
        held = Scopes.parse("forge:read offline_access")
        for asked in (None, "", "openid", "offline_access"):
            self.assertEqual(narrow_refresh(held, asked), held)

    def test_more_than_granted(self) -> None:
        """More than was granted is invalid_scope, and only that is."""
        refusal = narrow_refresh(Scopes.parse("forge:read"), "forge:read forge:write")
        self.assertEqual(refusal, SCOPE_WIDENED)
        self.assertEqual(SCOPE_WIDENED.error, "invalid_scope")

    def test_offline_access_is_no_right(self) -> None:
        """Asking for offline_access at a refresh is no widening: it never was a right."""
        self.assertEqual(narrow_refresh(BOTH, "forge:write offline_access"), BOTH)

    @given(texts, texts)
    def test_never_wider(self, granted: str | None, asked: str | None) -> None:
        """No refresh, whatever it asks, holds a word that the grant does not."""
        held = Scopes.parse(granted)
        answer = narrow_refresh(held, asked)
        if not isinstance(answer, OAuthRefusal):
            self.assertLessEqual(answer.words, held.words)
            self.assertTrue(answer.words)
