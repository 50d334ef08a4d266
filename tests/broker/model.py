"""
A Forgejo in memory, as far as credentials go, and the nodes that ask it.

It keeps one grant per person with one counter, which every exchange and every
refresh raises, as `INVALIDATE_REFRESH_TOKENS` has it by default.  A call may
be answered at once, or stand between the stages that a test steps it through:
sent, acted on, answered; its answer may come late or never.  So may a look at a
person.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from math import inf
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import Clock

from fjmcp import limits
from fjmcp.broker.credentials import Credentials
from fjmcp.forge.answers import Introspected, NewPair, Outcome, Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken, Pair
from fjmcp.oauth.tokens import Digest, Kind, digest, mint
from fjmcp.store.queries import accounts, exchanges
from fjmcp.store.queries.accounts import Account
from fjmcp.store.transactions import Cursor, Lane, Store, Work
from fjmcp.store.vault import Ring
from fjmcp.testing.stores import MemoryStore, memory_store

T = TypeVar("T")

CLIENT_ID = "the-broker"
SCOPES = "read:user write:repository"

ADA, BOB = 7, 8
LOGINS = {ADA: "ada", BOB: "bob"}


@define
class ForgeGrant:
    """One person's grant to our application."""

    gnt: int
    account_id: int
    scope: str
    count: int = 0
    live: bool = True


@define(eq=False)
class Call:
    """A call of the token endpoint."""

    node: str
    kind: str
    secret: str = field(repr=False)
    sent_at: float
    answer: Deferred[Outcome] = field(factory=Deferred, repr=False)
    outcome: Outcome | None = field(default=None, repr=False)
    """What Forgejo did; None until it acted."""
    answered_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether somebody waits for the answer."""
        return not self.answer.called


Said = User | Refused | Troubled


@define(eq=False)
class Sight:
    """A look at a person."""

    node: str
    access: ForgeToken = field(repr=False)
    answer: Deferred[Said] = field(factory=Deferred, repr=False)
    asked_at: float = 0.0
    said: Said | None = None
    """What Forgejo said; None until it looked."""

    @property
    def open(self) -> bool:
        """Whether somebody waits for the answer."""
        return not self.answer.called


@define(eq=False, slots=False)
class ModelForgejo:
    """The server: it knows who signed in, and what it gave to whom."""

    clock: Clock
    life: float = 3600.0
    readable: bool = True
    """Whether its tokens are JWTs that can be read."""
    counting: bool = True
    """INVALIDATE_REFRESH_TOKENS."""
    held: bool = False
    """Whether calls of the token endpoint wait for `act` and `deliver`."""
    dark: bool = False
    """Whether introspection does not answer."""
    scope: str = SCOPES
    audience: str = CLIENT_ID
    users: dict[int, Said] = field(
        factory=lambda: {each: User(each, login) for each, login in LOGINS.items()}
    )
    groups: dict[int, frozenset[str] | Refused | Troubled] = field(factory=dict)
    """The organizations, and teams as `organization:team`, in which somebody is."""
    away: bool = False
    """Whether the API does not say who anybody is."""
    slow: bool = False
    """Whether looks at people wait for `look` and `show`."""
    sights: list[Sight] = field(factory=list)
    on_show: Callable[[Sight], None] = lambda sight: None
    """Told of each answer to a look, before it arrives."""
    calls: list[Call] = field(factory=list)
    given: list[Pair] = field(factory=list)
    grants: list[ForgeGrant] = field(factory=list)
    _codes: dict[str, int] = field(factory=dict)
    _serial: int = 0

    # --- the person ---------------------------------------------------------------

    def authorize(self, account_id: int) -> str:
        """The person signs in; the code that the browser brings."""
        self._serial += 1
        code = f"gta_{self._serial}"
        self._codes[code] = account_id
        return code

    def revoke(self, account_id: int) -> None:
        """The person revokes our application."""
        for grant in self.grants:
            if grant.account_id == account_id:
                grant.live = False

    def grant(self, account_id: int) -> ForgeGrant | None:
        """The person's living grant."""
        return next((g for g in self.grants if g.account_id == account_id and g.live), None)

    # --- the token endpoint -----------------------------------------------------------

    def act(self, call: Call) -> None:
        """Do what is asked; the answer is not sent yet."""
        if call.outcome is None:
            work = self._exchange if call.kind == "exchange" else self._refresh
            call.outcome = work(call.secret)

    def deliver(self, call: Call) -> None:
        """The answer arrives, now."""
        self.act(call)
        if call.open:
            outcome = call.outcome
            assert outcome is not None
            if isinstance(outcome, NewPair):
                given = outcome.pair
                pair = Pair(
                    given.access,
                    given.refresh,
                    given.expires_in,
                    given.asked_at,
                    self.clock.seconds(),
                )
                self.given.append(pair)
                outcome = NewPair(pair)
            call.answered_at = self.clock.seconds()
            call.answer.callback(outcome)

    def lose(self, call: Call) -> None:
        """The connection breaks."""
        if call.open:
            call.answer.callback(Troubled("connection-lost", unsure=True))

    def waiting(self) -> list[Call]:
        """The calls that are not answered."""
        return [call for call in self.calls if call.open]

    def _exchange(self, code: str) -> Outcome:
        account_id = self._codes.pop(code, None)
        if account_id is None:
            return Refused("unauthorized_client", "client is not authorized")
        grant = self.grant(account_id)
        if grant is None:
            grant = ForgeGrant(len(self.grants) + 1, account_id, self.scope)
            self.grants.append(grant)
        grant.count += 1
        return self._pair(grant)

    def _refresh(self, token: str) -> Outcome:
        said = read(token)
        grant = self.grants[said["gnt"] - 1]
        if not grant.live:
            return Refused("invalid_grant", "grant does not exist")
        if self.counting and said["cnt"] != grant.count:
            return Refused("unauthorized_client", "token was already used")
        grant.count += 1
        return self._pair(grant)

    def _pair(self, grant: ForgeGrant) -> NewPair:
        now = self.clock.seconds()
        access = self._token({"gnt": grant.gnt, "tt": 0, "exp": now + self.life})
        refresh = self._token({"gnt": grant.gnt, "tt": 1, "cnt": grant.count})
        return NewPair(Pair(access, refresh, self.life, now, now))

    def _token(self, claims: dict[str, object]) -> ForgeToken:
        self._serial += 1
        claims = {**claims, "serial": self._serial}
        if not self.counting:
            claims.pop("cnt", None)
        body = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return ForgeToken(f"eyJ9.{body}.sig" if self.readable else f"opaque{body}")

    # --- what changes nothing -------------------------------------------------------------

    def introspect(self, token: ForgeToken) -> Introspected | Troubled:
        """RFC 7662, by whose grant it is."""
        if self.dark:
            return Troubled("status-503")
        said = read(token.text)
        grant = self.grants[said["gnt"] - 1]
        if not grant.live or said.get("exp", float("inf")) <= self.clock.seconds():
            return Introspected(False)
        login = LOGINS[grant.account_id]
        return Introspected(
            True, str(grant.account_id), grant.scope, frozenset({self.audience}), login
        )

    def whose(self, access: ForgeToken) -> int:
        """Whose token it is."""
        return self.grants[read(access.text)["gnt"] - 1].account_id

    def look(self, sight: Sight) -> None:
        """See who it is; the answer is not sent yet."""
        if sight.said is None:
            away = Troubled("status-503", unsure=True)
            sight.said = away if self.away else self.users[self.whose(sight.access)]

    def show(self, sight: Sight) -> None:
        """The answer arrives, now."""
        self.look(sight)
        if sight.open:
            assert sight.said is not None
            self.on_show(sight)
            sight.answer.callback(sight.said)

    def looking(self) -> list[Sight]:
        """The looks that are not answered."""
        return [sight for sight in self.sights if sight.open]


def read(token: str) -> dict[str, int]:
    """What the model wrote into a token."""
    body = token.removeprefix("opaque").removeprefix("eyJ9.").removesuffix(".sig")
    said: dict[str, int] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return said


def counted(token: str) -> tuple[int, int]:
    """Grant and counter of a refresh token: the greater, the newer."""
    said = read(token)
    return said["gnt"], said["cnt"]


@define(eq=False)
class NodePeer:
    """The model as one node sees it: `fjmcp.broker.exchanges.Peer`."""

    node: str
    server: ModelForgejo
    client_id: str = CLIENT_ID
    scopes: str = SCOPES

    async def exchange(self, code: str, verifier: str) -> Outcome:
        return await self._call("exchange", code)

    async def refresh(self, token: ForgeToken) -> Outcome:
        return await self._call("refresh", token.text)

    async def introspect(self, token: ForgeToken) -> Introspected | Troubled:
        return self.server.introspect(token)

    async def user(self, access: ForgeToken) -> Said:
        sight = Sight(self.node, access, asked_at=self.server.clock.seconds())
        self.server.sights.append(sight)
        if not self.server.slow:
            self.server.show(sight)
        try:
            return await sight.answer.addTimeout(limits.FORGE_ANSWER, self.server.clock)
        except TimeoutError:
            return Troubled("timeout", unsure=True)

    async def in_organization(
        self, access: ForgeToken, user: User, organization: str
    ) -> bool | Refused | Troubled:
        return self._is_in(user, organization)

    async def in_team(
        self, access: ForgeToken, user: User, organization: str, team: str
    ) -> bool | Refused | Troubled:
        return self._is_in(user, f"{organization}:{team}")

    def _is_in(self, user: User, name: str) -> bool | Refused | Troubled:
        groups = self.server.groups.get(user.account_id, frozenset())
        return name in groups if isinstance(groups, frozenset) else groups

    async def _call(self, kind: str, secret: str) -> Outcome:
        call = Call(self.node, kind, secret, self.server.clock.seconds())
        self.server.calls.append(call)
        if not self.server.held:
            self.server.deliver(call)
        try:
            return await call.answer.addTimeout(limits.FORGE_TOKEN, self.server.clock)
        except TimeoutError:
            return Troubled("timeout", unsure=True)


# --- nodes that crash ---------------------------------------------------------------


@define
class Fuse:
    """
    When a node crashes: at its `hops`th transaction from here, before or after
    it commits.  None: not yet.
    """

    hops: int | None = None
    after: bool = False
    blown: bool = False
    count: int = 0


@define
class FusedLane:
    """A lane of a node that may crash: from then on nothing comes back."""

    lane: Lane
    fuse: Fuse

    def run(self, work: Work[T]) -> Deferred[T]:
        if self.fuse.blown:
            return Deferred()
        self.fuse.count += 1
        if self.fuse.count == self.fuse.hops:
            self.fuse.blown = True
            if self.fuse.after:
                self.lane.run(work)
            return Deferred()
        return self.lane.run(work)

    def commits_elsewhere(self) -> Deferred[int]:
        return self.lane.commits_elsewhere()

    def close(self) -> Deferred[None]:
        return self.lane.close()


@define(eq=False)
class Node:
    """One process."""

    name: str
    credentials: Credentials
    fuse: Fuse
    slept: list[int]

    def crash(self) -> None:
        """It is gone: nothing that it waits for comes back."""
        self.fuse.blown = True


@define(eq=False)
class World:
    """A store, a Forgejo, and nodes that come and go."""

    clock: Clock = field(factory=Clock)
    store: MemoryStore = field(factory=memory_store)
    ring: Ring = field(factory=Ring.generate)
    server: ModelForgejo = field(init=False)
    nodes: list[Node] = field(factory=list)
    """Every process that there was."""

    @server.default
    def _server(self) -> ModelForgejo:
        return ModelForgejo(self.clock)

    def node(self, lead: float = limits.REFRESH_LEAD) -> Node:
        """A process starts."""
        name = f"node-{len(self.nodes) + 1}"
        fuse = Fuse()
        slept: list[int] = []
        writer, reader = self.store.lanes
        store = Store(FusedLane(writer, fuse), FusedLane(reader, fuse))

        async def suspend(account_id: int) -> None:
            slept.append(account_id)

        peer = NodePeer(name, self.server)
        credentials = Credentials(store, self.ring, peer, self.clock, name, lead, suspend)
        node = Node(name, credentials, fuse, slept)
        self.nodes.append(node)
        return node

    def row(self, account_id: int = ADA) -> Account | None:
        """The account's row."""
        return self.ask(accounts.find, account_id)

    def account(self, account_id: int = ADA) -> Account:
        """The account's row, which is there."""
        row = self.row(account_id)
        assert row is not None
        return row

    def ask(self, work: Callable[..., T], *args: object) -> T:
        """A transaction, at once."""
        done: list[T] = []
        self.store.lanes[0].run(lambda cursor: work(cursor, *args)).addCallback(done.append)
        return done[0]

    def sign_in(self) -> Digest:
        """The row of a sign-in whose person went to Forgejo."""
        signin = digest(mint(Kind.OTHER))
        self.ask(_begin, signin, self.clock.seconds())
        return signin

    def on_the_way(self) -> list[tuple[bytes, bytes]]:
        """Sign-ins that hold a pair: digest, sealed."""
        return self.ask(
            lambda cursor: cursor.many(
                "SELECT signin, credential FROM signins WHERE credential IS NOT NULL"
            )
        )

    def signing_in(self) -> list[Pair]:
        """The pairs in rows of sign-ins."""
        return [
            Pair.from_bytes(self.ring.open(sealed, exchanges.bound(Digest(signin))))
            for signin, sealed in self.on_the_way()
        ]

    def pair(self, account_id: int = ADA) -> Pair:
        """The pair in the account's row."""
        return self.pair_of(self.account(account_id))

    def pair_of(self, row: Account) -> Pair:
        """The pair in this row."""
        assert row.credential is not None
        bound = accounts.bound_credential(row.account_id)
        return Pair.from_bytes(self.ring.open(row.credential, bound))

    def stored_pairs(self) -> list[Pair]:
        """Every pair that stands in a row."""
        rows = [self.row(account_id) for account_id in LOGINS]
        return self.signing_in() + [self.pair_of(row) for row in rows if row is not None]

    def stored(self) -> set[str]:
        """Every refresh token that stands in a row."""
        return {pair.refresh.text for pair in self.stored_pairs()}

    # --- who is well ------------------------------------------------------------------

    def standing(self) -> set[tuple[int, int]]:
        """Grant and counter of every pair in a row."""
        return {counted(text) for text in self.stored()}

    def is_kept(self, pair: Pair) -> bool:
        """Whether this pair, or a newer one of its grant, stands in a row."""
        gnt, cnt = counted(pair.refresh.text)
        if not self.server.grants[gnt - 1].live:
            return True
        return any(kept >= (gnt, cnt) for kept in self.standing() if kept[0] == gnt)

    def is_alive(self, call: Call) -> bool:
        """Whether the process that made a call still runs."""
        return not next(node for node in self.nodes if node.name == call.node).fuse.blown

    def refusals(self, person: int) -> list[Call]:
        """The refreshes that Forgejo refused this person."""
        return [
            call
            for call in self.server.calls
            if call.kind == "refresh"
            and isinstance(call.outcome, Refused)
            and self.server.grants[read(call.secret)["gnt"] - 1].account_id == person
        ]

    def coming(self, sent: float = inf) -> set[tuple[int, int]]:
        """Those on their way to a living node by a call that was sent by then."""
        return {
            counted(call.outcome.pair.refresh.text)
            for call in self.server.waiting()
            if isinstance(call.outcome, NewPair) and self.is_alive(call) and call.sent_at <= sent
        }

    def is_healthy(self, person: int, sent: float = inf) -> bool:
        """Whether the pair that Forgejo honours is in a row, or on its way to one."""
        grant = self.server.grant(person)
        if grant is None:
            return False
        return (grant.gnt, grant.count) in self.standing() | self.coming(sent)


def _begin(cursor: Cursor, signin: Digest, now: float) -> None:
    cursor.execute(
        "INSERT INTO signins (signin, browser, client_id, request, created_at, expires_at)"
        " VALUES (?, ?, 'client', '{}', ?, ?)",
        signin.value,
        b"",
        now,
        now + limits.SIGN_IN,
    )
