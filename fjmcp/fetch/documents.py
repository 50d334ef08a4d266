"""
One document from a stranger's host: a GET, and nothing around it.

No redirect is followed, no cookie kept, nothing sent that says who asks for
whom, nothing unpacked.  From the look-up of the name to the last byte there is
one time-out.  Every answer is a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, evolve, field, frozen
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.client import RequestTransmissionFailed, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from fjmcp import limits
from fjmcp.certificates import BadCertificate
from fjmcp.oauth.metadata_documents import Caching
from fjmcp.responses import TooLong, timed_out, whole


@frozen
class Fetched:
    """A document as it came; a stranger's word."""

    body: bytes = field(repr=False)
    caching: Caching


@frozen
class Unfetched:
    """
    No document.

    :ivar reason: for the log, exact.
    :ivar words: for a person, after "which cannot be fetched:".
    :ivar status: of the answer, if there was one.
    """

    reason: str
    words: str
    status: int | None = None


# One sentence for both: else anybody could ask us which names our own network has.
_NOWHERE: Final = "that host has no public address"
NOT_PUBLIC: Final = Unfetched("not-public", _NOWHERE)
UNKNOWN_HOST: Final = Unfetched("unknown-host", _NOWHERE)
BUSY: Final = Unfetched("busy", "that host was asked too often just now")
UNREACHABLE: Final = Unfetched("unreachable", "that host cannot be reached")
TIME_OUT: Final = Unfetched("timeout", "that host took too long")
CERTIFICATE: Final = Unfetched("certificate", "that host has no good certificate")
CUT_SHORT: Final = Unfetched("cut-short", "the answer ended early, or cannot be read")
TOO_LARGE: Final = Unfetched("too-large", "the document is too large")
REDIRECT: Final = Unfetched("redirect", "the answer is a redirect, which is not followed")
STATUS: Final = Unfetched("status", "the answer has not the status 200")
CONTENT_TYPE: Final = Unfetched("content-type", "the answer is not application/json")
ENCODED: Final = Unfetched("content-encoding", "the answer is compressed")
UNEXPECTED: Final = Unfetched("unexpected", "something went wrong here, which the log describes")


class Errand(Protocol):
    """A way out, for one request (`fjmcp.fetch.guard.Errand`)."""

    agent: IAgent
    not_public: bool
    busy: bool
    overrun: bool

    def close(self) -> None:
        """End it, whatever came of it."""


@define(eq=False)
class Fetcher:
    """Fetches documents."""

    log = Logger()
    _errand: Callable[[], Errand]
    _clock: IReactorTime

    async def fetch(self, url: str) -> Fetched | Unfetched:
        """The document at a URL that was judged (`metadata_documents.judge_url`)."""
        errand = self._errand()
        work = Deferred.fromCoroutine(_get(errand.agent, url))
        try:
            return await work.addTimeout(limits.DOCUMENT_FETCH, self._clock, timed_out)
        except Exception as error:
            if errand.not_public:
                return NOT_PUBLIC
            if errand.overrun:
                return TOO_LARGE
            return BUSY if errand.busy and isinstance(error, ConnectError) else self._why(error)
        finally:
            errand.close()

    def _why(self, error: Exception) -> Unfetched:
        match error:
            case TimeoutError():
                return TIME_OUT
            case CancelledError():
                raise error
            case TooLong():
                return TOO_LARGE
            case DNSLookupError() | ValueError():
                # ValueError: no name at all, of all that look like one.
                return UNKNOWN_HOST
            case ConnectError():
                return UNREACHABLE
            case ResponseFailed() | RequestTransmissionFailed():
                tls = any(reason.check(SSL.Error, BadCertificate) for reason in error.reasons)
                return CERTIFICATE if tls else CUT_SHORT
            case ConnectionClosed():
                return CUT_SHORT
            case _:
                self.log.failure("while fetching a metadata document")
                return UNEXPECTED


async def _get(agent: IAgent, url: str) -> Fetched | Unfetched:
    # No Accept-Encoding: what is small when packed may be large.
    asked = Headers({"Accept": ["application/json"], "User-Agent": ["fjmcp"]})
    response = await agent.request(b"GET", url.encode("ascii"), asked)
    # The draft, §4: "A successful response MUST use the 200 OK HTTP status code", and the server
    # "MUST NOT automatically follow HTTP redirects".
    if response.code != 200:
        wrong = REDIRECT if 300 <= response.code < 400 else STATUS
        return evolve(wrong, status=response.code)
    if not _is_json(_header(response, "content-type")):
        return CONTENT_TYPE
    if _header(response, "content-encoding"):
        return ENCODED
    body = await whole(response, limits.DOCUMENT_BODY)
    caching = Caching(
        cache_control=_header(response, "cache-control"),
        age=_header(response, "age"),
        expires=_header(response, "expires"),
        date=_header(response, "date"),
    )
    return Fetched(body, caching)


# §4.1: application/json, or one that "conforms to application/<AS-defined>+json".
_JSON: Final = re.compile(r"application/(?:json|[a-z0-9!#$&^_.+-]+\+json)", re.ASCII)


def _is_json(content_type: str) -> bool:
    return _JSON.fullmatch(content_type.partition(";")[0].strip().lower()) is not None


def _header(response: IResponse, name: str) -> str:
    """A header, its lines joined (RFC 9110 §5.3)."""
    lines = response.headers.getRawHeaders(name.encode("ascii"), [])
    return b", ".join(lines).decode("latin-1")
