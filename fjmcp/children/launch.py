"""
The one seam to a process (design D24).

A child is started apart from us::

    setsid                   a session and a process group of its own
    setpriv --pdeathsig KILL the kernel kills it when the daemon dies, however that dies
            --no-new-privs   no setuid program makes it more than it is
    sh -c …                  gone if the daemon died before it could ask for that signal;
                             and not in the daemon's directory

They `exec` one another, so the process that we start is the child.
`spawnProcess(path=…)` could change the directory, but it forks this whole
daemon for it, which takes five times as long and stops the reactor meanwhile.

The parent-death signal comes when the *thread* that started the child ends:
children are started on the reactor's thread only, which lives as long as we do.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast

from attrs import define, field, frozen
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IConsumer,
    IProcessProtocol,
    IProcessTransport,
    IPushProducer,
    IReactorProcess,
)
from twisted.logger import Logger

from fjmcp.children.profiles import Command


class ToolMissing(Exception):
    """A program that confines children is not on this machine."""


class KillGroup(Protocol):
    """`os.killpg`, or its double."""

    def __call__(self, pgid: int, signum: int, /) -> None: ...


_SCRIPT: Final = 'test "$PPID" = "$0" && cd / && unset PWD OLDPWD SHLVL && exec "$@"'
"""Told the daemon's number.  The shell looks who its parent is after the signal
was asked for: a daemon that had died by then would never have sent it.  The
variables are the shell's own; one of them would name our directory."""


def confinement(which: Callable[[str], str | None] = shutil.which) -> tuple[str, ...]:
    """
    The words that go before the daemon's number and a child's command.

    :raises ToolMissing: with a sentence that says what to install.
    """

    def path(tool: str) -> str:
        found = which(tool)
        if found is None:
            raise ToolMissing(
                f"{tool} is not on PATH; children are not started without it."
                " It is in the package util-linux (sh: dash)."
            )
        return found

    return (
        path("setsid"),
        *(path("setpriv"), "--pdeathsig", "KILL", "--no-new-privs", "--"),
        *(path("sh"), "-c", _SCRIPT),
    )


@define(eq=False, repr=False)
class Spawned:
    """
    A started process: its standard input and its process group.

    Everything here is harmless when the process is gone already.
    """

    log = Logger()

    pid: int | None
    """None when it was over before we could look."""
    _transport: IProcessTransport
    _kill_group: KillGroup

    def write(self, data: bytes) -> None:
        """Write to its standard input, sooner or later."""
        self._transport.write(data)

    def pace(self, producer: IPushProducer) -> None:
        """Have `producer` paused while more than a pipeful waits to be read."""
        cast(IConsumer, self._transport).registerProducer(producer, True)

    def close_stdin(self) -> None:
        """End its standard input, after what was written."""
        cast(IConsumer, self._transport).unregisterProducer()
        self._transport.closeStdin()

    def close(self) -> None:
        """Let go of all pipes."""
        self._transport.loseConnection()

    def signal_group(self, signum: signal.Signals) -> None:
        """
        Signal the child and all that it started.

        Its group bears the child's own number, so that it can never be ours.
        Until `setsid` has run there is no such group, and only one process.
        """
        if self.pid is None or self.pid <= 1:
            return
        try:
            self._kill_group(self.pid, signum)
        except ProcessLookupError:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(signum.name.removeprefix("SIG"))
        except PermissionError:
            # What is left in the group runs as somebody else: not ours to end.
            self.log.warn("child's group refuses a signal", pid=self.pid, signal=signum.name)


@frozen
class Launcher:
    """Starts children; nothing else in the daemon starts a process."""

    _reactor: IReactorProcess
    _confinement: tuple[str, ...]
    _kill_group: KillGroup = field(default=os.killpg)

    def launch(self, protocol: IProcessProtocol, command: Command) -> Spawned:
        """
        Start a child; `protocol` hears its pipes and its end, perhaps before
        this returns.

        A program that cannot be executed shows as exit code 127 (none there)
        or 126 (not executable), as in a shell.

        :raises OSError: no process, pipe or memory is to be had.
        :raises ValueError: the command holds a NUL.
        """
        # Asked each time: a daemon forks between its assembly and its start.
        argv = (*self._confinement, str(os.getpid()), *command.argv)
        # A dict, even if empty: None would hand our own environment down.
        transport = self._reactor.spawnProcess(
            protocol, argv[0], argv, env=dict(command.env), usePTY=False
        )
        return Spawned(transport.pid, transport, self._kill_group)
