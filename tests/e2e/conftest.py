"""
The real parts of the end-to-end tests: children, the stand-in Forgejo, the broker.

gitea-mcp must be had; forgejo-mcp is tested as well where it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fjmcp.demo import child as children
from fjmcp.demo.child import NoChild, RealChild
from fjmcp.demo.processes import Servers

CHILD_HOME = Path(__file__).parents[2] / ".child"


def _say(words: str) -> None:
    print(words, flush=True)


def real_children() -> list[RealChild]:
    """Every real child that this machine can have; gitea-mcp is always among them."""
    found = [children.find(children.GITEA_MCP, CHILD_HOME, _say)]
    try:
        found.insert(0, children.find(children.FORGEJO_MCP, CHILD_HOME, _say))
    except NoChild:
        pass
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `each_child` runs once for each of them."""
    if "each_child" in metafunc.fixturenames:
        known = real_children()
        metafunc.parametrize("each_child", known, ids=[child.kind for child in known])


@pytest.fixture(scope="session")
def child() -> RealChild:
    """The quickest real child that there is."""
    return real_children()[0]


Start = Callable[..., Servers]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a stand-in Forgejo and a broker, which end with the test."""
    begun: list[Servers] = []

    def begin(child: RealChild, *, forge: bool = True, **more: object) -> Servers:
        servers = Servers(child, tmp_path / str(len(begun)), **more)  # type: ignore[arg-type]
        begun.append(servers)
        if forge:
            servers.start_forge()
        servers.start_broker()
        return servers

    yield begin
    for servers in begun:
        servers.stop()
