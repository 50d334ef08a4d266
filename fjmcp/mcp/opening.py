"""
What a child is told first, and who may share a child that was told it.

An opening is taken from a client's `initialize` (basic/lifecycle).  Children
are told `clientInfo` fjmcp, so the client's name is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
from attrs import evolve, frozen

from fjmcp import limits, refusals
from fjmcp.mcp import members
from fjmcp.mcp.revisions import LEGACY, negotiate
from fjmcp.mcp.wire import Request, deeper_than
from fjmcp.refusals import McpRefusal

_ASKING: Final = ("sampling", "elicitation", "roots")


@frozen
class Opening:
    """
    What brings a child into the state that a session counts on.

    `revision` is the one that the child is asked for; `capabilities` is
    canonical JSON of what the client can do, so equal ones are equal bytes.
    `log_level` and `subscriptions` (URIs) are what the client set since.
    """

    revision: str
    capabilities: bytes
    log_level: str | None = None
    subscriptions: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """What equal openings, and only they, have in common."""
        parts = [self.revision, self.capabilities.decode(), self.log_level]
        return sha256(_canonical([*parts, *sorted(self.subscriptions)])).hexdigest()

    def to_json(self) -> str:
        """For the store; `from_json` reads it back."""
        return _canonical(
            {
                "revision": self.revision,
                "capabilities": self.capabilities.decode(),
                "log_level": self.log_level,
                "subscriptions": sorted(self.subscriptions),
            }
        ).decode()

    @classmethod
    def from_json(cls, text: str) -> Opening:
        """What `to_json` wrote.  Members that this version does not know are passed over."""
        stored: dict[str, Any] = msgspec.json.decode(text)
        return cls(
            revision=stored["revision"],
            capabilities=stored["capabilities"].encode(),
            log_level=stored.get("log_level"),
            subscriptions=frozenset(stored.get("subscriptions", ())),
        )

    def asks(self) -> bool:
        """Whether a child may ask this client something."""
        declared = msgspec.json.decode(self.capabilities)
        return any(declared.get(name) is not None for name in _ASKING)

    def after(self, request: Request) -> Opening:
        """
        The opening of the session once `request` was answered with a result.

        A subscription past limits.SUBSCRIPTIONS is not remembered, so a
        successor of the child is not told of it.
        """
        match request.method:
            case "logging/setLevel":
                level = _text(request.params, "level")
                return self if level is None else evolve(self, log_level=level)
            case "resources/subscribe":
                uri = _text(request.params, "uri")
                if uri is None or len(self.subscriptions) >= limits.SUBSCRIPTIONS:
                    return self
                return evolve(self, subscriptions=self.subscriptions | {uri})
            case "resources/unsubscribe":
                uri = _text(request.params, "uri")
                return evolve(self, subscriptions=self.subscriptions - {uri})
        return self

    @staticmethod
    def essence(request: Request) -> Request:
        """What `after` looks at of a request, which may be large and long under way."""
        params = {name: members.one(request.params, name) for name in ("level", "uri")}
        kept = {n: value for n, value in params.items() if 0 < len(value) <= limits.SUBSCRIPTION}
        return evolve(request, params=members.write(kept))

    @property
    def base(self) -> Opening:
        """What it began as: nothing set, nothing subscribed."""
        return evolve(self, log_level=None, subscriptions=frozenset())

    def replay(self) -> list[tuple[str, bytes]]:
        """
        Method and params of what a successor is asked when it is initialized,
        before anything else (design D2).
        """
        return self.since(self.base)

    def since(self, earlier: Opening) -> list[tuple[str, bytes]]:
        """
        Method and params of what a child is asked that was told `earlier`.

        Both have one base.  There is no way to take a log level back.
        """
        asked = []
        if self.log_level not in (None, earlier.log_level):
            asked.append(("logging/setLevel", _canonical({"level": self.log_level})))
        for method, uris in (
            ("resources/unsubscribe", earlier.subscriptions - self.subscriptions),
            ("resources/subscribe", self.subscriptions - earlier.subscriptions),
        ):
            asked.extend((method, _canonical({"uri": uri})) for uri in sorted(uris))
        return asked


NEEDS_OWN_CHILD: Final[Mapping[str, tuple[str, ...]]] = {
    "logging/setLevel": ("logging",),
    "resources/subscribe": ("resources", "subscribe"),
}
"""Requests that make a session personal (design D1), and where among its
capabilities a child says that it knows them."""

PLAIN: Final = Opening(LEGACY[0], b"{}")
"""For a request of nobody's session (design D3)."""


class _Initialize(msgspec.Struct, rename="camel"):
    protocol_version: str
    capabilities: dict[str, Any] | None = None


_initialize = msgspec.json.Decoder(_Initialize)


def read_initialize(params: bytes) -> Opening | McpRefusal:
    """
    The opening that a client's `initialize` asks for.

    `clientInfo` and `capabilities` may be missing, though the schema has them
    required: nothing hangs on them.
    """
    try:
        asked = _initialize.decode(params)
    except msgspec.DecodeError:
        return refusals.INVALID_PARAMS.saying(
            "initialize needs protocolVersion, a string, and capabilities, an object."
        )
    capabilities = _canonical(asked.capabilities or {})
    if len(capabilities) > limits.CAPABILITIES:
        return refusals.INVALID_PARAMS.saying("The capabilities of the client are too large.")
    return Opening(negotiate(asked.protocol_version), capabilities)


def initialize_params(opening: Opening, version: str) -> bytes:
    """The params of our `initialize`; `version` is that of fjmcp."""
    return msgspec.json.encode(
        {
            "protocolVersion": opening.revision,
            "capabilities": msgspec.Raw(opening.capabilities),
            "clientInfo": {"name": "fjmcp", "version": version},
        }
    )


@frozen
class Opened:
    """A child's answer to `initialize`: its bytes, and what we act on."""

    result: bytes
    revision: str
    capabilities: bytes
    server_name: str
    server_version: str

    def offers(self, *path: str) -> bool:
        """Whether the child has this capability, at a path as `resources`, `subscribe`."""
        found: Any = msgspec.json.decode(self.capabilities)
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found is not None and found is not False


class _ServerInfo(msgspec.Struct, frozen=True):
    name: str = ""
    version: str = ""


class _Result(msgspec.Struct, rename="camel"):
    protocol_version: str
    capabilities: dict[str, Any] | None = None
    server_info: _ServerInfo = _ServerInfo()


_result = msgspec.json.Decoder(_Result)


def read_result(result: bytes) -> Opened | None:
    """The answer read; None if it is none, or in a revision that we don't speak."""
    if deeper_than(limits.JSON_DEPTH, result):
        return None
    try:
        told = _result.decode(result)
    except msgspec.DecodeError:
        return None
    if told.protocol_version not in LEGACY:
        return None
    return Opened(
        result,
        told.protocol_version,
        _canonical(told.capabilities or {}),
        told.server_info.name,
        told.server_info.version,
    )


def compatible(told: Opened, now: Opened) -> bool:
    """
    Whether a client that was `told` the one is served well by the other: the
    revision is the same, no capability is lost (design D2).
    """
    return told.revision == now.revision and _covers(
        msgspec.json.decode(now.capabilities), msgspec.json.decode(told.capabilities)
    )


def _covers(now: object, told: object) -> bool:
    if isinstance(told, dict) and isinstance(now, dict):
        return all(_covers(now.get(name), value) for name, value in told.items())
    return told is None or told is False or now == told


@frozen
class Profile:
    """
    What is known of a kind of child: that it never asks a client anything,
    that it never logs to one.
    """

    never_asks: bool = False
    never_logs: bool = False


def may_share(opening: Opening, profile: Profile) -> bool:
    """
    Whether sessions with equal openings may have one child: it must not be
    able to say what is meant for one of them only (design D1).
    """
    return (
        not opening.subscriptions
        and (profile.never_asks or not opening.asks())
        and (profile.never_logs or opening.log_level is None)
    )


def _text(params: bytes, name: str) -> str | None:
    value = members.one(params, name)
    if not value.startswith(b'"') or len(value) > limits.SUBSCRIPTION:
        return None
    return msgspec.json.decode(value, type=str)


def _canonical(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
