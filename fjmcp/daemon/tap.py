"""
What `twistd fjmcp` calls: options, then a service.

The plugin names this module in a string, so it is imported only when somebody
asks for `fjmcp`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from io import TextIOBase
from typing import TextIO, cast

from twisted.application.service import IService, IServiceCollection, MultiService
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from fjmcp.daemon import logs, version
from fjmcp.daemon.blanking import blanking
from fjmcp.daemon.options import Options
from fjmcp.daemon.settings import Settings
from fjmcp.daemon.systemd import Supervisor

__all__ = ["Options", "makeService"]

log = Logger()


def makeService(options: Options) -> IService:
    """The daemon, which logs as it is told and starts with its parent."""
    from twisted.internet import reactor

    from fjmcp.daemon.clocks import steady
    from fjmcp.daemon.service import make_service

    steady(reactor)
    # Before any process is started, be it git for our own version.
    supervisor = Supervisor.from_environment(os.environ, os.getpid())
    made = version.build()
    log.info(
        "fjmcp {version}, revision {revision}, built {built}",
        version=version.VERSION,
        revision=made.revision,
        built=made.built,
    )
    for warning in options.warnings:
        log.warn("{warning}", warning=warning)
    twistd = getattr(options, "parent", None) or {}
    threshold = logs.Threshold(options.settings.debug)
    threads = cast(IReactorFromThreads, reactor)
    root = Root(observer_for(options.settings, twistd, threads, threshold))
    daemon = make_service(
        options.settings, reactor, supervisor=supervisor, threshold=threshold, again=options.again
    )
    daemon.setServiceParent(root)  # type: ignore[no-untyped-call]
    signal.signal(signal.SIGHUP, hang_up(sys.__stderr__, threads, daemon.reload))
    return cast(IService, root)


def hang_up(
    terminal: TextIO | None, reactor: IReactorFromThreads, reload: Callable[[], None]
) -> Callable[[int, object], None]:
    """
    What SIGHUP does: reload, as daemons do.

    The name of the signal still holds where it came from: of somebody who
    closed the terminal that we run on, and who means an end.
    """
    attended = terminal is not None and terminal.isatty()

    def received(signum: int, frame: object) -> None:
        if attended and terminal is not None and not terminal.isatty():
            signal.raise_signal(signal.SIGTERM)
        else:
            reactor.callFromThread(reload)

    return received


class Root(MultiService):
    """
    The service that twistd sees.  It hands the application its way of logging,
    which twistd looks for just before it starts.
    """

    def __init__(self, observer: ILogObserver | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Twisted's, and the observer goes to the application."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)  # type: ignore[no-untyped-call]
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def observer_for(
    settings: Settings,
    twistd: Mapping[str, object],
    reactor: IReactorFromThreads,
    threshold: logs.Threshold,
) -> ILogObserver | None:
    """
    Where twistd was told to log, in our words.

    `--logger` of twistd is left alone (None).  `--syslog` and `--logfile` hold;
    in the foreground without either it is stderr; in the background twistd.log,
    as twistd itself would do.  A file is rotated at 1 MB and at SIGUSR1.
    """
    if twistd.get("logger"):
        return None
    blank = blanking([settings.forgejo_oauth_client_secret])
    spell = logs.json_text
    if twistd.get("syslog"):
        write = logs.to_syslog(str(twistd.get("prefix") or "fjmcp"))
        return logs.observer(spell, write, blank, threshold)
    name = twistd.get("logfile")
    if not name and twistd.get("nodaemon", True):
        # The real ones: twistd puts a logger in place of sys.stdout and sys.stderr.
        stream: logs.Stream = sys.__stderr__ or sys.stderr
    elif name == "-":
        stream = sys.__stdout__ or sys.stdout
    else:
        file = stream = LogFile.fromFullPath(str(name or "twistd.log"))
        # As twistd does for the file it would have opened.
        if signal.getsignal(signal.SIGUSR1) in {None, signal.SIG_DFL}:
            signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    if isinstance(stream, TextIOBase) and stream.isatty():
        spell = logs.human_text
    return logs.observer(spell, logs.to_stream(stream), blank, threshold)
