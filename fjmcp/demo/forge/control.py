"""
The stand-in's switches over HTTP, under `/_demo/`: JSON in, JSON out.

They are no part of Forgejo.  A page in a browser can't reach them: requests
with an `Origin`, or from another machine, are refused.

    GET    /_demo/calls     how often each endpoint was called
    DELETE /_demo/calls     count anew
    GET    /_demo/trouble   the troubles set, and how many requests they hold
    POST   /_demo/trouble   set one: {"kind", "path", "times", "seconds", "status"}
    DELETE /_demo/trouble   clear all; requests that were held go on
    GET    /_demo/grants    the live grants, with their counters
    POST   /_demo/revoke    {"login"}: end this person's grants
    POST   /_demo/people    {"login", "prohibited"|"active"|"must_change_password"|"is_admin": bool}
    POST   /_demo/teams     {"login", "organization:team": bool}: in that team or out of it
    POST   /_demo/settings  {"access_token_seconds"|"refresh_token_seconds": number,
                             "invalidate_refresh_tokens": bool}
    POST   /_demo/tokens    {"login", "scope"}: a pair without sign-in; it counts as an exchange
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, ClassVar, Final

from attrs import asdict, define, field
from klein import Klein
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.server import Request

from fjmcp.demo.forge.accounts import Instance, Person
from fjmcp.demo.forge.answers import Answer, json_answer, json_of
from fjmcp.demo.forge.grants import Grants
from fjmcp.demo.forge.trouble import Troubles, serves

_PERSON: Final = ("prohibited", "active", "must_change_password", "is_admin")
_SETTINGS: Final = {
    "access_token_seconds": "access_seconds",
    "refresh_token_seconds": "refresh_seconds",
    "invalidate_refresh_tokens": "invalidate",
}


@define(slots=False, eq=False)
class Control:
    """`/_demo/`: its own calls are neither counted nor troubled."""

    instance: Instance
    grants: Grants
    disturbed: Troubles
    hand_out: Callable[[str, str], dict[str, Any]]
    troubles: Troubles = field(init=False)

    app: ClassVar[Klein] = Klein()

    def __attrs_post_init__(self) -> None:
        self.troubles = Troubles(self.disturbed.clock)

    @serves(app, "/_demo/calls", "GET", "DELETE")
    def calls(self, request: Request) -> Answer:
        """Count."""
        if refused := _from_elsewhere(request):
            return refused
        if request.method == b"DELETE":
            self.disturbed.calls.clear()
        return json_answer(dict(self.disturbed.calls))

    @serves(app, "/_demo/trouble", "GET", "POST", "DELETE")
    def trouble(self, request: Request) -> Answer:
        """Look, set, clear."""
        if refused := _from_elsewhere(request):
            return refused
        if request.method == b"DELETE":
            self.disturbed.clear()
        elif request.method == b"POST":
            try:
                self.disturbed.set(**_said(request))
            except (TypeError, ValueError) as problem:
                return _wrong(str(problem))
        current = [asdict(trouble) for trouble in self.disturbed.current]
        return json_answer({"troubles": current, "held": self.disturbed.held})

    @serves(app, "/_demo/grants", "GET")
    def look(self, request: Request) -> Answer:
        """The live grants."""
        return _from_elsewhere(request) or self._grants()

    @serves(app, "/_demo/revoke", "POST")
    def revoke(self, request: Request) -> Answer:
        """End a person's grants."""
        person = self._person(request)
        if isinstance(person, Answer):
            return person
        for grant in [g for g in self.grants.live.values() if g.person == person.id]:
            self.grants.revoke(grant)
        return self._grants()

    @serves(app, "/_demo/people", "POST")
    def people(self, request: Request) -> Answer:
        """The administrator's switches of a person."""
        said = _said(request)
        person = self._person(request, said)
        if isinstance(person, Answer):
            return person
        for name in _PERSON:
            setattr(person, name, bool(said.get(name, getattr(person, name))))
        return json_answer({name: getattr(person, name) for name in ("login", *_PERSON)})

    @serves(app, "/_demo/teams", "POST")
    def teams(self, request: Request) -> Answer:
        """Put a person into teams, and take them out."""
        said = _said(request)
        person = self._person(request, said)
        if isinstance(person, Answer):
            return person
        wanted = {name: member for name, member in said.items() if name != "login"}
        found = {name: self.instance.team(name) for name in wanted}
        for name, team in found.items():
            if team is None:
                return _wrong(f"no such team: {name}")
            team.members = [each for each in team.members if each is not person]
            if wanted[name]:
                team.members.append(person)
        mine = [f"{of.name}:{team.name}" for of, team in self.instance.teams_of(person)]
        return json_answer({"login": person.login, "teams": mine})

    @serves(app, "/_demo/settings", "POST")
    def settings(self, request: Request) -> Answer:
        """The instance's settings."""
        if refused := _from_elsewhere(request):
            return refused
        for name, value in _said(request).items():
            if name not in _SETTINGS or not isinstance(value, int | float):
                return _wrong(f"no such setting, or not a number: {name}")
            setattr(self.grants, _SETTINGS[name], value)
        return json_answer({n: getattr(self.grants, field) for n, field in _SETTINGS.items()})

    @serves(app, "/_demo/tokens", "POST")
    def tokens(self, request: Request) -> Answer:
        """A pair without sign-in."""
        said = _said(request)
        person = self._person(request, said)
        if isinstance(person, Answer):
            return person
        return json_answer(self.hand_out(person.login, str(said.get("scope", ""))))

    def _person(self, request: Request, said: dict[str, Any] | None = None) -> Person | Answer:
        if refused := _from_elsewhere(request):
            return refused
        login = (said if said is not None else _said(request)).get("login")
        person = self.instance.person(login) if isinstance(login, str) else None
        return person or _wrong(f"nobody has this login: {login}")

    def _grants(self) -> Answer:
        return json_answer(
            [
                {
                    "id": grant.id,
                    "person": grant.person,
                    "client_id": grant.application.client_id,
                    "scope": grant.scope,
                    "counter": grant.counter,
                }
                for grant in self.grants.live.values()
            ]
        )


def _said(request: Request) -> dict[str, Any]:
    return json_of(request.content.read() if request.content is not None else b"")


def _wrong(problem: str) -> Answer:
    return json_answer({"error": problem}, 400)


def _from_elsewhere(request: Request) -> Answer | None:
    peer = request.getClientAddress()
    near = isinstance(peer, IPv4Address | IPv6Address) and ip_address(peer.host).is_loopback
    if near and request.getHeader("origin") is None:
        return None
    return json_answer({"error": "the switches are for programs on this machine"}, 403)
