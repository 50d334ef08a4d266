"""Who may ask for authorization: registers clients and finds them again."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.documents import Documents
from fjmcp.meter import SILENT, Meter, OAuth
from fjmcp.oauth.clients import Client
from fjmcp.oauth.metadata import NONE, ClientMetadata
from fjmcp.oauth.metadata_documents import is_document_url
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.refusals import OAuthRefusal
from fjmcp.store.queries import clients
from fjmcp.store.transactions import Cursor, Store


@define(eq=False)
class Registrar:
    """The registered clients (RFC 7591), and the way to those that are named by a URL."""

    log = Logger()
    _store: Store
    _clock: IReactorTime
    _documents: Documents = field(kw_only=True)
    _meter: Meter = field(default=SILENT, kw_only=True)

    async def register(self, metadata: ClientMetadata) -> tuple[Client, TokenText | None]:
        """
        A new client with this metadata, and its secret unless its method is `none`.

        The secret cannot be had again: only its digest is kept.
        :raises StoreDown: nothing was registered.
        """
        secret = None
        if metadata.token_endpoint_auth_method != NONE:
            secret = mint(Kind.CLIENT_SECRET)
        client = Client(
            # RFC 6749 §2.2: the id is no secret; random, so that it tells nothing.
            client_id=f"fj-{token_hex(16)}",
            secrets=() if secret is None else (digest(secret),),
            metadata=metadata,
            created_at=self._clock.seconds(),
        )
        dropped = await self._store.write(_keep, client)
        self._meter.oauth(OAuth.REGISTERED)
        self.log.info(
            "client registered",
            client=client.client_id,
            name=metadata.client_name,
            redirect_uris=list(metadata.redirect_uris),
            method=metadata.token_endpoint_auth_method,
        )
        if dropped:
            self.log.warn("clients that nobody used were forgotten to make room", count=dropped)
        return client, secret

    async def find(self, client_id: str) -> Client | None:
        """
        The client of that id.

        :raises StoreDown: the store cannot be asked.
        """
        # RFC 6749 §A.1: client ids are visible ASCII; no engine takes all of the rest.
        if not client_id.isascii() or not client_id.isprintable():
            return None
        if is_document_url(client_id):
            return await self._documents.find(client_id)
        return await self._store.read(clients.find, client_id)

    async def meet(
        self, client_id: str, before: Callable[[], OAuthRefusal | None]
    ) -> Client | OAuthRefusal | None:
        """
        The client of that id, at the authorization endpoint; None if nobody knows it.

        :param before: asked before a document is fetched for it; a refusal of it is the answer.
        :raises StoreDown: the store cannot be asked.
        """
        if is_document_url(client_id):
            return await self._documents.meet(client_id, before)
        return await self.find(client_id)


def _keep(cursor: Cursor, client: Client) -> int:
    dropped = clients.make_room(cursor, limits.CLIENTS - 1)
    clients.add(cursor, client)
    return dropped
