"""A child's lifetime is a block: how it ends is always known, and nothing of it is left behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime._procfs import holds_pipe, read_stat
from runtime._roster import Roster, read_roster
from runtime.process import SurvivorsError
from runtime.process.child import Child
from runtime.supervision.budget import StopBudget

IGNORES_SIGTERM = "trap '' TERM; echo ready $$; exec sleep 60"

#: Starts another process, in the ways that its arguments name, which says when it is ready.
DESCENDANT = """
import os, signal, sys, time
ways = sys.argv[1:]

def wait_for_ever():
    signal.alarm(60)
    while True:
        signal.pause()

def leave():
    if "setsid" in ways:
        os.setsid()
    if "ignore" in ways:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "close" in ways:
        ready = os.dup(2)
        os.set_inheritable(ready, False)
        os.closerange(0, 3)
    else:
        ready = 2
    if "clean" in ways:
        script = "echo ready $$ >&2; exec sleep 60"
        os.execve("/bin/sh", ["sh", "-c", script], {})
    os.write(ready, b"ready %d\\n" % os.getpid())
    if "close" in ways:
        os.close(ready)
    wait_for_ever()

if "twice" in ways:
    if os.fork() == 0:
        if os.fork() == 0:
            leave()
        os._exit(0)
    os.wait()
elif os.fork() == 0:
    leave()
if "leader ends" in ways:
    sys.exit(3)
wait_for_ever()
"""


@pytest.fixture
def descendant(room: Any, look: Any) -> Callable[[], Any]:
    """Return the pid of the descendant, once it has said that it is ready."""

    async def wait() -> int:
        return int(await look.line(room.output, "ready "))

    return wait


# --- how it ended ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_exit_with_7_is_seen_as_7_a_hundred_times(room: Any) -> None:
    seen: list[int] = []

    async def run_ten() -> None:
        for _ in range(10):
            async with room.open(room.sh("exit 7")) as child:
                seen.append(await child.wait_exit())

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(run_ten)
    assert seen == [7] * 100


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "ABRT", "HUP"])
async def test_a_death_by_signal_is_its_negative_number(room: Any, name: str) -> None:
    returncode, _ = await room.run(room.sh(f"ulimit -c 0; kill -{name} $$"))
    assert returncode == -signal.Signals[f"SIG{name}"]


async def test_looking_at_a_child_that_has_ended_does_not_reap_it(room: Any) -> None:
    async with room.open(room.sh("exit 3")) as child:
        assert await child.wait_exit() == 3
        assert [child.returncode for _ in range(3)] == [3, 3, 3]
        assert await child.wait_exit() == 3
        os.kill(child.pid, 0)  # the pid is still its own
    assert child.returncode == 3
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_a_child_that_runs_has_no_return_code(room: Any) -> None:
    async with room.open(room.sh("sleep 60")) as child:
        assert child.returncode is None
    assert child.returncode == -signal.SIGTERM


async def test_a_child_is_in_the_roster_as_long_as_its_block_lasts(
    room: Any, tmp_path: Path
) -> None:
    roster = Roster(tmp_path)
    room.host = replace(room.host, roster=roster)
    async with room.open(room.sh("exec sleep 60")) as child:
        (entry,) = read_roster(tmp_path)
        assert (entry.pid, entry.start_ticks) == read_stat(child.pid).member
        assert holds_pipe(child.pid, entry.stdout)
        assert holds_pipe(child.pid, entry.stderr)
    roster.close()
    assert read_roster(tmp_path) == []


class SleepsOfTheLoop(trio.abc.Instrument):
    """Writes down for how long the event loop was willing to sleep."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def before_io_wait(self, timeout: float) -> None:
        self.timeouts.append(timeout)


async def test_the_end_is_seen_without_polling(room: Any, open_gate: Callable[[], object]) -> None:
    sleeps = SleepsOfTheLoop()
    async with room.open(room.sh("read -r line < gate; exit 5")) as child:
        trio.lowlevel.add_instrument(sleeps)
        async with trio.open_nursery() as nursery:

            async def open_later() -> None:
                await trio.sleep(0.5)
                trio.lowlevel.remove_instrument(sleeps)
                open_gate()

            nursery.start_soon(open_later)
            assert await child.wait_exit() == 5
    sleeping = [timeout for timeout in sleeps.timeouts if timeout > 0]
    assert len(sleeping) <= 3, "something wakes up while nothing happens"


async def test_an_end_that_the_kernel_does_not_explain_is_an_error_of_ours(room: Any) -> None:
    async with room.open(room.sh("exit 3")) as child:
        await trio.lowlevel.wait_readable(child._pidfd)
        child._popen.wait()  # what nobody may do: reap a child of ours
        child._popen.returncode = None
        with pytest.raises(RuntimeError, match="the kernel does not say how"):
            await child.wait_exit()
        child._popen.returncode = 3


# --- how it is stopped ----------------------------------------------------------------------------


async def test_leaving_the_block_asks_the_child_to_stop_and_waits_no_longer_than_needed(
    room: Any, look: Any
) -> None:
    script = "trap 'echo bye; exit 4' TERM; echo ready; for i in $(seq 6000); do sleep 0.01; done"
    async with room.open(room.sh(script), timeout=1000) as child:
        await look.line(room.output, "ready")
    assert child.returncode == 4
    assert room.lines() == ["ready", "bye"]
    assert room.handle.notes == []


async def test_the_signal_that_asks_can_be_another_one(room: Any, look: Any) -> None:
    script = (
        "trap 'exit 4' INT; trap 'exit 5' TERM; echo ready;"
        " for i in $(seq 6000); do sleep 0.01; done"
    )
    async with room.open(room.sh(script), signum=signal.SIGINT, timeout=1000) as child:
        await look.line(room.output, "ready")
    assert child.returncode == 4


async def test_a_child_that_ignores_the_signal_is_killed_after_its_timeout(
    room: Any, descendant: Any
) -> None:
    async with room.open(room.sh(IGNORES_SIGTERM), timeout=0.2) as child:
        assert await descendant() == child.pid
        asked = trio.current_time()
    assert trio.current_time() - asked >= 0.2
    assert child.returncode == -signal.SIGKILL
    (note,) = room.handle.notes
    pattern = rf"killed: pid {child.pid} \(s\w+\); still there \d+\.\d s after SIGTERM"
    assert re.fullmatch(pattern, note)


async def test_who_ends_at_the_very_last_moment_is_not_said_to_be_killed(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_all_gone = Child._wait_all_gone

    async def notice_too_late(self: Child) -> None:
        await wait_all_gone(self)
        await trio.sleep_forever()

    monkeypatch.setattr(Child, "_wait_all_gone", notice_too_late)
    async with room.open(room.sh("exec sleep 60"), timeout=1) as child:
        pass
    assert child.returncode == -signal.SIGTERM
    assert room.handle.notes == []


async def test_a_timeout_of_0_kills_at_once(room: Any, descendant: Any) -> None:
    async with room.open(room.sh(IGNORES_SIGTERM), timeout=0) as child:
        await descendant()
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("timeout", [None, 1000.0], ids=["no timeout", "a longer timeout"])
async def test_what_is_left_of_the_budget_ends_all_politeness(
    room: Any, descendant: Any, timeout: float | None
) -> None:
    async with room.open(room.sh(IGNORES_SIGTERM), timeout=timeout, stop_within_sec=0.5) as child:
        await descendant()
    assert child.returncode == -signal.SIGKILL
    assert room.handle.notes


async def test_a_deadline_that_is_set_during_the_stop_counts_as_well(
    room: Any, descendant: Any, look: Any
) -> None:
    async with (
        trio.open_nursery() as nursery,
        room.open(room.sh(IGNORES_SIGTERM), timeout=1000) as child,
    ):
        await descendant()
        budget: StopBudget = room.handle.budget

        async def hurry() -> None:
            await look.true(lambda: budget.begun)
            budget.force(10)

        nursery.start_soon(hurry)
    assert child.returncode == -signal.SIGKILL


async def test_a_child_that_is_suspended_can_end_all_the_same(room: Any, look: Any) -> None:
    async with room.open(room.sh("kill -STOP $$"), timeout=1000) as child:
        await look.true(lambda: room_state(child.pid) == "T")
    assert child.returncode == -signal.SIGTERM


async def test_a_child_that_is_suspended_and_stays_is_killed(room: Any, look: Any) -> None:
    stays = "trap '' TERM; kill -STOP $$; exec sleep 60"
    async with room.open(room.sh(stays), timeout=0.1) as child:
        await look.true(lambda: room_state(child.pid) == "T")
    assert child.returncode == -signal.SIGKILL


def room_state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
        return file.read().rpartition(") ")[2][0]


async def test_a_cancelled_block_stops_the_child_too_and_the_cancellation_travels_on(
    room: Any, descendant: Any
) -> None:
    with trio.CancelScope() as scope:
        async with room.open(room.sh(IGNORES_SIGTERM), timeout=0.1) as child:
            await descendant()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert child.returncode == -signal.SIGKILL


async def test_an_error_in_the_block_stops_the_child_too(room: Any, look: Any) -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        async with room.open(room.sh("sleep 60")) as child:
            raise ZeroDivisionError
    assert child.returncode == -signal.SIGTERM
    assert not look.alive(child.pid)


# --- what descends from it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param("", id="child"),
        pytest.param("ignore", id="child that ignores SIGTERM"),
        pytest.param("setsid ignore", id="child with a session of its own that ignores SIGTERM"),
        pytest.param("setsid close", id="child with a session of its own that has closed all"),
        pytest.param("twice", id="orphan"),
        pytest.param("twice ignore", id="orphan that ignores SIGTERM"),
        pytest.param("twice setsid ignore", id="daemon that ignores SIGTERM"),
        pytest.param("twice setsid close", id="daemon that has closed all"),
        pytest.param("twice clean", id="orphan with a clean environment"),
        pytest.param("twice setsid clean", id="daemon with a clean environment that holds a pipe"),
    ],
)
@pytest.mark.parametrize("leader_ends", [False, True], ids=["stopped", "ended by itself"])
async def test_no_descendant_outlives_the_block(
    room: Any, descendant: Any, look: Any, ways: str, leader_ends: bool
) -> None:
    arguments = [*ways.split(), *(["leader ends"] if leader_ends else [])]
    timeout = 0.2 if "ignore" in ways else 1000
    async with room.open(room.py(DESCENDANT, *arguments), timeout=timeout) as child:
        pid = await descendant()
        if leader_ends:
            assert await child.wait_exit() == 3
        assert look.alive(pid)
    assert not look.alive(pid)
    assert child.returncode == (3 if leader_ends else -signal.SIGTERM)
    killed = [note for note in room.handle.notes if note.startswith(f"killed: pid {pid} (python")]
    assert bool(killed) == ("ignore" in ways)


async def test_a_family_that_flees_is_hunted_down(
    room: Any, look: Any, list_marked: Callable[[], list[int]]
) -> None:
    code = """
import os, signal
def flee(*_):
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.alarm(60)
    os.closerange(0, 3)
signal.alarm(60)
signal.signal(signal.SIGTERM, flee)
for _ in range(5):
    if os.fork() == 0:
        break
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
    async with room.open(room.py(code), timeout=0.2):
        await look.true(lambda: room.output.lines.last == 6)
    assert list_marked() == []
    assert room.handle.notes


async def test_a_child_that_ends_with_all_of_its_family_is_not_asked_anything(room: Any) -> None:
    async with room.open(room.sh("exit 0"), stop_within_sec=20) as child:
        await child.wait_exit()
    assert room.handle.said == []


async def test_a_child_that_closes_its_output_is_still_waited_for(
    room: Any, look: Any, open_gate: Callable[[], object]
) -> None:
    script = "exec >&- 2>&-; read -r line < gate; exit 6"
    async with room.open(room.sh(script)) as child:
        await look.true(lambda: not os.path.exists(f"/proc/{child.pid}/fd/1"))  # noqa: PTH110
        assert child.returncode is None
        open_gate()
        assert await child.wait_exit() == 6


async def test_a_pipe_that_somebody_holds_for_ever_is_read_for_a_bounded_time(
    room: Any, look: Any
) -> None:
    async with room.open(room.sh("echo hello; exec sleep 60")) as child:
        await look.line(room.output, "hello")
        held = os.open(f"/proc/{child.pid}/fd/1", os.O_WRONLY | os.O_CLOEXEC)
        os.write(held, b"from elsewhere")
    assert room.lines() == ["hello", "from elsewhere"]
    os.close(held)


async def test_what_the_kernel_holds_on_to_is_named(
    room: Any, descendant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Child._signal

    def lose(self: Child, signum: signal.Signals, family: list[Any]) -> None:
        if signum is not signal.SIGKILL:  # nothing can be done about a process in the kernel
            send(self, signum, family)

    roster = Roster(tmp_path)
    room.host = replace(room.host, kill_timeout=0.1, roster=roster)
    monkeypatch.setattr(Child, "_signal", lose)
    with pytest.raises(SurvivorsError) as caught:
        async with room.open(room.sh(IGNORES_SIGTERM), timeout=0.1) as child:
            await descendant()
    assert caught.value.pids == (child.pid,)
    assert child.returncode is None
    roster.close()
    assert [entry.pid for entry in read_roster(tmp_path)] == [child.pid]
    os.kill(child.pid, signal.SIGKILL)
    child._popen.wait()
    assert child.returncode == -signal.SIGKILL


async def test_output_that_cannot_be_handed_on_ends_the_block_with_that_error(room: Any) -> None:
    def fail(lines: object) -> None:
        raise OSError("the disk is full")

    room.output.listeners["echo"] = fail
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="the disk is full")):
        async with room.open(room.sh("echo hello; exec sleep 60")):
            await trio.sleep_forever()
