"""The scripted browser, against pages of every kind."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from fjmcp.demo.browser import Browser, Page

HERE = "http://a.example:81"


@define(slots=False, eq=False)
class Shelf(Resource):
    """Answers each path by a function."""

    isLeaf = True
    answers: dict[bytes, Callable[[Request], bytes]] = field(factory=dict)
    asked: list[tuple[bytes, bytes, str | None]] = field(factory=list)

    def render(self, request: Request) -> bytes:
        """Note the request, answer it."""
        body = request.content.read() if request.content is not None else b""
        self.asked.append((request.method + b" " + request.uri, body, request.getHeader("cookie")))
        answer = self.answers.get(bytes(request.path))
        return answer(request) if answer is not None else b""


def redirect(url: str, cookie: str = "x=1") -> Callable[[Request], bytes]:
    """A 303 that sets a cookie."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(303)
        request.setHeader("location", url)
        request.setHeader("set-cookie", cookie)
        return b""

    return answer


class BrowserTests(SynchronousTestCase):
    """One browser and one shelf of pages."""

    def setUp(self) -> None:
        self.shelf = Shelf()
        self.browser = Browser(RequestTraversalAgent(self.shelf), ("http://stop.example/",))

    def open(self, path: str) -> Page:
        """Go there."""
        going = self.browser.open(f"{HERE}{path}")
        return self.successResultOf(Deferred.fromCoroutine(going))

    def test_redirects_and_cookies(self) -> None:
        """Redirects are followed with the cookies of the host, whatever the port."""
        self.shelf.answers[b"/a"] = redirect("http://a.example:82/b", "k=v; Path=/; HttpOnly")
        self.assertEqual(self.open("/a").url, "http://a.example:82/b")
        self.assertEqual(self.shelf.asked[-1], (b"GET /b", b"", "k=v"))
        self.shelf.answers[b"/b"] = redirect("/c", "k=; Max-Age=0")
        self.open("/b")
        self.assertEqual(self.shelf.asked[-1], (b"GET /c", b"", None))

    def test_other_hosts_get_no_cookie(self) -> None:
        """A host's cookies go to no other host."""
        self.shelf.answers[b"/a"] = redirect("http://b.example/b")
        self.open("/a")
        self.assertEqual(self.shelf.asked[-1], (b"GET /b", b"", None))

    def test_refresh(self) -> None:
        """A refresh in the page is followed like a redirect."""
        page = b'<meta http-equiv="refresh" content="0; url=http://stop.example/?a=1&amp;b=2">'
        self.shelf.answers[b"/a"] = lambda _: page
        self.assertEqual(self.open("/a").url, "http://stop.example/?a=1&b=2")

    def test_stop(self) -> None:
        """At a stop nothing is fetched."""
        self.shelf.answers[b"/a"] = redirect("http://stop.example/cb?code=c")
        page = self.open("/a")
        self.assertEqual((page.url, page.status), ("http://stop.example/cb?code=c", 303))
        self.assertEqual(len(self.shelf.asked), 1)

    def test_circle(self) -> None:
        """A circle of redirects ends with an error."""
        self.shelf.answers[b"/a"] = redirect("/a")
        going = Deferred.fromCoroutine(self.browser.open(f"{HERE}/a"))
        self.failureResultOf(going, LookupError)

    def test_form(self) -> None:
        """A form is sent with its hidden fields, what was filled in, and the button pressed."""
        self.shelf.answers[b"/a"] = lambda _: (
            b"<title>T &amp; U</title><form method=post action=/b>"
            b"<input name=h type=hidden value=1>"
            b"<input name=t><input type=checkbox name=c value=on checked>"
            b"<input type=checkbox name=d><button name=go value=yes>Y</button>"
            b"<input type=submit name=go value=no></form>"
        )
        page = self.open("/a")
        self.assertEqual(page.title, "T & U")
        self.successResultOf(Deferred.fromCoroutine(self.browser.submit(page, "no", t="x y")))
        self.assertEqual(self.shelf.asked[-1], (b"POST /b", b"h=1&t=x+y&c=on&go=no", None))
        self.successResultOf(Deferred.fromCoroutine(self.browser.submit(page)))
        self.assertEqual(self.shelf.asked[-1][1], b"h=1&t=&c=on&go=yes")

    def test_form_by_get(self) -> None:
        """A form without a method goes by GET."""
        self.shelf.answers[b"/a"] = lambda _: b"<form action=/b><input name=q></form>"
        page = self.open("/a")
        self.successResultOf(Deferred.fromCoroutine(self.browser.submit(page, q="1")))
        self.assertEqual(self.shelf.asked[-1][0], b"GET /b?q=1")

    def test_what_is_not_there(self) -> None:
        """A page without a form, an unknown field or button, is an error that says so."""
        self.assertRaises(LookupError, lambda: self.open("/a").form)
        self.shelf.answers[b"/a"] = lambda _: b"<form><input name=q><button>B</button></form>"
        page = self.open("/a")
        for going in (self.browser.submit(page, z="1"), self.browser.submit(page, "no")):
            self.failureResultOf(Deferred.fromCoroutine(going), LookupError)
