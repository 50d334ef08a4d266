"""Tests for `fjmcp.daemon.assembly`: that what belongs together is joined."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.children.profiles import recipe_for
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import WholeBroker

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
        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": CAN_BE_ASKED}
        self.session = self.post(asked).header("mcp-session-id") or ""
        (child,) = self.broker.reactor.alive
        here = {"authorization": self.bearer, "mcp-session-id": self.session}
        listening = {**here, "accept": "text/event-stream"}
        stream = self.broker.visitor().send("GET", "/mcp", headers=listening)
        child.say({"jsonrpc": "2.0", "id": 7, "method": "roots/list"})
        (event,) = stream.events()
        answer = {"jsonrpc": "2.0", "id": json.loads(event)["id"], "result": {"roots": []}}
        self.assertEqual(self.post(answer).status, 202)
        self.assertEqual(child.heard[-1], answer | {"id": 7})
        self.assertEqual(self.broker.visitor().send("DELETE", "/mcp", headers=here).status, 204)
        self.broker.settle()
        self.assertEqual((child.over, stream.ended), (True, True))
