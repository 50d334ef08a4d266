"""The stand-in's command line and its door, without a process."""

from __future__ import annotations

import contextlib
import io

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.demo.forge.__main__ import Door, options
from fjmcp.demo.forge.standin import CLIENT_ID, StandIn


class OptionsTests(SynchronousTestCase):
    """What may be said on the command line."""

    def test_listen(self) -> None:
        """Host and port of loopback, IPv6 too."""
        for text, host, port in (
            ("127.0.0.1:0", "127.0.0.1", 0),
            ("localhost:3001", "127.0.0.1", 3001),
            ("[::1]:3002", "::1", 3002),
        ):
            chosen = options(["--listen", text])
            self.assertEqual((chosen.host, chosen.port), (host, port))
            self.assertEqual(chosen.client_id, CLIENT_ID)

    def test_only_loopback(self) -> None:
        """Any other address is refused, with exit code 2 and the reason."""
        for text in ("0.0.0.0:1", "192.0.2.1:1", "example.org:1", "127.0.0.1", "127.0.0.1:x"):
            said = io.StringIO()
            with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as caught:
                options(["--listen", text])
            self.assertEqual(caught.exception.code, 2)
            self.assertIn("--listen", said.getvalue())


class DoorTests(SynchronousTestCase):
    """Refusing connections for a while."""

    def test_close_for(self) -> None:
        """The port closes, living connections are dropped, and both end together."""
        reactor = MemoryReactorClock()
        door = Door(reactor, "127.0.0.1", port=3000)
        stand_in = StandIn(reactor, "http://127.0.0.1:3000", refuse=door.close_for)
        door.troubles, door.site.resource = stand_in.troubles, stand_in.resource
        door.open()
        stand_in.troubles.set("refuse", seconds=5.0)
        self.assertEqual([trouble.kind for trouble in stand_in.troubles.current], ["drop"])
        stand_in.troubles.set("refuse", seconds=1.0)
        reactor.advance(5.0)
        self.assertEqual(stand_in.troubles.current, [])
        self.assertEqual(len(reactor.tcpServers), 2)
