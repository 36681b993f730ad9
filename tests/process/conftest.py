"""Real processes made of a line of shell or Python, and the proof that none of them is left.

Every coroutine test here runs in real time and has `LIMIT_SEC` for it.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import trio

from runtime import _procfs
from runtime.pilot import ProcessPilot
from runtime.process import ProcessManifest
from runtime.process.child import Child, StopPlan, open_child
from runtime.process.host import Host
from runtime.process.logfile import LogFile
from runtime.process.output import Output
from runtime.process.spawn import Command
from runtime.supervision.budget import StopBudget
from runtime.supervision.events import EventKind
from runtime.supervision.unit import UnitHandle

#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 90.0
#: The variable that everything a test starts inherits.
MARK = "RUNTIME_TEST"
#: What shortens the start of an interpreter.
LIGHT = ("-S", "-E", "-c")
_LOOK_EVERY_SEC = 0.005


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Let no coroutine test of this folder wait for ever."""
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def limited(**arguments: object) -> None:
            with trio.fail_after(LIMIT_SEC):
                await test(**arguments)

        pyfuncitem.obj = limited


def find_marked(mark: str) -> list[_procfs.Stat]:
    """Return what lives, and was started with the mark in its environment."""
    entry = f"{MARK}={mark}".encode()
    return [s for s in _procfs.list_processes() if s.alive and _procfs.has_environ(s.pid, entry)]


def find_children() -> set[_procfs.Member]:
    """Return the children of this process, zombies among them."""
    return {s.member for s in _procfs.list_processes() if s.parent == os.getpid()}


@pytest.fixture
def find_new_children() -> Callable[[], set[_procfs.Member]]:
    """Return the children that were not there before the test: another folder may have its own."""
    before = find_children()
    return lambda: find_children() - before


@pytest.fixture(autouse=True)
def mark(
    monkeypatch: pytest.MonkeyPatch, find_new_children: Callable[[], set[_procfs.Member]]
) -> Iterator[str]:
    """Mark all that the test starts; after it nothing of that is there, nor any child or zombie."""
    token = token_hex(8)
    monkeypatch.setenv(MARK, token)
    yield token
    left = [stat for stat in find_marked(token) if stat.pid != os.getpid()]
    names = [f"{_procfs.read_name(stat.pid)} ({stat.pid})" for stat in left]
    for stat in left:
        _procfs.send_signal(stat.member, signal.SIGKILL)
    children = find_new_children()
    assert names == [], "these processes were left behind"
    assert children == set(), "there is a child, or a zombie, that nobody waited for"


@pytest.fixture
def list_marked(mark: str) -> Callable[[], list[int]]:
    """Return the pids of all that the test has started and that lives."""
    return lambda: [stat.pid for stat in find_marked(mark) if stat.pid != os.getpid()]


# --- what is run ----------------------------------------------------------------------------------

Definition = dict[str, Any]
Define = Callable[..., Definition]


@pytest.fixture
def sh() -> Define:
    """Define a process that is a script of the shell."""

    def define(script: str, name: str = "p", **fields: object) -> Definition:
        return {"name": name, "path": "/bin/sh", "args": ["-c", script], **fields}

    return define


@pytest.fixture
def py() -> Define:
    """Define a process that is a program in Python; it has the standard library only."""

    def define(code: str, *args: object, name: str = "p", **fields: object) -> Definition:
        arguments = [*LIGHT, code, *map(str, args)]
        return {"name": name, "path": sys.executable, "args": arguments, **fields}

    return define


MakePilot = Callable[..., ProcessPilot]


@pytest.fixture
def make_pilot(tmp_path: Path) -> MakePilot:
    """Make a pilot of processes as `sh` and `py` define them, and of fields of the manifest."""

    def make(
        *processes: Definition, options: dict[str, Any] | None = None, **fields: object
    ) -> Any:
        data = {"base_directory": str(tmp_path), **fields, "processes": list(processes)}
        manifest = ProcessManifest.model_validate(data)
        return ProcessPilot(manifest, **{"ready_check_interval": 0.02, **(options or {})})

    return make


class Handle(UnitHandle):
    """The handle of a unit that writes down what the body says."""

    def __init__(self, stop_within_sec: float | None = None) -> None:
        self.said: list[tuple[str, str]] = []
        super().__init__(
            "p",
            StopBudget(),
            on_started=lambda: self.said.append(("started", "")),
            on_ending=lambda reason: self.said.append(("ending", reason)),
            on_note=lambda fact: self.said.append(("note", fact)),
        )
        if stop_within_sec is not None:
            self.budget.begin(stop_within_sec)

    @property
    def notes(self) -> list[str]:
        return [words for kind, words in self.said if kind == "note"]


class Room:
    """What one child is run with, and what it has left behind to be looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host, self.output, self.handle = folder, Host(), Output(), Handle()
        self.log: LogFile | None = None

    def command(self, *argv: object, **fields: Any) -> Command:
        env = {**os.environ, **self.host.marker("p")}
        given = {"name": "p", "working_directory": self.folder, "env": env, **fields}
        return Command(argv=[str(each) for each in argv], **given)

    def sh(self, script: str, **fields: Any) -> Command:
        return self.command("/bin/sh", "-c", script, **fields)

    def py(self, code: str, *args: object, **fields: Any) -> Command:
        return self.command(sys.executable, *LIGHT, code, *args, **fields)

    def open(
        self, command: Command, *, stop_within_sec: float | None = None, **plan: Any
    ) -> AbstractAsyncContextManager[Child]:
        self.handle = Handle(stop_within_sec)
        return open_child(
            command, self.host, self.output, StopPlan(**plan), self.handle, log=self.log
        )

    def lines(self, stream: str = "stdout") -> list[str]:
        return [e.item.text for e in self.output.lines.tail() if e.item.stream == stream]

    async def run(self, command: Command) -> tuple[int, list[str]]:
        """Run to the end; return how it ended and what it printed."""
        async with self.open(command) as child:
            returncode = await child.wait_exit()
        return returncode, self.lines()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """Run single children, without a supervisor."""
    return Room(tmp_path)


@pytest.fixture
def open_gate(tmp_path: Path) -> Iterator[Callable[[], object]]:
    """Let go on who does ``read -r line < gate`` in the test's folder, one for each call."""
    os.mkfifo(tmp_path / "gate")
    fd = os.open(tmp_path / "gate", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    yield lambda: os.write(fd, b"go\n")
    os.close(fd)


# --- what is waited for ---------------------------------------------------------------------------


async def wait_line(output: Output, text: str) -> str:
    """Return the first line that begins with *text*, without it, once there is one."""
    async for entry in output.lines.read(after=0):
        if entry.item.text.startswith(text):
            return entry.item.text.removeprefix(text).strip()
    raise AssertionError("the output has ended")


async def wait_true(holds: Callable[[], object]) -> None:
    """Return once that holds; for what nobody tells us of."""
    while not holds():  # noqa: ASYNC110 - what is outside sets no event of ours
        await trio.sleep(_LOOK_EVERY_SEC)


async def wait_generation(pilot: ProcessPilot, name: str, generation: int) -> int:
    """Return the pid of a process once that generation of it, or a later one, is ready."""
    async for entry in pilot.supervisor.events.read(after=0):
        event = entry.item
        if (event.unit, event.kind, event.new) == (name, EventKind.MOVED, "running"):
            status = pilot.get_running_process(name)
            if event.generation >= generation and status is not None and status.pid:
                return status.pid
    raise AssertionError("the events have ended")


def is_alive(pid: int) -> bool:
    """Return whether that process runs; a zombie does not."""
    stat = _procfs.read_stat(pid)
    return stat is not None and stat.alive


def list_fds() -> list[str]:
    """Return what is open here; numbers that differ from time to time are left out."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one of the listing itself
            found.append(str(fd.readlink()).partition(":[")[0])
    return sorted(found)


def read_rss_mb() -> float:
    """Return the memory that this process has in use."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


class Look:
    """Functions that wait for, or look at, what happens outside."""

    line = staticmethod(wait_line)
    true = staticmethod(wait_true)
    generation = staticmethod(wait_generation)
    alive = staticmethod(is_alive)
    fds = staticmethod(list_fds)
    rss_mb = staticmethod(read_rss_mb)


@pytest.fixture
def look() -> type[Look]:
    return Look


@pytest.fixture
def fds_kept() -> Iterator[None]:
    """Require that as much is open after the test as before it.

    A thread that was left to itself closes what it has in hand when it comes back.
    """
    before = list_fds()
    yield
    deadline = time.monotonic() + LIMIT_SEC
    while list_fds() != before and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_SEC)
    assert list_fds() == before
