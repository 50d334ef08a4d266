"""Tests for `fjmcp.broker.links`, with children in memory."""

from __future__ import annotations

import json
from signal import SIGKILL
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.broker.links import Link, Phase
from fjmcp.children.launch import Launcher
from fjmcp.children.process import End
from fjmcp.children.profiles import command_for, recipe_for
from fjmcp.mcp.opening import PLAIN, Opened
from fjmcp.mcp.wire import Notice, Request
from fjmcp.refusals import McpRefusal
from fjmcp.testing.children import INITIALIZED, FakeChild, Mind
from fjmcp.testing.reactor import FakeReactor


@define(eq=False)
class Answers:
    """An asker that keeps what it hears."""

    news: list[Any] = field(factory=list)
    replies: list[Any] = field(factory=list)
    chokes: bool = False
    deaf: bool = False

    def said(self, line: bytes) -> bool:
        if not self.deaf:
            self.news.append(json.loads(line))
        return not self.deaf

    def answered(self, line: bytes) -> None:
        self.replies.append(json.loads(line))
        if self.chokes:
            raise RuntimeError("choked")


@define
class Owner:
    """Hears of links."""

    gone: list[tuple[Link, End]] = field(factory=list)
    asides: list[Notice] = field(factory=list)
    stream: list[Any] | None = None
    """What was told to the stream of the session; None while there is none."""

    def link_ended(self, link: Link, end: End) -> None:
        self.gone.append((link, end))

    def link_said(self, link: Link, notice: Notice) -> None:
        self.asides.append(notice)

    def link_tells(self, link: Link, line: bytes) -> bool:
        if self.stream is not None:
            self.stream.append(json.loads(line))
        return self.stream is not None


def call(name: str = "echo", id: bytes = b'"c1"', meta: str = "") -> Request:
    """A client's tool call."""
    return Request(id, "tools/call", f'{{"name":"{name}"{meta}}}'.encode())


class LinkCase(SynchronousTestCase):
    """A link in memory."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.owner = Owner()
        self.link = self.make()

    def make(self) -> Link:
        return Link.to(
            Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg),
            command_for(
                recipe_for(["/opt/forgejo-mcp"]),
                url="u",
                token="t" * 20,
                user_agent="a",
                inherited={},
            ),
            grant_id="g1",
            account_id=1,
            opening=PLAIN,
            version=1,
            expires_at=1e9,
            hearer=self.owner,
            clock=self.reactor,
        )

    def begin(self) -> Deferred[Opened | McpRefusal]:
        return Deferred.fromCoroutine(self.link.start("1.2", 20.0))

    def start(self) -> FakeChild:
        started = self.begin()
        self.reactor.turn()
        self.assertIsInstance(self.successResultOf(started), Opened)
        return self.reactor.children[-1]

    def ask(self, request: Request | None = None) -> tuple[int, Answers]:
        asker = Answers()
        number = self.link.ask(request or call(), asker)
        self.reactor.turn()
        return number, asker

    def assertRefused(self, asker: Answers, refusal: McpRefusal, id: str = "c1") -> None:
        """The asker has one answer: the refusal, under its own id."""
        self.assertEqual(
            asker.replies,
            [
                {
                    "jsonrpc": "2.0",
                    "id": id,
                    "error": {"code": refusal.code, "message": refusal.message},
                }
            ],
        )


class StartTests(LinkCase):
    """From nothing to an open link."""

    def test_told_the_opening(self) -> None:
        """The child gets initialize as fjmcp, then notifications/initialized, then calls."""
        child = self.start()
        self.assertEqual(child.methods(), ["initialize", "notifications/initialized"])
        params = child.heard[0]["params"]
        self.assertEqual(params["clientInfo"], {"name": "fjmcp", "version": "1.2"})
        self.assertEqual(params["protocolVersion"], "2025-11-25")
        self.assertEqual(self.link.opened.server_name, "fake")
        self.assertEqual(self.link.phase, Phase.OPEN)
        self.assertEqual(self.link.in_flight, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_opened_only_when_started(self) -> None:
        """To ask for the answer of a child that gave none is a fault of ours."""
        with self.assertRaises(RuntimeError):
            self.link.opened

    def refused(self, started: Deferred[Opened | McpRefusal], refusal: McpRefusal) -> None:
        self.assertIs(self.successResultOf(started), refusal)
        self.reactor.turn()
        self.assertEqual(self.reactor.alive, [])
        self.assertEqual(len(self.owner.gone), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_hangs(self) -> None:
        """A child that says nothing within the limit is killed, and the asker told why."""
        self.reactor.mind = lambda child, message: None
        started = self.begin()
        self.reactor.advance(19.9)
        self.assertNoResult(started)
        self.reactor.advance(0.1)
        self.assertEqual(self.reactor.children[0].signals, [SIGKILL])
        self.refused(started, refusals.CHILD_START_SLOW)

    def test_exits(self) -> None:
        """A child that ends at its start is told from a missing one."""
        for code, refusal in ((1, refusals.CHILD_START_FAILED), (127, refusals.CHILD_MISSING)):
            started = self.begin()
            self.reactor.children[-1].exit(code)
            self.refused(started, refusal)
            self.setUp()

    def test_cannot_be_spawned(self) -> None:
        """No process to be had is a refusal, not an exception."""
        self.reactor.fails = BlockingIOError(11, "no more processes")
        started = self.begin()
        self.assertIs(self.successResultOf(started), refusals.CHILD_START_FAILED)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def always(self, answer: dict[str, Any]) -> Mind:
        return lambda child, message: child.say(
            {"jsonrpc": "2.0", "id": message.get("id"), **answer}
        )

    def test_strange_answers(self) -> None:
        """An error, a result that is none, a revision we have not: killed and refused."""
        strange: list[dict[str, Any]] = [
            {"error": {"code": -1, "message": "no"}},
            {"result": []},
            {"result": {**INITIALIZED, "protocolVersion": "1999-01-01"}},
            {"id": None, "error": {"code": -32700, "message": "what?"}},
        ]
        for answer in strange:
            self.reactor.mind = self.always(answer)
            started = self.begin()
            self.reactor.turn()
            self.refused(started, refusals.CHILD_START_FAILED)
            self.setUp()

    def test_questions_before_the_answer(self) -> None:
        """A child may ping before it answers initialize."""
        self.reactor.mind = lambda child, message: None
        started = self.begin()
        self.reactor.turn()
        (child,) = self.reactor.children
        child.say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        self.reactor.turn()
        self.assertEqual(child.heard[-1], {"jsonrpc": "2.0", "id": "p", "result": {}})
        child.answer(child.heard[0]["id"], INITIALIZED)
        self.assertIsInstance(self.successResultOf(started), Opened)

    def test_killed_while_it_starts(self) -> None:
        """Its grant ends: the start ends with that refusal."""
        self.reactor.mind = lambda child, message: None
        started = self.begin()
        self.link.kill(refusals.GRANT_ENDED)
        self.refused(started, refusals.GRANT_ENDED)


class CallTests(LinkCase):
    """Requests and their answers."""

    def test_ids_of_clients_do_not_meet(self) -> None:
        """Two clients use one id; each gets its own answer, whichever comes first."""
        child = self.start()
        _, one = self.ask(call("one"))
        _, two = self.ask(call("two"))
        self.assertEqual(self.link.in_flight, 2)
        first, second = child.heard[-2:]
        self.assertNotEqual(first["id"], second["id"])
        child.answer(second["id"], {"of": "two"})
        child.answer(first["id"], {"of": "one"})
        self.assertEqual(two.replies, [{"jsonrpc": "2.0", "id": "c1", "result": {"of": "two"}}])
        self.assertEqual(one.replies, [{"jsonrpc": "2.0", "id": "c1", "result": {"of": "one"}}])
        self.assertEqual(self.link.in_flight, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_progress(self) -> None:
        """News of a call go to its asker alone, under the client's token."""
        child = self.start()
        _, other = self.ask()
        _, asker = self.ask(call(meta=',"_meta":{"progressToken":"mine"}'))
        token = child.heard[-1]["params"]["_meta"]["progressToken"]
        child.say(
            {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1},
            }
        )
        self.assertEqual(asker.news[0]["params"], {"progressToken": "mine", "progress": 1})
        self.assertEqual(other.news, [])

    def test_idle_since(self) -> None:
        """It is idle since its last call ended."""
        child = self.start()
        self.reactor.advance(5)
        self.ask()
        self.reactor.advance(5)
        child.answer_last({})
        self.reactor.advance(5)
        self.assertEqual(self.link.idle_since, 10.0)

    def test_asker_that_leaves(self) -> None:
        """The call goes on and is in flight; its answer is heard by nobody."""
        child = self.start()
        number, asker = self.ask()
        self.link.leave(number)
        self.assertEqual(self.link.in_flight, 1)
        child.answer_last({})
        self.assertEqual(asker.replies, [])
        self.assertEqual(self.link.in_flight, 0)
        self.link.leave(number)

    def test_asker_that_chokes(self) -> None:
        """A fault of one asker costs no other its answer."""
        child = self.start()
        asker = Answers(chokes=True)
        self.link.ask(call("one"), asker)
        _, other = self.ask(call("two"))
        child.exit(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertRefused(other, refusals.CHILD_CRASHED)

    def test_crash(self) -> None:
        """Each asker is told once that the outcome is unknown; then the owner hears."""
        child = self.start()
        askers = [self.ask()[1] for _ in range(3)]
        child.exit(0, SIGKILL)
        for asker in askers:
            self.assertRefused(asker, refusals.CHILD_CRASHED)
            self.assertIn("unknown", asker.replies[0]["error"]["message"])
        self.assertEqual([end.signal for _, end in self.owner.gone], [SIGKILL])
        self.assertEqual(self.link.phase, Phase.ENDED)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_deadline(self) -> None:
        """A call without an answer ends by our limit; the child is told; a late answer is lost."""
        child = self.start()
        _, asker = self.ask()
        self.reactor.advance(limits.CALL - 1)
        self.assertEqual(asker.replies, [])
        self.reactor.advance(1)
        self.assertRefused(asker, refusals.CALL_TOO_LONG)
        self.reactor.turn()
        self.assertEqual(child.methods()[-1], "notifications/cancelled")
        child.answer_last({})
        self.assertEqual(len(asker.replies), 1)
        self.assertEqual(self.link.in_flight, 0)

    def test_cancel_with_an_answer(self) -> None:
        """The child is told its own number; if it answers all the same, that is the answer."""
        child = self.start()
        number, asker = self.ask()
        self.link.cancel(number, b'{"requestId":"c1","reason":"bored"}')
        self.reactor.turn()
        self.assertEqual(
            child.heard[-1]["params"], {"requestId": child.heard[-2]["id"], "reason": "bored"}
        )
        child.answer_last({"done": True})
        self.assertEqual(asker.replies[0]["result"], {"done": True})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancel_without_an_answer(self) -> None:
        """A child that gives none, as it should: an error comes soon, however often one asks."""
        child = self.start()
        number, asker = self.ask()
        self.link.cancel(number)
        self.reactor.advance(limits.CANCELLED_CALL / 2)
        self.link.cancel(number)
        self.reactor.advance(limits.CANCELLED_CALL / 2)
        self.assertRefused(asker, refusals.CALL_CANCELLED)
        self.assertEqual(child.methods().count("notifications/cancelled"), 1)
        self.link.cancel(number)
        self.assertEqual(self.link.in_flight, 0)

    def test_ask_when_it_is_gone(self) -> None:
        """A link that takes nothing says so, after `ask` returned, and only once."""
        child = self.start()
        child.exit(1)
        asker = Answers()
        self.link.ask(call(), asker)
        self.assertEqual(asker.replies, [])
        self.reactor.turn()
        self.assertRefused(asker, refusals.CHILD_BUSY)

    def test_ask_a_child_that_does_not_read(self) -> None:
        """Past the bound of what it left unread, a request is refused, not kept."""
        child = self.start()
        child.reads = False
        big = Request(b'"c1"', "tools/call", b'{"x":"' + b"y" * (8 * 1024 * 1024) + b'"}')
        askers = [self.ask(big)[1] for _ in range(8)]
        self.assertRefused(askers[-1], refusals.CHILD_BUSY)
        self.assertEqual(askers[0].replies, [])

    def test_error_without_id(self) -> None:
        """forgejo-mcp answers a panic so: it ends the call if there is just one."""
        child = self.start()
        _, asker = self.ask()
        error = {"code": -32603, "message": "panic"}
        child.say({"jsonrpc": "2.0", "id": None, "error": error})
        self.assertEqual(asker.replies, [{"jsonrpc": "2.0", "id": "c1", "error": error}])
        _, one = self.ask()
        _, two = self.ask()
        child.say({"jsonrpc": "2.0", "id": None, "error": error})
        self.assertEqual((one.replies, two.replies), ([], []))

    def test_lost_line(self) -> None:
        """An answer that is too long for us is an error to the only call in flight."""
        child = self.start()
        self.link._child._lines.limit = 1000
        _, asker = self.ask()
        child.answer_last({"text": "x" * 2000})
        self.assertRefused(asker, refusals.CHILD_UNREADABLE)

    def test_answer_that_nests_too_deeply(self) -> None:
        """So is one that no parser goes through."""
        child = self.start()
        _, asker = self.ask()
        child.say(b'{"jsonrpc":"2.0","id":2,"result":' + b"[" * 9000 + b"]" * 9000 + b"}\n")
        self.assertRefused(asker, refusals.CHILD_UNREADABLE)


class SaidTests(LinkCase):
    """What a child says that answers nobody."""

    def test_questions(self) -> None:
        """Its ping is answered, other questions are refused: a shared child asks nobody."""
        child = self.start()
        _, asker = self.ask()
        child.say(
            {"jsonrpc": "2.0", "id": 1, "method": "ping"},
            {"jsonrpc": "2.0", "id": 2, "method": "sampling/createMessage", "params": {}},
        )
        self.reactor.turn()
        self.assertEqual(child.heard[-2], {"jsonrpc": "2.0", "id": 1, "result": {}})
        self.assertEqual(child.heard[-1]["error"]["code"], -32601)
        self.assertEqual((asker.news, asker.replies), ([], []))

    def test_asides(self) -> None:
        """Its notices go to the owner."""
        child = self.start()
        child.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        self.assertEqual(self.owner.asides, [Notice("notifications/tools/list_changed")])

    def test_garbage(self) -> None:
        """What is no message disturbs nothing."""
        child = self.start()
        _, asker = self.ask()
        child.say(b"\x00\xff\n", b"hello\n", b"[]\n", b"[{}]\n", b'{"jsonrpc":"2.0"}\n')
        child.say({"jsonrpc": "2.0", "id": 4711, "result": {}})
        child.answer_last({})
        self.assertEqual(len(asker.replies), 1)


class DrainTests(LinkCase):
    """Taken away."""

    def drain(self, limit: float) -> Deferred[End]:
        drained = Deferred.fromCoroutine(self.link.drain(limit))
        self.reactor.turn()
        return drained

    def test_idle(self) -> None:
        """With nothing in flight the child ends at once."""
        self.start()
        self.assertEqual(self.successResultOf(self.drain(20)).code, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_waits_for_calls(self) -> None:
        """Calls in flight are answered, nothing more is taken, then the child ends."""
        child = self.start()
        _, asker = self.ask()
        drained = self.drain(20)
        self.assertFalse(self.link.usable)
        _, late = self.ask(call(id=b'"late"'))
        self.assertRefused(late, refusals.CHILD_BUSY, "late")
        self.assertNoResult(drained)
        child.answer_last({"ok": 1})
        self.reactor.turn()
        self.assertEqual(asker.replies[0]["result"], {"ok": 1})
        self.assertEqual(self.successResultOf(drained).code, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_limit(self) -> None:
        """A call that takes longer is told that its outcome is unknown."""
        self.start()
        _, asker = self.ask()
        drained = self.drain(20)
        self.reactor.advance(20)
        self.reactor.turn()
        self.assertRefused(asker, refusals.CHILD_DRAINED)
        self.assertEqual(self.successResultOf(drained).code, 0)

    def test_twice(self) -> None:
        """The shorter limit holds: a stop does not wait for a replacement's drain."""
        self.start()
        _, asker = self.ask()
        first, second = self.drain(20), self.drain(1)
        self.reactor.advance(1)
        self.reactor.turn()
        self.assertRefused(asker, refusals.CHILD_DRAINED)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_crash_while_draining(self) -> None:
        """A child that crashes meanwhile ends the drain."""
        child = self.start()
        _, asker = self.ask()
        drained = self.drain(20)
        child.exit(3)
        self.assertRefused(asker, refusals.CHILD_CRASHED)
        self.assertEqual(self.successResultOf(drained).code, 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancel_while_draining(self) -> None:
        """A draining child still hears that a call of its is cancelled."""
        child = self.start()
        number, _ = self.ask()
        self.drain(20)
        self.link.cancel(number)
        self.reactor.turn()
        self.assertEqual(child.methods()[-1], "notifications/cancelled")
        child.exit(0)

    def test_kill(self) -> None:
        """Calls end with the reason, the child at once."""
        child = self.start()
        _, asker = self.ask()
        ended = self.link.kill(refusals.GRANT_ENDED)
        self.assertRefused(asker, refusals.GRANT_ENDED)
        self.assertEqual(child.signals, [SIGKILL])
        self.reactor.turn()
        self.assertEqual(self.successResultOf(ended).signal, SIGKILL)
