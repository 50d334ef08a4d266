"""The stand-in as a real process."""

from __future__ import annotations

import os
import sys
from typing import Any

from attrs import define, field
from treq import content
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, ProcessDone
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from fjmcp.demo.browser import Body


@define(eq=False)
class Watched(ProcessProtocol):
    """Gathers what the process says, and tells of the first line and the end."""

    said: bytes = b""
    complained: bytes = b""
    ready: Deferred[str] = field(factory=Deferred)
    ended: Deferred[BaseException] = field(factory=Deferred)

    def outReceived(self, data: bytes) -> None:
        """Stdout."""
        self.said += data
        if b"\n" in self.said and not self.ready.called:
            self.ready.callback(self.said.decode().strip())

    def errReceived(self, data: bytes) -> None:
        """Stderr."""
        self.complained += data

    def processEnded(self, reason: Failure) -> None:
        """The end."""
        if not self.ready.called:
            self.ready.errback(RuntimeError(self.complained.decode()))
        self.ended.callback(reason.value if reason.value is not None else RuntimeError())


class ProcessTests(TestCase):
    """One process, from its first line to SIGTERM."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    async def test_life(self) -> None:
        """It says where it listens, answers, can refuse connections, and ends by SIGTERM."""
        watched = Watched()
        secret = {"FJMCP_DEMO_CLIENT_SECRET": "gto_from-the-environment"}
        process: IProcessTransport = self.reactor.spawnProcess(
            watched,
            sys.executable,
            [sys.executable, "-W", "error", "-m", "fjmcp.demo.forge", "--listen", "127.0.0.1:0"],
            env={**os.environ, **secret},
        )
        self.addCleanup(lambda: watched.ended)
        self.addCleanup(self.end, process)
        word, url = (await watched.ready).split()
        self.assertEqual(word, "ready")
        self.assertEqual(await self.ask("GET", f"{url}/api/v1/version"), 200)
        refuse = b'{"kind": "refuse", "seconds": 0.5}'
        self.assertEqual(await self.ask("POST", f"{url}/_demo/trouble", refuse), 200)
        with self.assertRaises(ConnectionRefusedError):
            await self.ask("GET", f"{url}/api/v1/version")
        await deferLater(self.reactor, 1.0)
        self.assertEqual(await self.ask("GET", f"{url}/api/v1/version"), 200)
        process.signalProcess("TERM")
        # a stop that was asked for is a success
        self.assertIsInstance(await watched.ended, ProcessDone)
        self.assertEqual(watched.complained, b"")

    def end(self, process: IProcessTransport) -> None:
        """End the process if it lives."""
        if process.pid is not None:
            process.signalProcess("KILL")

    async def ask(self, method: str, url: str, body: bytes = b"") -> int:
        """The status of one request."""
        response: IResponse = await Agent(self.reactor).request(
            method.encode(), url.encode(), Headers(), Body(body) if body else None
        )
        await content(response)
        status: int = response.code
        return status
