"""Tests for `fjmcp.mcp.wire`."""

from __future__ import annotations

import json

from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.mcp.wire import (
    Message,
    Notice,
    Reply,
    Request,
    encode_notice,
    encode_reply,
    encode_request,
    error_reply,
    is_id,
    read,
    read_line,
    same_id,
)
from fjmcp.refusals import McpRefusal
from tests.mcp.texts import IDS, NUMBERS, OBJECTS, SPACE, STRINGS, VALUES, flat


def with_params(params: bytes) -> bytes:
    """A request with these params."""
    return b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % params


class Understood(SynchronousTestCase):
    """Messages that are taken."""

    def test_table(self) -> None:
        """Each kind of message is known by its members, in any order and spelling."""
        for body, message in {
            b'{"jsonrpc":"2.0","id":1,"method":"m"}': Request(b"1", "m"),
            b'{"jsonrpc":"2.0","id":"a","method":"m","params":{}}': Request(b'"a"', "m", b"{}"),
            b'{"method":"m","id":-1.5,"jsonrpc":"2.0"}': Request(b"-1.5", "m"),
            b'{"jsonrpc":"2.0","id":0,"method":"m","params":null}': Request(b"0", "m"),
            b'{"jsonrpc":"2.0","id":0,"method":"m","params":[1]}': Request(b"0", "m", b"[1]"),
            b'{"jsonrpc":"2.0","\\u0069d":0,"method":"\\u006d"}': Request(b"0", "m"),
            b'{"jsonrpc":"2.0","id":1,"method":"m","more":[1,2]}': Request(b"1", "m"),
            b'{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}': Request(b"2", "m"),
            b'{"jsonrpc":"2.0","method":"m"}': Notice("m"),
            b'\r\n\t {"jsonrpc":"2.0","method":"m", "params" : { } }\n': Notice("m", b"{ }"),
            b'{"jsonrpc":"2.0","id":1,"result":{"a": 1}}': Reply(b"1", b'{"a": 1}'),
            b'{"jsonrpc":"2.0","id":1,"result":null}': Reply(b"1", b"null"),
            b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}': Reply(b"1", None, b'{"code":1}'),
            b'{"jsonrpc":"2.0","id":1,"result":1,"error":null}': Reply(b"1", b"1"),
            b'{"jsonrpc":"2.0","id":1,"result":null,"error":{}}': Reply(b"1", None, b"{}"),
            b'{"jsonrpc":"2.0","id":null,"error":{}}': Reply(b"null", None, b"{}"),
            b'{"jsonrpc":"2.0","error":{}}': Reply(b"null", None, b"{}"),
        }.items():
            self.assertEqual(read(body), message, body)
            self.assertEqual(read_line(body), message, body)

    @given(VALUES)
    def test_payload_is_untouched(self, value: str) -> None:
        """A payload comes out of a message as the very bytes that went in."""
        payload = '{"x":' + value + "}"
        request = read(with_params(payload.encode()))
        self.assertEqual(request, Request(b"1", "m", payload.encode()))
        reply = read_line(b'{"jsonrpc":"2.0","id":1,"result":%b}' % value.encode())
        self.assertEqual(reply, Reply(b"1", value.encode()))

    @given(IDS, st.text(max_size=20), OBJECTS)
    def test_what_is_written_is_read(self, id: str, method: str, payload: str) -> None:
        """Any message is one line on the wire, and the same message after it."""
        assume(len(id.encode()) <= limits.REQUEST_ID)
        name, body, flattened = id.encode(), payload.encode(), flat(payload)
        for line, message in [
            (encode_request(name, method, body), Request(name, method, flattened)),
            (encode_request(name, method), Request(name, method)),
            (encode_notice(method, body), Notice(method, flattened)),
            (encode_reply(name, result=body), Reply(name, flattened)),
            (encode_reply(name, error=body), Reply(name, None, flattened)),
        ]:
            self.assertNotIn(b"\n", line)
            self.assertNotIn(b"\r", line)
            self.assertEqual(read(line), message)
            json.loads(line)

    @given(st.binary(max_size=60))
    @example(b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}')
    def test_bytes_of_any_kind(self, body: bytes) -> None:
        """Nothing that can be sent makes reading fail."""
        for text in [body, with_params(body), with_params(b'"' + body + b'"')]:
            self.assertIsInstance(read(text), Message | McpRefusal)


class Refused(SynchronousTestCase):
    """Messages that are not taken."""

    def refuses(self, refusal: McpRefusal, *bodies: bytes) -> None:
        """Each body gets this refusal."""
        for body in bodies:
            self.assertIs(read(body), refusal, body[:80])

    def test_not_json(self) -> None:
        """What is not JSON in UTF-8 is a parse error, wherever in the message it is."""
        self.refuses(
            refusals.PARSE_ERROR,
            b"",
            b" ",
            b"{",
            b'{"jsonrpc":"2.0","method":"m"',
            b'{"jsonrpc":"2.0","method":"m"}{}',
            b'{"jsonrpc":"2.0","method":"m"}\x00',
            b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"m"}',
            '{"jsonrpc":"2.0","method":"m"}'.encode("utf-16"),
            b'{"jsonrpc":"2.0","method":"\xff"}',
            b'{"jsonrpc":"2.0","method":"m","\xff":1}',
            *map(
                with_params,
                [
                    b'{"a":"\xff"}',
                    b'{"a":"\xed\xa0\x80"}',
                    b'{"a":"\xc0\x80"}',
                    b'{"a":NaN}',
                    b'{"a":01}',
                    b'{"a":"\x00"}',
                    b"{'a':1}",
                    b'{"a":1,}',
                    b'{"a":"\\x"}',
                    b'{"a":"\\u12"}',
                    b'{"a":"\\ud8"}',
                    b'{"a" 1}',
                    b"{/**/}",
                ],
            ),
        )

    def test_line_end_in_a_string(self) -> None:
        """A raw CR or LF in a string is refused: it would be a second line."""
        self.refuses(
            refusals.PARSE_ERROR,
            with_params(b'{"a":"x\ny"}'),
            with_params(b'{"a":"x\ry"}'),
            with_params(b'{"x\ny":1}'),
            b'{"jsonrpc":"2.0","id":"\n","method":"m"}',
            b'{"jsonrpc":"2.0","id":1,"method":"m\n"}',
        )

    def test_not_jsonrpc(self) -> None:
        """JSON that is no JSON-RPC 2.0 message of MCP is an invalid request."""
        self.refuses(
            refusals.INVALID_REQUEST,
            b"{}",
            b"1",
            b'"a"',
            b"null",
            b'{"jsonrpc":"2.0"}',
            b'{"jsonrpc":"1.0","id":1,"method":"m"}',
            b'{"jsonrpc":2.0,"id":1,"method":"m"}',
            b'{"id":1,"method":"m"}',
            b'{"jsonrpc":"2.0","id":1}',
            b'{"jsonrpc":"2.0","id":1,"method":1}',
            b'{"jsonrpc":"2.0","id":1,"method":null}',
            b'{"jsonrpc":"2.0","id":1,"method":"m","params":1}',
            b'{"jsonrpc":"2.0","id":1,"method":"m","params":"{}"}',
            b'{"jsonrpc":"2.0","id":1,"method":"m","result":{}}',
            b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
            b'{"jsonrpc":"2.0","id":1,"error":"no"}',
            b'{"jsonrpc":"2.0","id":1,"error":null}',
            b'{"jsonrpc":"2.0","id":null,"result":{}}',
            b'{"jsonrpc":"2.0","result":{}}',
            b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"m" * (limits.METHOD + 1)),
        )

    def test_ids(self) -> None:
        """The id of a request is a string or a number of bounded length."""
        for id in [b"null", b"true", b"[1]", b'{"a":1}', b'"%b"' % (b"a" * limits.REQUEST_ID)]:
            self.refuses(refusals.INVALID_REQUEST, b'{"jsonrpc":"2.0","id":%b,"method":"m"}' % id)
        longest = b'"%b"' % (b"a" * (limits.REQUEST_ID - 2))
        self.assertEqual(read(encode_request(longest, "m")), Request(longest, "m"))

    def test_batches(self) -> None:
        """A batch is called a batch, whatever is in it."""
        self.refuses(
            refusals.BATCH, b"[]", b" \n[1]", b'[{"jsonrpc":"2.0","id":1,"method":"m"}]', b"[1"
        )


class Depth(SynchronousTestCase):
    """Messages that nest."""

    def nested(self, levels: int) -> bytes:
        """A request that nests so deep in all."""
        return with_params(b'{"a":' * (levels - 1) + b"1" + b"}" * (levels - 1))

    def test_limit(self) -> None:
        """The limit itself is taken, one more is not, and any number is survived."""
        self.assertIsInstance(read(self.nested(limits.JSON_DEPTH)), Request)
        for levels in [limits.JSON_DEPTH + 1, 1000, 100_000]:
            self.assertIs(read(self.nested(levels)), refusals.TOO_DEEP)
        self.assertIs(read(b"[" * 1_000_000), refusals.TOO_DEEP)

    def test_child_may_nest_deeper(self) -> None:
        """A child's line is refused only where the parser ends."""
        self.assertIsInstance(read_line(self.nested(500)), Request)
        self.assertIs(read_line(self.nested(100_000)), refusals.TOO_DEEP)

    def test_brackets_in_strings_are_text(self) -> None:
        """Program text does not nest, however its quotes are escaped."""
        for text in [b"[{" * 500, b'\\"[' * 500, b"\\\\" * 3 + b"[" * 500, b'[\\\\\\"' * 500]:
            self.assertIsInstance(read(with_params(b'{"a":"%b"}' % text)), Request, text[:20])

    def test_many_brackets_side_by_side(self) -> None:
        """Only brackets within brackets count."""
        self.assertIsInstance(read(with_params(b"[" + b"[],{}," * 5000 + b"1]")), Request)

    @given(st.lists(VALUES, max_size=5), st.integers(0, 140), st.integers(0, 140))
    def test_counts_as_a_reader_does(self, values: list[str], left: int, right: int) -> None:
        """The depth is that of the value, not of its spelling."""
        parts = ["[" * left + "]" * left, *values, "[" * right + "]" * right]
        text = "[" + ",".join(part for part in parts if part) + "]"

        def depth(value: object) -> int:
            inner = value.values() if isinstance(value, dict) else value
            if isinstance(value, str) or not hasattr(inner, "__iter__"):
                return 0
            return 1 + max(map(depth, inner), default=0)

        refused = read(with_params(text.encode())) is refusals.TOO_DEEP
        # Of two members with one name json keeps the last, which may be the shallower.
        pairs = json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs])
        self.assertEqual(refused, 1 + depth(pairs) > limits.JSON_DEPTH)


class Surrogates(SynchronousTestCase):
    """Escapes that no UTF-8 text can hold."""

    def test_table(self) -> None:
        """Half a pair becomes U+FFFD; whole pairs and escaped backslashes stay."""
        for text, after in {
            rb"\ud83d\ude00": rb"\ud83d\ude00",
            rb"\ud83d": rb"\ufffd",
            rb"\uDE00": rb"\ufffd",
            rb"\ude00\ud83d": rb"\ufffd\ufffd",
            rb"\ud83d\ud83d\ude00": rb"\ufffd\ud83d\ude00",
            rb"\ud83d\ude00\ude00": rb"\ud83d\ude00\ufffd",
            rb"\\ud83d\ud83d": rb"\\ud83d\ufffd",
            rb"\\\ud83d": rb"\\\ufffd",
            rb"\n\ud83d\n": rb"\n\ufffd\n",
            rb"\ud83d\n\u0041": rb"\ufffd\n\u0041",
        }.items():
            for spelled in [b'{"a":"%b"}', b'{"%b":1}']:
                message = read(with_params(spelled % text))
                self.assertEqual(message, Request(b"1", "m", spelled % after), text)

    @given(st.lists(st.sampled_from([r"\ud83d", r"\ude00", r"\\", r"\"", r"\u0041", "u", "d83d"])))
    def test_as_others_read_it(self, parts: list[str]) -> None:
        """The text is that of any reader, with U+FFFD for each half pair."""
        text = '"' + "".join(parts) + '"'
        message = read(with_params(b"[%b]" % text.encode()))
        assert isinstance(message, Request)
        expected = json.loads(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.assertEqual(json.loads(message.params), [expected])


class Ids(SynchronousTestCase):
    """Ids compared."""

    def test_table(self) -> None:
        """Equal values are the same id, in whatever way they are written; types differ."""
        for one, other in [
            (b"1", b"1.0"),
            (b"10", b"1e1"),
            (b"0", b"-0"),
            (b'"a"', b'"\\u0061"'),
            (b'"/"', b'"\\/"'),
            (b"-5", b"-5.0"),
        ]:
            self.assertEqual(same_id(one), same_id(other))
        different = [
            b"1",
            b'"1"',
            b"1.5",
            b'""',
            b"-1",
            b"1e999",
            b'"1.0"',
            b"18446744073709551617",
        ]
        self.assertEqual(len(set(map(same_id, different))), len(different))

    @given(st.one_of(NUMBERS, STRINGS))
    def test_is_an_id_and_stays_the_same(self, text: str) -> None:
        """The form in which ids are compared is one itself."""
        id = text.encode()
        self.assertTrue(is_id(id))
        self.assertEqual(same_id(same_id(id)), same_id(id))

    @given(IDS, SPACE)
    def test_spliced_back(self, id: str, space: str) -> None:
        """The id that a client chose is in the answer as the client wrote it."""
        assume(len(id.encode()) <= limits.REQUEST_ID)
        body = '{"jsonrpc":"2.0","id":' + space + id + space + ',"method":"m"}'
        request = read(body.encode())
        assert isinstance(request, Request)
        self.assertEqual(request.id, id.encode())
        self.assertIn(b'"id":%b,' % id.encode(), encode_reply(request.id, result=b"{}"))


class Errors(SynchronousTestCase):
    """Refusals as answers."""

    def test_error_reply(self) -> None:
        """A refusal is a JSON-RPC error with the id, or null where none was read."""
        self.assertEqual(
            json.loads(error_reply(b'"a"', refusals.BATCH)),
            {
                "jsonrpc": "2.0",
                "id": "a",
                "error": {"code": -32600, "message": refusals.BATCH.message},
            },
        )
        self.assertIsNone(json.loads(error_reply(None, refusals.BATCH))["id"])

    def test_data(self) -> None:
        """Data of an error is JSON text that goes in as it is."""
        line = error_reply(b"1", refusals.MODERN, b'{"supported":\n["2025-11-25"]}')
        self.assertEqual(json.loads(line)["error"]["data"], {"supported": ["2025-11-25"]})
        self.assertNotIn(b"\n", line)

    def test_reason_stays_inside(self) -> None:
        """The reason for the log is not in the answer."""
        self.assertNotIn(b"not-jsonrpc", error_reply(b"1", refusals.INVALID_REQUEST))
