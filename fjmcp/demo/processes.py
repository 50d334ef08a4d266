"""The two servers of the demo, each a process of its own: the stand-in Forgejo and the broker."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from fjmcp.demo.child import RealChild

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 30.0


class NotStarted(Exception):
    """A process did not come up.  The text has the last it said."""


@define(eq=False)
class Process:
    """A server under way, with what it says in a file."""

    name: str
    log: Path
    _process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_up(self, url: str) -> None:
        """
        Wait until `url` answers with success.

        :raises NotStarted: it ended, or took too long.
        """
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise NotStarted(f"{self.name} did not start; the last it said:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def events(self, message: str) -> list[dict[str, Any]]:
        """The log events with this message, from a log of one JSON object a line."""
        found: list[dict[str, Any]] = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                if event.get("message") == message:
                    found.append(event)
        return found

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.status is None

    @property
    def status(self) -> int | None:
        """What it ended with: its exit status, or minus a signal; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it without a word, as a crash would."""
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def stop(self) -> None:
        """End it in order, or at last without."""
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()


@define(eq=False)
class Servers:
    """The stand-in Forgejo and the broker, with their addresses and secrets."""

    child: RealChild
    home: Path
    """A folder for logs and the broker's store."""
    forge_port: int = field(factory=lambda: free_port())
    broker_port: int = field(factory=lambda: free_port())
    access_seconds: int = 3600
    """Life of the stand-in's access tokens."""
    options: dict[str, str] = field(factory=dict)
    """More `FJMCP_` variables for the broker."""
    forge: Process | None = field(default=None, init=False)
    broker: Process | None = field(default=None, init=False)
    _client_id: str = field(default="de300000-0000-4000-8000-000000000001", init=False)
    _secret: str = field(factory=lambda: "gto_" + secrets.token_hex(16), init=False, repr=False)

    @property
    def forge_url(self) -> str:
        """Where the stand-in answers."""
        return f"http://127.0.0.1:{self.forge_port}"

    @property
    def public_url(self) -> str:
        """Where the broker answers; `/mcp` below it is what a client is given."""
        return f"http://127.0.0.1:{self.broker_port}"

    @property
    def application(self) -> tuple[str, str]:
        """Id and secret of the broker's OAuth application at the stand-in."""
        return self._client_id, self._secret

    def start_forge(self) -> Process:
        """Start the stand-in Forgejo, and wait until it answers."""
        self.forge = self._start(
            "stand-in Forgejo",
            [
                *(sys.executable, "-m", "fjmcp.demo.forge"),
                *("--listen", f"127.0.0.1:{self.forge_port}"),
                *("--redirect-uri", f"{self.public_url}/oauth/callback"),
                *("--access-token-seconds", str(self.access_seconds)),
            ],
            {
                "FJMCP_DEMO_CLIENT_ID": self._client_id,
                "FJMCP_DEMO_CLIENT_SECRET": self._secret,
            },
        )
        self.forge.wait_until_up(f"{self.forge_url}/.well-known/openid-configuration")
        return self.forge

    def start_broker(self) -> Process:
        """Start the broker as `twistd` runs it, and wait until it is ready."""
        self.broker = self._start(
            "broker",
            [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "fjmcp"],
            {
                "FJMCP_LISTEN": f"127.0.0.1:{self.broker_port}",
                "FJMCP_PUBLIC_URL": self.public_url,
                "FJMCP_FORGEJO_URL": self.forge_url,
                "FJMCP_FORGEJO_OAUTH_CLIENT_ID": self._client_id,
                "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": self._secret,
                "FJMCP_STORE": str(self.home / "fjmcp.sqlite3"),
                **self.child.options(),
                **self.options,
            },
        )
        self.broker.wait_until_up(f"{self.public_url}/readyz")
        return self.broker

    def restart(self, *, kill: bool = False) -> Process:
        """End the broker, in order or as a crash would, and start it on the same store."""
        if self.broker is not None:
            if kill:
                self.broker.kill()
            else:
                self.broker.stop()
        return self.start_broker()

    def tell_forge(self, what: str, **said: object) -> None:
        """
        Turn one of the stand-in's switches (`fjmcp.demo.forge.control`).

        Without anything said it is turned back: troubles end.
        """
        request = urllib.request.Request(
            f"{self.forge_url}/_demo/{what}",
            json.dumps(said).encode() if said else None,
            {"content-type": "application/json"},
            method="POST" if said else "DELETE",
        )
        with urllib.request.urlopen(request, timeout=5):
            pass

    def stop(self) -> None:
        """End both."""
        for process in (self.broker, self.forge):
            if process is not None:
                process.stop()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> Process:
        self.home.mkdir(parents=True, exist_ok=True)
        log = self.home / f"{name.replace(' ', '-').lower()}.log"
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("FJMCP_", "FORGEJO_"))
        }
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for the demo, which then ends these in order.
                start_new_session=True,
            )
        return Process(name, log, process)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
