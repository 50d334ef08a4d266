"""Tests for `fjmcp.children.launch`; what it does to real processes: `test_real_process`."""

from __future__ import annotations

import os
from signal import SIGKILL, SIGTERM

from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp.children.launch import Launcher, Spawned, ToolMissing, confinement
from fjmcp.children.profiles import command_for, recipe_for
from fjmcp.testing.reactor import FakeReactor


class ConfinementTests(SynchronousTestCase):
    """The programs that stand between us and a child."""

    def test_absolute_paths(self) -> None:
        """They are found once, so that a child's PATH has no say in it."""
        words = confinement(lambda tool: f"/found/{tool}")
        self.assertEqual(words[:2], ("/found/setsid", "/found/setpriv"))
        self.assertEqual(words[2:6], ("--pdeathsig", "KILL", "--no-new-privs", "--"))
        self.assertEqual(words[6:8], ("/found/sh", "-c"))

    def test_missing_tool_is_said(self) -> None:
        """Without one of them nothing is started, and the sentence says what to install."""
        for missing in ("sh", "setsid", "setpriv"):
            tools = {tool: f"/{tool}" for tool in ("sh", "setsid", "setpriv") if tool != missing}
            with self.assertRaises(ToolMissing) as caught:
                confinement(tools.get)
            self.assertIn(missing, str(caught.exception))
            self.assertIn("util-linux", str(caught.exception))


class LauncherTests(SynchronousTestCase):
    """The seam to a process."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()

    def launch(self, protocol: ProcessProtocol | None = None) -> Spawned:
        command = command_for(
            recipe_for(["/opt/forgejo-mcp"]), url="u", token="t0k", user_agent="a", inherited={}
        )
        launcher = Launcher(self.reactor, ("/bin/confine", "--"), self.reactor.killpg)
        return launcher.launch(protocol or ProcessProtocol(), command)

    def test_confined_with_explicit_environment(self) -> None:
        """The child's command comes behind the confinement, with its own environment."""
        self.launch()
        (child,) = self.reactor.children
        self.assertEqual(child.argv, ("/bin/confine", "--", str(os.getpid()), "/opt/forgejo-mcp"))
        self.assertEqual(child.env["FORGEJO_ACCESS_TOKEN"], "t0k")
        self.assertNotIn("t0k", repr(child.argv))

    def test_signals_the_group(self) -> None:
        """A signal goes to the group that bears the child's number."""
        sent: list[tuple[int, int]] = []
        spawned = Spawned(4711, self.launch()._transport, lambda *to: sent.append(to))
        spawned.signal_group(SIGTERM)
        self.assertEqual(sent, [(4711, SIGTERM)])

    def test_before_setsid(self) -> None:
        """Until the child has a group of its own, it alone gets the signal."""

        def no_group(pgid: int, signum: int) -> None:
            raise ProcessLookupError(pgid)

        spawned = self.launch()
        spawned._kill_group = no_group
        spawned.signal_group(SIGKILL)
        self.assertEqual(self.reactor.children[0].signals, [SIGKILL])

    def test_never_our_own_group(self) -> None:
        """Without a number nobody is signalled: 0 would be ourselves, 1 and below everybody."""
        sent: list[tuple[int, int]] = []
        for pid in (None, 0, 1, -1):
            spawned = Spawned(pid, self.launch()._transport, lambda *to: sent.append(to))
            spawned.signal_group(SIGKILL)
        self.assertEqual(sent, [])

    def test_harmless_when_gone(self) -> None:
        """To write, close or signal a child that has ended does nothing."""
        spawned = self.launch()
        self.reactor.children[0].exit()
        spawned.write(b"x\n")
        spawned.close_stdin()
        spawned.close()
        spawned.signal_group(SIGKILL)
        self.reactor.turn()
        self.assertEqual(self.reactor.children[0].signals, [])

    def test_somebody_elses_group(self) -> None:
        """A group that may not be signalled is told in the log and no crash."""

        def forbidden(pgid: int, signum: int) -> None:
            raise PermissionError(pgid)

        spawned = self.launch()
        spawned._kill_group = forbidden
        spawned.signal_group(SIGKILL)

    def test_the_double_is_faithful(self) -> None:
        """The double of a process has what Twisted's has."""
        self.launch()
        verifyObject(IProcessTransport, self.reactor.children[0])
