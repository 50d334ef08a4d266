"""
`fjmcp.forge.scopes`: scopes that fail open are judged before they do.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.forge.scopes import ALL, API, DEFAULT, OIDC, effective, judge, validate


class ValidateTests(SynchronousTestCase):
    """What an operator may configure."""

    def test_good(self) -> None:
        """The default, and whatever names an API scope, passes."""
        for text in (
            DEFAULT,
            "read:repository",
            "openid profile email groups write:issue",
            "all",
            "public-only read:repository",
        ):
            self.assertEqual(validate(text), [], text)

    def test_everything_by_accident(self) -> None:
        """What Forgejo would answer with every right is refused."""
        for text in ("", "   ", "openid profile", "OPENID", "ALL", "sudo", "reed:repository"):
            problems = " ".join(validate(text))
            self.assertIn("Forgejo grants everything", problems, text)

    def test_commas(self) -> None:
        """Commas make one scope of many, which Forgejo does not know."""
        (problem,) = validate("read:user,write:repository")
        self.assertIn("spaces", problem)

    def test_misspelt(self) -> None:
        """A scope that Forgejo would silently drop is named, with the one that was meant."""
        self.assertEqual(
            validate("read:user write:repositry"),
            ["'write:repositry' is no scope of Forgejo. Did you mean write:repository?"],
        )

    def test_public_only(self) -> None:
        """public-only alone opens nothing."""
        (problem,) = validate("openid public-only")
        self.assertIn("opens nothing", problem)


class EffectiveTests(SynchronousTestCase):
    """What a granted string comes to."""

    def test_write_includes_read(self) -> None:
        """As in Forgejo."""
        self.assertEqual(effective("write:issue"), {"write:issue", "read:issue"})

    def test_fails_open(self) -> None:
        """Every string that Forgejo takes for `all`."""
        for text in (
            "",
            "openid profile",
            "read:user,read:issue",
            "read:user\tread:issue",
            "ALL",
            "sudo",
            "all",
            "read:user all",
            "nonsense",
        ):
            self.assertIs(effective(text), ALL, text)

    @given(st.lists(st.sampled_from(sorted(OIDC | {"nonsense", "Read:user", "sudo", ""}))))
    def test_nothing_known(self, words: list[str]) -> None:
        """No API scope that is known, however many others: everything."""
        self.assertIs(effective(" ".join(words)), ALL)

    @given(st.sets(st.sampled_from(sorted(API - {"all"})), min_size=1), st.sets(st.text()))
    def test_unknown_is_dropped(self, known: set[str], others: set[str]) -> None:
        """One that is known is enough for the others to be dropped."""
        words = " ".join([*known, *(text for text in others if " " not in text)])
        if "all" not in others:
            found = effective(words)
            assert found is not ALL
            self.assertLessEqual(known, found)
            self.assertLessEqual(found, API)


class JudgeTests(SynchronousTestCase):
    """What was granted, against what was configured."""

    def test_as_configured(self) -> None:
        """The same rights, in whatever order and whatever of OpenID."""
        judged = judge("write:issue openid read:user", " read:user   write:issue read:issue ")
        self.assertEqual(
            (judged.too_wide, judged.missing, judged.extra), (False, frozenset(), frozenset())
        )

    def test_everything(self) -> None:
        """Everything is too wide where it was not configured, and fine where it was."""
        self.assertTrue(judge("openid", DEFAULT).too_wide)
        self.assertFalse(judge("openid", "all").too_wide)

    def test_older_grant(self) -> None:
        """What an older grant lacks, and has beyond."""
        judged = judge("read:user write:package", "read:user read:issue read:package")
        self.assertEqual(judged.missing, {"read:issue"})
        self.assertEqual(judged.extra, {"write:package"})
        self.assertEqual(judge("read:user", "all").missing, {"all"})

    def test_public_only(self) -> None:
        """public-only takes away, so it counts the other way round."""
        limited, free = "public-only read:user", "read:user"
        self.assertEqual(judge(limited, free).missing, {"public-only"})
        self.assertEqual(judge(free, limited).extra, {"public-only"})
