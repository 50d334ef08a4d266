"""
The key file, looked at again and again, so that keys can be rotated online.

A file is looked at, not a signal waited for: whoever rotates keys need not
know the daemon's number nor be allowed to signal it.
"""

from __future__ import annotations

from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.store import holder, keys
from fjmcp.store.keys import KeySources, KeysUnusable
from fjmcp.store.vault import Vault


@define(eq=False)
class KeyWatch:
    """
    Keeps the vault's ring what the key file says, and says so in the lock file.

    :param store: the store that this process holds.
    """

    log = Logger()
    _sources: KeySources
    _vault: Vault
    _store: Path
    _clock: IReactorTime
    _seen: object = field(factory=object, init=False)
    _since: float = field(default=0.0, init=False)
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self.look)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Say what is known, then look every `limits.KEY_WATCH`."""
        # The file may have changed since it was read, so what was read is not taken for seen.
        self._announce()
        if self._sources.path is not None:
            self._loop.start(limits.KEY_WATCH, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Take in a changed file.  Does not raise: the ring that is there goes on sealing."""
        path = self._sources.path
        if path is None:
            return
        with self.log.failuresHandled("while looking at the key file {path}", path=str(path)):
            seen = _state(path)
            if seen != self._seen:
                self._seen = seen
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        try:
            ring = keys.find(self._sources)
        except KeysUnusable as error:
            self.log.error("the key file is not taken in: {problem}", problem=str(error))
            return
        if ring is None:
            self.log.error(
                "the key file {path} is gone; put it back before this daemon ends, or everybody"
                " will have to sign in again",
                path=str(path),
            )
            return
        before = self._vault.ring
        self._vault.adopt(ring)
        if before.current != ring.current:
            self._since = self._clock.seconds()
        if (before.current, before.ids) != (ring.current, self._vault.ring.ids):
            self.log.info(
                "keys taken in", current=ring.current.hex(), keys=sorted(k.hex() for k in ring.ids)
            )
        self._announce()

    def _announce(self) -> None:
        try:
            holder.announce(self._store, self._sources.words, self._vault.ring, self._since)
        except OSError as error:
            self.log.warn(
                "fjmcp keys cannot see which keys this daemon has: {problem}", problem=str(error)
            )


def _state(path: Path) -> object:
    """What changes whenever the file does; None if it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
