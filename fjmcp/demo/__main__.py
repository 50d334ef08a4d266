"""
`make demo`: the whole way, with a real child, for everybody to see.

    python -m fjmcp.demo            walk, then serve until Ctrl-C
    python -m fjmcp.demo --once     walk, then end
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

import httpx2

from fjmcp.demo import child as children
from fjmcp.demo.child import NoChild
from fjmcp.demo.person import Lost, Person
from fjmcp.demo.processes import NotStarted, Servers
from fjmcp.demo.walk import Assistant, NotAsSaid, expect, said

USER: Final = "alice"
PASSWORD: Final = "alice-demo-password"
"""The stand-in's person; nothing here is a secret of anybody."""

HOME: Final = Path(".demo")
CHILD_HOME: Final = Path(".child")


class Teller:
    """Numbers the steps and prints each with its result."""

    def __init__(self) -> None:
        self._number = 0
        self._began = time.monotonic()

    def say(self, words: str) -> None:
        """A step that went as it must."""
        self._number += 1
        print(f"{time.monotonic() - self._began:6.1f} s  {self._number:2}. {words}", flush=True)

    def aside(self, words: str) -> None:
        """A word in between."""
        print(f"               {words}", flush=True)


async def walk(servers: Servers, teller: Teller) -> None:
    """
    From the pasted URL to the revoked token.

    :raises NotAsSaid: at the first step that is not as said.
    """
    assert servers.broker is not None
    say = teller.say
    url = f"{servers.public_url}/mcp"
    assistant = Assistant(url, Person(USER, PASSWORD, tell=say), say)
    async with assistant.session() as session:
        info = session.server_info
        expect(info is not None, "the server does not say what it is")
        assert info is not None
        say(f"initialize: {info.name} {info.version}, MCP {session.protocol_version}")
        tools = (await session.list_tools()).tools
        wanted = servers.child.lists_repositories
        expect(any(tool.name == wanted for tool in tools), f"no tool {wanted} among {len(tools)}")
        say(f"tools/list: {len(tools)} tools, {wanted} among them")
        repositories = said(await session.call_tool(wanted, {}))
        expect("garden" in repositories, f"{wanted} did not list alice's garden: {repositories}")
        expect("diary" in repositories, f"{wanted} did not list her private diary")
        expect("ledger" not in repositories, f"{wanted} listed bob's private ledger")
        say(f"tools/call {wanted}: {USER}'s repositories, garden and the private diary")
        again = said(await session.call_tool(wanted, {}))
        expect("garden" in again, "the second call gave something else")
        started = servers.broker.events("child started")
        expect(len(started) == 1, f"{len(started)} children were started for one session")
        say(f"a second call in the same session: the same child, pid {started[0]['pid']}")
        await assistant.refresh()
        expect("garden" in said(await session.call_tool(wanted, {})), "a call after the refresh")
        expect(len(servers.broker.events("child started")) == 1, "the refresh cost a child")
        say("refresh: the tokens rotated, the session and its child go on")
        await assistant.revoke()
        say("revoke: the grant is ended")
        await _refused(url, assistant, say)
        ended = servers.broker.events("child ended")
        expect(len(ended) == 1, "the child outlived its grant")
        say(f"its child is gone, pid {ended[0]['pid']}")


async def _refused(url: str, assistant: Assistant, say: object) -> None:
    async with httpx2.AsyncClient() as plain:
        answer = await plain.post(
            url,
            headers={**assistant.bearer(), "Accept": "application/json, text/event-stream"},
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        )
    expect(answer.status_code == 401, f"after the revocation: {answer.status_code}")
    expect("invalid_token" in answer.headers["www-authenticate"], "the 401 names no invalid_token")
    assert callable(say)
    say("the revoked token: 401 invalid_token")


def main(arguments: list[str]) -> int:
    """Run the demo; the exit code."""
    options = _options(arguments)
    teller = Teller()
    try:
        child = children.find(options.child, CHILD_HOME, teller.aside)
    except NoChild as refused:
        print(f"No real child: {refused}", file=sys.stderr)
        return 1
    teller.say(f"real child: {child.kind} at {child.path}, since {child.why}")
    shutil.rmtree(HOME, ignore_errors=True)
    servers = Servers(child, HOME)
    # A demo that is ended by a signal must leave nothing running either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        forge = servers.start_forge()
        teller.say(f"stand-in Forgejo: {servers.forge_url}, pid {forge.pid}")
        broker = servers.start_broker()
        teller.say(f"broker: twistd fjmcp at {servers.public_url}, pid {broker.pid}")
        asyncio.run(walk(servers, teller))
        print("All as it should be.", flush=True)
        if not options.once:
            _serve(servers)
    except (NotStarted, NotAsSaid, Lost, httpx2.HTTPError, ExceptionGroup) as failed:
        print(f"\nNot as it should be: {_innermost(failed)}", file=sys.stderr)
        for process in (servers.broker, servers.forge):
            if process is not None:
                print(f"\nThe last of {process.log}:\n{process.tail()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEnding.", flush=True)
    finally:
        servers.stop()
    return 0


def _serve(servers: Servers) -> None:
    print(
        f"\nPaste this URL into an assistant on this machine:\n\n    {servers.public_url}/mcp\n\n"
        f"and sign in as alice ({PASSWORD}) or bob (bob-demo-password).\n"
        f"Logs are in {HOME}/.  Ctrl-C ends it all.",
        flush=True,
    )
    signal.pause()


def _innermost(failed: BaseException) -> BaseException:
    """The first failure inside the groups that task groups make."""
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo",
        description="The whole way from a pasted URL to a revoked token, with a real child.",
        epilog="example: make demo ARGS='--once --child gitea-mcp'",
    )
    parser.add_argument("--once", action="store_true", help="end after the walk")
    parser.add_argument(
        "--child",
        metavar="CHILD",
        help="forgejo-mcp, gitea-mcp, or the path of either (default: the first that can be had)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
