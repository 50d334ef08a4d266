"""A daemon that is killed between Forgejo's answer to a sign-in and the account's row."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import Any

import httpx2

from fjmcp import limits
from fjmcp.demo.caller import Caller
from tests.faults.ground import Ground, until

ACCESS_SECONDS = 4
OPTIONS = {"FJMCP_TOKEN_REFRESH_INTERVAL": "1", "FJMCP_TOKEN_REFRESH_LEAD": "2"}

TOKEN = "/login/oauth/access_token"
INTROSPECT = "/login/oauth/introspect"


async def _killed_in_a_sign_in(ground: Ground, caller: Caller, kind: str, path: str) -> Caller:
    """The same person signs in through another client, and at this point the daemon is killed."""
    other = Caller(caller.public_url, caller.http)
    ground.servers.tell_forge("trouble", kind=kind, path=path)
    signing = asyncio.ensure_future(other.connect("alice"))
    end = time.monotonic() + 10
    while (await _trouble(ground, caller))["held"] == 0:
        assert time.monotonic() < end, "nobody asks Forgejo"
        await asyncio.sleep(0.05)
    with closing(sqlite3.connect(_store(ground), isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        if path == TOKEN:
            # Forgejo has acted; its answer comes, and finds no way into the store.
            ground.servers.tell_forge("trouble")
            await asyncio.sleep(0.7)
        ground.broker.kill()
        lock.execute("ROLLBACK")
    assert isinstance(await asyncio.gather(signing, return_exceptions=True), list)
    assert isinstance(signing.exception(), httpx2.TransportError)
    ground.servers.tell_forge("trouble")
    return other


async def _trouble(ground: Ground, caller: Caller) -> dict[str, Any]:
    answer = await caller.http.get(f"{ground.servers.forge_url}/_demo/trouble")
    found: dict[str, Any] = answer.json()
    return found


def _store(ground: Ground) -> str:
    return str(ground.servers.home / "fjmcp.sqlite3")


def test_killed_before_the_pair_is_stored(ground: Ground) -> None:
    """
    Forgejo's answer was there and is lost, and with it the refresh token that it replaced.

    Calls go on while the old token lives; then one sign-in, through another client, and all go on.
    """

    async def work(caller: Caller) -> None:
        session = caller.session
        other = await _killed_in_a_sign_in(ground, caller, "slow", TOKEN)
        await asyncio.to_thread(ground.servers.start_broker)
        end = time.monotonic() + ACCESS_SECONDS + limits.REFRESH_SETTLE + 5
        while (reply := await caller.call("pid")).status == 200:
            assert time.monotonic() < end, "the lost pair was not missed"
            await asyncio.sleep(0.3)
        assert reply.status == 401
        denied = await caller.refresh()
        assert (denied.status_code, denied.json()["error"]) == (400, "invalid_grant")
        await other.connect("alice")
        before = len(ground.said("credential refreshed"))
        while len(ground.said("credential refreshed")) == before:
            assert (await caller.call("pid")).status == 200, "once is enough"
            await asyncio.sleep(0.3)
        assert (await caller.refresh()).status_code == 200
        assert caller.session == session
        await other.revoke()

    ground.run(work)
    assert len(ground.said("credential is dead")) == 1


def test_killed_before_the_account_has_the_pair(ground: Ground) -> None:
    """Forgejo's answer was stored: the next start finishes it, and nobody is asked anything."""

    async def work(caller: Caller) -> None:
        await _killed_in_a_sign_in(ground, caller, "hang", INTROSPECT)
        await asyncio.to_thread(ground.servers.start_broker)
        recovered = "pair of an unfinished sign-in recovered"
        assert await asyncio.to_thread(until, lambda: bool(ground.said(recovered)))
        while not ground.said("credential refreshed"):
            assert (await caller.call("pid")).status == 200
            await asyncio.sleep(0.3)
        assert (await caller.refresh()).status_code == 200

    ground.run(work)
    assert [line["used"] for line in ground.said("pair of an unfinished")] == [True]
    assert not ground.said("credential is dead")
