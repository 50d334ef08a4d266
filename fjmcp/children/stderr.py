"""
What a child says on stderr, fit for our log.

It is always read: a child whose stderr nobody reads stops at 64 KiB (132 of
400 calls of forgejo-mcp were answered).  It is logged at debug, by the line,
with the token blanked, without colours and control characters, and only so
much of it in a while.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from fjmcp import limits
from fjmcp.children.blank import Blank

_ESCAPES: Final = re.compile(
    # ECMA-48: CSI (colours, cursor), OSC (titles, links), other two-character ones.
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


@define(eq=False)
class Trickle:
    """Lets so many events of a window pass and counts the others."""

    _clock: IReactorTime
    _events: int = limits.CHILD_STDERR_LINES
    _window: float = limits.CHILD_STDERR_WINDOW
    _until: float = field(default=0.0, init=False)
    _passed: int = field(default=0, init=False)
    _held: int = field(default=0, init=False)

    def passes(self) -> bool:
        """Whether one more event may pass."""
        now = self._clock.seconds()
        # A clock that was set back must not close the window for ever.
        if not self._until - self._window <= now < self._until:
            self._until = now + self._window
            self._passed = 0
        if self._passed >= self._events:
            self._held += 1
            return False
        self._passed += 1
        return True

    def held(self) -> int:
        """How many did not pass since this was asked last."""
        held, self._held = self._held, 0
        return held


@define(eq=False)
class Stderr:
    """
    The stderr of one child.

    :ivar tail: its last lines, for whoever must say why it ended.
    """

    _blank: Blank
    _trickle: Trickle
    _log: Callable[[str, int], None]
    """Takes a line, and how many lines before it were left out."""
    tail: deque[str] = field(factory=lambda: deque(maxlen=8), init=False)
    _line: bytearray = field(factory=bytearray, init=False, repr=False)

    def feed(self, chunk: bytes) -> None:
        """A read of the pipe, wherever it was cut."""
        first, *rest = chunk.split(b"\n")
        self._hold(first)
        for piece in rest:
            self._say()
            self._hold(piece)

    def end(self) -> None:
        """The pipe is closed: what waits for its newline is all that comes."""
        self._say()

    @property
    def _room(self) -> int:
        return limits.CHILD_STDERR_LINE + self._blank.longest

    def _hold(self, piece: bytes) -> None:
        self._line += piece[: self._room - len(self._line)]

    def _say(self) -> None:
        raw = bytes(self._line)
        self._line.clear()
        if not raw.strip() or not self._trickle.passes():
            return
        text = _ESCAPES.sub("", raw.decode("utf-8", "backslashreplace"))
        # What is invisible goes before the token is looked for: it could hide in it.
        shown = self._blank.line(_CONTROLS.sub("", text).encode())
        if len(raw) == self._room:
            # The line was cut, perhaps through a token: what may be its head goes too.
            shown = shown[: len(shown) - self._blank.longest]
        said = shown.decode("utf-8", "ignore").rstrip()
        if said:
            self.tail.append(said)
            self._log(said, self._trickle.held())
