"""
The daemon as one service: its start, its reloads and its stop.

Start and stop read from top to bottom (design D22).  Twisted's MultiService
would start everything at once and wait for nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, cast

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.children.exposure import exposure, look
from fjmcp.children.launch import Launcher, ToolMissing, confinement
from fjmcp.daemon.assembly import Parts, assemble
from fjmcp.daemon.clocks import WallClock
from fjmcp.daemon.exits import stop_as_failed
from fjmcp.daemon.hiding import hide
from fjmcp.daemon.keywatch import KeyWatch
from fjmcp.daemon.logs import Threshold
from fjmcp.daemon.measured import MeasuredLane
from fjmcp.daemon.metrics import Metrics
from fjmcp.daemon.pulse import Pulse
from fjmcp.daemon.reloading import Configuration
from fjmcp.daemon.settings import Gathered, Settings
from fjmcp.daemon.systemd import Supervisor
from fjmcp.daemon.version import VERSION, build
from fjmcp.fetch.guard import Strangers
from fjmcp.fetch.names import system_look_up
from fjmcp.forge.answers import Troubled
from fjmcp.forge.client import Forge, forge_http
from fjmcp.meter import SILENT, Meter
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.store import keys
from fjmcp.store.keys import KeysUnusable
from fjmcp.store.sqlite import open_sqlite
from fjmcp.store.transactions import Store, StoreDown, StoreUnusable
from fjmcp.store.vault import Vault
from fjmcp.web.scrape import Scrape
from fjmcp.web.site import Site


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
        self._clock = WallClock(reactor)
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
        self._key_watch = KeyWatch(settings.keys, vault, settings.store, self._clock)
        self._key_watch.start()
        parts = self._parts = assemble(
            settings,
            self._store,
            vault,
            clock=self._clock,
            ticks=self._reactor,
            http=forge_http(self._reactor),
            errand=Strangers(self._reactor, system_look_up(self._reactor)).errand,
            launcher=Launcher(self._reactor, confinement()),
            unready=lambda: self._unready,
            meter=meter,
        )
        # A store of SQLite is locked for its one daemon (`open_sqlite`).
        recovering = parts.credentials.recover(alone=True)
        parts.tasks.start(recovering, "finishing what a crash left")
        parts.tasks.start(self._greet(parts.forge), "asking Forgejo for its version")
        await self._show(parts)
        parts.elsewhere.start()
        self._port = await self._listen(settings.listen, parts.site)
        self._unready = None
        parts.upkeep.start()
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
        site = Site(endpoints, Scrape(metrics.exposition).routes(), self._clock)
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
            parts.upkeep.stop()
            parts.streams.stop()
            # A refresh whose reply is lost costs a person a sign-in: it may take
            # longer than the children do.
            await gatherResults(
                [
                    Deferred.fromCoroutine(parts.pool.stop(limits.DRAIN)),
                    Deferred.fromCoroutine(parts.credentials.settle()),
                ]
            )
            # Till here: what is withdrawn while calls drain ends them.
            parts.elsewhere.stop()
            await parts.tasks.settle()
            await self._write_down(parts)
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

    async def _write_down(self, parts: Parts) -> None:
        try:
            await parts.uses.write_down()
        except StoreDown as down:
            self.log.warn("the last use of sessions is not written down", error=str(down))


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
