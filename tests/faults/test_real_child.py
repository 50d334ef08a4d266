"""Children that flood, hang, and will not go; clients that leave."""

from __future__ import annotations

import asyncio
import os
import time

import httpx2

from fjmcp import refusals
from fjmcp.demo.caller import Caller
from fjmcp.demo.soak import Look
from tests.faults.ground import Ground, running, until

OPTIONS = {"FJMCP_SESSION_IDLE_TIMEOUT": "2", "FJMCP_SESSION_REAP_INTERVAL": "1"}

FLOOD = 12 * 1024 * 1024
GROWTH = 6 * 1024 * 1024
"""What a flood may leave in memory: far less than it is."""


def test_flood_of_stdout(ground: Ground) -> None:
    """A child that writes no end of what is no message: its call is answered, memory is bounded."""
    _flood(ground, stderr=False)


def test_flood_of_stderr(ground: Ground) -> None:
    """A child that writes no end of stderr: likewise, and the log stays readable."""
    before = ground.broker.log.stat().st_size
    _flood(ground, stderr=True)
    assert ground.broker.log.stat().st_size - before < 200_000


def _flood(ground: Ground, *, stderr: bool) -> None:
    async def work(caller: Caller) -> None:
        await caller.call("flood", bytes=FLOOD // 8, stderr=stderr)
        before = Look.at(ground.broker.pid)
        other = Caller(caller.public_url, caller.http)
        await other.connect("bob")
        await other.initialize()
        flooded = asyncio.ensure_future(caller.call("flood", bytes=FLOOD, stderr=stderr))
        while not flooded.done():
            began = time.monotonic()
            assert (await other.call("pid")).status == 200
            assert time.monotonic() - began < 3.0, "others wait for it"
            await asyncio.sleep(0.05)
        assert (await flooded).text == "flooded"
        assert Look.at(ground.broker.pid).memory - before.memory < GROWTH
        await other.revoke()

    ground.run(work)


def test_stubborn_child_is_reaped(ground: Ground) -> None:
    """A child that ignores the end of its stdin and SIGTERM is killed when it is idle."""

    async def work(caller: Caller) -> None:
        pid = int((await caller.call("pid")).text)
        await caller.call("stubborn")
        assert await asyncio.to_thread(until, lambda: not running(pid), 15)
        assert (await caller.call("pid")).status == 200

    ground.run(work)
    assert next(line["signal"] for line in ground.said("child ended")) == 9


def test_stubborn_child_of_a_revoked_grant(ground: Ground) -> None:
    """One that hangs in a call as well is gone before the revocation is answered."""

    async def work(caller: Caller) -> int:
        pid = int((await caller.call("pid")).text)
        await caller.call("stubborn")
        waiting = asyncio.ensure_future(caller.call("forget"))
        await asyncio.sleep(0.3)
        await caller.revoke()
        assert not running(pid)
        assert (await waiting).error == refusals.GRANT_ENDED.message
        assert (await caller.call("pid")).status == 401
        return pid

    ground.run(work)


def test_stubborn_child_of_a_daemon_that_is_killed(ground: Ground) -> None:
    """Nor does it outlive a daemon that is killed."""

    async def work(caller: Caller) -> None:
        pid = int((await caller.call("pid")).text)
        await caller.call("stubborn")
        await asyncio.to_thread(ground.servers.restart, kill=True)
        assert await asyncio.to_thread(until, lambda: not running(pid))
        assert (await caller.call("pid")).status == 200

    ground.run(work)


def test_client_gone_in_mid_stream(ground: Ground) -> None:
    """Clients that leave in the middle of an answer cost nothing, and the calls go on."""

    async def work(caller: Caller) -> None:
        url = f"{caller.public_url}/mcp"
        before = len(os.listdir(f"/proc/{ground.broker.pid}/fd"))
        async with httpx2.AsyncClient(timeout=10) as leaving:
            for _ in range(20):
                body = caller.request("tools/call", {"name": "wait", "arguments": {"seconds": 1.5}})
                headers = caller.headers("text/event-stream")
                async with leaving.stream("POST", url, json=body, headers=headers) as stream:
                    assert stream.status_code == 200
                    async for _ in stream.aiter_bytes():
                        break
        assert len(ground.children) <= 2
        await asyncio.sleep(2.0)
        reply = await caller.call("pid")
        assert reply.status == 200
        assert await asyncio.to_thread(
            until, lambda: len(os.listdir(f"/proc/{ground.broker.pid}/fd")) <= before + 3
        )

    ground.run(work)
    assert not [line for line in ground.said("child ended") if line["reason"] == "crashed"]
