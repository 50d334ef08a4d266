"""
Headers and envelope to era and revision, or to the refusal (design D25).

Revisions up to 2025-11-25 are *legacy*: they open with `initialize`.  From
2026-07-28 on they are *modern*, which is not served; a client that tries it
first gets an answer from which it falls back to `initialize`.
"""

from __future__ import annotations

from typing import Final, NewType

from attrs import frozen

from fjmcp import refusals
from fjmcp.mcp import members
from fjmcp.mcp.wire import Message, Reply, Request
from fjmcp.refusals import McpRefusal

Revision = NewType("Revision", str)

LEGACY: Final = (
    Revision("2025-11-25"),
    Revision("2025-06-18"),
    Revision("2025-03-26"),
    Revision("2024-11-05"),
)
"""What we speak, newest first."""

MODERN: Final = Revision("2026-07-28")

UNSAID: Final = Revision("2025-03-26")
"""Without a header and a session (2025-11-25/basic/transports, "Protocol
Version Header")."""


@frozen
class Dropped:
    """A message that is answered 202 and goes nowhere."""

    reason: str


def negotiate(asked: str) -> Revision:
    """The revision for a client that asks for `asked`: that one, else our newest."""
    return Revision(asked) if asked in LEGACY else LEGACY[0]


def known(header: str | None) -> bool:
    """Whether the value of MCP-Protocol-Version, if there is one, names a revision."""
    return header is None or header == MODERN or header in LEGACY


def judge(
    header: str | None, message: Message, session_revision: str | None
) -> Revision | Dropped | McpRefusal:
    """
    The revision that `message` is in.

    `header` is the value of MCP-Protocol-Version, None without one;
    `session_revision` that of the session that the message belongs to, None
    without one.
    """
    if not isinstance(message, Reply) and message.method == "server/discover":
        return _modern(message)
    if not known(header):
        return refusals.UNKNOWN_REVISION
    if session_revision is not None:
        # Clients go on with a modern header, or modern _meta, in a session
        # that is legacy (SparkyFitness#2155, claude-code#93290).
        return Revision(session_revision)
    if header == MODERN:
        return _modern(message)
    if header is not None:
        return Revision(header)
    if not isinstance(message, Reply) and has_modern_meta(message.params):
        return _modern(message)
    return UNSAID


def _modern(message: Message) -> Dropped | McpRefusal:
    return refusals.MODERN if isinstance(message, Request) else Dropped("modern-era")


_MODERN_META = "io.modelcontextprotocol/protocolVersion"


def has_modern_meta(params: bytes) -> bool:
    """Whether `params._meta` names the revision, as each modern request does."""
    if not members.may_have(params, b"io.modelcontextprotocol"):
        return False
    return members.one(members.meta(params), _MODERN_META) != b""
