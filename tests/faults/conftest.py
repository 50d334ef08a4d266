"""
A broker in its own process whose child does what a test asks, and a stand-in Forgejo.

Each file has one pair of them for all of its tests; none of them may leave
anything behind, which is looked at after each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fjmcp.demo.child import RealChild
from fjmcp.demo.processes import Servers
from tests.faults.ground import Ground, able_child


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Servers]:
    """Both servers, with what the test's file calls `OPTIONS` and `ACCESS_SECONDS`."""
    home = tmp_path_factory.mktemp("faults")
    servers = Servers(
        RealChild("other", able_child(home), "it does what a test asks"),
        home,
        access_seconds=getattr(request.module, "ACCESS_SECONDS", 3600),
        options=getattr(request.module, "OPTIONS", {}),
    )
    try:
        servers.start_forge()
        servers.start_broker()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def ground(servers: Servers, tmp_path: Path) -> Iterator[Ground]:
    """The servers for one test, which must leave the broker up and nothing behind."""
    ground = Ground(servers)
    yield ground
    servers.tell_forge("trouble")
    ground.judge()
