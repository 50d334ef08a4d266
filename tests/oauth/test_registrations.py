"""Tests for `fjmcp.oauth.registrations` and `fjmcp.oauth.metadata`."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.metadata import ClientMetadata, clean_name
from fjmcp.oauth.registrations import judge_registration, registration_response
from fjmcp.oauth.tokens import Kind, digest, mint
from fjmcp.refusals import OAuthRefusal
from tests.oauth.captured import CLAUDE, CURSOR, REGISTRATIONS, VS_CODE

HOME = Endpoints("https://mcp.example.org")
MANAGEMENT = mint(Kind.REGISTRATION)
SMALLEST: dict[str, Any] = {"redirect_uris": ["https://example.org/cb"]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
members = st.sampled_from(
    [
        "redirect_uris",
        "client_name",
        "client_uri",
        "grant_types",
        "response_types",
        "token_endpoint_auth_method",
        "scope",
        "logo_uri",
        "jwks",
    ]
)


def registered(body: object) -> ClientMetadata:
    """The metadata of a body that must be taken."""
    metadata = judge_registration(body)
    assert isinstance(metadata, ClientMetadata), metadata
    return metadata


class Captured(SynchronousTestCase):
    """The bodies that real clients send."""

    def test_all_are_taken(self) -> None:
        """Every client registers with all its redirect URIs and its own way to authenticate."""
        for name, body in REGISTRATIONS.items():
            metadata = registered(body)
            self.assertEqual(list(metadata.redirect_uris), body["redirect_uris"], name)
            self.assertEqual(
                metadata.token_endpoint_auth_method, body["token_endpoint_auth_method"], name
            )
            self.assertEqual(metadata.client_name, body["client_name"], name)
            self.assertEqual(metadata.grant_types, ("authorization_code", "refresh_token"), name)

    def test_claude(self) -> None:
        """Claude gets a secret with an integer expiry of 0, and its metadata back."""
        secret = mint(Kind.CLIENT_SECRET)
        answer = registration_response(
            Client("c1", (digest(secret),), registered(CLAUDE), 1700000000.75),
            secret,
            MANAGEMENT,
            HOME,
        )
        self.assertEqual(
            answer,
            {
                "client_id": "c1",
                "client_id_issued_at": 1700000000,
                "client_secret": secret.text,
                "client_secret_expires_at": 0,
                "registration_client_uri": "https://mcp.example.org/oauth/register?client_id=c1",
                "registration_access_token": MANAGEMENT.text,
                **CLAUDE,
            },
        )

    def test_vs_code(self) -> None:
        """VS Code gets no secret, and only the grant types that work here."""
        answer = registration_response(
            Client("c1", (), registered(VS_CODE), 5.0), None, MANAGEMENT, HOME
        )
        self.assertNotIn("client_secret", answer)
        self.assertNotIn("client_secret_expires_at", answer)
        self.assertEqual(answer["grant_types"], ["authorization_code", "refresh_token"])
        self.assertEqual(answer["scope"], "forge:read forge:write")
        self.assertEqual(answer["client_uri"], "https://code.visualstudio.com")

    def test_cursor(self) -> None:
        """Cursor gets its three URIs back, the private one among them."""
        answer = registration_response(
            Client("c1", (), registered(CURSOR), 5.0), None, MANAGEMENT, HOME
        )
        self.assertEqual(answer["redirect_uris"], CURSOR["redirect_uris"])


class Registration(SynchronousTestCase):
    """Any other body."""

    def test_defaults(self) -> None:
        """What is absent or null is what RFC 7591 §2 says it is."""
        absent = registered(SMALLEST)
        null = registered(
            SMALLEST
            | dict.fromkeys(
                [
                    "client_name",
                    "client_uri",
                    "grant_types",
                    "response_types",
                    "scope",
                    "token_endpoint_auth_method",
                ]
            )
        )
        self.assertEqual(absent, null)
        self.assertEqual(absent.token_endpoint_auth_method, "client_secret_basic")
        self.assertEqual(absent.grant_types, ("authorization_code",))
        self.assertEqual(absent.response_types, ("code",))
        self.assertEqual((absent.client_name, absent.scope, absent.client_uri), ("", None, None))

    def test_refused(self) -> None:
        """Each wrong member is refused with the code of RFC 7591 §3.2.2 that fits it."""
        cases: list[tuple[dict[str, Any], OAuthRefusal]] = [
            ({"redirect_uris": None}, refusals.REDIRECT_URIS_MISSING),
            ({"redirect_uris": []}, refusals.REDIRECT_URIS_MISSING),
            ({"redirect_uris": "https://example.org/cb"}, refusals.REDIRECT_URIS_MISSING),
            ({"redirect_uris": {"0": "https://example.org/cb"}}, refusals.REDIRECT_URIS_MISSING),
            ({"redirect_uris": [7]}, refusals.REDIRECT_URIS_MISSING),
            ({"redirect_uris": [None]}, refusals.REDIRECT_URIS_MISSING),
            ({"redirect_uris": ["http://example.org/"]}, refusals.REDIRECT_URI_REFUSED),
            ({"redirect_uris": ["\ud800"]}, refusals.REDIRECT_URI_REFUSED),
            (
                {"redirect_uris": ["https://example.org/cb", "javascript:alert(1)"]},
                refusals.REDIRECT_URI_REFUSED,
            ),
            (
                {"redirect_uris": [f"https://example.org/{n}" for n in range(11)]},
                refusals.REDIRECT_URIS_MANY,
            ),
            ({"token_endpoint_auth_method": "private_key_jwt"}, refusals.REGISTRATION_AUTH_METHOD),
            ({"token_endpoint_auth_method": "None"}, refusals.REGISTRATION_AUTH_METHOD),
            ({"token_endpoint_auth_method": ["none"]}, refusals.REGISTRATION_AUTH_METHOD),
            ({"token_endpoint_auth_method": {}}, refusals.REGISTRATION_AUTH_METHOD),
            ({"grant_types": []}, refusals.REGISTRATION_GRANT_TYPES),
            ({"grant_types": ["implicit"]}, refusals.REGISTRATION_GRANT_TYPES),
            ({"grant_types": ["refresh_token"]}, refusals.REGISTRATION_GRANT_TYPES),
            ({"grant_types": "authorization_code"}, refusals.REGISTRATION_GRANT_TYPES),
            ({"grant_types": ["authorization_code", 1]}, refusals.REGISTRATION_GRANT_TYPES),
            ({"response_types": ["token"]}, refusals.REGISTRATION_RESPONSE_TYPES),
            ({"response_types": []}, refusals.REGISTRATION_RESPONSE_TYPES),
            ({"response_types": 1}, refusals.REGISTRATION_RESPONSE_TYPES),
            ({"client_name": 7}, refusals.REGISTRATION_MALFORMED),
            ({"client_name": ["x"]}, refusals.REGISTRATION_MALFORMED),
            ({"scope": ["forge:read"]}, refusals.REGISTRATION_MALFORMED),
        ]
        for change, refusal in cases:
            answer = judge_registration(SMALLEST | change)
            assert isinstance(answer, OAuthRefusal), change
            self.assertEqual((answer.reason, answer.status), (refusal.reason, 400), change)
        for body in (None, [], "x", 7, True, [SMALLEST]):
            self.assertEqual(judge_registration(body), refusals.REGISTRATION_MALFORMED)

    def test_names_the_uri(self) -> None:
        """The refusal says which of several redirect URIs is meant."""
        answer = judge_registration({"redirect_uris": ["https://a.org/", "ftp://a.org/"]})
        assert isinstance(answer, OAuthRefusal)
        self.assertTrue(answer.description.startswith("redirect_uris[1] "), answer)

    def test_same_uri_twice(self) -> None:
        """A URI that stands there twice is registered once, and counted once."""
        uris = ["https://a.org/", "https://b.org/"] * 6
        self.assertEqual(registered({"redirect_uris": uris}).redirect_uris, tuple(uris[:2]))

    def test_ignored(self) -> None:
        """What we do not understand is ignored, and not told as registered."""
        body = SMALLEST | {
            "logo_uri": "http://169.254.169.254/",
            "jwks_uri": "file:///etc/passwd",
            "jwks": {"keys": []},
            "software_statement": "eyJ",
            "tos_uri": 7,
            "client_id": "mine",
            "client_secret": "mine",
            "client_name#de": "Einer",
            "application_type": "web",
        }
        self.assertEqual(registered(body), registered(SMALLEST))

    def test_client_uri(self) -> None:
        """A client_uri that is not plainly a page on https is dropped, never an error."""
        for value in ("javascript:alert(1)", "http://a.org/", 7, "", "https://a@b.org/", ["x"]):
            self.assertIsNone(registered(SMALLEST | {"client_uri": value}).client_uri)

    @given(st.dictionaries(members, json_values) | json_values)
    def test_any_json(self, body: object) -> None:
        """Any JSON at all is judged; a refusal is one of registration."""
        answer = judge_registration(body)
        if isinstance(answer, OAuthRefusal):
            self.assertIn(answer.error, ("invalid_client_metadata", "invalid_redirect_uri"))

    @given(st.dictionaries(members, json_values))
    def test_kept_and_told(self, body: dict[str, object]) -> None:
        """Whatever is registered survives the store, and its response holds no null."""
        metadata = registered(
            {key: body[key] for key in ("client_uri", "logo_uri", "jwks") if key in body} | SMALLEST
        )
        self.assertEqual(ClientMetadata.from_json(metadata.to_json()), metadata)
        answer = registration_response(Client("c", (), metadata, 1.0), None, MANAGEMENT, HOME)
        self.assertNotIn(None, answer.values())
        json.dumps(answer, allow_nan=False).encode("utf-8")

    def test_captured_survive_the_store(self) -> None:
        """Each captured client reads back from the store as it was."""
        for body in REGISTRATIONS.values():
            metadata = registered(body)
            self.assertEqual(ClientMetadata.from_json(metadata.to_json()), metadata)

    def test_later_members(self) -> None:
        """A row with a member that this version does not know is read all the same."""
        stored = json.loads(registered(SMALLEST).to_json()) | {"logo": "x"}
        self.assertEqual(ClientMetadata.from_json(json.dumps(stored)), registered(SMALLEST))


class Names(SynchronousTestCase):
    """A stranger's name for itself."""

    def test_table(self) -> None:
        """Nothing is left in a name that makes it read other than it is."""
        for given_name, shown in [
            ("Claude", "Claude"),
            ("  Claude \t\r\n Code ", "Claude Code"),
            ("Cla\u202eedu", "Claedu"),
            ("Cla\u200bude\ufeff", "Claude"),
            ("a\x00b\x1bc\x7fd", "a b c d"),
            ("a\u2028b\u00a0c", "a b c"),
            ("x\ud800y", "xy"),
            ("\ue000\U000f0000", ""),
            ("Caf\u0065\u0301", "Caf\u00e9"),
            ("a" + "\u0336" * 50 + "b", "a\u0336\u0336b"),
            ("\u200b \u202e", ""),
            ("名前 \N{PARTY POPPER}", "名前 \N{PARTY POPPER}"),
            ("<b>&amp;", "<b>&amp;"),
            ("Cl\u1160aude\u115f\u3164\uffa0", "Claude"),
            ("Cl\u034fau\u17b4de\ufe0f\u2800\U0001d159\U000e0101", "Claude"),
        ]:
            self.assertEqual(clean_name(given_name), shown)

    @given(st.text(st.characters(), max_size=400))
    def test_bounded(self, name: str) -> None:
        """A cleaned name is within the limit, encodable, on one line, and clean already."""
        cleaned = clean_name(name)
        self.assertLessEqual(len(cleaned), limits.CLIENT_NAME)
        cleaned.encode("utf-8")
        self.assertEqual(cleaned.split(), cleaned.split(" ") if cleaned else [])

    def test_long(self) -> None:
        """A name of a megabyte is cut, whatever it begins with."""
        self.assertEqual(clean_name("x" * 1_000_000), "x" * limits.CLIENT_NAME)

    def test_nameless(self) -> None:
        """A client may do without a name."""
        self.assertEqual(registered(SMALLEST).client_name, "")
