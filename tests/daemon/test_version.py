"""What is running."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon.version import UNKNOWN, Build, build, words


class VersionTests(SynchronousTestCase):
    """Where the revision comes from."""

    def package(self, text: str | None) -> Path:
        """The folder of a package outside any checkout."""
        folder = Path(self.mktemp()) / "fjmcp"
        folder.mkdir(parents=True)
        if text is not None:
            (folder / "_build.json").write_text(text)
        return folder

    def test_wheel(self) -> None:
        """A wheel brings its revision and build date."""
        folder = self.package('{"revision": "abc123", "built": "2026-11-21T06:00:00Z"}')
        self.assertEqual(build(folder), Build("abc123", "2026-11-21T06:00:00Z"))

    def test_unknown(self) -> None:
        """Without a usable file and outside a checkout both are unknown."""
        for text in (None, "", "[]", "{}", '{"revision": "abc"}', "not JSON"):
            self.assertEqual(build(self.package(text)), Build(UNKNOWN, UNKNOWN), text)

    def test_broken_checkout(self) -> None:
        """Where git cannot say, the revision is unknown."""
        folder = self.package(None)
        (folder.parent / ".git").write_text("gitdir: /no/such/place")
        self.assertEqual(build(folder).revision, UNKNOWN)

    def test_words(self) -> None:
        """All that is known stands in one line, what it stands on in the next."""
        first, second = words(Build("abc", "then")).splitlines()
        self.assertRegex(first, r"^fjmcp \d\S+ \(revision abc, built then\)$")
        self.assertRegex(second, r"^Twisted \d\S+, Python 3\.\d+")
