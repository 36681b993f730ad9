"""The sweep: whom it watches, when it looks, and what it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from runtime import Supervisor
from runtime.invocation import InvocationStatus, NewInvocation
from runtime.invocation.models import RunnerRecord, new_invocation_id
from runtime.state_backend import make_state_backend
from runtime.state_backend import sqlite as sqlite_module
from runtime.state_backend.base import BaseStateBackend
from runtime.state_backend.changes import Change
from runtime.state_backend.memory import MemoryStateBackend
from runtime.supervision import Unit
from runtime.tasks import RunnerSettings
from runtime.tasks.recovery import RecoverySettings, RecoverySweep
from runtime.tasks.units import _recovery_for
from runtime.tasks.whereabouts import this_process

_I = InvocationStatus
#: Nothing is to be found by looking now and then.
NEVER = RecoverySettings(sweep_sec=10_000)


def started_program(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE)


async def submit(store: BaseStateBackend) -> str:
    invocation_id = new_invocation_id(store.now())
    await store.register([NewInvocation(invocation_id=invocation_id, task="work")])
    return invocation_id


def runner_here(store: BaseStateBackend, runner_id: str, *, pid: int | None = None) -> RunnerRecord:
    me, now = this_process(), store.now()
    return RunnerRecord(
        runner_id=runner_id,
        host=me.host,
        pid_space=me.pid_space,
        pid=me.pid if pid is None else pid,
        pid_started=me.start_ticks,
        started_at=now,
        alive_until=now + timedelta(hours=10),
    )


@asynccontextmanager
async def running(sweep: RecoverySweep) -> AsyncGenerator[None]:
    supervisor = Supervisor([Unit(name="recovery", body=sweep.run)], keep=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        yield
        supervisor.ask_stop_tree("that is the test")


TAKE_AND_WAIT = """
import sys, trio
from datetime import timedelta
from runtime.invocation.models import RunnerRecord
from runtime.state_backend import make_state_backend
from runtime.tasks.whereabouts import this_process
async def main():
    me = this_process()
    async with make_state_backend(sys.argv[1]) as store:
        now = store.now()
        until = now + timedelta(hours=10)
        await store.heartbeat(RunnerRecord(
            runner_id="another", host=me.host, pid_space=me.pid_space, pid=me.pid,
            pid_started=me.start_ticks, started_at=now, alive_until=until))
        await store.claim("another", 1, start=True)
        print("begun", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "before anybody has looked"])
async def test_a_runner_that_is_killed_soon_after_its_start_is_taken_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """It is known from what the store has told, and not from the next sweep."""
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 10_000)
    url = f"sqlite:///{tmp_path}/jobs.db"
    sweep: RecoverySweep
    rerouted = trio.Event()

    def hear(changes: list[Change]) -> None:
        if any(each.status is _I.REROUTED for each in changes):
            rerouted.set()

    with trio.fail_after(60):
        async with make_state_backend(url) as store:
            sweep = RecoverySweep(store, NEVER)
            async with running(sweep):
                invocation_id = await submit(store)
                with (
                    store.changes.listen(hear),
                    started_program(TAKE_AND_WAIT, url) as other,
                ):
                    assert other.stdout is not None
                    other.stdout.readline()  # nothing of ours goes on meanwhile
                    while watched and "another" not in sweep.watched:  # noqa: ASYNC110 - it has no event for that
                        await trio.sleep(0.01)
                    other.kill()
                    await rerouted.wait()
            history = await store.get_history(invocation_id)
            assert [line.status for line in history][-3:] == [
                *(_I.RUNNING, _I.RUNNING_RECOVERY, _I.REROUTED),
            ]
            assert "has died" in str(history[-1].execution_context)
            assert await store.get_runners() == []


@pytest.mark.usefixtures("autojump_clock")
async def test_who_died_before_the_sweep_began_is_taken_from_at_its_start() -> None:
    """Also while the lease of a sweeper that died with it lasts."""
    async with MemoryStateBackend() as store:
        assert await store.take_lease("recovery", "a dead one", 10_000)
        gone = replace(runner_here(store, "gone"), pid_started=1)  # its pid is somebody else's now
        await store.heartbeat(gone)
        await store.heartbeat(runner_here(store, "alive"))
        elsewhere = replace(
            runner_here(store, "elsewhere"), pid_space="another host", pid_started=1
        )
        await store.heartbeat(elsewhere)
        mine: dict[str, str] = {}
        for name in ("gone", "alive", "elsewhere"):
            mine[name] = await submit(store)
            await store.claim(name, 1, start=True)
        async with running(RecoverySweep(store, NEVER)):
            await trio.sleep(1)
            statuses = {name: (await store.get_status_record(i)).status for name, i in mine.items()}
        assert statuses == {"gone": _I.REROUTED, "alive": _I.RUNNING, "elsewhere": _I.RUNNING}


@pytest.mark.usefixtures("autojump_clock")
async def test_what_was_taken_and_not_begun_is_given_to_another_at_the_first_sweep() -> None:
    async with MemoryStateBackend() as store:
        await store.heartbeat(runner_here(store, "slow"))
        pending = await submit(store)
        await store.claim("slow", 1)
        await trio.sleep(6)
        async with running(RecoverySweep(store, NEVER)):
            await trio.sleep(1)
            assert (await store.get_status_record(pending)).status is _I.REROUTED


def test_where_nothing_is_said_recovery_is_as_the_runners_say() -> None:
    runners = [
        RunnerSettings(name="a", heartbeat_sec=2, quarantine_after=5),
        RunnerSettings(name="b", heartbeat_sec=0.5, quarantine_after=1),
    ]
    wanted = RecoverySettings(sweep_sec=0.5, quarantine_after=5, keep_results_sec=60)
    assert _recovery_for(runners, 60) == wanted
