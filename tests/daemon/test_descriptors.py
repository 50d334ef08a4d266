"""Tests for `fjmcp.daemon.descriptors`."""

from __future__ import annotations

import resource

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.daemon import assembly
from fjmcp.daemon.descriptors import connections, descriptors
from fjmcp.testing.whole import WholeBroker
from tests.daemon.test_tap import SETTINGS


class ConnectionsTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Children come first; a quarter is for connections all the same."""
        for children, of, expected in (
            (200, 16384, limits.CONNECTIONS),
            (200, 1_000_000, limits.CONNECTIONS),
            (200, 4096, 4096 - 200 - 800),
            (200, 1024, 256),
            (20, 1024, 1024 - 200 - 80),
            (10_000, 16384, 4096),
        ):
            self.assertEqual(connections(children, of), expected, (children, of))

    def test_as_shipped(self) -> None:
        """With the unit's LimitNOFILE= both have what they need, and some is left."""
        needed = limits.CHILDREN * limits.CHILD_DESCRIPTORS + limits.OWN_DESCRIPTORS
        self.assertLess(connections(limits.CHILDREN, 16384) + needed, 16384)

    def test_this_process(self) -> None:
        """What the process may have is what the system says."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(descriptors(), soft)

    def test_reload(self) -> None:
        """The site has as much room as `max-sessions` leaves, at the start and at a reload."""
        self.patch(assembly, "descriptors", lambda: 4096)
        parts = WholeBroker(settings={"max_sessions": 10}).parts
        self.assertEqual(parts.site.room, connections(10, 4096))
        parts.adopt(evolve(SETTINGS, max_sessions=100))
        self.assertEqual(parts.site.room, connections(100, 4096))
        self.assertNotEqual(connections(10, 4096), connections(100, 4096))
