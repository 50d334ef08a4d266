"""
What is counted, for Prometheus; docs/operations.md explains each number.

One registry for each daemon, none for the process.  Labels are few: a value
that a stranger chooses is one of a known set or `other`, and one that our own
code chooses becomes `other` past `limits.METRIC_LABELS` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, cast

from attrs import define, field
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fjmcp import limits
from fjmcp.broker.links import Phase
from fjmcp.meter import Meter, OAuth

OTHER: Final = "other"

METHODS: Final = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tools/call",
        "tools/list",
    }
)
"""The requests that MCP defines, of any revision; all others are counted as one."""

# What one waits for: a person for a call, a call for a transaction, everything for the reactor.
_CALL: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_START: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20)
_HOP: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_LAG: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


@define
class Few:
    """The values of one label, as many as there may be."""

    _bound: int = limits.METRIC_LABELS
    _seen: set[str] = field(factory=set, init=False)

    def __call__(self, text: str) -> str:
        """The same, or `other` when there are too many already."""
        if text not in self._seen:
            if len(self._seen) >= self._bound:
                return OTHER
            self._seen.add(text)
        return text


class Metrics(Meter):
    """Counts what it is told."""

    def __init__(self, version: str, revision: str) -> None:
        self.registry = registry = CollectorRegistry()
        Info("fjmcp_build", "What runs.", registry=registry).info(
            {"version": version, "revision": revision}
        )
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fjmcp_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"fjmcp_{name}_seconds", text, labels, buckets=buckets, registry=registry
            )

        self._starts = histogram(
            "child_start", "From the start of a child to its answer.", _START, "cause"
        )
        self._not_started = counter(
            "child_start_failures", "Children that did not answer initialize.", "reason"
        )
        self._ended = counter("children_ended", "Children that are gone.", "reason")
        self._calls = counter("calls", "Requests to children.", "method", "outcome")
        self._call_time = histogram("call", "Until the answer to a request.", _CALL, "method")
        self._oauth = counter("oauth_steps", "Steps from registration to revocation.", "step")
        self._refusals = counter("refusals", "Requests that were refused.", "reason")
        self._grants_ended = counter("grants_ended", "Grants that ended for ever.", "reason")
        self._responses = counter("http_responses", "HTTP responses.", "status")
        self._forge = counter("forge_answers", "Answers of Forgejo.", "operation", "outcome")
        self._forge_time = histogram("forge_answer", "Until Forgejo's answer.", _CALL, "operation")
        self._documents = counter(
            "document_fetches", "Fetches of clients' metadata documents.", "outcome"
        )
        self._hops = counter("store_hops", "Transactions.", "lane", "outcome")
        self._hop_time = histogram("store_hop", "Of a transaction, with its wait.", _HOP, "lane")
        self._lag = histogram("event_loop_lag", "How late the reactor is.", _LAG)
        for step in OAuth:
            self._oauth.labels(step.value)
        self._cause, self._unstarted, self._end = Few(), Few(), Few()
        self._outcome, self._reason, self._grant_end = Few(), Few(), Few()

    def count_at_scrape(
        self, sessions: Callable[[], int], children: Callable[[], Iterable[tuple[Phase, int]]]
    ) -> None:
        """
        Count these when somebody asks.

        :param children: the phase of each, and its calls in flight.
        """
        self.registry.register(_Census(sessions, children))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it and its Content-Type, in a format that an Accept header takes."""
        encode, content_type = choose_encoder(accept)
        return encode(cast("Collector", self.registry)), content_type

    # --- being told -------------------------------------------------------------------

    def child_started(self, cause: str, seconds: float) -> None:
        self._starts.labels(self._cause(cause)).observe(max(0.0, seconds))

    def child_not_started(self, reason: str, seconds: float) -> None:
        self._not_started.labels(self._unstarted(reason)).inc()

    def child_ended(self, reason: str) -> None:
        self._ended.labels(self._end(reason)).inc()

    def call_ended(self, method: str, outcome: str, seconds: float) -> None:
        known = method if method in METHODS else OTHER
        self._calls.labels(known, self._outcome(outcome)).inc()
        # A clock that was set back must not take away what others have waited.
        self._call_time.labels(known).observe(max(0.0, seconds))

    def oauth(self, step: OAuth) -> None:
        self._oauth.labels(step.value).inc()

    def refused(self, reason: str) -> None:
        self._refusals.labels(self._reason(reason)).inc()

    def grant_ended(self, reason: str) -> None:
        self._grants_ended.labels(self._grant_end(reason)).inc()

    def answered(self, status: int) -> None:
        self._responses.labels(str(status)).inc()

    def forge_answered(self, operation: str, outcome: str, seconds: float) -> None:
        self._forge.labels(operation, outcome).inc()
        self._forge_time.labels(operation).observe(max(0.0, seconds))

    def document(self, outcome: str) -> None:
        self._documents.labels(outcome).inc()

    def store_hop(self, lane: str, outcome: str, seconds: float) -> None:
        self._hops.labels(lane, outcome).inc()
        self._hop_time.labels(lane).observe(max(0.0, seconds))

    def lag(self, seconds: float) -> None:
        self._lag.observe(max(0.0, seconds))


@define(eq=False)
class _Census(Collector):
    """What is there just now."""

    _sessions: Callable[[], int]
    _children: Callable[[], Iterable[tuple[Phase, int]]]

    def collect(self) -> Iterable[Metric]:
        """prometheus-client's, at each scrape."""
        there = list(self._children())
        sessions = GaugeMetricFamily("fjmcp_sessions", "Sessions that are known.")
        sessions.add_metric([], self._sessions())
        children = GaugeMetricFamily("fjmcp_children", "Children by state.", labels=["state"])
        for phase in Phase:
            if phase is not Phase.ENDED:
                children.add_metric([phase.value], sum(phase is each for each, _ in there))
        calls = GaugeMetricFamily("fjmcp_calls_in_flight", "Requests that wait for a child.")
        calls.add_metric([], sum(in_flight for _, in_flight in there))
        return [sessions, children, calls]
