"""Measure our own queue: ``python -m bench.queues.own URL NUMBER CALLERS``; prints JSON.

All happens in one process, as it does for the peers: one submits, and runners beside it run.
"""

import json
import statistics
import sys
import time

import trio

from runtime import Supervisor
from runtime.state_backend import make_state_backend
from runtime.tasks import RunnerSettings, TaskHome
from runtime.tasks.task import Task
from runtime.tasks.units import task_units

home = TaskHome()


@home.task
async def nothing(number: int) -> int:
    """Return what it gets."""
    return number


async def submit(task: Task[..., int], number: int, callers: int) -> list[str]:
    """Submit *number* calls, one by one, by so many callers at once; return the ids."""
    ids: list[str] = []
    left = iter(range(number))

    async def call() -> None:
        for each in left:
            invocation = await task.submit(each)
            ids.append(invocation.invocation_id)

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(call)
    return ids


async def main(url: str, number: int, callers: int) -> None:
    """Submit while nothing runs, then let a runner drain it, then ask one after the other."""
    found: dict[str, float] = {}
    runner = task_units(home, [RunnerSettings(concurrency=100)])
    async with make_state_backend(url) as store:
        with home.using(store):
            ids = await _timed_submit(found, number, callers)
            async with trio.open_nursery() as nursery:
                supervisor = Supervisor(runner)
                began = time.perf_counter()
                nursery.start_soon(supervisor.run)
                for each in ids:
                    await store.wait_over(each)
                found["drain"] = number / (time.perf_counter() - began)
                trips = []
                for trip in range(min(number, 200)):
                    began = time.perf_counter()
                    await (await nothing.submit(trip)).result()
                    trips.append(time.perf_counter() - began)
                found["p50_ms"] = 1000 * statistics.median(trips)
                supervisor.ask_stop_tree("all is measured")
    print(json.dumps(found))


async def _timed_submit(found: dict[str, float], number: int, callers: int) -> list[str]:
    began = time.perf_counter()
    ids = await submit(nothing, number, callers)
    found["submit"] = number / (time.perf_counter() - began)
    return ids


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
