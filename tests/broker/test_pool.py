"""Tests for `fjmcp.broker.pool`, with children in memory."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGKILL
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.broker.links import Link
from fjmcp.broker.pool import Bounds, Pool
from fjmcp.children.launch import Launcher
from fjmcp.children.profiles import Command, command_for, recipe_for
from fjmcp.mcp.opening import PLAIN, Opened, Opening
from fjmcp.mcp.wire import Request
from fjmcp.refusals import CHILD_BUSY, McpRefusal
from fjmcp.tally import Rate
from fjmcp.testing.children import INITIALIZED, FakeChild
from fjmcp.testing.reactor import FakeReactor
from tests.broker.test_links import Answers

CALL = Request(b'"c1"', "tools/call", b'{"name":"echo"}')
OTHER = Opening("2025-06-18", b"{}")


@frozen
class Caller:
    """Who asks."""

    grant_id: str = "g1"
    account_id: int = 1


@frozen
class Credential:
    """What a child is born with."""

    account_id: int
    version: int = 1
    expires_at: float = 1e6


@define
class Credentials:
    """Credentials that a test changes."""

    of: dict[int, Credential | McpRefusal] = field(factory=dict)
    held: list[Deferred[None]] | None = None

    async def usable(self, account_id: int) -> Credential | McpRefusal:
        if self.held is not None:
            wait: Deferred[None] = Deferred()
            self.held.append(wait)
            await wait
        return self.of.setdefault(account_id, Credential(account_id))

    def renew(self, account_id: int = 1) -> None:
        """A newer pair."""
        old = self.of.setdefault(account_id, Credential(account_id))
        assert isinstance(old, Credential)
        self.of[account_id] = evolve(old, version=old.version + 1)


class PoolCase(SynchronousTestCase):
    """A pool in memory."""

    bounds = Bounds(children=4, per_account=3, in_flight=2, start=20.0)

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.credentials = Credentials()
        self.pool: Pool[Credential] = Pool(
            launcher=Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg),
            command_for=self.command_for,
            credentials=self.credentials,
            clock=self.reactor,
            version="1.2",
            bounds=self.bounds,
        )
        self.addCleanup(self.leave_nothing)

    def leave_nothing(self) -> None:
        """After each test: a stop ends all that is under way, whatever the test left."""
        for wait in self.credentials.held or []:
            if not wait.called:
                wait.callback(None)
        stopped = Deferred.fromCoroutine(self.pool.stop(0.0))
        for seconds in (0.0, limits.CLOSE_WAIT, limits.TERM_WAIT, limits.KILL_WAIT):
            self.reactor.advance(seconds)
            self.reactor.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.pool.links(), ())
        self.assertEqual(self.pool._tickets, set())

    def command_for(self, credential: Credential) -> Command:
        return command_for(
            recipe_for(["/opt/forgejo-mcp"]),
            url="u",
            token=f"token-{credential.account_id}-{credential.version}",
            user_agent="a",
            inherited={},
        )

    def begin(
        self, caller: Caller | None = None, opening: Opening = PLAIN
    ) -> Deferred[Link | McpRefusal]:
        """Ask for a link, and let nothing happen yet."""
        return Deferred.fromCoroutine(self.pool.link_for(caller or Caller(), opening))

    def get(self, caller: Caller | None = None, opening: Opening = PLAIN) -> Link:
        """A link, at once."""
        link = self.outcome(self.begin(caller, opening))
        assert isinstance(link, Link), link
        return link

    def outcome(self, asked: Deferred[Any]) -> Any:
        """What came of it."""
        self.reactor.turn()
        return self.successResultOf(asked)

    def busy(self, link: Link) -> Answers:
        """A call in flight at this link."""
        asker = Answers()
        link.ask(CALL, asker)
        self.reactor.turn()
        return asker

    def child(self, link: Link) -> FakeChild:
        """The process behind a link."""
        (child,) = [child for child in self.reactor.children if child.number == link.pid]
        return child

    def silent(self, child: FakeChild, message: object) -> None:
        """A child that answers nothing."""

    def assertCalm(self) -> None:
        """Nothing is under way that waits for time."""
        self.reactor.turn()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ShareTests(PoolCase):
    """Whose child is whose."""

    def test_one_child_for_all_requests(self) -> None:
        """All requests of a grant with an equal opening go to one child."""
        link = self.get()
        self.assertIs(self.get(opening=Opening(PLAIN.revision, b"{}")), link)
        self.assertEqual(len(self.reactor.children), 1)
        self.assertIs(self.pool.find(Caller(), PLAIN), link)
        self.assertEqual(self.pool.links(), (link,))
        self.assertCalm()

    def test_other_grant_other_child(self) -> None:
        """Even of one account: nothing of one grant is reachable from another's child."""
        mine = self.get(Caller("g1", 1))
        other = self.get(Caller("g2", 1))
        foreign = self.get(Caller("g3", 2))
        self.assertEqual(len({mine, other, foreign}), 3)
        self.assertEqual(
            [child.env["FORGEJO_ACCESS_TOKEN"] for child in self.reactor.children],
            ["token-1-1", "token-1-1", "token-2-1"],
        )
        self.assertIsNone(self.pool.find(Caller("g4", 1), PLAIN))

    def test_other_opening_other_child(self) -> None:
        """A child is told one opening only."""
        one, two = self.get(), self.get(opening=OTHER)
        self.assertIsNot(one, two)
        self.assertEqual(self.child(two).heard[0]["params"]["protocolVersion"], "2025-06-18")

    def test_full_child(self) -> None:
        """Past its bound of calls in flight a second one starts; the first fills again first."""
        one = self.get()
        self.busy(one)
        self.assertIs(self.get(), one)
        self.busy(one)
        two = self.get()
        self.assertIsNot(two, one)
        self.busy(two)
        self.child(one).answer_last({})
        self.busy(self.get())
        self.assertEqual((one.in_flight, two.in_flight), (2, 1))

    def test_grants(self) -> None:
        """A grant is in use here from the moment that a child is asked for until the last one is
        gone, whoever has left meanwhile."""
        self.assertEqual(self.pool.grants(), set())
        self.credentials.held = []
        asked = self.begin()
        self.assertEqual(self.pool.grants(), {"g1"}, "a credential is waited for")
        self.credentials.held.pop().callback(None)
        self.credentials.held = None
        link = self.outcome(asked)
        self.assertEqual(self.pool.grants(), {"g1"}, "a child is idle")
        self.child(link).ignores = {"EOF", "TERM"}
        self.pool.rebound(evolve(self.bounds, children=1))
        left = self.begin(Caller("g2"))
        left.addErrback(lambda failure: failure.trap(CancelledError))
        left.cancel()
        self.assertEqual(self.pool.grants(), {"g1", "g2"}, "one leaves, one waits for its room")
        self.reactor.pump([limits.CLOSE_WAIT, limits.TERM_WAIT])
        self.reactor.turn()
        self.assertEqual(self.pool.grants(), {"g2"})
        self.outcome(Deferred.fromCoroutine(self.pool.end_grant("g2", refusals.GRANT_ENDED)))
        self.assertEqual(self.pool.grants(), set())

    def test_find_starts_nothing(self) -> None:
        """What needs no child gets none."""
        self.assertIsNone(self.pool.find(Caller(), PLAIN))
        self.assertEqual(self.reactor.children, [])

    def test_asides_and_ends_are_told(self) -> None:
        """Whoever carries what children say unasked hears it with the link, and its end."""
        said: list[tuple[Link, str]] = []
        gone: list[Link] = []
        self.pool.on_link_said = lambda link, notice: said.append((link, notice.method))
        self.pool.on_link_ended = gone.append
        link = self.get()
        self.child(link).say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        self.child(link).exit(1)
        self.assertEqual(said, [(link, "notifications/tools/list_changed")])
        self.assertEqual(gone, [link])


class OpenedTests(PoolCase):
    """The answer to a client's initialize."""

    def opened(self, caller: Caller | None = None, opening: Opening = PLAIN) -> Any:
        return self.outcome(
            Deferred.fromCoroutine(self.pool.opened_for(caller or Caller(), opening))
        )

    def test_recorded(self) -> None:
        """A second equal initialize is answered as the first, without a child."""
        first = self.opened()
        self.assertIsInstance(first, Opened)
        self.reactor.children[0].exit(0)
        self.assertIs(self.opened(), first)
        self.assertEqual(len(self.reactor.children), 1)

    def test_by_grant_and_opening(self) -> None:
        """Another grant or another opening asks a child of its own."""
        self.opened()
        self.opened(Caller("g2"))
        self.opened(opening=OTHER)
        self.assertEqual(len(self.reactor.children), 3)

    def test_errors_are_not_recorded(self) -> None:
        """A failure is a failure once."""
        self.reactor.mind = lambda child, message: child.exit(1)
        self.assertIs(self.opened(), refusals.CHILD_START_FAILED)
        self.reactor.mind = FakeReactor().mind
        self.reactor.advance(limits.CHILD_RETRY)
        self.assertIsInstance(self.opened(), Opened)

    def test_gone_with_the_grant(self) -> None:
        """Of a grant that ended nothing is remembered."""
        self.opened()
        self.outcome(Deferred.fromCoroutine(self.pool.end_grant("g1", refusals.GRANT_ENDED)))
        self.opened()
        self.assertEqual(len(self.reactor.children), 2)


class SingleFlightTests(PoolCase):
    """Several who want the same child."""

    def test_one_start_serves_all(self) -> None:
        """Those who come while it starts wait for it, up to what it has room for."""
        asked = [self.begin() for _ in range(2)]
        self.assertEqual(len(self.reactor.children), 1)
        links = {self.outcome(one) for one in asked}
        self.assertEqual(len(links), 1)
        self.assertCalm()

    def test_crowd(self) -> None:
        """More than one child has room for start more, and no child gets more than its bound."""

        def one(caller: Caller) -> Deferred[Link | McpRefusal]:
            async def ask() -> Link | McpRefusal:
                link = await self.pool.link_for(caller, PLAIN)
                if isinstance(link, Link):
                    link.ask(CALL, Answers())
                return link

            return Deferred.fromCoroutine(ask())

        asked = [one(Caller()) for _ in range(6)]
        outcomes = [self.outcome(each) for each in asked]
        self.assertEqual(len(self.reactor.children), 3)
        self.assertEqual([outcome.in_flight for outcome in outcomes], [2] * 6)

    def test_crowd_of_one_session(self) -> None:
        """For a session's own child no more wait while it starts than would once it runs."""
        most = self.bounds.in_flight + limits.ROOM_WAITERS
        asked = [
            Deferred.fromCoroutine(self.pool.link_for(Caller(), PLAIN, b"owner"))
            for _ in range(most + 3)
        ]
        self.assertEqual([self.successResultOf(one) for one in asked[most:]], 3 * [CHILD_BUSY])
        links = {self.outcome(one) for one in asked[:most]}
        self.assertEqual((len(links), len(self.reactor.children)), (1, 1))
        self.assertCalm()

    def test_first_asker_leaves(self) -> None:
        """The start goes on for the others, and is not done twice."""
        first, second = self.begin(), self.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertIsInstance(self.outcome(second), Link)
        self.assertEqual(len(self.reactor.children), 1)

    def test_all_leave(self) -> None:
        """The child is there for the next request."""
        asked = self.begin()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.get()
        self.assertEqual(len(self.reactor.children), 1)

    def test_failure_is_told_to_all(self) -> None:
        """Each who waits gets the refusal."""
        self.reactor.mind = self.silent
        asked = [self.begin() for _ in range(2)]
        self.reactor.advance(20)
        for one in asked:
            self.assertIs(self.outcome(one), refusals.CHILD_START_SLOW)
        self.assertEqual(self.reactor.alive, [])
        self.assertEqual(self.pool.links(), ())
        self.assertCalm()


class FailureTests(PoolCase):
    """Children that do not start."""

    def exits(self, code: int) -> None:
        self.reactor.mind = lambda child, message: child.exit(code)

    def test_missing_program(self) -> None:
        """The asker is told to tell the operator, the operator is told the path."""
        self.exits(127)
        with capturedLogs() as events:
            self.assertIs(self.outcome(self.begin()), refusals.CHILD_MISSING)
        (event,) = [e for e in events if e["log_format"] == "child did not start"]
        self.assertEqual(event["program"], "/opt/forgejo-mcp")
        self.assertEqual(event["reason"], "child-missing")
        self.assertNotIn("token-1-1", repr(events))

    def test_no_circle(self) -> None:
        """For some seconds the grant gets the same refusal, and nothing is started."""
        self.exits(1)
        for _ in range(5):
            self.assertIs(self.outcome(self.begin()), refusals.CHILD_START_FAILED)
        self.assertEqual(len(self.reactor.children), 1)
        self.outcome(self.begin(Caller("g2", 2)))
        self.assertEqual(len(self.reactor.children), 2)
        self.reactor.advance(limits.CHILD_RETRY)
        self.outcome(self.begin())
        self.assertEqual(len(self.reactor.children), 3)

    def test_newer_credential_is_tried_at_once(self) -> None:
        """The failure may have been the old credential's."""
        self.exits(1)
        self.outcome(self.begin())
        self.credentials.renew()
        self.outcome(self.begin())
        self.assertEqual(len(self.reactor.children), 2)

    def test_clock_set_back(self) -> None:
        """A clock that jumps back does not make a refusal last."""
        self.reactor.advance(1000)
        self.exits(1)
        # The rate of starts goes by the same clock, and lets one wait for a second then.
        self.pool.rebound(evolve(self.bounds, starts=Rate(1, 0.0)))
        self.outcome(self.begin())
        self.reactor.rightNow = 10.0
        self.outcome(self.begin())
        self.assertEqual(len(self.reactor.children), 2)

    def test_failures_are_forgotten(self) -> None:
        """The memory of failures does not grow."""
        self.exits(1)
        for number in range(50):
            self.outcome(self.begin(Caller(f"g{number}", number)))
            self.reactor.advance(limits.CHILD_RETRY)
        self.assertLessEqual(len(self.pool._failures), 2)

    def test_ends_right_after_its_start(self) -> None:
        """A child that answers initialize but is of no use is a failure, not a circle."""

        def brief(child: FakeChild, message: dict[str, Any]) -> None:
            child.close(0)
            child.answer(message["id"], INITIALIZED)

        self.reactor.mind = brief
        self.assertIs(self.outcome(self.begin()), refusals.CHILD_START_FAILED)
        self.assertIs(self.outcome(self.begin()), refusals.CHILD_START_FAILED)
        self.assertEqual(len(self.reactor.children), 1)
        self.assertEqual(self.reactor.alive, [])

    def test_a_fault_of_ours(self) -> None:
        """An exception while a child is made leaves nobody waiting."""

        def faulty(credential: Credential) -> Command:
            raise RuntimeError("a bug")

        self.pool._command_for = faulty
        self.assertIs(self.outcome(self.begin()), refusals.CHILD_START_FAILED)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.pool._starts, [])

    def test_credential_refused(self) -> None:
        """Without a credential no child is started; the caller hears why."""
        for refusal in (refusals.CREDENTIAL_DEAD, refusals.CREDENTIAL_TROUBLED):
            self.credentials.of[1] = refusal
            self.assertIs(self.outcome(self.begin()), refusal)
        self.assertEqual(self.reactor.children, [])

    def test_crash_then_a_new_one(self) -> None:
        """After a crash the next request gets a fresh child."""
        link = self.get()
        asker = self.busy(link)
        self.child(link).exit(0, SIGKILL)
        self.assertEqual(asker.replies[0]["error"]["message"], refusals.CHILD_CRASHED.message)
        self.assertIsNot(self.get(), link)
        self.assertEqual(self.pool.counts["crashed"], 1)


class ReplaceTests(PoolCase):
    """A credential that is newer than the child."""

    def test_successor_first(self) -> None:
        """The next request gets a successor; the old child answers its calls, then ends."""
        old = self.get()
        asker = self.busy(old)
        self.credentials.renew()
        new = self.get()
        self.assertIsNot(new, old)
        self.assertEqual(self.child(new).env["FORGEJO_ACCESS_TOKEN"], "token-1-2")
        self.assertFalse(self.child(old).over)
        self.assertIs(self.get(), new)
        self.child(old).answer_last({"ok": 1})
        self.reactor.turn()
        self.assertEqual(asker.replies[0]["result"], {"ok": 1})
        self.assertTrue(self.child(old).over)
        self.assertEqual(self.pool.links(), (new,))
        self.assertCalm()

    def test_old_child_serves_until_then(self) -> None:
        """While the successor starts, the old child is not ended."""
        old = self.get()
        self.credentials.renew()
        self.reactor.mind = self.silent
        self.begin()
        self.reactor.turn()
        self.assertTrue(old.usable)

    def test_drain_limit(self) -> None:
        """Its calls get so long and no longer."""
        old = self.get()
        asker = self.busy(old)
        self.credentials.renew()
        self.get()
        self.reactor.advance(limits.DRAIN)
        self.assertEqual(asker.replies[0]["error"]["message"], refusals.CHILD_DRAINED.message)
        self.reactor.turn()
        self.assertTrue(self.child(old).over)

    def test_single_flight(self) -> None:
        """Those who meet the newer credential together get one successor."""
        old = self.get()
        self.credentials.renew()
        asked = [self.begin() for _ in range(2)]
        self.assertEqual(len({self.outcome(one) for one in asked} | {old}), 2)

    def test_successor_that_fails(self) -> None:
        """The old child goes on serving while its own credential lasts."""
        old = self.get()
        self.credentials.renew()
        self.reactor.mind = lambda child, message: child.exit(1)
        self.assertIs(self.outcome(self.begin()), old)
        self.assertIs(self.outcome(self.begin()), old)
        self.assertEqual(len(self.reactor.children), 2)
        self.reactor.advance(1e6)
        self.assertIs(self.outcome(self.begin()), refusals.CHILD_START_FAILED)

    def test_may_exceed_a_cap(self) -> None:
        """One successor at a time may be a child too many."""
        for grant in ("g1", "g2", "g3"):
            self.busy(self.get(Caller(grant)))
        self.credentials.renew()
        self.busy(self.get(Caller("g1")))
        self.assertEqual(len(self.reactor.alive), 4)
        # The second would be two too many while the first one's elder drains.
        second = self.outcome(self.begin(Caller("g2")))
        self.assertEqual(second.version, 1)
        self.assertEqual(len(self.reactor.alive), 4)


class CapTests(PoolCase):
    """No more than so many."""

    def full(self) -> list[Link]:
        """Four children of four accounts, the first idle the longest."""
        links = []
        for number in range(1, 5):
            links.append(self.get(Caller(f"g{number}", number)))
            self.reactor.advance(1)
        return links

    def test_longest_idle_goes(self) -> None:
        """At the cap the child that is idle the longest makes room."""
        links = self.full()
        self.busy(links[0])
        new = self.get(Caller("g9", 9))
        self.assertEqual(
            [self.child(link).over for link in (*links, new)], [False, True, False, False, False]
        )
        self.assertEqual(self.pool.counts["evicted"], 1)

    def test_never_more_than_the_cap(self) -> None:
        """The new one waits until the old one is gone."""
        links = self.full()
        self.child(links[0]).ignores = {"EOF"}
        asked = self.begin(Caller("g9", 9))
        self.reactor.turn()
        self.assertNoResult(asked)
        self.assertEqual(len(self.reactor.children), 4)
        self.reactor.advance(limits.CLOSE_WAIT)
        self.assertIsInstance(self.outcome(asked), Link)
        self.assertEqual(len(self.reactor.alive), 4)

    def test_all_busy(self) -> None:
        """With a call in flight at every one: 503, and nobody is disturbed."""
        links = self.full()
        for link in links:
            self.busy(link)
        outcome = self.outcome(self.begin(Caller("g9", 9)))
        self.assertIs(outcome, refusals.CHILDREN_FULL)
        self.assertTrue(all(link.usable for link in links))
        self.child(links[2]).answer_last({})
        self.get(Caller("g9", 9))
        self.assertTrue(self.child(links[2]).over)

    def test_per_account(self) -> None:
        """An account at its cap makes room among its own, whoever else is idle."""
        other = self.get(Caller("other", 2))
        self.reactor.advance(1)
        mine = [self.get(Caller(f"g{number}")) for number in range(3)]
        self.get(Caller("g9"))
        self.assertTrue(self.child(mine[0]).over)
        self.assertFalse(self.child(other).over)

    def test_account_all_busy(self) -> None:
        """An account whose children are all at work is refused, though there is room."""
        for number in range(3):
            self.busy(self.get(Caller(f"g{number}")))
        self.assertIs(self.outcome(self.begin(Caller("g9"))), refusals.CHILDREN_FULL)
        self.get(Caller("other", 2))

    def test_full_is_no_failure(self) -> None:
        """To be refused for want of room is not remembered."""
        links = self.full()
        for link in links:
            self.busy(link)
        self.outcome(self.begin(Caller("g9", 9)))
        self.assertEqual(self.pool._failures, {})

    def test_two_wait_for_room(self) -> None:
        """Each who needs room makes its own; the cap holds all the time."""
        links = self.full()
        for link in links:
            self.child(link).ignores = {"EOF"}
        asked = [self.begin(Caller(f"n{number}", 10 + number)) for number in range(2)]
        self.reactor.advance(limits.CLOSE_WAIT)
        for one in asked:
            self.assertIsInstance(self.outcome(one), Link)
        self.assertEqual(len(self.reactor.alive), 4)
        self.assertEqual(self.pool.counts["evicted"], 2)

    def test_starting_children_count(self) -> None:
        """A child that starts takes a place, and is not thrown out for another."""
        self.reactor.mind = self.silent
        asked = [self.begin(Caller(f"g{number}", number)) for number in range(6)]
        self.reactor.turn()
        self.assertEqual(len(self.reactor.children), 4)
        self.assertIs(self.successResultOf(asked[4]), refusals.CHILDREN_FULL)


class RateTests(PoolCase):
    """How often a child starts for one account."""

    bounds = Bounds(children=100, per_account=3, in_flight=2, starts=Rate(5, 2.0), queue=0)

    def churn(self, number: int, account_id: int = 1) -> Link | McpRefusal:
        """Ask for a child with an opening of its own."""
        opening = Opening(PLAIN.revision, b'{"experimental":{"n":%d}}' % number)
        caller = Caller(f"g{account_id}", account_id)
        outcome: Link | McpRefusal = self.outcome(self.begin(caller, opening))
        return outcome

    def test_churn(self) -> None:
        """Past so many at once it is refused, without a process, until its time has come."""
        outcomes = [self.churn(number) for number in range(10)]
        self.assertEqual([isinstance(each, Link) for each in outcomes], [True] * 5 + [False] * 5)
        self.assertEqual(set(outcomes[5:]), {refusals.CHILDREN_TOO_OFTEN})
        self.assertEqual(len(self.reactor.children), 5)
        self.reactor.advance(2.0)
        self.assertIsInstance(self.churn(10), Link)
        self.assertIs(self.churn(11), refusals.CHILDREN_TOO_OFTEN)

    def test_queue(self) -> None:
        """So many more wait for their turn, one after another; the next one is refused."""
        self.pool.rebound(evolve(self.bounds, queue=2))
        asked = []
        for number in range(8):
            opening = Opening(PLAIN.revision, b'{"experimental":{"n":%d}}' % number)
            asked.append(self.begin(Caller("g1", 1), opening))
            self.reactor.turn()
        self.assertIs(self.successResultOf(asked[7]), refusals.CHILDREN_TOO_OFTEN)
        for number, started in ((5, 5), (6, 6)):
            self.assertNoResult(asked[number])
            self.reactor.advance(1.9)
            self.assertEqual(len(self.reactor.children), started)
            self.reactor.advance(0.1)
            self.reactor.turn()
            self.assertIsInstance(self.successResultOf(asked[number]), Link)
        self.assertEqual(len(self.reactor.children), 7)

    def test_queue_ends(self) -> None:
        """Who waits for a turn hears at once that the grant has ended, and nothing waits on."""
        self.pool.rebound(evolve(self.bounds, queue=2))
        for number in range(5):
            self.churn(number)
        waiting = self.begin(Caller("g1", 1), OTHER)
        also = self.begin(Caller("g1", 1), OTHER)
        self.reactor.turn()
        self.assertNoResult(waiting)
        Deferred.fromCoroutine(self.pool.end_grant("g1", refusals.GRANT_ENDED))
        for each in (waiting, also):
            self.assertIs(self.successResultOf(each), refusals.GRANT_ENDED)
        self.assertEqual(self.pool._starts, [])
        self.reactor.advance(10)
        self.reactor.turn()
        self.assertEqual(len(self.reactor.children), 5)

    def test_no_room_is_no_start(self) -> None:
        """Where there is no room nothing starts, and nothing counts."""
        self.pool.rebound(evolve(self.bounds, children=1))
        self.reactor.mind = lambda child, message: None
        first = self.begin(Caller("g2", 2))
        self.reactor.turn()
        for number in range(20):
            self.assertIs(self.churn(number), refusals.CHILDREN_FULL)
        self.assertNoResult(first)

    def test_what_is_there(self) -> None:
        """A child that is there serves on: nothing has to start for it."""
        link = self.churn(0)
        for number in range(1, 10):
            self.churn(number % 3)
        self.assertIs(self.churn(0), link)

    def test_nobody_else(self) -> None:
        """No other account has fewer for it."""
        for number in range(10):
            self.churn(number)
        for number in range(5):
            self.assertIsInstance(self.churn(number, 2), Link)

    def test_crashes(self) -> None:
        """A child that crashes again and again is started again, as often as people see it."""
        bounds = evolve(self.bounds, starts=Rate.of(limits.CHILD_STARTS))
        self.pool.rebound(bounds)
        for _ in range(limits.CHILD_STARTS[0]):
            self.child(self.get()).exit(1)
            self.reactor.turn()
        for _ in range(20):
            self.reactor.advance(limits.CHILD_STARTS[1])
            self.child(self.get()).exit(1)
            self.reactor.turn()

    def test_successor(self) -> None:
        """A newer credential brings a successor, however many have started."""
        link = [self.churn(number) for number in range(5)][-1]
        assert isinstance(link, Link)
        self.assertIs(self.churn(5), refusals.CHILDREN_TOO_OFTEN)
        for _ in range(10):
            self.credentials.renew()
            successor = self.get(Caller("g1", 1), link.opening)
            self.assertIsNot(successor, link)
            link = successor

    def test_said_once(self) -> None:
        """The log says it once a minute."""
        with capturedLogs() as logs:
            for number in range(20):
                self.churn(number)
        said = [e["account"] for e in logs if e["log_format"] == "account starts too many children"]
        self.assertEqual(said, [1])


class EndGrantTests(PoolCase):
    """The end of a grant."""

    def end(self, grant: str = "g1") -> Deferred[None]:
        return Deferred.fromCoroutine(self.pool.end_grant(grant, refusals.GRANT_ENDED))

    def test_calls_and_children(self) -> None:
        """Calls end with the reason, children are killed at once, other grants go on."""
        mine, also = self.get(), self.get(opening=OTHER)
        other = self.get(Caller("g2"))
        askers = [self.busy(mine), self.busy(also)]
        theirs = self.busy(other)
        self.child(mine).ignores = {"EOF", "TERM"}
        ended = self.end()
        for asker in askers:
            self.assertEqual(asker.replies[0]["error"]["message"], refusals.GRANT_ENDED.message)
        self.assertEqual(self.child(mine).signals, [SIGKILL])
        self.outcome(ended)
        self.assertEqual(self.reactor.alive, [self.child(other)])
        self.assertEqual(theirs.replies, [])
        self.assertEqual(self.pool.links(), (other,))

    def test_answers_when_none_lives(self) -> None:
        """It comes back only when the children are gone."""
        link = self.get()
        ended = self.end()
        self.assertNoResult(ended)
        self.outcome(ended)
        self.assertTrue(self.child(link).over)

    def test_draining_child(self) -> None:
        """A child that drains is the grant's too."""
        old = self.get()
        asker = self.busy(old)
        self.credentials.renew()
        self.get()
        self.outcome(self.end())
        self.assertEqual(asker.replies[0]["error"]["message"], refusals.GRANT_ENDED.message)
        self.assertEqual(self.reactor.alive, [])

    def test_start_under_way(self) -> None:
        """Who waits for a child is refused, and the child killed."""
        self.reactor.mind = self.silent
        asked = [self.begin() for _ in range(2)]
        ended = self.end()
        for one in asked:
            self.assertIs(self.successResultOf(one), refusals.GRANT_ENDED)
        self.outcome(ended)
        self.assertEqual(self.reactor.alive, [])
        self.assertEqual(self.pool.links(), ())
        self.assertCalm()

    def test_credential_under_way(self) -> None:
        """A request that waits for a credential starts no child of an ended grant."""
        self.credentials.held = []
        asked = self.begin()
        other = self.begin(Caller("g2"))
        self.outcome(self.end())
        for wait in self.credentials.held:
            wait.callback(None)
        self.assertIs(self.outcome(asked), refusals.GRANT_ENDED)
        self.assertIsInstance(self.outcome(other), Link)
        self.assertEqual(len(self.reactor.children), 1)

    def test_waiting_for_room(self) -> None:
        """Nor does one that waits for room."""
        for number in range(1, 5):
            self.child(self.get(Caller(f"g{number}", number))).ignores = {"EOF"}
        asked = self.begin(Caller("g9", 9))
        self.reactor.turn()
        self.outcome(self.end("g9"))
        self.assertIs(self.successResultOf(asked), refusals.GRANT_ENDED)
        self.reactor.advance(limits.CLOSE_WAIT)
        self.reactor.turn()
        self.assertEqual(len(self.reactor.children), 4)

    def test_grant_that_comes_back(self) -> None:
        """A grant that only slept is served again."""
        self.get()
        self.outcome(self.end())
        self.get()
        self.assertEqual(self.pool._tickets, set())

    def test_nothing_to_end(self) -> None:
        """A grant without a child ends at once."""
        self.successResultOf(self.end("nobody"))


class StopTests(PoolCase):
    """The end of the process."""

    def stop(self, drain: float = 20.0) -> Deferred[None]:
        return Deferred.fromCoroutine(self.pool.stop(drain))

    def test_every_child(self) -> None:
        """Idle ones end at once, calls in flight get their time, nothing starts any more."""
        idle, at_work = self.get(), self.get(Caller("g2"))
        asker = self.busy(at_work)
        stopped = self.stop()
        self.reactor.turn()
        self.assertTrue(self.child(idle).over)
        self.assertNoResult(stopped)
        self.assertIs(self.outcome(self.begin()), refusals.SHUTTING_DOWN)
        self.child(at_work).answer_last({})
        self.outcome(stopped)
        self.assertEqual(asker.replies[0]["result"], {})
        self.assertEqual(self.reactor.alive, [])
        self.assertCalm()

    def test_limits(self) -> None:
        """A child that hears neither EOF nor TERM is gone after the limits."""
        link = self.get()
        asker = self.busy(link)
        self.child(link).ignores = {"EOF", "TERM"}
        stopped = self.stop()
        for seconds in (20.0, limits.CLOSE_WAIT, limits.TERM_WAIT):
            self.assertNoResult(stopped)
            self.reactor.advance(seconds)
        self.outcome(stopped)
        self.assertEqual(asker.replies[0]["error"]["message"], refusals.CHILD_DRAINED.message)
        self.assertCalm()

    def test_start_under_way(self) -> None:
        """Who waits for a child is told that we stop."""
        self.reactor.mind = self.silent
        asked = self.begin()
        stopped = self.stop()
        self.assertIs(self.outcome(asked), refusals.SHUTTING_DOWN)
        self.outcome(stopped)
        self.assertEqual(self.reactor.alive, [])

    def test_twice(self) -> None:
        """A second stop waits for the same end, and may hurry it."""
        self.busy(self.get())
        first, second = self.stop(20), self.stop(0)
        self.outcome(first)
        self.outcome(second)
        self.successResultOf(self.stop())
        self.assertEqual(self.reactor.alive, [])

    def test_child_that_the_kernel_keeps(self) -> None:
        """Not even one that cannot be killed stops the stop."""
        self.child(self.get()).ignores = {"EOF", "TERM", "KILL"}
        stopped = self.stop()
        self.reactor.pump([limits.CLOSE_WAIT, limits.TERM_WAIT, limits.KILL_WAIT])
        self.outcome(stopped)


class LogTests(PoolCase):
    """What an operator reads."""

    def events(self, work: Callable[[], object]) -> list[dict[str, Any]]:
        with capturedLogs() as events:
            work()
            self.reactor.turn()
        return [dict(event) for event in events]

    def test_started_and_ended(self) -> None:
        """Pid, grant and why at the start; pid, reason and how at the end."""
        (started,) = self.events(self.get)
        self.assertEqual(started["log_format"], "child started")
        self.assertEqual((started["pid"], started["grant"]), (10_000_000, "g1"))
        self.assertEqual(started["cause"], "first")
        self.reactor.advance(3)
        events = self.events(lambda: self.reactor.children[0].exit(3))
        (ended,) = [event for event in events if event["log_format"] == "child ended"]
        self.assertEqual((ended["pid"], ended["reason"], ended["code"]), (10_000_000, "crashed", 3))
        self.assertEqual(ended["seconds"], 3.0)

    def test_counts(self) -> None:
        """Numbers for a status page."""
        self.get()
        self.credentials.renew()
        self.get()
        self.reactor.turn()
        self.assertEqual(dict(self.pool.counts), {"started": 2, "replaced": 1, "ended": 1})
