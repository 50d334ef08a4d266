"""
The daemon put together: the only place where parts are made and joined.

Start and stop read from top to bottom (design D22).  Twisted's MultiService
would start everything at once and wait for nothing.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from attrs import define
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.callers import Callers
from fjmcp.broker.credentials import Credential, Credentials
from fjmcp.broker.endings import Endings
from fjmcp.broker.issuer import Issuer
from fjmcp.broker.pool import Bounds, Pool
from fjmcp.broker.registrar import Registrar
from fjmcp.broker.sessions import Sessions
from fjmcp.broker.signins import SignIns
from fjmcp.children.exposure import exposure, look
from fjmcp.children.launch import Launcher, ToolMissing, confinement
from fjmcp.children.profiles import Command, command_for
from fjmcp.daemon.exits import stop_as_failed
from fjmcp.daemon.hiding import hide
from fjmcp.daemon.keywatch import KeyWatch
from fjmcp.daemon.logs import Threshold
from fjmcp.daemon.measured import MeasuredLane, MeasuredPeer
from fjmcp.daemon.metrics import Metrics
from fjmcp.daemon.pulse import Pulse
from fjmcp.daemon.reloading import Configuration
from fjmcp.daemon.settings import Gathered, Settings
from fjmcp.daemon.systemd import Supervisor
from fjmcp.daemon.version import VERSION, build
from fjmcp.forge.client import Forge, Troubled, forge_http
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.refusals import GONE_SESSION, UNKNOWN_SESSION, McpRefusal
from fjmcp.store import keys
from fjmcp.store.keys import KeysUnusable
from fjmcp.store.transactions import Store, StoreDown, StoreUnusable, open_sqlite
from fjmcp.store.vault import Sealing, Vault
from fjmcp.tasks import Tasks
from fjmcp.web.addresses import Addresses
from fjmcp.web.authorize import Authorize
from fjmcp.web.cookies import Cookies
from fjmcp.web.discovery import Discovery
from fjmcp.web.endpoint import Endpoint
from fjmcp.web.gate import Gate
from fjmcp.web.health import Health
from fjmcp.web.rates import Rates
from fjmcp.web.scrape import Scrape
from fjmcp.web.site import Site
from fjmcp.web.streams import Streams
from fjmcp.web.token import Token

_USER_AGENT = f"fjmcp/{VERSION}"


@define(eq=False)
class Parts:
    """What runs once the store is open, joined."""

    credentials: Credentials
    pool: Pool[Credential]
    streams: Streams
    tasks: Tasks
    site: Site
    forge: Forge
    sessions: Sessions
    mcp: Endpoint

    def adopt(self, settings: Settings) -> None:
        """Work with other values from now on; of which settings, says `reloading.LIVE`."""
        self.pool.rebound(Bounds(children=settings.max_sessions))
        self.credentials.lead = settings.token_refresh_lead
        self.sessions.unknown = unknown_session(settings)
        self.mcp.require_session_id = settings.require_session_id


@define
class _CannotListen(Exception):
    """An address cannot be had."""

    where: str
    problem: str


class Daemon(Service):
    """
    The whole daemon as one service.

    :param supervisor: who is told that it is ready, reloads and stops.
    :param threshold: what is logged.
    :param again: reads the configuration anew.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        *,
        supervisor: Supervisor,
        threshold: Threshold,
        again: Callable[[], Gathered],
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._supervisor = supervisor
        self._threshold = threshold
        self._configuration = Configuration(settings, again, self._adopt)
        self._reload_wanted = False
        self._metrics: Metrics | None = None
        self._pulse: Pulse | None = None
        self._metrics_port: IListeningPort | None = None
        self._unready: str | None = "starting"
        self._store: Store | None = None
        self._parts: Parts | None = None
        self._key_watch: KeyWatch | None = None
        self._port: IListeningPort | None = None
        self._started: Deferred[None] | None = None

    # --- start ------------------------------------------------------------------

    def startService(self) -> None:
        """Twisted: the reactor is about to run."""
        super().startService()  # type: ignore[no-untyped-call]
        self._started = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self._rise()
        except (StoreUnusable, StoreDown, KeysUnusable, ToolMissing) as refused:
            self._fail("cannot start", str(refused))
        except _CannotListen as refused:
            self._fail(f"cannot listen at {refused.where}", refused.problem)
        except CancelledError:
            self.log.info("stopped before it was ready")
        except Exception:
            self.log.failure("cannot start")
            stop_as_failed(self._reactor)

    def _fail(self, what: str, problem: str) -> None:
        self.log.critical("{what}: {problem}", what=what, problem=problem)
        self._supervisor.status(f"{what}: {problem}")
        stop_as_failed(self._reactor)

    async def _rise(self) -> None:
        settings = self._settings
        self._hide(settings)
        meter = self._count()
        self._store = open_sqlite(
            settings.store,
            self._reactor,
            around=lambda name, lane: MeasuredLane(lane, name, meter, time.perf_counter),
        )
        vault = Vault(await keys.load(settings.keys, self._store))
        self._key_watch = KeyWatch(settings.keys, vault, settings.store, self._reactor)
        self._key_watch.start()
        parts = self._parts = assemble(
            settings,
            self._store,
            vault,
            clock=self._reactor,
            http=forge_http(self._reactor),
            launcher=Launcher(self._reactor, confinement()),
            unready=lambda: self._unready,
            meter=meter,
        )
        parts.tasks.start(parts.credentials.recover(), "finishing what a crash left")
        parts.tasks.start(self._greet(parts.forge), "asking Forgejo for its version")
        await self._show(parts)
        self._port = await self._listen(settings.listen, parts.site)
        self._unready = None
        if settings.trusted_proxies is None:
            self.log.warn(
                "clients' addresses are not known, so nothing is limited by address: name the"
                " reverse proxy with --trusted-proxies, or say none if there is none"
            )
        self.log.info(
            "ready", public_url=settings.public_url, listen=settings.listen, pid=os.getpid()
        )
        self._supervisor.ready(f"serving {settings.public_url}")
        self._supervisor.watch(self._reactor)
        if self._reload_wanted:
            self.reload()

    def _hide(self, settings: Settings) -> None:
        """Keep secrets from the children, and say what stays open."""
        trouble = hide()
        if trouble is not None:
            self.log.warn(
                "the MCP servers can read this daemon's memory and environment: {trouble}",
                trouble=trouble,
            )
        try:
            exposed = exposure(look(settings.child.program), os.geteuid())
        except OSError as error:
            exposed = f"{settings.child.program} cannot be looked at: {error}"
        if exposed is not None:
            self.log.warn("{exposed}", exposed=exposed)

    def _count(self) -> Meter:
        """Somebody who counts, if anybody wants to know."""
        if self._settings.metrics_listen is None:
            return SILENT
        self._metrics = Metrics(VERSION, build().revision)
        self._pulse = Pulse(self._reactor, self._metrics, time.perf_counter)
        self._pulse.start()
        return self._metrics

    async def _show(self, parts: Parts) -> None:
        """Serve what is counted."""
        settings, metrics = self._settings, self._metrics
        if metrics is None or settings.metrics_listen is None:
            return
        metrics.count_at_scrape(
            lambda: len(parts.sessions),
            lambda: [(link.phase, link.in_flight) for link in parts.pool.links()],
        )
        endpoints = Endpoints(settings.public_url)
        site = Site(endpoints, Scrape(metrics.exposition).routes(), self._reactor)
        self._metrics_port = await self._listen(settings.metrics_listen, site)

    async def _listen(self, where: str, site: Site) -> IListeningPort:
        try:
            port: IListeningPort = await serverFromString(self._reactor, where).listen(site)
        except (OSError, CannotListenError) as refused:
            raise _CannotListen(where, str(refused)) from refused
        return port

    async def _greet(self, forge: Forge) -> None:
        version = await forge.version()
        if isinstance(version, Troubled):
            # It may come later; everything that needs it says so by itself.
            self.log.warn("Forgejo does not answer", url=forge.url, reason=version.reason)
        else:
            self.log.info("Forgejo answers", url=forge.url, version=version)

    # --- reload -----------------------------------------------------------------

    def reload(self) -> None:
        """
        Read the configuration again, take what can be taken, and say what cannot.

        One that cannot be run changes nothing.  Does not raise.
        """
        if self._unready == "starting":
            self._reload_wanted = True
        elif self._unready is not None:
            self.log.info("not reloaded: stopping")
        else:
            self._supervisor.reloading()
            self._configuration.reload()
            self._supervisor.ready(f"serving {self._settings.public_url}")

    def _adopt(self, settings: Settings) -> None:
        self._settings = settings
        self._threshold.set_debug(settings.debug)
        if self._parts is not None:
            self._parts.adopt(settings)

    # --- stop -------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Twisted: the reactor is about to end, and waits for this."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._unready = "stopping"
        self.log.info("stopping")
        self._supervisor.stopping()
        if self._started is not None:
            self._started.cancel()
        if self._port is not None:
            await cast("Deferred[None]", self._port.stopListening())
        if self._parts is not None:
            parts = self._parts
            parts.streams.stop()
            # A refresh whose reply is lost costs a person a sign-in: it may take
            # longer than the children do.
            await gatherResults(
                [
                    Deferred.fromCoroutine(parts.pool.stop(limits.DRAIN)),
                    Deferred.fromCoroutine(parts.credentials.settle()),
                ]
            )
            await parts.tasks.settle()
        if self._key_watch is not None:
            self._key_watch.stop()
        if self._store is not None:
            await self._store.close()
        if self._pulse is not None:
            self._pulse.stop()
        if self._metrics_port is not None:
            await cast("Deferred[None]", self._metrics_port.stopListening())
        self._supervisor.unwatch()
        self.log.info("stopped")


def assemble(
    settings: Settings,
    store: Store,
    ring: Sealing,
    clock: IReactorTime,
    http: HTTPClient,
    launcher: Launcher,
    unready: Callable[[], str | None],
    meter: Meter = SILENT,
) -> Parts:
    """
    Every part with what it needs, and nothing else.

    :param http: how Forgejo is reached.
    :param launcher: how children are started.
    :param unready: why the process wants no requests just now, or None.
    :param meter: who is told of what happens.
    """
    endpoints = Endpoints(settings.public_url)
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

    def child_of(credential: Credential) -> Command:
        return command_for(
            settings.child,
            url=settings.forgejo_url,
            token=credential.access.text,
            user_agent=_USER_AGENT,
            inherited=os.environ,
        )

    sessions = Sessions(store, clock, unknown_session(settings))
    streams = Streams(sessions, clock)
    sessions.on_end = streams.close
    pool: Pool[Credential] = Pool(
        launcher=launcher,
        command_for=child_of,
        credentials=credentials,
        clock=clock,
        version=VERSION,
        bounds=Bounds(children=settings.max_sessions),
        meter=meter,
        on_link_said=streams.link_said,
    )
    endings.also_end(streams)
    endings.also_end(pool)
    registrar = Registrar(store, clock, meter=meter)
    issuer = Issuer(store, ring, endings, endpoints, clock, meter=meter)
    signins = SignIns(store, ring, forge, credentials, endpoints, clock, meter=meter)
    mcp = Endpoint(
        gate=Gate(callers),
        sessions=sessions,
        pool=pool,
        streams=streams,
        profile=settings.child.kind.profile,
        clock=clock,
        require_session_id=settings.require_session_id,
    )
    rates = Rates(Addresses(settings.trusted_proxies), clock)
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
            *Token(registrar, issuer, endpoints, tasks, clock, rates).routes(),
            *Discovery(endpoints).routes(),
            *Health(unready).routes(),
        ],
        clock,
        meter,
    )
    return Parts(credentials, pool, streams, tasks, site, forge, sessions, mcp)


def unknown_session(settings: Settings) -> McpRefusal:
    """What a session id that is none gets."""
    gone = settings.unknown_session_status == GONE_SESSION.status
    return GONE_SESSION if gone else UNKNOWN_SESSION


def make_service(
    settings: Settings,
    reactor: Any,
    *,
    supervisor: Supervisor,
    threshold: Threshold,
    again: Callable[[], Gathered],
) -> Daemon:
    """The daemon for these settings, not started."""
    return Daemon(settings, reactor, supervisor=supervisor, threshold=threshold, again=again)
