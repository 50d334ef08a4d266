"""Server-sent events (WHATWG HTML §9.2), as Streamable HTTP uses them."""

from __future__ import annotations

from typing import Final

COMMENT: Final = b":\n\n"
"""Keeps a silent stream open; clients don't see it."""


def event(data: bytes, id: str | None = None, name: str = "message") -> bytes:
    """
    One event.

    A message is one line.  If there were line ends in `data`, the client would
    hear them as they are, and not a second event.
    """
    lines = b"\n".join(b"data: " + line for line in data.splitlines() or [b""])
    return b"%bevent: %b\n%b\n\n" % (_id(id), _field(name), lines)


def priming(id: str) -> bytes:
    """
    The first event of a stream, from which a client can resume (2025-11-25
    basic/transports).  Clients of older revisions take it for a message.
    """
    return b"%bdata: \n\n" % _id(id)


def retry(milliseconds: int) -> bytes:
    """How long the client should wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds


def _id(id: str | None) -> bytes:
    return b"" if id is None else b"id: %b\n" % _field(id)


def _field(value: str) -> bytes:
    if not value.isprintable():
        raise ValueError("a field of an event is one printable line")
    return value.encode()
