"""
Which sessions have a child of their own, and what passes between the two
besides calls (design D1).

::

    shared ──sets a log level, subscribes──> personal
       └──── declared that it can be asked: personal from the start

A session that becomes personal gets a fresh child at that request; its running
calls end on the one that it shared.  It stays personal while this process
knows it; after that its row says whether it must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define
from twisted.logger import Logger

from fjmcp.broker.callers import Caller
from fjmcp.broker.calls import Asker
from fjmcp.broker.links import Link
from fjmcp.broker.pool import Pool
from fjmcp.broker.sessions import Session, Sessions, digest_of, mint
from fjmcp.mcp.conversation import PROGRESS
from fjmcp.mcp.opening import NEEDS_OWN_CHILD, Opened, Opening, Profile, may_share
from fjmcp.mcp.wire import Notice, Reply, Request, encode_reply, read_line
from fjmcp.refusals import CHILD_START_FAILED, NOT_OFFERED, SESSION_REQUIRED, McpRefusal
from fjmcp.tasks import Tasks

ROOTS_CHANGED: Final = "notifications/roots/list_changed"
SET_LEVEL: Final = "logging/setLevel"

_REOPENS: Final = frozenset({*NEEDS_OWN_CHILD, "resources/unsubscribe"})
"""Requests whose success changes what a successor of the child is told."""


@define(eq=False)
class Personal:
    """The sessions of this process and the children that serve them."""

    log = Logger()
    _pool: Pool[Any]
    _sessions: Sessions
    _profile: Profile
    _tasks: Tasks

    # --- which child ----------------------------------------------------------------

    async def open(self, caller: Caller, asked: Opening) -> tuple[str, Opened] | McpRefusal:
        """A client's `initialize`: the id of a session, and what the client is told."""
        id = mint()
        owner = b"" if may_share(asked, self._profile) else digest_of(id)
        opened: Opened | McpRefusal = CHILD_START_FAILED
        try:
            opened = await self._pool.opened_for(caller, asked, owner)
        finally:
            if owner and isinstance(opened, McpRefusal):
                # Nobody will ever know its id.
                self._pool.end_session(owner, CHILD_START_FAILED)
        if isinstance(opened, McpRefusal):
            return opened
        return self._sessions.open(caller, asked, opened, id), opened

    def answer(self, session: Session | None, request: Request) -> bytes | McpRefusal | None:
        """The answer to what no child has to be asked; None if one has to be."""
        if request.method == SET_LEVEL and self._profile.never_logs:
            return encode_reply(request.id, result=b"{}")
        capability = NEEDS_OWN_CHILD.get(request.method)
        if capability is None:
            return None
        if session is None:
            return SESSION_REQUIRED
        # Or a client that sets a level at every server would cost a child each time.
        return None if session.opened.offers(*capability) else NOT_OFFERED

    async def link_for(
        self, caller: Caller, session: Session | None, request: Request
    ) -> Link | McpRefusal:
        """The link that is to be asked; do that without an `await` between."""
        if session is None:
            return await self._pool.link_for(caller, self._latest(caller))
        alone = (
            session.personal
            or request.method in NEEDS_OWN_CHILD
            or not may_share(session.opening, self._profile)
        )
        owner = session.digest if alone else b""
        link = await self._pool.link_for(caller, session.opening, owner)
        if alone and isinstance(link, Link):
            if not session.personal:
                self.log.debug("session has a child of its own", pid=link.pid)
            session.personal = True
            link.catch_up(session.opening)
        return link

    def _latest(self, caller: Caller) -> Opening:
        asked = self._sessions.latest_opening(caller.account_id, caller.client_id)
        # What is nobody's session can be asked nothing (design D3).
        return asked if may_share(asked, self._profile) else Opening(asked.revision, b"{}")

    # --- what passes --------------------------------------------------------------------

    def asker(self, session: Session, link: Link, request: Request, asker: Asker) -> Asker:
        """Who hears the answer: `asker`, after what it changes in the session is kept."""
        if not session.personal or request.method not in _REOPENS:
            return asker
        change = Opening.essence(request)

        async def keep() -> None:
            link.opening = link.opening.after(change)
            opening = session.opening.after(change)
            for own in self._pool.owned(link, session.digest):
                own.catch_up(opening)
            if opening != session.opening:
                await self._sessions.reopen(session, opening)

        return _Reopening(asker, keep, self._tasks)

    def hear(self, caller: Caller, session: Session, message: Notice | Reply) -> None:
        """
        What a client says that asks nothing: an answer to a question, news of
        one, that its roots have changed.  It starts no child (design D3).
        """
        match message:
            case Reply():
                if not any(link.answer(message) for link in self._owned(caller, session)):
                    self.log.debug("client answers what nobody asks", account=caller.account_id)
            case Notice(method=method, params=params) if method == PROGRESS:
                any(link.progress(params) for link in self._owned(caller, session))
            case Notice(method=method) if method == ROOTS_CHANGED:
                for link in self._owned(caller, session):
                    link.tell(message)

    def _owned(self, caller: Caller, session: Session) -> list[Link]:
        return self._pool.owned(caller, session.digest)

    def ended(self, session: Session) -> None:
        """A session has ended, and with it whatever was only for it."""
        self._pool.end_session(session.digest, self._sessions.unknown)


@define(eq=False)
class _Reopening:
    """Hears the answer to a request that changes an opening."""

    _asker: Asker
    _keep: Callable[[], Any]
    _tasks: Tasks

    def said(self, line: bytes) -> bool:
        """What comes before it."""
        return self._asker.said(line)

    def answered(self, line: bytes) -> None:
        """The answer: what it changed is kept before the client knows."""
        reply = read_line(line)
        if isinstance(reply, Reply) and reply.error is None:
            self._tasks.start(self._after_keeping(line), "keeping what a session set")
        else:
            self._asker.answered(line)

    async def _after_keeping(self, line: bytes) -> None:
        try:
            await self._keep()
        finally:
            self._asker.answered(line)
