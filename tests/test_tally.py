"""Tests for `fjmcp.tally`."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.tally import Rate, Seldom, Tally, step

RATE = Rate(5, 10.0)

rates = st.builds(Rate, st.integers(1, 50), st.floats(0.01, 100))
gaps = st.lists(st.floats(0, 50), max_size=60)


class StepTests(SynchronousTestCase):
    def test_example(self) -> None:
        """Five at once, then one every ten seconds, and the wait to the moment."""
        free_at = -math.inf
        for _ in range(5):
            free_at, wait = step(free_at, RATE, 100.0)
            self.assertEqual(wait, 0)
        self.assertEqual(step(free_at, RATE, 100.0), (free_at, 10.0))
        self.assertEqual(step(free_at, RATE, 104.0), (free_at, 6.0))
        free_at, wait = step(free_at, RATE, 110.0)
        self.assertEqual(wait, 0)
        self.assertEqual(step(free_at, RATE, 110.0)[1], 10.0)

    @given(rates, gaps)
    def test_bound(self, rate: Rate, gaps: list[float]) -> None:
        """However one knocks, no more come in than the burst and what its time has earned."""
        moment, free_at, entered = 1000.0, -math.inf, 0
        for gap in gaps:
            moment += gap
            free_at, wait = step(free_at, rate, moment)
            entered += wait == 0
        self.assertLessEqual(entered, rate.at_once + (moment - 1000.0) / rate.every + 1e-6)

    @given(rates, gaps)
    def test_wait(self, rate: Rate, gaps: list[float]) -> None:
        """Who is told to wait gets in after that wait, and is never told to wait for longer
        than one place takes."""
        moment, free_at = 1000.0, -math.inf
        for gap in gaps:
            moment += gap
            free_at, wait = step(free_at, rate, moment)
            self.assertLessEqual(wait, rate.every * 1.001)
            if wait > 0:
                self.assertEqual(step(free_at, rate, moment + wait + 1e-6)[1], 0)

    @given(rates, st.floats(0, 1e9))
    def test_clock_set_back(self, rate: Rate, back: float) -> None:
        """A clock that is set back locks nobody out for longer than the rule does."""
        free_at = -math.inf
        for _ in range(rate.at_once):
            free_at, _ = step(free_at, rate, 2e9)
        self.assertLessEqual(step(free_at, rate, 2e9 - back)[1], rate.every * 1.001)


class RateTests(SynchronousTestCase):
    def test_times(self) -> None:
        """Four together come in four times as often, and begin with four times as many."""
        self.assertEqual(RATE.times(4), Rate(20, 2.5))
        self.assertEqual(RATE.times(1), RATE)


class TallyTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        """However many come, so many are remembered, and the last ones are."""
        tally = Tally(100)
        for number in range(1000):
            tally.count(f"sender {number}", Rate(1, 10.0), 0.0)
        self.assertEqual(len(tally), 100)
        self.assertEqual(tally.wait("sender 0", Rate(1, 10.0), 0.0), 0.0)
        self.assertEqual(tally.wait("sender 999", Rate(1, 10.0), 0.0), 10.0)

    def test_busy_stay(self) -> None:
        """Who goes on knocking is not forgotten for others who knock once."""
        tally = Tally(10)
        for number in range(100):
            tally.count("flooder", RATE, 0.0)
            tally.count(f"passer-by {number}", RATE, 0.0)
        self.assertGreater(tally.wait("flooder", RATE, 0.0), 0)

    def test_queue(self) -> None:
        """So many wait for their turn, one after another; what came to nothing is given back."""
        tally = Tally(10)
        waits = [tally.book("a", RATE, 2, 100.0) for _ in range(9)]
        self.assertEqual(waits, [0.0] * 5 + [10.0, 20.0, None, None])
        tally.give_back("a", RATE)
        self.assertEqual(tally.book("a", RATE, 2, 100.0), 20.0)
        self.assertEqual(tally.book("a", RATE, 2, 110.0), 20.0)
        tally.give_back("nobody", RATE)
        self.assertEqual(tally.book("nobody", RATE, 0, 100.0), 0.0)


class SeldomTests(SynchronousTestCase):
    def test_once_a_minute(self) -> None:
        """It is said of somebody, then not for a minute; of others it is said meanwhile."""
        seldom = Seldom(10)
        knocks = (("a", 0.0), ("a", 59.0), ("b", 59.0), ("a", 60.0))
        said = [seldom.may_say(name, at) for name, at in knocks]
        self.assertEqual(said, [True, False, True, True])
