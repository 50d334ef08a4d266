"""
A state machine over links and pool, with children in memory.

Callers of several grants ask, leave and cancel; children answer, crash, hang
and close their pipes; credentials are renewed, grants end, time passes.
Whatever the order: no child hears a request of another grant, the caps hold,
every asker that stays is answered exactly once and with its own answer, and
after a stop nothing is left.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import refusals
from fjmcp.broker.links import Link
from fjmcp.broker.pool import Bounds, Pool
from fjmcp.children.launch import Launcher
from fjmcp.children.profiles import Command, command_for, recipe_for
from fjmcp.mcp.opening import PLAIN, Opening
from fjmcp.mcp.wire import Request
from fjmcp.refusals import McpRefusal
from fjmcp.testing.children import INITIALIZED, FakeChild
from fjmcp.testing.reactor import FakeReactor
from tests.broker.test_pool import Caller, Credential, Credentials

GRANTS = (Caller("g1", 1), Caller("g2", 1), Caller("g3", 2), Caller("g4", 3))
OPENINGS = (PLAIN, Opening("2025-06-18", b"{}"))
BOUNDS = Bounds(children=4, per_account=2, in_flight=2, start=20.0)

callers = st.sampled_from(GRANTS)
which = st.integers(0, 20)


@define(eq=False)
class Asker:
    """One request of one caller, and what became of it."""

    caller: Caller
    name: str
    replies: list[Any] = field(factory=list)
    refused: McpRefusal | None = None
    link: Link | None = None
    number: int = 0
    left: bool = False
    ended: bool = False
    waiting: Deferred[None] | None = None

    def said(self, line: bytes) -> bool:
        raise AssertionError("no child of this machine makes progress")

    def answered(self, line: bytes) -> None:
        self.replies.append(json.loads(line))


def pick(things: list[Any], index: int) -> Any:
    """One of them; None if there is none."""
    return things[index % len(things)] if things else None


class PoolMachine(RuleBasedStateMachine):
    """Everything that may happen to a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.reactor = FakeReactor(self.mind)
        self.credentials = Credentials()
        self.askers: list[Asker] = []
        self.faults: list[Failure] = []
        self.silent = False
        self.pool: Pool[Credential] = Pool(
            launcher=Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg),
            command_for=self.command_for,
            credentials=self.credentials,
            clock=self.reactor,
            version="1",
            bounds=BOUNDS,
        )

    def command_for(self, credential: Credential) -> Command:
        return command_for(
            recipe_for(["forgejo-mcp"]),
            url="u",
            token=f"account-{credential.account_id}-{credential.version}",
            user_agent="a",
            inherited={},
        )

    def mind(self, child: FakeChild, message: dict[str, Any]) -> None:
        if message.get("method") == "initialize":
            if not self.silent:
                child.answer(message["id"], INITIALIZED)
            self.silent = False

    # --- what callers do ---

    @rule(
        caller=callers,
        opening=st.sampled_from(OPENINGS),
        count=st.integers(1, 3),
        at_once=st.booleans(),
    )
    def ask(self, caller: Caller, opening: Opening, count: int, at_once: bool) -> None:
        for _ in range(count):
            self.ask_one(caller, opening)
        if at_once:
            self.reactor.turn()

    def ask_one(self, caller: Caller, opening: Opening) -> None:
        asker = Asker(caller, f"{caller.grant_id}/{len(self.askers)}")
        self.askers.append(asker)

        async def work() -> None:
            link = await self.pool.link_for(caller, opening)
            if isinstance(link, McpRefusal):
                asker.refused = link
                return
            assert link.grant_id == caller.grant_id, "a link of another grant"
            assert not asker.ended, "a link of a grant that has ended"
            params = json.dumps({"name": asker.name, "account": caller.account_id}).encode()
            asker.link = link
            asker.number = link.ask(Request(b'"same"', "tools/call", params), asker)

        asker.waiting = Deferred.fromCoroutine(work())
        asker.waiting.addErrback(lambda failure: self.cancelled(asker, failure))

    def cancelled(self, asker: Asker, failure: Failure) -> None:
        asker.left = True
        if not failure.check(CancelledError):
            self.faults.append(failure)

    @rule(index=which)
    def leave(self, index: int) -> None:
        asker = pick([a for a in self.askers if not a.replies and not a.left], index)
        if asker is None:
            return
        if asker.link is None:
            asker.waiting.cancel()
        else:
            asker.link.leave(asker.number)
            asker.left = True

    @rule(index=which)
    def cancel(self, index: int) -> None:
        asker = pick([a for a in self.askers if a.link is not None], index)
        if asker is not None:
            asker.link.cancel(asker.number)

    # --- what children do ---

    def child(self, index: int) -> FakeChild | None:
        found: FakeChild | None = pick(self.reactor.alive, index)
        return found

    @rule(index=which, which=which)
    def answer(self, index: int, which: int) -> None:
        child = self.child(index)
        asked = [] if child is None else [m for m in child.heard if m.get("method") == "tools/call"]
        message = pick(asked, which)
        if child is not None and message is not None:
            child.answer(message["id"], {"of": message["params"]["name"]})

    @rule(index=which)
    def answer_all(self, index: int) -> None:
        child = self.child(index)
        if child is not None:
            for message in list(child.heard):
                if message.get("method") == "tools/call":
                    child.answer(message["id"], {"of": message["params"]["name"]})

    @rule(index=which)
    def crash(self, index: int) -> None:
        child = self.child(index)
        if child is not None:
            child.exit(1)

    @rule(index=which, descriptor=st.sampled_from([0, 1]))
    def close_a_pipe(self, index: int, descriptor: int) -> None:
        child = self.child(index)
        if child is not None:
            child.close(descriptor)

    @rule(index=which, ignores=st.sampled_from(["EOF", "TERM"]))
    def grow_stubborn(self, index: int, ignores: str) -> None:
        child = self.child(index)
        if child is not None:
            child.ignores.add(ignores)

    @rule()
    def let_the_next_one_hang(self) -> None:
        self.silent = True

    @rule(index=which)
    def lose_the_id(self, index: int) -> None:
        child = self.child(index)
        if child is not None:
            child.say({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "panic"}})

    # --- what else happens ---

    @rule(account=st.sampled_from([1, 2, 3]))
    def renew(self, account: int) -> None:
        self.credentials.renew(account)

    @rule(caller=callers)
    def ask_while_credentials_are_held(self, caller: Caller) -> None:
        if self.credentials.held is None:
            self.credentials.held = []
        self.ask_one(caller, PLAIN)

    @rule()
    def release_credentials(self) -> None:
        held, self.credentials.held = self.credentials.held, None
        for wait in held or []:
            if not wait.called:
                wait.callback(None)

    @rule(caller=callers)
    def end_grant(self, caller: Caller) -> None:
        before = [a for a in self.askers if a.caller == caller]
        for asker in before:
            asker.ended = True
        ended = Deferred.fromCoroutine(self.pool.end_grant(caller.grant_id, refusals.GRANT_ENDED))
        # At once: whoever was being answered is, and nothing of the grant takes more.
        assert all(a.replies or a.left for a in before if a.link is not None)
        assert all(
            not link.usable for link in self.pool.links() if link.grant_id == caller.grant_id
        )
        self.reactor.turn()
        assert ended.called
        assert all(link.grant_id != caller.grant_id for link in self.pool.links())

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 3.0, 6.0, 20.0, 900.0]))
    def time_passes(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        self.reactor.turn()

    # --- what must hold ---

    @invariant()
    def caps_hold(self) -> None:
        # One successor at a time may be one too many.
        alive = self.reactor.alive
        assert len(alive) <= BOUNDS.children + any(map(self.renewed, (1, 2, 3))), alive
        for account in (1, 2, 3):
            token = f"account-{account}-"
            ours = [c for c in alive if c.env["FORGEJO_ACCESS_TOKEN"].startswith(token)]
            assert len(ours) <= BOUNDS.per_account + self.renewed(account), ours
        assert all(link.in_flight <= BOUNDS.in_flight for link in self.pool.links())

    def renewed(self, account: int) -> bool:
        credential = self.credentials.of.get(account)
        return isinstance(credential, Credential) and credential.version > 1

    @invariant()
    def nobody_is_disturbed(self) -> None:
        # Without a newer credential no child with a call in flight is taken away.
        if not any(map(self.renewed, (1, 2, 3))):
            errors = [r["error"]["message"] for a in self.askers for r in a.replies if "error" in r]
            assert refusals.CHILD_DRAINED.message not in errors

    @invariant()
    def nothing_raised(self) -> None:
        for failure in self.faults:
            failure.raiseException()

    @invariant()
    def nobody_is_nobodys(self) -> None:
        known = {link.pid for link in self.pool.links()}
        assert {child.number for child in self.reactor.alive} == known

    @invariant()
    def grants_do_not_mix(self) -> None:
        for child in self.reactor.children:
            calls = [m["params"] for m in child.heard if m.get("method") == "tools/call"]
            assert len({call["name"].partition("/")[0] for call in calls}) <= 1, calls
            for call in calls:
                token = child.env["FORGEJO_ACCESS_TOKEN"]
                assert token.startswith(f"account-{call['account']}-"), (token, call)

    @invariant()
    def answers_reach_their_askers(self) -> None:
        for asker in self.askers:
            assert len(asker.replies) <= 1, asker
            assert not (asker.refused and asker.replies), asker
            assert not (asker.left and asker.replies), asker
            for reply in asker.replies:
                assert reply["id"] == "same"
                assert "error" in reply or reply["result"] == {"of": asker.name}, reply

    def teardown(self) -> None:
        self.release_credentials()
        stopped = Deferred.fromCoroutine(self.pool.stop(5.0))
        for seconds in (0.0, 5.0, 3.0, 3.0, 5.0, 15.0):
            self.reactor.advance(seconds)
            self.reactor.turn()
        assert stopped.called
        assert self.reactor.alive == []
        assert self.pool.links() == ()
        assert self.reactor.getDelayedCalls() == []
        for asker in self.askers:
            done = len(asker.replies) + (asker.refused is not None) + asker.left
            assert done >= 1, f"never answered: {asker}"
            assert asker.waiting is not None
            assert asker.waiting.called
        self.answers_reach_their_askers()
        assert not (self.pool._open or self.pool._starts or self.pool._tickets)


class PoolMachineTests(SynchronousTestCase):
    """The machine, run."""

    def test_any_order(self) -> None:
        """Whatever happens to a pool, in whatever order, it keeps its promises."""
        run_state_machine_as_test(PoolMachine, settings=settings(stateful_step_count=50))
