"""
One piece of work per key, whoever asks: started once, awaited by many,
stopped by none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fjmcp.tasks import Tasks

K = TypeVar("K")
T = TypeVar("T")


@define(eq=False)
class Flights(Generic[K, T]):
    """The work under way, by key."""

    _tasks: Tasks
    _waiting: dict[K, list[Deferred[T]]] = field(factory=dict, init=False)

    def __contains__(self, key: K) -> bool:
        return key in self._waiting

    def join(self, key: K, start: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        The result of the work for `key`, which `start` begins if none is under way.

        What is answered may be cancelled: that ends a wait, not the work.
        """
        waiting = self._waiting.get(key)
        mine: Deferred[T] = Deferred(lambda left: self._leave(key, left))
        if waiting is not None:
            waiting.append(mine)
            return mine
        self._waiting[key] = [mine]
        self._tasks.start(self._fly(key, start), f"the work for {key}")
        return mine

    async def _fly(self, key: K, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            result = await start()
        except Exception:
            failure = Failure()
            waiting = self._waiting.pop(key)
            if not waiting:
                raise
            for each in waiting:
                # Each its own: an errback may change what it is given.
                each.errback(Failure(failure.value, failure.type, failure.tb))
        else:
            for each in self._waiting.pop(key):
                each.callback(result)

    def _leave(self, key: K, left: Deferred[T]) -> None:
        waiting = self._waiting.get(key, [])
        if left in waiting:
            waiting.remove(left)
