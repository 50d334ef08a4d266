"""
What of a configuration can change while the daemon runs.

The file of `--config` and the files with secrets are read again at SIGHUP; the
command line and the environment are those of the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, evolve, fields, frozen
from twisted.logger import Logger

from fjmcp.daemon.settings import Gathered, Settings
from fjmcp.daemon.sources import Problem

ADMISSION: Final = frozenset({"allow_users", "allow_orgs", "deny_admins"})
"""Who may come in.  Live where the scopes that hold let it be seen: those are not."""

LIVE: Final = ADMISSION | frozenset(
    {
        "allowed_origins",
        "clients",
        "debug",
        "max_sessions",
        "require_session_id",
        "session_idle_timeout",
        "session_reap_interval",
        "token_refresh_interval",
        "token_refresh_lead",
        "unknown_session_status",
    }
)
"""The settings that hold from their change on; each is one value that is read when it is needed."""

_NAMES: Final = {
    "keys": "key-file",
    "preregistered_clients": "preregistered-client",
    "child": "forgejo-mcp-binary, child-command or child-env",
    "forgejo_oauth_client_secret": "forgejo-oauth-client-secret or its file",
}
"""The options behind settings that are made of several."""


@frozen
class Change:
    """
    What another configuration changes.

    :ivar settings: what holds from now on: the old, and of the new what can.
    :ivar taken: the options that changed.
    :ivar waiting: the options whose change needs a restart.
    """

    settings: Settings
    taken: tuple[str, ...]
    waiting: tuple[str, ...]


def change(old: Settings, new: Settings) -> Change:
    """What to do to get from the `old` to the `new`."""
    names = [each.name for each in fields(Settings)]
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    # With too few scopes everybody would be put to sleep.
    seen = not new.admission.lacks(old.forgejo_oauth_scopes)
    live = LIVE if seen else LIVE - ADMISSION
    return Change(
        evolve(old, **{name: getattr(new, name) for name in changed if name in live}),
        tuple(option_of(name) for name in changed if name in live),
        tuple(option_of(name) for name in changed if name not in live),
    )


@define(eq=False)
class Configuration:
    """
    The settings that hold, and the way to others.

    `again` reads every source anew; `adopt` is given what holds from then on.
    """

    log = Logger()
    settings: Settings
    _again: Callable[[], Gathered]
    _adopt: Callable[[Settings], None]

    def reload(self) -> None:
        """
        Take what can be taken of what is written now, and say what cannot.

        What cannot be run changes nothing, and every problem is in the log.
        Does not raise.
        """
        with self.log.failuresHandled("while reloading the configuration"):
            gathered = self._again()
            for warning in gathered.warnings:
                # Not `warning`: Twisted takes an event with that field for one of Python's.
                self.log.warn("{what}", what=warning)
            if gathered.settings is None:
                self.log.error(
                    "configuration not reloaded, nothing is changed: {problems}",
                    problems="; ".join(words(problem) for problem in gathered.problems),
                )
                return
            found = change(self.settings, gathered.settings)
            self._adopt(found.settings)
            self.settings = found.settings
            self.log.info("configuration reloaded", changed=list(found.taken))
            if found.waiting:
                self.log.warn(
                    "changed, but only a restart makes it hold: {options}",
                    options=", ".join(found.waiting),
                )


def option_of(name: str) -> str:
    """The option, or options, of a setting."""
    return _NAMES.get(name, name.replace("_", "-"))


def words(problem: Problem) -> str:
    """A problem as one line for the log."""
    option = "" if problem.option is None else f"{problem.option.flag}: "
    where = f" [{problem.where}]" if problem.where else ""
    return f"{option}{problem.what}{where}"
