"""Many readers at once, while many units restart."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import trio

from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from .conftest import Serve, Site

pytestmark = pytest.mark.slow
READERS, UNITS = 500, 100
ROUNDS = 1


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4_096 if hard == resource.RLIM_INFINITY else min(hard, 4_096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Storm:
    """Units that die when they are told to, and come back."""

    def __init__(self) -> None:
        self.ready = 0
        self._deaths = trio.Event()
        self._all = trio.Event()

    def units(self) -> list[Unit]:
        policy = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=0, max_delay_sec=0.001)
        return [Unit(name=f"u{n}", body=self._live, restart=policy) for n in range(UNITS)]

    async def _live(self, *, task_status: UnitHandle) -> None:
        task_status.started()
        self.ready += 1
        if self.ready == UNITS:
            self._all.set()
        await self._deaths.wait()
        raise RuntimeError("as it was told to")

    async def rage(self) -> float:
        """Let all units die `ROUNDS` times; return how long it takes until all are back."""
        started = trio.current_time()
        for _ in range(ROUNDS):
            self.ready, self._all = 0, trio.Event()
            deaths, self._deaths = self._deaths, trio.Event()
            deaths.set()
            await self._all.wait()
        return trio.current_time() - started


class Reader:
    """A reader on a raw socket: it costs as little as can be, so that the server is measured."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.numbers: list[int] = []
        self.resyncs = 0
        self.begun = trio.Event()

    async def read(self, site: Site) -> None:
        stream = await site.connect()
        async with stream:
            await stream.send_all(b"GET /events HTTP/1.0\r\nhost: localhost\r\n\r\n")
            async for piece in stream:
                self.begun.set()
                self._take(piece)

    def _take(self, piece: bytes) -> None:
        self.buffer += piece
        *whole, rest = self.buffer.split(b"\n\n")
        self.buffer = bytearray(rest)
        for event in whole:
            place = event.find(b"id: ")
            if place >= 0:
                self.numbers.append(int(event[place + 4 : event.index(b"\n", place)]))
                self.resyncs += b"\nevent: resync\n" in event


async def test_nobody_misses_an_event_in_a_storm(
    serve: Serve, descriptors: None, record_property: Any
) -> None:
    storm, process = Storm(), psutil.Process()
    readers = [Reader() for _ in range(READERS)]
    async with serve(units=storm.units()) as site:
        alone = min([await storm.rage() for _ in range(3)])
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.read, site)
            for reader in readers:
                await reader.begun.wait()
            memory = process.memory_info().rss
            beside = await storm.rage()
            last = site.application.supervisor.events.last
            while any(r.numbers[-1] < last for r in readers):  # noqa: ASYNC110 - of clients
                await trio.sleep(0.05)
            memory = process.memory_info().rss - memory
            nursery.cancel_scope.cancel()
    record_property("ratio", beside / alone)
    record_property("memory_mb", memory / 2**20)
    for reader in readers:
        steps = [b - a for a, b in zip(reader.numbers, reader.numbers[1:], strict=False)]
        assert sum(step != 1 for step in steps) <= reader.resyncs
        assert min(steps) == 1
    assert sum(reader.resyncs for reader in readers) < READERS
    assert memory < 300 * 2**20
