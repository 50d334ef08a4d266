"""
`fjmcp.broker.credentials`: one credential per account, whatever happens.
"""

from __future__ import annotations

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fjmcp import limits
from fjmcp.broker.credentials import Credential, SignedIn
from fjmcp.forge.answers import Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.oauth.tokens import Digest, Kind, digest, mint
from fjmcp.refusals import (
    ACCOUNT_PROHIBITED,
    CREDENTIAL_DEAD,
    CREDENTIAL_TROUBLED,
    SCOPE_TOO_WIDE,
    SIGN_IN_MISCONFIGURED,
    SIGN_IN_MIXED_UP,
    SIGN_IN_REFUSED,
    SIGN_IN_TROUBLED,
    SIGN_IN_UNKNOWN,
    McpRefusal,
    OAuthRefusal,
)
from fjmcp.store.queries import accounts
from fjmcp.store.transactions import StoreDown
from fjmcp.store.vault import Ring
from tests.broker.model import ADA, BOB, Node, World, read

LIFE = 3600.0


@implementer(ILogObserver)
@define(eq=False)
class Remember:
    """Keeps what is logged."""

    events: list[LogEvent]

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)


class Case(SynchronousTestCase):
    """A world with one node, in which Ada has signed in."""

    def setUp(self) -> None:
        self.world = World()
        self.world.clock.advance(1_000_000.0)
        self.server = self.world.server
        self.node = self.world.node()
        self.events: list[LogEvent] = []
        observer = Remember(self.events)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def alarms(self) -> list[LogEvent]:
        """What the log holds at the highest level; a failure of ours is none."""
        worst = [e for e in self.events if e["log_level"] is LogLevel.critical]
        return [e for e in worst if "log_failure" not in e]

    # --- what is done ---------------------------------------------------------------

    def start_sign_in(
        self, node: Node | None = None, account_id: int = ADA, signin: Digest | None = None
    ) -> Deferred[SignedIn | OAuthRefusal]:
        code = self.server.authorize(account_id)
        signin = signin or self.world.sign_in()
        node = node or self.node
        return Deferred.fromCoroutine(node.credentials.exchange(signin, code, "verifier"))

    def sign_in(self, node: Node | None = None, account_id: int = ADA) -> SignedIn:
        person = self.successResultOf(self.start_sign_in(node, account_id))
        assert isinstance(person, SignedIn), person
        return person

    def ask(
        self, node: Node | None = None, account_id: int = ADA
    ) -> Deferred[Credential | McpRefusal]:
        return Deferred.fromCoroutine((node or self.node).credentials.usable(account_id))

    def usable(self, node: Node | None = None, account_id: int = ADA) -> Credential:
        credential = self.successResultOf(self.ask(node, account_id))
        assert isinstance(credential, Credential), credential
        return credential

    def advance(self, seconds: float) -> None:
        """Time passes, in steps short enough for every poll."""
        while seconds > 0:
            self.world.clock.advance(min(seconds, limits.REFRESH_POLL))
            seconds -= limits.REFRESH_POLL

    def to_lead(self) -> None:
        """Time passes until the credential must be refreshed."""
        now = self.world.clock.seconds()
        self.world.clock.advance(self.world.account().expires_at - limits.REFRESH_LEAD - now)


class UsingTests(Case):
    """A credential that needs nothing, or one refresh."""

    def test_fresh(self) -> None:
        """A credential with more than the lead left is given without a call."""
        self.sign_in()
        credential = self.usable()
        self.assertEqual(credential.access.text, self.world.pair().access.text)
        self.assertEqual((credential.account_id, credential.version), (ADA, 1))
        self.assertEqual(len(self.server.calls), 1)

    def test_unknown_account(self) -> None:
        """An account that never signed in must sign in."""
        self.assertIs(self.successResultOf(self.ask()), CREDENTIAL_DEAD)

    def test_refreshed_within_lead(self) -> None:
        """With less than the lead left it is refreshed first, and the new pair is stored."""
        self.sign_in()
        old = self.usable()
        self.to_lead()
        new = self.usable()
        self.assertEqual(new.version, 2)
        self.assertNotEqual(new.access.text, old.access.text)
        self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})
        self.usable()
        self.assertEqual(len(self.server.calls), 2)

    def test_many_at_once(self) -> None:
        """Any number of askers cost one call, and all get the new token."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        asked = [self.ask() for _ in range(50)]
        (call,) = self.server.waiting()
        self.server.deliver(call)
        texts = set()
        for each in asked:
            credential = self.successResultOf(each)
            assert isinstance(credential, Credential)
            texts.add(credential.access.text)
        self.assertEqual(texts, {self.world.pair().access.text})
        self.assertEqual(len(self.server.calls), 2)

    def test_accounts_apart(self) -> None:
        """Each account has its own credential and its own refresh."""
        self.sign_in()
        self.sign_in(account_id=BOB)
        self.to_lead()
        self.server.held = True
        ada, bob = self.ask(), self.ask(account_id=BOB)
        first, second = self.server.waiting()
        self.server.deliver(second)
        self.assertNoResult(ada)
        self.assertIsInstance(self.successResultOf(bob), Credential)
        self.server.deliver(first)
        credential = self.successResultOf(ada)
        assert isinstance(credential, Credential)
        self.assertEqual(read(credential.access.text)["gnt"], 1)

    def test_asker_leaves(self) -> None:
        """Whoever stops waiting stops nothing: the call goes on and its pair is stored."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        asked = [self.ask(), self.ask()]
        for each in asked:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertEqual(self.world.account().version, 2)
        self.assertEqual(self.usable().access.text, self.world.pair().access.text)

    def test_short_lived_tokens(self) -> None:
        """Where tokens live shorter than the lead, not every request refreshes."""
        self.server.life = 60.0
        self.sign_in()
        for _ in range(20):
            self.usable()
        self.assertEqual(len(self.server.calls), 1)
        self.world.clock.advance(31.0)
        for _ in range(20):
            self.usable()
        self.assertEqual(len(self.server.calls), 2)

    def test_patience(self) -> None:
        """A slow Forgejo holds a request up for a while only; then the old token serves."""
        self.sign_in()
        old = self.usable()
        self.to_lead()
        self.server.held = True
        asked = self.ask()
        self.advance(limits.REFRESH_PATIENCE - 1)
        self.assertNoResult(asked)
        self.advance(1.0)
        credential = self.successResultOf(asked)
        assert isinstance(credential, Credential)
        self.assertEqual(credential.access.text, old.access.text)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertEqual(self.usable().version, 2)

    def test_no_patience_without_token(self) -> None:
        """When the old token is over, an asker waits as long as the call may take."""
        self.sign_in()
        self.world.clock.advance(LIFE + 1)
        self.server.held = True
        asked = self.ask()
        self.advance(50.0)
        self.assertNoResult(asked)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertIsInstance(self.successResultOf(asked), Credential)

    def test_key_lost(self) -> None:
        """A credential that does not open is dead, with an alarm, and the person signs in again."""
        self.sign_in()
        self.world.ring = Ring.generate()
        node = self.world.node()
        self.assertIs(self.successResultOf(self.ask(node)), CREDENTIAL_DEAD)
        self.assertTrue(self.world.account().dead)
        self.assertEqual(node.slept, [ADA])
        self.assertEqual(len(self.alarms()), 1)
        self.sign_in(node)
        self.usable(node)

    def test_store_down(self) -> None:
        """A store that is down is the asker's failure, and nothing else happens."""
        self.sign_in()
        self.world.store.fail_all()
        self.failureResultOf(self.ask(), StoreDown)
        self.world.store.fail_all(False)
        self.usable()

    def test_no_secret_said(self) -> None:
        """No token stands in the log, nor in what a value says of itself."""
        self.sign_in()
        self.to_lead()
        credential = self.usable()
        self.server.revoke(ADA)
        self.to_lead()
        self.ask()
        self.advance(10.0)
        said = repr(self.events) + repr(credential) + repr(self.world.account())
        for pair in self.server.given:
            self.assertNotIn(pair.access.text, said)
            self.assertNotIn(pair.refresh.text, said)


class TroubleTests(Case):
    """Forgejo answers badly, late, or not at all."""

    def setUp(self) -> None:
        super().setUp()
        self.sign_in()
        self.old = self.usable()
        self.to_lead()
        self.server.held = True

    def fail(self, outcome: Troubled | Refused) -> None:  # type: ignore[override]
        (call,) = self.server.waiting()
        call.outcome = outcome
        self.server.deliver(call)

    def test_troubled(self) -> None:
        """A troubled refresh ends nothing: the old token serves, no call for a while."""
        asked = [self.ask(), self.ask()]
        self.fail(Troubled("status-502", unsure=True))
        for each in asked:
            credential = self.successResultOf(each)
            assert isinstance(credential, Credential)
            self.assertEqual(credential.access.text, self.old.access.text)
        self.usable()
        self.usable(self.world.node())
        self.assertEqual(self.server.waiting(), [])
        self.advance(limits.REFRESH_RETRY + 1)
        asked = [self.ask()]
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertEqual(self.usable().version, 2)
        self.assertEqual(self.node.slept, [])

    def test_troubled_to_the_end(self) -> None:
        """When the old token has ended too, the answer is 503 with the time to wait."""
        asked = self.ask()
        self.world.clock.advance(limits.FORGE_TOKEN)
        self.successResultOf(asked)
        self.world.clock.advance(limits.REFRESH_LEAD)
        asked = self.ask()
        self.fail(Troubled("unreachable", retry_after=40.0))
        refusal = self.successResultOf(asked)
        self.assertEqual(refusal, evolve(CREDENTIAL_TROUBLED, retry_after=40))
        self.assertEqual(self.successResultOf(self.ask(self.world.node())), refusal)

    def test_retry_after_bounded(self) -> None:
        """Forgejo's Retry-After is heeded, within a bound."""
        asked = self.ask()
        self.fail(Troubled("status-429", retry_after=86400.0))
        self.successResultOf(asked)
        until = self.world.account().retry_after
        self.assertEqual(until, self.world.clock.seconds() + limits.FORGE_RETRY_AFTER)

    def test_misconfigured(self) -> None:
        """A client secret that Forgejo does not take kills no credential, and is an alarm."""
        asked = self.ask()
        self.fail(Troubled("invalid_client"))
        self.assertIsInstance(self.successResultOf(asked), Credential)
        self.assertFalse(self.world.account().dead)
        self.assertIn("client id and secret", self.alarms()[0]["log_format"])

    def test_timeout(self) -> None:
        """A call without an answer is given up after a minute, not before, with an alarm."""
        asked = self.ask()
        self.advance(limits.FORGE_TOKEN - 1)
        self.assertEqual(len(self.server.waiting()), 1)
        self.assertEqual(self.alarms(), [])
        self.advance(1.0)
        self.assertEqual(self.server.waiting(), [])
        self.assertEqual(len(self.alarms()), 1)
        self.successResultOf(asked)
        self.assertFalse(self.world.account().dead)

    def test_reply_lost(self) -> None:
        """A lost reply is a troubled refresh; the next one finds the token burnt, and dead."""
        self.ask()
        (call,) = self.server.waiting()
        self.server.act(call)
        self.server.lose(call)
        self.assertEqual(len(self.alarms()), 1)
        self.assertEqual(self.usable().access.text, self.old.access.text)
        self.server.held = False
        self.advance(limits.REFRESH_RETRY + 1)
        asked = self.ask()
        self.advance(limits.REFRESH_SETTLE + 1)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)

    def test_refused(self) -> None:
        """A refusal, once nobody can have a newer pair, is the end: told once, no more calls."""
        asked = [self.ask(), self.ask()]
        self.fail(Refused("unauthorized_client", "token was already used"))
        self.assertFalse(self.world.account().dead)
        self.advance(limits.REFRESH_SETTLE + 1)
        for each in asked:
            self.assertIs(self.successResultOf(each), CREDENTIAL_DEAD)
        self.assertEqual(self.node.slept, [ADA])
        self.assertTrue(self.world.account().dead)
        for _ in range(10):
            self.assertIs(self.successResultOf(self.ask()), CREDENTIAL_DEAD)
        self.assertEqual(self.server.waiting(), [])

    def test_revoked(self) -> None:
        """A grant that the person revoked at Forgejo is found dead at the next refresh."""
        self.server.revoke(ADA)
        self.server.held = False
        asked = self.ask()
        self.advance(limits.REFRESH_SETTLE + 1)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)

    def test_revived(self) -> None:
        """A sign-in, through any client, revives a dead account."""
        self.test_revoked()
        self.sign_in()
        row = self.world.account()
        self.assertFalse(row.dead)
        self.assertEqual(row.version, 2)
        self.assertEqual(self.usable().version, 2)

    def test_revived_with_lower_counter(self) -> None:
        """Even when Forgejo's counter went back, as a restored backup makes it."""
        self.server.held = False
        self.server.grants[0].count = 10
        self.sign_in()
        self.server.grants[0].count = 3
        self.to_lead()
        asked = self.ask()
        self.advance(limits.REFRESH_SETTLE + 1)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)
        self.sign_in()
        self.assertEqual(self.world.account().forge_count, 4)
        self.to_lead()
        self.usable()

    def test_suspend_fails(self) -> None:
        """An account whose children cannot be ended is dead all the same, and it is logged."""

        async def broken(account_id: int) -> None:
            raise ZeroDivisionError

        self.node.credentials._suspend = broken
        self.test_revoked()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unexpected(self) -> None:
        """A bug of ours in a refresh reaches every asker, and the claim lapses."""
        asked = [self.ask(), self.ask()]
        (call,) = self.server.waiting()
        call.answer.errback(ZeroDivisionError())
        for each in asked:
            self.failureResultOf(each, ZeroDivisionError)
        self.server.held = False
        asked = [self.ask()]
        self.advance(limits.REFRESH_CLAIM + 1)
        self.successResultOf(asked[0])
        self.assertEqual(self.usable().version, 2)

    def test_store_down_at_commit(self) -> None:
        """A pair that the store does not take is kept, and stored when it does."""
        asked = self.ask()
        self.world.store.fail_all()
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.advance(3 * limits.PAIR_RETRY)
        self.assertNoResult(asked)
        self.world.store.fail_all(False)
        self.advance(limits.PAIR_RETRY)
        credential = self.successResultOf(asked)
        assert isinstance(credential, Credential)
        self.assertEqual(credential.version, 2)
        self.assertEqual(self.world.stored(), {self.server.given[-1].refresh.text})

    def test_store_down_for_good(self) -> None:
        """After a while it is given up, with an alarm that says what it costs."""
        asked = self.ask()
        self.world.store.fail_all()
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.world.clock.pump([limits.PAIR_RETRY] * int(limits.PAIR_KEEP / limits.PAIR_RETRY + 2))
        self.assertEqual(len(self.alarms()), 1)
        # The asker had its old token after `limits.REFRESH_PATIENCE`; its row cannot be read now.
        self.successResultOf(asked)
        self.assertEqual(len(self.flushLoggedErrors(StoreDown)), 1)


class NodesTests(Case):
    """Two processes on one store."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.world.node()
        self.sign_in()
        self.to_lead()
        self.server.held = True

    def test_one_call(self) -> None:
        """Of two nodes that want to refresh one does, and both have the new token."""
        asked = [self.ask(), self.ask(self.other), self.ask(), self.ask(self.other)]
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.advance(limits.REFRESH_POLL)
        for each in asked:
            credential = self.successResultOf(each)
            assert isinstance(credential, Credential)
            self.assertEqual(credential.version, 2)

    def test_trouble_is_shared(self) -> None:
        """A refresh that was troubled on one node is not tried again at once by the other."""
        asked = [self.ask(), self.ask(self.other)]
        (call,) = self.server.waiting()
        call.outcome = Troubled("status-503")
        self.server.deliver(call)
        self.advance(limits.REFRESH_POLL)
        for each in asked:
            self.assertIsInstance(self.successResultOf(each), Credential)
        self.assertEqual(self.server.waiting(), [])

    def test_death_is_shared(self) -> None:
        """A credential that one node finds dead is dead for the other."""
        asked = self.ask(self.other)
        (call,) = self.server.waiting()
        self.server.revoke(ADA)
        self.server.deliver(call)
        self.advance(limits.REFRESH_SETTLE + 1)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)
        self.assertIs(self.successResultOf(self.ask()), CREDENTIAL_DEAD)

    def test_claim_lapses(self) -> None:
        """A node that died before Forgejo acted leaves a claim that lapses; the other goes on."""
        self.ask(self.other)
        self.other.crash()
        self.world.clock.advance(limits.REFRESH_LEAD)
        asked = self.ask()
        self.server.held = False
        self.advance(limits.REFRESH_CLAIM + 1)
        self.assertIsInstance(self.successResultOf(asked), McpRefusal | Credential)
        self.assertEqual(self.usable().version, 2)

    def test_slow_commit(self) -> None:
        """A node whose pair reached the store late: the other, refused meanwhile, waits for it."""
        self.ask(self.other)
        (call,) = self.server.waiting()
        self.world.clock.advance(limits.FORGE_TOKEN - 1)
        self.other.fuse.blown = True  # it stands still
        self.server.act(call)
        self.world.clock.advance(limits.REFRESH_CLAIM)
        asked = self.ask()
        (mine,) = [each for each in self.server.waiting() if each is not call]
        self.server.deliver(mine)
        outcome = call.outcome
        self.other.fuse.blown = False
        late = outcome.pair  # type: ignore[union-attr]
        sealed = self.node.credentials._pairs.seal(ADA, late)
        self.world.ask(accounts.keep, ADA, 1, self.other.name, sealed)
        self.advance(limits.REFRESH_POLL)
        self.assertIsInstance(self.successResultOf(asked), Credential | McpRefusal)
        self.assertFalse(self.world.account().dead)
        self.assertEqual(self.world.account().version, 2)


class SignInTests(Case):
    """From Forgejo's code to the account's row."""

    def refused(self) -> OAuthRefusal:
        refusal = self.successResultOf(self.start_sign_in())
        assert isinstance(refusal, OAuthRefusal), refusal
        return refusal

    def test_signed_in(self) -> None:
        """A person who comes back has an account with a pair, and nothing is left on the way."""
        self.assertEqual(self.sign_in(), SignedIn(ADA, "ada"))
        row = self.world.account()
        self.assertEqual(
            (row.login, row.version, row.forge_grant, row.forge_count), ("ada", 1, 1, 1)
        )
        self.assertEqual(row.expires_at, self.world.clock.seconds() + LIFE)
        self.assertEqual(self.world.on_the_way(), [])

    def test_renamed(self) -> None:
        """The account is the number; the name follows Forgejo."""
        self.sign_in()
        self.server.users[ADA] = User(ADA, "countess")
        self.assertEqual(self.sign_in(), SignedIn(ADA, "countess"))
        self.assertEqual(self.world.account().login, "countess")

    def test_sealed_first(self) -> None:
        """The pair stands sealed in the sign-in's row before Forgejo is asked whose it is."""
        seen: list[set[str]] = []
        introspect = self.server.introspect

        def look(token: object) -> object:
            seen.append(self.world.stored())
            return introspect(token)  # type: ignore[arg-type]

        self.server.introspect = look  # type: ignore[method-assign,assignment]
        self.sign_in()
        self.assertEqual(seen, [{self.server.given[0].refresh.text}])

    def test_code_refused(self) -> None:
        """A code that Forgejo refuses signs nobody in."""
        exchange = self.node.credentials.exchange(self.world.sign_in(), "gta_forged", "verifier")
        self.assertIs(self.successResultOf(Deferred.fromCoroutine(exchange)), SIGN_IN_REFUSED)
        self.assertIsNone(self.world.row())

    def test_once(self) -> None:
        """A sign-in goes to Forgejo once, however often its callback is loaded."""
        signin = self.world.sign_in()
        self.server.held = True
        first, second = self.start_sign_in(signin=signin), self.start_sign_in(signin=signin)
        self.assertIs(self.successResultOf(second), SIGN_IN_UNKNOWN)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertIsInstance(self.successResultOf(first), SignedIn)
        self.assertIs(self.successResultOf(self.start_sign_in(signin=signin)), SIGN_IN_UNKNOWN)

    def test_unknown_sign_in(self) -> None:
        """A sign-in that is not there is not exchanged."""
        signin = digest(mint(Kind.OTHER))
        asked = self.start_sign_in(signin=signin)
        self.assertIs(self.successResultOf(asked), SIGN_IN_UNKNOWN)
        self.assertEqual(self.server.calls, [])

    def test_browser_leaves(self) -> None:
        """A browser that leaves during the exchange loses nothing."""
        self.server.held = True
        asked = self.start_sign_in()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertEqual(self.world.account().version, 1)

    def test_row_gone(self) -> None:
        """A pair whose sign-in is gone when it comes still reaches its account."""
        self.server.held = True
        asked = self.start_sign_in()
        self.world.ask(lambda cursor: cursor.execute("DELETE FROM signins"))
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.assertIsInstance(self.successResultOf(asked), SignedIn)
        self.assertEqual(self.world.account().version, 1)

    def test_row_does_not_expire(self) -> None:
        """A sign-in in whose last second the person came back stays until its pair is there."""
        signin = self.world.sign_in()
        self.world.clock.advance(limits.SIGN_IN - 1)
        self.server.held = True
        self.start_sign_in(signin=signin)
        (expires_at,) = self.world.ask(lambda cursor: cursor.one("SELECT expires_at FROM signins"))
        self.assertEqual(expires_at, self.world.clock.seconds() + limits.EXCHANGE_CLAIM)

    def test_troubled(self) -> None:
        """Trouble at the exchange asks the person to come again; an alarm says what may be lost."""
        self.server.held = True
        asked = self.start_sign_in()
        (call,) = self.server.waiting()
        self.server.lose(call)
        self.assertIs(self.successResultOf(asked), SIGN_IN_TROUBLED)
        self.assertEqual(len(self.alarms()), 1)

    def test_misconfigured(self) -> None:
        """A wrong client secret is told as the operator's to mend."""
        self.server.held = True
        asked = self.start_sign_in()
        (call,) = self.server.waiting()
        call.outcome = Troubled("invalid_client")
        self.server.deliver(call)
        self.assertIs(self.successResultOf(asked), SIGN_IN_MISCONFIGURED)

    def test_everything_granted(self) -> None:
        """A token that opens everything, where that was not configured, is thrown away."""
        for scope in ("", "all", "openid profile", "read:user,write:repository", "reed:user"):
            with self.subTest(scope):
                self.server.scope = scope
                self.server.revoke(ADA)
                self.assertIs(self.refused(), SCOPE_TOO_WIDE)
                self.assertIsNone(self.world.row())
                self.assertEqual(self.world.on_the_way(), [])

    def test_narrower(self) -> None:
        """A grant older than the setting is taken, and what it lacks is told."""
        self.server.scope = "read:user read:repository read:issue"
        person = self.sign_in()
        self.assertEqual(person.missing, {"write:repository"})
        self.assertEqual(person.extra, {"read:issue"})

    def test_prohibited(self) -> None:
        """A blocked account is refused; the exchange and introspection went well all the same."""
        self.server.users[ADA] = Refused("prohibited", "This account is prohibited")
        self.assertIs(self.refused(), ACCOUNT_PROHIBITED)
        self.assertIsNone(self.world.row())
        self.assertEqual(self.world.on_the_way(), [])

    def test_no_read_user(self) -> None:
        """Without the right to ask who it is, introspection's name does."""
        self.server.users[ADA] = Refused("insufficient_scope", "required scope(s): [read:user]")
        self.assertEqual(self.sign_in(), SignedIn(ADA, "ada"))

    def test_revoked_at_once(self) -> None:
        """A token that the API does not take signs nobody in."""
        self.server.users[ADA] = Refused("invalid_token", "")
        self.assertIs(self.refused(), SIGN_IN_REFUSED)

    def test_api_troubled(self) -> None:
        """Where the API does not answer nobody signs in; a known account keeps the pair."""
        self.sign_in()
        self.server.users[ADA] = Troubled("timeout")
        self.assertIs(self.refused(), SIGN_IN_TROUBLED)
        self.assertEqual(self.world.account().version, 2)

    def test_other_audience(self) -> None:
        """A token for another application is thrown away, with an alarm."""
        self.server.audience = "somebody-else"
        self.assertIs(self.refused(), SIGN_IN_MIXED_UP)
        self.assertEqual(len(self.alarms()), 1)
        self.assertIsNone(self.world.row())

    def test_two_people(self) -> None:
        """Introspection and API that name two people sign in neither."""
        self.server.users[ADA] = User(BOB, "bob")
        self.assertIs(self.refused(), SIGN_IN_MIXED_UP)
        self.assertIsNone(self.world.row(ADA))
        self.assertIsNone(self.world.row(BOB))

    def test_introspection_troubled(self) -> None:
        """A pair of which Forgejo will not tell whose it is waits in its row, and is not lost."""
        self.sign_in()
        self.server.dark = True
        self.assertIs(self.refused(), SIGN_IN_TROUBLED)
        self.assertEqual(len(self.world.on_the_way()), 1)
        self.server.dark = False
        self.to_lead()
        asked = self.ask()  # its refresh token was killed by the pair that waits
        self.advance(limits.REFRESH_SETTLE + 1)
        self.assertIsInstance(self.successResultOf(asked), Credential)
        self.assertFalse(self.world.account().dead)
        self.assertEqual(self.world.on_the_way(), [])


class RaceTests(Case):
    """Two clients of one person, whose sign-ins and refreshes meet."""

    def test_second_sign_in(self) -> None:
        """A second client's sign-in replaces the pair, and the first works on with it."""
        self.sign_in()
        first = self.usable()
        self.sign_in()
        self.assertEqual(self.usable().version, first.version + 1)
        for _ in range(10):
            self.to_lead()
            self.usable()
        self.assertEqual(self.world.account().version, 12)

    def test_sign_in_wins(self) -> None:
        """A refresh refused because of a sign-in under way waits for it and uses its pair."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        signing, asked = self.start_sign_in(), self.ask()
        exchange, refresh = self.server.waiting()
        self.server.act(exchange)
        self.server.deliver(refresh)
        self.advance(limits.REFRESH_SETTLE + 30)
        self.assertFalse(self.world.account().dead)
        self.server.deliver(exchange)
        self.assertIsInstance(self.successResultOf(signing), SignedIn)
        self.advance(limits.REFRESH_POLL)
        self.successResultOf(asked)
        self.assertEqual(self.usable().version, 2)
        self.assertEqual(self.node.slept, [])

    def test_sign_in_on_another_node(self) -> None:
        """Likewise when another node has the sign-in."""
        other = self.world.node()
        self.sign_in()
        self.to_lead()
        self.server.held = True
        self.start_sign_in(other)
        asked = self.ask()
        exchange, refresh = self.server.waiting()
        self.server.act(exchange)
        self.server.deliver(refresh)
        self.advance(limits.FORGE_TOKEN - 5)
        self.server.deliver(exchange)
        self.advance(limits.REFRESH_POLL)
        self.successResultOf(asked)
        self.assertFalse(self.world.account().dead)
        self.assertEqual(self.usable().version, 2)

    def test_claim_is_held(self) -> None:
        """While a refused refresh waits for a sign-in, no other node spends the token again."""
        self.sign_in()
        self.world.clock.advance(LIFE + 1)
        self.server.held = True
        self.ask()
        self.advance(45.0)
        self.start_sign_in()
        refresh, exchange = self.server.waiting()
        self.server.act(exchange)
        self.server.deliver(refresh)
        self.advance(20.0)
        other = self.ask(self.world.node())
        self.advance(35.0)
        self.assertEqual(self.server.waiting(), [exchange])
        self.server.deliver(exchange)
        self.advance(limits.REFRESH_POLL)
        self.assertIsInstance(self.successResultOf(other), Credential)

    def test_sign_ins_of_others(self) -> None:
        """Sign-ins that began after the refusal put its judgement off no further."""
        self.sign_in()
        self.server.revoke(ADA)
        self.to_lead()
        asked = self.ask()
        self.server.held = True
        for _ in range(int(limits.REFRESH_SETTLE) + 1):
            self.advance(1.0)
            self.start_sign_in(account_id=BOB)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)

    def test_pair_between_look_and_burial(self) -> None:
        """A pair that comes between the last look and the burial keeps the account alive."""
        self.sign_in()
        self.server.revoke(ADA)
        self.to_lead()
        asked = self.ask()
        self.advance(limits.REFRESH_SETTLE - limits.REFRESH_POLL)
        self.server.held = self.server.dark = True
        again = self.start_sign_in()
        self.world.store.hold()
        self.world.clock.advance(limits.REFRESH_POLL)  # it looks; the pair is not there yet
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.world.store.release(3)  # the look, the pair, the burial
        self.world.store.release()
        self.assertIs(self.successResultOf(again), SIGN_IN_TROUBLED)
        self.assertFalse(self.world.account().dead)
        self.server.held = self.server.dark = False
        self.advance(2 * limits.REFRESH_POLL)
        self.assertIsInstance(self.successResultOf(asked), Credential)

    def test_late_refresh(self) -> None:
        """A refresh whose reply comes after a newer sign-in does not overwrite it."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        asked, signing = self.ask(), self.start_sign_in()
        refresh, exchange = self.server.waiting()
        self.server.act(refresh)
        self.server.deliver(exchange)
        self.successResultOf(signing)
        self.world.clock.advance(5.0)
        seen = len(self.server.sights)
        self.server.deliver(refresh)
        self.assertEqual(len(self.server.sights), seen, "a pair that was not kept is not used")
        credential = self.successResultOf(asked)
        assert isinstance(credential, Credential)
        self.assertEqual(self.world.account().forge_count, 3)
        self.assertEqual(credential.access.text, self.world.pair().access.text)
        self.server.held = False
        self.to_lead()
        self.assertEqual(self.usable().version, 3)

    def test_late_sign_in(self) -> None:
        """A sign-in whose reply comes after a newer refresh does not overwrite it."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        signing, asked = self.start_sign_in(), self.ask()
        exchange, refresh = self.server.waiting()
        self.server.act(exchange)
        # The refresh that Forgejo takes after the exchange spends the exchange's token:
        # another node had it already.
        self.server.grants[0].count = 1
        self.server.act(refresh)
        self.server.grants[0].count = 3
        refresh.outcome = self.server._pair(self.server.grants[0])
        self.server.deliver(refresh)
        self.successResultOf(asked)
        self.server.deliver(exchange)
        self.assertIsInstance(self.successResultOf(signing), SignedIn)
        self.assertEqual(self.world.account().forge_count, 3)

    def test_two_sign_ins_cross(self) -> None:
        """Of two sign-ins whose replies cross, the higher counter stays."""
        self.server.held = True
        one, two = self.start_sign_in(), self.start_sign_in()
        first, second = self.server.waiting()
        self.server.act(first)
        self.server.deliver(second)
        self.server.deliver(first)
        self.assertIsInstance(self.successResultOf(one), SignedIn)
        self.assertIsInstance(self.successResultOf(two), SignedIn)
        self.assertEqual(self.world.account().forge_count, 2)
        self.server.held = False
        self.to_lead()
        self.usable()

    def test_new_grant(self) -> None:
        """After a revocation and a new sign-in, a late reply of the old grant changes nothing."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        asked = self.ask()
        (refresh,) = self.server.waiting()
        self.server.act(refresh)
        self.server.revoke(ADA)
        self.server.held = False
        self.sign_in()
        self.server.deliver(refresh)
        self.successResultOf(asked)
        self.assertEqual(self.world.account().forge_grant, 2)
        self.to_lead()
        self.assertEqual(self.usable().version, 3)

    def test_unreadable(self) -> None:
        """Where the tokens cannot be read, the later reply stays."""
        self.server.readable = False
        self.sign_in()
        self.assertIsNone(self.world.account().forge_grant)
        self.world.clock.advance(60.0)
        self.sign_in()
        self.assertEqual(self.world.account().version, 2)
        self.to_lead()
        self.server.held = True
        asked, signing = self.ask(), self.start_sign_in()
        refresh, exchange = self.server.waiting()
        self.server.deliver(refresh)
        self.world.clock.advance(1.0)
        self.server.deliver(exchange)
        self.successResultOf(asked)
        self.successResultOf(signing)
        self.server.held = False
        self.to_lead()
        self.assertEqual(self.usable().version, 5)

    def test_without_counters(self) -> None:
        """A Forgejo that does not invalidate refresh tokens is served just so."""
        self.server.counting = False
        self.sign_in()
        self.sign_in()
        self.to_lead()
        self.assertEqual(self.usable().version, 3)
        self.assertIsNone(self.world.account().forge_count)


class CrashTests(Case):
    """A process ends at the worst moment; another starts."""

    def hops(self, act: str) -> int:
        """How many transactions the act takes."""
        self.setUp()
        self.prepare(act)
        before = self.node.fuse.count
        self.perform(act)
        return self.node.fuse.count - before

    def prepare(self, act: str) -> None:
        self.sign_in()
        self.to_lead()

    def perform(self, act: str) -> None:
        if act == "refresh":
            self.ask()
        else:
            self.start_sign_in()

    def test_every_hop(self) -> None:
        """
        Wherever a process ends, the next one has the newest pair, if it reached a row; and one
        that did not costs a sign-in, not a loop.
        """
        for act in ("refresh", "exchange"):
            for hop in range(1, self.hops(act) + 1):
                for after in (False, True):
                    with self.subTest(act=act, hop=hop, after=after):
                        self.setUp()
                        self.prepare(act)
                        self.node.fuse.hops = self.node.fuse.count + hop
                        self.node.fuse.after = after
                        self.perform(act)
                        self.assertTrue(self.node.fuse.blown)
                        self.survive()

    def survive(self) -> None:
        newest = self.server.given[-1].refresh.text
        kept = newest in self.world.stored()
        node = self.world.node()
        recovered = Deferred.fromCoroutine(node.credentials.recover())
        calls = len(self.server.calls)
        self.advance(limits.EXCHANGE_CLAIM + 1)
        self.successResultOf(recovered)
        self.assertEqual(self.world.on_the_way(), [])
        self.world.clock.advance(limits.REFRESH_LEAD)
        asked = self.ask(node)
        self.advance(limits.REFRESH_CLAIM + limits.REFRESH_SETTLE)
        answer = self.successResultOf(asked)
        if kept:
            self.assertIsInstance(answer, Credential)
        else:
            self.assertIs(answer, CREDENTIAL_DEAD)
            self.sign_in(node)
        self.usable(node)
        self.assertLessEqual(len(self.server.calls), calls + 2)

    def crash_with_pair_on_the_way(self) -> None:
        """Its node ends just after the pair was sealed into the sign-in's row."""
        self.node.fuse.hops = self.node.fuse.count + 2
        self.node.fuse.after = True
        self.start_sign_in()
        self.assertEqual(len(self.world.on_the_way()), 1)

    def test_recovered_for_a_refusal(self) -> None:
        """A pair that a crash left is looked for before an account is given up."""
        self.sign_in()
        self.to_lead()
        self.crash_with_pair_on_the_way()
        node = self.world.node()
        self.world.clock.advance(limits.REFRESH_LEAD)
        asked = self.ask(node)
        self.advance(limits.EXCHANGE_CLAIM + limits.REFRESH_CLAIM)
        self.successResultOf(asked)
        self.assertEqual(node.slept, [])
        self.assertEqual(self.usable(node).version, 2)

    def test_recovered_after_long(self) -> None:
        """Also when its access token has long ended: the refresh token has not."""
        self.sign_in()
        self.crash_with_pair_on_the_way()
        self.world.clock.advance(24 * LIFE)
        node = self.world.node()
        self.successResultOf(Deferred.fromCoroutine(node.credentials.recover()))
        self.assertEqual(self.world.account().version, 2)
        self.assertEqual(self.usable(node).version, 3)

    def alone(self) -> Node:
        """Another process, which has the store alone."""
        node = self.world.node()
        self.successResultOf(Deferred.fromCoroutine(node.credentials.recover(alone=True)))
        return node

    def test_recovered_alone(self) -> None:
        """A process that has the store alone finishes such a pair at once."""
        self.sign_in()
        self.crash_with_pair_on_the_way()
        self.alone()
        self.assertEqual(self.world.on_the_way(), [])
        self.assertEqual(self.world.account().version, 2)

    def test_recovered_alone_while_nothing_can_be_written(self) -> None:
        """Where the store takes no write at the start, it waits as for another process."""
        self.sign_in()
        self.crash_with_pair_on_the_way()
        node = self.world.node()
        self.world.store.lanes[0].down = True
        recovering = Deferred.fromCoroutine(node.credentials.recover(alone=True))
        self.world.store.lanes[0].down = False
        self.advance(limits.EXCHANGE_CLAIM - 1)
        self.assertNoResult(recovering)
        self.advance(2.0)
        self.successResultOf(recovering)
        self.assertEqual(self.world.account().version, 2)

    def test_claims_of_the_dead(self) -> None:
        """It does not wait for a refresh that a crash cut short."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        self.ask()
        self.node.crash()
        self.server.held = False
        self.assertEqual(self.usable(self.alone()).version, 2)

    def test_exchange_of_the_dead(self) -> None:
        """Nor for a sign-in whose pair is lost: one more is asked for, and soon."""
        self.sign_in()
        self.to_lead()
        self.server.held = True
        self.start_sign_in()
        (call,) = self.server.waiting()
        self.server.act(call)
        self.node.crash()
        self.server.held = False
        asked = self.ask(self.alone())
        self.advance(limits.REFRESH_SETTLE + limits.REFRESH_POLL)
        self.assertIs(self.successResultOf(asked), CREDENTIAL_DEAD)

    def test_unfinished_stranger(self) -> None:
        """A pair of somebody who never finished signing in makes no account."""
        self.crash_with_pair_on_the_way()
        self.world.clock.advance(limits.EXCHANGE_CLAIM)
        node = self.world.node()
        self.successResultOf(Deferred.fromCoroutine(node.credentials.recover()))
        self.assertIsNone(self.world.row())
        self.assertEqual(self.world.on_the_way(), [])

    def test_recover_in_the_dark(self) -> None:
        """While Forgejo does not tell whose a pair is, it stays, and no account is given up."""
        self.sign_in()
        self.to_lead()
        self.crash_with_pair_on_the_way()
        self.world.clock.advance(limits.REFRESH_LEAD + limits.EXCHANGE_CLAIM)
        self.server.dark = True
        node = self.world.node()
        self.successResultOf(Deferred.fromCoroutine(node.credentials.recover()))
        self.assertEqual(len(self.world.on_the_way()), 1)
        refusal = self.successResultOf(self.ask(node))
        assert isinstance(refusal, McpRefusal)
        self.assertEqual(refusal.reason, CREDENTIAL_TROUBLED.reason)
        self.server.dark = False
        self.advance(limits.REFRESH_RETRY + 1)
        asked = self.ask(node)
        self.advance(limits.REFRESH_SETTLE)
        self.assertIsInstance(self.successResultOf(asked), Credential)

    def test_recovered_once(self) -> None:
        """Two nodes that start together finish each pair once."""
        self.sign_in()
        self.crash_with_pair_on_the_way()
        nodes = [self.world.node(), self.world.node()]
        recovering = [Deferred.fromCoroutine(n.credentials.recover()) for n in nodes]
        self.advance(limits.EXCHANGE_CLAIM + 2)
        for each in recovering:
            self.successResultOf(each)
        self.assertEqual(self.world.account().version, 2)

    def test_key_lost(self) -> None:
        """A pair on its way that does not open is thrown away, with an alarm."""
        self.crash_with_pair_on_the_way()
        self.world.clock.advance(limits.EXCHANGE_CLAIM)
        self.world.ring = Ring.generate()
        node = self.world.node()
        self.successResultOf(Deferred.fromCoroutine(node.credentials.recover()))
        self.assertEqual(self.world.on_the_way(), [])
        self.assertEqual(len(self.alarms()), 1)


class StopTests(Case):
    """The daemon stops."""

    def setUp(self) -> None:
        super().setUp()
        self.sign_in()
        self.to_lead()
        self.server.held = True

    def settle(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.node.credentials.settle())

    def test_idle(self) -> None:
        """With nothing in flight a stop waits for nothing."""
        self.successResultOf(self.settle())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_call_in_flight(self) -> None:
        """A stop waits for the call in flight and for its commit."""
        self.ask()
        stopping = self.settle()
        self.advance(30.0)
        self.assertNoResult(stopping)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.successResultOf(stopping)
        self.assertEqual(self.world.account().version, 2)

    def test_sign_in_in_flight(self) -> None:
        """Likewise for a sign-in."""
        self.start_sign_in()
        stopping = self.settle()
        self.assertNoResult(stopping)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        self.successResultOf(stopping)
        self.assertEqual(self.world.account().version, 2)

    def test_none_begins(self) -> None:
        """No refresh begins in a stop; the old token serves."""
        self.successResultOf(self.settle())
        self.assertEqual(self.usable().version, 1)
        self.assertEqual(self.server.waiting(), [])

    def test_waiters_end(self) -> None:
        """Who only waits for another node, or to judge a refusal, holds no stop up."""
        self.ask(self.world.node())
        asked = self.ask()
        stopping = self.settle()
        self.advance(limits.REFRESH_POLL)
        self.successResultOf(stopping)
        self.successResultOf(asked)

    def test_judging_ends(self) -> None:
        """A refusal that is being judged at a stop is judged another time."""
        asked = self.ask()
        self.server.revoke(ADA)
        (call,) = self.server.waiting()
        self.server.deliver(call)
        stopping = self.settle()
        self.advance(limits.REFRESH_POLL)
        self.successResultOf(stopping)
        self.assertIsInstance(self.successResultOf(asked), Credential)
        self.assertFalse(self.world.account().dead)

    def test_bounded(self) -> None:
        """A stop ends after its time even so, with an alarm."""
        self.ask()
        self.world.store.fail_all()
        (call,) = self.server.waiting()
        self.server.deliver(call)
        stopping = self.settle()
        self.advance(limits.CREDENTIALS_SETTLE)
        self.successResultOf(stopping)
        self.assertEqual(len(self.alarms()), 1)
        self.world.store.fail_all(False)
        self.advance(limits.PAIR_RETRY)
