"""Tests for `fjmcp.oauth.clients`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import quote, quote_plus, unquote

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import refusals
from fjmcp.oauth.clients import (
    Client,
    Presented,
    Source,
    authenticate,
    proof,
    read_client_auth,
)
from fjmcp.oauth.metadata import AUTH_METHODS, ClientMetadata
from fjmcp.oauth.tokens import Kind, TokenText, digest, mint
from fjmcp.refusals import OAuthRefusal


def client(method: str = "none", secret: TokenText | None = None) -> Client:
    """A registered client."""
    metadata = ClientMetadata(("https://example.org/cb",), token_endpoint_auth_method=method)
    return Client("c1", () if secret is None else (digest(secret),), metadata, 1000.9)


def basic(text: str) -> str:
    """An `Authorization` header."""
    return "Basic " + base64.b64encode(text.encode()).decode()


class ReadingAuthentication(SynchronousTestCase):
    """Who a token request says it is from."""

    def read(self, header: str | None, **form: str) -> tuple[str, str, bool] | str:
        """Client, method and whether there is a secret; or the reason of a refusal."""
        answer = read_client_auth(header, form)
        if isinstance(answer, OAuthRefusal):
            return answer.reason
        return answer.client_id, answer.method, answer.secret is not None

    def test_table(self) -> None:
        """Header, form or neither: one way at a time, each read as RFC 6749 §2.3.1 has it."""
        for header, form, expected in [
            (None, {"client_id": "c"}, ("c", "none", False)),
            (None, {"client_id": "c", "client_secret": ""}, ("c", "none", False)),
            (None, {"client_id": "c", "client_secret": "s"}, ("c", "client_secret_post", True)),
            (None, {}, "client-unnamed"),
            (None, {"client_id": ""}, "client-unnamed"),
            (None, {"client_secret": "s"}, "client-unnamed"),
            (basic("c:s"), {}, ("c", "client_secret_basic", True)),
            (basic("c:s"), {"client_id": "c"}, ("c", "client_secret_basic", True)),
            (basic("c:"), {"client_id": "c"}, ("c", "none", False)),
            (basic("c:s").replace("Basic", "bAsIc"), {}, ("c", "client_secret_basic", True)),
            (basic("c:s:t"), {}, ("c", "client_secret_basic", True)),
            (basic("c:s"), {"client_id": "d"}, "client-auth-twice"),
            (basic("c:s"), {"client_id": "c", "client_secret": "s"}, "client-auth-twice"),
            (basic(":s"), {}, "client-auth-malformed"),
            (basic("c"), {}, "client-auth-malformed"),
            ("Basic", {}, "client-auth-malformed"),
            ("Basic !!!", {}, "client-auth-malformed"),
            ("Basic é", {}, "client-auth-malformed"),
            ("Basic /w==", {}, "client-auth-malformed"),
            ("", {"client_id": "c"}, "client-auth-malformed"),
            ("Bearer fja_x", {"client_id": "c"}, "client-auth-malformed"),
        ]:
            self.assertEqual(self.read(header, **form), expected, (header, form))

    def test_form_encoding(self) -> None:
        """Client id and secret in the header are decoded once (RFC 6749 §2.3.1)."""
        answer = read_client_auth(basic("a%3Ab:s%20%2B+"), {})
        self.assertEqual(
            answer,
            Presented(
                "a:b",
                digest(TokenText("s + ")),
                "client_secret_basic",
                digest(TokenText("s%20%2B+")),
            ),
        )

    @given(
        st.none() | st.text(),
        st.dictionaries(st.sampled_from(["client_id", "client_secret"]), st.text(st.characters())),
    )
    def test_any_text(self, header: str | None, form: Mapping[str, str]) -> None:
        """Any header and any form are read or refused, never an error."""
        for each in (header, None if header is None else f"Basic {header}"):
            answer = read_client_auth(each, form)
            if isinstance(answer, OAuthRefusal):
                self.assertIn(answer.error, ("invalid_client", "invalid_request"))


class Authenticating(SynchronousTestCase):
    """Whether it really is from that client."""

    def test_every_pair_of_methods(self) -> None:
        """A client is let in by the method that it registered, and by no other."""
        secret = mint(Kind.CLIENT_SECRET)
        for method in AUTH_METHODS:
            known = client(method, None if method == "none" else secret)
            for used in AUTH_METHODS:
                presented = Presented("c1", None if used == "none" else digest(secret), used)
                expected = None if used == method else refusals.CLIENT_AUTH_METHOD
                self.assertEqual(authenticate(known, presented), expected, (method, used))

    def test_wrong_secret(self) -> None:
        """A wrong secret, or none, is invalid_client with 401."""
        known = client("client_secret_post", mint(Kind.CLIENT_SECRET))
        for wrong in (digest(mint(Kind.CLIENT_SECRET)), digest(TokenText("")), None):
            refusal = authenticate(known, Presented("c1", wrong, "client_secret_post"))
            self.assertEqual(refusal, refusals.CLIENT_SECRET_WRONG)
        self.assertEqual(refusals.CLIENT_SECRET_WRONG.status, 401)
        self.assertEqual(refusals.CLIENT_SECRET_WRONG.error, "invalid_client")

    def test_row_without_digest(self) -> None:
        """A client whose row lost its secret is let in with none."""
        known = client("client_secret_basic", None)
        presented = Presented("c1", digest(TokenText("s")), "client_secret_basic")
        self.assertEqual(authenticate(known, presented), refusals.CLIENT_SECRET_WRONG)

    def test_any_of_its_secrets(self) -> None:
        """A client that was given several secrets is let in with each of them."""
        secrets = [digest(mint(Kind.CLIENT_SECRET)) for _ in range(3)]
        known = evolve(client("client_secret_post"), secrets=tuple(secrets))
        for secret in secrets:
            self.assertIsNone(authenticate(known, Presented("c1", secret, "client_secret_post")))

    def test_configured(self) -> None:
        """A client of the configuration sends its secret in either way, but never none."""
        secret = digest(mint(Kind.CLIENT_SECRET))
        known = evolve(client("client_secret_post"), secrets=(secret,), source=Source.CONFIGURED)
        for method in ("client_secret_post", "client_secret_basic"):
            self.assertIsNone(authenticate(known, Presented("c1", secret, method)))
        refusal = authenticate(known, Presented("c1", None, "none"))
        self.assertEqual(refusal, refusals.CLIENT_AUTH_METHOD)

    def test_unencoded(self) -> None:
        """A secret that a person made up is taken from the header as it is, too, since few
        libraries encode it first; nothing is a secret but one of these two."""
        secret = TokenText("Zm9v+YmFy/aGV%2Bs==")
        known = evolve(client("client_secret_basic"), secrets=(digest(secret),))
        for sent, good in (
            (secret.text, True),
            (quote(secret.text, safe=""), True),
            (quote_plus(secret.text), True),
            (unquote(secret.text), False),
            (quote(quote(secret.text)), False),
            (f"{secret.text}=", False),
        ):
            presented = read_client_auth(basic(f"c1:{sent}"), {})
            assert isinstance(presented, Presented)
            refusal = None if good else refusals.CLIENT_SECRET_WRONG
            self.assertEqual(authenticate(known, presented), refusal, sent)
            self.assertEqual(proof(known, presented), digest(secret) if good else None)

    def test_unknown(self) -> None:
        """A client that is not registered, or not the one found, is told to register again."""
        for known in (None, client()):
            refusal = authenticate(known, Presented("c2", None, "none"))
            self.assertEqual(refusal, refusals.CLIENT_UNKNOWN)
        self.assertEqual(
            (refusals.CLIENT_UNKNOWN.error, refusals.CLIENT_UNKNOWN.status),
            ("invalid_client", 401),
        )
