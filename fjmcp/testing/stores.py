"""
The store, in memory: transactions that run where they are asked for, or when a test lets them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Concatenate, ParamSpec, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute, succeed

from fjmcp.store import migrating
from fjmcp.store.sqlite import BLOB, READ, WRITE, in_transaction
from fjmcp.store.transactions import Cursor, Store, StoreDown, Work

P = ParamSpec("P")
T = TypeVar("T")


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
