"""Tests for `fjmcp.daemon.assembly`: that what belongs together is joined."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.sessions import digest_of
from fjmcp.children.profiles import recipe_for
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import WholeBroker

EVENTS = {"accept": "text/event-stream"}
CAN_BE_ASKED = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}}


class PersonalTests(SynchronousTestCase):
    """A child of which nothing is known, in a whole broker."""

    def setUp(self) -> None:
        self.broker = WholeBroker(child=recipe_for(["/opt/other"], {"TOKEN": "{token}"}))
        self.bearer = f"Bearer {self.broker.register().tokens()['access_token']}"
        self.session = ""

    def post(self, message: object) -> Visit:
        sent = {"authorization": self.bearer}
        if self.session:
            sent["mcp_session_id"] = self.session
        visit = self.broker.visitor().post_json("/mcp", message, **sent)
        self.broker.reactor.turn()
        return visit

    def test_question(self) -> None:
        """A child asks on the stream of its session, is answered, and ends with the session."""
        self.session, stream = self.listen()
        (child,) = self.broker.reactor.alive
        here = {"authorization": self.bearer, "mcp-session-id": self.session}
        child.say({"jsonrpc": "2.0", "id": 7, "method": "roots/list"})
        (event,) = stream.events()
        answer = {"jsonrpc": "2.0", "id": json.loads(event)["id"], "result": {"roots": []}}
        self.assertEqual(self.post(answer).status, 202)
        self.assertEqual(child.heard[-1], answer | {"id": 7})
        self.assertEqual(self.broker.visitor().send("DELETE", "/mcp", headers=here).status, 204)
        self.broker.settle()
        self.assertEqual((child.over, stream.ended), (True, True))

    def test_revoked(self) -> None:
        """With its grant a session ends what it has, and leaves memory."""
        sessions = self.broker.parts.sessions
        app = self.broker.register()
        tokens = app.tokens()
        self.bearer = f"Bearer {tokens['access_token']}"
        self.session, stream = self.listen()
        (child,) = self.broker.reactor.alive
        self.assertIsNotNone(sessions.held(digest_of(self.session)))
        app.revoke(tokens["access_token"])
        self.broker.settle()
        self.assertEqual((child.over, stream.ended), (True, True))
        self.assertIsNone(sessions.held(digest_of(self.session)))

    def test_room(self) -> None:
        """A session with a stream, or a child of its own, makes no room for others."""
        self.patch(limits, "SESSIONS_PER_ACCOUNT", 2)
        first, stream = self.listen()
        for _ in range(3):
            self.session = ""
            self.initialize({"protocolVersion": "2025-11-25", "capabilities": {}})
        self.assertIsNotNone(self.broker.parts.sessions.held(digest_of(first)))
        self.assertFalse(stream.ended)

    def initialize(self, params: object) -> str:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        self.session = ""
        self.session = self.post(asked).header("mcp-session-id") or ""
        return self.session

    def listen(self) -> tuple[str, Visit]:
        """A session with a child of its own, and its stream."""
        session = self.initialize(CAN_BE_ASKED)
        here = {"authorization": self.bearer, "mcp-session-id": session}
        stream = self.broker.visitor().send("GET", "/mcp", headers=here | EVENTS)
        self.assertEqual(stream.status, 200)
        return session, stream
