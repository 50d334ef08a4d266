"""
Scopes as Forgejo judges them: by a fixed list, and failing open (§0.2, §3.5).
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

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

KNOWN: Final = frozenset(
    {"all", "public-only"} | {f"{verb}:{c}" for verb in ("read", "write") for c in CATEGORIES}
)
"""The words that count at the API.  All else is dropped in silence, the four
of OpenID, `sudo`, and whole comma-separated lists among them."""


@frozen
class Effective:
    """What a grant's requested string comes to at the API."""

    words: frozenset[str]

    def permits(self, need: str) -> bool:
        """Whether `read:x` or `write:x` is covered; `write:` implies `read:`."""
        verb, _, category = need.partition(":")
        covering = {"all", need} | ({f"write:{category}"} if verb == "read" else set())
        return not self.words.isdisjoint(covering)

    @property
    def public_only(self) -> bool:
        """Whether private things are out of reach whatever else is granted."""
        return "public-only" in self.words


def effective(requested: str) -> Effective:
    """With no valid word left it is `all`, an administrator's reach included."""
    return Effective(frozenset(requested.split(" ")) & KNOWN or frozenset({"all"}))
