"""What a broker keeps of those who are there: whether it agrees with itself, and is empty."""

from __future__ import annotations

from fjmcp import limits
from fjmcp.daemon.assembly import Parts
from fjmcp.web.channel import SiteRequest


def agrees(parts: Parts) -> None:
    """What is kept twice is the same, and nothing is kept of who is not there."""
    _unread_agrees(parts)
    _streams_agree(parts)
    _sessions_agree(parts)
    assert all(size > 0 for size in parts.site.bodies._held.values()), parts.site.bodies
    for (session, id), call in parts.mcp._calls.items():
        repeats = parts.mcp._tasks._running or call.asked.link.in_flight
        assert repeats, ("a call that no child has", session.digest, id)


def is_empty(parts: Parts) -> None:
    """Nobody is there, and nothing is kept of anybody."""
    agrees(parts)
    kept = {
        "bodies": parts.site.bodies._held,
        "unread": parts.mcp._unread._readers,
        "streams": parts.streams._open,
        "calls": parts.mcp._calls,
        "tickets": parts.pool._tickets,
        "starts": parts.pool._starts,
        "links": parts.pool.links(),
        "sessions": parts.sessions._by_digest,
        "tasks": parts.tasks._running | parts.mcp._tasks._running | parts.pool._tasks._running,
    }
    assert not any(kept.values()), {name: value for name, value in kept.items() if value}


def _unread_agrees(parts: Parts) -> None:
    unread = parts.mcp._unread
    assert unread._readers.keys() == unread._held.keys()
    assert len(unread) == sum(unread._held.values())
    for account, readers in unread._readers.items():
        assert sum(readers.values()) == unread._held[account] <= limits.UNREAD_OF_ACCOUNT
        assert all(reader.left > 0 for reader in readers), readers


def _streams_agree(parts: Parts) -> None:
    streams = parts.streams
    of_accounts = [ours for ours in streams._of_account.values() if ours]
    assert len(of_accounts) == len(streams._of_account)
    assert all(len(ours) <= limits.STREAMS_PER_ACCOUNT for ours in of_accounts)
    assert streams._open == {s: stream for ours in of_accounts for s, stream in ours.items()}
    for session, stream in streams._open.items():
        assert parts.sessions.held(session.digest) is session, "a stream of no session"
        response = stream._outlet._response
        assert isinstance(response, SiteRequest)
        assert not response.gone, "a stream without a reader"


def _sessions_agree(parts: Parts) -> None:
    sessions = parts.sessions
    for groups in (sessions._groups, sessions._of_account):
        assert all(groups.values())
        ours = {digest: s for group in groups.values() for digest, s in group.items()}
        assert ours == sessions._by_digest
    for grant_id, group in sessions._by_grant.items():
        assert group
        assert all(s.grant_id == grant_id and sessions.held(s.digest) is s for s in group)
