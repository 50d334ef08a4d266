"""
How the process ends when it cannot go on.

twistd ends with 0 after any orderly stop.  A start that failed after the
reactor was running has to say so to whoever started the process (systemd, a
script), or they take it for done.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Final

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore

FAILED: Final = 1
"""The exit status of a run that could not start or go on."""


def stop_as_failed(reactor: IReactorCore) -> None:
    """Stop the reactor in good order, services and all; the process then ends with 1."""
    # Nothing that twistd does after the reactor's end takes a status from us,
    # so it is set in the very last moment, when the pid file is gone already.
    atexit.register(_end)
    # A service may fail while twistd starts it, which is before the reactor runs:
    # it would run for ever, and serve nothing.
    reactor.callWhenRunning(_stop, reactor)


def _stop(reactor: IReactorCore) -> None:
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass


def _end() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(FAILED)
