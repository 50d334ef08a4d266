"""
The main job, end to end: what `make demo` shows, and what can go wrong on the way.

Real processes throughout: a real child, the broker under twistd, the official
SDK as client.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from attrs import evolve
from mcp import Client

from fjmcp.demo.__main__ import PASSWORD, USER, Teller, walk
from fjmcp.demo.child import RealChild
from fjmcp.demo.person import Person
from fjmcp.demo.processes import Servers
from fjmcp.demo.walk import Assistant, said
from tests.e2e.conftest import Start


def _assistant(servers: Servers, user: str = USER, name: str = "test") -> Assistant:
    person = Person(user, f"{user}-demo-password")
    return Assistant(f"{servers.public_url}/mcp", person, print, name)


def _pids(servers: Servers) -> list[int]:
    assert servers.broker is not None
    return [event["pid"] for event in servers.broker.events("child started")]


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def _until(fact: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if fact():
            return True
        time.sleep(0.05)
    return fact()


def _in_session(
    servers: Servers, work: Callable[[Client, Assistant], Awaitable[None]], user: str = USER
) -> None:
    async def run() -> None:
        assistant = _assistant(servers, user)
        async with assistant.session() as session:
            await work(session, assistant)

    asyncio.run(run())


def test_the_whole_way(each_child: RealChild, start: Start) -> None:
    """From the 401 to the revoked token, every step is as the demo says."""
    asyncio.run(walk(start(each_child), Teller()))


def test_two_clients_of_one_person_outlive_their_forgejo_tokens(
    child: RealChild, start: Start
) -> None:
    """
    Two clients of one person work on past the end of their Forgejo tokens.

    Forgejo's second sign-in kills the first one's refresh token; both must go
    on in their sessions all the same, several token lives long.
    """
    servers = start(child, access_seconds=12, options={"FJMCP_TOKEN_REFRESH_LEAD": "6"})
    assert servers.broker is not None

    async def run() -> None:
        one, two = _assistant(servers, name="one"), _assistant(servers, name="two")
        tool = child.lists_repositories
        async with one.session() as first, two.session() as second:
            end = time.monotonic() + 27
            while time.monotonic() < end:
                for session in (first, second):
                    assert "diary" in said(await session.call_tool(tool, {}))
                await asyncio.sleep(0.3)

    asyncio.run(run())
    refreshed = servers.broker.events("credential refreshed")
    assert len(refreshed) >= 2, "the tokens lived longer than the test"
    assert not servers.broker.events("credential is dead")
    assert not servers.broker.events("session ended")
    whys = [event["cause"] for event in servers.broker.events("child started")]
    assert whys.count("first") == 2, "one child for each grant"
    assert whys.count("successor") >= 2, "new credentials get new children"
    assert _until(lambda: sum(_running(pid) for pid in _pids(servers)) <= 2)


def test_a_person_sees_only_their_own(child: RealChild, start: Start) -> None:
    """Two people at one broker reach their own private repositories and no other's."""
    servers = start(child)
    tool = child.lists_repositories

    async def alice(session: Client, _: Assistant) -> None:
        listed = said(await session.call_tool(tool, {}))
        assert "diary" in listed
        assert "ledger" not in listed

    async def bob(session: Client, _: Assistant) -> None:
        listed = said(await session.call_tool(tool, {}))
        assert "ledger" in listed
        assert "diary" not in listed

    _in_session(servers, alice, "alice")
    _in_session(servers, bob, "bob")
    assert len(set(_pids(servers))) == 2


def test_refusal_at_our_page_reaches_the_client(child: RealChild, start: Start) -> None:
    """A person who refuses sends the client `access_denied`, and no child starts."""
    servers = start(child)
    person = Person(USER, PASSWORD, allows=lambda page: False)
    assistant = Assistant(f"{servers.public_url}/mcp", person, print)

    async def run() -> None:
        async with assistant.session():
            pass

    with pytest.raises(BaseExceptionGroup) as refused:
        asyncio.run(run())
    assert "access_denied" in repr(refused.value.exceptions)
    assert _pids(servers) == []


def test_a_killed_child_is_replaced_in_the_same_session(child: RealChild, start: Start) -> None:
    """A child killed with -9 costs the session nothing: its next call gets another child."""
    servers = start(child)
    tool = child.lists_repositories

    async def work(session: Client, _: Assistant) -> None:
        await session.call_tool(tool, {})
        (pid,) = _pids(servers)
        os.kill(pid, signal.SIGKILL)
        broker = servers.broker
        assert broker is not None
        assert _until(lambda: bool(broker.events("child ended")))
        assert "garden" in said(await session.call_tool(tool, {}))
        assert len(set(_pids(servers))) == 2

    _in_session(servers, work)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_child_survives_the_daemon(child: RealChild, start: Start, how: signal.Signals) -> None:
    """However the daemon ends, its children end too."""
    servers = start(child)
    broker = servers.broker
    assert broker is not None

    async def work(session: Client, _: Assistant) -> None:
        await session.list_tools()
        (pid,) = _pids(servers)
        assert _running(pid)
        os.kill(broker.pid, how)
        assert _until(lambda: not broker.alive(), 30)
        assert _until(lambda: not _running(pid))

    with pytest.raises((BaseExceptionGroup, httpx2.HTTPError)):
        _in_session(servers, _then_fail(work))


def _then_fail(
    work: Callable[[Client, Assistant], Awaitable[None]],
) -> Callable[[Client, Assistant], Awaitable[None]]:
    async def both(session: Client, assistant: Assistant) -> None:
        await work(session, assistant)
        raise httpx2.ConnectError("the daemon is gone, as it should be")

    return both


def test_the_childs_environment_holds_what_it_needs_and_no_more(
    each_child: RealChild, start: Start
) -> None:
    """A child's environment is built from nothing: no secret of the daemon is in it."""
    servers = start(each_child)

    async def work(session: Client, _: Assistant) -> None:
        await session.list_tools()
        (pid,) = _pids(servers)
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {pair.partition(b"=")[0].decode() for pair in pairs if pair}
        allowed = {"PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LC_CTYPE"}
        ours = {name for name in names if name.startswith(("FORGEJO_", "GITEA_", "FASTMCP_"))}
        assert names - ours <= allowed
        assert b"/proc" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert os.getpgid(pid) != os.getpgid(servers.broker.pid if servers.broker else 0)

    _in_session(servers, work)


def test_a_forge_that_is_away_refuses_clearly_and_heals(child: RealChild, start: Start) -> None:
    """The daemon starts without Forgejo, and works once Forgejo is there."""
    servers = start(child, forge=False)
    assert servers.broker is not None
    assert _until(lambda: bool(servers.broker and servers.broker.events("Forgejo does not answer")))
    servers.start_forge()

    async def work(session: Client, _: Assistant) -> None:
        assert "garden" in said(await session.call_tool(child.lists_repositories, {}))

    _in_session(servers, work)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 1", "ended while it started"),
        ("exec sleep 1000", "did not start in time"),
        ("echo '<html>'; exec cat >/dev/null", "ended while it started"),
    ],
)
def test_a_child_that_does_not_start(
    child: RealChild, start: Start, tmp_path: Path, script: str, message: str
) -> None:
    """A child that does not start gets the client a clear error, and leaves nothing."""
    program = tmp_path / "broken-child"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    broken = evolve(child, kind="other", path=program)
    servers = start(broken)

    async def run() -> None:
        assistant = _assistant(servers)
        async with assistant.session():
            pass

    with pytest.raises(BaseExceptionGroup) as refused:
        asyncio.run(run())
    assert message in _all_words(refused.value)
    assert servers.broker is not None
    assert servers.broker.alive()
    assert _until(lambda: not any(_running(e["pid"]) for e in _failed_starts(servers) if e["pid"]))


def _failed_starts(servers: Servers) -> list[dict[str, int]]:
    assert servers.broker is not None
    return servers.broker.events("child did not start")


def _all_words(failed: BaseException) -> str:
    if isinstance(failed, BaseExceptionGroup):
        return " ".join(_all_words(each) for each in failed.exceptions)
    return str(failed)


def test_no_secret_reaches_the_log(child: RealChild, start: Start) -> None:
    """Neither our tokens nor Forgejo's stand in the broker's log, at debug level either."""
    servers = start(child, options={"FJMCP_DEBUG": "true"})
    secrets: list[str] = []

    async def work(session: Client, assistant: Assistant) -> None:
        await session.call_tool(child.lists_repositories, {})
        (pid,) = _pids(servers)
        for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = pair.partition(b"=")
            if name.endswith(b"TOKEN"):
                secrets.append(value.decode())
        tokens, info = assistant.memory.tokens, assistant.memory.info
        assert tokens is not None and info is not None
        secrets.extend([tokens.access_token, str(tokens.refresh_token), str(info.client_secret)])

    _in_session(servers, work)
    assert servers.broker is not None
    text = servers.broker.log.read_text()
    assert len(secrets) == 4
    assert [secret for secret in secrets if secret in text] == []
