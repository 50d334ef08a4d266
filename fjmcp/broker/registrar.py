"""
Who may ask for authorization: registers clients, finds them again, and lets them go.

A client is written in the configuration, has registered itself, or is named by
the URL of its metadata document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from secrets import token_hex

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.documents import Documents
from fjmcp.broker.endings import Endings
from fjmcp.meter import SILENT, Meter, OAuth
from fjmcp.oauth.clientele import Clientele
from fjmcp.oauth.clients import Client
from fjmcp.oauth.metadata import NONE, ClientMetadata
from fjmcp.oauth.metadata_documents import is_document_url
from fjmcp.oauth.tokens import Digest, Kind, TokenText, digest, mint
from fjmcp.refusals import MANAGEMENT_TOKEN, OAuthRefusal
from fjmcp.store.queries import clients, grants
from fjmcp.store.transactions import Cursor, Store


@frozen
class Registered:
    """
    What a registration comes to.

    Neither secret can be had again: only their digests are kept.

    :ivar secret: None where the client's method is `none`.
    :ivar management: the registration access token (RFC 7592 §3).
    """

    client: Client
    secret: TokenText | None
    management: TokenText


@define(eq=False)
class Registrar:
    """
    The clients (RFC 7591, RFC 7592).

    `configured` are those of the configuration, by id; `documents` knows those that
    are named by a URL; `clientele` says who is taken, and may be replaced while it
    is in use.
    """

    log = Logger()
    _store: Store
    _endings: Endings
    _clock: IReactorTime
    _documents: Documents = field(kw_only=True)
    _configured: Mapping[str, Client] = field(factory=dict, kw_only=True)
    clientele: Clientele = field(factory=Clientele, kw_only=True)
    _meter: Meter = field(default=SILENT, kw_only=True)

    # --- finding --------------------------------------------------------------------

    async def find(self, client_id: str) -> Client | None:
        """
        The client of that id.

        :raises StoreDown: the store cannot be asked.
        """
        configured = self._configured.get(client_id)
        if configured is not None:
            return configured
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
        client: Client | OAuthRefusal | None
        if is_document_url(client_id):
            # Nothing is fetched from a host that would not be taken.
            refusal = self.clientele.judge_document(client_id)
            client = refusal or await self._documents.meet(client_id, before)
        else:
            refusal, client = None, await self.find(client_id)
        if isinstance(client, Client):
            refusal = self.clientele.judge(client)
        # It is a page here, and 401 would be a question for credentials.
        return client if refusal is None else evolve(refusal, status=403)

    # --- registering ----------------------------------------------------------------

    async def register(self, metadata: ClientMetadata) -> Registered | OAuthRefusal:
        """
        A client with this metadata: a new one, or the one that just registered the same.

        :raises StoreDown: nothing was registered.
        """
        refusal = self.clientele.judge_metadata(metadata)
        if refusal is not None:
            # RFC 7591 §3.2.2: the code for "the value of one or more redirection URIs".
            return evolve(refusal, error="invalid_redirect_uri", status=400)
        wants_secret = metadata.token_endpoint_auth_method != NONE
        secret = mint(Kind.CLIENT_SECRET) if wants_secret else None
        management = mint(Kind.REGISTRATION)
        client, dropped, again = await self._store.write(
            _register,
            metadata,
            digest(management),
            None if secret is None else digest(secret),
            self._clock.seconds(),
        )
        self._meter.oauth(OAuth.REGISTERED)
        self.log.info(
            "client registered",
            client=client.client_id,
            name=metadata.client_name,
            redirect_uris=list(metadata.redirect_uris),
            method=metadata.token_endpoint_auth_method,
            again=again,
        )
        if dropped:
            self.log.warn("clients that nobody used were forgotten to make room", count=dropped)
        return Registered(client, secret, management)

    async def expire(self) -> None:
        """Forget clients that nobody came to use, and those whose use is long over."""
        gone = await self._store.write(clients.expire, self._clock.seconds())
        if gone:
            self.log.info("clients forgotten that nobody used", count=gone)

    # --- managing -------------------------------------------------------------------

    async def managed(self, client_id: str, token: TokenText) -> Client | OAuthRefusal:
        """The client that a registration access token is for (RFC 7592 §2.1)."""
        # RFC 7592 §2.1: "If the client does not exist on this server, the server MUST respond
        # with HTTP 401 Unauthorized"; so it is not told from a wrong token.
        if not client_id.isascii() or not client_id.isprintable():
            return MANAGEMENT_TOKEN
        found = await self._store.read(clients.managed, client_id, digest(token))
        return found or MANAGEMENT_TOKEN

    async def withdraw(self, client_id: str, token: TokenText) -> OAuthRefusal | None:
        """
        Take a registration back (RFC 7592 §2.3), and the grants that came by its secret; with the
        last one of a client, all its grants.

        None when all of it has ended.
        """
        if not client_id.isascii() or not client_id.isprintable():
            return MANAGEMENT_TOKEN
        now = self._clock.seconds()
        done = await self._store.write(_withdraw, client_id, digest(token), now)
        if done is None:
            return MANAGEMENT_TOKEN
        gone, ended = done
        self.log.info("registration withdrawn", client=client_id, client_gone=gone)
        await self._endings.ended(ended, "client-deleted")
        return None


def _register(
    cursor: Cursor,
    metadata: ClientMetadata,
    management: Digest,
    secret: Digest | None,
    now: float,
) -> tuple[Client, int, bool]:
    """The client, how many others made room for it, and whether it was there before."""
    twin = clients.twin(cursor, metadata, now)
    dropped = 0
    # RFC 6749 §2.2: the id is no secret; random, so that it tells nothing.
    client = twin or Client(f"fj-{token_hex(16)}", (), metadata, now)
    if twin is None:
        dropped = clients.make_room(cursor, limits.CLIENTS - 1)
        clients.add(cursor, client)
    clients.register(cursor, client.client_id, management, secret, now)
    return client, dropped, twin is not None


def _withdraw(
    cursor: Cursor, client_id: str, token: Digest, now: float
) -> tuple[bool, list[str]] | None:
    """Whether the client went, and the grants that ended; None if nothing fits."""
    if clients.managed(cursor, client_id, token) is None:
        return None
    gone, secret = clients.withdraw(cursor, token)
    ended = []
    if gone:
        ended = grants.live_of_client(cursor, client_id)
    elif secret is not None:
        # Who registered the same goes on.  Without a secret nobody can tell the two apart.
        ended = grants.live_of_client(cursor, client_id, secret)
    for grant_id in ended:
        grants.end(cursor, grant_id, "client-deleted", now)
    return gone, ended
