"""The jobs that are done again and again."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.upkeep import Job, Upkeep


class UpkeepTests(SynchronousTestCase):
    """What becomes of a job, however it goes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.upkeep = Upkeep(self.clock)
        self.done: list[float] = []

    async def work(self) -> None:
        """A job that goes well."""
        self.done.append(self.clock.seconds())

    def test_again_and_again(self) -> None:
        """A job is done once an interval, first after one has passed."""
        self.upkeep.also(Job("work", 30.0, self.work))
        self.upkeep.start()
        self.assertEqual(self.done, [])
        self.clock.pump([15.0] * 6)
        self.assertEqual(self.done, [30.0, 60.0, 90.0])

    def test_survives_its_exception(self) -> None:
        """A job that raises is done again."""

        async def fail() -> None:
            self.done.append(self.clock.seconds())
            raise RuntimeError("as planned")

        self.upkeep.also(Job("fail", 30.0, fail))
        self.upkeep.start()
        self.clock.pump([30.0] * 3)
        self.assertEqual(self.done, [30.0, 60.0, 90.0])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_raises_before_its_first_await(self) -> None:
        """A job that is no coroutine at all, and raises, is done again."""

        def fail() -> Deferred[None]:
            self.done.append(self.clock.seconds())
            raise RuntimeError("as planned")

        self.upkeep.also(Job("fail", 30.0, fail))
        self.upkeep.start()
        self.clock.pump([30.0] * 2)
        self.assertEqual(self.done, [30.0, 60.0])
        self.flushLoggedErrors(RuntimeError)

    def test_given_up(self) -> None:
        """A job that hangs is given up and comes again."""
        gone: list[str] = []

        def hang() -> Deferred[None]:
            self.done.append(self.clock.seconds())
            return Deferred(lambda _: gone.append("cancelled"))

        self.upkeep.also(Job("hang", 30.0, hang))
        self.upkeep.start()
        self.clock.advance(30.0)
        self.clock.advance(60.0)
        self.assertEqual(self.done, [30.0], "a job never runs twice at a time")
        self.clock.advance(limits.UPKEEP)
        self.clock.advance(30.0)
        self.assertEqual(len(self.done), 2)
        self.assertEqual(gone, ["cancelled"])
        self.upkeep.stop()

    def test_stop(self) -> None:
        """After a stop nothing is begun, what is under way is cancelled, and no timer is left."""
        gone: list[str] = []
        self.upkeep.also(Job("work", 30.0, self.work))
        self.upkeep.also(Job("hang", 30.0, lambda: Deferred(lambda _: gone.append("cancelled"))))
        self.upkeep.start()
        self.clock.advance(30.0)
        self.upkeep.stop()
        self.clock.advance(300.0)
        self.assertEqual((self.done, gone), ([30.0], ["cancelled"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_interval(self) -> None:
        """An interval that is changed holds from then on."""
        self.upkeep.also(Job("work", 30.0, self.work))
        self.upkeep.start()
        self.clock.advance(30.0)
        self.upkeep.also(Job("work", 10.0, self.work))
        self.clock.pump([10.0] * 2)
        self.assertEqual(self.done, [30.0, 40.0, 50.0])
        self.upkeep.stop()
