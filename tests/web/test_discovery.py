from __future__ import annotations

import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.documents import METADATA_PATHS
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.testing.visitors import Visitor
from fjmcp.web.discovery import Discovery
from fjmcp.web.site import Site


class DiscoveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.endpoints = Endpoints("https://broker.example")
        clock = Clock()
        site = Site(self.endpoints, Discovery(self.endpoints).routes(), clock)
        self.visitor = Visitor(site, clock)

    def test_documents(self) -> None:
        """Each well-known path has its document, with or without a slash behind it."""
        for path, document in METADATA_PATHS.items():
            for target in (path, path + "/", path + "?x=1"):
                visit = self.visitor.get(target)
                self.assertEqual((visit.status, visit.json()), (200, document(self.endpoints)))
                self.assertEqual(visit.header("content-type"), "application/json")
                self.assertEqual(visit.header("cache-control"), "no-store")

    def test_nothing_from_the_request(self) -> None:
        """The addresses in a document are the public URL's, whatever headers say."""
        visit = self.visitor.get(
            "/.well-known/oauth-authorization-server",
            host="broker.example:443",
            x_forwarded_host="evil.example",
            x_forwarded_proto="http",
        )
        self.assertNotIn(b"evil", visit.body)
        self.assertNotIn(b"http://", visit.body)
        self.assertEqual(visit.json()["issuer"], "https://broker.example")

    def test_other_well_known(self) -> None:
        """Any other well-known path is a JSON 404, also for a browser."""
        for target in ("/.well-known/mcp", "/.well-known/oauth-protected-resource/other"):
            visit = self.visitor.get(target, accept="text/html")
            self.assertEqual((visit.status, visit.json()["error"]), (404, "not_found"))

    def test_front(self) -> None:
        """The front page shows the one URL to paste, and loads nothing that is not there."""
        visit = self.visitor.get("/")
        self.assertEqual(visit.status, 200)
        self.assertIn(b"https://broker.example/mcp", visit.body)
        for target in re.findall(rb'(?:href|src)="([^"]*)"', visit.body):
            self.assertEqual(self.visitor.get(target.decode()).status, 200)

    def test_style(self) -> None:
        """The style sheet is CSS and may be kept."""
        visit = self.visitor.get("/oauth/style.css")
        self.assertEqual(visit.header("content-type"), "text/css; charset=utf-8")
        self.assertEqual(visit.header("cache-control"), "max-age=3600")
