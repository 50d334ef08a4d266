"""
A person at a browser: signs in at Forgejo, allows or refuses at our page.

It goes the way of a person, over the pages that a person is shown, on asyncio
as the SDK's client is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2
from attrs import Factory, define, field

from fjmcp.demo.browser import Form, Page, read_page

_MOST_STEPS: Final = 20


class Lost(Exception):
    """The person came to a page and does not know how to go on.  The text says where."""


@define(eq=False)
class Person:
    """
    One person, with one browser and its cookies.

    `allows` is what they think of our pages; `tell` hears what they do.
    """

    user: str
    password: str = field(repr=False)
    allows: Callable[[Page], bool] = lambda page: True
    tell: Callable[[str], None] = lambda words: None
    _http: httpx2.AsyncClient = Factory(lambda: httpx2.AsyncClient(timeout=30))

    async def __aenter__(self) -> Person:
        return self

    async def __aexit__(self, *failed: object) -> None:
        await self._http.aclose()

    async def sign_in(self, url: str, end: str) -> dict[str, str]:
        """
        Go from `url` until something sends the browser to `end`, the client's redirect URI.

        :return: the parameters that it was sent there with.
        :raises Lost: a page says no, or has no way on.
        """
        response = await self._http.get(url)
        for _ in range(_MOST_STEPS):
            page = read_page(str(response.url), response.status_code, response.text)
            onward = response.headers.get("location") if response.is_redirect else page.refresh
            if onward is None:
                response = await self._fill_in(page)
                continue
            onward = urljoin(page.url, onward)
            if onward.partition("?")[0] == end:
                return dict(parse_qsl(urlsplit(onward).query))
            response = await self._http.get(onward)
        raise Lost("redirected in a circle")

    async def _fill_in(self, page: Page) -> httpx2.Response:
        where = page.url.partition("?")[0]
        if page.status != 200 or not page.forms:
            raise Lost(f"{page.status} at {where}: {page.text}")
        form = page.forms[0]
        fields = form.fields | self._say(form, page, where)
        return await self._http.post(form.action, data=fields)

    def _say(self, form: Form, page: Page, where: str) -> dict[str, str]:
        if "password" in form.fields:
            self.tell(f"Forgejo's sign-in page: {self.user} signs in")
            return {"user_name": self.user, "password": self.password}
        if ("decision", "allow") in form.buttons:
            allow = self.allows(page)
            self.tell(f"our consent page: {'allowed' if allow else 'refused'}")
            return {"decision": "allow" if allow else "deny"}
        if ("decision", "continue") in form.buttons:
            allow = self.allows(page)
            self.tell(f"our page for another person: {'gone on' if allow else 'refused'}")
            return {"decision": "continue" if allow else "deny"}
        if ("granted", "true") in form.buttons:
            self.tell("Forgejo's own consent page: allowed")
            return {"granted": "true"}
        raise Lost(f"a form that nobody knows, at {where}")
