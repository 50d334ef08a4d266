"""
Where the key ring comes from.

The first of: the file of `--key-file`; the systemd credential `fjmcp.keys`;
the text in `FJMCP_KEYS`; the default file beside the store.
The default file is made (0600) when it is missing and the store holds nothing
sealed.  If the store does hold something, a fresh key would lock everybody
out without a word: then the missing file is an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Final

from attrs import field, frozen
from twisted.logger import Logger

from fjmcp.store.queries import sealed
from fjmcp.store.transactions import Store
from fjmcp.store.vault import BadRing, Ring

CREDENTIAL: Final = "fjmcp.keys"
"""The name of the systemd credential (`LoadCredential=fjmcp.keys:/path`)."""

log = Logger()


class KeysUnusable(Exception):
    """
    There is no ring to work with.  The text is a sentence for whoever runs the
    daemon: it names the file or variable and what to do, and holds no key.
    """


@frozen
class KeySources:
    """Where to look, strongest first; None where that source was not given."""

    file: Path | None = None
    credential: Path | None = None
    text: str | None = field(default=None, repr=False)
    default: Path | None = None
    """Made if it is missing; None for a store that is not a file."""

    @classmethod
    def gather(
        cls, key_file: Path | None, environ: Mapping[str, str], store: Path | None
    ) -> KeySources:
        """The sources that the option, the environment and the store's path name."""
        credentials = environ.get("CREDENTIALS_DIRECTORY")
        credential = Path(credentials) / CREDENTIAL if credentials else None
        return cls(
            file=key_file,
            credential=credential if credential is not None and credential.exists() else None,
            text=environ.get("FJMCP_KEYS") or None,
            default=store.with_suffix(".keys") if store is not None else None,
        )

    @property
    def path(self) -> Path | None:
        """The file that holds the ring, or will; None if no file does."""
        if self.file is None and self.credential is None and self.text is not None:
            return None
        return self.file or self.credential or self.default

    @property
    def words(self) -> str:
        """Where the ring comes from, for people."""
        return "FJMCP_KEYS" if self.path is None else str(self.path.resolve())


def find(sources: KeySources) -> Ring | None:
    """
    The ring of the strongest source; None if only the default file is left and
    it is missing.  Raises `KeysUnusable`.
    """
    if sources.file is not None:
        check_private(sources.file)
        return _read(sources.file)
    if sources.credential is not None:
        # systemd guards the folder; the file's own mode says nothing.
        return _read(sources.credential)
    if sources.text is not None:
        return _parse(sources.text, "FJMCP_KEYS")
    if sources.default is None:
        raise KeysUnusable(
            "There is no key to seal credentials with. Name a key file with --key-file."
        )
    if not sources.default.exists():
        return None
    check_private(sources.default)
    return _read(sources.default)


async def load(sources: KeySources, store: Store) -> Ring:
    """
    The ring to work with, made if it may be.

    Raises `KeysUnusable`, or `StoreDown` if the store cannot be asked.
    """
    ring = find(sources)
    used = await store.read(sealed.key_ids)
    if ring is None:
        path = sources.default
        assert path is not None, "find raises without a default"
        if used:
            raise KeysUnusable(
                f"The key file {path} is missing, and the store holds credentials sealed with a key"
                " of it. Put the file back, or name it with --key-file. If it is lost for good,"
                " remove the store; then everybody signs in again."
            )
        ring = create(path)
    for lost in sorted(used - ring.ids):
        log.warn(
            "the store holds credentials sealed with key {key_id}, which is not in the key ring;"
            " their owners will have to sign in again",
            key_id=lost.hex(),
        )
    return ring


def create(path: Path) -> Ring:
    """
    Make `path` with one fresh key, whole or not at all, readable by us alone.

    If another process makes it first, the answer is that one's ring.
    Raises `KeysUnusable`.
    """
    ring = Ring.generate()
    part = path.with_name(f"{path.name}.{token_hex(4)}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(ring.to_text())
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link never replaces a key that is there.
            os.link(part, path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        check_private(path)
        return _read(path)
    except OSError as error:
        raise KeysUnusable(f"The key file {path} cannot be made: {error}.") from error
    log.info("key file {path} made; keep a copy of it apart from the store", path=str(path))
    return ring


def sync_folder(folder: Path) -> None:
    # Without it a power cut may keep the store's rows and lose the key's name.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_private(path: Path) -> None:
    """Refuse a file that others can read or change.  Raises `KeysUnusable`."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KeysUnusable(f"The key file {path} cannot be read: {error}.") from error
    # The group may read: a file of root's, given to the daemon by its group.
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeysUnusable(
            f"The key file {path} is open to others (mode {stat.S_IMODE(mode):04o})."
            f" Make it private: chmod 600 {path}"
        )


def _read(path: Path) -> Ring:
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        # What could not be decoded may be part of a key: not in the message.
        said = error if isinstance(error, OSError) else "it is not plain text"
        raise KeysUnusable(f"The key file {path} cannot be read: {said}.") from None
    return _parse(text, f"the key file {path}")


def _parse(text: str, where: str) -> Ring:
    try:
        return Ring.parse(text)
    except BadRing as error:
        raise KeysUnusable(f"{where[0].upper()}{where[1:]} is not a key ring: {error}.") from None
