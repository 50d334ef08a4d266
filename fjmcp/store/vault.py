"""
Sealing: secrets that must be given back, unreadable without the key ring.

A sealed value is `version (1) | key id (4) | nonce (12) | ciphertext and tag`,
ChaCha20-Poly1305 (RFC 8439).  It is bound to the place it stands in, written
`table.column:key`; elsewhere it does not open, so rows cannot be swapped.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from attrs import define, evolve, field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

VERSION: Final = b"\x01"
KEY_ID_LENGTH: Final = 4
KEY_LENGTH: Final = 32
NONCE_LENGTH: Final = 12
HEAD_LENGTH: Final = len(VERSION) + KEY_ID_LENGTH


class BadRing(ValueError):
    """The text is not a key ring.  The message names the line, never a key."""


class Unsealable(Exception):
    """
    A sealed value does not open: its key is not in the ring, it was sealed for
    another place, or it was changed.  To its owner it is lost.
    """


class Sealing(Protocol):
    """What seals and opens: a ring, or a vault whose ring changes."""

    def seal(self, secret: bytes, bound: str) -> bytes:
        """`secret`, sealed for the place `bound`."""

    def open(self, sealed: bytes, bound: str) -> bytes:
        """What was sealed for the place `bound`.  Raises `Unsealable`."""


NEXT: Final = "next"
ROTATING: Final = "rotating"


@frozen
class Ring:
    """
    The keys that open, and the one that seals.

    As text: one `<8 hex digits> <base64 of 32 bytes>` a line; the last line is
    the current key; empty lines and lines that begin with `#` are skipped.
    While keys are rotated (`fjmcp.store.rotation`) a line ends with `next`: a
    key that opens and will be the current one; or with `rotating`: the current
    key, while rows are sealed anew with it.
    """

    _keys: Mapping[bytes, bytes] = field(repr=False)
    current: bytes
    """The id of the key that seals."""
    upcoming: bytes | None = None
    """The id of the key that will."""
    rotating: bool = False
    """Whether rows are being sealed anew."""

    @classmethod
    def generate(cls) -> Ring:
        """A ring of one fresh key."""
        key_id = os.urandom(KEY_ID_LENGTH)
        return cls({key_id: ChaCha20Poly1305.generate_key()}, key_id)

    @classmethod
    def parse(cls, text: str) -> Ring:
        """The ring that `text` holds.  Raises `BadRing`."""
        keys: dict[bytes, bytes] = {}
        current = upcoming = None
        rotating = False
        for number, line in enumerate(text.splitlines(), 1):
            if is_remark(line):
                continue
            key_id, key, mark = _parse_line(line, number)
            if key_id in keys:
                raise BadRing(f"line {number}: the key id {key_id.hex()} is there twice")
            keys[key_id] = key
            if mark == NEXT and upcoming is not None:
                raise BadRing(f"line {number}: two keys cannot both be next")
            if mark == NEXT:
                upcoming = key_id
            else:
                current, rotating = key_id, mark == ROTATING
        if current is None:
            raise BadRing("it holds no key" + (" that seals" if keys else ""))
        return cls(keys, current, upcoming, rotating)

    def to_text(self) -> str:
        """The text that `parse` reads.  It is the secret itself."""
        # The current key is the last but for the next one, wherever they stood.
        last = [self.current, *([] if self.upcoming is None else [self.upcoming])]
        order = [key_id for key_id in self._keys if key_id not in last] + last
        return "".join(f"{self.line(key_id)}\n" for key_id in order)

    def line(self, key_id: bytes) -> str:
        """The line of one key."""
        mark = f" {NEXT}" if key_id == self.upcoming else ""
        if self.rotating and key_id == self.current:
            mark = f" {ROTATING}"
        return f"{key_id.hex()} {b64encode(self._keys[key_id]).decode()}{mark}"

    def with_next(self) -> Ring:
        """This ring and a fresh key, which opens and does not seal yet."""
        key_id = os.urandom(KEY_ID_LENGTH)
        while key_id in self._keys:
            key_id = os.urandom(KEY_ID_LENGTH)
        keys = {**self._keys, key_id: ChaCha20Poly1305.generate_key()}
        return Ring(keys, self.current, key_id, self.rotating)

    def promoted(self) -> Ring:
        """The next key seals, and rows have to follow."""
        assert self.upcoming is not None
        return evolve(self, current=self.upcoming, upcoming=None, rotating=True)

    def settled(self) -> Ring:
        """The rows have followed."""
        return evolve(self, rotating=False)

    def without(self, ids: Iterable[bytes]) -> Ring:
        """Fewer keys; neither the current nor the next goes."""
        gone = set(ids) - {self.current, self.upcoming}
        return evolve(
            self, keys={each: key for each, key in self._keys.items() if each not in gone}
        )

    def opening(self, other: Ring) -> Ring:
        """This ring, which opens what `other` opens too."""
        return evolve(self, keys={**other._keys, **self._keys})

    @property
    def ids(self) -> frozenset[bytes]:
        """The ids of all keys in the ring."""
        return frozenset(self._keys)

    def seal(self, secret: bytes, bound: str) -> bytes:
        """`secret`, sealed with the current key for the place `bound`."""
        head, nonce = VERSION + self.current, os.urandom(NONCE_LENGTH)
        cipher = ChaCha20Poly1305(self._keys[self.current])
        return head + nonce + cipher.encrypt(nonce, secret, head + bound.encode())

    def open(self, sealed: bytes, bound: str) -> bytes:
        """What was sealed for the place `bound`.  Raises `Unsealable`."""
        head, rest = sealed[:HEAD_LENGTH], sealed[HEAD_LENGTH:]
        if len(head) < HEAD_LENGTH or not head.startswith(VERSION):
            raise Unsealable(f"{bound}: not a sealed value of version 1")
        key = self._keys.get(key_id(sealed))
        if key is None:
            raise Unsealable(
                f"{bound}: sealed with the key {key_id(sealed).hex()}, not in the ring"
            )
        nonce, box = rest[:NONCE_LENGTH], rest[NONCE_LENGTH:]
        try:
            return ChaCha20Poly1305(key).decrypt(nonce, box, head + bound.encode())
        except (InvalidTag, ValueError) as error:
            raise Unsealable(f"{bound}: changed, cut short, or sealed for another place") from error


@define(eq=False)
class Vault:
    """
    The ring of a process that runs, which may be replaced while it is in use.

    Any thread may seal and open.
    """

    ring: Ring = field(repr=False)

    def seal(self, secret: bytes, bound: str) -> bytes:
        """`secret`, sealed with the current key for the place `bound`."""
        return self.ring.seal(secret, bound)

    def open(self, sealed: bytes, bound: str) -> bytes:
        """What was sealed for the place `bound`.  Raises `Unsealable`."""
        return self.ring.open(sealed, bound)

    def adopt(self, ring: Ring) -> None:
        """
        Seal with this ring from now on.

        What was known goes on opening: a value that was read from its row a
        moment ago may be sealed with a key that is gone from the file.
        """
        self.ring = ring.opening(self.ring)


def is_remark(line: str) -> bool:
    """Whether a line of a key file holds no key."""
    return not line.strip() or line.lstrip().startswith("#")


def key_id(sealed: bytes) -> bytes:
    """The id of the key that sealed `sealed`."""
    return sealed[len(VERSION) : HEAD_LENGTH]


def _parse_line(line: str, number: int) -> tuple[bytes, bytes, str]:
    words = line.split()
    mark = words.pop() if len(words) == 3 and words[2] in {NEXT, ROTATING} else ""
    if len(words) != 2 or len(words[0]) != 2 * KEY_ID_LENGTH:
        raise BadRing(f"line {number}: not `<8 hex digits> <base64 of 32 bytes>`")
    try:
        found = bytes.fromhex(words[0])
    except ValueError:
        raise BadRing(f"line {number}: the key id is not 8 hex digits") from None
    try:
        key = b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise BadRing(f"line {number}: the key is not base64") from None
    if len(key) != KEY_LENGTH:
        raise BadRing(f"line {number}: the key has {len(key)} bytes, not {KEY_LENGTH}")
    return found, key, mark
