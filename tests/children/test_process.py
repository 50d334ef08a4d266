"""Tests for `fjmcp.children.process`, with processes in memory."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM

from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IProcessProtocol, IPushProducer
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp import limits
from fjmcp.children.launch import Launcher
from fjmcp.children.process import Child, End
from fjmcp.children.profiles import command_for, recipe_for
from fjmcp.testing.children import FakeChild
from fjmcp.testing.reactor import FakeReactor

TOKEN = "0123456789abcdefghij"


@define
class Ear:
    """Hears a child."""

    lines: list[bytes] = field(factory=list)
    lost: int = 0
    ends: list[End] = field(factory=list)
    chokes: bool = False

    def heard(self, line: bytes) -> None:
        self.lines.append(line)
        if self.chokes:
            raise RuntimeError("choked")

    def missed(self) -> None:
        self.lost += 1

    def ended(self, end: End) -> None:
        self.ends.append(end)


class ChildCase(SynchronousTestCase):
    """A child in memory."""

    def setUp(self) -> None:
        self.reactor = FakeReactor(lambda child, message: None)
        self.ear = Ear()
        command = command_for(
            recipe_for(["/opt/forgejo-mcp"]), url="u", token=TOKEN, user_agent="a", inherited={}
        )
        launcher = Launcher(self.reactor, ("/bin/confine",), self.reactor.killpg)
        self.child = Child(launcher, command, self.ear, self.reactor)

    def start(self) -> FakeChild:
        self.child.start()
        return self.reactor.children[-1]


class PipeTests(ChildCase):
    """What goes in and comes out."""

    def test_interfaces(self) -> None:
        """It is what Twisted takes it for."""
        verifyObject(IProcessProtocol, self.child)
        verifyObject(IPushProducer, self.child)

    def test_lines_both_ways(self) -> None:
        """Lines are written with their end and heard without."""
        fake = self.start()
        self.assertTrue(self.child.send(b'{"a":1}'))
        self.reactor.turn()
        self.assertEqual(fake.heard, [{"a": 1}])
        fake.say(b"on", b"e\ntwo\r\n")
        self.assertEqual(self.ear.lines, [b"one", b"two"])

    def test_token_in_stdout_is_blanked(self) -> None:
        """Forgejo repeats refused tokens; a token in two reads is blanked too."""
        fake = self.start()
        fake.say(b"sha: " + TOKEN[:5].encode(), TOKEN[5:].encode() + b"]\n")
        self.assertEqual(self.ear.lines, [b"sha: [blanked]]"])

    def test_stderr_to_the_log_at_debug(self) -> None:
        """Each line is an event with the pid, and never the token."""
        fake = self.start()
        with capturedLogs() as events:
            fake.grumble(b"hello " + TOKEN[:5].encode())
            fake.grumble(TOKEN[5:].encode() + b"\n")
        self.assertEqual(
            [(e["log_format"], e["pid"], e["line"]) for e in events],
            [("child says", self.child.pid, "hello [blanked]")],
        )
        self.assertEqual(events[0]["log_level"], LogLevel.debug)
        self.assertEqual(self.child.last_words, ["hello [blanked]"])

    def test_line_too_long(self) -> None:
        """It is lost, that is told, and the next line comes."""
        fake = self.start()
        self.child._lines.limit = 10
        fake.say(b"x" * 100 + b"\nshort\n")
        self.assertEqual((self.ear.lines, self.ear.lost), ([b"short"], 1))

    def test_hearer_that_chokes(self) -> None:
        """A fault of ours over one line costs neither the pipe nor the next line."""
        fake = self.start()
        self.ear.chokes = True
        fake.say(b"one\ntwo\n")
        self.assertEqual(self.ear.lines, [b"one", b"two"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_child_that_does_not_read(self) -> None:
        """What it leaves unread is bounded; when it reads again, all comes in order."""
        fake = self.start()
        fake.reads = False
        line = b'{"x":"' + b"y" * 1_000_000 + b'"}'
        sent = 0
        while self.child.send(line):
            sent += 1
            self.reactor.turn()
            self.assertLess(sent, 100)
        self.assertGreaterEqual(sent * len(line), limits.CHILD_UNREAD - len(line))
        fake.reads = True
        fake.read_all()
        self.reactor.turn()
        self.assertEqual(len(fake.heard), sent)
        self.assertTrue(self.child.send(b'{"last":1}'))
        self.reactor.turn()
        self.assertEqual(fake.heard[-1], {"last": 1})

    def test_what_waits_is_written_before_the_end_of_stdin(self) -> None:
        """A stop loses no line that was taken."""
        fake = self.start()
        fake.reads = False
        line = b'{"x":"' + b"y" * 100_000 + b'"}'
        for _ in range(5):
            self.child.send(line)
        self.child.stop()
        fake.reads = True
        self.reactor.turn()
        self.assertEqual(len(fake.heard), 5)
        self.assertTrue(fake.stdin_closed)

    def test_nothing_is_heard_after_the_end(self) -> None:
        """`ended` is the last word."""
        fake = self.start()
        fake.exit()
        fake.say(b"late\n")
        self.assertEqual(self.ear.lines, [])


class EndTests(ChildCase):
    """How it ends."""

    def test_of_its_own(self) -> None:
        """The end is told once, with code and age."""
        fake = self.start()
        ended = self.child.ended()
        self.reactor.advance(7)
        fake.exit(3)
        self.assertEqual(self.ear.ends, [End(code=3, seconds=7.0)])
        self.assertEqual(self.successResultOf(ended), self.ear.ends[0])
        self.assertEqual(self.successResultOf(self.child.ended()), self.ear.ends[0])
        self.assertFalse(self.child.send(b"x"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_leftovers_of_its_group_are_killed(self) -> None:
        """When the child is over, what it started and left behind is killed."""
        sent: list[tuple[int, int]] = []
        fake = self.start()
        assert self.child._spawned is not None
        self.child._spawned._kill_group = lambda *to: sent.append(to)
        fake.exit(0)
        self.assertEqual(sent, [(fake.number, SIGKILL)])

    def test_stop_by_eof(self) -> None:
        """A child that is as it should be ends when its stdin does; no signal is sent."""
        fake = self.start()
        ended = self.child.stop()
        self.assertFalse(self.child.send(b"x"))
        self.reactor.turn()
        self.assertEqual(self.successResultOf(ended).code, 0)
        self.assertEqual(fake.signals, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_order(self) -> None:
        """EOF, then TERM, then KILL, each after its limit and not before."""
        fake = self.start()
        fake.ignores = {"EOF", "TERM"}
        ended = self.child.stop()
        self.reactor.advance(limits.CLOSE_WAIT - 0.1)
        self.assertTrue(fake.stdin_closed)
        self.assertEqual(fake.signals, [])
        self.reactor.advance(0.1)
        self.assertEqual(fake.signals, [SIGTERM])
        self.reactor.advance(limits.TERM_WAIT - 0.1)
        self.assertEqual(fake.signals, [SIGTERM])
        self.reactor.advance(0.1)
        self.assertEqual(fake.signals, [SIGTERM, SIGKILL])
        self.reactor.turn()
        self.assertEqual(self.successResultOf(ended).signal, SIGKILL)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_twice(self) -> None:
        """The second stop waits for the same end and does not begin anew."""
        fake = self.start()
        fake.ignores = {"EOF"}
        first = self.child.stop()
        self.reactor.advance(limits.CLOSE_WAIT - 0.1)
        second = self.child.stop()
        self.reactor.advance(0.1)
        self.reactor.turn()
        self.assertEqual(fake.signals, [SIGTERM])
        self.assertIs(self.successResultOf(first), self.successResultOf(second))

    def test_kill(self) -> None:
        """A kill waits for nothing, whatever went before."""
        fake = self.start()
        fake.ignores = {"EOF", "TERM"}
        self.child.stop()
        ended = self.child.kill()
        self.assertEqual(fake.signals, [SIGKILL])
        self.reactor.turn()
        self.assertEqual(self.successResultOf(ended).signal, SIGKILL)

    def test_child_that_the_kernel_keeps(self) -> None:
        """Not even KILL: we say so and go on."""
        fake = self.start()
        fake.ignores = {"EOF", "TERM", "KILL"}
        ended = self.child.kill()
        with capturedLogs() as events:
            self.reactor.advance(limits.KILL_WAIT)
        self.assertTrue(self.successResultOf(ended).stuck)
        self.assertIn("child does not die", [event["log_format"] for event in events])
        fake.exit(0, SIGKILL)
        self.assertEqual(len(self.ear.ends), 1)

    def test_waiter_that_leaves(self) -> None:
        """Who waits for the end may be cancelled; the end comes to the others."""
        fake = self.start()
        leaves, stays = self.child.ended(), self.child.ended()
        leaves.cancel()
        self.failureResultOf(leaves, CancelledError)
        fake.exit()
        self.assertEqual(self.successResultOf(stays).code, 0)

    def test_child_that_closes_a_pipe(self) -> None:
        """Without stdin or stdout it is of no use: it is stopped."""
        for descriptor in (0, 1):
            fake = self.start()
            fake.ignores = {"EOF"}
            fake.close(descriptor)
            self.assertFalse(self.child.usable)
            self.reactor.advance(limits.CLOSE_WAIT)
            self.assertEqual(fake.signals, [SIGTERM])
            self.reactor.turn()
            self.setUp()

    def test_pipes_held_by_a_stranger(self) -> None:
        """A process that hides from the group and holds the pipes is not waited for long."""
        fake = self.start()
        fake.clings = True
        fake.exit(0)
        self.reactor.advance(limits.CHILD_LINGER - 0.1)
        self.assertEqual(self.ear.ends, [])
        self.reactor.advance(0.1)
        self.assertEqual([end.code for end in self.ear.ends], [0])


class StartTests(ChildCase):
    """How it cannot begin."""

    def test_spawn_fails(self) -> None:
        """No process to be had: an end that says why, and no exception."""
        self.reactor.fails = BlockingIOError(11, "Resource temporarily unavailable")
        self.child.start()
        (end,) = self.ear.ends
        self.assertIn("Resource temporarily unavailable", end.trouble)
        self.assertFalse(end.missing)
        self.assertEqual(self.successResultOf(self.child.stop()), end)
        self.assertEqual(self.successResultOf(self.child.kill()), end)
        self.assertFalse(self.child.send(b"x"))

    def test_confinement_is_gone(self) -> None:
        """The confining program was there at our start and is not now."""
        self.reactor.fails = FileNotFoundError(2, "No such file", "/usr/bin/env")
        self.child.start()
        self.assertTrue(self.ear.ends[0].missing)

    def test_program_is_missing(self) -> None:
        """Exit codes 126 and 127 before any word mean that there was nothing to execute."""
        for code in (126, 127):
            self.start().exit(code)
            self.assertTrue(self.ear.ends[0].missing)
            self.setUp()

    def test_127_of_a_child_that_spoke(self) -> None:
        """Its own exit code 127 is a crash like another."""
        fake = self.start()
        fake.say(b"{}\n")
        fake.exit(127)
        self.assertFalse(self.ear.ends[0].missing)

    def test_over_before_launch_returns(self) -> None:
        """A child that ends while it is started is one that ended."""
        spawn = self.reactor.spawnProcess

        def at_once(*args: object, **keywords: object) -> object:
            child = spawn(*args, **keywords)  # type: ignore[arg-type]
            self.reactor.children[-1].exit(1)
            return child

        self.reactor.spawnProcess = at_once  # type: ignore[assignment]
        self.child.start()
        self.assertEqual([end.code for end in self.ear.ends], [1])
        self.assertFalse(self.child.usable)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
