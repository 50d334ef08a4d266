"""
Whom this server takes as a client, by the address that it comes back to.

An operator says `any`, `known` (the assistants of `fjmcp.oauth.known`, at the
addresses that they are known to use, and programs on the person's own computer),
or names hosts.  An address is proved by where the code goes; a name proves
nothing and does not count.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from fjmcp.oauth import known, redirects
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.uris import split
from fjmcp.refusals import CLIENT_NOT_TAKEN, OAuthRefusal

ANY: Final = "any"
KNOWN: Final = "known"
LOOPBACK: Final = "loopback"


@frozen
class Clientele:
    """
    Which clients are taken.

    :ivar hosts: of redirect URIs and of metadata documents; None for all there are.
    :ivar loopback: whether programs on people's own computers are taken.
    :ivar assistants: whether known assistants are taken besides those hosts: by their callbacks,
        and by the hosts of their documents.
    :ivar trusted: hosts that people trust for another reason, this server's and Forgejo's, each as
        hosts are compared: no client is taken that goes by one of them, but those of the
        configuration.
    """

    hosts: frozenset[str] | None = None
    loopback: bool = True
    assistants: bool = False
    trusted: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Clientele:
        """
        From `any`, `known`, `loopback` and host names, separated by spaces.

        :raises ValueError: the text says what is no host, or nothing.
        """
        words = [word.lower() for word in text.replace(",", " ").split()]
        if words == [ANY]:
            return cls()
        if not words or ANY in words:
            raise ValueError(f"{text!r} must be any, or known, loopback and host names")
        hosts = frozenset(_host(word) for word in words if word not in (KNOWN, LOOPBACK))
        return cls(hosts, KNOWN in words or LOOPBACK in words, KNOWN in words)

    def judge(self, client: Client) -> OAuthRefusal | None:
        """None if this client is taken."""
        if client.source is Source.CONFIGURED:
            return None
        if client.source is Source.DOCUMENT:
            return self.judge_document(client.client_id) or self._vouched(client.metadata)
        return self.judge_metadata(client.metadata)

    def judge_document(self, url: str) -> OAuthRefusal | None:
        """None if the host of this metadata document is one of those."""
        parts = split(url)
        host = url if parts is None else parts.name
        if parts is not None and parts.canonical_host in self.trusted:
            return _goes_by(host)
        return None if self._takes_host(host) else _not_taken(host)

    def judge_metadata(self, metadata: ClientMetadata) -> OAuthRefusal | None:
        """None if every redirect URI of these leads where it may."""
        return next((no for uri in metadata.redirect_uris if (no := self._judge(uri))), None)

    def _vouched(self, metadata: ClientMetadata) -> OAuthRefusal | None:
        # A document is its host's own word, so what it says of loopback is not a stranger's.
        remote = (uri for uri in metadata.redirect_uris if not redirects.is_loopback(uri))
        return next((no for uri in remote if (no := self._judge(uri))), None)

    def _judge(self, uri: str) -> OAuthRefusal | None:
        if redirects.is_loopback(uri):
            return None if self.loopback else _not_taken("programs on people's own computers")
        owner = redirects.PRIVATE.get(uri)
        if owner is not None:
            return None if self._takes_host(owner) else _not_taken(owner)
        host = redirects.host(uri)
        if redirects.canonical_host(uri) in self.trusted:
            return _goes_by(host)
        if self.hosts is None or host in self.hosts:
            return None
        if not self._takes_host(host):
            return _not_taken(host)
        return None if known.assistant(uri) else _not_taken(f"that address at {host}")

    def _takes_host(self, host: str) -> bool:
        if self.hosts is None or host in self.hosts:
            return True
        return self.assistants and host in known.HOSTS


def _not_taken(what: str) -> OAuthRefusal:
    return CLIENT_NOT_TAKEN.saying(
        f"This server takes only certain clients, and {what} is not among them. Whoever runs it"
        " can add it (--clients)."
    )


def _goes_by(host: str) -> OAuthRefusal:
    return CLIENT_NOT_TAKEN.saying(
        f"It goes by {host}, which is the host of this server or of Forgejo, and people would take"
        " it for that. Whoever runs this server can write it into the configuration"
        " (--preregistered-client)."
    )


def _host(word: str) -> str:
    parts = split(f"https://{word}/")
    if parts is None or parts.host != word or "." not in word:
        raise ValueError(f"{word!r} is no host name; write such as claude.ai, without https://")
    return word
