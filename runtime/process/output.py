"""What a process prints: read as fast as it comes, kept as a bounded tail."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import trio

from runtime._secrets import Secrets
from runtime.supervision.events import Journal

StreamName = Literal["stdout", "stderr"]
# So many bytes at a time: short lines are some work, and other tasks want their turn.
_CHUNK = 16_384
#: A longer line is cut into pieces of this many bytes.
LONGEST_LINE = 65_536
_LINES_KEPT = 1_000
_CHARACTERS_KEPT = 262_144


class Line(NamedTuple):
    """One line without its end; *timestamp* is seconds since the epoch."""

    stream: StreamName
    text: str
    timestamp: float


#: Is given new lines as they come; it must not block.
Listener = Callable[[Sequence[Line]], None]


class Output:
    """The newest lines of one process, over all its generations, and whoever wants each line.

    *listeners* get each line as it comes, in the order in which they are added; the key says whose
    one is, and a second one under the same key takes the place of the first. What *secrets* hide
    is in no line.
    """

    lines: Journal[Line]
    listeners: dict[object, Listener]
    secrets: Secrets

    def __init__(self, secrets: Secrets | None = None) -> None:
        self.secrets = Secrets() if secrets is None else secrets
        self.lines = Journal(
            _LINES_KEPT, weight_limit=_CHARACTERS_KEPT, weigh=lambda line: len(line.text)
        )
        self.listeners = {}

    def add(self, lines: Sequence[Line]) -> None:
        """Keep *lines*, the oldest giving way, and hand them on."""
        if not lines:
            return
        if self.secrets:
            texts = self.secrets.mask_lines([line.text for line in lines])
            lines = [line._replace(text=text) for line, text in zip(lines, texts, strict=True)]
        for line in lines:
            self.lines.append(line)
        for listener in tuple(self.listeners.values()):  # one may go when it has heard enough
            listener(lines)


class LineSplitter:
    """Cuts a stream of bytes into lines of text; what is no UTF-8 becomes U+FFFD.

    The lines are the same in whatever chunks the stream comes.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes | bytearray) -> list[str]:
        """Return the lines that *chunk* completes; an overlong one comes in pieces."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found = [piece for line in lines for piece in _pieces(line)]
        # Two bytes more than a piece: then it is not the last one, not even if the line ends in CR.
        while len(self._rest) >= LONGEST_LINE + 2:
            end = _end_of_piece(self._rest)
            found.append(self._rest[:end].decode(errors="replace"))
            self._rest = self._rest[end:]
        return found

    def finish(self) -> list[str]:
        """Return the last line, if the stream ended in the middle of one."""
        rest, self._rest = self._rest, b""
        return _pieces(rest) if rest else []


def _pieces(line: bytes) -> list[str]:
    text = line.removesuffix(b"\r")
    found: list[str] = []
    while len(text) > LONGEST_LINE:
        end = _end_of_piece(text)
        found.append(text[:end].decode(errors="replace"))
        text = text[end:]
    return [*found, text.decode(errors="replace")]


def _end_of_piece(text: bytes) -> int:
    """Return where to cut *text*, which is longer than a piece: not within a character."""
    end = LONGEST_LINE
    while end > LONGEST_LINE - 3 and text[end] & 0xC0 == 0x80:  # 10xxxxxx continues a character
        end -= 1
    return end


async def read_lines(fd: int, name: StreamName, output: Output) -> None:
    """Read the non-blocking *fd* to its end; cancelled, what has been read is in *output*."""
    splitter = LineSplitter()
    try:
        while chunk := await _receive_some(fd):
            now = time.time()
            output.add([Line(name, text, now) for text in splitter.feed(chunk)])
    finally:
        now = time.time()
        output.add([Line(name, text, now) for text in splitter.finish()])


async def _receive_some(fd: int) -> bytes:
    """Return what there is, nothing at the end; it is a checkpoint in every case."""
    while True:
        await trio.lowlevel.wait_readable(fd)
        with suppress(BlockingIOError):
            return os.read(fd, _CHUNK)
