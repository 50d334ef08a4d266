"""Tests for `fjmcp.web.outlet`."""

from __future__ import annotations

from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp import limits
from fjmcp.web.outlet import Outlet
from fjmcp.web.unread import Unread

PIECE = 16 * 1024


@define(eq=False)
class Reader:
    """
    A response, and who reads it.

    :ivar room: bytes that it takes before it says that it has enough; None
        for a reader that always takes more.
    """

    room: int | None = None
    got: bytearray = field(factory=bytearray)
    writes: list[int] = field(factory=list)
    producer: IPushProducer | None = None
    ends: list[str] = field(factory=list)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert not self.ends, "written after the end"
        self.got += data
        self.writes.append(len(data))
        if self.room is not None:
            self.room -= len(data)
            if self.room <= 0 and self.producer is not None:
                self.producer.pauseProducing()

    def finish(self) -> None:
        assert self.producer is None and not self.ends
        self.ends.append("finished")

    def abort(self) -> None:
        assert self.producer is None and not self.ends
        self.ends.append("aborted")

    def take(self, room: int | None = None) -> None:
        """Take all that was given, and be ready for `room` bytes more."""
        self.room = room
        if self.producer is not None:
            self.producer.resumeProducing()


class OutletCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gone: list[None] = []
        self.unread = Unread(self.clock)

    def make(self, room: int | None = None) -> Reader:
        self.reader = Reader(room)
        self.outlet = Outlet(
            self.reader, self.clock, lambda: self.gone.append(None), self.unread, 1
        )
        self.outlet.start()
        return self.reader

    def assertCut(self) -> None:
        self.assertEqual((self.reader.ends, len(self.gone)), (["aborted"], 1))
        self.assertEqual(len(self.outlet._waiting), 0, "memory for nobody")
        self.assertEqual(len(self.unread), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OutletTests(OutletCase):
    """One reader at a time."""

    def test_push_producer(self) -> None:
        """It is one as Twisted defines it."""
        self.make()
        verifyObject(IPushProducer, self.outlet)

    def test_fast_reader(self) -> None:
        """Who takes everything gets everything at once, and then the end."""
        reader = self.make()
        for message in (b"one", b"two", b"three"):
            self.outlet.write(message)
        self.outlet.finish()
        self.assertEqual((bytes(reader.got), reader.ends), (b"onetwothree", ["finished"]))
        self.assertEqual((self.gone, self.clock.getDelayedCalls()), ([], []))

    def test_large_message(self) -> None:
        """A message goes out in pieces, each when the reader took the one before."""
        reader = self.make(room=1)
        message = bytes(range(256)) * 300
        self.outlet.write(message)
        self.assertEqual(bytes(reader.got), message[:PIECE])
        while len(reader.got) < len(message):
            reader.take(1)
        self.assertEqual((bytes(reader.got), max(reader.writes)), (message, PIECE))

    def test_whole_before_the_end(self) -> None:
        """A response that is finished while its reader is slow ends when all was taken."""
        reader = self.make(room=1)
        self.outlet.write(b"a" * PIECE * 2)
        self.outlet.finish()
        self.assertEqual(reader.ends, [])
        reader.take()
        self.assertEqual((len(reader.got), reader.ends), (PIECE * 2, ["finished"]))

    def test_message_of_any_size(self) -> None:
        """However large a message is, it alone does not cut its reader."""
        reader = self.make(room=1)
        self.outlet.write(b"a" * (4 * limits.STREAM_BEHIND))
        self.outlet.write(b"b" * limits.STREAM_BEHIND)
        self.assertEqual(reader.ends, [])
        reader.take()
        self.assertEqual(len(reader.got), 5 * limits.STREAM_BEHIND)

    def test_too_much_behind(self) -> None:
        """A reader is cut when more waits behind the message being written than the bound."""
        self.make(room=1)
        self.outlet.write(b"a" * PIECE * 2)
        self.outlet.write(b"b" * limits.STREAM_BEHIND)
        self.assertEqual(self.gone, [])
        self.outlet.write(b"c")
        self.assertCut()
        self.assertEqual(len(self.reader.got), PIECE)

    def test_what_was_taken_no_longer_counts(self) -> None:
        """The bound is for what waits at one time, not for all that ever waited."""
        reader = self.make(room=1)
        for _ in range(4):
            self.outlet.write(b"a" * PIECE * 2)
            self.outlet.write(b"b" * (limits.STREAM_BEHIND // 2 + PIECE))
            reader.take(100 * limits.STREAM_BEHIND)
            reader.take(1)
            self.outlet.write(b"c")
        self.assertEqual((self.gone, reader.ends), ([], []))

    def test_stall(self) -> None:
        """A reader that takes nothing for STREAM_STALL is cut, and not a moment before."""
        self.make(room=1)
        self.outlet.write(b"a")
        self.clock.advance(limits.STREAM_STALL - 1)
        self.assertEqual(self.gone, [])
        self.clock.advance(1)
        self.assertCut()

    def test_stall_after_finish(self) -> None:
        """A reader that does not take the last of it is cut too."""
        self.make(room=1)
        self.outlet.write(b"a" * PIECE * 2)
        self.outlet.finish()
        self.clock.advance(limits.STREAM_STALL)
        self.assertCut()

    def test_slow_but_alive(self) -> None:
        """A reader that takes a little now and then is waited for."""
        reader = self.make(room=1)
        self.outlet.write(b"a" * PIECE * 5)
        self.outlet.finish()
        for _ in range(4):
            self.clock.advance(limits.STREAM_STALL - 1)
            reader.take(1)
        reader.take()
        self.assertEqual((len(reader.got), reader.ends), (PIECE * 5, ["finished"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """A reader that left is told of once, and nothing is written to it."""
        reader = self.make(room=1)
        self.outlet.write(b"a" * PIECE * 2)
        self.outlet.lost()
        self.outlet.stopProducing()
        self.outlet.write(b"b")
        self.outlet.resumeProducing()
        self.outlet.finish()
        self.outlet.close()
        self.assertEqual((len(self.gone), len(reader.got), reader.ends), (1, PIECE, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_left_after_the_end(self) -> None:
        """That a connection ends after its response is no news."""
        self.make()
        self.outlet.finish()
        self.outlet.lost()
        self.outlet.pauseProducing()
        self.assertEqual((self.gone, self.clock.getDelayedCalls()), ([], []))


class CloseTests(OutletCase):
    """An end that waits for nobody."""

    def test_between_messages(self) -> None:
        """The response ends in good order, after the last word."""
        reader = self.make()
        self.outlet.write(b"one")
        self.outlet.close(b"last")
        self.outlet.write(b"two")
        self.assertEqual((bytes(reader.got), reader.ends), (b"onelast", ["finished"]))
        self.assertEqual((self.gone, self.clock.getDelayedCalls()), ([], []))

    def test_what_waits_is_dropped(self) -> None:
        """A reader that is behind hears no more than it had begun to hear."""
        reader = self.make(room=1)
        self.outlet.write(b"one")
        self.outlet.write(b"two")
        self.outlet.close(b"last")
        self.assertEqual((bytes(reader.got), reader.ends), (b"onelast", ["finished"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_halfway(self) -> None:
        """A response that ends within a message looks incomplete."""
        reader = self.make(room=1)
        self.outlet.write(b"a" * PIECE * 2)
        self.outlet.close(b"last")
        self.assertEqual((len(reader.got), reader.ends, self.gone), (PIECE, ["aborted"], []))


class OutletMachine(RuleBasedStateMachine):
    """
    Any order of what the broker writes and what the reader does.

    What the reader got is always a prefix of what was written, and it is told
    how it ended once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.reader = Reader(0)
        self.gone = 0
        self.messages: list[bytes] = []
        self.said = 0
        self.finished = self.closed = False
        self.left = False
        self.unread = Unread(self.clock)
        self.outlet = Outlet(self.reader, self.clock, self._go, self.unread, 1)
        self.outlet.start()

    def _go(self) -> None:
        self.gone += 1

    @property
    def over(self) -> bool:
        return bool(self.reader.ends) or self.left

    @rule(
        size=st.sampled_from([1, 100, PIECE, PIECE + 1, 200_000, 600_000]), count=st.integers(1, 3)
    )
    def write(self, size: int, count: int) -> None:
        for _ in range(count):
            if not self.over and not self.finished:
                # Each message is told from the others by its byte.
                self.messages.append(bytes([len(self.messages) % 251]) * size)
                self.outlet.write(self.messages[-1])
            else:
                self.outlet.write(b"\xff" * size)

    @rule(room=st.sampled_from([1, PIECE * 2, 300_000, 10_000_000]))
    def take(self, room: int) -> None:
        self.reader.take(room)

    @rule()
    def enough(self) -> None:
        if self.reader.producer is not None:
            self.reader.room = 0
            self.reader.producer.pauseProducing()

    @rule(seconds=st.sampled_from([1.0, limits.STREAM_STALL / 2, limits.STREAM_STALL]))
    def time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def finish(self) -> None:
        self.finished = self.finished or not self.over
        self.outlet.finish()

    @precondition(lambda self: len(self.messages) > 3)
    @rule()
    def close(self) -> None:
        self.closed = self.closed or not self.over
        self.outlet.close()

    @precondition(lambda self: len(self.messages) > 3)
    @rule()
    def leave(self) -> None:
        self.left = self.left or not self.reader.ends
        self.outlet.lost()

    @invariant()
    def a_prefix(self) -> None:
        """In order, nothing twice, nothing left out."""
        assert b"".join(self.messages).startswith(bytes(self.reader.got))

    @invariant()
    def whole(self) -> None:
        """A response that looks complete ends with a whole message; all of them, unless closed."""
        if self.reader.ends == ["finished"]:
            ends = {0}
            for message in self.messages:
                ends.add(max(ends) + len(message))
            assert len(self.reader.got) in ends
            assert self.closed or len(self.reader.got) == max(ends)

    @invariant()
    def told_once(self) -> None:
        """`gone` is for a reader that left or was cut, and for no other."""
        cut = self.reader.ends == ["aborted"] and not self.closed
        assert self.gone == int(self.left or cut)
        assert len(self.reader.ends) <= 1

    @invariant()
    def bounded(self) -> None:
        """Behind the message being written no more waits than the bound; at the end nothing."""
        if self.over:
            assert self.clock.getDelayedCalls() == []
            assert len(self.unread) == 0
            return
        waiting = sum(map(len, self.messages)) - len(self.reader.got)
        assert (len(self.unread) > 0) == (waiting > 0)
        assert waiting <= len(self.unread) < waiting + max(map(len, self.messages), default=1)
        assert waiting <= limits.STREAM_BEHIND + max(map(len, self.messages), default=0)


class InterleavingTests(SynchronousTestCase):
    """What holds in any order of events."""

    def test_any_order(self) -> None:
        """The reader gets whole messages in order or a response that looks incomplete."""
        run_state_machine_as_test(
            OutletMachine,
            settings=settings(
                max_examples=60,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

    @settings()
    @given(
        st.lists(st.integers(1, 3 * PIECE), min_size=1, max_size=6),
        st.lists(st.integers(1, 2 * PIECE), max_size=20),
    )
    def test_patient_reader(self, sizes: list[int], rooms: list[int]) -> None:
        """Who reads on, at any pace, gets all of it."""
        reader = Reader(1)
        clock = Clock()
        outlet = Outlet(reader, clock, lambda: self.fail("cut"), Unread(clock), 1)
        outlet.start()
        messages = [bytes([number]) * size for number, size in enumerate(sizes)]
        for message in messages:
            outlet.write(message)
        outlet.finish()
        for room in rooms:
            reader.take(room)
        reader.take()
        self.assertEqual((bytes(reader.got), reader.ends), (b"".join(messages), ["finished"]))
