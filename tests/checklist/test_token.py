"""The checklist: the token endpoint and its tokens (items 10 to 12)."""

from __future__ import annotations

import json

from fjmcp import limits
from fjmcp.oauth.tokens import TokenText, digest
from tests.promises.client import Client, able
from tests.web.whole import BrokerCase


class TokenTests(BrokerCase):
    def test_item_10_token_endpoint(self) -> None:
        """Forms only, of a few KiB, answered with no-store; a client comes in the one way that it
        registered, with a secret that is kept as a digest, else `invalid_client` with 401."""
        visitor = self.broker.visitor()
        form = {"grant_type": "refresh_token", "client_id": self.app.client_id}
        sent = visitor.post_json("/oauth/token", form)
        self.assert_error(sent, "invalid_request")
        self.assertEqual(visitor.get("/oauth/token?grant_type=refresh_token").status, 405)
        large = visitor.post_form("/oauth/token", form | {"x": "y" * limits.FORM_BODY})
        self.assert_error(large, "invalid_request", 413)
        post = self.broker.register(token_endpoint_auth_method="client_secret_post")
        basic = self.broker.register(token_endpoint_auth_method="client_secret_basic")
        for app in (self.app, post, basic):
            visit = app.redeem(app.code())
            self.assertEqual((visit.status, visit.header("cache-control")), (200, "no-store"))
            self.assertEqual(visit.json()["token_type"], "Bearer")
            self.assertGreater(visit.json()["expires_in"], 0)
        kept = {
            bytes(row) for (row,) in self.rows("SELECT secret_digest FROM registrations") if row
        }
        secrets = {app.registered["client_secret"] for app in (post, basic)}
        self.assertEqual(kept, {digest(TokenText(secret)).value for secret in secrets})
        for app, changes in (
            (self.app, {"client_secret": "x"}),
            (post, {"client_secret": None}),
            (post, {"client_secret": basic.registered["client_secret"]}),
            (post, {"client_secret": ""}),
            (self.app, {"client_id": "fj-nobody"}),
            (self.app, {"client_id": None}),
        ):
            self.assert_error(app.redeem(app.code(), **changes), "invalid_client", 401)
        wrong = self.broker.app(basic.registered | {"client_secret": "x"})
        visit = wrong.redeem(basic.code())
        self.assert_error(visit, "invalid_client", 401)
        self.assertTrue((visit.header("www-authenticate") or "").startswith("Basic "))

    def test_item_11_refresh(self) -> None:
        """Refresh tokens rotate; racing twice gives the same pair for a minute; a replay after it
        ends the family. They are bound to client and resource, end when idle or old, and never
        widen."""
        first = self.app.tokens()
        second = self.app.refresh(first["refresh_token"]).json()
        self.assertNotEqual(first["refresh_token"], second["refresh_token"])
        again = self.app.refresh(first["refresh_token"]).json()
        for name in ("access_token", "refresh_token"):
            self.assertEqual(again[name], second[name])
        other = self.broker.register()
        self.assert_error(other.refresh(second["refresh_token"]), "invalid_grant")
        wider = self.app.refresh(second["refresh_token"], scope="forge:admin forge:read")
        self.assertEqual(set(wider.json()["scope"].split()), {"forge:read", "forge:write"})
        self.broker.advance(limits.REFRESH_GRACE)
        self.assert_error(self.app.refresh(first["refresh_token"]), "invalid_grant")
        self.assertEqual(self.app.knocks(wider.json()["access_token"]), 401)
        self.assert_error(self.app.refresh(wider.json()["refresh_token"]), "invalid_grant")
        idle = self.app.tokens()
        self.broker.advance(limits.GRANT_IDLE)
        self.assert_error(self.app.refresh(idle["refresh_token"]), "invalid_grant")

    def test_item_12_access_tokens(self) -> None:
        """Access tokens say nothing, have 256 random bits, are kept as digests, and end in hours;
        a revocation ends calls, streams and children before it is answered, and an account whose
        credential is dead is a 401, never a 5xx."""
        self.broker.reactor.mind = able
        client = Client.of(self.broker)
        token = client.tokens["access_token"]
        self.assertRegex(token, r"\Afja_[A-Za-z0-9_-]{43}\Z")
        kept = {bytes(row) for (row,) in self.rows("SELECT token FROM access_tokens")}
        self.assertEqual(kept, {digest(TokenText(token)).value})
        self.assertLessEqual(client.tokens["expires_in"], limits.ACCESS_TOKEN)
        client.initialize()
        call = client.call("wait")
        stream = self.broker.visitor().get(
            "/mcp",
            authorization=f"Bearer {token}",
            mcp_session_id=client.session or "",
            accept="text/event-stream",
        )
        self.assertTrue(stream.answered and not stream.ended)
        revoked = client.app.revoke(token)
        self.broker.settle()
        self.assertEqual(revoked.status, 200)
        self.assertTrue(stream.ended)
        self.assertEqual(self.broker.reactor.alive, [])
        self.assertIn("withdrawn", json.dumps(call.json()))
        self.assertEqual(client.app.knocks(token), 401)
        later = self.app.tokens("bob")
        self.assertEqual(self.app.knocks(later["access_token"]), 200)
        self.broker.advance(limits.ACCESS_TOKEN)
        self.assertEqual(self.app.knocks(later["access_token"]), 401)
        asleep = self.app.refresh(later["refresh_token"]).json()
        self.broker.forge.revoke("bob")
        self.broker.advance(3600.0)
        for _ in range(3):
            visit = self.app.call(asleep["access_token"])
            self.broker.advance(limits.REFRESH_SETTLE + 1)
        visit = self.app.call(asleep["access_token"])
        self.assertEqual(visit.status, 401)
        self.assertIn("invalid_token", visit.header("www-authenticate") or "")
        self.assert_error(self.app.refresh(asleep["refresh_token"]), "invalid_grant")
