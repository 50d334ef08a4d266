"""
Two clocks: one that nobody sets, for timers, and the one on the wall, for rules.

Twisted's timers go by the machine's clock: one that is set back by an hour
delays every timer by an hour, one that is set forward fires them all
(`docs/decisions/0007`).  Tokens, grants and rows need that clock all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from fjmcp import limits


def steady(reactor: Any) -> None:
    """
    Let the timers of `reactor` go by a clock that nobody sets.

    Before any was started: what is under way would be due at another time.
    """
    if reactor.getDelayedCalls():
        raise RuntimeError("the reactor has timers already")
    # What ReactorBase asks for the time, and hands to each timer.
    reactor.seconds = time.monotonic


@implementer(IReactorTime)
@define(eq=False)
class WallClock:
    """
    The timers of a reactor, and epoch seconds in place of its own.

    :ivar now: the machine's clock, which may be set.
    """

    _timers: IReactorTime
    now: Callable[[], float] = time.time

    def seconds(self) -> float:
        """Epoch seconds."""
        return self.now()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """The reactor's: a clock that is set changes nothing about it."""
        return self._timers.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Any:
        """The reactor's."""
        return self._timers.getDelayedCalls()


@define(eq=False)
class Trust:
    """
    Whether the wall may say that something is over for ever.

    A clock that was set is mended within minutes, as a rule, and what was
    deleted meanwhile stays deleted.  A machine that slept looks the same.
    """

    log = Logger()
    _wall: IReactorTime
    _ticks: IReactorTime
    _apart: float = field(init=False)
    _since: float | None = field(default=None, init=False)

    @_apart.default
    def _first(self) -> float:
        return self._wall.seconds() - self._ticks.seconds()

    def look(self) -> bool:
        """Whether the clock has not been set for `limits.CLOCK_TRUST`, as far as was seen."""
        now = self._ticks.seconds()
        apart = self._wall.seconds() - now
        step, self._apart = apart - self._apart, apart
        if abs(step) > limits.CLOCK_STEP:
            self._since = now
            self.log.warn(
                "the clock was set by {seconds} s, or the machine slept: nothing is deleted for"
                " its age during the next {trust} s",
                seconds=round(step, 1),
                trust=limits.CLOCK_TRUST,
            )
        if self._since is not None and now - self._since >= limits.CLOCK_TRUST:
            self._since = None
        return self._since is None
