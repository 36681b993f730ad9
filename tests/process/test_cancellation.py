"""Being cancelled is the ordinary way to stop: at any moment, and nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.pilot import ProcessPilot
from runtime.plugin import Plugin
from runtime.process import ProcessState
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
IGNORES_SIGTERM = "trap '' TERM; echo ready $$; exec sleep 60"
#: Steps of the scheduler within which both processes have started, crashed and come back.
LIFE_IN_STEPS = 300
#: Each of the first steps, then some; of these the session takes as many as tell a fault early.
STEPS = [
    step if step % 4 == 1 else pytest.param(step, marks=pytest.mark.slow)
    for step in (*range(1, 60), *range(60, LIFE_IN_STEPS, 5))
]


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope after so many steps of the scheduler, whoever's they are."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self.left, self.scope = steps, scope
        self.token = trio.lowlevel.current_trio_token()

    def after_task_step(self, task: object) -> None:
        self.left -= 1
        if self.left == 0:
            self.token.run_sync_soon(self.scope.cancel)


class Hooks(Plugin):
    def get_lifecycle_hooks(self) -> Any:
        async def wait(process: object, popen: object) -> None:
            await trio.lowlevel.checkpoint()

        moments = ("pre_start", "post_start", "on_shutdown", "on_restart")
        return {"hooks": {moment: [wait, lambda process, popen: None] for moment in moments}}


def assert_at_rest(pilot: ProcessPilot) -> None:
    assert not pilot.is_running()
    for process in pilot.get_manifest_processes():
        status = process.get_status()
        assert (status.status, status.pid) == (ProcessState.STOPPED, 0)
        assert pilot.supervisor.status(process.name).stage in {Stage.IDLE, Stage.FAILED, Stage.HELD}


async def cancel_after(steps: int, pilot: ProcessPilot) -> None:
    with trio.CancelScope() as scope:
        instrument = CancelAfter(steps, scope)
        trio.lowlevel.add_instrument(instrument)
        async with pilot:
            await trio.sleep_forever()
    trio.lowlevel.remove_instrument(instrument)
    assert scope.cancelled_caught


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize("steps", STEPS)
async def test_cancelled_at_any_step_no_child_is_left_and_every_state_is_at_rest(
    make_pilot: Any, sh: Any, list_marked: Callable[[], list[int]], steps: int
) -> None:
    ready = {"ready_strategy": "file", "ready_params": {"path": "ready"}}
    again = {"restart": {"when": "always", "delay_sec": 0.001, "factor": 1}}
    pilot = make_pilot(
        sh(f"(sleep 60 &) ; : > ready; {SLEEP}", name="db", working_directory=".", **ready),
        sh("echo crash; exit 1", name="crash", lifecycle_hooks=["hooks"], **again),
        sh(SLEEP, name="api", dependencies=["db"]),
        options={"ready_check_interval": 0.001},
    )
    pilot.register_plugins([Hooks()])
    await cancel_after(steps, pilot)
    assert_at_rest(pilot)
    assert list_marked() == []


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize("steps", STEPS)
async def test_cancelled_at_any_step_what_was_printed_is_in_the_log_and_its_writer_is_gone(
    make_pilot: Any, sh: Any, tmp_path: Path, steps: int
) -> None:
    again = {"restart": {"when": "always", "delay_sec": 0.001, "factor": 1}}
    pilot = make_pilot(
        sh(f"echo up; {SLEEP}", log={"file": "a/p.log"}),
        sh("echo crash; exit 1", name="crash", log={"file": "b/crash.log", "keep": 0}, **again),
    )
    await cancel_after(steps, pilot)
    assert_at_rest(pilot)
    for process in pilot.get_manifest_processes():
        printed = [f"{entry.item.text}\n" for entry in process.output.lines.tail()]
        written = process.log.file.read_text() if process.log.file.exists() else ""
        assert written == "".join(printed)
    assert pilot._host.logs.borrowed_tokens == 0  # no thread of a writer's is left


async def test_the_steps_reach_from_the_first_spawn_to_a_restart(make_pilot: Any, sh: Any) -> None:
    """What the test before would not be worth much without."""
    again = {"restart": {"when": "always", "delay_sec": 0.001, "factor": 1}}
    pilot = make_pilot(sh("exit 1", name="crash", **again))
    with trio.CancelScope() as scope:
        instrument = CancelAfter(LIFE_IN_STEPS, scope)
        trio.lowlevel.add_instrument(instrument)
        await pilot.start()
    trio.lowlevel.remove_instrument(instrument)
    assert pilot.supervisor.status("crash").generation > 1
    assert_at_rest(pilot)


@pytest.mark.parametrize("steps", range(1, 60, 3))
async def test_requests_that_are_cancelled_at_any_step_hurt_nobody(
    make_pilot: Any, sh: Any, steps: int
) -> None:
    async with make_pilot(sh(SLEEP), sh(SLEEP, name="other")) as pilot:
        with trio.CancelScope() as scope:
            instrument = CancelAfter(steps, scope)
            trio.lowlevel.add_instrument(instrument)
            await pilot.restart_processes("p")
            await pilot.stop_process("p")
            await pilot.start_process("p")
        trio.lowlevel.remove_instrument(instrument)
        await pilot.start_process("p")
        assert pilot.supervisor.status("p").ready
        assert pilot.supervisor.status("other").generation == 1
    assert_at_rest(pilot)


async def test_a_timeout_around_the_block_is_not_held_up_beyond_the_budget(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh(IGNORES_SIGTERM, timeout=1000), stop_within_sec=0.5)
    alive_at_the_end_of_the_block: list[bool] = []
    with trio.move_on_after(1000) as scope:
        async with pilot:
            await look.line(pilot.get_process_by_name("p").output, "ready")
            scope.deadline = trio.current_time()
            try:
                await trio.sleep_forever()
            finally:  # the block itself is not shielded: it does not wait for the stop
                pid = pilot.get_running_process("p").pid
                alive_at_the_end_of_the_block.append(look.alive(pid))
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 10  # ten times the budget, and then some
    assert alive_at_the_end_of_the_block == [True]
    assert pilot.get_process_by_name("p").get_status().return_code == -signal.SIGKILL
    assert_at_rest(pilot)


async def test_a_start_that_is_cancelled_stops_in_order_and_the_cancellation_travels_on(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh(SLEEP, name="db"), sh(SLEEP, name="api", dependencies=["db"]))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(pilot.start)
            scope.cancel()
    assert scope.cancelled_caught
    ends = [e.item.unit for e in pilot.supervisor.events.tail() if e.item.new == "stopped"]
    assert ends == ["api", "db"]
    assert_at_rest(pilot)


async def test_a_block_that_is_cancelled_before_it_begins_starts_nothing(
    make_pilot: Any, sh: Any, tmp_path: Path, list_marked: Callable[[], list[int]]
) -> None:
    pilot = make_pilot(sh(f": > started; {SLEEP}", working_directory="."))
    with trio.CancelScope() as scope:
        scope.cancel()
        async with pilot:
            raise AssertionError
    assert scope.cancelled_caught
    assert list_marked() == []
    assert not (tmp_path / "started").exists()
    assert_at_rest(pilot)


async def test_a_stop_that_is_cancelled_while_it_waits_goes_on(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh(IGNORES_SIGTERM, timeout=0.2))
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        await look.line(pilot.get_process_by_name("p").output, "ready")
        with trio.move_on_after(0.01) as impatience:
            await pilot.stop()
        assert impatience.cancelled_caught
        assert pilot.is_running()
    assert_at_rest(pilot)
