"""
`fjmcp.broker.credentials`: who may not come in, at a sign-in and after a refresh.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from fjmcp import limits
from fjmcp.broker.credentials import Credential, SignedIn
from fjmcp.forge.admission import Admission
from fjmcp.forge.answers import Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.refusals import (
    ACCOUNT_PROHIBITED,
    ADMIN_NOT_LET_IN,
    CREDENTIAL_DEAD,
    NOT_LET_IN,
    SCOPE_TOO_NARROW,
    SIGN_IN_REFUSED,
    SIGN_IN_TROUBLED,
    McpRefusal,
    OAuthRefusal,
    asleep,
)
from fjmcp.store.queries.accounts import NOT_LOOKED_AT
from fjmcp.store.transactions import Cursor, StoreDown
from tests.broker.model import ADA, BOB, Node, Sight
from tests.broker.test_credentials import LIFE, Case

BLOCKED = Refused("prohibited", "This account is prohibited from signing in")
NARROW = Refused("insufficient_scope", "required scope(s): [read:user]")
OVER = Refused("invalid_token", "oauth2 grant not found or revoked")
FREE = User(ADA, "ada")


class PeopleCase(Case):
    """Ada has signed in, and her credential is to be refreshed."""

    def setUp(self) -> None:
        super().setUp()
        self.sign_in()
        self.to_lead()

    def asleep(self, reason: str, node: Node | None = None) -> None:
        """Ada's account sleeps for that reason, and says so to who asks."""
        row = self.world.account()
        self.assertEqual((row.dead, row.dead_reason), (True, reason))
        answer = self.successResultOf(self.ask(node))
        self.assertEqual(answer, asleep(CREDENTIAL_DEAD, reason))
        self.assertNotEqual(answer, CREDENTIAL_DEAD)

    def awake(self) -> None:
        """Ada's account does not sleep."""
        row = self.world.account()
        self.assertEqual((row.dead, row.dead_reason), (False, None))

    def refused(self, account_id: int = ADA, node: Node | None = None) -> OAuthRefusal:
        """What a sign-in gets instead of a person."""
        refusal = self.successResultOf(self.start_sign_in(node, account_id))
        assert isinstance(refusal, OAuthRefusal), refusal
        return refusal

    def look(self) -> Sight:
        """The look that waits for its answer."""
        (sight,) = self.server.looking()
        return sight


class RefreshTests(PeopleCase):
    """One look follows each refresh."""

    def test_no(self) -> None:
        """A clear no puts the account to sleep, with its pair and its reason, once."""
        in_zoo, no_admins = Admission(orgs=["zoo"]), Admission(deny_admins=True)
        for rule, said, refusal in (
            (Admission(), BLOCKED, ACCOUNT_PROHIBITED),
            (in_zoo, BLOCKED, ACCOUNT_PROHIBITED),
            (in_zoo, FREE, NOT_LET_IN),
            (in_zoo, NARROW, SCOPE_TOO_NARROW),
            (no_admins, User(ADA, "ada", True), ADMIN_NOT_LET_IN),
        ):
            with self.subTest(rule=rule, said=said):
                self.setUp()
                self.node.credentials.admission = rule
                self.server.users[ADA] = said
                answers = [self.ask() for _ in range(3)]
                for each in answers:
                    self.assertEqual(
                        self.successResultOf(each), asleep(CREDENTIAL_DEAD, refusal.reason)
                    )
                self.asleep(refusal.reason)
                self.assertEqual(self.node.slept, [ADA])
                self.assertEqual(self.world.account().version, 2)
                self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})

    def test_others_go_on(self) -> None:
        """A no is about one account."""
        self.sign_in(account_id=BOB)
        self.to_lead()
        self.server.users[ADA] = BLOCKED
        self.successResultOf(self.ask())
        self.assertIsInstance(self.usable(account_id=BOB), Credential)
        self.assertEqual(self.node.slept, [ADA])

    def test_yes(self) -> None:
        """A person who may come in works on, and is asked about once a refresh."""
        self.node.credentials.admission = Admission(orgs=["zoo:keepers"])
        self.server.groups[ADA] = frozenset({"zoo:keepers"})
        seen = len(self.server.sights)
        for version in (2, 3):
            self.assertEqual(self.usable().version, version)
            self.usable()
            self.to_lead()
        self.assertEqual(len(self.server.sights), seen + 2)

    def test_trouble_is_no_no(self) -> None:
        """Where Forgejo does not say who it is the refresh stands, at once; the next one looks
        again."""
        for said in (Troubled("status-502", unsure=True), OVER, User(BOB, "bob")):
            with self.subTest(said):
                self.setUp()
                self.node.credentials.admission = Admission(["nobody"])
                self.server.users[ADA] = said
                self.assertEqual(self.usable().version, 2)
                self.assertEqual(self.usable().access.text, self.world.pair().access.text)
                self.awake()
                self.assertEqual(self.node.slept, [])
                self.server.users[ADA] = FREE
                self.to_lead()
                self.successResultOf(self.ask())
                self.asleep("not-let-in")

    def test_memberships_away(self) -> None:
        """Nor is an organization, or a team, of which Forgejo does not say who is in it."""
        for group in ("zoo", "park:keepers"):
            self.node.credentials.admission = Admission(orgs=[group])
            self.server.groups[ADA] = Troubled("timeout")
            self.usable()
            self.awake()
            self.to_lead()
        self.server.groups[ADA] = frozenset()
        self.successResultOf(self.ask())
        self.asleep("not-let-in")

    def test_stored_first(self) -> None:
        """The pair is committed and the claim over before Forgejo is asked who it is."""
        self.server.slow = True
        self.ask()
        row = self.world.account()
        self.assertEqual(len(self.server.looking()), 1)
        self.assertEqual((row.version, row.refresh_owner, row.refresh_until), (2, None, None))
        self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})

    def test_looked_at_before_used(self) -> None:
        """Who asks in this process gets the new pair after the look, or the no."""
        for said in (FREE, BLOCKED):
            self.setUp()
            self.server.slow = True
            asked = [self.ask()]
            asked += [self.ask(), self.ask()]  # the pair is stored by now
            for each in asked:
                self.assertNoResult(each)
            sight = self.look()
            self.server.users[ADA] = said
            self.server.show(sight)
            for each in asked:
                answer = self.successResultOf(each)
                self.assertIsInstance(answer, Credential if said is FREE else McpRefusal)

    def test_slow_look(self) -> None:
        """While a token serves nobody waits long for a look; a no that comes late ends all the
        same."""
        self.server.slow = True
        asked = [self.ask(), self.ask()]
        self.advance(limits.REFRESH_PATIENCE)
        for each in asked:
            self.assertIsInstance(self.successResultOf(each), Credential)
        self.server.users[ADA] = BLOCKED
        self.server.show(self.look())
        self.asleep("account-prohibited")
        self.assertEqual(self.node.slept, [ADA])

    def test_hanging_look(self) -> None:
        """Without a token that serves a request waits as long as a look may take, no longer."""
        self.world.clock.advance(LIFE)
        self.server.slow = True
        asked = self.ask()
        self.advance(limits.FORGE_LOOK - 1)
        self.assertNoResult(asked)
        self.advance(1.0)
        self.assertIsInstance(self.successResultOf(asked), Credential)
        self.awake()

    def test_sleeping_refresh(self) -> None:
        """The refresh of an account that nobody used for long is followed by a look, too."""
        self.world.ask(_grant)
        self.server.users[ADA] = BLOCKED
        self.world.clock.advance(limits.SLEEPING_AGE)
        self.successResultOf(Deferred.fromCoroutine(self.node.credentials.refresh_sleeping()))
        self.asleep("account-prohibited")
        self.assertEqual(self.node.slept, [ADA])
        calls = len(self.server.calls)
        self.world.clock.advance(limits.SLEEPING_AGE)
        self.successResultOf(Deferred.fromCoroutine(self.node.credentials.refresh_sleeping()))
        self.assertEqual(len(self.server.calls), calls)

    def test_other_node(self) -> None:
        """Another process may use the new pair while its person is looked at; the no holds
        there, too."""
        other = self.world.node()
        self.server.slow = True
        self.ask()
        self.assertEqual(self.usable(other).version, 2)
        self.server.users[ADA] = BLOCKED
        self.server.show(self.look())
        self.asleep("account-prohibited", other)

    def test_crash_before_the_verdict(self) -> None:
        """A process that ends between the commit and the verdict takes the look with it; the
        next refresh looks again."""
        self.server.slow = True
        self.ask()
        self.node.crash()
        self.server.users[ADA] = BLOCKED
        self.server.show(self.look())
        self.awake()
        self.server.slow = False
        node = self.world.node()
        self.assertEqual(self.usable(node).version, 2)
        self.to_lead()
        self.successResultOf(self.ask(node))
        self.asleep("account-prohibited", node)

    def test_store_down_at_the_verdict(self) -> None:
        """A store that does not take the verdict is the asker's failure; likewise."""
        self.server.slow = True
        asked = self.ask()
        self.world.store.fail_all()
        self.server.users[ADA] = BLOCKED
        self.server.show(self.look())
        self.failureResultOf(asked, StoreDown)
        self.world.store.fail_all(False)
        self.server.slow = False
        self.usable()
        self.to_lead()
        self.successResultOf(self.ask())
        self.asleep("account-prohibited")

    def test_stop(self) -> None:
        """At a stop no look is begun, and one that is under way is waited for."""
        self.server.held = True
        asked = self.ask()
        stopping = Deferred.fromCoroutine(self.node.credentials.settle())
        (call,) = self.server.waiting()
        seen = len(self.server.sights)
        self.server.deliver(call)
        self.successResultOf(stopping)
        self.assertIsInstance(self.successResultOf(asked), Credential)
        self.assertEqual(len(self.server.sights), seen)
        self.server.held, self.server.slow, node = False, True, self.world.node()
        self.to_lead()
        self.ask(node)
        stopping = Deferred.fromCoroutine(node.credentials.settle())
        self.assertNoResult(stopping)
        self.server.users[ADA] = BLOCKED
        self.server.show(self.look())
        self.successResultOf(stopping)
        self.asleep("account-prohibited")

    def test_sign_in_meanwhile(self) -> None:
        """A no says nothing of a pair that a sign-in brought while it was on its way."""
        self.server.slow = True
        self.ask()
        sight = self.look()
        self.server.users[ADA] = BLOCKED
        self.server.look(sight)
        self.server.users[ADA] = FREE
        self.server.slow = False
        self.sign_in()
        self.server.show(sight)
        self.awake()
        self.assertEqual(self.node.slept, [])

    def test_no_admission_is_remembered(self) -> None:
        """A rule that is relaxed lets in at the next sign-in, one that is tightened at the next
        refresh."""
        self.node.credentials.admission = Admission(["bob"])
        self.successResultOf(self.ask())
        self.asleep("not-let-in")
        self.node.credentials.admission = Admission()
        self.asleep("not-let-in")
        self.sign_in()
        self.usable()


class SignInTests(PeopleCase):
    """A sign-in looks, too."""

    def test_stranger(self) -> None:
        """Who may not come in gets nothing, is told as whom they came, and leaves no row."""
        self.node.credentials.admission = Admission(["ada"])
        refusal = self.refused(BOB)
        self.assertEqual((refusal.reason, refusal.login), ("not-let-in", "bob"))
        self.assertIsNone(self.world.row(BOB))
        self.assertEqual(self.world.on_the_way(), [])
        self.assertEqual(self.node.slept, [])

    def test_known(self) -> None:
        """A known account sleeps with the pair, which killed its old one, and wakes with its
        person's next sign-in that is let in."""
        for rule, said, reason in (
            (Admission(["bob"]), FREE, "not-let-in"),
            (Admission(), BLOCKED, "account-prohibited"),
        ):
            with self.subTest(reason):
                self.setUp()
                self.node.credentials.admission = rule
                self.server.users[ADA] = said
                self.assertEqual(self.refused().reason, reason)
                self.asleep(reason)
                self.assertEqual(self.node.slept, [ADA])
                self.assertEqual(self.world.account().version, 2)
                self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})
                self.node.credentials.admission = Admission()
                self.server.users[ADA] = FREE
                self.world.clock.advance(1.0)
                self.sign_in()
                self.awake()
                self.to_lead()
                self.assertEqual(self.usable().version, 4)

    def test_refused_sign_in_wakes_nobody(self) -> None:
        """An account that sleeps sleeps on, however often its person is turned away or Forgejo
        says nothing; its newest pair is kept."""
        self.node.credentials.admission = Admission(["bob"])
        self.successResultOf(self.ask())
        for said in (FREE, Troubled("timeout"), OVER, BLOCKED, FREE):
            self.world.clock.advance(1.0)
            self.server.users[ADA] = said
            self.refused()
            self.assertTrue(self.world.account().dead)
            self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})
        self.asleep("not-let-in")

    def dies(self) -> None:
        """Ada revokes us at Forgejo, and her account dies of it."""
        self.server.revoke(ADA)
        asked = self.ask()
        self.advance(limits.REFRESH_SETTLE + 1)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)

    def test_dead_and_not_known(self) -> None:
        """A dead account stays dead with a pair of a person of whom nothing is known, however
        often and however long; a yes wakes it, by one more sign-in."""
        self.dies()
        refreshes = len([call for call in self.server.calls if call.kind == "refresh"])
        for said in (Troubled("timeout"), OVER, Troubled("status-403")):
            self.server.users[ADA] = said
            self.refused()
            self.asleep_unseen()
            self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})
            self.server.users[ADA] = FREE
            self.world.clock.advance(LIFE)
            self.asleep_unseen()
        self.assertEqual(
            len([call for call in self.server.calls if call.kind == "refresh"]), refreshes
        )
        self.sign_in()
        self.awake()
        self.to_lead()
        self.usable()

    def test_dead_and_turned_away(self) -> None:
        """Whom the rule does not let in any more does not come in by a Forgejo that says nothing;
        when it does, they are turned away."""
        self.dies()
        self.node.credentials.admission = Admission(["bob"])
        self.server.users[ADA] = Troubled("timeout")
        self.assertIs(self.refused(), SIGN_IN_TROUBLED)
        self.asleep_unseen()
        self.server.users[ADA] = FREE
        self.world.clock.advance(1.0)
        self.assertEqual(self.refused().reason, "not-let-in")
        self.asleep("not-let-in")
        self.assertEqual(self.node.slept, [ADA, ADA])

    def asleep_unseen(self) -> None:
        """Ada's account is dead, and whether she may come in is not known."""
        row = self.world.account()
        self.assertEqual((row.dead, row.dead_reason), (True, NOT_LOOKED_AT))
        self.assertIs(self.successResultOf(self.ask()), CREDENTIAL_DEAD)

    def test_dead_and_recovered(self) -> None:
        """Nor does a pair that a crash left wake it, at which nobody looks."""
        self.dies()
        self.node.fuse.hops = self.node.fuse.count + 2
        self.node.fuse.after = True
        self.start_sign_in()
        self.node = self.world.node()
        recovering = Deferred.fromCoroutine(self.node.credentials.recover())
        self.advance(limits.EXCHANGE_CLAIM + 1)
        self.successResultOf(recovering)
        self.assertEqual(self.world.on_the_way(), [])
        self.asleep_unseen()
        self.sign_in(self.node)
        self.usable()

    def test_refresh_under_way(self) -> None:
        """A refresh that was under way when its person was turned away wakes nobody."""
        self.server.held = True
        refreshing = self.ask()
        (call,) = self.server.waiting()
        self.server.act(call)
        self.server.held = False
        self.node.credentials.admission = Admission(["bob"])
        self.refused()
        self.server.deliver(call)
        self.assertIsInstance(self.successResultOf(refreshing), McpRefusal)
        self.asleep("not-let-in")

    def test_recovered(self) -> None:
        """A pair that a crash left wakes nobody who may not come in."""
        self.node.credentials.admission = Admission(["bob"])
        self.successResultOf(self.ask())
        self.node.credentials.admission = Admission()
        self.node.fuse.hops = self.node.fuse.count + 2
        self.node.fuse.after = True
        self.start_sign_in()
        self.assertEqual(len(self.world.on_the_way()), 1)
        node = self.world.node()
        recovering = Deferred.fromCoroutine(node.credentials.recover())
        self.advance(limits.EXCHANGE_CLAIM + 1)
        self.successResultOf(recovering)
        self.assertEqual(self.world.on_the_way(), [])
        self.asleep("not-let-in", node)
        self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})
        self.sign_in(node)
        self.usable(node)

    def test_no_while_signing_in(self) -> None:
        """A sign-in that looked before the account was put to sleep does not wake it."""
        self.server.slow = True
        signing = self.start_sign_in()
        before = self.look()
        self.server.look(before)
        self.world.clock.advance(1.0)
        self.server.slow = False
        self.server.users[ADA] = BLOCKED
        self.refused()
        self.world.clock.advance(1.0)
        self.server.show(before)
        self.assertIs(self.successResultOf(signing), SIGN_IN_REFUSED)
        self.asleep("account-prohibited")

    def test_yes_while_turning_away(self) -> None:
        """A sign-in that looked before the person was let in again puts nobody to sleep."""
        self.server.users[ADA] = BLOCKED
        self.server.slow = True
        turned = self.start_sign_in()
        before = self.look()
        self.server.look(before)
        self.world.clock.advance(1.0)
        self.server.slow = False
        self.server.users[ADA] = FREE
        self.assertIsInstance(self.sign_in(), SignedIn)
        self.world.clock.advance(1.0)
        self.server.show(before)
        self.assertEqual(self.successResultOf(turned), ACCOUNT_PROHIBITED)
        self.awake()
        self.assertEqual(self.node.slept, [])


def _grant(cursor: Cursor) -> None:
    cursor.execute(
        "INSERT INTO grants (grant_id, account_id, client_id, scopes, created_at, used_at)"
        " VALUES ('g', ?, 'c', '', 0, 0)",
        ADA,
    )
