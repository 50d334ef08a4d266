"""
`fjmcp.broker.credentials` under every order of events that Hypothesis finds.

Two nodes, two people, a Forgejo that acts when it likes and whose answers come
late, twice after each other, or never; an administrator who blocks people and
lets them in again; crashes before and after any commit.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.credentials import Credential, SignedIn
from fjmcp.forge.answers import NewPair, Refused
from fjmcp.forge.people import User
from fjmcp.forge.tokens import Pair
from fjmcp.refusals import ACCOUNT_PROHIBITED, CREDENTIAL_DEAD, asleep
from fjmcp.store.queries.accounts import NOT_LOOKED_AT, Account
from tests.broker.model import ADA, BOB, LOGINS, Node, Sight, World

NODES = st.integers(0, 1)
INDEX = st.integers(0, 50)
PAUSE = st.sampled_from([0, 0, 1, 6, 9])
LATEST = limits.FORGE_TOKEN - 2
BLOCKED = Refused("prohibited", "This account is prohibited from signing in")


class CalmMachine(RuleBasedStateMachine):
    """
    One person, two nodes, and nothing goes wrong but the order of things.

    What may happen, and what must hold after each of it.
    """

    people = [ADA]
    calm = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.clock.advance(1_000_000.0)
        self.server = self.world.server
        # So short that a wait or two make the next refresh due.
        self.server.life = 16.0
        self.nodes = [self.world.node(), self.world.node()]
        self.asked: list[tuple[Node, Deferred[object]]] = []
        self.asks = 0
        self.signs = 0
        self.dead: dict[int, float] = {}
        """Who is dead, and when they had signed in last."""
        self.noes: list[tuple[int, Node, bool]] = []
        self.asleep: set[int] = set()
        self.server.on_show = self.note
        self.stood: set[tuple[int, int]] = set()
        self.seen = 0
        self.spent: dict[str, float] = {}
        self.sign_in_as(0, ADA, False)
        self.server.held = True

    # --- what may happen ----------------------------------------------------------------

    # One rule may do what two would, so that few steps get far.

    @rule(node=NODES, acts=st.booleans(), pause=PAUSE)
    def sign_in(self, node: int, acts: bool, pause: int) -> None:
        """Somebody comes back from Forgejo; it may act at once."""
        self.sign_in_as(node, ADA, acts)
        self.pass_by(pause)

    @rule(node=NODES, acts=st.booleans(), pause=PAUSE)
    def ask(self, node: int, acts: bool, pause: int) -> None:
        """A request needs a credential, perhaps after a while."""
        self.pass_by(pause)
        self.ask_as(node, ADA, acts)

    def sign_in_as(self, node: int, person: int, acts: bool) -> None:
        self.signs += 1
        code = self.server.authorize(person)
        chosen = self.node(node)
        self.follow(chosen, chosen.credentials.exchange(self.world.sign_in(), code, "verifier"))
        self.act_on_last(acts)

    def ask_as(self, node: int, person: int, acts: bool) -> None:
        self.asks += 1
        chosen = self.node(node)
        self.follow(chosen, chosen.credentials.usable(person))
        self.act_on_last(acts)

    def act_on_last(self, acts: bool) -> None:
        if acts and self.server.waiting():
            self.server.act(self.server.waiting()[-1])

    @precondition(lambda self: self.asked)
    @rule(index=INDEX)
    def leave(self, index: int) -> None:
        """Somebody stops waiting."""
        self.asked[index % len(self.asked)][1].cancel()

    @precondition(lambda self: any(call.outcome is None for call in self.server.calls))
    @rule(index=INDEX)
    def act(self, index: int) -> None:
        """Forgejo does what it was asked for, whether or not anybody still waits."""
        calls = [call for call in self.server.calls if call.outcome is None]
        self.server.act(calls[index % len(calls)])

    @precondition(lambda self: self.server.waiting())
    @rule(index=INDEX, pause=PAUSE)
    def deliver(self, index: int, pause: int) -> None:
        """An answer arrives; a pair in it is in a row before anything else happens."""
        calls = self.server.waiting()
        call = calls[index % len(calls)]
        self.server.deliver(call)
        node = next(each for each in self.world.nodes if each.name == call.node)
        if isinstance(call.outcome, NewPair) and not node.fuse.blown:
            assert self.is_kept(call.outcome.pair), "a pair was received and not stored"
        self.pass_by(pause)

    def pass_by(self, seconds: int) -> None:
        """A little time passes; in calm no answer takes longer than its call may."""
        for _ in range(seconds):
            self.world.clock.advance(1.0)
            for call in self.server.waiting():
                if self.calm and self.world.clock.seconds() >= call.sent_at + LATEST:
                    self.server.deliver(call)

    # --- what must hold ------------------------------------------------------------------

    @invariant()
    def sleeps_when_blocked(self) -> None:
        """
        Whose account was looked at with a clear no, by the pair that it has or in a sign-in,
        sleeps from then on, as long as they are blocked; nobody else sleeps for it.
        """
        for person in self.people:
            row = self.world.row(person)
            told = {node: applies for who, node, applies in self.noes if who == person}
            sleeps = _turned_away(row)
            if any(applies and not node.fuse.blown for node, applies in told.items()):
                assert row is None or row.dead, "a no put nobody to sleep"
            assert not sleeps or told or person in self.asleep, "put to sleep without a no"
            if person in self.asleep and self.server.users[person] == BLOCKED:
                assert sleeps, "awake while blocked"
            (self.asleep.add if sleeps else self.asleep.discard)(person)
        self.noes.clear()
        # What happens after this happens later.
        self.world.clock.advance(0.001)

    @invariant()
    def dies_only_when_dead(self) -> None:
        """
        No account is given up while somebody holds, or is being sent, its newest pair; and one
        that was lives again only when its person has signed in and may come in.
        """
        for person in self.people:
            row = self.world.row(person)
            assert row is None or not row.dead or not self.calm, "nothing went wrong"
            if row is not None and row.dead_reason is not None:
                continue
            if row is not None and row.dead and person not in self.dead:
                refused = max(call.answered_at or 0.0 for call in self.world.refusals(person))
                healthy = self.world.is_healthy(person, refused)
                assert not healthy, "given up, its newest pair is there"
                self.dead[person] = row.signed_in_at
            elif row is not None and not row.dead:
                before = self.dead.pop(person, None)
                assert before is None or row.signed_in_at > before, "nobody looked, and it lives"

    @invariant()
    def drops_nothing(self) -> None:
        """
        A pair that stood in a row, and that Forgejo honours still, stands in one.

        But for a stranger's, who never finished signing in.
        """
        for person in self.people:
            grant = self.server.grant(person)
            if self.world.row(person) is None:
                continue
            newest = (0, 0) if grant is None else (grant.gnt, grant.count)
            stands = newest in self.world.standing()
            assert stands or newest not in self.stood, "the newest pair was dropped"
            if stands:
                self.stood.add(newest)

    @invariant()
    def never_loops(self) -> None:
        """Nobody asks, and no call is made; no token is spent twice in a row."""
        now = self.world.clock.seconds()
        for call in self.server.calls[self.seen :]:
            if call.kind == "refresh":
                before = self.spent.get(call.secret)
                assert before is None or now - before >= limits.REFRESH_RETRY, "spent in a row"
                self.spent[call.secret] = now
        self.seen = len(self.server.calls)
        assert self.seen <= self.signs + limits.REFRESH_ROUNDS * self.asks

    def teardown(self) -> None:
        """When everything has come to rest: who is healthy works, who is not signs in again."""
        self.server.dark = self.server.slow = self.server.away = False
        for index in (0, 1):
            self.node(index)
        for call in list(self.server.waiting()):
            self.server.deliver(call)
        for sight in list(self.server.looking()):
            self.server.show(sight)
        self.rest()
        for index in (0, 1):
            # What was left in the dark, or by an end at the last answer, a start would finish.
            node = self.node(index)
            self.follow(node, node.credentials.recover())
        self.rest()
        for call in list(self.server.waiting()):
            self.server.deliver(call)
        self.rest()
        self.sleeps_when_blocked()
        self.dies_only_when_dead()
        for asker, waiting in self.asked:
            assert waiting.called or asker.fuse.blown, "somebody waits for ever"
        self.server.held = False
        for person in self.people:
            self.use(person)

    def use(self, person: int) -> None:
        """The person works on, or can sign in and then works on."""
        node = self.world.node()
        row = self.world.row(person)
        healthy = self.world.is_healthy(person)
        self.world.clock.advance(3600.0)
        answer = self.result(Deferred.fromCoroutine(node.credentials.usable(person)))
        lives = row is not None and not row.dead and healthy
        if _turned_away(row) or (lives and self.server.users[person] == BLOCKED):
            assert answer == asleep(CREDENTIAL_DEAD, ACCOUNT_PROHIBITED.reason), answer
        elif lives:
            assert isinstance(answer, Credential), answer
        else:
            assert answer is CREDENTIAL_DEAD, answer
        self.server.users[person] = User(person, LOGINS[person])
        self.world.clock.advance(0.001)
        code = self.server.authorize(person)
        signing = node.credentials.exchange(self.world.sign_in(), code, "verifier")
        assert isinstance(self.result(Deferred.fromCoroutine(signing)), SignedIn)
        answer = self.result(Deferred.fromCoroutine(node.credentials.usable(person)))
        assert isinstance(answer, Credential), answer

    # --- how -------------------------------------------------------------------------------

    def node(self, index: int) -> Node:
        """The process in this place; another starts where one ended."""
        if self.nodes[index].fuse.blown:
            started = self.nodes[index] = self.world.node()
            self.follow(started, started.credentials.recover())
        return self.nodes[index]

    def follow(self, node: Node, work: object) -> None:
        waiting: Deferred[object] = Deferred.fromCoroutine(work)  # type: ignore[arg-type]
        waiting.addErrback(lambda failure: failure.trap(Exception) and None)
        self.asked.append((node, waiting))

    def rest(self) -> None:
        for _ in range(int(2 * limits.EXCHANGE_CLAIM + limits.REFRESH_CLAIM) + 1):
            self.world.clock.advance(1.0)

    def result(self, waiting: Deferred[object]) -> object:
        got: list[object] = []
        waiting.addBoth(got.append)
        for _ in range(int(2 * limits.EXCHANGE_CLAIM + limits.REFRESH_CLAIM) + 1):
            if got:
                break
            self.world.clock.advance(1.0)
        assert got, "no answer"
        return got[0]

    def note(self, sight: Sight) -> None:
        """A look is answered.  A no applies to the pair in the row, and to a sign-in after which
        nobody signed in."""
        if sight.said == BLOCKED:
            person = self.server.whose(sight.access)
            row = self.world.row(person)
            text = sight.access.text
            ours = row is not None and self.world.pair(person).access.text == text
            signs_in = any(pair.access.text == text for pair in self.world.signing_in())
            last = row is not None and signs_in and row.signed_in_at <= sight.asked_at
            node = next(each for each in self.world.nodes if each.name == sight.node)
            self.noes.append((person, node, ours or last))

    def is_kept(self, pair: Pair) -> bool:
        """Whether this pair, or a newer one of its grant, stands in a row, if it must."""
        person = self.server.whose(pair.access)
        unsure = self.server.away or self.server.users[person] == BLOCKED
        if unsure and self.world.row(person) is None:
            return True  # a stranger who was turned away
        return self.world.is_kept(pair)


def _turned_away(row: Account | None) -> bool:
    """Whether an account sleeps because of its person."""
    return row is not None and row.dead_reason not in (None, NOT_LOOKED_AT)


class CredentialsMachine(CalmMachine):
    """Two people; answers get lost, processes end, grants are revoked, hours pass."""

    people = [ADA, BOB]
    calm = False

    @rule(node=NODES)
    def sign_in_bob(self, node: int) -> None:
        """Somebody else comes back from Forgejo."""
        self.sign_in_as(node, BOB, True)

    @rule(node=NODES)
    def ask_bob(self, node: int) -> None:
        """Somebody else's request."""
        self.ask_as(node, BOB, False)

    @rule(seconds=st.sampled_from([16, 50, 80]))
    def wait_long(self, seconds: int) -> None:
        """So much time passes that calls, claims and patience end."""
        for _ in range(seconds):
            self.world.clock.advance(1.0)

    @precondition(lambda self: self.server.waiting())
    @rule(index=INDEX)
    def lose(self, index: int) -> None:
        """A connection breaks."""
        calls = self.server.waiting()
        self.server.lose(calls[index % len(calls)])

    @rule(hours=st.sampled_from([1, 24]))
    def sleep(self, hours: float) -> None:
        """Much time passes."""
        self.world.clock.advance(hours * 3600)

    @rule(node=NODES)
    def crash(self, node: int) -> None:
        """A process ends, here."""
        self.nodes[node].crash()

    @rule(node=NODES, hops=st.integers(1, 4), after=st.booleans())
    def crash_soon(self, node: int, hops: int, after: bool) -> None:
        """A process will end at one of its next transactions."""
        fuse = self.node(node).fuse
        fuse.hops, fuse.after = fuse.count + hops, after

    @rule(person=st.sampled_from([ADA, BOB]))
    def revoke(self, person: int) -> None:
        """Somebody revokes our application at Forgejo."""
        self.server.revoke(person)

    @rule(person=st.sampled_from([ADA, ADA, BOB]), node=NODES, works=st.booleans())
    def block(self, person: int, node: int, works: bool) -> None:
        """An administrator blocks somebody, who may be at work: a refresh follows."""
        self.server.users[person] = BLOCKED
        if works:
            self.pass_by(9)
            before = len(self.server.calls)
            self.ask_as(node, person, True)
            for call in self.server.calls[before:]:
                self.server.deliver(call)

    @rule(person=st.sampled_from([ADA, BOB]))
    def unblock(self, person: int) -> None:
        """An administrator lets somebody in again."""
        self.server.users[person] = User(person, LOGINS[person])

    @rule(slow=st.booleans(), away=st.booleans())
    def disturb(self, slow: bool, away: bool) -> None:
        """Forgejo's API takes its time or answers at once, and says who it is or does not."""
        self.server.slow, self.server.away = slow, away

    @precondition(lambda self: self.server.looking())
    @rule(index=INDEX, arrives=st.booleans())
    def look(self, index: int, arrives: bool) -> None:
        """Forgejo sees who somebody is; the answer may arrive later."""
        sights = self.server.looking()
        sight = sights[index % len(sights)]
        self.server.look(sight)
        if arrives:
            self.server.show(sight)

    @rule(dark=st.booleans())
    def darken(self, dark: bool) -> None:
        """Forgejo's introspection stops answering, or answers."""
        self.server.dark = dark


class MachineTests(SynchronousTestCase):
    """The machine, run."""

    def test_calm(self) -> None:
        """
        Where no answer is lost and nothing revoked, no account ever dies, whatever the order; every
        pair received is stored, nothing loops, and nobody waits for ever.
        """
        run_state_machine_as_test(CalmMachine, settings=settings(stateful_step_count=40))

    def test_troubled(self) -> None:
        """
        Where they are, only an account dies whose newest pair is neither in a row nor on its way,
        and only one sleeps whose person was blocked; the rest holds all the same, and everybody
        who is not blocked can sign in and go on.
        """
        run_state_machine_as_test(CredentialsMachine, settings=settings(stateful_step_count=40))
