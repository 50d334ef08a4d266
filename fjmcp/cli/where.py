"""
Where the store and the keys are, found as the daemon finds them: a flag over
the environment over the file of `--config` over the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import frozen

from fjmcp.daemon.sources import Said, from_environment, from_file, from_flags
from fjmcp.daemon.table import BY_NAME
from fjmcp.store.keyfile import KeyFile
from fjmcp.store.keys import KeySources

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = ("store", "key-file", "config")
_NO_KEYS: Final = ("store", "config")


@frozen
class Where:
    """The store and the sources of the key ring."""

    store: Path
    sources: KeySources

    def key_file(self) -> KeyFile:
        """
        The key file, which exists.

        :raises click.ClickException: there is none that could be changed.
        """
        sources = self.sources
        if sources.file is None and (sources.credential or sources.text):
            raise click.ClickException(
                f"The keys come from {sources.words} here, which is a copy. Name the file that it"
                " is made from with --key-file, and restart the daemon whenever this says so."
            )
        path = sources.path
        if path is None or not _is_there(path):
            raise click.ClickException(
                f"There is no key file {path}. Name it with --key-file; the daemon makes one at"
                " its first start."
            )
        return KeyFile(path)


def located(command: F) -> F:
    """Options of a command that works on a store and its keys; `find` makes a `Where` of them."""
    return _with(command, _OPTIONS)


def stored(command: F) -> F:
    """Options of a command that works on a store alone, likewise."""
    return _with(command, _NO_KEYS)


def _with(command: F, names: tuple[str, ...]) -> F:
    for name in reversed(names):
        option = BY_NAME[name]
        command = click.option(
            option.flag,
            metavar=option.shape,
            envvar=None,
            help=f"As the daemon's option; also {option.variable}.",
        )(command)
    return command


def find(flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> Where:
    """
    Where these flags, the environment and the configuration file point.

    :raises click.ClickException: to nothing that could be used.
    """
    said = _sources(flags, environ)
    text = _said(said, "store")
    if text is None:
        folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        text = os.path.join(folder, "fjmcp.sqlite3")
    store: Path = _read("store", text)
    if not _is_there(store):
        raise click.ClickException(f"There is no store {store}. Name it with --store.")
    key_file = _said(said, "key-file")
    return Where(
        store,
        KeySources.gather(
            None if key_file is None else _read("key-file", key_file), environ, store
        ),
    )


def public_url(
    flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ
) -> str | None:
    """
    The URL of the daemon, where the environment or the configuration file names it.

    :raises click.UsageError: they name one that is none.
    """
    text = _said(_sources(flags, environ), "public-url")
    return None if text is None else str(_read("public-url", text))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be looked at: {error.strerror}; is this the daemon's user?"
        ) from None


def _sources(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> list[Said]:
    """What is said, the strongest first."""
    given = {name.replace("_", "-"): text for name, text in flags.items() if text is not None}
    said = [from_flags(given), from_environment(environ)]
    config = _said(said, "config")
    if config is not None:
        said.append(from_file(_read("config", config)))
    for source in said:
        for problem in source.problems:
            raise click.UsageError(f"{problem.where}: {problem.what}")
    return said


def _said(said: list[Said], name: str) -> str | None:
    for source in said:
        if name in source.given:
            text = source.given[name].text
            assert isinstance(text, str), "these are said once"
            return text
    return None


def _read(name: str, text: str) -> Any:
    try:
        return BY_NAME[name].read(text)
    except ValueError as error:
        raise click.UsageError(f"{BY_NAME[name].flag}: {error}") from None
