"""
A broker, whole, in memory, with a stand-in Forgejo behind it; and apps that connect to it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import define, evolve, field
from treq.testing import RequestTraversalAgent

from fjmcp import limits
from fjmcp.broker.pairs import Pairs
from fjmcp.broker.signins import challenge
from fjmcp.children.launch import Launcher
from fjmcp.children.profiles import Recipe, recipe_for
from fjmcp.daemon.assembly import Parts, assemble
from fjmcp.daemon.clocks import WallClock
from fjmcp.daemon.settings import Settings
from fjmcp.demo.browser import Browser, Page
from fjmcp.demo.forge.standin import StandIn
from fjmcp.fetch.documents import Errand
from fjmcp.forge.admission import Admission
from fjmcp.forge.client import http_over
from fjmcp.forge.tokens import Pair
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.store.keys import KeySources
from fjmcp.store.queries import accounts, grants
from fjmcp.store.vault import Ring
from fjmcp.testing.hosts import PUBLIC_URL, Hosts, Publishers
from fjmcp.testing.reactor import FakeReactor, now
from fjmcp.testing.stores import MemoryStore, memory_store
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.web.addresses import Proxies

FORGE_URL: Final = "https://forge.example"
CLIENT_URL: Final = "https://client.example/callback"
"""Where an `App` wants its browsers back, unless it says otherwise."""
SCOPES: Final = "read:user write:repository write:issue"
VERIFIER: Final = "a-verifier-that-is-long-enough-for-the-rule-of-43"
EPOCH: Final = 1_800_000_000.0
"""When everything in memory begins."""


@define(eq=False)
class WholeBroker:
    """
    All that the daemon joins, in memory and on one clock.

    A stand-in Forgejo behind it, children that are fakes, and browsers and
    clients before it.

    :ivar reactor: the clock, with the children.
    :ivar forge: where Alice and Bob have accounts.
    :ivar wires: how Forgejo is reached; `flush` brings a late answer home.
    :ivar publishers: the hosts of metadata documents, all of them away at first.
    :ivar set_by: by how many seconds the broker's machine's clock was set.
    :ivar scopes: what it asks Forgejo for.
    :ivar admission: who may come in.
    """

    reactor: FakeReactor = field(factory=FakeReactor)
    store: MemoryStore = field(factory=memory_store)
    forge: StandIn = field(init=False)
    wires: Any = field(init=False)
    publishers: Publishers = field(factory=Publishers)
    errand: Callable[[], Errand] | None = None
    """Another way out to the hosts of metadata documents than `publishers`."""
    ring: Ring = field(factory=Ring.generate, repr=False)
    trusted_proxies: Proxies | None = None
    allowed_origins: frozenset[str] = frozenset()
    meter: Meter = SILENT
    set_by: float = 0.0
    scopes: str = SCOPES
    admission: Admission = field(factory=Admission)
    child: Recipe = field(factory=lambda: recipe_for(["/opt/forgejo-mcp"]))
    settings: Mapping[str, Any] = field(factory=dict)
    """What an operator set in other ways than the defaults."""
    parts: Parts = field(init=False)
    _clients: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.reactor.advance(EPOCH - self.reactor.seconds())
        self.forge = StandIn(
            self.reactor, FORGE_URL, redirect_uris=(f"{PUBLIC_URL}/oauth/callback",)
        )
        self.wires = RequestTraversalAgent(self.forge.resource)
        settings = Settings(
            listen="none",
            public_url=PUBLIC_URL,
            trusted_proxies=self.trusted_proxies,
            forgejo_url=FORGE_URL,
            forgejo_oauth_client_id=self.forge.client_id,
            forgejo_oauth_client_secret=self.forge.client_secret,
            forgejo_oauth_scopes=self.scopes,
            store=Path("none"),
            keys=KeySources(None, None, None),
            child=self.child,
            max_sessions=limits.CHILDREN,
            session_idle_timeout=limits.SESSION_IDLE,
            session_reap_interval=limits.REAP,
            token_refresh_lead=limits.REFRESH_LEAD,
            token_refresh_interval=limits.ROTATE,
            unknown_session_status=404,
            require_session_id=False,
            debug=False,
            allowed_origins=self.allowed_origins,
            allow_users=self.admission.users,
            allow_orgs=self.admission.orgs,
            deny_admins=self.admission.deny_admins,
        )
        self.parts = assemble(
            evolve(settings, **self.settings),
            self.store,
            self.ring,
            clock=WallClock(self.reactor, lambda: self.reactor.seconds() + self.set_by),
            ticks=self.reactor,
            http=http_over(self.wires),
            errand=self.errand or self.publishers.errand,
            launcher=Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg),
            unready=lambda: None,
            meter=self.meter,
        )

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.reactor.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Let all that is due happen, at Forgejo too."""
        self.wires.flush()
        self.reactor.turn()

    def account(self, login: str) -> int:
        """The account of somebody at the forge; it is made, as by a sign-in, if need be."""
        person = self.forge.instance.person(login)
        assert person is not None
        if now(self.store.read(accounts.find, person.id)) is None:
            self.signs_in_elsewhere(login)
        return person.id

    def signs_in_elsewhere(self, login: str) -> None:
        """A sign-in of this person, through no client in particular, brings a pair."""
        person = self.forge.instance.person(login)
        assert person is not None
        began = self.reactor.seconds()
        pair = Pair.read(self.forge.hand_out(login, self.scopes), began, began, None)
        assert pair is not None
        sealed = Pairs(self.store, self.ring, self.reactor).seal(person.id, pair)
        nowhere = digest(mint(Kind.SIGN_IN))
        now(self.store.write(accounts.admit, nowhere, person.id, login, sealed, began))

    def visitor(self) -> Visitor:
        """An HTTP client of the site."""
        return Visitor(self.parts.site, self.reactor)

    def browser(self, *stops: str) -> Browser:
        """A browser without cookies, which stops where the clients are."""
        return Browser(Hosts(self), (CLIENT_URL, "http://127.0.0.1", "http://localhost", *stops))

    def known_by(self, document: Mapping[str, Any]) -> App:
        """A client that names itself by the URL of its metadata document, published or not."""
        return App(self, {**document, "token_endpoint_auth_method": "none"})

    def register(self, **metadata: object) -> App:
        """A client that has registered itself; by default a public one, as most are."""
        self._clients += 1
        asked: dict[str, object] = {
            # Each another name: identical registrations would be one client.
            "client_name": "The client" + (f" {self._clients}" if self._clients > 1 else ""),
            "redirect_uris": [CLIENT_URL],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
        }
        visit = self.visitor().post_json("/oauth/register", asked | metadata)
        if visit.status != 201:
            raise AssertionError(f"{visit.status}: {visit.body!r}")
        return self.app(visit.json())

    def app(self, registered: dict[str, Any]) -> App:
        """A client that was answered so when it registered."""
        return App(self, registered)


@define(eq=False)
class App:
    """A client of a `WholeBroker`; what it can do is an API of few words."""

    broker: WholeBroker
    registered: dict[str, Any] = field(repr=False)

    @property
    def client_id(self) -> str:
        """Its name at the broker."""
        return str(self.registered["client_id"])

    def authorize_url(self, **changes: str | None) -> str:
        """Where it sends a browser; a parameter that is None is left out."""
        asked: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.registered["redirect_uris"][0],
            "state": "the-state",
            "code_challenge": challenge(TokenText(VERIFIER)),
            "code_challenge_method": "S256",
            "resource": f"{PUBLIC_URL}/mcp",
        }
        query = {n: v for n, v in (asked | changes).items() if v is not None}
        return f"{PUBLIC_URL}/oauth/authorize?{urlencode(query)}"

    def open(self, browser: Browser | None = None, **changes: str | None) -> Page:
        """The page that a browser is shown first: our consent page, or a refusal."""
        return now((browser or self.broker.browser()).open(self.authorize_url(**changes)))

    def sign_in(
        self, login: str = "alice", browser: Browser | None = None, **changes: str | None
    ) -> dict[str, str]:
        """Somebody allows it and signs in; what it is told at its redirect URI."""
        browser = browser or self.broker.browser()
        page = walk(browser, self.open(browser, **changes), login)
        return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))

    def code(self, login: str = "alice", **changes: str) -> str:
        """A code for somebody, as `sign_in` would bring it, without any browser."""
        code = mint(Kind.CODE)
        asked: dict[str, str] = {
            "client_id": self.client_id,
            "redirect_uri": self.registered["redirect_uris"][0],
            "state": "the-state",
            "challenge": challenge(TokenText(VERIFIER)),
            "scopes": "forge:read forge:write",
            "resource": f"{PUBLIC_URL}/mcp",
        }
        request = AuthorizationRequest(**(asked | changes))
        account_id, began = self.broker.account(login), self.broker.reactor.seconds()
        now(self.broker.store.write(grants.add_code, digest(code), account_id, request, began))
        return code.text

    def ask(self, path: str, form: Mapping[str, str | None], **headers: str) -> Visit:
        """POST a form, authenticated as it registered; a field that is None is left out."""
        method, secret = (
            self.registered["token_endpoint_auth_method"],
            self.registered.get("client_secret"),
        )
        known: dict[str, str | None] = {"client_id": self.client_id}
        if method == "client_secret_post":
            known["client_secret"] = secret
        if method == "client_secret_basic":
            del known["client_id"]
            words = b64encode(f"{self.client_id}:{secret}".encode()).decode()
            headers.setdefault("authorization", f"Basic {words}")
        said = {n: v for n, v in (known | dict(form)).items() if v is not None}
        return self.broker.visitor().post_form(path, said, **headers)

    def redeem(self, code: str | None, **changes: str | None) -> Visit:
        """A code for tokens."""
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.registered["redirect_uris"][0],
            "code_verifier": VERIFIER,
        }
        return self.ask("/oauth/token", form | changes)

    def refresh(self, token: str | None, **changes: str | None) -> Visit:
        """A refresh token for the next tokens."""
        form: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": token}
        return self.ask("/oauth/token", form | changes)

    def revoke(self, token: str | None) -> Visit:
        """The end of a grant."""
        return self.ask("/oauth/revoke", {"token": token})

    def tokens(self, login: str = "alice", **changes: str | None) -> dict[str, Any]:
        """The token response for a code."""
        visit = self.redeem(self.code(login), **changes)
        if visit.status != 200:
            raise AssertionError(f"{visit.status}: {visit.body!r}")
        answer: dict[str, Any] = visit.json()
        return answer

    def call(self, access: str, method: str = "tools/list", **headers: str) -> Visit:
        """One MCP request without a session; a child is started for it if need be."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
        visit = self.broker.visitor().post_json(
            "/mcp", message, authorization=f"Bearer {access}", **headers
        )
        self.broker.reactor.turn()
        return visit

    def knocks(self, access: str) -> int:
        """The status of a `ping`, which needs no child: whether a token is good."""
        return self.call(access, "ping").status


def walk(browser: Browser, page: Page, login: str = "alice") -> Page:
    """
    Go on from our consent page as somebody who allows everything.

    A page that asks who came back is the end, too: the test knows.
    """
    for _ in range(5):
        buttons = {value for _, value in page.form.buttons} if page.forms else set()
        if not page.forms or "continue" in buttons:
            return page
        fields = page.form.fields
        if "password" in fields:
            said = {"user_name": login, "password": f"{login}-demo-password"}
            page = now(browser.submit(page, **said))
        else:
            page = now(browser.submit(page, next(b for b in ("allow", "true") if b in buttons)))
    raise AssertionError(f"still forms at {page.url}")
