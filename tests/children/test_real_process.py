"""Children as real processes, through the real launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from fjmcp import limits
from fjmcp.children.launch import Launcher, confinement
from fjmcp.children.process import Child, End
from fjmcp.children.profiles import Command, command_for, recipe_for

P = ParamSpec("P")

HERE = Path(__file__).parent
TOKEN = "secret-0123456789abcdef"
SMALL = (sys.executable, "-S", "-E", str(HERE / "small_child.py"))


def deferred(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Deferred[None]]:
    """A test written as a coroutine, for trial and pytest alike."""

    @wraps(test)
    def run(*args: P.args, **keywords: P.kwargs) -> Deferred[None]:
        return Deferred.fromCoroutine(test(*args, **keywords))

    return run


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except (FileNotFoundError, ProcessLookupError):
        return False


def program(pid: int) -> Path | None:
    """What a process executes; None if it is gone."""
    try:
        return Path(f"/proc/{pid}/exe").resolve()
    except FileNotFoundError:
        return None


@define
class Ear:
    """Hears a child, and wakes who waits for its lines."""

    lines: list[bytes] = field(factory=list)
    lost: int = 0
    ends: list[End] = field(factory=list)
    waits: list[Deferred[bytes]] = field(factory=list)

    def heard(self, line: bytes) -> None:
        self.lines.append(line)
        if self.waits:
            self.waits.pop(0).callback(line)

    def missed(self) -> None:
        self.lost += 1

    def ended(self, end: End) -> None:
        self.ends.append(end)


def command(*words: str) -> Command:
    """A command with the token in its environment."""
    return command_for(
        recipe_for(words, {"TOKEN": "{token}"}),
        url="http://forge.invalid",
        token=TOKEN,
        user_agent="fjmcp/0",
        inherited={"PATH": os.environ["PATH"], "FJMCP_KEYS": "must not be seen"},
    )


class RealChildCase(TestCase):
    """A real child, which no test leaves behind."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.ear = Ear()
        self.child: Child | None = None
        self.addCleanup(self.leave_nothing)

    @deferred
    async def leave_nothing(self) -> None:
        if self.child is not None:
            await self.child.kill()
            if self.child.pid is not None:
                self.assertFalse(alive(self.child.pid))

    def start(self, *words: str) -> Child:
        """The small child in a mode."""
        return self.run_command(*SMALL, *words)

    def run_command(self, *words: str) -> Child:
        launcher = Launcher(self.reactor, confinement())
        self.child = Child(launcher, command(*words), self.ear, self.reactor)
        self.child.start()
        return self.child

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is true; the test's own limit ends what never is."""
        while not true():
            await deferLater(self.reactor, 0.01, lambda: None)

    async def ask(self, method: str = "ping", **params: object) -> Any:
        """Ask the child and wait for its next line."""
        assert self.child is not None
        answer: Deferred[bytes] = Deferred()
        self.ear.waits.append(answer)
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self.assertTrue(self.child.send(json.dumps(message).encode()))
        return json.loads(await answer)


class ApartTests(RealChildCase):
    """A child is a process apart."""

    @deferred
    async def test_environment_from_nothing(self) -> None:
        """Its environment holds what we gave it and nothing else."""
        child = self.start("normal")
        await self.ask()
        environ = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
        self.assertEqual(
            sorted(environ),
            sorted(
                [
                    b"",
                    b"HOME=/nonexistent",
                    b"PATH=" + os.environ["PATH"].encode(),
                    b"TOKEN=" + TOKEN.encode(),
                ]
            ),
        )

    @deferred
    async def test_own_session_and_group(self) -> None:
        """It leads a session and a process group of its own: our pid is its pid."""
        child = self.start("normal")
        await self.ask()
        assert child.pid is not None
        self.assertEqual(os.getpgid(child.pid), child.pid)
        self.assertEqual(os.getsid(child.pid), child.pid)

    @deferred
    async def test_no_new_privileges(self) -> None:
        """No setuid program makes it more than it is."""
        child = self.start("normal")
        await self.ask()
        status = Path(f"/proc/{child.pid}/status").read_text()
        self.assertIn("NoNewPrivs:\t1", status)

    @deferred
    async def test_not_in_our_directory(self) -> None:
        """Its directory is not the daemon's, where store and keys may be."""
        child = self.start("normal")
        await self.ask()
        self.assertEqual(os.readlink(f"/proc/{child.pid}/cwd"), "/")

    @deferred
    async def test_three_descriptors(self) -> None:
        """It inherits its three pipes and no descriptor of ours."""
        with open(__file__) as held:
            os.set_inheritable(held.fileno(), True)
            child = self.start("normal")
            await self.ask()
            links = [
                os.readlink(f"/proc/{child.pid}/fd/{fd}")
                for fd in os.listdir(f"/proc/{child.pid}/fd")
            ]
        self.assertEqual(len(links), 3, links)
        self.assertTrue(all(link.startswith("pipe:") for link in links), links)

    def test_dies_with_us(self) -> None:
        """A daemon killed with -9 leaves no child, even one that ignores the end of stdin."""
        self.orphan(1, lambda pid: program(pid) == Path(sys.executable).resolve())

    def test_dies_with_us_while_it_starts(self) -> None:
        """Nor when the daemon dies before a child could ask for the signal of its death."""
        self.orphan(1)
        self.orphan(12)

    def orphan(self, count: int, ready: Callable[[int], bool] = lambda pid: True) -> None:
        """Start children that hang, kill their parent once they are ready, see them die."""
        parent = subprocess.Popen(
            [sys.executable, str(HERE / "lonely_parent.py"), str(count), *SMALL, "hang"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        )
        assert parent.stdout is not None
        with parent.stdout:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            self.assertEqual(len(pids), count)
            self.addCleanup(self.kill_all, pids)
            self.wait(lambda: all(map(ready, pids)))
            parent.kill()
            parent.wait()
        self.wait(lambda: not any(map(alive, pids)))

    def kill_all(self, pids: list[int]) -> None:
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)

    def wait(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not true():
            self.assertLess(time.monotonic(), end)
            threading.Event().wait(0.01)


class PipeTests(RealChildCase):
    """What a real child says."""

    @deferred
    async def test_conversation(self) -> None:
        """It is asked and answers."""
        self.start("normal")
        answer = await self.ask("initialize")
        self.assertEqual(answer["result"]["serverInfo"]["name"], "small")

    @deferred
    async def test_token_nowhere(self) -> None:
        """The child says its token on stdout and, in two writes, on stderr: neither shows it."""
        child = self.start("normal")
        with capturedLogs() as events:
            answer = await self.ask("tools/call", name="echo-token")
            await self.until(lambda: bool(child.last_words))
        self.assertEqual(answer["error"]["message"], "does not exist [sha: [blanked]]")
        self.assertEqual(child.last_words, ["told [blanked] here"])
        self.assertNotIn(TOKEN, repr(events))

    @deferred
    async def test_huge_line(self) -> None:
        """A line of 20 MiB comes whole."""
        self.start("normal")
        answer = await self.ask("tools/call", name="huge")
        self.assertEqual(len(answer["result"]["text"]), 20 * 1024 * 1024)

    @deferred
    async def test_line_over_the_limit(self) -> None:
        """A longer one than we take is lost, and the conversation goes on."""
        child = self.start("normal")
        child._lines.limit = 1024 * 1024
        child.send(b'{"id":1,"method":"tools/call","params":{"name":"huge"}}')
        await self.until(lambda: self.ear.lost == 1)
        self.assertEqual((await self.ask())["result"], {})

    @deferred
    async def test_binary_garbage(self) -> None:
        """Lines that are no text are lines; what follows them is heard."""
        self.start("normal")
        assert self.child is not None
        self.child.send(b'{"id":1,"method":"tools/call","params":{"name":"garbage"}}')
        await self.until(lambda: len(self.ear.lines) == 4)
        self.assertEqual(self.ear.lines[0], b"\x00\xff\xfe garbage \x80")
        self.assertIn(b"after", self.ear.lines[-1])

    @deferred
    async def test_flood_on_stderr(self) -> None:
        """A megabyte of stderr stalls nothing and does not fill the log."""
        self.start("flood")
        with capturedLogs() as events:
            self.assertEqual((await self.ask())["result"], {})
        said = [event for event in events if event["log_format"] == "child says"]
        self.assertLessEqual(len(said), limits.CHILD_STDERR_LINES)

    @deferred
    async def test_large_requests(self) -> None:
        """More than a pipe holds is written as fast as the child reads it."""
        self.start("normal")
        answer = await self.ask("tools/call", name="x" * (5 * 1024 * 1024))
        self.assertEqual(len(answer["result"]["text"]), 5 * 1024 * 1024)


class EndTests(RealChildCase):
    """How a real child ends."""

    async def ended(self, ended: Awaitable[End]) -> tuple[End, float]:
        before = time.monotonic()
        end = await ended
        return end, time.monotonic() - before

    @deferred
    async def test_exit_at_start(self) -> None:
        """Its exit code is known, and its last words."""
        child = self.start("exit-1")
        end, _ = await self.ended(child.ended())
        self.assertEqual((end.code, end.signal, end.missing), (1, None, False))
        self.assertEqual(child.last_words, ["FATAL connection test failed"])

    @deferred
    async def test_crash_in_a_call(self) -> None:
        """It ends in the middle of a call: the end is told within the second."""
        child = self.start("normal")
        child.send(b'{"id":1,"method":"tools/call","params":{"name":"crash"}}')
        end, seconds = await self.ended(child.ended())
        self.assertEqual(end.code, 7)
        self.assertLess(seconds, 5)

    @deferred
    async def test_program_is_missing(self) -> None:
        """A program that is not there is told from one that fails."""
        end = await self.run_command("/nonexistent/forgejo-mcp").ended()
        self.assertTrue(end.missing)
        assert self.child is not None
        self.assertIn("/nonexistent/forgejo-mcp", self.child.last_words[0])

    @deferred
    async def test_program_is_not_executable(self) -> None:
        """So is a file that cannot be executed."""
        end = await self.run_command(str(HERE / "__init__.py")).ended()
        self.assertTrue(end.missing)

    @deferred
    async def test_stop_by_eof_answers_first(self) -> None:
        """A call in flight at the end of stdin is still answered and heard."""
        child = self.start("normal")
        child.send(b'{"id":1,"method":"tools/call","params":{"name":"slow"}}')
        end = await child.stop()
        self.assertEqual((end.code, end.signal), (0, None))
        self.assertIn(b"slow", self.ear.lines[0])

    @deferred
    async def test_stubborn_child_is_killed(self) -> None:
        """One that ignores EOF and TERM is killed after the two waits."""
        child = self.start("stubborn")
        await self.ask()
        end, seconds = await self.ended(child.stop())
        self.assertEqual(end.signal, signal.SIGKILL)
        self.assertGreaterEqual(seconds, limits.CLOSE_WAIT + limits.TERM_WAIT - 0.1)

    @deferred
    async def test_hung_child_is_killed_at_once(self) -> None:
        """`kill` waits for nothing."""
        child = self.start("hang")
        end, seconds = await self.ended(child.kill())
        self.assertEqual(end.signal, signal.SIGKILL)
        self.assertLess(seconds, 2)

    @deferred
    async def test_kill_right_after_start(self) -> None:
        """Before it has a group of its own, a child can be killed all the same."""
        for _ in range(20):
            child = self.start("hang")
            end = await child.kill()
            self.assertEqual(end.signal, signal.SIGKILL)
            assert child.pid is not None
            self.assertFalse(alive(child.pid))

    def numbers(self) -> str:
        """A file of this test alone."""
        if not hasattr(self, "_directory"):
            self._directory = tempfile.TemporaryDirectory()
            self.addCleanup(self._directory.cleanup)
        return os.path.join(self._directory.name, "numbers")

    @deferred
    async def test_descendants_end_too(self) -> None:
        """What the child started is gone when it is, however it ended."""
        for how in ("stop", "kill"):
            child = self.start("descendants", self.numbers())
            await self.ask()
            descendant = int(Path(self.numbers()).read_text())
            self.assertTrue(alive(descendant))
            await (child.stop() if how == "stop" else child.kill())
            await self.until(lambda pid=descendant: not alive(pid))  # type: ignore[misc]

    @deferred
    async def test_no_descriptor_is_left(self) -> None:
        """A hundred children later we have as many descriptors as before."""
        await self.start("normal").kill()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            child = self.start("hang")
            await child.kill()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
