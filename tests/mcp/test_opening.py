"""Tests for `fjmcp.mcp.opening`."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.mcp.opening import (
    PLAIN,
    Opened,
    Opening,
    Profile,
    compatible,
    initialize_params,
    may_share,
    read_initialize,
    read_result,
)
from fjmcp.mcp.wire import Request
from fjmcp.refusals import McpRefusal

NAMES = ["sampling", "elicitation", "roots", "tasks", "experimental"]
CAPABILITIES = st.dictionaries(
    st.sampled_from(NAMES),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.text(max_size=3)),
        lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)
REQUESTS = st.one_of(
    st.builds(
        lambda level: Request(b"1", "logging/setLevel", json.dumps({"level": level}).encode()),
        st.sampled_from(["debug", "error"]),
    ),
    st.builds(
        lambda verb, uri: Request(b"1", f"resources/{verb}", json.dumps({"uri": uri}).encode()),
        st.sampled_from(["subscribe", "unsubscribe", "read"]),
        st.sampled_from(["forgejo://a", "forgejo://b"]),
    ),
)
PROFILES = st.builds(Profile, st.booleans(), st.booleans())


def opening(capabilities: dict[str, Any], revision: str = "2025-11-25") -> Opening:
    """The opening of a client that can do this."""
    params = {"protocolVersion": revision, "capabilities": capabilities}
    read = read_initialize(json.dumps(params).encode())
    assert isinstance(read, Opening)
    return read


def opened(capabilities: object, revision: str = "2025-11-25") -> Opened:
    """A child that says that it can do this."""
    result = {
        "protocolVersion": revision,
        "capabilities": capabilities,
        "serverInfo": {"name": "s", "version": "1"},
    }
    read = read_result(json.dumps(result).encode())
    assert read is not None
    return read


class Initialize(SynchronousTestCase):
    """The params of a client's `initialize`."""

    def test_read(self) -> None:
        """The revision is negotiated, the capabilities are kept in one spelling."""
        for params, expected in {
            b'{"protocolVersion":"2025-06-18","capabilities":{}}': Opening("2025-06-18", b"{}"),
            b'{"protocolVersion":"2026-07-28","capabilities":{}}': PLAIN,
            b'{"protocolVersion":"2025-11-25"}': PLAIN,
            b'{"protocolVersion":"2025-11-25","capabilities":null,"clientInfo":7}': PLAIN,
            b'{"protocolVersion":"x","capabilities":{ "b":{"d":1,"c":[2]} , "\\u0061":true}}': (
                Opening("2025-11-25", b'{"a":true,"b":{"c":[2],"d":1}}')
            ),
        }.items():
            self.assertEqual(read_initialize(params), expected, params)

    def test_refused(self) -> None:
        """Params that are not as MCP defines them, or too large to keep, are refused."""
        large = b'{"protocolVersion":"x","capabilities":{"a":"%b"}}' % (b"a" * limits.CAPABILITIES)
        for params in [
            b"",
            b"[]",
            b"{}",
            b'{"capabilities":{}}',
            b'{"protocolVersion":1}',
            b'{"protocolVersion":null}',
            b'{"protocolVersion":"x","capabilities":[]}',
            b'{"protocolVersion":"x","capabilities":{"a":1e999}}',
            large,
        ]:
            refusal = read_initialize(params)
            assert isinstance(refusal, McpRefusal), params[:60]
            self.assertEqual(refusal.reason, refusals.INVALID_PARAMS.reason)

    def test_asking_a_child(self) -> None:
        """A child is asked for the same, by fjmcp."""
        asked = opening({"roots": {"listChanged": True}}, "2025-06-18")
        self.assertEqual(
            json.loads(initialize_params(asked, "1.2")),
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {"roots": {"listChanged": True}},
                "clientInfo": {"name": "fjmcp", "version": "1.2"},
            },
        )
        self.assertEqual(read_initialize(initialize_params(asked, "1.2")), asked)


class Keys(SynchronousTestCase):
    """Which openings are equal."""

    @given(CAPABILITIES, CAPABILITIES)
    def test_key(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        """Two openings have one key exactly if they say the same."""
        # Not ==: in Python 1 is True.
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        self.assertEqual(opening(one).key == opening(other).key, same)
        self.assertEqual(opening(one).key, opening(dict(reversed(one.items()))).key)
        self.assertNotEqual(opening(one).key, opening(one, "2025-06-18").key)

    def test_what_was_set_since_counts(self) -> None:
        """A log level or a subscription makes another opening."""
        keys = {
            PLAIN.key,
            evolve(PLAIN, log_level="info").key,
            evolve(PLAIN, subscriptions=frozenset({"info"})).key,
            evolve(PLAIN, log_level="info", subscriptions=frozenset({"info"})).key,
            evolve(PLAIN, subscriptions=frozenset({"info", "b"})).key,
        }
        self.assertEqual(len(keys), 5)


class Sharing(SynchronousTestCase):
    """Who may have one child together."""

    def test_table(self) -> None:
        """A child that could say something to one of them only is not shared."""
        quiet, any_child = Profile(never_asks=True, never_logs=True), Profile()
        asking, logging = opening({"roots": {}}), evolve(PLAIN, log_level="info")
        subscribed = evolve(PLAIN, subscriptions=frozenset({"a"}))
        for one, profile, shared in [
            (PLAIN, any_child, True),
            (PLAIN, quiet, True),
            (opening({"experimental": {}, "roots": None}), any_child, True),
            (asking, any_child, False),
            (asking, quiet, True),
            (opening({"sampling": {}}), any_child, False),
            (opening({"elicitation": {"form": {}}}), any_child, False),
            (logging, any_child, False),
            (logging, Profile(never_asks=True), False),
            (logging, quiet, True),
            (subscribed, quiet, False),
        ]:
            self.assertEqual(may_share(one, profile), shared, (one, profile))

    @given(CAPABILITIES, st.lists(REQUESTS), PROFILES)
    def test_shared_means_nothing_personal(
        self, capabilities: dict[str, Any], requests: list[Request], profile: Profile
    ) -> None:
        """
        If two sessions may share a child, then it can't ask, it doesn't log,
        and nothing is subscribed; and what can't be shared with a child that
        is known well can't be with an unknown one.
        """
        one = opening(capabilities)
        for request in requests:
            one = one.after(request)
        if may_share(one, profile):
            declared = {name for name, value in capabilities.items() if value is not None}
            self.assertTrue(
                profile.never_asks or not declared & {"sampling", "elicitation", "roots"}
            )
            self.assertTrue(
                profile.never_logs or all(r.method != "logging/setLevel" for r in requests)
            )
            self.assertEqual(one.subscriptions, frozenset())
        if may_share(one, Profile()):
            self.assertTrue(may_share(one, profile))


class Replay(SynchronousTestCase):
    """What a successor is told."""

    @given(st.lists(REQUESTS))
    def test_brings_a_successor_there(self, requests: list[Request]) -> None:
        """A child that was told the replay is where its predecessor was."""
        one = PLAIN
        for request in requests:
            one = one.after(request)
        successor = PLAIN
        for method, params in one.replay():
            successor = successor.after(Request(b"1", method, params))
        self.assertEqual(successor, one)

    @given(st.lists(REQUESTS), st.lists(REQUESTS))
    def test_brings_a_child_along(self, first: list[Request], then: list[Request]) -> None:
        """A child that was told an earlier opening is told what has changed, and no more."""
        earlier = PLAIN
        for request in first:
            earlier = earlier.after(request)
        now = earlier
        for request in then:
            now = now.after(request)
        child = earlier
        for method, params in now.since(earlier):
            self.assertNotEqual(child, now)
            child = child.after(Request(b"1", method, params))
        self.assertEqual(child, now)
        self.assertEqual(now.base, PLAIN)

    def test_last_level_and_open_subscriptions(self) -> None:
        """The last level and what is still subscribed are told, nothing else."""
        one = PLAIN
        for method, params in [
            ("logging/setLevel", b'{"level":"debug"}'),
            ("resources/subscribe", b'{"uri":"forgejo://a"}'),
            ("logging/setLevel", b'{"level":"error"}'),
            ("resources/subscribe", b'{"uri":"forgejo://b"}'),
            ("resources/unsubscribe", b'{"uri":"forgejo://a"}'),
            ("resources/unsubscribe", b"{}"),
            ("tools/call", b'{"level":"x","uri":"y"}'),
        ]:
            one = one.after(Request(b"1", method, params))
        self.assertEqual(
            one.replay(),
            [
                ("logging/setLevel", b'{"level":"error"}'),
                ("resources/subscribe", b'{"uri":"forgejo://b"}'),
            ],
        )

    @given(st.lists(REQUESTS), st.integers(0, 100_000))
    def test_essence(self, requests: list[Request], size: int) -> None:
        """What is kept of a request changes an opening as all of it does, and is small."""
        one = PLAIN
        for request in requests:
            padded = request.params[:-1] + b',"pad":"%b"}' % (b"x" * size)
            essence = Opening.essence(evolve(request, params=padded))
            self.assertEqual(one.after(essence), one.after(request))
            self.assertLess(len(essence.params), 100)
            one = one.after(request)

    def test_bounded(self) -> None:
        """Neither many subscriptions nor long or ill-typed ones are kept."""
        one = PLAIN
        for number in range(limits.SUBSCRIPTIONS + 10):
            one = one.after(Request(b"1", "resources/subscribe", b'{"uri":"%d"}' % number))
        self.assertEqual(len(one.subscriptions), limits.SUBSCRIPTIONS)
        for value in [b"1", b"null", b'"%b"' % (b"a" * limits.SUBSCRIPTION)]:
            for method, name in [("logging/setLevel", b"level"), ("resources/subscribe", b"uri")]:
                params = b'{"%b":%b}' % (name, value)
                asked = Request(b"1", method, params)
                self.assertEqual(PLAIN.after(asked), PLAIN)
                self.assertEqual(PLAIN.after(Opening.essence(asked)), PLAIN)


class Result(SynchronousTestCase):
    """A child's answer to `initialize`."""

    def test_read(self) -> None:
        """The bytes are kept for the client; what we act on is read."""
        result = (
            b'{"protocolVersion": "2025-11-25","capabilities":{"tools":{"listChanged":true},'
            b'"logging":{}},"serverInfo":{"name":"Forgejo MCP Server","version":"3.3.0"}}'
        )
        self.assertEqual(
            read_result(result),
            Opened(
                result,
                "2025-11-25",
                b'{"logging":{},"tools":{"listChanged":true}}',
                "Forgejo MCP Server",
                "3.3.0",
            ),
        )

    def test_sparse(self) -> None:
        """Only the revision must be there."""
        self.assertEqual(
            read_result(b'{"protocolVersion":"2024-11-05"}'),
            Opened(b'{"protocolVersion":"2024-11-05"}', "2024-11-05", b"{}", "", ""),
        )

    def test_no_answer(self) -> None:
        """What is no answer, or of a revision that we don't speak, is none."""
        for result in [
            b"null",
            b"{}",
            b"[]",
            b'{"protocolVersion":1}',
            b'{"protocolVersion":"2026-07-28"}',
            b'{"protocolVersion":"2025-11-25","capabilities":[]}',
            b'{"protocolVersion":"2025-11-25","serverInfo":"x"}',
            b'{"protocolVersion":"2025-11-25","capabilities":{"a":%b}}' % (b"[" * 800 + b"]" * 800),
        ]:
            self.assertIsNone(read_result(result), result)


class Offers(SynchronousTestCase):
    """What a child says that it can do."""

    def test_table(self) -> None:
        """A capability is there unless it is missing, null or false."""
        for capabilities, logs, subscribes in (
            ({}, False, False),
            ({"logging": {}, "resources": {}}, True, False),
            ({"logging": None, "resources": {"subscribe": False}}, False, False),
            ({"resources": {"subscribe": True}}, False, True),
            ({"resources": [], "logging": True}, True, False),
        ):
            one = opened(capabilities)
            self.assertEqual(
                (one.offers("logging"), one.offers("resources", "subscribe")), (logs, subscribes)
            )


class Compatible(SynchronousTestCase):
    """A successor that a client may be given (design D2)."""

    def test_table(self) -> None:
        """The revision is the same, and what was there is there."""
        told = opened({"tools": {"listChanged": True}, "logging": {}})
        for now, fits in [
            (told, True),
            (opened({"tools": {"listChanged": True}, "logging": {}, "prompts": {}}), True),
            (opened({"tools": {"listChanged": True, "x": 1}, "logging": {"y": []}}), True),
            (opened({"tools": {"listChanged": True}}), False),
            (opened({"tools": {"listChanged": False}, "logging": {}}), False),
            (opened({"tools": {}, "logging": {}}), False),
            (opened({"tools": True, "logging": {}}), False),
            (opened({"tools": {"listChanged": True}, "logging": None}), False),
            (opened({"tools": {"listChanged": True}, "logging": {}}, "2025-06-18"), False),
        ]:
            self.assertEqual(compatible(told, now), fits, now)

    def test_what_was_not_there_is_not_missed(self) -> None:
        """A capability that was denied may be there or not."""
        told = opened({"tools": {"listChanged": False}, "prompts": None})
        for now in [{"tools": {"listChanged": True}}, {"tools": {}}, {"tools": {}, "prompts": {}}]:
            self.assertTrue(compatible(told, opened(now)), now)

    @given(CAPABILITIES, CAPABILITIES)
    def test_more_is_always_compatible(self, one: dict[str, Any], more: dict[str, Any]) -> None:
        """A build that can do more serves every client of the one before."""
        self.assertTrue(compatible(opened(one), opened(one)))
        self.assertTrue(compatible(opened(one), opened({**more, **one})))
