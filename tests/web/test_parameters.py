from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.oauth.authorization import Params
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.web.parameters import with_form, with_json, with_query
from fjmcp.web.routes import Answer, Tongue, route
from fjmcp.web.site import Site

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


class ParametersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.heard: list[object] = []
        self.repeated: list[tuple[str, ...]] = []

        async def hear(request: Request, params: Params) -> Answer:
            self.heard.append(dict(params))
            self.repeated.append(params.all("resource"))
            return {}

        async def hear_json(request: Request, body: object) -> Answer:
            self.heard.append(body)
            return {}

        routes = [
            route("/query", speaks=Tongue.OAUTH, get=with_query(hear)),
            route("/form", speaks=Tongue.OAUTH, post=with_form(hear)),
            route("/json", speaks=Tongue.OAUTH, post=with_json(hear_json)),
        ]
        clock = Clock()
        self.visitor = Visitor(Site(Endpoints("https://broker.example"), routes, clock), clock)

    def refused(self, visit: Visit, error: str = "invalid_request") -> None:
        self.assertEqual((visit.status, visit.json()["error"]), (400, error))
        self.assertEqual(self.heard, [])


class QueryTests(ParametersTestCase):
    def test_read(self) -> None:
        """A query is decoded as UTF-8, with + for a space; empty values count as absent."""
        self.visitor.get("/query?a=1&b=%C3%A9+x&c=&d&resource=r1&resource=r2")
        self.visitor.get("/query")
        self.visitor.get("/query?")
        first = {"a": "1", "b": "é x", "resource": "r1"}
        self.assertEqual(self.heard, [first, {}, {}])
        self.assertEqual(self.repeated[0], ("r1", "r2"))

    def test_twice(self) -> None:
        """A parameter that stands twice is refused."""
        self.refused(self.visitor.get("/query?state=1&state=2"))

    def test_not_text(self) -> None:
        """A query that is not UTF-8 once it is decoded is refused."""
        for query in ("a=%ff", "a=%C3", "%ff=1"):
            self.refused(self.visitor.get(f"/query?{query}"))

    def test_many(self) -> None:
        """More parameters than any client sends are refused."""
        self.refused(self.visitor.get("/query?" + "&".join(["a=1"] * (limits.PARAMETERS + 1))))


class FormTests(ParametersTestCase):
    def test_read(self) -> None:
        """A form is read from the body alone, whatever its content type's charset says."""
        for kind in ("", "; charset=utf-8", ";charset=UTF-8"):
            self.visitor.send(
                "POST",
                "/form?a=query",
                b"a=%C3%A9&b=2",
                {"content-type": "application/x-www-form-urlencoded" + kind},
            )
        self.visitor.send("POST", "/form", b"", FORM)
        self.assertEqual(self.heard, [{"a": "é", "b": "2"}] * 3 + [{}])

    def test_other_types(self) -> None:
        """Anything that is not a urlencoded form is refused, multipart and JSON among it."""
        for kind in ("multipart/form-data; boundary=x", "application/json", "text/plain", ""):
            self.refused(self.visitor.send("POST", "/form", b"a=1", {"content-type": kind}))
        self.refused(self.visitor.send("POST", "/form", b"a=1"))

    def test_not_text(self) -> None:
        """A form that is not UTF-8, raw or once it is decoded, is refused."""
        for body in (b"a=\xff", b"a=%ff", "a=é".encode()):
            self.refused(self.visitor.send("POST", "/form", body, FORM))

    def test_twice(self) -> None:
        """A parameter that stands twice is refused."""
        self.refused(self.visitor.send("POST", "/form", b"code=1&code=1", FORM))

    def test_many(self) -> None:
        """More parameters than any client sends are refused."""
        body = b"&".join([b"a=1"] * (limits.PARAMETERS + 1))
        self.refused(self.visitor.send("POST", "/form", body, FORM))


class JsonTests(ParametersTestCase):
    def test_read(self) -> None:
        """JSON of any shape is handed on; what may stand in it is judged elsewhere."""
        for body in (b'{"a": [1, null]}', b"[]", b'"x"', b"null"):
            self.visitor.send("POST", "/json", body, JSON)
        self.assertEqual(self.heard, [{"a": [1, None]}, [], "x", None])

    def test_broken(self) -> None:
        """What is not JSON in UTF-8 is refused in the words of RFC 7591, however deep it nests."""
        for body in (
            b"",
            b"{",
            b"{'a': 1}",
            b"\xff\xfe{}",
            b'{"a": "\xff"}',
            b'{"a": NaN}',
            b"{} {}",
            b"[" * 16_000,
            b'{"a":' * 3_000,
        ):
            self.refused(self.visitor.send("POST", "/json", body, JSON), "invalid_client_metadata")

    def test_other_types(self) -> None:
        """A registration that is not sent as JSON is refused."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            visit = self.visitor.send("POST", "/json", b"{}", {"content-type": kind})
            self.refused(visit, "invalid_client_metadata")
