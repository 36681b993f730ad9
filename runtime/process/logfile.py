"""What a process prints, in a file as well: taken without waiting, written by a task of its own.

The reader of a child's output hands its lines over and never waits. A task that lives as long as
the child takes all that is there and has a worker thread write it. What does not fit while the disk
is slow, full or away is left out, and the file says so in that place.
"""

import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import final

import trio

from runtime.supervision.unit import UnitHandle

from .output import Line
from .rotation import append_lines
from .specs import LogSpec

# As much may wait, and as much may be on its way to the disk: 8 MiB in all.
_MOST_WAITING = 4 * 1024 * 1024
# So long lines are gathered, or until there are so many bytes: each batch is a trip to a thread.
_GATHER_SEC = 0.02
_PLENTY = 262_144
# The disk cannot tell us that it works again.
_RETRY_SEC = 1.0
# How long all must have been well until a trouble is over: one note for many gaps.
_CALM_SEC = 5.0
# How long the end of a process waits until its last lines are in the file.
_FLUSH_SEC = 5.0
_NOTICEABLE_SEC = 0.05
_MB = 1024 * 1024


class Trouble:
    """What keeps lines out of a file: each kind is told once, and once that all of it is over."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._missing = 0
        #: When it is over, unless something happens before; infinite while there is none.
        self.calm_at: float = inf

    def happen(self, what: str, now: float, *, missing: int = 0) -> str:
        """Return what is to be told of *what*, which has just happened; nothing if it was told."""
        self._missing += missing
        self.calm_at = now + _CALM_SEC
        if what in self._told:
            return ""
        self._told.add(what)
        return what

    def pass_over(self, now: float) -> str:
        """Return what is to be told when all has been well for long enough, else nothing."""
        if now < self.calm_at or not self._told:
            return ""
        missing = self._missing
        self._told, self._missing, self.calm_at = set(), 0, inf
        return "is written again" + (f"; lines missing in it: {missing}" if missing else "")


@dataclass(slots=True)
class _Batch:
    """Lines on their way to the file; *data* is what of them is not there yet."""

    data: bytes


@final
class LogFile:
    """Writes the lines of one process, over all its generations, to the file of its *spec*.

    Worker threads run under *limiter*.
    """

    def __init__(self, spec: LogSpec, limiter: trio.CapacityLimiter) -> None:
        self._path, self._timestamps, self._keep = Path(spec.file), spec.timestamps, spec.keep
        self._most_bytes = max(1, int(spec.max_mb * _MB))
        self._limiter = limiter
        self._note: Callable[[str], None] = _tell_nobody
        self._trouble = Trouble()
        self._waiting = bytearray()
        self._left_out = 0
        # A thread may hang in a write and be left behind. The lock, which the loop never waits for,
        # keeps every other one away until it comes back, and it knows no batch but its own.
        self._batch = _Batch(b"")
        self._alone = threading.Lock()
        self._failure = ""
        self._asked_to_end = inf
        self._more, self._plenty, self._closing = trio.Event(), trio.Event(), trio.Event()

    def add(self, lines: Sequence[Line]) -> None:
        """Take *lines* for the file; it never waits, and leaves out what does not fit."""
        if self._timestamps:
            stamps = {moment: _stamp(moment) for moment in {line.timestamp for line in lines}}
            texts = [f"{stamps[line.timestamp]} {line.text}\n" for line in lines]
        else:
            texts = [f"{line.text}\n" for line in lines]
        data = "".join(texts).encode()
        # Once something is missing, all is, until there is room again: one gap and not a sieve.
        if self._left_out or len(self._waiting) + len(data) > _MOST_WAITING:
            self._left_out += len(lines)
            what = "takes the lines too slowly; some of them are left out"
            self._tell(self._trouble.happen(what, trio.current_time(), missing=len(lines)))
        else:
            self._waiting += data
        self._more.set()
        if len(self._waiting) >= _PLENTY:
            self._plenty.set()

    @asynccontextmanager
    async def open(self, unit: UnitHandle) -> AsyncGenerator[None]:
        """Write to the file while the block lasts, and what is left at its end.

        What goes wrong with the file is told in the events of *unit*, and harms nobody else. The
        end is shielded, within the budget of *unit*; lines that are not in the file by then are
        counted in a note, and written first should the file be opened again.
        """
        self._note = unit.note
        self._more, self._plenty, self._closing = trio.Event(), trio.Event(), trio.Event()
        written = trio.Event()
        async with trio.open_nursery() as nursery:
            # The writer outlives a cancellation, for what is printed during a stop belongs into the
            # file, too; its bound is that of the wait for it below.
            writing = trio.CancelScope(shield=True)
            nursery.start_soon(self._run, writing, written)
            try:
                yield
            finally:
                self._asked_to_end = trio.current_time()
                for event in (self._closing, self._more, self._plenty):
                    event.set()
                what = f"the last lines in its log {self._path}"
                with unit.budget.final(_FLUSH_SEC, what=lambda: what):
                    await written.wait()
                writing.cancel()

    async def _run(self, writing: trio.CancelScope, written: trio.Event) -> None:
        try:
            with writing:
                await self._write()  # makes the file, and shows at once if that cannot be
                last = False
                while not last:
                    last = self._closing.is_set()
                    while self._take() or self._failure:
                        await self._write()
                        if self._failure:
                            break
                    if not last:
                        await self._pause()
            self._part(cut_off=writing.cancelled_caught)
        finally:
            self._note = _tell_nobody
            written.set()

    def _take(self) -> bool:
        """Make a batch of what waits, when there is none yet; return whether there is one."""
        if self._batch.data or not (self._waiting or self._left_out):
            return bool(self._batch.data)
        if not self._closing.is_set():
            self._more, self._plenty = trio.Event(), trio.Event()
        if self._left_out:
            stamp = f"{_stamp(datetime.now(UTC).timestamp())} " if self._timestamps else ""
            self._waiting += f"{stamp}[lines missing here: {self._left_out}]\n".encode()
        self._batch = _Batch(bytes(self._waiting))
        self._waiting, self._left_out = bytearray(), 0
        return True

    async def _write(self) -> None:
        self._failure = await trio.to_thread.run_sync(
            self._append, self._batch, limiter=self._limiter, abandon_on_cancel=True
        )
        if self._failure:
            what = f"cannot be written: {self._failure}; it is tried again"
            self._tell(self._trouble.happen(what, trio.current_time()))
        else:
            self._tell(self._trouble.pass_over(trio.current_time()))

    def _append(self, batch: _Batch) -> str:
        """Write *batch*, in a worker thread; return what was wrong with that."""
        if not self._alone.acquire(blocking=False):
            return "an earlier write hangs"
        try:
            batch.data, error = append_lines(
                self._path, batch.data, most_bytes=self._most_bytes, keep=self._keep
            )
        finally:
            self._alone.release()
        return _in_words(error, self._path) if error is not None else ""

    async def _pause(self) -> None:
        """Return when there is something to write, or to try again, or to tell."""
        if self._failure:
            with trio.move_on_after(_RETRY_SEC):
                await self._closing.wait()
            return
        with trio.move_on_at(self._trouble.calm_at):
            await self._more.wait()
        self._tell(self._trouble.pass_over(trio.current_time()))
        if self._more.is_set():
            with trio.move_on_after(_GATHER_SEC):
                await self._plenty.wait()

    def _part(self, *, cut_off: bool) -> None:
        """Tell what is not in the file when a generation of the process is over."""
        waited = trio.current_time() - self._asked_to_end
        why = f"a write was waited for, {waited:.1f} s, in vain" if cut_off else self._failure
        count = self._batch.data.count(b"\n") + self._waiting.count(b"\n") + self._left_out
        if count:
            self._tell(f"does not have its last lines, {count} of them: {why}")
        elif cut_off and waited > _NOTICEABLE_SEC:
            self._tell(f"has held up the end: {why}")
        elif not why:
            self._tell(self._trouble.pass_over(inf))

    def _tell(self, what: str) -> None:
        if what:
            self._note(f"log {self._path} {what}")


def _tell_nobody(_: str) -> None:
    """Take a note of a process that does not run."""


def _stamp(timestamp: float) -> str:
    moment = datetime.fromtimestamp(timestamp, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_words(error: OSError, path: Path) -> str:
    words = error.strerror or str(error)
    where = str(error.filename or path)
    return words if where == str(path) else f"{words}: {where}"
