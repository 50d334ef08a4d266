"""
How often somebody may do something, and who did it lately.

The rule is GCRA, the leaky bucket without a bucket: all that is remembered of
somebody is one moment.  The memory is bounded; who is forgotten has a fresh
allowance, which he would have had anyway if he was silent.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from attrs import define, field, frozen


@frozen
class Rate:
    """So many at once, and one more every so many seconds."""

    at_once: int
    every: float

    @classmethod
    def of(cls, numbers: tuple[int, float]) -> Rate:
        """From a pair in `fjmcp.limits`."""
        return cls(*numbers)

    def times(self, many: int) -> Rate:
        """What so many have together."""
        return Rate(self.at_once * many, self.every / many)


def step(free_at: float, rate: Rate, now: float, queue: int = 0) -> tuple[float, float]:
    """
    One request at `now`: the state after it, and how long it has to wait.

    `free_at` is the moment at which the whole allowance will be there again;
    any moment of the past for somebody who is not known.  So many as `queue` may
    wait for their turn; a request that would have to wait for longer changes nothing.
    """
    # A clock that was set back must not lock anybody out for longer than the rule does.
    ahead = min(max(free_at - now, 0.0), (rate.at_once + queue) * rate.every)
    wait = max(ahead - (rate.at_once - 1) * rate.every, 0.0)
    if wait > queue * rate.every:
        return now + ahead, wait
    return now + ahead + rate.every, wait


@define(eq=False)
class Tally:
    """What is remembered of those who knocked, at most so many."""

    _most: int
    _free_at: OrderedDict[str, float] = field(factory=OrderedDict, init=False, repr=False)

    def wait(self, name: str, rate: Rate, now: float) -> float:
        """How long somebody would have to wait; nothing is counted."""
        return step(self._free_at.get(name, -math.inf), rate, now)[1]

    def count(self, name: str, rate: Rate, now: float) -> None:
        """Count a request."""
        self._keep(name, step(self._free_at.get(name, -math.inf), rate, now)[0])

    def book(self, name: str, rate: Rate, queue: int, now: float) -> float | None:
        """Count a request, and in how many seconds its turn is; None if so many wait already."""
        free_at, wait = step(self._free_at.get(name, -math.inf), rate, now, queue)
        self._keep(name, free_at)
        return None if wait > queue * rate.every else wait

    def give_back(self, name: str, rate: Rate) -> None:
        """What was counted for somebody came to nothing."""
        if name in self._free_at:
            self._free_at[name] -= rate.every

    def _keep(self, name: str, free_at: float) -> None:
        self._free_at[name] = free_at
        self._free_at.move_to_end(name)
        if len(self._free_at) > self._most:
            self._free_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._free_at)


_TELL = Rate(1, 60.0)
"""A minute between two lines of the log about the same name."""


@define(eq=False)
class Seldom:
    """What is said of somebody at most once a minute, and of at most so many."""

    _most: int
    _told: Tally = field(init=False)

    @_told.default
    def _nobody_yet(self) -> Tally:
        return Tally(self._most)

    def may_say(self, name: str, now: float) -> bool:
        """Whether it is time to say it again; then it counts as said."""
        if self._told.wait(name, _TELL, now) > 0:
            return False
        self._told.count(name, _TELL, now)
        return True
