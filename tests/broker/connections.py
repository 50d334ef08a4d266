"""
What people and their clients do in a life: they connect, present codes and tokens, and leave.

`Connections` has the rules of it for a machine of Hypothesis.  One rule has
what mostly goes together, so that few steps get far.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fjmcp import limits
from fjmcp.oauth.clients import Client
from fjmcp.oauth.grants import State
from tests.broker.answers import ask, connect
from tests.broker.ledger import Grant
from tests.broker.life import BOTH, Life
from tests.broker.model import ADA, BOB
from tests.broker.moves import CODE, END, MOVES, TOKEN, USE
from tests.broker.world import CLIENTS

PLACES = st.integers(0, 1)
PEOPLE = st.sampled_from([ADA, ADA, BOB])
CLIENT = st.integers(0, len(CLIENTS) - 1)
SCOPES = st.sampled_from([BOTH, BOTH, f"{BOTH} offline_access"])
NEWEST = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8, 21, 34, 49, 55])
"""Which of many, counted from the newest."""
ORDER = st.integers(1, 999)
TIMES = st.sampled_from([1, 1, 1, 2, 3])
CODES = st.sampled_from(["code"] * 5 + list(CODE))
USED = st.sampled_from(["used", "used", "used", "older", "oldest", "used, for writing"])
TOGETHER = st.sampled_from(["newest", "newest", "used", "used", "use", "use", *MOVES])
HOW = st.sampled_from(
    [
        *["answers"] * 4,
        "answers, the store is down",
        "answers, in the dark",
        "acts",
        "waits",
        "is lost",
        "acts, is lost",
    ]
)
"""What becomes of a call of Forgejo."""
WRONG = st.lists(
    st.sampled_from([kind for kind in (*CODE, *TOKEN) if ", " in kind]), max_size=3, unique=True
)
FUSE = st.none() | st.tuples(st.sampled_from([*range(1, 10), 5, 6, 6, 7, 7]), st.booleans())
"""At which of its next transactions a process crashes, and whether after its commit."""


def nth(of: list[Grant], newest: int) -> Grant:
    """One of them, counted from the newest."""
    return of[-1 - newest % len(of)]


class Connections(RuleBasedStateMachine):
    """People, clients, and what these send."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()

    @initialize(
        places=st.sampled_from([1, 2, 2]),
        client=CLIENT,
        scopes=SCOPES,
        tokens_live=st.sampled_from([60.0, 3600.0]),
        crowded=st.sampled_from([False] * 7 + [True]),
        wrong=WRONG,
    )
    def begins(
        self,
        places: int,
        client: int,
        scopes: str,
        tokens_live: float,
        crowded: bool,
        wrong: list[str],
    ) -> None:
        """People connect clients, so that there is something to go wrong."""
        self.life.places = places
        self.life.world.server.life = tokens_live
        for n, person in enumerate([BOB, ADA, ADA]):
            self.connect(0, (client + n) % len(CLIENTS), person, scopes, n == 1, wrong, n, False)
        if crowded:
            self.crowd(CLIENTS[client])

    # --- which ----------------------------------------------------------------------

    def any_offered(self) -> bool:
        """Whether a code waits."""
        return any(grant.state is State.OFFERED for grant in self.life.ledger.grants)

    def any_told(self) -> bool:
        """Whether a client knows a pair."""
        return any(grant.told for grant in self.life.ledger.grants)

    def told(self) -> list[Grant]:
        """Those of which a client knows a pair; they that stand come last, as the newest."""
        grants = [grant for grant in self.life.ledger.grants if grant.told]
        return sorted(grants, key=lambda grant: grant.stands)

    def send(self, grant: Grant, kind: str, place: int, times: int = 1, order: int = 0) -> None:
        """Something is sent about a grant, so many times at once."""
        ask(self.life, *[MOVES[kind](grant, place + n) for n in range(times)], order=order)

    def wake(self, person: int, place: int) -> None:
        """Somebody whose credential is dead signs in."""
        self.life.look()
        if person in self.life.ledger.dead:
            connect(self.life, place, CLIENTS[0], person)

    def arm(self, place: int, fuse: tuple[int, bool] | None) -> None:
        """A process will crash soon, or not."""
        process = self.life.process(place)
        if fuse is not None:
            hops, process.fuse.after = fuse
            process.fuse.hops = process.fuse.count + hops

    def due(self, person: int) -> None:
        """Time passes until a person's credential is due."""
        row = self.life.world.row(person)
        if row is not None:
            lead = min(limits.REFRESH_LEAD, self.life.world.server.life / 2)
            self.life.pass_by(max(0.0, row.expires_at - lead - self.life.now))
            self.life.look()

    def pass_seconds(self, seconds: float) -> None:
        """Time passes, so slowly that what waits can do one thing after another."""
        for _ in range(int(seconds)):
            self.life.pass_by(1.0)
        self.life.look()

    # --- signing in -----------------------------------------------------------------

    @rule(
        place=PLACES,
        client=CLIENT,
        person=PEOPLE,
        scopes=SCOPES,
        reads_only=st.sampled_from([False, False, True]),
        wrong=WRONG,
        turns=st.integers(0, 3),
        used=st.booleans(),
    )
    def connect(
        self,
        place: int,
        client: int,
        person: int,
        scopes: str,
        reads_only: bool,
        wrong: list[str],
        turns: int,
        used: bool,
    ) -> None:
        """Somebody connects a client, which begins to work, after it did something wrong."""
        signing = self.life.sign_in(place, CLIENTS[client], person, scopes)
        if signing.call is not None:
            self.life.answers(signing.call)
        grant = signing.grant
        if grant is None:
            return
        for kind in [*(kind for kind in wrong if kind in CODE), "code"]:
            self.send(grant, kind, place)
        if reads_only and grant.stands:
            self.life.narrow(grant)
        if grant.told:
            for kind in [*(kind for kind in wrong if kind in TOKEN), *["newest"] * turns]:
                self.send(grant, kind, place)
            if used:
                self.send(grant, "use", place)

    @rule(
        place=PLACES,
        client=CLIENT,
        person=PEOPLE,
        how=HOW,
        fuse=FUSE,
        kinds=st.lists(st.sampled_from(list(CODE)), max_size=5, unique=True),
        times=TIMES,
        order=ORDER,
        swept=st.sampled_from([False, False, True]),
    )
    def sign_in(
        self,
        place: int,
        client: int,
        person: int,
        how: str,
        fuse: tuple[int, bool] | None,
        kinds: list[str],
        times: int,
        order: int,
        swept: bool,
    ) -> None:
        """
        Somebody comes back from Forgejo, well or badly.

        The code that comes of it is presented, perhaps several times at once; when its time is
        over, upkeep looks elsewhere.
        """
        self.arm(place, fuse)
        signing = self.life.sign_in(place, CLIENTS[client], person)
        if signing.call is not None:
            self.life.meets(signing.call, how)
        for kind in [*kinds, "code"] if kinds else []:
            if signing.grant is not None:
                self.send(signing.grant, kind, place, times, order)
        if swept:
            self.life.pass_by(limits.SIGN_IN + 1)
            self.life.expire(place + 1)

    # --- codes and tokens -------------------------------------------------------------

    @precondition(any_offered)
    @rule(newest=NEWEST, kind=CODES, place=PLACES, times=TIMES, order=ORDER)
    def present_code(self, newest: int, kind: str, place: int, times: int, order: int) -> None:
        """A code is presented, once or several times at once."""
        waiting = [grant for grant in self.life.ledger.grants if grant.state is State.OFFERED]
        self.send(nth(waiting, newest), kind, place, times, order)

    @precondition(any_told)
    @rule(
        newest=NEWEST,
        kinds=st.lists(st.sampled_from(list(TOKEN)), min_size=1, max_size=4, unique=True),
        place=PLACES,
        times=TIMES,
        order=ORDER,
    )
    def refresh(self, newest: int, kinds: list[str], place: int, times: int, order: int) -> None:
        """Refresh tokens are presented, each once or several times at once."""
        grant = nth(self.told(), newest)
        for kind in kinds:
            self.send(grant, kind, place, times, order)

    @precondition(any_told)
    @rule(newest=NEWEST, kind=USED, place=PLACES, times=TIMES, order=ORDER)
    def replay(self, newest: int, kind: str, place: int, times: int, order: int) -> None:
        """Likewise one that was used before."""
        self.send(nth(self.told(), newest), kind, place, times, order)

    @precondition(any_told)
    @rule(newest=NEWEST, kind=st.sampled_from(list(USE)), place=PLACES)
    def use(self, newest: int, kind: str, place: int) -> None:
        """An access token is used."""
        self.send(nth(self.told(), newest), kind, place)

    @precondition(any_told)
    @rule(newest=NEWEST, kind=st.sampled_from([*END, "code", "code"]), place=PLACES)
    def finish(self, newest: int, kind: str, place: int) -> None:
        """Somebody wants a grant to end, or uses its code a second time."""
        self.send(nth(self.told(), newest), kind, place)

    @precondition(any_told)
    @rule(
        newest=NEWEST,
        moves=st.lists(st.tuples(TOGETHER, PLACES), min_size=2, max_size=4),
        order=ORDER,
        leaving=st.sampled_from([0, 0, 0, 1, 2]),
    )
    def at_once(self, newest: int, moves: list[tuple[str, int]], order: int, leaving: int) -> None:
        """Several requests about one grant meet, in any order of their steps."""
        grant = nth(self.told(), newest)
        asks = [MOVES[kind](grant, place) for kind, place in moves]
        ask(self.life, *asks, order=order, leaving=leaving)

    @rule(
        place=PLACES,
        client=CLIENT,
        person=PEOPLE,
        kind=st.sampled_from(["end", "end", "revoke", "code", "older"]),
        order=ORDER,
    )
    def use_while_ending(self, place: int, client: int, person: int, kind: str, order: int) -> None:
        """A grant ends while the store is asked about a token that nobody has seen."""
        grant = connect(self.life, place, CLIENTS[client], person)
        if grant is not None and grant.told:
            self.send(grant, "newest", place)
            self.send(grant, "newest", place)
            ask(self.life, *[MOVES[each](grant, place) for each in ("use", kind)], order=order)

    def crowd(self, client: Client) -> None:
        """Somebody has as many grants as there may be, of which the oldest is in use."""
        first = connect(self.life, 0, client, ADA)
        connect(self.life, 0, client, ADA)
        assert first is not None
        self.send(first, "newest", 0)
        more = range(limits.GRANTS_PER_ACCOUNT - 1)
        grants = [self.life.hand_out(client, ADA) for _ in more]
        ask(self.life, *[MOVES["code"](grant, 0) for grant in grants])
