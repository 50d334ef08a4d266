"""What is counted, as a scraper sees it, and as the handbook explains it."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import fjmcp
from fjmcp import limits
from fjmcp.broker.links import Phase
from fjmcp.daemon.measured import MeasuredLane, MeasuredPeer
from fjmcp.daemon.metrics import METHODS, OTHER, Few, Metrics
from fjmcp.daemon.pulse import Pulse
from fjmcp.forge.answers import Introspected, NewPair, Outcome, Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken, Pair
from fjmcp.meter import Meter, OAuth
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.store.transactions import StoreDown, Work
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visitor
from fjmcp.testing.whole import WholeBroker
from fjmcp.web.scrape import Scrape
from fjmcp.web.site import Site

ROOT = Path(fjmcp.__file__).resolve().parent.parent


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """The value of each time series: its name, then its labels' values."""
    text = metrics.exposition("")[0].decode()
    found: list[Sample] = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    return {(each.name, *each.labels.values()): each.value for each in found}


class MetricsTests(SynchronousTestCase):
    """Telling and asking."""

    def setUp(self) -> None:
        """Nothing was told yet."""
        self.metrics = Metrics("1.2.3", "abc")

    def test_no_global_registry(self) -> None:
        """Two daemons in one process count apart."""
        Metrics("1.2.3", "abc").child_ended("crashed")
        self.assertNotIn(("fjmcp_children_ended_total", "crashed"), samples(self.metrics))

    def test_methods(self) -> None:
        """A method that a client made up is `other`; those of MCP have names."""
        for method in ("tools/call", *(f"mine/{number}" for number in range(50))):
            self.metrics.call_ended(method, "result", 0.25)
        found = samples(self.metrics)
        self.assertEqual(found["fjmcp_calls_total", "tools/call", "result"], 1)
        self.assertEqual(found["fjmcp_calls_total", OTHER, "result"], 50)
        self.assertEqual(found["fjmcp_call_seconds_sum", OTHER], 12.5)
        self.assertIn("tools/list", METHODS)

    def test_few(self) -> None:
        """Past the bound of a label's values all further ones are one."""
        few = Few(2)
        self.assertEqual([few(text) for text in "abcab"], ["a", "b", OTHER, "a", "b"])
        for number in range(limits.METRIC_LABELS + 50):
            self.metrics.refused(str(number))
        self.assertEqual(samples(self.metrics)["fjmcp_refusals_total", OTHER], 50)

    def test_clock_set_back(self) -> None:
        """A time below zero counts as none."""
        self.metrics.call_ended("ping", "result", -3600.0)
        self.assertEqual(samples(self.metrics)["fjmcp_call_seconds_sum", "ping"], 0)

    def test_documents(self) -> None:
        """Fetches of documents are counted by what came of them."""
        for outcome in ("fetched", "timeout", "fetched"):
            self.metrics.document(outcome)
        found = samples(self.metrics)
        self.assertEqual(found["fjmcp_document_fetches_total", "fetched"], 2)
        self.assertEqual(found["fjmcp_document_fetches_total", "timeout"], 1)

    def test_census(self) -> None:
        """Sessions, children by state and calls in flight are counted at each scrape."""
        children = [(Phase.OPEN, 3), (Phase.OPEN, 1), (Phase.STARTING, 0)]
        self.metrics.count_at_scrape(lambda: 7, lambda: children)
        found = samples(self.metrics)
        self.assertEqual(found["fjmcp_sessions",], 7)
        self.assertEqual(found["fjmcp_children", "open"], 2)
        self.assertEqual(found["fjmcp_children", "starting"], 1)
        self.assertEqual(found["fjmcp_children", "draining"], 0)
        self.assertEqual(found["fjmcp_calls_in_flight",], 4)

    def test_scrape(self) -> None:
        """Prometheus gets its format, under any Host; what it also takes, it gets as well."""
        scrape = Scrape(self.metrics.exposition)
        site = Site(Endpoints("https://broker.example"), scrape.routes(), Clock())
        visitor = Visitor(site, Clock(), host="10.0.0.7:9180")
        visit = visitor.get("/metrics")
        self.assertEqual(visit.status, 200)
        self.assertTrue(str(visit.header("content-type")).startswith("text/plain; version=0.0.4"))
        self.assertIn(b'fjmcp_build_info{revision="abc",version="1.2.3"} 1.0', visit.body)
        visit = visitor.get("/metrics", accept="application/openmetrics-text;version=1.0.0")
        self.assertTrue(str(visit.header("content-type")).startswith("application/openmetrics"))
        self.assertTrue(visit.body.endswith(b"# EOF\n"))
        self.assertEqual(visitor.send("POST", "/metrics").status, 405)
        self.assertEqual(visitor.get("/mcp").status, 421)


class WholeTests(SynchronousTestCase):
    """A broker in memory that is watched."""

    def test_a_life(self) -> None:
        """Whatever happens from registration to revocation is counted once, under no name."""
        metrics = Metrics("1.2.3", "abc")
        broker = WholeBroker(meter=metrics)
        parts = broker.parts
        metrics.count_at_scrape(
            lambda: len(parts.sessions),
            lambda: [(link.phase, link.in_flight) for link in parts.pool.links()],
        )
        app = broker.register()
        browser = broker.browser()
        answer = app.sign_in("alice", browser)
        visitor = broker.visitor()
        visitor.cookies = dict(browser.cookies["broker.example"])
        visitor.get(app.authorize_url().removeprefix(PUBLIC_URL))  # nobody is asked again
        tokens = app.redeem(answer["code"]).json()
        again = app.refresh(tokens["refresh_token"]).json()
        app.refresh(tokens["refresh_token"])
        app.refresh("fjr_unknown")
        broker.settle()
        app.call(again["access_token"])
        self.assertEqual(samples(metrics)["fjmcp_children", "open"], 1)
        self.assertEqual(samples(metrics)["fjmcp_calls_in_flight",], 1)
        [child] = broker.reactor.alive
        child.exit(1)
        app.revoke(again["refresh_token"])
        broker.settle()

        found = samples(metrics)
        for step in OAuth:
            expected = 0 if step is OAuth.DENIED else 1
            self.assertEqual(found["fjmcp_oauth_steps_total", step.value], expected, step)
        self.assertEqual(found["fjmcp_grants_ended_total", "revoked"], 1)
        self.assertEqual(found["fjmcp_refusals_total", "refresh-unknown"], 1)
        self.assertEqual(found["fjmcp_forge_answers_total", "exchange", "new-pair"], 1)
        self.assertEqual(found["fjmcp_forge_answers_total", "user", "answered"], 1)
        self.assertEqual(found["fjmcp_child_start_seconds_count", "first"], 1)
        self.assertEqual(found["fjmcp_children_ended_total", "crashed"], 1)
        self.assertEqual(found["fjmcp_calls_total", "tools/list", "child-crashed"], 1)
        self.assertEqual(found["fjmcp_children", "open"], 0)
        self.assertGreater(found["fjmcp_http_responses_total", "200"], 3)
        text = metrics.exposition("")[0].decode()
        for secret in (app.client_id, "alice", again["access_token"], again["refresh_token"]):
            self.assertNotIn(secret, text)


class Told(Meter):
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def forge_answered(self, operation: str, outcome: str, seconds: float) -> None:
        self.told.append((operation, outcome, seconds))

    def store_hop(self, lane: str, outcome: str, seconds: float) -> None:
        self.told.append((lane, outcome, seconds))

    def lag(self, seconds: float) -> None:
        self.told.append((round(seconds, 6),))
        if len(self.told) == 2:
            raise ZeroDivisionError


class OnePeer:
    """A Forgejo with one answer to each question."""

    client_id = "an-id"
    scopes = "read:user"
    outcome: Outcome = Troubled("no", None)

    async def exchange(self, code: str, verifier: str) -> Outcome:
        return self.outcome

    async def refresh(self, token: ForgeToken) -> Outcome:
        return self.outcome

    async def introspect(self, token: ForgeToken) -> Introspected | Troubled:
        return Troubled("no", None)

    async def user(self, access: ForgeToken) -> User | Refused | Troubled:
        raise ZeroDivisionError

    async def in_organization(
        self, access: ForgeToken, user: User, organization: str
    ) -> bool | Refused | Troubled:
        return organization == "zoo"

    async def in_team(
        self, access: ForgeToken, user: User, organization: str, team: str
    ) -> bool | Refused | Troubled:
        return Refused("prohibited", f"{organization}:{team}")


class MeasuredTests(SynchronousTestCase):
    """Parts that tell how long they took."""

    def setUp(self) -> None:
        """A clock that goes on by one at each look."""
        self.meter = Told()
        ticking = count()
        self.ticks = lambda: float(next(ticking))

    def test_peer(self) -> None:
        """Every question to Forgejo is told with its outcome; answers and errors come through."""
        one = OnePeer()
        peer = MeasuredPeer(one, self.meter, self.ticks)
        self.assertEqual((peer.client_id, peer.scopes), ("an-id", "read:user"))
        token = ForgeToken("gto_x")
        self.assertIs(now(peer.refresh(token)), one.outcome)
        one.outcome = Refused("invalid_grant", "no")
        self.assertIs(now(peer.exchange("c", "v")), one.outcome)
        one.outcome = NewPair(Pair(token, token, 3600.0, 0.0, 0.0))
        self.assertIs(now(peer.refresh(token)), one.outcome)
        self.assertEqual(now(peer.introspect(token)), Troubled("no", None))
        self.assertRaises(ZeroDivisionError, now, peer.user(token))
        ada = User(7, "ada")
        self.assertIs(now(peer.in_organization(token, ada, "zoo")), True)
        asked = now(peer.in_team(token, ada, "zoo", "keepers"))
        self.assertEqual(asked, Refused("prohibited", "zoo:keepers"))
        self.assertEqual(
            self.meter.told,
            [
                ("refresh", "troubled", 1.0),
                ("exchange", "refused", 1.0),
                ("refresh", "new-pair", 1.0),
                ("introspect", "troubled", 1.0),
                ("user", "failed", 1.0),
                ("organization", "answered", 1.0),
                ("team", "refused", 1.0),
            ],
        )

    def test_lane(self) -> None:
        """Every transaction is told with its outcome and its wait, and nothing else."""
        results: list[Deferred[int]] = [succeed(5), fail(StoreDown()), fail(KeyError())]

        class One:
            def run(self, work: Work[int]) -> Deferred[int]:
                return results.pop(0)

            def commits_elsewhere(self) -> Deferred[int]:
                return succeed(7)

            def close(self) -> Deferred[None]:
                return succeed(None)

        lane = MeasuredLane(One(), "write", self.meter, self.ticks)  # type: ignore[arg-type]
        self.assertEqual(self.successResultOf(lane.run(lambda cursor: 5)), 5)
        self.failureResultOf(lane.run(lambda cursor: 5), StoreDown)
        self.failureResultOf(lane.run(lambda cursor: 5), KeyError)
        self.assertEqual(self.successResultOf(lane.commits_elsewhere()), 7)
        self.successResultOf(lane.close())
        self.assertEqual(
            self.meter.told,
            [("write", "done", 1.0), ("write", "down", 1.0), ("write", "failed", 1.0)],
        )

    def test_pulse(self) -> None:
        """How late the reactor comes is told each second, though telling may fail."""
        clock = Clock()
        late = [0.0]
        pulse = Pulse(clock, self.meter, lambda: clock.seconds() + late[0])
        pulse.start()
        pulse.start()
        clock.advance(1)
        late[0] += 0.75  # time passes in which the reactor sees nothing
        clock.advance(1)
        clock.advance(1)
        self.assertEqual(self.meter.told, [(0.0,), (0.75,), (0.0,)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        pulse.stop()
        pulse.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class HandbookTests(SynchronousTestCase):
    """docs/operations.md against the code."""

    def test_every_metric_is_explained(self) -> None:
        """Each metric has a row with its labels, and each row is a metric."""
        page = (ROOT / "docs" / "operations.md").read_text("utf-8")
        rows = dict(re.findall(r"^\| `((?:fjmcp|process)_\w+)` \| ([^|]*)\|", page, re.MULTILINE))
        metrics = Metrics("1.2.3", "abc")
        metrics.count_at_scrape(lambda: 0, lambda: ())
        families = list(metrics.registry.collect())
        names = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
        names = {f"{name}_info" if name == "fjmcp_build" else name for name in names}
        self.assertEqual(set(rows), names)
        for collector in vars(metrics).values():
            for label in getattr(collector, "_labelnames", ()):
                name = f"{collector._name}_total"
                row = rows.get(name) or rows[collector._name]
                self.assertIn(f"`{label}`", row, name)
