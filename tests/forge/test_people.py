"""
`fjmcp.forge.people`: whether somebody is in an organization or a team, as the API says it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.forge import people
from fjmcp.forge.answers import Answer, Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken
from fjmcp.testing.reactor import now
from tests.forge.test_client import ACCESS, API_REFUSALS, Case

ADA = User(7, "ada")
SWAGGER = "https://forge.example/git/api/swagger"
NONE = {"errors": [], "message": "The target couldn't be found.", "url": SWAGGER}
"""What the API says of what is not there; the sentence may be in another language."""

Said = bool | Refused | Troubled

NO_WORD: list[tuple[int, Any]] = [
    (200, b"<html>"),
    (200, {"ok": True}),
    (200, []),
    (301, b""),
    (302, b""),
    (303, b""),
    (307, b""),
    (403, b"<html>"),
    (403, {"message": "Forbidden"}),
    (403, {"message": "Must be an organization owner", "url": SWAGGER}),
    (404, b"404 page not found"),
    (404, b""),
    (404, {"message": "no route and no upstream"}),
    (404, {"message": "", "url": SWAGGER}),
    (404, {"message": "gone", "url": "https://gateway.example/404"}),
    (404, {"message": "gone", "url": 404}),
    (429, {"message": "slow down"}),
    (503, b""),
]
"""What says nothing of a person: others on the way say it, or other versions might."""


def team(number: int, name: str = "Keepers") -> dict[str, Any]:
    """An entry of a search for teams, as far as it matters."""
    return {"id": number, "name": name, "organization": None}


class SayCase(Case):
    """A Forgejo that gives one answer to all."""

    def organization(self, name: str = "zoo", user: User = ADA) -> Said:
        """Whether somebody belongs to it."""
        return self.do(self.forge.in_organization(ACCESS, user, name))

    def team(self, name: str = "keepers", organization: str = "zoo") -> Said:
        """Whether Ada is in it."""
        return self.do(self.forge.in_team(ACCESS, ADA, organization, name))

    def paths(self) -> list[str]:
        """What was asked."""
        return [asked.uri.decode() for asked in self.forgejo.asked]


class OrganizationTests(SayCase):
    """Whether somebody belongs to an organization."""

    def test_said(self) -> None:
        """Yes and no are one answer each, asked with the person's own token."""
        self.says(204, b"")
        self.assertIs(self.organization(), True)
        self.assertEqual(self.header("authorization"), f"Bearer {ACCESS.text}")
        self.says(404, NONE)
        self.assertIs(self.organization(), False)
        self.says(404, {**NONE, "errors": None, "message": "Das Ziel gibt es nicht."})
        self.assertIs(self.organization(), False)
        self.assertEqual(self.paths(), ["/git/api/v1/orgs/zoo/members/ada"] * 3)

    def test_quoted(self) -> None:
        """A name is a name, whatever is in it, and makes no other path and no query."""
        self.says(204, b"")
        self.organization("a/../b?c#d", User(7, "x y/%2e"))
        self.assertEqual(
            self.paths(), ["/git/api/v1/orgs/a%2F..%2Fb%3Fc%23d/members/x%20y%2F%252e"]
        )

    def test_led_elsewhere(self) -> None:
        """Led to the public members, or to another name of the organization: a no, and nobody
        goes there; led anywhere else, nothing is known."""
        public = "/git/api/v1/orgs/Zoo/public_members/ada"
        for status, location, meant in (
            (303, public, False),
            (303, f"https://forge.example{public}", False),
            (303, "/git/api/v1/orgs/park/public_members/ada", None),
            (303, "/git/api/v1/orgs/zoo/public_members/bob", None),
            (302, public, None),
            (307, "/git/api/v1/orgs/Park/members/ada", False),
            (307, "/api/v1/orgs/Park/members/ada", False),
            (307, "/git/api/v1/orgs/ZOO/members/ada", None),
            (307, "/git/api/v1/orgs/park/members/adele", None),
            (307, "/git/api/v1/orgs/park/members/ada/more", None),
            (303, "/git/api/v1/orgs/park/members/ada", None),
            (307, "https://sign-in.example/?to=/git/api/v1/orgs/park/members/ada", None),
            (303, "/user/login", None),
            (303, "http://[", None),
        ):
            with self.subTest(status=status, location=location):
                self.forgejo.asked.clear()
                self.says(status, b"", Location=location)
                expected = Troubled(f"status-{status}") if meant is None else meant
                self.assertEqual(self.organization(), expected)
                self.assertEqual(len(self.forgejo.asked), 1)

    def test_refused(self) -> None:
        """What the API says of the token is about the token."""
        for status, message, error in API_REFUSALS:
            self.says(status, {"message": message, "url": SWAGGER})
            self.assertEqual(self.organization(), Refused(error, message))

    def test_troubled(self) -> None:
        """Anything else says nothing of the person."""
        for status, body in [*NO_WORD, (200, NONE), (403, {"message": people.NO_MEMBER})]:
            self.says(status, body)
            meant = Troubled(f"status-{status}", unsure=status >= 500)
            self.assertEqual(self.organization(), meant, body)


ADA_HERSELF = Answer(200, b'{"id": 7, "login": "ada"}', None)


@define(eq=False)
class Aviary:
    """Teams of one organization: pages of a size of its own, with a count of all or none."""

    entries: list[dict[str, Any]]
    size: int = limits.FORGE_PAGE
    counts: bool = True
    member: Answer = ADA_HERSELF
    """What it says of the person in a team."""
    asked: list[str] = field(factory=list)

    async def get(self, path: str) -> Answer | Troubled:
        """A page, or a person."""
        self.asked.append(path)
        parts = urlsplit(path)
        if parts.path.startswith(people.TEAMS):
            return self.member
        start = (int(parse_qs(parts.query)["page"][0]) - 1) * self.size
        data = self.entries[start : start + self.size]
        body = json.dumps({"ok": True, "data": data}).encode()
        return Answer(200, body, None, len(self.entries) if self.counts else None)

    def has(self, name: str) -> Said:
        """Whether Ada is in a team."""
        return now(people.in_team(self.get, ACCESS, ADA, "zoo", name))


class SearchTests(SynchronousTestCase):
    """Finding a team among those of its organization."""

    @given(st.integers(0, 120), st.integers(1, 60), st.booleans(), st.integers(0, 130))
    def test_found(self, count: int, size: int, counts: bool, which: int) -> None:
        """A team is found wherever it stands, whatever Forgejo calls a page, and no page is asked
        in vain; one that is not there, or stands too far behind, is none."""
        aviary = Aviary([team(n, f"Team-{n}") for n in range(count)], size, counts)
        there = which < min(count, size * limits.FORGE_PAGES)
        self.assertIs(aviary.has(f"tEAM-{which}"), there)
        searches = which // size + 1
        if not there:
            pages = -(-count // size)
            searches = min(max(1, pages) if counts else pages + 1, limits.FORGE_PAGES)
        self.assertEqual(len(aviary.asked), searches + there)

    def test_asked(self) -> None:
        """The search is for the name alone; the person is asked about by the team's number."""
        aviary = Aviary([team(n, f"Keepers-{n}") for n in range(50)] + [team(51)])
        self.assertIs(aviary.has("keepers"), True)
        search = "/api/v1/orgs/zoo/teams/search?q=keepers&include_desc=false"
        self.assertEqual(
            aviary.asked,
            [
                f"{search}&page=1&limit=50",
                f"{search}&page=2&limit=50",
                "/api/v1/teams/51/members/ada",
            ],
        )

    def test_endless(self) -> None:
        """A search without an end is given up, and is a no: nobody stays undecided by it."""
        aviary = Aviary([team(n, f"Keepers-{n}") for n in range(100)], 1)
        self.assertIs(aviary.has("keepers"), False)
        self.assertEqual(len(aviary.asked), limits.FORGE_PAGES)

    def test_incomplete(self) -> None:
        """A search that has less than it counts, or a team twice, is not known."""
        aviary = Aviary([team(n % 2, f"Team-{n}") for n in range(4)], 2)
        self.assertEqual(aviary.has("keepers"), Troubled("incomplete"))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-1, 9) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["id", "name"]), inner)
            ),
            max_leaves=8,
        )
    )
    def test_any_entry(self, entry: Any) -> None:
        """Whatever stands in a search, a no comes of it or trouble, never a fault or a yes."""
        found = Aviary([entry]).has("keepers")
        assert found is False or found == Troubled("status-200"), found

    def test_another(self) -> None:
        """The team shows somebody else: nothing is known."""
        for body in (b'{"id": 8, "login": "ada"}', b'{"id": "7"}', b"{}", b"[]", b"<html>"):
            aviary = Aviary([team(4)], member=Answer(200, body, None))
            self.assertEqual(aviary.has("keepers"), Troubled("status-200"))

    def test_not_in_it(self) -> None:
        """A team that is shown to who is not in it is a no: to its administrator, its owner, or
        one who left in between."""
        forbidden = {"message": people.NO_TEAM_MEMBER, "url": SWAGGER}
        for status, said in ((404, NONE), (403, forbidden)):
            member = Answer(status, json.dumps(said).encode(), None)
            self.assertIs(Aviary([team(4)], member=member).has("keepers"), False)

    def test_person_troubled(self) -> None:
        """Anything else that is said of the person is not known, or about the token."""
        for status, body in NO_WORD:
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            found = Aviary([team(4)], member=Answer(status, text, None)).has("keepers")
            self.assertEqual(found, Troubled(f"status-{status}", unsure=status >= 500))
        for status, message, error in API_REFUSALS:
            text = json.dumps({"message": message}).encode()
            found = Aviary([team(4)], member=Answer(status, text, None)).has("keepers")
            self.assertEqual(found, Refused(error, message))


class TeamTests(SayCase):
    """The same by the client."""

    def test_quoted(self) -> None:
        """Names are names here, too."""
        self.says(200, {"ok": True, "data": []}, X_Total_Count="0")
        self.assertIs(self.team("a&b=c", "d/e"), False)
        search = "/git/api/v1/orgs/d%2Fe/teams/search?q=a%26b%3Dc&include_desc=false"
        self.assertEqual(self.paths(), [f"{search}&page=1&limit=50"])

    def test_no_member(self) -> None:
        """No such organization by this name, or they do not belong to it: a no."""
        self.says(404, NONE)
        self.assertIs(self.team(), False)
        self.says(403, {"message": people.NO_MEMBER, "url": SWAGGER})
        self.assertIs(self.team(), False)
        self.says(307, b"", Location="/git/api/v1/orgs/park/teams/search?q=keepers")
        self.assertIs(self.team(), False)
        self.assertEqual(len(self.forgejo.asked), 3)

    def test_odd_count(self) -> None:
        """A count that is none is no count: the pages go on to an empty one, within the bound."""
        for count in ("", "many", "-1", "9" * 400):
            self.says(200, {"data": [team(4, "Feeders")]}, X_Total_Count=count)
            self.forgejo.asked.clear()
            self.assertIs(self.team(), False)
            self.assertEqual(len(self.forgejo.asked), limits.FORGE_PAGES)

    def test_refused(self) -> None:
        """What the API says of the token is about the token."""
        for status, message, error in API_REFUSALS:
            self.says(status, {"message": message, "url": SWAGGER})
            self.assertEqual(self.team(), Refused(error, message))

    def test_troubled(self) -> None:
        """Anything else says nothing of the person."""
        for status, body in [*NO_WORD, (204, b""), (403, {"message": people.NO_TEAM_MEMBER})]:
            self.says(status, body)
            meant = Troubled(f"status-{status}", unsure=status >= 500)
            self.assertEqual(self.team(), meant, body)

    def test_no_token_said(self) -> None:
        """A refusal that repeats the token does not repeat it to us."""
        secret = ForgeToken("a-token-that-is-no-jwt")
        self.says(401, {"message": f"no such token: {secret.text}"})
        for work in (
            self.forge.in_organization(secret, ADA, "zoo"),
            self.forge.in_team(secret, ADA, "zoo", "keepers"),
        ):
            self.assertNotIn(secret.text, repr(self.do(work)))
