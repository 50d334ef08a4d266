"""
The life of grants and accounts under every order of events that Hypothesis finds.

Two people, three clients, one or two processes that crash between any two
steps, a store that fails, a Forgejo whose answers come late, crossed or never:
all that gives out, honours and ends tokens, together.  `Ledger` says what each
request must be answered, by the table of `fjmcp.oauth.grants`.
"""

from __future__ import annotations

import os
import sys
from typing import ClassVar, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth.grants import TRANSITIONS
from fjmcp.store.transactions import StoreDown
from tests.broker import truths
from tests.broker.answers import ask, connect
from tests.broker.connections import (
    CLIENT,
    FUSE,
    HOW,
    NEWEST,
    ORDER,
    PEOPLE,
    PLACES,
    Connections,
    nth,
)
from tests.broker.ledger import Grant
from tests.broker.life import Life
from tests.broker.model import ADA
from tests.broker.moves import MOVES
from tests.broker.world import CLIENTS, TICK

IN_CI: Final = bool(os.environ.get("CI"))
RUNS: Final = 9 if IN_CI else 2
LIVES: Final = 10
"""Of one run.  Past so many Hypothesis makes most of them out of parts of others."""
STEPS: Final = 30
"""Of one life."""


class LifeMachine(Connections):
    """Beside what clients do: Forgejo, crashes, outages and time."""

    steps: ClassVar[int] = 0
    """That were taken, in all lives."""

    def __init__(self) -> None:
        super().__init__()
        self.since_calm = 0
        self.outage = 0
        """Steps until the store comes up again."""

    # --- Forgejo ----------------------------------------------------------------------

    @rule(
        places=st.tuples(PLACES, PLACES, PLACES),
        client=CLIENT,
        person=PEOPLE,
        acts=st.permutations(range(3)),
        arrive=st.lists(st.integers(0, 2), unique=True, max_size=3),
        pause=st.sampled_from([None, 0.0, limits.REFRESH_SETTLE + 1]),
        order=ORDER,
    )
    def cross(
        self,
        places: tuple[int, int, int],
        client: int,
        person: int,
        acts: list[int],
        arrive: list[int],
        pause: float | None,
        order: int,
    ) -> None:
        """
        A refresh at Forgejo and two sign-ins meet, there and on the way back.

        Their answers arrive with a pause between them, or at once, or never.
        """
        life = self.life
        self.wake(person, places[0])
        self.due(person)
        calls = [life.usable(places[0], person)[1]]
        for n, place in enumerate(places[1:]):
            calls.append(life.sign_in(place, CLIENTS[(client + n) % 3], person).call)
        for call in [calls[n] for n in acts]:
            if call is not None:
                life.world.server.act(call)
        arriving = [call for call in (calls[n] for n in arrive) if call is not None]
        if pause is None:
            life.answers(*arriving, order=order)
            return
        for call in arriving:
            life.answers(call)
            self.pass_seconds(pause)

    @rule(
        places=st.tuples(PLACES, PLACES),
        client=CLIENT,
        person=PEOPLE,
        order=ORDER,
        dark=st.booleans(),
    )
    def just_in_time(
        self, places: tuple[int, int], client: int, person: int, order: int, dark: bool
    ) -> None:
        """Somebody whom Forgejo has refused signs in while their account is given up."""
        life, server = self.life, self.life.world.server
        self.wake(person, places[1])
        self.due(person)
        server.revoke(person)
        _, refresh = life.usable(places[0], person)
        if refresh is not None:
            life.answers(refresh)
        self.pass_seconds(limits.REFRESH_SETTLE - 1)
        signing = life.sign_in(places[1], CLIENTS[client], person)
        if signing.call is not None:
            server.dark |= dark
            life.answers(signing.call, order=order, meanwhile=2.0)
            server.dark = False

    @rule(place=PLACES, person=PEOPLE, due=st.booleans(), how=HOW, fuse=FUSE)
    def work(
        self, place: int, person: int, due: bool, how: str, fuse: tuple[int, bool] | None
    ) -> None:
        """Requests need a credential, which may be due for its refresh."""
        if due:
            self.due(person)
        self.arm(place, fuse)
        _, call = self.life.usable(place, person)
        if call is not None:
            self.life.meets(call, how)
            self.life.usable(place, person)

    @precondition(lambda self: self.life.world.server.waiting())
    @rule(newest=NEWEST, how=HOW)
    def forge(self, newest: int, how: str) -> None:
        """Something becomes of a call, perhaps long after it was made, or after a later one."""
        calls = self.life.world.server.waiting()
        self.life.meets(calls[-1 - newest % len(calls)], how)

    @precondition(Connections.any_told)
    @rule(
        place=PLACES,
        noticed=st.sampled_from([True, True, True, False]),
        newest=NEWEST,
        turned=st.booleans(),
        offered=st.booleans(),
        moves=st.lists(st.sampled_from(list(MOVES)), min_size=1, max_size=4),
        later=st.sampled_from([0.0, 0.0, limits.REFRESH_GRACE, limits.GRANT_IDLE]),
    )
    def forge_revokes(
        self,
        place: int,
        noticed: bool,
        newest: int,
        turned: bool,
        offered: bool,
        moves: list[str],
        later: float,
    ) -> None:
        """
        Somebody revokes our application at Forgejo.

        It is noticed at the next refresh there, perhaps just after one here, or while a code is
        out; then the clients go on asking.
        """
        grant = nth(self.told(), newest)
        self.wake(grant.account, place)
        if offered:
            self.sign_in(place, 0, grant.account, "answers", None, [], 1, 1, False)
        self.life.world.server.revoke(grant.account)
        if noticed:
            self.due(grant.account)
            if turned:
                self.send(grant, "newest", place)
                self.send(grant, "use", place)
            self.work(place, grant.account, False, "answers", None)
            self.pass_seconds(limits.REFRESH_SETTLE + 1)
            self.life.pass_by(later)
        if offered:
            self.send(self.life.ledger.grants[-1], "code", place)
        told = [each for each in self.told() if each.account == grant.account]
        for n, kind in enumerate(moves):
            self.send(nth(told, newest + n), kind, place)

    # --- what goes wrong ----------------------------------------------------------------

    @rule(place=PLACES, fuse=FUSE)
    def crash(self, place: int, fuse: tuple[int, bool] | None) -> None:
        """A process ends, here or at one of its next transactions, before or after it commits."""
        if fuse is None:
            self.life.process(place).crash()
        self.arm(place, fuse)

    @precondition(lambda self: not self.life.down)
    @rule(steps=st.integers(1, 4), dark=st.booleans())
    def outage_of_the_store(self, steps: int, dark: bool) -> None:
        """The store goes down for some steps, or Forgejo's introspection does."""
        self.outage = steps + 1
        self.life.world.server.dark = dark
        self.life.lose_store(not dark)

    @precondition(lambda self: self.since_calm > 5)
    @rule(restarted=st.booleans())
    def calm(self, restarted: bool) -> None:
        """All troubles end."""
        truths.calm(self.life, restarted)
        self.since_calm = 0

    # --- time -----------------------------------------------------------------------------

    @rule(
        seconds=st.sampled_from(
            [
                1.0,
                limits.REFRESH_SETTLE + 1,
                limits.REFRESH_GRACE / 2,
                limits.REFRESH_GRACE + 1,
                limits.REFRESH_CLAIM + 1,
                limits.EXCHANGE_CLAIM + 1,
                limits.ACCESS_TOKEN / 2,
                limits.SLEEPING_AGE,
            ]
        )
    )
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        if seconds < 200:
            self.pass_seconds(seconds)
        else:
            self.life.pass_by(seconds)

    @rule(place=PLACES, client=CLIENT, person=PEOPLE, early=st.booleans(), swept=st.booleans())
    def at_the_end_of_a_code(
        self, place: int, client: int, person: int, early: bool, swept: bool
    ) -> None:
        """A code is presented in its last moment, or in the first one after it."""
        signing = self.life.sign_in(place, CLIENTS[client], person)
        if signing.call is not None:
            self.life.answers(signing.call)
        grant = signing.grant
        if grant is not None:
            self.reach(grant.code_ends - (TICK if early else 0.0))
            self.sweep(place, swept)
            self.send(grant, "code", place)

    @rule(
        place=PLACES,
        client=CLIENT,
        person=PEOPLE,
        what=st.sampled_from(["grace", "access", "idle", "life"]),
        early=st.booleans(),
        swept=st.booleans(),
    )
    def at_the_end(
        self, place: int, client: int, person: int, what: str, early: bool, swept: bool
    ) -> None:
        """Something of a grant is used in the first moment after its end, and perhaps before."""
        grant = connect(self.life, place, CLIENTS[client], person)
        if grant is None or not grant.told:
            return
        self.send(grant, "newest", place)
        if what == "life":
            self.grow_old(grant, place)
        ends = {
            "grace": (grant.family[0].used_at or self.life.now) + limits.REFRESH_GRACE,
            "access": grant.family[-1].expires_at,
            "idle": grant.used + limits.GRANT_IDLE,
            "life": grant.born + limits.GRANT_LIFE,
        }
        token = "used" if what == "grace" else "newest"
        if early:
            self.reach(ends[what] - TICK)
            self.send(grant, "use", place)
            if what in ("grace", "life"):
                self.send(grant, token, place)
        self.reach(ends[what])
        self.sweep(place, swept)
        self.send(grant, "use", place)
        self.send(grant, token, place)

    def grow_old(self, grant: Grant, place: int) -> None:
        """A client works so long that its grant is nearly too old."""
        end = grant.born + limits.GRANT_LIFE
        while grant.stands and end - self.life.now >= limits.GRANT_IDLE:
            self.life.pass_by(limits.GRANT_IDLE - 86400.0)
            used = grant.used
            self.send(grant, "newest", place)
            if grant.used == used:
                break

    def reach(self, moment: float) -> None:
        """Time passes until a moment."""
        self.life.pass_by(max(0.0, moment - self.life.now))

    def sweep(self, place: int, swept: bool) -> None:
        """Perhaps upkeep looks before anybody else."""
        if swept:
            self.life.expire(place)

    @rule(
        place=PLACES,
        asleep=st.booleans(),
        later=st.sampled_from([0.0, 0.0, 0.0, limits.GRANT_IDLE - 3600.0]),
    )
    def upkeep(self, place: int, asleep: bool, later: float) -> None:
        """What has expired is ended or dropped; credentials that nobody used are refreshed."""
        self.life.pass_by(later)
        self.life.expire(place)
        if asleep:
            self.life.refresh_sleeping(place)

    # --- what must hold ---------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        """What became of accounts had a reason; rows, memory and ledger agree."""
        type(self).steps += 1
        self.since_calm += 1
        self.outage -= 1
        if self.outage == 0:
            self.life.lose_store(False)
            self.life.world.server.dark = False
        self.life.look()
        truths.hold(self.life)

    def teardown(self) -> None:
        """When all troubles have ended everybody goes on."""
        if sys.exc_info()[0] is None:
            truths.calm(self.life, True)
            truths.hold(self.life)


class LifeTests(SynchronousTestCase):
    """One life, step by step, and many."""

    def test_every_step(self) -> None:
        """A life can go through every step of the table, and each is as the table says."""
        life = Life(places=1)
        life.world.server.life = 60.0
        grants = [connect(life, 0, CLIENTS[n % 3], ADA) for n in range(8)]
        offered = life.sign_in(0, CLIENTS[0], ADA)
        assert offered.call is not None
        life.answers(offered.call)

        def send(grant: Grant | None, *kinds: str) -> None:
            assert grant is not None
            for kind in kinds:
                ask(life, MOVES[kind](grant, 0))

        for grant in grants:
            send(grant, "newest", "newest")
        send(offered.grant, "code, wrong verifier")
        send(grants[0], "used", "newest, by another", "code, by another", "code")
        send(grants[1], "older")
        send(grants[2], "revoke")
        self.fall_asleep(life)
        send(offered.grant, "code")
        send(grants[3], "newest", "used", "newest, by another", "code, by another", "code")
        send(grants[4], "older")
        send(grants[5], "end")
        life.pass_by(limits.GRANT_IDLE)
        send(grants[6], "newest")
        connect(life, 0, CLIENTS[0], ADA)
        send(grants[7], "newest")
        truths.hold(life)
        self.assertEqual(set(TRANSITIONS) - life.ledger.steps, set())
        over = [grant.over for grant in grants if grant is not None]
        self.assertEqual(over, [True] * 8)

    def fall_asleep(self, life: Life) -> None:
        """Ada revokes our application at Forgejo, and a refresh there finds out."""
        life.world.server.revoke(ADA)
        life.pass_by(max(0.0, life.world.account().expires_at - 30.0 - life.now))
        _, call = life.usable(0, ADA)
        assert call is not None
        life.answers(call)
        for _ in range(int(limits.REFRESH_SETTLE) + 1):
            life.pass_by(1.0)
        life.look()
        self.assertIn(ADA, life.ledger.dead)

    def test_any_life(self) -> None:
        """
        Whatever people, clients, thieves, Forgejo, crashes and time do in whatever order, each
        request is answered as the ledger foretells, what ended stays ended, and when all troubles
        have ended every account works, or needs one sign-in.
        """
        LifeMachine.steps = 0
        lives = settings(
            max_examples=LIVES,
            stateful_step_count=STEPS,
            suppress_health_check=[HealthCheck.too_slow],
        )
        for _ in range(RUNS):
            run_state_machine_as_test(LifeMachine, settings=lives)
        # A pair that its process could not store for minutes is given up with words.
        self.flushLoggedErrors(StoreDown)
        self.assertGreaterEqual(LifeMachine.steps, 2000 if IN_CI else 400)
