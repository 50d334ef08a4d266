"""
A client that speaks MCP by hand.

The SDK's client hides what comes back; this one shows status, headers and the
message of each answer, and keeps a session or not as it is told.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, Final

import httpx2
from attrs import define, field, frozen

from fjmcp.demo.person import Person
from fjmcp.demo.walk import REDIRECT_URI, NotAsSaid, expect

REVISION: Final = "2025-11-25"
_BOTH: Final = "application/json, text/event-stream"


@frozen
class Reply:
    """What came back for one message."""

    status: int
    headers: httpx2.Headers
    message: dict[str, Any]
    """The JSON-RPC message; empty if there is none."""

    @property
    def result(self) -> dict[str, Any]:
        """:raises NotAsSaid: it is an error."""
        if "result" not in self.message:
            raise NotAsSaid(f"{self.status}: {json.dumps(self.message)}")
        result: dict[str, Any] = self.message["result"]
        return result

    @property
    def error(self) -> str:
        """:raises NotAsSaid: it is none."""
        if "error" not in self.message:
            raise NotAsSaid(f"{self.status}: {json.dumps(self.message)}")
        return str(self.message["error"]["message"])

    @property
    def text(self) -> str:
        """The text of a tool's result.  :raises NotAsSaid: it is an error."""
        parts = self.result.get("content", [])
        return "\n".join(part["text"] for part in parts if part.get("type") == "text")


@define(eq=False)
class Caller:
    """One client of one person: registered and signed in by `connect`."""

    public_url: str
    http: httpx2.AsyncClient
    tokens: dict[str, Any] = field(factory=dict, repr=False)
    session: str | None = None
    _client_id: str = ""
    _number: int = 0

    # --- tokens -----------------------------------------------------------------

    async def connect(self, user: str) -> None:
        """
        Register, and let a person of the stand-in sign in.

        :raises NotAsSaid: a step was refused.
        :raises fjmcp.demo.person.Lost: a page leads nowhere.
        """
        registered = await self.http.post(
            f"{self.public_url}/oauth/register",
            json={
                "client_name": "a caller",
                "redirect_uris": [REDIRECT_URI],
                "grant_types": ["authorization_code", "refresh_token"],
                "token_endpoint_auth_method": "none",
            },
        )
        expect(registered.status_code == 201, f"register: {registered.text}")
        self._client_id = registered.json()["client_id"]
        verifier = secrets.token_urlsafe(48)
        asked = httpx2.QueryParams(
            response_type="code",
            client_id=self._client_id,
            redirect_uri=REDIRECT_URI,
            state=secrets.token_urlsafe(8),
            code_challenge=urlsafe_b64encode(sha256(verifier.encode()).digest())
            .decode()
            .rstrip("="),
            code_challenge_method="S256",
        )
        async with Person(user, f"{user}-demo-password") as person:
            back = await person.sign_in(f"{self.public_url}/oauth/authorize?{asked}", REDIRECT_URI)
        expect("code" in back, f"no code came back: {back}")
        answer = await self.token(
            grant_type="authorization_code",
            code=back["code"],
            redirect_uri=REDIRECT_URI,
            code_verifier=verifier,
        )
        expect(answer.status_code == 200, f"token: {answer.status_code} {answer.text}")

    async def refresh(self) -> httpx2.Response:
        """Spend the refresh token; the next tokens are kept."""
        return await self.token(
            grant_type="refresh_token", refresh_token=self.tokens["refresh_token"]
        )

    async def revoke(self) -> None:
        """End the grant."""
        await self.http.post(
            f"{self.public_url}/oauth/revoke",
            data={"client_id": self._client_id, "token": self.tokens["access_token"]},
        )

    async def token(self, **form: str) -> httpx2.Response:
        """Ask the token endpoint; tokens that come are kept."""
        answer = await self.http.post(
            f"{self.public_url}/oauth/token", data={"client_id": self._client_id, **form}
        )
        if answer.status_code == 200:
            self.tokens = answer.json()
        return answer

    # --- MCP --------------------------------------------------------------------

    def again(self) -> Caller:
        """The same client with the same token, without a session."""
        return Caller(self.public_url, self.http, self.tokens, client_id=self._client_id)

    async def initialize(self) -> Reply:
        """Open a session, and go on in it."""
        self.session = None
        reply = await self.send(
            "initialize",
            {
                "protocolVersion": REVISION,
                "capabilities": {},
                "clientInfo": {"name": "a caller", "version": "1"},
            },
        )
        self.session = reply.headers.get("mcp-session-id")
        if self.session is not None:
            await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return reply

    async def call(self, tool: str, **arguments: object) -> Reply:
        """Call a tool."""
        return await self.send("tools/call", {"name": tool, "arguments": arguments})

    async def send(self, method: str, params: object = None) -> Reply:
        """A request, in the session if there is one."""
        message = self.request(method, params)
        response = await self._post(message)
        return Reply(response.status_code, response.headers, _message(response, message["id"]))

    def request(self, method: str, params: object = None) -> dict[str, Any]:
        """The message of a request with an id of its own."""
        self._number += 1
        return {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}}

    def headers(self, accept: str = _BOTH) -> dict[str, str]:
        """What each request carries."""
        headers = {"accept": accept, "authorization": f"Bearer {self.tokens['access_token']}"}
        if self.session is not None:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": REVISION}
        return headers

    async def _post(self, message: dict[str, Any]) -> httpx2.Response:
        return await self.http.post(f"{self.public_url}/mcp", json=message, headers=self.headers())


def _message(response: httpx2.Response, id: int) -> dict[str, Any]:
    """The answer to a request, in JSON or as the event with its id."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        found: dict[str, Any] = response.json() if response.content else {}
        return found
    for line in response.text.splitlines():
        if line.startswith("data: {"):
            found = json.loads(line.removeprefix("data: "))
            if found.get("id") == id:
                return found
    return {}
