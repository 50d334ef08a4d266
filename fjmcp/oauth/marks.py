"""
What can be told of a client that nobody vouches for.

Its name is its own word.  Where the code goes is not: so the marks are made of
the redirect URI, and the name counts only against it.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from fjmcp.oauth import known, redirects
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.known import Assistant, Claim


class Place(Enum):
    """What kind of place a client goes back to; the value is for people who debug."""

    KNOWN = "a callback of a known assistant"
    FORWARDING = "a callback of a known assistant that sends on to a program"
    BESIDE = "a host of a known assistant, and no callback of it"
    STRANGE = "a host that is not known"
    LOOPBACK = "the person's own computer"
    PRIVATE = "a scheme that any program may claim"


@frozen
class Marks:
    """
    What a person should know of a client before they allow it anything.

    :ivar owner: the assistant on whose host the place is, where it is known.
    :ivar posed: the name after which it calls itself without going back to whose it is.
    """

    place: Place
    owner: Assistant | None = None
    posed: Claim | None = None


def marks(name: str, redirect_uri: str) -> Marks:
    """The marks of a client of this name that goes back to this judged URI."""
    if redirect_uri in redirects.PRIVATE:
        return Marks(Place.PRIVATE)
    if redirects.is_loopback(redirect_uri):
        # Claude Code is there, too: a name proves nothing, and refutes nothing.
        return Marks(Place.LOOPBACK)
    owner, called = known.at_host(redirect_uri), known.called(name)
    posed = called[0] if called and owner not in {each.assistant for each in called} else None
    return Marks(_hosted(redirect_uri, owner), owner, posed)


def _hosted(redirect_uri: str, owner: Assistant | None) -> Place:
    if owner is None:
        return Place.STRANGE
    if known.assistant(redirect_uri) is None:
        return Place.BESIDE
    return Place.FORWARDING if owner.forwards else Place.KNOWN


def may_redirect_unseen(client: Client, redirect_uri: str) -> bool:
    """
    Whether a browser may be sent to this judged URI before its person has seen anything.

    Anybody can register a client, with any page that they like to lead people to.
    """
    # RFC 9700 §4.11.2: the server "SHOULD only automatically redirect the user agent if it
    # trusts the redirect URI".  What forwards to wherever `state` says is an open redirector,
    # whoever vouches for it.
    if known.forwards(redirect_uri):
        return False
    return (
        client.source is Source.CONFIGURED
        or known.assistant(redirect_uri) is not None
        or redirects.is_loopback(redirect_uri)
    )
