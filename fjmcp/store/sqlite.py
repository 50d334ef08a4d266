"""
The store in a SQLite file.

One connection writes, and each of its transactions begins with BEGIN
IMMEDIATE, so that nothing changes between what a function reads and what it
writes; another connection reads and can do nothing else.  A lock beside the
file says that a daemon works on it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from fjmcp import limits
from fjmcp.store import migrating
from fjmcp.store.transactions import Lane, Store, StoreDown, StoreUnusable, Work

T = TypeVar("T")

BLOB: Final = "BLOB"

WRITE: Final = "BEGIN IMMEDIATE"
READ: Final = "BEGIN"

_BUGS: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
    }
)
"""Result codes that mean a wrong statement of ours; all others mean trouble
with the file, the disk or a lock, which can pass."""


def _is_trouble(error: sqlite3.Error, begin: str) -> bool:
    """Whether `error` comes from the world and not from a statement of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    code &= 0xFF  # the rest of it says which of the disk's errors it was
    wrote_in_read = code == sqlite3.SQLITE_READONLY and begin == READ
    return code not in _BUGS and not wrote_in_read


@define
class SqliteCursor:
    """`Cursor` on a SQLite connection."""

    _connection: sqlite3.Connection

    def execute(self, sql: str, *params: object) -> None:
        self._connection.execute(sql, params).close()

    def one(self, sql: str, *params: object) -> tuple[Any, ...] | None:
        rows = self.many(sql, *params)
        return rows[0] if rows else None

    def many(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        # All rows are fetched even for `one`: a statement with RETURNING has
        # done its work only when it was run to its end.
        return self._connection.execute(sql, params).fetchall()


def in_transaction(connection: sqlite3.Connection, begin: str, work: Work[T]) -> T:
    """
    `work` between `begin` and COMMIT; anything that it raises rolls back.

    Raises `StoreDown` for trouble with the database.
    """
    try:
        connection.execute(begin)
        try:
            value = work(SqliteCursor(connection))
            connection.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after some errors (disk full).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        if _is_trouble(error, begin):
            raise StoreDown(str(error)) from error
        raise
    return value


def _seconds(reactor: IReactorFromThreads) -> float:
    return cast(IReactorTime, reactor).seconds()


@define
class ThreadLane:
    """A connection and the one thread that uses it."""

    _reactor: IReactorFromThreads
    _connection: sqlite3.Connection
    _begin: str
    _threads: ThreadPool
    _closed: bool = field(default=False, init=False)

    @classmethod
    def start(
        cls, reactor: IReactorFromThreads, connection: sqlite3.Connection, begin: str, name: str
    ) -> ThreadLane:
        """A lane whose thread runs."""
        threads = ThreadPool(1, 1, name=name)
        # A daemon thread, so that a start that fails half-way can still exit.
        threads.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        threads.start()
        return cls(reactor, connection, begin, threads)

    def run(self, work: Work[T]) -> Deferred[T]:
        if self._closed:
            return fail(StoreDown("the store is closed"))
        asked = _seconds(self._reactor)
        return deferToThreadPool(self._reactor, self._threads, self._in_turn, asked, work)

    def _in_turn(self, asked: float, work: Work[T]) -> T:
        waited = _seconds(self._reactor) - asked
        if waited < limits.STORE_QUEUED:
            return in_transaction(self._connection, self._begin, work)
        # Those before it have waited for a lock: it must not wait for as long again.
        left = max(limits.STORE_QUEUED / 10, limits.STORE_BUSY - waited)
        self._busy(left)
        try:
            return in_transaction(self._connection, self._begin, work)
        finally:
            self._busy(limits.STORE_BUSY)

    def commits_elsewhere(self) -> Deferred[int]:
        if self._closed:
            return fail(StoreDown("the store is closed"))
        return deferToThreadPool(self._reactor, self._threads, self._data_version)

    def _data_version(self) -> int:
        try:
            # All rows: a statement that was not run to its end would hold its snapshot.
            ((version,),) = self._connection.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error as error:
            if _is_trouble(error, self._begin):
                raise StoreDown(str(error)) from error
            raise
        return int(version)

    def _busy(self, seconds: float) -> None:
        self._connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}").close()

    def close(self) -> Deferred[None]:
        if self._closed:
            return succeed(None)
        self._closed = True
        # One thread, first come first served: what was asked for runs first.
        closed = deferToThreadPool(self._reactor, self._threads, self._connection.close)
        return closed.addBoth(self._stopped)

    def _stopped(self, result: T) -> T:
        self._threads.stop()
        return result


@define
class _LockedFile(Store):
    """A store whose file no second daemon may open."""

    _lock: int | None

    async def close(self) -> None:
        lock, self._lock = self._lock, None
        try:
            await Store.close(self)
        finally:
            if lock is not None:
                os.close(lock)


log = Logger()


def open_sqlite(
    path: Path,
    reactor: IReactorFromThreads,
    *,
    alone: bool = True,
    upgrade: bool = True,
    scripts: Sequence[migrating.Script] | None = None,
    around: Callable[[str, Lane], Lane] = lambda name, lane: lane,
) -> Store:
    """
    Open the store in the SQLite file `path`, made (0600) and migrated if need be.

    `alone`: refuse while another process has it open so.  Two daemons on one
    file would each trust tokens that the other has revoked; the lock ends with
    the process, however it ends.
    `upgrade`: make the file or its schema what this code needs; without it
    they must be so already.
    `scripts`: the schema, ours by default.
    `around`: what is put between the store and its lanes, `write` and `read`.

    Raises `StoreUnusable`.
    """
    lock = _claim(path) if alone else None
    try:
        wanted = migrating.ours() if scripts is None else scripts
        writer = _prepare(path, wanted) if upgrade else _as_it_is(path, wanted)
        reader = _connect(path, "ro")
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    lanes = (
        around("write", ThreadLane.start(reactor, writer, WRITE, "store-writer")),
        around("read", ThreadLane.start(reactor, reader, READ, "store-reader")),
    )
    return Store(*lanes) if lock is None else _LockedFile(*lanes, lock)


_FLOCK: Final = struct.Struct("hhqqi")
_WHOLE: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""The lock on all of a file.  Unlike flock(2) it can be seen without being taken
for a moment, which might be the moment in which a daemon starts."""


def lock_file(path: Path) -> Path:
    """The file whose lock a daemon holds while it works on the store `path`."""
    # However the store is named: by a link to it, too.
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + ".lock")


def is_locked(descriptor: int) -> bool:
    """Whether somebody holds the lock of the lock file that is open there."""
    seen = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE)
    return bool(_FLOCK.unpack(seen)[0] != fcntl.F_UNLCK)


def _claim(path: Path) -> int:
    """The descriptor that holds the daemon's lock on `path`, a file beside it."""
    beside = lock_file(path)
    try:
        lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"The store {path} cannot be opened: {error}.") from error
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _WHOLE)
        # What stands in it is the word of whoever held it before.
        os.ftruncate(lock, 0)
    except OSError as error:
        os.close(lock)
        raise StoreUnusable(
            f"The store {path} is in use by another fjmcp daemon. Stop it, or give this one"
            " another --store."
        ) from error
    return lock


def _prepare(path: Path, scripts: Sequence[migrating.Script]) -> sqlite3.Connection:
    """The connection that writes, after the schema is as this code wants it."""
    made = False
    try:
        try:
            # SQLite would make it readable for all; -wal and -shm follow it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            made = True
        except FileExistsError:
            pass
        connection = _connect(path, "rw")
        try:
            _migrate(connection, path, scripts)
        except BaseException:
            connection.close()
            raise
    except BaseException as error:
        if made:
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
        if isinstance(error, (sqlite3.Error, OSError)):
            raise StoreUnusable(f"The store {path} cannot be opened: {error}.") from error
        raise
    return connection


def _as_it_is(path: Path, scripts: Sequence[migrating.Script]) -> sqlite3.Connection:
    """The connection that writes, to a file that is there with the schema of this code."""
    try:
        connection = _connect(path, "rw")
    except sqlite3.Error as error:
        raise StoreUnusable(f"The store {path} cannot be opened: {error}.") from error
    try:
        have = in_transaction(connection, READ, migrating.version)
        if have != len(scripts):
            raise StoreUnusable(
                f"The store {path} has the schema {have}, and this fjmcp works with {len(scripts)}."
                " The daemon upgrades it when it starts: use the tool of the fjmcp that runs."
            )
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error | StoreDown):
            raise StoreUnusable(f"The store {path} is none of fjmcp: {error}.") from error
        raise
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=limits.STORE_BUSY,
        # Opened here, used by the lane's thread alone.
        check_same_thread=False,
    )
    try:
        if mode == "ro":
            connection.execute("PRAGMA query_only=ON")
        else:
            (journal,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if journal != "wal":
                raise StoreUnusable(
                    f"The store {path} lies where SQLite cannot keep a write-ahead log (a network"
                    " file system?). Move it to a local disk."
                )
            connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(
    connection: sqlite3.Connection, path: Path, scripts: Sequence[migrating.Script]
) -> None:
    def copied(version: int) -> None:
        copy = path.with_name(f"{path.name}.before-{version:04}")
        _copy(path, copy)
        log.info("store copied before its upgrade", copy=str(copy))

    try:
        have, want = in_transaction(
            connection,
            WRITE,
            lambda cursor: migrating.upgrade(cursor, scripts, blob=BLOB, before=copied),
        )
    except migrating.TooNew as error:
        raise StoreUnusable(f"The store {path} cannot be opened: {error}") from error
    except StoreDown as error:
        raise StoreUnusable(f"The store {path} cannot be opened: {error}.") from error
    if have != want:
        log.info("store upgraded from schema {have} to {want}", have=have, want=want)


def _copy(path: Path, copy: Path) -> None:
    """What is committed in `path`, whole or not at all, as the file `copy`."""
    part = copy.with_name(copy.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    source, target = _connect(path, "ro"), sqlite3.connect(part)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    part.replace(copy)
