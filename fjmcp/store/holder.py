"""
The daemon that holds a store, and the keys that it knows.

It writes them into its lock file, so that whoever rotates keys can wait until
it has taken one in.  The lock ends with the process, and what stands in the
file counts only as long as the lock is held.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from attrs import frozen

from fjmcp.store.sqlite import is_locked, lock_file
from fjmcp.store.vault import Ring


@frozen
class Holder:
    """
    A daemon that runs.

    :ivar pid: its number, where it runs; 0 while it starts.
    :ivar source: where its keys come from, for people.
    :ivar keys: the ids of the keys that it opens with.
    :ivar current: the id of the one that it seals with; None while it starts.
    :ivar since: since when it does, in epoch seconds; 0 for its whole life.
    """

    pid: int = 0
    source: str = ""
    keys: frozenset[bytes] = frozenset()
    current: bytes | None = None
    since: float = 0.0

    def to_text(self) -> bytes:
        """For the lock file."""
        return msgspec.json.encode(
            {
                "pid": self.pid,
                "key_source": self.source,
                "keys": sorted(each.hex() for each in self.keys),
                "current": "" if self.current is None else self.current.hex(),
                "since": self.since,
            }
        )

    @classmethod
    def from_text(cls, text: bytes) -> Holder:
        """From the lock file; one that starts, if it says nothing or half of it."""
        try:
            said = msgspec.json.decode(text)
            return cls(
                said["pid"],
                said["key_source"],
                frozenset(map(bytes.fromhex, said["keys"])),
                bytes.fromhex(said["current"]) or None,
                said["since"],
            )
        except (msgspec.DecodeError, LookupError, TypeError, ValueError):
            return cls()


def announce(store: Path, source: str, ring: Ring, since: float) -> None:
    """
    Say that this process, which holds the store, has this ring.

    :raises OSError: it cannot be written.
    """
    said = Holder(os.getpid(), source, ring.ids, ring.current, since).to_text()
    descriptor = os.open(lock_file(store), os.O_WRONLY | os.O_CLOEXEC)
    try:
        # In place: a file of that name which was not locked would be believed by nobody.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, said, 0)
    finally:
        os.close(descriptor)


def holder(store: Path) -> Holder | None:
    """
    The daemon that holds a store; None if none does.

    :raises OSError: the lock file cannot be read.
    """
    try:
        descriptor = os.open(lock_file(store), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not is_locked(descriptor):
            return None
        return Holder.from_text(os.pread(descriptor, 1024 * 1024, 0))
    finally:
        os.close(descriptor)
