"""Tests for `fjmcp.mcp.events`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.mcp.events import COMMENT, event, priming, retry


def heard(stream: bytes) -> list[tuple[str, str, str]]:
    """The events that a client hears: name, last id, data (WHATWG HTML §9.2.6)."""
    events = []
    name, last, data = "", "", list[str]()
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data and "".join(data):
                events.append((name or "message", last, "\n".join(data)))
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "id":
            last = value
        elif field == "data":
            data.append(value)
    return events


class Events(SynchronousTestCase):
    """What goes over the wire."""

    def test_bytes(self) -> None:
        """Each kind has its exact bytes."""
        self.assertEqual(event(b"{}"), b"event: message\ndata: {}\n\n")
        self.assertEqual(event(b"{}", "7"), b"id: 7\nevent: message\ndata: {}\n\n")
        self.assertEqual(event(b"{}", name="end"), b"event: end\ndata: {}\n\n")
        self.assertEqual(priming("7"), b"id: 7\ndata: \n\n")
        self.assertEqual(retry(1500), b"retry: 1500\n\n")
        self.assertEqual(COMMENT, b":\n\n")

    def test_silent_ones(self) -> None:
        """Comments, retries and priming events bring a client no message."""
        stream = COMMENT + retry(1) + priming("a") + event(b"1", "b") + COMMENT
        self.assertEqual(heard(stream), [("message", "b", "1")])

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
    def test_data_comes_whole(self, texts: list[str]) -> None:
        """Whatever the data, one event is one event; line ends in it become one kind."""
        texts = [text for text in texts if text.strip("\r\n")]
        stream = b"".join(event(text.encode()) for text in texts)
        for (_, _, data), text in zip(heard(stream), texts, strict=True):
            plain = text.replace("\r\n", "\n").replace("\r", "\n")
            self.assertEqual(data, plain.removesuffix("\n"))

    def test_fields_are_one_line(self) -> None:
        """An id or a name that would break out of its line is a bug."""
        for bad in ["a\nb", "a\rb", "a\x00b"]:
            self.assertRaises(ValueError, event, b"{}", bad)
            self.assertRaises(ValueError, event, b"{}", None, bad)
            self.assertRaises(ValueError, priming, bad)
