"""
`fjmcp.forge.people`: organizations and teams, however many pages they fill.
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
from fjmcp.forge.tokens import ForgeToken
from fjmcp.testing import now
from tests.forge.test_client import ACCESS, Case

TEXT = st.text(max_size=5)


def organization(number: int, name: object = None) -> dict[str, Any]:
    """An entry of `/user/orgs`, as far as it matters."""
    return {"id": number, "name": name or f"Org-{number}", "visibility": "private"}


def team(number: int, name: str = "Keepers") -> dict[str, Any]:
    """An entry of `/user/teams`, likewise."""
    return {"id": number, "name": name, "organization": organization(number)}


@define(eq=False)
class Shelf:
    """A list of Forgejo's: pages of a size of its own, with a count of all or none."""

    entries: list[dict[str, Any]]
    size: int = limits.FORGE_PAGE
    counts: bool = True
    asked: list[str] = field(factory=list)

    async def get(self, path: str) -> Answer | Troubled:
        """A page."""
        self.asked.append(path)
        query = parse_qs(urlsplit(path).query)
        start = (int(query["page"][0]) - 1) * self.size
        body = json.dumps(self.entries[start : start + self.size]).encode()
        return Answer(200, body, None, len(self.entries) if self.counts else None)


class PagesTests(SynchronousTestCase):
    """Lists."""

    def names(self, shelf: Shelf) -> frozenset[str] | Refused | Troubled:
        """The names on it."""
        return now(people.names(shelf.get, people.ORGANIZATIONS, ACCESS, people.organization_name))

    @given(st.integers(0, 120), st.integers(1, 60), st.booleans())
    def test_whole(self, count: int, size: int, counts: bool) -> None:
        """All entries are found, whatever Forgejo calls a page, and no page is asked in vain."""
        shelf = Shelf([organization(n) for n in range(count)], size, counts)
        pages = -(-count // size)
        if pages + (not counts) > limits.FORGE_PAGES:
            self.assertEqual(self.names(shelf), Troubled("too-many"))
        else:
            self.assertEqual(self.names(shelf), {f"Org-{n}" for n in range(count)})
            self.assertEqual(len(shelf.asked), max(1, pages) if counts else pages + 1)

    def test_bounded(self) -> None:
        """A list without an end is given up."""
        shelf = Shelf([organization(n) for n in range(100)], 1)
        self.assertEqual(self.names(shelf), Troubled("too-many"))
        self.assertEqual(len(shelf.asked), limits.FORGE_PAGES)

    def test_incomplete(self) -> None:
        """A list that has less than it counts, or an entry twice, is not known."""
        shelf = Shelf([organization(n % 2) for n in range(4)], 2)
        self.assertEqual(self.names(shelf), Troubled("incomplete"))

    def test_asked(self) -> None:
        """Pages are asked for by number, as large as Forgejo gives them."""
        shelf = Shelf([organization(n) for n in range(51)])
        self.names(shelf)
        self.assertEqual(
            shelf.asked,
            ["/api/v1/user/orgs?page=1&limit=50", "/api/v1/user/orgs?page=2&limit=50"],
        )

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-1, 9) | TEXT,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["id", "name", "organization"]) | TEXT, inner)
            ),
            max_leaves=8,
        )
    )
    def test_any_entry(self, entry: Any) -> None:
        """Whatever stands in a list, names come of it or trouble, never a fault."""
        for name_of in (people.organization_name, people.team_name):

            async def get(path: str) -> Answer:
                return Answer(200, json.dumps([entry]).encode(), None, 1)

            found = now(people.names(get, people.TEAMS, ACCESS, name_of))
            assert isinstance(found, frozenset) or found == Troubled("status-200"), found


class OverHttpTests(Case):
    """The same by the client."""

    def test_organizations(self) -> None:
        """Names, asked with the person's own token."""
        self.says(200, [organization(4, "Allotment"), organization(5)], X_Total_Count="2")
        self.assertEqual(self.do(self.forge.organizations(ACCESS)), {"Allotment", "Org-5"})
        self.assertEqual(self.forgejo.asked[-1].uri, b"/git/api/v1/user/orgs?page=1&limit=50")
        self.assertEqual(self.header("authorization"), f"Bearer {ACCESS.text}")

    def test_teams(self) -> None:
        """Names with that of the organization."""
        self.says(200, [team(4), team(5, "Owners")], X_Total_Count="2")
        self.assertEqual(self.do(self.forge.teams(ACCESS)), {"Org-4:Keepers", "Org-5:Owners"})
        self.assertEqual(self.forgejo.asked[-1].uri, b"/git/api/v1/user/teams?page=1&limit=50")

    def test_none(self) -> None:
        """Somebody may be in none."""
        self.says(200, [], X_Total_Count="0")
        self.assertEqual(self.do(self.forge.teams(ACCESS)), frozenset())

    def test_odd_count(self) -> None:
        """A count that is none is no count: the pages go on to an empty one, within the bound."""
        for count in ("", "many", "-1", "9" * 400):
            self.says(200, [organization(4)], X_Total_Count=count)
            self.assertEqual(self.do(self.forge.organizations(ACCESS)), Troubled("too-many"))

    def test_troubled(self) -> None:
        """What is no list of names says nothing of the person."""
        for status, body, meant in (
            (200, b"", Troubled("status-200")),
            (200, b"<html>", Troubled("status-200")),
            (200, {"data": []}, Troubled("status-200")),
            (200, [[]], Troubled("status-200")),
            (200, [{"id": 4}], Troubled("status-200")),
            (200, [{"id": "4", "name": "x"}], Troubled("status-200")),
            (200, [{"id": 4, "name": 4}], Troubled("status-200")),
            (403, b"<html>", Troubled("status-403")),
            (404, {"message": "gone"}, Troubled("status-404")),
            (503, b"", Troubled("status-503", unsure=True)),
        ):
            with self.subTest(body=body):
                self.says(status, body)
                self.assertEqual(self.do(self.forge.organizations(ACCESS)), meant)
        self.says(200, [organization(4)])
        self.assertEqual(self.do(self.forge.teams(ACCESS)), Troubled("status-200"))
        self.says(200, [{**team(4), "organization": None}])
        self.assertEqual(self.do(self.forge.teams(ACCESS)), Troubled("status-200"))

    def test_no_token_said(self) -> None:
        """A refusal that repeats the token does not repeat it to us."""
        secret = ForgeToken("a-token-that-is-no-jwt")
        self.says(401, {"message": f"no such token: {secret.text}"})
        for work in (self.forge.organizations(secret), self.forge.teams(secret)):
            self.assertNotIn(secret.text, repr(self.do(work)))
