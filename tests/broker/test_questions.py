"""Tests for `fjmcp.broker.questions`; `tests/web/test_questions.py` has the whole way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.questions import Questions
from fjmcp.mcp.conversation import Conversation, Question, Withdrawn
from fjmcp.mcp.wire import Notice, Reply, Request
from fjmcp.refusals import (
    CHILD_CRASHED,
    NO_QUESTIONS,
    QUESTION_UNANSWERED,
    QUESTION_UNHEARD,
    TOO_MANY_QUESTIONS,
    McpRefusal,
)


class QuestionsTests(SynchronousTestCase):
    """Between a child and a client that are lists."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.conversation = Conversation("q")
        self.child: list[Any] = []
        self.client: list[Any] = []
        self.listens = True
        self.at_once: Callable[[Any], object] = lambda message: None
        self.settled = 0
        self.questions = self.make(None)
        self.addCleanup(self.leave_nothing)

    def make(self, closed: McpRefusal | None) -> Questions:
        return Questions(
            self.conversation,
            self.clock,
            self.tell_child,
            self.tell_client,
            self.count,
            closed,
        )

    def leave_nothing(self) -> None:
        self.questions.close(CHILD_CRASHED)
        self.assertEqual((len(self.questions), self.clock.getDelayedCalls()), (0, []))

    def tell_child(self, line: bytes) -> bool:
        self.child.append(json.loads(line))
        return True

    def tell_client(self, line: bytes) -> bool:
        if self.listens:
            self.client.append(json.loads(line))
            self.at_once(self.client[-1])
        return self.listens

    def count(self) -> None:
        self.settled += 1

    def ask(self, id: int = 1) -> None:
        self.questions.ask(Question(Request(b"%d" % id, "roots/list", b'{"x":1}')))

    def answer(self, id: str, result: bytes = b"{}") -> bool:
        return self.questions.answer(Reply(b'"%b"' % id.encode(), result))

    def assertRefused(self, refusal: McpRefusal, id: int = 1) -> None:
        """The child was answered once, with this."""
        told = {"code": refusal.code, "message": refusal.message}
        self.assertEqual(self.child, [{"jsonrpc": "2.0", "id": id, "error": told}])

    def test_answered(self) -> None:
        """The child gets the answer under its own id, once."""
        self.ask()
        (asked,) = self.client
        self.assertEqual((asked["id"], asked["params"], len(self.questions)), ("q.1", {"x": 1}, 1))
        self.assertTrue(self.answer("q.1", b'{"y":2}'))
        self.assertFalse(self.answer("q.1"))
        self.assertEqual(self.child, [{"jsonrpc": "2.0", "id": 1, "result": {"y": 2}}])
        self.assertEqual(self.settled, 1)

    def test_answered_at_once(self) -> None:
        """It may be answered while it is being told, and nothing waits then."""
        self.at_once = lambda message: self.answer(message["id"])
        self.ask()
        self.assertEqual((self.child[0]["result"], self.settled, len(self.child)), ({}, 1, 1))
        self.assertEqual((len(self.questions), self.clock.getDelayedCalls()), (0, []))

    def test_unheard(self) -> None:
        """Where there is no stream the child is told so, and nothing waits."""
        self.listens = False
        self.ask()
        self.assertRefused(QUESTION_UNHEARD)
        self.assertFalse(self.answer("q.1"))
        self.assertEqual((len(self.questions), self.clock.getDelayedCalls()), (0, []))

    def test_nobody_to_ask(self) -> None:
        """A child that is shared hears at once that it cannot ask; a ping is answered."""
        self.questions = self.make(NO_QUESTIONS)
        self.ask()
        self.assertRefused(NO_QUESTIONS)
        self.questions.ask(Question(Request(b'"p"', "ping")))
        self.assertEqual(self.child[1], {"jsonrpc": "2.0", "id": "p", "result": {}})
        self.assertEqual(self.client, [])

    def test_unanswered(self) -> None:
        """After QUESTION seconds: an error for the child, a cancellation for the client."""
        self.ask()
        self.clock.advance(limits.QUESTION)
        self.assertRefused(QUESTION_UNANSWERED)
        told = {"requestId": "q.1", "reason": QUESTION_UNANSWERED.reason}
        self.assertEqual(self.client[1]["params"], told)
        self.assertEqual(self.client[1]["method"], "notifications/cancelled")
        self.assertFalse(self.answer("q.1"))

    def test_closed(self) -> None:
        """All that is open is refused, each once, and so is what comes after."""
        for id in range(3):
            self.ask(id)
        self.answer("q.2")
        self.questions.close(CHILD_CRASHED)
        self.questions.close(CHILD_CRASHED)
        self.ask(3)
        self.assertEqual([told["id"] for told in self.child], [1, 0, 2, 3])
        self.assertEqual(
            [told["params"].get("requestId") for told in self.client[3:]], ["q.1", "q.3"]
        )
        self.assertEqual(self.settled, 3)

    def test_withdrawn(self) -> None:
        """The client is told, the child is not answered."""
        self.ask()
        heard = self.conversation.hear(Notice("notifications/cancelled", b'{"requestId":1}'))
        assert isinstance(heard, Withdrawn)
        self.questions.withdraw(heard)
        self.assertEqual(self.client[1]["params"], {"requestId": "q.1"})
        self.assertFalse(self.answer("q.1"))
        self.assertEqual(self.child, [])

    def test_too_many(self) -> None:
        """Past QUESTIONS of them the child is refused until one has ended."""
        for id in range(limits.QUESTIONS + 1):
            self.ask(id)
        self.assertRefused(TOO_MANY_QUESTIONS, limits.QUESTIONS)
        self.answer("q.1")
        self.ask(99)
        self.assertEqual((len(self.child), len(self.questions)), (2, limits.QUESTIONS))
