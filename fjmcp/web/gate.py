"""Who may come in: the bearer token of a request."""

from __future__ import annotations

from attrs import define
from twisted.web.http import Request

from fjmcp import limits
from fjmcp.broker.callers import Caller, Callers
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import BAD_TOKEN, NO_TOKEN, TOKEN_IN_QUERY, McpRefusal


@define(eq=False)
class Gate:
    """Turns the Authorization header of a request into a caller."""

    _callers: Callers

    async def caller(self, request: Request) -> Caller | McpRefusal:
        """
        Whom this request speaks for.

        :raises StoreDown: the store cannot be read.
        """
        token = bearer(request)
        if isinstance(token, McpRefusal):
            return token
        return await self._callers.find(token)

    def glance(self, request: Request) -> int | McpRefusal | None:
        """
        The account that this request speaks for, while it is still being read.

        None if the store would have to be asked.
        """
        token = bearer(request)
        if isinstance(token, McpRefusal):
            return token
        caller = self._callers.glance(token)
        return None if caller is None else caller.account_id


def bearer(request: Request) -> TokenText | McpRefusal:
    """
    The token in the Authorization header, and nowhere else (RFC 6750 §2.1).

    A token in the query is refused, since URLs stand in logs (RFC 9700 §4.3.2).
    """
    headers = request.requestHeaders.getRawHeaders(b"authorization", [])
    if b"access_token=" in request.uri.partition(b"?")[2]:
        return TOKEN_IN_QUERY
    if not headers:
        return NO_TOKEN
    if len(headers) > 1:
        return BAD_TOKEN
    scheme, _, text = headers[0].strip().partition(b" ")
    if scheme.lower() != b"bearer":
        return NO_TOKEN
    text = text.strip()
    # RFC 6750 §2.1: b64token; anything else was never one of ours.
    if not text or len(text) > limits.BEARER or not text.isascii():
        return BAD_TOKEN
    return TokenText(text.decode("ascii"))
