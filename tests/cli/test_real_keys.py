"""
`fjmcp keys` beside a daemon that runs, all of them real processes.

The daemon must open what the rotation seals: it is asked by a refresh token
that was used before, whose answer stands sealed in its row.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from twisted.trial.unittest import SynchronousTestCase

import fjmcp
from fjmcp import limits
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.store.queries.sealed import COLUMNS
from fjmcp.store.vault import Ring, key_id

ROOT: Final = Path(fjmcp.__file__).resolve().parent.parent
TWISTD: Final = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
FJMCP: Final = [sys.executable, "-m", "fjmcp.cli"]
LIMIT: Final = 90.0
"""Seconds that anything may take on a machine that others use."""

ACCOUNTS: Final = 300
TOKEN: Final = "fjr_used-before"
PAIR: Final = ["fja_again", "fjr_again", 4e9, "forge:read forge:write"]


class KeysTests(SynchronousTestCase):
    """A daemon with a store that holds much that is sealed."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.store = self.folder / "fjmcp.sqlite3"
        self.key_file = self.folder / "fjmcp.keys"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.environ = {
            name: text for name, text in os.environ.items() if not name.startswith("FJMCP_")
        } | {
            "PYTHONPATH": str(ROOT),
            "FJMCP_PUBLIC_URL": self.url,
            "FJMCP_LISTEN": self.url.removeprefix("http://"),
            "FJMCP_FORGEJO_URL": "http://127.0.0.1:9",
            "FJMCP_FORGEJO_OAUTH_CLIENT_ID": "id",
            "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": "secret",
            "FJMCP_CHILD_COMMAND": "/bin/cat",
            "FJMCP_CHILD_ENV": "TOKEN={token}",
            "FJMCP_STORE": str(self.store),
        }
        self.start()
        self.fill()

    # --- the daemon ---------------------------------------------------------------

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.daemon = subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", "fjmcp"],
            cwd=self.folder,
            env=self.environ,
            stderr=log,
        )
        log.close()
        self.addCleanup(self.kill, self.daemon)
        self.wait(self.ready)

    def kill(self, process: subprocess.Popen[Any]) -> None:
        process.kill()
        process.wait()

    def ready(self) -> bool:
        self.assertIsNone(self.daemon.poll(), (self.folder / "log").read_text())
        try:
            with urlopen(f"{self.url}/readyz", timeout=LIMIT) as answer:
                return bool(answer.status == 200)
        except (HTTPError, URLError, ConnectionError):
            return False

    def wait(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not true():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def replay(self) -> None:
        """The daemon opens the sealed answer and gives it again."""
        self.rows(
            "UPDATE refresh_tokens SET used_at = ? WHERE token = ?",
            time.time(),
            digest(TokenText(TOKEN)).value,
        )
        form = {"grant_type": "refresh_token", "refresh_token": TOKEN, "client_id": "fj-client"}
        try:
            with urlopen(
                f"{self.url}/oauth/token", urlencode(form).encode(), timeout=LIMIT
            ) as answer:
                said = json.load(answer)
        except HTTPError as error:
            with error:
                self.fail(f"{error.code}: {error.read()!r}")
        self.assertEqual((said["access_token"], said["refresh_token"]), tuple(PAIR[:2]))

    # --- the store ----------------------------------------------------------------

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.store, timeout=LIMIT)
        try:
            with connection:
                return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def ring(self) -> Ring:
        return Ring.parse(self.key_file.read_text())

    def fill(self) -> None:
        ring, now = self.ring(), time.time()
        for number in range(1, ACCOUNTS + 1):
            self.put_account(ring, number)
        metadata = {
            "redirect_uris": ["https://client.example/cb"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        self.rows(
            "INSERT INTO clients (client_id, auth_method, metadata, created_at)"
            " VALUES ('fj-client', 'none', ?, ?)",
            json.dumps(metadata),
            now,
        )
        self.rows(
            "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at)"
            " VALUES ('grant', 1, 'fj-client', 'forge:read forge:write', ?, ?)",
            now,
            now,
        )
        token = digest(TokenText(TOKEN)).value
        self.rows(
            "INSERT INTO refresh_tokens (token, grant_id, issued_at, used_at, successor)"
            " VALUES (?, 'grant', ?, ?, ?)",
            token,
            now,
            now,
            ring.seal(json.dumps(PAIR).encode(), COLUMNS[3].bound(token)),
        )

    def put_account(self, ring: Ring, number: int) -> None:
        self.rows(
            "INSERT INTO accounts (account_id, login, credential, version, received_at,"
            " expires_at, signed_in_at) VALUES (?, 'a', ?, 1, 0, 4e9, 0)",
            number,
            ring.seal(b"of %d" % number, COLUMNS[0].bound(number)),
        )

    def keys_used(self) -> set[bytes]:
        """The keys of everything sealed, each of which opens with the ring in the file."""
        ring, used = self.ring(), set()
        for column in COLUMNS:
            for key, value in self.rows(
                f"SELECT {column.key}, {column.name} FROM {column.table}"
                f" WHERE {column.name} IS NOT NULL"
            ):
                opened = ring.open(value, column.bound(key))
                if column.table == "accounts":
                    self.assertEqual(opened, b"of %d" % key)
                used.add(key_id(value))
        return used

    # --- the tool -----------------------------------------------------------------

    def fjmcp(self, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FJMCP, *words],
            cwd=self.folder,
            env=self.environ,
            input=answer,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def done(self, *words: str) -> str:
        ended = self.fjmcp(*words)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        return ended.stdout

    def break_off(self, line: str) -> None:
        """A rotation that is killed as soon as it says a line that begins so."""
        tool = subprocess.Popen(
            [*FJMCP, "keys", "rotate", "--batch", "10", "--pause", "1"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert tool.stdout is not None
        with tool.stdout:
            for said in tool.stdout:
                if said.startswith(line):
                    tool.send_signal(signal.SIGKILL)
                    break
        self.assertEqual(tool.wait(), -signal.SIGKILL)

    def test_killed(self) -> None:
        """A rotation that is killed at every step, and the daemon with it in the middle: all
        the while everything opens, and in the end it is under one fresh key."""
        old = self.ring().current
        for line in ("1/5", "2/5", "3/5", "4/5", "     accounts.credential: 20"):
            self.break_off(line)
            self.assertIsNone(self.daemon.poll())
            self.keys_used()
            self.replay()
            self.assertEqual(len(self.ring().ids), 2)
        self.assertIn("broken off", self.done("keys", "list"))
        self.assertEqual(len(self.keys_used()), 2)
        self.break_off("     accounts.credential: 50")
        self.kill(self.daemon)
        self.start()
        self.replay()
        said = self.done("keys", "rotate")
        self.assertIn("going on with the key", said)
        fresh = self.ring().current
        self.assertIn(f"Done: the key {fresh.hex()} seals everything.", said)
        self.assertEqual(self.keys_used(), {fresh})
        self.assertEqual(self.ring().ids, {old, fresh})
        self.replay()
        self.assertIn("keys taken in", (self.folder / "log").read_text())
        self.assertNotIn(self.ring().to_text().split()[1], said)

    def test_no_daemon(self) -> None:
        """Without a daemon it is the same, and the next daemon opens everything."""
        self.kill(self.daemon)
        self.assertIn("no daemon runs", self.done("keys", "rotate"))
        self.assertEqual(self.keys_used(), {self.ring().current})
        self.start()
        self.replay()

    def test_list_and_prune(self) -> None:
        """Unused keys go when they are asked to, not while the daemon may still need them."""
        old = self.ring().current
        said = self.done("keys", "list")
        self.assertIn(f"{old.hex()}  current   seals {ACCOUNTS + 1} values", said)
        self.assertIn(f"(pid {self.daemon.pid}) seals with {old.hex()} and has every key", said)
        self.assertNotIn(self.key_file.read_text().split()[1], said)
        self.assertIn("Every key is in use", self.done("keys", "prune"))
        self.done("keys", "rotate")
        soon = self.fjmcp("keys", "prune", "--yes")
        self.assertEqual(soon.returncode, 1)
        self.assertNotIn("Traceback", soon.stderr)
        self.assertIn(f"Run this again in {limits.KEY_SETTLE / 60:.0f} min", soon.stderr)
        self.kill(self.daemon)
        self.assertEqual(self.fjmcp("keys", "prune", answer="n\n").returncode, 1)
        self.assertEqual(len(self.ring().ids), 2)
        self.assertIn(
            f"Removed from {self.key_file}: {old.hex()}", self.done("keys", "prune", "--yes")
        )
        self.assertEqual(self.ring().ids, self.keys_used())
        self.start()
        self.replay()

    def test_misused(self) -> None:
        """What cannot be done is said in a sentence, with 1; a wrong command with 2."""
        self.kill(self.daemon)
        for words, code, said in (
            (["keys", "rotate", "--store", "nowhere/x"], 2, "does not exist"),
            (["keys", "rotate", "--store", "other.sqlite3"], 1, "There is no store"),
            (["keys", "rotate", "--batch", "0"], 2, "--batch"),
            (["keys", "list", "--key-file", str(self.store)], 1, "cannot be used: line 1"),
            (["keys", "turn"], 2, "No such command"),
        ):
            ended = self.fjmcp(*words)
            self.assertEqual(ended.returncode, code, ended)
            self.assertIn(said, ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)
        (self.folder / "other.sqlite3").write_bytes(b"")
        ended = self.fjmcp("keys", "list", "--store", "other.sqlite3", "--key-file", "fjmcp.keys")
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertIn("is none of fjmcp", ended.stderr)
