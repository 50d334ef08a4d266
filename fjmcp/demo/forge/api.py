"""
The API of the stand-in: what the children's everyday tools ask for.

The checks come in Forgejo's order: a bad token 401, a blocked person 403, a
scope that is missing 403, then what is private and somebody else's 404.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from attrs import define, frozen
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from fjmcp.demo.forge.accounts import Instance, Organization, Person, Repository
from fjmcp.demo.forge.answers import Answer, json_answer, json_of, query_of, see_other
from fjmcp.demo.forge.bearers import Bearer, Bearers, Rejected
from fjmcp.demo.forge.trouble import Troubles, serves

VERSION: Final = "16.0.0+gitea-1.22.0"

PROHIBITED: Final = (
    "This account is prohibited from signing in, please contact your site administrator."
)
_PAGE: Final = 50
"""The most entries of one page (MAX_RESPONSE_ITEMS)."""

_HERE: Final = "/api/v1/repos/<owner>/<name>"


@frozen
class Caller:
    """Who asks: an anonymous caller has no person and no scope."""

    person: Person | None
    public_only: bool = False


@define(slots=False, eq=False)
class Api:
    """`/api/v1`."""

    clock: IReactorTime
    url: str
    instance: Instance
    bearers: Bearers
    troubles: Troubles

    app: ClassVar[Klein] = Klein()

    @serves(app, "/api/v1/version", "GET")
    def version(self, request: Request) -> Answer:
        """Needs no scope, and yet no bad token."""
        caller = self._caller(request)
        return caller if isinstance(caller, Answer) else json_answer({"version": VERSION})

    @serves(app, "/api/v1/user", "GET")
    def user(self, request: Request) -> Answer:
        """The person of the token."""
        person = self._person(request, "user")
        return person if isinstance(person, Answer) else json_answer(person.to_json(self.url))

    @serves(app, "/api/v1/user/orgs", "GET")
    def own_organizations(self, request: Request) -> Answer:
        """The organizations that the person belongs to, private ones too."""
        person = self._person(request, "user organization")
        if isinstance(person, Answer):
            return person
        mine = self.instance.organizations_of(person)
        return _paged(request, [organization.to_json(self.url) for organization in mine])

    @serves(app, "/api/v1/user/teams", "GET")
    def own_teams(self, request: Request) -> Answer:
        """The teams that the person is in, of all organizations."""
        person = self._person(request, "user")
        if isinstance(person, Answer):
            return person
        mine = self.instance.teams_of(person)
        return _paged(request, [team.to_json(self.url, of) for of, team in mine])

    @serves(app, "/api/v1/orgs/<name>/members/<login>", "GET")
    def organization_member(self, request: Request, name: str, login: str) -> Answer:
        """Whether somebody is a member: told to members, and of oneself."""
        found = self._organization(request, name)
        if isinstance(found, Answer):
            return found
        person, organization = found
        asked = self.instance.person_named(login)
        if asked is None:
            return self._not_found()
        if organization.has(person) or person.is_admin or person is asked:
            return Answer(204, b"") if organization.has(asked) else self._not_found()
        path = urlsplit(self.url).path
        return see_other(f"{path}/api/v1/orgs/{organization.name}/public_members/{asked.login}")

    @serves(app, "/api/v1/orgs/<name>/teams/search", "GET")
    def search_teams(self, request: Request, name: str) -> Answer:
        """A member's own teams of an organization with `q` in their names, an administrator's
        all."""
        found = self._organization(request, name)
        if isinstance(found, Answer):
            return found
        person, organization = found
        if not (organization.has(person) or person.is_admin):
            return self._refused(403, "Must be an organization member")
        word = query_of(request).get("q", "").lower()
        teams = [
            team.to_json(self.url, organization)
            for team in sorted(organization.teams, key=lambda team: team.name.lower())
            if word in team.name.lower() and (person.is_admin or person in team.members)
        ]
        return _paged(request, teams, wrapped=True)

    @serves(app, "/api/v1/teams/<number>/members/<login>", "GET")
    def team_member(self, request: Request, number: str, login: str) -> Answer:
        """Somebody, if they are in a team: told to who is in it, and to owners."""
        person = self._person(request, "organization")
        if isinstance(person, Answer):
            return person
        found = self.instance.team_by_id(number)
        if found is None:
            return self._not_found()
        organization, team = found
        owns = organization.is_owned_by(person) or person.is_admin
        if not owns and person not in team.members:
            here = organization.has(person)
            return self._refused(403, "Must be a team member") if here else self._not_found()
        asked = self.instance.person_named(login)
        if asked is None or asked not in team.members:
            return self._not_found()
        return json_answer(asked.to_json(self.url))

    @serves(app, "/api/v1/user/repos", "GET")
    def own_repositories(self, request: Request) -> Answer:
        """The person's repositories, private ones too."""
        person = self._person(request, "user", "repository")
        if isinstance(person, Answer):
            return person
        caller = self._caller(request)
        shut = isinstance(caller, Answer) or caller.public_only
        mine = [
            r.to_json(self.url, person)
            for r in self.instance.repositories
            if r.owner is person and not (shut and r.private)
        ]
        return _paged(request, mine)

    @serves(app, "/api/v1/users/<login>/repos", "GET")
    def repositories_of(self, request: Request, login: str) -> Answer:
        """Somebody's repositories, as far as the caller may know of them."""
        caller = self._caller(request, "user", "repository")
        if isinstance(caller, Answer):
            return caller
        owner = self.instance.person(login)
        if owner is None:
            return self._not_found()
        seen = self._seen(caller)
        return _paged(
            request, [r.to_json(self.url, caller.person) for r in seen if r.owner is owner]
        )

    @serves(app, "/api/v1/repos/search", "GET")
    def search(self, request: Request) -> Answer:
        """Repositories whose name has `q` in it."""
        caller = self._caller(request, "repository")
        if isinstance(caller, Answer):
            return caller
        asked = query_of(request).get("q", "").lower()
        found = [
            r.to_json(self.url, caller.person) for r in self._seen(caller) if asked in r.full_name
        ]
        return _paged(request, found, wrapped=True)

    @serves(app, _HERE, "GET")
    def repository(self, request: Request, owner: str, name: str) -> Answer:
        """One repository."""
        found = self._repository(request, owner, name, "repository")
        if isinstance(found, Answer):
            return found
        caller, repository = found
        return json_answer(repository.to_json(self.url, caller.person))

    @serves(app, f"{_HERE}/issues", "GET")
    def issues(self, request: Request, owner: str, name: str) -> Answer:
        """Issues, newest first; the open ones unless `state` says else."""
        found = self._repository(request, owner, name, "issue")
        if isinstance(found, Answer):
            return found
        _, repository = found
        asked = query_of(request)
        state = asked.get("state") or "open"
        wanted = [i for i in repository.issues if state in ("all", i.state)]
        if asked.get("type") == "pulls":
            wanted = []
        return _paged(request, [i.to_json(self.url, repository) for i in reversed(wanted)])

    @serves(app, f"{_HERE}/issues/<number>", "GET")
    def issue(self, request: Request, owner: str, name: str, number: str) -> Answer:
        """One issue."""
        found = self._repository(request, owner, name, "issue")
        if isinstance(found, Answer):
            return found
        _, repository = found
        wanted = next((i for i in repository.issues if str(i.number) == number), None)
        if wanted is None:
            return self._not_found()
        return json_answer(wanted.to_json(self.url, repository))

    @serves(app, f"{_HERE}/issues", "POST")
    def open_issue(self, request: Request, owner: str, name: str) -> Answer:
        """File an issue, for which somebody has to be signed in."""
        found = self._repository(request, owner, name, "issue")
        if isinstance(found, Answer):
            return found
        caller, repository = found
        if caller.person is None:
            return self._refused(401, "token is required")
        said = json_of(request.content.read() if request.content is not None else b"")
        title, body = said.get("title"), said.get("body")
        if not isinstance(title, str) or not title.strip():
            return self._refused(422, "[Title]: Required")
        text = body if isinstance(body, str) else ""
        issue = self.instance.open_issue(
            repository, caller.person, title, text, self.clock.seconds()
        )
        return json_answer(issue.to_json(self.url, repository), 201)

    @serves(app, "/api/<path:rest>", "GET", "POST", "PUT", "PATCH", "DELETE")
    def anything_else(self, request: Request, rest: str) -> Answer:
        """The token is judged before the path."""
        caller = self._caller(request)
        return caller if isinstance(caller, Answer) else self._not_found()

    def _caller(self, request: Request, *categories: str) -> Caller | Answer:
        """
        Who asks, or the refusal; the method says whether reading is enough.

        Of categories within one word the refusal names all.
        """
        bearer = self.bearers.of(request)
        if isinstance(bearer, Rejected):
            return self._refused(401, bearer.message)
        if bearer is None:
            return Caller(None)
        if blocked := self._blocked(bearer.person):
            return json_answer({"message": blocked}, 403)
        verb = "read" if request.method in (b"GET", b"HEAD") else "write"
        return self._scoped(
            bearer, [[f"{verb}:{each}" for each in category.split()] for category in categories]
        )

    def _scoped(self, bearer: Bearer, needs: Sequence[Sequence[str]]) -> Caller | Answer:
        for together in needs:
            if not all(map(bearer.scope.permits, together)):
                listed = " ".join(together)
                return self._refused(
                    403, f"token does not have at least one of required scope(s): [{listed}]"
                )
        return Caller(bearer.person, bearer.scope.public_only)

    def _blocked(self, person: Person) -> str | None:
        if not person.active or person.prohibited:
            return PROHIBITED
        if person.must_change_password:
            return f"You must change your password. Change it at: {self.url}/user/change_password"
        return None

    def _person(self, request: Request, *categories: str) -> Person | Answer:
        caller = self._caller(request, *categories)
        if isinstance(caller, Answer):
            return caller
        return caller.person or self._refused(401, "token is required")

    def _organization(self, request: Request, name: str) -> tuple[Person, Organization] | Answer:
        person = self._person(request, "organization")
        if isinstance(person, Answer):
            return person
        organization = self.instance.organization(name)
        if organization is None:
            return self._not_found()
        caller = self._caller(request)
        if isinstance(caller, Answer) or caller.public_only:
            return self._refused(403, "token scope is limited to public orgs")
        return person, organization

    def _repository(
        self, request: Request, owner: str, name: str, category: str
    ) -> tuple[Caller, Repository] | Answer:
        caller = self._caller(request, category)
        if isinstance(caller, Answer):
            return caller
        repository = self.instance.repository(owner, name, caller.person)
        if repository is None:
            return self._not_found()
        if repository.private and caller.public_only:
            things = "issues" if category == "issue" else "repos"
            return self._refused(403, f"token scope is limited to public {things}")
        return caller, repository

    def _seen(self, caller: Caller) -> list[Repository]:
        return [
            r
            for r in self.instance.repositories
            if r.seen_by(caller.person) and not (caller.public_only and r.private)
        ]

    def _refused(self, status: int, message: str) -> Answer:
        return json_answer({"message": message, "url": f"{self.url}/api/swagger"}, status)

    def _not_found(self) -> Answer:
        message = "The target couldn't be found."
        said = {"errors": [], "message": message, "url": f"{self.url}/api/swagger"}
        return json_answer(said, 404)


def _paged(request: Request, entries: list[dict[str, Any]], wrapped: bool = False) -> Answer:
    """One page of a list, by `page` and `limit`."""
    asked = query_of(request)
    size = min(_number(asked.get("limit"), 30), _PAGE)
    start = (_number(asked.get("page"), 1) - 1) * size
    part = entries[start : start + size]
    answer = json_answer({"ok": True, "data": part} if wrapped else part)
    return answer.adding([("X-Total-Count", str(len(entries)))])


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and int(text) > 0 else default
