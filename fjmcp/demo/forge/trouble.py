"""
What goes wrong at the stand-in, on purpose, and how often it was called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from attrs import define, evolve, field, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import Request

from fjmcp.demo.forge.answers import Answer, page

KINDS: Final = {
    "status": "answer with `status` (503) before anything happens",
    "drop": "close the connection before anything happens",
    "hang": "do nothing until the trouble is cleared, then go on",
    "slow": "do the work, answer `seconds` later; without seconds, once the trouble is cleared",
    "lose": "do the work, then close the connection without the answer",
    "garble": "do the work, then answer 200 with a page that is not JSON",
    "race": "lose against another request for the same code or counter (token endpoint only)",
    "refuse": "stop listening for `seconds` (only where there is a listener)",
}
"""The troubles and what each does."""


@frozen
class Trouble:
    """
    One trouble: `kind` of `KINDS`, for paths that begin with `path`.

    `times` is how many requests it meets, None for all until it is cleared.
    `seconds` is for slow and refuse, `status` for status.
    """

    kind: str
    path: str = "/"
    times: int | None = None
    seconds: float | None = None
    status: int = 503


@define
class Troubles:
    """The troubles set, the requests that they hold, and the count of calls."""

    clock: IReactorTime
    refuse: Callable[[float], None] | None = None
    calls: Counter[str] = field(factory=Counter)
    current: list[Trouble] = field(factory=list, init=False)
    _held: list[Deferred[None]] = field(factory=list, init=False)

    def set(self, kind: str, path: str = "/", **more: Any) -> None:
        """
        Set a trouble, by the fields of `Trouble`.

        Raises ValueError for a kind that is unknown, or impossible here.
        """
        trouble = Trouble(kind, path, **more)
        if kind not in KINDS:
            raise ValueError(f"no such trouble: {kind}; there are {', '.join(KINDS)}")
        if kind != "refuse":
            self.current.append(trouble)
        elif self.refuse is None:
            raise ValueError("refuse needs a listener; use drop")
        else:
            self.refuse(trouble.seconds or 1.0)

    def clear(self) -> None:
        """End all troubles; requests that were held go on."""
        self.current.clear()
        held, self._held = self._held, []
        for waiting in held:
            waiting.callback(None)

    @property
    def held(self) -> int:
        """Requests that are held now."""
        return len(self._held)

    def take(self, path: str, *kinds: str) -> Trouble | None:
        """The first trouble of these kinds that meets `path`, counted as met."""
        for index, trouble in enumerate(self.current):
            if trouble.kind in kinds and path.startswith(trouble.path):
                if trouble.times is not None:
                    left = evolve(trouble, times=trouble.times - 1)
                    self.current[index : index + 1] = [left] if left.times else []
                return trouble
        return None

    async def serve(self, request: Request, endpoint: str, work: Callable[[], Answer]) -> bytes:
        """Answer one request through whatever trouble it meets."""
        self.calls[endpoint] += 1
        path = request.path.decode("utf-8", "replace")
        before = self.take(path, "status", "drop", "hang")
        if before is not None and before.kind == "status":
            return page(f"{before.status}", "", before.status).write(request)
        if before is not None and before.kind == "drop":
            await self._cut(request)
        if before is not None and before.kind == "hang":
            await self._hold()
        answer = work()
        after = self.take(path, "slow", "lose", "garble")
        if after is not None and after.kind == "lose":
            await self._cut(request)
        if after is not None and after.kind == "slow":
            if after.seconds is None:
                await self._hold()
            else:
                await deferLater(self.clock, after.seconds)
        if after is not None and after.kind == "garble":
            answer = page("A proxy's page", "", 200)
        return answer.write(request)

    async def _hold(self) -> None:
        waiting: Deferred[None] = Deferred(self._held.remove)
        self._held.append(waiting)
        await waiting

    async def _cut(self, request: Request) -> None:
        """Close the connection; the wait ends when Klein sees that it is closed."""
        request.loseConnection()
        await Deferred()


class Room(Protocol):
    """What a set of routes needs for `serves`."""

    @property
    def troubles(self) -> Troubles:
        """What goes wrong here."""


Work = Callable[..., Answer]


def serves(app: Klein, rule: str, *methods: str) -> Callable[[Work], Work]:
    """
    Route `rule` of a room's Klein to a method that answers an `Answer`.

    The count of calls has it as `"GET /its/<rule>"`.
    """

    def decorate(work: Work) -> Work:
        def route(room: Room, request: Request, **parts: str) -> Deferred[bytes]:
            endpoint = f"{request.method.decode()} {rule}"
            return Deferred.fromCoroutine(
                room.troubles.serve(request, endpoint, lambda: work(room, request, **parts))
            )

        app.route(rule, methods=list(methods), endpoint=f"{methods} {rule}", strict_slashes=False)(
            route
        )
        return work

    return decorate
