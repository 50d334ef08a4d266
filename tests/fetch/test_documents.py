"""Tests for `fjmcp.fetch.documents`: every answer is a value."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from fjmcp import limits
from fjmcp.fetch.documents import (
    BUSY,
    CONTENT_TYPE,
    CUT_SHORT,
    ENCODED,
    NOT_PUBLIC,
    REDIRECT,
    STATUS,
    TIME_OUT,
    TOO_LARGE,
    UNEXPECTED,
    UNKNOWN_HOST,
    UNREACHABLE,
    Fetched,
    Fetcher,
    Unfetched,
)
from fjmcp.oauth.metadata_documents import Caching
from fjmcp.testing.hosts import Published, Publishers

URL = "https://client.example/metadata.json"
BODY = json.dumps({"client_id": URL}).encode()


class Errands(Publishers):
    """Counts the ends of errands, and may have an answer that is none."""

    closed = 0
    answer: Deferred[IResponse] | None = None

    def request(self, *args: object, **kw: object) -> Deferred[IResponse]:
        self.sent = args
        return super().request(*args, **kw) if self.answer is None else self.answer  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed += 1


class Case(SynchronousTestCase):
    """A fetcher, and hosts in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hosts = Errands()
        self.fetcher = Fetcher(self.hosts.errand, self.clock)

    def fetch(self) -> Deferred[Fetched | Unfetched]:
        return Deferred.fromCoroutine(self.fetcher.fetch(URL))

    def fetched(self) -> Fetched | Unfetched:
        """What comes at once."""
        return self.successResultOf(self.fetch())

    def says(self, body: bytes = BODY, status: int = 200, **headers: str | list[str]) -> None:
        """What the host answers."""
        sent: dict[str, list[str]] = {"content-type": ["application/json"]}
        for name, value in headers.items():
            sent[name.replace("_", "-")] = [value] if isinstance(value, str) else value
        self.hosts.published[URL] = Published(body, status, Headers(sent))


class AnswerTests(Case):
    """Answers of hosts."""

    def test_request(self) -> None:
        """A GET that says what it wants, and nothing of us but our name."""
        self.says()
        self.fetched()
        method, uri, headers = self.hosts.sent
        assert isinstance(headers, Headers)
        self.assertEqual((method, uri), (b"GET", URL.encode()))
        self.assertEqual(
            dict(headers.getAllRawHeaders()),
            {b"Accept": [b"application/json"], b"User-Agent": [b"fjmcp"]},
        )

    def test_fetched(self) -> None:
        """A document comes as it is, with what its host says of caching."""
        self.says()
        self.assertEqual(self.fetched(), Fetched(BODY, Caching()))
        self.says(
            b"\xff",
            cache_control=["public", "max-age=60"],
            age="5",
            expires="0",
            date="x",
            set_cookie="a=b",
        )
        self.assertEqual(
            self.fetched(), Fetched(b"\xff", Caching("public, max-age=60", "5", "0", "x"))
        )
        self.assertEqual(self.hosts.closed, 2)

    def test_type(self) -> None:
        """JSON by its type, whatever the parameters; anything else is not read."""
        for text, taken in (
            ("application/json", True),
            ("Application/JSON; charset=utf-8", True),
            (" application/json ;x", True),
            ("application/oauth-client+json", True),
            ("application/vnd.x.y+json", True),
            ("application/jsonx", False),
            ("application/json+x", False),
            ("application/+json", False),
            ("application/x/y+json", False),
            ("text/json", False),
            ("text/html", False),
            ("text/html, application/json", False),
            (["text/html", "application/json"], False),
            (["application/json", "text/html"], False),
            ("", False),
            ([], False),
        ):
            self.says(content_type=text)
            expected = Fetched(BODY, Caching()) if taken else CONTENT_TYPE
            self.assertEqual(self.fetched(), expected, text)

    def test_status(self) -> None:
        """Nothing but 200 is taken, and no redirect is followed."""
        for status in (301, 302, 303, 307, 308, 304):
            self.says(status=status, location="https://evil.example/")
            found = self.fetched()
            assert isinstance(found, Unfetched)
            self.assertEqual((found.reason, found.status), (REDIRECT.reason, status))
        for status in (201, 204, 206, 400, 402, 403, 404, 410, 500, 503):
            self.says(status=status)
            found = self.fetched()
            assert isinstance(found, Unfetched)
            self.assertEqual((found.reason, found.status), (STATUS.reason, status))
        self.assertEqual(set(self.hosts.asked), {URL})

    def test_encoded(self) -> None:
        """What is packed is not unpacked."""
        for text in ("gzip", "br", "identity", "x"):
            self.says(content_encoding=text)
            self.assertEqual(self.fetched(), ENCODED)

    def test_size(self) -> None:
        """A document of the limit is read, and of one that is a byte longer nothing."""
        self.says(b"x" * limits.DOCUMENT_BODY)
        self.assertEqual(self.fetched(), Fetched(b"x" * limits.DOCUMENT_BODY, Caching()))
        self.says(b"x" * (limits.DOCUMENT_BODY + 1))
        self.assertEqual(self.fetched(), TOO_LARGE)


class NoAnswerTests(Case):
    """Hosts that give none."""

    def test_failures(self) -> None:
        """Each way to fail has its word."""
        for error, expected in (
            (DNSLookupError(), UNKNOWN_HOST),
            (ValueError("invalid hostname"), UNKNOWN_HOST),
            (ConnectionLost(), CUT_SHORT),
            (ResponseNeverReceived([Failure(ConnectionLost())]), CUT_SHORT),
        ):
            self.hosts.answer = fail(error)
            self.assertEqual(self.fetched(), expected, error)
        self.hosts.answer = None
        self.assertEqual(self.fetched(), UNREACHABLE)
        self.assertEqual(self.hosts.closed, 5)

    def test_guarded(self) -> None:
        """What the guard did not let happen is told apart from the failure that it looks like,
        though not to a person: names of our own network are nobody's business."""
        self.hosts.not_public = True
        self.hosts.answer = fail(DNSLookupError())
        self.assertEqual(self.fetched(), NOT_PUBLIC)
        self.assertEqual(NOT_PUBLIC.words, UNKNOWN_HOST.words)
        self.hosts.not_public, self.hosts.overrun = False, True
        self.hosts.answer = fail(ResponseNeverReceived([Failure(ConnectionLost())]))
        self.assertEqual(self.fetched(), TOO_LARGE)
        self.hosts.overrun, self.hosts.busy = False, True
        self.hosts.answer = None
        self.assertEqual(self.fetched(), BUSY)
        # Another address of the name was connected to.
        self.says(status=404)
        self.assertEqual(self.fetched(), evolve(STATUS, status=404))
        self.hosts.answer = fail(ResponseNeverReceived([Failure(ConnectionLost())]))
        self.assertEqual(self.fetched(), CUT_SHORT)

    def test_time_out(self) -> None:
        """A host that says nothing is not waited for any longer, and the request is gone."""
        gone: list[object] = []
        self.hosts.answer = Deferred(gone.append)
        waiting = self.fetch()
        self.clock.advance(limits.DOCUMENT_FETCH - 0.1)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(waiting), TIME_OUT)
        self.assertEqual((len(gone), self.hosts.closed), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Who is cancelled hears so, and the errand is over."""
        self.hosts.answer = Deferred()
        waiting = self.fetch()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.hosts.closed, 1)

    def test_unexpected(self) -> None:
        """A bug stands in the log, and is an answer all the same."""
        self.hosts.answer = fail(ZeroDivisionError())
        self.assertEqual(self.fetched(), UNEXPECTED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
