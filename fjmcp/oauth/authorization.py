"""
The authorization request: taken apart, judged, answered.

Two judgements, because they are answered in two ways (RFC 6749 §4.1.2.1):
while it is not certain where to redirect to, a refusal is shown on a page of
ours, or we were an open redirector; from then on it goes back to the client.
`judge_unmet` is as much of both as needs no client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from attrs import asdict, evolve, field, frozen

from fjmcp import limits
from fjmcp.oauth import redirects, resources
from fjmcp.oauth.clients import Client
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.scopes import Scopes
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import (
    AUTHORIZE_CLIENT_UNKNOWN,
    AUTHORIZE_CLIENT_UNNAMED,
    PARAMETER_TWICE,
    PKCE_CHALLENGE,
    PKCE_METHOD,
    PKCE_MISSING,
    PROMPT_NONE,
    PROMPT_UNCLEAR,
    REDIRECT_MISMATCH,
    REDIRECT_MISSING,
    REQUEST_OBJECT,
    REQUEST_URI,
    RESPONSE_MODE,
    RESPONSE_TYPE,
    RESPONSE_TYPE_MISSING,
    STATE_TOO_LONG,
    OAuthRefusal,
)

REPEATABLE: Final = frozenset({"resource"})
"""Parameters that may stand more than once (RFC 8707 §2)."""

# RFC 7636 §4.1, §4.2: 43*128unreserved, for verifier and challenge alike.
_PKCE: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")

_ASKING: Final = frozenset({"consent", "login", "select_account"})
"""Words of `prompt` by which a client wants its person asked."""


# --- parameters -----------------------------------------------------------------


@frozen
class Params(Mapping[str, str]):
    """
    The parameters of a request, each of them sent once; `once` makes it.

    A mapping of names to values; `all` for what may repeat.
    """

    pairs: tuple[tuple[str, str], ...] = field(repr=False)
    """Codes, tokens and secrets among them."""

    def __getitem__(self, name: str) -> str:
        for known, value in self.pairs:
            if known == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.pairs))

    def __len__(self) -> int:
        return len(dict(self.pairs))

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a parameter, in the order sent."""
        return tuple(value for known, value in self.pairs if known == name)


def once(params: Sequence[tuple[str, str]]) -> Params | OAuthRefusal:
    """The parameters of a query or a form, if none stands there twice."""
    # RFC 6749 §3.1: "Parameters sent without a value MUST be treated as if they were omitted
    # from the request."
    pairs = tuple((name, value) for name, value in params if value)
    # RFC 6749 §3.1: "Request and response parameters MUST NOT be included more than once."
    names = [name for name, _ in pairs if name not in REPEATABLE]
    if len(names) != len(set(names)):
        return PARAMETER_TWICE
    return Params(pairs)


# --- the request ------------------------------------------------------------------


@frozen
class AuthorizationRequest:
    """What a client asks a person for; it stays the same from the consent page to the token."""

    client_id: str
    redirect_uri: str
    """As presented, so a loopback one has the port of this very request."""
    state: str | None
    challenge: str
    """PKCE, S256."""
    scopes: str
    """What is asked, in our words and their canonical order."""
    resource: str
    """Canonical."""
    fingerprint: str = ""
    """Of the client's metadata as it was when the person was asked, in hex; empty where an older
    version of this server wrote the row."""

    def to_json(self) -> str:
        """For the store; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> AuthorizationRequest:
        """What `to_json` wrote.  Members that this version does not know are passed over."""
        stored: dict[str, Any] = json.loads(text)
        return cls(
            client_id=stored["client_id"],
            redirect_uri=stored["redirect_uri"],
            state=stored["state"],
            challenge=stored["challenge"],
            scopes=stored["scopes"],
            resource=stored["resource"],
            fingerprint=stored.get("fingerprint", ""),
        )


def judge_redirect(params: Params, client: Client | None) -> str | OAuthRefusal:
    """
    Where the answer may be redirected to, for the client found by `client_id`, or None.

    A refusal from here is shown, never redirected.
    """
    # RFC 6749 §4.1.2.1: on a missing, invalid or mismatching redirection URI or client
    # identifier the server "SHOULD inform the resource owner of the error and MUST NOT
    # automatically redirect the user-agent to the invalid redirection URI".
    if "client_id" not in params:
        return AUTHORIZE_CLIENT_UNNAMED
    if client is None or client.client_id != params["client_id"]:
        return AUTHORIZE_CLIENT_UNKNOWN
    # An overlong state could not be given back, and a redirect without it is one that the
    # client must distrust.
    if len(params.get("state", "")) > limits.CLIENT_STATE:
        return STATE_TOO_LONG
    registered = client.metadata.redirect_uris
    presented = params.get("redirect_uri")
    if presented is None:
        # RFC 6749 §3.1.2.3: it MUST be sent if several are registered.
        return registered[0] if len(registered) == 1 else REDIRECT_MISSING
    if not any(redirects.matches(known, presented) for known in registered):
        return REDIRECT_MISMATCH
    return presented


def judge_unmet(params: Params, endpoints: Endpoints) -> OAuthRefusal | None:
    """
    What is wrong with a request whichever client it is from, None if nothing is.

    For a client that has to be fetched first: nobody is asked about a request that could not be
    answered anyway.  A refusal from here is shown, never redirected.
    """
    if len(params.get("state", "")) > limits.CLIENT_STATE:
        return STATE_TOO_LONG
    presented = params.get("redirect_uri")
    if presented is None:
        return REDIRECT_MISSING.saying(
            "The address has no redirect_uri. Start again from your assistant."
        )
    judged = redirects.judge(presented)
    if isinstance(judged, OAuthRefusal):
        return REDIRECT_MISMATCH.saying(f"The redirect_uri is refused. {judged.description}")
    challenge = _challenge(params, endpoints)
    return challenge if isinstance(challenge, OAuthRefusal) else None


def judge_request(
    params: Params, client: Client, redirect_uri: str, endpoints: Endpoints
) -> AuthorizationRequest | OAuthRefusal:
    """
    The request of a client whose `redirect_uri` was judged.

    A refusal from here goes back to the client by `error_url`.
    """
    challenge = _challenge(params, endpoints)
    if isinstance(challenge, OAuthRefusal):
        return challenge
    return evolve(intended(params, client, redirect_uri, endpoints), challenge=challenge)


def _challenge(params: Params, endpoints: Endpoints) -> str | OAuthRefusal:
    # Of a request that any client may send.
    # RFC 9101 is not supported; OpenID Connect Core §6 has the two codes for it.
    if "request" in params:
        return REQUEST_OBJECT
    if "request_uri" in params:
        return REQUEST_URI
    if "response_type" not in params:
        return RESPONSE_TYPE_MISSING
    if params["response_type"] != "code":
        return RESPONSE_TYPE
    if params.get("response_mode", "query") != "query":
        return RESPONSE_MODE
    # RFC 9700 §2.1.1: public clients MUST use PKCE; OAuth 2.1 asks it of all.
    challenge = params.get("code_challenge")
    if challenge is None:
        return PKCE_MISSING
    # RFC 7636 §4.3: the method "defaults to plain if not present", and RFC 9700 §2.1.1 wants
    # one that "does not expose the PKCE verifier in the authorization request".
    if params.get("code_challenge_method") != "S256":
        return PKCE_METHOD
    if not _PKCE.fullmatch(challenge):
        return PKCE_CHALLENGE
    resource = resources.canonical(params.all("resource"), endpoints)
    if isinstance(resource, OAuthRefusal):
        return resource
    prompt = set(params.get("prompt", "").split())
    if "none" in prompt:
        # OpenID Connect Core §3.1.2.1: "If this parameter contains none with any other value, an
        # error is returned."  §3.1.2.6: interaction_required, since the person signs in at
        # Forgejo, and nobody can keep its page from showing.
        return PROMPT_NONE if prompt == {"none"} else PROMPT_UNCLEAR
    return challenge


def intended(
    params: Params, client: Client, redirect_uri: str, endpoints: Endpoints
) -> AuthorizationRequest:
    """
    What a request asks a person for, whatever else may be wrong with it; without its challenge.

    A remembered consent that covers it covers the redirect URI, too.
    """
    return AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=redirect_uri,
        state=params.get("state"),
        challenge="",
        scopes=str(Scopes.parse(params.get("scope"))),
        # There is one resource here; a request that names another is refused.
        resource=endpoints.resource,
        fingerprint=client.metadata.fingerprint.value.hex(),
    )


def wants_page(params: Params) -> bool:
    """Whether the client wants its person asked, whatever was remembered; words that we do not
    know say nothing (OpenID Connect Core §3.1.2.1)."""
    return not _ASKING.isdisjoint(params.get("prompt", "").split())


def verifier_matches(challenge: str, verifier: str) -> bool:
    """Whether a PKCE verifier is the one whose S256 challenge was sent, in constant time."""
    if not _PKCE.fullmatch(verifier):
        return False
    # RFC 7636 §4.6: "BASE64URL-ENCODE(SHA256(ASCII(code_verifier))) == code_challenge".
    hashed = hashlib.sha256(verifier.encode("ascii")).digest()
    expected = base64.urlsafe_b64encode(hashed).rstrip(b"=")
    return hmac.compare_digest(expected, challenge.encode("utf-8", "surrogatepass"))


# --- the answer -------------------------------------------------------------------


def success_url(request: AuthorizationRequest, code: TokenText, issuer: str) -> str:
    """Where the browser takes a code to (RFC 6749 §4.1.2)."""
    return _answer(request.redirect_uri, {"code": code.text}, request.state, issuer)


def error_url(redirect_uri: str, state: str | None, refusal: OAuthRefusal, issuer: str) -> str:
    """Where the browser takes a refusal to (RFC 6749 §4.1.2.1); `redirect_uri` was judged."""
    answer = {"error": refusal.error, "error_description": plain_text(refusal.description)}
    return _answer(redirect_uri, answer, state, issuer)


def plain_text(text: str) -> str:
    """`text` in the characters that RFC 6749 §5.2 and RFC 6750 §3 let a description have."""
    return "".join(
        character if " " <= character <= "~" and character not in '"\\' else "'"
        for character in text
    )


def _answer(redirect_uri: str, answer: dict[str, str], state: str | None, issuer: str) -> str:
    # RFC 6749 §4.1.2: state is "REQUIRED if [...] present in the client authorization request.
    # The exact value received from the client."
    if state is not None:
        answer["state"] = state
    # RFC 9207 §2: iss in success and error responses alike.
    answer["iss"] = issuer
    # RFC 6749 §3.1.2: a query of the redirection URI "MUST be retained when adding additional
    # query parameters".
    if "?" not in redirect_uri:
        joint = "?"
    else:
        joint = "" if redirect_uri.endswith(("?", "&")) else "&"
    # %20 and not +: every reader of a query understands it.
    return redirect_uri + joint + urlencode(answer, quote_via=quote, safe="", errors="replace")
