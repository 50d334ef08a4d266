"""What the command line, the environment and a file say."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon.sources import Said, from_environment, from_file, from_flags


def texts(said: Said) -> dict[str, object]:
    """Name and text of all that was said."""
    return {name: given.text for name, given in said.given.items()}


class FlagsTests(SynchronousTestCase):
    """What usage.Options collected."""

    def test_given_and_not(self) -> None:
        """Only what was written counts, switches in both directions."""
        said = from_flags(
            {
                "public-url": "https://a.example",
                "listen": None,
                "debug": 1,
                "no-debug": 0,
                "require-session-id": 0,
                "no-require-session-id": 1,
                "child-env": ["A=1", "B=2"],
            }
        )
        self.assertEqual(
            texts(said),
            {
                "public-url": "https://a.example",
                "debug": "true",
                "require-session-id": "false",
                "child-env": ("A=1", "B=2"),
            },
        )

    def test_contradiction(self) -> None:
        """A switch in both directions is a problem."""
        [problem] = from_flags({"debug": 1, "no-debug": 1}).problems
        self.assertIn("--no-debug", problem.what)


class EnvironmentTests(SynchronousTestCase):
    """Variables."""

    def test_variables(self) -> None:
        """FJMCP_ variables are options; empty ones were not said; others are not ours."""
        said = from_environment(
            {"FJMCP_PUBLIC_URL": "https://a.example", "FJMCP_LISTEN": " ", "PUBLIC_URL": "x"}
        )
        self.assertEqual(texts(said), {"public-url": "https://a.example"})
        self.assertEqual((said.problems, said.warnings), ((), ()))

    def test_several(self) -> None:
        """Several values are split as a shell would."""
        said = from_environment({"FJMCP_CHILD_ENV": "A={url} B='two words'"})
        self.assertEqual(texts(said), {"child-env": ("A={url}", "B=two words")})
        [problem] = from_environment({"FJMCP_CHILD_ENV": "A='"}).problems
        self.assertIn("cannot be split", problem.what)

    def test_strangers(self) -> None:
        """A variable of ours that means nothing is a warning with the nearest name."""
        said = from_environment({"FJMCP_PUBLIK_URL": "x", "FJMCP_ZZZZZZ": "x", "FJMCP_KEYS": "k"})
        self.assertEqual(
            said.warnings,
            (
                "the variable FJMCP_PUBLIK_URL means nothing here; did you mean FJMCP_PUBLIC_URL?",
                "the variable FJMCP_ZZZZZZ means nothing here",
            ),
        )


class FileTests(SynchronousTestCase):
    """The TOML file."""

    def read(self, text: str | bytes) -> Said:
        """What a file with that text says."""
        path = Path(self.mktemp())
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return from_file(path)

    def test_keys(self) -> None:
        """Keys are the options' names, with dashes or underscores, in TOML's own types."""
        said = self.read(
            'public-url = "https://a.example"\nmax_sessions = 5\ntoken-refresh-lead = 1.5\n'
            "debug = true\nrequire-session-id = false\n"
            'child-env = ["A=1"]\n'
        )
        self.assertEqual(said.problems, ())
        self.assertEqual(
            texts(said),
            {
                "public-url": "https://a.example",
                "max-sessions": "5",
                "token-refresh-lead": "1.5",
                "debug": "true",
                "require-session-id": "false",
                "child-env": ("A=1",),
            },
        )

    def test_table_of_variables(self) -> None:
        """The children's variables may be a table."""
        said = self.read('[child-env]\nA = "{url}"\nB = "x=y"\n')
        self.assertEqual(texts(said), {"child-env": ("A={url}", "B=x=y")})

    def test_refused(self) -> None:
        """What is no option, or has another type, is a problem that names the place."""
        for text, words in (
            ("public-ur = 1", "did you mean public-url?"),
            ('config = "x"', "'config' in"),
            ("[public-url]\nx = 1", "must be a string"),
            ("public-url = true", "must be a string"),
            ('debug = "true"', "must be true or false"),
            ("child-env = [1]", "list of strings"),
            ("max-sessions = 1\nmax_sessions = 2", "said twice"),
            ("public-url = ", "is not TOML"),
            (b"\xff", "is not TOML"),
        ):
            [problem] = self.read(text).problems
            self.assertIn(words, problem.what, text)

    def test_missing_file(self) -> None:
        """A file that is not there is a problem of --config."""
        [problem] = from_file(Path(self.mktemp())).problems
        self.assertIn("cannot be read: No such file", problem.what)
        assert problem.option is not None
        self.assertEqual(problem.option.name, "config")
