"""Which pages may read us: every answer of every route, for every kind of Origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from fjmcp import limits
from fjmcp.oauth.documents import METADATA_PATHS
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.testing.whole import WholeBroker
from fjmcp.web.addresses import Proxies
from fjmcp.web.channel import SiteRequest
from fjmcp.web.origins import is_visit, of_page
from fjmcp.web.routes import Answer, Tongue, route
from fjmcp.web.site import Site

INSPECTOR = "http://localhost:6274"
STUDIO = "https://studio.example.org"
ALLOWED = frozenset({INSPECTOR, STUDIO})

FOREIGN = (
    "https://evil.example",
    "null",
    "",
    "*",
    "http://localhost",
    "http://localhost:62740",
    "https://localhost:6274",
    "http://LOCALHOST:6274",
    "http://localhost:6274/",
    "http://localhost:6274.evil.example",
    "http://evil.example#http://localhost:6274",
    "http://u@localhost:6274",
    f"{INSPECTOR} {STUDIO}",
    f"{INSPECTOR}, {INSPECTOR}",
    f"{STUDIO}:443",
    f"{PUBLIC_URL}:443",
    f"{PUBLIC_URL}.evil.example",
)

SHARED = {
    **dict.fromkeys(METADATA_PATHS, "GET, HEAD, OPTIONS"),
    **dict.fromkeys(
        ("/oauth/token", "/token", "/oauth/revoke", "/revoke"),
        "POST, OPTIONS",
    ),
    **dict.fromkeys(("/oauth/register", "/register"), "GET, POST, DELETE, HEAD, OPTIONS"),
    "/mcp": "GET, POST, DELETE, OPTIONS",
}
"""The paths that take part, each with what it says of its methods."""

READABLE = "WWW-Authenticate, Mcp-Session-Id"
SENDABLE = {
    "authorization",
    "content-type",
    "accept",
    "mcp-protocol-version",
    "mcp-session-id",
    "last-event-id",
    "mcp-method",
    "mcp-name",
}

Send = Callable[..., Visit]
"""One request with these headers more, a name with `_` for `-`."""

FORM = "application/x-www-form-urlencoded"
MOST = "9" * 12
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}}


def cors(visit: Visit) -> dict[str, str]:
    """All that an answer says of CORS."""
    return {
        name.decode().lower(): values[-1].decode()
        for name, values in visit.headers.getAllRawHeaders()
        if name.lower().startswith(b"access-control-")
    }


class OriginsCase(SynchronousTestCase):
    """A broker that lets pages of two origins in."""

    def setUp(self) -> None:
        # With addresses, for the rate limits.
        self.broker = WholeBroker(allowed_origins=ALLOWED, trusted_proxies=Proxies())

    def assert_reads(self, visit: Visit, origin: str, about: object) -> None:
        """A page of this origin reads the answer, and nobody's cookies count."""
        named = {"access-control-allow-origin": origin, "access-control-expose-headers": READABLE}
        self.assertEqual(cors(visit), named, about)
        self.assertEqual(visit.header("vary"), "Origin", about)

    def assert_unreadable(self, visit: Visit, about: object, *, vary: bool = True) -> None:
        """No page of another origin reads it; caches keep it apart from what one may read."""
        self.assertEqual(cors(visit), {}, about)
        self.assertEqual(visit.header("vary"), "Origin" if vary else None, about)


class AnswerTests(OriginsCase):
    """What each route can answer."""

    def answers(self) -> Iterator[tuple[int, Send]]:
        """Every kind of answer: its status, and how it is asked for."""
        yield from self.of_mcp()
        yield from self.of_oauth()
        for path in METADATA_PATHS:
            yield 200, self.sending("GET", path)
            yield 200, self.sending("HEAD", path)
            yield 405, self.sending("POST", path)
            yield 413, self.sending("GET", path, content_length=MOST)

    def of_mcp(self) -> Iterator[tuple[int, Send]]:
        app, other = self.broker.register(), self.broker.register()
        access = app.tokens()["access_token"]
        mine = {"authorization": f"Bearer {access}"}
        hers = {"authorization": f"Bearer {other.tokens('bob')['access_token']}"}
        unseen = {"authorization": f"Bearer {app.tokens()['access_token']}"}
        opened = self.posting(self.message("initialize", OPENING), **mine)()
        self.broker.reactor.turn()
        session = {"mcp_session_id": opened.header("mcp-session-id") or ""}
        self.assertTrue(session["mcp_session_id"])
        listing = self.message("tools/list")
        yield 200, self.posting(self.message("initialize", OPENING), **mine)
        yield 200, self.posting(PING, **mine)
        yield 200, self.posting(PING, accept="text/event-stream", **mine)
        # Begun, and nothing heard of its child yet.
        yield 200, self.posting(listing, accept="text/event-stream", **mine, **session)
        yield 200, self.sending("GET", "/mcp", accept="text/event-stream", **mine, **session)
        yield 202, self.posting({"jsonrpc": "2.0", "method": "notifications/initialized"}, **mine)
        yield 400, self.posting({"jsonrpc": "1.0"}, **mine)
        yield 401, self.posting(PING)
        yield 401, self.posting(PING, authorization="Bearer fja_wrong")
        yield 401, self.sending("POST", "/mcp", content_length=str(limits.MCP_BODY))
        yield 403, self.posting(PING, **hers, **session)
        yield 404, self.posting(PING, **mine, mcp_session_id="none-of-ours")
        yield 405, self.sending("PUT", "/mcp", **mine)
        yield 405, self.sending("GET", "/mcp", accept="text/event-stream", **mine)
        yield 406, self.posting(PING, accept="text/html", **mine)
        yield 413, self.sending("POST", "/mcp", content_length=MOST, **mine)
        yield 415, self.posting(PING, content_type="text/plain", **mine)
        yield 503, self.while_down(self.posting(PING, **unseen))

        def forget(**headers: str) -> Visit:
            more = {"accept": "text/event-stream"}
            began = self.posting(self.message("initialize", OPENING), **mine)()
            self.broker.reactor.turn()
            kept = {"mcp_session_id": began.header("mcp-session-id") or ""}
            self.sending("GET", "/mcp", **mine, **kept, **more)()
            return self.sending("DELETE", "/mcp", **mine, **kept)(**headers)

        yield 204, forget

    def of_oauth(self) -> Iterator[tuple[int, Send]]:
        app = self.broker.register()
        tokens = app.tokens()
        refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        revoke = {"token": app.tokens()["access_token"]}
        for prefix in ("/oauth", ""):
            token, ends, new = f"{prefix}/token", f"{prefix}/revoke", f"{prefix}/register"
            yield 200, self.form(token, {**refresh, "client_id": app.client_id})
            yield 400, self.form(token, {"client_id": app.client_id})
            yield 400, self.sending("POST", token, content_type="text/plain")
            yield 401, self.form(token, {"client_id": "nobody"})
            yield 405, self.sending("GET", token)
            yield 413, self.sending("POST", token, content_length=MOST)
            yield 503, self.while_down(self.form(token, {"client_id": app.client_id}))
            yield 200, self.form(ends, {**revoke, "client_id": app.client_id})
            yield 401, self.form(ends, {})
            yield 201, self.posting({"redirect_uris": ["https://a.example/"]}, new)
            yield 400, self.posting({}, new)
            yield 401, self.sending("GET", new)
            yield 405, self.sending("PUT", new)
            yield 413, self.sending("POST", new, content_length=MOST)
        yield 429, self.flooding(self.posting({}, "/register"))

    def sending(self, method: str, target: str, **headers: str) -> Send:
        def send(**more: str) -> Visit:
            named = {name.replace("_", "-"): text for name, text in (headers | more).items()}
            return self.broker.visitor().send(method, target, headers=named)

        return send

    def posting(self, value: object, target: str = "/mcp", **headers: str) -> Send:
        return lambda **more: self.broker.visitor().post_json(target, value, **(headers | more))

    def form(self, target: str, form: Mapping[str, str]) -> Send:
        return lambda **more: self.broker.visitor().post_form(target, form, **more)

    def message(self, method: str, params: object = None) -> object:
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}

    def while_down(self, send: Send) -> Send:
        def sent(**more: str) -> Visit:
            self.broker.store.fail_all()
            try:
                return send(**more)
            finally:
                self.broker.store.fail_all(False)

        return sent

    def flooding(self, send: Send) -> Send:
        def sent(**more: str) -> Visit:
            for _ in range(limits.RATES_OF_ADDRESS["register"][0]):
                # A page's own: pages are counted apart from programs.
                send(**more)
            return send(**more)

        return sent

    def test_allowed(self) -> None:
        """A page of an allowed origin reads every answer, whatever it is, and streams."""
        for number, (status, send) in enumerate(self.answers()):
            origin = (INSPECTOR, STUDIO)[number % 2]
            visit = send(origin=origin)
            self.assertEqual(visit.status, status, (number, visit.body))
            self.assert_reads(visit, origin, (number, status))

    def test_no_page(self) -> None:
        """Programs, and pages of our own, are answered as ever, and told nothing of CORS."""
        for headers in ({}, {"origin": PUBLIC_URL}):
            self.setUp()
            for number, (status, send) in enumerate(self.answers()):
                visit = send(**headers)
                self.assertEqual(visit.status, status, (number, visit.body))
                self.assert_unreadable(visit, (number, status))

    def test_foreign(self) -> None:
        """A page of another origin calls nothing at /mcp; elsewhere it cannot read the answer."""
        unread = 0
        for number, (status, send) in enumerate(self.of_mcp()):
            visit = send(origin=FOREIGN[number % len(FOREIGN)])
            if visit.header("connection") == "close":  # before its body came
                unread += 1
                self.assertIn(status, (401, 413))
            else:
                self.assertEqual(visit.status, 403, number)
                self.assertIn("Origin", visit.json()["error"]["message"])
            self.assert_unreadable(visit, (number, status))
        self.assertEqual(unread, 2)
        for number, (status, send) in enumerate(self.of_oauth()):
            visit = send(origin=FOREIGN[number % len(FOREIGN)])
            self.assertEqual(visit.status, status, (number, visit.body))
            self.assert_unreadable(visit, (number, status))

    def test_every_foreign_spelling(self) -> None:
        """No spelling of another origin passes for one that is allowed, nor do two of them."""
        for origin in FOREIGN:
            self.assertEqual(self.posting(PING)(origin=origin).status, 403, origin)
            visit = self.sending("GET", "/.well-known/oauth-authorization-server")(origin=origin)
            self.assert_unreadable(visit, origin)
        for origins in ((INSPECTOR, STUDIO), (INSPECTOR, INSPECTOR), (PUBLIC_URL, PUBLIC_URL)):
            visit = self.broker.visitor().connect()
            lines = "".join(f"Origin: {origin}\r\n" for origin in origins)
            visit.send(f"DELETE /mcp HTTP/1.1\r\nHost: broker.example\r\n{lines}\r\n".encode())
            self.assertEqual(visit.status, 403)
            self.assert_unreadable(visit, origins)

    def test_nobody_allowed(self) -> None:
        """Without the option no page reads anything."""
        self.broker = WholeBroker()
        for origin in (INSPECTOR, STUDIO):
            self.assertEqual(self.posting(PING)(origin=origin).status, 403)
            for path in SHARED:
                visit = self.sending("GET", path)(origin=origin)
                self.assert_unreadable(visit, path)

    def test_log(self) -> None:
        """A page that is turned away is a refusal whose reason stands in the log."""
        with capturedLogs() as events:
            self.posting(PING)(origin="https://evil.example")
            asks = self.sending("OPTIONS", "/token", access_control_request_method="POST")
            asks(origin="https://evil.example")
        refused = [
            (each["reason"], each["path"]) for each in events if each["log_format"] == "refused"
        ]
        self.assertEqual(refused, [("origin", "/mcp"), ("origin", "/token")])


class PreflightTests(OriginsCase):
    """A browser that asks first."""

    def ask(self, path: str, origin: str | None, **headers: str) -> Visit:
        """A preflight."""
        asked = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,mcp-protocol-version",
        }
        if origin is not None:
            asked["origin"] = origin
        return self.broker.visitor().send("OPTIONS", path, headers=asked | headers)

    def test_allowed(self) -> None:
        """Each path that takes part says which methods and headers a page may use, to anybody
        who has no token yet, and says no more."""
        for path, methods in SHARED.items():
            for target in (path, f"{path}/", f"{path}?x=1"):
                visit = self.ask(target, INSPECTOR)
                self.assertEqual((visit.status, visit.body), (204, b""), target)
                said = cors(visit)
                sendable = said.pop("access-control-allow-headers").lower().replace(" ", "")
                self.assertEqual(set(sendable.split(",")), SENDABLE)
                self.assertEqual(
                    said,
                    {
                        "access-control-allow-origin": INSPECTOR,
                        "access-control-allow-methods": methods,
                        "access-control-expose-headers": READABLE,
                        "access-control-max-age": "600",
                    },
                    target,
                )
                self.assertEqual(visit.header("vary"), "Origin")
                for name in ("content-type", "content-length", "set-cookie", "www-authenticate"):
                    self.assertIsNone(visit.header(name), name)

    def test_foreign(self) -> None:
        """A page of another origin is refused: 403 in the tongue of the path, and no word more."""
        for path in SHARED:
            for origin in FOREIGN:
                visit = self.ask(path, origin)
                self.assertEqual(visit.status, 403, (path, origin))
                self.assertEqual("jsonrpc" in visit.json(), path == "/mcp", path)
                self.assert_unreadable(visit, (path, origin))

    def test_no_preflight(self) -> None:
        """OPTIONS of a program, of our own page, or without a question is 204 and Allow."""
        for path, methods in SHARED.items():
            for visit in (
                self.ask(path, None),
                self.ask(path, PUBLIC_URL),
                self.broker.visitor().send("OPTIONS", path),
            ):
                self.assertEqual((visit.status, visit.body, visit.ended), (204, b"", True), path)
                self.assertEqual(visit.header("allow"), methods)
                self.assert_unreadable(visit, path)
            visit = self.broker.visitor().send("OPTIONS", path, headers={"origin": INSPECTOR})
            self.assertEqual((visit.status, visit.header("allow")), (204, methods))
            self.assert_reads(visit, INSPECTOR, path)

    def test_never_limited(self) -> None:
        """Preflights take nothing of the rate limits: a page asks as often as it likes."""
        for _ in range(2 * limits.RATES_OF_ADDRESS["register"][0]):
            self.assertEqual(self.ask("/register", INSPECTOR).status, 204)
        self.broker.register()

    def test_store_down(self) -> None:
        """They need no store."""
        self.broker.store.fail_all()
        for path in SHARED:
            self.assertEqual(self.ask(path, INSPECTOR).status, 204, path)

    def test_large(self) -> None:
        """One with a body larger than its path takes is refused as any request is."""
        for path in SHARED:
            visit = self.ask(path, INSPECTOR, **{"content-length": MOST})
            self.assertEqual((visit.status, visit.header("connection")), (413, "close"), path)


class ElsewhereTests(OriginsCase):
    """What takes no part."""

    def paths(self) -> dict[str, bool]:
        """Every path of the site without a slash behind it, and whether it takes part."""
        routes = self.broker.parts.site.routes
        return {path.decode(): each.cors for path, each in routes.items() if path[-1:] != b"/"}

    def test_which(self) -> None:
        """These paths take part and no others."""
        self.assertEqual({path for path, takes in self.paths().items() if takes}, set(SHARED))

    def test_pages(self) -> None:
        """Pages, health and what is not there never speak of CORS; their OPTIONS is 405 or 404.

        RFC 9700 §2.6: "CORS MUST NOT be supported at the authorization endpoint".
        """
        others = [path for path, takes in self.paths().items() if not takes]
        self.assertLess(
            {"/oauth/authorize", "/authorize", "/oauth/consent", "/oauth/callback"}, set(others)
        )
        nowhere = ["/nowhere", "/.well-known/nothing", "//mcp", "/mcp/more"]
        for path in ["/", *others, *nowhere]:
            for method in ("GET", "HEAD", "POST", "OPTIONS"):
                headers = {"origin": INSPECTOR, "access-control-request-method": "POST"}
                visit = self.broker.visitor().send(method, path, headers=headers)
                self.assert_unreadable(visit, (method, path), vary=False)
                if method == "OPTIONS":
                    self.assertEqual(visit.status, 404 if path in nowhere else 405, path)

    def test_other_host(self) -> None:
        """Under another Host no page reads anything: DNS rebinding makes it the page's own."""
        for path in SHARED:
            for method in ("GET", "POST", "OPTIONS"):
                for length, status in (("0", 421), (MOST, 413)):
                    headers = {
                        "origin": INSPECTOR,
                        "access-control-request-method": "POST",
                        "host": "rebound.example",
                        "content-length": length,
                    }
                    visit = self.broker.visitor().send(method, path, headers=headers)
                    self.assertEqual(visit.status, status, (method, path))
                    self.assert_unreadable(visit, (method, path), vary=False)


class SaidTests(SynchronousTestCase):
    """What browsers say of what they send."""

    def test_visit(self) -> None:
        """A navigation is a visit, and so is whatever is not said to be something else."""
        table: tuple[tuple[bool, dict[str, str]], ...] = (
            (True, {}),
            (True, {"sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}),
            (True, {"sec-fetch-dest": "document", "sec-fetch-site": "cross-site"}),
            (True, {"sec-fetch-mode": "cors"}),
            (True, {"sec-purpose": ""}),
            *(
                (False, {"sec-fetch-dest": dest})
                for dest in ("image", "empty", "iframe", "frame", "embed", "object", "script")
            ),
            (False, {"sec-fetch-dest": ""}),
            (False, {"sec-fetch-dest": "Document"}),
            (False, {"sec-fetch-dest": "document, image"}),
            (False, {"sec-fetch-dest": "document", "sec-purpose": "prefetch"}),
            (False, {"sec-fetch-dest": "document", "sec-purpose": "prefetch;prerender"}),
        )
        for expected, headers in table:
            said = Headers({name: [value] for name, value in headers.items()})
            self.assertIs(is_visit(said), expected, headers)
        twice = Headers({"sec-fetch-dest": ["document", "image"]})
        self.assertFalse(is_visit(twice))

    def test_page(self) -> None:
        """A browser names an origin, or says from where a request comes; Node.js does neither."""
        for expected, headers in (
            (False, {}),
            (False, {"sec-fetch-mode": "cors", "user-agent": "node"}),
            (True, {"origin": "null"}),
            (True, {"origin": PUBLIC_URL}),
            (True, {"sec-fetch-site": "cross-site"}),
        ):
            said = Headers({name: [value] for name, value in headers.items()})
            self.assertIs(of_page(said), expected, headers)


class BugTests(SynchronousTestCase):
    """A route with a bug."""

    def test_incident(self) -> None:
        """A page reads a 500 too, with the incident's number, and the head of what broke off."""

        async def fail(request: SiteRequest) -> Answer:
            if request.method == b"POST":
                request.write(b"half")
            raise ZeroDivisionError

        routes = [
            route("/token", speaks=Tongue.OAUTH, get=fail, post=fail, cors=True),
            route("/mcp", speaks=Tongue.MCP, get=fail, post=fail, cors=True),
        ]
        clock = Clock()
        site = Site(Endpoints(PUBLIC_URL), routes, clock, allowed_origins=ALLOWED)
        visitor = Visitor(site, clock)
        for path in ("/token", "/mcp"):
            visit = visitor.get(path, origin=STUDIO)
            self.assertEqual((visit.status, b"Incident" in visit.body), (500, True))
            self.assertEqual(cors(visit)["access-control-allow-origin"], STUDIO)
            visit = visitor.send("POST", path, headers={"origin": STUDIO})
            self.assertEqual((visit.status, visit.wire.aborted), (200, True))
            self.assertEqual(cors(visit)["access-control-allow-origin"], STUDIO)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)


# --- whatever Origin ------------------------------------------------------------------

_ORIGINS = [INSPECTOR, STUDIO, PUBLIC_URL]
_TWISTS: list[Callable[[str, str], str]] = [
    lambda origin, letters: origin,
    lambda origin, letters: origin + letters,
    lambda origin, letters: letters + origin,
    lambda origin, letters: letters,
    lambda origin, letters: origin.upper(),
    lambda origin, letters: origin.title(),
    lambda origin, letters: f"{origin}.{letters}",
    lambda origin, letters: f"{origin}:{ord(letters[0])}",
    lambda origin, letters: f"{origin.rpartition(':')[0]}:{ord(letters[0])}",
    lambda origin, letters: origin.replace("://", f"://{letters}@"),
    lambda origin, letters: origin.replace("://", f"://{letters}."),
    lambda origin, letters: origin.replace("http", "ws"),
    lambda origin, letters: origin.replace("://", ":"),
    lambda origin, letters: origin.replace("o", "\N{CYRILLIC SMALL LETTER O}"),
    lambda origin, letters: f"{origin} {INSPECTOR}",
    lambda origin, letters: f"{origin},{origin}",
]
"""From an origin to what looks like one."""
_near = st.builds(
    lambda twist, origin, letters: twist(origin, letters),
    st.sampled_from(_TWISTS),
    st.sampled_from(_ORIGINS),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=6),
)


class AnyOriginTests(OriginsCase):
    """Pages of any origin, several at once among them."""

    @settings(max_examples=60)
    @given(
        st.one_of(
            st.sampled_from(_ORIGINS).map(lambda origin: [origin]),
            st.lists(_near, min_size=1, max_size=2),
            st.tuples(st.sampled_from(_ORIGINS), _near).map(list),
        ),
        st.sampled_from(["GET", "POST", "OPTIONS", "DELETE", "PUT"]),
        st.sampled_from(["", "Access-Control-Request-Method: POST\r\n"]),
        st.sampled_from(["0", MOST]),
    )
    def test_only_the_configured(
        self, origins: list[str], method: str, asks: str, length: str
    ) -> None:
        """An answer names an origin if, and only if, it is configured, is the only one that the
        request names, letter by letter, and its path takes part."""
        lines = "".join(f"Origin: {origin}\r\n" for origin in origins)
        # Spaces around a field's value are none of it (RFC 9110 §5.5).
        came = [origin.strip(" \t") for origin in origins]
        welcome = came[0] if len(came) == 1 and came[0] in ALLOWED else None
        document = "/.well-known/oauth-protected-resource/mcp"
        for path in ("/mcp", "/oauth/token", document, "/oauth/authorize", "/", "/none"):
            visit = self.broker.visitor().connect()
            head = f"{method} {path} HTTP/1.1\r\nHost: broker.example\r\n"
            visit.send(f"{head}Content-Length: {length}\r\n{lines}{asks}\r\n".encode())
            said = cors(visit)
            expected = welcome if path in SHARED else None
            self.assertEqual(said.get("access-control-allow-origin"), expected, path)
            self.assertNotIn("access-control-allow-credentials", said, path)
            if expected is None:
                self.assertEqual(said, {}, path)
            if path == "/mcp" and welcome is None and came != [PUBLIC_URL] and length == "0":
                self.assertEqual(visit.status, 403)
