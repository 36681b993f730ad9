"""A process runs generation after generation, and all of one is gone before the next begins."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.pilot import ProcessPilot
from runtime.plugin import Plugin
from runtime.process import HookError, ProcessExitedError, ProcessState, SpawnError, SurvivorsError
from runtime.process.child import Child
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
IGNORES_SIGTERM = "trap '' TERM; echo ready $$; exec sleep 60"
ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
AT_ONCE: dict[str, Any] = {
    "restart": {"when": "always", "delay_sec": 0, "factor": 1},
}

needs_two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs a machine with two CPUs"
)


@asynccontextmanager
async def running(pilot: ProcessPilot) -> AsyncGenerator[ProcessPilot]:
    """Run a pilot from before its processes are ready to the end of the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await trio.testing.wait_all_tasks_blocked()
        yield pilot
        await pilot.stop()


def pid_of(pilot: ProcessPilot, name: str) -> int:
    status = pilot.get_running_process(name)
    assert status is not None
    return status.pid


def facts(pilot: ProcessPilot, name: str, kind: EventKind) -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [event.reason for event in events if (event.unit, event.kind) == (name, kind)]


async def test_a_restart_leaves_nothing_that_only_a_search_for_garbage_would_find(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh(SLEEP, **AT_ONCE))
    async with running(pilot):
        pid = await look.generation(pilot, "p", 1)
        gc.collect()
        gc.disable()
        try:
            for generation in range(2, 7):
                os.kill(pid, signal.SIGKILL)
                pid = await look.generation(pilot, "p", generation)
            found = gc.collect()
        finally:
            gc.enable()
    assert found < 5  # of a restart, not even one


# --- what follows an end --------------------------------------------------------------------------


async def test_a_crash_restarts_that_process_only_with_a_new_pid(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(*(sh(SLEEP, name=name) for name in ("a", "b", "c")))
    async with pilot:
        before = {name: pid_of(pilot, name) for name in ("a", "b", "c")}
        os.kill(before["b"], signal.SIGKILL)
        new = await look.generation(pilot, "b", 2)
        assert new != before["b"]
        assert not look.alive(before["b"])
        assert {name: pid_of(pilot, name) for name in ("a", "b", "c")} == {**before, "b": new}
        assert [pilot.supervisor.status(name).generation for name in "abc"] == [1, 2, 1]
        reasons = facts(pilot, "b", EventKind.MOVED)
        assert any(reason.startswith("killed by SIGKILL after ") for reason in reasons)


@needs_two_cpus
async def test_a_restarted_process_has_its_affinity_and_the_others_have_theirs(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    async with make_pilot(sh(SLEEP, affinity=[cpus[-1]]), sh(SLEEP, name="free")) as pilot:
        for generation in (1, 2, 3):
            pid = await look.generation(pilot, "p", generation)
            assert os.sched_getaffinity(pid) == {cpus[-1]}
            os.kill(pid, signal.SIGKILL)
        assert os.sched_getaffinity(pid_of(pilot, "free")) == set(cpus)
    assert os.sched_getaffinity(0) == set(cpus)


async def test_a_process_that_is_restarted_by_default_comes_back_whatever_its_end(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    for strategy in ("restart", None):
        async with running(make_pilot(sh("exit 0", shutdown_strategy=strategy))) as pilot:
            await look.generation(pilot, "p", 2)


async def test_a_process_that_is_not_restarted_stays_down_and_the_others_up(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh("exit 7", **ONCE), sh(SLEEP, name="other"))
    async with running(pilot):
        await pilot.supervisor.wait_until("p", Stage.FAILED)
        await look.generation(pilot, "other", 1)
        assert pilot.get_running_process("p") is None
        status = pilot.get_process_by_name("p").get_status()
        assert (status.status, status.pid, status.return_code) == (ProcessState.STOPPED, 0, 7)
        assert isinstance(pilot.supervisor.status("p").error, ProcessExitedError)
        assert pilot.is_running()


async def test_a_good_end_that_is_not_followed_by_a_restart_is_completion(
    make_pilot: Any, sh: Any
) -> None:
    for fields in (ONCE, {"restart": {"when": "failure"}}, {"restart": {"when": "never"}}):
        pilot = make_pilot(sh("exit 0", **fields))
        await pilot.start()
        status = pilot.supervisor.status("p")
        assert status.stage is Stage.COMPLETED
        assert status.reason.startswith("completed after ")
        assert pilot.get_process_by_name("p").get_status().return_code == 0


async def test_an_end_that_shuts_down_everything_stops_the_others_in_order(
    make_pilot: Any, sh: Any, look: Any, open_gate: Callable[[], object]
) -> None:
    pilot = make_pilot(
        sh(SLEEP, name="db"),
        sh(
            "read -r line < gate; exit 5",
            dependencies=["db"],
            working_directory=".",
            shutdown_strategy="shutdown_everything",
        ),
        sh(SLEEP, name="web", dependencies=["p"]),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        assert len(pilot.get_running_process()) == 3
        open_gate()
    assert not pilot.is_running()
    assert pilot.supervisor.ended_by == "p"
    assert pilot.get_process_by_name("p").get_status().return_code == 5
    ends = [e.item.unit for e in pilot.supervisor.events.tail() if e.item.new == "stopped"]
    assert ends == ["p", "web", "db"]


async def test_a_restart_block_decides_how_often_and_how_it_ends(make_pilot: Any, sh: Any) -> None:
    restart = {"when": "failure", "delay_sec": 0.01, "factor": 1, "max_restarts": 3}
    pilot = make_pilot(sh("echo run; exit 1", restart=restart))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert (status.stage, status.generation, status.restarts) == (Stage.FAILED, 4, 3)
    assert "; given up after 3 restarts in " in status.reason
    assert pilot.get_process_by_name("p").output.lines.last == 4


async def test_a_program_that_is_gone_is_a_failure_that_names_it(
    make_pilot: Any, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    pilot = make_pilot({"name": "p", "path": str(program), **ONCE})
    program.unlink()
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert isinstance(status.error, SpawnError)
    assert status.reason == f"cannot start {program}: No such file or directory"


# --- what is left of the one before ---------------------------------------------------------------


async def test_a_stubborn_descendant_is_gone_before_the_next_generation_begins(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Path
) -> None:
    script = """
    grep -q 'State:.[^ZX]' "/proc/$(cat stubborn)/status" && echo two >> bad
    (trap '' TERM; sh -c 'echo $PPID > stubborn'; echo >> up; exec sleep 60) &
    until [ -e up ]; do sleep 0.01; done
    rm up
    exit 1
    """
    pilot = make_pilot(sh(script, working_directory=".", timeout=0.1, **AT_ONCE))
    async with running(pilot):
        await look.generation(pilot, "p", 4)
    assert not (tmp_path / "bad").exists()
    pid = int((tmp_path / "stubborn").read_text())
    notes = facts(pilot, "p", EventKind.NOTED)
    assert len([note for note in notes if note.startswith("killed: pid ")]) >= 3
    assert not look.alive(pid)


async def test_what_had_to_be_killed_is_told_in_the_events_and_noted_and_not_the_reason(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh(IGNORES_SIGTERM, timeout=0.1))
    async with pilot:
        await look.line(pilot.get_process_by_name("p").output, "ready")
        pid = pid_of(pilot, "p")
        await pilot.stop_process("p")
        status = pilot.supervisor.status("p")
        assert status.note.startswith(f"killed: pid {pid} (sleep); still there ")
        assert facts(pilot, "p", EventKind.NOTED) == [status.note]
        assert status.reason == "stopped"
        await pilot.start_process("p")
        assert not pilot.supervisor.status("p").note  # that was the generation before
        await look.line(pilot.get_process_by_name("p").output, "ready")
    assert pilot.get_process_by_name("p").get_status().return_code == -signal.SIGKILL


async def test_no_second_copy_is_started_while_the_kernel_holds_on_to_the_first(
    make_pilot: Any, sh: Any, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Child._signal

    def lose(self: Child, signum: signal.Signals, family: list[Any]) -> None:
        if signum is not signal.SIGKILL:  # nothing can be done about a process in the kernel
            send(self, signum, family)

    restart = {"when": "always", "delay_sec": 0.01, "factor": 1}
    # A descendant, for the leader would be a zombie that nobody reaps; and without our pipes.
    script = """
    echo up
    (trap '' TERM; echo > up; exec sleep 60 >/dev/null 2>&1) &
    until [ -e up ]; do sleep 0.01; done
    rm up
    exit 1
    """
    definition = sh(script, working_directory=".", timeout=0.05, restart=restart)
    pilot = make_pilot(definition, kill_timeout=0.05)
    monkeypatch.setattr(Child, "_signal", lose)
    output = pilot.get_process_by_name("p").output.lines
    async with running(pilot):
        await look.true(lambda: pilot.supervisor.status("p").generation > 4)
        assert output.last == 1
        errors: list[SurvivorsError] = []
        await look.true(lambda: is_survivors(pilot.supervisor.status("p").error, errors))
        (survivor,) = errors[0].pids
        assert look.alive(survivor)
        monkeypatch.undo()
        os.kill(survivor, signal.SIGKILL)
        await look.true(lambda: output.last > 1)


def is_survivors(error: Exception | None, found: list[SurvivorsError]) -> bool:
    if isinstance(error, SurvivorsError):
        found.append(error)
    return bool(found)


# --- hooks ----------------------------------------------------------------------------------------


class Counting(Plugin):
    """Hooks that write down their calls, plain and as coroutines."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int | None, int | None]] = []

    def _make(self, moment: str) -> Callable[..., None]:
        def hook(process: Any, popen: Any) -> None:
            pid, returncode = (popen.pid, popen.poll()) if popen else (None, None)
            self.calls.append((moment, "plain", pid, returncode))

        return hook

    def _make_async(self, moment: str) -> Callable[..., Any]:
        async def hook(process: Any, popen: Any) -> None:
            await trio.lowlevel.checkpoint()
            pid, returncode = (popen.pid, popen.poll()) if popen else (None, None)
            self.calls.append((moment, "async", pid, returncode))

        return hook

    def get_lifecycle_hooks(self) -> Any:
        moments = ("pre_start", "post_start", "on_shutdown", "on_restart")
        return {"count": {m: [self._make(m), self._make_async(m)] for m in moments}}


async def test_each_hook_is_called_once_at_its_moment_with_the_process_of_that_generation(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    counting = Counting()
    pilot = make_pilot(sh(SLEEP, lifecycle_hooks=["count"]), sh(SLEEP, name="other"))
    pilot.register_plugins([counting])
    async with pilot:
        first = pid_of(pilot, "p")
        assert counting.calls == [
            *(("pre_start", kind, None, None) for kind in ("plain", "async")),
            *(("post_start", kind, first, None) for kind in ("plain", "async")),
        ]
        counting.calls.clear()
        os.kill(first, signal.SIGKILL)
        second = await look.generation(pilot, "p", 2)
        assert counting.calls == [
            *(("on_shutdown", kind, first, -9) for kind in ("plain", "async")),
            *(("on_restart", kind, None, None) for kind in ("plain", "async")),
            *(("pre_start", kind, None, None) for kind in ("plain", "async")),
            *(("post_start", kind, second, None) for kind in ("plain", "async")),
        ]
        counting.calls.clear()
        await pilot.stop_process("p")
    assert counting.calls == [
        *(("on_shutdown", kind, second, -15) for kind in ("plain", "async")),
    ]


class Failing(Plugin):
    def __init__(self, moment: str) -> None:
        self.moment = moment

    def get_lifecycle_hooks(self) -> Any:
        def fail(process: Any, popen: Any) -> None:
            raise ZeroDivisionError(f"in {self.moment}")

        return {"fail": {self.moment: [fail]}}


@pytest.mark.parametrize("moment", ["pre_start", "post_start"])
async def test_a_hook_that_fails_is_a_failure_of_its_process_alone(
    make_pilot: Any, sh: Any, look: Any, moment: str
) -> None:
    pilot = make_pilot(
        sh(SLEEP, lifecycle_hooks=["fail"], **ONCE),
        sh(SLEEP, name="other"),
    )
    pilot.register_plugins([Failing(moment)])
    async with running(pilot):
        await pilot.supervisor.wait_until("p", Stage.FAILED)
        failed = pilot.supervisor.status("p")
        assert failed.reason == f"hook fail ({moment}) failed: ZeroDivisionError: in {moment}"
        assert isinstance(failed.error, HookError)
        assert isinstance(failed.error.__cause__, ZeroDivisionError)
        assert (failed.error.name, failed.error.hook, failed.error.event) == ("p", "fail", moment)
        status = pilot.get_process_by_name("p").get_status()
        assert (status.status, status.pid) == (ProcessState.STOPPED, 0)
        await look.generation(pilot, "other", 1)


async def test_a_hook_that_never_ends_does_not_hold_up_a_stop(make_pilot: Any, sh: Any) -> None:
    entered = trio.Event()

    class Endless(Plugin):
        def get_lifecycle_hooks(self) -> Any:
            async def never(process: Any, popen: Any) -> None:
                entered.set()
                await trio.sleep_forever()

            return {"never": {"on_shutdown": [never], "pre_start": [], "post_start": []}}

    pilot = make_pilot(sh(SLEEP, lifecycle_hooks=["never"], timeout=0.1))
    pilot.register_plugins([Endless()])
    async with pilot:
        await pilot.stop_process("p")
        assert entered.is_set()
        assert pilot.get_running_process("p") is None


async def test_a_process_is_stopped_in_the_midst_of_its_hooks(
    make_pilot: Any, sh: Any, look: Any, list_marked: Callable[[], list[int]]
) -> None:
    for moment, pids in (("pre_start", 0), ("post_start", 1)):
        entered = trio.Event()

        class Endless(Plugin):
            def get_lifecycle_hooks(
                self, moment: str = moment, entered: trio.Event = entered
            ) -> Any:
                async def never(process: Any, popen: Any) -> None:
                    entered.set()
                    await trio.sleep_forever()

                return {"never": {moment: [never]}}

        pilot = make_pilot(sh(SLEEP, lifecycle_hooks=["never"]))
        pilot.register_plugins([Endless()])
        async with running(pilot):
            await entered.wait()
            await look.true(lambda pids=pids: len(list_marked()) == pids)
            await pilot.stop_process("p")
            assert list_marked() == []


# --- strategies of plugins ------------------------------------------------------------------------


class Strategies(Plugin):
    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def get_ready_strategies(self) -> Any:
        def plain(process: Any, interval_sec: float) -> bool:
            self.asked.append((process.name, interval_sec))
            return True

        async def slow(process: Any, interval_sec: float) -> bool:
            await trio.sleep_forever()
            raise AssertionError

        def refuse(process: Any, interval_sec: float) -> bool:
            return False

        def fail(process: Any, interval_sec: float) -> bool:
            raise ZeroDivisionError("cannot tell")

        return {"plain": plain, "slow": slow, "refuse": refuse, "fail": fail}


async def test_a_strategy_of_a_plugin_decides_when_a_process_is_ready(
    make_pilot: Any, sh: Any
) -> None:
    strategies = Strategies()
    pilot = make_pilot(sh(SLEEP, ready_strategy="plain"))
    pilot.register_plugins([strategies])
    async with pilot:
        assert strategies.asked == [("p", 0.02)]
        assert pilot.supervisor.status("p").ready


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("slow", "not ready within 0.1 s by its slow check (the limit is ready_timeout_sec)"),
        ("refuse", "its refuse check has given up on it"),
        ("fail", "cannot tell"),
    ],
)
async def test_a_strategy_that_is_too_slow_refuses_or_fails_is_a_failure(
    make_pilot: Any, sh: Any, strategy: str, reason: str
) -> None:
    within = 0.1 if strategy == "slow" else 60
    pilot = make_pilot(sh(SLEEP, ready_strategy=strategy, ready_timeout_sec=within, **ONCE))
    pilot.register_plugins([Strategies()])
    await pilot.start()
    assert pilot.supervisor.status("p").stage is Stage.FAILED
    assert reason in pilot.supervisor.status("p").reason


# --- dependencies ---------------------------------------------------------------------------------


def after(name: str, condition: str = "ready") -> dict[str, Any]:
    return {"dependencies": [{"name": name, "condition": condition}]}


async def test_a_dependent_of_ready_waits_for_the_readiness_check(
    make_pilot: Any, sh: Any, tmp_path: Path
) -> None:
    ready = {"ready_strategy": "file", "ready_params": {"path": "go"}, "ready_timeout_sec": 1000}
    pilot = make_pilot(
        sh(SLEEP, name="db", **ready),
        sh(SLEEP, name="eager", **after("db", "started")),
        sh(SLEEP, name="api", **after("db")),
    )
    async with running(pilot):
        await pilot.supervisor.wait_until("eager", Stage.READY)
        assert pilot.supervisor.status("db").stage is Stage.STARTING
        assert pilot.supervisor.status("api").reason == "waiting for db to be ready"
        (tmp_path / "go").touch()
        await pilot.supervisor.wait_until("api", Stage.READY)
        assert pilot.supervisor.status("db").ready


@pytest.mark.parametrize(
    ("condition", "code", "stage"),
    [
        ("completed", 0, Stage.READY),
        ("completed", 3, Stage.READY),
        ("completed_successfully", 0, Stage.READY),
        ("completed_successfully", 3, Stage.HELD),
        ("ready", 0, Stage.READY),
    ],
)
async def test_a_dependent_starts_when_the_one_before_has_ended_as_it_should(  # noqa: PLR0917
    make_pilot: Any,
    sh: Any,
    open_gate: Callable[[], object],
    condition: str,
    code: int,
    stage: Stage,
) -> None:
    pilot = make_pilot(
        sh(f"read -r line < gate; exit {code}", name="job", working_directory=".", **ONCE),
        sh(SLEEP, name="api", **after("job", condition)),
        sh(SLEEP, name="keep"),
    )
    async with running(pilot):
        await pilot.supervisor.wait_until("job", Stage.READY)
        if condition != "ready":
            assert pilot.supervisor.status("api").stage is Stage.WAITING
        open_gate()
        await pilot.supervisor.wait_until("api", stage)
        if stage is Stage.HELD:
            reason = pilot.supervisor.status("api").reason
            assert reason.startswith("not started: job exited with 3 after ")


async def test_restart_dependents_brings_the_dependents_down_first_and_up_last(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(
        sh(SLEEP, name="db", restart_dependents=True, **AT_ONCE),
        sh(SLEEP, name="api", **after("db")),
        sh(SLEEP, name="aside"),
    )
    async with pilot:
        before = {name: pid_of(pilot, name) for name in ("db", "api", "aside")}
        os.kill(before["db"], signal.SIGKILL)
        await look.generation(pilot, "api", 2)
        assert pid_of(pilot, "aside") == before["aside"]
        assert pid_of(pilot, "db") != before["db"]
        events = [e.item for e in pilot.supervisor.events.tail()]
        moves = [(e.unit, e.new) for e in events if e.generation == 2 and e.new == "running"]
        assert moves == [("db", "running"), ("api", "running")]


# --- for a long time ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_three_hundred_crashes_leave_nothing_behind(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh("echo crash; exit 1", **AT_ONCE), sh(SLEEP, name="keep"))

    async def crash(times: int) -> tuple[list[str], int, float]:
        pilot.supervisor.ask_start("p")
        generation = pilot.supervisor.status("p").generation + times
        await look.generation(pilot, "p", generation)
        await pilot.stop_process("p")
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        return look.fds(), tasks, look.rss_mb()

    async with running(pilot):
        fds, tasks, rss_mb = await crash(20)
        fds_after, tasks_after, rss_mb_after = await crash(300)
    assert fds_after == fds
    assert tasks_after == tasks
    assert rss_mb_after - rss_mb < 10
    assert pilot.supervisor.status("p").restarts >= 300


ALONE = """
import fcntl, os, signal, sys, time
signal.alarm(60)
lock = open(sys.argv[1], "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(sys.argv[1] + ".bad", "a").write("two live copies")
if int(sys.argv[2]) and os.fork() == 0:  # a stubborn one that inherits the lock
    signal.alarm(60)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
"""


def was_broken(lock: Path) -> bool:
    return lock.with_name(f"{lock.name}.bad").exists()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_asked_for_at_whatever_moment_there_are_never_two_live_copies(
    make_pilot: Any, py: Any, look: Any, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - for a choice
    lock = tmp_path / "lock"
    pilot = make_pilot(py(ALONE, lock, seed % 2, timeout=0.02, **AT_ONCE))
    supervisor = pilot.supervisor

    def crash() -> None:
        status = pilot.get_running_process("p")
        if status is not None and status.pid:
            os.kill(status.pid, signal.SIGKILL)

    asks = [
        lambda: supervisor.ask_start("p"),
        lambda: supervisor.ask_stop("p"),
        lambda: supervisor.ask_restart("p"),
        crash,
    ]
    async with running(pilot):
        for _ in range(60):
            for _ in range(chance.randrange(3)):
                chance.choice(asks)()
            await trio.sleep(chance.choice([0, 0, 0.001, 0.01, 0.03]))
        await pilot.restart_processes("p")
        assert supervisor.status("p").ready
        assert supervisor.status("p").generation > 2
    assert not was_broken(lock)
