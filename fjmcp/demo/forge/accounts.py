"""
The people of the stand-in Forgejo, their repositories and issues.

The JSON shapes are those of Forgejo 16, as far as the children read them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from attrs import define, field

NEVER: Final = "0001-01-01T00:00:00Z"


def stamp(when: float) -> str:
    """Epoch seconds as the API writes time."""
    return datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@define(eq=False)
class Person:
    """
    One account.

    `prohibited`, `active` and `must_change_password` are the administrator's
    switches: with any of them the API answers 403, and the token endpoint
    goes on as if nothing were (forgejo.md §3.4).
    """

    id: int
    login: str
    full_name: str
    password: str = field(repr=False)
    prohibited: bool = False
    active: bool = True
    must_change_password: bool = False
    is_admin: bool = False

    @property
    def email(self) -> str:
        """An address that reaches nobody."""
        return f"{self.login}@demo.invalid"

    def to_json(self, url: str) -> dict[str, Any]:
        """`GET /api/v1/user`: every member that Forgejo sends (§3.6)."""
        return {
            "id": self.id,
            "login": self.login,
            "login_name": "",
            "source_id": 0,
            "full_name": self.full_name,
            "email": self.email,
            "avatar_url": f"{url}/avatars/{self.login}",
            "html_url": f"{url}/{self.login}",
            "language": "en-US",
            "is_admin": self.is_admin,
            "last_login": NEVER,
            "created": stamp(0),
            "restricted": False,
            "active": self.active,
            "prohibit_login": self.prohibited,
            "location": "",
            "pronouns": "",
            "website": "",
            "description": "",
            "visibility": "public",
            "followers_count": 0,
            "following_count": 0,
            "starred_repos_count": 0,
            "username": self.login,
        }


@define(eq=False)
class Team:
    """A team of an organization; who is in one of them is in the organization."""

    id: int
    name: str
    permission: str
    members: list[Person] = field(factory=list)

    def to_json(self, url: str, organization: Organization) -> dict[str, Any]:
        """One entry of `GET /api/v1/user/teams`."""
        owners = self.permission == "owner"
        units = {f"repo.{unit}": self.permission for unit in ("code", "issues", "pulls")}
        return {
            "id": self.id,
            "name": self.name,
            "description": "",
            "organization": organization.to_json(url),
            "includes_all_repositories": owners,
            "permission": self.permission,
            "units": list(units),
            "units_map": units,
            "can_create_org_repo": owners,
        }


@define(eq=False)
class Organization:
    """People who share repositories; its number is of the same row as theirs."""

    id: int
    name: str
    full_name: str
    teams: list[Team] = field(factory=list)

    def has(self, person: Person) -> bool:
        """Whether somebody belongs to it."""
        return any(person in team.members for team in self.teams)

    def is_owned_by(self, person: Person) -> bool:
        """Whether somebody is in the team of its owners."""
        return any(person in t.members for t in self.teams if t.permission == "owner")

    def team(self, name: str) -> Team | None:
        """One of its teams, case aside."""
        return next((t for t in self.teams if t.name.lower() == name.lower()), None)

    def to_json(self, url: str) -> dict[str, Any]:
        """One entry of `GET /api/v1/user/orgs`."""
        return {
            "id": self.id,
            "name": self.name,
            "full_name": self.full_name,
            "email": "",
            "avatar_url": f"{url}/avatars/{self.name}",
            "description": "",
            "website": "",
            "location": "",
            "visibility": "private",
            "repo_admin_change_team_access": False,
            "username": self.name,
        }


@define(eq=False)
class Issue:
    """One issue of a repository; `number` counts from 1 within it."""

    id: int
    number: int
    author: Person
    title: str
    body: str
    created_at: float
    state: str = "open"

    def to_json(self, url: str, repository: Repository) -> dict[str, Any]:
        """One issue as the API shows it."""
        path = f"{repository.full_name}/issues/{self.number}"
        return {
            "id": self.id,
            "url": f"{url}/api/v1/repos/{path}",
            "html_url": f"{url}/{path}",
            "number": self.number,
            "user": self.author.to_json(url),
            "original_author": "",
            "original_author_id": 0,
            "title": self.title,
            "body": self.body,
            "ref": "",
            "assets": [],
            "labels": [],
            "milestone": None,
            "assignee": None,
            "assignees": None,
            "state": self.state,
            "is_locked": False,
            "comments": 0,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.created_at),
            "closed_at": None,
            "due_date": None,
            "pull_request": None,
            "repository": {
                "id": repository.id,
                "name": repository.name,
                "owner": repository.owner.login,
                "full_name": repository.full_name,
            },
            "pin_order": 0,
        }


@define(eq=False)
class Repository:
    """One repository; its owner writes, others read it where it is public."""

    id: int
    owner: Person
    name: str
    description: str
    private: bool = False
    issues: list[Issue] = field(factory=list)

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner.login}/{self.name}"

    def seen_by(self, person: Person | None) -> bool:
        """Whether this person, or an anonymous caller, may know of it."""
        return not self.private or person is self.owner

    def to_json(self, url: str, viewer: Person | None) -> dict[str, Any]:
        """One repository as the API shows it to `viewer`."""
        here = f"{url}/{self.full_name}"
        owns = viewer is self.owner
        return {
            "id": self.id,
            "owner": self.owner.to_json(url),
            "name": self.name,
            "full_name": self.full_name,
            "description": self.description,
            "empty": True,
            "private": self.private,
            "fork": False,
            "template": False,
            "parent": None,
            "mirror": False,
            "size": 22,
            "language": "",
            "languages_url": f"{url}/api/v1/repos/{self.full_name}/languages",
            "html_url": here,
            "url": f"{url}/api/v1/repos/{self.full_name}",
            "link": "",
            "ssh_url": f"ssh://git@demo.invalid/{self.full_name}.git",
            "clone_url": f"{here}.git",
            "original_url": "",
            "website": "",
            "stars_count": 0,
            "forks_count": 0,
            "watchers_count": 1,
            "open_issues_count": sum(issue.state == "open" for issue in self.issues),
            "open_pr_counter": 0,
            "release_counter": 0,
            "default_branch": "main",
            "archived": False,
            "created_at": stamp(0),
            "updated_at": stamp(0),
            "archived_at": "1970-01-01T00:00:00Z",
            "permissions": {"admin": owns, "push": owns, "pull": True},
            "has_issues": True,
            "internal_tracker": {
                "enable_time_tracker": True,
                "allow_only_contributors_to_track_time": True,
                "enable_issue_dependencies": True,
            },
            "has_wiki": True,
            "has_pull_requests": True,
            "has_projects": True,
            "has_releases": True,
            "has_packages": True,
            "has_actions": True,
            "avatar_url": "",
            "internal": False,
            "mirror_interval": "",
            "object_format_name": "sha1",
            "topics": [],
        }


@define(eq=False)
class Instance:
    """Everybody and everything at this Forgejo."""

    people: list[Person] = field(factory=list)
    repositories: list[Repository] = field(factory=list)
    organizations: list[Organization] = field(factory=list)
    _issues: int = 0

    def person(self, login: str) -> Person | None:
        """Somebody by login, case aside, or by e-mail address."""
        low = login.lower()
        return next((p for p in self.people if low in (p.login, p.email)), None)

    def person_named(self, login: str) -> Person | None:
        """Somebody by login, case aside."""
        return next((p for p in self.people if p.login == login.lower()), None)

    def by_id(self, person_id: int) -> Person | None:
        """Somebody by number."""
        return next((p for p in self.people if p.id == person_id), None)

    def organizations_of(self, person: Person) -> list[Organization]:
        """Those that somebody belongs to, by name."""
        mine = [o for o in self.organizations if o.has(person)]
        return sorted(mine, key=lambda organization: organization.name.lower())

    def teams_of(self, person: Person) -> list[tuple[Organization, Team]]:
        """Those that somebody is in, of all organizations, by name."""
        mine = [(o, t) for o in self.organizations for t in o.teams if person in t.members]
        return sorted(mine, key=lambda each: each[1].name.lower())

    def organization(self, name: str) -> Organization | None:
        """An organization, case aside."""
        return next((o for o in self.organizations if o.name.lower() == name.lower()), None)

    def team(self, named: str) -> Team | None:
        """A team by `organization:team`, case aside."""
        of, _, name = named.partition(":")
        organization = self.organization(of)
        return None if organization is None else organization.team(name)

    def team_by_id(self, number: str) -> tuple[Organization, Team] | None:
        """A team by its number, and whose it is."""
        every = ((o, t) for o in self.organizations for t in o.teams)
        return next((each for each in every if f"{each[1].id}" == number), None)

    def repository(self, owner: str, name: str, viewer: Person | None) -> Repository | None:
        """A repository that `viewer` may know of."""
        asked = f"{owner}/{name}".lower()
        found = next((r for r in self.repositories if r.full_name == asked), None)
        return found if found is not None and found.seen_by(viewer) else None

    def open_issue(
        self, repository: Repository, author: Person, title: str, body: str, now: float
    ) -> Issue:
        """File an issue."""
        self._issues += 1
        issue = Issue(self._issues, len(repository.issues) + 1, author, title, body, now)
        repository.issues.append(issue)
        return issue


def demo_instance(now: float) -> Instance:
    """
    Alice and Bob, each with public repositories and a private one.  Bob owns
    an organization, the allotment, of whose keepers Alice is one.

    Their passwords are `alice-demo-password` and `bob-demo-password`.
    """
    alice = Person(2, "alice", "Alice Demo", "alice-demo-password")
    bob = Person(3, "bob", "Bob Demo", "bob-demo-password")
    garden = Repository(1, alice, "garden", "What grows where")
    diary = Repository(2, alice, "diary", "Nobody else's business", private=True)
    workshop = Repository(3, bob, "workshop", "Things half built")
    ledger = Repository(4, bob, "ledger", "What everything cost", private=True)
    owners, keepers = Team(1, "Owners", "owner", [bob]), Team(2, "Keepers", "write", [alice])
    visitors = Team(3, "visitors", "read")
    allotment = Organization(4, "Allotment", "The allotment", [owners, keepers, visitors])
    instance = Instance([alice, bob], [garden, diary, workshop, ledger], [allotment])
    for repository, author, title in (
        (garden, alice, "The roses need water"),
        (garden, bob, "A snail got into the lettuce"),
        (diary, alice, "Remember the dentist"),
        (workshop, bob, "The vice is loose"),
        (ledger, bob, "Who bought four hammers?"),
    ):
        instance.open_issue(repository, author, title, "", now)
    return instance
