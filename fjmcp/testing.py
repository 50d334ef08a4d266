"""
Doubles for tests: the same interfaces, in memory, stepped by a Clock.

A test builds what it needs from here and never from a patch.
"""

from __future__ import annotations

import sqlite3
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute, fail, succeed

from fjmcp.store import migrating
from fjmcp.store.transactions import BLOB, READ, WRITE, Store, StoreDown, Work, in_transaction

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
        if self.closed:
            return fail(StoreDown("the store is closed"))
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
