"""
Our three words of scope (design D17).

`forge:write` includes `forge:read`; `offline_access` gives no right, it is
echoed.  A client is never turned away at authorization for its words: unknown
ones are dropped, and where none of ours is left it gets both.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from fjmcp.refusals import SCOPE_WIDENED, OAuthRefusal

READ: Final = "forge:read"
WRITE: Final = "forge:write"
OFFLINE: Final = "offline_access"

_CANONICAL: Final = (READ, WRITE, OFFLINE)


@frozen
class Scopes:
    """A set of our words in which `forge:write` never stands without `forge:read`."""

    words: frozenset[str]

    @classmethod
    def parse(cls, text: str | None) -> Scopes:
        """What a client asks for in its words, or in none."""
        asked = _ours(text)
        # RFC 6749 §3.3: without a scope the server processes the request "using a pre-defined
        # default value" or fails it.
        return cls(asked if asked - {OFFLINE} else asked | {READ, WRITE})

    @classmethod
    def granted(cls, asked: Scopes) -> Scopes:
        """
        What a grant for `asked` holds: both words, `offline_access` echoed.

        Reading only is a promise that nothing in front of the forge can keep while the child
        has a token of the account.
        """
        return cls(frozenset({READ, WRITE}) | (asked.words & {OFFLINE}))

    def covers(self, other: Scopes) -> bool:
        """Whether every right of `other` is among these; `offline_access` is no right."""
        return other.words - {OFFLINE} <= self.words

    def __str__(self) -> str:
        """Space-separated, always in the same order (RFC 6749 §3.3: the order says nothing)."""
        return " ".join(word for word in _CANONICAL if word in self.words)


BOTH: Final = Scopes(frozenset({READ, WRITE}))
"""All rights that there are; what the 401 challenge names."""


def narrow_refresh(held: Scopes, asked_text: str | None) -> Scopes | OAuthRefusal:
    """
    What a refresh asks for, of a grant that holds `held`; never more than that.

    Nothing asked, or nothing of ours, asks for all of it.
    """
    asked = Scopes(_ours(asked_text))
    # RFC 6749 §6: the scope "MUST NOT include any scope not originally granted by the
    # resource owner, and if omitted is treated as equal to the scope originally granted".
    if not held.covers(asked):
        return SCOPE_WIDENED
    rights = asked.words - {OFFLINE}
    return Scopes(rights | (held.words & {OFFLINE})) if rights else held


def _ours(text: str | None) -> frozenset[str]:
    words = frozenset((text or "").split()) & frozenset(_CANONICAL)
    return words | {READ} if WRITE in words else words
