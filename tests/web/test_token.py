"""The way of a client without a browser: token, revoke."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from fjmcp import limits
from fjmcp.oauth.clientele import Clientele
from fjmcp.store.queries import accounts
from fjmcp.testing.hosts import PUBLIC_URL
from fjmcp.testing.reactor import now
from fjmcp.testing.whole import CLIENT_URL, VERIFIER, App
from tests.web.whole import CALLBACK, BrokerCase, texts

FORM = "application/x-www-form-urlencoded"


class ClientTests(BrokerCase):
    def test_refused(self) -> None:
        """Who does not authenticate as registered is `invalid_client`, with the scheme if the
        header was used, and uses nothing up."""
        none = self.app
        post = self.broker.register(token_endpoint_auth_method="client_secret_post")
        basic = self.broker.register(token_endpoint_auth_method="client_secret_basic")

        def header(client_id: str, secret: str) -> str:
            return "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()

        wrong: list[tuple[App, dict[str, str | None], str | None]] = [
            (none, {"client_id": None}, None),
            (none, {"client_id": "fj-nobody"}, None),
            (none, {"client_id": "\0"}, None),
            (none, {"client_secret": "x"}, None),
            (none, {}, header(none.client_id, "x")),
            (post, {"client_secret": None}, None),
            (post, {"client_secret": "x"}, None),
            (post, {"client_secret": basic.registered["client_secret"]}, None),
            (
                post,
                {"client_id": None, "client_secret": None},
                header(post.client_id, post.registered["client_secret"]),
            ),
            (basic, {}, header(basic.client_id, "x")),
            (basic, {}, header(basic.client_id, "")),
            (basic, {}, header("fj-nobody", "x")),
            (basic, {}, "Basic !!!"),
            (basic, {}, "Basic"),
            (basic, {}, "Bearer x"),
            (basic, {}, "Basic \xff\xfe"),
            (basic, {}, "Basic " + b64encode(b"\xff:\xff").decode()),
        ]
        for app, changes, sent in wrong:
            code = app.code()
            headers = {} if sent is None else {"authorization": sent}
            for visit in (
                app.redeem(code, **changes, **headers)
                if not headers
                else app.ask("/oauth/token", self.redeeming(code) | changes, **headers),
                app.ask("/oauth/revoke", {"token": "x"} | changes, **headers),
            ):
                self.assert_error(visit, "invalid_client", 401)
                told = 'Basic realm="fjmcp"' if headers else None
                self.assertEqual(visit.header("www-authenticate"), told, (changes, sent))
            self.assertEqual(app.redeem(code).status, 200)

    def redeeming(self, code: str) -> dict[str, str | None]:
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CLIENT_URL,
            "code_verifier": VERIFIER,
        }

    def test_odd_headers(self) -> None:
        """An Authorization header that is no text is a wrong one; two of them are two ways at
        once."""
        words = b64encode(f"{self.app.client_id}:x".encode())
        for lines, status, error in (
            (b"Authorization: Basic \xff\xfe\r\n", 401, "invalid_client"),
            (b"Authorization: \xff\r\n", 401, "invalid_client"),
            (b"Authorization: Basic %b\r\n" % words * 2, 400, "invalid_request"),
        ):
            visit = self.broker.visitor().connect()
            visit.send(
                b"POST /oauth/token HTTP/1.1\r\nHost: broker.example\r\nContent-Length: 0\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n" + lines + b"\r\n"
            )
            self.assert_error(visit, error, status)

    def test_two_ways_at_once(self) -> None:
        """A client that authenticates twice in one request is told to choose."""
        post = self.broker.register(token_endpoint_auth_method="client_secret_post")
        words = b64encode(f"{post.client_id}:x".encode()).decode()
        visit = post.ask("/oauth/token", {}, authorization=f"Basic {words}")
        self.assert_error(visit, "invalid_request")


class FormTests(BrokerCase):
    def test_unreadable(self) -> None:
        """A form of another type, not UTF-8, or with a parameter twice is refused and uses up
        no code."""
        code = self.app.code()
        good = urlencode(
            {
                "grant_type": "authorization_code",
                "client_id": self.app.client_id,
                "code": code,
                "redirect_uri": CLIENT_URL,
                "code_verifier": VERIFIER,
            }
        )
        visitor = self.broker.visitor()
        for body, content_type in (
            (good, "application/json"),
            (good, "multipart/form-data; boundary=x"),
            (good, "text/plain"),
            (good, ""),
            ("{}", "application/json"),
            (f"{good}&code={code}", FORM),
            (f"{good}&client_id=x", FORM),
            (f"{good}&code_verifier=x", FORM),
            (f"{good}&grant_type=refresh_token", FORM),
            (f"{good}&unknown=1&unknown=2", FORM),
            (f"{good}&x=%ff", FORM),
            ("&".join(["x=1"] * 1000), FORM),
        ):
            visit = visitor.send(
                "POST", "/oauth/token", body.encode(), {"content-type": content_type}
            )
            self.assert_error(visit, "invalid_request")
        sent = {"content-type": f"{FORM}; charset=UTF-8"}
        self.assertEqual(visitor.send("POST", "/oauth/token", good.encode(), sent).status, 200)

    def test_grant_types(self) -> None:
        """A grant type that is missing, or none of ours, is named as such."""
        for grant_type, error in (
            (None, "invalid_request"),
            ("", "invalid_request"),
            ("password", "unsupported_grant_type"),
            ("client_credentials", "unsupported_grant_type"),
            ("urn:ietf:params:oauth:grant-type:jwt-bearer", "unsupported_grant_type"),
        ):
            self.assert_error(self.app.ask("/oauth/token", {"grant_type": grant_type}), error)

    def test_missing(self) -> None:
        """What a grant type needs and is not there is `invalid_request`."""
        for visit in (self.app.redeem(None), self.app.refresh(None), self.app.revoke(None)):
            self.assert_error(visit, "invalid_request")

    def test_too_large(self) -> None:
        """A body over the limit is refused, said beforehand or not."""
        for path in ("/oauth/token", "/oauth/revoke"):
            visit = self.app.ask(path, {"padding": "x" * limits.FORM_BODY})
            self.assert_error(visit, "invalid_request", 413)
        chunk = b"%x\r\n%b\r\n" % (limits.FORM_BODY + 1, b"x" * (limits.FORM_BODY + 1))
        visit = self.broker.visitor().connect()
        visit.send(
            b"POST /oauth/token HTTP/1.1\r\nHost: broker.example\r\nContent-Type: "
            + FORM.encode()
            + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunk
        )
        self.assertEqual(visit.status, 413)

    def test_get(self) -> None:
        """Nothing here answers GET; a query never counts as a form."""
        for path in ("/oauth/token", "/oauth/revoke"):
            visit = self.broker.visitor().get(f"{path}?{urlencode({'token': 'x'})}")
            self.assertEqual((visit.status, visit.header("allow")), (405, "POST, OPTIONS"))


class CodeTests(BrokerCase):
    def test_answer(self) -> None:
        """A code brings a bearer token, what it is good for, and a refresh token."""
        visit = self.app.redeem(self.app.code())
        answer = visit.json()
        self.assertEqual(
            set(answer), {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
        )
        self.assertEqual(answer["token_type"], "Bearer")
        self.assertEqual(answer["expires_in"], limits.ACCESS_TOKEN)
        self.assertEqual(answer["scope"], "forge:read forge:write")
        self.assertEqual(visit.header("cache-control"), "no-store")

    def test_without_refresh(self) -> None:
        """A client that did not register for refresh tokens gets none."""
        app = self.broker.register(grant_types=["authorization_code"])
        answer = app.tokens()
        self.assertNotIn("refresh_token", answer)
        self.assertEqual(app.knocks(answer["access_token"]), 200)

    def test_offline(self) -> None:
        """`offline_access` is echoed to who asked for it."""
        code = self.app.code(scopes="forge:read forge:write offline_access")
        self.assertEqual(
            self.app.redeem(code).json()["scope"], "forge:read forge:write offline_access"
        )

    def test_wrong(self) -> None:
        """A code with something wrong is `invalid_grant`, and is not used up by it."""
        other = self.broker.register()
        code = self.app.code()
        for app, changes, error in (
            (self.app, {"code_verifier": None}, "invalid_grant"),
            (self.app, {"code_verifier": "x"}, "invalid_grant"),
            (self.app, {"code_verifier": VERIFIER + "x"}, "invalid_grant"),
            (self.app, {"code_verifier": VERIFIER.upper()}, "invalid_grant"),
            (self.app, {"code_verifier": "ü" * 50}, "invalid_grant"),
            (self.app, {"redirect_uri": f"{CLIENT_URL}/"}, "invalid_grant"),
            (self.app, {"redirect_uri": "https://evil.example/"}, "invalid_grant"),
            (self.app, {"resource": "https://other.example/mcp"}, "invalid_target"),
            (other, {}, "invalid_grant"),
        ):
            self.assert_error(app.redeem(code, **changes), error)
        for unknown in ("x", code[:-1], code.swapcase(), "\0", "ä" * 1000):
            self.assert_error(self.app.redeem(unknown), "invalid_grant")
        self.assertEqual(self.app.redeem(code).status, 200)

    def test_may_be_left_out(self) -> None:
        """`redirect_uri` may be missing, as in OAuth 2.1, and `resource` be any name of ours."""
        for changes in (
            {"redirect_uri": None},
            {"resource": f"{PUBLIC_URL}/mcp/"},
            {"resource": PUBLIC_URL},
        ):
            self.assertEqual(self.app.redeem(self.app.code(), **changes).status, 200)

    def test_expired(self) -> None:
        """A code works until its last second and not in it."""
        early, late = self.app.code(), self.app.code()
        self.broker.advance(limits.CODE - 1)
        self.assertEqual(self.app.redeem(early).status, 200)
        self.broker.advance(1)
        self.assert_error(self.app.redeem(late), "invalid_grant")

    def test_twice(self) -> None:
        """A code used twice ends the grant: its tokens, its call in flight, its child."""
        code = self.app.code()
        tokens = self.app.redeem(code).json()
        call = self.app.call(tokens["access_token"])
        child = self.child()
        self.assertFalse(call.answered)
        again = self.app.redeem(code)
        self.broker.settle()
        self.assert_error(again, "invalid_grant")
        self.assertIn(b"Access was withdrawn", call.body)
        self.assertTrue(child.over)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)
        self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_grant")
        self.assert_error(self.app.redeem(code), "invalid_grant")
        self.assertEqual(self.live_grants(), 0)

    def test_twice_by_another(self) -> None:
        """Another client that shows a used code ends nothing."""
        code = self.app.code()
        tokens = self.app.redeem(code).json()
        self.assert_error(self.broker.register().redeem(code), "invalid_grant")
        self.assertEqual(self.app.knocks(tokens["access_token"]), 200)

    def test_new_ends_no_other(self) -> None:
        """A new authorization of the same person at the same client ends no earlier one."""
        first, second = self.app.tokens(), self.app.tokens()
        for tokens in (first, second):
            self.assertEqual(self.app.knocks(tokens["access_token"]), 200)

    def test_cap(self) -> None:
        """Past fifty grants of an account the longest idle one ends; another account's never."""
        bob = self.app.tokens("bob")
        first = self.app.tokens()
        others = []
        for _ in range(limits.GRANTS_PER_ACCOUNT - 1):
            self.broker.advance(1)
            others.append(self.app.tokens())
        self.assertEqual(self.app.knocks(first["access_token"]), 200)
        first = self.app.refresh(first["refresh_token"]).json()
        self.broker.advance(1)
        self.app.tokens()
        self.assertEqual(self.app.knocks(others[0]["access_token"]), 401)
        for tokens in (bob, first, others[1], others[-1]):
            self.assertEqual(self.app.knocks(tokens["access_token"]), 200)


class RefreshTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.app.tokens()

    def refresh(self, tokens: dict[str, Any], **changes: str | None) -> dict[str, Any]:
        visit = self.app.refresh(tokens["refresh_token"], **changes)
        self.assertEqual(visit.status, 200, visit.body)
        answer: dict[str, Any] = visit.json()
        return answer

    def test_rotates(self) -> None:
        """Each refresh brings a new pair; earlier access tokens serve until they expire."""
        chain = [self.tokens]
        for _ in range(3):
            self.broker.advance(limits.REFRESH_GRACE)
            chain.append(self.refresh(chain[-1]))
        self.assertEqual(len(texts(chain)), 2 * len(chain))
        for tokens in chain:
            self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
        self.broker.advance(limits.ACCESS_TOKEN - 3 * limits.REFRESH_GRACE)
        self.assertEqual(self.app.knocks(chain[0]["access_token"]), 401)
        self.assertEqual(self.app.knocks(chain[1]["access_token"]), 200)
        self.assertEqual(self.live_grants(), 1)

    def test_replayed(self) -> None:
        """Within the grace a replay gets the same pair, any number of times, with the seconds
        that are left."""
        second = self.refresh(self.tokens)
        for passed in range(0, int(limits.REFRESH_GRACE), 5):
            again = self.refresh(self.tokens)
            self.assertEqual(again["expires_in"], limits.ACCESS_TOKEN - passed)
            self.assertEqual(again | {"expires_in": 0}, second | {"expires_in": 0})
            self.broker.advance(5)
        self.assertEqual(self.count("refresh_tokens"), 2)
        self.assertEqual(self.count("access_tokens"), 2)

    def test_replayed_after_the_grace(self) -> None:
        """A replay after the grace ends the grant, with the successor's tokens."""
        second = self.refresh(self.tokens)
        self.broker.advance(limits.REFRESH_GRACE)
        self.assert_error(self.app.refresh(self.tokens["refresh_token"]), "invalid_grant")
        self.assertEqual(self.app.knocks(second["access_token"]), 401)
        self.assert_error(self.app.refresh(second["refresh_token"]), "invalid_grant")

    def test_successor_ends_the_grace(self) -> None:
        """The first use of the successor ends the grace: a replay from then on ends the grant."""
        second = self.refresh(self.tokens)
        third = self.refresh(second)
        self.assertEqual(self.refresh(second), third)
        self.assert_error(self.app.refresh(self.tokens["refresh_token"]), "invalid_grant")
        for tokens in (self.tokens, second, third):
            self.assertEqual(self.app.knocks(tokens["access_token"]), 401)

    def test_access_token_of_successor(self) -> None:
        """The use of the successor's access token ends no grace."""
        second = self.refresh(self.tokens)
        self.assertEqual(self.app.knocks(second["access_token"]), 200)
        self.assertEqual(self.refresh(self.tokens), second)

    def test_old_ancestor(self) -> None:
        """Any used token of the family ends the grant, however old it is."""
        newest = self.tokens
        for _ in range(4):
            newest = self.refresh(newest)
        self.assert_error(self.app.refresh(self.tokens["refresh_token"]), "invalid_grant")
        self.assertEqual(self.app.knocks(newest["access_token"]), 401)

    def test_wrong_client(self) -> None:
        """Another client's refresh token is refused and nothing ends, used or not."""
        other = self.broker.register()
        self.assert_error(other.refresh(self.tokens["refresh_token"]), "invalid_grant")
        second = self.refresh(self.tokens)
        self.assert_error(other.refresh(self.tokens["refresh_token"]), "invalid_grant")
        self.broker.advance(limits.REFRESH_GRACE)
        self.assert_error(other.refresh(self.tokens["refresh_token"]), "invalid_grant")
        self.assertEqual(self.app.knocks(second["access_token"]), 200)

    def test_authenticates_on_replay(self) -> None:
        """A replay is checked like the first time: the client's secret, scope, resource."""
        app = self.broker.register(token_endpoint_auth_method="client_secret_post")
        token = app.tokens()["refresh_token"]
        self.assertEqual(app.refresh(token).status, 200)
        self.assert_error(app.refresh(token, client_secret="x"), "invalid_client", 401)
        foreign = app.refresh(token, resource="https://other.example")
        self.assert_error(foreign, "invalid_target")
        self.assertEqual(app.refresh(token).status, 200)

    def test_scope(self) -> None:
        """Less scope may be asked and what is granted is told; unknown words are dropped."""
        for scope in ("forge:read", "forge:read forge:write", "openid", ""):
            self.tokens = self.refresh(self.tokens, scope=scope)
            self.assertEqual(self.tokens["scope"], "forge:read forge:write")

    def test_scope_widened(self) -> None:
        """More than was granted is `invalid_scope`, at a replay too, and uses nothing up."""
        sql = "UPDATE grants SET scopes = 'forge:read'"
        now(self.broker.store.write(lambda cursor: cursor.execute(sql)))
        token = self.tokens["refresh_token"]
        self.assert_error(self.app.refresh(token, scope="forge:write"), "invalid_scope")
        self.assertEqual(self.refresh(self.tokens)["scope"], "forge:read")
        self.assert_error(self.app.refresh(token, scope="forge:write"), "invalid_scope")

    def test_resource(self) -> None:
        """A refresh for another resource is `invalid_target` and uses nothing up."""
        token = self.tokens["refresh_token"]
        visit = self.app.refresh(token, resource="https://other.example/mcp")
        self.assert_error(visit, "invalid_target")
        self.refresh(self.tokens, resource=f"{PUBLIC_URL}/mcp/")

    def test_unknown(self) -> None:
        """What was never a refresh token is `invalid_grant`, an access token among it."""
        for text in (
            "x",
            "\0",
            "ä",
            self.tokens["access_token"],
            self.tokens["refresh_token"][:-1],
        ):
            self.assert_error(self.app.refresh(text), "invalid_grant")
        self.refresh(self.tokens)

    def test_idle(self) -> None:
        """A grant that nobody refreshed for sixty days is over; one day less and it lives."""
        self.broker.advance(limits.GRANT_IDLE - 1)
        second = self.refresh(self.tokens)
        self.broker.advance(limits.GRANT_IDLE)
        self.assert_error(self.app.refresh(second["refresh_token"]), "invalid_grant")
        self.assertEqual(self.live_grants(), 0)

    def test_life(self) -> None:
        """A grant ends a year after consent, and no access token outlives it, seen before
        or not."""
        tokens, passed = self.tokens, 0.0
        while passed < limits.GRANT_LIFE - limits.GRANT_IDLE / 2:
            self.broker.advance(limits.GRANT_IDLE / 2)
            passed += limits.GRANT_IDLE / 2
            tokens = self.refresh(tokens)
        self.broker.advance(limits.GRANT_LIFE - passed - 60)
        tokens = self.refresh(tokens)
        self.assertEqual(tokens["expires_in"], 60)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
        self.broker.advance(60)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)
        self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_grant")

    def test_client_lives_on(self) -> None:
        """A client that is used is known when its grant has reached its age: who connects again
        needs not remove it first."""
        self.broker.parts.upkeep.start()
        self.addCleanup(self.broker.parts.upkeep.stop)
        tokens = self.app.tokens()
        step = limits.GRANT_LIFE / 100
        for _ in range(99):
            self.broker.advance(step)
            tokens = self.app.refresh(tokens["refresh_token"]).json()
        for _ in range(3):
            self.broker.advance(step)
        self.assertEqual(self.live_grants(), 0)
        self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_grant")
        self.assertEqual(self.app.open().status, 200)

    def test_forgejo_is_not_asked(self) -> None:
        """Tokens are given and taken without a call of Forgejo."""
        before = self.broker.forge.troubles.calls.copy()
        second = self.refresh(self.tokens)
        self.refresh(self.tokens)
        self.app.revoke(second["access_token"])
        self.assertEqual(self.broker.forge.troubles.calls, before)


class DeadAccountTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.broker.register()
        self.tokens, self.others = self.app.tokens(), self.other.tokens()
        self.code = self.app.code()
        alice = self.broker.account("alice")
        (version,) = self.rows("SELECT version FROM accounts WHERE account_id = ?", alice)[0]
        now(
            self.broker.store.write(
                accounts.mark_dead, alice, version, "", self.broker.reactor.seconds()
            )
        )

    def test_sleeps_and_wakes(self) -> None:
        """A dead account's tokens are refused and used up by nothing: one sign-in through any
        client revives every grant."""
        for _ in range(2):
            self.assert_error(self.app.refresh(self.tokens["refresh_token"]), "invalid_grant")
            self.assert_error(self.app.redeem(self.code), "invalid_grant")
            self.assertEqual(self.app.knocks(self.tokens["access_token"]), 401)
        self.broker.register().sign_in("bob")
        self.assert_error(self.app.refresh(self.tokens["refresh_token"]), "invalid_grant")
        self.broker.register().sign_in("alice")
        self.assertEqual(self.app.knocks(self.tokens["access_token"]), 200)
        self.assertEqual(self.app.refresh(self.tokens["refresh_token"]).status, 200)
        self.assertEqual(self.other.refresh(self.others["refresh_token"]).status, 200)
        self.assertEqual(self.app.redeem(self.code).status, 200)

    def test_challenge(self) -> None:
        """The 401 of a sleeping grant sends the client to sign in."""
        visit = self.app.call(self.tokens["access_token"], "ping")
        self.assertIn('error="invalid_token"', visit.header("www-authenticate") or "")

    def test_revoked_asleep(self) -> None:
        """A sleeping grant can be revoked, and does not wake."""
        self.assertEqual(self.app.revoke(self.tokens["refresh_token"]).status, 200)
        self.broker.signs_in_elsewhere("alice")
        self.assertEqual(self.app.knocks(self.tokens["access_token"]), 401)
        self.assertEqual(self.other.knocks(self.others["access_token"]), 200)


class RevokeTests(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.app.tokens()

    def test_either_token(self) -> None:
        """Either token, used ones too, ends all tokens, the open call and the child before the
        answer."""
        for pick in (
            lambda first, second: second["access_token"],
            lambda first, second: second["refresh_token"],
            lambda first, second: first["access_token"],
            lambda first, second: first["refresh_token"],
        ):
            first = self.app.tokens()
            second = self.app.refresh(first["refresh_token"]).json()
            call = self.app.call(second["access_token"])
            child = self.child()
            self.assertFalse(call.answered)
            child.ignores = {"EOF", "TERM"}
            revoked = self.app.revoke(pick(first, second))
            self.assertIn(b"Access was withdrawn", call.body)
            self.assertEqual((revoked.answered, child.over), (False, False))
            self.broker.settle()
            self.assertTrue(child.over)
            self.assertEqual((revoked.status, revoked.json()), (200, {}))
            for tokens in (first, second):
                self.assertEqual(self.app.knocks(tokens["access_token"]), 401)
                self.assert_error(self.app.refresh(tokens["refresh_token"]), "invalid_grant")

    def test_at_once(self) -> None:
        """From the moment that the grant is closed no token of it is taken, though its child
        still has to end."""
        self.app.call(self.tokens["access_token"])
        self.child().ignores = {"EOF", "TERM"}
        revoked = self.app.revoke(self.tokens["access_token"])
        self.assertFalse(revoked.answered)
        self.assertEqual(self.app.knocks(self.tokens["access_token"]), 401)
        self.broker.settle()
        self.assertTrue(revoked.answered)

    def test_client_leaves(self) -> None:
        """A client that leaves before the answer has revoked all the same."""
        self.app.call(self.tokens["access_token"])
        child = self.child()
        revoked = self.app.revoke(self.tokens["access_token"])
        revoked.leave()
        self.broker.settle()
        self.assertTrue(child.over)
        self.assertEqual(self.app.knocks(self.tokens["access_token"]), 401)

    def test_no_token_of_theirs(self) -> None:
        """A token that is unknown, or another client's, is answered 200 and ends nothing."""
        other = self.broker.register()
        for token in (self.tokens["access_token"], self.tokens["refresh_token"], "x", "\0", "ä"):
            self.assertEqual(other.revoke(token).status, 200)
        self.assertEqual(self.app.knocks(self.tokens["access_token"]), 200)
        self.assertEqual(self.app.refresh(self.tokens["refresh_token"]).status, 200)

    def test_only_this_grant(self) -> None:
        """Other grants go on, of the same person and client too, with their children."""
        same, other = self.app.tokens(), self.broker.register().tokens()
        for tokens in (self.tokens, same, other):
            self.app.call(tokens["access_token"])
        self.app.revoke(self.tokens["access_token"])
        self.broker.settle()
        self.assertEqual(len(self.broker.reactor.alive), 2)
        for tokens in (same, other):
            self.assertEqual(self.app.knocks(tokens["access_token"]), 200)

    def test_not_taken_any_more(self) -> None:
        """A client that is not taken any more gets no tokens, and may still give back what it
        has."""
        self.broker.parts.registrar.clientele = Clientele.parse("known")
        self.assert_error(self.app.refresh(self.tokens["refresh_token"]), "invalid_client", 401)
        self.assertEqual(self.app.revoke(self.tokens["refresh_token"]).status, 200)
        self.assertEqual(self.app.knocks(self.tokens["access_token"]), 401)
        self.assertEqual(self.live_grants(), 0)

    def test_twice(self) -> None:
        """Revoking what was revoked is 200."""
        for _ in range(2):
            self.assertEqual(self.app.revoke(self.tokens["access_token"]).status, 200)

    def test_hint(self) -> None:
        """A token type hint may be wrong or unknown."""
        for hint in ("access_token", "refresh_token", "x"):
            token = self.app.tokens()["refresh_token"]
            form: dict[str, str | None] = {"token": token, "token_type_hint": hint}
            self.assertEqual(self.app.ask("/oauth/revoke", form).status, 200)
        self.assertEqual(self.live_grants(), 1)


class StoreDownTests(BrokerCase):
    def test_nothing_lost(self) -> None:
        """While the store is down every request is a 503 with Retry-After, and the same works
        after."""
        code, tokens = self.app.code(), self.app.tokens()
        self.broker.store.fail_all()
        for _ in range(2):
            self.assert_down(self.app.redeem(code))
            self.assert_down(self.app.refresh(tokens["refresh_token"]))
            self.assert_down(self.app.revoke(tokens["refresh_token"]))
            self.assert_down(self.app.call(tokens["access_token"], "ping"))
        self.broker.store.fail_all(False)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
        self.assertEqual(self.app.redeem(code).status, 200)
        tokens = self.app.refresh(tokens["refresh_token"]).json()
        self.assertEqual(self.app.revoke(tokens["refresh_token"]).status, 200)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)

    def test_known_callers_go_on(self) -> None:
        """A token that was seen before is good without the store, until it expires."""
        tokens = self.app.tokens()
        self.app.knocks(tokens["access_token"])
        self.broker.store.fail_all()
        self.assertEqual(self.app.knocks(tokens["access_token"]), 200)
        self.broker.advance(limits.ACCESS_TOKEN)
        self.assertEqual(self.app.knocks(tokens["access_token"]), 401)


class LeavingTests(BrokerCase):
    def test_in_mid_redeem(self) -> None:
        """A client that leaves while its code is redeemed has redeemed it."""
        code = self.app.code()
        self.broker.store.hold()
        visit = self.app.redeem(code)
        self.broker.store.release(1)  # the client is found
        visit.leave()
        self.broker.store.release()
        self.assertEqual(self.live_grants(), 1)
        self.assert_error(self.app.redeem(code), "invalid_grant")
        self.assertEqual(self.live_grants(), 0)

    def test_in_mid_reuse(self) -> None:
        """A thief who leaves at once has ended the grant all the same, with all that runs."""
        code = self.app.code()
        access = self.app.redeem(code).json()["access_token"]
        self.app.call(access)
        child = self.child()
        self.broker.store.hold()
        visit = self.app.redeem(code)
        self.broker.store.release(1)  # the client is found
        visit.leave()
        self.broker.store.release()
        self.broker.settle()
        self.assertTrue(child.over)
        self.assertEqual(self.app.knocks(access), 401)

    def test_in_mid_refresh(self) -> None:
        """A client that leaves while it refreshes gets the very pair when it asks again."""
        tokens = self.app.tokens()
        self.broker.store.hold()
        visit = self.app.refresh(tokens["refresh_token"])
        while not self.rows_used():
            self.assertTrue(self.broker.store.release(1))
        visit.leave()
        self.broker.store.release()
        self.assertEqual(self.count("refresh_tokens"), 2)
        again = self.app.refresh(tokens["refresh_token"])
        self.assertEqual(again.status, 200)
        self.assertEqual(self.count("refresh_tokens"), 2)
        self.assertEqual(self.app.knocks(again.json()["access_token"]), 200)

    def rows_used(self) -> bool:
        """Whether a refresh token was used, read past the hold."""
        connection = self.broker.store.lanes[0].connection
        sql = "SELECT 1 FROM refresh_tokens WHERE used_at IS NOT NULL"
        return connection.execute(sql).fetchone() is not None


@implementer(IAgent)
@define(eq=False)
class Watched:
    """An agent that remembers where it was sent."""

    agent: IAgent
    asked: list[str] = field(factory=list)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        self.asked.append(uri.decode())
        return self.agent.request(method, uri, headers, bodyProducer)


class SecretTests(BrokerCase):
    def test_never_told(self) -> None:
        """No text of a token, code, state or secret of ours stands in a log event, a repr, the
        store, or an address of ours (but for the callback's state)."""
        browser = self.broker.browser()
        browser.agent = agent = Watched(browser.agent)
        with capturedLogs() as events:
            app = self.broker.register(token_endpoint_auth_method="client_secret_basic")
            page = app.open(browser)
            answer = app.sign_in(browser=browser)
            tokens = app.redeem(answer["code"]).json()
            app.redeem(answer["code"], code_verifier="wrong")
            second_app = self.broker.register()
            second = second_app.tokens()
            third = second_app.refresh(second["refresh_token"]).json()
            second_app.refresh(second["refresh_token"])
            second_app.call(third["access_token"])
            second_app.refresh(third["refresh_token"], client_id="fj-nobody")
            second_app.revoke(third["access_token"])
            self.broker.settle()
            self.broker.store.fail_all()
            second_app.refresh(third["refresh_token"])
            self.broker.store.fail_all(False)
        secrets = texts([tokens, second, third]) | {answer["code"]}
        secrets |= {app.registered["client_secret"], page.form.fields["signin"]}
        secrets |= set(browser.cookies["broker.example"].values())
        ours = [url for url in agent.asked if url.startswith(PUBLIC_URL)]
        self.assertGreater(len(ours), 3)
        self.assertGreater(len(secrets), 8)
        told = [repr(event) for event in events]
        self.assertGreater(len(told), 20)
        told += [repr(part) for part in (self.broker.parts, app)]
        told += [url for url in ours if not url.startswith(CALLBACK)]
        told += ["\n".join(self.broker.store.lanes[0].connection.iterdump())]
        for text in told:
            for secret in secrets:
                self.assertNotIn(secret, text)
            self.assertIsNone(re.search(r"fj[a-z]_[A-Za-z0-9_-]{43}", text), text[:300])

    def test_digests_only(self) -> None:
        """The store's answer for a replay is sealed, and gone when the grace is over."""
        tokens = self.app.tokens()
        second = self.app.refresh(tokens["refresh_token"]).json()
        sealed = [row for (row,) in self.rows("SELECT successor FROM refresh_tokens") if row]
        self.assertEqual(len(sealed), 1)
        self.assertNotIn(second["refresh_token"].encode(), sealed[0])
        self.broker.advance(limits.REFRESH_GRACE)
        self.app.refresh(self.app.tokens()["refresh_token"])
        left = self.rows(
            "SELECT token FROM refresh_tokens WHERE successor IS NOT NULL AND used_at < ?",
            self.broker.reactor.seconds(),
        )
        self.assertEqual(left, [])
