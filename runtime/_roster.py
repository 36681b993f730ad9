"""The roster of a tree: which processes its runtime has started, in a file of the run directory.

It is for the next tree. Should runtime and guard be killed at the same moment, what they leave is
known by the mark in its environment, but many a server writes a title for ``ps`` over that. An
entry of the roster says which process was started, and with which pipes as its output.

Nothing is flushed to the disk: after a crash of the host there are no processes to be found.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self, final

from runtime._procfs import read_stat, where_pids_mean_the_same

_NAME: Final = "processes"
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

#: So many entries of processes that have ended may be in the file, and once more as many as live.
_MOST_STALE: Final = 200


class Entry(NamedTuple):
    """One process that was started, and its two output pipes."""

    pid: int
    start_ticks: int
    stdout: int  #: the inode of the pipe
    stderr: int

    def line(self) -> bytes:
        """Return the entry as the file has it; a line that was cut off before it does no harm."""
        return b"\n%d %d %d %d" % self

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """Return what a line says, None when it is not a whole one."""
        try:
            return cls(*map(int, line.split()))
        except (ValueError, TypeError):
            return None


def read_roster(folder: Path) -> list[Entry]:
    """Return what the last tree in *folder* has noted, nothing if its pids mean others by now."""
    try:
        header, *lines = (folder / _NAME).read_text("ascii").split("\n")
    except (OSError, ValueError):
        return []
    if not header or header != where_pids_mean_the_same():
        return []
    return [entry for line in lines if (entry := Entry.parse(line)) is not None]


@final
class Roster:
    """The roster that is being written; it may be called from any thread.

    There is no file before the first entry. A disk that does not take one keeps nobody from
    starting: it is tried again at the next start.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._living: dict[int, bytes] = {}
        self._writing = threading.Lock()
        self._file: int | None = None
        self._lines = 0

    def note_started(self, pid: int, stdout: int, stderr: int) -> None:
        """Note a child, which must not have been reaped yet, and the descriptors of its output."""
        stat = read_stat(pid)
        if stat is None:  # there is no /proc
            return
        pipes = (os.fstat(fd).st_ino for fd in (stdout, stderr))
        line = Entry(pid, stat.start_ticks, *pipes).line()
        with self._writing:
            self._living[pid] = line
            if self._lines > _MOST_STALE + 2 * len(self._living) or not self._append(line):
                self._rewrite()

    def note_ended(self, pid: int) -> None:
        """Note that nothing of a child is left; the file loses it when it is written anew."""
        self._living.pop(pid, None)  # no lock: this is called where nobody may wait for a disk

    def close(self) -> None:
        """Write no more, and remove the file unless something in it still lives."""
        with self._writing:
            if self._file is not None and not self._living:
                with suppress(OSError):
                    self._path.unlink()
            self._close_file()

    def _append(self, line: bytes) -> bool:
        self._lines += 1
        try:
            return self._file is not None and os.write(self._file, line) == len(line)
        except OSError:
            return False

    def _rewrite(self) -> None:
        """Put a file with the living only in the place of the other, whole at any time."""
        lines: Sequence[bytes] = list(self._living.values())
        content = where_pids_mean_the_same().encode() + b"".join(lines)
        new = self._path.with_name(f"{_NAME}.new")
        file = None
        try:
            file = os.open(new, _FLAGS, mode=0o600)
            if os.write(file, content) != len(content):
                raise OSError  # noqa: TRY301 - no space left; handled like any other failure
            new.replace(self._path)
        except OSError:
            if file is not None:
                os.close(file)
            with suppress(OSError):
                new.unlink()
            return
        self._close_file()
        self._file, self._lines = file, len(lines)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
