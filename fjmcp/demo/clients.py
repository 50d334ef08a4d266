"""
Clients that people have, each on its own way from the pasted URL to a tool call.

None is given a token: discovery, registration, PKCE and the tokens are their
own doing, and a scripted browser signs in where they open one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from fjmcp.demo import opener, toolbox
from fjmcp.demo.person import Person
from fjmcp.demo.processes import Servers, free_port
from fjmcp.demo.toolbox import Toolbox
from fjmcp.demo.walk import Assistant, NotAsSaid, expect, said

NODE_PACKAGES: Final = (toolbox.SDK, toolbox.CLIENT, toolbox.REMOTE, toolbox.INSPECTOR)

_SECONDS: Final = 90.0
_SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "sdk-client.mjs"


@frozen
class Seen:
    """What a client came to."""

    tools: frozenset[str]
    text: str = field(repr=False)
    """What the tool call printed."""


@frozen
class Place:
    """Where a client works: which servers, which programs, which home folder."""

    servers: Servers
    box: Toolbox
    home: Path
    """A folder of its own; what it keeps between its runs is here."""
    browser: Path
    """What it calls to open a URL."""

    @property
    def url(self) -> str:
        """What is pasted into the client."""
        return f"{self.servers.public_url}/mcp"

    @property
    def tool(self) -> str:
        """The tool that is called."""
        return self.servers.child.lists_repositories

    def environment(self, **more: str) -> dict[str, str]:
        """A client's environment: nothing of a desktop, so that BROWSER is what opens."""
        path = f"{self.box.node_bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"PATH": path, "HOME": str(self.home), "BROWSER": str(self.browser), **more}

    def run(self, command: list[str], **more: str) -> str:
        """
        Run a client to its end.

        :return: what it printed.
        :raises NotAsSaid: it failed, or took too long.
        """
        try:
            done = subprocess.run(
                command,
                cwd=self.home,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as slow:
            raise NotAsSaid(f"no end after {_SECONDS:.0f} s: {slow.stderr!r}") from slow
        expect(done.returncode == 0, f"ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout


DOCUMENT: Final = "https://claude.ai/oauth/claude-code-client-metadata"
"""A metadata document with loopback redirect URIs: what a client is that names itself by it."""


def python_sdk(place: Place, document: str | None = None) -> Seen:
    """The official Python SDK, in this process."""

    async def run() -> Seen:
        assistant = Assistant(
            place.url,
            Person(opener.USER, opener.PASSWORD),
            lambda words: None,
            document=document,
        )
        async with assistant.session() as session:
            tools = (await session.list_tools()).tools
            text = said(await session.call_tool(place.tool, {}))
            info = assistant.memory.info
            client_id = info and info.client_id
            expect(document in (None, client_id), f"it registered: {client_id}")
            return Seen(frozenset(tool.name for tool in tools), text)

    return asyncio.run(run())


def typescript_sdk(place: Place, package: str, era: str, document: str = "") -> Seen:
    """The official TypeScript SDK, of either major version."""
    name = package[: package.rfind("@")]
    # A module finds its packages beside itself.
    script = str(shutil.copy(_SCRIPT, place.box.home))
    command = [place.box.node, script, name, era, place.url, place.tool, document]
    printed = json.loads(place.run(command))
    expect(printed["session"], "the client was given no session id")
    expect(printed["refreshable"], "the client was given no refresh token")
    expect(not document or printed["client"] == document, f"it registered: {printed['client']}")
    return Seen(frozenset(printed["tools"]), _text(printed["result"]))


def mcp_remote(place: Place) -> Seen:
    """mcp-remote, as a stdio server of the Python SDK's client."""
    remote = StdioServerParameters(
        command=place.box.node,
        args=[place.box.script(toolbox.REMOTE, "dist/proxy.js"), place.url],
        env=place.environment(),
        cwd=place.home,
    )

    async def run() -> Seen:
        with (place.home / "mcp-remote.log").open("w") as log:
            async with (
                asyncio.timeout(_SECONDS),
                Client(stdio_client(remote, errlog=log)) as session,
            ):
                tools = (await session.list_tools()).tools
                text = said(await session.call_tool(place.tool, {}))
                return Seen(frozenset(tool.name for tool in tools), text)

    return asyncio.run(run())


def inspector(place: Place, era: str) -> Seen:
    """The Inspector's command line: it signs in, calls, and in a second run lists."""
    command = [
        *(place.box.node, place.box.script(toolbox.INSPECTOR, "clients/launcher/build/index.js")),
        *("--cli", place.url, "--transport", "http", "--protocol-era", era, "--format", "json"),
    ]
    kept = {"MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "file"}
    callback = f"http://127.0.0.1:{free_port()}/oauth/callback"
    called = place.run(
        [*command, "--callback-url", callback, "--method", "tools/call", "--tool-name", place.tool],
        **kept,
    )
    listed = place.run([*command, "--stored-auth-only", "--method", "tools/list"], **kept)
    tools = json.loads(listed)["result"]["tools"]
    return Seen(frozenset(tool["name"] for tool in tools), _text(json.loads(called)["result"]))


def _text(result: dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")


CLIENTS: Final[dict[str, Callable[[Place], Seen]]] = {
    "Python SDK": python_sdk,
    "Python SDK with a metadata document": lambda place: python_sdk(place, DOCUMENT),
    toolbox.SDK: lambda place: typescript_sdk(place, toolbox.SDK, "legacy"),
    toolbox.CLIENT: lambda place: typescript_sdk(place, toolbox.CLIENT, "legacy"),
    f"{toolbox.CLIENT} with era auto": lambda place: typescript_sdk(place, toolbox.CLIENT, "auto"),
    f"{toolbox.CLIENT} with a metadata document": lambda place: typescript_sdk(
        place, toolbox.CLIENT, "legacy", DOCUMENT
    ),
    toolbox.REMOTE: mcp_remote,
    f"{toolbox.INSPECTOR} --cli": lambda place: inspector(place, "legacy"),
    f"{toolbox.INSPECTOR} --cli with era auto": lambda place: inspector(place, "auto"),
}


def walk(name: str, place: Place) -> str:
    """
    One client's whole way.

    :return: what it came to, in a line.
    :raises NotAsSaid: it came to something else.
    """
    began = time.monotonic()
    before = _sign_ins(place.servers)
    seen = CLIENTS[name](place)
    expect(place.tool in seen.tools, f"no tool {place.tool} among {len(seen.tools)}")
    expect("garden" in seen.text and "diary" in seen.text, "not all repositories were listed")
    expect("ledger" not in seen.text, "another person's repository was listed")
    after = _sign_ins(place.servers)
    expect(after - before == 1, f"{after - before} sign-ins, not one")
    seconds = time.monotonic() - began
    return f"one sign-in, {len(seen.tools)} tools, {place.tool} called, {seconds:.1f} s"


def _sign_ins(servers: Servers) -> int:
    assert servers.broker is not None
    return len(servers.broker.events("signed in"))
