"""The reactor that twistd runs us on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PROBE = """
import time
from twisted.internet import reactor
from fjmcp.daemon.tap import Options, makeService
options = Options({
    "PATH": "/usr/bin:/bin",
    "FJMCP_PUBLIC_URL": "http://127.0.0.1:8080",
    "FJMCP_FORGEJO_URL": "http://127.0.0.1:9",
    "FJMCP_FORGEJO_OAUTH_CLIENT_ID": "an-id",
    "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": "gto_asecret",
    "FJMCP_STORE": "fjmcp.sqlite3",
    "FJMCP_CHILD_COMMAND": "cat",
    "FJMCP_CHILD_ENV": "TOKEN={token}",
})
options.parseOptions([])
makeService(options)
call = reactor.callLater(60.0, lambda: None)
print(0 < call.getTime() - time.monotonic() <= 60.0)
"""


class ReactorTests(SynchronousTestCase):
    """What makeService does to it."""

    def test_timers(self) -> None:
        """Its timers go by a clock that nobody sets."""
        folder = Path(self.mktemp())
        folder.mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", PROBE],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stdout), (0, "True\n"), ended.stderr)
