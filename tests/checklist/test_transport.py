"""The checklist: HTTP itself (items 17 and 18)."""

from __future__ import annotations

import json

from fjmcp import limits
from fjmcp.testing.hosts import PUBLIC_URL
from tests.promises.client import Client, able
from tests.web.whole import BrokerCase


class TransportTests(BrokerCase):
    def test_item_17_origin_and_host(self) -> None:
        """A page of another origin is refused at /mcp, another Host everywhere; nothing that a
        request says of where we are stands in an answer."""
        visitor = self.broker.visitor()
        for origin in (
            "https://evil.example",
            "null",
            f"{PUBLIC_URL}.evil.example",
            f"{PUBLIC_URL}:8443",
            "http://broker.example",
        ):
            self.assertEqual(visitor.post_json("/mcp", {}, origin=origin).status, 403, origin)
            self.assertEqual(visitor.get("/mcp", origin=origin).status, 403, origin)
        for host in ("evil.example", "broker.example.evil.example", "127.0.0.1", "localhost"):
            for path in ("/mcp", "/oauth/authorize", "/.well-known/oauth-authorization-server"):
                self.assertEqual(visitor.get(path, host=host).status, 421, (host, path))
        lies = {
            "x_forwarded_host": "evil.example",
            "x_forwarded_proto": "http",
            "x_forwarded_prefix": "/evil",
            "forwarded": "host=evil.example;proto=http",
            "x_original_url": "/evil",
        }
        for path in (
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-protected-resource/mcp",
            "/",
            "/mcp",
        ):
            visit = visitor.get(path, **lies)
            seen = visit.body + (visit.header("www-authenticate") or "").encode()
            self.assertNotIn(b"evil", seen, path)

    def test_item_18_slow_and_large(self) -> None:
        """Bodies that drip, heads without end and giant JSON are cut or refused, also of nobody."""
        drip = self.broker.visitor().connect()
        drip.send(b"POST /mcp HTTP/1.1\r\nHost: broker.example\r\nContent-Length: 9999\r\n\r\n{")
        for _ in range(int(limits.CONNECTION_IDLE / 10) + 1):
            self.broker.advance(10.0)
            if not drip.wire.closed:
                drip.send(b" ")
        self.assertTrue(drip.wire.closed)
        head = self.broker.visitor().connect()
        head.send(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 65536)
        self.assertTrue(head.wire.closed or head.wire.disconnecting)
        nobody = self.broker.visitor().connect()
        nobody.send(
            b"POST /mcp HTTP/1.1\r\nHost: broker.example\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8000000\r\n\r\n" + b"[" * 100_000
        )
        self.assertEqual(nobody.status, 401)

    def test_item_18_sessions_and_streams(self) -> None:
        """A session has one stream, the newest; an assistant that opens a session for each call
        costs one child, and of its sessions only so many are remembered."""
        self.broker.reactor.mind = able
        client = Client.of(self.broker)
        client.initialize()
        headers = {
            "authorization": f"Bearer {client.tokens['access_token']}",
            "mcp_session_id": client.session or "",
            "accept": "text/event-stream",
        }
        streams = [self.broker.visitor().get("/mcp", **headers) for _ in range(3)]
        self.broker.settle()
        self.assertEqual([stream.ended for stream in streams], [True, True, False])
        for _ in range(limits.SESSIONS_PER_CONNECTION + 10):
            self.broker.advance(0.1)
            again = client.again()
            again.initialize()
            self.assertEqual(again.call().status, 200)
        self.assertEqual(len(self.broker.reactor.children), 1)
        self.assertEqual(self.count("sessions"), limits.SESSIONS_PER_CONNECTION)

    def test_item_18_deep(self) -> None:
        """JSON that nests for ever is refused wherever JSON is read."""
        visitor = self.broker.visitor()
        token = self.app.tokens()["access_token"]
        deep = b"[" * 5000 + b"]" * 5000
        registration = visitor.send(
            "POST", "/oauth/register", deep, {"content-type": "application/json"}
        )
        self.assertEqual(registration.status, 400)
        message = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":' + deep + b"}}"
        called = visitor.send(
            "POST",
            "/mcp",
            message,
            {
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
                "authorization": f"Bearer {token}",
            },
        )
        self.assertEqual(called.status, 400)
        self.assertIn("error", json.loads(called.body))
