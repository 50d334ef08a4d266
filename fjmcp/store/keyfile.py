"""
The key file, changed while daemons read it.

It is replaced whole, so that whoever reads it sees the old ring or the new.
Owner, group, mode and remarks stay.  A key leaves it only by `prune`: a lost
key is lost sign-ins.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Final

from attrs import field, frozen

from fjmcp.store.keys import KeysUnusable, check_private, sync_folder
from fjmcp.store.vault import BadRing, Ring, is_remark

_LARGEST: Final = 1024 * 1024
"""Bytes of a key file that are read; a thousand keys have some 60 KB."""


def _resolved(path: Path) -> Path:
    return path.resolve()


@frozen
class KeyFile:
    """A key file that exists.  Everything here raises `KeysUnusable` for trouble with it."""

    # Where it is a link, what it leads to is replaced.
    path: Path = field(converter=_resolved)

    def read(self) -> Ring:
        """The ring in it."""
        return self._read()[0]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other tools from changing it: two rotations at once would lose a key."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KeysUnusable(f"The folder of {self.path} cannot be opened: {error}.") from error
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise KeysUnusable(
                    f"Another fjmcp keys command is at work on {self.path}. Let it end first."
                ) from None
            yield
        finally:
            os.close(folder)

    def replace(self, old: Ring, new: Ring) -> Ring:
        """Write `new` where `old` stands; answers `new`, as it is read back."""
        found, text = self._read()
        if found != old:
            raise KeysUnusable(
                f"The key file {self.path} was changed by somebody else meanwhile. Run this again."
            )
        spelt = _respelt(text, new)
        if Ring.parse(spelt) != new:
            raise AssertionError("the key file would not say what it should")
        try:
            self._write(spelt)
        except OSError as error:
            raise KeysUnusable(f"The key file {self.path} cannot be written: {error}.") from error
        return new

    def _read(self) -> tuple[Ring, str]:
        check_private(self.path)
        try:
            with self.path.open("rb") as file:
                text = file.read(_LARGEST).decode("ascii")
            return Ring.parse(text), text
        except (OSError, BadRing) as error:
            raise KeysUnusable(f"The key file {self.path} cannot be used: {error}.") from None
        except UnicodeDecodeError:
            raise KeysUnusable(f"The key file {self.path} is not plain text.") from None

    def _write(self, text: str) -> None:
        was = self.path.stat()
        part = self.path.with_name(f"{self.path.name}.{token_hex(4)}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, was.st_uid, was.st_gid)
                os.fchmod(descriptor, was.st_mode & 0o777)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.path.parent)


def _respelt(text: str, ring: Ring) -> str:
    """The text of a key file, with the keys of `ring` and the remarks that it had."""
    missing = {key_id.hex(): key_id for key_id in ring.ids}
    lines = []
    for line in text.splitlines():
        if is_remark(line):
            lines.append(line)
            continue
        key_id = missing.pop(line.split()[0].lower(), None)
        if key_id is not None:
            lines.append(ring.line(key_id))
    # The next key goes last, and stays there when it becomes the current one.
    lines += [ring.line(key_id) for key_id in missing.values()]
    return "".join(f"{line}\n" for line in lines)
