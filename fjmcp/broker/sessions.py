"""
Sessions: the `Mcp-Session-Id` of revisions up to 2025-11-25.

A session belongs to an account and a client, not to a token or a grant
(design D4).  It holds no child: it knows the opening with which one is found
or started, and what its client was told, which a successor must keep.
Ids are kept only as digests.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from fjmcp import limits
from fjmcp.mcp.opening import PLAIN, Opened, Opening, compatible
from fjmcp.refusals import (
    OTHER_ACCOUNTS_SESSION,
    OTHER_CLIENTS_SESSION,
    UNKNOWN_SESSION,
    McpRefusal,
)

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
    :ivar grant_id: the grant that it was last used under.
    :ivar unheard: notifications that its client is to hear on its next stream.
    """

    account_id: int
    client_id: str
    opening: Opening
    opened: Opened
    used_at: float
    grant_id: str = field(default="", init=False)
    _build: tuple[str, str] = field(init=False)

    @_build.default
    def _first_build(self) -> tuple[str, str]:
        return _build(self.opened)

    unheard: set[str] = field(factory=set, init=False)

    @property
    def revision(self) -> str:
        """The revision that was negotiated."""
        return self.opened.revision

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


def _build(opened: Opened) -> tuple[str, str]:
    return opened.server_name, opened.server_version


@define(eq=False)
class Sessions:
    """
    The sessions of this process.

    :ivar unknown: what an id that is none gets; an operator may choose 410.
    :ivar on_end: told of each session that is no more.
    """

    _clock: IReactorTime
    unknown: McpRefusal = UNKNOWN_SESSION
    on_end: Callable[[Session], None] = field(default=lambda session: None, init=False)
    _groups: dict[tuple[int, str], _Group] = field(factory=dict, init=False)
    _by_digest: dict[bytes, Session] = field(factory=dict, init=False)
    _by_grant: dict[str, set[Session]] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._by_digest)

    def open(self, account_id: int, client_id: str, opening: Opening, opened: Opened) -> str:
        """
        A session begins; its id, which only the client knows.

        The longest unused one of the account and client makes room.
        """
        id = secrets.token_urlsafe(_ID_BYTES)
        digest = _digest(id)
        now = self._clock.seconds()
        session = Session(account_id, client_id, opening, opened, now)
        group = self._groups.setdefault((account_id, client_id), OrderedDict())
        group[digest] = self._by_digest[digest] = session
        while len(group) > limits.SESSIONS_PER_CONNECTION or _over(next(iter(group.values())), now):
            self._remove(next(iter(group)))
        return id

    def find(self, id: str, account_id: int, client_id: str) -> Session | McpRefusal:
        """
        The session with this id, if it is this account's and client's.

        Whose it is otherwise is told only in so far as design D4 says: 403 to
        another account, 404 to another client.
        """
        digest = _digest(id)
        session = self._by_digest.get(digest)
        now = self._clock.seconds()
        if session is None:
            return self.unknown
        if session.account_id != account_id:
            return OTHER_ACCOUNTS_SESSION
        if session.client_id != client_id:
            return OTHER_CLIENTS_SESSION
        if _over(session, now):
            self._remove(digest)
            return self.unknown
        session.used_at = now
        self._groups[(account_id, client_id)].move_to_end(digest)
        return session

    def forget(self, id: str, account_id: int, client_id: str) -> Session | McpRefusal:
        """End a session, as its client asks; what `find` refuses stays."""
        session = self.find(id, account_id, client_id)
        if isinstance(session, Session):
            self._remove(_digest(id))
        return session

    def note(self, session: Session, grant_id: str) -> None:
        """A session is used under this grant, as it may be under another after a sign-in."""
        if session.grant_id != grant_id:
            self._leave_grant(session)
            session.grant_id = grant_id
            self._by_grant.setdefault(grant_id, set()).add(session)

    def of_grant(self, grant_id: str) -> list[Session]:
        """The sessions last used under this grant."""
        return list(self._by_grant.get(grant_id, ()))

    def latest_opening(self, account_id: int, client_id: str) -> Opening:
        """
        For a request without a session: the opening of the session used last,
        or a plain one (design D3).
        """
        group = self._groups.get((account_id, client_id))
        return next(reversed(group.values())).opening if group else PLAIN

    def _remove(self, digest: bytes) -> None:
        session = self._by_digest.pop(digest)
        key = (session.account_id, session.client_id)
        group = self._groups[key]
        del group[digest]
        if not group:
            del self._groups[key]
        self._leave_grant(session)
        self.on_end(session)

    def _leave_grant(self, session: Session) -> None:
        used = self._by_grant.get(session.grant_id, set())
        used.discard(session)
        if not used:
            self._by_grant.pop(session.grant_id, None)


def _over(session: Session, now: float) -> bool:
    return session.used_at + limits.SESSION_LIFE <= now


def _digest(id: str) -> bytes:
    # An id of a client may be any text, half of a surrogate pair included.
    return hashlib.sha256(id[:_ID_LENGTH].encode("utf-8", "surrogatepass")).digest()
