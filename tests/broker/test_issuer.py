"""Code to tokens, tokens to tokens, where requests race and answers are late."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.issuer import Issued, Issuer
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import CODE_REUSED, GRANT_ENDED, REFRESH_REUSED, OAuthRefusal
from fjmcp.store.transactions import StoreDown
from fjmcp.store.vault import Ring
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from tests.broker.desk import ONE, TWO, Desk


def texts(issued: object) -> tuple[str, str]:
    """The two tokens of a pair."""
    assert isinstance(issued, Issued) and issued.refresh is not None, issued
    return issued.access.text, issued.refresh.text


class IssuerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.desk = Desk()

    def pair(self) -> tuple[TokenText, TokenText]:
        issued = self.desk.issue()
        assert issued.refresh is not None
        return issued.access, issued.refresh

    def test_racing_refreshes(self) -> None:
        """Of many refreshes at the same instant all get one and the same pair."""
        _, refresh = self.pair()
        self.desk.memory.hold()
        asked = [self.desk.start_refresh(refresh.text) for _ in range(10)]
        self.desk.memory.release()
        self.assertEqual(len({texts(self.successResultOf(each)) for each in asked}), 1)
        self.assertEqual(len(self.desk.rows("SELECT * FROM refresh_tokens")), 2)

    def test_racing_codes(self) -> None:
        """Of two redemptions of one code the first is answered, and the second ends it all."""
        code = self.desk.code()
        self.desk.memory.hold()
        first, second = self.desk.start_redeem(code), self.desk.start_redeem(code)
        self.desk.memory.release()
        _, refresh = texts(self.successResultOf(first))
        self.assertIs(self.successResultOf(second), CODE_REUSED)
        self.assertNotIsInstance(self.desk.refresh(TokenText(refresh)), Issued)
        self.assertEqual(len(self.desk.runs.ended), 1)
        self.assertEqual(self.desk.rows("SELECT * FROM access_tokens"), [])

    def test_revoked_while_refreshing(self) -> None:
        """A refresh that comes after a revocation gets nothing, though it was asked before."""
        access, refresh = self.pair()
        grant_id = self.desk.grant_of(access)
        self.desk.memory.hold()
        ending = Deferred.fromCoroutine(self.desk.endings.end(grant_id, "revoked"))
        asked = self.desk.start_refresh(refresh.text)
        self.desk.memory.release()
        self.successResultOf(ending)
        self.assertIsInstance(self.successResultOf(asked), OAuthRefusal)
        self.assertEqual(self.desk.rows("SELECT * FROM access_tokens"), [])

    def test_reuse_is_answered_last(self) -> None:
        """The refusal of a reused token comes when all that ran for the grant has ended."""
        _, refresh = self.pair()
        self.desk.refresh(refresh)
        self.desk.clock.advance(limits.REFRESH_GRACE)
        self.desk.runs.waits = []
        asked = self.desk.start_refresh(refresh.text)
        self.assertNoResult(asked)
        self.assertEqual([refusal for _, refusal in self.desk.runs.ended], [GRANT_ENDED])
        self.desk.runs.waits[0].callback(None)
        self.assertIs(self.successResultOf(asked), REFRESH_REUSED)

    def test_store_down(self) -> None:
        """A store that fails at any step has kept nothing of it."""
        _, refresh = self.pair()
        code = self.desk.code()
        before = list(self.desk.memory.lanes[0].connection.iterdump())
        self.desk.memory.fail_all()
        self.failureResultOf(self.desk.start_refresh(refresh.text), StoreDown)
        self.failureResultOf(self.desk.start_redeem(code), StoreDown)
        self.assertEqual(list(self.desk.memory.lanes[0].connection.iterdump()), before)

    def test_lost_key(self) -> None:
        """A sealed answer whose key is lost is as good as none: the grant ends, and no 500."""
        _, refresh = self.pair()
        self.desk.refresh(refresh)
        endpoints = Endpoints(PUBLIC_URL)
        self.desk.issuer = Issuer(
            self.desk.store, Ring.generate(), self.desk.endings, endpoints, self.desk.clock
        )
        self.assertIs(self.desk.refresh(refresh), REFRESH_REUSED)
        self.assertEqual(len(self.desk.runs.ended), 1)

    def test_sealed_for_one(self) -> None:
        """A sealed answer put into another token's row does not open."""
        _, mine = self.pair()
        _, theirs = self.pair()
        self.desk.refresh(mine)
        self.desk.refresh(theirs)
        swap = (
            "UPDATE refresh_tokens SET successor = (SELECT MIN(successor) FROM refresh_tokens)"
            " WHERE successor IS NOT NULL"
        )
        now(self.desk.store.write(lambda cursor: cursor.execute(swap)))
        answers = [self.desk.refresh(mine), self.desk.refresh(theirs)]
        self.assertEqual(answers.count(REFRESH_REUSED), 1)

    def test_no_longer_than_the_grant(self) -> None:
        """A refreshed token ends with its grant, by the rule for all or by an end of its own."""
        at = self.desk.clock.seconds()
        for column, until in (("created_at", at + 100 - limits.GRANT_LIFE), ("expires_at", at + 9)):
            _, refresh = self.pair()
            self.desk.rows(f"UPDATE grants SET {column} = ?", until)
            issued = self.desk.refresh(refresh)
            assert isinstance(issued, Issued)
            self.assertEqual(issued.access_expires_at, at + (100 if column == "created_at" else 9))

    def test_document(self) -> None:
        """The seconds that a token has left are never fewer than none."""
        issued = self.desk.issue()
        self.desk.clock.advance(limits.ACCESS_TOKEN + 1)
        self.assertEqual(issued.document(self.desk.clock.seconds())["expires_in"], 0)

    def test_no_text_in_reprs(self) -> None:
        """A pair can be printed without telling it."""
        issued = self.desk.issue()
        for secret in texts(issued):
            self.assertNotIn(secret, repr(issued))

    def test_revoke(self) -> None:
        """Only the client that a token was given to can revoke it."""
        for pick in (0, 1):
            pair = self.pair()
            now(self.desk.issuer.revoke(TWO, pair[pick]))
            self.assertEqual(len(self.desk.runs.ended), pick)
            now(self.desk.issuer.revoke(ONE, pair[pick]))
            self.assertEqual(len(self.desk.runs.ended), pick + 1)
