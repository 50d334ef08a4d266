"""A Forgejo that is away, slow, broken, or does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import pytest

from fjmcp import limits
from fjmcp.demo.caller import Caller
from fjmcp.demo.walk import NotAsSaid
from fjmcp.refusals import CREDENTIAL_TROUBLED
from tests.faults.ground import Ground

ACCESS_SECONDS = 6
"""Life of Forgejo's tokens here: each fault meets tokens that end, as a minute does an hour's."""

LEAD = 3
OPTIONS = {"FJMCP_TOKEN_REFRESH_INTERVAL": "1", "FJMCP_TOKEN_REFRESH_LEAD": str(LEAD)}

TOKEN = "/login/oauth/access_token"


def _pause(began: float, until: float) -> Awaitable[None]:
    """Wait until so many seconds after the beginning."""
    return asyncio.sleep(max(0.0, began + until - time.monotonic()))


async def _calls(caller: Caller, until: float) -> None:
    """Call now and then; each call must be answered."""
    while time.monotonic() < until:
        assert (await caller.call("pid")).status == 200
        await asyncio.sleep(0.3)


def test_away_then_502(ground: Ground) -> None:
    """
    A Forgejo that is away past the end of its token, and comes back with a 502.

    Calls go on while the token lives, then each is told to come again; nobody
    is signed out, and it works again by itself.
    """

    async def work(caller: Caller) -> None:
        session, began = caller.session, time.monotonic()
        ground.servers.tell_forge("trouble", kind="status", status=502)
        ground.servers.tell_forge("trouble", kind="refuse", seconds=ACCESS_SECONDS - 1.0)
        await _calls(caller, began + ACCESS_SECONDS - 1.5)
        await _pause(began, ACCESS_SECONDS + 0.5)
        refused = await caller.call("pid")
        assert (refused.status, refused.error) == (503, CREDENTIAL_TROUBLED.message)
        assert 0 < int(refused.headers["retry-after"]) <= limits.REFRESH_RETRY
        ground.servers.tell_forge("trouble")
        end = time.monotonic() + limits.REFRESH_RETRY + 5
        while (await caller.call("pid")).status != 200:
            assert time.monotonic() < end, "it did not heal"
            await asyncio.sleep(0.5)
        assert caller.session == session

    ground.run(work)
    _nobody_lost(ground)


def test_slow(ground: Ground) -> None:
    """A Forgejo that takes its time delays nobody for longer than that."""

    async def work(caller: Caller) -> None:
        ground.servers.tell_forge("trouble", kind="slow", path=TOKEN, seconds=1.5)
        await _calls(caller, time.monotonic() + ACCESS_SECONDS - 1.0)

    ground.run(work)
    assert ground.said("credential refreshed")
    _nobody_lost(ground)


def test_hanging(ground: Ground) -> None:
    """A Forgejo that does not answer: a call waits, and is answered when Forgejo is."""

    async def work(caller: Caller) -> None:
        began = time.monotonic()
        ground.servers.tell_forge("trouble", kind="hang")
        await _pause(began, ACCESS_SECONDS - LEAD + 0.3)
        waiting = asyncio.ensure_future(caller.call("pid"))
        await _pause(began, ACCESS_SECONDS + 1.0)
        assert not waiting.done()
        ground.servers.tell_forge("trouble")
        assert (await waiting).status == 200

    ground.run(work)
    _nobody_lost(ground)


def _nobody_lost(ground: Ground) -> None:
    assert not ground.said("credential is dead")
    assert not ground.said("session ended")


@pytest.mark.parametrize("kind", ["status", "drop"])
def test_sign_in(ground: Ground, kind: str) -> None:
    """Somebody who signs in meanwhile is told so in words, and may try again."""

    async def work(caller: Caller) -> None:
        other = Caller(caller.public_url, caller.http)
        ground.servers.tell_forge("trouble", kind=kind, path=TOKEN, status=502)
        with pytest.raises(NotAsSaid, match=r"temporarily_unavailable.*Forgejo.*again"):
            await other.connect("bob")
        ground.servers.tell_forge("trouble")
        await other.connect("bob")
        assert (await other.initialize()).status == 200
        await other.revoke()

    ground.run(work)


def test_revoked_at_forgejo(ground: Ground) -> None:
    """
    A person who takes the right away at Forgejo is signed out, clearly; after a new
    sign-in the other clients go on, in their sessions.
    """

    async def work(caller: Caller) -> None:
        session = caller.session
        ground.servers.tell_forge("revoke", login="alice")
        end = time.monotonic() + 25
        while (reply := await caller.call("pid")).status == 200 and time.monotonic() < end:
            await asyncio.sleep(0.5)
        assert reply.status == 401
        assert "invalid_token" in reply.headers["www-authenticate"]
        denied = await caller.refresh()
        assert (denied.status_code, denied.json()["error"]) == (400, "invalid_grant")
        assert not ground.children
        other = Caller(caller.public_url, caller.http)
        await other.connect("alice")
        assert (await caller.refresh()).status_code == 200
        assert (await caller.call("pid")).status == 200
        assert caller.session == session
        await other.revoke()

    ground.run(work)
