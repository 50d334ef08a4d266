"""
Every way to be refused, for two audiences.

`reason` is for the log and for tests: exact, and never shown outside.
The other fields are the wire form, which the protocol gives: an OAuth error
(RFC 6749 §5.2), or an HTTP status with a JSON-RPC error.
A refusal is a value.  The sentence says what is wrong and what to do.
"""

from __future__ import annotations

from typing import Final

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

PARSE_ERROR: Final = McpRefusal(
    "not-json", 400, -32700, "The body is not valid JSON in UTF-8. Send one JSON-RPC message."
)
INVALID_REQUEST: Final = McpRefusal(
    "not-jsonrpc", 400, -32600, "The body is not a JSON-RPC 2.0 request, notification or response."
)
BATCH: Final = McpRefusal(
    "batch", 400, -32600, "Batches are not part of this revision of MCP. Send one message a POST."
)
TOO_DEEP: Final = McpRefusal("too-deep", 400, -32600, "The message nests too deeply. Flatten it.")
TOO_LARGE: Final = McpRefusal(
    "too-large", 413, -32600, "The message is larger than this server takes. Send less at a time."
)
INVALID_PARAMS: Final = McpRefusal(
    "invalid-params", 400, -32602, "The parameters of this request are not as MCP defines them."
)
WRONG_CONTENT_TYPE: Final = McpRefusal(
    "content-type", 415, -32600, "Send the message as Content-Type: application/json."
)
NOT_ACCEPTABLE: Final = McpRefusal(
    "accept", 406, -32600, "Accept must allow application/json or text/event-stream."
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
    "origin", 403, -32600, "Pages of this Origin may not call this server."
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
    "other-accounts-session", 403, -32001, "This session belongs to somebody else."
)
SESSION_REQUIRED: Final = McpRefusal(
    "session-required", 400, -32600, "Mcp-Session-Id is missing. Open a session with initialize."
)
NO_STREAM: Final = McpRefusal(
    "no-stream", 405, -32600, "There is no stream without a session. POST messages here."
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
CHILDREN_FULL: Final = McpRefusal(
    "children-full",
    503,
    -32603,
    "This server is at its limit and every tool server is at work. Try again in a moment.",
    retry_after=5,
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

INVALID_REQUEST_OAUTH: Final = OAuthRefusal(
    "invalid-request", "invalid_request", "The request is malformed."
)
OAUTH_STORE_DOWN: Final = OAuthRefusal(
    "store-down",
    "temporarily_unavailable",
    "This server cannot read its store just now. Nothing is lost; try again in a minute.",
    status=503,
    retry_after=5,
)
