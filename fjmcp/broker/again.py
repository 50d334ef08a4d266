"""
Which calls may be asked again when their child has crashed (design D5).

A call is asked again once, and only if its client has heard nothing of its
answer and it provably wrote nothing: it calls a tool of which the child
itself says that it only reads (`readOnlyHint`).
Every other one ends with an error that says the outcome is unknown; so does one of
more than `limits.ASKED_AGAIN`, which nobody keeps until its answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from attrs import define, evolve, field
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.broker.calls import Asker
from fjmcp.broker.links import Link, Phase
from fjmcp.mcp import members
from fjmcp.mcp.opening import Opened
from fjmcp.mcp.wire import Reply, Request, error_reply, read_line
from fjmcp.refusals import CHILD_CRASHED, McpRefusal
from fjmcp.tasks import Tasks

_LIST_TOOLS: Final = "tools/list"


class _Hints(msgspec.Struct, rename="camel"):
    read_only_hint: bool | None = None


class _Tool(msgspec.Struct):
    name: str
    annotations: _Hints | None = None


class _Tools(msgspec.Struct):
    tools: list[_Tool]


_tools: Final = msgspec.json.Decoder(_Tools)


@define(eq=False)
class Readers:
    """What each build of a child says of its tools, as far as a client has asked for it."""

    _names: dict[tuple[str, str], frozenset[str]] = field(factory=dict, init=False)

    def learn(self, opened: Opened, answer: bytes) -> None:
        """Take in the answer to `tools/list` of the child that answered `opened`."""
        reply = read_line(answer)
        if not isinstance(reply, Reply) or reply.result is None:
            return
        try:
            tools = _tools.decode(reply.result).tools
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        build = opened.server_name, opened.server_version
        reading = {tool.name for tool in tools if tool.annotations and _reads(tool.annotations)}
        # A list may come in pages.
        self._names[build] = self._names.get(build, frozenset()) | reading

    def only_reads(self, opened: Opened, request: Request) -> bool:
        """Whether a request provably writes nothing."""
        if request.method != "tools/call":
            return False
        try:
            name = msgspec.json.decode(members.read(request.params).get("name", b"null"))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        build = opened.server_name, opened.server_version
        return isinstance(name, str) and name in self._names.get(build, frozenset())


def _reads(hints: _Hints) -> bool:
    return hints.read_only_hint is True


@define(eq=False)
class Again:
    """
    Hears the answer to one request, and asks it once more where that is safe.

    :ivar link: the child that has it now.
    :ivar number: of the request there.
    """

    log = Logger()
    link: Link
    _request: Request
    _asker: Asker
    _readers: Readers
    _another: Callable[[Request], Awaitable[Link | McpRefusal]]
    """Finds the child that the request belongs to then."""
    _gone: Callable[[], bool]
    """Whether nobody waits for the answer any more."""
    _tasks: Tasks
    number: int = field(default=0, init=False)
    _heard: bool = field(default=False, init=False)
    _repeated: bool = field(default=False, init=False)

    def ask(self) -> None:
        """Ask it, the first time."""
        self.number = self.link.ask(self._request, self)
        if len(self._request.params) > limits.ASKED_AGAIN:
            # The answer may take a quarter of an hour, and hundreds of calls wait for theirs.
            # Without them it names no tool that only reads.
            self._request = evolve(self._request, params=b"")

    def said(self, line: bytes) -> bool:
        """What comes before the answer."""
        heard = self._asker.said(line)
        self._heard = self._heard or heard
        return heard

    def answered(self, line: bytes) -> None:
        """The answer, or an error in its place."""
        if self._has_crashed(line) and self._is_safe():
            self._repeated = True
            self._tasks.start(self._repeat(line), "asking a call again")
            return
        if self._request.method == _LIST_TOOLS and self.link.was_open:
            self._readers.learn(self.link.opened, line)
        self._asker.answered(line)

    def _has_crashed(self, line: bytes) -> bool:
        ended = self.link.phase is Phase.ENDED
        return ended and line == error_reply(self._request.id, CHILD_CRASHED)

    def _is_safe(self) -> bool:
        if self._repeated or self._heard or self._gone():
            return False
        return self._readers.only_reads(self.link.opened, self._request)

    async def _repeat(self, error: bytes) -> None:
        link: Link | McpRefusal = CHILD_CRASHED
        try:
            link = await self._another(self._request)
        finally:
            if isinstance(link, McpRefusal):
                self._asker.answered(error)
        if isinstance(link, Link):
            self.log.info("call asked again", pid=link.pid, grant=link.grant_id)
            self.link = link
            self.number = link.ask(self._request, self)
