"""
JSON-RPC with one child: ids, progress tokens, and whose message is whose.

Clients choose ids and progress tokens as they like, so two of them may choose
the same.  To the child every request has a small number of ours, which is its
id and its progress token; what comes back gets the client's own put in again.

Children choose ids of their questions as they like, too, and a session may
have two, while one takes the place of the other.  To the client every question
has an id that no other child of this process gives; its answer gets the
child's own put in again.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import define, field, frozen

from fjmcp.mcp import members
from fjmcp.mcp.wire import (
    Message,
    Notice,
    Reply,
    Request,
    encode_notice,
    encode_reply,
    encode_request,
    is_id,
    same_id,
)
from fjmcp.refusals import McpRefusal

CANCELLED = "notifications/cancelled"
PROGRESS = "notifications/progress"
PING = "ping"


@frozen
class Ask:
    """A request for the child: its number here, and the line to write."""

    number: int
    line: bytes


@frozen
class Answer:
    """The end of request `number`: the reply, with the client's id again."""

    number: int
    reply: Reply
    line: bytes


@frozen
class Progress:
    """News of request `number`, with the client's progress token again."""

    number: int
    line: bytes


@frozen
class Question:
    """A request of the child."""

    request: Request


@frozen
class Posed:
    """A question for the client: its id there, and the message."""

    id: bytes
    line: bytes


@frozen
class Withdrawn:
    """The child wants no answer to its question `id` any more; what tells the client so."""

    id: bytes
    line: bytes


@frozen
class Aside:
    """A notification that names no request of ours."""

    notice: Notice


@frozen
class Stray:
    """What belongs to nobody; `reason` is for the log."""

    reason: str


Heard: TypeAlias = Answer | Progress | Question | Withdrawn | Aside | Stray


@frozen
class _Asked:
    id: bytes
    token: bytes | None


@define
class Conversation:
    """
    The requests that a child has not answered, and those that it has asked.

    Numbers and ids are never used twice, so an answer that comes late, after
    its request was forgotten, reaches nobody else.

    :ivar name: begins the ids of questions: printable ASCII without quotes
        and backslashes.
    """

    name: str = "q"
    _last: int = field(default=0, init=False)
    _asked: dict[int, _Asked] = field(factory=dict, init=False)
    _posed: int = field(default=0, init=False)
    _questions: dict[bytes, _Asked] = field(factory=dict, init=False)

    @property
    def outstanding(self) -> tuple[int, ...]:
        """The numbers of the requests without an answer, oldest first."""
        return tuple(self._asked)

    def ask(self, request: Request) -> Ask:
        """Begin a request.  Its params go on as they are, but for the token."""
        self._last = number = self._last + 1
        token = _progress_token(request.params)
        params = request.params if token is None else _with_token(request.params, b"%d" % number)
        self._asked[number] = _Asked(request.id, token)
        return Ask(number, encode_request(b"%d" % number, request.method, params))

    def cancel(self, number: int, params: bytes = b"") -> bytes | None:
        """
        The line that cancels a request, with the `reason` and whatever else
        the client's `params` hold; None if it is answered or forgotten.

        The request stays outstanding: the child may answer all the same.
        """
        if number not in self._asked:
            return None
        return encode_notice(CANCELLED, members.put(params or b"{}", "requestId", b"%d" % number))

    def forget(self, number: int) -> None:
        """Nobody waits for this request any more."""
        self._asked.pop(number, None)

    def hear(self, message: Message | McpRefusal) -> Heard:
        """What a message of the child, as `wire.read_line` gave it, means to us."""
        match message:
            case Reply():
                return self._hear_reply(message)
            case Notice(method=method) if method == PROGRESS:
                return self._hear_progress(message)
            case Notice(method=method) if method == CANCELLED:
                return self._hear_cancelled(message)
            case Notice():
                return Aside(message)
            case Request():
                return Question(message)
            case McpRefusal():
                return Stray(message.reason)

    def _hear_reply(self, reply: Reply) -> Answer | Stray:
        number = _number(reply.id)
        asked = self._asked.pop(number, None)
        if asked is None:
            return Stray("an answer to nothing that was asked")
        ours = Reply(asked.id, reply.result, reply.error)
        return Answer(number, ours, encode_reply(ours.id, result=ours.result, error=ours.error))

    def _hear_progress(self, notice: Notice) -> Progress | Stray:
        number = _number(members.one(notice.params, "progressToken"))
        asked = self._asked.get(number)
        if asked is None or asked.token is None:
            return Stray("progress of nothing that was asked")
        params = members.put(notice.params, "progressToken", asked.token)
        return Progress(number, encode_notice(PROGRESS, params))

    def _hear_cancelled(self, notice: Notice) -> Withdrawn | Stray:
        theirs = cancelled_id(notice.params)
        # Of two questions with one id the later is meant, as for a client's.
        for id, asked in reversed(self._questions.items()):
            if same_id(asked.id) == theirs:
                del self._questions[id]
                params = members.put(notice.params, "requestId", id)
                return Withdrawn(id, encode_notice(CANCELLED, params))
        return Stray("a cancellation of nothing that it asked")

    # --- questions ---------------------------------------------------------------

    def pose(self, question: Question) -> Posed:
        """Begin a question.  Its params go on as they are, but for the token."""
        self._posed += 1
        id = b'"%b.%d"' % (self.name.encode("ascii"), self._posed)
        request = question.request
        token = _progress_token(request.params)
        params = request.params if token is None else _with_token(request.params, id)
        self._questions[id] = _Asked(request.id, token)
        return Posed(id, encode_request(id, request.method, params))

    def settle(self, reply: Reply) -> Posed | None:
        """
        A client's answer as the child knows it, and which question it settles;
        None if it answers none that is open.
        """
        id = same_id(reply.id)
        asked = self._questions.pop(id, None)
        if asked is None:
            return None
        return Posed(id, encode_reply(asked.id, result=reply.result, error=reply.error))

    def drop(self, id: bytes) -> bytes | None:
        """Nobody answers this question any more; its id as the child knows it."""
        asked = self._questions.pop(id, None)
        return None if asked is None else asked.id

    def question_progress(self, params: bytes) -> bytes | None:
        """A client's news of a question as the child knows it; None if they are of none."""
        token = members.one(params, "progressToken")
        asked = self._questions.get(same_id(token)) if is_id(token) else None
        if asked is None or asked.token is None:
            return None
        return encode_notice(PROGRESS, members.put(params, "progressToken", asked.token))

    def ping_answer(self, question: Question) -> bytes | None:
        """The line that answers the child's `ping`; None if it asks another thing."""
        if question.request.method != PING:
            return None
        return encode_reply(question.request.id, result=b"{}")


def cancelled_id(params: bytes) -> bytes | None:
    """
    The id of the request that a client's notifications/cancelled names, in
    the form of `wire.same_id`.
    """
    id = members.one(params, "requestId")
    return same_id(id) if is_id(id) else None


def _progress_token(params: bytes) -> bytes | None:
    # Of another type, or too long, it stays in the params: the child judges
    # it, and what it might say of it can't be taken for a number of ours.
    if not members.may_have(params, b"progressToken"):
        return None
    token = members.one(members.meta(params), "progressToken")
    return token if is_id(token) else None


def _with_token(params: bytes, token: bytes) -> bytes:
    meta = members.put(members.meta(params), "progressToken", token)
    return members.put(params, "_meta", meta)


def _number(text: bytes) -> int:
    """The number of ours that a child repeats; 0, which is nobody's, if it is none."""
    same = same_id(text) if is_id(text) else b""
    return int(same) if same.isdigit() else 0
