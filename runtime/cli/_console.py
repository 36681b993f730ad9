"""What is shown: lines of the processes, sentences of the runtime, and a line of progress.

Nobody waits for a terminal or a pipe but the one task that writes to it: where standard output and
standard error lead to different places, a reader of the one who stops reading does not silence the
other. Lines of output that the reader is too slow for are dropped, counted, and said.
"""

import os
from collections.abc import Sequence
from itertools import cycle, groupby
from operator import itemgetter

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
        self._colours = cycle(_COLOURS)
        self._prefixes: dict[str, str] = {}
        for name in names:
            self._prefix_of(name)
        self._dropped = 0
        self._ours = _Writer()
        # One writer for both where they lead to the same place, for the order to stay.
        same = os.path.sameopenfile(_STDOUT, _STDERR)
        self._theirs = self._ours if same else _Writer()

    def echo(self, name: str, lines: Sequence[Line]) -> None:
        """Show what a process has printed."""
        if self._theirs.held > _HELD_BYTES:
            self._dropped += len(lines)
            return
        self._tell_dropped()
        prefix = self._prefix_of(name)
        text = "".join(f"{prefix}{line.text}\n" for line in lines)
        self._theirs.add(_STDOUT, text)

    def say(self, sentence: str, *, bad: bool = False) -> None:
        """Show what the runtime has to say; this is never dropped."""
        prefix = self._prefix(_OURS, _STDERR, "red" if bad else "white")
        self._ours.add(_STDERR, f"{prefix}{sentence}\n")

    def show(self, text: str) -> None:
        """Show *text*, of as many lines as it has."""
        self._ours.add(_STDERR, text)

    def progress(self, words: str) -> None:
        """Keep *words* as the last line of a terminal, nothing to take it away."""
        if self.is_terminal:
            self._ours.keep_last(words)

    def close(self) -> None:
        """Let `run` end once everything is written."""
        self._tell_dropped()
        for writer in (self._ours, self._theirs):
            writer.close()

    async def run(self) -> None:
        """Write until `close`; cancelled, what is not written yet is lost."""
        async with trio.open_nursery() as nursery:
            for writer in {self._ours, self._theirs}:
                nursery.start_soon(writer.run)

    def _prefix_of(self, name: str) -> str:
        if name not in self._prefixes:  # a unit that came later than the rest
            self._prefixes[name] = self._prefix(name, _STDOUT, next(self._colours))
        return self._prefixes[name]

    def _prefix(self, name: str, fd: int, colour: str) -> str:
        text = f"{name:<{self._width}} | "
        return click.style(text, fg=colour, bold=name == _OURS) if self._coloured[fd] else text

    def _tell_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.say(f"{dropped} lines of output were not shown: it is read too slowly", bad=True)


class _Writer:
    """Writes to the streams that lead to one place, in the order in which it is told to."""

    def __init__(self) -> None:
        self.held = 0
        self._waiting: list[tuple[int, bytes]] = []
        self._progress = b""
        self._shown = b""
        self._more = trio.Event()
        self._closed = False
        self._broken: set[int] = set()

    def add(self, fd: int, text: str) -> None:
        data = text.encode(errors="replace")
        self._waiting.append((fd, data))
        self.held += len(data)
        self._more.set()

    def keep_last(self, words: str) -> None:
        self._progress = words.encode(errors="replace")
        self._more.set()

    def close(self) -> None:
        self._progress, self._closed = b"", True
        self._more.set()

    async def run(self) -> None:
        while True:
            if self._waiting or self._progress != self._shown:
                await trio.to_thread.run_sync(self._write, self._take(), abandon_on_cancel=True)
            elif self._closed:
                return
            else:
                self._more = trio.Event()
                await self._more.wait()

    def _take(self) -> list[tuple[int, bytes]]:
        """Return what to write next: everything that waits, in as few pieces as keep its order."""
        pieces: list[tuple[int, bytes]] = [(_STDERR, _ERASE)] if self._shown else []
        for fd, group in groupby(self._waiting, key=itemgetter(0)):
            pieces.append((fd, b"".join(data for _, data in group)))
        if self._progress:
            pieces.append((_STDERR, self._progress))
        self._waiting, self._shown, self.held = [], self._progress, 0
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
