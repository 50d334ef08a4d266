"""
One child: its pipes, and its end.

::

    start ──> running ──stop──> stdin closed ──wait──> TERM ──wait──> KILL ──> ended
                 │                                                      ▲        ▲
                 ├──kill────────────────────────────────────────────────┘        │
                 └──it exits, or cannot be started───────────────────────────────┘

A child that closes a pipe of its own accord is of no more use and is stopped.
Whatever it started and left behind in its group is killed when it ends.
`ended` comes once, after everything that it said.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fjmcp import limits
from fjmcp.children.blank import Blank, blank
from fjmcp.children.launch import Launcher, Spawned
from fjmcp.children.profiles import Command
from fjmcp.children.stderr import Stderr, Trickle
from fjmcp.mcp.framing import Lines

_NOT_EXECUTABLE: Final = frozenset({126, 127})
"""What `setpriv` exits with when it cannot execute the command, as shells do."""


@frozen
class End:
    """
    How a child ended.

    :ivar code: its exit code; None when a signal ended it or it never began.
    :ivar signal: the signal that ended it.
    :ivar seconds: how long it lived.
    :ivar missing: its program is not there or cannot be executed.
    :ivar stuck: not ended at all: the kernel keeps it in spite of KILL.
    :ivar trouble: why it never began.
    """

    code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    missing: bool = False
    stuck: bool = False
    trouble: str = ""


class Hearer(Protocol):
    """Who a child belongs to."""

    def heard(self, line: bytes) -> None:
        """A line of its stdout, with its token blanked."""

    def missed(self) -> None:
        """A line of its stdout was too long and is lost."""

    def ended(self, end: End) -> None:
        """It is gone.  Nothing is heard after this."""


@implementer(IProcessProtocol, IPushProducer)
@define(eq=False, slots=False, repr=False)
class Child(ProcessProtocol):
    """
    A child process.

    :ivar pid: its number, None until it has one.  Stays after its end.
    :ivar end: how it ended, None before.
    """

    log = Logger()

    _launcher: Launcher
    _command: Command
    _hearer: Hearer
    _clock: IReactorTime
    pid: int | None = field(default=None, init=False)
    end: End | None = field(default=None, init=False)
    _born: float = field(default=0.0, init=False)
    _spoke: bool = field(default=False, init=False)
    _exited: bool = field(default=False, init=False)
    _spawned: Spawned | None = field(default=None, init=False)
    _blank: Blank = field(init=False, repr=False)
    _lines: Lines = field(init=False, repr=False)
    _stderr: Stderr = field(init=False, repr=False)
    _waiting: deque[bytes] = field(factory=deque, init=False, repr=False)
    _waiting_bytes: int = field(default=0, init=False)
    _paused: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _ended: list[Deferred[End]] = field(factory=list, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._blank = blank(self._command.token)
        self._lines = Lines(limits.CHILD_LINE)
        self._stderr = Stderr(self._blank, Trickle(self._clock), self._say)

    def start(self) -> None:
        """
        Start the process.

        That it could not be started is an end like another: the hearer is
        told, perhaps before this returns.
        """
        self._born = self._clock.seconds()
        try:
            self._spawned = self._launcher.launch(self, self._command)
        except (OSError, ValueError) as error:
            # The text names the confining program or a lack, and never the environment.
            missing = isinstance(error, FileNotFoundError | PermissionError)
            self._finish(End(missing=missing, trouble=f"{type(error).__name__}: {error}"))
            return
        if self.end is None:
            self._spawned.pace(self)

    @property
    def usable(self) -> bool:
        """Whether it may still be written to."""
        return self._spawned is not None and not self._stopping

    @property
    def program(self) -> str:
        """What runs, for the log."""
        return self._command.program

    @property
    def last_words(self) -> list[str]:
        """The last lines of its stderr, blanked."""
        return list(self._stderr.tail)

    def send(self, line: bytes) -> bool:
        """
        Write one line to its stdin.

        False, and nothing is written, when it ends or has left too much unread.
        """
        if not self.usable:
            return False
        if not self._paused:
            self._write(line)
        elif self._waiting_bytes + len(line) > limits.CHILD_UNREAD:
            return False
        else:
            self._waiting.append(line)
            self._waiting_bytes += len(line)
        return True

    def ended(self) -> Deferred[End]:
        """Fires when it has ended; may be cancelled without harm."""
        if self.end is not None:
            done: Deferred[End] = Deferred()
            done.callback(self.end)
            return done
        waiting: Deferred[End] = Deferred(self._ended.remove)
        self._ended.append(waiting)
        return waiting

    def stop(self) -> Deferred[End]:
        """
        End it in good order (design D5): EOF, TERM, KILL, with waits between.

        Fires when it has ended.  May be called again.
        """
        self._wind_down()
        return self.ended()

    def kill(self) -> Deferred[End]:
        """End it and all that it started at once."""
        if self.end is None:
            self._close_stdin()
            self._signal(signal.SIGKILL)
            if not self._exited:
                self._later(limits.KILL_WAIT, self._give_up)
        return self.ended()

    # --- stdin ---------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Twisted: more than a pipeful waits for the child to read."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Twisted: the child has read all that was written."""
        self._paused = False
        while self._waiting and not self._paused:
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            self._write(line)

    def stopProducing(self) -> None:
        """Twisted: there is no stdin any more; `inConnectionLost` acts on it."""

    def _write(self, line: bytes) -> None:
        if self._spawned is not None:
            # Two writes: a line may be large, and `+` would copy it.
            self._spawned.write(line)
            self._spawned.write(b"\n")

    def _close_stdin(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        waiting, self._waiting = self._waiting, deque()
        for line in waiting:
            self._write(line)
        if self._spawned is not None:
            self._spawned.close_stdin()

    # --- the order of its end ----------------------------------------------------

    def _wind_down(self) -> None:
        if not self._stopping and self.end is None:
            self._close_stdin()
            if not self._exited:
                self._later(limits.CLOSE_WAIT, self._terminate)

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._later(limits.TERM_WAIT, self._kill)

    def _kill(self) -> None:
        self.log.warn("child ignores TERM", pid=self.pid)
        self._signal(signal.SIGKILL)
        self._later(limits.KILL_WAIT, self._give_up)

    def _give_up(self) -> None:
        self.log.error("child does not die", pid=self.pid)
        self._finish(End(seconds=self._age(), stuck=True))

    def _signal(self, signum: signal.Signals) -> None:
        if self._spawned is not None:
            self._spawned.signal_group(signum)

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        self._cancel()
        self._timer = self._clock.callLater(seconds, step)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _age(self) -> float:
        return self._clock.seconds() - self._born

    def _finish(self, end: End) -> None:
        if self.end is not None:
            return
        self.end = end
        self._stopping = True
        self._cancel()
        self._waiting.clear()
        self._stderr.end()
        waiting, self._ended = self._ended, []
        with self.log.failuresHandled("while telling the end of child {pid}", pid=self.pid):
            self._hearer.ended(end)
        for ended in waiting:
            ended.callback(end)

    # --- what Twisted tells ----------------------------------------------------------

    def connectionMade(self) -> None:
        """Twisted: the process exists."""
        self.pid = getattr(self.transport, "pid", None)

    def outReceived(self, data: bytes) -> None:
        """Twisted: some of its stdout."""
        lost = self._lines.dropped
        for line in self._lines.feed(data):
            if self.end is None:
                self._spoke = True
                # One line that we choke on must not cost the pipe.
                with self.log.failuresHandled("while hearing child {pid}", pid=self.pid):
                    self._hearer.heard(self._blank.line(line))
        if self._lines.dropped > lost and self.end is None:
            self.log.warn("child's line is too long", pid=self.pid, limit=limits.CHILD_LINE)
            with self.log.failuresHandled("while hearing child {pid}", pid=self.pid):
                self._hearer.missed()

    def errReceived(self, data: bytes) -> None:
        """Twisted: some of its stderr."""
        self._stderr.feed(data)

    def inConnectionLost(self) -> None:
        """Twisted: it reads no more."""
        self._wind_down()

    def outConnectionLost(self) -> None:
        """Twisted: it says no more."""
        self._wind_down()

    def processExited(self, reason: Failure) -> None:
        """Twisted: the process is over; its pipes may still hold what it said."""
        self._exited = True
        # What it left behind in its group would hold the pipes, or live on.
        self._signal(signal.SIGKILL)
        self._later(limits.CHILD_LINGER, self._let_go)

    def _let_go(self) -> None:
        self.log.warn("child's pipes are held by a process that it left", pid=self.pid)
        if self._spawned is not None:
            self._spawned.close()

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process is over, and all that it said was heard."""
        code = getattr(reason.value, "exitCode", None)
        signum = getattr(reason.value, "signal", None)
        self._finish(
            End(
                code=code,
                signal=signum,
                seconds=self._age(),
                missing=code in _NOT_EXECUTABLE and not self._spoke,
            )
        )

    def _say(self, line: str, left_out: int) -> None:
        self.log.debug("child says", pid=self.pid, line=line, left_out=left_out)
