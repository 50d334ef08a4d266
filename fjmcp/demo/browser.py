"""
A scripted browser: cookies, redirects, forms, and nothing else.

It walks sign-in and consent pages as a person would, over a real agent or
over an in-memory one.  Cookies belong to a host, whatever its port, as in
real browsers.
"""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from attrs import define, field, frozen
from treq import content
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

_HOPS = 20


@frozen
class Form:
    """A form: where it goes, what it holds, and its buttons as (name, value)."""

    action: str
    method: str
    fields: dict[str, str]
    buttons: tuple[tuple[str, str], ...]


@frozen
class Page:
    """
    Where the browser has come to.

    At a URL that it stops at (`Browser.stops`) nothing was fetched, and the
    text is empty.
    """

    url: str
    status: int
    text: str = field(repr=False)
    headers: Headers = field(repr=False, factory=Headers)
    title: str = ""
    forms: tuple[Form, ...] = ()
    refresh: str | None = None

    @property
    def form(self) -> Form:
        """The page's only form; raises LookupError where there is none, or another."""
        if len(self.forms) != 1:
            raise LookupError(f"{len(self.forms)} forms at {self.url} ({self.status})")
        return self.forms[0]


@define(eq=False)
class Browser:
    """
    One browser with one set of cookies.

    A redirect to a URL that begins with one of `stops` is not followed: the
    page there is the client's own.
    """

    agent: IAgent
    stops: tuple[str, ...] = ()
    cookies: dict[str, dict[str, str]] = field(factory=dict, repr=False)

    async def open(self, url: str, headers: Mapping[str, str] | None = None) -> Page:
        """Go to a URL, and on by redirects and refreshes.  Raises LookupError in circles."""
        return await self._go("GET", url, b"", headers or {})

    async def submit(self, page: Page, button: str | None = None, **fields: str) -> Page:
        """
        Send the page's form, with these fields filled in.

        `button` is the value of the button pressed, by default the first's.
        Raises LookupError for a field or button that is not there.
        """
        form = page.form
        if missing := set(fields) - set(form.fields):
            raise LookupError(f"no field {missing} at {page.url}")
        pressed = [b for b in form.buttons if button in (None, b[1])][:1]
        if button is not None and not pressed:
            raise LookupError(f"no button {button} at {page.url}")
        said = form.fields | fields | {n: v for n, v in pressed if n}
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
        same = form.action.startswith(f"{origin}/")
        headers = {"Sec-Fetch-Site": "same-origin" if same else "cross-site", "Origin": origin}
        body = urlencode(said).encode()
        if form.method == "GET":
            return await self._go("GET", f"{form.action}?{body.decode()}", b"", {})
        return await self._go("POST", form.action, body, headers)

    async def _go(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Page:
        for _ in range(_HOPS):
            page = await self._fetch(method, url, body, headers)
            location = page.headers.getRawHeaders("location", [None])[0]
            onward = location if page.status in (301, 302, 303) else page.refresh
            if onward is None:
                return page
            method, body, headers, url = "GET", b"", {}, urljoin(url, onward)
            if url.startswith(self.stops):
                return Page(url, page.status, "")
        raise LookupError(f"redirected in a circle at {url}")

    async def _fetch(self, method: str, url: str, body: bytes, more: Mapping[str, str]) -> Page:
        headers = Headers({name: [value] for name, value in more.items()})
        host = urlsplit(url).hostname or ""
        if jar := self.cookies.get(host):
            pairs = "; ".join(f"{name}={value}" for name, value in jar.items())
            headers.addRawHeader("Cookie", pairs)
        if method == "POST":
            headers.addRawHeader("Content-Type", "application/x-www-form-urlencoded")
        producer = Body(body) if method == "POST" else None
        response: IResponse = await self.agent.request(
            method.encode(), url.encode(), headers, producer
        )
        for cookie in response.headers.getRawHeaders("set-cookie", []):
            self._keep(host, cookie)
        text = (await content(response)).decode("utf-8", "replace")
        return read_page(url, response.code, text, response.headers)

    def _keep(self, host: str, cookie: str) -> None:
        pair, *attributes = (part.strip() for part in cookie.split(";"))
        name, _, value = pair.partition("=")
        jar = self.cookies.setdefault(host, {})
        if "max-age=0" in (attribute.lower() for attribute in attributes):
            jar.pop(name, None)
        else:
            jar[name] = value


def read_page(url: str, status: int, text: str, headers: Headers | None = None) -> Page:
    """A page with what one can go on by."""
    reader = _Reader(url)
    reader.feed(text)
    return Page(
        url,
        status,
        text,
        headers or Headers(),
        reader.title.strip(),
        tuple(reader.forms),
        reader.refresh,
    )


@implementer(IBodyProducer)
@define(eq=False)
class Body:
    """A request's body, written at once."""

    data: bytes

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it all."""
        consumer.write(self.data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:
        """Nothing is left to resume."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


class _Reader(HTMLParser):
    """Finds title, forms and a refresh in a page."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.title = ""
        self.forms: list[Form] = []
        self.refresh: str | None = None
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said: dict[str, Any] = {name: value or "" for name, value in attrs}
        if tag == "title":
            self._in_title = True
        elif tag == "form":
            action = urljoin(self.url, said.get("action", ""))
            self.forms.append(Form(action, said.get("method", "get").upper(), {}, ()))
        elif tag == "meta" and said.get("http-equiv", "").lower() == "refresh":
            _, _, target = said.get("content", "").partition("=")
            self.refresh = target.strip().strip("'\"") or None
        elif (self.forms and tag == "button") or (
            self.forms and tag == "input" and said.get("type") == "submit"
        ):
            self._button(said)
        elif self.forms and tag == "input" and said.get("type") not in ("checkbox", "radio"):
            self.forms[-1].fields[said.get("name", "")] = said.get("value", "")
        elif self.forms and tag == "input" and "checked" in said:
            self.forms[-1].fields[said.get("name", "")] = said.get("value", "on")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data

    def _button(self, said: dict[str, Any]) -> None:
        form = self.forms[-1]
        button = (said.get("name", ""), said.get("value", ""))
        self.forms[-1] = Form(form.action, form.method, form.fields, (*form.buttons, button))
