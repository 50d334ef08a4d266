"""
A life of grants and accounts: people, processes, Forgejo and time, and what they do.

`Life` does what it is told to a `LifeWorld` and writes it down in a `Ledger`.
Requests of clients are in `answers`.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fjmcp import limits
from fjmcp.broker.credentials import Credential
from fjmcp.forge.answers import NewPair
from fjmcp.forge.tokens import Pair
from fjmcp.oauth.clients import Client
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.store.queries import grants
from fjmcp.store.transactions import StoreDown
from tests.broker.ledger import Grant, Ledger, Link
from tests.broker.model import LOGINS, Call, counted
from tests.broker.world import LifeWorld, Process, request_of

BOTH: Final = "forge:read forge:write"
READ: Final = "forge:read"
REST: Final = int(2 * limits.EXCHANGE_CLAIM + limits.REFRESH_CLAIM) + 1
"""Seconds after which nothing waits for anything any more."""


@define(eq=False)
class SigningIn:
    """A person on the way through Forgejo."""

    call: Call | None = None
    grant: Grant | None = None
    """What came of it, once its code is there."""


@define(eq=False)
class Life:
    """Two people, three clients, so many processes as there are places, one store, one Forgejo."""

    places: int = 2
    world: LifeWorld = field(factory=LifeWorld)
    ledger: Ledger = field(factory=Ledger)
    at: list[Process] = field(init=False)
    down: bool = False
    up_at: float = 0.0
    """When the store last came up."""
    told: set[str] = field(factory=set, repr=False)
    """Every token of ours that a client was told."""
    looked_at: int = 0
    """How much the rows had changed by then."""
    newest: dict[int, tuple[int, int]] = field(factory=dict)
    """The pair in each account's row, when it was last looked at."""
    died: dict[int, tuple[tuple[int, int], float]] = field(factory=dict)
    """With which pair an account died, and when its person had signed in last."""
    in_memory: list[tuple[Pair, Process, float]] = field(factory=list)
    """Pairs that came while the store was down: who has them, and until when."""
    under_way: list[SigningIn] = field(factory=list)
    waiting: list[tuple[Process, Deferred[object]]] = field(factory=list)
    failures: list[Failure] = field(factory=list)
    """What went wrong where nobody looked."""
    sign_ins: int = 0
    uses: int = 0
    """How often a credential was asked for."""
    seen: int = 0
    """Calls of Forgejo's token endpoint that were looked at."""
    spent: dict[str, Call] = field(factory=dict, repr=False)
    """The last call that sent each of Forgejo's refresh tokens."""

    def __attrs_post_init__(self) -> None:
        self.world.server.held = True
        self.at = [self.world.process() for _ in range(self.places)]

    @property
    def now(self) -> float:
        """Epoch seconds."""
        return self.world.clock.seconds()

    # --- processes, the store, time ---------------------------------------------------

    def process(self, place: int) -> Process:
        """The process in this place; where one crashed, another starts and recovers."""
        place %= self.places
        if not self.at[place].alive:
            started = self.at[place] = self.world.process()
            recovering = started.credentials.recover(alone=self.places == 1)
            self.follow(started, Deferred.fromCoroutine(recovering))
        return self.at[place]

    def lose_store(self, down: bool = True) -> None:
        """The store goes down, or comes up."""
        if self.down and not down:
            self.up_at = self.now
        self.down = down
        self.world.store.fail_all(down)

    def pass_by(self, seconds: float) -> None:
        """Time passes."""
        self.world.clock.advance(seconds)

    def rest(self) -> None:
        """So much time passes that whatever waits has ended."""
        for _ in range(REST):
            if not self.world.clock.getDelayedCalls():
                break
            self.pass_by(1.0)

    def follow(self, process: Process, going: Deferred[Any]) -> None:
        """Whatever comes of it; a store that is down is no fault."""
        going.addErrback(self._failed)
        self.waiting.append((process, going))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(StoreDown):
            self.failures.append(failure)

    # --- codes ----------------------------------------------------------------------------

    def sign_in(self, place: int, client: Client, person: int, scopes: str = BOTH) -> SigningIn:
        """Somebody allows a client and comes back from Forgejo, which has not answered yet."""
        process, server = self.process(place), self.world.server
        signing, calls = SigningIn(), len(server.calls)
        self.sign_ins += 1
        work = process.sign_in(request_of(client, scopes), lambda: server.authorize(person))
        going: Deferred[object] = Deferred.fromCoroutine(work)

        def came_back(url: object) -> None:
            if isinstance(url, str):
                code = dict(parse_qsl(urlsplit(url).query)).get("code")
                if code is not None:
                    signing.grant = self._offered(client, person, code, scopes)

        going.addCallback(came_back)
        self.follow(process, going)
        if len(server.calls) > calls:
            signing.call = server.calls[-1]
            self.under_way.append(signing)
        return signing

    def hand_out(self, client: Client, person: int) -> Grant:
        """A code without the way to it, where there must be many."""
        code = f"one of many codes, {len(self.ledger.grants)}"
        asked = request_of(client, BOTH)
        self.world.put(grants.add_code, digest(TokenText(code)), person, asked, self.now)
        return self._offered(client, person, code, BOTH)

    def narrow(self, grant: Grant) -> None:
        """The person allowed reading only; no process has seen a token of it yet."""
        grant.scopes = READ
        change = "UPDATE grants SET scopes = ? WHERE grant_id = ?"
        self.world.put(lambda cursor: cursor.execute(change, READ, grant.grant_id))

    def _offered(self, client: Client, person: int, code: str, scopes: str) -> Grant:
        ends = self.code(code, "expires_at")
        assert limits.CODE - 1 <= ends - self.now <= limits.CODE
        grant = Grant(person, client, code, ends, scopes)
        self.ledger.grants.append(grant)
        return grant

    def code(self, code: str, column: str) -> Any:
        """What stands in the row of a code."""
        key = digest(TokenText(code)).value
        ((value,),) = self.world.rows(f"SELECT {column} FROM codes WHERE code = ?", key)
        return value

    # --- Forgejo ----------------------------------------------------------------------------

    def meets(self, call: Call, how: str) -> None:
        """What becomes of a call of the token endpoint."""
        match how:
            case "waits":
                pass
            case "acts":
                self.world.server.act(call)
            case "is lost":
                self.world.server.lose(call)
            case "acts, is lost":
                self.world.server.act(call)
                self.world.server.lose(call)
            case "answers, in the dark":
                self.world.server.dark = True
                self.answers(call)
                self.world.server.dark = False
            case "answers, the store is down":
                self.lose_store()
                self.answers(call)
                self.pass_by(1.0)
                self.lose_store(False)
                self.pass_by(1.0)
                self.kept()
            case _:
                self.answers(call)

    def answers(self, *calls: Call, order: int = 0, meanwhile: float = 0.0) -> None:
        """
        Answers of Forgejo arrive; a pair in them is in a row before anything else happens.

        `order` names one of the orders in which all may go that follows, and that follows from
        so many seconds that pass meanwhile.
        """
        waited = [call for call in calls if call.open]
        if order:
            self.world.hops.hold()
        for call in calls:
            self.world.server.deliver(call)
        self.pass_by(meanwhile)
        if order:
            self.world.hops.release(Random(order).randrange)
        for call in waited:
            self._arrived(call)
        self.look()

    def _arrived(self, call: Call) -> None:
        """A pair has arrived: it is kept, and the newest signs its person in."""
        server = self.world.server
        process = next((each for each in self.at if each.name == call.node), None)
        if not isinstance(call.outcome, NewPair) or process is None or not process.alive:
            return
        pair = call.outcome.pair
        if self.down:
            self.in_memory.append((pair, process, self.now + limits.PAIR_KEEP))
            return
        assert self.world.is_kept(pair), "a pair was received and not stored"
        gnt, cnt = counted(pair.refresh.text)
        grant = server.grants[gnt - 1]
        if call.kind == "exchange" and grant.live and cnt == grant.count and not server.dark:
            signing = next(each for each in self.under_way if each.call is call)
            assert signing.grant is not None, "the newest pair signs in"
            assert not self.world.account(grant.account_id).dead, "and wakes its account"

    def kept(self) -> None:
        """The store is up: what came while it was down is in it."""
        for pair, process, until in self.in_memory:
            if process.alive and self.up_at < until:
                assert self.world.is_kept(pair), "a pair was let go while the store was down"
        self.in_memory.clear()

    def usable(self, place: int, person: int) -> tuple[list[object], Call | None]:
        """
        A request needs a credential.

        What it gets, once it is there, and the call of Forgejo that it makes.
        """
        process, got, calls = self.process(place), list[object](), len(self.world.server.calls)
        self.uses += 1

        def check(answer: object) -> None:
            got.append(answer)
            if isinstance(answer, Credential):
                stood = answer.access.text in self.world.stood
                assert stood, "a pair was used before it was stored"

        going: Deferred[object] = Deferred.fromCoroutine(process.credentials.usable(person))
        self.follow(process, going.addCallback(check))
        return got, next(iter(self.world.server.calls[calls:]), None)

    # --- upkeep -----------------------------------------------------------------------------

    def refresh_sleeping(self, place: int) -> None:
        """What is done about credentials that nobody uses."""
        process = self.process(place)
        self.uses += len(LOGINS)
        self.follow(process, Deferred.fromCoroutine(process.credentials.refresh_sleeping()))

    def expire(self, place: int) -> None:
        """What is done about what has expired."""
        self.look()
        due = [each for each in self.ledger.grants if each.stands and each.aged(self.now)]
        process = self.process(place)
        self.follow(process, Deferred.fromCoroutine(process.look_for_expired()))
        live = "SELECT 1 FROM grants WHERE grant_id = ? AND ended_at IS NULL"
        for grant in due:
            if self.world.rows(live, grant.grant_id):
                assert self.down or not process.alive, "it was due"
            else:
                self.ledger.expired(grant)
                self.close(process, grant)
                assert not process.alive or grant.grant_id in process.running.ended

    def close(self, process: Process, grant: Grant) -> None:
        """A process knows that a grant has ended: it lets none of its tokens in."""
        assert grant.grant_id is not None
        process.closed.add(grant.grant_id)
        process.known -= {key_of(link) for link in grant.told}

    # --- accounts ---------------------------------------------------------------------------

    def look(self) -> None:
        """See what became of the accounts, and write it down; it must have had a reason."""
        for failure in self.failures:
            failure.raiseException()
        changes = self.world.store.lanes[0].connection.total_changes
        if changes == self.looked_at and not any(process.slept for process in self.at):
            return
        self.looked_at = changes
        assert not self.world.went_back, "an older pair took a newer one's place"
        self._nothing_is_dropped()
        for person in LOGINS:
            row = self.world.row(person)
            if row is None:
                continue
            stands = counted(self.world.pair_of(row).refresh.text)
            assert stands == (row.forge_grant, row.forge_count), "the row is not of its pair"
            self.newest[person] = stands
            if row.dead and person not in self.ledger.dead:
                assert self._may_die(person), "given up, and its newest pair is there"
                assert self._was_told(person), "what runs goes on without a credential"
                self.ledger.died(person)
                self.died[person] = stands, row.signed_in_at
            elif not row.dead and person in self.ledger.dead:
                before, signed_in = self.died.pop(person)
                assert stands > before, "it lives again without another pair"
                assert row.signed_in_at > signed_in, "it lives again without its person"
                self.ledger.woke(person)
        for process in self.at:
            asleep, process.slept[:] = set(process.slept), []
            for grant in self.ledger.grants:
                if grant.account in asleep:
                    process.known -= {key_of(link) for link in grant.told}

    def _nothing_is_dropped(self) -> None:
        """
        A pair that stood in a row, and that Forgejo would take still, stands in one.

        But for a stranger's, who never finished signing in.
        """
        standing = self.world.standing()
        for person in LOGINS:
            grant = self.world.server.grant(person)
            if grant is not None and self.world.row(person) is not None:
                newest = (grant.gnt, grant.count)
                assert newest in standing or newest not in self.world.ever, "a pair was dropped"

    def _may_die(self, person: int) -> bool:
        """Whether Forgejo refused it, and nobody has or awaits the pair that it would take."""
        refusals = self.world.refusals(person)
        refused = max((call.answered_at or 0.0 for call in refusals), default=0.0)
        grant = self.world.server.grant(person)
        if grant is None or not refused:
            return refused > 0
        newest = (grant.gnt, grant.count)
        in_memory = {
            counted(pair.refresh.text)
            for pair, process, until in self.in_memory
            if process.alive and self.now <= until
        }
        # What the store does not take for minutes comes back to it when it does.
        there = self.world.deaths[person] | self.world.coming(refused)
        return newest in in_memory or newest not in there

    def _was_told(self, person: int) -> bool:
        """Whether the process that gave it up put its grants to sleep, or crashed."""
        dead = self.world.pair(person).refresh.text
        by = {call.node for call in self.world.refusals(person) if call.secret == dead}
        alive = [process for process in self.at if process.alive and process.name in by]
        return len(alive) < len(by) or any(person in process.slept for process in alive)


def key_of(link: Link) -> bytes:
    """By what a process remembers the access token of a pair."""
    assert link.access is not None
    return digest(TokenText(link.access)).value
