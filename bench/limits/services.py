"""What supervision adds to a task that does the work of a service, within one program."""

import time
from collections.abc import Callable

import trio

from bench.limits.pair import Pair
from runtime import Application, Service, ServiceManager

_MANY = 1000


def measure(runs: int) -> list[Pair]:
    pair = Pair(f"{_MANY} services started, against bare tasks with `nursery.start`")
    for run in range(runs + 1):
        ours, limit = trio.run(_start_services), trio.run(_start_bare)
        if run > 0:  # the first warms the caches
            pair.ours.append(ours)
            pair.limit.append(limit)
    return [pair]


class Manager(ServiceManager):
    async def start(self) -> None:
        await trio.lowlevel.checkpoint()

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()


class Worker(Service):
    def requires_configuration(self) -> bool:
        return False

    def create_manager(self) -> Manager:
        return Manager(self.logger)


async def _start_services() -> float:
    app = Application()
    for number in range(_MANY):
        app.register_service(Worker, f"service {number}")
    elapsed_ms = _stopwatch()
    async with app:
        return elapsed_ms()


async def _start_bare() -> float:
    managers = [Manager() for _ in range(_MANY)]
    elapsed_ms = _stopwatch()
    async with trio.open_nursery() as nursery:
        for manager in managers:  # one by one: side by side takes a third longer
            await nursery.start(_run_bare, manager)
        try:
            return elapsed_ms()
        finally:
            nursery.cancel_scope.cancel()


async def _run_bare(manager: Manager, *, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        manager.enter(nursery, None)
        await manager.start()
        task_status.started()
        await trio.sleep_forever()


def _stopwatch() -> Callable[[], float]:
    began = time.perf_counter()
    return lambda: (time.perf_counter() - began) * 1000
