"""
The streams that clients open with GET /mcp, to hear what a child says unasked.

A session has at most one; a newer one takes the place of the older, and of the
oldest one of an account that has too many.  It holds no child.  What is for a
session without a stream waits in the session.  It is one of the three places
where state lives (design §3).

A child of a grant is shared by its sessions with one opening: that a list has
changed is for each of them, a log line is for none.  What a session's own child
says is for that session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.callers import Caller
from fjmcp.broker.links import Link
from fjmcp.broker.sessions import Session, Sessions
from fjmcp.mcp import events, wire
from fjmcp.mcp.wire import Notice
from fjmcp.refusals import SHUTTING_DOWN, McpRefusal
from fjmcp.tally import Seldom
from fjmcp.web.channel import SiteRequest
from fjmcp.web.outlet import Outlet
from fjmcp.web.stream import Events
from fjmcp.web.unread import Unread

TOOLS_CHANGED: Final = "notifications/tools/list_changed"

LIST_CHANGES: Final = frozenset(
    {
        TOOLS_CHANGED,
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)
"""What waits for a stream.  Saying one of them twice says nothing more, which
bounds what waits."""


@define(eq=False)
class Stream:
    """One open stream of one session, under the grant that opened it."""

    session: Session
    grant_id: str
    _ended: Callable[[Stream], None]
    _outlet: Outlet = field(init=False)
    _events: Events = field(init=False)
    _last: IDelayedCall | None = field(default=None, init=False)

    def begin(
        self, request: SiteRequest, clock: IReactorTime, unread: Unread, until: float
    ) -> None:
        """
        Write the head.

        :param until: when the client's token ends, and the stream with it,
            epoch seconds.
        """
        self._outlet = Outlet(request, clock, self._end, unread, self.session.account_id)
        self._events = Events(request, clock, self._outlet)
        request.notifyFinish().addErrback(lambda _: self._outlet.lost())
        self._last = clock.callLater(max(0.0, until - clock.seconds()), self._expire)
        self._events.begin()

    def tell(self, method: str) -> None:
        """Send a notification without params."""
        self.send(wire.encode_notice(method))

    def send(self, line: bytes) -> None:
        """Send a JSON-RPC message."""
        self._events.send(line)

    def close(self, last: bytes = b"") -> None:
        """End it at once."""
        self._end()
        self._outlet.close(last)

    def _expire(self) -> None:
        self._last = None
        self.close()

    def _end(self) -> None:
        self._events.calm()
        if self._last is not None:
            self._last.cancel()
            self._last = None
        self._ended(self)


@define(eq=False)
class Streams:
    """The open streams of this process."""

    log = Logger()
    _sessions: Sessions
    _clock: IReactorTime
    _unread: Unread
    _open: dict[Session, Stream] = field(factory=dict, init=False)
    _of_account: dict[int, dict[Session, Stream]] = field(factory=dict, init=False)
    """The same by account, the oldest first."""
    _told: Seldom = field(factory=lambda: Seldom(limits.METERED), init=False)
    _stopped: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._open)

    def open(self, request: SiteRequest, session: Session, caller: Caller) -> McpRefusal | None:
        """Answer a GET with the stream of a session, beginning with what waits for it."""
        if self._stopped:
            return SHUTTING_DOWN
        self.close(session)
        self._make_room(session.account_id)
        stream = Stream(session, caller.grant_id, self._ended)
        self._open[session] = stream
        self._of_account.setdefault(session.account_id, {})[session] = stream
        stream.begin(request, self._clock, self._unread, caller.expires_at)
        for method in sorted(session.unheard):
            stream.tell(method)
        session.unheard.clear()
        return None

    def sessions(self, account_id: int) -> set[bytes]:
        """The sessions of an account that have a stream."""
        return {session.digest for session in self._of_account.get(account_id, ())}

    def close(self, session: Session) -> None:
        """End the stream of a session, if there is one."""
        stream = self._open.get(session)
        if stream is not None:
            stream.close()

    def tell(self, session: Session, method: str) -> None:
        """Let the client of a session hear one of LIST_CHANGES, soon or when it opens a stream."""
        stream = self._open.get(session)
        if stream is not None:
            stream.tell(method)
        else:
            session.unheard.add(method)

    def link_said(self, link: Link, notice: Notice) -> None:
        """The pool: a child said what answers nobody."""
        if notice.method not in LIST_CHANGES:
            return
        for session in self._sessions.of_grant(link.grant_id):
            if _serves(link, session):
                self.tell(session, notice.method)

    def link_tells(self, link: Link, line: bytes) -> bool:
        """The pool: a session's own child has a message for it; whether there is a stream."""
        session = self._sessions.held(link.owner)
        stream = None if session is None else self._open.get(session)
        if stream is None or stream.grant_id != link.grant_id:
            return False
        stream.send(line)
        return True

    def grants(self) -> set[str]:
        """`broker.endings`: the grants that opened a stream."""
        return {stream.grant_id for stream in self._open.values()}

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        """`broker.endings`: end the streams of a grant; a stream has no room for a refusal."""
        for stream in list(self._open.values()):
            if stream.grant_id == grant_id:
                stream.close()

    def stop(self) -> None:
        """End all streams, in such a way that their clients come back later; open no more."""
        self._stopped = True
        last = events.retry(int(limits.STREAM_RETRY * 1000))
        for stream in list(self._open.values()):
            stream.close(last)

    def _make_room(self, account_id: int) -> None:
        ours = self._of_account.get(account_id, {})
        if len(ours) < limits.STREAMS_PER_ACCOUNT:
            return
        if self._told.may_say(str(account_id), self._clock.seconds()):
            self.log.warn("account has too many streams, the oldest is closed", account=account_id)
        # Whoever has so many comes back for each, and closes another by it: not at once.
        next(iter(ours.values())).close(events.retry(int(limits.STREAM_CROWDED * 1000)))

    def _ended(self, stream: Stream) -> None:
        session = stream.session
        del self._open[session]
        ours = self._of_account[session.account_id]
        del ours[session]
        if not ours:
            del self._of_account[session.account_id]


def _serves(link: Link, session: Session) -> bool:
    if link.owner:
        return link.owner == session.digest
    return not session.personal and link.opening == session.opening
