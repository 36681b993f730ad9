"""What is shown: lines of the processes, sentences of the runtime, and a line of progress.

Nobody waits for the terminal but the one task that writes to it. What it is too slow for is
dropped, counted, and said.
"""

import os
from collections.abc import Sequence
from itertools import cycle

import click
import trio

from runtime.process.output import Line

_HELD_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 65_536
_COLOURS = (
    "cyan",
    "magenta",
    "green",
    "yellow",
    "blue",
    "bright_red",
    "bright_cyan",
    "bright_blue",
)
_ERASE = b"\r\x1b[2K"
_STDOUT, _STDERR = 1, 2
_OURS = "runtime"


class Console:
    """Writes to standard output (processes) and standard error (the runtime itself)."""

    def __init__(self, names: Sequence[str]) -> None:
        dumb = os.environ.get("TERM") == "dumb"
        plain = dumb or bool(os.environ.get("NO_COLOR"))
        self.is_terminal = os.isatty(_STDERR) and not dumb
        self._coloured = {fd: os.isatty(fd) and not plain for fd in (_STDOUT, _STDERR)}
        self.coloured = self._coloured[_STDERR]
        self._width = max(map(len, [*names, _OURS]))
        self._prefixes = {
            name: self._prefix(name, _STDOUT, colour)
            for name, colour in zip(names, cycle(_COLOURS), strict=False)
        }
        self._waiting: list[tuple[int, bytes]] = []
        self._held = 0
        self._dropped = 0
        self._progress = b""
        self._shown = b""
        self._more = trio.Event()
        self._closed = False
        self._broken: set[int] = set()

    def echo(self, name: str, lines: Sequence[Line]) -> None:
        """Show what a process has printed."""
        if self._held > _HELD_BYTES:
            self._dropped += len(lines)
            return
        prefix = self._prefixes[name]
        text = "".join(f"{prefix}{line.text}\n" for line in lines)
        self._add(_STDOUT, text.encode(errors="replace"))

    def say(self, sentence: str, *, bad: bool = False) -> None:
        """Show what the runtime has to say; this is never dropped."""
        prefix = self._prefix(_OURS, _STDERR, "red" if bad else "white")
        self._add(_STDERR, f"{prefix}{sentence}\n".encode(errors="replace"))

    def show(self, text: str) -> None:
        """Show *text*, of as many lines as it has."""
        self._add(_STDERR, text.encode(errors="replace"))

    def progress(self, words: str) -> None:
        """Keep *words* as the last line of a terminal, nothing to take it away."""
        if self.is_terminal:
            self._progress = words.encode()
            self._wake()

    def close(self) -> None:
        """Let `run` end once everything is written."""
        self._progress, self._closed = b"", True
        self._wake()

    async def run(self) -> None:
        """Write until `close`; cancelled, what is not written yet is lost."""
        while True:
            if self._waiting or self._progress != self._shown:
                await trio.to_thread.run_sync(self._write, self._take(), abandon_on_cancel=True)
            elif self._closed:
                return
            else:
                self._more = trio.Event()
                await self._more.wait()

    def _prefix(self, name: str, fd: int, colour: str) -> str:
        text = f"{name:<{self._width}} | "
        return click.style(text, fg=colour, bold=name == _OURS) if self._coloured[fd] else text

    def _add(self, fd: int, data: bytes) -> None:
        self._waiting.append((fd, data))
        self._held += len(data)
        self._wake()

    def _wake(self) -> None:
        self._more.set()

    def _take(self) -> list[tuple[int, bytes]]:
        """Return what to write next: everything that waits, in as few pieces as keep its order."""
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.say(f"{dropped} lines of output were not shown: it is read too slowly", bad=True)
        pieces: list[tuple[int, bytes]] = []
        if self._shown:
            pieces.append((_STDERR, _ERASE))
        while self._waiting:
            fd = self._waiting[0][0]
            count = next(
                (i for i, (other, _) in enumerate(self._waiting) if other != fd),
                len(self._waiting),
            )
            pieces.append((fd, b"".join(data for _, data in self._waiting[:count])))
            del self._waiting[:count]
        if self._progress:
            pieces.append((_STDERR, self._progress))
        self._shown = self._progress
        self._held = 0
        return pieces

    def _write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        for fd, data in pieces:
            rest = memoryview(data)
            while rest and fd not in self._broken:
                try:
                    rest = rest[os.write(fd, rest[:_BATCH_BYTES]) :]
                except BlockingIOError:  # somebody made our terminal non-blocking
                    os.set_blocking(fd, True)
                except OSError:  # nobody reads it any more
                    self._broken.add(fd)
