"""The moments of a watchdog are exact; time is virtual here, and the socket is real and silent."""

from __future__ import annotations

import os
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.process import Process
from runtime.process._liveness import watch_signs_of_life
from runtime.process._notify import NotifySocket
from runtime.process.family import Family
from runtime.process.host import Host

FAMILY = Family(os.getpid(), "p", Host())


class Entry:
    """A process that gives signs of life, so many, one for each half of the limit."""

    def __init__(self, handle: Any, limit_sec: float, signs: int) -> None:
        self.limit_sec, self.signs = limit_sec, signs
        self.process = Process.model_validate({"name": "p", "path": "/bin/true"})
        self.notify = NotifySocket(handle, uid=os.getuid(), watchdog_sec=limit_sec)
        self.ended_at = 0.0

    async def live(self) -> None:
        for _ in range(self.signs):
            await trio.sleep(self.limit_sec / 2)
            self.notify.notices.take(b"WATCHDOG=1")

    async def watch(self) -> None:
        error = await watch_signs_of_life(self.process, self.limit_sec, self.notify, FAMILY)
        self.ended_at = trio.current_time()
        assert str(error).startswith("no sign of life for ")


def test_a_day_of_watchdogs_ends_each_at_its_moment(room: Any) -> None:
    day = 86_400

    async def main() -> None:
        entries = [
            Entry(room.handle, 60.0 * number, int(day / (30 * number)) - 3 * number)
            for number in range(1, 21)
        ]
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(entry.live)
                nursery.start_soon(entry.watch)
        for entry in entries:
            entry.notify.close()
            last = entry.signs * entry.limit_sec / 2
            assert entry.ended_at == last + entry.limit_sec

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_who_was_not_awake_gives_a_limit_more(room: Any) -> None:
    clock = MockClock()

    async def main() -> None:
        entry = Entry(room.handle, 10.0, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(entry.watch)
            await wait_all_tasks_blocked()
            clock.jump(50)  # all that runs here was asleep for so long
            await wait_all_tasks_blocked()
            assert entry.ended_at == 0
            clock.jump(10)
            await wait_all_tasks_blocked()
            assert entry.ended_at == 60
        entry.notify.close()

    trio.run(main, clock=clock)
