"""
The stand-in Forgejo: put together, and as a process of its own.

    python -m fjmcp.demo.forge --listen 127.0.0.1:0

prints `ready http://127.0.0.1:PORT` once it listens.  Client id and secret
may come from FJMCP_DEMO_CLIENT_ID and FJMCP_DEMO_CLIENT_SECRET.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from fjmcp.demo.forge_accounts import Instance, demo_instance
from fjmcp.demo.forge_api import Api
from fjmcp.demo.forge_bearers import Bearers
from fjmcp.demo.forge_control import Control
from fjmcp.demo.forge_grants import ACCESS_SECONDS, Application, Grants
from fjmcp.demo.forge_oauth import OAuth
from fjmcp.demo.forge_pages import Pages
from fjmcp.demo.forge_tokens import SigningKey, process_key
from fjmcp.demo.forge_trouble import KINDS, Trouble, Troubles

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


class QuietSite(Site):
    """A site that writes no access log: URLs here hold codes and tokens."""

    def log(self, request: HttpRequest) -> None:
        """Write nothing."""


@define(eq=False)
class Door:
    """The listening port of a real process, which `refuse` can close for a while."""

    reactor: Any
    host: str
    site: QuietSite = field(factory=lambda: QuietSite(Resource()))  # type: ignore[no-untyped-call]
    troubles: Troubles | None = None
    port: int = 0
    _listening: IListeningPort | None = None

    def open(self) -> int:
        """Listen; answer the port, which stays the same from then on."""
        self._listening = self.reactor.listenTCP(self.port, self.site, interface=self.host)
        address: Any = self._listening.getHost()
        self.port = address.port
        return self.port

    def close_for(self, seconds: float) -> None:
        """Refuse connections; those that are open are dropped at their next request."""
        if self._listening is None or self.troubles is None:
            return
        listening, self._listening = self._listening, None
        listening.stopListening()
        drop = Trouble("drop")
        self.troubles.current.insert(0, drop)
        self.reactor.callLater(seconds, self._open_again, drop)

    def _open_again(self, drop: Trouble) -> None:
        if self.troubles is not None and drop in self.troubles.current:
            self.troubles.current.remove(drop)
        self.open()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("fjmcp.demo.forge", description="A stand-in Forgejo.")
    env = os.environ
    add = parser.add_argument
    add("--listen", default="127.0.0.1:3000", metavar="HOST:PORT", help="loopback; port 0 is free")
    add("--public-url", help="its ROOT_URL, without a slash at the end; default: where it listens")
    add("--client-id", default=env.get("FJMCP_DEMO_CLIENT_ID", CLIENT_ID))
    add("--client-secret", default=env.get("FJMCP_DEMO_CLIENT_SECRET", CLIENT_SECRET))
    add("--redirect-uri", action="append", help=f"may be repeated; default {REDIRECT_URI}")
    add("--public-client", action="store_true", help="an application without a secret")
    add("--access-token-seconds", type=float, default=ACCESS_SECONDS)
    add("--keep-refresh-tokens", action="store_true", help="INVALIDATE_REFRESH_TOKENS=false")
    add(
        "--trouble",
        action="append",
        default=[],
        metavar="KIND[@PATH]",
        help="from the start; " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
    )
    parsed = parser.parse_args(arguments)
    parsed.host, _, port = parsed.listen.rpartition(":")
    parsed.host = parsed.host.strip("[]").replace("localhost", "127.0.0.1")
    try:
        parsed.port, loopback = int(port), ip_address(parsed.host).is_loopback
    except ValueError:
        parser.error("--listen is HOST:PORT, for example 127.0.0.1:3000")
    if not loopback:
        parser.error("--listen must be loopback: passwords here are public, and so are switches")
    return parsed


async def serve(reactor: Any, chosen: argparse.Namespace) -> None:
    """Listen, say so, and go on until a signal."""
    door = Door(reactor, chosen.host, port=chosen.port)
    port = door.open()
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    here = f"http://{host}:{port}"
    stand_in = StandIn(
        reactor,
        (chosen.public_url or here).rstrip("/"),
        client_id=chosen.client_id,
        client_secret=chosen.client_secret,
        redirect_uris=tuple(chosen.redirect_uri or [REDIRECT_URI]),
        confidential=not chosen.public_client,
        access_seconds=chosen.access_token_seconds,
        refuse=door.close_for,
    )
    stand_in.grants.invalidate = not chosen.keep_refresh_tokens
    door.troubles, door.site.resource = stand_in.troubles, stand_in.resource
    for trouble in chosen.trouble:
        kind, _, path = trouble.partition("@")
        stand_in.troubles.set(kind, path or "/")
    print(f"ready {here}", flush=True)
    await Deferred()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stand-in as this process."""
    chosen = options(arguments)
    loud = LogLevelFilterPredicate(LogLevel.warn)
    stderr = FilteringLogObserver(textFileLogObserver(sys.stderr), [loud])
    globalLogBeginner.beginLoggingTo([stderr], redirectStandardIO=False)
    react(lambda reactor: Deferred.fromCoroutine(serve(reactor, chosen)))


if __name__ == "__main__":
    main()
