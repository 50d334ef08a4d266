"""Tests for `fjmcp.mcp.members`."""

from __future__ import annotations

import json

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.mcp import members
from tests.mcp.texts import OBJECTS, VALUES


class Members(SynchronousTestCase):
    """One member changed, the others untouched."""

    @given(OBJECTS)
    def test_read(self, text: str) -> None:
        """The members are those that any reader finds, the last of equal names."""
        found = {name: json.loads(value) for name, value in members.read(text.encode()).items()}
        self.assertEqual(repr(found), repr(json.loads(text)))

    @given(OBJECTS, VALUES)
    def test_put(self, text: str, value: str) -> None:
        """Every other member keeps its very bytes."""
        before = members.read(text.encode())
        put = members.put(text.encode(), "requestId", value.encode())
        self.assertEqual(members.read(put), {**before, "requestId": value.encode()})
        self.assertEqual(members.one(put, "requestId"), value.encode())
        self.assertEqual(members.one(put, "nothing of it"), before.get("nothing of it", b""))

    def test_no_object(self) -> None:
        """What is no object has no members."""
        for text in [b"", b"[]", b"[1]", b"1", b'"a"', b"null"]:
            self.assertEqual(members.read(text), {}, text)

    def test_meta(self) -> None:
        """The members of `_meta` are found where and however it is written."""
        for text, found in {
            b"": {},
            b"[]": {},
            b'{"arguments":{"_meta":{"a":1}}}': {},
            b'{"_meta":null}': {},
            b'{"_meta":[1]}': {},
            b'{"_meta":{}}': {},
            b'{"a":"}","_meta":{"a": 1.0 }}': {"a": b"1.0"},
            b'{"\\u005fmeta":{"a":1}}': {"a": b"1"},
            b'{"_meta":{"a":1},"_meta":{"b":2}}': {"b": b"2"},
        }.items():
            self.assertEqual(members.read(members.meta(text)), found, text)

    def test_may_have(self) -> None:
        """A name that is spelled with escapes is not overlooked."""
        self.assertTrue(members.may_have(b'{"_meta":1}', b"_meta"))
        self.assertTrue(members.may_have(b'{"_m\\u0065ta":1}', b"_meta"))
        self.assertFalse(members.may_have(b'{"meta":"\\n"}', b"_meta"))
