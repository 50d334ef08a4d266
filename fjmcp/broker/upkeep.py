"""
What is done again and again, whether or not anybody asks.

::

    reap      children that nobody used for a while go, their sessions stay
    rotate    credentials are refreshed ahead of their end, and children that
              were born with an older one are replaced
    expire    rows that nobody will need are dropped, grants end at their time
    flush     when sessions and grants were last used is written down

A job survives its own exception: a LoopingCall whose body raises ends for
good.  A job that hangs is given up, and comes again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fjmcp import limits


@frozen
class Job:
    """A piece of work, and how many seconds lie between two beginnings of it."""

    name: str
    every: float
    work: Callable[[], Awaitable[object]]


@define(eq=False)
class Upkeep:
    """The jobs of one process."""

    log = Logger()
    _clock: IReactorTime
    _jobs: dict[str, Job] = field(factory=dict, init=False)
    _loops: dict[str, LoopingCall] = field(factory=dict, init=False)
    _under_way: dict[str, Deferred[None]] = field(factory=dict, init=False)
    _running: bool = field(default=False, init=False)

    def also(self, job: Job) -> None:
        """
        Do this too, first when one interval has passed.

        A job of the same name is replaced: that is how an interval changes
        while the daemon runs.
        """
        self._halt(job.name)
        self._jobs[job.name] = job
        if self._running:
            self._begin(job)

    def start(self) -> None:
        """From here on the jobs are done."""
        self._running = True
        for job in self._jobs.values():
            self._begin(job)

    def stop(self) -> None:
        """No job begins any more, and the one under way stops at its next `await`."""
        self._running = False
        for name in list(self._loops):
            self._halt(name)
        for work in list(self._under_way.values()):
            work.cancel()

    def _begin(self, job: Job) -> None:
        loop = self._loops[job.name] = LoopingCall(self._do, job)
        loop.clock = self._clock
        loop.start(job.every, now=False).addErrback(
            lambda failure: self.log.failure("{job} will not be done again", failure, job=job.name)
        )

    def _halt(self, name: str) -> None:
        loop = self._loops.pop(name, None)
        if loop is not None and loop.running:
            loop.stop()

    def _do(self, job: Job) -> Deferred[None]:
        return Deferred.fromCoroutine(self._once(job))

    async def _once(self, job: Job) -> None:
        try:
            work = self._under_way[job.name] = Deferred.fromCoroutine(_all_of(job.work))
            await work.addTimeout(limits.UPKEEP, self._clock)
        except TimeoutError:
            self.log.error("{job} takes too long and is given up", job=job.name)
        except CancelledError:
            self.log.debug("{job} was cut short", job=job.name)
        except Exception:
            self.log.failure("{job} failed; it is tried again", job=job.name)
        finally:
            self._under_way.pop(job.name, None)


async def _all_of(work: Callable[[], Awaitable[object]]) -> None:
    await work()
