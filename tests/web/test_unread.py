"""Tests for `fjmcp.web.unread`."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.testing.children import FakeChild
from fjmcp.testing.visitors import Visit
from fjmcp.web.unread import Unread
from tests.web.desk import Client, Desk, result

MIB = 1024 * 1024
CUT = "too much waits for slow readers, some are cut"


@define(eq=False)
class Slow:
    """A reader, what it has yet to take, and whether it was cut."""

    left: int = 0
    cuts: list[None] = field(factory=list)

    def cut(self) -> None:
        self.cuts.append(None)


class UnreadTests(SynchronousTestCase):
    """Who is cut, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.unread = Unread(self.clock)

    def readers(self, whose: int, *sizes: int) -> list[Slow]:
        made = [Slow(size) for size in sizes]
        for reader, size in zip(made, sizes, strict=True):
            self.unread.count(whose, reader, size)
        return made

    def cut(self, readers: list[Slow]) -> list[int]:
        return [len(reader.cuts) for reader in readers]

    def test_largest_go(self) -> None:
        """Past an account's bound those for whom most waits are cut, until the rest fits."""
        share = limits.UNREAD_OF_ACCOUNT // 4
        readers = self.readers(1, share, 2 * share, share)
        self.assertEqual(self.cut(readers), [0, 0, 0])
        (last,) = self.readers(1, 1)
        self.assertEqual((self.cut(readers), self.cut([last])), ([0, 1, 0], [0]))
        self.assertEqual(len(self.unread), 2 * share + 1)

    def test_nearly_done(self) -> None:
        """Who has taken all but the end of a large answer goes on: another one has more to take."""
        half = limits.UNREAD_OF_ACCOUNT // 2
        first, second = self.readers(1, half, half)
        first.left = 1
        (third,) = self.readers(1, 10)
        self.assertEqual(self.cut([first, second, third]), [0, 1, 0])

    def test_itself(self) -> None:
        """That may be the one that is written to."""
        small, large = self.readers(1, 10, limits.UNREAD_OF_ACCOUNT)
        self.assertEqual(self.cut([small, large]), [0, 1])

    def test_others(self) -> None:
        """No other account loses a reader for it."""
        (other,) = self.readers(2, limits.UNREAD_OF_ACCOUNT)
        self.readers(1, limits.UNREAD_OF_ACCOUNT, 1)
        self.assertEqual(self.cut([other]), [0])

    def test_everybody(self) -> None:
        """Past everybody's bound the account for which most waits loses its largest."""
        share = limits.UNREAD_OF_ACCOUNT
        greedy = self.readers(1, share - 10, 10)
        others = [self.readers(whose, share - 1) for whose in (2, 3, 4)]
        (new,) = self.readers(5, 4)
        self.assertEqual((self.cut(greedy), self.cut([new])), ([1, 0], [0]))
        self.assertEqual([self.cut(other) for other in others], [[0]] * 3)
        self.assertLessEqual(len(self.unread), limits.UNREAD)

    def test_what_was_taken_no_longer_counts(self) -> None:
        """What a reader has taken, and what was for one that is gone, is free again."""
        (reader,) = self.readers(1, limits.UNREAD_OF_ACCOUNT)
        self.unread.count(1, reader, 10)
        second = self.readers(1, limits.UNREAD_OF_ACCOUNT - 10)
        self.assertEqual(self.cut([reader, *second]), [0, 0])
        self.unread.count(1, reader, 0)
        self.unread.count(1, second[0], 0)
        self.assertEqual((len(self.unread), self.unread._readers, self.unread._held), (0, {}, {}))

    def test_said_once(self) -> None:
        """The log says it once a minute for each account."""
        with capturedLogs() as logs:
            for _ in range(5):
                self.readers(1, limits.UNREAD_OF_ACCOUNT + 1)
            self.readers(2, limits.UNREAD_OF_ACCOUNT + 1)
            self.clock.advance(60)
            self.readers(1, limits.UNREAD_OF_ACCOUNT + 1)
        said = [event["account"] for event in logs if event["log_format"] == CUT]
        self.assertEqual(said, [1, 2, 1])


class AnswersTests(SynchronousTestCase):
    """Answers that nobody reads, through the endpoint."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.client = self.open(1)

    def open(self, account: int) -> Client:
        client = self.desk.client(account)
        client.initialize()
        return client

    def call(self, client: Client, child: FakeChild, size: int) -> Visit:
        """A call whose answer nobody reads."""
        visit = client.ask("tools/call", {"name": "large"}, accept="text/event-stream")
        visit.stop_reading()
        child.answer_last("x" * size)
        return visit

    def test_one_account(self) -> None:
        """They are bounded; session and stream go on, and so does everybody else."""
        child = self.desk.child
        stream = self.client.listen()
        other = self.open(2)
        patient = self.call(other, self.desk.child, 40 * MIB)
        visits = [self.call(self.client, child, 40 * MIB) for _ in range(5)]
        self.assertEqual([visit.wire.aborted for visit in visits].count(True), 2)
        self.assertLessEqual(len(self.desk.unread), 160 * MIB + 5000)
        self.assertEqual((stream.wire.closed, patient.wire.closed), (False, False))
        asked = self.client.ask(id=9)
        child.answer_last({"tools": []})
        self.assertEqual(asked.json(), result({"tools": []}, 9))
        for visit in [*visits, patient]:
            visit.leave()
        self.assertEqual(len(self.desk.unread), 0)

    def test_stream(self) -> None:
        """What waits for a stream counts, too, and for its account."""
        stream = self.client.listen()
        stream.stop_reading()
        (open_one,) = self.desk.streams._open.values()
        open_one.send(b"x" * MIB)
        self.assertGreater(self.desk.unread._held[1], MIB)
        stream.leave()
        self.assertEqual(len(self.desk.unread), 0)
