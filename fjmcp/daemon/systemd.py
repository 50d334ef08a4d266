"""
What systemd wants to hear from a service, without a library (sd_notify(3)).

A datagram to the socket that `NOTIFY_SOCKET` names, or nothing where there is
none: a process that somebody else started says the same words to nobody.
Sockets that systemd passes (sd_listen_fds(3)) need nothing here: Twisted's
endpoint `systemd:domain=INET:name=fjmcp` adopts them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fjmcp import limits

VARIABLES: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
)
"""What systemd tells one process and no other: none of it is for a child's environment."""


def _monotonic() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@define(eq=False)
class Supervisor:
    """
    Whoever started us and waits to hear how we do.

    :ivar watchdog: seconds within which it wants a sign of life, or None.
    """

    log = Logger()
    _address: str | None = None
    """A path, or @ and an abstract name; None: nobody listens."""
    watchdog: float | None = None
    _monotonic: Callable[[], int] = _monotonic
    """Microseconds of CLOCK_MONOTONIC, by which systemd orders reloads."""
    _beats: LoopingCall | None = field(default=None, init=False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> Supervisor:
        """
        The supervisor that an environment names.

        What names it is taken out, so that no process that we start speaks in
        our name.  Twisted's endpoints must have been imported before: they
        look for passed sockets then.
        """
        told = {name: environ.pop(name, "") for name in VARIABLES}
        address = told["NOTIFY_SOCKET"]
        if address and address[0] not in "/@":
            cls.log.warn("NOTIFY_SOCKET is no local socket", address=address)
            address = ""
        # sd_watchdog_enabled(3): another process may be meant.
        meant = told["WATCHDOG_PID"] in {"", str(pid)}
        period = told["WATCHDOG_USEC"]
        watchdog = int(period) / 1e6 if meant and period.isdecimal() and int(period) else None
        return cls(address or None, watchdog)

    # --- what there is to say -------------------------------------------------------

    def ready(self, status: str) -> None:
        """Start, or reload, is done."""
        self._say("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """A line for `systemctl status`."""
        self._say(f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is read again; `ready` ends it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={self._monotonic()}")

    def stopping(self) -> None:
        """The stop has begun."""
        self._say("STOPPING=1", "STATUS=stopping")

    # --- the watchdog -----------------------------------------------------------------

    def watch(self, clock: IReactorTime) -> None:
        """
        Give signs of life, if they are wanted, twice as often as they must come.

        A reactor that stands still gives none.
        """
        if self.watchdog is None or self._beats is not None:
            return
        self._beats = LoopingCall(self._beat)
        self._beats.clock = clock
        self._beats.start(self.watchdog / 2)

    def unwatch(self) -> None:
        """Give no more."""
        beats, self._beats = self._beats, None
        if beats is not None:
            beats.stop()

    def _beat(self) -> None:
        # A LoopingCall ends for good with the first exception, and then systemd ends us.
        with self.log.failuresHandled("while telling the watchdog"):
            self._say("WATCHDOG=1")

    def _say(self, *assignments: str) -> None:
        if self._address is None:
            return
        address = self._address
        target = "\0" + address[1:] if address.startswith("@") else address
        # One assignment a line: what comes from elsewhere must not make a second one.
        message = "\n".join(text.replace("\n", " ") for text in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
                speaker.settimeout(limits.NOTIFY)
                speaker.sendto(message.encode("utf-8", "backslashreplace"), os.fsencode(target))
        except OSError as error:
            self.log.warn("systemd does not listen", address=address, error=str(error))
