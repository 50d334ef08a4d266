from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.endpoints import Endpoints
from fjmcp.testing.visitors import Visitor
from fjmcp.web.health import Health
from fjmcp.web.site import Site


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.unready: str | None = None
        clock = Clock()
        routes = Health(lambda: self.unready).routes()
        site = Site(Endpoints("https://broker.example"), routes, clock)
        self.visitor = Visitor(site, clock, host="10.0.0.7:8085")

    def test_lives(self) -> None:
        """/healthz says that the process lives, ready or not, under any Host."""
        for self.unready in (None, "stopping"):
            visit = self.visitor.get("/healthz")
            self.assertEqual((visit.status, visit.json()), (200, {"status": "ok"}))

    def test_ready(self) -> None:
        """/readyz is 200 while requests are welcome."""
        visit = self.visitor.get("/readyz")
        self.assertEqual((visit.status, visit.json()), (200, {"status": "ok"}))

    def test_unready(self) -> None:
        """/readyz is 503 with the reason while they are not."""
        self.unready = "stopping"
        visit = self.visitor.get("/readyz")
        self.assertEqual(visit.status, 503)
        self.assertEqual(visit.json(), {"status": "unready", "reason": "stopping"})
        self.assertEqual(visit.header("retry-after"), "5")
