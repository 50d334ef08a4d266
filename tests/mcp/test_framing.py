"""Tests for `fjmcp.mcp.framing`."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.mcp.framing import Lines

STREAMS = st.lists(st.sampled_from([b"{}", b"a", b"\n", b"\r", b"\r\n", b" ", b"long enough"]))


class Whole(SynchronousTestCase):
    """Lines out of chunks."""

    def test_table(self) -> None:
        """Line ends of both kinds end a line; blank lines are nothing; a rest waits."""
        for stream, lines in {
            b"": [],
            b"a": [],
            b"a\n": [b"a"],
            b"a\r\nb\n": [b"a", b"b"],
            b"\n\r\n \t\n": [],
            b"a\n\nb\nc": [b"a", b"b"],
            b"a\rb\n": [b"a\rb"],
            b" a \n": [b" a "],
            b"a\r\r\n": [b"a\r"],
            "\u2028\x00\n".encode(): ["\u2028\x00".encode()],
        }.items():
            self.assertEqual(Lines(100).feed(stream), lines, stream)

    @given(STREAMS.map(b"".join), st.lists(st.integers(0, 60)), st.integers(1, 12))
    def test_any_split(self, stream: bytes, cuts: list[int], limit: int) -> None:
        """However a stream is cut into chunks, its lines are the same."""
        whole = Lines(limit)
        expected = whole.feed(stream)
        pieces = Lines(limit)
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        found = [line for begin, end in pairwise(edges) for line in pieces.feed(stream[begin:end])]
        self.assertEqual(found, expected)
        self.assertEqual(pieces.dropped, whole.dropped)


class TooLong(SynchronousTestCase):
    """Lines past the limit."""

    def test_dropped_whole(self) -> None:
        """A line that is too long is counted; those before and after it come."""
        lines = Lines(3)
        self.assertEqual(lines.feed(b"abc\nabcd\nabc\r\nabcdefgh\nx\n"), [b"abc", b"abc", b"x"])
        self.assertEqual(lines.dropped, 2)

    def test_no_part_of_it_comes(self) -> None:
        """The end of a line that was dropped is no line."""
        lines = Lines(3)
        self.assertEqual([lines.feed(chunk) for chunk in [b"abcd", b"ef", b"gh\nx\n"]][-1], [b"x"])
        self.assertEqual(lines.dropped, 1)

    def test_bounded(self) -> None:
        """Of a line that never ends no more is held than the limit and a CR."""
        lines = Lines(100)
        for _ in range(1000):
            lines.feed(b"x" * 64)
            self.assertLessEqual(len(lines._held), 101)


class Work(SynchronousTestCase):
    """What framing costs, counted."""

    def test_each_byte_is_searched_and_kept_once(self) -> None:
        """A long line in many chunks costs what its bytes are, not their square."""
        searched: list[int] = []
        kept: list[int] = []

        class Chunk(bytes):
            def split(self, *args: object) -> list[bytes]:
                searched.append(len(self))
                return bytes(self).split(b"\n")

        class Held(bytearray):
            def __iadd__(self, piece: bytes) -> Held:  # type: ignore[override, misc]
                kept.append(len(piece))
                self.extend(piece)
                return self

        lines = Lines(1 << 20)
        lines._held = Held()
        for _ in range(1000):
            self.assertEqual(lines.feed(Chunk(b"x" * 1000)), [])
        self.assertEqual(len(lines.feed(Chunk(b"\n"))[0]), 1_000_000)
        self.assertEqual(sum(searched), 1_000_001)
        self.assertEqual(sum(kept), 1_000_000)
