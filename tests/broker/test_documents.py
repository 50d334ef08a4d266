"""Tests for `fjmcp.broker.documents`: when a document is fetched, and what serves instead."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.documents import Documents
from fjmcp.fetch.documents import Fetcher
from fjmcp.meter import Meter
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.refusals import (
    AUTHORIZE_DOCUMENT_REFUSED,
    AUTHORIZE_DOCUMENT_UNFETCHED,
    AUTHORIZE_DOCUMENT_URL,
    DOCUMENTS_BUSY,
    PKCE_MISSING,
    OAuthRefusal,
)
from fjmcp.store.queries import documents
from fjmcp.store.queries.documents import Document
from fjmcp.store.transactions import Cursor, Store, StoreDown
from fjmcp.tasks import Tasks
from fjmcp.testing.hosts import Published, Publishers
from fjmcp.testing.stores import memory_store
from fjmcp.testing.whole import EPOCH
from tests.broker.desk import LateLane

T = TypeVar("T")

HOST = "client.example"
URL = f"https://{HOST}/metadata"
CLAUDE = "https://claude.ai/oauth/mcp-oauth-client-metadata"
HOUR = 3600.0


def document(url: str = URL, name: str = "A client", path: str = "") -> dict[str, Any]:
    """A good document."""
    return {
        "client_id": url,
        "client_name": name,
        "redirect_uris": [f"https://client.example/callback{path}"],
    }


class Counting(Meter):
    """Keeps the outcomes of fetches."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def document(self, outcome: str) -> None:
        self.outcomes.append(outcome)


class Case(SynchronousTestCase):
    """Documents, and the hosts that have them."""

    def setUp(self) -> None:
        # The one may be set; the other only goes on.
        self.clock, self.ticks = Clock(), Clock()
        self.clock.advance(EPOCH)
        self.store = memory_store()
        self.hosts = Publishers()
        self.meter = Counting()
        fetch = Fetcher(self.hosts.errand, self.ticks).fetch
        self.documents = Documents(
            self.store, fetch, Tasks(), self.clock, self.ticks, meter=self.meter
        )

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.ticks.advance(max(0.0, seconds))

    def start(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)

    def got(self, work: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(self.start(work))

    def meet(self, url: str = URL) -> Client | OAuthRefusal:
        return self.got(self.documents.meet(url, lambda: None))

    def met(self, url: str = URL) -> Client:
        """A client that is met."""
        client = self.meet(url)
        assert isinstance(client, Client), client
        self.assertEqual((client.client_id, client.source), (url, Source.DOCUMENT))
        self.assertEqual((client.secrets, client.auth_methods), ((), frozenset({"none"})))
        return client

    def assert_refused(self, refusal: OAuthRefusal, *words: str, url: str = URL) -> None:
        """A client that is not."""
        found = self.meet(url)
        assert isinstance(found, OAuthRefusal), found
        self.assertEqual(found.reason, refusal.reason)
        for word in words:
            self.assertIn(word, found.description)

    def away(self, url: str = URL) -> None:
        """Its host cannot be reached any more."""
        del self.hosts.published[url]


class FreshTests(Case):
    """When a document is fetched."""

    def test_while_fresh(self) -> None:
        """A document is fetched where there is none, and again once it is not fresh any more."""
        self.hosts.publish(document(), cache_control="max-age=3600")
        first = self.met()
        self.assertEqual(first.metadata.client_name, "A client")
        self.assertEqual(first.created_at, EPOCH)
        self.hosts.publish(document(name="Another"))
        self.advance(HOUR - 1)
        self.assertEqual(self.met(), first)
        self.assertEqual(self.hosts.asked, [URL])
        self.advance(1)
        self.assertEqual(self.met().metadata.client_name, "Another")
        self.assertEqual(self.hosts.asked, [URL, URL])
        self.assertEqual(self.meter.outcomes, ["fetched", "fetched"])

    def test_after_a_restart(self) -> None:
        """What was fetched is known to the next process."""
        self.hosts.publish(document())
        first = self.met()
        fetch = Fetcher(self.hosts.errand, self.ticks).fetch
        again = Documents(self.store, fetch, Tasks(), self.clock, self.ticks)
        self.assertEqual(self.got(again.meet(URL, lambda: None)), first)
        self.assertEqual(self.got(again.find(URL)), first)
        self.assertEqual(len(self.hosts.asked), 1)

    def test_redirect_uris(self) -> None:
        """Redirect URIs are those of the document that was just met."""
        self.hosts.publish(document(path="/old"))
        self.met()
        self.hosts.publish(document(path="/new"))
        self.advance(limits.DOCUMENT_FRESH_LEAST)
        uris = ("https://client.example/callback/new",)
        self.assertEqual(self.met().metadata.redirect_uris, uris)
        found = self.got(self.documents.find(URL))
        self.assertEqual(found and found.metadata.redirect_uris, uris)

    def test_clock_set_back(self) -> None:
        """A document that was fetched in the future is not fresh until then."""
        self.hosts.publish(document(), cache_control="max-age=86400")
        self.met()
        self.clock.rightNow -= limits.CLOCK_STEP
        self.met()
        self.assertEqual(len(self.hosts.asked), 1)
        self.clock.rightNow -= HOUR
        self.met()
        self.assertEqual(len(self.hosts.asked), 2)

    def test_asked_before(self) -> None:
        """A request that could not be answered fetches nothing; one that needs nothing fetched
        is not asked."""
        self.hosts.publish(document())
        found = self.got(self.documents.meet(URL, lambda: PKCE_MISSING))
        self.assertEqual((found, self.hosts.asked), (PKCE_MISSING, []))
        self.met()
        self.assertIsInstance(self.got(self.documents.meet(URL, self.fail)), Client)
        self.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assertEqual(self.got(self.documents.meet(URL, lambda: PKCE_MISSING)), PKCE_MISSING)
        self.assertEqual(len(self.hosts.asked), 1)

    def test_wrong_url(self) -> None:
        """What is no URL of a document is refused before anything."""
        for url in ("https://127.0.0.1/x", "https://client.example:8443/x", "HTTPS://a.b/c"):
            found = self.got(self.documents.meet(url, self.fail))
            assert isinstance(found, OAuthRefusal)
            self.assertEqual(found.reason, AUTHORIZE_DOCUMENT_URL.reason)
            self.assertIsNone(self.got(self.documents.find(url)))
        self.assertEqual(self.hosts.asked, [])

    def test_log(self) -> None:
        """The log says whose document it is and what is in it, and whether that is new."""
        self.hosts.publish(document())
        with capturedLogs() as events:
            self.met()
            self.advance(limits.DOCUMENT_FRESH_LEAST)
            self.met()
            self.hosts.publish(document(name="Another"))
            self.advance(limits.DOCUMENT_FRESH_LEAST)
            self.met()
        told = [(event["client"], event["name"], event["changed"]) for event in events]
        expected = [(URL, "A client", False), (URL, "A client", False), (URL, "Another", True)]
        self.assertEqual(told, expected)


class InsteadTests(Case):
    """What serves where a document cannot be had."""

    def test_nothing(self) -> None:
        """A client that nobody knows is refused, with its host and the reason; that is not
        remembered."""
        self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED, HOST, "cannot be reached")
        self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED)
        self.hosts.publish(document())
        self.met()
        self.assertEqual(self.meter.outcomes, ["unreachable", "unreachable", "fetched"])

    def test_reasons(self) -> None:
        """Each answer that is no document has its words."""
        for answer, word in (
            (Published(b"", 302), "redirect"),
            (Published(b"", 404), "200"),
            (Published(b"x" * (limits.DOCUMENT_BODY + 1)), "too large"),
        ):
            self.hosts.published[URL] = answer
            self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED, HOST, word)

    def test_last_good(self) -> None:
        """After its host has gone, a document that was good serves until the grace ends."""
        self.hosts.publish(document())
        good = self.met()
        self.away()
        self.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assertEqual(self.met(), good)
        self.assertEqual(len(self.hosts.asked), 2)
        self.advance(limits.DOCUMENT_GRACE - limits.DOCUMENT_FRESH_LEAST)
        self.assertEqual(self.met(), good)
        self.advance(1)
        self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED, HOST)
        self.assertEqual(len(self.hosts.asked), 4)

    def test_wrong(self) -> None:
        """A document that is wrong now is not kept: the good one serves, and then none."""
        self.hosts.publish(document())
        good = self.met()
        self.hosts.publish(document() | {"client_id": f"{URL}/"})
        self.hosts.published[URL] = self.hosts.published.pop(f"{URL}/")
        self.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assertEqual(self.met(), good)
        self.assertEqual(self.got(self.documents.find(URL)), good)
        self.advance(limits.DOCUMENT_GRACE)
        self.assert_refused(AUTHORIZE_DOCUMENT_REFUSED, HOST, "client_id")
        self.assertEqual(self.meter.outcomes, ["fetched", "refused", "refused"])
        # The token endpoint goes on for those who connected while it was good.
        self.assertEqual(self.got(self.documents.find(URL)), good)

    def test_shipped(self) -> None:
        """A client that everybody knows needs no host: what is shipped serves, and is kept
        nowhere."""
        found = self.met(CLAUDE)
        self.assertEqual(found.metadata.client_name, "Claude")
        self.assertIn("https://claude.ai/api/mcp/auth_callback", found.metadata.redirect_uris)
        self.assertEqual(self.got(self.documents.find(CLAUDE)), found)
        self.assertIsNone(self.got(self.store.read(documents.find, CLAUDE)))
        self.met(CLAUDE)
        self.assertEqual(self.hosts.asked, [CLAUDE, CLAUDE])

    def test_before_shipped(self) -> None:
        """What its host said stands above what is shipped, for as long as the grace lasts."""
        self.hosts.publish(document(CLAUDE, "Claude, the next"))
        self.met(CLAUDE)
        self.away(CLAUDE)
        self.advance(limits.DOCUMENT_GRACE)
        self.assertEqual(self.met(CLAUDE).metadata.client_name, "Claude, the next")
        self.advance(1)
        self.assertEqual(self.met(CLAUDE).metadata.client_name, "Claude")

    def test_found_without_asking(self) -> None:
        """For its tokens a client is known by whatever row there is, and no host is asked."""
        self.assertIsNone(self.got(self.documents.find(URL)))
        self.hosts.publish(document())
        good = self.met()
        self.advance(100 * limits.DOCUMENT_GRACE)
        self.assertEqual(self.got(self.documents.find(URL)), good)
        self.assertEqual(len(self.hosts.asked), 1)

    def test_nothing_of_it_in_the_log(self) -> None:
        """What a stranger's host says is not in the log: the host, the status, the reason."""
        secret = b"a-strangers-word"
        with capturedLogs() as events:
            for answer in (
                Published(b'{"client_id": "%s"}' % secret),
                Published(secret),
                Published(secret, 500),
            ):
                self.hosts.published[URL] = answer
                self.meet()
        self.assertEqual([event["log_level"].name for event in events], ["warn"] * 3)
        self.assertEqual({event["client"] for event in events}, {URL})
        self.assertEqual((events[-1]["reason"], events[-1]["status"]), ("status", 500))
        said = [value for event in events for name, value in event.items() if name[:4] != "log_"]
        self.assertNotIn(secret.decode(), repr(said))


class ManyTests(Case):
    """Many who ask, and many documents."""

    def test_one_fetch(self) -> None:
        """However many ask for a document at once, it is fetched once, and all have it."""
        self.hosts.publish(document())
        self.hosts.held = []
        asking = [self.start(self.documents.meet(URL, lambda: None)) for _ in range(100)]
        asking[0].cancel()
        self.failureResultOf(asking.pop(0), CancelledError)
        self.hosts.release()
        found = {self.successResultOf(each) for each in asking}
        self.assertEqual((len(found), self.hosts.asked), (1, [URL]))

    def test_one_failure(self) -> None:
        """Nor is a host that is away asked more than once."""
        self.hosts.held = []
        asking = [self.start(self.documents.meet(URL, lambda: None)) for _ in range(100)]
        self.hosts.release()
        for each in asking:
            self.assertIsInstance(self.successResultOf(each), OAuthRefusal)
        self.assertEqual(self.hosts.asked, [URL])

    def test_late_look(self) -> None:
        """Who looked before a document came, and has his turn after it, fetches no second one."""
        self.hosts.publish(document())
        writer, reader = self.store.lanes
        late = LateLane(reader, held=[])
        fetch = Fetcher(self.hosts.errand, self.ticks).fetch
        self.documents = Documents(
            Store(writer, late), fetch, Tasks(), self.clock, self.ticks, meter=self.meter
        )
        looked = self.start(self.documents.meet(URL, lambda: None))
        on_its_way, late.held = late.held, None
        met = self.met()
        late.held = on_its_way
        late.deliver()
        self.assertEqual(self.successResultOf(looked), met)
        self.assertEqual(self.hosts.asked, [URL])

    def test_all_at_once(self) -> None:
        """So many documents are fetched at a time; one more is refused, or served as shipped,
        and a place is free again when a fetch has ended, well or badly."""
        self.hosts.held = []
        urls = [f"https://{number}.example/x" for number in range(limits.DOCUMENT_FETCHES)]
        self.hosts.publish(document(urls[0]))
        asking = [self.start(self.documents.meet(url, lambda: None)) for url in urls]
        self.assert_refused(DOCUMENTS_BUSY)
        self.met(CLAUDE)
        self.assertEqual(self.hosts.asked, urls)
        self.hosts.release()
        for each in asking:
            self.successResultOf(each)
        self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED)
        self.assertEqual(self.documents._fetching, 0)

    def test_one_host(self) -> None:
        """One host is asked so often and no more, whoever asks for whatever of its documents."""
        at_once, every = limits.RATE_OF_DOCUMENT_HOST
        names = ("client.example", "CLIENT.example")
        for number in range(at_once):
            self.assert_refused(
                AUTHORIZE_DOCUMENT_UNFETCHED, url=f"https://{names[number % 2]}/{number}"
            )
        self.assert_refused(DOCUMENTS_BUSY, url="https://client.example/x")
        self.assertEqual(len(self.hosts.asked), at_once)
        self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED, url="https://other.example/x")
        self.advance(every)
        self.assert_refused(AUTHORIZE_DOCUMENT_UNFETCHED, url="https://client.example/x")
        self.assert_refused(DOCUMENTS_BUSY, url="https://client.example/x")
        self.assertEqual(self.meter.outcomes.count("busy"), 2)

    def test_one_address(self) -> None:
        """Where too many names lead to one address just now, what was last good serves, as where
        one name is asked for too often."""
        self.hosts.publish(document())
        good = self.met()
        self.away()
        self.hosts.busy = True
        self.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assertEqual(self.met(), good)
        self.advance(limits.DOCUMENT_GRACE)
        self.assert_refused(DOCUMENTS_BUSY)
        self.assertEqual(self.meter.outcomes, ["fetched", "busy", "busy"])

    def test_room(self) -> None:
        """Documents that somebody makes up drive out others of their kind, and none in use."""

        def fill(cursor: Cursor) -> None:
            for number in range(limits.DOCUMENTS + 1):
                url = f"https://{number}.example/x"
                metadata = ClientMetadata(("https://client.example/callback",))
                documents.keep(cursor, Document(url, metadata, EPOCH - number, EPOCH))
            documents.note_use(cursor, f"https://{limits.DOCUMENTS}.example/x", EPOCH)

        self.got(self.store.write(fill))
        self.hosts.publish(document())
        with capturedLogs() as events:
            self.met()
        (told,) = [event for event in events if "count" in event]
        self.assertGreater(told["count"], 1)
        oldest, older = (
            self.got(self.documents.find(f"https://{limits.DOCUMENTS - n}.example/x"))
            for n in (0, 1)
        )
        self.assertIsNotNone(oldest)
        self.assertIsNone(older)
        self.assertIsNotNone(self.got(self.documents.find(URL)))


class StoreTests(Case):
    """A store that is down."""

    def test_down(self) -> None:
        """Without the store nobody is met or found, and whoever asks hears why."""
        self.store.fail_all()
        for work in (self.documents.meet(URL, lambda: None), self.documents.find(CLAUDE)):
            self.failureResultOf(self.start(work), StoreDown)
        self.assertEqual(self.hosts.asked, [])

    def test_down_after_the_fetch(self) -> None:
        """A document that cannot be kept is not used: the token endpoint would not know it."""
        self.hosts.publish(document())
        self.hosts.held = []
        asking = self.start(self.documents.meet(URL, lambda: None))
        self.store.fail_all()
        self.hosts.release()
        self.failureResultOf(asking, StoreDown)
        self.store.fail_all(False)
        self.met()
