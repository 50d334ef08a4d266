"""
`/mcp`: one message in, its answer out (design §3, "One POST /mcp").

::

    POST    bearer -> message -> session and revision -> child -> answer
    GET     bearer -> session -> the stream of what is said unasked
    DELETE  bearer -> session, which ends; a child of its own drains, a shared one stays
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from fjmcp import limits
from fjmcp.broker.again import Again, Readers
from fjmcp.broker.callers import Caller
from fjmcp.broker.calls import Asker
from fjmcp.broker.links import Link
from fjmcp.broker.personal import Personal
from fjmcp.broker.sessions import Session, Sessions
from fjmcp.mcp import events, opening, revisions, wire
from fjmcp.mcp.conversation import CANCELLED, cancelled_id
from fjmcp.refusals import (
    CHILD_START_FAILED,
    NO_EVENTS,
    NO_STREAM,
    NOT_ACCEPTABLE,
    NOTICE_WITH_ID,
    SESSION_REQUIRED,
    STORE_DOWN,
    UNKNOWN_REVISION,
    WRONG_CONTENT_TYPE,
    McpRefusal,
)
from fjmcp.store.transactions import StoreDown
from fjmcp.tasks import Tasks
from fjmcp.web.channel import SiteRequest
from fjmcp.web.gate import Gate
from fjmcp.web.routes import RefusedRequest, Route, Tongue, route
from fjmcp.web.stream import Answer, Form, dress
from fjmcp.web.streams import TOOLS_CHANGED, Streams
from fjmcp.web.unread import Unread

SESSION: Final = b"mcp-session-id"
REVISION: Final = b"mcp-protocol-version"

Answered = bytes | McpRefusal | RefusedRequest | None

EVENTS: Final = "text/event-stream"
_READS_EVENTS: Final = (EVENTS, "text/*")

INITIALIZE: Final = "initialize"
DISCOVER: Final = "server/discover"


@frozen
class _Said:
    """One POST that was understood: who, in which session, what."""

    request: SiteRequest
    caller: Caller
    session: Session | None
    form: Form


@define(eq=False)
class _Call:
    """
    A call in flight, until its child has answered.

    Its client may leave before: "Disconnection SHOULD NOT be interpreted as
    the client cancelling its request" (2025-11-25/basic/transports).  The call
    goes on then, and a cancellation that comes after is still heard.
    """

    answer: Asker
    over: Callable[[_Call], None]
    asked: Again = field(init=False)

    def said(self, line: bytes) -> bool:
        """What comes before its end."""
        return self.answer.said(line)

    def answered(self, line: bytes) -> None:
        """Its end."""
        self.over(self)
        self.answer.answered(line)


@define(eq=False)
class _Large:
    """A call whose request counts until its child has answered (`fjmcp.web.bodies`)."""

    _asker: Asker
    _done: Callable[[], None]

    def said(self, line: bytes) -> bool:
        """What comes before its end."""
        return self._asker.said(line)

    def answered(self, line: bytes) -> None:
        """Its end."""
        self._done()
        self._asker.answered(line)


@define(eq=False)
class Endpoint:
    """The MCP endpoint.  Each method answers the request that it is given."""

    log = Logger()
    _gate: Gate
    _sessions: Sessions
    _personal: Personal
    _streams: Streams
    _unread: Unread
    _clock: IReactorTime
    require_session_id: bool
    _tasks: Tasks = field(factory=Tasks, init=False)
    _readers: Readers = field(factory=Readers, init=False)
    _calls: dict[tuple[Session, bytes], _Call] = field(factory=dict, init=False)
    """The calls in flight of each session by the client's id: what a cancellation names."""

    # --- the three methods ------------------------------------------------------

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [
            route(
                "/mcp",
                speaks=Tongue.MCP,
                get=self.get,
                post=self.post,
                delete=self.delete,
                ceiling=limits.MCP_BODY,
                whose=self._gate.glance,
                cors=True,
            )
        ]

    async def post(self, request: SiteRequest) -> Answered:
        """A message of a client."""
        caller = await self._gate.caller(request)
        if isinstance(caller, McpRefusal):
            return caller
        form = accepted(request)
        if isinstance(form, McpRefusal):
            return form
        body = request.take_body(caller.account_id)
        if isinstance(body, McpRefusal):
            return body
        message = wire.read(body)
        # It may have megabytes, and the message is a copy of them.
        del body
        if isinstance(message, McpRefusal):
            return message
        try:
            answer = await self._answer(request, caller, form, message)
        finally:
            # If a child has it, that was handed over.
            request.let_go()
        if isinstance(answer, McpRefusal) and isinstance(message, wire.Request):
            return RefusedRequest(answer, message.id)
        return answer

    async def _answer(
        self, request: SiteRequest, caller: Caller, form: Form, message: wire.Message
    ) -> bytes | McpRefusal | None:
        session = await self._session(request, caller, message)
        if isinstance(session, McpRefusal):
            return session
        told = session.revision if session else None
        revision = revisions.judge(header(request, REVISION), message, told)
        if isinstance(revision, McpRefusal):
            return revision
        said = _Said(request, caller, session, form)
        if isinstance(message, wire.Request):
            return await self._serve(said, message)
        self._take(said, message)
        request.setResponseCode(202)
        return b""

    async def get(self, request: SiteRequest) -> Answered:
        """A client that wants to hear what is said unasked."""
        caller = await self._gate.caller(request)
        if isinstance(caller, McpRefusal):
            return caller
        name = header(request, SESSION)
        if name is None:
            request.setHeader(b"allow", b"POST, DELETE, OPTIONS")
            return NO_STREAM
        session = await self._find(request, name, caller)
        if isinstance(session, McpRefusal):
            return session
        if not revisions.known(header(request, REVISION)):
            return UNKNOWN_REVISION
        if not accept(request).quality(EVENTS):
            return NO_EVENTS
        return self._streams.open(request, session, caller)

    async def delete(self, request: SiteRequest) -> Answered:
        """A client that has done with its session (2025-11-25/basic/transports)."""
        caller = await self._gate.caller(request)
        if isinstance(caller, McpRefusal):
            return caller
        name = header(request, SESSION)
        if name is None:
            return SESSION_REQUIRED
        if not revisions.known(header(request, REVISION)):
            return UNKNOWN_REVISION
        session = await self._sessions.forget(name, caller.account_id, caller.client_id)
        if isinstance(session, McpRefusal):
            return session
        self.log.info("session ended", reason="deleted", grant=caller.grant_id)
        request.setResponseCode(204)
        return b""

    # --- what a message is about --------------------------------------------------

    async def _session(
        self, request: SiteRequest, caller: Caller, message: wire.Message
    ) -> Session | McpRefusal | None:
        name = header(request, SESSION)
        opens = isinstance(message, wire.Request) and message.method in (INITIALIZE, DISCOVER)
        if opens:
            return None
        if name is None:
            return SESSION_REQUIRED if self.require_session_id else None
        return await self._find(request, name, caller)

    async def _find(self, request: SiteRequest, name: str, caller: Caller) -> Session | McpRefusal:
        session = await self._sessions.find(name, caller.account_id, caller.client_id)
        if isinstance(session, McpRefusal):
            return session
        # The store may have been asked for it; grant and session may have ended meanwhile,
        # and what ends a grant does not see a request that begins after it.
        again = await self._gate.caller(request)
        if isinstance(again, McpRefusal):
            return again
        if self._sessions.note(session, caller.grant_id):
            return session
        if session.released:
            # Another grant of it has ended just now; its row is there.
            return await self._find(request, name, caller)
        return self._sessions.unknown

    def _take(self, said: _Said, message: wire.Notice | wire.Reply) -> None:
        """
        A notice, or an answer to a child's question: there is nothing to answer.

        Without a session, as a modern one is, it goes nowhere.
        """
        if said.session is None:
            return
        if isinstance(message, wire.Reply) or message.method != CANCELLED:
            self._personal.hear(said.caller, said.session, message)
            return
        id = cancelled_id(message.params)
        call = None if id is None else self._calls.get((said.session, id))
        if call is not None:
            call.asked.link.cancel(call.asked.number, message.params)

    async def _serve(self, said: _Said, message: wire.Request) -> bytes | McpRefusal | None:
        match message.method:
            case "initialize":
                return await self._initialize(said, message)
            case "ping":
                return self._give(said, wire.encode_reply(message.id, result=b"{}"))
            case method if method.startswith("notifications/"):
                # A cancellation would name a number of ours: another's call at a shared child.
                return NOTICE_WITH_ID
        answer = self._personal.answer(said.session, message)
        if isinstance(answer, bytes):
            return self._give(said, answer)
        return answer or await self._call(said, message)

    # --- opening a session ----------------------------------------------------------

    async def _initialize(self, said: _Said, message: wire.Request) -> bytes | McpRefusal:
        asked = opening.read_initialize(message.params)
        if isinstance(asked, McpRefusal):
            return asked
        begun = await self._personal.open(said.caller, asked)
        if isinstance(begun, McpRefusal):
            return begun
        name, opened = begun
        said.request.setHeader(SESSION, name.encode("ascii"))
        return self._give(said, wire.encode_reply(message.id, result=opened.result))

    # --- a call -----------------------------------------------------------------------

    async def _call(self, said: _Said, message: wire.Request) -> McpRefusal | None:
        # A client that leaves while there is no child yet cancels this coroutine;
        # its call is not made then.
        account = said.caller.account_id
        answer = Answer(said.request, self._clock, self._unread, account, said.form)
        link: Link | McpRefusal = CHILD_START_FAILED
        withdrawn = False
        try:
            link = await self._link(said, message)
        except StoreDown as down:
            # Not for the door, which does not know that a stream may have begun.
            self.log.warn("store down", error=str(down), path=said.request.plain_path)
            link = STORE_DOWN
        finally:
            if isinstance(link, McpRefusal):
                withdrawn = answer.withdraw()
        if isinstance(link, McpRefusal):
            if withdrawn:
                return link
            answer.answered(wire.error_reply(message.id, link))
        else:
            self._ask(said, message, link, answer)
        return None

    async def _link(self, said: _Said, message: wire.Request) -> Link | McpRefusal:
        session, caller = said.session, said.caller
        link = await self._personal.link_for(caller, session, message)
        if isinstance(link, McpRefusal) or session is None:
            return link
        if not session.check_successor(link.opened):
            name = header(said.request, SESSION) or ""
            await self._sessions.forget(name, caller.account_id, caller.client_id)
            self.log.info("session ended", reason="no successor", grant=caller.grant_id)
            return self._sessions.unknown
        if session.note_build(link.opened):
            self._streams.tell(session, TOOLS_CHANGED)
        return link

    def _ask(self, said: _Said, message: wire.Request, link: Link, answer: Answer) -> None:
        if said.session is None:
            self._again(said, message, link, answer, answer).ask()
            return
        heard_by = self._personal.asker(said.session, link, message, answer)
        key = said.session, wire.same_id(message.id)

        def over(call: _Call) -> None:
            if self._calls.get(key) is call:
                del self._calls[key]

        call = self._calls[key] = _Call(heard_by, over)
        call.asked = self._again(said, message, link, call, answer)
        call.asked.ask()

    def _again(
        self, said: _Said, message: wire.Request, link: Link, asker: Asker, answer: Answer
    ) -> Again:
        done = said.request.hand_over()
        if done is not None:
            asker = _Large(asker, done)
        return Again(
            link,
            message,
            asker,
            self._readers,
            another=lambda request: self._link(said, request),
            gone=lambda: answer.over,
            tasks=self._tasks,
        )

    def _give(self, said: _Said, line: bytes) -> bytes:
        """An answer of ours, in the form that the client takes."""
        if said.form is Form.STREAM:
            dress(said.request)
            return events.event(line)
        said.request.setHeader(b"content-type", b"application/json")
        return line


def accepted(request: SiteRequest) -> Form | McpRefusal:
    """What the client sends and takes: its Content-Type and Accept headers, judged."""
    content_type, _ = parse_options_header(header(request, b"content-type") or "")
    if content_type.lower() != "application/json":
        return WRONG_CONTENT_TYPE
    takes = accept(request)
    # A bare */* takes anything, but nobody who sends it reads events.
    stream = any(kind in _READS_EVENTS and quality for kind, quality in takes)
    if takes.quality("application/json"):
        return Form.EITHER if stream else Form.JSON
    return Form.STREAM if stream else NOT_ACCEPTABLE


def accept(request: SiteRequest) -> MIMEAccept:
    """What the client takes.  The header may come in several lines, or not at all."""
    lines = request.requestHeaders.getRawHeaders(b"accept", [])
    text = b", ".join(lines).decode("ascii", "replace")
    return parse_accept_header(text.strip() or "*/*", MIMEAccept)


def header(request: SiteRequest, name: bytes) -> str | None:
    """One header; None without it, or where it is not ASCII or given twice."""
    values = request.requestHeaders.getRawHeaders(name, [])
    if len(values) != 1:
        return None if not values else ""
    return values[0].decode("ascii", "replace").strip()
