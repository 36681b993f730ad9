"""What starts and stops for ever leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from runtime.supervision.events import Journal
from runtime.supervision.graph import Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
WARM_UP, CYCLES = 200, 1_500
TRACED_CYCLES = 300  # to trace takes time


async def assert_nothing_stays(cycle: Callable[[], Awaitable[None]]) -> None:
    """Let cycle after cycle leave neither objects nor bytes, once all that is kept is filled."""
    for _ in range(WARM_UP):
        await cycle()
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(CYCLES):
        await cycle()
    gc.collect()
    assert (sys.getallocatedblocks() - blocks) / CYCLES < 0.5  # of a cycle no object is left
    tracemalloc.start()
    try:
        for _ in range(WARM_UP):
            await cycle()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(TRACED_CYCLES):
            await cycle()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / TRACED_CYCLES < 100


def count_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def count_handlers() -> int:
    known = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    return sum(len(logger.handlers) for logger in [logging.root, *known])


@pytest.mark.slow
@pytest.mark.parametrize("telling", [False, True])
async def test_starts_and_stops_leave_no_task_no_memory_and_no_log_handler(
    kit: Any, tree: MakeTree, *, telling: bool
) -> None:
    t = tree(events=Journal(50))
    service = t.add((kit.TellingService if telling else kit.ScriptedService)("a"))

    async def cycle() -> None:
        await service.start()
        await service.stop()
        service.script.log.clear()
        service.script.seen_at_stop.clear()

    async with t.running() as supervisor:
        await cycle()
        tasks, handlers = count_tasks(), count_handlers()
        loggers = set(logging.root.manager.loggerDict)
        await assert_nothing_stays(cycle)
        assert (count_tasks(), count_handlers()) == (tasks, handlers)
        assert set(logging.root.manager.loggerDict) == loggers
        assert supervisor.status("a").generation == 1 + 2 * WARM_UP + CYCLES + TRACED_CYCLES


@pytest.mark.slow
async def test_deaths_and_restarts_leave_nothing_either(
    kit: Any, tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    t = tree(events=Journal(50))
    policy = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1, factor=1)
    service = t.add(kit.ScriptedService("a"), restart=policy)

    async def cycle() -> None:
        service.script.crash(ValueError("boom"))
        await supervisor.wait_until("a", Stage.BACKOFF)
        await supervisor.wait_until("a", Stage.READY)
        service.script.log.clear()
        service.script.seen_at_stop.clear()

    async with t.running() as supervisor:
        await service.start()
        tasks = count_tasks()
        await assert_nothing_stays(cycle)
        assert count_tasks() == tasks


@pytest.mark.slow
async def test_services_that_come_and_go_leave_nothing(kit: Any, tree: MakeTree) -> None:
    t = tree(events=Journal(50))

    async def cycle() -> None:
        service = t.add(kit.ScriptedService("a"))
        await service.start()
        await t.supervisor.remove("a")

    async with t.running():
        await cycle()
        tasks = count_tasks()
        await assert_nothing_stays(cycle)
        assert count_tasks() == tasks
