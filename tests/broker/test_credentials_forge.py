"""
`fjmcp.broker.credentials` over HTTP, against the stand-in Forgejo: its own
counters, its own refusals, its own troubles.
"""

from __future__ import annotations

from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.credentials import Credential, Credentials, SignedIn
from fjmcp.demo.forge.accounts import Organization, Person, Team
from fjmcp.demo.forge.standin import CLIENT_ID, CLIENT_SECRET, StandIn
from fjmcp.forge.admission import Admission
from fjmcp.forge.client import Forge, http_over
from fjmcp.forge.scopes import DEFAULT
from fjmcp.refusals import (
    ACCOUNT_PROHIBITED,
    CREDENTIAL_DEAD,
    NOT_LET_IN,
    SCOPE_TOO_WIDE,
    SIGN_IN_MISCONFIGURED,
    SIGN_IN_TROUBLED,
    McpRefusal,
    OAuthRefusal,
    asleep,
)
from fjmcp.store.queries.accounts import Account
from tests.broker.model import World
from tests.demo.standing import CALLBACK, CHALLENGE, TOKEN, URL, VERIFIER

REFRESH = f"POST {TOKEN}"
USER = "/api/v1/user"
LOOKS = (
    USER,
    "/api/v1/orgs/zoo/members/alice",
    "/api/v1/orgs/allotment/teams/search",
    "/api/v1/teams/2/members/alice",
)
"""What a look asks about Alice, by the rule that names the zoo and the keepers."""


class StandInTests(SynchronousTestCase):
    """One stand-in, one store, as many nodes as a test wants."""

    def setUp(self) -> None:
        self.world = World()
        self.clock: Clock = self.world.clock
        self.clock.advance(1_800_000_000.0)
        self.forge = StandIn(self.clock, URL, redirect_uris=(CALLBACK,))
        self.agent = RequestTraversalAgent(self.forge.resource)
        self.slept: list[int] = []
        self.node = self.start_node()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)  # type: ignore[arg-type]

    def tearDown(self) -> None:
        """Whatever happened, no token stands in the log."""
        said = repr(self.events)
        self.assertNotIn("eyJ", said)
        self.assertNotIn(CLIENT_SECRET, said)

    def start_node(self, secret: str = CLIENT_SECRET, name: str = "node") -> Credentials:
        forge = Forge(http_over(self.agent), URL, CLIENT_ID, secret, CALLBACK, DEFAULT, self.clock)
        return Credentials(
            self.world.store,
            self.world.ring,
            forge,
            self.clock,
            name,
            suspend=self.suspend,
        )

    async def suspend(self, account_id: int) -> None:
        self.slept.append(account_id)

    def person(self, login: str) -> Person:
        person = self.forge.instance.person(login)
        assert person is not None
        return person

    def code(self, login: str, scope: str = DEFAULT) -> str:
        """What the browser brings back."""
        person, application = self.person(login), self.forge.application
        grant = self.forge.grants.of(person.id, application)
        grant = grant or self.forge.grants.allow(person.id, application, scope)
        return self.forge.grants.code(grant, CALLBACK, CHALLENGE, "S256").text

    def start_sign_in(
        self, login: str = "alice", node: Credentials | None = None, scope: str = DEFAULT
    ) -> Deferred[SignedIn | OAuthRefusal]:
        exchange = (node or self.node).exchange(
            self.world.sign_in(), self.code(login, scope), VERIFIER
        )
        return Deferred.fromCoroutine(exchange)

    def start(self, node: Credentials | None = None) -> Deferred[Credential | McpRefusal]:
        return Deferred.fromCoroutine((node or self.node).usable(self.person("alice").id))

    def result(self, waiting: Deferred[Any], seconds: float = 0.0) -> Any:
        """What comes within so many seconds."""
        self.pass_by(seconds)
        return self.successResultOf(waiting)

    def pass_by(self, seconds: float) -> None:
        self.agent.flush()
        for _ in range(int(seconds / limits.REFRESH_POLL)):
            self.clock.advance(limits.REFRESH_POLL)
            self.agent.flush()

    def sign_in(self, login: str = "alice", node: Credentials | None = None) -> SignedIn:
        person = self.result(self.start_sign_in(login, node))
        assert isinstance(person, SignedIn), person
        return person

    def usable(self, node: Credentials | None = None) -> Credential:
        credential = self.result(self.start(node))
        assert isinstance(credential, Credential), credential
        return credential

    def account(self) -> Account:
        return self.world.account(self.person("alice").id)

    def to_lead(self) -> None:
        left = self.account().expires_at - limits.REFRESH_LEAD - self.clock.seconds()
        self.clock.advance(left)

    def calls(self) -> int:
        return self.forge.calls(REFRESH)

    # --- the straight way ---------------------------------------------------------------

    def test_sign_in(self) -> None:
        """A person signs in: the row has Forgejo's own number, grant and counter."""
        person = self.sign_in()
        self.assertEqual(person, SignedIn(self.person("alice").id, "alice"))
        row = self.account()
        (grant,) = self.forge.grants.live.values()
        self.assertEqual((row.forge_grant, row.forge_count), (grant.id, grant.counter))
        self.assertEqual(row.expires_at, self.clock.seconds() + 3600)

    def test_many_at_once(self) -> None:
        """Any number of requests within the lead make one call."""
        self.sign_in()
        self.to_lead()
        self.forge.troubles.set("slow", TOKEN, seconds=3.0)
        waiting = [self.start() for _ in range(20)]
        self.pass_by(4.0)
        for each in waiting:
            self.assertEqual(self.result(each).version, 2)
        self.assertEqual(self.calls(), 2)

    def test_two_nodes(self) -> None:
        """Two nodes make one call between them."""
        self.sign_in()
        self.to_lead()
        other = self.start_node(name="other")
        self.forge.troubles.set("slow", TOKEN, seconds=3.0)
        waiting = [self.start(), self.start(other)]
        self.pass_by(4.0)
        for each in waiting:
            self.assertEqual(self.result(each).version, 2)
        self.assertEqual(self.calls(), 2)

    def test_two_clients_of_one_person(self) -> None:
        """
        Two clients of one person sign in and work on, past the end of token after token, on two
        nodes; nobody is ever sent to sign in again.
        """
        other = self.start_node(name="other")
        for hour in range(48):
            if hour % 5 == 0:
                self.sign_in(node=self.node)
            if hour % 7 == 0:
                self.sign_in(node=other)
            before = self.usable()
            self.assertGreater(before.expires_at, self.clock.seconds())
            self.assertEqual(self.usable(other).access.text, before.access.text)
            self.clock.advance(3600.0 * (1 if hour % 2 else 0.95))
        self.assertEqual(self.slept, [])
        (grant,) = self.forge.grants.live.values()
        self.assertEqual(self.account().forge_count, grant.counter)

    def test_sign_in_during_refresh(self) -> None:
        """A sign-in and a refresh at the same instant, whichever Forgejo takes first."""
        for first in ("refresh", "sign-in"):
            for slow in ("refresh", "sign-in"):
                with self.subTest(first=first, slow=slow):
                    self.setUp()
                    self.sign_in()
                    self.to_lead()
                    acts = ["refresh", "sign-in"] if first == "refresh" else ["sign-in", "refresh"]
                    waiting: list[Deferred[Any]] = []
                    for act in acts:
                        self.forge.troubles.clear()
                        self.forge.troubles.set(
                            "slow", TOKEN, times=1, seconds=20.0 if act == slow else 1.0
                        )
                        if act == "refresh":
                            waiting.append(self.start())
                        else:
                            waiting.append(self.start_sign_in())
                        self.agent.flush()
                    self.pass_by(40.0)
                    for each in waiting:
                        self.assertIsInstance(self.result(each), Credential | SignedIn)
                    (grant,) = self.forge.grants.live.values()
                    self.assertEqual(self.account().forge_count, grant.counter)
                    self.assertEqual(self.slept, [])
                    self.to_lead()
                    self.usable()

    def test_without_counters(self) -> None:
        """A Forgejo that does not invalidate refresh tokens is served as well."""
        self.forge.grants.invalidate = False
        for _ in range(3):
            self.sign_in()
            self.to_lead()
            self.usable()
        self.assertEqual(self.slept, [])

    # --- troubles -----------------------------------------------------------------------

    def test_gateway(self) -> None:
        """A gateway's error page ends nothing, and the next try goes well."""
        self.sign_in()
        self.to_lead()
        self.forge.troubles.set("status", TOKEN, times=1, status=502)
        self.assertEqual(self.usable().version, 1)
        self.pass_by(limits.REFRESH_RETRY + 1)
        self.assertEqual(self.usable().version, 2)

    def test_reply_lost(self) -> None:
        """A reply lost after the commit: the old token serves, then dead; a sign-in revives."""
        for kind in ("lose", "garble"):
            with self.subTest(kind):
                self.setUp()
                self.sign_in()
                self.to_lead()
                self.forge.troubles.set(kind, TOKEN, times=1)
                self.assertEqual(self.usable().version, 1)
                self.assertIn("burnt", repr(self.events))
                self.pass_by(limits.REFRESH_RETRY + 1)
                waiting = self.start()
                self.assertIs(self.result(waiting, limits.REFRESH_SETTLE + 1), CREDENTIAL_DEAD)
                self.assertEqual(self.slept, [self.person("alice").id])
                self.sign_in()
                self.usable()

    def test_reply_late(self) -> None:
        """A reply that takes most of a minute is waited for, and used."""
        self.sign_in()
        self.to_lead()
        self.forge.troubles.set("slow", TOKEN, times=1, seconds=limits.FORGE_TOKEN - 2)
        waiting = self.start()
        self.assertEqual(self.result(waiting, limits.REFRESH_PATIENCE + 1).version, 1)
        self.pass_by(limits.FORGE_TOKEN)
        self.assertEqual(self.usable().version, 2)

    def test_hangs(self) -> None:
        """A Forgejo that hangs costs a minute and an alarm."""
        self.sign_in()
        self.to_lead()
        self.forge.troubles.set("hang", TOKEN, times=1)
        self.start()
        self.pass_by(limits.FORGE_TOKEN + 1)
        self.assertIn("timeout", repr(self.events))
        self.pass_by(limits.REFRESH_RETRY)
        self.assertEqual(self.usable().version, 2)

    def test_revoked(self) -> None:
        """What the person revokes at Forgejo is dead at the next refresh, and asked no more."""
        self.sign_in()
        self.to_lead()
        self.forge.revoke("alice")
        self.assertIs(self.result(self.start(), limits.REFRESH_SETTLE + 1), CREDENTIAL_DEAD)
        calls = self.calls()
        for _ in range(5):
            self.assertIs(self.result(self.start()), CREDENTIAL_DEAD)
        self.assertEqual(self.calls(), calls)

    def test_wrong_secret(self) -> None:
        """A wrong client secret kills no credential and signs nobody in."""
        self.sign_in()
        self.to_lead()
        wrong = self.start_node("gto_something-else-altogether")
        self.assertEqual(self.usable(wrong).version, 1)
        self.assertFalse(self.account().dead)
        refusal = self.result(self.start_sign_in(node=wrong))
        self.assertIs(refusal, SIGN_IN_MISCONFIGURED)
        self.pass_by(limits.REFRESH_RETRY + 1)
        self.assertEqual(self.usable().version, 2)

    def test_prohibited(self) -> None:
        """Forgejo refreshes for a blocked account; the look that follows puts it to sleep, and
        it cannot sign in before it is let in again."""
        for switch, on, off in (
            ("prohibited", True, False),
            ("active", False, True),
            ("must_change_password", True, False),
        ):
            with self.subTest(switch):
                self.setUp()
                self.sign_in()
                alice = self.person("alice")
                setattr(alice, switch, on)
                self.to_lead()
                refusal = self.result(self.start())
                self.assertEqual(refusal, asleep(CREDENTIAL_DEAD, ACCOUNT_PROHIBITED.reason))
                self.assertEqual((self.account().version, self.slept), (2, [alice.id]))
                self.assertIs(self.result(self.start_sign_in()), ACCOUNT_PROHIBITED)
                self.assertEqual(self.result(self.start()), refusal)
                setattr(alice, switch, off)
                self.pass_by(1.0)
                self.sign_in()
                self.to_lead()
                self.usable()

    def test_membership(self) -> None:
        """An organization and a team let in as long as Forgejo names them."""
        self.node.admission = Admission(orgs=["allotment:keepers"])
        self.sign_in()
        keepers = self.forge.instance.team("allotment:keepers")
        assert keepers is not None
        for members, let_in in ((keepers.members, True), ([], False)):
            keepers.members = members
            self.to_lead()
            self.assertEqual(isinstance(self.result(self.start()), Credential), let_in)
        refusal = self.result(self.start_sign_in())
        self.assertEqual((refusal.reason, refusal.login), ("not-let-in", "alice"))
        self.node.admission = Admission(orgs=["ALLOTMENT"])
        self.assertEqual(self.result(self.start_sign_in("bob")).login, "bob")

    def test_stuffed(self) -> None:
        """Organizations that strangers put somebody into, or that they make themselves, change
        nothing: who is in stays in, and who leaves is out."""
        alice = self.person("alice")
        made = [
            Organization(100 + n, f"junk-{n}", "", [Team(100 + n, "Keepers", "read", [alice])])
            for n in range(1100)
        ]
        self.forge.instance.organizations[:0] = made
        for rule in (["allotment"], ["allotment:keepers"]):
            self.node.admission = Admission(orgs=rule)
            self.pass_by(1.0)
            self.sign_in()
            keepers = self.forge.instance.team("allotment:keepers")
            assert keepers is not None
            keepers.members, members = [], keepers.members
            self.to_lead()
            self.assertEqual(self.result(self.start()), asleep(CREDENTIAL_DEAD, NOT_LET_IN.reason))
            self.assertIs(self.result(self.start_sign_in()).reason, NOT_LET_IN.reason)
            keepers.members = members

    def test_narrow_grant(self) -> None:
        """A grant at Forgejo that is too narrow to see who it is lets nobody in by a rule,
        until it is revoked there."""
        scope = "read:user read:repository"
        self.assertIsInstance(self.result(self.start_sign_in(scope=scope)), SignedIn)
        self.node.admission = Admission(orgs=["allotment"])
        refusal = self.result(self.start_sign_in())
        self.assertEqual((refusal.reason, refusal.login), ("scope-too-narrow", "alice"))
        self.assertEqual(self.slept, [self.person("alice").id])
        self.forge.revoke("alice")
        self.pass_by(1.0)
        self.sign_in()
        self.to_lead()
        self.usable()

    def test_look_troubled(self) -> None:
        """Whatever goes wrong with a look, the refresh stands, and the next one looks again."""
        for kind in ("status", "drop", "lose", "garble"):
            for path in LOOKS:
                with self.subTest(kind=kind, path=path):
                    self.setUp()
                    self.node.admission = Admission(orgs=["zoo", "allotment:keepers"])
                    self.sign_in()
                    self.to_lead()
                    self.forge.troubles.set(kind, path, times=1)
                    self.assertEqual(self.usable().version, 2)
                    self.assertEqual(self.slept, [])
                    self.node.admission = Admission(["bob"])
                    self.to_lead()
                    self.assertIsInstance(self.result(self.start()), McpRefusal)

    def test_everything_granted(self) -> None:
        """A grant of everything is refused, and nothing of it kept."""
        refusal = self.result(self.start_sign_in(scope="openid profile"))
        self.assertIs(refusal, SCOPE_TOO_WIDE)
        self.assertIsNone(self.world.row(self.person("alice").id))

    def test_narrower(self) -> None:
        """An older, narrower grant signs in and tells what it lacks."""
        person = self.result(self.start_sign_in(scope="read:user read:repository"))
        assert isinstance(person, SignedIn)
        self.assertIn("write:repository", person.missing)

    def test_introspection_away(self) -> None:
        """A pair of which Forgejo will not tell whose it is is found again before a death."""
        self.sign_in()
        self.forge.troubles.set("status", "/login/oauth/introspect", times=1)
        self.assertIs(self.result(self.start_sign_in()), SIGN_IN_TROUBLED)
        self.to_lead()
        self.assertIsInstance(self.result(self.start(), limits.REFRESH_SETTLE), Credential)
        self.assertEqual(self.slept, [])

    def test_recovered_after_a_night(self) -> None:
        """A pair left on its way is finished although its access token has ended."""
        self.sign_in()
        self.forge.troubles.set("status", "/login/oauth/introspect", times=1)
        self.result(self.start_sign_in())
        self.clock.advance(12 * 3600.0)
        node = self.start_node(name="next")
        self.result(Deferred.fromCoroutine(node.recover()))
        self.assertEqual(self.account().version, 2)
        self.assertEqual(self.usable(node).version, 3)

    def test_api_away(self) -> None:
        """A person whom the API cannot confirm comes again; a known account keeps the pair."""
        self.sign_in()
        self.forge.troubles.set("status", USER, times=1)
        self.assertIs(self.result(self.start_sign_in()), SIGN_IN_TROUBLED)
        self.to_lead()
        self.assertEqual(self.usable().version, 3)
