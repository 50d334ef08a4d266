"""
A whole broker under clients, children, stores and grants that do as they like.

Requests come whole, in chunks, halfway and never; their clients leave, read
nothing and come back; children answer, hang, crash and talk; the store is slow,
down, or fails late; grants end, time passes, upkeep runs.
Whatever the order: what is counted agrees with what is there, nothing raises,
and when all have gone nothing of them is left.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.store.transactions import StoreDown
from fjmcp.web.channel import Channel
from tests.web import census
from tests.web.crowd import EVENTS, JSON, RUDE, WHOLE, Crowd, How, pick

TIGHT: Final = {
    "SESSIONS_PER_CONNECTION": 3,
    "SESSIONS_PER_ACCOUNT": 5,
    "STREAMS_PER_ACCOUNT": 2,
    "STREAM_BEHIND": 100_000,
    "UNREAD_OF_ACCOUNT": 150_000,
    "UNREAD": 200_000,
    "BODIES_OF_ACCOUNT": 250_000,
    "BODIES_OF_STRANGERS": 100_000,
    "ASKED_AGAIN": 30_000,
    "CHILD_UNREAD": 200_000,
}
"""Limits so low that few requests reach them."""
which = st.integers(0, 11)
sizes = st.sampled_from([0, 0, 20_000, 40_000, 90_000])
chunks = st.sampled_from([0, 0, 0, 1000, 70_000])
halves = st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.9, 0.3])
"""How much of a request is sent."""
afterwards = st.sampled_from(["waits", "waits", "waits", "reads nothing", "leaves", "is elsewhere"])
"""What its client does then; elsewhere, something else happens before it is looked at."""
takes = st.sampled_from([f"{JSON}, {EVENTS}", JSON, EVENTS])
hows = st.tuples(chunks, halves, afterwards)


class NothingLeftMachine(Crowd):
    """Everything that may happen to a broker."""

    @initialize(room=st.sampled_from([99, 99, 12]), stops=st.booleans(), leave=st.booleans())
    def begin(self, room: int, stops: bool, leave: bool) -> None:
        """Two people sign in at two clients; how it will end is settled."""
        self.parts.site.room = room
        self.stops, self.leave = stops, leave
        for app in self.apps:
            for login in self.accounts:
                self.grants.append((app, {}))
                self.sign_in(len(self.grants) - 1, login)
        for grant in (0, 0, 3):
            self.open(grant, False, "waits")

    # --- what clients do ---

    @rule(
        grant=st.integers(0, 3),
        can_be_asked=st.booleans(),
        then=st.sampled_from(["waits", "leaves"]),
    )
    def open(self, grant: int, can_be_asked: bool, then: str) -> None:
        """A client opens a session, which has a child of its own if it can be asked."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {}} if can_be_asked else {},
            "clientInfo": {"name": "client", "version": "1"},
        }
        message = {"id": 0, "method": "initialize", "params": params}
        visit = self.message(grant, "", message, (0, 1.0, then))
        if visit.answered and visit.status == 200:
            self.sessions.append((grant, visit.header("mcp-session-id") or ""))

    @rule(
        index=which,
        count=st.sampled_from([1, 1, 3]),
        method=st.sampled_from(
            ["tools/call", "tools/call", "tools/list", "logging/setLevel", "ping"]
        ),
        size=sizes,
        takes=takes,
        how=hows,
    )
    def call(self, index: int, count: int, method: str, size: int, takes: str, how: How) -> None:
        """A client calls, in a session or without one."""
        grant, session = self.session(index)
        for _ in range(count):
            self.asked += 1
            meta = {"progressToken": self.asked}
            params = {"name": "read", "level": "info", "x": "x" * size, "_meta": meta}
            call = {"id": self.asked, "method": method, "params": params}
            self.message(grant, session, call, how, takes)

    @rule(index=which, what=which, size=sizes, chunk=chunks)
    def tell(self, index: int, what: int, size: int, chunk: int) -> None:
        """A client cancels a call, or answers a question."""
        params = {"requestId": self.asked - what // 2, "x": "x" * size}
        cancel = {"method": "notifications/cancelled", "params": params}
        reply = {"id": what // 2, "result": {"x": "x" * size}}
        self.message(*self.session(index), cancel if what % 2 else reply, (chunk, 1.0, "waits"))

    @rule(
        index=which,
        method=st.sampled_from(["GET", "GET", "GET", "HEAD", "DELETE"]),
        size=st.sampled_from([0, 0, 20_000]),
        then=st.sampled_from(["waits", "reads nothing", "leaves"]),
    )
    def listen(self, index: int, method: str, size: int, then: str) -> None:
        """A client opens the stream of a session, or ends the session."""
        grant, session = self.session(index)
        headers = {"accept": EVENTS} | self.known(grant, session)
        self.send(method, "/mcp", b"x" * size, headers, (0, 1.0, then))

    @rule(request=st.sampled_from(RUDE), grant=which, how=hows)
    def annoy(self, request: tuple[str, str, dict[str, str]], grant: int, how: How) -> None:
        """Somebody sends what nobody wants, and much of it."""
        method, target, headers = request
        known = {} if grant == 11 else self.known(grant)
        self.send(method, target, b"[1]" + b" " * 50_000, known | headers, how)

    @rule(
        index=which,
        does=st.sampled_from(["leaves", "stops", "reads on", "sends the rest", "asks more"]),
    )
    def go_on(self, index: int, does: str) -> None:
        """A client that was here does something else with its connection."""
        fits: dict[str, Any] = {
            "reads on": lambda visit: visit.wire.full,
            "sends the rest": self.rest.get,
        }
        here = [visit for visit in self.visits if not visit.wire.closed]
        visit = pick([v for v in here if fits.get(does, bool)(v)], index)
        if visit is None:
            return
        if does == "leaves":
            visit.leave()
        elif does == "stops" and visit.wire.producer is not None:
            visit.stop_reading()
        elif does == "reads on" and visit.wire.producer is not None:
            visit.read_on()
        elif does == "sends the rest":
            rest, self.rest[visit] = self.rest[visit], b""
            visit.send(rest)
        elif does == "asks more" and not self.rest[visit]:
            visit.send(self.broker.visitor().request("GET", "/"))
        self.broker.settle()

    # --- what children do ---

    @rule(index=which, call=which, size=sizes, all_of_them=st.booleans())
    def answer(self, index: int, call: int, size: int, all_of_them: bool) -> None:
        """A child answers, perhaps again."""
        child = pick(self.broker.reactor.alive, index)
        if child is None:
            return
        ids = [m["id"] for m in child.heard[1:] if "method" in m and "id" in m]
        tools = [{"name": "read", "annotations": {"readOnlyHint": True}}]
        for id in ids[-3:] if all_of_them else ids[-1 - call % 4 :][:1]:
            child.answer(id, {"tools": tools, "x": "x" * size})
        self.broker.settle()

    @rule(
        index=which,
        does=st.sampled_from(
            ["progress", "change", "question", "exit", "exit", "stop", "garbage", "panic"]
        ),
        size=sizes,
    )
    def act_up(self, index: int, does: str, size: int) -> None:
        """A child says what it was not asked, stops reading, or ends."""
        child = pick(self.broker.reactor.alive, index)
        if child is None:
            return
        params = {"progressToken": self.asked - index // 3, "progress": 1, "x": "x" * size}
        messages: dict[str, Any] = {
            "change": {"method": "notifications/tools/list_changed"},
            "progress": {"method": "notifications/progress", "params": params},
            "question": {"id": index, "method": "elicitation/create", "params": params},
            "panic": {"id": None, "error": {"code": -1, "message": "panic"}},
        }
        if does == "exit":
            child.exit(1)
        elif does == "stop":
            child.reads = not child.reads
        else:
            message = messages.get(does)
            child.say({"jsonrpc": "2.0"} | message if message else b"garbage\n")
        self.broker.settle()

    @rule(born=st.sampled_from(["dead", "silent", "silent", "as another build"]))
    def bear(self, born: str) -> None:
        """The next child is not as others."""
        self.born = born

    # --- what else happens ---

    @rule(grant=st.integers(0, 3), how=st.sampled_from(["revoke", "refresh", "suspend"]))
    def end(self, grant: int, how: str) -> None:
        """A grant ends, or all of an account; its client comes back."""
        app, tokens = self.grants[grant]
        login = list(self.accounts)[grant % 2]
        if how == "suspend":
            self.run(self.parts.endings.suspend(self.accounts[login]))
            return
        visit = getattr(app, how)(tokens["refresh_token"])
        self.note(visit)
        if how == "refresh" and visit.answered and visit.status == 200:
            self.grants[grant] = app, visit.json()
        elif how == "revoke":
            self.sign_in(grant, login)

    @rule(job=st.sampled_from(["reap", "expire", "rotate"]))
    def upkeep(self, job: str) -> None:
        """What is done again and again is done now."""
        if job == "reap":
            self.parts.pool.reap(1.0)
            self.broker.settle()
        else:
            self.run(self.parts.sessions.expire() if job == "expire" else self.parts.pool.rotate())

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 11.0, 16.0, 31.0, 61.0, 130.0, 1000.0, 3700.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.broker.advance(seconds)

    @rule(waits=st.booleans(), fails=st.booleans())
    def store(self, waits: bool, fails: bool) -> None:
        """The store goes down or comes up; transactions wait, or those that did fail or not."""
        self.turn_store(waits, fails)

    @rule(index=which, size=sizes, takes=takes, seconds=st.sampled_from([0.0, 11.0]))
    def fail_late(self, index: int, size: int, takes: str, seconds: float) -> None:
        """The store fails a call that has waited for it, perhaps until its stream began."""
        self.store(True, False)
        self.call(index, 1, "tools/call", size, takes, WHOLE)
        self.broker.advance(seconds)
        self.store(False, True)
        self.store(False, False)

    # --- what must hold ---

    @invariant()
    def nothing_raised(self) -> None:
        """Nobody's doings are a fault of ours."""
        for failure in self.faults:
            failure.raiseException()

    @invariant()
    def counts_agree(self) -> None:
        """What is counted is there."""
        there = [v for v in self.visits if v.wire.connected and isinstance(v.protocol, Channel)]
        assert self.parts.site.connections == len(there)
        census.agrees(self.parts)
        alive = {child.number for child in self.broker.reactor.alive}
        assert alive == {link.pid for link in self.parts.pool.links()}

    def teardown(self) -> None:
        """Everybody goes, and nothing is left."""
        try:
            self.everybody_goes()
        finally:
            globalLogPublisher.removeObserver(self.notices)
        # A run that was broken off ends, too, so that nobody collects what waited in it.
        if sys.exc_info()[0] is None:
            self.nothing_raised()
            self.counts_agree()
            census.is_empty(self.parts)
            assert self.parts.site.connections == 0
            assert self.broker.reactor.alive == []
            assert self.broker.reactor.getDelayedCalls() == []


class NothingLeftTests(SynchronousTestCase):
    """The machine, run."""

    def test_any_order(self) -> None:
        """Whatever happens to a broker, in any order, its counts agree, and nothing is left."""
        for name, value in TIGHT.items():
            self.patch(limits, name, value)
        run_state_machine_as_test(NothingLeftMachine, settings=settings(stateful_step_count=40))
        # What `notice` lets pass.
        self.flushLoggedErrors(StoreDown)
