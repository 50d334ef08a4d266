"""
How much of large request bodies is held at a time, and for whom.

A body is read before it is looked at, so whoever may send one may fill the
memory, slowly and over many connections.  The first `limits.FORM_BODY` bytes
of each are free, as its headers are.  What comes after counts until a child has
answered it, which needs several times as much meanwhile, or its request has
ended: for the account of a caller who was seen before, or for all those together
whose token must still be looked up.
So strangers can use up only what strangers have.
"""

from __future__ import annotations

from attrs import define, field

from fjmcp import limits


@define(eq=False)
class Bodies:
    """Bytes held, by account; None is everybody whom we do not know yet."""

    _held: dict[int | None, int] = field(factory=dict, init=False)

    def take(self, whose: int | None, size: int) -> bool:
        """Count `size` more bytes; False, and nothing is counted, if that is too much."""
        most = limits.BODIES_OF_STRANGERS if whose is None else limits.BODIES_OF_ACCOUNT
        held = self._held.get(whose, 0) + size
        if held > most:
            return False
        self._held[whose] = held
        return True

    def give_back(self, whose: int | None, size: int) -> None:
        """Count `size` bytes less."""
        held = self._held.get(whose, 0) - size
        if held > 0:
            self._held[whose] = held
        else:
            self._held.pop(whose, None)

    def __len__(self) -> int:
        return sum(self._held.values())
