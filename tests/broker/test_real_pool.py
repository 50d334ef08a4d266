"""The pool over real processes: the small child of `tests.children`."""

from __future__ import annotations

import os
from signal import SIGKILL
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from fjmcp import refusals
from fjmcp.broker.links import Link
from fjmcp.broker.pool import Bounds, Pool
from fjmcp.children.launch import Launcher, confinement
from fjmcp.children.profiles import Command, command_for, recipe_for
from fjmcp.mcp.opening import PLAIN
from fjmcp.mcp.wire import Request
from fjmcp.refusals import McpRefusal
from tests.broker.test_links import Answers
from tests.broker.test_pool import Caller, Credential, Credentials
from tests.children.test_real_process import SMALL, alive, deferred


class RealPoolTests(TestCase):
    """Promises that only real processes can break."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.credentials = Credentials()
        self.mode = "normal"
        self.program: tuple[str, ...] = SMALL
        self.pool: Pool[Credential] = Pool(
            launcher=Launcher(self.reactor, confinement()),
            command_for=self.command_for,
            credentials=self.credentials,
            clock=self.reactor,
            version="1",
            bounds=Bounds(start=1.0),
        )
        self.seen: list[int] = []
        self.pool.on_link_ended = self.remember
        self.addCleanup(self.leave_nothing)

    @deferred
    async def leave_nothing(self) -> None:
        """No test leaves a process behind."""
        await self.pool.stop(0)
        for pid in self.seen:
            self.assertFalse(alive(pid))

    def remember(self, link: Link) -> None:
        if link.pid is not None:
            self.seen.append(link.pid)

    def command_for(self, credential: Credential) -> Command:
        return command_for(
            recipe_for((*self.program, self.mode), {"TOKEN": "{token}"}),
            url="u",
            token=f"secret-token-{credential.version}",
            user_agent="a",
            inherited={"PATH": os.environ["PATH"]},
        )

    async def link(self, grant: str = "g1") -> Link:
        link = await self.pool.link_for(Caller(grant), PLAIN)
        assert isinstance(link, Link), link
        return link

    async def refusal(self) -> McpRefusal:
        refusal = await self.pool.link_for(Caller(), PLAIN)
        assert isinstance(refusal, McpRefusal)
        return refusal

    async def answer(self, asker: Answers) -> Any:
        while not asker.replies:
            await deferLater(self.reactor, 0.01, lambda: None)
        return asker.replies[0]

    def call(self, link: Link, name: str) -> Answers:
        asker = Answers()
        link.ask(Request(b'"c1"', "tools/call", b'{"name":"%b"}' % name.encode()), asker)
        return asker

    @deferred
    async def test_call(self) -> None:
        """A call is answered, the child's token blanked in the answer."""
        link = await self.link()
        self.assertEqual(link.opened.server_version, "normal")
        answer = await self.answer(self.call(link, "echo-token"))
        self.assertEqual(answer["error"]["message"], "does not exist [sha: [blanked]]")

    @deferred
    async def test_crash_in_mid_call(self) -> None:
        """Every asker is told that the outcome is unknown; the next request gets a new child."""
        link = await self.link()
        askers = [self.call(link, name) for name in ("slow", "crash", "echo")]
        answers = [await self.answer(asker) for asker in askers]
        self.assertEqual(answers[0]["result"], {"text": "slow"})
        for answer in answers[1:]:
            self.assertEqual(answer["error"]["message"], refusals.CHILD_CRASHED.message)
        self.assertNotEqual((await self.link()).pid, link.pid)

    @deferred
    async def test_bad_starts(self) -> None:
        """Missing, failing, hanging: each its refusal, no process left, the pool goes on."""
        for mode, refusal in (
            ("exit-1", refusals.CHILD_START_FAILED),
            ("hang", refusals.CHILD_START_SLOW),
        ):
            self.mode = mode
            self.assertIs(await self.refusal(), refusal)
            self.credentials.renew()
        self.program = ("/nonexistent/forgejo-mcp",)
        self.assertIs(await self.refusal(), refusals.CHILD_MISSING)
        self.credentials.renew()
        self.program, self.mode = SMALL, "normal"
        await self.link()

    @deferred
    async def test_end_grant(self) -> None:
        """The calls of the grant end at once and its child with them, even a stubborn one."""
        self.mode = "stubborn"
        link = await self.link()
        self.mode = "normal"
        other = await self.link("g2")
        asker = self.call(link, "never")
        before = self.reactor.seconds()
        await self.pool.end_grant("g1", refusals.GRANT_ENDED)
        self.assertLess(self.reactor.seconds() - before, 2)
        self.assertEqual(asker.replies[0]["error"]["message"], refusals.GRANT_ENDED.message)
        assert link.pid is not None
        self.assertFalse(alive(link.pid))
        self.assertEqual((await self.answer(self.call(other, "echo")))["result"], {"text": "echo"})

    @deferred
    async def test_replace(self) -> None:
        """A newer credential: the successor answers, the old child ends its call and goes."""
        old = await self.link()
        asker = self.call(old, "slow")
        self.credentials.renew()
        new = await self.link()
        self.assertNotEqual(new.pid, old.pid)
        self.assertEqual((await self.answer(asker))["result"], {"text": "slow"})
        end = await old.gone()
        self.assertEqual((end.code, end.signal), (0, None))

    @deferred
    async def test_stop(self) -> None:
        """A stop lets a call end, and leaves nothing."""
        links = [await self.link(grant) for grant in ("g1", "g2", "g3")]
        asker = self.call(links[0], "slow")
        await self.pool.stop(5.0)
        self.assertEqual(asker.replies[0]["result"], {"text": "slow"})
        self.assertEqual(len(self.seen), 3)
        self.assertIs(await self.refusal(), refusals.SHUTTING_DOWN)

    @deferred
    async def test_killed_from_outside(self) -> None:
        """Somebody kills the child: known at once, and the next request gets another."""
        link = await self.link()
        assert link.pid is not None
        gone: Deferred[Any] = link.gone()
        os.kill(link.pid, SIGKILL)
        self.assertEqual((await gone).signal, SIGKILL)
        self.assertIsNone(self.pool.find(Caller(), PLAIN))
        await self.link()
