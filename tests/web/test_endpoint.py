"""Tests for `fjmcp.web.endpoint`, through the site."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request

from fjmcp import limits, refusals
from fjmcp.broker.callers import Caller
from fjmcp.broker.pool import Bounds
from fjmcp.mcp.opening import Profile
from fjmcp.mcp.revisions import LEGACY
from fjmcp.refusals import McpRefusal
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.children import INITIALIZED, FakeChild, polite
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.web.gate import Gate
from tests.web.desk import (
    BAD_TOKEN_CHALLENGE,
    BOTH,
    INITIALIZE,
    PUBLIC,
    Client,
    Desk,
    Key,
    capable,
    error,
    request,
    result,
)

MODERN = "2026-07-28"
META = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
}
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
LARGE = json.dumps(request("ping", {"padding": "x" * (1 << 20)})).encode()
MIB = b"%x\r\n%b\r\n" % (1 << 20, b" " * (1 << 20))
"""A chunk of a body."""


class EndpointCase(SynchronousTestCase):
    """A client with a token and no session yet."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.client = self.desk.client()

    @property
    def child(self) -> FakeChild:
        return self.desk.child

    def assertRefused(
        self, visit: Visit, refusal: McpRefusal, id: object = None, about: object = ""
    ) -> None:
        """The refusal, in its own words, and a response that is whole."""
        self.assertEqual((visit.status, visit.json()), (refusal.status, error(refusal, id)), about)
        self.assertEqual(visit.header("content-type"), "application/json", about)
        self.assertTrue(visit.ended, about)

    def assertAnswered(self, visit: Visit, answer: object) -> None:
        self.assertEqual((visit.status, visit.json(), visit.ended), (200, answer, True))

    def assertTaken(self, visit: Visit, about: object = "") -> None:
        """202, and no body (2025-11-25/basic/transports)."""
        self.assertEqual((visit.status, visit.body, visit.ended), (202, b"", True), about)
        self.assertIsNone(visit.header("content-type"))

    def assertNoChild(self) -> None:
        self.assertEqual(self.desk.children, [])


class BodyTests(EndpointCase):
    """What stands in the body of a POST."""

    def tearDown(self) -> None:
        self.assertNoChild()

    def test_refused(self) -> None:
        """Each body that is no message of MCP gets 400, and is told what it is not."""
        deep = b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":' + b"[" * 200 + b"]" * 200
        table = (
            (b"", refusals.PARSE_ERROR),
            (b"{", refusals.PARSE_ERROR),
            (b"hello", refusals.PARSE_ERROR),
            (PING + b"}", refusals.PARSE_ERROR),
            (PING + b"\n" + PING, refusals.PARSE_ERROR),
            (PING[:-1] + b',"params":{"a":"\xff"}}', refusals.PARSE_ERROR),
            (PING[:-1] + b',"params":{"a":"b\nc"}}', refusals.PARSE_ERROR),
            ("\ufeff".encode("utf-8") + PING, refusals.PARSE_ERROR),
            (PING.decode().encode("utf-16"), refusals.PARSE_ERROR),
            (b"null", refusals.INVALID_REQUEST),
            (b"1", refusals.INVALID_REQUEST),
            (b'"ping"', refusals.INVALID_REQUEST),
            (b"{}", refusals.INVALID_REQUEST),
            (b'{"id":1,"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":2.0,"id":1,"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":1,"method":7}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":1,"method":null}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":1}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"a"}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":1}', refusals.INVALID_REQUEST),
            (b'{"jsonrpc":"2.0","id":1,"result":1,"error":{}}', refusals.INVALID_REQUEST),
            (b"[]", refusals.BATCH),
            (b"[" + PING + b"]", refusals.BATCH),
            (b" \n[" + PING + b"," + PING + b"]", refusals.BATCH),
            (deep + b"}}", refusals.TOO_DEEP),
            (b"[" * 100_000, refusals.TOO_DEEP),
        )
        for body, refusal in table:
            self.assertRefused(self.client.post(body), refusal, about=body[:80])

    def test_notices_with_an_id(self) -> None:
        """A notification sent as a request reaches no child, where it might cancel a call."""
        body = (
            b'{"jsonrpc":"2.0","id":1,"method":"notifications/cancelled","params":{"requestId":2}}'
        )
        self.assertRefused(self.client.post(body), refusals.NOTICE_WITH_ID, 1)

    def test_ids(self) -> None:
        """An id comes back as it was written, whatever JSON it is."""
        for id in ('"a"', '"\\u0061"', '""', "0", "-1", "1.0", "1e3", "12345678901234567890"):
            visit = self.client.post(b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % id.encode())
            self.assertEqual(
                visit.body.decode(), f'{{"jsonrpc":"2.0","id":{id},"result":{{}}}}', id
            )

    def test_too_large(self) -> None:
        """A body over the limit is refused unread, with a length or in chunks."""
        visit = self.client.post(b"", content_length=str(limits.MCP_BODY + 1))
        self.assertRefused(visit, refusals.TOO_LARGE)
        visit = self.begin(self.client.token)
        for _ in range(8):
            visit.send(MIB)
            self.assertFalse(visit.answered)
        visit.send(b"1\r\n \r\n")
        self.assertRefused(visit, refusals.TOO_LARGE)
        self.assertEqual(len(self.desk.site.bodies), 0)

    def begin(self, token: str) -> Visit:
        """A POST whose body comes in chunks."""
        head = "POST /mcp HTTP/1.1\r\nHost: broker.example\r\nTransfer-Encoding: chunked\r\n"
        head += "Content-Type: application/json\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        visit = Visitor(self.desk.site, self.desk.reactor).connect()
        visit.send(head.encode() + b"\r\n")
        return visit

    def test_bodies_of_nobody(self) -> None:
        """Without a token a large body is refused where it begins, and a small one is read."""
        for length in (limits.FORM_BODY + 1, limits.MCP_BODY):
            visit = self.desk.stranger().post(b"", content_length=str(length))
            self.assertRefused(visit, refusals.NO_TOKEN)
            self.assertTrue(visit.wire.half_closed)
        visit = self.begin("")
        visit.send(MIB)
        self.assertRefused(visit, refusals.NO_TOKEN)
        self.assertRefused(self.desk.stranger().post(b" " * limits.FORM_BODY), refusals.NO_TOKEN)

    def test_bodies_of_strangers(self) -> None:
        """Those with a token that was never seen fill one room together, and no other."""
        begun = [self.begin(f"guess{number}") for number in range(12)]
        for visit in begun:
            for _ in range(7):
                visit.send(MIB)
        refused = [visit for visit in begun if visit.answered]
        self.assertEqual(len(refused), 3)
        for visit in refused:
            self.assertRefused(visit, refusals.BODIES_FULL)
        self.assertLessEqual(len(self.desk.site.bodies), limits.BODIES_OF_STRANGERS)
        # Who is known has room, and so has the first message of one who is not.
        new = self.desk.client(2)
        for client in (self.client, new, new):
            self.assertAnswered(client.post(PING), result({}))
            self.assertAnswered(client.post(LARGE), result({}))
        for visit in begun:
            visit.leave()
        self.assertEqual(len(self.desk.site.bodies), 0)

    def test_bodies_of_an_account(self) -> None:
        """One account, over however many connections and clients, has one room."""
        other, somebody = self.desk.client(1, "c2"), self.desk.client(2)
        for client in (self.client, other, somebody):
            self.assertAnswered(client.post(PING), result({}))
        tokens = [self.client.token, other.token]
        begun = [self.begin(tokens[number % 2]) for number in range(24)]
        for visit in begun:
            for _ in range(7):
                visit.send(MIB)
        self.assertEqual(sum(visit.answered for visit in begun), 6)
        self.assertRefused(begun[-1], refusals.BODIES_FULL)
        self.assertAnswered(somebody.post(LARGE), result({}))
        begun[0].send(b"0\r\n\r\n")
        self.assertRefused(begun[0], refusals.PARSE_ERROR)
        self.assertAnswered(other.post(LARGE), result({}))
        for visit in begun:
            visit.leave()
        self.assertEqual(len(self.desk.site.bodies), 0)

    def test_content_type(self) -> None:
        """JSON, with or without parameters, and nothing else."""
        for kind in ("application/json", "Application/JSON", "application/json; charset=utf-8"):
            self.assertAnswered(self.client.post(PING, content_type=kind), result({}))
        for kind in ("", "text/plain", "application/jsonx", "text/json", "application/*", "json"):
            visit = self.client.post(PING, content_type=kind)
            self.assertRefused(visit, refusals.WRONG_CONTENT_TYPE, about=kind)

    def test_accept(self) -> None:
        """Whatever lets us answer in JSON or events will do, in one header or in two."""
        for takes in (BOTH, "*/*", "", "application/*", "text/html, */*;q=0.1", "text/*"):
            self.assertEqual(self.client.post(PING, accept=takes).status, 200, takes)
        for takes in (
            "text/html",
            "application/xml",
            "application/json;q=0",
            "*/*;q=0",
            "nonsense",
        ):
            visit = self.client.post(PING, accept=takes)
            self.assertRefused(visit, refusals.NOT_ACCEPTABLE, about=takes)
        two = "text/event-stream\r\nAccept: application/json"
        self.assertAnswered(self.client.post(PING, accept=two), result({}))
        two = "text/html\r\nAccept: text/event-stream"
        visit = self.client.post(PING, accept=two)
        self.assertEqual(visit.header("content-type"), "text/event-stream")


class WaitingBodyTests(EndpointCase):
    """Bodies of calls whose child is not there yet."""

    def test_bodies_that_wait_for_a_child(self) -> None:
        """What waits for a child counts, as its account's, until a child has answered."""
        waiting = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: None
        body = json.dumps(
            request("tools/call", {"padding": "x" * (limits.MCP_BODY - 200)})
        ).encode()
        visits = [waiting.post(body) for _ in range(17)]
        self.assertEqual(len(self.desk.children), 1)
        self.assertEqual([visit.answered for visit in visits], [False] * 16 + [True])
        self.assertRefused(visits[-1], refusals.BODIES_FULL)
        # They are no strangers any more, so these have room.
        self.assertAnswered(self.desk.client(3).post(LARGE), result({}))
        self.assertGreater(len(self.desk.site.bodies), limits.BODIES_OF_STRANGERS)
        starting = self.desk.child.heard[0]
        self.desk.child.answer(starting["id"], INITIALIZED)
        self.desk.pass_time(0)
        self.assertGreater(len(self.desk.site.bodies), limits.MCP_BODY)
        self.assertEqual(visits[0].answered, False)
        visits[0].leave()
        self.assertGreater(len(self.desk.site.bodies), limits.MCP_BODY, "the call goes on")
        for message in self.desk.child.heard[2:]:
            self.desk.child.answer(message["id"], {"content": []})
        self.assertEqual(len(self.desk.site.bodies), 0)

    def test_bodies_of_a_child_that_ends(self) -> None:
        """They count no longer when the child is gone, or the call is given up."""
        client = self.desk.client(2)
        for end in (lambda: self.desk.child.exit(1), lambda: self.desk.pass_time(limits.CALL)):
            client.ask("tools/call", {"padding": "x" * (1 << 20)})
            self.assertGreater(len(self.desk.site.bodies), 1 << 19)
            end()
            self.desk.pass_time(0)
            self.assertEqual(len(self.desk.site.bodies), 0)

    def test_another_client_of_a_full_account(self) -> None:
        """A token that was not seen before has no more room than its account, once it is known."""
        waiting = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: None
        large = json.dumps(request("tools/call", {"padding": "x" * (limits.MCP_BODY - 200)}))
        for _ in range(16):
            waiting.post(large.encode())
        self.assertRefused(self.desk.client(2, "c2").post(LARGE), refusals.BODIES_FULL)
        self.assertLessEqual(len(self.desk.site.bodies), limits.BODIES_OF_ACCOUNT)
        self.assertAnswered(self.desk.client(2, "c3").post(PING), result({}))

    def test_bodies_whose_client_leaves(self) -> None:
        """Who leaves while it waits for a child takes its bytes along."""
        waiting = self.desk.client(2)
        self.desk.reactor.mind = lambda child, message: None
        body = json.dumps(request("tools/call", {"padding": "x" * (1 << 20)})).encode()
        visits = [waiting.post(body) for _ in range(3)]
        self.assertGreater(len(self.desk.site.bodies), 0)
        for visit in visits:
            visit.leave()
        self.assertEqual(len(self.desk.site.bodies), 0)


class DoorTests(EndpointCase):
    """Where a request comes from, and where it thinks that it goes."""

    def tearDown(self) -> None:
        self.assertNoChild()

    def test_origin(self) -> None:
        """A page of another origin may call nothing here; ours, and programs, may."""
        for method in ("POST", "GET", "DELETE"):
            for origin in (
                "https://evil.example",
                "null",
                f"{PUBLIC}:8443",
                "http://broker.example",
            ):
                visit = self.client.send(method, PING, origin=origin)
                self.assertRefused(visit, refusals.FOREIGN_ORIGIN, about=origin)
        self.assertAnswered(self.client.post(PING, origin=PUBLIC), result({}))

    def test_host(self) -> None:
        """A Host that is not the public URL's is refused on every method."""
        for method in ("POST", "GET", "DELETE"):
            for host in ("evil.example", "broker.example.evil.example", "127.0.0.1", ""):
                visit = self.client.send(method, PING, host=host or " ")
                self.assertRefused(visit, refusals.FOREIGN_HOST, about=host)

    def test_before_the_token(self) -> None:
        """What the token is does not matter then."""
        visit = self.desk.stranger().post(PING, host="evil.example")
        self.assertRefused(visit, refusals.FOREIGN_HOST)

    def test_other_methods(self) -> None:
        """There is nothing but POST, GET and DELETE, and OPTIONS, which says so."""
        for method, status in (("PUT", 405), ("PATCH", 405), ("HEAD", 405), ("OPTIONS", 204)):
            visit = self.client.send(method)
            self.assertEqual(visit.status, status, method)
            self.assertEqual(visit.header("allow"), "GET, POST, DELETE, OPTIONS", method)


class EraTests(EndpointCase):
    """Clients that try the modern era first (design D25, mcp.md §1.6)."""

    def test_discover(self) -> None:
        """The probe gets 400, -32601 and its id back, from which every client falls back."""
        visit = self.client.ask(
            "server/discover", META, "server-discover-probe-1", mcp_protocol_version=MODERN
        )
        self.assertRefused(visit, refusals.MODERN, "server-discover-probe-1")
        self.assertEqual((visit.status, visit.json()["error"]["code"]), (400, -32601))
        for version in ("", "2025-11-25", "garbage"):
            visit = self.client.ask("server/discover", id=7, mcp_protocol_version=version)
            self.assertRefused(visit, refusals.MODERN, 7, version)
        self.assertNoChild()

    def test_discover_in_a_session(self) -> None:
        """In a session too, and no legacy child ever hears of it."""
        self.client.initialize()
        self.assertRefused(self.client.ask("server/discover", META), refusals.MODERN, 1)
        self.assertRefused(
            self.client.ask("server/discover", mcp_session_id="unknown"), refusals.MODERN, 1
        )
        self.assertEqual(self.child.methods(), ["initialize", "notifications/initialized"])

    def test_modern_request(self) -> None:
        """A modern request without a session, known by its header or its _meta, is refused."""
        table: tuple[tuple[dict[str, Any], str], ...] = (
            ({}, MODERN),
            (META, MODERN),
            (META, ""),
        )
        for params, version in table:
            for method in ("tools/list", "tools/call", "ping", "initialize", "logging/setLevel"):
                visit = self.client.ask(method, params, "x", mcp_protocol_version=version)
                self.assertRefused(visit, refusals.MODERN, "x", (method, version))
        self.assertNoChild()

    def test_legacy_header(self) -> None:
        """A header up to 2025-11-25 makes it legacy, whatever _meta says (claude-code#93290)."""
        for version in LEGACY:
            visit = self.client.ask("tools/list", META, mcp_protocol_version=version)
            self.assertFalse(visit.answered)
            self.child.answer_last({})
            self.assertAnswered(visit, result({}))
            self.assertEqual(self.child.heard[-1]["params"], META)

    def test_modern_header_in_a_session(self) -> None:
        """In a session its revision holds, whatever the header says (SparkyFitness#2155)."""
        self.client.initialize()
        visit = self.client.ask("tools/list", META, mcp_protocol_version=MODERN)
        self.child.answer_last({})
        self.assertAnswered(visit, result({}))

    def test_modern_notice(self) -> None:
        """A modern notice is taken and dropped."""
        visit = self.client.tell("notifications/cancelled", META, mcp_protocol_version=MODERN)
        self.assertTaken(visit)
        self.assertTaken(self.client.tell("server/discover"))
        self.assertNoChild()

    def test_garbage(self) -> None:
        """A header that names no revision is refused, in a session or not, on every method."""
        self.client.initialize()
        for session in (self.client.session or "", ""):
            for version in ("garbage", "2025-11-26", "2027-01-01", "1", "2025-11-25, 2025-06-18"):
                visit = self.client.ask(mcp_session_id=session, mcp_protocol_version=version)
                self.assertRefused(visit, refusals.UNKNOWN_REVISION, 1, version)
                visit = self.client.tell("a", mcp_session_id=session, mcp_protocol_version=version)
                self.assertRefused(visit, refusals.UNKNOWN_REVISION, about=version)
        visit = self.client.delete(mcp_protocol_version="garbage")
        self.assertRefused(visit, refusals.UNKNOWN_REVISION)
        self.assertEqual(len(self.child.heard), 2)


class InitializeTests(EndpointCase):
    """The beginning of a session."""

    def open(self, client: Client | None = None, **changes: object) -> Visit:
        client = client or self.client
        return client.ask("initialize", INITIALIZE | changes, mcp_session_id="")

    def test_mints_an_id(self) -> None:
        """The answer is the child's, with an id of 192 bits in visible ASCII."""
        visit = self.open()
        self.assertAnswered(visit, result(INITIALIZED))
        id = visit.header("mcp-session-id") or ""
        self.assertRegex(id, r"\A[!-~]{32,}\Z")
        self.client.session = id
        self.assertTaken(self.client.tell("notifications/initialized"))
        self.assertEqual(self.child.methods(), ["initialize", "notifications/initialized"])

    def test_told_as_fjmcp(self) -> None:
        """The child is told the client's revision and capabilities, and our name."""
        self.open(protocolVersion="2025-06-18", capabilities={"roots": {}})
        told = self.child.heard[0]["params"]
        self.assertEqual(told["clientInfo"], {"name": "fjmcp", "version": "1.2"})
        self.assertEqual(
            (told["protocolVersion"], told["capabilities"]), ("2025-06-18", {"roots": {}})
        )

    def test_a_session_a_call(self) -> None:
        """claude.ai's habit, a session per call and never a DELETE, costs one child."""
        ids = set()
        for count in range(20):
            ids.add(self.client.initialize().header("mcp-session-id"))
            visit = self.client.ask(id=count)
            self.child.answer_last({"count": count})
            self.assertAnswered(visit, result({"count": count}, count))
        self.assertEqual((len(ids), len(self.desk.children)), (20, 1))
        self.assertEqual(self.child.methods().count("initialize"), 1)

    def test_answered_from_memory(self) -> None:
        """A second equal one is answered when the child is long gone, without another."""
        first = self.open().json()
        self.child.exit(0)
        capabilities: dict[str, object] = {}
        visit = self.open(clientInfo={"name": "another"}, capabilities=capabilities)
        self.assertEqual((visit.json(), len(self.desk.children)), (first, 1))

    def test_another_opening(self) -> None:
        """Other capabilities, another revision, another client or account: another child."""
        self.open()
        self.open(capabilities={"elicitation": {}})
        self.open(protocolVersion="2025-03-26")
        self.open(self.desk.client(1, "c2"))
        self.open(self.desk.client(2, "c1"))
        self.assertEqual(len(self.desk.children), 5)

    def test_revisions(self) -> None:
        """The revision that was asked for if we have it, else our newest; never an error."""
        table: dict[str, str] = {revision: revision for revision in LEGACY}
        for unknown in (MODERN, "1.0", "", "2099-01-01", "DRAFT-2026"):
            table[unknown] = "2025-11-25"
        for asked, told in table.items():
            self.assertIn("result", self.open(protocolVersion=asked).json(), asked)
            heard = [child.heard[0]["params"]["protocolVersion"] for child in self.desk.children]
            self.assertIn(told, heard, asked)
            self.assertTrue(set(heard) <= set(LEGACY), heard)

    def test_bad_params(self) -> None:
        """Params that open nothing get -32602 and start nothing."""
        table: tuple[dict[str, Any], ...] = (
            {},
            {"protocolVersion": None, "capabilities": {}},
            {"protocolVersion": 20251125, "capabilities": {}},
            {"protocolVersion": "2025-11-25", "capabilities": []},
            {"protocolVersion": "2025-11-25", "capabilities": {"a": "b" * limits.CAPABILITIES}},
        )
        for params in table:
            visit = self.client.ask("initialize", params, 5)
            self.assertEqual((visit.status, visit.json()["id"]), (400, 5), params)
            self.assertEqual(visit.json()["error"]["code"], -32602)
            self.assertIsNone(visit.header("mcp-session-id"))
        visit = self.client.post({"jsonrpc": "2.0", "id": 5, "method": "initialize"})
        self.assertEqual(visit.json()["error"]["code"], -32602)
        self.assertNoChild()

    def test_error_is_not_remembered(self) -> None:
        """A child that did not start is no answer for the next one."""
        self.desk.reactor.mind = lambda child, message: child.exit(1)
        visit = self.open()
        self.assertRefused(visit, refusals.CHILD_START_FAILED, 1)
        self.assertIsNone(visit.header("mcp-session-id"))
        self.assertEqual(len(self.desk.sessions), 0)
        self.desk.reactor.mind = polite
        self.desk.pass_time(limits.CHILD_RETRY)
        self.assertAnswered(self.open(), result(INITIALIZED))

    def test_with_an_old_id(self) -> None:
        """An id that a client still sends does not keep it from a new session."""
        for id in ("an-unknown-one", "x" * 5000):
            visit = self.client.ask("initialize", INITIALIZE, mcp_session_id=id)
            self.assertAnswered(visit, result(INITIALIZED))

    def test_as_a_notice(self) -> None:
        """Without an id it is a notice, which opens nothing."""
        self.assertTaken(self.client.tell("initialize", INITIALIZE))
        self.assertNoChild()


class SessionTests(EndpointCase):
    """Whose session it is, and until when."""

    def setUp(self) -> None:
        super().setUp()
        self.client.initialize()
        assert self.client.session is not None
        self.name = self.client.session

    def foreign(self) -> tuple[tuple[Client, str, McpRefusal], ...]:
        unknown = self.desk.unknown
        return (
            (self.client, "unknown", unknown),
            (self.client, "", unknown),
            (self.client, self.name[:-1], unknown),
            (self.client, self.name.swapcase(), unknown),
            (self.client, "\xe9" * 40, unknown),
            (self.client, "x" * 10_000, unknown),
            (self.desk.client(1, "c2"), self.name, refusals.OTHER_CLIENTS_SESSION),
            (self.desk.client(2, "c1"), self.name, refusals.OTHER_ACCOUNTS_SESSION),
            (self.desk.client(2, "c2"), self.name, refusals.OTHER_ACCOUNTS_SESSION),
        )

    def test_not_yours(self) -> None:
        """404 for an unknown one and another client's, 403 for another account's; no child."""
        for client, id, refusal in self.foreign():
            client.session = id or " "
            self.assertRefused(client.ask(id="q"), refusal, "q", id)
            self.assertRefused(client.ask("ping", id="q"), refusal, "q", id)
            self.assertRefused(client.tell("notifications/initialized"), refusal, about=id)
            self.assertRefused(client.delete(), refusal, about=id)
        self.client.session = self.name
        self.assertAnswered(self.client.ask("ping"), result({}))
        self.assertEqual(len(self.desk.children), 1)

    def test_410(self) -> None:
        """The original's status for an unknown one, where the operator chose it."""
        self.desk = Desk(unknown=refusals.GONE_SESSION)
        self.client = self.desk.client()
        self.client.initialize()
        self.name = self.client.session or ""
        self.test_not_yours()
        self.client.delete()
        self.assertEqual(self.client.ask().status, 410)

    def test_two_headers(self) -> None:
        """Two ids name none."""
        visit = self.client.ask(mcp_session_id=f"{self.name}\r\nMcp-Session-Id: {self.name}")
        self.assertRefused(visit, refusals.UNKNOWN_SESSION, 1)

    def test_same_child(self) -> None:
        """All requests of a session go to one child while it lives."""
        for count in range(3):
            visit = self.client.ask(id=count)
            self.child.answer_last({})
            self.assertAnswered(visit, result({}, count))
        self.assertEqual(self.child.methods()[2:], ["tools/list"] * 3)

    def test_any_token_of_the_account(self) -> None:
        """A session goes on with the next token, and under another grant of its client."""
        for client in (self.desk.client(), self.desk.client(1, "c1", grant_id="a new grant")):
            client.session = self.name
            visit = client.ask()
            self.child.answer_last({})
            self.assertAnswered(visit, result({}))
        self.assertEqual(len(self.desk.children), 2, "a grant never reaches another's child")

    def test_delete(self) -> None:
        """204, once; then it is unknown; the shared child stays."""
        visit = self.client.delete()
        self.assertEqual((visit.status, visit.body), (204, b""))
        # RFC 9110 §8.6: no Content-Length with a 204.
        self.assertEqual(
            (visit.header("content-length"), visit.header("content-type")), (None, None)
        )
        self.assertRefused(self.client.delete(), refusals.UNKNOWN_SESSION)
        self.assertRefused(self.client.ask(), refusals.UNKNOWN_SESSION, 1)
        self.assertFalse(self.child.over)

    def test_delete_without_id(self) -> None:
        """There is nothing to delete: 400."""
        self.assertRefused(self.client.delete(mcp_session_id=""), refusals.SESSION_REQUIRED)

    def test_delete_during_a_call(self) -> None:
        """A call of a session that ends is still answered."""
        visit = self.client.ask()
        self.assertEqual(self.client.delete().status, 204)
        self.child.answer_last({})
        self.assertAnswered(visit, result({}))

    def test_unfit_successor(self) -> None:
        """A successor that lacks what the client was told ends the session: 404, not less."""
        lesser: dict[str, Any] = INITIALIZED | {"capabilities": {}}

        def mind(child: FakeChild, message: dict[str, Any]) -> None:
            if message["method"] == "initialize":
                child.answer(message["id"], lesser)

        self.child.exit(1)
        self.desk.reactor.mind = mind
        self.assertRefused(self.client.ask(), refusals.UNKNOWN_SESSION, 1)
        self.assertRefused(self.client.ask("ping"), refusals.UNKNOWN_SESSION, 1)
        self.assertIn("result", self.client.initialize().json())
        visit = self.client.ask()
        self.child.answer_last({})
        self.assertAnswered(visit, result({}))

    def test_rotation(self) -> None:
        """A newer credential brings a new child; the client sees nothing of it."""
        old = self.child
        running = self.client.ask(id="old")
        self.desk.keys.answer = Key(version=2)
        visit = self.client.ask(id="new")
        self.assertIsNot(self.child, old)
        self.child.answer_last({"from": "new"})
        old.answer_last({"from": "old"})
        self.assertAnswered(visit, result({"from": "new"}, "new"))
        self.assertAnswered(running, result({"from": "old"}, "old"))
        self.desk.pass_time(limits.DRAIN)
        self.assertTrue(old.over)
        self.assertFalse(self.child.over)


class MeanwhileTests(EndpointCase):
    """What ends while the store is asked for a session."""

    def meanwhile(self, method: str, what: Callable[[], Deferred[Any] | Visit]) -> Visit:
        """A request whose session is asked for, and something that overtakes it there."""
        self.client.initialize()
        self.desk.store.hold()
        visit = self.client.send(method, json.dumps(request("tools/list")).encode())
        ending = what()
        held = self.desk.store.lanes[0].held
        assert held is not None and len(held) == 2 and not visit.answered
        held.reverse()
        self.desk.store.release()
        self.desk.pass_time(0)
        if isinstance(ending, Deferred):
            self.successResultOf(ending)
        return visit

    def test_grant_ends(self) -> None:
        """A request of a grant that has ended starts no child and opens no stream."""
        for method in ("POST", "GET"):
            self.client = self.desk.client(grant_id=f"grant for {method}")
            before = len(self.desk.children)
            visit = self.meanwhile(method, lambda: self.desk.end(self.client))
            self.assertEqual(visit.json()["error"]["code"], refusals.BAD_TOKEN.code)
            self.assertEqual(visit.header("www-authenticate"), BAD_TOKEN_CHALLENGE)
            self.assertEqual((visit.status, len(self.desk.streams)), (401, 0))
            self.assertEqual(len(self.desk.children), before + 1, "the one for `initialize`")
            self.assertEqual((self.desk.reactor.alive, self.desk.pool.links()), ([], ()))

    def test_session_ends(self) -> None:
        """A request of a session that was deleted is refused as after it, without a trace."""
        for method in ("POST", "GET"):
            visit = self.meanwhile(method, self.client.delete)
            self.assertEqual((visit.status, len(self.desk.streams)), (404, 0))
            self.assertEqual(self.desk.sessions.of_grant(self.client.grant_id), [])


class WithoutSessionTests(EndpointCase):
    """Clients that never send an id back (claude-ai-mcp#975)."""

    def test_served(self) -> None:
        """On the child of their grant, under the opening that it saw last."""
        asked: dict[str, Any] = INITIALIZE | {"protocolVersion": "2025-06-18"}
        self.client.ask("initialize", asked)
        for count in range(3):
            visit = self.client.ask(id=count)
            self.child.answer_last({})
            self.assertAnswered(visit, result({}, count))
        self.assertEqual(len(self.desk.children), 1)

    def test_without_initialize(self) -> None:
        """With a plain opening of ours, if there was none."""
        visit = self.client.ask()
        self.child.answer_last({})
        self.assertAnswered(visit, result({}))
        told = self.child.heard[0]["params"]
        self.assertEqual((told["protocolVersion"], told["capabilities"]), ("2025-11-25", {}))

    def test_notice_and_answer(self) -> None:
        """202, and nothing comes of it."""
        self.assertTaken(self.client.tell("notifications/cancelled", {"requestId": 1}))
        self.assertTaken(self.client.post(result({}, 1)))
        self.assertNoChild()

    def test_required(self) -> None:
        """400 for everything but `initialize`, where the operator chose it."""
        self.desk = Desk(require_session_id=True)
        client = self.desk.client()
        for method in ("tools/list", "ping"):
            self.assertRefused(client.ask(method, id=3), refusals.SESSION_REQUIRED, 3)
        self.assertRefused(client.tell("notifications/initialized"), refusals.SESSION_REQUIRED)
        self.assertRefused(client.post(result({})), refusals.SESSION_REQUIRED)
        self.assertRefused(client.ask("server/discover"), refusals.MODERN, 1)
        self.assertNoChild()
        self.assertAnswered(client.initialize(), result(INITIALIZED))
        self.assertAnswered(client.ask("ping"), result({}))


class OurOwnAnswersTests(EndpointCase):
    """What needs no child."""

    def setUp(self) -> None:
        super().setUp()
        self.client.initialize()
        self.child.exit(0)

    def tearDown(self) -> None:
        self.assertEqual(len(self.desk.children), 1)

    def test_ping(self) -> None:
        """Is answered by us."""
        self.assertAnswered(self.client.ask("ping", id="p"), result({}, "p"))

    def test_set_level(self) -> None:
        """Is answered by us, since this child never logs: VS Code sends it to every server."""
        visit = self.client.ask("logging/setLevel", {"level": "debug"})
        self.assertAnswered(visit, result({}))

    def test_notices(self) -> None:
        """Every notice is taken, and wakes nobody."""
        for method in (
            "notifications/initialized",
            "notifications/roots/list_changed",
            "notifications/cancelled",
            "notifications/progress",
            "tools/list",
            "anything",
        ):
            self.assertTaken(self.client.tell(method), method)
        ids: tuple[object, ...] = (None, {}, "x" * 5000)
        for id in ids:
            self.assertTaken(self.client.tell("notifications/cancelled", {"requestId": id}))
        body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[1]}'
        self.assertTaken(self.client.post(body))

    def test_replies(self) -> None:
        """An answer to a question that nobody asked is taken."""
        self.assertTaken(self.client.post(result({}, 7)))
        self.assertTaken(self.client.post(error(refusals.INVALID_PARAMS, 7)))


class CallTests(EndpointCase):
    """Requests that a child answers."""

    def setUp(self) -> None:
        super().setUp()
        self.client.initialize()

    def test_bytes_pass(self) -> None:
        """Params and result pass as the bytes that they were; only ids are ours."""
        params = '{"name":"x","arguments":{"big":12345678901234567890,"f":1.10,"s":"\\u00e9\\/"}}'
        body = f'{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{params}}}'
        visit = self.client.post(body.encode())
        self.assertEqual(self.child.heard[-1]["params"], json.loads(params))
        raw = b'{"content":[ {"n":1.0,"s":"\\u00e9\\/"} ],"content":[]}'
        number = self.child.heard[-1]["id"]
        self.child.say(b'{"result":%b,"jsonrpc":"2.0","id":%d}\n' % (raw, number))
        self.assertEqual(visit.body, b'{"jsonrpc":"2.0","id":"i","result":%b}' % raw)

    def test_pretty_printed(self) -> None:
        """A request over many lines is one line for the child."""
        for newline in ("\n", "\r\n", "\r"):
            message = request("tools/call", {"name": "x", "arguments": {"text": "a\nb"}}, "i")
            text = json.dumps(message, indent=2).replace("\n", newline)
            visit = self.client.post(text.encode())
            self.assertEqual(self.child.heard[-1]["params"], message["params"])
            self.child.answer_last({})
            self.assertAnswered(visit, result({}, "i"))

    def test_child_says_no(self) -> None:
        """An error of the child is the answer, with status 200."""
        visit = self.client.ask("tools/call", id="i")
        told = {"code": -32602, "message": "Unknown tool", "data": {"a": [1]}}
        self.child.say({"jsonrpc": "2.0", "id": self.child.heard[-1]["id"], "error": told})
        self.assertAnswered(visit, {"jsonrpc": "2.0", "id": "i", "error": told})

    def test_at_once(self) -> None:
        """Several calls run at one time, and end in any order."""
        visits = {id: self.client.ask(id=id) for id in range(5)}
        self.assertEqual(len(self.desk.children), 1)
        asked = [message["id"] for message in self.child.heard[-5:]]
        for id, number in reversed(list(zip(visits, asked, strict=True))):
            self.child.answer(number, {"id": id})
        for id, visit in visits.items():
            self.assertAnswered(visit, result({"id": id}, id))

    def test_cancelled(self) -> None:
        """The child is told under the number that it knows; other calls go on."""
        first, second = self.client.ask(id="a"), self.client.ask(id=7)
        numbers = [message["id"] for message in self.child.heard[-2:]]
        self.assertTaken(
            self.client.tell("notifications/cancelled", {"requestId": 7, "reason": "r"})
        )
        told = self.child.heard[-1]
        self.assertEqual(told["method"], "notifications/cancelled")
        self.assertEqual(told["params"], {"requestId": numbers[1], "reason": "r"})
        self.child.answer(numbers[0], {})
        self.assertAnswered(first, result({}, "a"))
        self.desk.pass_time(limits.CANCELLED_CALL)
        self.assertEqual(
            [json.loads(event) for event in second.events()] or second.json(),
            [error(refusals.CALL_CANCELLED, 7)],
        )

    def test_cancelled_in_other_words(self) -> None:
        """An id is the same however it is written: 7 and 7.0; 7 and "7" are two."""
        for asked, meant, other in ((7, 7.0, "7"), (8.0, 8, "8"), ("9", "9", 9)):
            self.client.ask(id=asked)
            number = self.child.heard[-1]["id"]
            self.client.tell("notifications/cancelled", {"requestId": other})
            self.assertEqual(self.child.methods()[-1], "tools/list")
            self.client.tell("notifications/cancelled", {"requestId": meant})
            self.assertEqual(self.child.heard[-1]["params"], {"requestId": number})

    def test_other_notices_cancel_nothing(self) -> None:
        """Whatever else names a call that runs leaves it alone."""
        self.client.ask(id=7)
        for method in ("notifications/progress", "notifications/cancel", "$/cancelRequest"):
            self.assertTaken(self.client.tell(method, {"requestId": 7, "id": 7}))
        self.assertEqual(self.child.methods()[-1], "tools/list")

    def test_nothing_is_remembered(self) -> None:
        """Of calls that ended, in whatever way, nothing is kept."""
        answered, left, crashed = (
            self.client.ask(id=1),
            self.client.ask(id=2),
            self.client.ask(id=3),
        )
        first, second, _ = [message["id"] for message in self.child.heard[-3:]]
        self.child.answer(first, {})
        left.leave()
        self.child.answer(second, {})
        self.child.exit(1)
        self.assertEqual((answered.ended, crashed.ended), (True, True))
        self.assertEqual((self.desk.endpoint._calls, self.desk.timers), ({}, []))

    def test_cancelled_too_late(self) -> None:
        """A cancellation of what was answered, or never asked, goes nowhere."""
        self.client.ask(id=7)
        self.child.answer_last({})
        for id in (7, 8, "nobody's"):
            self.assertTaken(self.client.tell("notifications/cancelled", {"requestId": id}))
        self.assertNotIn("notifications/cancelled", self.child.methods())

    def test_id_used_again(self) -> None:
        """Of two calls with one id a cancellation ends the later; both get their answers."""
        first, second = self.client.ask(id=7), self.client.ask(id=7)
        one, two = [message["id"] for message in self.child.heard[-2:]]
        self.child.answer(one, {"n": 1})
        self.client.tell("notifications/cancelled", {"requestId": 7})
        self.assertEqual(self.child.heard[-1]["params"], {"requestId": two})
        self.child.answer(two, {"n": 2})
        self.assertAnswered(first, result({"n": 1}, 7))
        self.assertAnswered(second, result({"n": 2}, 7))

    def test_too_long(self) -> None:
        """A call without an answer ends after CALL with an error that says what is unknown."""
        visit = self.client.ask(accept="application/json")
        self.desk.pass_time(limits.CALL)
        self.assertAnswered(visit, error(refusals.CALL_TOO_LONG, 1))
        self.assertEqual(self.child.methods()[-1], "notifications/cancelled")

    def test_child_that_logs(self) -> None:
        """Of another kind of child the level is set."""
        self.desk = Desk(profile=Profile())
        self.desk.reactor.mind = capable
        client = self.desk.client()
        client.initialize()
        visit = client.ask("logging/setLevel", {"level": "debug"})
        self.assertEqual(self.child.methods()[-1], "logging/setLevel")
        self.child.answer_last({})
        self.assertAnswered(visit, result({}))


class TroubleTests(EndpointCase):
    """What keeps a call from being made."""

    def test_full(self) -> None:
        """At the cap, with every child at work: 503, and when to come again."""
        self.desk = Desk(bounds=Bounds(children=1))
        busy, other = self.desk.client(1), self.desk.client(2)
        busy.ask()
        visit = other.ask(id="i")
        self.assertRefused(visit, refusals.CHILDREN_FULL, "i")
        self.assertEqual(visit.header("retry-after"), "5")
        self.child.answer_last({})
        visit = other.ask()
        self.desk.pass_time(limits.CLOSE_WAIT)
        self.child.answer_last({})
        self.assertAnswered(visit, result({}))

    def test_credential(self) -> None:
        """A dead credential sends to the sign-in; a troubled one asks for patience."""
        self.desk.keys.answer = refusals.CREDENTIAL_DEAD
        visit = self.client.ask()
        self.assertRefused(visit, refusals.CREDENTIAL_DEAD, 1)
        self.assertIn('error="invalid_token"', visit.header("www-authenticate") or "")
        self.desk.keys.answer = refusals.CREDENTIAL_TROUBLED
        for visit in (self.client.ask(), self.client.initialize()):
            self.assertRefused(visit, refusals.CREDENTIAL_TROUBLED, 1)
            self.assertEqual(visit.header("retry-after"), "15")
            self.assertIsNone(visit.header("www-authenticate"))
        self.assertNoChild()

    def test_store_down(self) -> None:
        """503, and nothing is lost: a caller that was seen goes on."""
        self.client.ask("ping")
        unseen = self.desk.client()
        self.desk.store.fail_all()
        for method in ("POST", "GET", "DELETE"):
            visit = unseen.send(method, PING)
            self.assertRefused(visit, refusals.STORE_DOWN)
            self.assertEqual(visit.header("retry-after"), "5")
        self.assertAnswered(self.client.ask("ping"), result({}))

    def test_shutting_down(self) -> None:
        """While the daemon stops: 503, and to come again."""
        stopped = Deferred.fromCoroutine(self.desk.pool.stop(0))
        self.successResultOf(stopped)
        self.assertRefused(self.client.ask(), refusals.SHUTTING_DOWN, 1)
        self.assertNoChild()


@define
class Broken:
    """Credentials that are a bug."""

    waits: Deferred[None] | None = None
    error: Exception = field(factory=lambda: RuntimeError("a secret detail"))

    async def usable(self, account_id: int) -> Key:
        if self.waits is not None:
            await self.waits
        raise self.error


class BugTests(EndpointCase):
    """What happens when we are wrong."""

    def break_it(self, waits: Deferred[None] | None = None) -> None:
        broken: Any = Broken(waits)
        self.desk.pool._credentials = broken

    def test_incident(self) -> None:
        """500 with an incident id that stands in the log beside the error, and no detail."""
        self.break_it()
        with capturedLogs() as events:
            visit = self.client.ask()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((visit.status, visit.ended), (500, True))
        told = visit.json()["error"]
        self.assertEqual(told["code"], -32603)
        (incident,) = [event["incident"] for event in events if "incident" in event]
        self.assertIn(f"Incident {incident}.", told["message"])
        self.assertNotIn(b"secret", visit.body)
        self.assertEqual(self.desk.timers, [])

    def test_within_a_stream(self) -> None:
        """A stream that cannot be completed looks incomplete."""
        waits: Deferred[None] = Deferred()
        self.break_it(waits)
        visit = self.client.ask()
        self.desk.pass_time(limits.JSON_ANSWER)
        waits.callback(None)
        self.desk.pass_time(0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((visit.ended, visit.wire.aborted), (False, True))
        self.assertEqual(self.desk.timers, [])

    def test_store_down_late(self) -> None:
        """A store that fails while a child is looked for is told as the call's answer, in the
        stream too, if it has begun."""
        both = "application/json, text/event-stream"
        for accept, status in (("text/event-stream", 200), (both, 503)):
            waits: Deferred[None] = Deferred()
            down: Any = Broken(waits, StoreDown("locked"))
            self.desk.pool._credentials = down
            visit = self.client.ask(accept=accept)
            waits.callback(None)
            self.desk.pass_time(0)
            self.assertEqual((visit.status, visit.ended), (status, True))
            if status == 200:
                (event,) = visit.events()
                self.assertEqual(json.loads(event), error(refusals.STORE_DOWN, 1))
            else:
                self.assertRefused(visit, refusals.STORE_DOWN, 1)
                self.assertEqual(visit.header("retry-after"), "5")
            self.desk.pass_time(limits.JSON_ANSWER)
            self.assertEqual(self.desk.timers, [])

    def test_left_before_it(self) -> None:
        """Nobody is there to be told, and nothing is left behind."""
        waits: Deferred[None] = Deferred()
        self.break_it(waits)
        visit = self.client.ask()
        visit.leave()
        self.desk.pass_time(limits.JSON_ANSWER)
        self.assertEqual(self.desk.timers, [])


class GrantEndsTests(SynchronousTestCase):
    """A session under two grants of its client, one of which ends."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.first = self.desk.client()
        self.first.initialize()
        self.first.tell("notifications/initialized")
        self.second = self.desk.client(grant_id="another")
        self.second.session = self.first.session

    def test_between_finding_and_use(self) -> None:
        """The end of one comes while a request under the other is looked at: it goes on."""
        desk, gate = self.desk, self.desk.endpoint._gate
        looks: list[object] = []

        class Meanwhile(Gate):
            async def caller(self, request: Request) -> Caller | McpRefusal:
                looks.append(None)
                if len(looks) == 2:
                    await desk.sessions.end_grant("grant of 1 to c1", refusals.GRANT_ENDED)
                return await gate.caller(request)

        desk.endpoint._gate = Meanwhile(gate._callers)
        asked = self.second.ask()
        self.assertEqual(len(desk.sessions), 1)
        desk.child.answer_last({"tools": []})
        self.assertEqual(asked.json(), result({"tools": []}))

    def test_stream_of_the_other(self) -> None:
        """A stream under the other grant stays open, and is told of what comes."""
        stream = self.second.listen()
        self.first.ask()
        ended = self.desk.end(self.first)
        self.desk.pass_time(limits.KILL_WAIT)
        self.successResultOf(ended)
        self.assertFalse(stream.wire.closed)
        self.assertEqual(len(self.desk.sessions), 1)
        self.second.ask()
        self.desk.child.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        self.assertEqual(len(stream.events()), 1)

    def test_last_one(self) -> None:
        """With the last use of it memory is free, and a new grant finds the session again."""
        self.first.ask()
        ended = self.desk.end(self.first)
        self.desk.pass_time(limits.KILL_WAIT)
        self.successResultOf(ended)
        self.assertEqual(len(self.desk.sessions), 0)
        asked = self.second.ask()
        self.desk.child.answer_last({"tools": []})
        self.assertEqual(asked.json(), result({"tools": []}))
