"""
`fjmcp.forge.admission`: the operator's rule, for every kind of person.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.forge.admission import Admission, Person, folded
from fjmcp.forge.scopes import API, DEFAULT
from fjmcp.refusals import ADMIN_NOT_LET_IN, NOT_LET_IN, OAuthRefusal

ALICE = Person("Alice", False, ["Allotment"], ["Allotment:Keepers"])
BOB = Person("bob", False, ["allotment", "Zoo"], ["allotment:Owners", "Zoo:Keepers"])
EVE = Person("eve", False)
ROOT = Person("root", True, ["allotment"], ["allotment:Owners"])

EVERYBODY = ("Alice", "bob", "eve", "root")

NAMES = st.sampled_from(["alice", "BOB", "root", "allotment", "zoo"])
GROUPS = NAMES | st.sampled_from(["allotment:keepers", "Zoo:Keepers", "allotment:owners"])


class JudgeTests(SynchronousTestCase):
    """Who may come in."""

    def test_table(self) -> None:
        """Rule by rule, who comes in."""
        for rule, let_in in (
            (Admission(), EVERYBODY),
            (Admission(users=["alice"]), ("Alice",)),
            (Admission(users=["ALICE", "Root"]), ("Alice", "root")),
            (Admission(users=["alic"]), ()),
            (Admission(users=["alice2", "al"]), ()),
            (Admission(users=["allotment"]), ()),
            (Admission(orgs=["allotment"]), ("Alice", "bob", "root")),
            (Admission(orgs=["ZOO"]), ("bob",)),
            (Admission(orgs=["alice", "bob", "keepers"]), ()),
            (Admission(orgs=["allotment:keepers"]), ("Alice",)),
            (Admission(orgs=["allotment:OWNERS"]), ("bob", "root")),
            (Admission(orgs=["zoo:owners", "allotment:visitors"]), ()),
            (Admission(orgs=["zoo", "allotment:keepers"]), ("Alice", "bob")),
            (Admission(users=["eve"], orgs=["zoo"]), ("bob", "eve")),
            (Admission(deny_admins=True), ("Alice", "bob", "eve")),
            (Admission(users=["root", "eve"], deny_admins=True), ("eve",)),
            (Admission(orgs=["allotment:owners"], deny_admins=True), ("bob",)),
        ):
            with self.subTest(rule):
                found = [each.login for each in (ALICE, BOB, EVE, ROOT) if rule.judge(each) is None]
                self.assertEqual(tuple(found), let_in)

    def test_reasons(self) -> None:
        """Who is denied as an administrator is told so, whatever else would deny them."""
        rule = Admission(users=["alice"], deny_admins=True)
        self.assertIs(rule.judge(ROOT), ADMIN_NOT_LET_IN)
        self.assertIs(rule.judge(EVE), NOT_LET_IN)

    @given(
        st.builds(Admission, st.frozensets(NAMES), st.frozensets(GROUPS), st.booleans()),
        st.sampled_from([ALICE, BOB, EVE, ROOT]),
    )
    def test_only_what_is_named(self, rule: Admission, person: Person) -> None:
        """With a list nobody comes in without something of theirs in it, and no administrator
        where they are denied."""
        if rule.judge(person) is not None:
            return
        theirs = {folded(person.login)} | person.organizations | person.teams
        self.assertTrue(not (rule.users | rule.orgs) or theirs & (rule.users | rule.orgs))
        self.assertFalse(rule.deny_admins and person.is_admin)

    @given(st.frozensets(NAMES, min_size=1), st.frozensets(GROUPS, min_size=1), st.booleans())
    def test_either_list_suffices(
        self, users: frozenset[str], orgs: frozenset[str], deny: bool
    ) -> None:
        """With both lists, who comes in by one of them alone comes in."""
        both, one, other = (
            Admission(users, orgs, deny),
            Admission(users, deny_admins=deny),
            Admission(orgs=orgs, deny_admins=deny),
        )
        for person in (ALICE, BOB, EVE, ROOT):
            either = one.judge(person) is None or other.judge(person) is None
            self.assertEqual(both.judge(person) is None, either)

    def test_less_said_lets_nobody_in(self) -> None:
        """What was not asked counts as not there."""
        rule: Admission = Admission(orgs=["allotment", "zoo:keepers"])
        refusal: OAuthRefusal | None = rule.judge(Person("bob", False))
        self.assertIs(refusal, NOT_LET_IN)

    def test_case(self) -> None:
        """Names are compared without case, and nothing beyond ASCII comes to equal them."""
        self.assertEqual(folded("Al-I.c_E9"), "al-i.c_e9")
        self.assertIs(Admission(users=["kim"]).judge(Person("\u212aim", False)), NOT_LET_IN)


class NeedsTests(SynchronousTestCase):
    """What must be asked, and may be."""

    def test_asked(self) -> None:
        """The organizations and the teams of a rule, each once, in an order of their own."""
        for rule, organizations, teams in (
            (Admission(), [], []),
            (Admission(users=["alice"], deny_admins=True), [], []),
            (Admission(orgs=["Zoo", "zoo"]), ["zoo"], []),
            (Admission(orgs=["zoo:Keepers"]), [], [("zoo", "keepers")]),
            (
                Admission(orgs=["zoo:keepers", "zoo", "allotment", "a:z"]),
                ["allotment", "zoo"],
                [("a", "z"), ("zoo", "keepers")],
            ),
        ):
            self.assertEqual((rule.organizations, rule.teams), (organizations, teams), rule)

    def test_everybody(self) -> None:
        """Only without any rule it does not matter who somebody is."""
        self.assertTrue(Admission().everybody)
        for rule in (Admission(["a"]), Admission(orgs=["a"]), Admission(deny_admins=True)):
            self.assertFalse(rule.everybody)

    def test_scopes(self) -> None:
        """Any rule needs read:user, one about organizations read:organization too; what writes
        reads, and everything is enough."""
        user, organization = ["read:user"], ["read:organization"]
        for rule, scopes, lacking in (
            (Admission(), "read:issue", []),
            (Admission(["a"]), "read:issue", user),
            (Admission(deny_admins=True), "openid read:organization", user),
            (Admission(orgs=["a:b"]), "read:issue", user + organization),
            (Admission(orgs=["a"]), "read:user", organization),
            (Admission(orgs=["a"]), "write:user write:organization", []),
            (Admission(orgs=["a"]), "all", []),
            (Admission(["a"], ["a"], True), DEFAULT, []),
        ):
            self.assertEqual(rule.lacks(scopes), lacking, (rule, scopes))
        self.assertLessEqual({*user, *organization}, API)
