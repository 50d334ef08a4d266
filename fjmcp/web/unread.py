"""
How much waits for readers that are slow, and for whom.

A reader may take its time over one message of any size, so whoever has many
readers may fill the memory, with answers that nobody reads.  All that waits
counts, the message being written too, for the account whose reader it is.  Past
a bound the readers that have most to take are cut: what that account does
otherwise, and everybody else, goes on.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.tally import Seldom


class Reader(Protocol):
    """Somebody for whom something may wait: an `Outlet`."""

    @property
    def left(self) -> int:
        """Bytes that it has yet to take."""

    def cut(self) -> None:
        """End it, so that nothing waits any more."""


@define(eq=False)
class Unread:
    """Bytes that wait, by account and reader."""

    log = Logger()
    _clock: IReactorTime
    _readers: dict[int, dict[Reader, int]] = field(factory=dict, init=False)
    _held: dict[int, int] = field(factory=dict, init=False)
    _all: int = field(default=0, init=False)
    _told: Seldom = field(factory=lambda: Seldom(limits.METERED), init=False)

    def __len__(self) -> int:
        return self._all

    def count(self, whose: int, reader: Reader, size: int) -> None:
        """
        So much waits for a reader of an account now.

        If that is too much some are cut, which may be this one.
        """
        if self._note(whose, reader, size) > 0:
            while self._held.get(whose, 0) > limits.UNREAD_OF_ACCOUNT:
                self._cut(whose)
            while self._all > limits.UNREAD:
                self._cut(max(self._held, key=self._held.__getitem__))

    def _note(self, whose: int, reader: Reader, size: int) -> int:
        """Count; how much more it is than before."""
        readers = self._readers.setdefault(whose, {})
        more = size - readers.pop(reader, 0)
        if size:
            readers[reader] = size
        self._all += more
        self._held[whose] = self._held.get(whose, 0) + more
        if not readers:
            del self._readers[whose], self._held[whose]
        return more

    def _cut(self, whose: int) -> None:
        readers = self._readers[whose]
        # Not by what it holds: one that has taken all but the end of a large answer goes on.
        reader = max(readers, key=lambda reader: reader.left)
        if self._told.may_say(str(whose), self._clock.seconds()):
            self.log.warn(
                "too much waits for slow readers, some are cut",
                account=whose,
                readers=len(readers),
                bytes=self._held[whose],
                all=self._all,
            )
        # First, so that it ends here whatever the reader does.
        self._note(whose, reader, 0)
        reader.cut()
