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
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen
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


@frozen
class Ring:
    """
    The keys that open, and the one that seals.

    As text: one `<8 hex digits> <base64 of 32 bytes>` a line; the last line is
    the current key; empty lines and lines that begin with `#` are skipped.
    """

    _keys: Mapping[bytes, bytes] = field(repr=False)
    current: bytes
    """The id of the key that seals."""

    @classmethod
    def generate(cls) -> Ring:
        """A ring of one fresh key."""
        key_id = os.urandom(KEY_ID_LENGTH)
        return cls({key_id: ChaCha20Poly1305.generate_key()}, key_id)

    @classmethod
    def parse(cls, text: str) -> Ring:
        """The ring that `text` holds.  Raises `BadRing`."""
        keys: dict[bytes, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key_id, key = _parse_line(line, number)
            if key_id in keys:
                raise BadRing(f"line {number}: the key id {key_id.hex()} is there twice")
            keys[key_id] = key
        if not keys:
            raise BadRing("it holds no key")
        return cls(keys, list(keys)[-1])

    def to_text(self) -> str:
        """The text that `parse` reads.  It is the secret itself."""
        return "".join(
            f"{key_id.hex()} {b64encode(key).decode()}\n" for key_id, key in self._keys.items()
        )

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


def key_id(sealed: bytes) -> bytes:
    """The id of the key that sealed `sealed`."""
    return sealed[len(VERSION) : HEAD_LENGTH]


def _parse_line(line: str, number: int) -> tuple[bytes, bytes]:
    words = line.split()
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
    return found, key
