"""
One JSON-RPC 2.0 message: bytes to a value, a value to bytes.

Only the envelope is read.  `params`, `result` and `error` stay the bytes that
came, checked to be JSON in UTF-8 that nests no deeper than limits.JSON_DEPTH.
Two things are changed in them: CR and LF between tokens become spaces when a
message is written, since a message is one line on a pipe and in an event; and
half of a surrogate pair, which no UTF-8 text can hold, is read as U+FFFD.

Of two members with one name the last counts.  A child never sees the client's
envelope, so it cannot take another one than we did.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Literal, TypeAlias

import msgspec
from attrs import frozen
from msgspec import UNSET, Raw, UnsetType

from fjmcp import limits, refusals
from fjmcp.refusals import McpRefusal

NULL = b"null"


@frozen
class Request:
    """A call that is to be answered; `id` is JSON text, `params` b"" if absent."""

    id: bytes
    method: str
    params: bytes = b""


@frozen
class Notice:
    """A JSON-RPC notification; `params` is b"" if absent."""

    method: str
    params: bytes = b""


@frozen
class Reply:
    """
    The answer to a request: a `result` or an `error`, the other is None.

    `id` is b"null" where the sender could not tell what it answers.
    """

    id: bytes
    result: bytes | None = None
    error: bytes | None = None


Message: TypeAlias = Request | Notice | Reply


class _Envelope(msgspec.Struct, gc=False):
    jsonrpc: Literal["2.0"]
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_envelope = msgspec.json.Decoder(_Envelope)


def read(body: bytes) -> Message | McpRefusal:
    """
    The message that a client sent.

    Refuses what is not JSON in UTF-8 (PARSE_ERROR), what nests too deeply, a
    batch, and what is not JSON-RPC 2.0 as MCP narrows it: the id of a request
    is a string or a number, never null.
    """
    return refusals.TOO_DEEP if deeper_than(limits.JSON_DEPTH, body) else read_line(body)


def read_line(line: bytes) -> Message | McpRefusal:
    """
    The message in a line of a child.

    As `read`, but it may nest as deeply as the parser goes, some 900: where
    there are file contents in it, the depth costs more than all the rest.
    """
    if not _is_utf8(line):
        return refusals.PARSE_ERROR
    try:
        return _judge(_decode(line))
    except msgspec.ValidationError:
        return refusals.BATCH if line.lstrip().startswith(b"[") else refusals.INVALID_REQUEST
    except (msgspec.DecodeError, UnicodeDecodeError):
        return refusals.PARSE_ERROR
    except RecursionError:
        return refusals.TOO_DEEP


def _decode(text: bytes) -> _Envelope:
    try:
        return _envelope.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        whole = _SURROGATE.sub(_whole, text)
        if whole == text:
            raise
    return _envelope.decode(whole)


def _judge(envelope: _Envelope) -> Message | McpRefusal:
    if envelope.method is UNSET:
        return _judge_reply(envelope)
    if envelope.result is not UNSET or envelope.error is not UNSET:
        return refusals.INVALID_REQUEST
    if len(envelope.method) > limits.METHOD:
        return refusals.INVALID_REQUEST
    params = b"" if envelope.params is UNSET else bytes(envelope.params)
    if params == NULL:
        params = b""
    if params and params[:1] not in (b"{", b"["):
        return refusals.INVALID_REQUEST
    if envelope.id is UNSET:
        return Notice(envelope.method, params)
    id = bytes(envelope.id)
    return Request(id, envelope.method, params) if is_id(id) else refusals.INVALID_REQUEST


def _judge_reply(envelope: _Envelope) -> Reply | McpRefusal:
    result = None if envelope.result is UNSET else bytes(envelope.result)
    error = None if envelope.error is UNSET else bytes(envelope.error)
    if result is not None and error is not None:
        # JSON-RPC 1.0 had both members, the unused one null.
        if error == NULL:
            error = None
        elif result == NULL:
            result = None
    if (result is None) == (error is None):
        return refusals.INVALID_REQUEST
    if error is not None and not error.startswith(b"{"):
        return refusals.INVALID_REQUEST
    id = NULL if envelope.id is UNSET else bytes(envelope.id)
    if is_id(id) or (id == NULL and error is not None):
        return Reply(id, result, error)
    return refusals.INVALID_REQUEST


def is_id(text: bytes) -> bool:
    """Whether JSON text is a string or a number, and short enough to be kept."""
    return text.startswith(_ID_BEGINS) and len(text) <= limits.REQUEST_ID


_ID_BEGINS = tuple(bytes([begin]) for begin in b'"-0123456789')


def same_id(text: bytes) -> bytes:
    """
    The id `text` in the form in which equal ids are equal bytes.

    1 and 1.0 are one id, as are "a" and "\\u0061"; 1 and "1" are two.
    """
    if text.isdigit():
        return text
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:  # 1e999
        return text
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value)


def encode_request(id: bytes, method: str, params: bytes = b"") -> bytes:
    """A request in one line, without the line end."""
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (id, _call(method, params))


def encode_notice(method: str, params: bytes = b"") -> bytes:
    """A notification in one line, without the line end."""
    return b'{"jsonrpc":"2.0",%b}' % _call(method, params)


def encode_reply(id: bytes, *, result: bytes | None = None, error: bytes | None = None) -> bytes:
    """An answer in one line, without the line end: give a result or an error."""
    if error is not None:
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id, _flat(error))
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, _flat(result or b"{}"))


def error_reply(id: bytes | None, refusal: McpRefusal, data: bytes | None = None) -> bytes:
    """The refusal as the answer to `id`; `data` is JSON text."""
    error: dict[str, object] = {"code": refusal.code, "message": refusal.message}
    if data is not None:
        error["data"] = Raw(data)
    return encode_reply(NULL if id is None else id, error=msgspec.json.encode(error))


def _call(method: str, params: bytes) -> bytes:
    name = msgspec.json.encode(method)
    return b'"method":%b,"params":%b' % (name, _flat(params)) if params else b'"method":%b' % name


_FLATTEN = bytes.maketrans(b"\r\n", b"  ")


def _flat(payload: bytes) -> bytes:
    # In a string CR and LF are always escaped, so those here stand between tokens.
    if b"\n" in payload or b"\r" in payload:
        return payload.translate(_FLATTEN)
    return payload


def _is_utf8(body: bytes) -> bool:
    # msgspec looks for UTF-8 only in what it decodes, not in Raw.
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


# After an odd number of backslashes the next one is escaped, and begins nothing.
_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*+)(?:"
    rb"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def _whole(found: re.Match[bytes]) -> bytes:
    return found[0] if found["pair"] else found[1] + rb"\ufffd"


_BRACKETS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def deeper_than(limit: int, text: bytes) -> bool:
    """
    Whether brackets in JSON text nest deeper than `limit`.

    Takes time in proportion to the text: nothing to speak of for one with few
    brackets, some 5 ns a byte for strings, 50 ns for nothing but brackets.
    """
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    # What stands between quotes, once the escaped quotes are gone, is a string.
    outside = b"".join(text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    steps = outside.translate(_BRACKETS, _NO_BRACKETS)
    return steps.count(b"\x01") > limit and max(accumulate(memoryview(steps).cast("b"))) > limit
