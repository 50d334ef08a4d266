"""
What one child has asked the client of its session, until that is answered.

::

    the child asks ──> the client has it ──> it answers: so is the child
          │                    ├── the child withdraws it: the client is told
          │                    └── it takes too long, the session or the child
          │                        ends: an error for the child, the client is told
          └── nobody can be asked: an error for the child

A child that several sessions share has nobody to ask (design D1).  Where a
question goes is the link's to say; here is whose answer is whose.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.mcp.conversation import CANCELLED, Conversation, Question, Withdrawn
from fjmcp.mcp.wire import Reply, encode_notice, error_reply
from fjmcp.refusals import (
    QUESTION_UNANSWERED,
    QUESTION_UNHEARD,
    TOO_MANY_QUESTIONS,
    McpRefusal,
)


@define(eq=False)
class Questions:
    """
    The open questions of one child.  Lines are JSON-RPC messages.

    Every question is answered exactly once while the child lives.

    :ivar closed: why the client is not asked; None while it is.
    """

    log = Logger()
    _conversation: Conversation
    _clock: IReactorTime
    _tell_child: Callable[[bytes], bool]
    _tell_client: Callable[[bytes], bool]
    """Answers whether a stream of the session took it."""
    _settled: Callable[[], None]
    """Called after each question that ended."""
    closed: McpRefusal | None
    _open: dict[bytes, IDelayedCall] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, question: Question) -> None:
        """The child asks."""
        line = self._conversation.ping_answer(question)
        if line is None:
            refusal = self._pose(question)
            if refusal is None:
                return
            line = error_reply(question.request.id, refusal)
        self._tell_child(line)

    def _pose(self, question: Question) -> McpRefusal | None:
        if self.closed is not None:
            return self.closed
        if len(self._open) >= limits.QUESTIONS:
            return TOO_MANY_QUESTIONS
        posed = self._conversation.pose(question)
        # First: it may be answered before we are back here.
        self._open[posed.id] = self._clock.callLater(
            limits.QUESTION, self._refuse, posed.id, QUESTION_UNANSWERED
        )
        if self._tell_client(posed.line):
            return None
        self._conversation.drop(posed.id)
        self._end(posed.id)
        return QUESTION_UNHEARD

    def answer(self, reply: Reply) -> bool:
        """The client answers; False if it answers none of these."""
        settled = self._conversation.settle(reply)
        if settled is None:
            return False
        if not self._tell_child(settled.line):
            self.log.warn("child does not take the answer to its question")
        self._end(settled.id)
        return True

    def progress(self, params: bytes) -> bool:
        """The client tells how far it is; False if that is about none of these."""
        line = self._conversation.question_progress(params)
        if line is not None:
            self._tell_child(line)
        return line is not None

    def withdraw(self, withdrawn: Withdrawn) -> None:
        """The child wants no answer any more."""
        self._tell_client(withdrawn.line)
        self._end(withdrawn.id)

    def close(self, refusal: McpRefusal) -> None:
        """Ask nothing from here on; what is open gets `refusal`."""
        self.closed = refusal
        for id in tuple(self._open):
            self._refuse(id, refusal)

    def _refuse(self, id: bytes, refusal: McpRefusal) -> None:
        theirs = self._conversation.drop(id)
        if theirs is None:
            return
        self._tell_child(error_reply(theirs, refusal))
        # 2025-11-25/basic/lifecycle: who stops waiting should say so.
        params = msgspec.json.encode({"requestId": msgspec.Raw(id), "reason": refusal.reason})
        self._tell_client(encode_notice(CANCELLED, params))
        self._end(id)

    def _end(self, id: bytes) -> None:
        deadline = self._open.pop(id, None)
        if deadline is None:
            return
        if deadline.active():
            deadline.cancel()
        self._settled()
