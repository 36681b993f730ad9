from __future__ import annotations

import fcntl
import os
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import trio
import trio.testing

from runtime.cli import _console
from runtime.cli._console import Console
from runtime.process.output import Line

#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 60.0
#: The least that a pipe can be made to hold.
PIPE_BYTES = 4_096


class Ends(NamedTuple):
    """The reading ends of what a console writes to."""

    stdout: int
    stderr: int

    def read_all(self) -> tuple[str, str]:
        """Return what has been written, once the console's ends are closed."""
        os.close(_console._STDOUT)
        os.close(_console._STDERR)
        read = [b"".join(iter(lambda fd=fd: os.read(fd, 65_536), b"")).decode() for fd in self]
        return read[0], read[1]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """Let every console write into pipes."""
    (stdout, stdout_end), (stderr, stderr_end) = os.pipe(), os.pipe()
    monkeypatch.setattr(_console, "_STDOUT", stdout_end)
    monkeypatch.setattr(_console, "_STDERR", stderr_end)
    yield Ends(stdout, stderr)
    for fd in (stdout, stderr, stdout_end, stderr_end):
        try:
            os.close(fd)
        except OSError:  # the test has closed it
            continue


def lines(*texts: str) -> list[Line]:
    return [Line("stdout", text, 0.0) for text in texts]


def in_a_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def read_exactly(fd: int, size: int) -> str:
    read = b""
    while len(read) < size and (more := os.read(fd, size - len(read))):
        read += more
    return read.decode()


def count_unread(fd: int) -> int:
    """Return how many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


async def write_all(console: Console) -> None:
    console.close()
    with trio.fail_after(LIMIT_SEC):
        await console.run()


async def test_each_stream_gets_its_own_in_order(ends: Ends) -> None:
    console = Console(["db", "a-long-name"])
    console.echo("db", lines("one", "two"))
    console.say("a sentence")
    console.echo("a-long-name", lines("three"))
    console.show("a table\nof two lines\n")
    console.progress("is for terminals only")
    await write_all(console)
    assert ends.read_all() == (
        "db          | one\ndb          | two\na-long-name | three\n",
        "runtime     | a sentence\na table\nof two lines\n",
    )


async def test_it_ends_when_all_is_written_and_not_before_it_is_closed(ends: Ends) -> None:
    console = Console(["a"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(console.run)
        for number in range(3):
            console.echo("a", lines(str(number)))
            await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        console.close()
    assert ends.read_all()[0].split("\n") == ["a       | 0", "a       | 1", "a       | 2", ""]


def test_what_is_held_for_a_slow_reader_is_bounded_but_no_sentence_is_lost(ends: Ends) -> None:
    console = Console(["a"])
    console.echo("a", lines("x" * _console._HELD_BYTES))
    console.echo("a", lines("this", "is", "dropped"))
    console.say("this is not")
    writing = in_a_thread(lambda: trio.run(write_all, console))
    expected = "a       | " + "x" * _console._HELD_BYTES + "\n"
    assert read_exactly(ends.stdout, len(expected)) == expected
    writing.join()
    dropped = "3 lines of output were not shown: it is read too slowly"
    assert ends.read_all() == ("", f"runtime | this is not\nruntime | {dropped}\n")


async def test_a_reader_that_has_gone_costs_only_what_was_meant_for_it(ends: Ends) -> None:
    os.close(ends.stdout)
    console = Console(["a"])
    console.echo("a", lines("nobody sees this"))
    console.say("somebody sees this")
    await write_all(console)
    os.close(_console._STDERR)
    assert os.read(ends.stderr, 65_536) == b"runtime | somebody sees this\n"


def test_a_stream_that_somebody_has_made_non_blocking_loses_nothing(ends: Ends) -> None:
    os.set_blocking(_console._STDOUT, False)
    console = Console(["a"])
    console.echo("a", lines(*["x" * 1000] * 300))  # more than a pipe holds
    writing = in_a_thread(lambda: trio.run(write_all, console))
    # A reader that keeps up would never let the pipe be full: so none reads until it has been.
    while writing.is_alive() and not os.get_blocking(_console._STDOUT):
        time.sleep(0.001)
    expected = ("a       | " + "x" * 1000 + "\n") * 300
    assert read_exactly(ends.stdout, len(expected)) == expected
    writing.join()


async def test_a_reader_that_never_reads_does_not_keep_us(ends: Ends) -> None:
    fcntl.fcntl(ends.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    console = Console(["a"])
    console.echo("a", lines("x" * 2 * PIPE_BYTES))
    console.close()
    with trio.fail_after(LIMIT_SEC):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(console.run)
            while count_unread(ends.stdout) < PIPE_BYTES:  # noqa: ASYNC110 - of a thread
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    os.close(ends.stdout)  # and so the thread ends that was left behind, within its write


async def test_text_that_cannot_be_encoded_is_shown_all_the_same(ends: Ends) -> None:
    console = Console(["a"])
    console.echo("a", lines("half a pair: \ud83d"))
    await write_all(console)
    assert ends.read_all()[0] == "a       | half a pair: ?\n"
