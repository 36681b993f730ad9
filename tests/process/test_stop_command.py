"""When a stop command is late, or hangs, there is time for the signal before SIGKILL."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtime.process import child as module
from runtime.process.child import Child, StopPlan
from runtime.process.host import Host
from runtime.process.spawn import Command, Spawned

from .conftest import Handle

pytestmark = pytest.mark.usefixtures("autojump_clock")
COMMAND = Command(name="p", argv=["halt"], working_directory=None, env={})
RAN, NOT_STARTED = "was still running", "had not been started"
TERM, KILL = signal.SIGTERM, signal.SIGKILL


class Deaf(Child):  # type: ignore[misc]
    """A child without a process, which ends by SIGKILL only and writes down what it is sent."""

    def __init__(self) -> None:
        popen: Any = SimpleNamespace(pid=1)
        super().__init__(COMMAND, Host(), Spawned(popen, -1, -1, -1))
        self.sent: list[tuple[signal.Signals, float]] = []
        self.end: int | None = None
        self.gone = trio.Event()

    @property
    def returncode(self) -> int | None:
        return self.end

    async def wait_exit(self) -> int:
        await self.gone.wait()
        return 0

    def _look(self) -> list[Any]:
        return []

    def _signal(self, signum: signal.Signals, family: list[Any]) -> None:
        self.sent.append((signum, trio.current_time()))
        if signum is KILL:
            self.end = -KILL
            self.gone.set()

    async def _wait_exit_of(self, family: list[Any]) -> None:
        await self.gone.wait()


Start = Callable[[], Awaitable[object]]


async def at_once() -> None:
    """Take no time to start."""


def in_a_queue(seconds: float) -> Start:
    """Return a start that waits so long for its turn."""

    async def start() -> None:
        await trio.sleep(seconds)

    return start


def in_a_thread(seconds: float) -> Start:
    """Return a start that lasts so long, and cannot be cancelled in between."""

    async def start() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        await trio.lowlevel.checkpoint_if_cancelled()

    return start


@pytest.fixture
def start_helper(monkeypatch: pytest.MonkeyPatch) -> Callable[[Start], None]:
    """Let a stop command start as it is told, hang, and end when it is told to."""

    def start_so(start: Start) -> None:
        @asynccontextmanager
        async def open_child(*_: object) -> AsyncGenerator[Deaf]:
            await start()
            yield Deaf()

        monkeypatch.setattr(module, "open_child", open_child)

    return start_so


async def stop(
    timeout: float | None, unit: Handle, *, hurry: Callable[[], Awaitable[object]] | None = None
) -> list[tuple[signal.Signals, float]]:
    """Stop a deaf child by a command; return what it was sent, and how long after that began."""
    child, began = Deaf(), trio.current_time()
    async with trio.open_nursery() as nursery:
        if hurry is not None:
            nursery.start_soon(hurry)
        await child.stop(StopPlan(timeout=timeout, command=lambda _: COMMAND), unit)
        nursery.cancel_scope.cancel()
    return [(signum, round(at - began, 6)) for signum, at in child.sent]


@pytest.mark.parametrize(
    ("start", "told", "signalled", "killed"),
    [
        pytest.param(at_once, RAN, 8, 10, id="at once"),
        pytest.param(in_a_queue(7), RAN, 8, 10, id="late"),
        pytest.param(in_a_queue(9), NOT_STARTED, 8, 10, id="too late"),
        pytest.param(in_a_queue(99), NOT_STARTED, 8, 10, id="never"),
        pytest.param(in_a_thread(7), RAN, 8, 10, id="slowly"),
        pytest.param(in_a_thread(9), NOT_STARTED, 9, 11, id="too slowly"),
        pytest.param(in_a_thread(15), NOT_STARTED, 15, 17, id="far too slowly"),
    ],
)
async def test_however_a_command_that_hangs_is_started_the_signal_comes_and_has_its_time(
    start_helper: Callable[[Start], None],
    start: Start,
    told: str,
    signalled: float,
    killed: float,
) -> None:
    start_helper(start)
    unit = Handle()
    assert await stop(10, unit) == [(TERM, signalled), (KILL, killed)]
    assert unit.notes[0] == f"stop command halt {told} after 8.0 s; SIGTERM is sent instead"


async def test_a_loop_that_was_held_up_over_all_of_the_time_leaves_some_for_the_signal(
    start_helper: Callable[[Start], None], autojump_clock: MockClock
) -> None:
    start_helper(at_once)

    async def hold_up() -> None:
        await trio.sleep(1)
        autojump_clock.jump(99)

    assert await stop(10, Handle(1000), hurry=hold_up) == [(TERM, 100), (KILL, 102)]


@pytest.mark.parametrize("timeout", [None, 100])
async def test_a_stop_that_gets_less_time_meanwhile_keeps_a_fifth_of_that_for_the_signal(
    start_helper: Callable[[Start], None], timeout: float | None
) -> None:
    start_helper(at_once)
    unit = Handle(31)  # one second of it is kept back for SIGKILL

    async def hurry() -> None:
        await trio.sleep(4)
        unit.budget.begin(11)

    assert await stop(timeout, unit, hurry=hurry) == [(TERM, 12), (KILL, 14)]


async def test_a_stop_by_force_waits_for_neither(start_helper: Callable[[Start], None]) -> None:
    start_helper(at_once)
    unit = Handle()

    async def force() -> None:
        await trio.sleep(3)
        unit.budget.force(1)

    assert await stop(100, unit, hurry=force) == [(TERM, 3), (KILL, 3)]
