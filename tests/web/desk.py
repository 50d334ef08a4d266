"""The MCP endpoint behind the real site, with clients before it and children in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.broker.elsewhere import Elsewhere
from fjmcp.broker.endings import Endings
from fjmcp.broker.personal import Personal
from fjmcp.broker.pool import Bounds, Pool
from fjmcp.broker.sessions import Session, Sessions
from fjmcp.children.launch import Launcher
from fjmcp.children.profiles import Command, command_for, recipe_for
from fjmcp.mcp.opening import Profile
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import Kind, digest, mint
from fjmcp.refusals import BAD_TOKEN, UNKNOWN_SESSION, McpRefusal
from fjmcp.store.queries import grants
from fjmcp.store.transactions import Cursor
from fjmcp.tasks import Tasks
from fjmcp.testing.children import INITIALIZED, FakeChild
from fjmcp.testing.reactor import FakeReactor, now
from fjmcp.testing.stores import MemoryStore, memory_store
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.web.endpoint import Endpoint
from fjmcp.web.gate import Gate
from fjmcp.web.site import Site
from fjmcp.web.streams import Streams
from fjmcp.web.unread import Unread

PUBLIC = "https://broker.example"
WHERE = (
    f'resource_metadata="{PUBLIC}/.well-known/oauth-protected-resource/mcp",'
    ' scope="forge:read forge:write"'
)
NO_TOKEN_CHALLENGE = f'Bearer realm="fjmcp", {WHERE}'
BAD_TOKEN_CHALLENGE = (
    f'Bearer realm="fjmcp", error="invalid_token", error_description="{BAD_TOKEN.message}", {WHERE}'
)
BOTH = "application/json, text/event-stream"
LATEST = "2025-11-25"


@frozen
class Key:
    """A credential."""

    version: int = 1
    expires_at: float = 1e12


@define
class Keys:
    """Credentials of everybody."""

    answer: Key | McpRefusal = field(factory=Key)

    async def usable(self, account_id: int) -> Key | McpRefusal:
        return self.answer


@define(eq=False)
class Desk:
    """
    The endpoint and all that it works on, on one clock.

    :ivar unknown: what an unknown session gets.
    """

    unknown: McpRefusal = UNKNOWN_SESSION
    require_session_id: bool = False
    bounds: Bounds = field(factory=Bounds)
    profile: Profile = field(factory=lambda: Profile(never_asks=True, never_logs=True))
    reactor: FakeReactor = field(factory=FakeReactor, init=False)
    store: MemoryStore = field(factory=memory_store, init=False)
    keys: Keys = field(factory=Keys, init=False)
    sessions: Sessions = field(init=False)
    unread: Unread = field(init=False)
    streams: Streams = field(init=False)
    pool: Pool[Any] = field(init=False)
    tasks: Tasks = field(init=False)
    personal: Personal = field(init=False)
    endings: Endings = field(init=False)
    elsewhere: Elsewhere = field(init=False)
    endpoint: Endpoint = field(init=False)
    site: Site = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sessions = Sessions(self.store, self.reactor, self.unknown)
        self.unread = Unread(self.reactor)
        self.streams = Streams(self.sessions, self.reactor, self.unread)
        self.sessions.on_end = self._session_ended
        self.sessions.in_use = self._sessions_in_use
        self.pool = Pool(
            launcher=Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg),
            command_for=self._command_for,
            credentials=self.keys,
            clock=self.reactor,
            version="1.2",
            bounds=self.bounds,
            on_link_said=self.streams.link_said,
            on_link_tells=self.streams.link_tells,
        )
        self.tasks = Tasks()
        self.personal = Personal(self.pool, self.sessions, self.profile, self.tasks)
        callers = Callers(self.store, self.reactor)
        self.endings = Endings(self.store, callers, self.reactor)
        self.endings.also_end(self.streams)
        self.endings.also_end(self.pool)
        self.endings.also_end(self.sessions)
        self.elsewhere = Elsewhere(self.store, callers, self.endings, self.tasks, self.reactor)
        self.endpoint = Endpoint(
            gate=Gate(callers),
            sessions=self.sessions,
            personal=self.personal,
            streams=self.streams,
            unread=self.unread,
            clock=self.reactor,
            require_session_id=self.require_session_id,
        )
        self.site = Site(Endpoints(PUBLIC), self.endpoint.routes(), self.reactor)

    def _session_ended(self, session: Session) -> None:
        self.streams.close(session)
        self.personal.ended(session)

    def _sessions_in_use(self, account_id: int) -> set[bytes]:
        return self.streams.sessions(account_id) | self.pool.owners(account_id)

    def _command_for(self, key: Key) -> Command:
        return command_for(
            recipe_for(["/opt/forgejo-mcp"]), url="u", token="t" * 20, user_agent="a", inherited={}
        )

    @property
    def children(self) -> list[FakeChild]:
        """All that were started."""
        return self.reactor.children

    @property
    def child(self) -> FakeChild:
        """The child that was started last."""
        return self.reactor.children[-1]

    @property
    def timers(self) -> list[Any]:
        """What is due some time, but for the ends of idle connections."""
        due: list[Any] = list(self.reactor.getDelayedCalls())
        return [call for call in due if "TimeoutMixin" not in call.func.__qualname__]

    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.reactor.advance(seconds)
        self.reactor.turn()

    def client(self, account_id: int = 1, client_id: str = "c1", grant_id: str = "") -> Client:
        """A client of an account, with a grant and a token."""
        token = mint(Kind.ACCESS)
        grant_id = grant_id or f"grant of {account_id} to {client_id}"

        def keep(cursor: Cursor) -> None:
            at = self.reactor.seconds()
            cursor.execute(
                "INSERT INTO accounts (account_id, login, version, received_at, expires_at,"
                " signed_in_at) VALUES (?, ?, 1, 0, 1e12, 0) ON CONFLICT DO NOTHING",
                account_id,
                f"person{account_id}",
            )
            if grants.grant(cursor, grant_id) is None:
                grants.add(cursor, grant_id, account_id, client_id, "forge:read forge:write", at)
            until = at + limits.ACCESS_TOKEN
            grants.add_access_token(cursor, digest(token), grant_id, until, at)

        now(self.store.write(keep))
        return Client(self, token.text, grant_id)

    def stranger(self) -> Client:
        """A client without a token."""
        return Client(self, "", "")

    def close(self) -> None:
        """
        End what runs: who waits for a child hears of it now.

        Else the collector would find them together, in some later test, and each that it
        ends would wake another.
        """
        for child in self.children:
            child.clings = False
            child.exit(1)
            self.reactor.turn()

    def end(self, client: Client) -> Deferred[None]:
        """The end of a client's grant; fires when nothing of it runs."""
        return Deferred.fromCoroutine(self.endings.end(client.grant_id, "revoked"))


@define(eq=False)
class Client:
    """An MCP client that holds a token, and perhaps a session."""

    desk: Desk
    token: str = field(repr=False)
    grant_id: str
    session: str | None = None

    def headers(self, **changes: str) -> dict[str, str]:
        """What it sends with each request; a name with `_` for `-`; an empty one is left out."""
        made = {"content_type": "application/json", "accept": BOTH}
        if self.token:
            made["authorization"] = f"Bearer {self.token}"
        if self.session is not None:
            made["mcp_session_id"] = self.session
            made["mcp_protocol_version"] = LATEST
        made |= changes
        return {name.replace("_", "-"): value for name, value in made.items() if value}

    def send(self, method: str, body: bytes = b"", target: str = "/mcp", **headers: str) -> Visit:
        """One request."""
        visitor = Visitor(self.desk.site, self.desk.reactor)
        visit = visitor.send(method, target, body, self.headers(**headers))
        self.desk.reactor.turn()
        return visit

    def post(self, message: object, **headers: str) -> Visit:
        """POST of a message; bytes go as they are."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.send("POST", body, **headers)

    def ask(
        self,
        method: str = "tools/list",
        params: Mapping[str, object] | None = None,
        id: object = 1,
        **headers: str,
    ) -> Visit:
        """POST of a request."""
        return self.post(request(method, params, id), **headers)

    def tell(
        self, method: str, params: Mapping[str, object] | None = None, **headers: str
    ) -> Visit:
        """POST of a notification."""
        return self.post({"jsonrpc": "2.0", "method": method, "params": params or {}}, **headers)

    def initialize(self, **headers: str) -> Visit:
        """Open a session and go on in it."""
        self.session = None
        visit = self.ask("initialize", INITIALIZE, **headers)
        self.session = visit.header("mcp-session-id")
        return visit

    def listen(self, **headers: str) -> Visit:
        """GET of the stream of its session."""
        made = {"content_type": "", "accept": "text/event-stream"} | headers
        return self.send("GET", b"", "/mcp", **made)

    def delete(self, **headers: str) -> Visit:
        """The end of its session."""
        return self.send("DELETE", b"", "/mcp", **({"content_type": ""} | headers))


INITIALIZE = {
    "protocolVersion": LATEST,
    "capabilities": {},
    "clientInfo": {"name": "claude-ai", "version": "0.1.0"},
}


CAPABLE: dict[str, Any] = INITIALIZED | {
    "capabilities": {"tools": {}, "logging": {}, "resources": {"subscribe": True}}
}
"""The answer to `initialize` of a child that logs and takes subscriptions."""


def capable(child: FakeChild, message: dict[str, Any]) -> None:
    """The mind of such a child, which leaves all else to the test."""
    if message.get("method") == "initialize":
        child.answer(message["id"], CAPABLE)


def request(method: str, params: Mapping[str, object] | None = None, id: object = 1) -> Any:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params or {})}


def result(value: object, id: object = 1) -> Any:
    """A JSON-RPC response."""
    return {"jsonrpc": "2.0", "id": id, "result": value}


def error(refusal: McpRefusal, id: object = None) -> Any:
    """A JSON-RPC error that is a refusal."""
    return {
        "jsonrpc": "2.0",
        "id": id,
        "error": {"code": refusal.code, "message": refusal.message},
    }
