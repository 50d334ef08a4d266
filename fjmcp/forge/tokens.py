"""
Forgejo's tokens: a token, a pair of them, and what keeps them out of logs.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, Self

import msgspec
from attrs import field, frozen

from fjmcp import limits


@frozen
class Claims:
    """
    What is written in a token of Forgejo, where it can be read.

    Not verified and no proof of anything: the names of Forgejo's grant and its
    counter, and times in epoch seconds.
    """

    grant: int | None = None
    count: int | None = None
    issued_at: float | None = None
    expires_at: float | None = None


@frozen(eq=False)
class ForgeToken:
    """An access or refresh token of Forgejo.  Opens a person's account."""

    text: str = field(repr=False)

    def claims(self) -> Claims:
        """The claims of the JWT (`gnt`, `cnt`, `iat`, `exp`); empty if it is none."""
        parts = self.text.split(".")
        if len(parts) != 3:
            return Claims()
        try:
            said = msgspec.json.decode(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (ValueError, RecursionError):  # which all of their errors are
            return Claims()
        if not isinstance(said, dict):
            return Claims()
        return Claims(
            _whole_number(said.get("gnt")),
            _whole_number(said.get("cnt")),
            _seconds(said.get("iat")),
            _seconds(said.get("exp")),
        )


@frozen(eq=False)
class Pair:
    """
    An access token and the refresh token that came with it.

    `expires_in`: seconds, as Forgejo said.  Times are epoch seconds.
    """

    access: ForgeToken
    refresh: ForgeToken
    expires_in: float
    asked_at: float
    received_at: float

    @property
    def expires_at(self) -> float:
        """End of the access token; counted from the question, to be on the safe side."""
        return self.asked_at + self.expires_in

    @classmethod
    def read(
        cls,
        said: Mapping[str, Any],
        asked_at: float,
        received_at: float,
        spent: ForgeToken | None = None,
    ) -> Pair | None:
        """
        The pair in a token response (RFC 6749 §5.1); None if there is none in it.

        A refresh may give no new refresh token (§6): then `spent` goes on.
        """
        access = _token(said.get("access_token"))
        refresh = _token(said.get("refresh_token")) or spent
        if access is None or refresh is None:
            return None
        expires_in = _seconds(said.get("expires_in"))
        if expires_in is None or expires_in <= 0:
            expires_in = _life(access.claims())
        return cls(access, refresh, expires_in, asked_at, received_at)

    def to_bytes(self) -> bytes:
        """For the vault."""
        return msgspec.json.encode(
            [
                self.access.text,
                self.refresh.text,
                self.expires_in,
                self.asked_at,
                self.received_at,
            ]
        )

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """What `to_bytes` made."""
        access, refresh, expires_in, asked_at, received_at = msgspec.json.decode(text)
        return cls(ForgeToken(access), ForgeToken(refresh), expires_in, asked_at, received_at)


_SECRET: Final = re.compile(
    r"eyJ[\w-]+(?:\.[\w-]*){0,2}"  # JWTs
    r"|\bgt[a-z]_\w+"  # codes and client secrets
    r"|\b[0-9a-f]{40}\b"  # personal access tokens
)

_SECRET_LENGTH: Final = 6
"""What is shorter is no secret, and stands in many a word."""

_ODD: Final = re.compile(r"[^\x20-\x7e\xa0-\u2027\u2030-\u2065\u2070-\ufeff]+")
"""Controls, line ends and what turns writing round."""


def scrub(text: str, *secrets: str) -> str:
    """
    A text of Forgejo's, fit for the log: no secret, no control, no flood.

    Forgejo repeats a refused token in its answer; `secrets` are those that it
    may have seen.
    """
    for secret in secrets:
        if len(secret) >= _SECRET_LENGTH:
            text = text.replace(secret, "[token]")
    text = _ODD.sub(" ", _SECRET.sub("[token]", text))
    return text if len(text) <= limits.FORGE_ERROR else text[: limits.FORGE_ERROR] + "…"


def _token(said: object) -> ForgeToken | None:
    # It goes into a header and an environment: visible ASCII only.
    if not isinstance(said, str) or not 0 < len(said) <= limits.FORGE_TOKEN_LENGTH:
        return None
    return ForgeToken(said) if re.fullmatch(r"[\x21-\x7e]+", said) else None


def _life(claims: Claims) -> float:
    if claims.issued_at is not None and claims.expires_at is not None:
        life = claims.expires_at - claims.issued_at
        if life > 0:
            return life
    return limits.FORGE_TOKEN_LIFE


def _whole_number(said: object) -> int | None:
    # A column of 64 bits takes it.
    return said if type(said) is int and 0 <= said < 2**63 else None


def _seconds(said: object) -> float | None:
    if isinstance(said, bool) or not isinstance(said, (int, float)):
        return None
    # Past the year 5138 it is no time.
    return float(said) if isfinite(said) and 0 <= said < 1e11 else None
