"""
What other processes change in the store, noticed here.

The operator's tool works beside a daemon that runs, and a grant that it ends
must end here too.  So it is looked again and again whether anybody else has
committed (design D14).  What that was is not told: the callers forget all that
they knew, and every grant for which something runs is asked for.

A look costs a hop to the thread that writes, and no transaction.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.broker.endings import Endings
from fjmcp.store.queries import grants
from fjmcp.store.transactions import Store, StoreDown
from fjmcp.tasks import Tasks


@define(eq=False)
class Elsewhere:
    """
    The looks of one process.

    While the store is down they find nothing out, and what changed meanwhile is
    found by the first one after it.
    """

    log = Logger()
    _store: Store
    _callers: Callers
    _endings: Endings
    _tasks: Tasks
    _clock: IReactorTime
    _known: int | None = field(default=None, init=False)
    """What `Store.commits_elsewhere` said of the last change that was taken in."""
    _suspects: set[str] = field(factory=set, init=False)
    """Grants that ran here at a change, and were not asked for yet."""
    _trouble: type[Exception] | None = field(default=None, init=False)
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        self._loop.clock = self._clock

    def start(self) -> None:
        """Look now, and every `limits.ELSEWHERE`; a look that takes longer delays the next."""
        self._loop.start(limits.ELSEWHERE)

    def stop(self) -> None:
        """Look no more; what is under way ends nothing."""
        if self._loop.running:
            self._loop.stop()

    async def _look(self) -> None:
        # It survives whatever happens: a loop whose body raises ends for good.  What happens
        # again at each look is said once.
        trouble: type[Exception] | None = None
        try:
            commits = await self._store.commits_elsewhere()
            if commits != self._known and self._loop.running:
                await self._take_in()
                self._known = commits
        except StoreDown as down:
            trouble = StoreDown
            if self._trouble is not trouble:
                self.log.warn(
                    "what other processes change cannot be seen just now: {error}", error=str(down)
                )
        except Exception as error:
            trouble = type(error)
            if self._trouble is not trouble:
                self.log.failure("while looking for what other processes change")
        self._trouble = trouble

    async def _take_in(self) -> None:
        self._suspects |= self._endings.running()
        # Before anything is asked: whoever comes from here on asks the store by himself.
        self._callers.forget_all()
        over = await self._store.read(grants.over, frozenset(self._suspects))
        self._suspects.clear()
        if not self._loop.running:
            return
        for grant_id, reason in over.items():
            # Children may take seconds to end; the next look does not wait for them.
            ending = self._endings.ended([grant_id], reason)
            self._tasks.start(ending, "ending what was ended elsewhere")
