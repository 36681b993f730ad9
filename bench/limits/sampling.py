"""What statistics cost, against psutil alone, and what they cost while nobody looks."""

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import psutil
import trio

from bench.limits.pair import Pair
from runtime import Guard, ProcessManifest, ProcessPilot
from runtime.process.host import Host

_MANY = 100
_LOOKS = 20
_IDLE_SEC = 3.0
_BEAT_SEC = 0.001


def measure(runs: int, guard: Guard) -> list[Pair]:
    return trio.run(_measure, runs, Host(orphans=guard.orphans))


async def _measure(runs: int, host: Host) -> list[Pair]:
    plain = Pair(f"cpu of a look at {_MANY} processes, against psutil's cpu and memory of each")
    detailed = Pair("the same with files and ports, against psutil's of each as well")
    held = Pair("longest hold of the loop within such looks, against the loop alone")
    idle = Pair(f"cpu of {_MANY} processes in {_IDLE_SEC:g} s, nobody looking, against a bare loop")
    for _ in range(runs):
        idle.limit.append(await _idle())
        held.limit.append(await _longest_hold(_look_nowhere))
        async with ProcessPilot(_manifest(), process_poll_interval=1e-6, host=host) as pilot:
            processes = pilot.get_manifest_processes()
            names, handles = zip(*((p.name, psutil.Process(p.pid)) for p in processes), strict=True)
            idle.ours.append(await _idle())
            await _look(pilot)  # the first loads psutil
            plain.ours.append(await _cpu_of_looks(pilot, ()))
            plain.limit.append(_cpu_of(_use, handles))
            detailed.ours.append(await _cpu_of_looks(pilot, names))
            detailed.limit.append(_cpu_of(_details, handles))
            held.ours.append(await _longest_hold(partial(_look, pilot)))
    return [plain, detailed, held, idle]


def _manifest() -> ProcessManifest:
    return ProcessManifest.model_validate(
        {
            "processes": [
                {"name": f"p{i}", "path": "/bin/sleep", "args": ["1000"]} for i in range(_MANY)
            ]
        }
    )


async def _look(pilot: ProcessPilot) -> None:
    with pilot.sampler.watch() as passes:
        async for entry in passes:
            if len(entry.item.samples) == _MANY:
                return


async def _cpu_of_looks(pilot: ProcessPilot, details: Iterable[str]) -> float:
    """Return the milliseconds of cpu of one look: thread, loop, and all in between."""
    began, first = time.process_time(), pilot.sampler.passes.last
    with pilot.sampler.watch(details=details) as passes:
        async for entry in passes:
            if entry.sequence >= first + _LOOKS:
                break
    return (time.process_time() - began) * 1000 / (pilot.sampler.passes.last - first)


def _cpu_of(
    function: Callable[[psutil.Process], object], handles: Iterable[psutil.Process]
) -> float:
    began = time.process_time()
    for _ in range(_LOOKS):
        for handle in handles:
            function(handle)
    return (time.process_time() - began) * 1000 / _LOOKS


def _use(handle: psutil.Process) -> None:
    handle.cpu_times()
    handle.memory_info()


def _details(handle: psutil.Process) -> None:
    _use(handle)
    handle.num_fds()
    handle.net_connections("tcp")


async def _look_nowhere() -> None:
    await trio.sleep(0.05)


async def _longest_hold(act: Callable[[], Awaitable[None]]) -> float:
    """Return by how many milliseconds a task that wakes every millisecond was late at most."""
    latest = 0.0

    async def beat() -> None:
        nonlocal latest
        while True:
            due = trio.current_time() + _BEAT_SEC
            await trio.sleep_until(due)
            latest = max(latest, trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        for _ in range(_LOOKS):
            await act()
        nursery.cancel_scope.cancel()
    return latest * 1000


async def _idle() -> float:
    began = time.process_time()
    await trio.sleep(_IDLE_SEC)
    return (time.process_time() - began) * 1000
