"""Clients, children and grants of a whole broker, many of them, and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeAlias, cast

from hypothesis.stateful import RuleBasedStateMachine
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from fjmcp import limits
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.children import INITIALIZED, FakeChild
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import App, WholeBroker

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
How: TypeAlias = tuple[int, float, str]
"""How a request is sent: the size of its chunks or 0, which part of its body, and what
its client does then."""
WHOLE: Final[How] = (0, 1.0, "waits")
RUDE: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    ("POST", "/mcp", {"authorization": "Bearer nonsense"}),
    ("POST", "/mcp", {"content-type": JSON}),
    ("POST", "/mcp", {"content-type": "text/plain"}),
    ("POST", "/mcp", {"content-type": JSON, "content-length": "99999999"}),
    ("PUT", "/mcp", {}),
    ("OPTIONS", "/mcp", {}),
    ("POST", "/oauth/token", {}),
    ("GET", "/nowhere", {}),
)
"""What nobody wants."""


def pick(things: list[Any], index: int) -> Any:
    """One of them, the newest first; None if there is none."""
    return things[-1 - index % len(things)] if things else None


class Crowd(RuleBasedStateMachine):
    """Who is there; the rules say what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = WholeBroker()
        self.parts = self.broker.parts
        self.broker.reactor.mind = self.mind
        self.apps = [self.broker.register(), self.broker.register()]
        self.broker.advance(limits.CONNECTION_IDLE)
        self.accounts = {login: self.broker.account(login) for login in ("alice", "bob")}
        self.visits: list[Visit] = []
        self.rest: dict[Visit, bytes] = {}
        """What has not been sent of a request."""
        self.grants: list[tuple[App, dict[str, Any]]] = []
        self.sessions: list[tuple[int, str]] = []
        """The grant of each, and its id."""
        self.asked = 0
        self.born = "well"
        self.stops = self.leave = True
        self.faults: list[Failure] = []
        self.notices = cast("ILogObserver", self.notice)
        globalLogPublisher.addObserver(self.notices)

    def notice(self, event: LogEvent) -> None:
        """Something is logged: a failure is a fault, but that a rotation finds no store."""
        failure = event.get("log_failure")
        rotates = event.get("log_namespace") == "fjmcp.broker.pool.Pool"
        if failure is not None and not (rotates and failure.check(StoreDown)):
            self.faults.append(failure)

    def mind(self, child: FakeChild, message: dict[str, Any]) -> None:
        """What a child does with what it reads."""
        if message.get("method") == "initialize":
            born, self.born = self.born, "well"
            build = {"name": "fake", "version": "2" if born == "as another build" else "1"}
            if born == "dead":
                child.exit(1)
            elif born != "silent":
                child.answer(message["id"], INITIALIZED | {"serverInfo": build})
        elif message.get("method") == "ping":
            child.answer(message["id"], {})

    # --- requests ---

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        how: How = WHOLE,
    ) -> Visit:
        """Send a request, or a part of it, on a connection of its own."""
        chunk, part, then = how
        visitor = self.broker.visitor()
        visit = visitor.connect()
        visit.wire.full = then == "reads nothing"
        data = visitor.request(method, target, body, headers, chunk)
        sent = len(data) - int(len(body) * (1 - part))
        self.visits.append(visit)
        self.rest[visit] = data[sent:]
        visit.send(data[:sent])
        if then == "leaves":
            visit.leave()
        elif then != "is elsewhere":
            self.broker.settle()
        return visit

    def message(
        self,
        grant: int,
        session: str,
        message: Mapping[str, Any],
        how: How = WHOLE,
        takes: str = f"{JSON}, {EVENTS}",
    ) -> Visit:
        """POST a message of MCP."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        headers = {"content-type": JSON, "accept": takes} | self.known(grant, session)
        return self.send("POST", "/mcp", body, headers, how)

    def known(self, grant: int, session: str = "") -> dict[str, str]:
        """What a client shows of its grant, and of its session if it has one."""
        _, tokens = self.grants[grant % len(self.grants)]
        shown = {"authorization": f"Bearer {tokens['access_token']}"}
        return shown | ({"mcp-session-id": session} if session else {})

    def session(self, index: int) -> tuple[int, str]:
        """A grant, and a session of it; sometimes it is another's, or there is none."""
        grant, id = pick(self.sessions, index) or (index, "")
        return (index, id) if index == 10 else (grant, "" if index == 11 else id)

    # --- grants ---

    def sign_in(self, grant: int, login: str) -> None:
        """A grant takes the place of another, if the store is up."""
        lane = self.broker.store.lanes[0]
        app, _ = self.grants[grant]
        if lane.held is None and not lane.down:
            visit = app.redeem(app.code(login))
            self.note(visit)
            # There may have been no room for the connection.
            if visit.answered:
                self.grants[grant] = app, visit.json()

    def note(self, visit: Visit) -> None:
        """A connection of an `App` counts, too."""
        self.visits.append(visit)
        self.rest[visit] = b""
        self.broker.settle()

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something of the daemon's, which the store may fail."""
        Deferred.fromCoroutine(work).addErrback(lambda failure: failure.trap(StoreDown) and None)
        self.broker.settle()

    # --- the store, and the end ---

    def turn_store(self, waits: bool, fails: bool) -> None:
        """Let the transactions that wait run, and fail or not; then the next ones wait or not."""
        self.broker.store.fail_all(fails)
        self.broker.store.release()
        if waits:
            self.broker.store.hold()
        self.broker.settle()

    def everybody_goes(self) -> None:
        """The store comes up; the daemon stops or not, clients leave or not; much time passes."""
        self.turn_store(False, False)
        if self.stops:
            self.parts.streams.stop()
            self.run(self.parts.pool.stop(20.0))
        if self.leave:
            for visit in self.visits:
                visit.leave()
        for seconds in (0.0, 31.0, *[limits.CALL] * 3, limits.ACCESS_TOKEN, 61.0, 130.0, 31.0):
            self.broker.advance(seconds)
            self.parts.pool.reap(0.0)
        self.broker.advance(limits.SESSION_LIFE)
        self.run(self.parts.sessions.expire())
