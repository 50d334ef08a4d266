"""
Children, in memory: processes with a mind that the test gives them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from signal import Signals
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import define, field
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IConsumer, IProcessProtocol, IProcessTransport
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from fjmcp.testing.reactor import FakeReactor

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
