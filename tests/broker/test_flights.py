"""
`fjmcp.broker.flights`: one piece of work per key, whoever asks and leaves.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.broker.flights import Flights
from fjmcp.tasks import Tasks


class FlightsTests(SynchronousTestCase):
    """Joining, leaving, failing."""

    def setUp(self) -> None:
        self.tasks = Tasks()
        self.flights: Flights[str, int] = Flights(self.tasks)
        self.running: list[Deferred[int]] = []

    async def work(self) -> int:
        running: Deferred[int] = Deferred()
        self.running.append(running)
        return await running

    def test_started_once(self) -> None:
        """All who ask while it runs get the one result; who asks later starts anew."""
        waiting = [self.flights.join("a", self.work) for _ in range(3)]
        self.assertEqual(len(self.running), 1)
        self.assertIn("a", self.flights)
        self.running[0].callback(7)
        self.assertEqual([self.successResultOf(each) for each in waiting], [7, 7, 7])
        self.assertNotIn("a", self.flights)
        self.flights.join("a", self.work)
        self.assertEqual(len(self.running), 2)

    def test_keys_apart(self) -> None:
        """Each key has its own."""
        one, two = self.flights.join("a", self.work), self.flights.join("b", self.work)
        self.running[1].callback(2)
        self.assertNoResult(one)
        self.assertEqual(self.successResultOf(two), 2)

    def test_at_once(self) -> None:
        """Work that is done at once answers at once."""

        async def done() -> int:
            return 5

        self.assertEqual(self.successResultOf(self.flights.join("a", done)), 5)
        self.assertNotIn("a", self.flights)

    def test_leaving(self) -> None:
        """Who leaves, even everybody, stops nothing; who comes then joins what runs."""
        first, second = self.flights.join("a", self.work), self.flights.join("a", self.work)
        for each in (first, second):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        third = self.flights.join("a", self.work)
        self.assertEqual(len(self.running), 1)
        self.running[0].callback(7)
        self.assertEqual(self.successResultOf(third), 7)

    def test_failure(self) -> None:
        """A failure reaches all who wait, each its own."""
        waiting = [self.flights.join("a", self.work) for _ in range(2)]
        self.running[0].errback(ZeroDivisionError())
        failures = [self.failureResultOf(each, ZeroDivisionError) for each in waiting]
        self.assertIsNot(failures[0], failures[1])
        self.assertNotIn("a", self.flights)

    def test_failure_unseen(self) -> None:
        """With nobody left to see it, it goes to the log."""
        waiting = self.flights.join("a", self.work)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.running[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_owned(self) -> None:
        """A stop waits for it."""
        self.flights.join("a", self.work)
        settled = Deferred.fromCoroutine(self.tasks.settle())
        self.assertNoResult(settled)
        self.running[0].callback(7)
        self.successResultOf(settled)
