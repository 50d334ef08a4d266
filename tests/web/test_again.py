"""Calls whose child has crashed, and which of them are asked again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.testing.visitors import Visit
from tests.web.desk import Desk, error, result

TOOLS = {
    "tools": [
        {"name": "look", "annotations": {"readOnlyHint": True}},
        {"name": "change", "annotations": {"readOnlyHint": False}},
        {"name": "silent"},
    ]
}


class AgainTests(SynchronousTestCase):
    """A child that ends in the middle of a call."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.client = self.desk.client()
        self.client.initialize()
        listed = self.client.ask()
        self.desk.child.answer_last(TOOLS)
        self.assertEqual(listed.status, 200)

    def call(self, name: str) -> Visit:
        return self.client.ask("tools/call", {"name": name}, id=7)

    def crash(self) -> None:
        self.desk.children[-1].exit(1)
        self.desk.pass_time(0)

    def test_reading_tool(self) -> None:
        """A call of a tool that only reads is asked again, and its client sees nothing of it."""
        visit = self.call("look")
        self.crash()
        self.assertFalse(visit.answered)
        self.assertEqual(len(self.desk.children), 2)
        self.desk.children[-1].answer_last({"content": []})
        self.assertEqual(visit.json(), result({"content": []}, 7))

    def test_every_other_tool(self) -> None:
        """A call that may have written is not asked again; its client hears that it is unknown."""
        for name in ("change", "silent", "never listed"):
            visit = self.call(name)
            self.crash()
            self.assertEqual(visit.json(), error(refusals.CHILD_CRASHED, 7), name)

    def test_large_calls(self) -> None:
        """What is large is not kept until its answer, and so not asked again."""
        for size, asked in ((limits.ASKED_AGAIN - 100, True), (limits.ASKED_AGAIN, False)):
            visit = self.client.ask("tools/call", {"name": "look", "pad": "x" * size}, id=7)
            (call,) = self.desk.endpoint._calls.values()
            self.assertEqual(len(call.asked._request.params) > 100, asked)
            self.crash()
            self.assertEqual(visit.answered, not asked)
            self.desk.children[-1].answer_last({"content": []})
            expected = result({"content": []}, 7) if asked else error(refusals.CHILD_CRASHED, 7)
            self.assertEqual(visit.json(), expected)

    def test_once(self) -> None:
        """A second crash is the end of it."""
        visit = self.call("look")
        self.crash()
        self.crash()
        self.assertEqual(visit.json(), error(refusals.CHILD_CRASHED, 7))
        self.assertEqual(len(self.desk.children), 2)

    def test_client_has_heard(self) -> None:
        """A call of whose answer the client has heard something is not asked again."""
        visit = self.client.ask(
            "tools/call", {"name": "look", "_meta": {"progressToken": "p"}}, id=7
        )
        child = self.desk.children[-1]
        number = child.heard[-1]["params"]["_meta"]["progressToken"]
        child.say(
            {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": number, "progress": 1},
            }
        )
        self.crash()
        self.assertEqual(len(self.desk.children), 1)
        self.assertIn(refusals.CHILD_CRASHED.message.encode(), visit.body)

    def test_client_left(self) -> None:
        """Nothing is asked again for a client that is gone."""
        self.call("look").leave()
        self.crash()
        self.assertEqual(len(self.desk.children), 1)

    def test_cancelled_then(self) -> None:
        """A cancellation reaches the child that has the call then."""
        self.call("look")
        self.crash()
        self.client.tell("notifications/cancelled", {"requestId": 7})
        self.assertIn("notifications/cancelled", self.desk.children[-1].methods())
