"""
Who can read what in /proc, tried with real processes.

The test runs as root in CI, and root can read everything: so the daemon, its
child and the one who looks become another user.  Where the test does not run
as root, it cannot make a program that belongs to root, and shows the other
half: that the program is told of.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

HERE = Path(__file__).parent
NOBODY = 65534
ROOT = os.geteuid() == 0
DENIED = "Permission denied"


class EnvironmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Another user must be able to reach the program.
        self.folder = Path(tempfile.mkdtemp(prefix="fjmcp-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)

    def start(self, mode: int) -> dict[str, Any]:
        """What the daemon says whose child is a program of this mode."""
        sleeper = shutil.which("sleep")
        assert sleeper is not None
        program = self.folder / "sleeper"
        shutil.copy(os.path.realpath(sleeper), program)
        program.chmod(mode)
        daemon = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "hidden_parent.py")),
                *(str(NOBODY if ROOT else os.geteuid()), str(program), "1000"),
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent), "SECRET": "the-secret"},
            cwd="/",
        )
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        assert daemon.stdout is not None
        with daemon.stdout:
            said: dict[str, Any] = json.loads(daemon.stdout.readline())
        self.addCleanup(self.see_it_die, said["pids"][1])
        self.addCleanup(daemon.send_signal, signal.SIGKILL)
        return said

    def see_it_die(self, pid: int) -> None:
        """The child of a hidden daemon dies with it, as any other."""
        end = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_daemon(self) -> None:
        """What stands in the daemon's environment is read by none of its user's processes."""
        said = self.start(0o755)
        self.assertIsNone(said["trouble"])
        self.assertIn("SECRET=the-secret", said["before"])
        self.assertIn(DENIED, said["daemon"])
        self.assertNotIn("the-secret", said["daemon"])

    def test_readable(self) -> None:
        """A child whose program can be read shows its token to its user, and that is told of."""
        said = self.start(0o755)
        self.assertIn("TOKEN=the-token", said["child"])
        self.assertIn("chmod 0711", said["exposure"])

    def test_unreadable(self) -> None:
        """One of root's with mode 0711 shows it to nobody, and nothing is told; one that
        belongs to the daemon's user is told of, since that user can change the mode."""
        said = self.start(0o711)
        if ROOT:
            self.assertIn(DENIED, said["child"])
            self.assertNotIn("the-token", said["child"])
            self.assertIsNone(said["exposure"])
        else:
            self.assertIn("chmod 0711", said["exposure"])
