from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.broker.documents import Documents
from fjmcp.broker.endings import Endings
from fjmcp.broker.registrar import Registered, Registrar
from fjmcp.fetch.documents import Fetcher
from fjmcp.oauth.clientele import Clientele
from fjmcp.oauth.clients import Client, Presented, Source, authenticate
from fjmcp.oauth.metadata import AUTH_METHODS, BASIC, NONE, POST, ClientMetadata
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.refusals import GRANT_ENDED, MANAGEMENT_TOKEN, McpRefusal, OAuthRefusal
from fjmcp.store.queries import clients, grants
from fjmcp.store.transactions import Cursor, StoreDown
from fjmcp.tasks import Tasks
from fjmcp.testing.hosts import Publishers
from fjmcp.testing.stores import memory_store

T = TypeVar("T")

CLAUDE = "https://claude.ai/api/mcp/auth_callback"


def metadata(method: str = NONE, name: str = "Claude", uri: str = CLAUDE) -> ClientMetadata:
    return ClientMetadata(
        redirect_uris=(uri,),
        client_name=name,
        grant_types=("authorization_code", "refresh_token"),
        token_endpoint_auth_method=method,
        scope="forge:read forge:write",
        client_uri="https://claude.ai",
    )


def run(cursor: Cursor, sql: str, *params: object) -> list[tuple[Any, ...]]:
    """A statement as a transaction of its own."""
    return cursor.many(sql, *params)


class Runs:
    """What would run for grants."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, McpRefusal]] = []

    def grants(self) -> set[str]:
        return set()

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        self.ended.append((grant_id, refusal))


class RegistrarCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.store = memory_store()
        self.endings = Endings(self.store, Callers(self.store, self.clock), self.clock)
        self.runs = Runs()
        self.endings.also_end(self.runs)
        # No host of a document can be reached.
        fetch = Fetcher(Publishers().errand, self.clock).fetch
        self.documents = Documents(self.store, fetch, Tasks(), self.clock, self.clock)
        self.registrar = Registrar(self.store, self.endings, self.clock, documents=self.documents)

    def got(self, work: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def register(self, asked: ClientMetadata | None = None) -> Registered:
        made = self.got(self.registrar.register(asked or metadata()))
        assert isinstance(made, Registered), made
        return made

    def ids(self) -> set[str]:
        rows = self.got(self.store.read(run, "SELECT client_id FROM clients"))
        return {client_id for (client_id,) in rows}

    def grant(self, client_id: str, grant_id: str = "g", secret: TokenText | None = None) -> None:
        """A grant is born."""
        proof = None if secret is None else digest(secret)

        def born(cursor: Cursor) -> None:
            grants.add(cursor, grant_id, 7, client_id, "", self.clock.seconds(), secret=proof)
            clients.note_use(cursor, client_id, self.clock.seconds())

        self.got(self.store.write(born))


class RegistrarTests(RegistrarCase):
    def test_found_again(self) -> None:
        """A registered client is found by its id, the same in every part."""
        for method in AUTH_METHODS:
            made = self.register(metadata(method))
            found = self.got(self.registrar.find(made.client.client_id))
            expected = () if made.secret is None else (digest(made.secret),)
            self.assertEqual(found, evolve(made.client, secrets=expected))
            self.assertEqual(made.client.created_at, 1000.5)

    def test_secret(self) -> None:
        """A client whose method wants a secret gets one that lets it in; `none` gets none."""
        self.assertIsNone(self.register(metadata(NONE)).secret)
        for method in (POST, BASIC):
            made = self.register(metadata(method))
            assert made.secret is not None
            found = self.got(self.registrar.find(made.client.client_id))
            right = Presented(made.client.client_id, digest(made.secret), method)
            self.assertIsNone(authenticate(found, right))

    def test_secrets_not_kept(self) -> None:
        """The text of neither secret stands anywhere in the store."""
        made = self.register(metadata(POST))
        assert made.secret is not None
        rows = [
            self.got(self.store.read(run, f"SELECT * FROM {table}"))
            for table in ("clients", "registrations")
        ]
        for secret in (made.secret, made.management):
            self.assertNotIn(secret.text, repr(rows))
            self.assertNotIn(secret.text.encode().hex(), repr(rows))

    def test_unknown(self) -> None:
        """An id that was never given out finds nothing."""
        for client_id in ("", "fj-0", "' OR 1=1 --", "\udcff", "\0", "ü", "x" * 10_000):
            self.assertIsNone(self.got(self.registrar.find(client_id)))

    def test_configured(self) -> None:
        """A client of the configuration is found without the store."""
        mine = Client("mine", (), metadata(), 0.0, Source.CONFIGURED)
        registrar = Registrar(
            self.store,
            self.endings,
            self.clock,
            documents=self.documents,
            configured={"mine": mine},
        )
        self.store.fail_all()
        self.assertEqual(self.got(registrar.find("mine")), mine)

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
        made = self.register()
        for client_id, expected in ((made.client.client_id, made.client), ("fj-0", None)):
            self.assertEqual(self.got(self.registrar.meet(client_id, self.fail)), expected)

    def test_met_and_not_taken(self) -> None:
        """What is not taken is refused where it is met: 403, and no document is fetched for it."""
        made = self.register()
        self.registrar.clientele = Clientele.parse("chatgpt.com")
        for client_id in (made.client.client_id, "https://vscode.dev/oauth/client-metadata.json"):
            met = self.got(self.registrar.meet(client_id, self.fail))
            assert isinstance(met, OAuthRefusal)
            self.assertEqual((met.reason, met.status), ("client-not-taken", 403))

    def test_store_down(self) -> None:
        """Without the store nobody is registered, found, read or taken back, and the caller hears
        why."""
        self.store.fail_all()
        token = mint(Kind.REGISTRATION)
        works: list[Coroutine[Any, Any, object]] = [
            self.registrar.register(metadata()),
            self.registrar.find("fj-0"),
            self.registrar.managed("fj-0", token),
            self.registrar.withdraw("fj-0", token),
        ]
        for work in works:
            self.failureResultOf(Deferred.fromCoroutine(work), StoreDown)

    def test_not_taken(self) -> None:
        """A client of a host that this server does not take is not registered."""
        self.registrar.clientele = Clientele.parse("chatgpt.com")
        refusal = self.got(self.registrar.register(metadata()))
        assert not isinstance(refusal, Registered)
        self.assertEqual(
            (refusal.reason, refusal.error, refusal.status),
            ("client-not-taken", "invalid_redirect_uri", 400),
        )
        self.assertIn("claude.ai", refusal.description)
        self.assertEqual(self.ids(), set())


class TwinTests(RegistrarCase):
    """Identical registrations shortly after one another."""

    def test_one_client(self) -> None:
        """They are one client, each with a secret that lets it in and a token of its own."""
        for method in AUTH_METHODS:
            one, two = self.register(metadata(method)), self.register(metadata(method))
            self.assertEqual(one.client.client_id, two.client.client_id)
            self.assertNotEqual(one.management.text, two.management.text)
            found = self.got(self.registrar.find(one.client.client_id))
            for each in (one, two):
                proof = None if each.secret is None else digest(each.secret)
                self.assertIsNone(
                    authenticate(found, Presented(one.client.client_id, proof, method))
                )
            if method != NONE:
                assert one.secret is not None and two.secret is not None
                self.assertNotEqual(one.secret.text, two.secret.text)

    def test_what_differs(self) -> None:
        """Any member that differs makes another client."""
        asked = metadata()
        self.register(asked)
        for other in (
            metadata(name="Claude 2"),
            metadata(POST),
            metadata(uri="https://claude.com/api/mcp/auth_callback"),
            evolve(asked, scope="forge:read"),
            evolve(asked, client_uri=None),
            evolve(asked, grant_types=("authorization_code",)),
        ):
            before = self.ids()
            made = self.register(other)
            self.assertNotIn(made.client.client_id, before)

    def test_later(self) -> None:
        """After a minute it is another client; each one that joins begins the minute anew."""
        first = self.register().client.client_id
        self.clock.advance(limits.TWIN)
        self.assertEqual(self.register().client.client_id, first)
        self.clock.advance(limits.TWIN)
        self.assertEqual(self.register().client.client_id, first)
        self.clock.advance(limits.TWIN + 0.1)
        self.assertNotEqual(self.register().client.client_id, first)

    def test_clock_set_back(self) -> None:
        """Nobody joins a registration of the future, nor does it keep others from being joined."""
        first = self.register().client.client_id
        self.clock.rightNow -= 30
        other = self.register().client.client_id
        self.assertNotEqual(other, first)
        self.assertEqual(self.register().client.client_id, other)

    def test_not_once_it_is_used(self) -> None:
        """Nobody gets a secret of a client that has a sign-in, a code or a grant."""
        for use in (
            """INSERT INTO signins (signin, browser, client_id, request, created_at, expires_at)
            VALUES (x'01', x'00', ?, '', 0, 0)""",
            """INSERT INTO codes (code, client_id, account_id, request, expires_at)
            VALUES (x'02', ?, 7, '', 0)""",
            """INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at)
            VALUES ('g', 7, ?, '', 0, 0)""",
            "UPDATE clients SET used_at = 1 WHERE client_id = ?",
        ):
            first = self.register(metadata(POST)).client.client_id
            self.got(self.store.write(run, use, first))
            self.assertNotEqual(self.register(metadata(POST)).client.client_id, first, use)

    def test_bounded(self) -> None:
        """So many registrations are one client, and the next one is another."""
        first = self.register(metadata(POST)).client.client_id
        for _ in range(limits.TWINS - 1):
            self.assertEqual(self.register(metadata(POST)).client.client_id, first)
        self.clock.advance(1)
        other = self.register(metadata(POST)).client.client_id
        self.assertNotEqual(other, first)
        self.assertEqual(self.register(metadata(POST)).client.client_id, other)


class ManagingTests(RegistrarCase):
    """RFC 7592."""

    def test_read(self) -> None:
        """The token of a registration reads its client; any other token, of another client or
        unknown, reads nothing."""
        one, two = self.register(), self.register(metadata(name="Other"))
        found = self.got(self.registrar.managed(one.client.client_id, one.management))
        self.assertEqual(found, one.client)
        for client_id, token in (
            (one.client.client_id, two.management),
            (two.client.client_id, one.management),
            (one.client.client_id, mint(Kind.REGISTRATION)),
            ("fj-unknown", one.management),
            ("\udcff", one.management),
            (one.client.client_id, TokenText("")),
        ):
            refusal = self.got(self.registrar.managed(client_id, token))
            self.assertEqual(refusal, MANAGEMENT_TOKEN)
            self.assertEqual(self.got(self.registrar.withdraw(client_id, token)), MANAGEMENT_TOKEN)
        self.assertEqual(self.ids(), {one.client.client_id, two.client.client_id})

    def test_withdraw(self) -> None:
        """With its only registration a client goes, and all its grants end for ever."""
        one, two = self.register(), self.register(metadata(name="Other"))
        self.grant(one.client.client_id, "mine")
        self.grant(two.client.client_id, "theirs")
        self.assertIsNone(self.got(self.registrar.withdraw(one.client.client_id, one.management)))
        self.assertEqual(self.ids(), {two.client.client_id})
        self.assertEqual(self.runs.ended, [("mine", GRANT_ENDED)])
        ended = self.got(self.store.read(grants.grant, "mine"))
        assert ended is not None
        self.assertEqual(ended.end_reason, "client-deleted")
        again = self.got(self.registrar.withdraw(one.client.client_id, one.management))
        self.assertEqual(again, MANAGEMENT_TOKEN)

    def test_withdraw_one_of_two(self) -> None:
        """Who registered the same as somebody else takes back no more than their own."""
        one, two = self.register(metadata(POST)), self.register(metadata(POST))
        client_id = one.client.client_id
        assert one.secret is not None and two.secret is not None
        self.grant(client_id, secret=one.secret)
        self.grant(client_id, "theirs", two.secret)
        self.assertIsNone(self.got(self.registrar.withdraw(client_id, two.management)))
        self.assertEqual(self.runs.ended, [("theirs", GRANT_ENDED)])
        found = self.got(self.registrar.find(client_id))
        self.assertIsNone(authenticate(found, Presented(client_id, digest(one.secret), POST)))
        self.assertIsNotNone(authenticate(found, Presented(client_id, digest(two.secret), POST)))
        self.assertIsNone(self.got(self.registrar.withdraw(client_id, one.management)))
        self.assertEqual(self.runs.ended[1:], [("g", GRANT_ENDED)])

    def test_withdraw_one_of_two_public(self) -> None:
        """Without secrets two that registered the same are not told apart: what one takes back
        ends nothing of the other's, and the last one all."""
        one, two = self.register(), self.register()
        client_id = one.client.client_id
        self.grant(client_id)
        self.assertIsNone(self.got(self.registrar.withdraw(client_id, two.management)))
        self.assertEqual(self.runs.ended, [])
        self.assertIsNone(self.got(self.registrar.withdraw(client_id, one.management)))
        self.assertEqual(self.runs.ended, [("g", GRANT_ENDED)])


class ForgettingTests(RegistrarCase):
    def some(self, count: int) -> list[str]:
        made = []
        for number in range(count):
            self.clock.advance(1)
            made.append(self.register(metadata(name=f"{number}")).client.client_id)
        return made

    def left(self, ids: list[str]) -> list[str]:
        return [each for each in ids if self.got(self.registrar.find(each)) is not None]

    def expire(self) -> None:
        self.got(self.registrar.expire())

    def use(self, ids: list[str]) -> None:
        """An ended grant, a code, a sign-in under way, for three of them."""

        def use(cursor: Cursor) -> None:
            grants.add(cursor, "old", 7, ids[0], "", self.clock.seconds())
            grants.end(cursor, "old", "revoked", self.clock.seconds())
            clients.note_use(cursor, ids[0], self.clock.seconds())
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

    def test_oldest_unused_make_room(self) -> None:
        """Past the bound the oldest clients that nobody used make room, a tenth at a time."""
        ids = self.some(30)
        self.assertEqual(self.got(self.store.write(clients.make_room, 30)), 0)
        self.assertEqual(self.got(self.store.write(clients.make_room, 20)), 12)
        self.assertEqual(self.left(ids), ids[12:])

    def test_used_stay(self) -> None:
        """A client that had a grant, has a code or a sign-in under way makes room for nobody."""
        ids = self.some(4)
        self.use(ids)
        self.assertEqual(self.got(self.store.write(clients.make_room, 0)), 1)
        self.assertEqual(self.left(ids), ids[:3])

    def test_used_take_no_room(self) -> None:
        """Whoever uses many clients takes no room from those that are to be used."""
        ids = self.some(30)
        for client_id in ids[:20]:
            self.got(self.store.write(clients.note_use, client_id, self.clock.seconds()))
        self.assertEqual(self.got(self.store.write(clients.make_room, 10)), 0)
        self.assertEqual(self.got(self.store.write(clients.make_room, 9)), 1)
        self.assertEqual(self.left(ids), ids[:20] + ids[21:])

    def test_too_many_used(self) -> None:
        """Of clients whose grants are over so many are kept; the longest unused go."""
        ids = self.some(6)
        self.patch(limits, "CLIENTS", 3)
        self.grant(ids[0], "live")
        for client_id in (ids[0], *reversed(ids[1:])):
            self.clock.advance(1)
            self.got(self.store.write(clients.note_use, client_id, self.clock.seconds()))
        self.expire()
        self.assertEqual(self.left(ids), ids[:4])

    def test_unused_expire(self) -> None:
        """A client that never came to a grant is forgotten after a day, its registrations too."""
        ids = self.some(4)
        self.use(ids)
        self.clock.advance(limits.CLIENT_UNUSED - 1)
        self.expire()
        self.assertEqual(self.left(ids), ids)
        self.clock.advance(1)
        self.expire()
        self.assertEqual(self.left(ids), ids[:3])
        rows = self.got(self.store.read(run, "SELECT client_id FROM registrations"))
        self.assertEqual({client_id for (client_id,) in rows}, set(ids[:3]))

    def test_used_expire_late(self) -> None:
        """A client whose last grant is over is known for another year; one with a live grant is
        never forgotten."""
        over, live = self.some(2)
        self.grant(over, "over")
        self.got(self.store.write(grants.end, "over", "revoked", self.clock.seconds()))
        self.grant(live, "live")
        self.clock.advance(limits.CLIENT_IDLE - 1)
        self.expire()
        self.assertEqual(self.left([over, live]), [over, live])
        self.clock.advance(10 * limits.CLIENT_IDLE)
        self.expire()
        self.assertEqual(self.left([over, live]), [live])
