"""The clock that nobody sets, the one on the wall, and what becomes of us when it is set."""

from __future__ import annotations

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.daemon.clocks import Trust, WallClock, steady
from fjmcp.demo.forge.grants import ACCESS_SECONDS
from fjmcp.testing.reactor import FakeReactor
from fjmcp.testing.whole import WholeBroker
from tests.promises.client import Client, able

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


class SetCase(SynchronousTestCase):
    """Time that passes, and a clock on the wall that can be set."""

    def setUp(self) -> None:
        self.ticks = Clock()
        self.epoch = 1_800_000_000.0
        self.wall = WallClock(self.ticks, lambda: self.epoch + self.ticks.seconds())


class WallClockTests(SetCase):
    """Timers go by one clock, rules by the other."""

    def test_timers(self) -> None:
        """A clock that is set, either way, changes nothing about what is under way."""
        for by in (-HOUR, HOUR):
            rung: list[float] = []
            call = self.wall.callLater(10.0, rung.append, by)
            self.assertEqual(self.wall.getDelayedCalls(), [call])
            self.epoch += by
            self.ticks.advance(9.5)
            self.assertEqual(rung, [])
            self.ticks.advance(0.5)
            self.assertEqual(rung, [by])

    def test_loops(self) -> None:
        """A loop that goes by the wall goes on at its pace when the wall is set."""
        rung: list[float] = []
        loop = LoopingCall(lambda: rung.append(self.ticks.seconds()))
        loop.clock = self.wall
        loop.start(1.0, now=False)
        self.addCleanup(loop.stop)
        for by in (0.0, -HOUR, 0.25, HOUR):
            self.epoch += by
            before = len(rung)
            self.ticks.pump([0.5] * 20)
            self.assertIn(len(rung) - before, (9, 10, 11), by)


class SteadyTests(SynchronousTestCase):
    """What is done to the reactor of twistd."""

    def reactor(self) -> ReactorBase:
        """One that does not run, and waits for nothing."""

        class Still(ReactorBase):
            def installWaker(self) -> None:
                """None is needed."""

        return Still()

    def test_steady(self) -> None:
        """Its timers are counted by a clock that begins with the machine and is never set."""
        reactor = self.reactor()
        steady(reactor)
        self.assertLess(reactor.seconds(), YEAR)
        call = reactor.callLater(5.0, lambda: None)
        self.assertAlmostEqual(call.getTime(), reactor.seconds() + 5.0, places=1)
        call.reset(60.0)
        self.assertAlmostEqual(call.getTime(), reactor.seconds() + 60.0, places=1)

    def test_too_late(self) -> None:
        """A reactor with timers is refused: they would be due at another time."""
        reactor = self.reactor()
        reactor.callLater(5.0, lambda: None)
        self.assertRaises(RuntimeError, steady, reactor)


class TrustTests(SetCase):
    """When the wall is believed."""

    def setUp(self) -> None:
        super().setUp()
        self.trust = Trust(self.wall, self.ticks)

    def test_slewed(self) -> None:
        """A clock that is corrected gently, for ever, is believed."""
        for _ in range(1000):
            self.epoch += 0.3
            self.ticks.advance(limits.EXPIRE)
            self.assertTrue(self.trust.look())

    def test_set(self) -> None:
        """One that was set is not, for a while, and the log says by how much."""
        for by in (YEAR, -YEAR):
            self.epoch += by
            with capturedLogs() as logs:
                self.assertFalse(self.trust.look())
                self.assertFalse(self.trust.look())
            (event,) = [event for event in logs if event["log_level"] is LogLevel.warn]
            self.assertEqual(event["seconds"], by)
            self.ticks.advance(limits.CLOCK_TRUST - 1)
            self.assertFalse(self.trust.look())
            self.ticks.advance(1)
            self.assertTrue(self.trust.look())


class JumpTests(SynchronousTestCase):
    """The whole broker while its machine's clock is set."""

    def setUp(self) -> None:
        self.broker = WholeBroker(reactor=FakeReactor(able))
        self.broker.parts.upkeep.start()
        self.addCleanup(self.broker.parts.upkeep.stop)
        self.client = Client.of(self.broker)
        self.client.initialize()
        self.client.text()

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        found: list[int] = []
        self.broker.store.lanes[1].run(
            lambda cursor: found.extend(n for (n,) in cursor.many(f"SELECT COUNT(*) FROM {table}"))
        )
        return found[0]

    def pass_time(self, seconds: float, step: float = 15.0) -> None:
        """Time passes in small steps."""
        for _ in range(int(seconds / step)):
            self.broker.advance(step)

    def test_forward_and_back(self) -> None:
        """A clock that is years ahead for a quarter of an hour deletes nothing."""
        tables = ("sessions", "grants", "access_tokens", "refresh_tokens")
        before = [self.rows(table) for table in tables]
        self.broker.set_by = 2 * YEAR
        self.pass_time(900.0)
        self.assertEqual(self.client.call().status, 401)
        self.assertEqual([self.rows(table) for table in tables], before)
        self.broker.set_by = 0.0
        self.pass_time(60.0)
        self.client.text()

    def test_call_in_flight(self) -> None:
        """A call in flight is neither ended nor prolonged, whichever way the clock is set."""
        for by in (-DAY, DAY):
            waiting = self.client.call("wait")
            self.pass_time(1.0, 0.25)
            (child,) = [each for each in self.broker.reactor.alive if "wait" in str(each.heard[-1])]
            self.broker.set_by = by
            self.pass_time(limits.JSON_ANSWER + 2, 1.0)
            child.answer_last({"content": []})
            self.broker.settle()
            (answer,) = waiting.events()
            self.assertIn(b'"result"', answer)
            self.broker.set_by = 0.0
            self.pass_time(limits.DRAIN + 60.0)

    def test_set_back(self) -> None:
        """
        A clock that is set back delays no upkeep, and no renewal of tokens:
        Forgejo's own clock goes on.
        """
        self.broker.set_by = -DAY
        born = len(self.broker.reactor.children)
        for _ in range(3):
            self.client.call()
            self.pass_time(60.0)
        self.assertGreater(len(self.broker.reactor.children), born)
        calls = self.broker.forge.calls("POST /login/oauth/access_token")
        for _ in range(3):
            self.client.text()
            self.pass_time(60.0)
        self.assertEqual(self.broker.forge.calls("POST /login/oauth/access_token"), calls)
        self.pass_time(limits.SESSION_IDLE + limits.REAP)
        self.assertEqual(self.broker.reactor.alive, [])
        self.client.text()

    def test_claim_of_the_future(self) -> None:
        """A refresh that was put off before the clock was set back is not put off for a day."""
        self.broker.forge.troubles.set("status", "/login/oauth/access_token", status=502)
        self.broker.advance(ACCESS_SECONDS - limits.REFRESH_LEAD)
        self.client.call()
        self.pass_time(30.0)
        self.broker.forge.troubles.clear()
        self.broker.set_by = -DAY
        self.pass_time(120.0)
        self.client.call()
        self.pass_time(ACCESS_SECONDS)
        self.assertNotEqual(self.client.call().status, refusals.CREDENTIAL_TROUBLED.status)
        self.client.text()
