"""
A browser for programs that want to open one: it signs in and comes back.

    python -m fjmcp.demo.opener 'http://…/oauth/authorize?…'

A client calls this as it would call `xdg-open`, and finds at its own callback
what a person's browser would have brought there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from fjmcp.demo.person import Lost, Person

USER = "alice"
PASSWORD = "alice-demo-password"


async def bring_back(url: str, tell: Callable[[str], None]) -> int:
    """
    Sign in at `url`, an authorization request, and bring the answer to its redirect URI.

    :return: the status of the client's own page there.
    :raises Lost: a page has no way on.
    """
    (end,) = parse_qs(urlsplit(url).query)["redirect_uri"]
    async with Person(USER, PASSWORD, tell=tell) as person:
        came = await person.sign_in(url, end)
    async with httpx2.AsyncClient(timeout=30) as browser:
        answer = await browser.get(f"{end}?{urlencode(came)}")
    return answer.status_code


def write(folder: Path) -> Path:
    """A program `xdg-open` in `folder` that does this, for a client's PATH or BROWSER."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "xdg-open"
    log = folder / "opened.log"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m fjmcp.demo.opener "$1" >>"{log}" 2>&1\n'
    )
    program.chmod(0o755)
    return program


def main(arguments: list[str]) -> int:
    """Open one URL; 1 if the way back was not found."""
    try:
        status = asyncio.run(bring_back(arguments[0], lambda words: print(words, flush=True)))
    except (Lost, httpx2.HTTPError) as failed:
        print(f"{failed}", flush=True)
        return 1
    print(f"back at the client: {status}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
