"""The words are those of the table."""

from __future__ import annotations

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import fjmcp
from fjmcp.daemon.handbook import FILE, WIDTH, configuration_page, problems_text, usage
from fjmcp.daemon.sources import Problem, from_file
from fjmcp.daemon.table import BY_NAME, TABLE, Kind

ROOT = Path(fjmcp.__file__).resolve().parent.parent


class HandbookTests(SynchronousTestCase):
    """Help, page and problems."""

    def test_page_is_current(self) -> None:
        """docs/configuration.md is what the table says (`make docs`)."""
        page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
        self.assertEqual(page, configuration_page())

    def test_help_teaches_every_option(self) -> None:
        """Every option stands in the help with its variable, in lines that fit."""
        text = usage("twistd fjmcp")
        for option in TABLE:
            self.assertIn(f"  {option.flag}", text)
            self.assertIn(option.variable, text)
            if option.kind is Kind.SWITCH:
                self.assertIn(f"--no-{option.name}", text)
        self.assertLessEqual(max(map(len, text.splitlines())), WIDTH)

    def test_examples_can_be_used(self) -> None:
        """Defaults and examples of the table, and the example file, are good."""
        for option in TABLE:
            if option.name not in {"store", "listen"}:  # a folder and a socket of another machine
                option.read(option.example.replace("…", "x"))
            if option.default is not None:
                option.read(option.default)
        path = Path(self.mktemp())
        path.write_text(FILE)
        self.assertEqual(from_file(path).problems, ())
        self.assertIn(FILE, configuration_page())
        tomllib.loads(FILE)

    def test_problems(self) -> None:
        """A problem names option, variable, key, place and an example."""
        option = BY_NAME["public-url"]
        text = problems_text(
            [
                Problem("is missing", option),
                Problem("'x' is no URL", option, "FJMCP_PUBLIC_URL"),
                Problem("'zap' is no option"),
            ]
        )
        for words in (
            "3 problems",
            "--public-url is missing.",
            "--public-url: 'x' is no URL. [FJMCP_PUBLIC_URL]",
            "FJMCP_PUBLIC_URL or public-url in the file of --config",
            "for example: --public-url https://mcp.example.org",
            "'zap' is no option.",
        ):
            self.assertIn(words, text)
        self.assertIn("one problem", problems_text([Problem("x y")]))

    def test_secret_is_taught_by_the_environment(self) -> None:
        """Nobody is shown how to put a secret on a command line."""
        self.assertNotIn("--forgejo-oauth-client-secret gto_", configuration_page())
        self.assertNotIn(
            "--forgejo-oauth-client-secret gto_",
            problems_text([Problem("is missing", BY_NAME["forgejo-oauth-client-secret"])]),
        )
