"""A secret taken out of what a child says (design D10)."""

from __future__ import annotations

import json
from typing import Final

from attrs import field, frozen

BLANKED: Final = b"[blanked]"
"""What stands where the secret stood; valid within a JSON string."""


@frozen
class Blank:
    """
    Takes one secret out of lines.

    It is found as it is and as JSON may write it.  Lines must be whole: a
    secret that lies across two reads is seen only in the line.
    """

    _needles: tuple[bytes, ...] = field(repr=False)

    @property
    def longest(self) -> int:
        """Bytes of the longest form: so much more of a cut line must be looked at."""
        return max(map(len, self._needles), default=0)

    def line(self, line: bytes) -> bytes:
        """The line without the secret; the same object if it was not in it."""
        for needle in self._needles:
            if needle in line:
                line = line.replace(needle, BLANKED)
        return line


def blank(secret: str) -> Blank:
    """A `Blank` for this secret; an empty one is in no line."""
    if not secret:
        return Blank(())
    # Writers of JSON differ: "/" and non-ASCII letters may be escaped or not, and
    # Go's escapes the characters of HTML.
    plain = [secret, *(json.dumps(secret, ensure_ascii=a)[1:-1] for a in (True, False))]
    slashed = [*plain, *(form.replace("/", "\\/") for form in plain)]
    forms = {*slashed, *map(_go, slashed)}
    # The longest first, so that no form leaves the rest of a longer one behind.
    return Blank(tuple(sorted((form.encode() for form in forms), key=len, reverse=True)))


def _go(text: str) -> str:
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
