"""What supervision adds to Trio's own `open_process`, within one program."""

import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from bench.limits.pair import Pair
from runtime import Guard, ProcessManifest, ProcessPilot
from runtime.process.host import Host

_PROGRAM = "/bin/sleep"
_ARGS = ["1000"]
_CRASHES = 30
_MANY = 100


def measure(runs: int, guard: Guard) -> list[Pair]:
    host = Host(orphans=guard.orphans, close_on_exec=True)  # as the command line has it
    return trio.run(_measure, runs, host)


async def _measure(runs: int, host: Host) -> list[Pair]:
    names = ("crash to restart", f"{_MANY} started", f"{_MANY} stopped")
    crash, start, stop = (Pair(f"{name}, against `open_process`") for name in names)
    for _ in range(runs):
        crash.ours.append(await _crash_ours(host))
        crash.limit.append(await _crash_bare())
        started_ms, stopped_ms = await _many_ours(host)
        start.ours.append(started_ms)
        stop.ours.append(stopped_ms)
        started_ms, stopped_ms = await _many_bare()
        start.limit.append(started_ms)
        stop.limit.append(stopped_ms)
    return [crash, start, stop]


def _manifest(count: int) -> ProcessManifest:
    restart = {"when": "always", "delay_sec": 0, "factor": 1}
    return ProcessManifest.model_validate(
        {
            "processes": [
                {"name": f"p{i}", "path": _PROGRAM, "args": _ARGS, "restart": restart}
                for i in range(count)
            ]
        }
    )


async def _crash_ours(host: Host) -> float:
    taken = 0.0
    async with ProcessPilot(_manifest(1), host=host) as pilot:
        events = pilot.supervisor.events
        for _ in range(_CRASHES):
            await trio.sleep(0.005)
            (status,) = pilot.get_running_process(None) or []
            reader = events.read()
            began = time.perf_counter()
            os.kill(status.pid, signal.SIGKILL)
            async for entry in reader:
                if entry.item.new == "running":
                    break
            taken += time.perf_counter() - began
    return taken / _CRASHES * 1000


async def _crash_bare() -> float:
    taken = 0.0
    process = await _open_bare()
    for _ in range(_CRASHES):
        await trio.sleep(0.005)
        began = time.perf_counter()
        process.kill()
        await process.wait()
        process = await _open_bare()
        taken += time.perf_counter() - began
    process.kill()
    await process.wait()
    return taken / _CRASHES * 1000


async def _many_ours(host: Host) -> tuple[float, float]:
    began = time.perf_counter()
    async with ProcessPilot(_manifest(_MANY), host=host):
        started = time.perf_counter()
    return (started - began) * 1000, (time.perf_counter() - started) * 1000


async def _many_bare() -> tuple[float, float]:
    began = time.perf_counter()
    async with _bare_processes():
        started = time.perf_counter()
    return (started - began) * 1000, (time.perf_counter() - started) * 1000


@asynccontextmanager
async def _bare_processes() -> AsyncGenerator[None]:
    processes = [await _open_bare() for _ in range(_MANY)]
    yield
    for process in processes:
        process.terminate()
    for process in processes:
        await process.wait()


async def _open_bare() -> trio.Process:
    return await trio.lowlevel.open_process([_PROGRAM, *_ARGS], start_new_session=True)
