"""Tests for `fjmcp.mcp.revisions`."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import refusals
from fjmcp.mcp.revisions import (
    LEGACY,
    MODERN,
    UNSAID,
    Dropped,
    has_modern_meta,
    judge,
    negotiate,
)
from fjmcp.mcp.wire import Message, Notice, Reply, Request

META: Final = b'{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}'

CALL: Final = Request(b"1", "tools/call", b"{}")
MODERN_CALL: Final = Request(b"1", "tools/call", META)
INITIALIZE: Final = Request(b"1", "initialize", b'{"protocolVersion":"2025-11-25"}')
MODERN_INITIALIZE: Final = Request(b"1", "initialize", META)
DISCOVER: Final = Request(b'"server-discover-probe-1"', "server/discover", META)
NOTICE: Final = Notice("notifications/initialized")
MODERN_NOTICE: Final = Notice("notifications/cancelled", META)
ANSWER: Final = Reply(b"1", b"{}")
PLAIN: Final[list[Message]] = [CALL, INITIALIZE, NOTICE, ANSWER]

DROPPED: Final = Dropped("modern-era")

MESSAGES: Final[list[Message]] = [
    CALL,
    MODERN_CALL,
    INITIALIZE,
    MODERN_INITIALIZE,
    DISCOVER,
    NOTICE,
    MODERN_NOTICE,
    ANSWER,
]


class Judging(SynchronousTestCase):
    """Header, message and session to a revision (design D25)."""

    def judges(self, expected: object, *cases: tuple[str | None, Message, str | None]) -> None:
        """Each case is judged so."""
        for case in cases:
            self.assertEqual(judge(*case), expected, case)

    def test_probe(self) -> None:
        """`server/discover` is refused whatever comes with it, so that clients fall back."""
        for header in [None, MODERN, "2025-11-25", "2027-01-01", ""]:
            for session in [None, "2025-11-25"]:
                self.judges(refusals.MODERN, (header, DISCOVER, session))
        self.assertEqual((refusals.MODERN.status, refusals.MODERN.code), (400, -32601))

    def test_modern_header_without_a_session(self) -> None:
        """A request under a modern header is refused, a notice or an answer dropped."""
        self.judges(
            refusals.MODERN,
            (MODERN, CALL, None),
            (MODERN, MODERN_CALL, None),
            (MODERN, INITIALIZE, None),
            (MODERN, MODERN_INITIALIZE, None),
        )
        self.judges(
            DROPPED, (MODERN, NOTICE, None), (MODERN, MODERN_NOTICE, None), (MODERN, ANSWER, None)
        )

    def test_modern_meta_without_header_and_session(self) -> None:
        """Without a header `_meta` tells the era."""
        self.judges(refusals.MODERN, (None, MODERN_CALL, None), (None, MODERN_INITIALIZE, None))
        self.judges(DROPPED, (None, MODERN_NOTICE, None))

    def test_legacy_header(self) -> None:
        """A legacy header makes the message legacy: clients mix it with modern `_meta`."""
        for header in LEGACY:
            for message in [*PLAIN, MODERN_CALL, MODERN_INITIALIZE, MODERN_NOTICE]:
                self.judges(header, (header, message, None))

    def test_known_session(self) -> None:
        """In a session its revision holds, under any header that names one."""
        for header in [None, *LEGACY, MODERN]:
            for message in [*PLAIN, MODERN_CALL, MODERN_INITIALIZE, MODERN_NOTICE]:
                for session in LEGACY:
                    self.judges(session, (header, message, session))

    def test_garbage(self) -> None:
        """A header that names no revision is refused, in a session too."""
        for header in ["", "2025-11-26", "2027-01-01", "latest", "2025-11-25, 2025-11-25", "é"]:
            for message in PLAIN:
                for session in [None, "2025-11-25"]:
                    self.judges(refusals.UNKNOWN_REVISION, (header, message, session))

    def test_nothing_said(self) -> None:
        """Without header, session and `_meta` it is 2025-03-26, as the specification has it."""
        for message in PLAIN:
            self.judges(UNSAID, (None, message, None))
        self.assertEqual(UNSAID, "2025-03-26")

    @given(
        st.one_of(st.none(), st.sampled_from([*LEGACY, MODERN]), st.text(max_size=12)),
        st.sampled_from(MESSAGES),
        st.one_of(st.none(), st.sampled_from(LEGACY)),
    )
    def test_never_modern_and_never_silent(
        self, header: str | None, message: Message, session: str | None
    ) -> None:
        """What goes on is legacy; what is dropped is no request, which waits for an answer."""
        judged = judge(header, message, session)
        if isinstance(judged, str):
            self.assertIn(judged, LEGACY)
        if isinstance(judged, Dropped):
            self.assertNotIsInstance(message, Request)


class Negotiating(SynchronousTestCase):
    """The revision that a client is answered."""

    def test_table(self) -> None:
        """What we have is echoed; for all else it is our newest."""
        for asked in LEGACY:
            self.assertEqual(negotiate(asked), asked)
        for unknown in ["2026-07-28", "1999-01-01", "", "draft"]:
            self.assertEqual(negotiate(unknown), "2025-11-25")


class Meta(SynchronousTestCase):
    """`_meta` of a modern request."""

    def test_table(self) -> None:
        """Only the revision in `_meta` itself counts, in any spelling."""
        for params, modern in {
            META: True,
            b'{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"2026-07-28"}}': True,
            b'{"_meta":{"io.modelcontextprotocol/\\u0070rotocolVersion":1}}': True,
            b'{"_meta":{"progressToken":1}}': False,
            b'{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}': False,
            b'{"arguments":{"_meta":{"io.modelcontextprotocol/protocolVersion":1}}}': False,
            b'{"_meta":["io.modelcontextprotocol/protocolVersion"]}': False,
            b"{}": False,
            b"[]": False,
            b"": False,
        }.items():
            self.assertEqual(has_modern_meta(params), modern, params)
