"""
What was said where: the command line, the environment, a TOML file.

Each function answers the options that its source mentions, as text.  Judging
the text is the business of `shapes`; an empty variable counts as not said,
since compose files and units like to set those.
"""

from __future__ import annotations

import os
import shlex
import stat
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from attrs import field, frozen

from fjmcp.daemon.table import BY_NAME, EXTRA_VARIABLES, TABLE, Kind, Option

PREFIX: Final = "FJMCP_"


@frozen
class Given:
    """The text of one option, and where it was said, for messages."""

    text: str | tuple[str, ...] = field(repr=False)
    where: str
    shared: bool = False
    """Whether it stands in a file that every user of the machine can read."""


@frozen
class Problem:
    """
    One thing that keeps the daemon from starting.

    `option` is None where it is about no known one.  `what` is a sentence
    without its full stop and never holds a secret.
    """

    what: str
    option: Option | None = None
    where: str = ""


@frozen
class Said:
    """All that one source says."""

    given: Mapping[str, Given] = field(factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def from_flags(flags: Mapping[str, object]) -> Said:
    """What `usage.Options` has collected: None and 0 are what was not given."""
    given: dict[str, Given] = {}
    problems = []
    for option in TABLE:
        value = flags.get(option.name)
        if option.kind is Kind.SWITCH:
            negative = flags.get(f"no-{option.name}")
            if value and negative:
                what = f"is given together with --no-{option.name}"
                problems.append(Problem(what, option, "the command line"))
            elif value or negative:
                given[option.name] = Given("true" if value else "false", option.flag)
        elif isinstance(value, str):
            given[option.name] = Given(value, option.flag)
        elif isinstance(value, list) and value:
            given[option.name] = Given(tuple(map(str, value)), option.flag)
    return Said(given, tuple(problems))


def from_environment(environ: Mapping[str, str]) -> Said:
    """The variables FJMCP_…; one that means nothing is a warning, it may be somebody else's."""
    given: dict[str, Given] = {}
    problems = []
    known = {option.variable: option for option in TABLE}
    for variable, option in known.items():
        text = environ.get(variable, "")
        if not text.strip():
            continue
        if option.kind is not Kind.MANY:
            given[option.name] = Given(text, variable)
            continue
        try:
            given[option.name] = Given(tuple(shlex.split(text)), variable)
        except ValueError as error:
            problems.append(Problem(f"cannot be split into words: {error}", option, variable))
    strange = sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name not in known and name not in EXTRA_VARIABLES
    )
    return Said(
        given,
        tuple(problems),
        tuple(f"the variable {name} means nothing here{_meant(name, known)}" for name in strange),
    )


def from_file(path: Path) -> Said:
    """The keys of a TOML file; one that means nothing is a problem, it was meant for us."""
    where = str(path)
    config = BY_NAME["config"]
    try:
        with path.open("rb") as file:
            shared = bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH)
            text = file.read().decode("utf-8")
        keys = tomllib.loads(text)
    except OSError as error:
        return Said(problems=(Problem(f"cannot be read: {error.strerror}", config, where),))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # Either error says where, neither quotes a line.
        return Said(problems=(Problem(f"is not TOML: {error}", config, where),))
    given: dict[str, Given] = {}
    problems = []
    known = {option.name: option for option in TABLE if option.in_file}
    for key, value in keys.items():
        name = key.replace("_", "-")
        found = known.get(name)
        place = f"{name} in {where}"
        if found is None:
            what = f"{key!r} in {where} is no option{_meant(name, known)}"
            problems.append(Problem(what))
        elif name in given:
            problems.append(
                Problem("is said twice, with a dash and with an underscore", found, place)
            )
        else:
            said = _text(found, value)
            if isinstance(said, Problem):
                problems.append(Problem(said.what, found, place))
            else:
                given[name] = Given(said, place, shared)
    return Said(given, tuple(problems))


def _text(option: Option, value: object) -> str | tuple[str, ...] | Problem:
    """A TOML value as one would write it on the command line."""
    if option.kind is Kind.SWITCH:
        if isinstance(value, bool):
            return "true" if value else "false"
        return Problem("must be true or false, without quotes")
    if option.kind is Kind.MANY:
        if isinstance(value, dict):
            value = [f"{name}={text}" for name, text in value.items()]
        if isinstance(value, list) and all(isinstance(text, str | dict) for text in value):
            return tuple(text if isinstance(text, str) else _words(text) for text in value)
        return Problem("must be a list of strings")
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return Problem("must be a string or a number")


def _words(table: Mapping[str, object]) -> str:
    """A table of a list, as one would write it on the command line: name=text name=text."""
    said = [
        (name, text)
        for name, texts in table.items()
        for text in (texts if isinstance(texts, list) else [texts])
    ]
    return " ".join(shlex.quote(f"{name}={text}") for name, text in said)


def _meant(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
