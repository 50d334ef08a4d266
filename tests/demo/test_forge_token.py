"""The stand-in's token endpoint, row by row of forgejo.md §3.3 and §3.4."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

from fjmcp.demo.forge.grants import Application
from fjmcp.demo.forge.standin import CLIENT_ID, CLIENT_SECRET
from tests.demo.standing import CALLBACK, NOW, SCOPE, TOKEN, VERIFIER, StandInCase, basic_header

OTHER = "de300000-0000-4000-8000-000000000002"
OTHER_SECRET = "gto_other-demo-secret-for-nothing"


def claims(token: str) -> dict[str, Any]:
    """What a JWT says."""
    payload = token.split(".")[1]
    read: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return read


class ExchangeTests(StandInCase):
    """Codes."""

    def setUp(self) -> None:
        super().setUp()
        self.sign_in()

    def test_members(self) -> None:
        """A good answer has exactly Forgejo's members, no `scope` among them."""
        reply = self.exchange(self.code())
        self.assertEqual(reply.status, 200)
        self.assertEqual(
            list(reply.json),
            ["access_token", "token_type", "expires_in", "refresh_token", "id_token"],
        )
        self.assertEqual((reply.json["token_type"], reply.json["expires_in"]), ("bearer", 3600))
        self.assertEqual(reply.header("cache-control"), "max-age=0, private, must-revalidate")

    def test_no_id_token_without_openid(self) -> None:
        """Without `openid` there is no id_token."""
        self.assertNotIn("id_token", self.exchange(self.code(scope="read:user")).json)

    def test_id_token(self) -> None:
        """The id_token names the person by number, and by login with `profile`."""
        identity = claims(self.exchange(self.code(nonce="once")).json["id_token"])
        self.assertEqual(
            {n: identity[n] for n in ("sub", "aud", "preferred_username", "nonce", "iss")},
            {
                "sub": "2",
                "aud": [CLIENT_ID],
                "preferred_username": "alice",
                "nonce": "once",
                "iss": "https://forge.example",
            },
        )
        self.assertNotIn("email", identity)

    def test_claims(self) -> None:
        """Access and refresh tokens carry grant, kind, counter, times, and no more."""
        pair = self.exchange(self.code()).json
        now = int(NOW)
        grant = claims(pair["access_token"])["gnt"]
        self.assertEqual(
            claims(pair["access_token"]), {"gnt": grant, "tt": 0, "exp": now + 3600, "iat": now}
        )
        self.assertEqual(
            claims(pair["refresh_token"]),
            {"gnt": grant, "tt": 1, "cnt": 1, "exp": now + 730 * 3600, "iat": now},
        )

    def test_json_body(self) -> None:
        """The endpoint takes JSON as well as a form."""
        said = {
            "grant_type": "authorization_code",
            "code": self.code(),
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }
        self.assertEqual(self.ask("POST", TOKEN, data=said).status, 200)

    def test_basic(self) -> None:
        """Id and secret may come in a Basic header."""
        form = {
            "grant_type": "authorization_code",
            "code": self.code(),
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
        }
        reply = self.ask("POST", TOKEN, form=form, basic=(CLIENT_ID, CLIENT_SECRET))
        self.assertEqual(reply.status, 200)

    def test_broken_basic(self) -> None:
        """A Basic header that can't be read is an invalid request."""
        reply = self.ask(
            "POST", TOKEN, form={"grant_type": "x"}, headers={"authorization": "Basic %%%"}
        )
        self.assertRefused(reply, "invalid_request", "cannot parse basic auth header")

    def test_basic_that_disagrees(self) -> None:
        """An id or secret in the body must agree with the header."""
        for name in ("client_id", "client_secret"):
            reply = self.ask("POST", TOKEN, form={name: "x"}, basic=(CLIENT_ID, CLIENT_SECRET))
            self.assertRefused(
                reply,
                "invalid_request",
                f"{name} in request body inconsistent with Authorization header",
            )

    def test_unknown_client(self) -> None:
        """An unknown client is named in simple quotes."""
        self.assertRefused(
            self.exchange(self.code(), client_id="nobody"),
            "invalid_client",
            "cannot load client with client id: 'nobody'",
        )

    def test_deleted_application(self) -> None:
        """A deleted application is an unknown one."""
        code = self.code()
        self.forge.grants.delete_application(CLIENT_ID)
        self.assertRefused(
            self.exchange(code),
            "invalid_client",
            f"cannot load client with client id: '{CLIENT_ID}'",
        )

    def test_wrong_secret(self) -> None:
        """At an exchange a wrong secret is unauthorized_client, not invalid_client."""
        code = self.code()
        self.assertRefused(
            self.exchange(code, client_secret="no"), "unauthorized_client", "invalid client secret"
        )
        self.assertRefused(
            self.exchange(code, client_secret=None),
            "unauthorized_client",
            "invalid empty client secret",
        )

    def test_bad_code(self) -> None:
        """A code that is wrong, missing or used is refused the same way."""
        used = self.code()
        self.exchange(used)
        for code in ("gta_no", used):
            self.assertRefused(
                self.exchange(code), "unauthorized_client", "client is not authorized"
            )
        self.assertRefused(self.exchange(None), "unauthorized_client", "client is not authorized")

    def test_failure_burns_nothing(self) -> None:
        """A failed attempt leaves the code as it was."""
        code = self.code()
        self.exchange(code, client_secret="no")
        self.exchange(code, code_verifier="no")
        self.exchange(code, redirect_uri=None)
        self.assertEqual(self.exchange(code).status, 200)

    def test_wrong_verifier(self) -> None:
        """A verifier that is wrong or missing is refused."""
        code = self.code()
        for verifier in ("no", None):
            self.assertRefused(
                self.exchange(code, code_verifier=verifier),
                "unauthorized_client",
                "failed PKCE code challenge",
            )

    def test_plain_verifier(self) -> None:
        """The method `plain` compares as is."""
        code = self.code(code_challenge=VERIFIER, code_challenge_method="plain")
        self.assertEqual(self.exchange(code).status, 200)

    def test_challenge_without_method(self) -> None:
        """With a grant already, a challenge without method makes a code that nothing redeems."""
        self.code()
        code = self.code(code_challenge_method=None)
        for verifier in (VERIFIER, None):
            self.assertRefused(
                self.exchange(code, code_verifier=verifier),
                "unauthorized_client",
                "failed PKCE code challenge",
            )

    def test_redirect_not_registered(self) -> None:
        """A redirect URI that is not registered is unexpected."""
        self.assertRefused(
            self.exchange(self.code(), redirect_uri="https://elsewhere.example/"),
            "unauthorized_client",
            "unexpected redirect URI",
        )

    def test_redirect_differs(self) -> None:
        """It must be identical, case included, and present."""
        code = self.code()
        for uri in (CALLBACK.replace("callback", "Callback"), CALLBACK + "/", None):
            self.assertRefused(
                self.exchange(code, redirect_uri=uri),
                "unauthorized_client",
                "redirect_uri does not match the authorization request",
            )

    def test_code_of_another_application(self) -> None:
        """Another application can't redeem the code."""
        self.forge.grants.register(Application(OTHER, OTHER_SECRET, (CALLBACK,)))
        self.assertRefused(
            self.exchange(self.code(), client_id=OTHER, client_secret=OTHER_SECRET),
            "invalid_grant",
            "invalid grant",
        )

    def test_lost_race(self) -> None:
        """Of two requests with one code the loser may be told so in its own words."""
        self.forge.troubles.set("race", times=1)
        self.assertRefused(
            self.exchange(self.code()), "invalid_request", "cannot proceed your request"
        )

    def test_other_grant_type(self) -> None:
        """There are two grant types."""
        for kind in ("password", None):
            self.assertRefused(
                self.exchange("", grant_type=kind),
                "unsupported_grant_type",
                "Only refresh_token or authorization_code grant type is supported",
            )

    def test_public_application(self) -> None:
        """A public application needs no secret, but a verifier."""
        self.forge.application.confidential = False
        code = self.code()
        self.assertRefused(
            self.exchange(code, client_secret=None, code_verifier=None),
            "unauthorized_client",
            "failed PKCE code challenge",
        )
        self.assertEqual(self.exchange(code, client_secret=None).status, 200)

    def test_codes_do_not_expire(self) -> None:
        """A code lives until it is used."""
        code = self.code()
        self.clock.advance(86400 * 365)
        self.assertEqual(self.exchange(code).status, 200)


class RefreshTests(StandInCase):
    """Refresh tokens and their one counter."""

    def test_refresh(self) -> None:
        """A refresh gives a pair whose refresh token counts one more."""
        first = self.pair()
        second = self.refresh(first["refresh_token"])
        self.assertEqual(second.status, 200)
        self.assertEqual(claims(second.json["refresh_token"])["cnt"], 2)

    def test_old_token(self) -> None:
        """A refresh token works once, and the second try harms nobody."""
        first = self.pair()
        second = self.refresh(first["refresh_token"]).json
        self.assertRefused(
            self.refresh(first["refresh_token"]), "unauthorized_client", "token was already used"
        )
        self.assertEqual(self.refresh(second["refresh_token"]).status, 200)

    def test_second_sign_in_kills_the_first(self) -> None:
        """The counter is the person's and application's: another exchange moves it."""
        self.sign_in()
        first = self.exchange(self.code()).json
        second = self.exchange(self.code()).json
        self.assertRefused(
            self.refresh(first["refresh_token"]), "unauthorized_client", "token was already used"
        )
        self.assertEqual(self.refresh(second["refresh_token"]).status, 200)

    def test_authorize_alone_counts_nothing(self) -> None:
        """A code that nobody redeems leaves the counter alone."""
        self.sign_in()
        first = self.exchange(self.code()).json
        self.code()
        self.assertEqual(self.refresh(first["refresh_token"]).status, 200)

    def test_people_do_not_share_a_counter(self) -> None:
        """Bob's exchange leaves Alice's counter alone."""
        alice = self.pair()
        self.pair("bob")
        self.assertEqual(self.refresh(alice["refresh_token"]).status, 200)

    def test_access_token_survives(self) -> None:
        """An access token is good until it expires, whatever was refreshed meanwhile."""
        first = self.pair()
        self.clock.advance(10)
        self.refresh(first["refresh_token"])
        self.assertEqual(self.ask("GET", "/api/v1/user", bearer=first["access_token"]).status, 200)

    def test_unknown_client(self) -> None:
        """An unknown client is named in double quotes here."""
        self.assertRefused(
            self.refresh("x", client_id="nobody"),
            "invalid_client",
            'cannot load client with client id: "nobody"',
        )

    def test_wrong_secret(self) -> None:
        """At a refresh a wrong secret is invalid_client."""
        token = self.pair()["refresh_token"]
        self.assertRefused(
            self.refresh(token, client_secret="no"), "invalid_client", "invalid client secret"
        )
        self.assertRefused(
            self.refresh(token, client_secret=None),
            "invalid_client",
            "invalid empty client secret",
        )
        self.assertEqual(self.refresh(token).status, 200)

    def test_unreadable(self) -> None:
        """Garbage, nothing, a forged signature and an expired token are one refusal."""
        token = self.pair()["refresh_token"]
        head, body, signature = token.split(".")
        forged = ".".join((head, body, signature[:-8] + "AAAAAAAA"))
        for text in ("garbage", "a.b.c", forged):
            self.assertRefused(
                self.refresh(text), "unauthorized_client", "unable to parse refresh token"
            )
        self.assertRefused(
            self.refresh(None),
            "unauthorized_client",
            "unable to parse refresh token",
        )
        self.clock.advance(730 * 3600)
        self.assertRefused(
            self.refresh(token), "unauthorized_client", "unable to parse refresh token"
        )

    def test_access_token_as_refresh_token(self) -> None:
        """An access token is told what it is not."""
        self.assertRefused(
            self.refresh(self.pair()["access_token"]),
            "unauthorized_client",
            "token is not a refresh token",
        )

    def test_revoked(self) -> None:
        """After a revocation the grant does not exist."""
        token = self.pair()["refresh_token"]
        self.forge.revoke("alice")
        self.assertRefused(self.refresh(token), "invalid_grant", "grant does not exist")

    def test_application_made_anew(self) -> None:
        """Tokens of an application that was created anew have no grant."""
        token = self.pair()["refresh_token"]
        self.forge.grants.register(Application(CLIENT_ID, CLIENT_SECRET, (CALLBACK,)))
        self.assertRefused(self.refresh(token), "invalid_grant", "grant does not exist")

    def test_other_client(self) -> None:
        """Another application's refresh token is refused as such."""
        token = self.pair()["refresh_token"]
        self.forge.grants.register(Application(OTHER, OTHER_SECRET, (CALLBACK,)))
        self.assertRefused(
            self.refresh(token, client_id=OTHER, client_secret=OTHER_SECRET),
            "invalid_grant",
            "refresh token was not issued to this client",
        )

    def test_lost_race(self) -> None:
        """Who loses the race for the counter is told so, and the token lives."""
        token = self.pair()["refresh_token"]
        self.forge.troubles.set("race", times=1)
        self.assertRefused(
            self.refresh(token), "invalid_grant", "cannot increase the grant counter"
        )
        self.assertEqual(self.refresh(token).status, 200)

    def test_blocked_person_refreshes(self) -> None:
        """A prohibited person's refresh is answered with 200."""
        token = self.pair()["refresh_token"]
        alice = self.forge.instance.people[0]
        alice.prohibited, alice.active = True, False
        self.assertEqual(self.refresh(token).status, 200)

    def test_without_invalidation(self) -> None:
        """With INVALIDATE_REFRESH_TOKENS=false there is no counter, and tokens can be reused."""
        self.forge.grants.invalidate = False
        token = self.pair()["refresh_token"]
        self.assertNotIn("cnt", claims(token))
        self.assertEqual([self.refresh(token).status for _ in range(2)], [200, 200])

    def test_short_life(self) -> None:
        """The life of access tokens can be set, and expires_in says it."""
        self.forge.grants.access_seconds = 5
        pair = self.pair()
        self.assertEqual(pair["expires_in"], 5)
        self.clock.advance(5)
        self.assertEqual(self.ask("GET", "/api/v1/user", bearer=pair["access_token"]).status, 401)

    def test_no_errors_but_400(self) -> None:
        """A refusal is never 401, even of a Basic header."""
        reply = self.ask(
            "POST",
            TOKEN,
            form={"grant_type": "refresh_token"},
            headers={"authorization": basic_header(CLIENT_ID, "no")},
        )
        self.assertRefused(reply, "invalid_client", "invalid client secret")

    def test_no_revocation_endpoint(self) -> None:
        """Forgejo has none."""
        self.assertEqual(self.ask("POST", "/login/oauth/revoke", form={}).status, 404)

    def test_scope_member_is_ignored(self) -> None:
        """A scope asked for at a refresh changes nothing."""
        self.refresh(self.pair()["refresh_token"], scope="all")
        self.assertEqual([g.scope for g in self.forge.grants.live.values()], [SCOPE])
