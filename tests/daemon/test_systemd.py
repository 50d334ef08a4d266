"""What a service says to systemd."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.children.profiles import command_for, recipe_for
from fjmcp.daemon.systemd import VARIABLES, Supervisor

PID = 4711


class SupervisorTests(SynchronousTestCase):
    """A socket that plays systemd's."""

    def setUp(self) -> None:
        """The socket, at a path short enough for one."""
        # trial's own folders are too deep: such a path has room for 107 bytes.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def listen(self, address: str) -> socket.socket:
        """A socket at this address that never waits."""
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(heard.close)
        heard.bind(address)
        heard.setblocking(False)
        return heard

    def test_path(self) -> None:
        """READY goes to a socket at a path, its status beside it."""
        heard = self.listen(str(self.folder / "n"))
        Supervisor(str(self.folder / "n")).ready("serving\nREADY=0")
        self.assertEqual(heard.recv(4096), b"READY=1\nSTATUS=serving READY=0")

    def test_abstract(self) -> None:
        """An @ stands for an abstract socket."""
        name = f"fjmcp-test-{id(self)}"
        heard = self.listen(f"\0{name}")
        Supervisor(f"@{name}").stopping()
        self.assertEqual(heard.recv(4096), b"STOPPING=1\nSTATUS=stopping")

    def test_reload(self) -> None:
        """RELOADING has the moment that Type=notify-reload asks for."""
        heard = self.listen(str(self.folder / "n"))
        Supervisor(str(self.folder / "n"), None, lambda: 123456789).reloading()
        self.assertEqual(heard.recv(4096), b"RELOADING=1\nMONOTONIC_USEC=123456789")

    def test_environment(self) -> None:
        """What systemd sets is taken out of the environment; the rest stays."""
        environ = dict.fromkeys(VARIABLES, "1") | {"WATCHDOG_PID": str(PID), "PATH": "/bin"}
        environ["NOTIFY_SOCKET"] = str(self.folder / "n")
        heard = self.listen(environ["NOTIFY_SOCKET"])
        supervisor = Supervisor.from_environment(environ, PID)
        self.assertEqual(environ, {"PATH": "/bin"})
        supervisor.status("hello")
        self.assertEqual(heard.recv(4096), b"STATUS=hello")

    def test_child(self) -> None:
        """None of it would reach a child, taken out or not."""
        environ = dict.fromkeys(VARIABLES, "1")
        recipe = recipe_for(["forgejo-mcp"])
        command = command_for(recipe, url="u", token="t", user_agent="a", inherited=environ)
        self.assertEqual(set(command.env) & set(VARIABLES), set())

    def test_watchdog_variables(self) -> None:
        """The watchdog is ours only with a period, and with our process number or none."""
        cases: dict[tuple[tuple[str, str], ...], float | None] = {
            (): None,
            (("WATCHDOG_USEC", "3000000"),): 3.0,
            (("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", str(PID))): 3.0,
            (("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")): None,
            (("WATCHDOG_USEC", "0"),): None,
            (("WATCHDOG_USEC", "soon"),): None,
        }
        for given, period in cases.items():
            supervisor = Supervisor.from_environment(dict(given), PID)
            self.assertEqual(supervisor.watchdog, period, given)

    def test_watchdog(self) -> None:
        """A sign of life comes at once and then twice in each period, until it is stopped."""
        heard = self.listen(str(self.folder / "n"))
        clock = Clock()
        supervisor = Supervisor(str(self.folder / "n"), 3.0)
        supervisor.watch(clock)
        supervisor.watch(clock)
        clock.pump([1.5, 1.5])
        for _ in range(3):
            self.assertEqual(heard.recv(4096), b"WATCHDOG=1")
        supervisor.unwatch()
        supervisor.unwatch()
        clock.advance(10)
        self.assertRaises(BlockingIOError, heard.recv, 4096)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_watchdog_goes_on(self) -> None:
        """One that fails, in whatever way, is in the log, and the next one comes."""
        heard = self.listen(str(self.folder / "n"))
        clock = Clock()
        failures = [OSError("no"), ValueError("a bug")]

        class Failing(Supervisor):
            def _say(self, *assignments: str) -> None:
                if failures:
                    raise failures.pop()
                super()._say(*assignments)

        supervisor = Failing(str(self.folder / "n"), 3.0)
        supervisor.watch(clock)
        clock.pump([1.5, 1.5])
        self.assertEqual(heard.recv(4096), b"WATCHDOG=1")
        self.assertEqual(len(self.flushLoggedErrors(OSError, ValueError)), 2)

    def test_nobody(self) -> None:
        """Without systemd, or with one that is gone, nothing happens but a line in the log."""
        for address in (None, str(self.folder / "gone"), "@fjmcp-gone"):
            Supervisor(address).ready("serving")
        clock = Clock()
        Supervisor().watch(clock)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_other_kinds(self) -> None:
        """A socket of a kind that we cannot speak to is none."""
        supervisor = Supervisor.from_environment({"NOTIFY_SOCKET": "vsock:2:99"}, PID)
        supervisor.ready("serving")
