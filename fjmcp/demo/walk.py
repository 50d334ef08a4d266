"""
What Claude does with the URL that a person pastes, step by step.

The client is the official Python SDK: discovery, registration, authorization
and the session are its own doing; this module watches what it does, plays the
person's browser, and says of each step whether it is as it should be.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from attrs import define, field
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from mcp.types import CallToolResult, Implementation, TextContent

from fjmcp.demo.person import Person

REDIRECT_URI: Final = "http://127.0.0.1:53682/callback"
"""Nothing listens there: the browser stops at it and hands its parameters over."""


class NotAsSaid(Exception):
    """A step went another way than it must.  The text says how."""


def expect(fact: bool, words: str) -> None:
    """Go on if `fact`; else the walk ends here.  :raises NotAsSaid:"""
    if not fact:
        raise NotAsSaid(words)


@define(eq=False)
class Memory:
    """What a client keeps: its registration and its tokens."""

    tokens: OAuthToken | None = None
    info: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens kept."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The registration kept."""
        return self.info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep a registration."""
        self.info = client_info


@define(eq=False)
class Assistant:
    """One assistant of one person, at one MCP URL."""

    url: str
    person: Person
    say: Callable[[str], None]
    name: str = "fjmcp demo"
    document: str | None = None
    """The URL of its metadata document, if it has one: then it does not register."""
    memory: Memory = field(factory=Memory)
    http: httpx2.AsyncClient = field(init=False)
    auth: OAuthClientProvider = field(init=False)
    _back: dict[str, str] = field(factory=dict, init=False)
    _metadata: dict[str, Any] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.auth = OAuthClientProvider(
            server_url=self.url,
            client_metadata=OAuthClientMetadata.model_validate(
                {
                    "client_name": self.name,
                    "redirect_uris": [REDIRECT_URI],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "token_endpoint_auth_method": "client_secret_post",
                }
            ),
            storage=self.memory,
            client_metadata_url=self.document,
            redirect_handler=self._authorize,
            callback_handler=self._callback,
        )
        self.http = httpx2.AsyncClient(
            auth=self.auth, timeout=60, event_hooks={"response": [self._watch]}
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Client]:
        """Its one session with the server; signs in when the server asks for it."""
        client = Client(
            # Ending the session is no step of the walk: after the revocation the SDK would
            # sign in again, only to end it.
            streamable_http_client(self.url, http_client=self.http, terminate_on_close=False),
            client_info=Implementation(name="fjmcp-demo", version="1"),
        )
        async with self.person, self.http, client as session:
            yield session

    async def refresh(self) -> None:
        """Spend the refresh token, as a client does before its access token ends."""
        before = self._tokens()
        answer = await self._post(
            "token_endpoint",
            {"grant_type": "refresh_token", "refresh_token": str(before.refresh_token)},
        )
        expect(answer.status_code == 200, f"refresh: {answer.status_code} {answer.text}")
        after = OAuthToken.model_validate_json(answer.content)
        expect(after.access_token != before.access_token, "refresh gave the same access token")
        expect(after.refresh_token != before.refresh_token, "the refresh token did not rotate")
        await self.memory.set_tokens(after)
        self.auth.context.current_tokens = after
        self.auth.context.update_token_expiry(after)

    async def revoke(self) -> None:
        """End the grant, as a person does who removes the connector."""
        answer = await self._post("revocation_endpoint", {"token": self._tokens().access_token})
        expect(answer.status_code == 200, f"revoke: {answer.status_code} {answer.text}")

    def bearer(self) -> dict[str, str]:
        """The header that this assistant's access token makes."""
        return {"Authorization": f"Bearer {self._tokens().access_token}"}

    async def _post(self, endpoint: str, form: dict[str, str]) -> httpx2.Response:
        data, headers = self.auth.context.prepare_token_auth({**form}, {})
        async with httpx2.AsyncClient(timeout=30) as plain:
            return await plain.post(self._metadata[endpoint], data=data, headers=headers)

    def _tokens(self) -> OAuthToken:
        expect(self.memory.tokens is not None, "the client has no tokens")
        assert self.memory.tokens is not None
        return self.memory.tokens

    # --- what the SDK does, watched -----------------------------------------------

    async def _authorize(self, url: str) -> None:
        sent = httpx2.URL(url).params
        expect(sent.get("code_challenge_method") == "S256", "the client sent no S256 challenge")
        self.say(f"authorize: PKCE S256, resource {sent.get('resource')}")
        self._back = await self.person.sign_in(url, REDIRECT_URI)
        expect("code" in self._back, f"no code came back: {self._back}")
        self.say(f"callback: a code, and iss {self._back.get('iss')}")

    async def _callback(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(
            code=self._back["code"], state=self._back.get("state"), iss=self._back.get("iss")
        )

    async def _watch(self, response: httpx2.Response) -> None:
        path, status = response.request.url.path, response.status_code
        if path == httpx2.URL(self.url).path:
            if status == 401 and not self._metadata:
                challenge = response.headers.get("www-authenticate", "")
                expect("resource_metadata=" in challenge, f"a 401 without a way on: {challenge!r}")
                self.say("no token: 401, which names the protected-resource metadata")
            return
        await response.aread()
        if "oauth-protected-resource" in path:
            expect(status == 200, f"{path}: {status}")
            self.say(f"protected-resource metadata: {json.loads(response.content)['resource']}")
        elif "oauth-authorization-server" in path:
            expect(status == 200, f"{path}: {status}")
            self._metadata = json.loads(response.content)
            self.say(f"authorization-server metadata: {self._metadata['issuer']}")
        elif response.request.url == self._metadata.get("registration_endpoint"):
            expect(status == 201, f"registration: {status} {response.text}")
            self.say(f"registered: client {json.loads(response.content)['client_id']}")
        elif response.request.url == self._metadata.get("token_endpoint"):
            expect(status == 200, f"token: {status} {response.text}")
            seconds = json.loads(response.content)["expires_in"]
            self.say(f"token: an access token for {seconds} s, and a refresh token")


def said(result: CallToolResult) -> str:
    """The text of a tool's result."""
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))
