"""Tests for `fjmcp.web.stream`: answers to calls, through the endpoint."""

from __future__ import annotations

import json

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.refusals import CHILD_CRASHED, CHILD_START_FAILED, CHILD_START_SLOW, GRANT_ENDED
from fjmcp.testing.children import FakeChild
from fjmcp.testing.visitors import Visit
from tests.web.desk import BOTH, Client, Desk, error, result

PROGRESS = "notifications/progress"


class StreamCase(SynchronousTestCase):
    """A client in a session."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.client = self.open()

    def open(self, account_id: int = 1, client_id: str = "c1") -> Client:
        client = self.desk.client(account_id, client_id)
        client.initialize()
        return client

    @property
    def child(self) -> FakeChild:
        return self.desk.child

    def progress(self, number: int = 2, done: int = 1) -> None:
        """The child tells how far request `number` of its own is."""
        params = {"progressToken": number, "progress": done}
        self.child.say({"jsonrpc": "2.0", "method": PROGRESS, "params": params})

    def follow(self, id: object = 1, **headers: str) -> Visit:
        """A call whose client wants to hear of its progress."""
        return self.client.ask("tools/call", {"_meta": {"progressToken": "p"}}, id, **headers)

    def assertStreams(self, visit: Visit) -> None:
        self.assertEqual((visit.status, visit.header("content-type")), (200, "text/event-stream"))
        self.assertEqual(visit.header("x-accel-buffering"), "no")
        self.assertEqual(visit.header("cache-control"), "no-store")
        self.assertTrue(visit.body.startswith(b":\n\n"))

    def assertJson(self, visit: Visit, answer: object) -> None:
        self.assertEqual((visit.status, visit.header("content-type")), (200, "application/json"))
        self.assertEqual((visit.json(), visit.ended), (answer, True))
        self.assertEqual(visit.header("content-length"), str(len(visit.body)))

    def heard(self, visit: Visit) -> list[object]:
        return [json.loads(event) for event in visit.events()]


class FormTests(StreamCase):
    """One JSON response, or a stream of events."""

    def test_soon(self) -> None:
        """An answer within JSON_ANSWER is one JSON response, and nothing comes before it."""
        for wait in (0.0, limits.JSON_ANSWER - 0.01):
            visit = self.client.ask()
            self.desk.pass_time(wait)
            self.assertEqual(visit.wire.value(), b"")
            self.child.answer_last({"tools": []})
            self.assertJson(visit, result({"tools": []}))

    def test_late(self) -> None:
        """After JSON_ANSWER it is a stream, which ends with the answer."""
        visit = self.client.ask()
        self.desk.pass_time(limits.JSON_ANSWER)
        self.assertStreams(visit)
        self.assertEqual((visit.events(), visit.ended), ([], False))
        self.child.answer_last({"tools": []})
        self.assertEqual((self.heard(visit), visit.ended), ([result({"tools": []})], True))

    def test_comments(self) -> None:
        """A silent stream gets a comment every STREAM_COMMENT, and none after its end."""
        visit = self.client.ask()
        self.desk.pass_time(limits.JSON_ANSWER)
        for count in range(1, 4):
            self.assertEqual(visit.body, b":\n\n" * count)
            self.desk.pass_time(limits.STREAM_COMMENT - 0.01)
            self.assertEqual(visit.body, b":\n\n" * count)
            self.desk.pass_time(0.01)
        self.child.answer_last({})
        before = visit.body
        self.desk.pass_time(2 * limits.STREAM_COMMENT)
        self.assertEqual(visit.body, before)

    def test_progress(self) -> None:
        """News of the call makes it a stream at once, with the client's own token."""
        visit = self.follow()
        self.assertFalse(visit.answered)
        self.progress()
        self.assertStreams(visit)
        self.progress(done=2)
        self.child.answer_last({})
        first, second, last = self.heard(visit)
        told = {"jsonrpc": "2.0", "method": PROGRESS}
        self.assertEqual(first, told | {"params": {"progressToken": "p", "progress": 1}})
        self.assertEqual(second, told | {"params": {"progressToken": "p", "progress": 2}})
        self.assertEqual((last, visit.ended), (result({}), True))

    def test_only_json(self) -> None:
        """Who does not take a stream waits as long as it takes, and hears no news."""
        for accept in ("application/json", "*/*", "application/*", BOTH + ";q=0"):
            visit = self.follow(accept=accept)
            self.progress(self.child.heard[-1]["id"])
            self.desk.pass_time(10 * limits.JSON_ANSWER)
            self.assertEqual(visit.wire.value(), b"", accept)
            self.child.answer_last({})
            self.assertJson(visit, result({}))

    def test_only_stream(self) -> None:
        """Who does not take JSON gets a stream at once, of an answer of ours too."""
        for accept in ("text/event-stream", "text/*", "application/json;q=0, text/event-stream"):
            visit = self.client.ask(accept=accept)
            self.assertStreams(visit)
            self.child.answer_last({})
            self.assertEqual((self.heard(visit), visit.ended), ([result({})], True))
            opened = self.client.initialize(accept=accept)
            for visit in (self.client.ask("ping", accept=accept), opened):
                self.assertEqual(visit.header("content-type"), "text/event-stream")
                ((answer,), whole) = self.heard(visit), visit.ended
                self.assertTrue(whole and isinstance(answer, dict) and "result" in answer)

    def test_time_begins_with_the_request(self) -> None:
        """While a child starts the client is not left without a word for longer."""
        other = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: None
        visit = other.ask()
        self.desk.pass_time(limits.JSON_ANSWER - 1)
        self.assertFalse(visit.answered)
        self.desk.pass_time(1)
        self.assertStreams(visit)
        self.child.answer_last({"protocolVersion": "2025-11-25", "capabilities": {}})
        self.desk.pass_time(0)
        self.child.answer_last({"tools": []})
        self.assertEqual((self.heard(visit), visit.ended), ([result({"tools": []})], True))

    def test_child_that_does_not_start(self) -> None:
        """Told as an HTTP error while there is time for it, else in the stream."""
        other = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: child.exit(1)
        visit = other.ask()
        self.assertEqual((visit.status, visit.json()), (503, error(CHILD_START_FAILED, 1)))
        self.assertEqual(visit.header("retry-after"), "30")
        third = self.desk.client(3)
        self.desk.reactor.mind = lambda child, message: None
        visit = third.ask()
        self.desk.pass_time(limits.CHILD_START)
        self.assertStreams(visit)
        self.assertEqual((self.heard(visit), visit.ended), ([error(CHILD_START_SLOW, 1)], True))
        self.desk.pass_time(10 * limits.STREAM_COMMENT)


class LeavingTests(StreamCase):
    """Clients that go before they are answered."""

    def test_call_goes_on(self) -> None:
        """The child is not told that the client is gone, and others hear their answers."""
        for progress in (False, True):
            visit, other = self.follow(1), self.follow(2)
            first, second = [message["id"] for message in self.child.heard[-2:]]
            if progress:
                self.progress(first)
            visit.leave()
            self.desk.pass_time(limits.JSON_ANSWER - 1)
            self.progress(first)
            self.child.answer(first, {"whose": 1})
            self.child.answer(second, {"whose": 2})
            self.assertJson(other, result({"whose": 2}, 2))
        self.assertNotIn("notifications/cancelled", self.child.methods())
        self.assertEqual([link.in_flight for link in self.desk.pool.links()], [0])
        self.assertFalse(self.child.over)

    def test_nothing_is_left_behind(self) -> None:
        """No timer, comment or deadline outlives the call of a client that left."""
        visit = self.client.ask()
        self.desk.pass_time(limits.JSON_ANSWER)
        visit.leave()
        self.child.answer_last({})
        self.desk.pass_time(0)
        self.assertEqual(self.desk.timers, [])

    def test_while_the_child_starts(self) -> None:
        """A call that was not made yet is not made; the child is there for the next."""
        other = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: None
        visit = other.ask()
        visit.leave()
        self.child.answer_last({"protocolVersion": "2025-11-25", "capabilities": {}})
        self.desk.pass_time(0)
        self.assertEqual(self.child.methods(), ["initialize", "notifications/initialized"])
        other.ask()
        self.assertEqual((len(self.desk.children), self.child.methods()[-1]), (2, "tools/list"))

    def test_cancelled_after_leaving(self) -> None:
        """A client whose time ran out closes, then cancels: the child is told."""
        visit = self.client.ask(id="c-7")
        visit.leave()
        self.client.tell("notifications/cancelled", {"requestId": "c-7", "reason": "too slow"})
        told = self.child.heard[-1]
        self.assertEqual(told["method"], "notifications/cancelled")
        self.assertEqual(told["params"], {"requestId": 2, "reason": "too slow"})


class EndTests(StreamCase):
    """Calls that end without the child's answer."""

    def test_crash(self) -> None:
        """Each call of a child that crashed gets an error that says what is unknown."""
        quick, slow = self.client.ask(id=1), self.client.ask(id=2, accept="text/event-stream")
        self.child.exit(2)
        self.assertJson(quick, error(CHILD_CRASHED, 1))
        self.assertEqual((self.heard(slow), slow.ended), ([error(CHILD_CRASHED, 2)], True))
        self.assertIn("unknown", CHILD_CRASHED.message)

    def test_after_a_crash(self) -> None:
        """The session goes on with a fresh child."""
        self.client.ask()
        self.child.exit(2)
        visit = self.client.ask(id=2)
        self.assertEqual(len(self.desk.children), 2)
        self.child.answer_last({})
        self.assertJson(visit, result({}, 2))

    def test_grant_ended(self) -> None:
        """Calls of an ended grant get their error at once; those of others go on."""
        other = self.open(client_id="c2")
        theirs = other.ask(id=9)
        theirs_child = self.child
        quick, slow = self.client.ask(id=1), self.client.ask(id=2, accept="text/event-stream")
        ended = self.desk.end(self.client)
        self.assertJson(quick, error(GRANT_ENDED, 1))
        self.assertEqual((self.heard(slow), slow.ended), ([error(GRANT_ENDED, 2)], True))
        self.assertNoResult(ended)
        self.desk.pass_time(0)
        self.successResultOf(ended)
        self.assertTrue(self.desk.children[0].over)
        self.assertFalse(theirs_child.over)
        theirs_child.answer_last({})
        self.assertJson(theirs, result({}, 9))

    def test_grant_ended_while_the_child_starts(self) -> None:
        """Who waits for a child is refused as without a token."""
        other = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: None
        visit = other.ask()
        ended = self.desk.end(other)
        self.assertEqual((visit.status, visit.json()), (401, error(GRANT_ENDED, 1)))
        self.desk.pass_time(0)
        self.successResultOf(ended)
        self.assertIn('error="invalid_token"', visit.header("www-authenticate") or "")


class SlowReaderTests(StreamCase):
    """Clients that do not read what they asked for."""

    LARGE = "x" * (limits.STREAM_BEHIND + 100_000)

    def test_large_answer(self) -> None:
        """A large answer arrives whole, as JSON and in a stream."""
        for accept in (BOTH, "text/event-stream"):
            visit = self.client.ask(accept=accept)
            self.child.answer_last({"text": self.LARGE})
            ((answer,), whole) = (
                (self.heard(visit), visit.ended)
                if accept != BOTH
                else ([visit.json()], visit.ended)
            )
            self.assertTrue(whole)
            self.assertEqual(answer, result({"text": self.LARGE}))

    def test_reads_on(self) -> None:
        """Who pauses and reads on gets the whole answer."""
        for accept in (BOTH, "text/event-stream"):
            visit = self.client.ask(accept=accept)
            visit.stop_reading()
            self.child.answer_last({"text": self.LARGE})
            self.desk.pass_time(limits.STREAM_STALL - 1)
            self.assertFalse(visit.answered and visit.ended, accept)
            self.assertLess(len(visit.wire.value()), 100_000)
            visit.read_on()
            self.assertTrue(visit.ended)
            self.assertIn(self.LARGE.encode(), visit.body)

    def test_stall(self) -> None:
        """Who takes nothing for STREAM_STALL is cut, with a reset; its call was made."""
        visit = self.client.ask()
        visit.stop_reading()
        self.child.answer_last({"text": self.LARGE})
        with capturedLogs() as events:
            self.desk.pass_time(limits.STREAM_STALL)
        self.assertTrue(visit.wire.aborted)
        self.assertIn("slow reader cut", [event["log_format"] for event in events])
        self.assertEqual(self.desk.timers, [])

    def test_too_much_behind(self) -> None:
        """Who lets more than STREAM_BEHIND wait is cut; its call goes on, nobody else notices."""
        visit, other = self.follow(1), self.client.ask(id=2)
        first, second = [message["id"] for message in self.child.heard[-2:]]
        self.progress(first)
        visit.stop_reading()
        news = {"progressToken": first, "progress": 1, "message": "y" * 200_000}
        for count in range(8):
            self.assertEqual(visit.wire.aborted, count > 6, count)
            self.child.say({"jsonrpc": "2.0", "method": PROGRESS, "params": news})
        self.child.answer(second, {})
        self.assertJson(other, result({}, 2))
        self.child.answer(first, {})
        self.assertFalse(self.child.over)
        self.assertNotIn("notifications/cancelled", self.child.methods())
        self.desk.pass_time(0)
        self.assertEqual(self.desk.timers, [])

    def test_child_is_not_stalled(self) -> None:
        """While one client reads nothing, another one of the same child is served."""
        slow = self.client.ask(id=1)
        slow.stop_reading()
        self.child.answer_last({"text": self.LARGE})
        for _ in range(3):
            visit = self.client.ask(id=2)
            self.child.answer_last({})
            self.assertJson(visit, result({}, 2))
        self.assertEqual(len(self.desk.children), 1)


class MixingTests(StreamCase):
    """Several clients at once on one child."""

    def test_equal_ids(self) -> None:
        """Two clients with equal request ids and tokens on one child are never mixed."""
        other = self.desk.client(1, "c1")
        other.initialize()
        self.assertNotEqual(other.session, self.client.session)
        mine = self.follow(1)
        theirs = other.ask("tools/call", {"_meta": {"progressToken": "p"}}, 1)
        again = other.ask("tools/call", {"_meta": {"progressToken": "p"}}, "1")
        self.assertEqual(len(self.desk.children), 1)
        first, second, third = [message["id"] for message in self.child.heard[-3:]]
        self.progress(second, 22)
        self.progress(first, 11)
        self.child.answer(third, {"whose": 3})
        self.child.answer(second, {"whose": 2})
        self.child.answer(first, {"whose": 1})
        for visit, done, whose in ((mine, 11, 1), (theirs, 22, 2)):
            news, answer = self.heard(visit)
            assert isinstance(news, dict)
            self.assertEqual(news["params"], {"progressToken": "p", "progress": done})
            self.assertEqual(answer, result({"whose": whose}))
        self.assertJson(again, result({"whose": 3}, "1"))

    def test_cancel_names_the_own(self) -> None:
        """A cancellation reaches the request of its own session, never one with an equal id."""
        other = self.desk.client(1, "c1")
        other.initialize()
        self.client.ask(id=1)
        other.ask(id=1)
        other.tell("notifications/cancelled", {"requestId": 1})
        self.assertEqual(self.child.heard[-1]["params"], {"requestId": 3})
        stranger = self.open(2)
        stranger.tell("notifications/cancelled", {"requestId": 1})
        self.assertNotIn("notifications/cancelled", self.child.methods())
