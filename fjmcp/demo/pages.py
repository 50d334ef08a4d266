"""
Our pages in a real Chromium: a client's sign-in, done by clicking.

The client is the TypeScript SDK, whose BROWSER is `scripts/chromium.py`; it
comes to its tool call through what the browser brings back, or does not.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from attrs import evolve

from fjmcp.demo import clients, opener, toolbox
from fjmcp.demo.clients import Place
from fjmcp.demo.forge.pages import SESSION
from fjmcp.demo.step import Say, run
from fjmcp.demo.toolbox import NotInstalled
from fjmcp.demo.walk import NotAsSaid, expect

LOOKS: Final = ("desktop-light", "desktop-dark", "phone-light", "phone-dark")

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_APT: Final = "apt-get update && apt-get install --yes --no-install-recommends chromium"
_SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "chromium.py"
_PICTURES_SECONDS: Final = 60.0
_FINGER: Final = 40.0
"""Pixels of height below which a button is hard to hit on a phone."""
_HOSTED: Final = "https://client.example/callback"
"""Where a client on the internet would be; nothing is there, but the browser is sent to it."""
_ANOTHER: Final = ("bob", "bob-demo-password")
_MET: Final = {
    # Any program may listen there, so its person is asked each time.
    "loopback": ["consent"],
    "hosted": ["consent"],
    "hosted, again": [],
    "another": ["another"],
}
"""Which of our pages a browser must be shown after somebody has signed in there."""


def chromium(say: Say) -> str:
    """
    The path of a Chromium, which root gets installed.

    :raises NotInstalled: there is none; the text says what to do.
    """
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is not None:
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NotInstalled(
            "There is no Chromium here.  Run this once, then the same make again:\n"
            f"    sudo sh -c '{_APT}'\n"
            "or name one: make e2e CHROMIUM=/path/to/chromium"
        )
    say(f"there is no Chromium; you are root, so: {_APT}")
    failed = run(["sh", "-c", _APT], {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "it", say)
    found = shutil.which("chromium")
    if failed is not None or found is None:
        raise NotInstalled(f"Chromium cannot be installed: {failed or 'it is not on PATH'}")
    return found


def walk(place: Place, look: str, program: str, pictures: Path) -> str:
    """
    Sign in by clicking, in this look.

    :return: what was seen, in a line.
    :raises NotAsSaid: something else was seen than should be.
    """
    seen_path = _plan(place, look, program, pictures, allow=True)
    seen_by_client = clients.typescript_sdk(_with_browser(place, look), toolbox.SDK, "legacy")
    expect("diary" in seen_by_client.text, "the client's tool call did not list the diary")
    seen = _read(seen_path)
    expect(seen["end"] == ["code", "iss", "state"], f"the browser came back with {seen['end']}")
    judge(seen, look)
    judge_again(seen)
    return f"Chromium {seen['version']}: signed in by clicking, {len(seen['pages'])} pages"


def refuse(place: Place, program: str, pictures: Path) -> str:
    """
    Refuse by clicking: the client is told, and gets nothing.

    :raises NotAsSaid: it gets something.
    """
    look = "refused"
    seen_path = _plan(place, look, program, pictures, allow=False)
    try:
        clients.typescript_sdk(_with_browser(place, look), toolbox.SDK, "legacy")
    except NotAsSaid as told:
        expect("error=access_denied" in str(told), f"the client was told: {told}")
    else:
        raise NotAsSaid("the client went on after a refusal")
    seen = _read(seen_path)
    judge(seen, look)
    return "refused by clicking: the client is told access_denied"


def _with_browser(place: Place, look: str) -> Place:
    return evolve(place, browser=place.home / look / "xdg-open")


def _plan(place: Place, look: str, program: str, pictures: Path, *, allow: bool) -> Path:
    folder = place.home / look
    folder.mkdir(parents=True, exist_ok=True)
    plan, seen, log = folder / "plan.json", folder / "seen.json", folder / "chromium.log"
    said = {
        "chromium": program,
        "look": look,
        "allow": allow,
        "user": opener.USER,
        "password": opener.PASSWORD,
        "public_url": place.servers.public_url,
        "pictures": str(pictures),
        "seen": str(seen),
        "hosted": _hosted(place.servers.public_url) if allow else None,
        "another": _ANOTHER,
        "forge_cookie": SESSION,
    }
    plan.write_text(json.dumps(said))
    browser = folder / "xdg-open"
    browser.write_text(
        f'#!/bin/sh\nexec "{place.box.python}" "{_SCRIPT}" "{plan}" "$1" >>"{log}" 2>&1\n'
    )
    browser.chmod(0o755)
    return seen


def _hosted(public_url: str) -> str:
    """The authorization request of a client that registers for it and goes back by https."""
    asked = {
        "client_name": "A hosted client",
        "redirect_uris": [_HOSTED],
        "token_endpoint_auth_method": "none",
    }
    request = urllib.request.Request(
        f"{public_url}/oauth/register",
        json.dumps(asked).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        registered = json.load(answer)
    query = {
        "response_type": "code",
        "client_id": registered["client_id"],
        "redirect_uri": _HOSTED,
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
    }
    return f"{public_url}/oauth/authorize?{urlencode(query)}"


def _read(path: Path) -> dict[str, Any]:
    # The client is done when it has its answer; the browser takes pictures for a while yet.
    end = time.monotonic() + _PICTURES_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    expect(path.exists(), f"the browser saw nothing; see {path.with_name('chromium.log')}")
    seen: dict[str, Any] = json.loads(path.read_text())
    return seen


def judge(seen: dict[str, Any], look: str) -> None:
    """
    Go on if what `scripts/chromium.py` saw is as it should be in this look.

    :raises NotAsSaid: it is not.
    """
    expect("failed" not in seen, f"the browser: {seen.get('failed')}")
    expect(not seen["console"], f"the console says {seen['console']}")
    expect(not seen["elsewhere"], f"a page asked for {seen['elsewhere']}")
    for name, page in seen["pages"].items():
        expect(page["scripts"] == 0, f"{name} has a script")
        expect(page["wide"] <= 0, f"{name} is {page['wide']} pixels wider than the screen")
        dark = sum(_numbers(page["ground"])) < sum(_numbers(page["ink"]))
        expect(dark == look.endswith("dark"), f"{name} is {page['ground']} in {look}")
        if look.startswith("phone"):
            low = [height for height in page["buttons"] if height < _FINGER]
            expect(not low, f"{name} has buttons of {low} pixels")


def judge_again(seen: dict[str, Any]) -> None:
    """
    Go on if the browser was asked again where it must be, and nowhere else.

    :raises NotAsSaid: it was not so.
    """
    met = seen.get("again")
    expect(met == _MET, f"later the browser was shown {met}, and not {_MET}")


def _numbers(colour: str) -> list[int]:
    return [int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
