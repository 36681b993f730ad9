"""What a process prints: read as fast as it comes, kept as a bounded tail."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import trio

from runtime.supervision.events import Journal

StreamName = Literal["stdout", "stderr"]
_CHUNK = 65_536
#: A longer line is cut into pieces of this many bytes.
LONGEST_LINE = 65_536
_LINES_KEPT = 1_000
_BYTES_KEPT = 262_144


class Line(NamedTuple):
    """One line without its end; *timestamp* is seconds since the epoch."""

    stream: StreamName
    text: str
    timestamp: float


class Output:
    """The newest lines of one process, over all its generations, and whoever wants each line."""

    def __init__(self, echo: Callable[[Sequence[Line]], None] | None = None) -> None:
        self.lines: Journal[Line] = Journal(
            _LINES_KEPT, weight_limit=_BYTES_KEPT, weigh=lambda line: len(line.text)
        )
        self.echo = echo

    def add(self, lines: Sequence[Line]) -> None:
        """Keep *lines*, the oldest giving way, and hand them on."""
        for line in lines:
            self.lines.append(line)
        if lines and self.echo is not None:
            self.echo(lines)


class LineSplitter:
    """Cuts a stream of bytes into lines of text; what is no UTF-8 becomes U+FFFD."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes | bytearray) -> list[str]:
        """Return the lines that *chunk* completes; an overlong one comes in pieces."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        while len(self._rest) >= LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        return [piece for line in lines for piece in _pieces(line)]

    def finish(self) -> list[str]:
        """Return the last line, if the stream ended in the middle of one."""
        rest, self._rest = self._rest, b""
        return _pieces(rest) if rest else []


def _pieces(line: bytes) -> list[str]:
    text = line.removesuffix(b"\r")
    return [
        text[start : start + LONGEST_LINE].decode(errors="replace")
        for start in range(0, max(len(text), 1), LONGEST_LINE)
    ]


async def read_lines(stream: trio.abc.ReceiveStream, name: StreamName, output: Output) -> None:
    """Read *stream* to its end; cancelled, what has been read is in *output*."""
    splitter = LineSplitter()
    try:
        while chunk := await stream.receive_some(_CHUNK):
            now = time.time()
            output.add([Line(name, text, now) for text in splitter.feed(chunk)])
    finally:
        now = time.time()
        output.add([Line(name, text, now) for text in splitter.finish()])
