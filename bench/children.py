"""The tiny programs that the tools run, and the one line that each writes when it starts.

Each child has an executable of its own name, because Process Pilot terminates by name. The names
hold our pid, so that two runs on one machine do not end each other's children.
"""

import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Self

_SOURCE = Path(__file__).with_name("child.c")
# What does the same, a little slower, where there is no compiler; its time is that of the receipt.
_SCRIPT = """#!/bin/sh
echo "{name} $$ 0" > "$1"
[ -z "$2" ] || : > "$2"
exec "{sleeper}" 1000000
"""
# The reader wakes up once for many lines; it must not take time from those who write them.
_GATHER_SEC = 0.005


class BenchError(Exception):
    """A tool did not do what it was to do; the message says which and what."""


class Report(NamedTuple):
    """A child has started."""

    name: str
    pid: int
    at_ns: int  #: by the monotonic clock


class Workshop:
    """Makes the children's programs in *folder*, compiled once where there is a C compiler."""

    def __init__(self, folder: Path, *, compiler: str | None = shutil.which("cc")) -> None:
        self._folder = folder
        self._program = folder / "child"
        self.compiled = compiler is not None and self._compile(compiler)

    def _compile(self, compiler: str) -> bool:
        command = [compiler, "-O2", "-o", str(self._program), str(_SOURCE)]
        return any(
            subprocess.run([*command, *static], check=False, capture_output=True).returncode == 0
            for static in (["-static"], [])
        )

    def program(self, index: int) -> Path:
        """Return the program of the child *index*, made when it is first asked for."""
        name = f"b{os.getpid():x}-{index:03d}"
        path = self._folder / name
        if path.exists():
            return path
        if self.compiled:
            os.link(self._program, path)
        else:
            sleeper = self._folder / "sleepers" / name
            sleeper.parent.mkdir(exist_ok=True)
            shutil.copy(shutil.which("sleep") or "/bin/sleep", sleeper)
            path.write_text(_SCRIPT.format(name=name, sleeper=sleeper))
            path.chmod(0o755)
        return path


class Reports:
    """A named pipe that children report into; read in the order in which they did."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.all: list[Report] = []
        # Open for writing as well, or the last writer that leaves would be an end of file.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self, count: int, within_sec: float) -> list[Report]:
        """Return the next *count* reports; raise `BenchError` if they do not come in time."""
        got = self.gather(count, within_sec)
        if len(got) < count:
            raise BenchError(f"{len(got)} of {count} children started within {within_sec:g} s")
        return got

    def gather(self, count: int, within_sec: float) -> list[Report]:
        """Return the next *count* reports, or those that came within *within_sec* seconds."""
        first = len(self.all)
        deadline = time.monotonic() + within_sec
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while len(self.all) - first < count and (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                self._read()
        return self.all[first:]

    def _read(self) -> None:
        received_ns = time.monotonic_ns()
        time.sleep(_GATHER_SEC)
        *lines, self._unread = (self._unread + os.read(self._fd, 65_536)).split(b"\n")
        for line in lines:
            name, pid, at_ns = line.decode().split()
            self.all.append(Report(name, int(pid), int(at_ns) or received_ns))
