"""
Sessions of several grants, with children of their own and shared ones, in any order.

They open, turn personal, call, listen, leave, move to another grant and end;
children answer, ask, log, withdraw and crash; clients answer questions, their
own and others', once and twice; credentials are renewed, time passes.
Whatever the order: a session hears nothing of another's child, a child nothing
of another's session, and whoever asks is answered exactly once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.pool import Bounds
from fjmcp.mcp.opening import Profile
from fjmcp.testing.children import FakeChild
from fjmcp.testing.visitors import Visit
from tests.web.desk import Client, Desk, Key, capable, result

LEVEL = "logging/setLevel"
CANCELLED = "notifications/cancelled"
GRANTS = ((1, "c1", "g1"), (1, "c1", "g2"), (1, "c2", "g3"), (2, "c1", "g4"))
BOUNDS = Bounds(children=8, per_account=6, in_flight=2)


@define(eq=False)
class Talk:
    """A session as its client knows it."""

    name: str
    client: Client
    grant: str
    can_be_asked: bool
    calls: dict[str, Visit] = field(factory=dict)
    streams: list[Visit] = field(factory=list)
    turned: bool = False
    over: bool = False

    def heard(self) -> list[Any]:
        """All that came on its streams, but for whole JSON answers."""
        visits = [*self.calls.values(), *self.streams]
        begun = [visit for visit in visits if visit.answered]
        return [json.loads(event) for visit in begun for event in visit.events()]

    def questions(self) -> list[Any]:
        """What it was asked."""
        return [message for message in self.heard() if message.get("method") == "roots/list"]


def pick(things: list[Any], index: int) -> Any:
    """One of them; None if there is none."""
    return things[index % len(things)] if things else None


class World:
    """Everything that may happen to sessions.  A move takes two numbers, to choose by."""

    def __init__(self) -> None:
        self.desk = Desk(profile=Profile(), bounds=BOUNDS)
        self.desk.reactor.mind = capable
        self.talks: list[Talk] = []
        self.asked: Counter[int] = Counter()
        self.withdrawn: set[tuple[int, int]] = set()
        self.count = 0

    # --- what clients do ---

    def open(self, a: int, b: int) -> None:
        account, client_id, grant = GRANTS[a % len(GRANTS)]
        client = self.desk.client(account, client_id, grant)
        can_be_asked = b % 3 > 0
        asked = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"roots": {}} if can_be_asked else {},
        }
        client.session = client.ask("initialize", asked).header("mcp-session-id")
        if client.session is not None:
            self.talks.append(Talk(f"s{len(self.talks)}", client, grant, can_be_asked))

    def talk(self, index: int, over: bool = False) -> Talk | None:
        found: Talk | None = pick([t for t in self.talks if over or not t.over], index)
        return found

    def call(self, a: int, b: int) -> None:
        talk = self.talk(a, over=True)
        if talk is not None:
            self.count += 1
            method = ("tools/call", "tools/call", LEVEL)[b % 3]
            talk.turned |= method == LEVEL
            id = f"{talk.name}/{self.count}"
            params = {"whose": talk.name, "grant": talk.grant, "id": id, "level": "debug"}
            talk.calls[id] = talk.client.ask(method, params, id)

    def sign_in_again(self, a: int, b: int) -> None:
        talk = self.talk(a)
        if talk is not None and talk.grant in ("g1", "g2"):
            session, grant = talk.client.session, f"g{1 + b % 2}"
            talk.client, talk.grant = self.desk.client(1, "c1", grant), grant
            talk.client.session = session

    def listen(self, a: int, b: int) -> None:
        talk = self.talk(a)
        if talk is not None:
            talk.streams.append(talk.client.listen())

    def leave(self, a: int, b: int) -> None:
        talk = self.talk(a)
        visit = None
        if talk is not None:
            visits = talk.streams if b % 2 else list(talk.calls.values())
            visit = pick([v for v in visits if not v.ended and not v.wire.closed], b)
        if visit is not None:
            visit.leave()

    def cancel(self, a: int, b: int) -> None:
        talk = self.talk(a)
        id = None if talk is None else pick(list(talk.calls), b)
        if talk is not None and id is not None:
            talk.client.tell(CANCELLED, {"requestId": id})

    def answer_question(self, a: int, b: int) -> None:
        talk = pick([t for t in self.talks if not t.over and t.questions()], a)
        message = None if talk is None else pick(talk.questions()[::-1], b // 4)
        if talk is not None and message is not None:
            answer = {"by": talk.name, "to": message["params"]}
            talk.client.post(result(answer, message["id"]))

    def answer_somebody_elses(self, a: int, b: int) -> None:
        talk, theirs = self.talk(a), self.talk(b)
        if talk is None or theirs is None or talk is theirs:
            return
        message = pick(theirs.questions()[::-1], a + b)
        if message is not None:
            talk.client.post(result({"by": talk.name, "to": message["params"]}, message["id"]))

    def delete(self, a: int, b: int) -> None:
        talk = self.talk(a)
        if talk is not None:
            talk.client.delete()
            talk.over = True

    # --- what children do ---

    def child(self, index: int) -> FakeChild | None:
        found: FakeChild | None = pick(self.desk.reactor.alive, index)
        return found

    def answer(self, a: int, b: int) -> None:
        child = self.child(a)
        asked = [] if child is None else [m for m in child.heard if "whose" in str(m)]
        for message in asked if b % 2 else asked[-1:]:
            if child is not None:
                child.answer(message["id"], {"of": message["params"]["id"]})
        self.desk.reactor.turn()

    def take_up(self, a: int, b: int) -> None:
        child = self.child(a)
        if child is not None:
            for message in list(child.heard):
                if message.get("method") == LEVEL and "whose" not in message["params"]:
                    child.answer(message["id"], {})
            self.desk.reactor.turn()

    def ask(self, a: int, b: int) -> None:
        # Mostly one that may ask.
        may = [c for c in self.desk.reactor.alive if b == 0 or "roots" in str(c.heard[:1])]
        child: FakeChild | None = pick(may, a)
        if child is not None:
            # Every child counts from 0, so their ids are equal.
            number = self.asked[child.number]
            self.asked[child.number] += 1
            params = {"child": child.number, "n": number}
            child.say({"jsonrpc": "2.0", "id": number, "method": "roots/list", "params": params})
            self.desk.reactor.turn()

    def log(self, a: int, b: int) -> None:
        child = self.child(a)
        if child is not None:
            params = {"child": child.number}
            child.say({"jsonrpc": "2.0", "method": "notifications/message", "params": params})

    def withdraw(self, a: int, b: int) -> None:
        child = self.child(a)
        if child is not None and self.asked[child.number]:
            number = b % self.asked[child.number]
            self.withdrawn.add((child.number, number))
            params = {"requestId": number, "child": child.number}
            child.say({"jsonrpc": "2.0", "method": CANCELLED, "params": params})

    def crash(self, a: int, b: int) -> None:
        child = self.child(a)
        if child is not None:
            child.exit(1)
            self.desk.reactor.turn()

    # --- what else happens ---

    def renew(self, a: int, b: int) -> None:
        before = self.desk.keys.answer
        assert isinstance(before, Key)
        self.desk.keys.answer = Key(before.version + 1)

    def time_passes(self, a: int, b: int) -> None:
        self.desk.pass_time((0.0, 1.0, limits.REPLAY, limits.ROOM, limits.QUESTION)[b % 5])

    def reap(self, a: int, b: int) -> None:
        self.desk.pool.reap(60.0 * (b % 2))
        self.desk.reactor.turn()

    def rotate(self, a: int, b: int) -> None:
        Deferred.fromCoroutine(self.desk.pool.rotate())
        self.desk.reactor.turn()

    # --- what must hold ---

    def end(self) -> None:
        """Everything ends; look whether it was as promised."""
        alive = self.desk.reactor.alive
        self.desk.pass_time(max(limits.QUESTION, limits.REPLAY, limits.ROOM))
        self.every_question_is_answered_once(alive)
        stopped = Deferred.fromCoroutine(self.desk.pool.stop(0.0))
        for seconds in (0.0, limits.CLOSE_WAIT, limits.TERM_WAIT, limits.KILL_WAIT):
            self.desk.pass_time(seconds)
        assert stopped.called
        self.desk.streams.stop()
        self.desk.pass_time(0)
        assert (self.desk.timers, self.desk.endpoint._calls) == ([], {})
        self.every_call_is_answered_once()
        self.children_hear_of_one_session_or_one_grant()
        self.sessions_hear_of_their_own_children()

    def every_question_is_answered_once(self, alive: list[FakeChild]) -> None:
        for child in self.desk.children:
            answers = Counter(m["id"] for m in child.heard if "method" not in m)
            assert all(count == 1 for count in answers.values()), (child.number, answers)
            if child in alive and not child.over:
                for n in range(self.asked[child.number]):
                    assert answers[n] or (child.number, n) in self.withdrawn, (child.number, n)

    def every_call_is_answered_once(self) -> None:
        for talk in self.talks:
            for id, visit in talk.calls.items():
                if visit.wire.closed and not visit.ended:
                    continue  # the client left
                told = [json.loads(e) for e in visit.events()] or [visit.json()]
                answers = [m for m in told if "method" not in m]
                assert len(answers) == 1, (id, told)
                assert answers[0]["id"] == id
                assert answers[0].get("result") in (None, {"of": id}), (id, answers)

    def hearers(self, child: FakeChild) -> set[str]:
        """The sessions whose requests it heard."""
        return {
            m["params"]["whose"]
            for m in child.heard
            if isinstance(m.get("params"), dict) and "whose" in m["params"]
        }

    def children_hear_of_one_session_or_one_grant(self) -> None:
        for child in self.desk.children:
            names = self.hearers(child)
            grants = {m["params"]["grant"] for m in child.heard if "whose" in str(m)}
            assert len(grants) <= 1, grants
            told = [m["method"] for m in child.heard if "method" in m]
            can_be_asked = "roots" in child.heard[0]["params"]["capabilities"]
            if can_be_asked or LEVEL in told:
                assert len(names) <= 1, names
            for message in child.heard:
                if "method" in message or "result" not in message:
                    continue
                # An answer: of the session whose it is, to the question that it asked.
                answer = message["result"]
                assert answer["to"] == {"child": child.number, "n": message["id"]}, message
                assert names <= {answer["by"]}, (names, answer)

    def sessions_hear_of_their_own_children(self) -> None:
        children = {child.number: child for child in self.desk.children}
        where: Counter[tuple[int, int]] = Counter()
        for talk in self.talks:
            for message in talk.heard():
                params = message.get("params")
                if not isinstance(params, dict) or "child" not in params:
                    continue
                child = children[params["child"]]
                assert self.hearers(child) <= {talk.name}, (message, talk.name)
                assert talk.can_be_asked or talk.turned, "a shared child was heard"
                if message["method"] == "roots/list":
                    where[(params["child"], params["n"])] += 1
        assert all(count == 1 for count in where.values()), where


MOVES: Final[list[Callable[[World, int, int], None]]] = [
    World.open,
    *[World.call] * 3,
    *[World.listen] * 2,
    World.leave,
    World.cancel,
    World.sign_in_again,
    *[World.ask] * 4,
    *[World.answer_question] * 4,
    World.answer_somebody_elses,
    *[World.answer] * 2,
    World.take_up,
    World.log,
    World.withdraw,
    World.crash,
    World.delete,
    World.renew,
    World.time_passes,
    World.reap,
    World.rotate,
]
numbers = st.integers(0, 11)
# A list and no rules of a state machine: those are drawn so unevenly that in few
# short runs hardly a question is asked.
moves = st.lists(st.tuples(st.sampled_from(MOVES), numbers, numbers), min_size=40, max_size=70)


class IsolationTests(SynchronousTestCase):
    """Whatever happens to sessions, in whatever order."""

    @given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=4), moves)
    def test_any_order(
        self,
        opened: list[tuple[int, int]],
        moves: list[tuple[Callable[[World, int, int], None], int, int]],
    ) -> None:
        """Nothing reaches another session, and whoever asks is answered exactly once."""
        world = World()
        for a, b in opened:
            world.open(a, b)
        for index in range(len(opened)):
            world.call(index, 0)
        for move, a, b in moves:
            move(world, a, b)
        world.end()
