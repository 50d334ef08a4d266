"""A session outlives its child, its token, the daemon, and the next version of either."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from fjmcp import refusals
from fjmcp.demo.caller import Caller
from tests.faults.ground import Ground, able_child, running, until

OPTIONS = {
    "FJMCP_SESSION_IDLE_TIMEOUT": "1",
    "FJMCP_SESSION_REAP_INTERVAL": "1",
    "FJMCP_TOKEN_REFRESH_INTERVAL": "1",
    "FJMCP_TOKEN_REFRESH_LEAD": "2",
}


async def _pid(caller: Caller) -> int:
    return int((await caller.call("pid")).text)


def test_reap(ground: Ground) -> None:
    """A child that nobody asks goes after its second; the same id gets another."""

    async def work(caller: Caller) -> None:
        before = await _pid(caller)
        assert await asyncio.to_thread(until, lambda: not running(before))
        assert await _pid(caller) != before

    ground.run(work)
    assert "idle" in [line["reason"] for line in ground.said("child ended")]


def test_crash(ground: Ground) -> None:
    """A child that is killed costs nothing: the same id gets another at its next call."""

    async def work(caller: Caller) -> None:
        before = await _pid(caller)
        os.kill(before, signal.SIGSEGV)
        assert await asyncio.to_thread(until, lambda: not running(before))
        assert await _pid(caller) != before

    ground.run(work)


def test_crash_in_mid_call(ground: Ground) -> None:
    """Each call in flight is told that its outcome is unknown; none is made again."""

    async def work(caller: Caller) -> None:
        waiting = [asyncio.ensure_future(caller.call("wait", seconds=30)) for _ in range(3)]
        await asyncio.sleep(0.3)
        crashed = await caller.call("crash")
        for reply in [crashed, *await asyncio.gather(*waiting)]:
            assert reply.error == refusals.CHILD_CRASHED.message
        assert "unknown" in crashed.error
        await _pid(caller)

    ground.run(work)
    assert len(ground.said("child started")) == 2


def test_rotation(ground: Ground) -> None:
    """Tokens of Forgejo that live four seconds: children change, the session does not."""
    ground.servers.tell_forge("settings", access_token_seconds=4)

    async def work(caller: Caller) -> set[int]:
        pids = set()
        for _ in range(24):
            pids.add(await _pid(caller))
            await asyncio.sleep(0.2)
        return pids

    try:
        assert len(ground.run(work)) >= 2
    finally:
        ground.servers.tell_forge("settings", access_token_seconds=3600)
    assert "replaced" in [line["reason"] for line in ground.said("child ended")]


@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_restart(ground: Ground, kill: bool) -> None:
    """The daemon ends, in order or not, and comes back: the same id and token go on."""

    async def work(caller: Caller) -> None:
        other = caller.again()
        await other.initialize()
        await other.call("pid")
        before = await _pid(caller)
        await asyncio.to_thread(ground.servers.restart, kill=kill)
        assert not running(before)
        assert await _pid(caller) == await _pid(other)
        assert (await caller.refresh()).status_code == 200
        await _pid(caller)

    ground.run(work)


def test_killed_in_mid_call(ground: Ground) -> None:
    """A daemon that is killed in a call: the connection ends, nothing else; the id goes on."""

    async def work(caller: Caller) -> None:
        before = await _pid(caller)
        waiting = asyncio.ensure_future(caller.call("wait", seconds=30))
        await asyncio.sleep(0.3)
        ground.broker.kill()
        with pytest.raises(httpx2.TransportError):
            await waiting
        assert await asyncio.to_thread(until, lambda: not running(before))
        await asyncio.to_thread(ground.servers.start_broker)
        await _pid(caller)

    ground.run(work)


def test_stopped_in_mid_call(ground: Ground) -> None:
    """A daemon that is stopped in a call lets it end first."""

    async def work(caller: Caller) -> None:
        waiting = asyncio.ensure_future(caller.call("wait", seconds=1))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(ground.servers.restart)
        assert (await waiting).text == "waited 1.0 s"
        await _pid(caller)

    ground.run(work)


@asynccontextmanager
async def _listening(caller: Caller) -> AsyncIterator[list[str]]:
    """The session's GET stream, and the methods that come on it."""
    heard: list[str] = []

    async def listen() -> None:
        url = f"{caller.public_url}/mcp"
        async with caller.http.stream("GET", url, headers=caller.headers()) as stream:
            async for line in stream.aiter_lines():
                heard.append(line)

    listening = asyncio.ensure_future(listen())
    try:
        yield heard
    finally:
        listening.cancel()


def test_upgrade_of_the_child(ground: Ground) -> None:
    """Another build serves the same id, and its client is told to list the tools again."""
    home = ground.servers.home

    async def work(caller: Caller) -> None:
        before = await _pid(caller)
        async with _listening(caller) as heard:
            able_child(home, "2")
            os.kill(before, signal.SIGKILL)
            assert await asyncio.to_thread(until, lambda: not running(before))
            await _pid(caller)
            changed = '"notifications/tools/list_changed"'
            assert await asyncio.to_thread(until, lambda: changed in "".join(heard))

    try:
        ground.run(work)
    finally:
        able_child(home)


def test_child_that_can_do_less(ground: Ground) -> None:
    """A build that lacks what the client was told of ends the session: 404, then a new one."""
    home = ground.servers.home

    async def work(caller: Caller) -> dict[str, Any]:
        before = await _pid(caller)
        able_child(home, "3", "poor")
        os.kill(before, signal.SIGKILL)
        assert await asyncio.to_thread(until, lambda: not running(before))
        reply = await caller.call("pid")
        assert (reply.status, reply.error) == (404, refusals.UNKNOWN_SESSION.message)
        opened = await caller.initialize()
        await _pid(caller)
        return opened.result

    try:
        assert ground.run(work)["serverInfo"]["version"] == "3"
    finally:
        able_child(home)
