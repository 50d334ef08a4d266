"""
The parts of the daemon, made and joined: the only place where that is done.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from attrs import define, evolve
from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.broker.credentials import Credential, Credentials
from fjmcp.broker.documents import Documents
from fjmcp.broker.elsewhere import Elsewhere
from fjmcp.broker.endings import Endings
from fjmcp.broker.issuer import Issuer
from fjmcp.broker.personal import Personal
from fjmcp.broker.pool import Bounds, Pool
from fjmcp.broker.registrar import Registrar
from fjmcp.broker.sessions import Session, Sessions
from fjmcp.broker.signins import SignIns
from fjmcp.broker.upkeep import Job, Upkeep
from fjmcp.broker.uses import Uses
from fjmcp.children.launch import Launcher
from fjmcp.children.profiles import Command, command_for
from fjmcp.daemon.clocks import Trust
from fjmcp.daemon.descriptors import connections, descriptors
from fjmcp.daemon.measured import MeasuredPeer
from fjmcp.daemon.settings import Settings
from fjmcp.daemon.version import VERSION
from fjmcp.fetch.documents import Errand, Fetcher
from fjmcp.forge.client import Forge
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth import uris
from fjmcp.oauth.clientele import Clientele
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.refusals import GONE_SESSION, UNKNOWN_SESSION, McpRefusal
from fjmcp.store.queries import expiry
from fjmcp.store.transactions import Store
from fjmcp.store.vault import Sealing
from fjmcp.tasks import Tasks
from fjmcp.web.addresses import Addresses
from fjmcp.web.authorize import Authorize
from fjmcp.web.cookies import Cookies
from fjmcp.web.discovery import Discovery
from fjmcp.web.endpoint import Endpoint
from fjmcp.web.gate import Gate
from fjmcp.web.health import Health
from fjmcp.web.rates import Rates
from fjmcp.web.registration import Registration
from fjmcp.web.site import Site
from fjmcp.web.streams import Streams
from fjmcp.web.token import Token
from fjmcp.web.unread import Unread

_USER_AGENT = f"fjmcp/{VERSION}"


@define(eq=False)
class Parts:
    """What runs once the store is open, joined."""

    clock: IReactorTime
    credentials: Credentials
    pool: Pool[Credential]
    streams: Streams
    tasks: Tasks
    site: Site
    forge: Forge
    sessions: Sessions
    uses: Uses
    endings: Endings
    registrar: Registrar
    store: Store
    mcp: Endpoint
    upkeep: Upkeep
    elsewhere: Elsewhere
    trust: Trust

    def adopt(self, settings: Settings) -> None:
        """Work with other values from now on; of which settings, says `reloading.LIVE`."""
        self.pool.rebound(Bounds(children=settings.max_sessions))
        self.credentials.lead = settings.token_refresh_lead
        self.credentials.admission = settings.admission
        self.sessions.unknown = unknown_session(settings)
        self.mcp.require_session_id = settings.require_session_id
        self.registrar.clientele = clientele(settings)
        self.site.allow(settings.allowed_origins)
        self.site.room = connections(settings.max_sessions, descriptors())
        self.schedule(settings)

    def schedule(self, settings: Settings) -> None:
        """Say what is done again and again, and how often."""
        idle = settings.session_idle_timeout

        async def reap() -> None:
            self.pool.reap(idle)

        async def rotate() -> None:
            await self.pool.rotate()
            await self.credentials.refresh_sleeping()

        async def expire() -> None:
            if not self.trust.look():
                return
            # First: which grants have been idle depends on it.
            await self.uses.write_down()
            await self.endings.expire()
            await self.registrar.expire()
            await self.sessions.expire()
            await self.store.write(expiry.sweep, self.clock.seconds())

        for job in (
            Job("reaping idle children", settings.session_reap_interval, reap),
            Job("rotating credentials", settings.token_refresh_interval, rotate),
            Job("dropping what has expired", limits.EXPIRE, expire),
            Job("writing down the use of sessions", limits.FLUSH, self.uses.write_down),
        ):
            self.upkeep.also(job)


def assemble(
    settings: Settings,
    store: Store,
    ring: Sealing,
    clock: IReactorTime,
    http: HTTPClient,
    errand: Callable[[], Errand],
    launcher: Launcher,
    unready: Callable[[], str | None],
    meter: Meter = SILENT,
    ticks: IReactorTime | None = None,
) -> Parts:
    """
    Every part with what it needs, and nothing else.

    :param clock: epoch seconds, for all that rows and tokens know.
    :param ticks: seconds that nobody sets, for what only this process measures;
        by default the clock.
    :param http: how Forgejo is reached.
    :param errand: how hosts that strangers name are reached.
    :param launcher: how children are started.
    :param unready: why the process wants no requests just now, or None.
    :param meter: who is told of what happens.
    """
    ticks = ticks or clock
    endpoints = Endpoints(settings.public_url, settings.registration)
    tasks = Tasks()
    forge = Forge(
        http=http,
        url=settings.forgejo_url,
        client_id=settings.forgejo_oauth_client_id,
        client_secret=settings.forgejo_oauth_client_secret,
        callback_url=endpoints.callback,
        scopes=settings.forgejo_oauth_scopes,
        clock=clock,
        user_agent=_USER_AGENT,
    )
    callers = Callers(store, clock)
    endings = Endings(store, callers, clock, meter=meter)
    credentials = Credentials(
        store=store,
        ring=ring,
        forge=MeasuredPeer(forge, meter, time.perf_counter),
        clock=clock,
        owner=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        lead=settings.token_refresh_lead,
        suspend=endings.suspend,
    )
    credentials.admission = settings.admission

    def child_of(credential: Credential) -> Command:
        return command_for(
            settings.child,
            url=settings.forgejo_url,
            token=credential.access.text,
            user_agent=_USER_AGENT,
            inherited=os.environ,
        )

    sessions = Sessions(store, clock, unknown_session(settings))
    unread = Unread(ticks)
    streams = Streams(sessions, clock, unread)
    pool: Pool[Credential] = Pool(
        launcher=launcher,
        command_for=child_of,
        credentials=credentials,
        clock=ticks,
        epoch=clock.seconds,
        version=VERSION,
        bounds=Bounds(children=settings.max_sessions),
        meter=meter,
        on_link_said=streams.link_said,
        on_link_tells=streams.link_tells,
    )
    personal = Personal(pool, sessions, settings.child.kind.profile, tasks)

    def session_ended(session: Session) -> None:
        streams.close(session)
        personal.ended(session)

    def sessions_in_use(account_id: int) -> set[bytes]:
        return streams.sessions(account_id) | pool.owners(account_id)

    sessions.on_end = session_ended
    sessions.in_use = sessions_in_use
    endings.also_end(streams)
    endings.also_end(pool)
    # Last: it looks for what streams and children still use.
    endings.also_end(sessions)
    fetch = Fetcher(errand, ticks).fetch
    registrar = Registrar(
        store,
        endings,
        clock,
        documents=Documents(store, fetch, tasks, clock, ticks, meter=meter),
        configured={client.client_id: client for client in settings.preregistered_clients},
        clientele=clientele(settings),
        meter=meter,
    )
    issuer = Issuer(store, ring, endings, endpoints, clock, meter=meter)
    signins = SignIns(store, ring, forge, credentials, endpoints, clock, meter=meter)
    mcp = Endpoint(
        gate=Gate(callers),
        sessions=sessions,
        personal=personal,
        streams=streams,
        unread=unread,
        clock=clock,
        require_session_id=settings.require_session_id,
    )
    rates = Rates(Addresses(settings.trusted_proxies), ticks)
    browser = Authorize(
        registrar=registrar,
        signins=signins,
        endpoints=endpoints,
        cookies=Cookies(endpoints),
        tasks=tasks,
        forge_host=urlsplit(settings.forgejo_url).netloc,
        meter=meter,
        rates=rates,
    )
    site = Site(
        endpoints,
        [
            *mcp.routes(),
            *browser.routes(),
            *Token(registrar, issuer, tasks, clock, rates).routes(),
            *Registration(registrar, endpoints, tasks, rates).routes(),
            *Discovery(endpoints).routes(),
            *Health(unready).routes(),
        ],
        clock,
        meter,
        settings.allowed_origins,
    )
    site.room = connections(settings.max_sessions, descriptors())
    parts = Parts(
        clock=clock,
        credentials=credentials,
        pool=pool,
        streams=streams,
        tasks=tasks,
        site=site,
        forge=forge,
        sessions=sessions,
        uses=Uses(store, sessions, callers),
        endings=endings,
        registrar=registrar,
        store=store,
        mcp=mcp,
        upkeep=Upkeep(ticks),
        elsewhere=Elsewhere(store, callers, endings, tasks, ticks),
        trust=Trust(clock, ticks),
    )
    parts.schedule(settings)
    return parts


def clientele(settings: Settings) -> Clientele:
    """Which clients are taken."""
    own = frozenset({_host(settings.public_url), _host(settings.forgejo_url)})
    return evolve(settings.clients, trusted=own)


def _host(url: str) -> str:
    parts = uris.split(url)
    assert parts is not None, "it was judged"
    return parts.canonical_host


def unknown_session(settings: Settings) -> McpRefusal:
    """What a session id that is none gets."""
    gone = settings.unknown_session_status == GONE_SESSION.status
    return GONE_SESSION if gone else UNKNOWN_SESSION
