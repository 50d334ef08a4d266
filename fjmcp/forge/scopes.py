"""
Forgejo's scopes: its fixed list, and what `all` means.

They fail open.  A request in which Forgejo finds no API scope that it knows
(none at all, only those of OpenID Connect, misspelt or separated by commas)
gets `all`, administration included.  Introspection repeats the string that was
asked for, not what it came to, so it is judged here by the same list.
"""

from __future__ import annotations

from difflib import get_close_matches
from enum import Enum
from typing import Final, Literal

from attrs import frozen

OIDC: Final = frozenset({"openid", "profile", "email", "groups"})
"""Scopes of OpenID Connect.  They open nothing of the API."""

CATEGORIES: Final = (
    "activitypub",
    "admin",
    "misc",
    "notification",
    "organization",
    "package",
    "issue",
    "repository",
    "user",
)

API: Final = frozenset(
    {f"{verb}:{category}" for verb in ("read", "write") for category in CATEGORIES}
    | {"all", "public-only"}
)
"""Every scope that Forgejo's API knows.  (`sudo` is ignored by Forgejo.)"""

DEFAULT: Final = (
    "openid profile read:user write:repository write:issue read:organization write:notification"
)
"""Enough for 128 of forgejo-mcp's 141 tools.  `write:user` is left out: it can
add SSH keys, e-mail addresses and OAuth applications."""


class Everything(Enum):
    """The type of `ALL`."""

    ALL = "all"


ALL: Final = Everything.ALL
"""Every right of the account."""

_LIMITS: Final = frozenset({"public-only"})

Effective = frozenset[str] | Literal[Everything.ALL]


def validate(configured: str) -> list[str]:
    """What is wrong with the scopes that an operator configured, as sentences."""
    if "," in configured:
        return ["Scopes are separated by spaces; with commas Forgejo grants everything."]
    words = configured.split()
    problems = [_unknown(word) for word in words if word not in OIDC | API]
    api = API.intersection(words)
    if not api:
        problems.append(
            "No API scope is named, and then Forgejo grants everything. Name at least one, such"
            " as read:repository."
        )
    elif api == {"public-only"}:
        problems.append(
            "public-only alone opens nothing, not even what is public. Add a scope such as"
            " read:repository."
        )
    return problems


def effective(granted: str) -> Effective:
    """
    What a granted scope string opens of the API; `write:x` includes `read:x`.

    `granted` is split as Forgejo splits it, at single spaces.
    """
    api = API.intersection(granted.split(" "))
    if not api or "all" in api:
        return ALL
    return api | {f"read:{word[6:]}" for word in api if word.startswith("write:")}


@frozen
class Judged:
    """
    How a granted scope string compares with the configured one (design D11).

    `public-only` counts the other way round, since it takes rights away.
    """

    too_wide: bool
    """It opens everything, and that was not configured."""
    missing: frozenset[str]
    """Configured, not granted: Forgejo keeps the scope of a grant that is older
    than the setting until the person revokes it."""
    extra: frozenset[str]
    """Granted, not configured; likewise."""


def judge(granted: str, configured: str) -> Judged:
    """Compare what introspection says of a token with what we ask for."""
    has, wants = effective(granted), effective(" ".join(configured.split()))
    if has is ALL:
        return Judged(wants is not ALL, frozenset(), frozenset())
    if wants is ALL:
        return Judged(False, frozenset({"all"}), frozenset())
    missing, extra = wants - has, has - wants
    return Judged(
        False,
        (missing - _LIMITS) | (extra & _LIMITS),
        (extra - _LIMITS) | (missing & _LIMITS),
    )


def _unknown(word: str) -> str:
    near = get_close_matches(word, sorted(OIDC | API), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{word!r} is no scope of Forgejo.{hint}"
