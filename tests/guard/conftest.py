"""Programs below a guard, as real processes, and ways to wait for what they do."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime._procfs import list_descendants, send_signal

ROOT = Path(__file__).parents[2]

#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 60.0

OPEN_GUARD = """
import os, select, signal, subprocess, sys, time
from runtime.guard import open_guard
guard = open_guard()
"""


class Program:
    """A Python program in a process of its own, with its output as a line of communication.

    Whatever it starts inherits that output, whose end therefore says that nothing of it is left.
    """

    def __init__(self, code: str, *arguments: object, wrapper: str = "", **options: Any) -> None:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        # Unbuffered, a line would be two writes, and another's words might come between them.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        self.process = subprocess.Popen(
            [*wrapper.split(), *command],
            cwd=ROOT,
            bufsize=0,
            **{"env": env, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options},
        )
        self.pid = self.process.pid
        self._unread = b""

    def read_line(self) -> str:
        """Return the next line of the output, or nothing at its end."""
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            wait_readable(self.process.stdout.fileno())
            data = self.process.stdout.read(4096)
            if not data:
                break
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def read_pid(self) -> int:
        return int(self.read_line())

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self) -> int:
        """Wait for the end, and return the exit status, negative for a signal."""
        return self.process.wait(LIMIT_SEC)

    def has_left_nothing(self) -> bool:
        """Return whether nobody has the output open any more, at this moment."""
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def close(self) -> None:
        """End it and everything below it, for tests that have failed."""
        if self.process.poll() is None:
            below = list_descendants([self.pid])
            self.process.kill()
            for stat in below:
                send_signal(stat.member, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a `Program`; it does not outlive the test."""
    programs: list[Program] = []

    def start_program(code: str, *arguments: object, **options: Any) -> Program:
        programs.append(Program(code, *arguments, **options))
        return programs[-1]

    yield start_program
    for program in programs:
        program.close()


@pytest.fixture
def start_guarded(start: Start) -> Start:
    """Start a `Program` that opens a guard, named ``guard``, and then runs the code."""
    return lambda code, *arguments, **options: start(OPEN_GUARD + code, *arguments, **options)


@contextmanager
def _open_child(program: str = "cat", **environment: str) -> Generator[subprocess.Popen[bytes]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([program], bufsize=0, env=environment, **pipes) as child:
        try:
            child.stdin.write(b"?")
            assert child.stdout.read(1) == b"?"
            yield child
        finally:
            child.kill()


OpenChild = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def open_child() -> OpenChild:
    """Have a child that runs ``cat`` already, which has no more environment than it is given.

    A mere `subprocess.Popen` may be found between fork and exec, or with no environment yet.
    """
    return _open_child


@pytest.fixture
def kill() -> Callable[[int], None]:
    """Kill any process, not only a child, and wait until it has ended; it may be a zombie then."""

    def kill_and_wait(pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_readable(pidfd)
        os.close(pidfd)

    return kill_and_wait


def wait_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(LIMIT_SEC * 1000), "nothing came"
