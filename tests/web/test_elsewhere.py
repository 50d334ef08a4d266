"""A grant that another process ends, as its client and its children see it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.pool import Bounds
from fjmcp.refusals import BAD_TOKEN, GRANT_ENDED
from fjmcp.store.queries import grants
from fjmcp.testing.visitors import Visit
from tests.web.desk import Client, Desk, error, result


class ElsewhereTests(SynchronousTestCase):
    """Two clients, each in a session with a child."""

    def setUp(self) -> None:
        self.desk = Desk(bounds=Bounds(children=2))
        self.desk.elsewhere.start()
        self.addCleanup(self.desk.elsewhere.stop)
        self.client, self.other = self.desk.client(1), self.desk.client(2)
        for client in (self.client, self.other):
            client.initialize()
        self.child, self.their_child = self.desk.children

    def revoke(self, client: Client) -> None:
        """Another process ends a grant, and this one looks."""
        at = self.desk.reactor.seconds()
        self.desk.store.elsewhere(grants.end, client.grant_id, "operator", at)
        self.desk.reactor.advance(limits.ELSEWHERE)

    def assert_alone(self, visit: Visit, stream: Visit) -> None:
        """The other client's call and stream go on, on its own child."""
        self.assertFalse(self.their_child.over or stream.ended or visit.answered)
        self.their_child.answer_last({})
        self.assertEqual(visit.json(), result({}, 9))

    def test_running(self) -> None:
        """A running call ends with the error of an ended grant, the stream closes, the child is
        killed and the next request is refused; nobody else notices."""
        theirs, their_stream = self.other.ask(id=9), self.other.listen()
        calls = [self.client.ask(id=number) for number in (1, 2)]
        stream = self.client.listen()
        self.revoke(self.client)
        for number, call in enumerate(calls, 1):
            self.assertEqual((call.status, call.json()), (200, error(GRANT_ENDED, number)))
        self.assertTrue(stream.ended)
        refused = self.client.ask("ping")
        self.assertEqual((refused.status, refused.json()["error"]["code"]), (401, BAD_TOKEN.code))
        self.desk.pass_time(0)
        self.assertEqual(self.desk.reactor.alive, [self.their_child])
        self.assert_alone(theirs, their_stream)

    def test_idle_child(self) -> None:
        """A child that nobody asks anything ends too."""
        theirs, their_stream = self.other.ask(id=9), self.other.listen()
        self.forget_tokens()
        self.assertFalse(self.child.over)
        self.revoke(self.client)
        self.desk.pass_time(0)
        self.assertTrue(self.child.over)
        self.assert_alone(theirs, their_stream)

    def test_stream_alone(self) -> None:
        """A stream ends too that has no child and on which nothing is said."""
        theirs, their_stream = self.other.ask(id=9), self.other.listen()
        stream = self.client.listen()
        self.child.exit(0)
        self.forget_tokens()
        self.assertFalse(stream.ended)
        self.revoke(self.client)
        self.assertTrue(stream.ended)
        self.assert_alone(theirs, their_stream)

    def forget_tokens(self) -> None:
        """Some other change comes first, after which no token is known here."""
        self.desk.store.elsewhere(grants.touch, {})
        self.desk.pass_time(limits.ELSEWHERE)

    def refused(self, waits: Client) -> None:
        """A request that waits is refused when its grant ends."""
        visit = waits.ask(id=5)
        self.forget_tokens()
        self.assertFalse(visit.answered)
        self.revoke(waits)
        self.assertEqual((visit.status, visit.json()), (401, error(GRANT_ENDED, 5)))
        self.desk.pass_time(0)

    def test_starting(self) -> None:
        """Who waits for a child that is on its way is refused, and that child ends."""
        self.desk.reactor.mind = lambda child, message: None
        self.desk.pool.rebound(Bounds())
        self.refused(self.desk.client(3))
        self.assertEqual(len(self.desk.children), 3)
        self.assertEqual(self.desk.reactor.alive, [self.child, self.their_child])

    def test_no_child_yet(self) -> None:
        """Who waits for another child to make room is refused, and none is started."""
        self.client.ask(id=7)
        self.their_child.ignores = {"EOF", "TERM"}
        self.refused(self.desk.client(3))
        self.assertEqual(len(self.desk.children), 2)
