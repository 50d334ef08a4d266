"""
Processes over one store, on one clock, before one Forgejo.

Each has all that gives out and ends tokens, joined as the daemon joins it, and
may end before or after any of its transactions.  What several of them are
asked at once they do in any order that a reactor and a database allow.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request

from fjmcp.broker.callers import Caller, Callers
from fjmcp.broker.credentials import Credentials
from fjmcp.broker.documents import Documents
from fjmcp.broker.endings import Endings
from fjmcp.broker.issuer import Issuer
from fjmcp.broker.registrar import Registrar
from fjmcp.broker.signins import Asked, FromForge, Onward, SignIns, ToClient
from fjmcp.fetch.documents import Fetcher
from fjmcp.forge.client import Forge
from fjmcp.forge.tokens import ForgeToken
from fjmcp.oauth.authorization import AuthorizationRequest, Params
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import POST
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.refusals import McpRefusal
from fjmcp.store.queries import clients, expiry
from fjmcp.store.sqlite import WRITE, SqliteCursor
from fjmcp.store.transactions import Cursor, Store, Work
from fjmcp.tasks import Tasks
from fjmcp.testing.hosts import PUBLIC_URL, Publishers
from fjmcp.testing.stores import MemoryLane
from fjmcp.testing.whole import EPOCH, FORGE_URL, VERIFIER
from fjmcp.web.addresses import Addresses
from fjmcp.web.rates import Rates
from fjmcp.web.token import Token
from tests.broker.desk import CHALLENGE, REDIRECT, client
from tests.broker.ledger import Ask, End, Redeem, Refresh, Revoke, Use
from tests.broker.model import Fuse, Node, NodePeer, Said, World

T = TypeVar("T")

TICK: Final = 2.0**-10
"""Every write has a moment of its own, so that no two grants are equally old.  A power of two,
so that sums of times are exact."""

SECRET: Final = TokenText("the-secret-of-three")


def with_secret(name: str) -> Client:
    """A client that has a secret."""
    public = client(name)
    metadata = evolve(public.metadata, token_endpoint_auth_method=POST)
    return evolve(public, secrets=(digest(SECRET),), metadata=metadata)


CLIENTS: Final = (client("fj-one"), client("fj-two"), with_secret("fj-three"))

# --- the way to the store -------------------------------------------------------

WHOSE: Final[ContextVar[object]] = ContextVar("whose", default=None)
"""Whose work runs: coroutines hand it on to all that they wait for."""


@define(eq=False)
class Hops:
    """
    The hops of all processes to the store.

    Each is two steps: the transaction runs, its result comes back.  They follow at once, or
    while they are `held` in any order.
    """

    clock: Clock
    held: list[Callable[[], object]] | None = None
    writes: list[tuple[object, float]] = field(factory=list)
    """Whose transactions wrote, one after another, and when."""
    watch: Callable[[], None] = lambda: None
    """Is called at the end of each of them."""

    def then(self, step: Callable[[], object]) -> None:
        """Take a step, now or later."""
        if self.held is None:
            step()
        else:
            self.held.append(step)

    def wrote(self, whose: object) -> None:
        """Note that somebody's transaction wrote; time goes on a little."""
        self.writes.append((whose, self.clock.seconds()))
        self.watch()
        self.clock.rightNow += TICK

    def hold(self) -> None:
        """From here on steps wait."""
        self.held, self.writes = [], []

    def release(self, pick: Callable[[int], int]) -> None:
        """Take the steps that wait, and those that follow; `pick` chooses of so many."""
        assert self.held is not None
        while self.held:
            self.held.pop(pick(len(self.held)))()
        self.held = None


@define
class CrashingLane:
    """A lane of a process: once its fuse has blown nothing runs, and nothing comes back."""

    lane: MemoryLane
    fuse: Fuse
    hops: Hops

    def run(self, work: Work[T]) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        whose = WHOSE.get()

        def noted(cursor: Cursor) -> T:
            try:
                return work(cursor)
            finally:
                if self.lane.begin == WRITE:
                    self.hops.wrote(whose)

        def go() -> None:
            if self.fuse.blown:
                return
            self.fuse.count += 1
            last = self.fuse.count == self.fuse.hops
            if last:
                self.fuse.blown = True
            if not last or self.fuse.after:
                done = self.lane.run(noted)
                self.hops.then(lambda: bring(done))

        def bring(done: Deferred[T]) -> None:
            if self.fuse.blown:
                done.addErrback(lambda failure: None)
            else:
                done.chainDeferred(answer)

        if not self.fuse.blown:
            self.hops.then(go)
        return answer

    def commits_elsewhere(self) -> Deferred[int]:
        return self.lane.commits_elsewhere()

    def close(self) -> Deferred[None]:
        return self.lane.close()


# --- a process -------------------------------------------------------------------


@define(eq=False)
class Running:
    """What would run for grants; it knows who was still let in when it was ended."""

    callers: Callers
    ended: list[str] = field(factory=list)
    too_late: list[str] = field(factory=list)
    """Grants that ended while their tokens were still remembered."""

    def grants(self) -> set[str]:
        return set()

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        self.ended.append(grant_id)
        if any(caller.grant_id == grant_id for caller in self.callers._seen.values()):
            self.too_late.append(grant_id)


@define(eq=False)
class LifePeer(NodePeer):
    """The model as one process sees it; it looks whether a pair is stored when it is used."""

    world: LifeWorld = field(kw_only=True)

    async def user(self, access: ForgeToken) -> Said:
        now = {pair.access.text for pair in self.world.stored_pairs()}
        # A newer pair may have come since.
        if access.text not in now | self.world.stood:
            self.world.used_unstored.append(access.text)
        return await super().user(access)


@define(eq=False)
class Process(Node):
    """One process, whole."""

    clock: Clock
    store: Store
    callers: Callers
    endings: Endings
    running: Running
    signins: SignIns
    token: Token
    tasks: Tasks
    known: set[bytes] = field(factory=set)
    """Digests of the access tokens that it may let in from memory."""
    closed: set[str] = field(factory=set)
    """Grants whose end it knows of."""

    @property
    def alive(self) -> bool:
        """Whether it has not crashed."""
        return not self.fuse.blown

    async def serve(self, ask: Ask) -> object:
        """What a request is answered; a mapping or a refusal from the token endpoint."""
        match ask:
            case Use(link=link):
                return await self.find(link.access)
            case End(grant=grant):
                assert grant.grant_id is not None
                await self.tasks.shield(self.endings.end(grant.grant_id, "operator"))
                return None
            case Revoke(link=link):
                text = link.access if ask.by_access else link.refresh
                return await self.token.revoke(_request(), _form(ask, token=text))
            case _:
                return await self.token.token(_request(), _form(ask))

    async def find(self, access: str | None) -> Caller | McpRefusal:
        """Whom an access token speaks for."""
        assert access is not None
        return await self.callers.find(TokenText(access))

    async def sign_in(self, asked: AuthorizationRequest, code: Callable[[], str]) -> object:
        """Somebody allows it at our page, signs in at Forgejo and comes back: where to, or what
        else they see."""
        browser = mint(Kind.BROWSER)
        begun = await self.signins.begin(asked, browser)
        assert isinstance(begun, Asked), begun
        onward = await self.signins.consent(begun.signin, browser)
        assert isinstance(onward, Onward), onward
        back = FromForge(
            state=onward.state,
            held=onward.state,
            code=code(),
            error=None,
            issuer=None,
            browser=browser,
        )
        seen = await self.tasks.shield(self.signins.come_back(back))
        return seen.url if isinstance(seen, ToClient) else seen

    async def look_for_expired(self) -> None:
        """What upkeep does about what has expired."""
        await self.endings.expire()
        await self.store.write(expiry.sweep, self.clock.seconds())


def _request() -> Request:
    channel = HTTPChannel()
    channel.transport = StringTransport()
    return Request(channel)


def _form(ask: Ask, **more: str | None) -> Params:
    """What a client sends to the token endpoint or its like."""
    said: dict[str, str | None] = {"client_id": ask.client.client_id, **more}
    if ask.client.secrets and ask.secret == "its own":
        said["client_secret"] = SECRET.text
    elif ask.secret == "another":
        said["client_secret"] = "another secret"
    match ask:
        case Redeem(grant=grant):
            said |= {
                "grant_type": "authorization_code",
                "code": grant.code,
                "redirect_uri": REDIRECT if ask.redirect else f"{REDIRECT}/",
                "code_verifier": VERIFIER if ask.verifier else "w" * 43,
            }
        case Refresh(link=link):
            said |= {
                "grant_type": "refresh_token",
                "refresh_token": link.refresh,
                "scope": ask.scope,
            }
    if isinstance(ask, Redeem | Refresh):
        said["resource"] = f"{PUBLIC_URL}/mcp" if ask.ours else "https://elsewhere.example/mcp"
    return Params(tuple((name, value) for name, value in said.items() if value is not None))


# --- the world --------------------------------------------------------------------


@define(eq=False)
class LifeWorld(World):
    """A store, a Forgejo, and whole processes that come and go."""

    hops: Hops = field(init=False)
    deaths: dict[int, set[tuple[int, int]]] = field(factory=dict)
    """Accounts that are dead, and the pairs that stood in a row when they died."""
    ever: set[tuple[int, int]] = field(factory=set)
    """Grant and counter of every pair that stood in any row."""
    newest: dict[int, tuple[int, int]] = field(factory=dict)
    """Grant and counter of the pair in each account's row."""
    stood: set[str] = field(factory=set, repr=False)
    """Access tokens of Forgejo that stood there."""
    went_back: list[int] = field(factory=list)
    """Accounts in whose row an older pair took a newer one's place."""
    used_unstored: list[str] = field(factory=list)
    """Access tokens that the API of Forgejo was shown before they stood in any row."""
    _watched: object = None

    @hops.default
    def _hops(self) -> Hops:
        return Hops(self.clock)

    def __attrs_post_init__(self) -> None:
        self.clock.advance(EPOCH)
        self.hops.watch = self._watch
        for each in CLIENTS:
            self.put(clients.add, each)
            for secret in each.secrets:
                token = digest(mint(Kind.REGISTRATION))
                self.put(clients.register, each.client_id, token, secret, EPOCH)

    def process(self) -> Process:
        """A process starts."""
        name = f"process-{len(self.nodes) + 1}"
        fuse, slept = Fuse(), list[int]()
        writer, reader = self.store.lanes
        store = Store(CrashingLane(writer, fuse, self.hops), CrashingLane(reader, fuse, self.hops))
        callers = Callers(store, self.clock)
        running = Running(callers)
        endings = Endings(store, callers, self.clock)
        endings.also_end(running)
        endpoints = Endpoints(PUBLIC_URL)
        tasks = Tasks()
        # Nobody is asked for a document: none of the clients is named by one.
        fetch = Fetcher(Publishers().errand, self.clock).fetch
        documents = Documents(store, fetch, tasks, self.clock, self.clock)

        async def suspend(account_id: int) -> None:
            slept.append(account_id)
            await endings.suspend(account_id)

        credentials = Credentials(
            store=store,
            ring=self.ring,
            forge=LifePeer(name, self.server, world=self),
            clock=self.clock,
            owner=name,
            suspend=suspend,
        )
        process = Process(
            name=name,
            credentials=credentials,
            fuse=fuse,
            slept=slept,
            clock=self.clock,
            store=store,
            callers=callers,
            endings=endings,
            running=running,
            signins=SignIns(store, self.ring, self._forge(), credentials, endpoints, self.clock),
            token=Token(
                Registrar(store, endings, self.clock, documents=documents),
                Issuer(store, self.ring, endings, endpoints, self.clock),
                tasks,
                self.clock,
                Rates(Addresses(None), self.clock),
            ),
            tasks=tasks,
        )
        self.nodes.append(process)
        return process

    def ask(self, work: Callable[..., T], *args: object) -> T:
        """Something is read at once, whether the store is down or not."""
        return work(SqliteCursor(self.store.lanes[0].connection), *args)

    def put(self, work: Callable[..., object], *args: object) -> None:
        """Likewise, something is written."""
        self.store.lanes[0].connection.execute("PRAGMA query_only=OFF")
        self.ask(work, *args)

    def rows(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """What stands in the store, whether it is down or not."""
        return self.store.lanes[0].connection.execute(sql, params).fetchall()

    def _watch(self) -> None:
        """See what a transaction has done to the pairs."""
        rows, on_the_way = self.rows(_ACCOUNTS), self.rows(_ON_THE_WAY)
        if (rows, on_the_way) == self._watched:
            return
        self._watched = rows, on_the_way
        self.ever |= self.standing()
        for account_id, dead_since, gnt, cnt in rows:
            if dead_since is None:
                self.deaths.pop(account_id, None)
            elif account_id not in self.deaths:
                self.deaths[account_id] = self.standing()
            if (gnt, cnt) < self.newest.get(account_id, (0, 0)):
                self.went_back.append(account_id)
            self.newest[account_id] = gnt, cnt
            self.stood.add(self.pair(account_id).access.text)

    def _forge(self) -> Forge:
        """What is known of Forgejo without asking it; it is asked through `LifePeer`."""
        nobody: Any = None
        return Forge(
            http=nobody,
            url=FORGE_URL,
            client_id="the-broker",
            client_secret="the-secret",
            callback_url=f"{PUBLIC_URL}/oauth/callback",
            scopes="read:user",
            clock=self.clock,
        )


_ACCOUNTS: Final = "SELECT account_id, dead_since, forge_grant, forge_count FROM accounts"
_ON_THE_WAY: Final = "SELECT signin FROM signins WHERE credential IS NOT NULL"


def request_of(asked: Client, scopes: str) -> AuthorizationRequest:
    """What a client asks a person for."""
    return AuthorizationRequest(
        asked.client_id, REDIRECT, "the-state", CHALLENGE, scopes, f"{PUBLIC_URL}/mcp"
    )
