"""
Token text, its digest, and minting.

Two types for two kinds of trust: a `TokenText` opens a door and is carried to
whom it belongs, never kept; a `Digest` is kept and compared, and opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from enum import Enum

from attrs import field, frozen


class Kind(Enum):
    """What a secret of ours is for.  The value is its prefix, so that a secret found somewhere
    it should not be (a log, a repository) names its origin."""

    ACCESS = "fja_"
    REFRESH = "fjr_"
    CODE = "fjc_"
    CLIENT_SECRET = "fjs_"
    REGISTRATION = "fjm_"
    SIGN_IN = "fji_"
    BROWSER = "fjb_"
    STATE = "fjt_"
    VERIFIER = "fjv_"
    OTHER = "fjx_"


@frozen(eq=False)
class TokenText:
    """
    A secret as it travels.

    Has no equality of its own: only digests are compared.
    """

    text: str = field(repr=False)


@frozen
class Digest:
    """
    SHA-256 of a `TokenText`.

    A fast hash is enough: the text has 256 random bits, there is nothing to guess.
    """

    value: bytes

    @property
    def short(self) -> str:
        """Eight characters for the log: enough to find its fellows, useless as a token."""
        return self.value.hex()[:8]


def mint(kind: Kind) -> TokenText:
    """A fresh secret of 256 bits (RFC 6749 §10.10 asks for 128 at least, 160 rather)."""
    return TokenText(kind.value + secrets.token_urlsafe(32))


def digest(token: TokenText) -> Digest:
    """What is kept of a token.  Any text has a digest, lone surrogates included."""
    return Digest(hashlib.sha256(token.text.encode("utf-8", "surrogatepass")).digest())


def same(a: Digest, b: Digest) -> bool:
    """Whether two digests are of one token, in constant time."""
    return hmac.compare_digest(a.value, b.value)
