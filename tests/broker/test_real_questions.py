"""Questions of real processes: the asking child of `tests.children`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from fjmcp.broker.links import Link
from fjmcp.broker.pool import Pool
from fjmcp.children.launch import Launcher, confinement
from fjmcp.children.profiles import Command, command_for, recipe_for
from fjmcp.mcp.opening import Opening
from fjmcp.mcp.wire import Reply, Request, read_line
from fjmcp.refusals import UNKNOWN_SESSION
from tests.broker.test_pool import Caller, Credential, Credentials
from tests.children.test_real_process import HERE, deferred

ASKING = Opening("2025-11-25", b'{"roots":{},"sampling":{}}')


@define(eq=False)
class Person:
    """The client of one session: it answers whatever it is asked, with its name."""

    name: str
    answer: Callable[[Reply], bool]
    heard: list[Any] = field(factory=list)
    replies: list[Any] = field(factory=list)

    def said(self, line: bytes) -> bool:
        message = json.loads(line)
        self.heard.append(message)
        if "id" in message:
            result = json.dumps({"of": self.name, "to": message["method"]}).encode()
            self.answer(Reply(json.dumps(message["id"]).encode(), result))
        return True

    def answered(self, line: bytes) -> None:
        self.replies.append(read_line(line))


class RealQuestionsTests(TestCase):
    """What passes between a process and the session whose own child it is."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.credentials = Credentials()
        self.pool: Pool[Credential] = Pool(
            launcher=Launcher(self.reactor, confinement()),
            command_for=self.command_for,
            credentials=self.credentials,
            clock=self.reactor,
            version="1",
        )
        self.addCleanup(deferred(self.stop))

    async def stop(self) -> None:
        await self.pool.stop(0)

    def command_for(self, credential: Credential) -> Command:
        return command_for(
            recipe_for(
                (sys.executable, "-S", "-E", str(HERE / "asking_child.py")), {"TOKEN": "{token}"}
            ),
            url="u",
            token=f"secret-token-{credential.version}",
            user_agent="a",
            inherited={"PATH": os.environ["PATH"]},
        )

    async def link(self, owner: bytes, opening: Opening = ASKING) -> Link:
        link = await self.pool.link_for(Caller(), opening, owner)
        assert isinstance(link, Link), link
        return link

    def call(self, link: Link, name: str, person: str = "somebody") -> Person:
        asker = Person(person, link.answer)
        link.ask(Request(b'"c1"', "tools/call", b'{"name":"%b"}' % name.encode()), asker)
        return asker

    async def result(self, person: Person) -> Any:
        while not person.replies:
            await deferLater(self.reactor, 0.01, lambda: None)
        (reply,) = person.replies
        self.assertEqual(reply.id, b'"c1"')
        return json.loads(reply.result)

    @deferred
    async def test_questions(self) -> None:
        """Two children ask under equal ids at one time: each hears the client of its session."""
        links = [await self.link(b"one"), await self.link(b"two")]
        self.assertNotEqual(links[0].pid, links[1].pid)
        people = [self.call(link, "consult", f"p{n}") for n, link in enumerate(links)]
        for n, person in enumerate(people):
            self.assertEqual(
                await self.result(person),
                {
                    "roots": {"of": f"p{n}", "to": "roots/list"},
                    "sample": {"of": f"p{n}", "to": "sampling/createMessage"},
                },
            )
            methods = [message["method"] for message in person.heard]
            log = "notifications/message"
            self.assertEqual(methods, [log, "roots/list", "sampling/createMessage", log])
        ids = [message["id"] for person in people for message in person.heard if "id" in message]
        self.assertEqual(len(set(ids)), 4)
        self.assertTrue(all(link.idle for link in links))

    @deferred
    async def test_successor(self) -> None:
        """A successor is told the level before it is asked anything."""
        opening = evolve(ASKING, log_level="debug")
        link = await self.link(b"one", opening)
        self.assertEqual(await self.result(self.call(link, "level")), {"level": "debug"})
        link.catch_up(evolve(ASKING, log_level="error"))
        self.assertEqual(await self.result(self.call(link, "level")), {"level": "error"})
        self.credentials.renew()
        successor = await self.link(b"one", link.opening)
        self.assertNotEqual(successor.pid, link.pid)
        self.assertEqual(await self.result(self.call(successor, "level")), {"level": "error"})

    @deferred
    async def test_end_of_session(self) -> None:
        """A session that ends while its child waits: the call ends, and the child by itself."""
        link = await self.link(b"one")
        person = self.call(link, "consult")
        person.answer = lambda reply: False
        while len(person.heard) < 2:
            await deferLater(self.reactor, 0.01, lambda: None)
        gone = link.gone()
        self.pool.end_session(b"one", UNKNOWN_SESSION)
        told = await self.result(person)
        self.assertEqual(told["roots"]["code"], UNKNOWN_SESSION.code)
        end = await gone
        self.assertEqual((end.code, end.signal), (0, None))
