"""Tests for `fjmcp.oauth.authorization`."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import parse_qsl, urlsplit

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.oauth import redirects
from fjmcp.oauth.authorization import (
    AuthorizationRequest,
    Params,
    error_url,
    intended,
    judge_redirect,
    judge_request,
    judge_unmet,
    once,
    plain_text,
    success_url,
    verifier_matches,
    wants_page,
)
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import OAuthRefusal

HOME = Endpoints("https://mcp.example.org")
REDIRECT = "https://claude.ai/api/mcp/auth_callback"
# RFC 7636 Appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

GOOD = {
    "response_type": "code",
    "client_id": "c1",
    "redirect_uri": REDIRECT,
    "state": "s t+a=t&e",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "scope": "forge:read",
    "resource": "https://mcp.example.org/mcp",
}

texts = st.text(st.characters())
unreserved = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", min_size=43, max_size=128
)


def params(**changes: str | None) -> Params:
    """The parameters of a good request, but for `changes`; None leaves one out."""
    pairs = [(name, value) for name, value in (GOOD | changes).items() if value is not None]
    made = once(pairs)
    assert isinstance(made, Params)
    return made


def client(*uris: str) -> Client:
    """A registered client."""
    return Client("c1", (), ClientMetadata(redirect_uris=uris or (REDIRECT,)), 0.0)


def judged() -> AuthorizationRequest:
    """The good request."""
    request = judge_request(params(), client(), REDIRECT, HOME)
    assert isinstance(request, AuthorizationRequest)
    return request


class Parameters(SynchronousTestCase):
    """Names and values, each once."""

    def test_twice(self) -> None:
        """No parameter stands there twice, known or not, equal or not."""
        for name in ("scope", "state", "client_id", "redirect_uri", "code", "unheard_of"):
            for second in ("a", "b"):
                self.assertEqual(once([(name, "a"), (name, second)]), refusals.PARAMETER_TWICE)
        self.assertEqual(refusals.PARAMETER_TWICE.error, "invalid_request")

    def test_resource_repeats(self) -> None:
        """`resource` may repeat (RFC 8707 §2), and every one of them is kept."""
        found = once([("resource", "a"), ("x", "y"), ("resource", "b")])
        assert isinstance(found, Params)
        self.assertEqual(found.all("resource"), ("a", "b"))
        self.assertEqual(found["resource"], "a")

    def test_empty_is_absent(self) -> None:
        """A parameter without a value counts as left out (RFC 6749 §3.1)."""
        found = once([("scope", ""), ("state", ""), ("state", "x")])
        assert isinstance(found, Params)
        self.assertEqual(dict(found), {"state": "x"})
        self.assertIsNone(found.get("scope"))
        self.assertEqual((len(found), found.all("scope")), (1, ()))

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "1", "2"]))))
    def test_any_pairs(self, pairs: list[tuple[str, str]]) -> None:
        """Parameters are taken exactly if no name has two values."""
        valued = [name for name, value in pairs if value]
        found = once(pairs)
        self.assertEqual(isinstance(found, Params), len(valued) == len(set(valued)))
        if isinstance(found, Params):
            self.assertEqual(dict(found), {name: value for name, value in pairs if value})


class Redirecting(SynchronousTestCase):
    """Whether it is certain where to redirect to."""

    def test_exact(self) -> None:
        """A registered URI is where the answer goes."""
        self.assertEqual(judge_redirect(params(), client()), REDIRECT)

    def test_loopback_port(self) -> None:
        """A loopback URI is answered at the port of this request."""
        for registered in ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb"):
            presented = "http://127.0.0.1:51234/cb"
            answer = judge_redirect(params(redirect_uri=presented), client(registered))
            self.assertEqual(answer, presented)

    def test_left_out(self) -> None:
        """It may be left out by a client that has just one (RFC 6749 §3.1.2.3)."""
        asked = params(redirect_uri=None)
        self.assertEqual(judge_redirect(asked, client()), REDIRECT)
        several = client(REDIRECT, "https://b.org/")
        self.assertEqual(judge_redirect(asked, several), refusals.REDIRECT_MISSING)

    def test_refused(self) -> None:
        """A doubtful client or redirect URI is refused here, so that nothing is redirected."""
        for asked, known, refusal in [
            (params(client_id=None), client(), refusals.AUTHORIZE_CLIENT_UNNAMED),
            (params(client_id=None), None, refusals.AUTHORIZE_CLIENT_UNNAMED),
            (params(), None, refusals.AUTHORIZE_CLIENT_UNKNOWN),
            (params(client_id="c2"), client(), refusals.AUTHORIZE_CLIENT_UNKNOWN),
            (params(redirect_uri=REDIRECT + "/"), client(), refusals.REDIRECT_MISMATCH),
            (params(redirect_uri="https://evil.example/"), client(), refusals.REDIRECT_MISMATCH),
            (params(redirect_uri="javascript:alert(1)"), client(), refusals.REDIRECT_MISMATCH),
            (params(state="x" * (limits.CLIENT_STATE + 1)), client(), refusals.STATE_TOO_LONG),
        ]:
            self.assertEqual(judge_redirect(asked, known), refusal)

    @given(texts)
    def test_no_open_redirector(self, presented: str) -> None:
        """Whatever redirect_uri is presented, the answer goes to a registered one or nowhere."""
        answer = judge_redirect(params(redirect_uri=presented or None), client())
        self.assertTrue(isinstance(answer, OAuthRefusal) or answer == REDIRECT)


class Unmet(SynchronousTestCase):
    """What can be said of a request before its client is known."""

    def test_good(self) -> None:
        """Nothing is wrong with what a client that is known would be let through with."""
        for changes in ({}, {"state": None}, {"scope": None}, {"resource": None}):
            self.assertIsNone(judge_unmet(params(**changes), HOME), changes)
        for uri in ("http://127.0.0.1:51234/cb", "cursor://anysphere.cursor-mcp/oauth/callback"):
            self.assertIsNone(judge_unmet(params(redirect_uri=uri), HOME))

    def test_refused(self) -> None:
        """Whatever would be wrong with it for any client is wrong with it now."""
        for changes, refusal in (
            ({"state": "x" * (limits.CLIENT_STATE + 1)}, refusals.STATE_TOO_LONG),
            ({"redirect_uri": None}, refusals.REDIRECT_MISSING),
            ({"redirect_uri": "http://evil.example/"}, refusals.REDIRECT_MISMATCH),
            ({"redirect_uri": "javascript:alert(1)"}, refusals.REDIRECT_MISMATCH),
            ({"request": "eyJ"}, refusals.REQUEST_OBJECT),
            ({"request_uri": "https://evil.example/"}, refusals.REQUEST_URI),
            ({"response_type": None}, refusals.RESPONSE_TYPE_MISSING),
            ({"response_type": "token"}, refusals.RESPONSE_TYPE),
            ({"response_mode": "fragment"}, refusals.RESPONSE_MODE),
            ({"code_challenge": None}, refusals.PKCE_MISSING),
            ({"code_challenge_method": "plain"}, refusals.PKCE_METHOD),
            ({"code_challenge": "x"}, refusals.PKCE_CHALLENGE),
            ({"resource": "https://other.example/"}, refusals.RESOURCE_FOREIGN),
        ):
            found = judge_unmet(params(**changes), HOME)
            self.assertEqual(found and found.reason, refusal.reason, changes)

    @given(st.dictionaries(st.sampled_from([*GOOD, "request"]), texts, max_size=3))
    def test_never_more(self, changes: dict[str, str]) -> None:
        """It refuses nothing that would be let through for some client with that redirect URI."""
        asked = params(**changes | {"client_id": "c1"})
        known = client(asked.get("redirect_uri", ""))
        if judge_unmet(asked, HOME) is not None and "redirect_uri" in asked:
            judged = judge_redirect(asked, known)
            wrong = isinstance(judged, OAuthRefusal) or isinstance(
                redirects.judge(judged), OAuthRefusal
            )
            self.assertTrue(
                wrong or isinstance(judge_request(asked, known, str(judged), HOME), OAuthRefusal)
            )


class Requesting(SynchronousTestCase):
    """The rest of the request."""

    def test_good(self) -> None:
        """A request as clients send it is kept with all that the token request needs."""
        self.assertEqual(
            judge_request(params(), client(), REDIRECT, HOME),
            AuthorizationRequest(
                client_id="c1",
                redirect_uri=REDIRECT,
                state="s t+a=t&e",
                challenge=CHALLENGE,
                scopes="forge:read",
                resource="https://mcp.example.org/mcp",
                fingerprint=client().metadata.fingerprint.value.hex(),
            ),
        )

    def test_older_row(self) -> None:
        """A request that an older version stored is read, without what it did not know."""
        stored = json.loads(judged().to_json())
        del stored["fingerprint"]
        read = AuthorizationRequest.from_json(json.dumps(stored))
        self.assertEqual(read, evolve(judged(), fingerprint=""))

    def test_intended(self) -> None:
        """What a refused request wanted is what it would have been kept as."""
        for changes in (
            {"response_type": "token"},
            {"code_challenge": None},
            {"resource": "https://other.example/"},
            {"prompt": "none"},
        ):
            wanted = intended(params(**changes), client(), REDIRECT, HOME)
            self.assertEqual(wanted, evolve(judged(), challenge=""), changes)

    def test_prompt(self) -> None:
        """Some words of `prompt` want the page, `none` cannot be had, others say nothing
        (OpenID Connect Core §3.1.2.1)."""
        for prompt, refusal, page in (
            (None, None, False),
            ("consent", None, True),
            ("login", None, True),
            ("select_account", None, True),
            ("login consent", None, True),
            ("create  consent", None, True),
            ("create", None, False),
            ("CONSENT", None, False),
            ("None", None, False),
            ("nonesuch consenting", None, False),
            ("none", refusals.PROMPT_NONE, False),
            (" none ", refusals.PROMPT_NONE, False),
            ("none none", refusals.PROMPT_NONE, False),
            ("none login", refusals.PROMPT_UNCLEAR, True),
            ("consent none", refusals.PROMPT_UNCLEAR, True),
            ("none create", refusals.PROMPT_UNCLEAR, False),
        ):
            asked = params(prompt=prompt)
            answer = judge_request(asked, client(), REDIRECT, HOME)
            self.assertEqual(answer, judged() if refusal is None else refusal, prompt)
            self.assertEqual(wants_page(asked), page, prompt)
        self.assertEqual(refusals.PROMPT_NONE.error, "interaction_required")
        self.assertEqual(refusals.PROMPT_UNCLEAR.error, "invalid_request")

    def test_smallest(self) -> None:
        """Without state, scope and resource the request is for both words and our endpoint."""
        asked = params(state=None, scope=None, resource=None, response_mode="query", prompt="x")
        request = judge_request(asked, client(), REDIRECT, HOME)
        assert isinstance(request, AuthorizationRequest)
        self.assertIsNone(request.state)
        self.assertEqual(request.scopes, "forge:read forge:write")
        self.assertEqual(request.resource, "https://mcp.example.org/mcp")

    def test_refused(self) -> None:
        """Each rule has its refusal, with the code that goes back to the client."""
        cases: list[tuple[dict[str, str | None], OAuthRefusal, str]] = [
            ({"response_type": None}, refusals.RESPONSE_TYPE_MISSING, "invalid_request"),
            ({"response_type": "token"}, refusals.RESPONSE_TYPE, "unsupported_response_type"),
            (
                {"response_type": "code id_token"},
                refusals.RESPONSE_TYPE,
                "unsupported_response_type",
            ),
            ({"response_mode": "fragment"}, refusals.RESPONSE_MODE, "invalid_request"),
            ({"response_mode": "form_post"}, refusals.RESPONSE_MODE, "invalid_request"),
            ({"request": "eyJ"}, refusals.REQUEST_OBJECT, "request_not_supported"),
            (
                {"request_uri": "https://evil.example/"},
                refusals.REQUEST_URI,
                "request_uri_not_supported",
            ),
            ({"code_challenge": None}, refusals.PKCE_MISSING, "invalid_request"),
            (
                {"code_challenge": None, "code_challenge_method": None},
                refusals.PKCE_MISSING,
                "invalid_request",
            ),
            ({"code_challenge_method": None}, refusals.PKCE_METHOD, "invalid_request"),
            ({"code_challenge_method": "plain"}, refusals.PKCE_METHOD, "invalid_request"),
            ({"code_challenge_method": "s256"}, refusals.PKCE_METHOD, "invalid_request"),
            ({"code_challenge": "x" * 42}, refusals.PKCE_CHALLENGE, "invalid_request"),
            ({"code_challenge": "x" * 129}, refusals.PKCE_CHALLENGE, "invalid_request"),
            ({"code_challenge": CHALLENGE + "="}, refusals.PKCE_CHALLENGE, "invalid_request"),
            ({"code_challenge": CHALLENGE + "\n"}, refusals.PKCE_CHALLENGE, "invalid_request"),
            ({"resource": "https://other.example/"}, refusals.RESOURCE_FOREIGN, "invalid_target"),
        ]
        for changes, refusal, error in cases:
            answer = judge_request(params(**changes), client(), REDIRECT, HOME)
            self.assertEqual(answer, refusal, changes)
            self.assertEqual(refusal.error, error)

    @given(
        st.dictionaries(
            st.sampled_from([*GOOD, "response_mode", "request", "prompt"]),
            texts | st.sampled_from(["code", "S256", CHALLENGE]),
        )
    )
    def test_any_text(self, changes: dict[str, str]) -> None:
        """Any parameters are judged; what is taken survives the store and has an S256 challenge."""
        request = judge_request(params(**changes), client(), REDIRECT, HOME)
        if isinstance(request, AuthorizationRequest):
            self.assertEqual(AuthorizationRequest.from_json(request.to_json()), request)
            self.assertRegex(request.challenge, r"\A[A-Za-z0-9._~-]{43,128}\Z")
            self.assertEqual(request.resource, HOME.resource)


class Pkce(SynchronousTestCase):
    """Challenge and verifier."""

    def test_appendix_b(self) -> None:
        """The example of RFC 7636 Appendix B matches."""
        self.assertTrue(verifier_matches(CHALLENGE, VERIFIER))

    def test_no_plain(self) -> None:
        """A verifier that equals the challenge, as with `plain`, does not match."""
        self.assertFalse(verifier_matches(VERIFIER, VERIFIER))
        self.assertFalse(verifier_matches(CHALLENGE, CHALLENGE))

    def test_shape(self) -> None:
        """A verifier outside RFC 7636 §4.1 never matches, even where its hash does."""
        for verifier in ("x" * 42, "x" * 129, "", "x" * 42 + "=", "x" * 43 + "\n", "é" * 43):
            hashed = hashlib.sha256(verifier.encode()).digest()
            challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
            self.assertFalse(verifier_matches(challenge, verifier))

    @given(unreserved, unreserved)
    def test_only_its_own(self, a: str, b: str) -> None:
        """A challenge is matched by the verifier that it was made of, and by no other."""
        hashed = hashlib.sha256(a.encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        self.assertTrue(verifier_matches(challenge, a))
        self.assertEqual(verifier_matches(challenge, b), a == b)

    @given(texts, texts)
    def test_any_text(self, challenge: str, verifier: str) -> None:
        """Any two texts are compared without an error, and do not match."""
        self.assertFalse(verifier_matches(challenge, verifier))


class Answering(SynchronousTestCase):
    """The URL that the browser goes on to."""

    def request(
        self, redirect_uri: str = REDIRECT, state: str | None = "s"
    ) -> AuthorizationRequest:
        """A judged request."""
        return AuthorizationRequest("c1", redirect_uri, state, CHALLENGE, "forge:read", "r")

    def test_success(self) -> None:
        """Success carries code, state and iss (RFC 9207)."""
        self.assertEqual(
            success_url(self.request(state="a b&c"), TokenText("fjc_1"), HOME.issuer),
            f"{REDIRECT}?code=fjc_1&state=a%20b%26c&iss=https%3A%2F%2Fmcp.example.org",
        )

    def test_error(self) -> None:
        """An error carries its code, a sentence, state and iss."""
        url = error_url(REDIRECT, "s", refusals.PKCE_MISSING, HOME.issuer)
        self.assertEqual(
            dict(parse_qsl(urlsplit(url).query)),
            {
                "error": "invalid_request",
                "error_description": refusals.PKCE_MISSING.description,
                "state": "s",
                "iss": "https://mcp.example.org",
            },
        )

    def test_no_state(self) -> None:
        """Where none was sent, no state comes back."""
        self.assertNotIn("state", success_url(self.request(state=None), TokenText("c"), "i"))
        self.assertNotIn("state", error_url(REDIRECT, None, refusals.REQUEST_URI, "i"))

    def test_existing_query(self) -> None:
        """A query that the redirect URI has stays (RFC 6749 §3.1.2)."""
        for uri, start in [
            ("https://a.org", "https://a.org?code=c&"),
            ("https://a.org/cb?", "https://a.org/cb?code=c&"),
            ("https://a.org/cb?x=%2F", "https://a.org/cb?x=%2F&code=c&"),
            ("https://a.org/cb?x=1&", "https://a.org/cb?x=1&code=c&"),
            (
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "cursor://anysphere.cursor-mcp/oauth/callback?code=c&",
            ),
        ]:
            url = success_url(self.request(uri), TokenText("c"), HOME.issuer)
            self.assertTrue(url.startswith(start), url)

    @given(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.sampled_from([REDIRECT, REDIRECT + "?a=b"]),
    )
    def test_state_comes_back(self, state: str, uri: str) -> None:
        """Any state comes back as it was, in a URL of plain ASCII that adds nothing else."""
        for url in (
            success_url(self.request(uri, state), TokenText("c"), HOME.issuer),
            error_url(uri, state, refusals.REQUEST_URI, HOME.issuer),
        ):
            self.assertRegex(url, r"\A[!-~]+\Z")
            pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
            self.assertEqual([v for k, v in pairs if k == "state"], [state])
            self.assertEqual(len(pairs), len({name for name, _ in pairs}))
            self.assertTrue(url.startswith(uri))

    def test_lone_surrogate(self) -> None:
        """A state that is no text at all still gets an answer."""
        self.assertIn("state=%3F", success_url(self.request(state="\ud800"), TokenText("c"), "i"))

    @given(texts)
    def test_description(self, text: str) -> None:
        """A description has only the characters that RFC 6749 §5.2 lets it have."""
        self.assertRegex(plain_text(text), r"\A[ !#-\[\]-~]*\Z")
        self.assertEqual(len(plain_text(text)), len(text))
