"""The daemon under a systemd that is played: its socket, its descriptor, its watchdog."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import fjmcp

ROOT = Path(fjmcp.__file__).resolve().parent.parent
LIMIT = 60.0
"""Seconds that a process may take on a machine that others use."""

START = """
import os, sys
passed = int(sys.argv.pop(1))
if passed >= 0:
    os.dup2(passed, 3)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "fjmcp"}
os.environ["WATCHDOG_PID"] = str(os.getpid())
from twisted.scripts.twistd import run
run()
"""
"""What systemd does last before it executes a service: only then the process number is known."""


class SystemdTests(SynchronousTestCase):
    """A notification socket, and twistd as the main process of a service."""

    def setUp(self) -> None:
        """The socket, and a configuration in a file."""
        # trial's own folders are too deep: a socket's path has room for 107 bytes.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.notify.close)
        self.notify.bind(str(self.folder / "notify"))
        self.notify.settimeout(LIMIT)
        self.heard: list[str] = []
        secret = self.folder / "fjmcp.forgejo-oauth-client-secret"
        secret.write_text("gto_asecretforthisrun")
        self.configure("max-sessions = 3")

    def configure(self, *lines: str) -> None:
        """What the configuration file says."""
        (self.folder / "fjmcp.toml").write_text("\n".join(lines))

    def start(self, *arguments: str, passed: int = -1) -> subprocess.Popen[bytes]:
        """The service."""
        own = {name: text for name, text in os.environ.items() if not name.startswith("FJMCP_")}
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", START, str(passed), "-n", "--pidfile=", "fjmcp", *arguments],
                cwd=self.folder,
                stderr=log,
                pass_fds=[passed] if passed >= 0 else [],
                env={
                    **own,
                    "PYTHONPATH": str(ROOT),
                    "NOTIFY_SOCKET": str(self.folder / "notify"),
                    "WATCHDOG_USEC": "400000",
                    "STATE_DIRECTORY": str(self.folder),
                    "CREDENTIALS_DIRECTORY": str(self.folder),
                    "FJMCP_CONFIG": str(self.folder / "fjmcp.toml"),
                    "FJMCP_PUBLIC_URL": "http://127.0.0.1:8080",
                    "FJMCP_FORGEJO_URL": "http://127.0.0.1:9",
                    "FJMCP_FORGEJO_OAUTH_CLIENT_ID": "an-id",
                    "FJMCP_CHILD_COMMAND": "cat",
                    "FJMCP_CHILD_ENV": "TOKEN={token}",
                },
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_for(self, start: str) -> str:
        """The next message of the service that begins so; what came before it is in `heard`."""
        while True:
            message = self.notify.recv(65536).decode()
            self.heard.append(message)
            if message.startswith(start):
                return message

    def scrape(self) -> str:
        """What /metrics says, on its socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(LIMIT)
            asking.connect(str(self.folder / "metrics"))
            asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with asking.makefile("rb") as answer:
                return answer.read().decode()

    def logged(self, message: str) -> dict[str, object]:
        """The last line of the log with this message."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        found: dict[str, object] = [line for line in lines if line["message"] == message][-1]
        return found

    def test_life(self) -> None:
        """It says READY when it answers at the socket that was passed, gives signs of life,
        reloads at SIGHUP, and says STOPPING before SIGTERM ends it."""
        passed = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(passed.close)
        url = f"http://127.0.0.1:{passed.getsockname()[1]}/readyz"
        process = self.start(
            "--listen=systemd:domain=INET:name=fjmcp",
            f"--metrics-listen=unix:{self.folder}/metrics",
            passed=os.dup(passed.fileno()),
        )

        self.wait_for("READY=1\nSTATUS=serving http://127.0.0.1:8080")
        self.assertEqual(len(self.heard), 1)
        with urllib.request.urlopen(url, timeout=LIMIT) as answer:
            self.assertEqual(json.load(answer), {"status": "ok"})
        scraped = self.scrape()
        self.assertIn('fjmcp_http_responses_total{status="200"} 1.0', scraped)
        self.assertIn('fjmcp_store_hops_total{lane="read",outcome="done"}', scraped)
        self.assertIn("fjmcp_sessions 0.0", scraped)
        began = time.monotonic()
        for _ in range(4):
            self.wait_for("WATCHDOG=1")
        # The first comes at once; the next three at half the period each.
        self.assertLess(time.monotonic() - began, 3 * 0.4)

        self.configure("max-sessions = 4", 'listen = "127.0.0.1:1"', "token-refresh-lead = 60")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        process.send_signal(signal.SIGHUP)
        reloading = self.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        self.assertGreaterEqual(int(reloading.rpartition("=")[2]), before)
        self.wait_for("READY=1")
        self.assertEqual(
            self.logged("configuration reloaded")["changed"], ["max-sessions", "token-refresh-lead"]
        )

        self.configure("max-sessions = 0", "colour = 1")
        process.send_signal(signal.SIGHUP)
        self.wait_for("RELOADING=1")
        self.wait_for("READY=1")
        broken = [line for line in self.log.read_text().splitlines() if "not reloaded" in line]
        self.assertEqual(len(broken), 1)
        self.assertIn("--max-sessions", broken[0])
        self.assertIn("colour", broken[0])

        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        self.wait_for("STOPPING=1")
        self.assertEqual(process.wait(LIMIT), -signal.SIGTERM)
        self.assertNotIn("gto_asecretforthisrun", self.log.read_text())
        # What systemd holds outlives us: a connection made now waits for the next start.
        socket.create_connection(passed.getsockname(), timeout=LIMIT).close()

    def test_busy_port(self) -> None:
        """A port that is in use ends it with 1; READY is never said, but why."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            process = self.start(f"--listen=127.0.0.1:{taken.getsockname()[1]}")
            self.assertEqual(process.wait(LIMIT), 1)
        self.notify.setblocking(False)
        self.wait_for("STOPPING=1")
        self.assertNotIn("READY", "".join(self.heard))
        self.assertIn("STATUS=cannot listen at tcp:", self.heard[0])
        self.assertIn("in use", self.heard[0])

    def test_no_such_socket(self) -> None:
        """A socket that was not passed is a wrong configuration."""
        process = self.start("--listen=systemd:domain=INET:name=fjmcp")
        self.assertEqual(process.wait(LIMIT), 2)
        self.assertIn("systemd handed over no socket named 'fjmcp'", self.log.read_text())
