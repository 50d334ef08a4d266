"""Introspection, userinfo, discovery, and what becomes of bearers, after forgejo.md §3."""

from __future__ import annotations

from fjmcp.demo.forge.grants import Application
from fjmcp.demo.forge.standin import CLIENT_ID, CLIENT_SECRET
from tests.demo.standing import CALLBACK, SCOPE, URL, Reply, StandInCase, basic_header

INTROSPECT = "/login/oauth/introspect"
USERINFO = "/login/oauth/userinfo"


class IntrospectTests(StandInCase):
    """`/login/oauth/introspect`."""

    def introspect(self, token: str, basic: tuple[str, str] = (CLIENT_ID, CLIENT_SECRET)) -> Reply:
        """Ask as a client."""
        return self.ask("POST", INTROSPECT, form={"token": token}, basic=basic)

    def test_active(self) -> None:
        """An access token's answer: no exp, no client_id, the scope as it was asked for."""
        reply = self.introspect(self.pair(scope="openid typo:scope")["access_token"])
        self.assertEqual(
            reply.json,
            {
                "active": True,
                "scope": "openid typo:scope",
                "username": "alice",
                "iss": URL,
                "sub": "2",
                "aud": [CLIENT_ID],
            },
        )

    def test_no_scope(self) -> None:
        """A grant without scope has no scope member."""
        self.assertNotIn("scope", self.introspect(self.pair(scope="")["access_token"]).json)

    def test_refresh_tokens(self) -> None:
        """Refresh tokens are active too, the used ones as well."""
        first = self.pair()
        self.refresh(first["refresh_token"])
        self.assertTrue(self.introspect(first["refresh_token"]).json["active"])

    def test_inactive(self) -> None:
        """Expired, revoked and garbage are inactive, and nothing more is said."""
        token = self.pair()["access_token"]
        self.assertEqual(self.introspect("garbage").json, {"active": False})
        self.forge.revoke("alice")
        self.assertEqual(self.introspect(token).json, {"active": False})
        token = self.pair()["access_token"]
        self.clock.advance(3600)
        self.assertEqual(self.introspect(token).json, {"active": False})

    def test_any_application_may_ask(self) -> None:
        """Any application may ask about any other's token."""
        self.forge.grants.register(Application("other", "gto_other-demo", (CALLBACK,)))
        reply = self.introspect(self.pair()["access_token"], ("other", "gto_other-demo"))
        self.assertEqual(reply.json["aud"], [CLIENT_ID])

    def test_needs_basic(self) -> None:
        """Without the right secret, or with it in the body only, 401 in plain text."""
        token = self.pair()["access_token"]
        in_body = {"token": token, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        for reply in (
            self.introspect(token, (CLIENT_ID, "no")),
            self.introspect(token, ("nobody", CLIENT_SECRET)),
            self.ask("POST", INTROSPECT, form=in_body),
            self.ask("POST", INTROSPECT, form={}, headers={"authorization": "Basic %%"}),
        ):
            self.assertEqual((reply.status, reply.text), (401, "no valid authorization"))
            self.assertEqual(reply.header("www-authenticate"), 'Basic realm=""')


class UserinfoTests(StandInCase):
    """`/login/oauth/userinfo`."""

    def test_members(self) -> None:
        """Exactly these members, e-mail included, with any scope."""
        token = self.pair(scope="read:issue")["access_token"]
        for method in ("GET", "POST"):
            self.assertEqual(
                self.ask(method, USERINFO, bearer=token).json,
                {
                    "sub": "2",
                    "name": "Alice Demo",
                    "preferred_username": "alice",
                    "email": "alice@demo.invalid",
                    "picture": f"{URL}/avatars/alice",
                },
            )

    def test_nobody(self) -> None:
        """Without a token: 401 in plain text with a challenge."""
        reply = self.ask("GET", USERINFO)
        self.assertEqual((reply.status, reply.text), (401, "no valid authorization"))
        self.assertEqual(reply.header("www-authenticate"), 'Bearer realm=""')

    def test_bad_token(self) -> None:
        """With a bad token: 401 in plain text without one."""
        reply = self.ask("GET", USERINFO, bearer="garbage")
        self.assertEqual((reply.status, reply.header("www-authenticate")), (401, None))
        self.assertIn("text/plain", reply.header("content-type") or "")


class DiscoveryTests(StandInCase):
    """What Forgejo says of itself."""

    def test_document(self) -> None:
        """The issuer has no slash; there is no registration and no revocation."""
        document = self.ask("GET", "/.well-known/openid-configuration").json
        self.assertEqual(document["issuer"], URL)
        self.assertEqual(document["token_endpoint"], f"{URL}/login/oauth/access_token")
        self.assertEqual(document["scopes_supported"], ["openid", "profile", "email", "groups"])
        self.assertEqual(document["code_challenge_methods_supported"], ["plain", "S256"])
        for absent in (
            "registration_endpoint",
            "revocation_endpoint",
            "token_endpoint_auth_methods_supported",
        ):
            self.assertNotIn(absent, document)

    def test_no_other_document(self) -> None:
        """There is no RFC 8414 document."""
        self.assertEqual(self.ask("GET", "/.well-known/oauth-authorization-server").status, 404)

    def test_keys(self) -> None:
        """The key set has the key of the tokens' headers."""
        [key] = self.ask("GET", "/login/oauth/keys").json["keys"]
        self.assertEqual((key["kty"], key["alg"], key["use"]), ("RSA", "RS256", "sig"))
        self.assertEqual(key["kid"], self.forge.key.key_id)


class BearerTests(StandInCase):
    """How tokens may come, and what their refusal says."""

    def test_ways(self) -> None:
        """Bearer and token in any case, Basic on either side, and in the URL."""
        token = self.pair()["access_token"]
        for header in (
            f"Bearer {token}",
            f"bearer {token}",
            f"token {token}",
            f"TOKEN {token}",
            basic_header("anything", token),
            basic_header(token, "x-oauth-basic"),
            basic_header(token, ""),
        ):
            reply = self.ask("GET", "/api/v1/user", headers={"authorization": header})
            self.assertEqual(reply.json["login"], "alice")
        self.assertEqual(self.ask("GET", f"/api/v1/user?access_token={token}").status, 200)

    def assertRepeats(self, reply: Reply, reason: str, token: str) -> None:
        """401, five lines, the reason first, the whole token twice, no challenge."""
        self.assertEqual(reply.status, 401)
        self.assertEqual(set(reply.json), {"message", "url"})
        self.assertEqual(reply.json["url"], f"{URL}/api/swagger")
        lines = reply.json["message"].split("\n")
        self.assertEqual(len(lines), 5)
        self.assertEqual(lines[0], reason)
        self.assertEqual(lines[1], f"access token does not exist [sha: {token}]")
        self.assertEqual(lines[3], f'task with token "{token}": resource does not exist')
        self.assertEqual(reply.text.count(token), 2)
        self.assertIsNone(reply.header("www-authenticate"))

    def test_expired(self) -> None:
        """An expired token is repeated in the refusal."""
        token = self.pair()["access_token"]
        self.clock.advance(3600)
        reply = self.ask("GET", "/api/v1/user", bearer=token)
        self.assertRepeats(reply, "token has invalid claims: token is expired", token)

    def test_revoked(self) -> None:
        """A revoked one too, and at once."""
        token = self.pair()["access_token"]
        self.forge.revoke("alice")
        reply = self.ask("GET", "/api/v1/user", bearer=token)
        self.assertRepeats(reply, "oauth2 grant not found or revoked", token)

    def test_garbage(self) -> None:
        """Garbage too, which may be a live secret of somewhere else."""
        reply = self.ask("GET", "/api/v1/user", bearer="some-other-secret")
        self.assertRepeats(
            reply,
            "token is malformed: token contains an invalid number of segments",
            "some-other-secret",
        )

    def test_forged(self) -> None:
        """A token with a wrong signature too."""
        head, body, signature = self.pair()["access_token"].split(".")
        token = ".".join((head, body, signature[:-8] + "AAAAAAAA"))
        reply = self.ask("GET", "/api/v1/user", bearer=token)
        self.assertRepeats(
            reply, "token signature is invalid: crypto/rsa: verification error", token
        )

    def test_refresh_token(self) -> None:
        """A refresh token is no access token."""
        token = self.pair()["refresh_token"]
        reply = self.ask("GET", "/api/v1/user", bearer=token)
        self.assertRepeats(reply, "token was not an oauth2 access token", token)

    def test_user_gone(self) -> None:
        """The token of somebody who was deleted is refused."""
        token = self.pair()["access_token"]
        del self.forge.instance.people[0]
        reply = self.ask("GET", "/api/v1/user", bearer=token)
        self.assertRepeats(reply, "oauth2 grant owner does not exist", token)

    def test_scope_of_introspection_is_not_the_effective_one(self) -> None:
        """A grant of `openid` alone is told as such, and may write."""
        token = self.pair(scope="openid")["access_token"]
        basic = (CLIENT_ID, CLIENT_SECRET)
        reply = self.ask("POST", INTROSPECT, form={"token": token}, basic=basic)
        self.assertEqual(reply.json["scope"], "openid")
        self.assertNotEqual(reply.json["scope"], SCOPE)
        path = "/api/v1/repos/alice/garden/issues"
        self.assertEqual(self.ask("POST", path, data={"title": "x"}, bearer=token).status, 201)
