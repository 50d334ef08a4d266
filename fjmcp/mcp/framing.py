"""Pipe chunks to lines: the stdio transport of MCP (basic/transports, "stdio")."""

from __future__ import annotations

from attrs import define, field


@define
class Lines:
    """
    Cuts a stream of chunks into lines, wherever the chunks end.

    Each byte is looked at once and copied at most twice.  A line of more than
    `limit` bytes is dropped whole and counted in `dropped`; what is held never
    exceeds `limit` and one chunk.
    """

    limit: int
    dropped: int = field(default=0, init=False)
    _held: bytearray = field(factory=bytearray, init=False, repr=False)
    _dropping: bool = field(default=False, init=False)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without line ends and blank ones."""
        *ends, rest = chunk.split(b"\n")
        lines = []
        for end in ends:
            self._hold(end)
            line = self._take()
            if line.strip():
                lines.append(line)
        self._hold(rest)
        return lines

    def _hold(self, piece: bytes) -> None:
        if self._dropping:
            return
        self._held += piece
        if len(self._held) > self.limit + 1:  # a CR does not count
            self._dropping = True
            self._held.clear()

    def _take(self) -> bytes:
        line = bytes(self._held).removesuffix(b"\r")
        self._held.clear()
        if self._dropping or len(line) > self.limit:
            self._dropping = False
            self.dropped += 1
            return b""
        return line
