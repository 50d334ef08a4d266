from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.broker.documents import Documents
from fjmcp.broker.registrar import Registrar
from fjmcp.fetch.documents import Fetcher
from fjmcp.oauth.clients import Client, Presented, Source, authenticate
from fjmcp.oauth.metadata import AUTH_METHODS, BASIC, NONE, POST, ClientMetadata
from fjmcp.oauth.tokens import digest
from fjmcp.refusals import OAuthRefusal
from fjmcp.store.queries import clients
from fjmcp.store.transactions import Cursor, Store, StoreDown
from fjmcp.tasks import Tasks
from fjmcp.testing import Publishers, memory_store

T = TypeVar("T")


def registrar(store: Store, clock: Clock) -> Registrar:
    """A registrar, from which no host of a document can be reached."""
    fetch = Fetcher(Publishers().errand, clock).fetch
    return Registrar(store, clock, documents=Documents(store, fetch, Tasks(), clock, clock))


def metadata(method: str = NONE, name: str = "Claude") -> ClientMetadata:
    return ClientMetadata(
        redirect_uris=("https://claude.ai/api/mcp/auth_callback",),
        client_name=name,
        grant_types=("authorization_code", "refresh_token"),
        token_endpoint_auth_method=method,
        scope="forge:read forge:write",
        client_uri="https://claude.ai",
    )


class RegistrarTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.store = memory_store()
        self.registrar = registrar(self.store, self.clock)

    def got(self, work: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def test_found_again(self) -> None:
        """A registered client is found by its id, the same in every part."""
        for method in AUTH_METHODS:
            client, _ = self.got(self.registrar.register(metadata(method)))
            self.assertEqual(self.got(self.registrar.find(client.client_id)), client)
            self.assertEqual(client.created_at, 1000.5)

    def test_secret(self) -> None:
        """A client whose method wants a secret gets one that lets it in; `none` gets none."""
        client, secret = self.got(self.registrar.register(metadata(NONE)))
        self.assertIsNone(secret)
        self.assertEqual(client.secrets, ())
        for method in (POST, BASIC):
            client, secret = self.got(self.registrar.register(metadata(method)))
            assert secret is not None
            right = Presented(client.client_id, digest(secret), method)
            self.assertIsNone(authenticate(client, right))

    def test_secret_not_kept(self) -> None:
        """The text of a secret stands nowhere in the store."""
        _, secret = self.got(self.registrar.register(metadata(POST)))
        assert secret is not None
        rows = self.got(self.store.read(lambda cursor: cursor.many("SELECT * FROM clients")))
        self.assertNotIn(secret.text, repr(rows))
        self.assertNotIn(secret.text.encode().hex(), repr(rows))

    def test_unknown(self) -> None:
        """An id that was never given out finds nothing."""
        for client_id in ("", "fj-0", "' OR 1=1 --", "\udcff", "\0", "ü", "x" * 10_000):
            self.assertIsNone(self.got(self.registrar.find(client_id)))

    def test_url(self) -> None:
        """An id that is a URL is a document's, whatever stands among the registrations, and is
        fetched only where it is met."""
        url = "https://vscode.dev/oauth/client-metadata.json"
        there = Client(url, (), metadata(), 0.0)
        self.got(self.store.write(clients.add, there))
        found = self.got(self.registrar.find(url))
        self.assertIs(found and found.source, Source.DOCUMENT)
        self.assertEqual(self.got(self.registrar.meet(url, lambda: None)), found)
        other = url.replace("vscode", "other")
        self.assertIsNone(self.got(self.registrar.find(other)))
        self.assertIsNone(self.got(self.registrar.find(url.upper())))
        for each in (other, url.upper()):
            met = self.got(self.registrar.meet(each, lambda: None))
            self.assertIsInstance(met, OAuthRefusal)

    def test_met(self) -> None:
        """An id that is no URL is met as it is found."""
        client, _ = self.got(self.registrar.register(metadata()))
        for client_id, expected in ((client.client_id, client), ("fj-0", None), ("ü", None)):
            self.assertEqual(self.got(self.registrar.meet(client_id, self.fail)), expected)

    def test_each_its_own(self) -> None:
        """Two registrations with the same metadata are two clients with two secrets."""
        (one, first), (two, second) = (
            self.got(self.registrar.register(metadata(POST))) for _ in range(2)
        )
        assert first is not None and second is not None
        self.assertNotEqual(one.client_id, two.client_id)
        self.assertNotEqual(digest(first), digest(second))

    def test_store_down(self) -> None:
        """Without the store nobody is registered or found, and the caller hears why."""
        self.store.fail_all()
        for work in (self.registrar.register(metadata()), self.registrar.find("fj-0")):
            self.failureResultOf(Deferred.fromCoroutine(work), StoreDown)


class RoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = memory_store()
        self.clock = Clock()
        self.registrar = registrar(self.store, self.clock)

    def got(self, work: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def register(self, count: int) -> list[str]:
        ids = []
        for _ in range(count):
            self.clock.advance(1)
            client, _secret = self.got(self.registrar.register(metadata()))
            ids.append(client.client_id)
        return ids

    def left(self, ids: list[str]) -> list[str]:
        return [each for each in ids if self.got(self.registrar.find(each)) is not None]

    def test_oldest_unused_go(self) -> None:
        """Past the bound the oldest clients that nobody used make room, a tenth at a time."""
        ids = self.register(30)
        self.assertEqual(self.got(self.store.write(clients.make_room, 30)), 0)
        self.assertEqual(self.got(self.store.write(clients.make_room, 20)), 12)
        self.assertEqual(self.left(ids), ids[12:])

    def test_used_stay(self) -> None:
        """A client with a grant, a code or a sign-in under way is never forgotten."""
        ids = self.register(4)

        def use(cursor: Cursor) -> None:
            cursor.execute(
                "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at,"
                " ended_at) VALUES ('g', 7, ?, '', 0, 0, 1)",
                ids[0],
            )
            cursor.execute(
                "INSERT INTO codes (code, client_id, account_id, request, expires_at)"
                " VALUES (?, ?, 7, '', 0)",
                b"code",
                ids[1],
            )
            cursor.execute(
                "INSERT INTO signins (signin, browser, client_id, request, created_at, expires_at)"
                " VALUES (?, ?, ?, '', 0, 0)",
                b"signin",
                b"browser",
                ids[2],
            )

        self.got(self.store.write(use))
        self.assertEqual(self.got(self.store.write(clients.make_room, 0)), 1)
        self.assertEqual(self.left(ids), ids[:3])
