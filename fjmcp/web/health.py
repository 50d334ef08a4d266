"""Whether the process lives, and whether it should be sent requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.web.routes import Route, Tongue, route


@define(eq=False)
class Health:
    """
    `/healthz` and `/readyz`, for whoever watches the process; under any Host,
    since a watcher asks an address.
    """

    _unready: Callable[[], str | None]
    """Why requests should go elsewhere just now (starting, stopping), or None."""

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [
            route("/healthz", speaks=Tongue.OAUTH, get=self.healthz, any_host=True),
            route("/readyz", speaks=Tongue.OAUTH, get=self.readyz, any_host=True),
        ]

    async def healthz(self, request: Request) -> Mapping[str, object]:
        """The process lives."""
        return {"status": "ok"}

    async def readyz(self, request: Request) -> Mapping[str, object]:
        """200, or 503 with the reason."""
        reason = self._unready()
        if reason is None:
            return {"status": "ok"}
        request.setResponseCode(503)
        request.setHeader(b"retry-after", b"%d" % limits.RETRY_AFTER)
        return {"status": "unready", "reason": reason}
