"""Tests for `fjmcp.web.gate`, through the site."""

from __future__ import annotations

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.refusals import BAD_TOKEN, NO_TOKEN, STORE_DOWN, TOKEN_IN_QUERY
from fjmcp.testing.visitors import Visit, Visitor
from tests.web.desk import (
    BAD_TOKEN_CHALLENGE,
    INITIALIZE,
    NO_TOKEN_CHALLENGE,
    Client,
    Desk,
    error,
    request,
)


class GateCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.client = self.desk.client()
        self.stranger = self.desk.stranger()

    def assertChallenged(self, visit: Visit, challenge: str, about: str = "") -> None:
        self.assertEqual((visit.status, visit.header("www-authenticate")), (401, challenge), about)
        refusal = NO_TOKEN if "error=" not in challenge else BAD_TOKEN
        self.assertEqual(visit.json(), error(refusal), about)
        self.assertTrue(visit.ended, about)
        self.assertEqual(visit.header("cache-control"), "no-store", about)

    def tearDown(self) -> None:
        self.assertEqual(self.desk.children, [], "no child for anybody here")


class BearerTests(GateCase):
    """Who may come in."""

    def test_good(self) -> None:
        """A token in the Authorization header opens, however its scheme is written."""
        for scheme in ("Bearer ", "bearer ", "BEARER  "):
            visit = self.client.ask("ping", authorization=f"{scheme}{self.client.token}")
            self.assertEqual((visit.status, visit.json()["result"]), (200, {}))

    def test_none(self) -> None:
        """Without a token every method is told how to get one, and of no error."""
        for method in ("POST", "GET", "DELETE"):
            for session in ("", "an-unknown-session"):
                visit = self.stranger.send(method, mcp_session_id=session)
                self.assertChallenged(visit, NO_TOKEN_CHALLENGE, method)

    def test_bad(self) -> None:
        """A token that is none of ours, on any method, is told to be invalid."""
        for method in ("POST", "GET", "DELETE"):
            for said in (
                "Bearer fja_unknown",
                "Bearer",
                "Bearer ",
                f"Bearer {self.client.token}x",
                f"Bearer {self.client.token[:-1]}",
                f"Bearer {self.client.token} {self.client.token}",
                "Bearer " + "a" * (limits.BEARER + 1),
                "Bearer pässwort",
            ):
                visit = self.stranger.send(method, authorization=said)
                self.assertChallenged(visit, BAD_TOKEN_CHALLENGE, f"{method} {said}")

    def test_other_scheme(self) -> None:
        """Another scheme is no token."""
        for said in ("Basic YTpi", self.client.token, f"Token {self.client.token}"):
            visit = self.stranger.ask("ping", authorization=said)
            self.assertChallenged(visit, NO_TOKEN_CHALLENGE, said)

    def test_over_long(self) -> None:
        """A token whose length none of ours has is not looked up."""
        self.desk.store.fail_all()
        visit = self.stranger.ask("ping", authorization="Bearer " + "a" * (limits.BEARER + 1))
        self.assertEqual(visit.status, 401)
        self.assertEqual(self.stranger.ask("ping", authorization="Bearer").status, 401)
        visit = self.stranger.ask("ping", authorization="Bearer " + "a" * limits.BEARER)
        self.assertEqual((visit.status, visit.json()), (503, error(STORE_DOWN)))

    def test_twice(self) -> None:
        """Two Authorization headers are refused, even if both are good."""
        visit = Visitor(self.desk.site, self.desk.reactor).connect()
        line = f"Authorization: Bearer {self.client.token}\r\n"
        visit.send(f"DELETE /mcp HTTP/1.1\r\nHost: broker.example\r\n{line}{line}\r\n".encode())
        self.assertChallenged(visit, BAD_TOKEN_CHALLENGE)

    def test_in_query(self) -> None:
        """A token in the URL is refused, though there is a good one in the header too."""
        for client in (self.client, self.stranger):
            for method in ("POST", "GET", "DELETE"):
                visit = client.send(method, target=f"/mcp?access_token={self.client.token}")
                self.assertEqual((visit.status, visit.json()), (400, error(TOKEN_IN_QUERY)))
                words = visit.header("www-authenticate") or ""
                self.assertIn('error="invalid_request"', words)

    def test_in_body(self) -> None:
        """A token in a form is no token (RFC 6750 §2.2 is not for us)."""
        visit = self.stranger.post(
            f"access_token={self.client.token}".encode(),
            content_type="application/x-www-form-urlencoded",
        )
        self.assertChallenged(visit, NO_TOKEN_CHALLENGE)

    def test_expired(self) -> None:
        """A token ends at its time, and not a moment before, seen before or not."""
        self.assertEqual(self.client.ask("ping").status, 200)
        unseen = self.desk.client()
        self.desk.pass_time(limits.ACCESS_TOKEN - 1)
        self.assertEqual(self.client.ask("ping").status, 200)
        self.desk.pass_time(1)
        self.assertChallenged(self.client.ask("ping"), BAD_TOKEN_CHALLENGE)
        self.assertChallenged(unseen.ask("ping"), BAD_TOKEN_CHALLENGE)

    def test_revoked(self) -> None:
        """The token of an ended grant is bad at once; that of another grant stays good."""
        other = self.desk.client(client_id="c2")
        self.assertEqual((self.client.ask("ping").status, other.ask("ping").status), (200, 200))
        self.desk.end(self.client)
        self.assertChallenged(self.client.ask("ping"), BAD_TOKEN_CHALLENGE)
        self.assertEqual(other.ask("ping").status, 200)

    def test_no_token_in_the_log(self) -> None:
        """Whatever is refused, no token stands in the log."""
        with capturedLogs() as events:
            self.stranger.ask(authorization=f"Bearer {self.client.token}x")
            self.client.send("GET", target=f"/mcp?access_token={self.client.token}")
        self.assertNotIn(self.client.token, repr(events))


class ProbeTests(GateCase):
    """What Anthropic's servers send before they have a token (claude-ai-mcp#217)."""

    def probe(self, **headers: str) -> Visit:
        return self.stranger.post(request("initialize", INITIALIZE, 0), **headers)

    def test_two_posts(self) -> None:
        """Both `initialize` get the challenge, whatever they accept."""
        for visit in (
            self.probe(accept="*/*", mcp_protocol_version="2025-06-18"),
            self.probe(),
            self.probe(accept="*/*", mcp_protocol_version="2026-07-28"),
            self.stranger.ask("server/discover", mcp_protocol_version="2026-07-28"),
        ):
            self.assertChallenged(visit, NO_TOKEN_CHALLENGE)

    def test_other_methods(self) -> None:
        """HEAD, GET, DELETE and the rest get 401 or 405, OPTIONS 204, and nothing worse."""
        for method in ("HEAD", "GET", "DELETE", "OPTIONS", "PUT", "PATCH"):
            visit = self.stranger.send(method, accept="*/*", content_type="")
            self.assertIn(visit.status, (204,) if method == "OPTIONS" else (401, 405), method)
            if visit.status == 405:
                self.assertEqual(visit.header("allow"), "GET, POST, DELETE, OPTIONS", method)

    def test_trailing_slash(self) -> None:
        """/mcp/ is /mcp, in place: a redirect would cost the token."""
        self.assertChallenged(self.stranger.send("POST", target="/mcp/"), NO_TOKEN_CHALLENGE)
        client: Client = self.client
        visit = client.send("POST", b'{"jsonrpc":"2.0","id":1,"method":"ping"}', target="/mcp/")
        self.assertEqual(visit.json()["result"], {})
