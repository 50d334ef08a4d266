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

from playwright.sync_api import BrowserContext, Error, sync_playwright

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

    def __init__(self, context: BrowserContext, plan: dict[str, Any]) -> None:
        self.context = context
        self.plan = plan
        self.seen: dict[str, Any] = {"console": [], "elsewhere": [], "pages": {}, "end": ""}
        self.end = ""
        self.sent_to_end = False
        self.new_tab()

    def new_tab(self) -> None:
        """Go on in another tab: in the last one a page may still be on its way."""
        self.page = page = self.context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.seen["console"].append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            where = message.location.get("url", "")
            ours = where.startswith(f"{self.plan['public_url']}/")
            if where.endswith("/favicon.ico") and not ours:
                return  # the stand-in has no picture, nor has the client's own page
            if self._is_hosted(where):
                return  # that client is nowhere
            self.seen["console"].append(f"{message.type}: {message.text} ({where})")

    def _request(self, url: str) -> None:
        if self.end and url.startswith(self.end):
            self.sent_to_end = True
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost") and not self._is_hosted(url):
            self.seen["elsewhere"].append(url)

    def _is_hosted(self, url: str) -> bool:
        hosted = self.plan.get("hosted")
        return hosted is not None and url.startswith(_end_of(hosted))

    def picture(self, name: str) -> None:
        """Keep how the page looks, and its measures."""
        self.page.wait_for_load_state("load")
        self.page.screenshot(path=str(Path(self.plan["pictures"]) / name), full_page=True)
        measures = self.page.evaluate(MEASURES)
        self.seen["pages"][name] = {"title": self.page.title(), **measures}

    def go(self, url: str) -> None:
        """From the authorization request to the client's own page."""
        end = _end_of(url)
        self.page.goto(url)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if self.page.url.startswith(end):
                self.page.wait_for_load_state("load")
                self.seen["end"] = sorted(parse_qs(urlsplit(self.page.url).query))
                return
            self._step(self.plan["user"], self.plan["password"], "consent")
        raise TimeoutError(f"still at {self.page.url.partition('?')[0]}: {self.page.title()}")

    def again(self, url: str) -> None:
        """Which of our pages this browser is shown later, and when somebody else signs in."""
        hosted = self.plan.get("hosted")
        if hosted is None:
            return
        self.page.goto(url)
        met = {"loopback": ["consent"] if self._shown("button[value=allow]") else []}
        said = self.plan["user"], self.plan["password"]
        met["hosted"] = self._met(hosted, *said)
        met["hosted, again"] = self._met(hosted, *said)
        self.context.clear_cookies(name=self.plan["forge_cookie"])
        met["another"] = self._met(hosted, *self.plan["another"])
        self.seen["again"] = met

    def _met(self, url: str, user: str, password: str) -> list[str]:
        """Our pages on the way to a client that is nowhere: being sent there is the end."""
        met: list[str] = []
        self.new_tab()
        self.end, self.sent_to_end = _end_of(url), False
        try:
            self.page.goto(url)
        except Error:
            if not self.sent_to_end:
                raise
        until = time.monotonic() + SECONDS
        while not self.sent_to_end:
            if time.monotonic() > until:
                raise TimeoutError(f"still at {self.page.url.partition('?')[0]}")
            name = self._step(user, password, "hosted")
            met += [name] if name else []
        self.end = ""
        return met

    def _step(self, user: str, password: str, picture: str) -> str:
        """Do what the page wants; which of ours it was, if it was one."""
        look = self.plan["look"]
        if self._shown("button[name=decision][value=continue]"):
            self.picture(f"another-{look}.png")
            self._click("button[name=decision][value=continue]")
            return "another"
        if self._shown("button[name=decision]"):
            self.picture(f"{picture}-{look}.png")
            word = "allow" if self.plan["allow"] else "deny"
            self._click(f"button[name=decision][value={word}]")
            return "consent"
        if self._shown("input[name=password]"):
            self.page.fill("input[name=user_name]", user)
            self.page.fill("input[name=password]", password)
            self._click("button")
        elif self._shown("button[name=granted][value=true]"):
            self.seen["forge_consent"] = True
            self._click("button[name=granted][value=true]")
        else:
            self.page.wait_for_timeout(20)
        return ""

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
        while self.page.url == was and not self.sent_to_end and time.monotonic() < until:
            self.page.wait_for_timeout(20)


def _end_of(url: str) -> str:
    """Where the answer to an authorization request goes."""
    (end,) = parse_qs(urlsplit(url).query)["redirect_uri"]
    return end


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
        walk = Walk(context, plan)
        try:
            walk.go(url)
            walk.again(url)
            walk.new_tab()
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
