"""
The table of options in words: `--help`, docs/configuration.md, and what is
printed when a configuration cannot be run.

`python -m fjmcp.daemon.handbook docs/configuration.md` (`make docs`) writes the
page; a test holds it to the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

from fjmcp.daemon.sources import Problem
from fjmcp.daemon.table import EXTRA_VARIABLES, TABLE, Kind, Option

WIDTH: Final = 88
"""Columns of what is printed: read in terminals and in journals."""

COMMAND: Final = """\
FJMCP_FORGEJO_OAUTH_CLIENT_SECRET=gto_… twistd -n fjmcp \\
    --public-url https://mcp.example.org \\
    --forgejo-url https://git.example.org \\
    --forgejo-oauth-client-id 0f8fad5b-d9cb-469f-a165-70867728950e \\
    --store /var/lib/fjmcp/fjmcp.sqlite3"""

FILE: Final = """\
public-url = "https://mcp.example.org"
forgejo-url = "https://git.example.org"
forgejo-oauth-client-id = "0f8fad5b-d9cb-469f-a165-70867728950e"
forgejo-oauth-client-secret-file = "/etc/fjmcp/client-secret"
store = "/var/lib/fjmcp/fjmcp.sqlite3"
max-sessions = 50
token-refresh-lead = "10m"
child-env = ["TZ=Europe/Zagreb"]"""

_EXITS: Final = (
    ("0", "it did what was asked"),
    ("2", "the configuration or the command line is wrong; nothing was started"),
    ("1", "it could not start or go on, such as a port that is in use"),
)

_VERBS: Final = frozenset({"is", "has", "must", "cannot", "needs", "says"})
"""With these a problem goes on where the name of the option ended."""

_SOURCES: Final = (
    "Each option may be a flag, a variable of the environment, or a key of the TOML file that"
    " --config names; a flag wins over the environment, that over the file."
)


def usage(program: str) -> str:
    """What `--help` prints."""
    lines = [
        f"Usage: {program} [options]",
        "",
        _wrapped(
            "The front door between AI assistants and a Forgejo: people paste one URL, sign in at"
            " their Forgejo, and their assistant works there as them."
        ),
        "",
        "A whole command:",
        "",
        *(f"  {line}" for line in COMMAND.splitlines()),
        "",
        _wrapped(_SOURCES),
    ]
    for group, options in _groups():
        lines += ["", f"{group}:"]
        for option in options:
            lines += [f"  {_spelling(option)}", _indented(option.reason)]
            lines += [_indented(f"{_default(option)}  {option.variable}")]
    lines += ["", "Also:"]
    lines += ["  --help", _indented("This text.")]
    lines += ["  --version", _indented("Version, revision and build date; needs no options.")]
    lines += ["", "It ends with:"]
    lines += [f"  {code}  {what}" for code, what in _EXITS]
    lines += ["", f"Options of {program.split()[0]} itself (--pidfile, --logfile, --uid, …) come"]
    lines += ["before the word fjmcp."]
    return "\n".join(lines) + "\n"


def problems_text(problems: Sequence[Problem]) -> str:
    """What is printed when nothing can be started: every problem, and its mend."""
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"fjmcp cannot start: {count} in its configuration"]
    for problem in problems:
        option = problem.option
        what = problem.what if problem.what.endswith((".", "?")) else f"{problem.what}."
        if option is None:
            lines += ["", _wrapped(what)]
            continue
        where = f" [{problem.where}]" if problem.where not in {"", option.flag} else ""
        colon = "" if what.split()[0] in _VERBS else ":"
        lines += ["", _wrapped(f"{option.flag}{colon} {what}{where}")]
        if what == "is missing.":
            lines += [_indented(option.reason)]
        lines += [_indented(_how(option))]
    lines += ["", "Nothing was started.  twistd fjmcp --help explains every option."]
    return "\n".join(lines)


def configuration_page() -> str:
    """docs/configuration.md"""
    lines = [
        "# Configuration",
        "",
        "<!-- Made from fjmcp/daemon/table.py by `make docs`; change it there. -->",
        "",
        _SOURCES,
        "An empty variable counts as not set.",
        "All problems of a configuration are reported together, and then nothing is started.",
        "",
        "A whole command:",
        "",
        "```",
        *COMMAND.splitlines(),
        "```",
        "",
        "The same and more as a file for `--config`:",
        "",
        "```toml",
        *FILE.splitlines(),
        "```",
        "",
        "Times are seconds, or a number with `s`, `m`, `h` or `d`: `90`, `15m`, `1h`.",
        "A relative path starts at the working directory.",
        "A key that is no option is refused, a variable `FJMCP_…` that is none is a warning.",
    ]
    for group, options in _groups():
        lines += ["", f"## {group}", ""]
        for option in options:
            lines += [f"### `{_spelling(option)}`", "", *_sentences(option.reason), ""]
            lines += ["| | |", "|---|---|"]
            lines += [f"| environment | `{option.variable}` |"]
            if option.in_file:
                lines += [f"| file | {_in_file(option)} |"]
            lines += [f"| default | {_default_cell(option)} |"]
            lines += [f"| example | `{_cell(_example(option))}` |", ""]
        lines.pop()
    lines += ["", "## Only in the environment", ""]
    lines += [f"- `{name}`: {what}" for name, what in EXTRA_VARIABLES.items()]
    lines += ["- `STATE_DIRECTORY`, `CREDENTIALS_DIRECTORY`: set by systemd, see above"]
    lines += ["", "## How it ends", "", "| status | |", "|---|---|"]
    lines += [f"| {code} | {what} |" for code, what in _EXITS]
    lines += ["", "A stop by SIGTERM ends by that signal, as `twistd` does."]
    return "\n".join(lines) + "\n"


def _groups() -> Iterable[tuple[str, list[Option]]]:
    groups: dict[str, list[Option]] = {}
    for option in TABLE:
        groups.setdefault(option.group, []).append(option)
    return groups.items()


def _spelling(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return f"{option.flag}, --no-{option.name}"
    return f"{option.flag} {option.shape}"


def _default(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return f"Default: {_state(option)}."
    if option.default is not None:
        return f"Default: {option.default}."
    return "Required." if option.required else f"Without it: {option.absent}."


def _state(option: Option) -> str:
    """What a switch is if nobody says anything."""
    return "on" if option.default == "true" else "off"


def _default_cell(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return _state(option)
    if option.default is not None:
        return f"`{option.default}`"
    return "none, it is required" if option.required else option.absent


def _in_file(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return f"`{option.name} = {option.example}`"
    if option.kind is Kind.MANY:
        return f'`{option.name} = ["{_cell(option.example)}"]`'
    return f'`{option.name} = "{_cell(option.example)}"`'


def _example(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return option.flag if option.example == "true" else f"--no-{option.name}"
    if option.secret:
        return f"{option.variable}={option.example}"
    text = f"'{option.example}'" if set(" {<|") & set(option.example) else option.example
    return f"{option.flag} {text}"


def _how(option: Option) -> str:
    places = [f"{option.flag}", option.variable]
    if option.in_file:
        places.append(f"{option.name} in the file of --config")
    return f"Say it as {' or '.join(places)}; for example: {_example(option)}"


def _indented(text: str) -> str:
    return _wrapped(text, " " * 6)


def _wrapped(text: str, indent: str = "") -> str:
    """Lines of `WIDTH`; URLs and names of options stay whole, to be copied."""
    return fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sentences(text: str) -> list[str]:
    """One sentence a line, so that a change of one shows as one."""
    return text.replace(". ", ".\n").replace("<", "&lt;").splitlines()


def _cell(text: str) -> str:
    """Code in a Markdown table, where a bar would end the cell."""
    return text.replace("|", "\\|")


def main(arguments: Sequence[str]) -> None:
    """Write the page to the file that is named."""
    Path(arguments[0]).write_text(configuration_page(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
