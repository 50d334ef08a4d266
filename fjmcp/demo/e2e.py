"""
`make e2e`: real clients, and our pages in a real Chromium, against the demo's servers.

    python -m fjmcp.demo.e2e            all
    python -m fjmcp.demo.e2e inspector  those whose name has this word
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fjmcp.demo import child as children
from fjmcp.demo import clients, opener, pages
from fjmcp.demo.child import NoChild
from fjmcp.demo.clients import Place
from fjmcp.demo.processes import NotStarted, Servers
from fjmcp.demo.toolbox import HOME, NODE, PLAYWRIGHT, NotInstalled, toolbox

_CHILD_HOME: Final = Path(".child")

Walk = Callable[[Place], str]


def walks(program: str, pictures: Path) -> dict[str, Walk]:
    """Every walk, by its name.  The browser's are first: only the first sees Forgejo's consent."""

    def clicking(look: str) -> Walk:
        return lambda place: pages.walk(place, look, program, pictures)

    def client(name: str) -> Walk:
        return lambda place: clients.walk(name, place)

    return {
        **{f"browser, {look}": clicking(look) for look in pages.LOOKS},
        "browser, refusing": lambda place: pages.refuse(place, program, pictures),
        **{name: client(name) for name in clients.CLIENTS},
    }


def main(arguments: list[str]) -> int:
    """Walk them all, whatever fails on the way; 1 if any did."""
    parser = argparse.ArgumentParser(
        prog="make e2e", description="Real clients and a real browser, from URL to tool call."
    )
    parser.add_argument("word", nargs="?", default="", help="only walks whose name has it")
    parser.add_argument("--child", metavar="CHILD", help="forgejo-mcp, gitea-mcp, or a path")
    options = parser.parse_args(arguments)
    options.word = options.word.lower()
    home = (HOME / "e2e").absolute()
    try:
        program = pages.chromium(_aside)
        box = toolbox("clients", [NODE, PLAYWRIGHT], clients.NODE_PACKAGES, _aside)
        child = children.find(options.child, _CHILD_HOME, _aside)
    except (NotInstalled, NoChild) as refused:
        print(refused, file=sys.stderr)
        return 1
    shutil.rmtree(home, ignore_errors=True)
    pictures = Path(tempfile.mkdtemp(prefix="fjmcp-pages-"))
    servers = Servers(child, home)
    failed = []
    try:
        servers.start_forge()
        servers.start_broker()
        print(f"broker at {servers.public_url}, {child.kind} behind it; logs are in {home}/\n")
        browser = opener.write(home / "browser")
        every = walks(program, pictures)
        chosen = {name: way for name, way in every.items() if options.word in name.lower()}
        if not chosen:
            failed.append(f"no walk is called {options.word}; there are: {', '.join(every)}")
        for number, (name, walk) in enumerate(chosen.items()):
            place = Place(servers, box, home / str(number), browser)
            place.home.mkdir()
            try:
                print(f"  passed  {name}: {walk(place)}", flush=True)
            # One client's failure, of whatever kind, is no reason to leave out the others.
            except Exception as why:
                failed.append(name)
                print(f"  FAILED  {name}: {_innermost(why)}", flush=True)
    except NotStarted as why:
        failed.append(str(why))
    except KeyboardInterrupt:
        failed.append("stopped before its end")
    finally:
        servers.stop()
    if any(pictures.iterdir()):
        print(f"\npictures of the pages are in {pictures}/")
    else:
        pictures.rmdir()
    print(f"\nnot as it should be: {', '.join(failed)}" if failed else "\nAll as it should be.")
    return 1 if failed else 0


def _innermost(failed: BaseException) -> str:
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return str(failed) or repr(failed)


def _aside(words: str) -> None:
    print(f"      {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
