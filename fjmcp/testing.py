"""
Doubles for tests: the same interfaces, in memory, stepped by a Clock.

A test builds what it needs from here and never from a patch.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from signal import Signals
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlencode

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.error import (
    ConnectionDone,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
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
from twisted.web.http_headers import Headers
from zope.interface import implementer

from fjmcp.store import migrating
from fjmcp.store.transactions import BLOB, READ, WRITE, Store, StoreDown, Work, in_transaction

if TYPE_CHECKING:
    from fjmcp.web.site import Site

T = TypeVar("T")


# --- the store ----------------------------------------------------------------


@define
class MemoryLane:
    """
    Transactions on a SQLite database in memory, run where they are asked for.

    `down`: each one fails with `StoreDown` while it is set.
    `held`: None, or the transactions that wait for `release`, oldest first.
    """

    connection: sqlite3.Connection
    begin: str
    down: bool = False
    held: list[Deferred[None]] | None = field(default=None, init=False)
    closed: bool = field(default=False, init=False)

    def run(self, work: Work[T]) -> Deferred[T]:
        if self.held is None:
            return execute(self._now, work)
        # Cancelling the wait must not stop the transaction: it runs on the
        # inner Deferred, as a thread would run it.
        outer: Deferred[T] = Deferred()
        inner: Deferred[None] = Deferred()
        inner.addCallback(lambda ignored: self._now(work))
        inner.addCallbacks(outer.callback, outer.errback)
        self.held.append(inner)
        return outer

    def _now(self, work: Work[T]) -> T:
        if self.down or self.closed:
            raise StoreDown("down, as the test wants it")
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
    put something between the question and the answer.
    """

    lanes: tuple[MemoryLane, MemoryLane]

    def fail_all(self, down: bool = True) -> None:
        """Be down, or up again."""
        for lane in self.lanes:
            lane.down = down

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
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    in_transaction(
        connection,
        WRITE,
        lambda cursor: migrating.upgrade(
            cursor, migrating.ours(), blob=BLOB, before=lambda version: None
        ),
    )
    writer = MemoryLane(connection, WRITE)
    reader = MemoryLane(connection, READ)
    return MemoryStore(writer, reader, lanes=(writer, reader))


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
    order or (`aborted`) with a reset.
    """

    half_closed = False
    closed = False
    aborted = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(hostAddress=IPv4Address("TCP", "192.0.2.1", 8085))
        self._clock = clock
        self.protocol: IProtocol | None = None

    def write(self, data: bytes) -> None:
        """Bytes of the server; dropped once it has closed."""
        if not (self.closed or self.half_closed):
            super().write(data)

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
        self.wire.producer.pauseProducing()

    def read_on(self) -> None:
        """The client takes what waits."""
        assert self.wire.producer is not None
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
        protocol = self.site.buildProtocol(IPv4Address("TCP", "198.51.100.7", 40000))
        assert protocol is not None
        wire = Wire(self.clock)
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
