"""
Sessions: the `Mcp-Session-Id` of revisions up to 2025-11-25.

A session belongs to an account and a client, not to a token or a grant
(design D4).  It holds no child: it knows the opening with which one is found
or started, and what its client was told, which a successor must keep.

It is a row from its first request after `initialize` on, so it outlives its
child, this process and its upgrade (design D2); an id that is never used
again costs no row.  What is here in memory is a copy, and when it was last
used.  Ids are kept only as digests.

A copy leaves memory when the grant that it was last used under ends, if its row
says all, or when its account has too many; the row serves the id then.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.callers import Caller
from fjmcp.mcp.opening import PLAIN, Opened, Opening, compatible, read_result
from fjmcp.refusals import (
    OTHER_ACCOUNTS_SESSION,
    OTHER_CLIENTS_SESSION,
    UNKNOWN_SESSION,
    McpRefusal,
)
from fjmcp.store.queries import sessions
from fjmcp.store.queries.sessions import SessionRow
from fjmcp.store.transactions import Cursor, Store, StoreDown

_ID_BYTES: Final = 24
"""192 bits, URL-safe: visible ASCII, as the specification wants it."""

_ID_LENGTH: Final = 128
"""Longer than any id of ours; nothing longer is looked at."""


@define(eq=False)
class Session:
    """
    One session of one client of one account.

    :ivar opening: what a child of it is told first.
    :ivar opened: what its client was answered.
    :ivar used_at: epoch seconds.
    :ivar digest: of its id.
    :ivar kept: whether its row says what it says, or is being told.
    :ivar has_row: whether it has one.
    :ivar grant_id: the grant that it was last used under.
    :ivar personal: whether it has a child of its own from here on (design D1).
    :ivar refused_at: when the store last did not take it.
    :ivar released: whether its row alone is left of it, and must be looked up.
    :ivar unheard: notifications that its client is to hear on its next stream.
    """

    digest: bytes
    account_id: int
    client_id: str
    opening: Opening
    opened: Opened
    created_at: float
    used_at: float
    kept: bool = False
    has_row: bool = False
    released: bool = field(default=False, init=False)
    refused_at: float = field(default=-math.inf, init=False)
    grant_id: str = field(default="", init=False)
    personal: bool = field(default=False, init=False)
    _build: tuple[str, str] = field(init=False)

    @_build.default
    def _first_build(self) -> tuple[str, str]:
        return _build(self.opened)

    unheard: set[str] = field(factory=set, init=False)

    @classmethod
    def of_row(cls, row: SessionRow) -> Session | None:
        """The session that a row keeps; None if it holds what is no answer to `initialize`."""
        opened = read_result(row.told)
        if opened is None:
            return None
        return cls(
            row.digest,
            row.account_id,
            row.client_id,
            row.opening,
            opened,
            row.created_at,
            row.used_at,
            kept=True,
            has_row=True,
        )

    def row(self) -> SessionRow:
        """What is kept of it."""
        return SessionRow(
            self.digest,
            self.account_id,
            self.client_id,
            self.opening,
            self.opened.result,
            self.created_at,
            self.used_at,
        )

    @property
    def revision(self) -> str:
        """The revision that was negotiated."""
        return self.opened.revision

    @property
    def never_used(self) -> bool:
        """Whether its client never came back after `initialize`."""
        return not self.kept and self.refused_at == -math.inf

    def check_successor(self, opened: Opened) -> bool:
        """
        Whether a child that answered `opened` can serve it: the same revision,
        and every capability that the client was told of (design D2).

        If not, the session must end.
        """
        return compatible(self.opened, opened)

    def note_build(self, opened: Opened) -> bool:
        """
        A child that answered `opened` serves it; whether that is another build
        than before, whose tools may be others (design D2).
        """
        before, self._build = self._build, _build(opened)
        return before != self._build


_Group = OrderedDict[bytes, Session]
"""By digest, the longest unused one first."""

K = TypeVar("K")


def _build(opened: Opened) -> tuple[str, str]:
    return opened.server_name, opened.server_version


@define(eq=False)
class Sessions:
    """
    The sessions of this process.

    :ivar unknown: what an id that is none gets; an operator may choose 410.
    :ivar on_end: told of each session that has ended, or makes room in memory.
    :ivar in_use: the digests of those of an account that have a stream, or a
        child of their own.
    """

    log = Logger()
    _store: Store
    _clock: IReactorTime
    unknown: McpRefusal = UNKNOWN_SESSION
    on_end: Callable[[Session], None] = field(default=lambda session: None, init=False)
    in_use: Callable[[int], Collection[bytes]] = field(default=lambda account_id: (), init=False)
    _groups: dict[tuple[int, str], _Group] = field(factory=dict, init=False)
    _of_account: dict[int, _Group] = field(factory=dict, init=False)
    _by_digest: dict[bytes, Session] = field(factory=dict, init=False)
    _by_grant: dict[str, set[Session]] = field(factory=dict, init=False)
    _used: dict[bytes, float] = field(factory=dict, init=False)
    """When sessions were last used, where their rows do not say so yet."""
    _forgets: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._by_digest)

    def open(self, caller: Caller, opening: Opening, opened: Opened, id: str | None = None) -> str:
        """
        A session begins; its id, which only the client knows.

        The longest unused one of the account and client, or of the account, makes room.

        :param id: what `mint` gave, if the id was needed before.
        """
        id = id or mint()
        now = self._clock.seconds()
        account, client = caller.account_id, caller.client_id
        session = Session(digest_of(id), account, client, opening, opened, now, now)
        self._hold(session)
        self.note(session, caller.grant_id)
        return id

    async def find(self, id: str, account_id: int, client_id: str) -> Session | McpRefusal:
        """
        The session with this id, if it is this account's and client's.

        Whose it is otherwise is told only in so far as design D4 says: 403 to
        another account, 404 to another client.

        :raises StoreDown: it is not in memory and the store cannot be read.
        """
        session = await self._look_up(digest_of(id))
        now = self._clock.seconds()
        if session is None:
            return self.unknown
        if session.account_id != account_id:
            return OTHER_ACCOUNTS_SESSION
        if session.client_id != client_id:
            return OTHER_CLIENTS_SESSION
        if _over(session, now):
            self._remove(session.digest)
            return self.unknown
        session.used_at = now
        self._groups[(account_id, client_id)].move_to_end(session.digest)
        self._of_account[account_id].move_to_end(session.digest)
        if session.kept:
            self._used[session.digest] = now
        elif not 0 <= now - session.refused_at < limits.SESSION_KEEP:
            await self.keep(session)
        return session

    async def keep(self, session: Session) -> None:
        """Let the row say what the session says; while the store is down, memory must do."""
        session.kept = True
        used = self.take_uses()
        spared = self.in_use(session.account_id)
        try:
            made_room = await self._store.write(_keep, session.row(), used, spared)
        except StoreDown as down:
            session.kept = False
            session.refused_at = self._clock.seconds()
            self.return_uses(used)
            self.log.warn("session is not kept yet", error=str(down))
            return
        session.has_row = True
        for digest in made_room:
            if digest in self._by_digest:
                self._remove(digest)

    async def reopen(self, session: Session, opening: Opening) -> None:
        """
        What its successors' children are told has changed, and its row with it.

        A session that has ended stays ended.
        """
        session.opening = opening
        if self._by_digest.get(session.digest) is session:
            await self.keep(session)

    def held(self, digest: bytes) -> Session | None:
        """The session with the id of this digest, if this process holds it."""
        return self._by_digest.get(digest)

    async def forget(self, id: str, account_id: int, client_id: str) -> Session | McpRefusal:
        """
        End a session, as its client asks; what `find` refuses stays.

        :raises StoreDown: it may come back after a restart.
        """
        session = await self.find(id, account_id, client_id)
        if isinstance(session, Session):
            if session.digest in self._by_digest:
                self._remove(session.digest)
            self._forgets += 1
            await self._store.write(sessions.forget, session.digest)
        return session

    def take_uses(self) -> dict[bytes, float]:
        """When sessions were last used, where their rows do not say so: whoever takes it writes."""
        used, self._used = self._used, {}
        return used

    def return_uses(self, used: Mapping[bytes, float]) -> None:
        """What was taken could not be written."""
        self._used = {**used, **self._used}

    async def flush(self) -> None:
        """Write down when sessions were last used."""
        used = self.take_uses()
        if not used:
            return
        try:
            await self._store.write(sessions.touch, used)
        except StoreDown:
            self.return_uses(used)
            raise

    async def expire(self) -> None:
        """Drop the sessions that nobody used for `limits.SESSION_LIFE`, or ever."""
        await self.flush()
        now = self._clock.seconds()
        # What comes without a session's id has the opening of the latest (`latest_opening`).
        latest = {next(reversed(group)) for group in self._groups.values()}
        for session in list(self._by_digest.values()):
            unused = session.never_used and session.created_at + limits.SESSION_UNUSED <= now
            if _over(session, now) or (unused and session.digest not in latest):
                self._remove(session.digest)
        dropped = await self._store.write(sessions.expire, now)
        if dropped:
            self.log.info("sessions dropped that nobody used", count=dropped)

    def note(self, session: Session, grant_id: str) -> bool:
        """
        A session is used under this grant, as it may be under another after a sign-in.

        False if it has ended since it was found, or was released.
        """
        if self._by_digest.get(session.digest) is not session:
            return False
        if session.grant_id != grant_id:
            self._leave_grant(session)
            session.grant_id = grant_id
            self._by_grant.setdefault(grant_id, set()).add(session)
        return True

    def of_grant(self, grant_id: str) -> list[Session]:
        """The sessions last used under this grant."""
        return list(self._by_grant.get(grant_id, ()))

    def grants(self) -> set[str]:
        """`broker.endings`: none, since a session needs no grant."""
        return set()

    async def end_grant(self, grant_id: str, refusal: McpRefusal) -> None:
        """
        `broker.endings`: the sessions last used under a grant leave memory.

        Their rows stay: under another grant they go on.  One that was never
        used has none, and ends.
        """
        ours = self.of_grant(grant_id)
        in_use = self.in_use(ours[0].account_id) if ours else ()
        for session in ours:
            if session.digest in in_use:
                # Under another grant: it was used by turns.
                continue
            if session.has_row or session.never_used:
                session.released = session.has_row
                self._let_go(session)

    def latest_opening(self, account_id: int, client_id: str) -> Opening:
        """
        For a request without a session: the opening of the session used last,
        or a plain one (design D3).
        """
        group = self._groups.get((account_id, client_id))
        return next(reversed(group.values())).opening if group else PLAIN

    async def _look_up(self, digest: bytes) -> Session | None:
        session = self._by_digest.get(digest)
        if session is not None:
            return session
        forgets = self._forgets
        row = await self._store.read(sessions.find, digest)
        # Another request may have brought it here meanwhile, or ended it.
        session = self._by_digest.get(digest)
        if session is not None or row is None:
            return session
        if forgets != self._forgets:
            return await self._look_up(digest)
        session = Session.of_row(row)
        if session is not None:
            self._hold(session)
            self.log.debug("session taken up again", account=session.account_id)
        return session

    def _hold(self, session: Session) -> None:
        group = self._groups.setdefault((session.account_id, session.client_id), OrderedDict())
        group[session.digest] = self._by_digest[session.digest] = session
        now = self._clock.seconds()
        while len(group) > limits.SESSIONS_PER_CONNECTION or _over(next(iter(group.values())), now):
            oldest = next(iter(group))
            if oldest == session.digest:
                break
            self._evict(oldest)
        ours = self._of_account.setdefault(session.account_id, OrderedDict())
        ours[session.digest] = session
        if len(ours) > limits.SESSIONS_PER_ACCOUNT:
            spared = {*self.in_use(session.account_id), session.digest}
            # Streams and children of an account are far fewer than this.
            unused = next((digest for digest in ours if digest not in spared), None)
            if unused is not None:
                self._evict(unused)

    def _evict(self, digest: bytes) -> None:
        session = self._by_digest[digest]
        session.released = session.has_row
        self._remove(digest)

    def _remove(self, digest: bytes) -> None:
        session = self._by_digest[digest]
        self._let_go(session)
        self.on_end(session)

    def _let_go(self, session: Session) -> None:
        del self._by_digest[session.digest]
        _take_out(self._groups, (session.account_id, session.client_id), session)
        _take_out(self._of_account, session.account_id, session)
        self._leave_grant(session)

    def _leave_grant(self, session: Session) -> None:
        used = self._by_grant.get(session.grant_id, set())
        used.discard(session)
        if not used:
            self._by_grant.pop(session.grant_id, None)


def _keep(
    cursor: Cursor, row: SessionRow, used: Mapping[bytes, float], spared: Collection[bytes]
) -> list[bytes]:
    # First: which of them make room depends on it.
    sessions.touch(cursor, used)
    return sessions.keep(cursor, row, spared)


def _take_out(groups: dict[K, _Group], key: K, session: Session) -> None:
    group = groups[key]
    del group[session.digest]
    if not group:
        del groups[key]


def _over(session: Session, now: float) -> bool:
    return session.used_at + limits.SESSION_LIFE <= now


def mint() -> str:
    """An id for a session."""
    return secrets.token_urlsafe(_ID_BYTES)


def digest_of(id: str) -> bytes:
    """What is kept of an id, and names the session among us."""
    # An id of a client may be any text, half of a surrogate pair included.
    return hashlib.sha256(id[:_ID_LENGTH].encode("utf-8", "surrogatepass")).digest()
