"""
`fjmcp tokens` beside a daemon that runs and without one, all of them real processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final, TypeVar

import httpx2
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.demo.caller import Caller
from fjmcp.demo.child import RealChild
from fjmcp.demo.processes import Servers
from fjmcp.refusals import GRANT_ENDED
from tests.faults.ground import able_child, running, until

T = TypeVar("T")

FJMCP: Final = [sys.executable, "-m", "fjmcp.cli"]
ROOT: Final = Path(__file__).resolve().parent.parent.parent
LIMIT: Final = 90.0
"""Seconds that anything may take on a machine that others use."""

SOON: Final = 5.0
"""What takes a second at most, on such a machine."""


class TokensTests(SynchronousTestCase):
    """A broker and a forge of their own processes, where Alice has signed in once."""

    servers: Servers
    _folder: TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls._folder = TemporaryDirectory()
        home = Path(cls._folder.name)
        cls.servers = Servers(RealChild("other", able_child(home), "it says its pid"), home)
        try:
            cls.servers.start_forge()
            cls.servers.start_broker()
            asyncio.run(cls.with_client(lambda caller: caller.connect("alice")))
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls.servers.stop()
        cls._folder.cleanup()

    @classmethod
    async def with_client(cls, work: Callable[[Caller], Awaitable[T]], token: str = "") -> T:
        async with httpx2.AsyncClient(timeout=LIMIT) as http:
            return await work(Caller(cls.servers.public_url, http, {"access_token": token}))

    # --- the tool -----------------------------------------------------------------

    def fjmcp(
        self, *words: str, stdout: IO[str] | int = subprocess.PIPE, closing: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environ = {
            name: text for name, text in os.environ.items() if not name.startswith("FJMCP_")
        } | {
            "PYTHONPATH": str(ROOT),
            "FJMCP_STORE": str(self.servers.home / "fjmcp.sqlite3"),
            "FJMCP_PUBLIC_URL": self.servers.public_url,
        }
        ended = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *FJMCP, "tokens", *words],
            env=environ,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertNotIn("Traceback", ended.stderr)
        return ended

    def done(self, *words: str) -> str:
        ended = self.fjmcp(*words)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        return ended.stdout

    def create(self, *words: str) -> tuple[str, str]:
        """A token of Alice and its id."""
        ended = self.fjmcp("create", "--user", "Alice", *words)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        token, end, rest = ended.stdout.partition("\n")
        self.assertEqual((token[:4], end, rest), ("fja_", "\n", ""))
        self.assertNotIn(token, ended.stderr)
        self.assertIn(f"{self.servers.public_url}/mcp, as: Authorization: Bearer", ended.stderr)
        (line, *_) = [line for line in ended.stderr.splitlines() if "Made the token" in line]
        return token, line.split()[3]

    def line(self, id: str) -> str:
        """What the list says of a token; nothing if it is not there."""
        lines = self.done("list", "--all").splitlines()
        return next((line for line in lines if line.startswith(id)), "")

    def status(self, token: str) -> int:
        """Whether the broker takes a token, by a `ping`."""
        reply = asyncio.run(self.with_client(lambda caller: caller.send("ping"), token))
        return reply.status

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.servers.home / "fjmcp.sqlite3", timeout=LIMIT)
        try:
            with connection:
                return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    # --- what is promised --------------------------------------------------------------

    def test_way(self) -> None:
        """A token that was made works at once, is listed, and is over within a second of its
        revocation: with its running call and its child, and nothing else."""
        token, id = self.create("--name", "nightly \x1b[1mtriage", "--expires", "12h")
        other, _ = self.create()
        self.assertRegex(self.line(id), r" alice +nightly \[1mtriage .* never +live$")

        async def at_work(caller: Caller) -> None:
            await caller.initialize()
            pid = int((await caller.call("pid")).text)
            self.assertTrue(running(pid))
            call = asyncio.create_task(caller.call("wait", seconds=LIMIT))
            await asyncio.sleep(0.3)
            said = await asyncio.to_thread(self.done, "revoke", id[:8])
            self.assertIn(f"Ended the token {id} of alice (nightly [1mtriage).", said)
            began = time.monotonic()
            self.assertEqual((await call).error, GRANT_ENDED.message)
            self.assertEqual((await caller.send("ping")).status, 401)
            self.assertLess(time.monotonic() - began, SOON)
            self.assertTrue(await asyncio.to_thread(until, lambda: not running(pid)))

        asyncio.run(self.with_client(at_work, token))
        self.assertEqual(self.status(other), 200)
        self.assertTrue(self.line(id).endswith("ended: operator"))
        self.assertNotIn(id, self.done("list", "--user", "alice"))
        self.assertIn(f"The token {id} of alice", self.done("revoke", id))
        assert self.servers.broker is not None
        (event,) = [e for e in self.servers.broker.events("grant ended") if e["grant"] == id]
        self.assertEqual(event["reason"], "operator")
        log = self.servers.broker.log.read_text()
        self.assertNotIn(token, log)
        self.assertNotIn("traceback", log)

    def test_used(self) -> None:
        """A stop of the daemon writes down when a token was last used; without a daemon one is
        made, listed and revoked as well, and the next daemon knows."""
        token, id = self.create()
        self.assertEqual(self.status(token), 200)
        assert self.servers.broker is not None
        self.servers.broker.stop()
        self.assertNotIn("never", self.line(id))
        offline, offline_id = self.create("--expires", "30d")
        self.assertIn("never", self.line(offline_id))
        self.assertIn(f"Ended the token {id}", self.done("revoke", id.upper()))
        self.servers.start_broker()
        self.assertEqual((self.status(token), self.status(offline)), (401, 200))

    def test_unwritten(self) -> None:
        """A token that could not be written, to a full disk say, is over before anybody has it."""
        with Path("/dev/full").open("w") as full:
            ended = self.fjmcp("create", "--user", "alice", "--name", "lost", stdout=full)
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertRegex(ended.stderr, r"\AError: The token could not be written.*\n\Z")
        (line,) = [line for line in self.done("list", "--all").splitlines() if " lost " in line]
        self.assertTrue(line.endswith("ended: operator"))

    def test_unseen(self) -> None:
        """Where nobody would see a token none is made; the words about it may be lost."""
        before = self.rows("SELECT grant_id FROM grants")
        ended = self.fjmcp("create", "--user", "alice", closing=">&-")
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("standard output is closed", ended.stderr)
        self.assertEqual(self.rows("SELECT grant_id FROM grants"), before)
        for lost in ("2>/dev/full", "2>&-"):
            ended = self.fjmcp("create", "--user", "alice", closing=lost)
            self.assertEqual(ended.returncode, 0, lost)
            self.assertEqual(self.status(ended.stdout.strip()), 200, lost)

    def test_revoked_while_stopping(self) -> None:
        """A daemon that stops, and lets calls drain, ends those of a token that is revoked."""
        token, id = self.create()
        broker = self.servers.broker
        assert broker is not None

        async def at_work(caller: Caller) -> None:
            await caller.initialize()
            call = asyncio.create_task(caller.call("wait", seconds=limits.DRAIN / 2))
            await asyncio.sleep(0.3)
            os.kill(broker.pid, signal.SIGTERM)
            self.assertTrue(await asyncio.to_thread(until, lambda: bool(broker.events("stopping"))))
            await asyncio.to_thread(self.done, "revoke", id)
            self.assertEqual((await call).error, GRANT_ENDED.message)

        asyncio.run(self.with_client(at_work, token))
        self.assertTrue(until(lambda: not broker.alive(), LIMIT))
        self.servers.start_broker()

    def test_asleep(self) -> None:
        """An account that has to sign in again gets no token, and a running daemon refuses the
        one that it has."""
        token, id = self.create()
        self.assertEqual(self.status(token), 200)
        self.addCleanup(self.rows, "UPDATE accounts SET dead_since = NULL, dead_reason = NULL")
        for reason, words in (
            ("not-let-in", "does not let this account in any more"),
            (None, "Sign in again as alice"),
        ):
            self.rows(
                "UPDATE accounts SET dead_since = ?, dead_reason = ? WHERE login = 'alice'",
                time.time(),
                reason,
            )
            ended = self.fjmcp("create", "--user", "alice")
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn(words, ended.stderr)
        self.assertTrue(self.line(id).endswith("asleep"))
        self.assertTrue(until(lambda: self.status(token) == 401, SOON))

    def test_misused(self) -> None:
        """What cannot be done is said in a sentence, with 1, and what makes no sense with 2;
        neither makes or ends anything."""
        before = self.rows("SELECT grant_id, ended_at FROM grants ORDER BY grant_id")
        for words, code, said in (
            (["create", "--user", "nobody\x1b"], 1, "Sign in once as nobody, through any"),
            (["create", "--user", "alice", "--expires", "90"], 2, "neither a time"),
            (["create", "--user", "alice", "--expires", "400d"], 2, "from 1m to 365d from now"),
            (["create", "--user", "alice", "--store", "none.sqlite3"], 1, "There is no store"),
            (["revoke", "00000000dead"], 1, "no token begins with 00000000dead"),
        ):
            ended = self.fjmcp(*words)
            self.assertEqual((ended.returncode, ended.stdout), (code, ""), ended.stderr)
            self.assertIn(said, ended.stderr)
        self.assertEqual(
            self.rows("SELECT grant_id, ended_at FROM grants ORDER BY grant_id"), before
        )
