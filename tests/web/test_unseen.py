"""Errors of requests that nobody has seen (docs/decisions/0009)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fjmcp import limits
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import CLIENT_URL
from tests.web.whole import (
    CALLBACK,
    FORWARDER_URL,
    KNOWN_URL,
    LOCAL_URL,
    PRIVATE_URL,
    ConsentCase,
    said,
)


class UnseenTests(ConsentCase):
    """An error of a request that nobody has seen."""

    WRONG: Mapping[str, Any] = {"response_type": "token"}

    def assert_explained(self, visit: Visit) -> None:
        """A page that says what is wrong, and has a link there."""
        self.assertEqual(visit.status, 400, visit.body)
        self.assertIsNone(visit.header("location"))
        page = visit.body.decode()
        self.assertIn("The only response_type is code.", page)
        self.assertIn("does not know where that address leads", page)
        self.assertNotIn("http-equiv", page)
        link = page.partition('href="https://client')[2].partition('"')[0].replace("&amp;", "&")
        answer = said(f"https://client{link}")
        self.assertEqual(
            (answer["error"], answer["state"]), ("unsupported_response_type", "the-state")
        )
        self.assertEqual(answer["iss"], PUBLIC_URL)

    def test_where_to(self) -> None:
        """The browser is sent on unasked only to a known callback or its own computer."""
        for uri, sent in (
            (KNOWN_URL, True),
            (LOCAL_URL, True),
            ("http://localhost/cb", True),
            ("https://client.example/elsewhere", False),
            ("https://client.claude.ai/cb", False),
        ):
            app = self.broker.register(redirect_uris=[uri], client_name="Claude")
            for browser in (self.browser, self.broker.browser()):
                visit = self.visit(app, browser, **self.WRONG)
                if sent:
                    self.assertEqual(visit.status, 303)
                    self.assertTrue((visit.header("location") or "").startswith(f"{uri}?"))
                else:
                    self.assert_explained(visit)
                self.assertIsNone(visit.header("set-cookie"))

    def test_known_hosts(self) -> None:
        """What is on a known host beside its callback, or sends on from there to where the link
        says, is no place to be sent to unasked."""
        for uri in (
            f"{KNOWN_URL}?to=https%3A%2F%2Fevil.example",
            "https://claude.ai/public/artifacts/x",
            "https://chatgpt.com/g/x",
            FORWARDER_URL,
            f"{FORWARDER_URL}?url=vscode%3Amcp%2Finstall",
        ):
            app = self.broker.register(redirect_uris=[uri])
            for wrong in (self.WRONG, {"prompt": "none"}):
                visit = self.visit(app, state="http://127.0.0.1:6666/", **wrong)
                self.assertEqual((visit.status, visit.header("location")), (400, None), uri)
                self.assertIn(b"does not know where that address leads", visit.body)

    def test_private_scheme(self) -> None:
        """Nor is a program on their computer started unasked."""
        app = self.broker.register(redirect_uris=[PRIVATE_URL])
        visit = self.visit(app, **self.WRONG)
        self.assertEqual((visit.status, visit.header("location")), (400, None))
        self.assertIn(f'href="{PRIVATE_URL}?'.encode(), visit.body)

    def test_remembered(self) -> None:
        """Whom the person of this browser allowed this very thing is told at once, and nobody
        else."""
        visit = self.visit(**self.WRONG)
        self.assertEqual((visit.status, said(visit)["error"]), (303, "unsupported_response_type"))
        self.assert_explained(self.visit(browser=self.broker.browser(), **self.WRONG))
        self.assert_explained(self.visit(scope="forge:read", **self.WRONG))
        self.assert_explained(self.visit(self.broker.register(), **self.WRONG))
        several = self.broker.register(redirect_uris=[CLIENT_URL, f"{CLIENT_URL}2"])
        several.sign_in(browser=self.browser)
        self.assertEqual(self.visit(several, **self.WRONG).status, 303)
        self.assert_explained(self.visit(several, redirect_uri=f"{CLIENT_URL}2", **self.WRONG))
        self.broker.advance(limits.CONSENT_KEPT)
        self.assert_explained(self.visit(**self.WRONG))

    def test_withdrawn(self) -> None:
        """After the consent was withdrawn it is a page again."""
        answer = said(now(self.browser.open(self.app.authorize_url())))
        self.app.revoke(self.app.redeem(answer["code"]).json()["access_token"])
        self.assert_explained(self.visit(**self.WRONG))

    def test_prompt_none(self) -> None:
        """A silent request of a client that nobody knows leads nowhere by itself."""
        visit = self.visit(browser=self.broker.browser(), prompt="none")
        self.assertEqual((visit.status, visit.header("location")), (400, None))
        self.assertIn(b"interaction_required", visit.body)

    def test_seen(self) -> None:
        """Who has seen the page and refuses is sent there as ever; so is who comes back from
        Forgejo."""
        browser = self.broker.browser()
        back = now(browser.submit(self.app.open(browser), "deny"))
        self.assertEqual(back.url.partition("?")[0], CLIENT_URL)
        state = said(self.to_callback(browser))["state"]
        back = self.open(browser, f"{CALLBACK}?error=x&state={quote(state)}")
        self.assertEqual(back.url.partition("?")[0], CLIENT_URL)

    def test_store_down(self) -> None:
        """Whether somebody allowed it cannot be asked just now: a page, and no redirect."""
        self.broker.store.fail_all()
        visit = self.visit(**self.WRONG)
        self.assertEqual((visit.status, visit.header("location")), (503, None))
