"""
Which resource a client means (RFC 8707).

There is one.  People paste its URL with a slash too much, or only the host;
clients send what was pasted.  All of these mean the same endpoint, and only
its canonical form is ever stored or told.
"""

from __future__ import annotations

from collections.abc import Sequence

from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.uris import Uri, split
from fjmcp.refusals import RESOURCE_FOREIGN, OAuthRefusal


def canonical(asked: Sequence[str], endpoints: Endpoints) -> str | OAuthRefusal:
    """
    The resource that all of `asked` name; ours if none is asked.

    RFC 8707 §2 lets the parameter repeat.  A token is for one audience, so one name that is
    not ours refuses them all.
    """
    ours = _split(endpoints.resource)
    assert ours is not None
    for each in asked:
        # RFC 8707 §2: "an absolute URI [...] MUST NOT include a fragment component"; one
        # with a fragment does not split.
        named = _split(each)
        if named is None or not _is_alias(named, ours):
            return RESOURCE_FOREIGN
    return endpoints.resource


def _is_alias(named: Uri, ours: Uri) -> bool:
    return (
        (named.scheme, named.name, named.effective_port)
        == (ours.scheme, ours.name, ours.effective_port)
        and named.path in ("", "/", ours.path, f"{ours.path}/")
        and named.query is None
    )


def _split(text: str) -> Uri | None:
    # RFC 3986 §6.2.2.1: scheme and host are case-insensitive.
    scheme, colon, rest = text.partition(":")
    return split(scheme.lower() + colon + rest)
