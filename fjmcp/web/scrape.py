"""`/metrics`, on a listener of its own: it is for the operator's network alone."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.web.http import Request

from fjmcp.web.routes import Route, Tongue, route


@define(eq=False)
class Scrape:
    """Answers with what was counted, under any Host, since a scraper asks an address."""

    _exposition: Callable[[str], tuple[bytes, str]]
    """For an Accept header: the text and its Content-Type."""

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [route("/metrics", speaks=Tongue.OAUTH, get=self.metrics, any_host=True)]

    async def metrics(self, request: Request) -> bytes:
        """All that was counted."""
        text, content_type = self._exposition(request.getHeader("accept") or "")
        request.setHeader(b"content-type", content_type.encode("ascii"))
        return text
