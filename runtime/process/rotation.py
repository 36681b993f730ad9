"""A file that takes lines up to a size and then makes room: what is renamed to what, and doing it.

Everything here blocks, so it is called in worker threads. The file is opened anew for every batch:
whoever renamed or removed it in between has done no harm.
"""

import os
import re
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_OLDER = re.compile(r"(.+)\.([1-9][0-9]{0,8})", re.DOTALL)


class Move(NamedTuple):
    """A file that gets another name, or is removed where *target* is None."""

    source: Path
    target: Path | None


def rotated(path: Path, number: int) -> Path:
    """Return the name of the file that was current *number* rotations ago."""
    return path.with_name(f"{path.name}.{number}") if number else path


def current_of(path: Path) -> tuple[Path, int]:
    """Return of which file *path* is an older one by its name, and which; else itself and 0."""
    match = _OLDER.fullmatch(path.name)
    return (path.with_name(match[1]), int(match[2])) if match else (path, 0)


def plan_rotation(path: Path, keep: int, exists: Callable[[Path], bool]) -> list[Move]:
    """Return the moves, in their order, after which there is no file *path*.

    The files move up to the first free number, and only when none is free the oldest is lost. So
    what an interrupted rotation has left is whole, and the next one goes on from there.
    """
    if keep == 0:
        return [Move(path, None)]
    free = next((n for n in range(1, keep) if not exists(rotated(path, n))), keep)
    return [Move(rotated(path, n - 1), rotated(path, n)) for n in range(free, 0, -1)]


def end_of_fitting(data: bytes, start: int, room: int) -> int:
    """Return where the whole lines of *data* from *start* on that fit into *room* bytes end."""
    if len(data) - start <= room:
        return len(data)
    return max(data.rfind(b"\n", start, start + max(room, 0)) + 1, start)


class Appended(NamedTuple):
    """What of the data is *left* to be written, from the start of a line on, and why."""

    left: bytes
    error: OSError | None = None


def append_lines(path: Path, data: bytes, *, most_bytes: int, keep: int) -> Appended:
    """Append lines, each with its end, to the file *path*, which is made with its folders.

    Between two lines, where the next would make the file larger than *most_bytes*, it is rotated.
    A line is in the file whole or not at all, as far as that is in our hands.
    """
    done = 0
    try:
        while True:
            with _open(path) as fd:
                size = _begin_line(fd)
                end = end_of_fitting(data, done, most_bytes - size)
                if end == done and size == 0:  # longer than a file may be: it gets one of its own
                    end = data.find(b"\n", done) + 1
                done, error = _write(fd, size, data, done, end)
            if error is not None:
                return Appended(data[done:], error)
            if done == len(data):
                return Appended(b"")
            for source, target in plan_rotation(path, keep, os.path.lexists):
                if target is None:
                    source.unlink(missing_ok=True)
                else:
                    source.replace(target)
    except OSError as error:
        return Appended(data[done:], error)


@contextmanager
def _open(path: Path) -> Generator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not to be kept waiting by a fifo without a reader; for a file it means nothing.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    fd = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "Not a regular file", str(path))
        yield fd
    finally:
        os.close(fd)


def _begin_line(fd: int) -> int:
    """Return the size of the file, once it ends with a line: a crash may have left half of one."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        size += os.write(fd, b"\n")
    return size


def _write(fd: int, size: int, data: bytes, start: int, end: int) -> tuple[int, OSError | None]:
    """Append the lines from *start* to *end*; return where those end that are in the file."""
    done = start
    try:
        while done < end:
            done += os.write(fd, memoryview(data)[done:end])
    except OSError as error:
        whole = max(data.rfind(b"\n", start, done) + 1, start)
        with suppress(OSError):
            if os.fstat(fd).st_size == size + done - start:  # else somebody else writes there, too
                os.ftruncate(fd, size + whole - start)
        return whole, error
    return done, None
