"""
The command line of `twistd fjmcp`.

Twisted's `usage` splits it; everything else comes from the table.  A command
line or a configuration that is wrong ends with 2, which twistd by itself never
does: it ends a usage error with 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from twisted.python import usage

from fjmcp.daemon import handbook, version
from fjmcp.daemon.settings import Gathered, Settings, gather
from fjmcp.daemon.table import TABLE, Kind

MISUSED = 2
"""The exit status for a command line or configuration that cannot be run."""


def _flags() -> list[list[object]]:
    switches = [option.name for option in TABLE if option.kind is Kind.SWITCH]
    return [[name, None, ""] for switch in switches for name in (switch, f"no-{switch}")]


class Options(usage.Options):
    """
    What was said on the command line, and after `postOptions` the settings.

    :ivar settings: what the daemon runs with.
    :ivar warnings: what an operator should mend; for the log, which is not
        there yet when they are found.
    :ivar again: reads it all again: files may say something else than before.
    """

    optParameters = [[option.name, None, None, ""] for option in TABLE if option.kind is Kind.VALUE]
    optFlags = _flags()

    settings: Settings
    again: Callable[[], Gathered]
    warnings: tuple[str, ...] = ()

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.environ = os.environ if environ is None else environ

    def opt_child_env(self, text: str) -> None:
        """Usage has no other way for an option that may be repeated."""
        self.setdefault("child-env", []).append(text)

    def opt_preregistered_client(self, text: str) -> None:
        """Likewise."""
        self.setdefault("preregistered-client", []).append(text)

    def opt_help(self) -> NoReturn:
        """Print the help and end."""
        print(handbook.usage(self.program()))
        sys.exit(0)

    def opt_version(self) -> NoReturn:
        """Print what is running and end."""
        print(version.words(version.build()))
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """As Twisted's; a usage error ends with 2."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            refuse(f"fjmcp: {error}\n\n{self.program()} --help explains every option.")

    def postOptions(self) -> None:
        """Judge it all; end with 2 and every problem if it cannot be run."""
        flags, environ = dict(self), dict(self.environ)
        self.again = lambda: gather(flags, environ)
        gathered = self.again()
        for name in [option.name for option in TABLE if option.secret]:
            self.pop(name, None)
        if gathered.settings is None:
            refuse(handbook.problems_text(gathered.problems))
        self.settings = gathered.settings
        self.warnings = gathered.warnings

    def program(self) -> str:
        """How this command was called, as twistd or as twist."""
        name = os.path.basename(sys.argv[0]) if sys.argv else ""
        return f"{name if name in {'twistd', 'twist'} else 'twistd'} fjmcp"

    def getSynopsis(self) -> str:
        """For Twisted, should it print one."""
        return f"Usage: {self.program()} [options]"

    def __str__(self) -> str:
        return handbook.usage(self.program())


def refuse(text: str) -> NoReturn:
    """Say why nothing is started, and end."""
    print(text, file=sys.stderr)
    raise SystemExit(MISUSED)
