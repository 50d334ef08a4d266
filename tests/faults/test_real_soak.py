"""A session for each call, in small: `make soak` is the same a thousand times."""

from __future__ import annotations

import asyncio
from pathlib import Path

from attrs import evolve

from fjmcp.demo.processes import Servers
from fjmcp.demo.soak import GROWTH, Look, leaks, soak
from tests.e2e.conftest import real_children

CALLS = 60


def test_session_for_each_call(tmp_path: Path) -> None:
    """Sixty sessions and never a DELETE: one real child, and nothing that grows."""
    servers = Servers(real_children()[0], tmp_path)
    try:
        servers.start_forge()
        servers.start_broker()
        assert asyncio.run(soak(servers, CALLS, print)) == []
    finally:
        servers.stop()


def test_leaks_are_seen() -> None:
    """Whatever grows is named."""
    before = Look(1, 20, 4, 100 * GROWTH, 10 * GROWTH)
    assert leaks(before, before, 1) == []
    assert leaks(before, evolve(before, memory=before.memory + GROWTH), 1) == []
    for grown, word in (
        (evolve(before, children=2), "children live"),
        (evolve(before, descriptors=21), "descriptors"),
        (evolve(before, threads=5), "threads"),
        (evolve(before, memory=before.memory + GROWTH + 1), "the broker grew"),
        (evolve(before, children_memory=12 * GROWTH), "the children grew"),
    ):
        (found,) = leaks(before, grown, 1)
        assert word in found
