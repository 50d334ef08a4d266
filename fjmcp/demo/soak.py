"""
`make soak`: what claude.ai does, a thousand times.

    python -m fjmcp.demo.soak [--calls 1000] [--child CHILD]

A session for each call, and never a DELETE: initialize, one call, gone.  First
one client, then two of the same person by turns, each request on a connection
of its own.  A real child and a real broker.  Nothing may be left of it but the
sessions that are kept on purpose: exit 1 if children, descriptors, threads or
memory grow.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httpx2
from attrs import field, frozen

from fjmcp import limits
from fjmcp.demo import child as children
from fjmcp.demo.caller import Caller
from fjmcp.demo.child import NoChild
from fjmcp.demo.person import Lost
from fjmcp.demo.processes import NotStarted, Servers
from fjmcp.demo.walk import NotAsSaid, expect

CALLS: Final = 1000

GROWTH: Final = 4 * 1024 * 1024
"""Bytes by which the broker, or a child, may grow after the warm-up: what the
allocator does not give back, and pages of SQLite's cache (2 MiB at most)."""

_SETTLE: Final = 5.0
_USER: Final = "alice"
_HOME: Final = Path(".demo/soak")
_CHILD_HOME: Final = Path(".child")


@frozen
class Look:
    """What a process and its children hold at one moment.  Memory in bytes."""

    children: int
    descriptors: int
    threads: int
    memory: int
    children_memory: int
    seconds: float = field(factory=time.monotonic)

    @classmethod
    def at(cls, pid: int) -> Look:
        """Look at a process."""
        born = born_of(pid)
        return cls(
            len(born),
            len(os.listdir(f"/proc/{pid}/fd")),
            _status(pid, "Threads"),
            _status(pid, "VmRSS") * 1024,
            sum(_status(each, "VmRSS") * 1024 for each in born),
        )


def born_of(pid: int) -> list[int]:
    """The processes that this one started and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if words[1] == str(pid) and words[0] not in "ZX":
                found.append(int(entry.name))
    return found


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def leaks(before: Look, after: Look, wanted: int, grown: int = GROWTH) -> list[str]:
    """What grew that must not, in words."""
    found = []
    if after.children != wanted:
        found.append(f"{after.children} children live, not {wanted}")
    if after.descriptors > before.descriptors:
        found.append(f"descriptors went from {before.descriptors} to {after.descriptors}")
    if after.threads > before.threads:
        found.append(f"threads went from {before.threads} to {after.threads}")
    for whose, first, last, most in (
        ("the broker", before.memory, after.memory, grown),
        ("the children", before.children_memory, after.children_memory, grown * wanted),
    ):
        if last - first > most:
            found.append(f"{whose} grew by {(last - first) / 2**20:.1f} MiB")
    return found


async def soak(servers: Servers, calls: int, say: Callable[[str], None]) -> list[str]:
    """
    The whole of it, against servers that run; what leaked, in words.

    :raises NotAsSaid: a call was not answered as it must be.
    """
    found: list[str] = []
    # No connection is kept: each that is left open is a leak of ours.
    kept = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(timeout=60, limits=kept) as http:
        callers = [Caller(servers.public_url, http) for _ in range(2)]
        say("one client, a session for each call")
        await callers[0].connect(_USER)
        found += await _round(servers, callers[:1], calls, say)
        say("two clients of one person by turns, a session for each call")
        await callers[1].connect(_USER)
        found += await _round(servers, callers, calls // 4, say)
    return found


async def _round(
    servers: Servers, callers: Sequence[Caller], calls: int, say: Callable[[str], None]
) -> list[str]:
    assert servers.broker is not None
    pid = servers.broker.pid
    # Kept sessions are no leak: the count of them must have come to its end.
    warm_up = max(10, min(limits.SESSIONS_PER_CONNECTION + 50, calls // 2))
    before = None
    most = 0
    say(f"    {'calls':>6}  children  descriptors  threads     broker   children  calls/s")
    last = Look.at(pid)
    done = 0
    for number in range(1, calls + 1):
        for caller in callers:
            await _one(caller, servers.child.lists_repositories)
            done += 1
        most = max(most, len(born_of(pid)))
        if number in (warm_up, calls) or number % max(calls // 5, 1) == 0:
            look = await _settled(pid, before)
            say(_row(number * len(callers), look, done / (look.seconds - last.seconds)))
            last, done = look, 0
            if number == warm_up:
                before = look
    assert before is not None
    found = leaks(before, last, len(callers))
    if most != len(callers):
        found.append(f"there were {most} children at one time, not {len(callers)}")
    # The second sign-in gave the account another credential, and its child a successor.
    causes = [event["cause"] for event in servers.broker.events("child started")]
    if causes.count("first") != len(callers) or causes.count("more"):
        found.append(f"children were started as {', '.join(causes)}")
    return found


async def _one(caller: Caller, tool: str) -> None:
    fresh = caller.again()
    opened = await fresh.initialize()
    expect(opened.status == 200 and fresh.session is not None, f"initialize: {opened.status}")
    expect("diary" in (await fresh.call(tool)).text, "the call did not list the diary")


async def _settled(pid: int, before: Look | None) -> Look:
    """A look, once the connections of the last call are gone."""
    end = time.monotonic() + _SETTLE
    while True:
        await asyncio.sleep(0.1)
        look = Look.at(pid)
        if before is None or look.descriptors <= before.descriptors or time.monotonic() > end:
            return look


def _row(calls: int, look: Look, rate: float) -> str:
    return (
        f"    {calls:6}  {look.children:8}  {look.descriptors:11}  {look.threads:7}"
        f"  {look.memory / 2**20:5.1f} MiB  {look.children_memory / 2**20:5.1f} MiB  {rate:7.1f}"
    )


def main(arguments: list[str]) -> int:
    """Make the two servers, soak them, and judge."""
    parser = argparse.ArgumentParser(
        prog="make soak", description="A session for each call, a thousand times."
    )
    parser.add_argument("--calls", type=int, default=CALLS, help="of the first client")
    parser.add_argument("--child", metavar="CHILD", help="forgejo-mcp, gitea-mcp, or a path")
    options = parser.parse_args(arguments)
    if options.calls < 40:
        parser.error("--calls below 40 measure nothing")
    say = _say
    try:
        child = children.find(options.child, _CHILD_HOME, say)
    except NoChild as refused:
        print(f"No real child: {refused}", file=sys.stderr)
        return 1
    shutil.rmtree(_HOME, ignore_errors=True)
    servers = Servers(child, _HOME)
    try:
        servers.start_forge()
        servers.start_broker()
        say(f"{child.kind} behind {servers.public_url}; logs are in {_HOME}/")
        found = asyncio.run(soak(servers, options.calls, say))
    except (NotStarted, NotAsSaid, Lost, httpx2.HTTPError) as failed:
        found = [str(failed)]
    except KeyboardInterrupt:
        found = ["stopped before its end"]
    finally:
        servers.stop()
    for words in found:
        print(f"LEAK: {words}", file=sys.stderr)
    say("leaked" if found else f"nothing leaked (memory within {GROWTH // 2**20} MiB)")
    return 1 if found else 0


def _say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
