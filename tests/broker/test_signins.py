"""A sign-in, where what it rests on fails halfway."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import define, evolve, field
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import refusals
from fjmcp.broker.credentials import SignedIn
from fjmcp.broker.signins import (
    FOR_THE_PERSON,
    AnotherCame,
    Asked,
    Explained,
    FromForge,
    Onward,
    SignIns,
    ToClient,
    challenge,
)
from fjmcp.forge.client import Forge
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import Digest, Kind, TokenText, digest, mint
from fjmcp.refusals import SCOPE_TOO_WIDE, SIGN_IN_REFUSED, SIGN_IN_UNKNOWN, OAuthRefusal
from fjmcp.store.queries import accounts, consents, signins
from fjmcp.store.queries.accounts import NOT_LOOKED_AT
from fjmcp.store.transactions import Cursor, StoreDown
from fjmcp.store.vault import Ring
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import EPOCH, FORGE_URL
from tests.broker.desk import ADA, BOB, CHALLENGE, REDIRECT, Desk

REQUEST = AuthorizationRequest(
    "fj-one", REDIRECT, "the-state", CHALLENGE, "forge:read", f"{PUBLIC_URL}/mcp", "f1"
)


def is_for_the_person(refusal: object) -> bool:
    """Whether it is one that the person reads."""
    return isinstance(refusal, OAuthRefusal) and refusal.reason in FOR_THE_PERSON


def put_to_sleep(cursor: Cursor, person: int, reason: str | None) -> None:
    """An account dies, for this reason."""
    row = accounts.find(cursor, person)
    assert row is not None
    accounts.mark_dead(cursor, person, row.version, "us", EPOCH + 1, reason)


@define
class Credentials:
    """Whoever comes back is Ada, unless the test wants it otherwise."""

    desk: Desk
    answer: SignedIn | OAuthRefusal
    then_down: bool = False
    then_gone: bool = False
    sleeps: tuple[str | None, ...] = ()
    """For what reason the account is put to sleep right after."""
    verifiers: list[str] = field(factory=list)

    async def exchange(self, signin: Digest, code: str, verifier: str) -> SignedIn | OAuthRefusal:
        self.verifiers.append(verifier)
        self.desk.memory.fail_all(self.then_down)
        if self.then_gone:
            await self.desk.store.write(signins.finish, signin)
        for reason in self.sleeps:
            await self.desk.store.write(put_to_sleep, ADA, reason)
        return self.answer


class SignInsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.desk = Desk()
        self.credentials = Credentials(self.desk, SignedIn(ADA, "ada"))
        self.browser = mint(Kind.BROWSER)
        self.signins = self.make(self.desk.ring)
        self.signin = self.begin()

    def begin(self) -> TokenText:
        asked = now(self.signins.begin(REQUEST, self.browser))
        assert isinstance(asked, Asked), asked
        return asked.signin

    def make(self, ring: Ring) -> SignIns:
        nothing: Any = None
        forge = Forge(
            http=nothing,
            url=FORGE_URL,
            client_id="c",
            client_secret="s",
            callback_url=f"{PUBLIC_URL}/oauth/callback",
            scopes="read:user",
            clock=self.desk.clock,
        )
        credentials: Any = self.credentials
        return SignIns(
            self.desk.store, ring, forge, credentials, Endpoints(PUBLIC_URL), self.desk.clock
        )

    def consent(self) -> Onward:
        onward = now(self.signins.consent(self.signin, self.browser))
        assert isinstance(onward, Onward), onward
        return onward

    def back(self, state: TokenText) -> FromForge:
        return FromForge(
            state=state,
            held=state,
            code="forge-code",
            error=None,
            issuer=None,
            browser=self.browser,
        )

    def come_back(self, onward: Onward) -> dict[str, str]:
        came = now(self.signins.come_back(self.back(onward.state)))
        assert isinstance(came, ToClient), came
        return dict(parse_qsl(urlsplit(came.url).query))

    def test_verifier(self) -> None:
        """The exchange gets the verifier of the challenge that Forgejo was shown."""
        onward = self.consent()
        self.assertIn("code", self.come_back(onward))
        (verifier,) = self.credentials.verifiers
        shown = dict(parse_qsl(urlsplit(onward.url).query))["code_challenge"]
        self.assertEqual(challenge(TokenText(verifier)), shown)

    def test_refused(self) -> None:
        """What the exchange refuses, the client hears."""
        self.credentials.answer = SIGN_IN_REFUSED
        self.assertEqual(self.come_back(self.consent())["error"], SIGN_IN_REFUSED.error)
        self.assertEqual(self.desk.rows("SELECT * FROM signins"), [])
        self.assertEqual(self.desk.rows("SELECT * FROM codes"), [])

    def test_explained(self) -> None:
        """What only the person can mend, the person reads; the client hears it after."""
        explained = [each for each in vars(refusals).values() if is_for_the_person(each)]
        self.assertEqual({refusal.reason for refusal in explained}, FOR_THE_PERSON)
        for refusal in explained:
            self.setUp()
            self.credentials.answer = evolve(refusal, login="ada")
            said = now(self.signins.come_back(self.back(self.consent().state)))
            assert isinstance(said, Explained), said
            self.assertEqual(said.refusal, self.credentials.answer)
            onward = dict(parse_qsl(urlsplit(said.url).query))
            self.assertEqual((onward["error"], onward["state"]), (refusal.error, "the-state"))
            self.assertNotIn("ada", said.url)

    def test_asleep_by_then(self) -> None:
        """Who was turned away between the look that let them in and the code gets none, and
        reads why; whose credential died, the client hears."""
        for reason in (None, *refusals.TURNED_AWAY, NOT_LOOKED_AT):
            with self.subTest(reason):
                self.setUp()
                self.credentials.sleeps = (reason,)
                said = now(self.signins.come_back(self.back(self.consent().state)))
                self.assert_turned_away(said, reason, ADA)

    def assert_turned_away(self, said: object, reason: str | None, person: int) -> None:
        """A sign-in is over for this reason, and nothing was given out or kept."""
        refusal = refusals.TURNED_AWAY.get(reason or "")
        if refusal is None:
            assert isinstance(said, ToClient), said
            self.assertIsNone(said.browser)
            refusal = SIGN_IN_REFUSED
        else:
            assert isinstance(said, Explained), said
            self.assertEqual(said.refusal, evolve(refusal, login=f"person-{person}"))
        told = dict(parse_qsl(urlsplit(said.url).query))
        self.assertEqual(
            (told["error"], told["error_description"]), (refusal.error, refusal.description)
        )
        for table in ("signins", "codes", "consents"):
            self.assertEqual(self.desk.rows(f"SELECT * FROM {table}"), [])

    def test_store_fails_after(self) -> None:
        """A store that fails when the state is spent is the client's to hear, with state and
        iss: this browser could not try again."""
        for answer in (SignedIn(ADA, "ada"), SCOPE_TOO_WIDE):
            self.setUp()
            self.credentials.answer = answer
            self.credentials.then_down = True
            said = self.come_back(self.consent())
            self.assertEqual(said["error"], "temporarily_unavailable")
            self.assertEqual((said["state"], said["iss"]), ("the-state", PUBLIC_URL))

    def test_store_fails_before(self) -> None:
        """A store that fails before spends nothing: the same callback works after."""
        onward = self.consent()
        self.desk.memory.fail_all()
        with self.assertRaises(StoreDown):
            now(self.signins.come_back(self.back(onward.state)))
        self.desk.memory.fail_all(False)
        self.assertIn("code", self.come_back(onward))

    def test_lost_key(self) -> None:
        """A sign-in whose key was lost meanwhile ends at the client, with an error."""
        onward = self.consent()
        self.signins = self.make(Ring.generate())
        self.assertEqual(self.come_back(onward)["error"], "server_error")
        self.assertEqual(self.credentials.verifiers, [])

    def test_digests_only(self) -> None:
        """Neither of the secrets that bind a sign-in stands in the store, nor the verifier."""
        onward = self.consent()
        dump = "\n".join(self.desk.memory.lanes[0].connection.iterdump())
        self.come_back(onward)
        for secret in (self.signin, self.browser, onward.state):
            self.assertNotIn(secret.text, dump)
            self.assertNotIn(secret.text.encode().hex().upper(), dump.upper())
            self.assertIn(digest(secret).value.hex().upper(), dump.upper())
        (verifier,) = self.credentials.verifiers
        self.assertNotIn(verifier.encode().hex().upper(), dump.upper())

    def test_no_text_in_reprs(self) -> None:
        """What goes to Forgejo, comes back and goes on to the client can be printed without
        telling a secret."""
        onward = self.consent()
        back = self.back(onward.state)
        came = now(self.signins.come_back(back))
        for printed in (repr(onward), repr(back), repr(came)):
            self.assertNotIn(onward.state.text, printed)
            self.assertNotIn(self.browser.text, printed)
            self.assertNotIn("forge-code", printed)
            self.assertNotIn("fjc_", printed)


class AnotherTests(SignInsTests):
    """Bob comes back in Ada's browser; all that is promised of one person holds there, too."""

    def setUp(self) -> None:
        super().setUp()
        now(self.desk.store.write(signins.finish, digest(self.signin)))
        now(self.desk.store.write(consents.know, digest(self.browser), ADA, EPOCH))
        self.signin = self.begin()

    def bob_comes(self) -> AnotherCame:
        """Forgejo says that it is Bob."""
        self.credentials.answer = SignedIn(BOB, "bob")
        came = now(self.signins.come_back(self.back(self.consent().state)))
        assert isinstance(came, AnotherCame), came
        return came

    def known(self) -> list[tuple[object, ...]]:
        """Whose the browser is, and what is remembered."""
        return self.desk.rows("SELECT account_id FROM browsers UNION ALL SELECT 0 FROM consents")

    def test_asks(self) -> None:
        """Nothing is given out before Bob's word; with it, the code is his."""
        came = self.bob_comes()
        self.assertEqual((came.known, came.came), (f"person-{ADA}", "bob"))
        self.assertEqual(self.desk.rows("SELECT * FROM codes"), [])
        self.assertEqual(self.known(), [(ADA,)])
        onward = now(self.signins.confirm(came.signin, self.browser))
        assert isinstance(onward, Onward), onward
        self.assertEqual(self.come_back(onward)["state"], "the-state")
        self.assertEqual(self.desk.rows("SELECT account_id FROM codes"), [(BOB,)])
        self.assertEqual(self.known(), [(BOB,), (0,)])

    def test_asleep_by_then(self) -> None:
        """Who was turned away while they read the question gets no code for their answer, and
        reads why; no consent of theirs is kept, and the browser stays Ada's."""
        for reason in (None, *refusals.TURNED_AWAY, NOT_LOOKED_AT):
            with self.subTest(reason):
                self.setUp()
                came = self.bob_comes()
                onward = now(self.signins.confirm(came.signin, self.browser))
                assert isinstance(onward, Onward), onward
                now(self.desk.store.write(put_to_sleep, BOB, reason))
                said = now(self.signins.come_back(self.back(onward.state)))
                self.assert_turned_away(said, reason, BOB)
                self.assertEqual(self.known(), [(ADA,)])
                again = now(self.signins.come_back(self.back(onward.state)))
                self.assertIs(again, SIGN_IN_UNKNOWN)

    def test_store_fails_after_the_exchange(self) -> None:
        """A store that fails before anybody could be asked is the client's to hear, and leaves
        nothing but what the exchange stored: the browser is Ada's."""
        self.credentials.then_down = True
        self.credentials.answer = SignedIn(BOB, "bob")
        self.assertEqual(self.come_back(self.consent())["error"], "temporarily_unavailable")
        self.desk.memory.fail_all(False)
        self.assertEqual(self.desk.rows("SELECT * FROM codes"), [])
        self.assertEqual(self.desk.rows("SELECT came_as FROM signins WHERE came_as NOT NULL"), [])
        self.assertEqual(self.known(), [(ADA,)])

    def test_gone_meanwhile(self) -> None:
        """A sign-in whose row is gone when its person comes back cannot ask: the client is told
        that it took too long."""
        onward = self.consent()
        self.credentials.answer = SignedIn(BOB, "bob")
        self.credentials.then_gone = True
        self.assertEqual(self.come_back(onward)["error"], "invalid_request")
        self.assertEqual(self.desk.rows("SELECT * FROM codes"), [])

    def test_verifier_is_not_kept(self) -> None:
        """What waits for Bob's word holds nothing sealed, so that a change of keys passes it by."""
        self.bob_comes()
        self.assertEqual(
            self.desk.rows("SELECT came_as, upstream_verifier FROM signins WHERE came_as NOT NULL"),
            [(BOB, None)],
        )

    def test_another_in_reprs(self) -> None:
        """The secret of the form is not printed."""
        came = self.bob_comes()
        self.assertNotIn(came.signin.text, repr(came))
