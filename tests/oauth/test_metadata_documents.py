"""Tests for `fjmcp.oauth.metadata_documents`."""

from __future__ import annotations

import json
import string
from email.utils import formatdate
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth.known import DOCUMENTS, shipped
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.metadata_documents import (
    Caching,
    fresh_until,
    is_document_url,
    judge_document,
    judge_members,
    judge_url,
)
from fjmcp.oauth.uris import Uri
from fjmcp.refusals import AUTHORIZE_DOCUMENT_REFUSED, AUTHORIZE_DOCUMENT_URL, OAuthRefusal

URL = "https://client.example/oauth/metadata.json"
NOW = 1_800_000_000.0
LEAST, MOST = limits.DOCUMENT_FRESH_LEAST, limits.DOCUMENT_FRESH_MOST

SMALLEST: dict[str, Any] = {
    "client_id": URL,
    "client_name": "A client",
    "redirect_uris": ["https://client.example/callback"],
}


def document(**changes: object) -> bytes:
    """The smallest good document, but for `changes`; `...` leaves a member out."""
    members = {name: value for name, value in (SMALLEST | changes).items() if value is not ...}
    return json.dumps(members).encode()


class UrlTests(SynchronousTestCase):
    """The URL that is a client's name."""

    def test_meant(self) -> None:
        """What begins with https:// in any case is meant as a URL, and our own ids are not."""
        for text, meant in (
            (URL, True),
            ("HTTPS://client.example/x", True),
            ("https://", True),
            ("https:/client.example", False),
            ("http://client.example/x", False),
            ("fj-0123456789abcdef", False),
            (" https://client.example/x", False),
            ("", False),
        ):
            self.assertEqual(is_document_url(text), meant, text)

    def test_good(self) -> None:
        """Names of known clients, and whatever else the draft allows."""
        for url in (
            *DOCUMENTS,
            URL,
            "https://chatgpt.com/oauth/Zx81_kQ-a2/client.json",
            "https://a.b/c",
            "https://xn--bcher-kva.example/client",
            "https://client.xn--p1ai/client",
            "https://client.example/a;b=c/d:e@f",
            "https://client.example/x/",
            "https://client.example/...",
            "https://client.example/x?version=2",
            "https://CLIENT.example/X",
        ):
            self.assertIsInstance(judge_url(url), Uri, url)

    def test_refused(self) -> None:
        """Each rule refuses, and says which it is."""
        for url, word in (
            ("http://client.example/x", "plain"),
            ("HTTPS://client.example/x", "plain"),
            ("https://client.example/../x", "plain"),
            ("https://client.example/a/%2e%2E/x", "plain"),
            ("https://client.example/%252e/x", "plain"),
            ("https://client.example/./x", "plain"),
            ("https://client.example/x#f", "plain"),
            ("https://user@client.example/x", "plain"),
            ("https://user:word@client.example/x", "plain"),
            ("https://client.example\\@evil.example/x", "plain"),
            ("https://client.example/x y", "plain"),
            ("https://client.example/x\n", "plain"),
            ("https://client.example/\0", "plain"),
            ("https://clienté.example/x", "plain"),
            ("https:///x", "plain"),
            ("https://", "plain"),
            ("https://client..example/x", "plain"),
            ("https://client.example./x", "plain"),
            ("https://2130706433/x", "plain"),
            ("https://127.1/x", "plain"),
            ("https://0x7f.0.0.1/x", "plain"),
            ("https://client.example:8443/x", "port"),
            ("https://client.example:443/x", "port"),
            ("https://localhost/x", "public name"),
            ("https://127.0.0.1/x", "public name"),
            ("https://93.184.216.34/x", "public name"),
            ("https://[2606:2800:220:1::1]/x", "public name"),
            ("https://[::1]/x", "public name"),
            ("https://client_host.example/x", "public name"),
            ("https://-client.example/x", "plain"),
            ("https://client.example", "path"),
            ("https://client.example/", "path"),
            ("https://client.example//", "path"),
            ("https://client.example?x=/y", "path"),
            (f"{URL}{'x' * limits.DOCUMENT_URL}", "longer"),
        ):
            judged = judge_url(url)
            assert isinstance(judged, OAuthRefusal), url
            self.assertEqual(judged.reason, AUTHORIZE_DOCUMENT_URL.reason)
            self.assertIn(word, judged.description, url)

    def test_length(self) -> None:
        """A URL may be as long as the limit, and not longer."""
        longest = URL.ljust(limits.DOCUMENT_URL, "x")
        self.assertIsInstance(judge_url(longest), Uri)
        self.assertIsInstance(judge_url(longest + "x"), OAuthRefusal)

    @given(st.text(st.characters(), max_size=80) | st.text("aZ0.-_:@[]%2eF/?#\\", max_size=30))
    def test_any_text(self, text: str) -> None:
        """Whatever is taken is plain ASCII, for the standard port, of a host with a name."""
        url = f"https://{text}"
        uri = judge_url(url)
        if isinstance(uri, Uri):
            self.assertTrue(url.isascii() and url.isprintable())
            self.assertEqual((uri.scheme, uri.port), ("https", None))
            self.assertLessEqual(set(uri.name), set(string.ascii_lowercase + string.digits + ".-"))
            self.assertFalse(uri.name.rpartition(".")[2].isdigit())


class DocumentTests(SynchronousTestCase):
    """What a document says."""

    def judged(self, body: bytes) -> ClientMetadata:
        found = judge_document(URL, body)
        assert isinstance(found, ClientMetadata), found
        return found

    def test_smallest(self) -> None:
        """The three members that MCP requires are enough; without grant_types it has the one
        that RFC 7591 gives it, and no refresh token."""
        self.assertEqual(
            self.judged(document()),
            ClientMetadata(
                redirect_uris=("https://client.example/callback",),
                client_name="A client",
                grant_types=("authorization_code",),
                response_types=("code",),
                token_endpoint_auth_method="none",
            ),
        )

    def test_largest(self) -> None:
        """What it may say besides is kept, cleaned, and what it links to is not."""
        found = self.judged(
            document(
                client_name="The\u202e  client\n",
                client_uri="https://client.example/about",
                redirect_uris=["https://client.example/callback", "http://127.0.0.1/callback"],
                grant_types=["authorization_code", "refresh_token", "urn:x"],
                response_types=["code", "token"],
                scope="forge:read openid",
                token_endpoint_auth_method="none",
                logo_uri="https://169.254.169.254/logo",
                jwks_uri="https://169.254.169.254/keys",
                contacts=["x"],
            )
        )
        self.assertEqual(
            found,
            ClientMetadata(
                redirect_uris=("https://client.example/callback", "http://127.0.0.1/callback"),
                client_name="The client",
                grant_types=("authorization_code", "refresh_token"),
                token_endpoint_auth_method="none",
                scope="forge:read",
                client_uri="https://client.example/about",
            ),
        )
        self.assertNotIn("169.254", found.to_json())

    def test_null(self) -> None:
        """A member that is null counts as absent."""
        optional = ("grant_types", "response_types", "scope", "client_uri", "client_secret")
        bare = self.judged(document())
        self.assertEqual(self.judged(document(**dict.fromkeys(optional, None))), bare)
        self.assertEqual(self.judged(document(token_endpoint_auth_method=None)), bare)

    def test_refused(self) -> None:
        """Each rule refuses, and says which it is."""
        loop = "http://127.0.0.1/callback"
        for body, word in (
            (b"", "JSON"),
            (b"<!doctype html>", "JSON"),
            (b"\xef\xbb\xbf{}", "JSON"),
            (b"{", "JSON"),
            (b'{"client_id": "\xff"}', "JSON"),
            (b"[" * 16_000, "JSON"),
            (b"[]", "object"),
            (b'"x"', "object"),
            (b"null", "object"),
            (b"{}", "client_id"),
            (document(client_id=...), "client_id"),
            (document(client_id=None), "client_id"),
            (document(client_id=[URL]), "client_id"),
            (document(client_id=f"{URL}/"), "client_id"),
            (document(client_id=URL.replace("client.e", "Client.e")), "client_id"),
            (document(client_id=URL.replace("/oauth", ":443/oauth")), "client_id"),
            (document(client_name=...), "client_name"),
            (document(client_name=None), "client_name"),
            (document(client_name=7), "client_name"),
            (document(client_name=""), "client_name"),
            (document(client_name=" \u200b\u202e\n"), "client_name"),
            (document(client_secret="x"), "client_secret"),
            (document(client_secret=""), "client_secret"),
            (document(client_secret_expires_at=0), "client_secret"),
            (document(redirect_uris=...), "redirect_uris"),
            (document(redirect_uris=[]), "redirect_uris"),
            (document(redirect_uris=loop), "redirect_uris"),
            (document(redirect_uris=[loop, 7]), "redirect_uris[1]"),
            (document(redirect_uris=[loop, "http://evil.example/"]), "redirect_uris[1]"),
            (document(redirect_uris=["https://client.example/*"]), "redirect_uris[0]"),
            (document(redirect_uris=[f"{loop}/{n}" for n in range(11)]), "redirect_uris"),
            (document(grant_types="authorization_code"), "grant_types"),
            (document(grant_types=[]), "grant_types"),
            (document(grant_types=["refresh_token"]), "grant_types"),
            (document(grant_types=["client_credentials"]), "grant_types"),
            (document(response_types=["token"]), "response_types"),
            (document(response_types="code"), "response_types"),
            (document(scope=["forge:read"]), "scope"),
        ):
            judged = judge_document(URL, body)
            assert isinstance(judged, OAuthRefusal), body
            self.assertEqual(judged.reason, AUTHORIZE_DOCUMENT_REFUSED.reason)
            self.assertIn(word, judged.description, body)
            self.assertNotIn("evil", judged.description)

    def test_auth_method(self) -> None:
        """It does without a secret, or with keys that it can do without, and never has one."""
        for method, others, taken in (
            ("none", ..., True),
            ("private_key_jwt", ["none", "private_key_jwt"], True),
            ("private_key_jwt", ["private_key_jwt"], False),
            ("private_key_jwt", "none", False),
            ("private_key_jwt", None, False),
            ("private_key_jwt", ..., False),
            ("tls_client_auth", ..., False),
            ("client_secret_post", ..., False),
            ("client_secret_basic", ["none"], False),
            ("client_secret_jwt", ["none"], False),
            ("None", ..., False),
            ("", ..., False),
            (["none"], ..., False),
        ):
            body = document(
                token_endpoint_auth_method=method, token_endpoint_auth_methods_supported=others
            )
            judged = judge_document(URL, body)
            self.assertEqual(isinstance(judged, ClientMetadata), taken, (method, others))
            if isinstance(judged, ClientMetadata):
                self.assertEqual(judged.token_endpoint_auth_method, "none")

    def test_size(self) -> None:
        """A document of the limit is read, and one of a byte more is not."""
        body = document(padding="")
        longest = body.replace(b'""', b'"%s"' % (b"x" * (limits.DOCUMENT_BODY - len(body))))
        self.assertEqual(len(longest), limits.DOCUMENT_BODY)
        self.judged(longest)
        self.assertIsInstance(judge_document(URL, longest + b" "), OAuthRefusal)

    def test_shipped(self) -> None:
        """Every document that is shipped is good, and its client gets refresh tokens."""
        connector = "https://chatgpt.com/oauth/Zx81_kQ-a2/client.json"
        for url in (*DOCUMENTS, connector):
            members = shipped(url)
            assert members is not None
            found = judge_members(url, members)
            assert isinstance(found, ClientMetadata), found
            self.assertEqual(list(found.redirect_uris), members["redirect_uris"])
            self.assertIn("refresh_token", found.grant_types)
            self.assertIsInstance(judge_url(url), Uri)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, body: bytes) -> None:
        """Any bytes are judged."""
        self.assertIsInstance(judge_document(URL, body), OAuthRefusal)

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    "client_name",
                    "redirect_uris",
                    "grant_types",
                    "scope",
                    "client_uri",
                    "token_endpoint_auth_method",
                    "token_endpoint_auth_methods_supported",
                ]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=20),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=5,
            ),
        )
    )
    def test_any_members(self, changes: dict[str, object]) -> None:
        """Members of any type are judged; what is taken survives the store."""
        found = judge_document(URL, document(**changes))
        if isinstance(found, ClientMetadata):
            self.assertEqual(ClientMetadata.from_json(found.to_json()), found)


class FreshTests(SynchronousTestCase):
    """How long a document need not be fetched again."""

    def fresh(self, **headers: str) -> float:
        return fresh_until(Caching(**headers), NOW) - NOW

    def test_cache_control(self) -> None:
        """max-age counts, within bounds; what forbids to store has the lower one."""
        for text, seconds in (
            ("", LEAST),
            ("max-age=3600", 3600),
            ("public, max-age=3600", 3600),
            ("Public,MAX-AGE=3600,immutable", 3600),
            ('max-age="3600"', 3600),
            ('private="x, max-age=60", max-age=3600', 3600),
            ("max-age=3600, max-age=60", 3600),
            ("s-maxage=7200, max-age=3600", 3600),
            ("s-maxage=7200", LEAST),
            ("x-max-age=7200", LEAST),
            ("max-age=299", LEAST),
            ("max-age=301", 301),
            ("max-age=0", LEAST),
            ("max-age=-3600", LEAST),
            ("max-age=3600.5", LEAST),
            ("max-age=1e4", LEAST),
            ("max-age=\u0663\u0663\u0663\u0663", LEAST),
            ("max-age", LEAST),
            ("max-age=", LEAST),
            ("max-age=86401", MOST),
            (f"max-age={'9' * 400}", MOST),
            ("no-store", LEAST),
            ("no-store, max-age=3600", LEAST),
            ("max-age=3600, no-cache", LEAST),
            ('max-age=3600, no-cache="set-cookie"', LEAST),
            ('max-age="3600', LEAST),
            ("=,;\x00\xff", LEAST),
        ):
            self.assertEqual(self.fresh(cache_control=text), seconds, text)

    def test_age(self) -> None:
        """What a response has spent in caches before it came is gone."""
        for age, seconds in (
            ("600", 3000),
            (" 600 ", 3000),
            ("0", 3600),
            ("4000", LEAST),
            ("-600", 3600),
            ("x", 3600),
            ("9" * 400, LEAST),
        ):
            self.assertEqual(self.fresh(cache_control="max-age=3600", age=age), seconds, age)

    def test_expires(self) -> None:
        """Without max-age Expires counts, against the host's own clock if it tells."""
        at = formatdate(NOW + 3600, usegmt=True)
        self.assertEqual(self.fresh(expires=at), 3600)
        self.assertEqual(self.fresh(expires=at, date=formatdate(NOW + 1800, usegmt=True)), 1800)
        self.assertEqual(self.fresh(expires=at, date="x"), 3600)
        self.assertEqual(self.fresh(expires=at, cache_control="max-age=600"), 600)
        self.assertEqual(self.fresh(expires=at, cache_control="no-cache"), LEAST)
        self.assertEqual(self.fresh(expires=at, age="600"), 3000)
        for text in ("0", "-1", "x", "", "Thu, 32 Foo 2030 99:99:99 GMT", at[:-10]):
            self.assertEqual(self.fresh(expires=text), LEAST, text)

    words = st.text(st.characters(max_codepoint=255), max_size=60) | st.sampled_from(
        ["max-age=3600", "no-store", 'a="b\\"', "Thu, 01 Jan 2030 00:00:00 GMT", "0", "-1"]
    )

    @given(words, words, words, words)
    def test_any_headers(self, cache_control: str, age: str, expires: str, date: str) -> None:
        """Whatever the headers are, a document is fresh for a time within the bounds."""
        seconds = fresh_until(Caching(cache_control, age, expires, date), NOW) - NOW
        self.assertTrue(LEAST <= seconds <= MOST, seconds)
