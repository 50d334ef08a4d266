"""The daemon as a service, apart from what runs in it."""

from __future__ import annotations

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon.logs import Threshold
from fjmcp.daemon.service import Daemon
from fjmcp.daemon.settings import Gathered
from fjmcp.daemon.systemd import Supervisor
from fjmcp.testing.reactor import FakeReactor
from tests.daemon.test_tap import SETTINGS


class Listener(Supervisor):
    """A supervisor that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("@nobody")
        self.said: list[str] = []

    def _say(self, *assignments: str) -> None:
        self.said.append(assignments[0])


class DaemonTests(SynchronousTestCase):
    """Reloads at odd moments."""

    def setUp(self) -> None:
        """A daemon that was not started."""
        self.read = 0
        self.supervisor = Listener()
        self.daemon = Daemon(
            SETTINGS,
            FakeReactor(),
            supervisor=self.supervisor,
            threshold=Threshold(),
            again=self.again,
        )

    def again(self) -> Gathered:
        """The configuration, which is as it was."""
        self.read += 1
        return Gathered(SETTINGS, (), ())

    def test_reload_before_ready(self) -> None:
        """A reload that comes while it starts waits until it is ready, without a word."""
        self.daemon.reload()
        self.daemon.reload()
        self.assertEqual((self.read, self.supervisor.said), (0, []))

    def test_reload_while_stopping(self) -> None:
        """A reload that comes while it stops does nothing, but for a line in the log."""
        self.successResultOf(self.daemon.stopService())
        with capturedLogs() as events:
            self.daemon.reload()
        self.assertEqual((self.read, self.supervisor.said), (0, ["STOPPING=1"]))
        self.assertEqual([event["log_format"] for event in events], ["not reloaded: stopping"])
