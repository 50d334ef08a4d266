"""
The stand-in's tokens: JWTs signed RS256 with a 2048-bit key (§3.4).

Claims of an access token are `gnt, tt:0, exp, iat`; of a refresh token `gnt,
tt:1, cnt, exp, iat`, without `cnt` where the counter was never moved.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from functools import cache
from hashlib import sha256
from typing import Any, Final

from attrs import define, field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

ACCESS: Final = 0
REFRESH: Final = 1

EXPIRED: Final = "token has invalid claims: token is expired"
FORGED: Final = "token signature is invalid: crypto/rsa: verification error"
SEGMENTS: Final = "token is malformed: token contains an invalid number of segments"
UNREADABLE: Final = "token is malformed: could not base64 decode header"


@frozen
class Unreadable:
    """Why a text is no token of ours: the words of Forgejo's JWT library."""

    reason: str


@frozen
class Claims:
    """What a token says: grant, kind (`tt`) and refresh counter."""

    grant: int
    kind: int
    counter: int


@define
class SigningKey:
    """The key pair of one Forgejo."""

    _private: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh pair; takes a tenth of a second."""
        return cls(rsa.generate_private_key(65537, 2048))

    @property
    def key_id(self) -> str:
        """The `kid` in headers and in the published set."""
        modulus = self._private.public_key().public_numbers().n
        return _encode(sha256(str(modulus).encode()).digest())

    def published(self) -> dict[str, Any]:
        """`/login/oauth/keys`."""
        numbers = self._private.public_key().public_numbers()
        key = {
            "alg": "RS256",
            "e": _encode(numbers.e.to_bytes(3, "big")),
            "kid": self.key_id,
            "kty": "RSA",
            "n": _encode(numbers.n.to_bytes(256, "big")),
            "use": "sig",
        }
        return {"keys": [key]}

    def sign(self, claims: dict[str, Any]) -> str:
        """A JWT of these claims."""
        header = {"alg": "RS256", "kid": self.key_id, "typ": "JWT"}
        signed = f"{_encode(_compact(header))}.{_encode(_compact(claims))}"
        signature = self._private.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_encode(signature)}"

    def access(self, grant: int, now: float, seconds: float) -> str:
        """An access token."""
        return self.sign({"gnt": grant, "tt": ACCESS, "exp": int(now + seconds), "iat": int(now)})

    def refresh(self, grant: int, counter: int, now: float, seconds: float) -> str:
        """A refresh token."""
        count = {"cnt": counter} if counter else {}
        times = {"exp": int(now + seconds), "iat": int(now)}
        return self.sign({"gnt": grant, "tt": REFRESH, **count, **times})

    def read(self, text: str, now: float) -> Claims | Unreadable:
        """Check form, signature and expiry, in that order as the library does."""
        parts = text.split(".")
        if len(parts) != 3:
            return Unreadable(SEGMENTS)
        try:
            header = json.loads(_decode(parts[0]))
            claims = json.loads(_decode(parts[1]))
            signature = _decode(parts[2])
        except (Base64Error, ValueError):
            return Unreadable(UNREADABLE)
        if not isinstance(header, dict) or not isinstance(claims, dict):
            return Unreadable(UNREADABLE)
        signed = f"{parts[0]}.{parts[1]}".encode("utf-8", "replace")
        try:
            public = self._private.public_key()
            public.verify(signature, signed, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return Unreadable(FORGED)
        if now >= claims["exp"]:
            return Unreadable(EXPIRED)
        return Claims(claims.get("gnt", 0), claims.get("tt", ACCESS), claims.get("cnt", 0))


@cache
def process_key() -> SigningKey:
    """One key for all stand-ins of a process: making one is slow."""
    return SigningKey.generate()


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
