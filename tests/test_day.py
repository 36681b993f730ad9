"""A day of backoffs, health checks and watchdogs on the virtual clock, each moment exact.

Twenty entries run under one supervisor. What each has to do at which moment is said by a few lines
of arithmetic that know nothing of how the runtime does it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from time import perf_counter

import pytest
import trio
from trio.testing import MockClock

from runtime.process import Process
from runtime.process._liveness import watch_signs_of_life
from runtime.process._notify import NotifySocket
from runtime.process.family import Family
from runtime.process.host import Host
from runtime.supervision._exceptions import UnhealthyError
from runtime.supervision._health_watch import watch_health
from runtime.supervision.health import HealthPolicy
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle

DAY_SEC = 86_400.0
Note = Callable[[], None]
Moments = Iterator[float]
FAMILY = Family(os.getpid(), "p", Host())
PROCESS = Process.model_validate({"name": "p", "path": "/bin/true"})


@dataclass(frozen=True)
class Entry:
    """What runs, given a function that notes the moment, and when it has to note one."""

    name: str
    make: Callable[[Note], Unit]
    moments: Moments


def backing_off(first: float, factor: float, cap: float) -> Entry:
    """Return an entry that crashes as soon as it is ready; each start is noted."""

    def make(note: Note) -> Unit:
        async def crash(*, task_status: UnitHandle) -> None:
            note()
            task_status.started()
            raise OSError("exited with 1")

        policy = RestartPolicy(
            when=RestartWhen.ALWAYS, delay_sec=first, factor=factor, max_delay_sec=cap
        )
        return Unit(name=name, body=crash, restart=policy)

    def moments() -> Moments:
        now, delay = 0.0, first
        while True:
            yield now
            now += min(delay, cap)
            delay *= factor

    name = f"backing-off-{first:g}-{factor:g}-{cap:g}"
    return Entry(name, make, moments())


def checked(interval: float, passes: int, failures: int, delay: float) -> Entry:
    """Return an entry that is well for so many checks and then not; each check is noted."""

    def make(note: Note) -> Unit:
        async def run(*, task_status: UnitHandle) -> None:
            answers = chain([None] * passes, ["bad"] * failures)

            async def check() -> str | None:
                note()
                return next(answers)

            task_status.started()
            policy = HealthPolicy(interval_sec=interval, failures=failures)
            failing = await watch_health(check, policy, lambda *_: None)
            raise UnhealthyError(name, "plain", failing.failures, failing.obstacle)

        return Unit(name=name, body=run, restart=steady(delay))

    def moments() -> Moments:
        now = 0.0
        while True:
            yield from (now + number * interval for number in range(passes + failures))
            now += (passes + failures - 1) * interval + delay

    name = f"checked-{interval:g}"
    return Entry(name, make, moments())


def watched(limit: float, signs: int, delay: float) -> Entry:
    """Return an entry that gives signs of life, then none; its starts and its ends are noted."""

    def make(note: Note) -> Unit:
        async def run(*, task_status: UnitHandle) -> None:
            socket = NotifySocket(task_status, uid=os.getuid(), watchdog_sec=limit)
            note()
            try:
                task_status.started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(live, socket)
                    error = await watch_signs_of_life(PROCESS, limit, socket, FAMILY)
                note()
            finally:
                socket.close()
            raise error

        return Unit(name=name, body=run, restart=steady(delay))

    async def live(socket: NotifySocket) -> None:
        for _ in range(signs):
            await trio.sleep(limit / 2)
            socket.notices.take(b"WATCHDOG=1")

    def moments() -> Moments:
        now = 0.0
        while True:
            yield now
            now += signs * limit / 2 + limit
            yield now
            now += delay

    name = f"watched-{limit:g}"
    return Entry(name, make, moments())


def steady(delay: float) -> RestartPolicy:
    return RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=delay, factor=1, max_delay_sec=delay)


# Times that are sums of powers of two: what is added up is exact on both sides.
ENTRIES = [
    *(backing_off(first, 2, cap) for first in (0.125, 4) for cap in (1_024, 2_048, 4_096)),
    backing_off(256, 1, 256),
    *(checked(256.0 * number, 8, 2, 64) for number in (1, 2, 3, 4, 5, 6, 8)),
    *(watched(512.0 * number, 6, 128) for number in (1, 2, 3, 4, 5, 6)),
]


def test_there_are_twenty_entries() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES) == 20


def test_a_day_is_exact(record_property: Callable[..., None]) -> None:
    found: dict[str, list[float]] = {entry.name: [] for entry in ENTRIES}

    async def main() -> None:
        began = trio.current_time()

        def noting(name: str) -> Note:
            return lambda: found[name].append(trio.current_time() - began)

        supervisor = Supervisor([entry.make(noting(entry.name)) for entry in ENTRIES], keep=True)
        with trio.move_on_after(DAY_SEC):
            await supervisor.run()

    before = perf_counter()
    trio.run(main, clock=MockClock(autojump_threshold=0))
    record_property("real_sec", perf_counter() - before)
    for entry in ENTRIES:
        expected = list(takewhile(lambda moment: moment < DAY_SEC, entry.moments))
        # What is due when the day ends may still be there, or not.
        within = [moment for moment in found[entry.name] if moment < DAY_SEC]
        assert within == pytest.approx(expected, abs=1e-6), entry.name
        assert len(expected) > 10
