"""
A Clock that also starts children, and coroutines that wait for nothing.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from fjmcp.testing.children import FakeChild, Mind, polite

T = TypeVar("T")


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
