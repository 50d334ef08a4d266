from __future__ import annotations

from collections.abc import Awaitable, Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_TROUBLED, FORM_MALFORMED
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.web.channel import SiteRequest
from fjmcp.web.routes import Answer, Route, Tongue, route
from fjmcp.web.site import Site

PUBLIC = "https://broker.example"

JSON = {"content-type": "application/json"}


class Room:
    """Routes that answer as the test says."""

    def __init__(self) -> None:
        self.seen: list[SiteRequest] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[SiteRequest], Awaitable[Answer]] = self.ok

    async def ok(self, request: SiteRequest) -> Answer:
        return {"ok": True}

    async def respond(self, request: SiteRequest) -> Answer:
        self.seen.append(request)
        self.bodies.append(request.content.read())
        return await self.answer(request)

    def routes(self) -> list[Route]:
        return [
            route("/page", speaks=Tongue.PAGE, get=self.respond, post=self.respond),
            route("/oauth/token", "/token", speaks=Tongue.OAUTH, post=self.respond),
            route("/free", speaks=Tongue.OAUTH, get=self.respond, any_host=True),
            route(
                "/mcp",
                speaks=Tongue.MCP,
                get=self.respond,
                post=self.respond,
                delete=self.respond,
                ceiling=limits.MCP_BODY,
            ),
        ]


class SiteTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.room = Room()
        self.site = self.make()
        self.visitor = Visitor(self.site, self.clock)

    def make(self, public: str = PUBLIC) -> Site:
        return Site(Endpoints(public), self.room.routes(), self.clock)

    def answering(self, answer: Answer) -> None:
        async def give(request: SiteRequest) -> Answer:
            return answer

        self.room.answer = give

    def raising(self, error: Exception) -> None:
        async def fail(request: SiteRequest) -> Answer:
            raise error

        self.room.answer = fail

    def assert_oauth_error(self, visit: Visit, status: int, error: str) -> None:
        self.assertEqual((visit.status, visit.json()["error"]), (status, error))
        self.assertEqual(set(visit.json()), {"error", "error_description"})
        self.assertEqual(visit.header("content-type"), "application/json")

    def assert_rpc_error(self, visit: Visit, status: int, code: int) -> None:
        self.assertEqual((visit.status, visit.json()["error"]["code"]), (status, code))
        self.assertEqual((visit.json()["jsonrpc"], visit.json()["id"]), ("2.0", None))
        self.assertEqual(visit.header("content-type"), "application/json")


class AnswerTests(SiteTestCase):
    def test_mapping(self) -> None:
        """A mapping goes out as JSON with its length."""
        visit = self.visitor.post_form("/oauth/token", {})
        self.assertEqual((visit.status, visit.json()), (200, {"ok": True}))
        self.assertEqual(visit.header("content-length"), "11")
        self.assertTrue(visit.ended)

    def test_page(self) -> None:
        """Bytes go out as a page that may load our style and nothing else."""
        self.answering(b"<p>hello</p>")
        visit = self.visitor.get("/page")
        self.assertEqual((visit.status, visit.body), (200, b"<p>hello</p>"))
        self.assertEqual(visit.header("content-type"), "text/html; charset=utf-8")
        policy = visit.header("content-security-policy") or ""
        for said in ("default-src 'none'", "style-src 'self'", "frame-ancestors 'none'"):
            self.assertIn(said, policy)
        self.assertIn("base-uri 'none'", policy)
        self.assertEqual(visit.header("x-frame-options"), "DENY")

    def test_headers_of_all(self) -> None:
        """No answer is stored, sniffed, named in a Referer or signed with a version."""
        for visit in (
            self.visitor.get("/page"),
            self.visitor.post_form("/oauth/token", {}),
            self.visitor.get("/nowhere"),
            self.visitor.get("/page", host="other.example"),
            self.visitor.send("POST", "/page", headers={"content-length": "999999"}),
        ):
            self.assertEqual(visit.header("cache-control"), "no-store")
            self.assertEqual(visit.header("x-content-type-options"), "nosniff")
            self.assertEqual(visit.header("referrer-policy"), "no-referrer")
            self.assertEqual(visit.header("server"), "fjmcp")

    def test_empty(self) -> None:
        """A redirect is a status, a Location and no body."""

        async def send(request: SiteRequest) -> Answer:
            request.setResponseCode(303)
            request.setHeader(b"location", b"https://client.example/back")
            return b""

        self.room.answer = send
        visit = self.visitor.get("/page")
        self.assertEqual((visit.status, visit.body, visit.ended), (303, b"", True))
        self.assertIsNone(visit.header("content-type"))

    def test_oauth_refusal(self) -> None:
        """A refusal at an OAuth endpoint is JSON; on a page it is a page."""
        self.answering(FORM_MALFORMED)
        self.assert_oauth_error(self.visitor.post_form("/token", {}), 400, "invalid_request")
        visit = self.visitor.get("/page")
        self.assertEqual(visit.status, 400)
        self.assertEqual(visit.header("content-type"), "text/html; charset=utf-8")
        self.assertIn(b"not a urlencoded form", visit.body)

    def test_mcp_refusal(self) -> None:
        """A refusal at the MCP endpoint is a JSON-RPC error, with its challenge and its wait."""
        self.answering(BAD_TOKEN)
        visit = self.visitor.post_json("/mcp", {})
        self.assert_rpc_error(visit, 401, -32001)
        self.assertIn('error="invalid_token"', visit.header("www-authenticate") or "")
        self.answering(CREDENTIAL_TROUBLED)
        visit = self.visitor.post_json("/mcp", {})
        self.assert_rpc_error(visit, 503, -32603)
        self.assertEqual(visit.header("retry-after"), "15")

    def test_head(self) -> None:
        """HEAD of a page has the head of GET and no body; /mcp does not know it."""
        self.answering(b"<p>hello</p>")
        visit = self.visitor.send("HEAD", "/page")
        self.assertEqual((visit.status, visit.body), (200, b""))
        self.assertEqual(visit.header("content-length"), "12")
        self.assertEqual(self.visitor.send("HEAD", "/mcp").status, 405)

    def test_kept_connection(self) -> None:
        """A second request on the same connection is answered there."""
        self.answering(b"x")
        visit = self.visitor.get("/page")
        visit.wire.clear()
        visit.send(b"GET /page HTTP/1.1\r\nHost: broker.example\r\n\r\n")
        self.assertEqual((visit.status, visit.body, visit.wire.closed), (200, b"x", False))


class StreamTests(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.waits: Deferred[None] = Deferred()
        self.left: list[str] = []

        async def stream(request: SiteRequest) -> Answer:
            request.setHeader(b"content-type", b"text/event-stream")
            request.write(b"data: 1\n\n")
            try:
                await self.waits
            except CancelledError:
                self.left.append("cancelled")
                raise
            request.write(b"data: 2\n\n")
            request.finish()
            return None

        self.room.answer = stream

    def test_grows(self) -> None:
        """A route that writes by itself is seen as it writes, and ends when it says so."""
        visit = self.visitor.get("/mcp")
        self.assertEqual((visit.events(), visit.ended), ([b"1"], False))
        self.waits.callback(None)
        self.assertEqual((visit.events(), visit.ended), ([b"1", b"2"], True))

    def test_client_leaves(self) -> None:
        """A route is cancelled when its client leaves, and nothing is logged as an error."""
        visit = self.visitor.get("/mcp")
        visit.leave()
        self.assertEqual(self.left, ["cancelled"])
        self.assertTrue(self.room.seen[0].gone)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_returns_before_the_end(self) -> None:
        """A route may return while what it has begun still writes."""
        later: list[SiteRequest] = []

        async def hand_over(request: SiteRequest) -> Answer:
            request.write(b"data: 1\n\n")
            later.append(request)
            return None

        self.room.answer = hand_over
        visit = self.visitor.get("/mcp")
        self.assertEqual((visit.events(), visit.ended), ([b"1"], False))
        later[0].finish()
        self.assertTrue(visit.ended)

    def test_handed_over_and_left(self) -> None:
        """A client that leaves what a returned route has begun leaves nothing behind."""

        async def hand_over(request: SiteRequest) -> Answer:
            request.write(b"data: 1\n\n")
            return None

        self.room.answer = hand_over
        self.visitor.get("/mcp").leave()
        self.assertTrue(self.room.seen[0].gone)

    def test_fails_after_it_began(self) -> None:
        """A response that cannot be completed is cut, so that it does not look complete."""

        async def fail(request: SiteRequest) -> Answer:
            request.write(b"data: 1\n\n")
            raise KeyError("bug")

        self.room.answer = fail
        visit = self.visitor.get("/mcp")
        self.assertEqual((visit.ended, visit.wire.aborted), (False, True))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_fails_after_the_client_left(self) -> None:
        """What a route raises after its client left is logged, and nobody is answered."""

        async def fail(request: SiteRequest) -> Answer:
            try:
                await self.waits
            finally:
                raise KeyError("bug")

        self.room.answer = fail
        visit = self.visitor.get("/mcp")
        visit.leave()
        self.assertFalse(visit.answered)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class TroubleTests(SiteTestCase):
    def test_store_down(self) -> None:
        """With the store down each tongue says 503 and when to come again."""
        self.raising(StoreDown("locked"))
        visit = self.visitor.post_form("/oauth/token", {})
        self.assert_oauth_error(visit, 503, "temporarily_unavailable")
        self.assertEqual(visit.header("retry-after"), "5")
        visit = self.visitor.post_json("/mcp", {})
        self.assert_rpc_error(visit, 503, -32603)
        self.assertEqual(visit.header("retry-after"), "5")
        visit = self.visitor.get("/page")
        self.assertEqual((visit.status, visit.header("retry-after")), (503, "5"))
        self.assertIn(b"Nothing is lost", visit.body)

    def test_bug(self) -> None:
        """An unexpected exception is a 500 whose incident id stands in the log with the trace."""
        self.raising(ZeroDivisionError("secret"))
        for visit in (
            self.visitor.post_form("/oauth/token", {}),
            self.visitor.post_json("/mcp", {}),
            self.visitor.get("/page"),
        ):
            self.assertEqual(visit.status, 500)
            self.assertNotIn(b"secret", visit.body)
        with capturedLogs() as events:
            visit = self.visitor.post_form("/oauth/token", {})
        incidents = [event["incident"] for event in events if "incident" in event]
        self.assertEqual(len(incidents), 1)
        self.assertIn(incidents[0], visit.json()["error_description"])
        with capturedLogs() as events:
            visit = self.visitor.get("/page")
        (incident,) = [event["incident"] for event in events if "incident" in event]
        self.assertEqual(visit.header("content-type"), "text/html; charset=utf-8")
        self.assertIn(f"Incident {incident}.".encode(), visit.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 5)

    def test_inner_cancellation(self) -> None:
        """Something cancelled under a route whose client waits is a bug and not a silence."""
        self.raising(CancelledError())
        visit = self.visitor.post_form("/oauth/token", {})
        self.assert_oauth_error(visit, 500, "server_error")
        self.flushLoggedErrors(CancelledError)


class DoorTests(SiteTestCase):
    def test_host(self) -> None:
        """Only the public URL's Host is answered, in any case and with or without its port."""
        for host in ("broker.example", "BROKER.example", "broker.example:443"):
            self.assertEqual(self.visitor.get("/page", host=host).status, 200)
        for host in ("other.example", "broker.example:80", "broker.example.", "", "127.0.0.1"):
            visit = self.visitor.post_form("/oauth/token", {}, host=host)
            self.assert_oauth_error(visit, 421, "invalid_request")
            self.assert_rpc_error(self.visitor.post_json("/mcp", {}, host=host), 421, -32600)
        self.assertEqual(len(self.room.seen), 3)

    def test_host_with_port(self) -> None:
        """A public URL with a port wants that port."""
        visitor = Visitor(self.make("http://localhost:8085"), self.clock, host="localhost:8085")
        self.assertEqual(visitor.get("/page").status, 200)
        for host in ("localhost", "localhost:80", "127.0.0.1:8085"):
            self.assertEqual(visitor.get("/page", host=host).status, 421)

    def test_host_twice_or_not_at_all(self) -> None:
        """A request with two Hosts, or none, is refused."""
        for hosts in (b"", b"Host: broker.example\r\nHost: broker.example\r\n"):
            visit = self.visitor.connect()
            visit.send(b"GET /page HTTP/1.1\r\n" + hosts + b"\r\n")
            self.assertEqual(visit.status, 421)

    def test_any_host(self) -> None:
        """A route for whoever watches the process answers under any Host."""
        for host in ("10.0.0.7:8085", "x" * 300, "a..b", "[::1]"):
            self.assertEqual(self.visitor.get("/free", host=host).status, 200)

    def test_origin(self) -> None:
        """On /mcp a foreign Origin is refused; our own and none are fine."""
        self.assertEqual(self.visitor.post_json("/mcp", {}).status, 200)
        self.assertEqual(self.visitor.post_json("/mcp", {}, origin=PUBLIC).status, 200)
        for origin in ("https://evil.example", "null", PUBLIC + ".evil.example", PUBLIC + "/"):
            visit = self.visitor.post_json("/mcp", {}, origin=origin)
            self.assert_rpc_error(visit, 403, -32600)
        self.assertEqual(len(self.room.seen), 2)

    def test_slashes(self) -> None:
        """A slash behind a path changes nothing, and nothing is redirected for it."""
        for target in ("/oauth/token", "/oauth/token/", "/token", "/token/", "/token/?x=1"):
            self.assertEqual(self.visitor.post_form(target, {}).status, 200)

    def test_unknown_path(self) -> None:
        """A path that nobody answers is 404: JSON, or a page for a browser."""
        self.assert_oauth_error(self.visitor.get("/nowhere"), 404, "not_found")
        visit = self.visitor.get("/nowhere", accept="text/html,*/*")
        self.assertEqual(visit.status, 404)
        self.assertEqual(visit.header("content-type"), "text/html; charset=utf-8")
        for target in ("/.well-known/nothing", "/mcp/more", "/.well-known/"):
            visit = self.visitor.get(target, accept="text/html")
            self.assert_oauth_error(visit, 404, "not_found")

    def test_odd_paths(self) -> None:
        """Paths that are no text, or hide another path, are 404 and no error."""
        for target in ("/%ff%fe", "/..", "/page/../mcp", "/%2e%2e/page", "/page%00", "/" * 99):
            self.assertEqual(self.visitor.get(target).status, 404, target)
        self.assertEqual(self.room.seen, [])

    def test_other_spellings(self) -> None:
        """A path in another spelling is nobody's: the door's rules go by the path as it is."""
        for target in ("//mcp", "/%6dcp", "/mcp%2f", "/MCP", "/./mcp", "/x/../mcp", "///free"):
            for origin in (PUBLIC, "https://evil.example"):
                visit = self.visitor.post_json(target, {}, origin=origin)
                self.assert_oauth_error(visit, 404, "not_found")
        self.assertEqual(self.room.seen, [])

    def test_wrong_method(self) -> None:
        """A method that a path does not know is 405 and says which it knows."""
        for method in ("GET", "PUT", "OPTIONS", "FOO"):
            visit = self.visitor.send(method, "/oauth/token")
            self.assert_oauth_error(visit, 405, "invalid_request")
            self.assertEqual(visit.header("allow"), "POST")
        visit = self.visitor.send("PUT", "/mcp")
        self.assert_rpc_error(visit, 405, -32600)
        self.assertEqual(visit.header("allow"), "GET, POST, DELETE")

    def test_log(self) -> None:
        """The log tells method, path and status of each answer, and never a query."""
        with capturedLogs() as events:
            self.visitor.get("/page?code=fjc_secret")
            self.visitor.get("/nowhere?code=fjc_secret")
            self.visitor.get("/%0aforged?code=fjc_secret", host="other.example")
        answered = [event["status"] for event in events if event["log_format"] == "answered"]
        self.assertEqual(answered, [200, 404, 421])
        self.assertNotIn("fjc_secret", repr(events))

    def test_two_routes(self) -> None:
        """Two routes for one path are a bug that shows at the start."""
        routes = [*self.room.routes(), *self.room.routes()]
        with self.assertRaises(ValueError):
            Site(Endpoints(PUBLIC), routes, self.clock)


class SizeTests(SiteTestCase):
    def refused(self, visit: Visit, rpc: bool = False) -> None:
        self.assertEqual(visit.status, 413)
        self.assertEqual(visit.header("connection"), "close")
        self.assertTrue(visit.ended)
        self.assertTrue(visit.wire.half_closed)
        self.assertEqual("jsonrpc" in visit.json(), rpc)
        self.assertEqual(self.room.seen, [])

    def test_announced(self) -> None:
        """A body that is announced too large is refused before a byte of it was sent."""
        for target in ("/oauth/token", "/nowhere", "/page"):
            length = str(limits.FORM_BODY + 1)
            self.refused(self.visitor.send("POST", target, headers={"content-length": length}))
        length = str(limits.MCP_BODY + 1)
        visit = self.visitor.send("POST", "/mcp?a=1", headers={"content-length": length} | JSON)
        self.refused(visit, rpc=True)

    def test_in_chunks(self) -> None:
        """A body that does not say its length is refused as soon as it is too large."""
        visit = self.visitor.send(
            "POST", "/oauth/token", headers={"transfer-encoding": "chunked", "content-length": ""}
        )
        self.assertEqual(visit.status, 400)
        visit = self.visitor.connect()
        visit.send(
            b"POST /oauth/token HTTP/1.1\r\nHost: broker.example\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        for _ in range(4):
            visit.send(piece)
            self.assertFalse(visit.answered)
        visit.send(piece)
        self.refused(visit)
        visit.send(piece * 100 + b"0\r\n\r\n")
        self.assertEqual(self.room.seen, [])

    def test_whole_in_one_piece(self) -> None:
        """A body that is too large is refused once even if it came with its headers."""
        visit = self.visitor.send("POST", "/oauth/token", b"x" * (limits.FORM_BODY + 1))
        self.refused(visit)
        self.assertEqual(visit.wire.value().count(b"HTTP/1.1"), 1)

    def test_just_fits(self) -> None:
        """A body of exactly the ceiling is read, and /mcp takes more than a form."""
        self.visitor.send("POST", "/oauth/token", b"x" * limits.FORM_BODY)
        self.visitor.send("POST", "/mcp", b"y" * limits.MCP_BODY)
        lengths = [len(body) for body in self.room.bodies]
        self.assertEqual(lengths, [limits.FORM_BODY, limits.MCP_BODY])

    def test_no_continue(self) -> None:
        """A client that asks first whether it may send a large body hears no."""
        visit = self.visitor.send(
            "POST",
            "/oauth/token",
            headers={"content-length": "999999", "expect": "100-continue"},
        )
        self.assertTrue(visit.wire.value().startswith(b"HTTP/1.1 413 "))
        self.assertEqual(visit.wire.value().count(b"100 Continue"), 0)

    def test_lingers(self) -> None:
        """After a 413 the connection stays to take what is on its way, and then goes."""
        visit = self.visitor.send("POST", "/token", headers={"content-length": "999999"})
        visit.send(b"x" * 50_000)
        self.clock.advance(limits.LINGER - 0.1)
        self.assertFalse(visit.wire.closed)
        self.clock.advance(0.2)
        self.assertTrue(visit.wire.aborted)
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lingers_no_longer_than_the_client(self) -> None:
        """A client that closes after its 413 leaves no timer behind."""
        visit = self.visitor.send("POST", "/token", headers={"content-length": "999999"})
        visit.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_monstrous_length(self) -> None:
        """A length of thousands of digits is a bad request and no exception."""
        visit = self.visitor.connect()
        visit.send(b"POST /mcp HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
        self.assertEqual(visit.status, 400)
        self.assertTrue(visit.wire.closed)

    def test_headers(self) -> None:
        """Headers past Twisted's bound are a bad request."""
        visit = self.visitor.connect()
        visit.send(b"GET /page HTTP/1.1\r\n" + b"X-A: b\r\n" * 3000 + b"\r\n")
        self.assertEqual(visit.status, 400)
        self.assertEqual(self.room.seen, [])


class SlowTests(SiteTestCase):
    def test_drop_by_drop(self) -> None:
        """A request that is sent a byte at a time is cut at the bound, whatever arrives."""
        visit = self.visitor.connect()
        visit.send(b"POST /mcp HTTP/1.1\r\nHost: broker.example\r\nContent-Length: 9999\r\n\r\n")
        for _ in range(int(limits.CONNECTION_IDLE / 10) - 1):
            self.clock.advance(10)
            visit.send(b"x")
        self.assertFalse(visit.wire.closed)
        self.clock.advance(10)
        self.assertTrue(visit.wire.closed)
        self.assertEqual(self.room.seen, [])

    def test_idle(self) -> None:
        """A connection without a request is closed at the bound, counted from the last answer."""
        visit = self.visitor.connect()
        self.clock.advance(limits.CONNECTION_IDLE - 1)
        visit.send(b"GET /free HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(visit.ended)
        self.clock.advance(limits.CONNECTION_IDLE - 1)
        self.assertFalse(visit.wire.closed)
        self.clock.advance(1)
        self.assertTrue(visit.wire.closed)

    def test_long_answer(self) -> None:
        """An answer that takes long is no idle connection."""
        wait: Deferred[None] = Deferred()

        async def later(request: SiteRequest) -> Answer:
            await wait
            return {}

        self.room.answer = later
        visit = self.visitor.post_json("/mcp", {})
        self.clock.advance(10 * limits.CONNECTION_IDLE)
        wait.callback(None)
        self.assertEqual(visit.status, 200)

    def test_last_answer_unread(self) -> None:
        """A client that asked us to close and then reads nothing does not stay for ever."""
        visit = self.visitor.get("/page", connection="close")
        self.assertTrue(visit.ended)
        self.clock.advance(limits.CONNECTION_IDLE + 20)
        self.assertTrue(visit.wire.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AnyBytesTests(SiteTestCase):
    @settings()
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.sampled_from(
                    [
                        b"GET /page HTTP/1.1\r\n",
                        b"POST /mcp HTTP/1.1\r\n",
                        b"Host: broker.example\r\n",
                        b"Content-Length: 5\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                        b"\r\n",
                        b"hello",
                        b"5\r\nhello\r\n",
                        b"0\r\n\r\n",
                        b"M\xc3\xa4P /\xff HTTP/1.1\r\n",
                    ]
                ),
            ),
            max_size=12,
        )
    )
    def test_never_raises(self, pieces: list[bytes]) -> None:
        """Whatever bytes arrive, in whatever pieces, nothing raises and no answer is a 5xx."""
        visit = self.visitor.connect()
        for piece in pieces:
            if not visit.wire.disconnecting:
                visit.send(piece)
        if visit.answered:
            self.assertLess(visit.status, 500)
        visit.leave()
        self.assertEqual(self.flushLoggedErrors(), [])


class ConnectionsTests(SiteTestCase):
    """How many connections there may be."""

    def test_bound(self) -> None:
        """What comes past it is closed unread; those that are there go on."""
        self.site.room = 3
        held = [self.visitor.connect() for _ in range(3)]
        with capturedLogs() as logs:
            turned_away = [self.visitor.connect() for _ in range(2)]
        for visit in turned_away:
            self.assertTrue(visit.wire.aborted)
            self.assertEqual(visit.body if visit.answered else b"", b"")
        said = [e["connections"] for e in logs if e["log_format"] == "no room for a connection"]
        self.assertEqual(said, [3])
        for visit in held:
            visit.send(b"GET /free HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(visit.status, 200)

    def test_room_again(self) -> None:
        """A connection that ends makes room, however it ends; one that was refused took none."""
        self.site.room = 2
        for _ in range(3):
            first, second = self.visitor.connect(), self.visitor.connect()
            self.visitor.connect().leave()
            self.clock.advance(0)
            self.assertEqual(self.site.connections, 2)
            first.leave()
            second.wire.abortConnection()
            self.clock.advance(0)
            self.assertEqual(self.site.connections, 0)
