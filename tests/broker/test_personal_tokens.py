"""Tokens that an operator makes for programs."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker import personal_tokens
from fjmcp.broker.callers import Caller
from fjmcp.broker.personal_tokens import Asleep, Made, NotMade, Unknown
from fjmcp.oauth.tokens import digest
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD
from fjmcp.store.queries import grants
from fjmcp.testing.whole import EPOCH
from tests.broker.desk import ADA, Desk, add_account, kill_account

LOGIN = "person-7"
DAY = 86400.0


class MakeTests(SynchronousTestCase):
    """How they come to be, and what they are."""

    def setUp(self) -> None:
        self.desk = Desk()

    def make(self, login: str = LOGIN, life: float = 90 * DAY, name: str = "nightly") -> Made:
        made = self.try_to_make(login, life, name)
        assert isinstance(made, Made), made
        return made

    def try_to_make(
        self, login: str = LOGIN, life: float = 90 * DAY, name: str = ""
    ) -> Made | NotMade:
        """As the operator's tool does, in another process."""
        at = self.desk.clock.seconds()
        return self.desk.memory.elsewhere(personal_tokens.make, login, name, at + life, at)

    def test_works(self) -> None:
        """The token speaks for its account with all rights, as a client of its own, until its
        end."""
        made = self.make()
        grant_id = made.grant.grant_id
        self.assertEqual(
            self.desk.find(made.token),
            Caller(
                grant_id=grant_id,
                account_id=ADA,
                client_id=f"token-{grant_id}",
                login=LOGIN,
                scopes="forge:read forge:write",
                expires_at=EPOCH + 90 * DAY,
            ),
        )
        self.assertEqual((made.grant.name, made.login, made.made_room), ("nightly", LOGIN, ()))
        other = self.make()
        self.assertNotEqual(other.grant.client_id, made.grant.client_id)

    def test_end(self) -> None:
        """It works to its last second, and no longer."""
        made = self.make(life=5 * DAY)
        for seconds, works in ((5 * DAY - 1, True), (1, False)):
            self.desk.clock.advance(seconds)
            self.assertEqual(isinstance(self.desk.find(made.token), Caller), works)
            self.assertEqual(isinstance(self.desk.truth(made.token), Caller), works)

    def test_kept_as_digest(self) -> None:
        """Its text stands nowhere but in the answer, and there it is hidden; it has no refresh
        token."""
        made = self.make()
        self.assertEqual(
            self.desk.rows("SELECT token, expires_at FROM access_tokens"),
            [(digest(made.token).value, EPOCH + 90 * DAY)],
        )
        self.assertEqual(self.desk.rows("SELECT * FROM refresh_tokens"), [])
        self.assertNotIn(made.token.text, repr(made))
        dump = "\n".join(self.desk.memory.lanes[0].connection.iterdump())
        self.assertNotIn(made.token.text, dump)
        self.assertNotIn(made.token.text.encode().hex().upper(), dump.upper())

    def test_login(self) -> None:
        """The login is found however it is written, and one that nobody had is said."""
        self.assertEqual(self.make("PERSON-7").login, LOGIN)
        self.assertEqual(self.try_to_make("person-9"), Unknown())
        self.assertEqual(self.try_to_make(""), Unknown())
        self.assertEqual(len(self.desk.rows("SELECT * FROM grants")), 1)

    def test_asleep(self) -> None:
        """An account that has to sign in again gets none; one with a token loses it only till
        then."""
        made = self.make()
        self.desk.memory.elsewhere(kill_account, ADA)
        self.assertEqual(self.try_to_make(), Asleep(None))
        self.assertIs(self.desk.find(made.token), CREDENTIAL_DEAD)
        self.desk.memory.elsewhere(add_account, ADA)
        self.assertIsInstance(self.desk.find(made.token), Caller)
        self.make()

    def test_room(self) -> None:
        """It counts among the account's grants: the longest idle one ends for it, of a client or
        not, and is named; its own access token goes."""
        first = self.desk.issue().access
        for _ in range(limits.GRANTS_PER_ACCOUNT - 1):
            self.desk.clock.advance(1)
            self.make(life=DAY)
        self.desk.clock.advance(1)
        made = self.make()
        ((grant_id, reason),) = self.desk.rows(
            "SELECT grant_id, end_reason FROM grants WHERE ended_at IS NOT NULL"
        )
        self.assertEqual([old.grant_id for old in made.made_room], [grant_id])
        self.assertEqual((reason, made.made_room[0].client_id), ("room", "fj-one"))
        self.assertIs(self.desk.find(first), BAD_TOKEN)
        again = self.make()
        self.assertEqual([old.name for old in again.made_room], ["nightly"])
        self.assertEqual(len(self.desk.rows("SELECT * FROM access_tokens")), 50)

    # --- revoked ----------------------------------------------------------------------

    def test_revoke(self) -> None:
        """A token that is revoked is over, by its whole id or its beginning, and no other."""
        one, two = self.make(), self.make()
        at = self.desk.clock.seconds() + 5
        (ended,) = self.desk.memory.elsewhere(personal_tokens.revoke, one.grant.grant_id[:12], at)
        self.assertEqual((ended.grant, ended.login), (one.grant, LOGIN))
        self.assertIs(self.desk.find(one.token), BAD_TOKEN)
        self.assertIsInstance(self.desk.find(two.token), Caller)
        row = self.desk.memory.elsewhere(grants.grant, one.grant.grant_id)
        assert row is not None
        self.assertEqual((row.ended_at, row.end_reason), (at, "operator"))
        (again,) = self.desk.memory.elsewhere(personal_tokens.revoke, one.grant.grant_id, at + 9)
        self.assertEqual(again.grant, row)

    def test_revoke_nothing(self) -> None:
        """What several ids begin with ends none of them, and a client's grant is no token."""
        tokens = [self.make() for _ in range(20)]
        starts = [token.grant.grant_id[0] for token in tokens]
        start = max(starts, key=starts.count)
        at = self.desk.clock.seconds()
        found = self.desk.memory.elsewhere(personal_tokens.revoke, start, at)
        self.assertEqual(len(found), starts.count(start))
        client = self.desk.grant_of(self.desk.issue().access)
        self.assertEqual(self.desk.memory.elsewhere(personal_tokens.revoke, client, at), [])
        self.assertEqual(self.desk.rows("SELECT 1 FROM grants WHERE ended_at IS NOT NULL"), [])
