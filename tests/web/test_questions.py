"""Tests for what children ask and tell the clients of sessions, through the endpoint."""

from __future__ import annotations

import json
from typing import Any

from fjmcp import limits, refusals
from fjmcp.testing.children import FakeChild
from fjmcp.testing.visitors import Visit
from tests.web.desk import Client, Key, error, result
from tests.web.test_personal import LOG, ROOTS, PersonalCase

SAMPLE = "sampling/createMessage"
CANCELLED = "notifications/cancelled"
PROGRESS = "notifications/progress"


class QuestionCase(PersonalCase):
    """A client that can be asked, and its child."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.open(roots={}, sampling={})
        self.own = self.child

    def call(self, id: object = "call", client: Client | None = None, **headers: str) -> Visit:
        """A call that its child leaves unanswered."""
        return (client or self.client).ask("tools/call", {}, id, **headers)

    def end_call(self) -> None:
        """The child answers its first call."""
        calls = (m["id"] for m in self.own.heard if m.get("method") == "tools/call")
        self.own.answer(next(calls), {})

    def refusal(self, child: FakeChild | None = None) -> Any:
        """What the child was answered last, which is an error; its id and code."""
        self.desk.pass_time(0)
        told = (child or self.own).heard[-1]
        return told["id"], told["error"]["code"], told["error"]["message"]

    def assertUnheard(self, child: FakeChild | None = None, id: object = 1) -> None:
        """The child was told that its question reaches nobody."""
        refusal = refusals.QUESTION_UNHEARD
        self.assertEqual(self.refusal(child), (id, refusal.code, refusal.message))


class WayTests(QuestionCase):
    """Which stream it goes to: exactly one (design §3)."""

    def test_only_call(self) -> None:
        """The stream of the only call in flight, though the session has one of its own."""
        stream, call = self.client.listen(), self.call()
        for _ in range(2):
            self.asks(self.own, method=SAMPLE, maxTokens=9)
            self.own.say(LOG)
        first, log, second, again = self.heard(call)
        self.assertEqual((first["method"], first["params"]), (SAMPLE, {"maxTokens": 9}))
        self.assertEqual((log, again), (LOG, LOG))
        self.assertNotEqual(first["id"], second["id"])
        self.assertEqual((call.status, call.ended), (200, False))
        self.assertEqual(call.header("content-type"), "text/event-stream")
        self.assertEqual(self.heard(stream), [])

    def test_own_stream(self) -> None:
        """With none or several in flight, the stream that the session opened."""
        stream = self.client.listen()
        self.asks(self.own)
        calls = [self.call(1), self.call(2)]
        self.asks(self.own)
        self.own.say(LOG)
        self.assertEqual([m["method"] for m in self.heard(stream)], [ROOTS, ROOTS, LOG["method"]])
        self.assertFalse(any(call.answered for call in calls))

    def test_oldest_call(self) -> None:
        """Without that, the oldest call in flight."""
        calls = [self.call(n) for n in range(3)]
        self.asks(self.own)
        self.own.say(LOG)
        self.assertEqual([m["method"] for m in self.heard(calls[0])], [ROOTS, LOG["method"]])
        self.assertFalse(calls[1].answered or calls[2].answered)

    def test_nowhere(self) -> None:
        """Without any a question is refused, and a log line dropped."""
        self.asks(self.own, "q")
        self.own.say(LOG)
        self.assertUnheard(id="q")
        self.assertEqual(self.heard(self.client.listen()), [])

    def test_json_only(self) -> None:
        """An answer that is one JSON response has no place for it: the next way is taken."""
        call = self.call(accept="application/json")
        self.asks(self.own, "q")
        self.own.say(LOG)
        self.assertUnheard(id="q")
        stream = self.client.listen()
        self.asks(self.own)
        self.own.say(LOG)
        self.assertEqual([m["method"] for m in self.heard(stream)], [ROOTS, LOG["method"]])
        self.end_call()
        self.assertEqual(call.json(), result({}, "call"))

    def test_json_only_and_younger(self) -> None:
        """Of several calls the oldest that can hear it."""
        self.call(1, accept="application/json")
        second, third = self.call(2), self.call(3)
        self.asks(self.own)
        self.assertEqual((len(self.heard(second)), third.answered), (1, False))

    def test_client_left(self) -> None:
        """A call whose client has left hears nothing; it still counts as in flight."""
        self.call(1).leave()
        self.asks(self.own, "q")
        self.assertUnheard(id="q")
        second = self.call(2)
        self.asks(self.own)
        self.assertEqual(len(self.heard(second)), 1)

    def test_list_changes(self) -> None:
        """That a list has changed goes the same way, and waits where there is none."""
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        call = self.call()
        self.own.say(changed)
        self.assertEqual(self.heard(call), [changed])
        self.own.answer_last({})
        self.own.say(changed, changed)
        stream = self.client.listen()
        self.assertEqual(self.heard(stream), [changed])
        self.own.say(changed)
        self.assertEqual(self.heard(stream), [changed, changed])

    def test_resource_updates(self) -> None:
        """What was subscribed to goes the same way."""
        updated = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {}}
        stream = self.client.listen()
        self.own.say(updated)
        self.assertEqual(self.heard(stream), [updated])

    def test_stream_of_another_grant(self) -> None:
        """A stream that another grant opened hears nothing of this grant's child."""
        again = self.desk.client(1, "c1", grant_id="another")
        again.session = self.client.session
        stream = again.listen()
        self.asks(self.own, "q")
        self.assertUnheard(id="q")
        other = self.served_by(again)
        self.asks(other)
        self.assertEqual(len(self.heard(stream)), 1)

    def test_slow_reader(self) -> None:
        """A stream whose reader takes nothing is cut; then there is no way."""
        stream = self.client.listen()
        stream.stop_reading()
        big = LOG | {"params": {"data": "x" * (limits.STREAM_BEHIND // 2)}}
        self.own.say(*[big] * 4)
        self.assertTrue(stream.wire.aborted)
        self.asks(self.own, "q")
        self.assertUnheard(id="q")

    def test_nobody_elses(self) -> None:
        """Other sessions of the same client and account hear nothing of it."""
        others = [self.open(roots={}, sampling={}), self.open(), self.open(2, roots={})]
        streams = [other.listen() for other in others]
        calls = [self.call(client=other) for other in others]
        self.asks(self.own, "q")
        self.own.say(LOG)
        self.assertUnheard(id="q")
        mine = self.call()
        self.asks(self.own)
        self.own.say(LOG)
        self.assertEqual(len(self.heard(mine)), 2)
        self.assertEqual([self.heard(stream) for stream in streams], [[], [], []])
        self.assertFalse(any(call.answered for call in calls))

    def test_shared_child(self) -> None:
        """A child that several share can ask nobody, and its log lines are nobody's."""
        client = self.open()
        shared = self.child
        stream, call = client.listen(), self.call(client=client)
        self.asks(shared, "q")
        shared.say(LOG)
        refusal = refusals.NO_QUESTIONS
        self.assertEqual(self.refusal(shared), ("q", refusal.code, refusal.message))
        self.assertEqual((self.heard(stream), call.answered), ([], False))

    def test_ping(self) -> None:
        """A child's ping is answered by us."""
        stream = self.client.listen()
        self.asks(self.own, "p", "ping")
        self.desk.pass_time(0)
        self.assertEqual(self.own.heard[-1], result({}, "p"))
        self.assertEqual(self.heard(stream), [])


class AnswerTests(QuestionCase):
    """Whose answer it is."""

    def test_reaches_the_child(self) -> None:
        """A result or an error, under the child's own id, its bytes untouched."""
        stream = self.client.listen()
        for id in (7, "seven", 7.5):
            for kind in ("result", "error"):
                self.asks(self.own, id)
                ours = self.heard(stream)[-1]["id"]
                payload = b'{"code": 1.0, "message":"\\u00e9", "n":12345678901234567890}'
                reply = b'{"jsonrpc":"2.0","id":"%b","%b":%b}'
                self.tells(self.client, reply % (ours.encode(), kind.encode(), payload))
                told = self.own.heard[-1]
                self.assertEqual((told["id"], told[kind]), (id, json.loads(payload)))

    def test_equal_ids_of_two_children(self) -> None:
        """The old and the new child ask under one id: each gets its own answer."""
        first = self.call(1)
        self.desk.keys.answer = Key(version=2)
        second, new = self.call(2), self.child
        for child in (self.own, new):
            self.asks(child, 5)
        self.assertNotEqual(self.asked(first), self.asked(second))
        self.tells(self.client, result({"for": "new"}, self.asked(second)))
        self.tells(self.client, result({"for": "old"}, self.asked(first)))
        self.assertEqual(self.answers_to(self.own), [result({"for": "old"}, 5)])
        self.assertEqual(self.answers_to(new), [result({"for": "new"}, 5)])

    def test_while_it_drains(self) -> None:
        """A child that is being replaced gets the answers to its own questions."""
        call = self.call()
        self.desk.keys.answer = Key(version=2)
        self.served_by(self.client)
        self.assertIsNot(self.child, self.own)
        self.asks(self.own, "late")
        self.tells(self.client, result({"roots": []}, self.asked(call)))
        self.assertEqual(self.own.heard[-1], result({"roots": []}, "late"))

    def test_twice(self) -> None:
        """The second answer is dropped."""
        stream = self.client.listen()
        self.asks(self.own)
        for n in range(3):
            self.tells(self.client, result({"n": n}, self.asked(stream)))
        self.assertEqual(self.answers_to(self.own), [result({"n": 0}, 1)])

    def test_somebody_elses(self) -> None:
        """From another session, client, grant or account it is dropped, and the question stays."""
        stream = self.client.listen()
        self.asks(self.own)
        ours = self.asked(stream)
        again = self.desk.client(1, "c1", grant_id="another")
        again.session = self.client.session
        others = [
            self.open(roots={}, sampling={}),
            self.open(),
            self.open(1, "c2", roots={}),
            self.open(2, roots={}),
            self.desk.client(),
            again,
        ]
        for other in others:
            self.tells(other, result({"from": "another"}, ours))
        foreign = self.desk.client(2)
        foreign.session = self.client.session
        self.assertEqual(foreign.post(result({}, ours)).status, 403)
        self.assertEqual(self.answers_to(self.own), [])
        self.tells(self.client, result({"from": "me"}, ours))
        self.assertEqual(self.answers_to(self.own), [result({"from": "me"}, 1)])

    def test_nonsense(self) -> None:
        """An answer to nothing is taken and dropped."""
        stream = self.client.listen()
        self.asks(self.own)
        ours = self.asked(stream)
        for id in (1, "1", ours + "0", ours[:-1], None, -1, 1.5):
            self.tells(self.client, error(refusals.INVALID_PARAMS, id))
        self.assertEqual(self.answers_to(self.own), [])

    def test_unanswered(self) -> None:
        """After QUESTION seconds the child gets an error, the client is told, and may be late."""
        stream = self.client.listen()
        self.asks(self.own, "q")
        ours = self.asked(stream)
        self.desk.pass_time(limits.QUESTION - 1)
        self.assertEqual(self.answers_to(self.own), [])
        self.desk.pass_time(1)
        refusal = refusals.QUESTION_UNANSWERED
        self.assertEqual(self.refusal(), ("q", refusal.code, refusal.message))
        told = self.heard(stream)[-1]
        self.assertEqual((told["method"], told["params"]["requestId"]), (CANCELLED, ours))
        self.tells(self.client, result({}, ours))
        self.assertEqual(len(self.answers_to(self.own)), 1)

    def test_withdrawn(self) -> None:
        """The child's cancellation names the question as the client knows it; then it is over."""
        stream = self.client.listen()
        self.asks(self.own, 5)
        ours = self.asked(stream)
        params = {"requestId": 5, "reason": "no more"}
        self.own.say({"jsonrpc": "2.0", "method": CANCELLED, "params": params})
        told = {"requestId": ours, "reason": "no more"}
        self.assertEqual(
            self.heard(stream)[-1], {"jsonrpc": "2.0", "method": CANCELLED, "params": told}
        )
        self.tells(self.client, result({}, ours))
        self.assertEqual(self.answers_to(self.own), [])

    def test_withdrawn_that_was_never_asked(self) -> None:
        """A cancellation of nothing goes nowhere: the client may use that id itself."""
        stream, call = self.client.listen(), self.call(5)
        params = {"requestId": 5}
        self.own.say({"jsonrpc": "2.0", "method": CANCELLED, "params": params})
        self.assertEqual((self.heard(stream), call.answered), ([], False))

    def test_too_many(self) -> None:
        """Past QUESTIONS open ones the child is refused; with an answer there is room again."""
        stream = self.client.listen()
        for n in range(limits.QUESTIONS):
            self.asks(self.own, n)
        self.asks(self.own, "more")
        refusal = refusals.TOO_MANY_QUESTIONS
        self.assertEqual(self.refusal(), ("more", refusal.code, refusal.message))
        self.assertEqual(len(self.heard(stream)), limits.QUESTIONS)
        self.tells(self.client, result({}, self.heard(stream)[0]["id"]))
        self.asks(self.own, "again")
        self.assertEqual(len(self.heard(stream)), limits.QUESTIONS + 1)

    def test_progress(self) -> None:
        """News of a question reach the child under its own token."""
        stream = self.client.listen()
        self.asks(self.own, 5, SAMPLE, _meta={"progressToken": "mine", "x": 1})
        asked = self.heard(stream)[0]
        token = asked["params"]["_meta"]["progressToken"]
        self.assertEqual(asked["params"]["_meta"], {"progressToken": token, "x": 1})
        self.assertNotEqual(token, "mine")
        news = {"progressToken": token, "progress": 1}
        self.open(roots={}).tell(PROGRESS, news)
        self.client.tell(PROGRESS, news | {"progressToken": "mine"})
        self.assertNotIn(PROGRESS, self.own.methods())
        self.client.tell(PROGRESS, news)
        self.assertEqual(self.own.heard[-1]["params"], {"progressToken": "mine", "progress": 1})

    def test_in_the_middle_of_a_call(self) -> None:
        """A call that asks, hears the answer, and ends: all on one stream."""
        call = self.call()
        number = self.own.heard[-1]["id"]
        self.asks(self.own, number, SAMPLE)
        ours = self.asked(call, SAMPLE)
        self.tells(self.client, result({"text": "yes"}, ours))
        self.assertEqual(self.own.heard[-1], result({"text": "yes"}, number))
        self.own.answer(number, {"said": "yes"})
        self.assertEqual(self.heard(call)[-1], result({"said": "yes"}, "call"))
        self.assertTrue(call.ended)

    def test_successor_that_asks_at_once(self) -> None:
        """A child may ask as soon as it is initialized, while it takes up a session."""
        self.level(self.client)
        stream = self.client.listen()
        self.own.exit(1)
        call = self.call()
        new = self.child
        self.asks(new, 0)
        self.tells(self.client, result({"roots": []}, self.asked(stream)))
        self.assertEqual(self.answers_to(new), [result({"roots": []}, 0)])
        new.answer(new.heard[2]["id"], {})
        self.desk.pass_time(0)
        new.answer_last({})
        self.assertEqual(call.json(), result({}, "call"))


class EndingTests(QuestionCase):
    """What becomes of open questions."""

    def setUp(self) -> None:
        super().setUp()
        self.stream = self.client.listen()
        self.asks(self.own, "q")
        self.ours = self.asked(self.stream)

    def assertCancelled(self, stream: Visit) -> None:
        """The client was told that it is asked no more."""
        told = self.heard(stream)[-1]
        self.assertEqual((told["method"], told["params"]["requestId"]), (CANCELLED, self.ours))

    def test_crash(self) -> None:
        """A child that ends wants no answers: the client is told, and is late without harm."""
        self.own.exit(1)
        self.assertCancelled(self.stream)
        self.served_by(self.client)
        self.tells(self.client, result({}, self.ours))
        self.assertEqual(self.answers_to(self.child), [])

    def test_delete(self) -> None:
        """With its session the question ends, and the child is told; it is asked no more."""
        call = self.call()
        self.client.delete()
        refusal = refusals.UNKNOWN_SESSION
        self.assertEqual(self.refusal(), ("q", refusal.code, refusal.message))
        self.asks(self.own, "more")
        self.assertEqual(self.refusal(), ("more", refusal.code, refusal.message))
        self.assertEqual(self.client.post(result({}, self.ours)).status, 404)
        self.end_call()
        self.assertEqual(self.heard(call)[-1], result({}, "call"))
        self.assertEqual(len(self.answers_to(self.own)), 2)

    def test_grant_ended(self) -> None:
        """With the grant the child goes, and nothing of it waits."""
        ended = self.desk.end(self.client)
        self.desk.pass_time(0)
        self.successResultOf(ended)
        self.assertEqual(self.client.post(result({}, self.ours)).status, 401)

    def test_replaced(self) -> None:
        """A child without calls that is replaced ends at once, and its question with it."""
        self.desk.keys.answer = Key(version=2)
        self.served_by(self.client)
        self.assertCancelled(self.stream)
        self.desk.pass_time(0)
        self.assertTrue(self.own.over)

    def test_call_that_asked_ends(self) -> None:
        """A question outlives the stream that carried it: the client has it."""
        self.tells(self.client, result({}, self.ours))
        call = self.call()
        self.asks(self.own, "second")
        ours = self.asked(call)
        call.leave()
        self.tells(self.client, result({"late": True}, ours))
        self.assertEqual(self.own.heard[-1], result({"late": True}, "second"))


class RootsTests(QuestionCase):
    """What a client tells of its roots."""

    CHANGED = "notifications/roots/list_changed"

    def test_told(self) -> None:
        """That they have changed reaches its own child and no other."""
        other = self.open(roots={})
        theirs = self.served_by(other)
        self.assertEqual(self.client.tell(self.CHANGED, {"x": 1}).status, 202)
        self.assertEqual(
            (self.own.heard[-1]["method"], self.own.heard[-1]["params"]),
            (
                self.CHANGED,
                {"x": 1},
            ),
        )
        self.assertNotIn(self.CHANGED, theirs.methods())

    def test_nobody(self) -> None:
        """Without a child it starts none; a shared child is not told."""
        self.own.exit(0)
        self.client.tell(self.CHANGED)
        count = len(self.desk.children)
        shared = self.open()
        shared.tell(self.CHANGED)
        self.assertNotIn(self.CHANGED, self.child.methods())
        self.assertEqual(len(self.desk.children), count + 1)


class TimeTests(QuestionCase):
    """Calls that take minutes."""

    def test_stays_open(self) -> None:
        """A call in which a person is asked stays open through proxies, until its answer."""
        call = self.call()
        self.asks(self.own)
        self.assertEqual(call.header("x-accel-buffering"), "no")
        for count in range(1, 33):
            self.assertEqual(call.body.count(b":\n\n"), count)
            self.desk.pass_time(limits.STREAM_COMMENT)
        self.tells(self.client, result({"roots": []}, self.asked(call)))
        self.end_call()
        self.assertEqual(self.heard(call)[-1], result({}, "call"))
        self.assertTrue(call.ended)

    def test_cancelled_while_it_asks(self) -> None:
        """The client cancels the call: the child is told, and may withdraw its question."""
        call = self.call()
        number = self.own.heard[-1]["id"]
        self.asks(self.own, 9)
        self.client.tell(CANCELLED, {"requestId": "call"})
        self.assertEqual(self.own.heard[-1]["params"], {"requestId": number})
        self.own.say({"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": 9}})
        self.assertEqual(self.heard(call)[-1]["params"], {"requestId": self.asked(call)})
        self.desk.pass_time(limits.CANCELLED_CALL)
        self.assertEqual(self.heard(call)[-1], error(refusals.CALL_CANCELLED, "call"))

    def test_deadline(self) -> None:
        """A call that ends by our deadline says what is unknown, on the stream that it has."""
        call = self.call()
        self.own.say(LOG)
        self.desk.pass_time(limits.CALL)
        self.assertEqual(self.heard(call)[-1], error(refusals.CALL_TOO_LONG, "call"))
        self.assertTrue(call.ended)
        self.assertEqual(self.own.methods()[-1], CANCELLED)
