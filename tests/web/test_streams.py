"""Tests for `fjmcp.web.streams`, through the endpoint."""

from __future__ import annotations

import json

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.refusals import (
    NO_EVENTS,
    NO_STREAM,
    OTHER_ACCOUNTS_SESSION,
    OTHER_CLIENTS_SESSION,
    SHUTTING_DOWN,
    UNKNOWN_REVISION,
    UNKNOWN_SESSION,
    McpRefusal,
)
from fjmcp.testing.children import INITIALIZED, FakeChild
from fjmcp.testing.visitors import Visit
from fjmcp.web.streams import LIST_CHANGES, TOOLS_CHANGED
from tests.web.desk import Client, Desk, Key, error

PROMPTS_CHANGED = "notifications/prompts/list_changed"
CHANGED = [{"jsonrpc": "2.0", "method": TOOLS_CHANGED}]


class StreamsCase(SynchronousTestCase):
    """Clients in sessions."""

    def setUp(self) -> None:
        self.desk = Desk()
        self.addCleanup(self.desk.close)
        self.client = self.open()

    def open(self, account_id: int = 1, client_id: str = "c1", **capabilities: object) -> Client:
        client = self.desk.client(account_id, client_id)
        asked = {"protocolVersion": "2025-11-25", "capabilities": capabilities}
        client.session = client.ask("initialize", asked).header("mcp-session-id")
        return client

    @property
    def child(self) -> FakeChild:
        return self.desk.child

    def says(self, method: str = TOOLS_CHANGED, child: FakeChild | None = None) -> None:
        (child or self.child).say({"jsonrpc": "2.0", "method": method, "params": {}})

    def end(self, client: Client) -> None:
        """The end of a grant, and what is true before its children are gone."""
        ended = self.desk.end(client)
        self.addCleanup(self.successResultOf, ended)
        self.addCleanup(self.desk.pass_time, 0)

    def heard(self, stream: Visit) -> list[object]:
        return [json.loads(event) for event in stream.events()]

    def assertOpen(self, stream: Visit) -> None:
        self.assertEqual((stream.status, stream.ended, stream.wire.closed), (200, False, False))

    def assertEnded(self, stream: Visit) -> None:
        self.assertEqual((stream.ended, stream.wire.aborted), (True, False))

    def assertRefused(self, visit: Visit, refusal: McpRefusal) -> None:
        self.assertEqual((visit.status, visit.json()), (refusal.status, error(refusal)))
        self.assertEqual(len(self.desk.streams), 0)


class BoundTests(StreamsCase):
    """How many an account may have."""

    def test_oldest_of_an_account(self) -> None:
        """Past the bound the oldest is closed, over all clients of the account, and no other's."""
        other = self.open(2).listen()
        first = self.client.listen()
        rest = [self.open(1, f"c{number % 7}") for number in range(limits.STREAMS_PER_ACCOUNT - 1)]
        streams = [client.listen() for client in rest]
        self.assertOpen(first)
        with capturedLogs() as logs:
            newest = self.open(1, "c9").listen()
        self.assertEnded(first)
        self.assertIn(b"retry: 60000", first.body)
        said = [event["account"] for event in logs if "too many streams" in event["log_format"]]
        self.assertEqual(said, [1])
        for stream in (*streams, other, newest):
            self.assertOpen(stream)
        again = self.client.listen()
        self.assertEnded(streams[0])
        self.assertOpen(again)
        self.assertEqual(len(self.desk.streams), limits.STREAMS_PER_ACCOUNT + 1)

    def test_second_of_one_session(self) -> None:
        """A session that opens another takes its own place, and nobody's else."""
        rest = [self.open(1, "c2") for _ in range(limits.STREAMS_PER_ACCOUNT - 1)]
        streams = [client.listen() for client in rest]
        before, after = self.client.listen(), self.client.listen()
        self.assertEnded(before)
        for stream in (*streams, after):
            self.assertOpen(stream)

    def test_room_again(self) -> None:
        """What was closed takes no room."""
        for _ in range(2 * limits.STREAMS_PER_ACCOUNT):
            self.client.listen().leave()
        self.assertEqual((len(self.desk.streams), self.desk.streams._of_account), (0, {}))


class OpeningTests(StreamsCase):
    """GET /mcp: who gets a stream."""

    def test_opened(self) -> None:
        """A session's stream begins at once, with a comment, and holds no child."""
        self.child.exit(0)
        stream = self.client.listen()
        self.assertOpen(stream)
        self.assertEqual(stream.header("content-type"), "text/event-stream")
        self.assertEqual(stream.header("cache-control"), "no-store")
        self.assertEqual(stream.header("x-accel-buffering"), "no")
        self.assertEqual(stream.body, b":\n\n")
        self.assertEqual((len(self.desk.children), self.desk.reactor.alive), (1, []))

    def test_accept(self) -> None:
        """Whatever takes events will do; who does not is told so."""
        for accept in ("text/event-stream", "*/*", "", "text/*", "application/json, */*;q=0.1"):
            self.assertOpen(self.client.listen(accept=accept))
        self.client.delete()
        self.client.initialize()
        for accept in ("application/json", "text/html", "text/event-stream;q=0"):
            self.assertRefused(self.client.listen(accept=accept), NO_EVENTS)

    def test_without_session(self) -> None:
        """Without a session there is nothing to hear: 405."""
        for accept in ("text/event-stream", "*/*", "application/json"):
            visit = self.desk.client().listen(accept=accept)
            self.assertRefused(visit, NO_STREAM)
            self.assertEqual(visit.header("allow"), "POST, DELETE, OPTIONS")

    def test_unknown_session(self) -> None:
        """Unknown, ended, another client's, another account's: as a POST would be refused."""
        mine = self.client.session
        assert mine is not None
        table = (
            (self.client, "unknown", UNKNOWN_SESSION),
            (self.client, "x" * 10_000, UNKNOWN_SESSION),
            (self.desk.client(1, "c2"), mine, OTHER_CLIENTS_SESSION),
            (self.desk.client(2, "c1"), mine, OTHER_ACCOUNTS_SESSION),
        )
        for client, session, refusal in table:
            self.assertRefused(client.listen(mcp_session_id=session), refusal)
        self.client.delete()
        self.assertRefused(self.client.listen(), UNKNOWN_SESSION)

    def test_revision(self) -> None:
        """A header that names no revision is refused; any that is one will do."""
        self.assertRefused(self.client.listen(mcp_protocol_version="1.0"), UNKNOWN_REVISION)
        for revision in ("2025-03-26", "2025-11-25", "2026-07-28", ""):
            self.assertOpen(self.client.listen(mcp_protocol_version=revision))


class HearingTests(StreamsCase):
    """What is heard on a stream."""

    def test_list_changes(self) -> None:
        """That a list has changed is told at once."""
        stream = self.client.listen()
        for method in sorted(LIST_CHANGES):
            self.says(method)
        self.assertEqual(
            self.heard(stream), [{"jsonrpc": "2.0", "method": m} for m in sorted(LIST_CHANGES)]
        )
        self.assertOpen(stream)

    def test_nothing_else(self) -> None:
        """What a shared child says of no list is for nobody: it does not say whose it is."""
        stream = self.client.listen()
        for method in (
            "notifications/message",
            "notifications/resources/updated",
            "notifications/progress",
            "notifications/unheard-of",
        ):
            self.says(method)
        self.child.say({"jsonrpc": "2.0", "id": 7, "method": "roots/list"})
        self.assertEqual(self.heard(stream), [])
        self.assertEqual(self.client.listen().events(), [])

    def test_comments(self) -> None:
        """A silent stream gets a comment every STREAM_COMMENT."""
        stream = self.client.listen()
        for count in range(1, 10):
            self.assertEqual(stream.body, b":\n\n" * count)
            self.desk.pass_time(limits.STREAM_COMMENT)
        self.assertOpen(stream)

    def test_kept(self) -> None:
        """What changes while no stream is open is told when one is, once, whatever its number."""
        for _ in range(1000):
            self.says()
        self.says(PROMPTS_CHANGED)
        stream = self.client.listen()
        told = [{"jsonrpc": "2.0", "method": PROMPTS_CHANGED}, *CHANGED]
        self.assertEqual(self.heard(stream), told)
        stream.leave()
        self.assertEqual(self.heard(self.client.listen()), [])

    def test_kept_after_a_stream(self) -> None:
        """A stream that its client closed keeps nothing from the next."""
        self.client.listen().leave()
        self.says()
        self.assertEqual(self.heard(self.client.listen()), CHANGED)

    def test_every_session_once(self) -> None:
        """Each session of the child hears of it once, each in its own way."""
        second, third = self.desk.client(), self.desk.client()
        second.initialize()
        third.initialize()
        self.assertEqual(len(self.desk.children), 1)
        first, other = self.client.listen(), second.listen()
        self.says()
        self.assertEqual((self.heard(first), self.heard(other)), (CHANGED, CHANGED))
        self.assertEqual(self.heard(third.listen()), CHANGED)

    def test_nobody_else(self) -> None:
        """No other account, client or opening hears of it."""
        others = [self.open(2), self.open(1, "c2"), self.open(1, "c1", roots={})]
        self.assertEqual(len(self.desk.children), 4)
        streams = [client.listen() for client in others]
        self.says(child=self.desk.children[0])
        self.assertEqual([self.heard(stream) for stream in streams], [[], [], []])
        self.assertEqual(self.heard(self.client.listen()), CHANGED)
        for child in self.desk.children[1:]:
            self.says(PROMPTS_CHANGED, child)
        self.assertEqual([len(self.heard(stream)) for stream in streams], [1, 1, 1])
        self.assertEqual(self.heard(self.client.listen()), [])

    def test_new_grant(self) -> None:
        """A session that goes on under a new grant hears that grant's child, not the old one's."""
        again = self.desk.client(1, "c1", grant_id="a new grant")
        again.session = self.client.session
        again.ask()
        self.assertEqual(len(self.desk.children), 2)
        stream = again.listen()
        self.says(child=self.desk.children[0])
        self.assertEqual(self.heard(stream), [])
        self.says(child=self.desk.children[1])
        self.assertEqual(self.heard(stream), CHANGED)

    def test_answers_go_elsewhere(self) -> None:
        """Neither answers nor progress come on this stream."""
        stream = self.client.listen()
        visit = self.client.ask("tools/call", {"_meta": {"progressToken": 1}})
        number = self.child.heard[-1]["id"]
        self.child.say(
            {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": number, "progress": 1},
            }
        )
        self.child.answer(number, {})
        self.assertEqual((len(self.heard(visit)), visit.ended), (2, True))
        self.assertEqual(self.heard(stream), [])

    def test_another_build(self) -> None:
        """A successor of another build may have other tools: the session is told so."""
        stream, other = self.client.listen(), self.open(2)
        theirs = other.listen()
        upgraded = INITIALIZED | {"serverInfo": {"name": "fake", "version": "2"}}

        def mind(child: FakeChild, message: dict[str, object]) -> None:
            if message["method"] == "initialize":
                child.answer(message["id"], upgraded)

        self.client.ask()
        self.assertEqual(self.heard(stream), [])
        self.desk.reactor.mind = mind
        self.desk.keys.answer = Key(version=2)
        for _ in range(2):
            self.client.ask()
            self.assertEqual(self.heard(stream), CHANGED)
        self.assertEqual(self.heard(theirs), [])


class EndingTests(StreamsCase):
    """How a stream ends."""

    def test_newer_one(self) -> None:
        """A newer stream of the session takes the place of the older, which ends."""
        older = self.client.listen()
        newer = self.client.listen()
        self.assertEnded(older)
        self.assertOpen(newer)
        self.says()
        self.assertEqual((self.heard(older), self.heard(newer)), ([], CHANGED))
        self.assertEqual(len(self.desk.streams), 1)

    def test_left(self) -> None:
        """A stream whose client has left leaves nothing behind."""
        self.client.listen().leave()
        self.assertEqual((len(self.desk.streams), self.desk.timers), (0, []))

    def test_older_one_leaves(self) -> None:
        """That the older one is gone does not end the newer."""
        older = self.client.listen()
        newer = self.client.listen()
        older.leave()
        self.says()
        self.assertEqual(self.heard(newer), CHANGED)

    def test_deleted(self) -> None:
        """With its session a stream ends; those of other sessions do not."""
        other = self.desk.client()
        other.initialize()
        mine, theirs = self.client.listen(), other.listen()
        self.assertEqual(self.client.delete().status, 204)
        self.assertEnded(mine)
        self.assertOpen(theirs)

    def test_pushed_out(self) -> None:
        """A session that made room for others takes its stream with it."""
        stream, other = self.client.listen(), self.desk.client()
        for _ in range(limits.SESSIONS_PER_CONNECTION):
            self.assertOpen(stream)
            other.initialize()
        self.assertEnded(stream)
        self.assertEqual((len(self.desk.streams), len(self.desk.children)), (0, 1))

    def test_grant_ended(self) -> None:
        """The streams of an ended grant end at once; those of another grant go on."""
        other = self.open(1, "c2")
        mine, theirs = self.client.listen(), other.listen()
        self.end(self.client)
        self.assertEnded(mine)
        self.assertOpen(theirs)
        self.assertEqual(self.client.listen().status, 401)

    def test_grant_ended_for_a_slow_reader(self) -> None:
        """What waited for a slow reader is not delivered after the end of its grant."""
        stream = self.client.listen()
        stream.stop_reading()
        self.says()
        self.says(PROMPTS_CHANGED)
        self.end(self.client)
        self.assertNotIn(PROMPTS_CHANGED.encode(), stream.body)
        self.assertEnded(stream)
        self.desk.pass_time(0)
        self.assertEqual(self.desk.timers, [])

    def test_session_outlives_its_grant(self) -> None:
        """After a new sign-in the session is there, with a stream under the new grant."""
        self.client.listen()
        self.end(self.client)
        again = self.desk.client(1, "c1", grant_id="a new grant")
        again.session = self.client.session
        stream = again.listen()
        self.assertOpen(stream)
        self.end(self.client)
        self.assertOpen(stream)
        self.end(again)
        self.assertEnded(stream)

    def test_grant_that_opened_it(self) -> None:
        """A stream ends with the grant that opened it, though its session has gone on."""
        stream = self.client.listen()
        again = self.desk.client(1, "c1", grant_id="a new grant")
        again.session = self.client.session
        again.ask("ping")
        self.end(self.client)
        self.assertEnded(stream)

    def test_token_expires(self) -> None:
        """A stream ends with the token that opened it; its client comes back with a new one."""
        stream = self.client.listen()
        self.desk.pass_time(limits.ACCESS_TOKEN - 1)
        self.assertOpen(stream)
        self.desk.pass_time(1)
        self.assertEnded(stream)
        self.assertEqual((len(self.desk.streams), self.desk.timers), (0, []))

    def test_shutdown(self) -> None:
        """At a stop every stream ends with the time to come back after, and none opens."""
        other = self.open(2)
        streams = [self.client.listen(), other.listen()]
        self.desk.streams.stop()
        for stream in streams:
            self.assertEnded(stream)
            self.assertTrue(stream.body.endswith(b"retry: 5000\n\n"))
        visit = self.client.listen()
        self.assertRefused(visit, SHUTTING_DOWN)
        self.assertEqual(visit.header("retry-after"), "5")
        self.assertEqual(self.desk.timers, [])


class SlowReaderTests(StreamsCase):
    """Clients that open a stream and do not read it."""

    def test_stall(self) -> None:
        """Who takes nothing for STREAM_STALL is cut; its session stays, others hear on."""
        other = self.desk.client()
        other.initialize()
        stream, theirs = self.client.listen(), other.listen()
        stream.stop_reading()
        with capturedLogs() as events:
            self.desk.pass_time(limits.STREAM_STALL)
        self.assertTrue(stream.wire.aborted)
        self.assertIn("slow reader cut", [event["log_format"] for event in events])
        self.says()
        self.assertEqual(self.heard(theirs), CHANGED)
        self.assertEqual(self.heard(self.client.listen()), CHANGED)

    def test_too_much_behind(self) -> None:
        """A chatty child costs a stream that is not read no more than STREAM_BEHIND."""
        stream = self.client.listen()
        stream.stop_reading()
        size = len(b"event: message\ndata: \n\n") + len(json.dumps(CHANGED[0]).replace(" ", ""))
        fits = limits.STREAM_BEHIND // size
        line = json.dumps(CHANGED[0]).encode() + b"\n"
        self.child.say(line * (fits + 1))
        self.assertFalse(stream.wire.aborted)
        self.child.say(line)
        self.assertTrue(stream.wire.aborted)
        self.assertFalse(self.child.over)
