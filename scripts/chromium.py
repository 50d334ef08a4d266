"""
A real browser that a client opens: the whole sign-in by typing and clicking.

    chromium.py PLAN URL

PLAN is a JSON file that `fjmcp.demo.pages` writes: which Chromium, which look,
allow or refuse, where the pictures go and where what was seen is written to.
It runs by the interpreter that has playwright, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, sync_playwright

SECONDS = 30.0

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing but this machine has an address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

MEASURES = """() => ({
    wide: document.documentElement.scrollWidth - window.innerWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    scripts: document.scripts.length,
    buttons: [...document.querySelectorAll('button')].map((b) => b.getBoundingClientRect().height),
})"""


class Walk:
    """One sign-in, and what was seen on the way."""

    def __init__(self, page: Page, plan: dict[str, Any]) -> None:
        self.page = page
        self.plan = plan
        self.seen: dict[str, Any] = {"console": [], "elsewhere": [], "pages": {}, "end": ""}
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.seen["console"].append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            where = message.location.get("url", "")
            ours = where.startswith(f"{self.plan['public_url']}/")
            if where.endswith("/favicon.ico") and not ours:
                return  # the stand-in has no picture, nor has the client's own page
            self.seen["console"].append(f"{message.type}: {message.text} ({where})")

    def _request(self, url: str) -> None:
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
            self.seen["elsewhere"].append(url)

    def picture(self, name: str) -> None:
        """Keep how the page looks, and its measures."""
        self.page.wait_for_load_state("load")
        self.page.screenshot(path=str(Path(self.plan["pictures"]) / name), full_page=True)
        measures = self.page.evaluate(MEASURES)
        self.seen["pages"][name] = {"title": self.page.title(), **measures}

    def go(self, url: str) -> None:
        """From the authorization request to the client's own page."""
        (end,) = parse_qs(urlsplit(url).query)["redirect_uri"]
        look = self.plan["look"]
        self.page.goto(url)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if self.page.url.startswith(end):
                self.page.wait_for_load_state("load")
                self.seen["end"] = sorted(parse_qs(urlsplit(self.page.url).query))
                return
            if self._shown("button[name=decision]"):
                self.picture(f"consent-{look}.png")
                word = "allow" if self.plan["allow"] else "deny"
                self._click(f"button[name=decision][value={word}]")
            elif self._shown("input[name=password]"):
                self.page.fill("input[name=user_name]", self.plan["user"])
                self.page.fill("input[name=password]", self.plan["password"])
                self._click("button")
            elif self._shown("button[name=granted][value=true]"):
                self.seen["forge_consent"] = True
                self._click("button[name=granted][value=true]")
            else:
                self.page.wait_for_timeout(20)
        raise TimeoutError(f"still at {self.page.url.partition('?')[0]}: {self.page.title()}")

    def others(self) -> None:
        """Our pages beside the way: the front page, and a refusal that is explained."""
        origin = self.plan["public_url"]
        for name, path in (("front", "/"), ("refusal", "/oauth/authorize?client_id=nobody")):
            self.page.goto(f"{origin}{path}")
            self.picture(f"{name}-{self.plan['look']}.png")

    def _shown(self, selector: str) -> bool:
        return self.page.locator(selector).count() > 0

    def _click(self, selector: str) -> None:
        was = self.page.url
        self.page.locator(selector).first.click()
        until = time.monotonic() + SECONDS
        while self.page.url == was and time.monotonic() < until:
            self.page.wait_for_timeout(20)


def main(plan_path: str, url: str) -> int:
    """Go through one sign-in; 1 if it did not come to its end."""
    plan = json.loads(Path(plan_path).read_text())
    phone = plan["look"].startswith("phone")
    size = {"width": 360, "height": 740} if phone else {"width": 1100, "height": 800}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=plan["chromium"], args=FLAGS)
        context = browser.new_context(
            viewport=size,
            device_scale_factor=2 if phone else 1,
            has_touch=phone,
            color_scheme="dark" if plan["look"].endswith("dark") else "light",
        )
        walk = Walk(context.new_page(), plan)
        try:
            walk.go(url)
            asked = list(walk.seen["console"])
            walk.others()
            # A refusal's status is 400, which Chromium calls an error of loading.
            walk.seen["console"] = asked
        except Exception as failed:
            walk.seen["failed"] = f"{failed}"
        walk.seen["version"] = browser.version
        half = Path(f"{plan['seen']}.half")
        half.write_text(json.dumps(walk.seen))
        half.rename(plan["seen"])  # whoever waits for it finds it whole
        browser.close()
    return 1 if "failed" in walk.seen else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
