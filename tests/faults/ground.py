"""What the tests of faults do again and again."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from attrs import define, field

from fjmcp.demo.caller import Caller
from fjmcp.demo.processes import Process, Servers
from fjmcp.demo.soak import born_of

T = TypeVar("T")

_SOURCE: Final = Path(__file__).with_name("able_child.py")
BUGS: Final = ("Unhandled", "unexpected", "Traceback")


def able_child(home: Path, build: str = "1", *more: str) -> Path:
    """A program that runs `able_child.py` as this build, put in place of what was there."""
    program = home / "able-child"
    fresh = home / "able-child.new"
    words = " ".join([f"'{sys.executable}' -S '{_SOURCE}'", build, *more])
    fresh.write_text(f"#!/bin/sh\nexec {words}\n")
    fresh.chmod(0o755)
    fresh.replace(program)
    return program


def running(pid: int) -> bool:
    """Whether a process lives."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def until(fact: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something is so; whether it came to be."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if fact():
            return True
        time.sleep(0.05)
    return fact()


@define(eq=False)
class Ground:
    """The servers, and what the log had before the test."""

    servers: Servers
    expected: set[str] = field(factory=set)
    """Messages of the log with a traceback that the fault brings."""
    _before: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._before = len(self.lines())

    @property
    def broker(self) -> Process:
        """The broker that runs."""
        assert self.servers.broker is not None
        return self.servers.broker

    @property
    def children(self) -> list[int]:
        """The children that live."""
        return born_of(self.broker.pid)

    def lines(self) -> list[dict[str, Any]]:
        """The broker's log; what is no JSON is a bug."""
        text = self.broker.log.read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def said(self, message: str) -> list[dict[str, Any]]:
        """The events of this test with these words."""
        return [line for line in self.lines()[self._before :] if message in line["message"]]

    def run(self, work: Callable[[Caller], Awaitable[T]]) -> T:
        """Let a client that is signed in, with a session, do something."""

        async def go() -> T:
            async with httpx2.AsyncClient(timeout=40) as http:
                caller = Caller(self.servers.public_url, http)
                await caller.connect("alice")
                await caller.initialize()
                await caller.call("pid")
                result = await work(caller)
                if self.broker.alive():
                    await caller.revoke()
                return result

        return asyncio.run(go())

    def judge(self) -> None:
        """The broker is up, without a fault of ours in its log, and no child is left."""
        assert self.broker.alive(), self.broker.tail()
        assert until(lambda: not self.children), "children are left"
        pids = [line["pid"] for line in self.lines() if line["message"] == "child started"]
        assert not [pid for pid in pids if running(pid)], "a child outlived its broker"
        for line in self.lines()[self._before :]:
            assert "traceback" not in line or line["message"] in self.expected, line
        outside = self.broker.log.read_text(errors="replace").splitlines()
        assert not [text for text in outside if text and not text.startswith("{")]
