"""
Work that nobody's leaving may stop.

Klein cancels a route when its peer leaves, and a cancelled coroutine stops at
its next `await`: between Forgejo's reply and our commit, say.
Such work is started here: it has an owner, it runs to its end whoever waits
for it, and a stop of the daemon waits for it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")


@define(eq=False)
class Tasks:
    """The pieces of work under way in one process."""

    log = Logger()
    _running: set[Deferred[Any]] = field(factory=set, init=False)

    def shield(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """
        Run `work` to its end; what is answered may be cancelled without harm.

        A failure that nobody is left to see goes to the log.
        """
        # Without a canceller a cancelled Deferred swallows one late result.
        seen: Deferred[T] = Deferred()
        gone: list[bool] = []
        inner = Deferred.fromCoroutine(work)
        self._running.add(inner)

        def leave(failure: Failure) -> Failure:
            gone.append(True)
            return failure

        seen.addErrback(leave)

        def done(result: T | Failure) -> None:
            self._running.discard(inner)
            if not isinstance(result, Failure):
                seen.callback(result)
            elif gone:
                self.log.failure("shielded work failed after its asker left", failure=result)
            else:
                seen.errback(result)

        inner.addBoth(done)
        return seen

    def start(self, work: Coroutine[Any, Any, Any], what: str) -> None:
        """Run `work` for its own sake; a failure goes to the log."""

        def failed(failure: Failure) -> None:
            self.log.failure("{what} failed", what=what, failure=failure)

        self.shield(work).addErrback(failed)

    async def settle(self) -> None:
        """Wait until all that was started has ended, well or badly."""
        while self._running:
            waits = [_after(running) for running in self._running]
            await DeferredList(waits)


def _after(running: Deferred[Any]) -> Deferred[None]:
    """A Deferred that fires when `running` does and disturbs nothing."""
    after: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        after.callback(None)
        return result

    running.addBoth(tell)
    return after
