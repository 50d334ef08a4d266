"""
Doubles for tests: the same interfaces, in memory, stepped by a Clock.

A test builds what it needs from here and never from a patch.
"""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from signal import Signals
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
)
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import define, evolve, field, frozen
from treq.testing import RequestTraversalAgent
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.error import (
    ConnectionDone,
    ConnectionRefusedError,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProcessProtocol,
    IProcessTransport,
    IProtocol,
    IReactorProcess,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from fjmcp import limits
from fjmcp.broker.pairs import Pairs
from fjmcp.broker.signins import challenge
from fjmcp.children.launch import Launcher
from fjmcp.children.profiles import Recipe, recipe_for
from fjmcp.daemon.assembly import Parts, assemble
from fjmcp.daemon.clocks import WallClock
from fjmcp.daemon.settings import Settings
from fjmcp.demo.browser import Body, Browser, Page
from fjmcp.demo.forge.standin import StandIn
from fjmcp.fetch.documents import Errand
from fjmcp.forge.admission import Admission
from fjmcp.forge.client import http_over
from fjmcp.forge.tokens import Pair
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.store import migrating
from fjmcp.store.keys import KeySources
from fjmcp.store.queries import accounts, grants
from fjmcp.store.sqlite import BLOB, READ, WRITE, in_transaction
from fjmcp.store.transactions import Cursor, Store, StoreDown, Work
from fjmcp.store.vault import Ring
from fjmcp.web.addresses import Proxies

if TYPE_CHECKING:
    from fjmcp.web.site import Site

P = ParamSpec("P")
T = TypeVar("T")


# --- the store ----------------------------------------------------------------


@define
class MemoryLane:
    """
    Transactions on a SQLite database in memory, run where they are asked for.

    `down`: each one fails with `StoreDown` while it is set.
    `held`: None, or the transactions that wait for `release`, oldest first.
    `foreign`: how many another process has committed.
    """

    connection: sqlite3.Connection
    begin: str
    down: bool = False
    held: list[Deferred[None]] | None = field(default=None, init=False)
    closed: bool = field(default=False, init=False)
    foreign: int = field(default=0, init=False)

    def run(self, work: Work[T]) -> Deferred[T]:
        return self._in_turn(lambda: self._now(work))

    def commits_elsewhere(self) -> Deferred[int]:
        return self._in_turn(self._foreign)

    def _in_turn(self, work: Callable[[], T]) -> Deferred[T]:
        if self.held is None:
            return execute(work)
        # Cancelling the wait must not stop the transaction: it runs on the
        # inner Deferred, as a thread would run it.
        outer: Deferred[T] = Deferred()
        inner: Deferred[None] = Deferred()
        inner.addCallback(lambda ignored: work())
        inner.addCallbacks(outer.callback, outer.errback)
        self.held.append(inner)
        return outer

    def _foreign(self) -> int:
        self._check()
        return self.foreign

    def _check(self) -> None:
        if self.down or self.closed:
            raise StoreDown("down, as the test wants it")

    def _now(self, work: Work[T]) -> T:
        self._check()
        reading = self.begin == READ
        self.connection.execute(f"PRAGMA query_only={'ON' if reading else 'OFF'}")
        return in_transaction(self.connection, self.begin, work)

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


@define
class MemoryStore(Store):
    """
    A store in memory that answers at once, so that `successResultOf` works.

    `fail_all` makes every transaction fail with `StoreDown` until told
    otherwise; `hold` makes each one wait for its `release`, so that a test can
    put something between the question and the answer.  `elsewhere` is what
    another process does.
    """

    lanes: tuple[MemoryLane, MemoryLane]

    def fail_all(self, down: bool = True) -> None:
        """Be down, or up again."""
        for lane in self.lanes:
            lane.down = down

    def elsewhere(
        self, work: Callable[Concatenate[Cursor, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """A transaction of another process, however things stand here."""
        connection = self.lanes[0].connection
        connection.execute("PRAGMA query_only=OFF")
        value = in_transaction(connection, WRITE, lambda cursor: work(cursor, *args, **kw))
        for lane in self.lanes:
            lane.foreign += 1
        return value

    def hold(self) -> None:
        """From here on transactions wait."""
        waiting: list[Deferred[None]] = []
        for lane in self.lanes:
            lane.held = waiting

    def release(self, count: int | None = None) -> int:
        """
        Let the `count` oldest waiting transactions run (all, by default, and
        none waits any more); the number that ran.
        """
        waiting = self.lanes[0].held or []
        if count is None:
            for lane in self.lanes:
                lane.held = None
        ran = 0
        while waiting and (count is None or ran < count):
            waiting.pop(0).callback(None)
            ran += 1
        return ran


def memory_store() -> MemoryStore:
    """An empty store with the schema of this fjmcp."""
    connection = _connect()
    _migrated().backup(connection)
    writer = MemoryLane(connection, WRITE)
    reader = MemoryLane(connection, READ)
    return MemoryStore(writer, reader, lanes=(writer, reader))


@cache
def _migrated() -> sqlite3.Connection:
    connection = _connect()
    in_transaction(
        connection,
        WRITE,
        lambda cursor: migrating.upgrade(
            cursor, migrating.ours(), blob=BLOB, before=lambda version: None
        ),
    )
    return connection


def _connect() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


# --- processes ------------------------------------------------------------------

Mind: TypeAlias = "Callable[[FakeChild, dict[str, Any]], None]"
"""What a child does with a message that it has read."""

INITIALIZED: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "fake", "version": "1"},
}


def polite(child: FakeChild, message: dict[str, Any]) -> None:
    """Answer `initialize` and `ping`, and leave all else to the test."""
    if message.get("method") == "initialize":
        child.answer(message["id"], INITIALIZED)
    elif message.get("method") == "ping":
        child.answer(message["id"], {})


@implementer(IProcessTransport, IConsumer)
@define(eq=False)
class FakeChild:
    """
    A process in memory: what the daemon sees of one, and what a test does to it.

    :ivar heard: the messages that it has read, parsed.
    :ivar signals: those that it got.
    :ivar ignores: "EOF", "TERM", "KILL": what does not end it.
    :ivar reads: whether it takes what is written to it.
    :ivar clings: whether another process holds its pipes after its end.
    """

    reactor: FakeReactor
    protocol: IProcessProtocol
    number: int
    argv: tuple[str, ...]
    env: dict[str, str]
    mind: Mind
    pid: int | None = field(init=False)
    heard: list[dict[str, Any]] = field(factory=list, init=False)
    signals: list[int] = field(factory=list, init=False)
    ignores: set[str] = field(factory=set, init=False)
    reads: bool = field(default=True, init=False)
    stdin_closed: bool = field(default=False, init=False)
    clings: bool = field(default=False, init=False)
    over: bool = field(default=False, init=False)
    _reason: Failure = field(init=False)
    _unread: bytearray = field(factory=bytearray, init=False, repr=False)
    _pacer: Any = field(default=None, init=False, repr=False)
    _paused: bool = field(default=False, init=False)
    _closing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.pid = self.number

    # --- what a test does ---

    def methods(self) -> list[str]:
        """The methods of what it has read."""
        return [message.get("method", "") for message in self.heard]

    def say(self, *messages: object) -> None:
        """Write messages to its stdout; bytes go out as they are."""
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
            self.protocol.childDataReceived(1, line)

    def answer(self, id: object, result: object) -> None:
        """Answer a request."""
        self.say({"jsonrpc": "2.0", "id": id, "result": result})

    def answer_last(self, result: object) -> None:
        """Answer the request that it has read last."""
        self.answer([message["id"] for message in self.heard if "id" in message][-1], result)

    def grumble(self, text: bytes) -> None:
        """Write to its stderr."""
        self.protocol.childDataReceived(2, text)

    def close(self, descriptor: int) -> None:
        """Close one of its pipes, as a child that lives on."""
        self.protocol.childConnectionLost(descriptor)

    def exit(self, code: int = 0, signal: int | None = None) -> None:
        """End, as a process does: exit, the ends of its pipes, no process any more."""
        if self.over:
            return
        self.over = True
        self.pid = None
        status = signal if signal is not None else code << 8
        gone: Exception = ProcessDone(status)
        if status:
            gone = ProcessTerminated(None if signal is not None else code, signal, status)
        self._reason = Failure(gone)
        self.protocol.processExited(self._reason)
        if not self.clings:
            self._let_go()

    def _let_go(self) -> None:
        for descriptor in (0, 1, 2):
            self.protocol.childConnectionLost(descriptor)
        self.protocol.processEnded(self._reason)

    def read_all(self) -> None:
        """Read what was written, and be told of the end of stdin."""
        if not self.reads or self.over:
            return
        while b"\n" in self._unread and not self.over:
            line, _, rest = bytes(self._unread).partition(b"\n")
            self._unread = bytearray(rest)
            message = json.loads(line)
            self.heard.append(message)
            self.mind(self, message)
        if self._paused and self._pacer is not None:
            self._paused = False
            self._pacer.resumeProducing()
        if self._closing and not self._unread:
            self.stdin_closed = True
            if "EOF" not in self.ignores:
                self.exit(0)

    def signalled(self, signum: int) -> None:
        """Get a signal; the end that it brings comes later, as a real one does."""
        self.signals.append(signum)
        name = Signals(signum).name.removeprefix("SIG")
        if name not in self.ignores:
            self.reads = False
            self.reactor.callLater(0, self.exit, 0, signum)

    # --- what the daemon does: IProcessTransport, IConsumer ---

    def write(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > 65536 and self._pacer is not None and not self._paused:
            self._paused = True
            self._pacer.pauseProducing()
        self.reactor.callLater(0, self.read_all)

    def writeToChild(self, childFD: int, data: bytes) -> None:
        self.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._pacer = producer

    def unregisterProducer(self) -> None:
        self._pacer = None

    def closeStdin(self) -> None:
        if not self.over:
            self._closing = True
            self.reactor.callLater(0, self.read_all)

    def closeStdout(self) -> None:
        self.closeChildFD(1)

    def closeStderr(self) -> None:
        self.closeChildFD(2)

    def closeChildFD(self, descriptor: int) -> None:
        pass

    def loseConnection(self) -> None:
        self.closeStdin()
        if self.over and self.clings:
            self.clings = False
            self._let_go()

    def signalProcess(self, signalID: str | int) -> None:
        if self.over:
            raise ProcessExitedAlready()
        self.signalled(Signals[f"SIG{signalID}"] if isinstance(signalID, str) else signalID)

    def getPeer(self) -> Any:
        raise NotImplementedError

    def getHost(self) -> Any:
        raise NotImplementedError


@implementer(IReactorTime, IReactorProcess)
class FakeReactor(Clock):
    """
    A clock on which processes run, in memory.

    :ivar children: all that were started, oldest first.
    :ivar mind: what the next ones do with what they read.
    :ivar fails: raised instead of the next starts, while it is set.
    """

    def __init__(self, mind: Mind = polite) -> None:
        super().__init__()
        self.children: list[FakeChild] = []
        self.mind = mind
        self.fails: Exception | None = None

    @property
    def alive(self) -> list[FakeChild]:
        """The children that have not ended."""
        return [child for child in self.children if not child.over]

    def spawnProcess(
        self,
        processProtocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any] | None = None,
        path: bytes | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: bool = False,
        childFDs: Mapping[int, int | str] | None = None,
    ) -> IProcessTransport:
        """A `FakeChild`, connected to the protocol."""
        if self.fails is not None:
            raise self.fails
        if env is None or path is not None or uid is not None or gid is not None or usePTY:
            raise AssertionError("a child must be started with an explicit environment alone")
        child = FakeChild(
            self,
            processProtocol,
            10_000_000 + len(self.children),  # no process of this machine has it
            tuple(str(word) for word in args),
            {str(name): str(value) for name, value in env.items()},
            self.mind,
        )
        self.children.append(child)
        processProtocol.makeConnection(child)
        return child

    def killpg(self, pgid: int, signum: int) -> None:
        """`os.killpg` for these children."""
        for child in self.alive:
            if child.number == pgid:
                child.signalled(signum)
                return
        raise ProcessLookupError(pgid)

    def turn(self) -> None:
        """Let all that is due now happen, and what follows from it."""
        while any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
            self.advance(0)


# --- HTTP -----------------------------------------------------------------------


@implementer(ITCPTransport)
class Wire(StringTransport):
    """
    A client's end of a connection: what the server wrote, and how it closed.

    `half_closed`: the server writes no more; `closed`: it is gone, in good
    order or (`aborted`) with a reset.  `full`: the client reads nothing, and
    what it has not read fills the server's buffer.
    """

    full = False
    half_closed = False
    closed = False
    aborted = False

    def __init__(self, clock: Clock, peer: IAddress | None = None) -> None:
        super().__init__(hostAddress=IPv4Address("TCP", "192.0.2.1", 8085), peerAddress=peer)
        self._clock = clock
        self.protocol: IProtocol | None = None
        self.heard: Callable[[], None] | None = None
        """Called after each write of the server."""

    def write(self, data: bytes) -> None:
        """Bytes of the server; dropped once it has closed."""
        if not (self.closed or self.half_closed):
            super().write(data)
            if self.full and self.producer is not None:
                # Twisted says it again at each write past what its buffer should hold.
                self.producer.pauseProducing()
            if self.heard is not None:
                self.heard()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """The same in pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close; the protocol hears of it a turn later, as from a real transport."""
        if not self.closed:
            self.closed = self.disconnecting = True
            self._clock.callLater(0, self.lost, ConnectionDone())

    def abortConnection(self) -> None:
        """Reset the connection."""
        self.aborted = True
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """Write no more."""
        self.half_closed = True

    def lost(self, reason: Exception) -> None:
        """The connection is gone: tell the protocol, once."""
        self.closed = True
        if self.connected and self.protocol is not None:
            self.connected = False
            self.protocol.connectionLost(Failure(reason))

    def getTcpKeepAlive(self) -> bool:
        """Nothing to keep alive."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to keep alive."""

    def getTcpNoDelay(self) -> bool:
        """Nothing is delayed."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed."""


@define(eq=False)
class Visit:
    """
    One request of a `Visitor` and what came back so far.

    Everything is read off the wire at each look, so a stream can be watched as
    it grows.
    """

    wire: Wire
    protocol: IProtocol

    def send(self, data: bytes) -> None:
        """More bytes of the client, the rest of a body say."""
        self.protocol.dataReceived(data)

    def leave(self) -> None:
        """The client closes the connection."""
        self.wire.lost(ConnectionDone())

    def stop_reading(self) -> None:
        """The client takes no more bytes; what the server writes now piles up there."""
        assert self.wire.producer is not None
        self.wire.full = True
        self.wire.producer.pauseProducing()

    def read_on(self) -> None:
        """The client takes what waits."""
        assert self.wire.producer is not None
        self.wire.full = False
        self.wire.producer.resumeProducing()

    @property
    def head(self) -> bytes | None:
        """Status line and headers, once they are there."""
        head, end, _ = self._final.partition(b"\r\n\r\n")
        return head if end else None

    @property
    def answered(self) -> bool:
        """Whether a response has begun."""
        return self.head is not None

    @property
    def status(self) -> int:
        """The response's status."""
        assert self.head is not None, "no response yet"
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> Headers:
        """The response's headers."""
        assert self.head is not None, "no response yet"
        headers = Headers()
        for line in self.head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            headers.addRawHeader(name, value.strip())
        return headers

    def header(self, name: str) -> str | None:
        """One header of the response."""
        values = self.headers.getRawHeaders(name)
        return None if values is None else values[-1]

    @property
    def body(self) -> bytes:
        """What came of the body."""
        return self._body()[0]

    @property
    def ended(self) -> bool:
        """Whether the response is complete."""
        return self.answered and self._body()[1]

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def events(self) -> list[bytes]:
        """The `data` of the server-sent events that came, comments left out."""
        found = []
        for block in self.body.split(b"\n\n")[:-1]:
            lines = [line for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                found.append(b"\n".join(line[5:].removeprefix(b" ") for line in lines))
        return found

    @property
    def _final(self) -> bytes:
        written: bytes = self.wire.value()
        while written.startswith(b"HTTP/1.1 100 "):
            written = written.partition(b"\r\n\r\n")[2]
        return written

    def _body(self) -> tuple[bytes, bool]:
        rest = self._final.partition(b"\r\n\r\n")[2]
        if self.header("transfer-encoding") != "chunked":
            length = self.header("content-length")
            bare = self.status in (204, 304)
            return rest, bare or (length is not None and len(rest) >= int(length))
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if int(size, 16) == 0:
                return body, True
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body, False


@define(eq=False)
class Visitor:
    """
    An HTTP client of a `Site`, in memory and on a Clock: a connection for each
    request, and the cookies kept like a browser's.

    `send` answers at once with a `Visit`, which is complete if nothing in the
    site had to wait.
    """

    site: Site
    clock: Clock
    host: str = "broker.example"
    cookies: dict[str, str] = field(factory=dict)
    peer: IAddress = field(factory=lambda: IPv4Address("TCP", "198.51.100.7", 40000))
    """Where its connections come from."""

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Visit:
        """One request.  A header given here stands in place of the one that would be made."""
        made = {"host": self.host, "content-length": str(len(body))}
        if self.cookies:
            made["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        made |= {name.lower(): value for name, value in (headers or {}).items()}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {made[name]}" for name in made)]
        visit = self.connect()
        visit.send("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body)
        self._keep_cookies(visit)
        return visit

    def connect(self) -> Visit:
        """A connection on which nothing was said; `Visit.send` says it, byte for byte."""
        protocol = self.site.buildProtocol(self.peer)
        assert protocol is not None
        wire = Wire(self.clock, self.peer)
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return Visit(wire, protocol)

    def get(self, target: str, **headers: str) -> Visit:
        """GET; a header's name with `_` for `-`."""
        return self.send("GET", target, headers=_headers(headers))

    def post_form(self, target: str, form: Mapping[str, str], **headers: str) -> Visit:
        """POST of a urlencoded form."""
        sent = {"content-type": "application/x-www-form-urlencoded"} | _headers(headers)
        return self.send("POST", target, urlencode(form).encode("ascii"), sent)

    def post_json(self, target: str, value: object, **headers: str) -> Visit:
        """POST of JSON, in the way of an MCP client."""
        sent = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        } | _headers(headers)
        return self.send("POST", target, json.dumps(value).encode("utf-8"), sent)

    def _keep_cookies(self, visit: Visit) -> None:
        if not visit.answered:
            return
        for line in visit.headers.getRawHeaders("set-cookie", []):
            pair, _, rest = line.partition(";")
            name, _, value = pair.partition("=")
            self.cookies[name.strip()] = value
            if "max-age=0" in rest.lower().replace(" ", ""):
                del self.cookies[name.strip()]


def _headers(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


# --- the whole broker -----------------------------------------------------------------

PUBLIC_URL: Final = "https://broker.example"
FORGE_URL: Final = "https://forge.example"
CLIENT_URL: Final = "https://client.example/callback"
"""Where an `App` wants its browsers back, unless it says otherwise."""
SCOPES: Final = "read:user write:repository write:issue"
VERIFIER: Final = "a-verifier-that-is-long-enough-for-the-rule-of-43"
EPOCH: Final = 1_800_000_000.0
"""When everything in memory begins."""


@implementer(IResponse)
@define(eq=False)
class _Response:
    """A complete `Visit`, or what was published, as an agent answers it."""

    visit: Visit | Published
    version: Any = (b"HTTP", 1, 1)
    phrase: bytes = b""
    request: Any = None
    previousResponse: Any = None

    @property
    def code(self) -> int:
        return self.visit.status

    @property
    def headers(self) -> Headers:
        return self.visit.headers

    @property
    def length(self) -> int:
        return len(self.visit.body)

    def deliverBody(self, protocol: IProtocol) -> None:
        protocol.dataReceived(self.visit.body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        self.previousResponse = response


@frozen
class Published:
    """What a host answers to a GET."""

    body: bytes
    status: int = 200
    headers: Headers = field(factory=lambda: Headers({"content-type": ["application/json"]}))


@implementer(IAgent)
@define(eq=False)
class Publishers:
    """
    The hosts of strangers, and the way out to them (`fjmcp.fetch.documents.Errand`).

    A host that has nothing at a URL cannot be reached.

    :ivar published: what is at which URL.
    :ivar asked: the URLs that were asked for, in their order.
    :ivar held: None, or the requests that wait for `release`.
    """

    published: dict[str, Published] = field(factory=dict)
    asked: list[str] = field(factory=list, init=False)
    held: list[tuple[str, Deferred[IResponse]]] | None = field(default=None, init=False)
    agent: IAgent = field(init=False)
    not_public: bool = field(default=False, init=False)
    busy: bool = field(default=False, init=False)
    overrun: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.agent = self

    def publish(self, document: Mapping[str, Any], **headers: str) -> None:
        """A metadata document stands at the URL that it names; a header with `_` for `-`."""
        sent = {"content-type": "application/json"} | _headers(headers)
        answer = Published(
            json.dumps(dict(document)).encode(),
            headers=Headers({name: [value] for name, value in sent.items()}),
        )
        self.published[document["client_id"]] = answer

    def errand(self) -> Publishers:
        """A way out."""
        return self

    def close(self) -> None:
        """Nothing is open."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """One request; its answer may be late."""
        url = uri.decode("ascii")
        self.asked.append(url)
        if self.held is None:
            return execute(self._answer, url)
        waiting: Deferred[IResponse] = Deferred()
        self.held.append((url, waiting))
        return waiting

    def release(self) -> None:
        """Answer what waits."""
        held, self.held = self.held or [], None
        for url, waiting in held:
            execute(self._answer, url).addCallbacks(waiting.callback, waiting.errback)

    def _answer(self, url: str) -> IResponse:
        if url not in self.published:
            raise ConnectionRefusedError()
        return _Response(self.published[url])


@implementer(IAgent)
@define(eq=False)
class Hosts:
    """An agent for browsers: the host of a URL picks the broker's site or the forge."""

    _broker: WholeBroker

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """One request; its answer may be late."""
        url = uri.decode("ascii")
        target = url.removeprefix(PUBLIC_URL)
        if target == url:
            answer: Deferred[IResponse] = self._broker.wires.request(
                method, uri, headers, bodyProducer
            )
            return answer
        named = (headers or Headers()).getAllRawHeaders()
        sent = {name.decode().lower(): values[-1].decode() for name, values in named}
        body = b"" if bodyProducer is None else cast("Body", bodyProducer).data
        # Not the visitor's own cookies: the browser keeps them.
        visit = self._broker.visitor().send(method.decode(), target or "/", body, sent)
        waiting: Deferred[IResponse] = Deferred()

        def look() -> None:
            if visit.ended:
                visit.wire.heard = None
                waiting.callback(_Response(visit))

        visit.wire.heard = look
        look()
        return waiting


@define(eq=False)
class WholeBroker:
    """
    All that the daemon joins, in memory and on one clock.

    A stand-in Forgejo behind it, children that are fakes, and browsers and
    clients before it.

    :ivar reactor: the clock, with the children.
    :ivar forge: where Alice and Bob have accounts.
    :ivar wires: how Forgejo is reached; `flush` brings a late answer home.
    :ivar publishers: the hosts of metadata documents, all of them away at first.
    :ivar set_by: by how many seconds the broker's machine's clock was set.
    :ivar scopes: what it asks Forgejo for.
    :ivar admission: who may come in.
    """

    reactor: FakeReactor = field(factory=FakeReactor)
    store: MemoryStore = field(factory=memory_store)
    forge: StandIn = field(init=False)
    wires: Any = field(init=False)
    publishers: Publishers = field(factory=Publishers)
    errand: Callable[[], Errand] | None = None
    """Another way out to the hosts of metadata documents than `publishers`."""
    ring: Ring = field(factory=Ring.generate, repr=False)
    trusted_proxies: Proxies | None = None
    allowed_origins: frozenset[str] = frozenset()
    meter: Meter = SILENT
    set_by: float = 0.0
    scopes: str = SCOPES
    admission: Admission = field(factory=Admission)
    child: Recipe = field(factory=lambda: recipe_for(["/opt/forgejo-mcp"]))
    settings: Mapping[str, Any] = field(factory=dict)
    """What an operator set in other ways than the defaults."""
    parts: Parts = field(init=False)
    _clients: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.reactor.advance(EPOCH - self.reactor.seconds())
        self.forge = StandIn(
            self.reactor, FORGE_URL, redirect_uris=(f"{PUBLIC_URL}/oauth/callback",)
        )
        self.wires = RequestTraversalAgent(self.forge.resource)
        settings = Settings(
            listen="none",
            public_url=PUBLIC_URL,
            trusted_proxies=self.trusted_proxies,
            forgejo_url=FORGE_URL,
            forgejo_oauth_client_id=self.forge.client_id,
            forgejo_oauth_client_secret=self.forge.client_secret,
            forgejo_oauth_scopes=self.scopes,
            store=Path("none"),
            keys=KeySources(None, None, None),
            child=self.child,
            max_sessions=limits.CHILDREN,
            session_idle_timeout=limits.SESSION_IDLE,
            session_reap_interval=limits.REAP,
            token_refresh_lead=limits.REFRESH_LEAD,
            token_refresh_interval=limits.ROTATE,
            unknown_session_status=404,
            require_session_id=False,
            debug=False,
            allowed_origins=self.allowed_origins,
            allow_users=self.admission.users,
            allow_orgs=self.admission.orgs,
            deny_admins=self.admission.deny_admins,
        )
        self.parts = assemble(
            evolve(settings, **self.settings),
            self.store,
            self.ring,
            clock=WallClock(self.reactor, lambda: self.reactor.seconds() + self.set_by),
            ticks=self.reactor,
            http=http_over(self.wires),
            errand=self.errand or self.publishers.errand,
            launcher=Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg),
            unready=lambda: None,
            meter=self.meter,
        )

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.reactor.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Let all that is due happen, at Forgejo too."""
        self.wires.flush()
        self.reactor.turn()

    def account(self, login: str) -> int:
        """The account of somebody at the forge; it is made, as by a sign-in, if need be."""
        person = self.forge.instance.person(login)
        assert person is not None
        if now(self.store.read(accounts.find, person.id)) is None:
            self.signs_in_elsewhere(login)
        return person.id

    def signs_in_elsewhere(self, login: str) -> None:
        """A sign-in of this person, through no client in particular, brings a pair."""
        person = self.forge.instance.person(login)
        assert person is not None
        began = self.reactor.seconds()
        pair = Pair.read(self.forge.hand_out(login, self.scopes), began, began, None)
        assert pair is not None
        sealed = Pairs(self.store, self.ring, self.reactor).seal(person.id, pair)
        nowhere = digest(mint(Kind.SIGN_IN))
        now(self.store.write(accounts.admit, nowhere, person.id, login, sealed, began))

    def visitor(self) -> Visitor:
        """An HTTP client of the site."""
        return Visitor(self.parts.site, self.reactor)

    def browser(self, *stops: str) -> Browser:
        """A browser without cookies, which stops where the clients are."""
        return Browser(Hosts(self), (CLIENT_URL, "http://127.0.0.1", "http://localhost", *stops))

    def known_by(self, document: Mapping[str, Any]) -> App:
        """A client that names itself by the URL of its metadata document, published or not."""
        return App(self, {**document, "token_endpoint_auth_method": "none"})

    def register(self, **metadata: object) -> App:
        """A client that has registered itself; by default a public one, as most are."""
        self._clients += 1
        asked: dict[str, object] = {
            # Each another name: identical registrations would be one client.
            "client_name": "The client" + (f" {self._clients}" if self._clients > 1 else ""),
            "redirect_uris": [CLIENT_URL],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
        }
        visit = self.visitor().post_json("/oauth/register", asked | metadata)
        if visit.status != 201:
            raise AssertionError(f"{visit.status}: {visit.body!r}")
        return self.app(visit.json())

    def app(self, registered: dict[str, Any]) -> App:
        """A client that was answered so when it registered."""
        return App(self, registered)


@define(eq=False)
class App:
    """A client of a `WholeBroker`; what it can do is an API of few words."""

    broker: WholeBroker
    registered: dict[str, Any] = field(repr=False)

    @property
    def client_id(self) -> str:
        """Its name at the broker."""
        return str(self.registered["client_id"])

    def authorize_url(self, **changes: str | None) -> str:
        """Where it sends a browser; a parameter that is None is left out."""
        asked: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.registered["redirect_uris"][0],
            "state": "the-state",
            "code_challenge": challenge(TokenText(VERIFIER)),
            "code_challenge_method": "S256",
            "resource": f"{PUBLIC_URL}/mcp",
        }
        query = {n: v for n, v in (asked | changes).items() if v is not None}
        return f"{PUBLIC_URL}/oauth/authorize?{urlencode(query)}"

    def open(self, browser: Browser | None = None, **changes: str | None) -> Page:
        """The page that a browser is shown first: our consent page, or a refusal."""
        return now((browser or self.broker.browser()).open(self.authorize_url(**changes)))

    def sign_in(
        self, login: str = "alice", browser: Browser | None = None, **changes: str | None
    ) -> dict[str, str]:
        """Somebody allows it and signs in; what it is told at its redirect URI."""
        browser = browser or self.broker.browser()
        page = walk(browser, self.open(browser, **changes), login)
        return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))

    def code(self, login: str = "alice", **changes: str) -> str:
        """A code for somebody, as `sign_in` would bring it, without any browser."""
        code = mint(Kind.CODE)
        asked: dict[str, str] = {
            "client_id": self.client_id,
            "redirect_uri": self.registered["redirect_uris"][0],
            "state": "the-state",
            "challenge": challenge(TokenText(VERIFIER)),
            "scopes": "forge:read forge:write",
            "resource": f"{PUBLIC_URL}/mcp",
        }
        request = AuthorizationRequest(**(asked | changes))
        account_id, began = self.broker.account(login), self.broker.reactor.seconds()
        now(self.broker.store.write(grants.add_code, digest(code), account_id, request, began))
        return code.text

    def ask(self, path: str, form: Mapping[str, str | None], **headers: str) -> Visit:
        """POST a form, authenticated as it registered; a field that is None is left out."""
        method, secret = (
            self.registered["token_endpoint_auth_method"],
            self.registered.get("client_secret"),
        )
        known: dict[str, str | None] = {"client_id": self.client_id}
        if method == "client_secret_post":
            known["client_secret"] = secret
        if method == "client_secret_basic":
            del known["client_id"]
            words = b64encode(f"{self.client_id}:{secret}".encode()).decode()
            headers.setdefault("authorization", f"Basic {words}")
        said = {n: v for n, v in (known | dict(form)).items() if v is not None}
        return self.broker.visitor().post_form(path, said, **headers)

    def redeem(self, code: str | None, **changes: str | None) -> Visit:
        """A code for tokens."""
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.registered["redirect_uris"][0],
            "code_verifier": VERIFIER,
        }
        return self.ask("/oauth/token", form | changes)

    def refresh(self, token: str | None, **changes: str | None) -> Visit:
        """A refresh token for the next tokens."""
        form: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": token}
        return self.ask("/oauth/token", form | changes)

    def revoke(self, token: str | None) -> Visit:
        """The end of a grant."""
        return self.ask("/oauth/revoke", {"token": token})

    def tokens(self, login: str = "alice", **changes: str | None) -> dict[str, Any]:
        """The token response for a code."""
        visit = self.redeem(self.code(login), **changes)
        if visit.status != 200:
            raise AssertionError(f"{visit.status}: {visit.body!r}")
        answer: dict[str, Any] = visit.json()
        return answer

    def call(self, access: str, method: str = "tools/list", **headers: str) -> Visit:
        """One MCP request without a session; a child is started for it if need be."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
        visit = self.broker.visitor().post_json(
            "/mcp", message, authorization=f"Bearer {access}", **headers
        )
        self.broker.reactor.turn()
        return visit

    def knocks(self, access: str) -> int:
        """The status of a `ping`, which needs no child: whether a token is good."""
        return self.call(access, "ping").status


def walk(browser: Browser, page: Page, login: str = "alice") -> Page:
    """
    Go on from our consent page as somebody who allows everything.

    A page that asks who came back is the end, too: the test knows.
    """
    for _ in range(5):
        buttons = {value for _, value in page.form.buttons} if page.forms else set()
        if not page.forms or "continue" in buttons:
            return page
        fields = page.form.fields
        if "password" in fields:
            said = {"user_name": login, "password": f"{login}-demo-password"}
            page = now(browser.submit(page, **said))
        else:
            page = now(browser.submit(page, next(b for b in ("allow", "true") if b in buttons)))
    raise AssertionError(f"still forms at {page.url}")


def now(going: Coroutine[Any, Any, T]) -> T:
    """What a coroutine answers that has to wait for nothing; else AssertionError."""
    results: list[Any] = []
    waiting = Deferred.fromCoroutine(going)
    waiting.addBoth(results.append)
    if not results:
        raise AssertionError("it waits for something")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    result: T = results[0]
    return result
