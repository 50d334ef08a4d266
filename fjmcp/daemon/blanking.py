"""
Takes out of a text what looks like a secret.

The last guard before the log.  No event should hold a secret in the first
place; what arrives here all the same came in a peer's error text, a URL or a
traceback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

BLANK: Final = "…"

SECRET_NAMES: Final = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "cookie",
        "set_cookie",
        "password",
        "secret",
        "token",
        "access_token",
        "refresh_token",
        "id_token",
        "client_secret",
        "code_verifier",
        "code",
    }
)
"""Fields whose text is never shown, whatever it looks like."""

# A name of a secret, then `=` or `:`, with the quotes of JSON, forms and reprs.
# An authorization code and a state are as good as a token until they are used.
_NAMED: Final = re.compile(
    r"""(?ix) (?<![a-z0-9])
    ( (?: access_token | refresh_token | id_token | client_secret | code_verifier | password
        | code (?= = ) | state (?= = ) | authorization | (?:set-)?cookie )
      ["']? \s* [=:] \s* ["']? (?: (?:bearer | basic | token) \s+ )? )
    [^\s"'&,;<>)}\]]+"""
)
_SCHEME: Final = re.compile(r"(?i)\b((?:bearer|basic|token)\s+)[A-Za-z0-9._~+/=-]{16,}")
# Forgejo repeats a refused token in its own 401 text.
_REPEATED: Final = re.compile(r"(\[sha: )[^\]\s]*")
_SHAPED: Final = re.compile(
    r"""(?x) (?<![A-Za-z0-9])
    (?: (fj[a-z]_) [A-Za-z0-9_-]{8,}          # ours
      | (gt[a-z]_) [A-Za-z0-9]{8,}            # Forgejo's application secrets and codes
      | (eyJ) [A-Za-z0-9_-]{8,} (?: \. [A-Za-z0-9_-]* ){1,2}  # a JWT
    )"""
)
_USER_INFO: Final = re.compile(r"(://)[^/\s@\"'<>]+@")

Blanking = Callable[[str], str]


def blanking(known: Sequence[str] = ()) -> Blanking:
    """
    A function that blanks what looks like a secret, and the `known` ones.

    A known one is text of the configuration that has no shape of its own; one
    so short that it occurs in ordinary words is left alone.
    """
    exact = [text for text in known if len(text) >= 8]

    def blank(text: str) -> str:
        for secret in exact:
            text = text.replace(secret, BLANK)
        text = _SHAPED.sub(lambda m: (m[1] or m[2] or m[3]) + BLANK, text)
        text = _NAMED.sub(rf"\1{BLANK}", text)
        text = _SCHEME.sub(rf"\1{BLANK}", text)
        text = _REPEATED.sub(rf"\1{BLANK}", text)
        return _USER_INFO.sub(rf"\1{BLANK}@", text)

    return blank
