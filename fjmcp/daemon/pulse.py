"""How late the reactor is: what everybody waits for when something blocks it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.meter import Meter


@define(eq=False)
class Pulse:
    """
    Asks the reactor for a call every `limits.PULSE` and tells a meter how late
    it comes.

    `ticks`: seconds of a clock that nobody sets.
    """

    log = Logger()
    _clock: IReactorTime
    _meter: Meter
    _ticks: Callable[[], float]
    _due: float = field(default=0.0, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin; once is enough."""
        if self._call is None:
            self._next()

    def stop(self) -> None:
        """Ask no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _next(self) -> None:
        self._due = self._ticks() + limits.PULSE
        self._call = self._clock.callLater(limits.PULSE, self._beat)

    def _beat(self) -> None:
        late = self._ticks() - self._due
        self._next()
        with self.log.failuresHandled("while measuring the reactor"):
            self._meter.lag(late)
