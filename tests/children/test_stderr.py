"""Tests for `fjmcp.children.stderr`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.children.blank import blank
from fjmcp.children.stderr import Stderr, Trickle

TOKEN = "0123456789abcdefghij"


class StderrTests(SynchronousTestCase):
    """Stderr made fit for the log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.left_out = 0
        self.stderr = Stderr(blank(TOKEN), Trickle(self.clock), self.say)

    def say(self, line: str, left_out: int) -> None:
        self.said.append(line)
        self.left_out += left_out

    def test_lines(self) -> None:
        """Lines come whole, blank ones not at all, the last one without its newline too."""
        self.stderr.feed(b"one\ntw")
        self.stderr.feed(b"o\r\n\n  \nthree")
        self.assertEqual(self.said, ["one", "two"])
        self.stderr.end()
        self.assertEqual(self.said, ["one", "two", "three"])

    def test_colours_and_controls_go(self) -> None:
        """Nothing in our log moves a terminal's cursor or turns text round."""
        self.stderr.feed(b"\x1b[31mred\x1b[0m \x1b]0;title\x07a\x07b\xe2\x80\xaec\xff\td\n")
        self.assertEqual(self.said, ["red abc\\xff\td"])

    @given(
        st.lists(st.integers(0, 300), max_size=6), st.sampled_from(["", "\x1b[1m", "\0", "\u202e"])
    )
    def test_token_is_never_said(self, cuts: list[int], noise: str) -> None:
        """However the reads cut it, and whatever stands within it."""
        self.said.clear()
        hidden = TOKEN[:7] + noise + TOKEN[7:]
        data = f"before {hidden} after {TOKEN}\n{TOKEN}\n".encode()
        at = 0
        for cut in sorted(cuts):
            self.stderr.feed(data[at:cut])
            at = max(at, cut)
        self.stderr.feed(data[at:])
        self.assertEqual(len(self.said), 2)
        self.assertNotIn(TOKEN, "".join(self.said))
        self.assertNotIn(TOKEN[:7], "".join(self.said))
        self.clock.advance(limits.CHILD_STDERR_WINDOW)

    @given(st.integers(-30, 30))
    def test_token_at_the_cut_of_a_long_line(self, shift: int) -> None:
        """A line that is cut through a token shows no part of it."""
        self.said.clear()
        before = b"\x1b[0m" * 50 + b"-" * (limits.CHILD_STDERR_LINE + shift)
        self.stderr.feed(before + TOKEN.encode() + b"x" * 100_000 + b"\n")
        self.assertNotIn(TOKEN[:3], self.said[0])
        self.assertLessEqual(len(self.said[0]), limits.CHILD_STDERR_LINE)
        self.clock.advance(limits.CHILD_STDERR_WINDOW)

    def test_memory_is_bounded(self) -> None:
        """A line without an end is not kept."""
        for _ in range(100):
            self.stderr.feed(b"x" * 65536)
        self.assertLess(len(self.stderr._line), limits.CHILD_STDERR_LINE + 100)

    def test_flood_is_counted(self) -> None:
        """Past so many lines of a while they are counted, and the count is told once."""
        for _ in range(limits.CHILD_STDERR_LINES + 7):
            self.stderr.feed(b"again\n")
        self.assertEqual(len(self.said), limits.CHILD_STDERR_LINES)
        self.clock.advance(limits.CHILD_STDERR_WINDOW)
        self.stderr.feed(b"more\nmore\n")
        self.assertEqual(self.left_out, 7)

    def test_clock_set_back(self) -> None:
        """A clock that jumps back does not silence a child."""
        self.clock.advance(1000)
        self.stderr.feed(b"again\n" * limits.CHILD_STDERR_LINES)
        self.clock.rightNow = 10.0
        self.stderr.feed(b"here\n")
        self.assertEqual(self.said[-1], "here")

    def test_tail(self) -> None:
        """The last lines are kept for whoever must say why the child ended."""
        for number in range(20):
            self.stderr.feed(b"line %d\n" % number)
        self.assertEqual(self.stderr.tail[-1], "line 19")
        self.assertLess(len(self.stderr.tail), 10)
