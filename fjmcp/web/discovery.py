"""
What tells clients and people where things are.

The well-known documents at every path that clients probe, and a page at `/`
with the one URL that a person needs.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define
from twisted.web.http import Request

from fjmcp.oauth.documents import METADATA_PATHS, Document
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.web import pages
from fjmcp.web.routes import Respond, Route, Tongue, route


@define(eq=False)
class Discovery:
    """The documents and the front page."""

    _endpoints: Endpoints

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [
            *(
                route(path, speaks=Tongue.OAUTH, get=self._telling(document), cors=True)
                for path, document in METADATA_PATHS.items()
            ),
            route("/", speaks=Tongue.PAGE, get=self.front),
            route(pages.STYLE_PATH, speaks=Tongue.PAGE, get=self.style),
        ]

    def _telling(self, document: Document) -> Respond:
        told = document(self._endpoints)

        async def tell(request: Request) -> Mapping[str, object]:
            return told

        return tell

    async def front(self, request: Request) -> bytes:
        """What this is, and the URL to paste."""
        return await pages.front(self._endpoints.resource)

    async def style(self, request: Request) -> bytes:
        """The looks of every page."""
        request.setHeader(b"content-type", b"text/css; charset=utf-8")
        request.setHeader(b"cache-control", b"max-age=3600")
        return pages.STYLE
