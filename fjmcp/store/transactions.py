"""
The seam between coroutines and a database: one transaction is one hop.

`Store.write` and `Store.read` take a plain function `(cursor, ...) -> value`
to the thread that owns a connection, run it between BEGIN and COMMIT there,
and bring its value back.  An exception out of the function rolls everything
back and comes out of the `await`.
Cancelling the `await` does not stop the hop: it commits all the same.

What a database has to be for it is a `Lane`; `fjmcp.store.sqlite` has the one
that there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, gatherResults

P = ParamSpec("P")
T = TypeVar("T")


class StoreDown(Exception):
    """
    The store cannot be used just now: locked for too long, disk full, a file
    system error, closed.  Nothing of the transaction was kept; a later one may
    work.  The boundary type: `web` answers it with 503 and Retry-After.
    """


class StoreUnusable(Exception):
    """
    The store cannot be opened, and somebody has to do something about it.
    The text is a sentence for that person and names the file.
    """


class Cursor(Protocol):
    """What a query gets: one transaction on one connection.  Parameters are `?`."""

    def execute(self, sql: str, *params: object) -> None:
        """Run a statement for its effect."""

    def one(self, sql: str, *params: object) -> tuple[Any, ...] | None:
        """Run a statement; its first row, or None if it has none."""

    def many(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """Run a statement; all of its rows."""


Work = Callable[[Cursor], T]


class Lane(Protocol):
    """Where transactions run one after another."""

    def run(self, work: Work[T]) -> Deferred[T]:
        """`work` in a transaction of its own; fails with `StoreDown` when it could not run."""

    def commits_elsewhere(self) -> Deferred[int]:
        """
        A number that is another one once somebody else has committed since it was asked for.

        Somebody else is whoever does it through another connection.  No transaction is
        opened for it.  Fails with `StoreDown`.
        """

    def close(self) -> Deferred[None]:
        """Finish what was asked for, then take no more."""


@define
class Store:
    """The rows, through a lane that writes and a lane that reads."""

    _writer: Lane
    _reader: Lane

    async def write(
        self, work: Callable[Concatenate[Cursor, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """
        Run `work(cursor, *args, **kw)` in a transaction that may write.

        Transactions that write run strictly one after another.
        Raises `StoreDown`, or what `work` raised.
        """
        return await self._writer.run(lambda cursor: work(cursor, *args, **kw))

    async def read(
        self, work: Callable[Concatenate[Cursor, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """
        Run `work(cursor, *args, **kw)` on one state of the rows, without writing.

        It sees every write whose `await` has ended.
        Raises `StoreDown`, or what `work` raised.
        """
        return await self._reader.run(lambda cursor: work(cursor, *args, **kw))

    async def commits_elsewhere(self) -> int:
        """
        A number that is another one once another process has committed since it was asked for.

        It says that something has changed, not what, nor how often.  What is written
        through this store does not change it.  It takes no lock and waits for none, only
        for its turn among the writes.
        Raises `StoreDown`.
        """
        # The writer's: for the reader, what the writer commits comes from elsewhere too.
        return await self._writer.commits_elsewhere()

    async def close(self) -> None:
        """Wait for the transactions under way, then let go of the database; once is enough."""
        await gatherResults([self._writer.close(), self._reader.close()])
