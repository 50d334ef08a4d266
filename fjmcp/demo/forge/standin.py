"""The stand-in Forgejo, put together of its rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import Factory, define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from fjmcp.demo.forge.accounts import Instance, demo_instance
from fjmcp.demo.forge.api import Api
from fjmcp.demo.forge.bearers import Bearers
from fjmcp.demo.forge.control import Control
from fjmcp.demo.forge.grants import ACCESS_SECONDS, Application, Grants
from fjmcp.demo.forge.oauth import OAuth
from fjmcp.demo.forge.pages import Pages
from fjmcp.demo.forge.tokens import SigningKey, process_key
from fjmcp.demo.forge.trouble import Troubles

CLIENT_ID: Final = "de300000-0000-4000-8000-000000000001"
CLIENT_SECRET: Final = "gto_demo-secret-for-nothing-real"
REDIRECT_URI: Final = "http://127.0.0.1:8080/oauth/callback"


@define(slots=False, eq=False)
class StandIn:
    """
    One stand-in Forgejo.

    `public_url` is its ROOT_URL, without a slash at the end.  `resource` is
    the root of its site: give it to a `Site`, or to treq's
    `RequestTraversalAgent`.  `refuse`, where there is a listener, closes it
    for some seconds.
    """

    clock: IReactorTime
    public_url: str
    client_id: str = CLIENT_ID
    client_secret: str = field(default=CLIENT_SECRET, repr=False)
    redirect_uris: tuple[str, ...] = (REDIRECT_URI,)
    confidential: bool = True
    access_seconds: float = ACCESS_SECONDS
    refuse: Callable[[float], None] | None = None
    key: SigningKey = Factory(process_key)

    instance: Instance = field(init=False)
    grants: Grants = field(init=False)
    troubles: Troubles = field(init=False)
    application: Application = field(init=False)
    resource: IResource = field(init=False)

    def __attrs_post_init__(self) -> None:
        clock, url = self.clock, self.public_url
        self.instance = demo_instance(clock.seconds())
        self.grants = Grants(access_seconds=self.access_seconds)
        self.troubles = Troubles(clock, self.refuse)
        self.application = self.grants.register(
            Application(self.client_id, self.client_secret, self.redirect_uris, self.confidential)
        )
        bearers = Bearers(clock, self.instance, self.grants, self.key)
        self._oauth = OAuth(
            clock, url, self.instance, self.grants, self.key, bearers, self.troubles
        )
        control = Control(self.instance, self.grants, self.troubles, self.hand_out)
        oauth, api = (
            self._oauth.app.resource(),
            Api(clock, url, self.instance, bearers, self.troubles),
        )
        pages = Pages(url, self.instance, self.grants, self.troubles).app.resource()
        self.resource = Front(
            [
                ("/_demo/", control.app.resource()),
                ("/api/", api.app.resource()),
                ("/login/oauth/authorize", pages),
                ("/login/oauth/grant", pages),
                ("/login/oauth/", oauth),
                ("/.well-known/", oauth),
                ("/", pages),
            ]
        )

    def hand_out(self, login: str, scope: str, client_id: str | None = None) -> dict[str, Any]:
        """
        A token answer without sign-in, for tests that start later.

        Makes the grant if there is none (else the old scope stays) and moves
        its counter like any exchange.  Raises LookupError for strangers.
        """
        person = self.instance.person(login)
        application = self.grants.applications.get(client_id or self.client_id)
        if person is None or application is None:
            raise LookupError(f"no such person or application: {login}, {client_id}")
        grant = self.grants.of(person.id, application)
        return self._oauth.pair(grant or self.grants.allow(person.id, application, scope))

    def revoke(self, login: str) -> None:
        """End all grants of a person, as the settings page does."""
        person = self.instance.person(login)
        for grant in list(self.grants.live.values()):
            if person is not None and grant.person == person.id:
                self.grants.revoke(grant)

    def calls(self, endpoint: str) -> int:
        """How often `"POST /login/oauth/access_token"`, say, was called."""
        return self.troubles.calls[endpoint]


class Front(Resource):
    """The root: hands each path to the room that has it."""

    isLeaf = True

    def __init__(self, rooms: Sequence[tuple[str, IResource]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rooms = rooms

    def render(self, request: Request) -> int | bytes:
        """Render the first room whose prefix fits; the last one's is `/`."""
        path = request.path.decode("utf-8", "replace")
        room = next((room for prefix, room in self._rooms if path.startswith(prefix)), None)
        if room is None:  # not even a slash, as in `OPTIONS *`
            request.setResponseCode(400)
            return b""
        answer: int | bytes = room.render(request)
        return answer
