"""Tests for `fjmcp.mcp.conversation`."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.mcp import members
from fjmcp.mcp.conversation import (
    Answer,
    Aside,
    Conversation,
    Posed,
    Progress,
    Question,
    Stray,
    Withdrawn,
    cancelled_id,
)
from fjmcp.mcp.wire import Notice, Reply, Request, encode_notice, encode_reply, read_line, same_id
from tests.mcp.texts import IDS, OBJECTS, flat


def call(id: bytes = b"1", params: bytes = b"{}") -> Request:
    """A request of a client."""
    return Request(id, "tools/call", params)


def tokened(token: bytes) -> bytes:
    """Params with a progress token."""
    return b'{"_meta":{"progressToken":%b}}' % token


class Asking(SynchronousTestCase):
    """Requests on their way to the child."""

    def test_numbers(self) -> None:
        """Each request has a number of its own, which is its id for the child."""
        conversation = Conversation()
        asks = [conversation.ask(call(id)) for id in [b'"a"', b"7", b"7"]]
        self.assertEqual([ask.number for ask in asks], [1, 2, 3])
        self.assertEqual([json.loads(ask.line)["id"] for ask in asks], [1, 2, 3])
        self.assertEqual(conversation.outstanding, (1, 2, 3))

    @given(OBJECTS)
    def test_params_are_untouched(self, params: str) -> None:
        """Params without a progress token go on as they came, in one line."""
        assume(b"progressToken" not in params.encode())
        line = Conversation().ask(call(params=params.encode())).line
        self.assertEqual(read_line(line), Request(b"1", "tools/call", flat(params)))
        self.assertNotIn(b"\n", line)

    @given(OBJECTS, OBJECTS, IDS)
    def test_token_is_ours(self, arguments: str, meta: str, token: str) -> None:
        """The progress token becomes our number; all other members keep their bytes."""
        given = members.put(meta.encode(), "progressToken", token.encode())
        params = members.write({"_meta": given, "arguments": arguments.encode()})
        asked = read_line(Conversation().ask(call(params=params)).line)
        assert isinstance(asked, Request)
        found = members.read(asked.params)
        self.assertEqual(found["arguments"], flat(arguments))
        assume(len(token.encode()) <= limits.REQUEST_ID)
        expected = members.read(flat(given.decode()))
        self.assertEqual(members.read(found["_meta"]), {**expected, "progressToken": b"1"}, params)

    def test_no_token(self) -> None:
        """What is no token, or not one to keep, is the child's to judge."""
        for params in [
            b"",
            b"[1]",
            b'{"progressToken":5}',
            b'{"_meta":null}',
            b'{"arguments":{"_meta":{"progressToken":5}}}',
            *map(tokened, [b"null", b"true", b"[5]", b'{"a":5}', b'"%b"' % (b"a" * 300)]),
        ]:
            asked = read_line(Conversation().ask(call(params=params)).line)
            self.assertEqual(asked, Request(b"1", "tools/call", params))

    def test_token_in_any_spelling(self) -> None:
        """A token that is written with escapes, or twice, is ours all the same."""
        for params in [
            b'{"_meta":{"progress\\u0054oken":5}}',
            b'{"\\u005fmeta":{"progressToken":5}}',
            b'{"_meta":{"progressToken":4,"progressToken":5}}',
            b'{"_meta":{"progressToken":4},"_meta":{"progressToken":5}}',
        ]:
            asked = read_line(Conversation().ask(call(params=params)).line)
            assert isinstance(asked, Request)
            self.assertEqual(asked.params, tokened(b"1"))

    def test_cancel(self) -> None:
        """A cancellation names our number and keeps the client's reason."""
        conversation = Conversation()
        conversation.ask(call())
        number = conversation.ask(call()).number
        line = conversation.cancel(number, b'{"requestId":"x","reason":"no\\u002e"}')
        assert line is not None
        self.assertEqual(
            read_line(line),
            Notice("notifications/cancelled", b'{"requestId":2,"reason":"no\\u002e"}'),
        )
        bare = conversation.cancel(number)
        assert bare is not None
        self.assertEqual(read_line(bare), Notice("notifications/cancelled", b'{"requestId":2}'))
        self.assertEqual(conversation.outstanding, (1, 2))

    def test_cancel_what_is_over(self) -> None:
        """Nothing is said to the child of a request that is answered or forgotten."""
        conversation = Conversation()
        for _ in range(2):
            conversation.ask(call())
        conversation.hear(Reply(b"1", b"{}"))
        conversation.forget(2)
        for number in [0, 1, 2, 3]:
            self.assertIsNone(conversation.cancel(number, b"{}"))


class Hearing(SynchronousTestCase):
    """What the child says."""

    def test_answer(self) -> None:
        """An answer gets the client's id again, and its payload is untouched."""
        conversation = Conversation()
        conversation.ask(call(b'"\\u0061"'))
        self.assertEqual(
            conversation.hear(Reply(b"1", b'{"a": 1.10}')),
            Answer(
                1,
                Reply(b'"\\u0061"', b'{"a": 1.10}'),
                b'{"jsonrpc":"2.0","id":"\\u0061","result":{"a": 1.10}}',
            ),
        )
        self.assertEqual(conversation.outstanding, ())

    def test_error(self) -> None:
        """An error is an answer too."""
        conversation = Conversation()
        conversation.ask(call())
        heard = conversation.hear(Reply(b"1", None, b'{"code":-1,"message":""}'))
        assert isinstance(heard, Answer)
        self.assertEqual(heard.line, b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}')

    def test_id_as_a_float(self) -> None:
        """A child whose numbers are floats repeats the same number."""
        for id in [b"1.0", b"1e0"]:
            conversation = Conversation()
            conversation.ask(call())
            self.assertIsInstance(conversation.hear(Reply(id, b"{}")), Answer)

    def test_stray_answers(self) -> None:
        """An answer to what was not asked, or twice, is nobody's; nothing is forgotten."""
        conversation = Conversation()
        conversation.ask(call())
        for id in [b"null", b"2", b"0", b"-1", b'"1"', b"1.5", b"1e999", b"%d" % 10**80]:
            heard = conversation.hear(Reply(id, None, b"{}"))
            self.assertIsInstance(heard, Stray, id)
        self.assertIsInstance(conversation.hear(Reply(b"1", b"{}")), Answer)
        self.assertIsInstance(conversation.hear(Reply(b"1", b"{}")), Stray)

    def test_progress(self) -> None:
        """Progress gets the client's token again, of whatever type it is."""
        for token in [b"1", b"77", b'"1"', b'"\\u0061"', b"1.5"]:
            conversation = Conversation()
            conversation.ask(call(params=tokened(token)))
            params = b'{"progress": 0.50,"progressToken":1,"message":"m"}'
            self.assertEqual(
                conversation.hear(Notice("notifications/progress", params)),
                Progress(
                    1,
                    b'{"jsonrpc":"2.0","method":"notifications/progress","params":'
                    b'{"progress":0.50,"progressToken":%b,"message":"m"}}' % token,
                ),
            )

    def test_stray_progress(self) -> None:
        """Progress that nobody asked for, or of a request that is over, is nobody's."""
        conversation = Conversation()
        conversation.ask(call())
        conversation.ask(call(params=tokened(b"1")))
        conversation.ask(call(params=tokened(b"1")))
        conversation.hear(Reply(b"3", b"{}"))
        for token in [b"1", b"3", b"4", b'"2"', b"null", b'"a"']:
            notice = Notice("notifications/progress", b'{"progressToken":%b}' % token)
            self.assertIsInstance(conversation.hear(notice), Stray, token)
        for params in [b"", b"[]", b"{}"]:
            heard = conversation.hear(Notice("notifications/progress", params))
            self.assertIsInstance(heard, Stray)

    def test_deep_progress(self) -> None:
        """However deep a child's notice nests, hearing it does not fail."""
        for levels in range(1, 1200, 3):
            data = b"[" * levels + b"]" * levels
            line = encode_notice("notifications/progress", b'{"data":%b}' % data)
            self.assertIsInstance(Conversation().hear(read_line(line)), Stray)

    def test_the_rest(self) -> None:
        """Questions, other notices and what is no message are told apart."""
        conversation = Conversation()
        question = Request(b'"q"', "sampling/createMessage", b"{}")
        self.assertEqual(conversation.hear(question), Question(question))
        notice = Notice("notifications/tools/list_changed")
        self.assertEqual(conversation.hear(notice), Aside(notice))
        self.assertEqual(conversation.hear(refusals.PARSE_ERROR), Stray("not-json"))

    def test_ping(self) -> None:
        """The child's ping is answered under its own id, other questions are not."""
        conversation = Conversation()
        ping = Question(Request(b'"p"', "ping"))
        self.assertEqual(conversation.ping_answer(ping), b'{"jsonrpc":"2.0","id":"p","result":{}}')
        self.assertIsNone(conversation.ping_answer(Question(Request(b'"p"', "roots/list"))))


class Questions(SynchronousTestCase):
    """Requests of the child, on their way to the client and back."""

    def pose(self, conversation: Conversation, id: bytes = b"1", params: bytes = b"{}") -> Posed:
        heard = conversation.hear(Request(id, "sampling/createMessage", params))
        assert isinstance(heard, Question)
        return conversation.pose(heard)

    def test_ids(self) -> None:
        """Each has an id of its own, at the client and among all children."""
        conversations = [Conversation("a"), Conversation("b")]
        posed = [self.pose(conversations[n % 2], b"7") for n in range(6)]
        self.assertEqual(len({each.id for each in posed}), 6)
        for each in posed:
            self.assertEqual(json.dumps(json.loads(each.line)["id"]).encode(), each.id)

    @given(OBJECTS, IDS)
    def test_bytes_pass(self, payload: str, id: str) -> None:
        """Params and answer go on as they came, in one line; the child gets its own id back."""
        assume(b"progressToken" not in payload.encode() and len(id.encode()) <= limits.REQUEST_ID)
        raw = payload.encode()
        for answer, told in (
            ((raw, None), Reply(id.encode(), flat(payload))),
            ((None, raw), Reply(id.encode(), None, flat(payload))),
        ):
            conversation = Conversation()
            posed = self.pose(conversation, id.encode(), raw)
            asked = Request(posed.id, "sampling/createMessage", flat(payload))
            self.assertEqual(read_line(posed.line), asked)
            settled = conversation.settle(Reply(posed.id, *answer))
            assert settled is not None
            self.assertEqual((settled.id, read_line(settled.line)), (posed.id, told))
            self.assertIsNone(conversation.settle(Reply(posed.id, *answer)), "answered twice")

    def test_answer_in_other_words(self) -> None:
        """An id is the same however the client writes it; another is another."""
        conversation = Conversation("q")
        self.pose(conversation, b'"x"')
        for id in (b'"q.2"', b"1", b"null", b'"1"', b'"Q.1"'):
            self.assertIsNone(conversation.settle(Reply(id, None, b"{}")))
        settled = conversation.settle(Reply(b'"\\u0071.1"', b"{}"))
        self.assertEqual(settled, Posed(b'"q.1"', encode_reply(b'"x"', result=b"{}")))

    def test_dropped(self) -> None:
        """What nobody answers any more is told by the child's id, once."""
        conversation = Conversation()
        posed = self.pose(conversation, b"5.0")
        self.assertEqual(conversation.drop(posed.id), b"5.0")
        self.assertIsNone(conversation.drop(posed.id))
        self.assertIsNone(conversation.settle(Reply(posed.id, b"{}")))

    def test_withdrawn(self) -> None:
        """The child's cancellation names the client's id and keeps its reason."""
        conversation = Conversation()
        one, two = self.pose(conversation, b"7"), self.pose(conversation, b"7")
        notice = Notice("notifications/cancelled", b'{"requestId":7.0,"reason":"no\\u002e"}')
        for posed in (two, one):
            heard = conversation.hear(notice)
            line = b'{"requestId":%b,"reason":"no\\u002e"}' % posed.id
            self.assertEqual(heard, Withdrawn(posed.id, encode_notice(notice.method, line)))
        self.assertIsInstance(conversation.hear(notice), Stray)
        for params in (b"", b"[]", b"{}", b'{"requestId":null}', b'{"requestId":%b}' % one.id):
            heard = conversation.hear(Notice("notifications/cancelled", params))
            self.assertIsInstance(heard, Stray)
        self.assertIsNone(conversation.settle(Reply(one.id, b"{}")))

    def test_progress(self) -> None:
        """A question's token is ours for the client, and the child's again for the child."""
        conversation = Conversation()
        posed = self.pose(conversation, b"1", tokened(b'"t"'))
        asked = read_line(posed.line)
        assert isinstance(asked, Request)
        self.assertEqual(asked.params, tokened(posed.id))
        news = b'{"progressToken":%b,"progress":1.10}'
        self.assertEqual(
            conversation.question_progress(news % posed.id),
            encode_notice("notifications/progress", news % b'"t"'),
        )
        plain = self.pose(conversation)
        for token in (plain.id, b'"t"', b"1", b"null", b"[]"):
            self.assertIsNone(conversation.question_progress(news % token))
        conversation.settle(Reply(posed.id, b"{}"))
        self.assertIsNone(conversation.question_progress(news % posed.id))


class Cancelled(SynchronousTestCase):
    """Which request a client cancels."""

    def test_table(self) -> None:
        """The id is found in the form in which ids are compared."""
        for params, id in {
            b'{"requestId":1}': same_id(b"1"),
            b'{"requestId":1.0,"reason":"x"}': same_id(b"1"),
            b'{"requestId":"1"}': same_id(b'"1"'),
            b'{"requestId":"\\u0061"}': same_id(b'"a"'),
            b'{"requestId":null}': None,
            b'{"requestId":[1]}': None,
            b'{"requestId":"%b"}' % (b"a" * 300): None,
            b'{"reason":"x"}': None,
            b"[]": None,
            b"": None,
        }.items():
            self.assertEqual(cancelled_id(params), id, params)


@frozen
class Waiting:
    """A request as its client and its child know it."""

    client: int
    id: bytes
    token: bytes | None
    line: dict[str, Any]


class Talk(RuleBasedStateMachine):
    """
    Some clients, who choose the same ids and tokens, and one child, which
    answers in any order, twice, or what was never asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation()
        self.waiting: dict[int, Waiting] = {}
        self.over: list[Waiting] = []
        self.answers = 0

    @rule(
        client=st.integers(0, 2),
        id=st.sampled_from([b"1", b'"1"', b"2"]),
        token=st.sampled_from([None, b"1", b'"1"', b"2"]),
    )
    def ask(self, client: int, id: bytes, token: bytes | None) -> None:
        """A client asks."""
        params = b'{"client":%d}' % client
        if token is not None:
            params = b'{"client":%d,"_meta":{"progressToken":%b}}' % (client, token)
        ask = self.conversation.ask(call(id, params))
        line = json.loads(ask.line)
        assert ask.number not in self.waiting
        assert all(other.line["id"] != line["id"] for other in self.over)
        self.waiting[ask.number] = Waiting(client, id, token, line)

    def one(self, data: st.DataObject) -> tuple[int, Waiting]:
        """Any request that waits."""
        return data.draw(st.sampled_from(sorted(self.waiting.items(), key=lambda item: item[0])))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        """The child answers one request; its asker, and no other, hears that."""
        number, waiting = self.one(data)
        self.answers += 1
        payload = b'{"answer":%d}' % self.answers
        id = json.dumps(waiting.line["id"]).encode()
        heard = self.conversation.hear(
            Reply(id, None, payload) if fails else Reply(id, payload, None)
        )
        assert isinstance(heard, Answer)
        assert heard.number == number
        kind = "error" if fails else "result"
        assert json.loads(heard.line) == {
            "jsonrpc": "2.0",
            "id": json.loads(waiting.id),
            kind: {"answer": self.answers},
        }
        self.over.append(self.waiting.pop(number))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        """The child tells of a request; its asker hears that, if it wanted to."""
        number, waiting = self.one(data)
        token = waiting.line["params"].get("_meta", {}).get("progressToken")
        if token is None:
            return
        params = json.dumps({"progressToken": token, "progress": 1}).encode()
        heard = self.conversation.hear(Notice("notifications/progress", params))
        assert isinstance(heard, Progress)
        assert heard.number == number
        assert waiting.token is not None
        told = json.loads(heard.line)["params"]
        assert repr(told["progressToken"]) == repr(json.loads(waiting.token))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A client cancels; the child may answer all the same."""
        number, waiting = self.one(data)
        line = self.conversation.cancel(number, b'{"requestId":%b}' % waiting.id)
        assert line is not None
        assert json.loads(line)["params"]["requestId"] == waiting.line["id"]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Nobody waits any more."""
        number, _ = self.one(data)
        self.conversation.forget(number)
        self.over.append(self.waiting.pop(number))

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        """The child speaks of what is over; nobody hears that."""
        id = data.draw(st.sampled_from(self.over)).line["id"]
        params = b'{"progressToken":%d}' % id
        assert isinstance(self.conversation.hear(Reply(b"%d" % id, b"{}")), Stray)
        notice = Notice("notifications/progress", params)
        assert isinstance(self.conversation.hear(notice), Stray)

    @rule(id=st.sampled_from([b"null", b"0", b"-1", b"9999", b'"1"', b"1.5", b"true"]))
    def nonsense(self, id: bytes) -> None:
        """The child answers what was never asked."""
        for line in [
            encode_reply(id, error=b"{}"),
            encode_notice("notifications/progress", b'{"progressToken":%b}' % id),
        ]:
            assert isinstance(self.conversation.hear(read_line(line)), Stray)

    @invariant()
    def nothing_else_waits(self) -> None:
        """What waits here is what the clients wait for."""
        assert list(self.conversation.outstanding) == list(self.waiting)


class Talking(SynchronousTestCase):
    """The whole of it."""

    def test_each_answer_reaches_its_asker_once(self) -> None:
        """Whatever the order, an answer reaches who asked, once, under the id it chose."""
        run_state_machine_as_test(Talk)
