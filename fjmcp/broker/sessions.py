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
    """

    account_id: int
    client_id: str
    opening: Opening
    opened: Opened
    used_at: float

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


_Group = OrderedDict[bytes, Session]


@define(eq=False)
class Sessions:
    """
    The sessions of this process.

    :ivar unknown: what an id that is none gets; an operator may choose 410.
    """

    _clock: IReactorTime
    unknown: McpRefusal = UNKNOWN_SESSION
    _groups: dict[tuple[int, str], _Group] = field(factory=dict, init=False)
    _by_digest: dict[bytes, Session] = field(factory=dict, init=False)

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
            forgotten, _ = group.popitem(last=False)
            del self._by_digest[forgotten]
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


def _over(session: Session, now: float) -> bool:
    return session.used_at + limits.SESSION_LIFE <= now


def _digest(id: str) -> bytes:
    # An id of a client may be any text, half of a surrogate pair included.
    return hashlib.sha256(id[:_ID_LENGTH].encode("utf-8", "surrogatepass")).digest()
