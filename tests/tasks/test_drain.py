"""A stop with a hundred running invocations of every kind: all end or go on, none is lost."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from runtime import Supervisor
from runtime.invocation import InvocationStatus
from runtime.state_backend._urls import make_state_backend
from runtime.tasks import RunnerSettings, TaskHome
from runtime.tasks.units import task_units

_I = InvocationStatus
PROCESSES, THREADS, ASYNC = 2, 38, 60


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/jobs.db"])
async def test_a_hundred_that_run_end_or_go_on_later(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.delitem(sys.modules, "cpu_tasks", raising=False)
    import cpu_tasks

    home = TaskHome()
    home.add(cpu_tasks.work_hard)
    cpu_tasks.work_hard.home = home
    may_end, go_on, file = threading.Event(), trio.Event(), tmp_path / "go on"
    begun: list[str] = []

    @home.task
    async def wait(number: int) -> str:
        begun.append("async")
        if number % 2:  # half of them end in time
            await trio.sleep(0.1)
        else:
            await go_on.wait()
        return "done"

    @home.task
    def block() -> str:
        begun.append("thread")
        may_end.wait(60)
        return "done"

    def make_supervisor() -> Supervisor:
        settings = RunnerSettings(concurrency=THREADS + ASYNC, processes=PROCESSES, drain_sec=3)
        return Supervisor(task_units(home, [settings]), stop_within_sec=30)

    notes = [tmp_path / str(number) for number in range(PROCESSES)]
    later = ASYNC // 2 + THREADS + PROCESSES
    try:
        with trio.fail_after(100):
            async with make_state_backend(url.format(folder=tmp_path)) as backend:
                with home.using(backend):
                    supervisor = make_supervisor()
                    async with trio.open_nursery() as nursery:
                        await nursery.start(supervisor.run)
                        invocations = [
                            *await cpu_tasks.work_hard.submit_many([(file, n) for n in notes]),
                            *await block.submit_many([() for _ in range(THREADS)]),
                        ]
                        await until(lambda: all(note.exists() for note in notes))
                        invocations += await wait.submit_many([(n,) for n in range(ASYNC)])
                        await until(lambda: len(begun) == THREADS + ASYNC)
                        supervisor.ask_stop_tree("that is the test")
                    stands = Counter([await each.status() for each in invocations])
                    assert stands == {_I.SUCCESS: ASYNC // 2, _I.REROUTED: later}
                    assert await backend.get_runners() == []
                    may_end.set()
                    go_on.set()
                    file.touch()
                    supervisor = make_supervisor()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(supervisor.run)
                        results = [await each.result() for each in invocations]
                        supervisor.ask_stop_tree("all is done")
                    assert results == ["done"] * (PROCESSES + THREADS + ASYNC)
                    attempts = Counter([(await each.stored()).attempts for each in invocations])
                    assert attempts == {1: ASYNC // 2, 2: later}
    finally:
        may_end.set()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - threads and processes cannot set an event
        await trio.sleep(0.02)
