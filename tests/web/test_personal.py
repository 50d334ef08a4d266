"""Tests for sessions with a child of their own, through the endpoint."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.broker.pool import Bounds
from fjmcp.broker.sessions import Sessions
from fjmcp.mcp.opening import Profile
from fjmcp.testing.children import FakeChild
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from tests.web.desk import CAPABLE, Client, Desk, Key, capable, error, request, result

LEVEL = "logging/setLevel"
SUBSCRIBE = "resources/subscribe"
ROOTS = "roots/list"
LOG = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}}


class PersonalCase(SynchronousTestCase):
    """A desk with children of which nothing is known."""

    bounds = Bounds()

    def setUp(self) -> None:
        self.desk = Desk(profile=Profile(), bounds=self.bounds)
        self.desk.reactor.mind = capable
        self.addCleanup(self.leave_nothing)

    def leave_nothing(self) -> None:
        """After each test: what is left ends, and no timer stays."""
        stopped = Deferred.fromCoroutine(self.desk.pool.stop(0.0))
        self.desk.streams.stop()
        for seconds in (0.0, limits.CLOSE_WAIT, limits.TERM_WAIT, limits.KILL_WAIT):
            self.desk.pass_time(seconds)
        self.successResultOf(stopped)
        self.assertEqual((self.desk.timers, self.desk.endpoint._calls), ([], {}))

    def open(
        self, account_id: int = 1, client_id: str = "c1", grant_id: str = "", **capabilities: object
    ) -> Client:
        """A client in a session, which declared these capabilities."""
        client = self.desk.client(account_id, client_id, grant_id)
        asked = {"protocolVersion": "2025-11-25", "capabilities": capabilities}
        client.session = client.ask("initialize", asked).header("mcp-session-id")
        assert client.session is not None
        return client

    @property
    def child(self) -> FakeChild:
        return self.desk.child

    def level(self, client: Client, level: str = "debug") -> FakeChild:
        """The client sets a level, which its child takes."""
        visit = client.ask(LEVEL, {"level": level}, id="level")
        self.child.answer_last({})
        self.assertEqual(visit.json(), result({}, "level"))
        return self.child

    def served_by(self, client: Client) -> FakeChild:
        """Which child hears a call of this client."""
        client.ask("tools/call", {"name": "whose"}, id="whose")
        heard = [c for c in self.desk.children if c.heard and "name" in str(c.heard[-1])]
        (child,) = [c for c in heard if c.heard[-1]["params"] == {"name": "whose"}]
        child.heard[-1]["params"] = {}
        child.answer_last({})
        return child

    def heard(self, visit: Visit) -> list[Any]:
        return [json.loads(event) for event in visit.events()]

    def asks(self, child: FakeChild, id: object = 1, method: str = ROOTS, **params: object) -> None:
        child.say({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    def asked(self, visit: Visit, method: str = ROOTS) -> Any:
        """The id of the only question on this stream."""
        (question,) = [m for m in self.heard(visit) if m.get("method") == method]
        return question["id"]

    def tells(self, client: Client, message: object) -> None:
        """POST of what needs no answer."""
        visit = client.post(message)
        self.assertEqual((visit.status, visit.body), (202, b""))

    def answers_to(self, child: FakeChild) -> list[Any]:
        """What the child was answered to its questions."""
        return [m for m in child.heard if "method" not in m]


class TurningTests(PersonalCase):
    """Which session has a child of its own."""

    def test_shared_until_then(self) -> None:
        """Sessions with equal openings share one; a level set in one gives that one its own."""
        one, two = self.open(), self.open()
        shared = self.served_by(one)
        self.assertIs(self.served_by(two), shared)
        own = self.level(one)
        self.assertIsNot(own, shared)
        self.assertEqual(own.methods(), ["initialize", "notifications/initialized", LEVEL])
        self.assertNotIn(LEVEL, shared.methods())
        self.assertIs(self.served_by(one), own)
        self.assertIs(self.served_by(two), shared)
        self.assertIs(self.served_by(self.open()), shared)
        self.assertEqual(len(self.desk.children), 2)

    def test_subscription(self) -> None:
        """Who subscribes has one of its own from then on."""
        one, two = self.open(), self.open()
        visit = one.ask(SUBSCRIBE, {"uri": "forgejo://a"})
        own = self.child
        own.answer_last({})
        self.assertEqual(visit.json(), result({}))
        self.assertIs(self.served_by(one), own)
        self.assertIsNot(self.served_by(two), own)

    def test_can_be_asked(self) -> None:
        """Who declared that it can be asked has one of its own from the start."""
        clients = [self.open(sampling={}), self.open(elicitation={}), self.open(roots={})]
        first = self.desk.children[:]
        self.assertEqual(len(first), 3)
        self.assertEqual([self.served_by(client) for client in clients], first)

    def test_each_its_own(self) -> None:
        """Of equal sessions that can be asked each has its own, under one grant or several."""
        clients = [self.open(roots={}) for _ in range(3)]
        clients += [self.open(2, roots={}), self.open(1, "c2", roots={})]
        children = [self.served_by(client) for client in clients]
        self.assertEqual(len(set(map(id, children))), 5)
        self.assertEqual([self.served_by(client) for client in clients], children)

    def test_no_child_for_an_equal_initialize(self) -> None:
        """Opening a session like another starts no child; its first request does."""
        self.open(roots={})
        other = self.open(roots={})
        self.assertEqual(len(self.desk.children), 1)
        self.served_by(other)
        self.assertEqual(len(self.desk.children), 2)

    def test_child_that_neither_asks_nor_logs(self) -> None:
        """Of such a child nothing turns personal, and a level is taken by us."""
        self.desk = Desk(profile=Profile(never_asks=True, never_logs=True))
        one, two = self.open(roots={}, sampling={}), self.open(roots={}, sampling={})
        self.assertEqual(one.ask(LEVEL, {"level": "debug"}).json(), result({}))
        self.assertIs(self.served_by(one), self.served_by(two))
        self.assertEqual(len(self.desk.children), 1)

    def test_running_calls_end_on_the_old_one(self) -> None:
        """A call in flight when its session turns personal is answered by the shared child."""
        client = self.open()
        running = client.ask(id="running")
        shared = self.child
        own = self.level(client)
        self.assertIsNot(own, shared)
        shared.answer_last({"from": "shared"})
        self.assertEqual(running.json(), result({"from": "shared"}, "running"))
        self.assertFalse(shared.over)

    def test_calls_while_it_turns(self) -> None:
        """One child starts, however many requests want it at once."""
        client = self.open()
        self.desk.reactor.mind = lambda child, message: None
        visits = [client.ask(LEVEL, {"level": level}, id=level) for level in ("debug", "info")]
        visits.append(client.ask(SUBSCRIBE, {"uri": "a"}, id="a"))
        self.assertEqual(len(self.desk.children), 2)
        own = self.child
        own.answer_last(CAPABLE)
        self.desk.pass_time(0)
        self.assertEqual(own.methods()[2:], [LEVEL, LEVEL, SUBSCRIBE])
        for message in own.heard[2:]:
            own.answer(message["id"], {})
        self.assertTrue(all(visit.ended for visit in visits))

    def test_not_turned_by_a_refusal(self) -> None:
        """If no child can be started, the session goes on with the one that it shares."""
        client = self.open()
        shared = self.child
        self.desk.reactor.fails = OSError("no more processes")
        self.assertEqual(client.ask(LEVEL, {"level": "debug"}).status, 503)
        self.desk.reactor.fails = None
        self.assertIs(self.served_by(client), shared)

    def test_refused_by_the_child(self) -> None:
        """What the child refuses its successors are not told; the session keeps its child."""
        client = self.open()
        visit = client.ask(LEVEL, {"level": "loud"})
        told = {"code": -32602, "message": "no such level"}
        self.child.say({"jsonrpc": "2.0", "id": self.child.heard[-1]["id"], "error": told})
        self.assertEqual(visit.json()["error"], told)
        own = self.child
        self.assertIs(self.served_by(client), own)
        own.exit(1)
        self.assertNotIn(LEVEL, self.served_by(client).methods())

    def test_not_offered(self) -> None:
        """What the child never offered is refused by us and costs no child."""
        offers: dict[str, Any] = CAPABLE | {"capabilities": {"resources": {}}}

        def mind(child: FakeChild, message: dict[str, Any]) -> None:
            if message["method"] == "initialize":
                child.answer(message["id"], offers)

        self.desk.reactor.mind = mind
        client = self.open()
        for method in (LEVEL, SUBSCRIBE):
            visit = client.ask(method, {"level": "debug", "uri": "a"})
            self.assertEqual((visit.status, visit.json()), (200, error(refusals.NOT_OFFERED, 1)))
        self.assertEqual(len(self.desk.children), 1)

    def test_without_a_session(self) -> None:
        """Nobody's session gets no child of its own: it cannot set or subscribe."""
        client = self.desk.client()
        for method in (LEVEL, SUBSCRIBE):
            visit = client.ask(method, {"level": "debug", "uri": "a"})
            self.assertEqual(
                (visit.status, visit.json()), (400, error(refusals.SESSION_REQUIRED, 1))
            )
        self.assertEqual(self.desk.children, [])

    def test_without_a_session_after_one_that_can_be_asked(self) -> None:
        """A request of nobody's session goes to a child that is told that nobody can be asked."""
        own = self.served_by(self.open(roots={}))
        other = self.desk.client()
        child = self.served_by(other)
        self.assertIsNot(child, own)
        self.assertEqual(child.heard[0]["params"]["capabilities"], {})
        self.asks(child)
        self.desk.pass_time(0)
        self.assertEqual(child.heard[-1]["error"]["code"], refusals.NO_QUESTIONS.code)

    def test_another_grant(self) -> None:
        """Under another grant a session gets another child of its own, never the first."""
        client = self.open(roots={})
        own = self.served_by(client)
        again = self.desk.client(1, "c1", grant_id="another")
        again.session = client.session
        other = self.served_by(again)
        self.assertIsNot(other, own)
        self.assertIs(self.served_by(client), own)
        self.assertIs(self.served_by(again), other)

    def test_left_while_it_opens(self) -> None:
        """A client that leaves before its session is open leaves no child."""
        self.desk.reactor.mind = lambda child, message: None
        client = self.desk.client()
        asked = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}}
        client.ask("initialize", asked).leave()
        self.desk.pass_time(0)
        self.assertEqual((len(self.desk.children), self.desk.reactor.alive), (1, []))


class SuccessorTests(PersonalCase):
    """What a child is told that takes the place of another."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.open(roots={})
        self.level(self.client, "info")
        self.level(self.client, "error")
        for uri in ("b", "a", "c"):
            self.client.ask(SUBSCRIBE, {"uri": uri})
            self.child.answer_last({})
        self.client.ask("resources/unsubscribe", {"uri": "b"})
        self.child.answer_last({})
        self.assertEqual(len(self.desk.children), 1)

    def told(self, child: FakeChild) -> list[Any]:
        """What a child was asked after its initialization, the last call left out."""
        return [(m["method"], m["params"]) for m in child.heard[2:-1]]

    REPLAY = (
        (LEVEL, {"level": "error"}),
        (SUBSCRIBE, {"uri": "a"}),
        (SUBSCRIBE, {"uri": "c"}),
    )

    def successor(self) -> FakeChild:
        """The child that answers the next call, having taken up the session."""
        count = len(self.desk.children)
        visit = self.client.ask("tools/call", {"name": "x"}, id="next")
        self.assertEqual(len(self.desk.children), count + 1)
        replayed = self.child.heard[2:]
        self.assertNotIn("tools/call", self.child.methods(), "before the replay is answered")
        for message in replayed:
            self.child.answer(message["id"], {})
        self.desk.pass_time(0)
        self.child.answer_last({"ok": True})
        self.assertEqual(visit.json(), result({"ok": True}, "next"))
        return self.child

    def test_after_a_crash(self) -> None:
        """The last level and what is subscribed, each once, before anything else."""
        self.child.exit(1)
        self.assertEqual(self.told(self.successor()), list(self.REPLAY))

    def test_after_a_reap(self) -> None:
        """So too after the child was idle for too long."""
        self.desk.pass_time(limits.SESSION_IDLE)
        self.desk.pool.reap(limits.SESSION_IDLE)
        self.desk.pass_time(0)
        self.assertEqual(self.desk.reactor.alive, [])
        self.assertEqual(self.told(self.successor()), list(self.REPLAY))

    def test_after_a_newer_credential(self) -> None:
        """So too when its credential has a successor; the old child drains."""
        old = self.child
        self.desk.keys.answer = Key(version=2)
        self.assertEqual(self.told(self.successor()), list(self.REPLAY))
        self.desk.pass_time(0)
        self.assertTrue(old.over)

    def test_after_a_rotation(self) -> None:
        """The sweep replaces it as well, and no request has to come."""
        old = self.child
        self.desk.keys.answer = Key(version=2)
        rotated = Deferred.fromCoroutine(self.desk.pool.rotate())
        self.desk.pass_time(0)
        for message in self.child.heard[2:]:
            self.child.answer(message["id"], {})
        self.desk.pass_time(0)
        self.successResultOf(rotated)
        self.assertTrue(old.over)
        self.assertIsNot(self.child, old)
        self.assertIs(self.served_by(self.client), self.child)
        self.assertEqual(self.told(self.child), list(self.REPLAY))

    def test_after_a_restart(self) -> None:
        """So too in another process: the session's row knows it."""
        self.child.exit(1)
        again = Sessions(self.desk.store, self.desk.reactor)
        session = now(again.find(self.client.session or "", 1, "c1"))
        assert not isinstance(session, refusals.McpRefusal)
        self.assertEqual(
            [(method, json.loads(params)) for method, params in session.opening.replay()],
            list(self.REPLAY),
        )

    def test_kept_before_it_is_told(self) -> None:
        """The client hears that a level is set when the row knows it, and not before."""
        self.desk.store.hold()
        visit = self.client.ask(LEVEL, {"level": "debug"})
        self.child.answer_last({})
        self.desk.pass_time(0)
        self.assertFalse(visit.answered)
        self.desk.store.release()
        self.desk.pass_time(0)
        self.assertEqual(visit.json(), result({}))

    def test_store_down(self) -> None:
        """While the store is down memory must do, and the row follows."""
        self.desk.store.fail_all()
        self.level(self.client, "debug")
        self.desk.store.fail_all(False)
        self.desk.pass_time(limits.SESSION_KEEP)
        self.client.ask("ping")
        rows = now(self.desk.store.read(lambda cursor: cursor.many("SELECT opening FROM sessions")))
        self.assertIn("debug", rows[0][0])

    def test_changed_while_it_starts(self) -> None:
        """A level that is set while a successor starts reaches that successor too."""
        old = self.child
        setting = self.client.ask(LEVEL, {"level": "alert"}, id="alert")
        number = old.heard[-1]["id"]
        self.desk.keys.answer = Key(version=2)
        visit = self.client.ask(id="next")
        new = self.child
        self.assertIsNot(new, old)
        old.answer(number, {})
        self.assertEqual(setting.json(), result({}, "alert"))
        self.desk.pass_time(0)
        for message in new.heard[2:]:
            new.answer(message["id"], {})
        self.desk.pass_time(0)
        new.answer_last({})
        self.assertEqual(visit.json(), result({}, "next"))
        levels = [m["params"]["level"] for m in new.heard if m.get("method") == LEVEL]
        self.assertEqual(levels, ["error", "alert"])

    def test_refused_replay(self) -> None:
        """A successor that refuses some of it serves all the same."""
        self.child.exit(1)
        visit = self.client.ask(id="next")
        for message in self.child.heard[2:]:
            told = {"code": -32602, "message": "gone"}
            self.child.say({"jsonrpc": "2.0", "id": message["id"], "error": told})
        self.desk.pass_time(0)
        self.child.answer_last({})
        self.assertEqual(visit.json(), result({}, "next"))

    def test_silent_replay(self) -> None:
        """One that answers nothing of it serves after REPLAY seconds."""
        self.child.exit(1)
        visit = self.client.ask(id="next")
        self.assertNotIn("tools/list", self.child.methods())
        self.desk.pass_time(limits.REPLAY)
        self.child.answer_last({})
        self.assertEqual(visit.json(), result({}, "next"))

    def test_crash_in_a_replay(self) -> None:
        """A successor that ends meanwhile is one that did not start."""
        self.child.exit(1)
        visit = self.client.ask(id="next")
        self.child.exit(1)
        self.desk.pass_time(0)
        self.assertEqual(
            (visit.status, visit.json()), (503, error(refusals.CHILD_START_FAILED, "next"))
        )


class BoundTests(PersonalCase):
    """Caps hold for children of one session too (design D6)."""

    bounds = Bounds(children=3, per_account=2, in_flight=2)

    def test_past_the_bound(self) -> None:
        """A request past what a child takes waits for another one to end: no second child."""
        client = self.open(roots={})
        visits = [client.ask(id=n) for n in range(5)]
        own = self.child
        self.assertEqual(own.methods().count("tools/list"), 2)
        for n in range(5):
            number = [m["id"] for m in own.heard if m.get("method") == "tools/list"][n]
            own.answer(number, {"n": n})
            self.desk.pass_time(0)
            self.assertEqual(visits[n].json(), result({"n": n}, n))
        self.assertEqual(len(self.desk.children), 1)

    def test_waits_so_long(self) -> None:
        """Who waits too long is refused, its call not made."""
        client = self.open(roots={})
        for n in range(2):
            client.ask(id=n)
        visit = client.ask(id="late", accept="application/json")
        self.desk.pass_time(limits.ROOM - 1)
        self.assertFalse(visit.answered)
        self.desk.pass_time(1)
        self.assertEqual((visit.status, visit.json()), (503, error(refusals.CHILD_BUSY, "late")))
        self.assertEqual(self.child.methods().count("tools/list"), 2)

    def test_so_many_wait(self) -> None:
        """Too many of them are refused at once."""
        client = self.open(roots={})
        visits = [client.ask(id=n) for n in range(2 + limits.ROOM_WAITERS)]
        self.assertFalse(any(visit.answered for visit in visits))
        visit = client.ask(id="more")
        self.assertEqual((visit.status, visit.json()), (503, error(refusals.CHILD_BUSY, "more")))

    def test_left_while_it_waits(self) -> None:
        """Who leaves while it waits asks nothing, and takes nobody's place."""
        client = self.open(roots={})
        visits = [client.ask(id=n) for n in range(4)]
        visits[2].leave()
        own = self.child
        own.answer_last({})
        self.desk.pass_time(0)
        self.assertEqual(own.methods().count("tools/list"), 3)
        own.answer_last({"n": 3})
        self.desk.pass_time(0)
        self.assertEqual(visits[3].json(), result({"n": 3}, 3))

    def test_crash_while_they_wait(self) -> None:
        """Those who wait get the successor; those whose calls were running an error."""
        client = self.open(roots={})
        visits = [client.ask(id=n) for n in range(3)]
        self.child.exit(1)
        self.desk.pass_time(0)
        self.assertEqual(visits[0].json(), error(refusals.CHILD_CRASHED, 0))
        self.child.answer_last({})
        self.assertEqual(visits[2].json(), result({}, 2))
        self.assertEqual(len(self.desk.children), 2)

    def test_end_of_grant_while_they_wait(self) -> None:
        """The end of the grant is the answer of those who wait."""
        client = self.open(roots={})
        visits = [client.ask(id=n) for n in range(3)]
        ended = self.desk.end(client)
        self.desk.pass_time(0)
        self.successResultOf(ended)
        for n, visit in enumerate(visits):
            self.assertEqual(visit.json(), error(refusals.GRANT_ENDED, n))

    def test_end_of_session_while_they_wait(self) -> None:
        """The end of the session is the answer of those who wait; running calls go on."""
        client = self.open(roots={})
        visits = [client.ask(id=n) for n in range(3)]
        self.assertEqual(client.delete().status, 204)
        self.assertEqual(visits[2].json(), error(refusals.UNKNOWN_SESSION, 2))
        self.child.answer_last({})
        self.assertEqual(visits[1].json(), result({}, 1))

    def test_full(self) -> None:
        """The longest idle child makes room; if each has a call, 503."""
        clients = [self.open(account, roots={}) for account in (1, 1, 2)]
        self.served_by(clients[0])
        self.desk.pass_time(1)
        self.served_by(clients[1])
        self.served_by(clients[2])
        first = self.desk.children[0]
        fourth = self.open(2, roots={})
        visit = fourth.ask()
        self.desk.pass_time(0)
        self.assertTrue(first.over)
        self.child.answer_last({})
        self.assertEqual(visit.json(), result({}))
        for client in (clients[1], clients[2], fourth):
            client.ask(id="busy")
        visit = clients[0].ask()
        self.assertEqual((visit.status, visit.json()), (503, error(refusals.CHILDREN_FULL, 1)))

    def test_open_question_is_work(self) -> None:
        """A child that waits for an answer is not idle: it is neither evicted nor reaped."""
        client = self.open(roots={})
        stream = client.listen()
        own = self.child
        self.asks(own)
        self.desk.pool.reap(0.0)
        other, third = self.open(1, "c2", roots={}), self.open(1, "c3", roots={})
        self.assertFalse(own.over)
        self.tells(client, result({"roots": []}, self.asked(stream)))
        self.desk.pass_time(1)
        self.desk.pool.reap(1.0)
        self.desk.pass_time(0)
        self.assertTrue(own.over)
        self.assertIsNotNone(other.session or third.session)


class EndingTests(PersonalCase):
    """The end of a session that has a child of its own."""

    def test_delete(self) -> None:
        """The child of its own ends by EOF; others stay."""
        one, two = self.open(roots={}), self.open(roots={})
        own, other = self.served_by(one), self.served_by(two)
        self.assertEqual(one.delete().status, 204)
        self.desk.pass_time(0)
        self.assertEqual((own.over, own.signals, other.over), (True, [], False))

    def test_delete_during_a_call(self) -> None:
        """A call that runs is answered first, if it takes no longer than DRAIN."""
        client = self.open(roots={})
        visit = client.ask()
        client.delete()
        self.desk.pass_time(limits.DRAIN - 1)
        self.assertFalse(self.child.stdin_closed)
        self.child.answer_last({})
        self.assertEqual(self.heard(visit), [result({})])
        self.desk.pass_time(0)
        self.assertTrue(self.child.over)

    def test_delete_during_a_long_call(self) -> None:
        """One that takes longer gets an error."""
        client = self.open(roots={})
        visit = client.ask()
        client.delete()
        self.desk.pass_time(limits.DRAIN)
        self.assertEqual(self.heard(visit), [error(refusals.CHILD_DRAINED, 1)])
        self.assertTrue(self.child.over)

    def test_delete_while_it_starts(self) -> None:
        """A child that was starting for it is nobody's, and goes."""
        client = self.open()
        self.desk.reactor.mind = lambda child, message: None
        visit = client.ask(LEVEL, {"level": "debug"})
        own = self.child
        client.delete()
        self.desk.pass_time(0)
        self.assertEqual((visit.status, own.over), (404, True))

    def test_delete_under_another_grant(self) -> None:
        """Its children of every grant end with it."""
        client = self.open(roots={})
        again = self.desk.client(1, "c1", grant_id="another")
        again.session = client.session
        children = [self.served_by(client), self.served_by(again)]
        again.delete()
        self.desk.pass_time(0)
        self.assertEqual([child.over for child in children], [True, True])

    def test_delete_of_a_shared_one(self) -> None:
        """A session that shared its child leaves that where it is."""
        one, two = self.open(), self.open()
        shared = self.served_by(one)
        one.delete()
        self.desk.pass_time(0)
        self.assertIs(self.served_by(two), shared)

    def test_pushed_out(self) -> None:
        """A session that made room for others takes its child with it."""
        self.open(roots={})
        own = self.child
        other = self.desk.client()
        for _ in range(limits.SESSIONS_PER_CONNECTION):
            other.initialize()
        self.desk.pass_time(0)
        self.assertTrue(own.over)

    def test_changes_nothing_after_its_end(self) -> None:
        """A level whose answer comes after the end of its session brings no row back."""
        client = self.open(roots={})
        visit = client.ask(LEVEL, {"level": "debug"})
        client.delete()
        self.child.answer_last({})
        self.assertEqual(visit.json(), result({}))
        rows = now(self.desk.store.read(lambda cursor: cursor.many("SELECT 1 FROM sessions")))
        self.assertEqual(rows, [])
        self.assertEqual(client.post(request("ping")).status, 404)
