"""
Clients whose name is the URL of their metadata document.

::

    find   what is known without asking anybody: for token and revoke (design D16)
    meet   for authorize: a document that is not fresh any more is fetched

Where a document cannot be had, or is wrong, the one that was last good serves
for a while; then the one that is shipped, if its client is known to everybody.
That a fetch failed is not remembered: the next request begins another, as often
as one host may be asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.flights import Flights
from fjmcp.fetch.documents import BUSY, Fetched, Unfetched
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth import known
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.metadata_documents import fresh_until, judge_document, judge_members, judge_url
from fjmcp.refusals import AUTHORIZE_DOCUMENT_UNFETCHED, DOCUMENTS_BUSY, OAuthRefusal
from fjmcp.store.queries import documents
from fjmcp.store.queries.documents import Document
from fjmcp.store.transactions import Cursor, Store
from fjmcp.tally import Rate, Tally
from fjmcp.tasks import Tasks


@define(eq=False)
class Documents:
    """The metadata documents that are known, and the way to know others."""

    log = Logger()
    _store: Store
    _fetch: Callable[[str], Awaitable[Fetched | Unfetched]]
    _tasks: Tasks
    _clock: IReactorTime
    """Epoch seconds."""
    _ticks: IReactorTime
    """Seconds that nobody sets."""
    _meter: Meter = field(default=SILENT, kw_only=True)
    _renewals: Flights[str, Client | OAuthRefusal] = field(init=False)
    _hosts: Tally = field(factory=lambda: Tally(limits.METERED), init=False)
    _fetching: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._renewals = Flights(self._tasks)

    async def find(self, client_id: str) -> Client | None:
        """
        The client at that URL as it is known here, however long ago its document was fetched.

        :raises StoreDown: the store cannot be asked.
        """
        row = await self._store.read(documents.find, client_id)
        return _shipped(client_id) if row is None else _client(row)

    async def meet(
        self, client_id: str, before: Callable[[], OAuthRefusal | None]
    ) -> Client | OAuthRefusal:
        """
        The client at that URL, whose document is fetched if need be.

        :param before: asked before that; a refusal of it is the answer.
        :raises StoreDown: the store cannot be asked, or did not take the document.
        """
        url = judge_url(client_id)
        if isinstance(url, OAuthRefusal):
            return url
        row = await self._store.read(documents.find, client_id)
        if row is not None and self._is_fresh(row):
            return _client(row)
        refusal = before()
        if refusal is not None:
            return refusal
        return await self._renewals.join(client_id, partial(self._renew, client_id, url.name))

    def _is_fresh(self, row: Document) -> bool:
        now = self._clock.seconds()
        # Fetched in the future: the clock was set back, and must not keep it fresh for longer.
        return row.fetched_at - limits.CLOCK_STEP <= now < row.fresh_until

    async def _renew(self, client_id: str, host: str) -> Client | OAuthRefusal:
        row = await self._store.read(documents.find, client_id)
        if row is not None and self._is_fresh(row):
            # It was fetched between the asker's own look and this one.
            return _client(row)
        found = await self._have(client_id, host)
        if isinstance(found, OAuthRefusal):
            return self._instead(client_id, row, found)
        dropped = await self._store.write(_keep, found)
        self.log.info(
            "metadata document fetched",
            client=client_id,
            name=found.metadata.client_name,
            redirect_uris=list(found.metadata.redirect_uris),
            changed=row is not None and row.metadata != found.metadata,
        )
        if dropped:
            self.log.warn("documents that nobody used were forgotten to make room", count=dropped)
        return _client(found)

    async def _have(self, client_id: str, host: str) -> Document | OAuthRefusal:
        """The document as its host has it now, or what a person is told instead."""
        answer = await self._ask(client_id, host)
        if isinstance(answer, Unfetched):
            self._missed(client_id, answer.reason, answer.status)
            if answer == BUSY:
                return DOCUMENTS_BUSY
            return AUTHORIZE_DOCUMENT_UNFETCHED.saying(
                f"The application is described by a document at {host}, which cannot be fetched:"
                f" {answer.words}. Go back to the application and connect again in a few minutes;"
                " if it goes on, tell whoever makes the application."
            )
        now = self._clock.seconds()
        metadata = judge_document(client_id, answer.body)
        if isinstance(metadata, OAuthRefusal):
            self.log.warn(
                "metadata document refused: {problem}",
                problem=metadata.description,
                client=client_id,
            )
            self._meter.document("refused")
            return metadata.saying(
                f"The application is described by a document that was fetched from {host} and is"
                f" refused. {metadata.description} Tell whoever makes the application."
            )
        self._meter.document("fetched")
        return Document(client_id, metadata, now, fresh_until(answer.caching, now))

    async def _ask(self, client_id: str, host: str) -> Fetched | Unfetched:
        """The answer of its host; BUSY if it was not asked, because too much is asked already."""
        rate, at = Rate.of(limits.RATE_OF_DOCUMENT_HOST), self._ticks.seconds()
        if self._fetching >= limits.DOCUMENT_FETCHES or self._hosts.wait(host, rate, at) > 0:
            return BUSY
        self._hosts.count(host, rate, at)
        self._fetching += 1
        try:
            return await self._fetch(client_id)
        finally:
            self._fetching -= 1

    def _missed(self, client_id: str, reason: str, status: int | None) -> None:
        self._meter.document(reason)
        self.log.warn(
            "metadata document not fetched", client=client_id, reason=reason, status=status
        )

    def _instead(
        self, client_id: str, row: Document | None, refusal: OAuthRefusal
    ) -> Client | OAuthRefusal:
        """What serves in place of a document that cannot be had or is wrong."""
        now = self._clock.seconds()
        if row is not None and now - row.fetched_at <= limits.DOCUMENT_GRACE:
            self.log.info("metadata document served as last good", client=client_id)
            return _client(row)
        client = _shipped(client_id)
        if client is None:
            return refusal
        self.log.info("metadata document served as shipped", client=client_id)
        return client


def _keep(cursor: Cursor, document: Document) -> int:
    dropped = documents.make_room(cursor, limits.DOCUMENTS - 1)
    documents.keep(cursor, document)
    return dropped


def _client(row: Document) -> Client:
    return Client(row.client_id, (), row.metadata, row.fetched_at, Source.DOCUMENT)


def _shipped(client_id: str) -> Client | None:
    members = known.shipped(client_id)
    if members is None:
        return None
    metadata = judge_members(client_id, members)
    # A test has judged them all; a connector of ChatGPT is like any other.
    assert isinstance(metadata, ClientMetadata)
    return Client(client_id, (), metadata, 0.0, Source.DOCUMENT)
