"""The daemon as a real process: how it ends, and what it writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import fjmcp

ROOT = Path(fjmcp.__file__).resolve().parent.parent
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
LIMIT = 60.0
"""Seconds that a process may take on a machine that others use."""

TAC = """
from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.logger import Logger
from fjmcp.daemon.exits import stop_as_failed
from fjmcp.daemon.logs import Threshold
from fjmcp.daemon.tap import Root, observer_for
from tests.daemon.test_tap import SETTINGS, Inline

class Speaker(Service):
    def startService(self):
        reactor.callWhenRunning(self.speak)

    def speak(self):
        Logger(namespace="fjmcp.probe").info("spoken", secret="x", who="me")
        print("printed")
        stop_as_failed(reactor)

    def stopService(self):
        Logger(namespace="fjmcp.probe").info("stopped in good order")

application = Application("probe")
import ast, os
told = ast.literal_eval(os.environ["PROBE"])
root = Root(observer_for(SETTINGS, told, Inline(), Threshold()))
Speaker().setServiceParent(root)
root.setServiceParent(application)
"""


class ProcessTests(SynchronousTestCase):
    """Processes that we wait for."""

    def setUp(self) -> None:
        """A folder to run in, and an environment without any configuration."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.environ = {
            name: text for name, text in os.environ.items() if not name.startswith("FJMCP_")
        }
        self.environ["PYTHONPATH"] = str(ROOT)

    def run_twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """twistd with these arguments, to its end."""
        return subprocess.run(
            [*TWISTD, *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )


class EndTests(ProcessTests):
    """Exit statuses."""

    def test_version(self) -> None:
        """--version of ours needs no configuration and ends with 0."""
        ended = self.run_twistd("fjmcp", "--version")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertIn(f"fjmcp {fjmcp.__version__.public()} (revision ", ended.stdout)

    def test_help(self) -> None:
        """twistd knows the daemon, and its help ends with 0."""
        self.assertIn("    fjmcp ", self.run_twistd("--help").stdout)
        ended = self.run_twistd("-n", "fjmcp", "--help")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertIn("--public-url", ended.stdout)

    def test_configuration(self) -> None:
        """A configuration that cannot be run ends with 2, all problems on stderr."""
        ended = self.run_twistd("-n", "fjmcp", "--max-sessions=many")
        self.assertEqual((ended.returncode, ended.stdout), (2, ""))
        for words in ("--public-url is missing", "FJMCP_FORGEJO_URL", "'many' is no whole number"):
            self.assertIn(words, ended.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_usage(self) -> None:
        """An option that there is not ends with 2."""
        ended = self.run_twistd("-n", "fjmcp", "--public-uri=https://mcp.example.org")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("--public-uri", ended.stderr)


class LogTests(ProcessTests):
    """What a twistd writes that was given our way of logging."""

    def speak(self, *arguments: str, **twistd: object) -> subprocess.CompletedProcess[str]:
        """A twistd that logs a line, prints another, and stops as failed."""
        tac = self.folder / "probe.py"
        tac.write_text(TAC)
        self.environ["PROBE"] = repr({"nodaemon": True, **twistd})
        ended = self.run_twistd("-n", *arguments, "-y", str(tac))
        self.assertEqual(ended.returncode, 1, ended.stderr)
        return ended

    def check(self, text: str) -> None:
        """Every line is a JSON object; both lines of the service are there."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        [spoken] = [line for line in lines if line["component"] == "fjmcp.probe"][:1]
        self.assertEqual((spoken["message"], spoken["who"]), ("spoken", "me"))
        self.assertEqual(spoken["secret"], "…")
        self.assertIn("printed", [line["message"] for line in lines])
        self.assertIn("stopped in good order", [line["message"] for line in lines])

    def test_stderr(self) -> None:
        """In the foreground and not on a terminal it is JSON lines on stderr, prints included;
        a run that failed after its start stops in good order and ends with 1."""
        ended = self.speak()
        self.check(ended.stderr)
        self.assertEqual(ended.stdout, "")
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_stdout(self) -> None:
        """--logfile=- of twistd is stdout."""
        ended = self.speak("--logfile=-", logfile="-")
        self.check(ended.stdout)

    def test_file(self) -> None:
        """--logfile of twistd gets the same lines."""
        path = self.folder / "the.log"
        self.speak(f"--logfile={path}", logfile=str(path))
        self.check(path.read_text())


class DaemonTests(ProcessTests):
    """The whole daemon, as far as it starts without a forge."""

    def setUp(self) -> None:
        """A configuration that can be run; nothing answers at the forge's address."""
        super().setUp()
        self.environ |= {
            "FJMCP_PUBLIC_URL": "http://127.0.0.1:8080",
            "FJMCP_FORGEJO_URL": "http://127.0.0.1:9",
            "FJMCP_FORGEJO_OAUTH_CLIENT_ID": "an-id",
            "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": "gto_asecretforthisrun",
            "FJMCP_STORE": str(self.folder / "fjmcp.sqlite3"),
            "FJMCP_CHILD_COMMAND": "cat",
            "FJMCP_CHILD_ENV": "TOKEN={token}",
            "FJMCP_LISTEN": "127.0.0.1:0",
            "FJMCP_MAX_SESSION": "3",
        }

    def test_busy_port(self) -> None:
        """A port that is in use ends with 1 and is said."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ended = self.run_twistd(
                "-n", "--pidfile=", "fjmcp", f"--listen=127.0.0.1:{taken.getsockname()[1]}"
            )
        self.assertEqual(ended.returncode, 1, ended.stderr)
        last = [json.loads(line) for line in ended.stderr.splitlines()]
        self.assertIn("critical", [line["level"] for line in last])
        self.assertIn("in use", ended.stderr)

    def test_stop(self) -> None:
        """It starts without its forge, says what is odd, and ends by the signal that stops it."""
        command = [*TWISTD, "-n", "--pidfile=", "fjmcp"]
        with subprocess.Popen(
            command, cwd=self.folder, env=self.environ, stderr=subprocess.PIPE, text=True
        ) as process:
            self.addCleanup(process.kill)
            assert process.stderr is not None
            lines = []
            for text in process.stderr:
                lines.append(json.loads(text))
                if lines[-1]["message"] == "ready":
                    process.send_signal(signal.SIGTERM)
            status = process.wait(LIMIT)
        self.assertEqual(status, -signal.SIGTERM)
        messages = [line["message"] for line in lines]
        self.assertTrue(any("did you mean FJMCP_MAX_SESSIONS?" in text for text in messages))
        self.assertIn("stopped", messages)
        self.assertNotIn("gto_asecretforthisrun", json.dumps(lines))
