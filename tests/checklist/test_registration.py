"""The checklist: registration that is open to everybody (item 15)."""

from __future__ import annotations

import json

from fjmcp import limits
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import CLIENT_URL, WholeBroker
from fjmcp.web.addresses import Proxies
from tests.web.whole import BrokerCase


class RegistrationTests(BrokerCase):
    def test_item_15_bounds(self) -> None:
        """A registration is small, has few and short redirect URIs and a short plain name; no
        wildcard, no secret word of its own, and nothing that it links to is ever fetched."""
        visitor = self.broker.visitor()
        good = {"redirect_uris": [CLIENT_URL]}
        large = good | {"x": "y" * limits.REGISTRATION_BODY}
        self.assert_error(visitor.post_json("/oauth/register", large), "invalid_request", 413)
        for body, error, status in (
            (
                {"redirect_uris": [f"{CLIENT_URL}{n}" for n in range(11)]},
                "invalid_redirect_uri",
                400,
            ),
            ({"redirect_uris": [f"{CLIENT_URL}?{'x' * 2048}"]}, "invalid_redirect_uri", 400),
            ({"redirect_uris": ["https://*.example/cb"]}, "invalid_redirect_uri", 400),
        ):
            self.assert_error(visitor.post_json("/oauth/register", body), error, status)
        before = sum(self.broker.forge.troubles.calls.values())
        answer = visitor.post_json(
            "/oauth/register",
            good
            | {
                "client_name": "\u202eevil\x00\u200b" + "n" * 500,
                "client_secret": "mine",
                "client_id": "mine",
                "software_statement": "e30.e30.e30",
                "jwks_uri": "https://evil.example/jwks",
                "logo_uri": "https://evil.example/logo.png",
                "policy_uri": "https://evil.example/policy",
            },
        ).json()
        self.assertEqual(len(answer["client_name"]), limits.CLIENT_NAME)
        self.assertTrue(answer["client_name"].startswith("evil"), answer["client_name"])
        self.assertNotIn("mine", (answer["client_id"], answer["client_secret"]))
        self.assertNotIn("evil.example", json.dumps(answer))
        self.assertEqual(sum(self.broker.forge.troubles.calls.values()), before)

    def test_item_15_flood(self) -> None:
        """A program in a circle is slowed, hosted assistants far later, and neither memory nor
        anybody's client in use is lost to it."""
        broker = WholeBroker(trusted_proxies=Proxies())
        used = broker.register()
        tokens = used.tokens()
        visitor = broker.visitor()
        statuses = [
            visitor.post_json("/oauth/register", {"redirect_uris": [f"{CLIENT_URL}{n}"]}).status
            for n in range(limits.RATES_OF_ADDRESS["register"][0] + 5)
        ]
        self.assertEqual((statuses[0], statuses[-1]), (201, 429))
        last = visitor.post_json("/oauth/register", {"redirect_uris": [CLIENT_URL]})
        self.assertIsNotNone(last.header("retry-after"))
        hosted, everybody = limits.RATES_OF_HOSTED["register"], limits.RATES_OF_ADDRESS["register"]
        self.assertGreater(hosted[0], everybody[0])
        broker.advance(limits.CLIENT_UNUSED)
        now(broker.parts.registrar.expire())
        left = now(broker.store.read(lambda cursor: cursor.many("SELECT client_id FROM clients")))
        self.assertEqual(left, [(used.client_id,)])
        self.assertEqual(used.refresh(tokens["refresh_token"]).status, 200)
