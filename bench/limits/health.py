"""What supervision adds to the replacement of a child that has failed a health check.

The clock starts when the check says no: what the thresholds wait for before is not counted. Both
sides ask the child to stop by SIGTERM, wait for its end, and start it anew. Of the peers none asks
a child for its health.
"""

import time

import trio

from bench.limits.pair import Pair
from runtime import Guard, Plugin, Process, ProcessManifest, ProcessPilot
from runtime.plugin import ReadyStrategyType
from runtime.process.host import Host

_PROGRAM = ["/bin/sleep", "1000"]
_FAILURES = 30
_INTERVAL_SEC = 0.02


def measure(runs: int, guard: Guard) -> list[Pair]:
    return trio.run(_measure, runs, Host(orphans=guard.orphans))


async def _measure(runs: int, host: Host) -> list[Pair]:
    pair = Pair("one failed health check to replacement, against `open_process`")
    for _ in range(runs):
        pair.ours.append(await _replace_ours(host))
        pair.limit.append(await _replace_bare())
    return [pair]


class _Checks(Plugin):
    """A check that passes once for each child, and fails then."""

    def __init__(self) -> None:
        self.passed = False
        self.failed_at = 0.0

    def get_ready_strategies(self) -> dict[str, ReadyStrategyType]:
        return {"fails": self.look}

    async def look(self, _: Process, __: float) -> bool:
        self.passed = not self.passed
        self.failed_at = time.perf_counter()
        return self.passed


async def _replace_ours(host: Host) -> float:
    fields = {
        "health": {"strategy": "fails", "interval_sec": _INTERVAL_SEC, "failures": 1},
        "restart": {"when": "always", "delay_sec": 0, "factor": 1},
    }
    path, *args = _PROGRAM
    manifest = ProcessManifest.model_validate(
        {"processes": [{"name": "p", "path": path, "args": args, **fields}]}
    )
    checks, taken = _Checks(), 0.0
    pilot = ProcessPilot(manifest, host=host)
    pilot.register_plugins([checks])
    async with pilot:
        events = pilot.supervisor.events.read()
        for _ in range(_FAILURES):
            async for entry in events:
                if entry.item.new == "running":
                    break
            taken += time.perf_counter() - checks.failed_at
    return taken / _FAILURES * 1000


async def _replace_bare() -> float:
    process, taken = await trio.lowlevel.open_process(_PROGRAM, start_new_session=True), 0.0
    for _ in range(_FAILURES):
        await trio.sleep(_INTERVAL_SEC)
        began = time.perf_counter()
        process.terminate()
        await process.wait()
        process = await trio.lowlevel.open_process(_PROGRAM, start_new_session=True)
        taken += time.perf_counter() - began
    process.kill()
    await process.wait()
    return taken / _FAILURES * 1000
