"""
Every way to be refused, for two audiences.

`reason` is for the log and for tests: exact, and never shown outside.
The other fields are the wire form, which the protocol gives: an OAuth error
(RFC 6749 §5.2), or an HTTP status with a JSON-RPC error.
A refusal is a value.  The sentence says what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from attrs import evolve, frozen


@frozen
class OAuthRefusal:
    """
    A refusal at an OAuth endpoint.

    `error` is a code of RFC 6749 §4.1.2.1 or §5.2, RFC 7591 §3.2.2 or
    RFC 8707 §2; `status` the HTTP status where it is answered and not
    redirected.
    """

    reason: str
    error: str
    description: str
    status: int = 400
    retry_after: int | None = None
    login: str = ""
    """As whom the person is signed in at Forgejo: for their own eyes, never for a client."""

    def saying(self, description: str) -> OAuthRefusal:
        """The same refusal with a more exact sentence."""
        return evolve(self, description=description)


@frozen
class McpRefusal:
    """
    A refusal at the MCP endpoint: an HTTP status and a JSON-RPC error.

    `challenge` is the RFC 6750 §3.1 error of the `WWW-Authenticate` header:
    None for no header, "" for a challenge that names no error.
    """

    reason: str
    status: int
    code: int
    message: str
    challenge: str | None = None
    retry_after: int | None = None

    def saying(self, message: str) -> McpRefusal:
        """The same refusal with a more exact sentence."""
        return evolve(self, message=message)


# --- MCP: the message -------------------------------------------------------

NOTICE_WITH_ID: Final = McpRefusal(
    "notice-with-id",
    400,
    -32601,
    "What begins with notifications/ is a notification: send it without an id.",
)
PARSE_ERROR: Final = McpRefusal(
    "not-json", 400, -32700, "The body is not valid JSON in UTF-8. Send one JSON-RPC message."
)
INVALID_REQUEST: Final = McpRefusal(
    "not-jsonrpc",
    400,
    -32600,
    "The body is not a JSON-RPC 2.0 request, notification or response. Send one of them.",
)
BATCH: Final = McpRefusal(
    "batch", 400, -32600, "Batches are not part of this revision of MCP. Send one message a POST."
)
TOO_DEEP: Final = McpRefusal("too-deep", 400, -32600, "The message nests too deeply. Flatten it.")
TOO_LARGE: Final = McpRefusal(
    "too-large", 413, -32600, "The message is larger than this server takes. Send less at a time."
)
BODIES_FULL: Final = McpRefusal(
    "bodies-full",
    503,
    -32603,
    "Too many large messages are on their way to this server. Try again in a moment.",
    retry_after=5,
)
INVALID_PARAMS: Final = McpRefusal(
    "invalid-params", 400, -32602, "Send the parameters of this request as MCP defines them."
)
WRONG_CONTENT_TYPE: Final = McpRefusal(
    "content-type", 415, -32600, "Send the message as Content-Type: application/json."
)
NOT_ACCEPTABLE: Final = McpRefusal(
    "accept", 406, -32600, "Accept must allow application/json or text/event-stream."
)
NO_EVENTS: Final = McpRefusal(
    "accept-events",
    406,
    -32600,
    "A stream is of text/event-stream. Send Accept: text/event-stream.",
)

# --- MCP: the door ------------------------------------------------------------

NO_TOKEN: Final = McpRefusal(
    "no-token", 401, -32001, "Sign in first: this server needs an access token.", challenge=""
)
BAD_TOKEN: Final = McpRefusal(
    "bad-token",
    401,
    -32001,
    "The access token is unknown, expired or revoked. Refresh it, or sign in again.",
    challenge="invalid_token",
)
TOKEN_IN_QUERY: Final = McpRefusal(
    "token-in-query",
    400,
    -32600,
    "Send the access token in the Authorization header, never in the URL.",
    challenge="invalid_request",
)
FOREIGN_ORIGIN: Final = McpRefusal(
    "origin",
    403,
    -32600,
    "Pages of this Origin may not call this server. Call it from a program that sends no Origin,"
    " or ask whoever runs it to allow the origin.",
)
FOREIGN_HOST: Final = McpRefusal(
    "host", 421, -32600, "This server does not answer for that Host. Use its public URL."
)

# --- MCP: revisions -------------------------------------------------------------

MODERN: Final = McpRefusal(
    "modern-era",
    400,
    -32601,
    "This server speaks MCP up to 2025-11-25. Open with initialize.",
)
UNKNOWN_REVISION: Final = McpRefusal(
    "unknown-revision",
    400,
    -32600,
    "MCP-Protocol-Version names no revision that this server knows. Send 2025-11-25 or older.",
)

# --- MCP: sessions ----------------------------------------------------------------

UNKNOWN_SESSION: Final = McpRefusal(
    "unknown-session", 404, -32001, "Session not found. Open a new one with initialize."
)
GONE_SESSION: Final = McpRefusal(
    "unknown-session", 410, -32001, "Session not found. Open a new one with initialize."
)
OTHER_CLIENTS_SESSION: Final = McpRefusal(
    "other-clients-session", 404, -32001, "Session not found. Open a new one with initialize."
)
OTHER_ACCOUNTS_SESSION: Final = McpRefusal(
    "other-accounts-session",
    403,
    -32001,
    "This session belongs to somebody else. Open your own with initialize.",
)
SESSION_REQUIRED: Final = McpRefusal(
    "session-required", 400, -32600, "Mcp-Session-Id is missing. Open a session with initialize."
)
NOT_OFFERED: Final = McpRefusal(
    "not-offered",
    200,
    -32601,
    "The Forgejo tool server does not offer this: see the capabilities in its initialize result.",
)
NO_STREAM: Final = McpRefusal(
    "no-stream",
    405,
    -32600,
    "A stream belongs to a session. Open one with initialize, or do without and POST messages.",
)

# --- MCP: children ------------------------------------------------------------------

CHILD_MISSING: Final = McpRefusal(
    "child-missing",
    503,
    -32603,
    "The Forgejo tool server could not be started. Tell whoever runs this server.",
    retry_after=30,
)
CHILD_START_FAILED: Final = McpRefusal(
    "child-start-failed",
    503,
    -32603,
    "The Forgejo tool server ended while it started; Forgejo may be away. Try again in a minute.",
    retry_after=30,
)
CHILD_START_SLOW: Final = McpRefusal(
    "child-start-slow",
    503,
    -32603,
    "The Forgejo tool server did not start in time; Forgejo may be slow. Try again in a minute.",
    retry_after=30,
)
CHILD_CRASHED: Final = McpRefusal(
    "child-crashed",
    502,
    -32603,
    "The Forgejo tool server ended in the middle of this call. Whether the call took effect is"
    " unknown: look before you repeat it.",
)
CHILD_DRAINED: Final = McpRefusal(
    "child-drained",
    503,
    -32603,
    "The Forgejo tool server was stopped before it answered. Whether the call took effect is"
    " unknown: look before you repeat it.",
)
CALL_TOO_LONG: Final = McpRefusal(
    "call-too-long",
    504,
    -32603,
    "The Forgejo tool server did not answer in time. Whether the call took effect is unknown:"
    " look before you repeat it.",
)
CHILD_BUSY: Final = McpRefusal(
    "child-busy",
    503,
    -32603,
    "The Forgejo tool server takes nothing more just now. The call was not made; try again.",
    retry_after=5,
)
CHILD_UNREADABLE: Final = McpRefusal(
    "child-unreadable",
    502,
    -32603,
    "The answer of the Forgejo tool server is too large or cannot be read. Ask for less at a time;"
    " if the call changes something, look before you repeat it.",
)
NO_QUESTIONS: Final = McpRefusal(
    "no-questions", 200, -32601, "The client of this server cannot be asked."
)
QUESTION_UNHEARD: Final = McpRefusal(
    "question-unheard",
    200,
    -32603,
    "The client listens to no stream just now, so that it cannot be asked.",
)
QUESTION_UNANSWERED: Final = McpRefusal(
    "question-unanswered", 200, -32603, "The client did not answer in time."
)
TOO_MANY_QUESTIONS: Final = McpRefusal(
    "too-many-questions",
    200,
    -32603,
    "The client has not answered the questions before. Ask again when it has.",
)
CHILDREN_FULL: Final = McpRefusal(
    "children-full",
    503,
    -32603,
    "This server is at its limit and every tool server is at work. Try again in a moment.",
    retry_after=5,
)
CHILDREN_TOO_OFTEN: Final = McpRefusal(
    "children-too-often",
    503,
    -32603,
    "Too many tool servers were started for this account within a short time. Try again in a"
    " moment.",
    retry_after=2,
)
CALL_CANCELLED: Final = McpRefusal(
    "call-cancelled",
    200,
    -32800,
    "The call was cancelled as you asked. What it had done by then stands.",
)
GRANT_ENDED: Final = McpRefusal(
    "grant-ended",
    401,
    -32001,
    "Access was withdrawn while this call ran. Sign in again.",
    challenge="invalid_token",
)
SHUTTING_DOWN: Final = McpRefusal(
    "shutting-down", 503, -32603, "This server is restarting. Try again in a minute.", retry_after=5
)

# --- MCP: the account ------------------------------------------------------------------

CREDENTIAL_DEAD: Final = McpRefusal(
    "credential-dead",
    401,
    -32001,
    "Forgejo no longer honours the sign-in of this account. Sign in again.",
    challenge="invalid_token",
)
CREDENTIAL_TROUBLED: Final = McpRefusal(
    "credential-troubled",
    503,
    -32603,
    "Forgejo could not be asked to renew the sign-in. Nothing is lost; try again in a minute.",
    retry_after=15,
)
STORE_DOWN: Final = McpRefusal(
    "store-down",
    503,
    -32603,
    "This server cannot read its store just now. Nothing is lost; try again in a minute.",
    retry_after=5,
)

# --- OAuth ---------------------------------------------------------------------------

# --- OAuth: registration (RFC 7591 §3.2.2) ---------------------------------------------

REGISTRATION_MALFORMED: Final = OAuthRefusal(
    "registration-malformed",
    "invalid_client_metadata",
    "A registration is a JSON object as RFC 7591 describes it.",
)
REGISTRATION_AUTH_METHOD: Final = OAuthRefusal(
    "registration-auth-method",
    "invalid_client_metadata",
    "token_endpoint_auth_method must be none, client_secret_post or client_secret_basic.",
)
REGISTRATION_GRANT_TYPES: Final = OAuthRefusal(
    "registration-grant-types",
    "invalid_client_metadata",
    "grant_types must contain authorization_code; refresh_token may stand beside it.",
)
REGISTRATION_RESPONSE_TYPES: Final = OAuthRefusal(
    "registration-response-types",
    "invalid_client_metadata",
    "response_types must contain code.",
)
REDIRECT_URIS_MISSING: Final = OAuthRefusal(
    "redirect-uris-missing",
    "invalid_redirect_uri",
    "redirect_uris must be a list with at least one URI.",
)
REDIRECT_URIS_MANY: Final = OAuthRefusal(
    "redirect-uris-many",
    "invalid_redirect_uri",
    "There are too many redirect_uris. Register the ones you use.",
)
REDIRECT_URI_REFUSED: Final = OAuthRefusal(
    "redirect-uri-refused", "invalid_redirect_uri", "This redirect URI cannot be registered."
)

REGISTRATION_CLOSED: Final = OAuthRefusal(
    "registration-closed",
    "access_denied",
    "This server registers no clients. Use the client id that whoever runs it gives you, or a"
    " client that has a metadata document.",
    status=403,
)
MANAGEMENT_TOKEN: Final = OAuthRefusal(
    "management-token",
    "invalid_token",
    "The registration access token does not fit this client. Send the one from the registration"
    " in the Authorization header.",
    status=401,
)

# --- OAuth: who the client is (RFC 6749 §5.2) --------------------------------------------

CLIENT_UNNAMED: Final = OAuthRefusal(
    "client-unnamed",
    "invalid_client",
    "The request names no client. Send client_id, or register first.",
    status=401,
)
CLIENT_UNKNOWN: Final = OAuthRefusal(
    "client-unknown",
    "invalid_client",
    "This client is not registered here. Register again.",
    status=401,
)
CLIENT_NOT_TAKEN: Final = OAuthRefusal(
    "client-not-taken",
    "invalid_client",
    "This server takes only certain clients, and this one is not among them. Whoever runs it can"
    " add it (--clients).",
    status=401,
)
CLIENT_SECRET_WRONG: Final = OAuthRefusal(
    "client-secret-wrong",
    "invalid_client",
    "The client secret is wrong. Send the one from the registration, or register again.",
    status=401,
)
CLIENT_AUTH_METHOD: Final = OAuthRefusal(
    "client-auth-method",
    "invalid_client",
    "The client did not authenticate in the way that it registered (token_endpoint_auth_method).",
    status=401,
)
CLIENT_AUTH_MALFORMED: Final = OAuthRefusal(
    "client-auth-malformed",
    "invalid_client",
    "The Authorization header is not Basic with base64 of client_id:client_secret.",
    status=401,
)
CLIENT_AUTH_TWICE: Final = OAuthRefusal(
    "client-auth-twice",
    "invalid_request",
    "The client authenticates in two ways at once. Use the Authorization header or the form.",
)

# --- OAuth: the authorization request (RFC 6749 §4.1.2.1) ---------------------------------
# Those before REQUEST_OBJECT are shown on a page of ours, never redirected: the URI to
# redirect to is what they doubt.  So is whatever is wrong with the request of a client whose
# document is not known yet.

PARAMETER_TWICE: Final = OAuthRefusal(
    "parameter-twice", "invalid_request", "A parameter was sent more than once. Send each once."
)
AUTHORIZE_CLIENT_UNNAMED: Final = OAuthRefusal(
    "authorize-client-unnamed",
    "invalid_request",
    "The address names no client (client_id). Start again from your assistant.",
)
AUTHORIZE_CLIENT_UNKNOWN: Final = OAuthRefusal(
    "authorize-client-unknown",
    "invalid_client",
    "This client is not registered here. Remove the connection in your assistant and add it"
    " again, so that it registers anew.",
)
AUTHORIZE_DOCUMENT_URL: Final = OAuthRefusal(
    "document-url",
    "invalid_client",
    "The client_id is a URL, but none at which a client may publish its metadata document.",
)
AUTHORIZE_DOCUMENT_UNFETCHED: Final = OAuthRefusal(
    "document-unfetched",
    "invalid_client",
    "The metadata document of this client cannot be fetched.",
)
AUTHORIZE_DOCUMENT_REFUSED: Final = OAuthRefusal(
    "document-refused",
    "invalid_client",
    "The metadata document of this client is refused.",
)
DOCUMENTS_BUSY: Final = OAuthRefusal(
    "documents-busy",
    "temporarily_unavailable",
    "This server fetches too many metadata documents of clients just now. Wait a moment, then"
    " connect again.",
    status=503,
    retry_after=5,
)
REDIRECT_MISSING: Final = OAuthRefusal(
    "redirect-missing",
    "invalid_request",
    "The address has no redirect_uri, and the client has registered several. Start again"
    " from your assistant.",
)
REDIRECT_MISMATCH: Final = OAuthRefusal(
    "redirect-mismatch",
    "invalid_request",
    "The redirect_uri is none of those that this client has registered. They must be equal,"
    " letter by letter.",
)
STATE_TOO_LONG: Final = OAuthRefusal(
    "state-too-long", "invalid_request", "The state parameter is too long. Shorten it."
)
REQUEST_OBJECT: Final = OAuthRefusal(
    "request-object",
    "request_not_supported",
    "Request objects are not supported. Send the parameters themselves.",
)
REQUEST_URI: Final = OAuthRefusal(
    "request-uri",
    "request_uri_not_supported",
    "request_uri is not supported. Send the parameters themselves.",
)
RESPONSE_TYPE_MISSING: Final = OAuthRefusal(
    "response-type-missing", "invalid_request", "response_type is missing. Send response_type=code."
)
RESPONSE_TYPE: Final = OAuthRefusal(
    "response-type", "unsupported_response_type", "The only response_type is code."
)
RESPONSE_MODE: Final = OAuthRefusal(
    "response-mode", "invalid_request", "The only response_mode is query."
)
PKCE_MISSING: Final = OAuthRefusal(
    "pkce-missing",
    "invalid_request",
    "PKCE is required. Send code_challenge with code_challenge_method=S256.",
)
PKCE_METHOD: Final = OAuthRefusal(
    "pkce-method",
    "invalid_request",
    "The only code_challenge_method is S256, and it must be named.",
)
PKCE_CHALLENGE: Final = OAuthRefusal(
    "pkce-challenge",
    "invalid_request",
    "code_challenge is not 43 to 128 characters of A-Z, a-z, 0-9, -, ., _ and ~.",
)
RESOURCE_FOREIGN: Final = OAuthRefusal(
    "resource-foreign",
    "invalid_target",
    "The resource is not this server. Send the URL that its protected-resource metadata names.",
)
PROMPT_NONE: Final = OAuthRefusal(
    "prompt-none",
    "interaction_required",
    "prompt=none cannot be had here: the person signs in at Forgejo, whose page may have to be"
    " shown. Leave prompt out.",
)
PROMPT_UNCLEAR: Final = OAuthRefusal(
    "prompt-unclear", "invalid_request", "prompt=none stands alone. Send no other word beside it."
)

# --- OAuth: codes and refresh tokens (RFC 6749 §5.2) ----------------------------------------

CODE_UNKNOWN: Final = OAuthRefusal(
    "code-unknown", "invalid_grant", "The code is unknown. Authorize again."
)
CODE_EXPIRED: Final = OAuthRefusal(
    "code-expired", "invalid_grant", "The code has expired. Authorize again, and redeem it at once."
)
CODE_CLIENT: Final = OAuthRefusal(
    "code-of-another-client",
    "invalid_grant",
    "The code was given to another client. Authorize again.",
)
CODE_REDIRECT: Final = OAuthRefusal(
    "code-redirect",
    "invalid_grant",
    "The redirect_uri is not the one of the authorization request. Send that one.",
)
CODE_VERIFIER_MISSING: Final = OAuthRefusal(
    "code-verifier-missing", "invalid_grant", "PKCE is required. Send the code_verifier."
)
CODE_VERIFIER: Final = OAuthRefusal(
    "code-verifier",
    "invalid_grant",
    "The code_verifier does not fit the code_challenge. Send the one that it was made of.",
)
CODE_REUSED: Final = OAuthRefusal(
    "code-reused",
    "invalid_grant",
    "The code was used before. What was given for it is withdrawn; authorize again.",
)
REFRESH_UNKNOWN: Final = OAuthRefusal(
    "refresh-unknown", "invalid_grant", "The refresh token is unknown. Authorize again."
)
REFRESH_CLIENT: Final = OAuthRefusal(
    "refresh-of-another-client",
    "invalid_grant",
    "The refresh token was given to another client. Authorize again.",
)
REFRESH_REUSED: Final = OAuthRefusal(
    "refresh-reused",
    "invalid_grant",
    "The refresh token was replaced before. To be safe the whole grant is withdrawn;"
    " authorize again.",
)
GRANT_OVER: Final = OAuthRefusal(
    "grant-over", "invalid_grant", "This access was withdrawn. Authorize again."
)
GRANT_EXPIRED: Final = OAuthRefusal(
    "grant-expired", "invalid_grant", "This access has expired. Authorize again."
)
SCOPE_WIDENED: Final = OAuthRefusal(
    "scope-widened", "invalid_scope", "More scope is asked than was granted. Ask for less."
)

# --- OAuth: this server ------------------------------------------------------------------

OAUTH_STORE_DOWN: Final = OAuthRefusal(
    "store-down",
    "temporarily_unavailable",
    "This server cannot read its store just now. Nothing is lost; try again in a minute.",
    status=503,
    retry_after=5,
)

ACCESS_DENIED: Final = OAuthRefusal(
    "access-denied", "access_denied", "The person refused. Ask again only when they want it."
)
NO_VISIT: Final = OAuthRefusal(
    "no-visit",
    "invalid_request",
    "This address is for a browser to go to, in a tab or window of its own. Inside of another page,"
    " or ahead of time, it shows nothing.",
    status=403,
)
SIGN_IN_UNKNOWN: Final = OAuthRefusal(
    "sign-in-unknown",
    "invalid_request",
    "This sign-in is over: it took too long, or was answered before. Go back to the application"
    " and connect again.",
)
SIGN_IN_FORGED: Final = OAuthRefusal(
    "sign-in-forged",
    "invalid_request",
    "This sign-in was begun in another browser, or cookies are off. If you did not begin it"
    " yourself, close this page. Else allow cookies, go back to the application and connect again.",
)
CONSENT_WITHDRAWN: Final = OAuthRefusal(
    "consent-withdrawn",
    "access_denied",
    "The consent that was remembered for this application was withdrawn, or ran out, while the"
    " person signed in. Connect again.",
)
CONSENT_UNCLEAR: Final = OAuthRefusal(
    "consent-unclear", "invalid_request", "Press one of the buttons on the page before this."
)
UPSTREAM_FAILED: Final = OAuthRefusal(
    "upstream-failed",
    "server_error",
    "Forgejo did not complete the sign-in. Try again; if it goes on, tell whoever runs this"
    " server.",
)
CODE_MISSING: Final = OAuthRefusal(
    "code-missing", "invalid_request", "The parameter code is missing."
)
REFRESH_TOKEN_MISSING: Final = OAuthRefusal(
    "refresh-token-missing", "invalid_request", "The parameter refresh_token is missing."
)
TOKEN_MISSING: Final = OAuthRefusal(
    "token-missing", "invalid_request", "The parameter token is missing."
)
GRANT_TYPE_MISSING: Final = OAuthRefusal(
    "grant-type-missing", "invalid_request", "The parameter grant_type is missing."
)
GRANT_TYPE_UNSUPPORTED: Final = OAuthRefusal(
    "grant-type-unsupported",
    "unsupported_grant_type",
    "grant_type must be authorization_code or refresh_token.",
)
ACCOUNT_DEAD: Final = OAuthRefusal(
    "account-dead",
    "invalid_grant",
    "Forgejo no longer honours the sign-in of this account. Authorize again.",
)

# --- OAuth: how often -----------------------------------------------------------------------
# No RFC has an error code for it.  The TypeScript SDK takes a code that it does not know for
# server_error, and at that drops the refresh token and asks the person to sign in.

TOO_MANY: Final = OAuthRefusal(
    "too-many",
    "temporarily_unavailable",
    "This server gets too many requests just now. Nothing was used up: wait as long as"
    " Retry-After says, then send the same again.",
    status=429,
    retry_after=1,
)
TOO_MANY_OF_ADDRESS: Final = OAuthRefusal(
    "too-many-of-address",
    "temporarily_unavailable",
    "Too many requests come from this network. Nothing was used up: wait as long as Retry-After"
    " says, then send the same again.",
    status=429,
    retry_after=1,
)
TOO_MANY_OF_CLIENT: Final = OAuthRefusal(
    "too-many-of-client",
    "temporarily_unavailable",
    "This client sends too many requests. Nothing was used up: wait as long as Retry-After says,"
    " then send the same again.",
    status=429,
    retry_after=1,
)
TOO_MANY_OF_GRANT: Final = OAuthRefusal(
    "too-many-of-grant",
    "temporarily_unavailable",
    "This access is refreshed too often: an access token lasts for hours. Nothing was used up:"
    " wait as long as Retry-After says, then send the same again.",
    status=429,
    retry_after=10,
)

# --- OAuth: sign-in at Forgejo -------------------------------------------------------------

SIGN_IN_REFUSED: Final = OAuthRefusal(
    "sign-in-refused",
    "access_denied",
    "Forgejo did not accept this sign-in; it may have been used already. Go back to the"
    " application and connect again.",
)
SIGN_IN_TROUBLED: Final = OAuthRefusal(
    "sign-in-troubled",
    "temporarily_unavailable",
    "Forgejo could not finish the sign-in just now. Wait a minute, go back to the application"
    " and connect again.",
    status=503,
    retry_after=15,
)
SIGN_IN_MISCONFIGURED: Final = OAuthRefusal(
    "sign-in-misconfigured",
    "server_error",
    "Forgejo does not know this server: its OAuth client id or secret is wrong. Tell whoever"
    " runs this server.",
    status=502,
)
SIGN_IN_MIXED_UP: Final = OAuthRefusal(
    "sign-in-mixed-up",
    "server_error",
    "Forgejo answered for another application or another account. Nothing was kept; tell whoever"
    " runs this server.",
    status=502,
)
SCOPE_TOO_WIDE: Final = OAuthRefusal(
    "scope-too-wide",
    "access_denied",
    "Forgejo gives this server every right of your account, administration included, which it"
    " must not have. At Forgejo, under Settings, Applications, revoke it; then connect again.",
    status=403,
)
ACCOUNT_PROHIBITED: Final = OAuthRefusal(
    "account-prohibited",
    "access_denied",
    "Forgejo does not let this account use its API: it is blocked, or must first change its"
    " password or set up two-factor sign-in. Sign in at Forgejo itself to see which, then connect"
    " again.",
    status=403,
)

SCOPE_TOO_NARROW: Final = OAuthRefusal(
    "scope-too-narrow",
    "access_denied",
    "This server lets only certain accounts in, and Forgejo does not let it see whether yours is"
    " one: you allowed it when it asked for less. At Forgejo, under Settings, Applications, revoke"
    " it; then connect again.",
    status=403,
)
NOT_LET_IN: Final = OAuthRefusal(
    "not-let-in",
    "access_denied",
    "This server lets only certain accounts in, and this is none of them. Sign in at Forgejo as"
    " another account and connect again, or ask whoever runs this server.",
    status=403,
)
ADMIN_NOT_LET_IN: Final = OAuthRefusal(
    "admin-not-let-in",
    "access_denied",
    "This server lets no administrators of Forgejo in, and this account is one. Sign in at Forgejo"
    " as another account and connect again, or ask whoever runs this server.",
    status=403,
)

TURNED_AWAY: Final[Mapping[str, OAuthRefusal]] = {
    refusal.reason: refusal
    for refusal in (ACCOUNT_PROHIBITED, SCOPE_TOO_NARROW, NOT_LET_IN, ADMIN_NOT_LET_IN)
}
"""By the reason that put an account to sleep, how its person is refused at a sign-in."""

WHY_ASLEEP: Final[Mapping[str, str]] = {
    ACCOUNT_PROHIBITED.reason: "Forgejo does not let this account use its API any more: it is"
    " blocked, or must first change its password or set up two-factor sign-in. See to it at"
    " Forgejo, then sign in again.",
    SCOPE_TOO_NARROW.reason: "This server lets only certain accounts in, and Forgejo does not let"
    " it see whether this is one. Sign in again to see what to do.",
    NOT_LET_IN.reason: "This server does not let this account in any more. Sign in again as"
    " another account, or ask whoever runs this server.",
    ADMIN_NOT_LET_IN.reason: "This server lets no administrators of Forgejo in, and this account"
    " is one. Sign in again as another account, or ask whoever runs this server.",
}
"""By the reason that put an account to sleep, what is said of it to its clients."""

_R = TypeVar("_R", OAuthRefusal, McpRefusal)


def asleep(refusal: _R, reason: str | None) -> _R:
    """A refusal of a dead account, with the sentence for what put it to sleep, if one is known."""
    words = WHY_ASLEEP.get(reason or "")
    return refusal if words is None else refusal.saying(words)


# --- the door, in both tongues ------------------------------------------------------------

METHOD: Final = McpRefusal(
    "method", 405, -32600, "This method has no meaning here. POST messages to this address."
)
UNEXPECTED: Final = McpRefusal(
    "unexpected",
    500,
    -32603,
    "Something went wrong in this server. Tell whoever runs it, whose log describes it.",
)
FOREIGN_HOST_OAUTH: Final = OAuthRefusal(
    "host",
    "invalid_request",
    "This server does not answer for that Host. Use its public URL.",
    status=421,
)
FOREIGN_ORIGIN_OAUTH: Final = OAuthRefusal(
    "origin",
    "invalid_request",
    "Pages of this Origin may not read this server. Ask whoever runs it to allow the origin.",
    status=403,
)
TOO_LARGE_OAUTH: Final = OAuthRefusal(
    "too-large", "invalid_request", "The request is larger than this server takes.", status=413
)
NOT_FOUND_OAUTH: Final = OAuthRefusal(
    "not-found", "not_found", "There is nothing at this address.", status=404
)
METHOD_OAUTH: Final = OAuthRefusal(
    "method", "invalid_request", "This address does not answer to that method.", status=405
)
UNEXPECTED_OAUTH: Final = OAuthRefusal(
    "unexpected",
    "server_error",
    "Something went wrong in this server, which its log describes.",
    status=500,
)
QUERY_MALFORMED: Final = OAuthRefusal(
    "query-malformed", "invalid_request", "The query is not urlencoded UTF-8."
)
FORM_TYPE: Final = OAuthRefusal(
    "form-type",
    "invalid_request",
    "Send the parameters as Content-Type: application/x-www-form-urlencoded.",
)
FORM_MALFORMED: Final = OAuthRefusal(
    "form-malformed", "invalid_request", "The body is not a urlencoded form in UTF-8."
)
REGISTRATION_TYPE: Final = OAuthRefusal(
    "registration-type",
    "invalid_client_metadata",
    "Send the registration as Content-Type: application/json.",
)
REGISTRATION_NOT_JSON: Final = OAuthRefusal(
    "registration-not-json", "invalid_client_metadata", "The body is not valid JSON in UTF-8."
)
