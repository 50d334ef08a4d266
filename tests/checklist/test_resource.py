"""The checklist: the MCP endpoint and what runs behind it (items 13 and 14)."""

from __future__ import annotations

import json

from fjmcp import limits
from fjmcp.testing.children import FakeChild
from tests.promises.client import LATEST, Client, able
from tests.web.whole import BrokerCase


class ResourceTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker.reactor.mind = able

    def test_item_13_bearer(self) -> None:
        """The bearer token comes in the header, with every request; a session belongs to account
        and client, opens nothing by itself, and outlives the token that began it."""
        client = Client.of(self.broker)
        client.initialize()
        token, session = client.tokens["access_token"], client.session or ""
        visitor = self.broker.visitor()
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        for headers in (
            {},
            {"authorization": f"Basic {token}"},
            {"authorization": f"Token {token}"},
            {"authorization": "Bearer"},
            {"authorization": "Bearer fja_wrong"},
            {"cookie": f"access_token={token}"},
        ):
            for method in ("POST", "GET", "DELETE"):
                visit = visitor.send(
                    method,
                    "/mcp",
                    json.dumps(message).encode() if method == "POST" else b"",
                    {"mcp-session-id": session, "content-type": "application/json", **headers},
                )
                self.assertEqual(visit.status, 401, (headers, method))
                self.assertIn("resource_metadata", visit.header("www-authenticate") or "")
                self.assertNotIn(token.encode(), visit.body)
        self.assertEqual(visitor.post_json(f"/mcp?access_token={token}", message).status, 400)
        body = message | {"access_token": token}
        self.assertEqual(visitor.post_json("/mcp", body).status, 401)
        same_person = Client.of(self.broker)
        somebody_else = Client.of(self.broker, "bob", client.app)
        for other, status in ((same_person, 404), (somebody_else, 403)):
            other.session = session
            self.assertEqual(other.call().status, status)
            self.assertEqual(other.delete().status, status)
        client.session = "0" * 43
        self.assertEqual(client.call().status, 404)
        client.session = session
        client.tokens = client.app.refresh(client.tokens["refresh_token"]).json()
        self.assertEqual(client.call().status, 200)

    def test_item_14_children(self) -> None:
        """A child gets no client's token, cookie or header, its own token by the environment
        alone, an environment made from nothing, ids of our own, and one line for one message;
        what is too deep, too many or too much is refused before it."""
        client = Client.of(self.broker)
        client.initialize()
        client.send("tools/list", {}, cookie="secret=1", x_secret="hidden")
        child = self.child()
        token = client.tokens["access_token"]
        heard = json.dumps(child.heard)
        for secret in (token, client.session or "", "hidden", "secret=1"):
            self.assertNotIn(secret, " ".join(child.argv))
            self.assertNotIn(secret, json.dumps(child.env))
            self.assertNotIn(secret, heard)
        self.assertNotIn(child.env["FORGEJO_ACCESS_TOKEN"], " ".join(child.argv))
        self.assertEqual(
            set(child.env) - {"LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"},
            {"PATH", "HOME", "FORGEJO_URL", "FORGEJO_ACCESS_TOKEN", "FORGEJO_USER_AGENT"},
        )
        ids = [message["id"] for message in child.heard if "id" in message]
        self.assertTrue(all(isinstance(each, int) and each < 2**53 for each in ids), ids)
        broken = b'{"jsonrpc":"2.0",\n"id":1,\r\n"method":"tools/list"}'
        self.assertEqual(self.post(client, broken), 200)
        deep = b"[" * 200 + b"]" * 200
        for body, status in (
            (b'{"jsonrpc":"2.0","id":1,"method":"tools/\nlist"}', 400),
            (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\x00"}}', 400),
            (
                b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + deep + b"}",
                400,
            ),
            (b'{"jsonrpc":"2.0","id":"' + b"x" * 300 + b'","method":"x"}', 400),
            (b"\xff", 400),
            (b" " * (limits.MCP_BODY + 1), 413),
        ):
            before = len(child.heard)
            self.assertEqual(self.post(client, body), status, body[:60])
            self.assertEqual(len(child.heard), before)

    def test_item_14_bounds(self) -> None:
        """One account has and starts so many children, and no child so many requests, at most."""
        at_once, every = limits.CHILD_STARTS
        clients = [Client.of(self.broker) for _ in range(at_once + limits.CHILD_STARTS_QUEUE + 1)]
        visits = [each.call() for each in clients]
        self.assertEqual(visits.pop().status, 503)
        for visit in visits[at_once:]:
            self.assertFalse(visit.answered)
            self.broker.advance(every)
        self.assertEqual({visit.status for visit in visits}, {200})
        self.broker.settle()
        self.assertLessEqual(len(self.broker.reactor.alive), limits.CHILDREN_PER_ACCOUNT + 1)

        def busy(child: FakeChild) -> int:
            names = [m["params"]["name"] for m in child.heard if m.get("method") == "tools/call"]
            return names.count("wait")

        self.broker.advance(every)
        for _ in range(limits.CHILD_IN_FLIGHT + 1):
            clients[-1].call("wait")
        self.broker.advance(every)
        self.assertEqual(sorted(map(busy, self.broker.reactor.alive))[-2:], [1, 16])

    def post(self, client: Client, body: bytes) -> int:
        """The status of a POST of these bytes."""
        headers = {
            "authorization": f"Bearer {client.tokens['access_token']}",
            "mcp-session-id": client.session or "",
            "mcp-protocol-version": LATEST,
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        visit = self.broker.visitor().send("POST", "/mcp", body, headers)
        self.broker.settle()
        return visit.status
