"""The stand-in's scope rule, for every string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.demo.forge.scopes import CATEGORIES, KNOWN, effective

words = st.lists(st.sampled_from(sorted(KNOWN)) | st.text(max_size=8), max_size=6)


class EffectiveTests(SynchronousTestCase):
    """What a requested string comes to."""

    @given(words)
    def test_never_nothing(self, asked: list[str]) -> None:
        """There is always a word left, known ones only, and `all` where none was."""
        scope = effective(" ".join(asked))
        known = frozenset(" ".join(asked).split(" ")) & KNOWN
        self.assertEqual(scope.words, known or frozenset({"all"}))

    @given(st.sampled_from(CATEGORIES))
    def test_write_implies_read(self, category: str) -> None:
        """Who may write may read, and not the other way."""
        self.assertTrue(effective(f"write:{category}").permits(f"read:{category}"))
        self.assertFalse(effective(f"read:{category}").permits(f"write:{category}"))

    def test_all(self) -> None:
        """`all` permits everything, an administrator's things too."""
        self.assertTrue(effective("openid").permits("write:admin"))
        self.assertTrue(effective("all").permits("write:admin"))
