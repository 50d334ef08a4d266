"""Who a bearer token speaks for, and how soon nobody."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.callers import Caller, Callers
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD
from fjmcp.store.transactions import StoreDown
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import EPOCH
from tests.broker.desk import ADA, BOB, Desk, add_account, kill_account


class CallersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.desk = Desk()
        self.issued = self.desk.issue()
        self.grant_id = self.desk.grant_of(self.issued.access)

    def find(self) -> Caller:
        caller = self.desk.find(self.issued.access)
        assert isinstance(caller, Caller), caller
        return caller

    def start(self, token: TokenText | None = None) -> Deferred[object]:
        return Deferred.fromCoroutine(self.desk.callers.find(token or self.issued.access))

    def test_who(self) -> None:
        """A token names its grant, account, client, login and scopes."""
        caller = self.find()
        self.assertEqual(
            (caller.grant_id, caller.account_id, caller.client_id, caller.login, caller.scopes),
            (self.grant_id, ADA, "fj-one", "person-7", "forge:read forge:write"),
        )

    def test_unknown(self) -> None:
        """What is no access token is bad: other kinds of token too."""
        assert self.issued.refresh is not None
        for token in (self.issued.refresh, mint(Kind.ACCESS), TokenText(""), TokenText("ä\0")):
            self.assertIs(self.desk.find(token), BAD_TOKEN)

    def test_unknown_is_not_kept(self) -> None:
        """A refusal is never remembered: guesses take no room."""
        self.desk.find(mint(Kind.ACCESS))
        self.assertEqual(len(self.desk.callers._seen), 0)

    def test_seen_needs_no_store(self) -> None:
        """A token that was seen is answered without the store; one that was not is not."""
        self.find()
        self.desk.memory.fail_all()
        self.find()
        self.failureResultOf(self.start(mint(Kind.ACCESS)), StoreDown)

    def test_expiry_on_hit(self) -> None:
        """A token that was seen expires to the second, and is forgotten."""
        self.find()
        self.desk.clock.advance(limits.ACCESS_TOKEN - 1)
        self.find()
        self.desk.clock.advance(1)
        self.assertIs(self.desk.find(self.issued.access), BAD_TOKEN)
        self.assertEqual(len(self.desk.callers._seen), 0)

    def test_expiry_on_miss(self) -> None:
        """A token that was not seen expires just so."""
        self.desk.clock.advance(limits.ACCESS_TOKEN)
        self.assertIs(self.desk.find(self.issued.access), BAD_TOKEN)

    def test_end_of_the_grant(self) -> None:
        """A token is no good after its grant's own end, whether it was seen before or not."""
        now(
            self.desk.store.write(
                lambda cursor: cursor.execute("UPDATE grants SET expires_at = ?", EPOCH + 100)
            )
        )
        self.assertEqual(self.find().expires_at, EPOCH + 100)
        self.desk.clock.advance(99)
        self.find()
        self.desk.clock.advance(1)
        self.assertIs(self.desk.find(self.issued.access), BAD_TOKEN)
        self.assertIs(self.desk.truth(self.issued.access), BAD_TOKEN)

    def test_row_of_an_ended_grant(self) -> None:
        """A token that a closed grant still had would be refused all the same."""
        now(self.desk.store.write(lambda cursor: cursor.execute("UPDATE grants SET ended_at = 1")))
        self.assertIs(self.desk.find(self.issued.access), BAD_TOKEN)

    def test_dead_account(self) -> None:
        """A token of a dead account says so, and works again after a sign-in."""
        now(self.desk.store.write(kill_account, ADA))
        self.assertIs(self.desk.find(self.issued.access), CREDENTIAL_DEAD)
        now(self.desk.store.write(add_account, ADA))
        self.find()

    def test_forget(self) -> None:
        """Of a grant that is forgotten every token is asked for anew, and of no other."""
        assert self.issued.refresh is not None
        again = self.desk.refresh(self.issued.refresh)
        assert not isinstance(again, type(BAD_TOKEN))
        others = [self.desk.issue(), self.desk.issue(account_id=BOB)]
        tokens = [
            self.issued.access,
            getattr(again, "access", TokenText("")),
            *(issued.access for issued in others),
        ]
        for token in tokens:
            self.assertIsInstance(self.desk.find(token), Caller)
        self.desk.callers.forget(self.grant_id)
        left = set(self.desk.callers._seen)
        self.assertEqual(left, {digest(token).value for token in tokens[2:]})
        self.desk.callers.forget_account(BOB)
        self.assertEqual(set(self.desk.callers._seen), {digest(tokens[2]).value})

    def test_end_while_reading(self) -> None:
        """A look-up that read before a grant ended and answers after it accepts nothing."""
        for end in (
            lambda: self.desk.endings.end(self.grant_id, "test"),
            lambda: self.desk.endings.suspend(ADA),
        ):
            self.setUp()
            self.desk.late.held = []
            asked = self.start()
            self.assertNoResult(asked)
            now(self.desk.memory.write(kill_account, ADA))
            ending = Deferred.fromCoroutine(end())
            self.desk.late.deliver()
            self.successResultOf(ending)
            self.assertIn(self.successResultOf(asked), (BAD_TOKEN, CREDENTIAL_DEAD))
            self.assertEqual(len(self.desk.callers._seen), 0)

    def test_other_end_while_reading(self) -> None:
        """An end of another grant meanwhile costs another look, no more."""
        other = self.desk.issue(account_id=BOB)
        self.desk.late.held = []
        asked = self.start()
        now(self.desk.endings.end(self.desk_grant(other.access), "test"))
        self.desk.late.deliver()
        self.assertIsInstance(self.successResultOf(asked), Caller)

    def desk_grant(self, token: TokenText) -> str:
        """The grant of a token, past the lane whose answers wait."""
        ((grant_id,),) = self.desk.rows(
            "SELECT grant_id FROM access_tokens WHERE token = ?", digest(token).value
        )
        assert isinstance(grant_id, str)
        return grant_id

    def test_bounded(self) -> None:
        """Only so many are kept; the longest unused goes, and is found again."""
        callers = Callers(self.desk.store, self.desk.clock, 3)
        tokens = [self.desk.issue().access for _ in range(4)]
        for token in (*tokens[:3], tokens[0], tokens[3]):
            now(callers.find(token))
        kept = {digest(token).value for token in (tokens[2], tokens[0], tokens[3])}
        self.assertEqual(set(callers._seen), kept)
        self.assertIsInstance(now(callers.find(tokens[1])), Caller)

    def test_keeps_no_text(self) -> None:
        """What is kept of a token is its digest."""
        self.find()
        self.assertNotIn(self.issued.access.text, repr(self.desk.callers))
        self.assertEqual(list(self.desk.callers._seen), [digest(self.issued.access).value])
