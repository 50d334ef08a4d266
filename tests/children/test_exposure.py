"""What is said of a program whose processes others can look into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.children.exposure import Program, exposure, look

USER = 1000
GUARDED = Program("/usr/local/bin/forgejo-mcp", readable=False, ours=False, script=False)


class ExposureTests(SynchronousTestCase):
    def test_guarded(self) -> None:
        """Of a program that its user can neither read nor make readable, nothing."""
        self.assertIsNone(exposure(GUARDED, USER))

    def test_open(self) -> None:
        """Of one that can be read, what to do, as it can be copied into a shell."""
        for readable, ours in ((True, False), (True, True), (False, True)):
            said = exposure(Program(GUARDED.path, readable, ours, False), USER) or ""
            self.assertIn(f"chown root:root {GUARDED.path} && chmod 0711 {GUARDED.path}", said)

    def test_script(self) -> None:
        """Of a script, that no mode can help; nobody is told to hide the interpreter."""
        said = exposure(Program("/opt/gitea-mcp", True, False, True), USER) or ""
        self.assertIn("no file mode can help", said)
        self.assertNotIn("chmod", said)

    def test_root(self) -> None:
        """Root reads everything."""
        self.assertIn("a user of its own", exposure(GUARDED, 0) or "")


class LookTests(SynchronousTestCase):
    def make(self, name: str, content: bytes, mode: int) -> str:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        file = folder.absolute() / name
        file.write_bytes(content)
        file.chmod(mode)
        return str(file)

    def test_program(self) -> None:
        """A program of ours is ours, whatever its mode."""
        path = self.make("forgejo-mcp", b"\x7fELF", 0o755)
        self.assertEqual(look(path), Program(path, readable=True, ours=True, script=False))

    def test_scripts(self) -> None:
        """A script is known by its first line, an interpreter by its name."""
        self.assertTrue(look(self.make("gitea-mcp", b"#!/usr/bin/python3\n", 0o755)).script)
        for name in ("python3.11", "node", "sh", "bash", "uvx"):
            self.assertTrue(look(self.make(name, b"\x7fELF", 0o755)).script, name)
        for name in ("forgejo-mcp", "nodejs-mcp", "shiny", "python-mcp"):
            self.assertFalse(look(self.make(name, b"\x7fELF", 0o755)).script, name)

    def test_link(self) -> None:
        """A link is followed: the mode of the file counts, and its name is what is advised."""
        path = self.make("forgejo-mcp-2.34", b"\x7fELF", 0o755)
        link = Path(path).with_name("forgejo-mcp")
        link.symlink_to(path)
        self.assertEqual(look(str(link)).path, path)

    def test_gone(self) -> None:
        """A program that is not there is an error of the system's."""
        self.assertRaises(OSError, look, "/nowhere/forgejo-mcp")

    def test_modes(self) -> None:
        """The kernel is asked whether it can be read, as it asks itself at the start."""
        path = self.make("forgejo-mcp", b"\x7fELF", 0o311)
        self.assertEqual(look(path).readable, os.access(path, os.R_OK))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o311)
