"""
The stand-in Forgejo as a process of its own.

    python -m fjmcp.demo.forge --listen 127.0.0.1:0

prints `ready http://127.0.0.1:PORT` once it listens.  Client id and secret
may come from FJMCP_DEMO_CLIENT_ID and FJMCP_DEMO_CLIENT_SECRET.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Site

from fjmcp.demo.forge.grants import ACCESS_SECONDS
from fjmcp.demo.forge.standin import CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, StandIn
from fjmcp.demo.forge.trouble import KINDS, Trouble, Troubles


class QuietSite(Site):
    """A site that writes no access log: URLs here hold codes and tokens."""

    def log(self, request: HttpRequest) -> None:
        """Write nothing."""


@define(eq=False)
class Door:
    """The listening port of a real process, which `refuse` can close for a while."""

    reactor: Any
    host: str
    site: QuietSite = field(factory=lambda: QuietSite(Resource()))  # type: ignore[no-untyped-call]
    troubles: Troubles | None = None
    port: int = 0
    _listening: IListeningPort | None = None

    def open(self) -> int:
        """Listen; answer the port, which stays the same from then on."""
        self._listening = self.reactor.listenTCP(self.port, self.site, interface=self.host)
        address: Any = self._listening.getHost()
        self.port = address.port
        return self.port

    def close_for(self, seconds: float) -> None:
        """Refuse connections; those that are open are dropped at their next request."""
        if self._listening is None or self.troubles is None:
            return
        listening, self._listening = self._listening, None
        listening.stopListening()
        drop = Trouble("drop")
        self.troubles.current.insert(0, drop)
        self.reactor.callLater(seconds, self._open_again, drop)

    def _open_again(self, drop: Trouble) -> None:
        if self.troubles is not None and drop in self.troubles.current:
            self.troubles.current.remove(drop)
        self.open()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("fjmcp.demo.forge", description="A stand-in Forgejo.")
    env = os.environ
    add = parser.add_argument
    add("--listen", default="127.0.0.1:3000", metavar="HOST:PORT", help="loopback; port 0 is free")
    add("--public-url", help="its ROOT_URL, without a slash at the end; default: where it listens")
    add("--client-id", default=env.get("FJMCP_DEMO_CLIENT_ID", CLIENT_ID))
    add("--client-secret", default=env.get("FJMCP_DEMO_CLIENT_SECRET", CLIENT_SECRET))
    add("--redirect-uri", action="append", help=f"may be repeated; default {REDIRECT_URI}")
    add("--public-client", action="store_true", help="an application without a secret")
    add("--access-token-seconds", type=float, default=ACCESS_SECONDS)
    add("--keep-refresh-tokens", action="store_true", help="INVALIDATE_REFRESH_TOKENS=false")
    add(
        "--trouble",
        action="append",
        default=[],
        metavar="KIND[@PATH]",
        help="from the start; " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
    )
    parsed = parser.parse_args(arguments)
    parsed.host, _, port = parsed.listen.rpartition(":")
    parsed.host = parsed.host.strip("[]").replace("localhost", "127.0.0.1")
    try:
        parsed.port, loopback = int(port), ip_address(parsed.host).is_loopback
    except ValueError:
        parser.error("--listen is HOST:PORT, for example 127.0.0.1:3000")
    if not loopback:
        parser.error("--listen must be loopback: passwords here are public, and so are switches")
    return parsed


async def serve(reactor: Any, chosen: argparse.Namespace) -> None:
    """Listen, say so, and go on until a signal."""
    door = Door(reactor, chosen.host, port=chosen.port)
    port = door.open()
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    here = f"http://{host}:{port}"
    stand_in = StandIn(
        reactor,
        (chosen.public_url or here).rstrip("/"),
        client_id=chosen.client_id,
        client_secret=chosen.client_secret,
        redirect_uris=tuple(chosen.redirect_uri or [REDIRECT_URI]),
        confidential=not chosen.public_client,
        access_seconds=chosen.access_token_seconds,
        refuse=door.close_for,
    )
    stand_in.grants.invalidate = not chosen.keep_refresh_tokens
    door.troubles, door.site.resource = stand_in.troubles, stand_in.resource
    for trouble in chosen.trouble:
        kind, _, path = trouble.partition("@")
        stand_in.troubles.set(kind, path or "/")
    print(f"ready {here}", flush=True)
    await Deferred()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stand-in as this process."""
    chosen = options(arguments)
    loud = LogLevelFilterPredicate(LogLevel.warn)
    stderr = FilteringLogObserver(textFileLogObserver(sys.stderr), [loud])
    globalLogBeginner.beginLoggingTo([stderr], redirectStandardIO=False)
    react(lambda reactor: Deferred.fromCoroutine(serve(reactor, chosen)))


if __name__ == "__main__":
    main()
