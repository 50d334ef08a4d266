"""The command line."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon.options import Options


class OptionsTests(SynchronousTestCase):
    """From arguments to settings, or to an exit."""

    def setUp(self) -> None:
        """Arguments that can be run."""
        self.store = str(Path(self.mktemp()).absolute())
        Path(self.store).parent.mkdir(parents=True, exist_ok=True)
        self.arguments = [
            "--public-url=https://mcp.example.org",
            "--forgejo-url=https://git.example.org",
            "--forgejo-oauth-client-id=an-id",
            f"--store={self.store}",
            "--child-command=cat",
        ]
        self.environ = {
            "PATH": "/usr/bin:/bin",
            "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": "gto_fromtheenvironment",
        }

    def end(self, *arguments: str) -> tuple[object, str, str]:
        """Status and both outputs of a command line that ends."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            ended = self.assertRaises(SystemExit, Options({}).parseOptions, list(arguments))
        return ended.code, out.getvalue(), err.getvalue()

    def test_settings(self) -> None:
        """A good command line becomes settings; an option may be repeated."""
        options = Options(self.environ)
        options.parseOptions(
            [*self.arguments, "--child-env=A={token}", "--child-env", "B=2", "--debug"]
        )
        self.assertEqual(options.settings.public_url, "https://mcp.example.org")
        self.assertEqual(options.settings.child.env, (("A", "{token}"), ("B", "2")))
        self.assertTrue(options.settings.debug)
        self.assertEqual(options.warnings, ())

    def test_secret_is_forgotten(self) -> None:
        """The secret is in the settings and no longer among the options."""
        options = Options(self.environ)
        options.parseOptions(
            [*self.arguments, "--child-env=A={token}", "--forgejo-oauth-client-secret=gto_flag"]
        )
        self.assertEqual(options.settings.forgejo_oauth_client_secret, "gto_flag")
        self.assertNotIn("gto_flag", repr(dict(options)))
        self.assertEqual(len(options.warnings), 1)

    def test_version(self) -> None:
        """--version needs no configuration."""
        status, out, _ = self.end("--version")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"\Afjmcp \S+ \(revision \S+, built \S+\)\nTwisted \S+, Python \S+\n")

    def test_help(self) -> None:
        """--help teaches, and needs no configuration."""
        status, out, _ = self.end("--help")
        self.assertEqual(status, 0)
        self.assertIn("Usage: twistd fjmcp", out)

    def test_misused(self) -> None:
        """What the command line cannot mean ends with 2 and says what it was."""
        for arguments, words in (
            (["--no-such-option"], "--no-such-option"),
            (["--public-url"], "public-url"),
            (["--debug=yes"], "debug"),
            (["stray"], "arguments"),
        ):
            status, _, err = self.end(*arguments)
            self.assertEqual(status, 2, arguments)
            self.assertIn(words, err)
            self.assertIn("--help explains", err)

    def test_problems(self) -> None:
        """A configuration that cannot be run ends with 2 and all its problems."""
        status, out, err = self.end("--max-sessions=0", "--listen=nowhere")
        self.assertEqual((status, out), (2, ""))
        for words in (
            "--max-sessions",
            "--listen",
            "--public-url is missing",
            "Nothing was started",
        ):
            self.assertIn(words, err)
