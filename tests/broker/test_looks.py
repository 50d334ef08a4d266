"""
`fjmcp.broker.looks`: what Forgejo says of a person, and what it means by the rule.
"""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.looks import Admitted, Denied, Looks, Undecided, Verdict
from fjmcp.forge.admission import Admission
from fjmcp.forge.answers import Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken
from fjmcp.refusals import (
    ACCOUNT_PROHIBITED,
    ADMIN_NOT_LET_IN,
    NOT_LET_IN,
    SCOPE_TOO_NARROW,
    SIGN_IN_MIXED_UP,
    SIGN_IN_REFUSED,
    SIGN_IN_TROUBLED,
    OAuthRefusal,
)
from fjmcp.testing.reactor import now

ADA = User(7, "ada")
ROOT = User(7, "root", True)
TOKEN = ForgeToken("eyJan.access.token")

BLOCKED = Refused("prohibited", "This account is prohibited from signing in")
NARROW = Refused("insufficient_scope", "required scope(s): [read:user]")
OVER = Refused("invalid_token", "oauth2 grant not found or revoked")
AWAY = Troubled("status-502", unsure=True)

ANY = Admission()
ONE = Admission(["ada"])
ORG = Admission(orgs=["zoo"])
TEAM = Admission(orgs=["zoo:keepers"])
TWO = Admission(orgs=["zoo", "park"])
BOTH = Admission(["bob"], ["zoo", "park:keepers"])
NO_ADMINS = Admission(deny_admins=True)

Said = bool | Refused | Troubled


@define(eq=False)
class Directory:
    """Says what it is told to, and remembers what it was asked."""

    person: User | Refused | Troubled
    groups: dict[str, Said] = field(factory=dict)
    """What it says of an organization, or a team as `organization:team`; else no."""
    asked: list[str] = field(factory=list)
    waits: dict[str, Deferred[None]] = field(factory=dict)

    async def user(self, access: ForgeToken) -> User | Refused | Troubled:
        await self._asked("user", access)
        return self.person

    async def in_organization(self, access: ForgeToken, user: User, organization: str) -> Said:
        return await self._is_in(access, user, organization)

    async def in_team(self, access: ForgeToken, user: User, organization: str, team: str) -> Said:
        return await self._is_in(access, user, f"{organization}:{team}")

    async def _is_in(self, access: ForgeToken, user: User, name: str) -> Said:
        assert user is self.person
        await self._asked(name, access)
        return self.groups.get(name, False)

    async def _asked(self, what: str, access: ForgeToken) -> None:
        assert access is TOKEN
        self.asked.append(what)
        if what in self.waits:
            await self.waits[what]


def denied(refusal: OAuthRefusal, login: str = "ada") -> Verdict:
    """A no to somebody by name."""
    return Denied(evolve(refusal, login=login))


class LooksTests(SynchronousTestCase):
    """One look."""

    def setUp(self) -> None:
        self.clock = Clock()

    def looks(self, directory: Directory, rule: Admission) -> Looks:
        return Looks(directory, self.clock, rule)

    def test_table(self) -> None:
        """What Forgejo says, by each rule: the verdict, and that no more was asked than it took."""
        members, keepers = {"zoo": True}, {"zoo:keepers": True}
        rows: list[tuple[Directory, Admission, Verdict, str]] = [
            (Directory(ADA), ANY, Admitted("ada"), "user"),
            (Directory(ROOT), ANY, Admitted("root"), "user"),
            (Directory(ADA), ONE, Admitted("ada"), "user"),
            (Directory(ROOT), ONE, denied(NOT_LET_IN, "root"), "user"),
            (Directory(ROOT), NO_ADMINS, denied(ADMIN_NOT_LET_IN, "root"), "user"),
            (Directory(ADA), NO_ADMINS, Admitted("ada"), "user"),
            (Directory(ADA, {**members}), ORG, Admitted("ada"), "user zoo"),
            (Directory(ADA, {**keepers}), ORG, denied(NOT_LET_IN), "user zoo"),
            (Directory(ADA, {**keepers}), TEAM, Admitted("ada"), "user zoo:keepers"),
            (Directory(ADA, {**members}), TEAM, denied(NOT_LET_IN), "user zoo:keepers"),
            (Directory(ADA, {**members}), BOTH, Admitted("ada"), "user zoo"),
            (
                Directory(ADA, {"park": True, "park:keepers": True}),
                BOTH,
                Admitted("ada"),
                "user zoo park:keepers",
            ),
            (Directory(ADA), BOTH, denied(NOT_LET_IN), "user zoo park:keepers"),
            (Directory(ADA, {"park": True}), TWO, Admitted("ada"), "user park"),
            (Directory(ADA, {"zoo": True}), TWO, Admitted("ada"), "user park zoo"),
            (Directory(ADA), TWO, denied(NOT_LET_IN), "user park zoo"),
            (Directory(User(7, "Bob"), {"zoo": AWAY}), BOTH, Admitted("Bob"), "user"),
            (
                Directory(ROOT, {**members}),
                evolve(ORG, deny_admins=True),
                denied(ADMIN_NOT_LET_IN, "root"),
                "user",
            ),
            # A block is one by any rule.
            (Directory(BLOCKED), ANY, Denied(ACCOUNT_PROHIBITED), "user"),
            (Directory(BLOCKED), ORG, Denied(ACCOUNT_PROHIBITED), "user"),
            (Directory(ADA, {"zoo": BLOCKED}), ORG, denied(ACCOUNT_PROHIBITED), "user zoo"),
            # Who lets us see too little comes in only where it does not matter.
            (Directory(NARROW), ANY, Admitted(None), "user"),
            (Directory(NARROW), ONE, Denied(SCOPE_TOO_NARROW), "user"),
            (Directory(NARROW), NO_ADMINS, Denied(SCOPE_TOO_NARROW), "user"),
            (Directory(ADA, {"zoo": NARROW}), ORG, denied(SCOPE_TOO_NARROW), "user zoo"),
            (
                Directory(ADA, {"zoo:keepers": NARROW}),
                TEAM,
                denied(SCOPE_TOO_NARROW),
                "user zoo:keepers",
            ),
            # Nothing is known.
            (Directory(OVER), ANY, Undecided(SIGN_IN_REFUSED), "user"),
            (Directory(AWAY), ANY, Undecided(SIGN_IN_TROUBLED), "user"),
            (Directory(AWAY), ONE, Undecided(SIGN_IN_TROUBLED), "user"),
            (Directory(ADA, {"zoo": AWAY}), ORG, Undecided(SIGN_IN_TROUBLED), "user zoo"),
            (
                Directory(ADA, {"zoo": AWAY, "park:keepers": True}),
                BOTH,
                Undecided(SIGN_IN_TROUBLED),
                "user zoo",
            ),
            (
                Directory(ADA, {"zoo:keepers": OVER}),
                TEAM,
                Undecided(SIGN_IN_REFUSED),
                "user zoo:keepers",
            ),
            (Directory(User(8, "bob")), ANY, Undecided(SIGN_IN_MIXED_UP), "user"),
            (Directory(User(8, "ada")), ONE, Undecided(SIGN_IN_MIXED_UP), "user"),
        ]
        for directory, rule, verdict, asked in rows:
            with self.subTest(directory=directory, rule=rule):
                self.assertEqual(now(self.looks(directory, rule).look(TOKEN, 7)), verdict)
                self.assertEqual(directory.asked, asked.split())

    def test_bounded(self) -> None:
        """The whole look ends in time, whichever answer does not come; then nothing is known."""
        for late in ("user", "zoo", "park:keepers"):
            directory = Directory(ADA, waits={late: Deferred()})
            looking = Deferred.fromCoroutine(self.looks(directory, BOTH).look(TOKEN, 7))
            self.clock.advance(limits.FORGE_LOOK - 0.1)
            self.assertNoResult(looking)
            self.clock.advance(0.1)
            self.assertEqual(self.successResultOf(looking), Undecided(SIGN_IN_TROUBLED))
            self.assertEqual(directory.asked[-1], late)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_rule(self) -> None:
        """A look goes by the rule that held when it began; the next one by the new."""
        directory = Directory(ADA, waits={"user": Deferred()})
        looks = self.looks(directory, ONE)
        looking = Deferred.fromCoroutine(looks.look(TOKEN, 7))
        looks.admission = ORG
        directory.waits["user"].callback(None)
        self.assertEqual(self.successResultOf(looking), Admitted("ada"))
        self.assertEqual(now(looks.look(TOKEN, 7)), denied(NOT_LET_IN))

    def test_said(self) -> None:
        """The log has who was not let in and why, and what Forgejo did not say; no token."""
        with capturedLogs() as events:
            now(self.looks(Directory(ADA), ORG).look(TOKEN, 7))
            now(self.looks(Directory(AWAY), ANY).look(TOKEN, 7))
        first, second = (_fields(event) for event in events)
        self.assertEqual(first, ("not let in", 7, "ada", "not-let-in"))
        self.assertEqual(
            second, ("Forgejo does not say who an account is: {reason}", 7, None, "status-502")
        )
        self.assertNotIn(TOKEN.text, repr(events))


def _fields(event: LogEvent) -> tuple[object, ...]:
    return event["log_format"], event["account"], event.get("login"), event["reason"]
