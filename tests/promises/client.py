"""A client of a whole broker that speaks MCP, and children that answer it."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from fjmcp.testing.children import FakeChild, polite
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import App, WholeBroker

LATEST = "2025-11-25"
TOOLS = {"tools": [{"name": "list_my_repos", "inputSchema": {"type": "object"}}]}

Message = dict[str, Any]


def able(child: FakeChild, message: Message) -> None:
    """Answer what a client asks in a day; a call of the tool `wait` is left to the test."""
    polite(child, message)
    match message.get("method"):
        case "tools/list":
            child.answer(message["id"], TOOLS)
        case "tools/call" if message["params"]["name"] != "wait":
            text = f"child {child.number} with {child.env['FORGEJO_ACCESS_TOKEN'][-8:]}"
            child.answer(message["id"], {"content": [{"type": "text", "text": text}]})


@define(eq=False)
class Client:
    """One client with a token, and the session that it keeps."""

    broker: WholeBroker
    app: App
    tokens: dict[str, Any] = field(repr=False)
    session: str | None = None
    _number: int = 0

    @classmethod
    def of(cls, broker: WholeBroker, login: str = "alice", app: App | None = None) -> Client:
        """Somebody's, registered anew unless it is a client that is there."""
        app = app or broker.register()
        return cls(broker, app, app.tokens(login))

    def again(self) -> Client:
        """The same client with the same token and no session, as claude.ai comes each time."""
        return Client(self.broker, self.app, self.tokens)

    def send(self, method: str, params: object = None, **headers: str) -> Visit:
        """A request, in the session if there is one."""
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}}
        return self._post(message, **headers)

    def initialize(self) -> Visit:
        """Open a session, and keep its id."""
        params = {
            "protocolVersion": LATEST,
            "capabilities": {},
            "clientInfo": {"name": "a client", "version": "1"},
        }
        visit = self.send("initialize", params)
        self.session = visit.header("mcp-session-id")
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return visit

    def call(self, name: str = "list_my_repos") -> Visit:
        """Call a tool."""
        return self.send("tools/call", {"name": name, "arguments": {}})

    def text(self) -> str:
        """What the tool says: which child it was, and with which token."""
        visit = self.call()
        if visit.status != 200:
            raise AssertionError(f"{visit.status}: {visit.body!r}")
        return str(visit.json()["result"]["content"][0]["text"])

    def delete(self) -> Visit:
        """End the session."""
        return self.broker.visitor().send("DELETE", "/mcp", headers=self._headers())

    def _post(self, message: Message, **headers: str) -> Visit:
        visit = self.broker.visitor().post_json("/mcp", message, **self._headers() | headers)
        self.broker.settle()
        return visit

    def _headers(self) -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.tokens['access_token']}"}
        if self.session is not None:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": LATEST}
        return headers
