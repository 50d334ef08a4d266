"""
What the rows of sign-ins, codes, grants and their tokens promise on every engine.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.broker.endings import Endings
from fjmcp.broker.issuer import Issued, Issuer
from fjmcp.oauth.authorization import AuthorizationRequest, Params
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import NONE, ClientMetadata
from fjmcp.oauth.tokens import Digest, Kind, TokenText, digest, mint
from fjmcp.refusals import CODE_REUSED
from fjmcp.store.queries import accounts, clients, exchanges, grants, signins
from fjmcp.store.queries.accounts import SealedPair
from fjmcp.store.transactions import Cursor
from fjmcp.store.vault import Ring
from tests.store.contract import _Contract, all_of, promise

REQUEST = AuthorizationRequest(
    "c",
    "https://client.example/callback",
    "ä'\"",
    "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "forge:read",
    "https://broker.example/mcp",
)
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""RFC 7636, appendix B."""

AT = 1_800_000_000.0


def secret() -> Digest:
    """The digest of some secret."""
    return digest(mint(Kind.STATE))


def add_account(cursor: Cursor, account_id: int = 7) -> None:
    pair = SealedPair(b"sealed", None, None, AT, AT)
    accounts.admit(cursor, secret(), account_id, "ada", pair, AT)


def count(cursor: Cursor, table: str) -> int:
    row = cursor.one(f"SELECT COUNT(*) FROM {table}")
    assert row is not None
    return int(row[0])


class GrantsContract(_Contract):
    """Codes, grants, tokens."""

    @promise
    async def test_code(self) -> None:
        """A code comes back with its request as it went, and with the grant once it has one."""
        store, code = self.open_store(), secret()
        await store.write(grants.add_code, code, 7, REQUEST, AT)
        row = await store.read(grants.code, code)
        assert row is not None
        self.assertEqual(
            (row.client_id, row.account_id, row.request, row.expires_at, row.grant_id),
            ("c", 7, REQUEST, AT + limits.CODE, None),
        )
        await store.write(grants.redeem_code, code, "g")
        row = await store.read(grants.code, code)
        self.assertEqual(row and row.grant_id, "g")
        self.assertIsNone(await store.read(grants.code, secret()))

    @promise
    async def test_codes_are_swept(self) -> None:
        """A code that nobody used goes at its end; a used one stays while its grant lives."""
        store, unused, used = self.open_store(), secret(), secret()
        for code in (unused, used):
            await store.write(grants.add_code, code, 7, REQUEST, AT)
        await store.write(grants.add, "g", 7, "c", "s", AT)
        await store.write(grants.redeem_code, used, "g")
        late = AT + limits.CODE
        await store.write(grants.add_code, secret(), 7, REQUEST, late - 1)
        self.assertIsNotNone(await store.read(grants.code, unused))
        await store.write(grants.add_code, secret(), 7, REQUEST, late)
        self.assertIsNone(await store.read(grants.code, unused))
        later = AT + limits.GRANT_LIFE
        await store.write(grants.add_code, secret(), 7, REQUEST, later)
        self.assertIsNotNone(await store.read(grants.code, used))
        await store.write(grants.end, "g", "revoked", later)
        await store.write(grants.add_code, secret(), 7, REQUEST, later)
        self.assertIsNone(await store.read(grants.code, used))

    @promise
    async def test_grant(self) -> None:
        """A grant comes back as it is: added, touched, ended with the first reason."""
        store = self.open_store()
        self.assertEqual(await store.write(grants.add, "g", 7, "c", "s", AT), [])
        await store.write(grants.touch, {"g": AT + 5})
        row = await store.read(grants.grant, "g")
        assert row is not None
        self.assertEqual((row.created_at, row.used_at, row.ended_at), (AT, AT + 5, None))
        self.assertEqual(await store.read(grants.live_of_account, 7), ["g"])
        self.assertTrue(await store.write(grants.end, "g", "first", AT + 6))
        self.assertFalse(await store.write(grants.end, "g", "second", AT + 7))
        row = await store.read(grants.grant, "g")
        assert row is not None
        self.assertEqual((row.ended_at, row.end_reason), (AT + 6, "first"))
        self.assertEqual(await store.read(grants.live_of_account, 7), [])
        self.assertIsNone(await store.read(grants.grant, "other"))

    @promise
    async def test_over(self) -> None:
        """Of many grants those are told that have ended, with their reasons, or that are gone."""
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            for grant_id in "ghi":
                grants.add(cursor, grant_id, 7, "c", "s", AT)
            grants.end(cursor, "h", "operator", AT)
            grants.end(cursor, "i", "room", AT)

        await store.write(fill)
        self.assertEqual(
            await store.read(grants.over, {"g", "h", "other"}), {"h": "operator", "other": "gone"}
        )
        self.assertEqual(await store.read(grants.over, ()), {})

    @promise
    async def test_touch(self) -> None:
        """Many grants are noted as used at once; none goes back, and what is unknown is none."""
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            for grant_id in "ghi":
                grants.add(cursor, grant_id, 7, "c", "s", AT)
            grants.touch(cursor, {"g": AT + 9})
            grants.touch(cursor, {"g": AT + 5, "h": AT + 6, "unknown": AT + 7})

        await store.write(fill)
        rows = [await store.read(grants.grant, grant_id) for grant_id in "ghi"]
        self.assertEqual([row and row.used_at for row in rows], [AT + 9, AT + 6, AT])
        self.assertEqual(await store.read(count, "grants"), 3)

    @promise
    async def test_cap(self) -> None:
        """Past the cap the longest idle grants of the account end, and say so; ended ones do not
        count, other accounts' neither."""
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            grants.add(cursor, "other", 8, "c", "", AT - 100)
            grants.add(cursor, "over", 7, "c", "", AT - 50)
            grants.end(cursor, "over", "x", AT)
            for number in range(limits.GRANTS_PER_ACCOUNT):
                made = grants.add(cursor, f"g{number:02}", 7, "c", "", AT + number)
                assert made == []
            grants.touch(cursor, {"g00": AT + 1000})

        await store.write(fill)
        self.assertEqual(await store.write(grants.add, "new", 7, "c", "", AT + 1000), ["g01"])
        live = await store.read(grants.live_of_account, 7)
        self.assertEqual(len(live), limits.GRANTS_PER_ACCOUNT)
        self.assertIn("g00", live)
        self.assertEqual(await store.read(grants.live_of_account, 8), ["other"])

    @promise
    async def test_bearer(self) -> None:
        """One look at an access token tells its grant, its person and whether they are dead."""
        store, token = self.open_store(), secret()

        def fill(cursor: Cursor) -> None:
            add_account(cursor)
            grants.add(cursor, "g", 7, "c", "s", AT)
            grants.add_access_token(cursor, token, "g", AT + 10, AT)

        await store.write(fill)
        bearer = await store.read(grants.bearer, token)
        assert bearer is not None
        self.assertEqual(
            (bearer.grant.grant_id, bearer.login, bearer.dead, bearer.expires_at),
            ("g", "ada", False, AT + 10),
        )
        version = (await store.read(accounts.find, 7) or self.fail()).version
        await store.write(accounts.mark_dead, 7, version, "", AT)
        bearer = await store.read(grants.bearer, token)
        self.assertTrue(bearer and bearer.dead)
        self.assertIsNone(await store.read(grants.bearer, secret()))

    @promise
    async def test_expired_access_tokens(self) -> None:
        """A grant's next access token sweeps its expired ones away, and no others."""
        store = self.open_store()

        def fill(cursor: Cursor) -> int:
            grants.add_access_token(cursor, secret(), "g", AT + 10, AT)
            grants.add_access_token(cursor, secret(), "h", AT + 10, AT)
            grants.add_access_token(cursor, secret(), "g", AT + 30, AT + 10)
            return count(cursor, "access_tokens")

        self.assertEqual(await store.write(fill), 2)

    @promise
    async def test_family(self) -> None:
        """Of a family each used token keeps its sealed successor until that one is used, the
        grace is over, or the grant ends."""
        store = self.open_store()
        first, second, third = secret(), secret(), secret()

        async def kept() -> list[bytes | None]:
            rows = [await store.read(grants.refresh_token, t) for t in (first, second, third)]
            return [None if row is None else row.successor for row in rows]

        await store.write(grants.add_refresh_token, first, "g", None, AT)
        await store.write(grants.add_refresh_token, second, "g", first, AT)
        await store.write(grants.use_refresh_token, first, None, b"1", AT)
        self.assertEqual(await kept(), [b"1", None, None])
        self.assertFalse(await store.read(grants.successor_used, first))
        await store.write(grants.add_refresh_token, third, "g", second, AT + 1)
        await store.write(grants.use_refresh_token, second, first, b"2", AT + 1)
        self.assertEqual(await kept(), [None, b"2", None])
        self.assertTrue(await store.read(grants.successor_used, first))
        row = await store.read(grants.refresh_token, second)
        assert row is not None
        self.assertEqual((row.predecessor, row.used_at, row.issued_at), (first, AT + 1, AT))
        await store.write(grants.forget_graces, AT + limits.REFRESH_GRACE)
        self.assertEqual(await kept(), [None, b"2", None])
        await store.write(grants.forget_graces, AT + limits.REFRESH_GRACE + 1)
        self.assertEqual(await kept(), [None, None, None])

    @promise
    async def test_end_takes_all(self) -> None:
        """With a grant its access tokens go and what was sealed; used digests stay, and other
        grants are not touched."""
        store = self.open_store()
        tokens = {grant: secret() for grant in "gh"}

        def fill(cursor: Cursor) -> None:
            add_account(cursor)
            for grant, token in tokens.items():
                grants.add(cursor, grant, 7, "c", "", AT)
                grants.add_access_token(cursor, token, grant, AT + 10, AT)
                grants.add_refresh_token(cursor, token, grant, None, AT)
                grants.use_refresh_token(cursor, token, None, b"sealed", AT)
            grants.end(cursor, "g", "x", AT)

        await store.write(fill)
        self.assertIsNone(await store.read(grants.bearer, tokens["g"]))
        row = await store.read(grants.refresh_token, tokens["g"])
        self.assertEqual(row and row.successor, None)
        self.assertIsNotNone(row)
        self.assertIsNotNone(await store.read(grants.bearer, tokens["h"]))
        row = await store.read(grants.refresh_token, tokens["h"])
        self.assertEqual(row and row.successor, b"sealed")


class SignInsContract(_Contract):
    """Sign-ins under way."""

    @promise
    async def test_way(self) -> None:
        """A sign-in is begun, consented to, comes back once, and is forgotten."""
        store = self.open_store()
        signin, browser, state = secret(), secret(), secret()
        await store.write(signins.begin, signin, browser, REQUEST, AT)
        row = await store.write(signins.consent, signin, browser, state, b"v", AT)
        assert row is not None
        self.assertEqual((row.client_id, row.request), ("c", REQUEST))
        row = await store.write(signins.come_back, state, AT)
        assert row is not None
        self.assertEqual((row.signin, row.upstream_verifier), (signin, b"v"))
        self.assertIsNone(await store.write(signins.come_back, state, AT))
        self.assertIsNone(await store.write(signins.consent, signin, browser, state, b"v", AT))
        self.assertIsNone(await store.write(signins.deny, signin, browser, AT))
        await store.write(signins.finish, signin)
        self.assertEqual(await store.read(count, "signins"), 0)

    @promise
    async def test_wrong_browser(self) -> None:
        """Neither yes nor no is taken from another browser, nor after the end."""
        store = self.open_store()
        signin, browser, state = secret(), secret(), secret()
        await store.write(signins.begin, signin, browser, REQUEST, AT)
        end = AT + limits.SIGN_IN
        for who, when in ((secret(), AT), (browser, end)):
            self.assertIsNone(await store.write(signins.consent, signin, who, state, b"v", when))
            self.assertIsNone(await store.write(signins.deny, signin, who, when))
        self.assertIsNotNone(
            await store.write(signins.consent, signin, browser, state, b"v", end - 1)
        )
        self.assertIsNone(await store.write(signins.come_back, state, end))
        self.assertIsNotNone(await store.write(signins.come_back, state, end - 1))

    @promise
    async def test_last_consent(self) -> None:
        """Of two consents the last counts, and neither can be followed by a refusal."""
        store = self.open_store()
        signin, browser = secret(), secret()
        first, last = secret(), secret()
        await store.write(signins.begin, signin, browser, REQUEST, AT)
        await store.write(signins.consent, signin, browser, first, b"1", AT)
        self.assertIsNotNone(await store.write(signins.consent, signin, browser, last, b"2", AT))
        self.assertIsNone(await store.write(signins.deny, signin, browser, AT))
        self.assertIsNone(await store.write(signins.come_back, first, AT))
        row = await store.write(signins.come_back, last, AT)
        self.assertEqual(row and row.upstream_verifier, b"2")

    @promise
    async def test_remembered(self) -> None:
        """What a sign-in began with is read when it comes back."""
        store = self.open_store()
        for known_as, remembered in ((None, False), (7, False), (7, True)):
            signin, browser, state = secret(), secret(), secret()

            def fill(
                cursor: Cursor,
                signin: Digest = signin,
                browser: Digest = browser,
                known_as: int | None = known_as,
                remembered: bool = remembered,
            ) -> None:
                signins.begin(
                    cursor, signin, browser, REQUEST, AT, known_as=known_as, remembered=remembered
                )

            await store.write(fill)
            await store.write(signins.consent, signin, browser, state, b"v", AT)
            row = await store.write(signins.come_back, state, AT)
            assert row is not None
            self.assertEqual(
                (row.browser, row.known_as, row.came_as, row.remembered),
                (browser, known_as, None, remembered),
            )

    @promise
    async def test_questioned(self) -> None:
        """A sign-in whose person is asked who they are is answered under its new name, by its
        browser, in its time; what was said on the page before is no answer."""
        store = self.open_store()
        signin, renamed, browser = secret(), secret(), secret()
        states = [secret() for _ in range(5)]
        end = AT + limits.SIGN_IN
        await store.write(signins.begin, signin, browser, REQUEST, AT)
        # Nobody is asked before they came back.
        self.assertIsNone(await store.write(signins.confirm, signin, browser, states[1], AT))
        await store.write(signins.consent, signin, browser, states[0], b"v", AT)
        self.assertIsNone(await store.write(signins.confirm, signin, browser, states[1], AT))
        await store.write(signins.come_back, states[0], AT)
        self.assertTrue(await store.write(signins.ask, signin, renamed, 8))
        self.assertFalse(await store.write(signins.ask, signin, renamed, 8))
        for name in (signin, renamed):
            row = await store.write(signins.consent, name, browser, states[1], b"w", AT)
            self.assertIsNone(row)
        for name, who, when in (
            (signin, browser, AT),
            (renamed, secret(), AT),
            (renamed, browser, end),
        ):
            self.assertIsNone(await store.write(signins.confirm, name, who, states[1], when))
            self.assertIsNone(await store.write(signins.deny, name, who, when))
        # Pressed twice, the last one counts.
        for state in (states[2], states[3]):
            row = await store.write(signins.confirm, renamed, browser, state, end - 1)
            assert row is not None
            self.assertEqual((row.came_as, row.upstream_verifier), (8, None))
        self.assertIsNone(await store.write(signins.deny, renamed, browser, AT))
        self.assertIsNone(await store.write(signins.come_back, states[2], AT))
        row = await store.write(signins.come_back, states[3], AT)
        assert row is not None
        self.assertEqual((row.signin, row.came_as), (renamed, 8))
        self.assertIsNone(await store.write(signins.come_back, states[3], AT))

    @promise
    async def test_questioned_and_refused(self) -> None:
        """Who is asked who they are may refuse, once."""
        store = self.open_store()
        signin, renamed, browser, state = secret(), secret(), secret(), secret()
        await store.write(signins.begin, signin, browser, REQUEST, AT)
        await store.write(signins.consent, signin, browser, state, b"v", AT)
        await store.write(signins.come_back, state, AT)
        await store.write(signins.ask, signin, renamed, 8)
        row = await store.write(signins.deny, renamed, browser, AT)
        self.assertEqual(row and row.came_as, 8)
        self.assertIsNone(await store.write(signins.deny, renamed, browser, AT))
        self.assertIsNone(await store.write(signins.confirm, renamed, browser, state, AT))

    @promise
    async def test_bounded(self) -> None:
        """Past their bound the oldest sign-ins make room, but for one that holds a pair."""
        store = self.open_store()
        holder = secret()

        def fill(cursor: Cursor) -> None:
            signins.begin(cursor, holder, secret(), REQUEST, AT)
            exchanges.seal(cursor, holder, b"pair")
            cursor.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
                " INSERT INTO signins (signin, browser, client_id, request, created_at,"
                " expires_at) SELECT CAST('s' || i AS BLOB), ?, 'c', '{}', ? + i, ? + i FROM n",
                limits.PENDING_SIGN_INS + 5,
                b"b",
                AT,
                AT + limits.SIGN_IN,
            )

        await store.write(fill)
        newest = secret()
        await store.write(signins.begin, newest, secret(), REQUEST, AT + 1)
        self.assertEqual(await store.read(count, "signins"), limits.PENDING_SIGN_INS + 1)

        def left(cursor: Cursor) -> list[tuple[Any, ...]]:
            return cursor.many("SELECT signin FROM signins ORDER BY created_at LIMIT 3")

        kept = [bytes(row[0]) for row in await store.read(left)]
        self.assertEqual(kept[0], holder.value)
        self.assertIn(newest.value, kept)
        self.assertNotIn(b"s1", kept)

    @promise
    async def test_swept(self) -> None:
        """The next sign-in sweeps away what is over, but no pair that was not stored elsewhere."""
        store = self.open_store()
        over, holder = secret(), secret()
        for each in (over, holder):
            await store.write(signins.begin, each, secret(), REQUEST, AT)
        await store.write(exchanges.seal, holder, b"pair")
        await store.write(signins.finish, holder)
        await store.write(signins.begin, secret(), secret(), REQUEST, AT + limits.SIGN_IN)
        self.assertEqual(await store.read(count, "signins"), 2)


class IssuerContract(_Contract):
    """The issuer's transactions, asked for at the same instant."""

    def issuer(self) -> Issuer:
        clock = Clock()
        clock.advance(AT)
        store = self.store = self.open_store()
        callers = Callers(store, clock)
        endings = Endings(store, callers, clock)
        return Issuer(store, Ring.generate(), endings, Endpoints("https://broker.example"), clock)

    client = Client(
        "c",
        (),
        ClientMetadata(
            (REQUEST.redirect_uri,),
            grant_types=("authorization_code", "refresh_token"),
            token_endpoint_auth_method=NONE,
        ),
        AT,
    )

    async def code(self) -> Params:
        """The form that redeems a code."""
        code = mint(Kind.CODE)
        await self.store.write(add_account)
        await self.store.write(clients.add, self.client)
        await self.store.write(grants.add_code, digest(code), 7, REQUEST, AT)
        return Params((("code", code.text), ("code_verifier", VERIFIER)))

    @promise
    async def test_racing_refreshes_of_issuer(self) -> None:
        """All refreshes of one token at the same instant get the same pair."""
        issuer = self.issuer()
        first = await issuer.redeem(self.client, await self.code())
        assert isinstance(first, Issued) and first.refresh is not None
        form = Params((("refresh_token", first.refresh.text),))
        pairs = set()
        for answer in await all_of(*(issuer.refresh(self.client, form) for _ in range(16))):
            assert isinstance(answer, Issued) and isinstance(answer.refresh, TokenText)
            pairs.add((answer.access.text, answer.refresh.text))
        self.assertEqual(len(pairs), 1)
        self.assertEqual(await self.store.read(count, "refresh_tokens"), 2)
        self.assertEqual(await self.store.read(count, "access_tokens"), 2)

    @promise
    async def test_racing_codes_of_issuer(self) -> None:
        """Of all redemptions of one code at the same instant one is answered; the rest end it."""
        issuer = self.issuer()
        form = await self.code()
        answers = await all_of(*(issuer.redeem(self.client, form) for _ in range(4)))
        self.assertEqual(sum(isinstance(answer, Issued) for answer in answers), 1)
        self.assertEqual(answers.count(CODE_REUSED), 3)
        self.assertEqual(await self.store.read(count, "grants"), 1)
        self.assertEqual(await self.store.read(count, "access_tokens"), 0)
