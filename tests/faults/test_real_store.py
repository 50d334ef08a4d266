"""A store that is locked, full, or somebody else's already."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from fjmcp import limits
from fjmcp.demo.caller import Caller
from fjmcp.demo.processes import NotStarted, Process, Servers, free_port
from tests.faults.ground import Ground, until

PATIENCE = limits.STORE_BUSY + 4.0
"""Seconds in which everybody is answered: the wait for the lock, and a slow machine."""


@contextmanager
def locked(servers: Servers) -> Iterator[None]:
    """Another process in the middle of a transaction that writes."""
    path = servers.home / "fjmcp.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(broker: Process) -> Iterator[None]:
    """No file of the broker can be written past its first byte, as on a disk that is full."""
    before = resource.prlimit(broker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, before)


async def _through_it(caller: Caller) -> None:
    """What works and what does not while nothing can be written."""
    began = time.monotonic()
    assert (await caller.call("pid")).status == 200, "a known session"
    assert time.monotonic() - began < 2.0
    refused, fresh = await asyncio.gather(
        asyncio.gather(*(caller.refresh() for _ in range(2))),
        asyncio.gather(*(_fresh(caller) for _ in range(6))),
    )
    assert time.monotonic() - began < PATIENCE, "nobody waits for those before"
    for answer in refused:
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
        assert "its store" in answer.text, answer.text
    assert fresh == [200] * 6


async def _fresh(caller: Caller) -> int:
    """A session that is opened while nothing can be written."""
    fresh = caller.again()
    await fresh.initialize()
    return (await fresh.call("pid")).status


async def _after_it(caller: Caller) -> None:
    assert (await caller.call("pid")).status == 200
    assert (await caller.refresh()).status_code == 200, "the refresh token was not used up"
    assert (await caller.call("pid")).status == 200


def test_locked(ground: Ground) -> None:
    """
    A store that somebody has locked: calls go on, what must be written says 503,
    then works; a session of that time is written once it can be.
    """

    async def work(caller: Caller) -> None:
        fresh = caller.again()
        with locked(ground.servers):
            await fresh.initialize()
            await _through_it(caller)
        await _after_it(caller)
        await asyncio.sleep(limits.SESSION_KEEP)
        assert (await fresh.call("pid")).status == 200
        await asyncio.to_thread(ground.servers.restart, kill=True)
        assert (await fresh.call("pid")).status == 200

    ground.run(work)
    assert ground.said("session is not kept yet")


def test_full(ground: Ground) -> None:
    """A disk that is full, for the log as well: likewise, and the log goes on afterwards."""

    async def work(caller: Caller) -> None:
        with full(ground.broker):
            await _through_it(caller)
        await _after_it(caller)
        fresh = caller.again()
        await fresh.initialize()
        await fresh.call("pid")

    ground.run(work)
    assert until(lambda: bool(ground.said("grant ended"))), "the log is written again"


def test_second_daemon(ground: Ground) -> None:
    """A second daemon on the same store ends with 1 and says why; the first one goes on."""
    servers = ground.servers
    other = Servers(
        servers.child,
        servers.home / "second",
        forge_port=servers.forge_port,
        broker_port=free_port(),
        options={"FJMCP_STORE": str(servers.home / "fjmcp.sqlite3")},
    )

    async def work(caller: Caller) -> None:
        with pytest.raises(NotStarted):
            await asyncio.to_thread(other.start_broker)
        second = other.broker
        assert second is not None
        assert second.status == 1
        assert "in use by another fjmcp daemon" in second.tail()
        assert str(servers.home / "fjmcp.sqlite3") in second.tail()
        assert (await caller.call("pid")).status == 200

    ground.run(work)
