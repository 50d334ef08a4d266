"""
Another key for everything that is sealed, while a daemon works.

::

    1  add       the new key stands in the key file as `next`: it opens, it does not seal
    2  await     until the daemon that runs, if one does, opens with it
    3  promote   it is the current one: `rotating`
    4  await     until the daemon seals with it
    5  reseal    every value that another key sealed, a batch a transaction
    6  settle    `rotating` is taken away; the old keys stay, for backups

Each step leaves a state in which everything opens for everybody, and says in
the key file how far it came.  A rotation that was broken off goes on where it
was when it is run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from fjmcp import limits
from fjmcp.store.holder import Holder
from fjmcp.store.keyfile import KeyFile
from fjmcp.store.queries import sealed
from fjmcp.store.queries.sealed import COLUMNS, Column
from fjmcp.store.transactions import Store, StoreDown
from fjmcp.store.vault import Ring

T = TypeVar("T")


class RotationStuck(Exception):
    """
    A rotation cannot go on just now; nothing is lost.  The text is a sentence
    for whoever runs it, and says what to do.
    """


@frozen
class Turned:
    """
    What a rotation came to.

    :ivar current: the id of the key that seals.
    :ivar count: values that were sealed anew.
    :ivar lost: places of values that no key opens.
    :ivar left: values that older keys still seal, the lost ones among them.
    """

    current: bytes
    count: int
    lost: tuple[str, ...]
    left: int


@define(eq=False)
class Rotation:
    """
    One rotation, from wherever the key file stands.

    :param holder: asks who holds the store.
    :param tell: is told each step, a line for people.
    :param batch: values that one transaction seals anew.
    :param pause: seconds between two of them.
    """

    _file: KeyFile
    _store: Store
    _holder: Callable[[], Holder | None]
    _clock: IReactorTime
    _tell: Callable[[str], None]
    _batch: int = limits.RESEAL_BATCH
    _pause: float = limits.RESEAL_PAUSE
    _lost: dict[str, None] = field(factory=dict, init=False)

    async def run(self) -> Turned:
        """
        Rotate, or go on with a rotation.

        :raises RotationStuck: it has to be run again.
        :raises KeysUnusable: the key file cannot be read or written.
        """
        ring = self._file.read()
        if ring.rotating:
            self._tell(f"1-3/5  going on with the key {ring.current.hex()}, the current one")
        else:
            ring = await self._next(ring)
        await self._await(
            lambda found: found.current == ring.current, "seal with", ring.current, "4/5"
        )
        count = await self._reseal(ring)
        self._file.replace(ring, ring.settled())
        left = await self._patiently(partial(self._store.read, sealed.census))
        others = sum(number for key_id, number in left.items() if key_id != ring.current)
        return Turned(ring.current, count, tuple(self._lost), others)

    async def _next(self, ring: Ring) -> Ring:
        if ring.upcoming is None:
            ring = self._file.replace(ring, ring.with_next())
            assert ring.upcoming is not None
            self._tell(f"1/5  key {ring.upcoming.hex()} added to {self._file.path}")
        else:
            self._tell(f"1/5  going on with the key {ring.upcoming.hex()}, added before")
        upcoming = ring.upcoming
        assert upcoming is not None
        await self._await(lambda found: upcoming in found.keys, "open with", upcoming, "2/5")
        ring = self._file.replace(ring, ring.promoted())
        self._tell(f"3/5  key {ring.current.hex()} is the current one")
        return ring

    async def _await(
        self, ready: Callable[[Holder], bool], what: str, key_id: bytes, step: str
    ) -> None:
        # Looked up after the file was written: a daemon that starts from here on reads
        # the file after it took the lock, so it has the key.
        give_up = self._clock.seconds() + limits.KEY_PATIENCE
        while (found := self._look()) is not None and not ready(found):
            if self._clock.seconds() >= give_up:
                raise RotationStuck(self._why(found, what, key_id))
            await deferLater(self._clock, limits.KEY_POLL)
        who = "no daemon runs" if found is None else f"the daemon (pid {found.pid}) does"
        self._tell(f"{step}  {what} {key_id.hex()}: {who}")

    def _look(self) -> Holder | None:
        try:
            return self._holder()
        except OSError as error:
            raise RotationStuck(
                f"Whether a daemon runs cannot be seen: {error}. Run this as the daemon's user or"
                " as root."
            ) from error

    def _why(self, found: Holder, what: str, key_id: bytes) -> str:
        if found.current is None:
            return "The daemon has been starting for too long. See its log, then run this again."
        remedy = (
            "See its log for what is wrong with the file, then run this again."
            if found.source == str(self._file.path)
            else f"Its keys come from {found.source}, which it reads when it starts: bring them"
            " there if that is a copy, restart it, then run this again."
        )
        return (
            f"The daemon (pid {found.pid}) does not {what} the key {key_id.hex()} in"
            f" {self._file.path}. {remedy} Nothing is lost meanwhile."
        )

    async def _reseal(self, ring: Ring) -> int:
        total = 0
        for _ in range(limits.RESEAL_PASSES):
            count = 0
            for column in COLUMNS:
                count += await self._pass(column, ring)
            total += count
            if not count:
                break
        self._tell(f"5/5  {total} values sealed anew")
        return total

    async def _pass(self, column: Column, ring: Ring) -> int:
        """Every row of a table once; what does not open is noted and passed by."""
        total, after = 0, None
        while True:
            work = partial(self._store.write, sealed.reseal, column, ring, after, self._batch)
            done = await self._patiently(work)
            total += done.count
            self._lost.update(dict.fromkeys(done.lost))
            if done.count:
                self._tell(f"     {column.table}.{column.name}: {total}")
            if done.last is None:
                return total
            after = done.last
            await deferLater(self._clock, self._pause)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """The daemon writes too, and a backup may hold the store for a while."""
        tries = 1
        while True:
            try:
                return await work()
            except StoreDown as down:
                if tries == limits.STORE_RETRIES:
                    raise RotationStuck(
                        f"The store cannot be written: {down}. Run this again when it can."
                    ) from down
            tries += 1
            await deferLater(self._clock, limits.PAIR_RETRY)
