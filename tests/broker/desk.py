"""The issuer and what it works with, in memory: what its tests do again and again."""

from __future__ import annotations

from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fjmcp.broker.callers import Caller, Callers
from fjmcp.broker.endings import Endings
from fjmcp.broker.issuer import Issued, Issuer
from fjmcp.oauth.authorization import AuthorizationRequest, Params
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import NONE, ClientMetadata
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.refusals import McpRefusal, OAuthRefusal
from fjmcp.store.queries import accounts, clients, grants
from fjmcp.store.queries.accounts import SealedPair
from fjmcp.store.transactions import Cursor, Lane, Store, Work
from fjmcp.store.vault import Ring
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.stores import MemoryStore, memory_store
from fjmcp.testing.whole import EPOCH, VERIFIER

T = TypeVar("T")

ADA, BOB = 7, 8
REDIRECT = "https://client.example/callback"
CHALLENGE = "aTHcuf1dzpEf1zNTFBMtRAg5g90QcrIBm3OIExpj7a0"
"""S256 of `VERIFIER`."""


def client(name: str) -> Client:
    """A public client."""
    metadata = ClientMetadata(
        redirect_uris=(REDIRECT,),
        grant_types=("authorization_code", "refresh_token"),
        token_endpoint_auth_method=NONE,
    )
    return Client(name, (), metadata, EPOCH)


ONE, TWO = client("fj-one"), client("fj-two")


def add_account(cursor: Cursor, account_id: int) -> None:
    """An account with a pair that nobody opens; one that was dead lives."""
    nowhere = digest(mint(Kind.SIGN_IN))
    pair = SealedPair(os_bytes(), None, None, EPOCH, EPOCH + 3600)
    accounts.admit(cursor, nowhere, account_id, f"person-{account_id}", pair, EPOCH)


def os_bytes() -> bytes:
    """Bytes unlike any others."""
    return digest(mint(Kind.STATE)).value


def kill_account(cursor: Cursor, account_id: int) -> None:
    """Forgejo refused the account's credential."""
    cursor.execute("UPDATE accounts SET dead_since = ? WHERE account_id = ?", EPOCH, account_id)


@define(eq=False)
class LateLane:
    """
    A lane whose transactions run at once and whose answers come late.

    `held`: None, or the answers that wait for `deliver`, oldest first.
    """

    lane: Lane
    held: list[Deferred[None]] | None = None

    def run(self, work: Work[T]) -> Deferred[T]:
        done = self.lane.run(work)
        if self.held is None:
            return done
        gate: Deferred[None] = Deferred()
        self.held.append(gate)
        late: Deferred[T] = Deferred()
        gate.addCallback(lambda _: done.addCallbacks(late.callback, late.errback))
        return late

    def commits_elsewhere(self) -> Deferred[int]:
        return self.lane.commits_elsewhere()

    def close(self) -> Deferred[None]:
        return self.lane.close()

    def deliver(self) -> None:
        """Bring the answers that wait; later ones come at once again."""
        held, self.held = self.held or [], None
        for gate in held:
            gate.callback(None)


@define(eq=False)
class Runs:
    """What would run for grants: remembers what was ended, and may take its time."""

    callers: Callers | None = None
    ended: list[tuple[str, McpRefusal]] = field(factory=list)
    waits: list[Deferred[None]] | None = None
    fails: Exception | None = None
    ours: set[str] = field(factory=set)
    """The grants for which it runs."""
    broken: Exception | None = None
    """What it raises when it is asked for them."""
    seen: list[int] = field(factory=list)
    """How many tokens the callers still knew at each end."""

    def grants(self) -> set[str]:
        if self.broken is not None:
            raise self.broken
        return self.ours

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        self.ended.append((grant_id, refusal))
        if self.callers is not None:
            self.seen.append(len(self.callers._seen))
        if self.fails is not None:
            raise self.fails
        if self.waits is not None:
            wait: Deferred[None] = Deferred()
            self.waits.append(wait)
            await wait


@define(eq=False)
class Desk:
    """Issuer, callers and endings over one memory store."""

    clock: Clock = field(factory=Clock)
    memory: MemoryStore = field(factory=memory_store)
    ring: Ring = field(factory=Ring.generate)
    late: LateLane = field(init=False)
    store: Store = field(init=False)
    callers: Callers = field(init=False)
    endings: Endings = field(init=False)
    issuer: Issuer = field(init=False)
    runs: Runs = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.clock.advance(EPOCH)
        writer, reader = self.memory.lanes
        self.late = LateLane(reader)
        self.store = Store(writer, self.late)
        self.callers = Callers(self.store, self.clock)
        self.endings = Endings(self.store, self.callers, self.clock)
        self.runs = Runs(self.callers)
        self.endings.also_end(self.runs)
        self.issuer = Issuer(self.store, self.ring, self.endings, Endpoints(PUBLIC_URL), self.clock)
        for account_id in (ADA, BOB):
            now(self.store.write(add_account, account_id))
        for each in (ONE, TWO):
            now(self.store.write(clients.add, each))

    def code(self, asked: Client = ONE, account_id: int = ADA) -> str:
        """A code for somebody."""
        text = mint(Kind.CODE)
        request = AuthorizationRequest(
            asked.client_id, REDIRECT, "s", CHALLENGE, "forge:read forge:write", f"{PUBLIC_URL}/mcp"
        )
        began = self.clock.seconds()
        now(self.store.write(grants.add_code, digest(text), account_id, request, began))
        return text.text

    def start_redeem(self, code: str, asked: Client = ONE) -> Deferred[Issued | OAuthRefusal]:
        """Begin to redeem a code."""
        form = Params((("code", code), ("redirect_uri", REDIRECT), ("code_verifier", VERIFIER)))
        return Deferred.fromCoroutine(self.issuer.redeem(asked, form))

    def start_refresh(self, token: str, asked: Client = ONE) -> Deferred[Issued | OAuthRefusal]:
        """Begin to refresh."""
        form = Params((("refresh_token", token),))
        return Deferred.fromCoroutine(self.issuer.refresh(asked, form))

    def issue(self, asked: Client = ONE, account_id: int = ADA) -> Issued:
        """A grant's first pair."""
        issued = now(waited(self.start_redeem(self.code(asked, account_id), asked)))
        assert isinstance(issued, Issued), issued
        return issued

    def refresh(self, token: TokenText | None, asked: Client = ONE) -> Issued | OAuthRefusal:
        """The next pair, or why not."""
        assert token is not None
        return now(waited(self.start_refresh(token.text, asked)))

    def find(self, token: TokenText) -> Caller | McpRefusal:
        """Whom a token speaks for."""
        return now(self.callers.find(token))

    def truth(self, token: TokenText) -> Caller | McpRefusal:
        """The same by the store alone."""
        return now(Callers(self.memory, self.clock).find(token))

    def grant_of(self, token: TokenText) -> str:
        """The grant of an access token."""
        bearer = now(self.store.read(grants.bearer, digest(token)))
        assert bearer is not None
        return bearer.grant.grant_id

    def rows(self, sql: str, *params: object) -> list[tuple[object, ...]]:
        """What stands in the store, whether it is down or not."""
        return self.memory.lanes[0].connection.execute(sql, params).fetchall()


async def waited(going: Deferred[T]) -> T:
    """A Deferred as a coroutine."""
    return await going
