"""A service under remote control, and a tree that is run for the length of a block."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import trio

from runtime.service import Service, ServiceConfiguration, ServiceManager, service_unit
from runtime.service._state import SERVICE_TABLE
from runtime.supervision.events import EventKind, UnitEvent
from runtime.supervision.supervisor import Supervisor


@dataclass
class Script:
    """What a scripted manager does, and what it has done."""

    start_sec: float = 0
    stop_sec: float = 0
    start_error: BaseException | None = None
    stop_error: BaseException | None = None
    background_tasks: int = 1
    log: list[str] = field(default_factory=list)
    live: int = 0  # managers between a start that succeeded and the end of the stop
    background: int = 0  # tasks in their nursery
    seen_at_stop: list[int] = field(default_factory=list)  # how many of these, when stop() began
    deaths: list[BaseException] = field(default_factory=list)  # what background tasks are to raise
    die: trio.Event = field(default_factory=trio.Event)

    def crash(self, *errors: BaseException) -> None:
        """Let a background task die for each error, all in the same tick."""
        self.deaths += errors
        self.die.set()


class ScriptedManager(ServiceManager):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script

    async def start(self) -> None:
        script = self.script
        script.log.append("start")
        script.die = trio.Event()
        for _ in range(script.background_tasks):
            script.background += 1  # here: the scheduler decides when the task begins
            self.nursery.start_soon(self.work)
        await trio.sleep(script.start_sec)
        if script.start_error is not None:
            raise script.start_error
        script.live += 1
        assert script.live == 1, "two live managers"
        script.log.append("started")

    async def stop(self) -> None:
        script = self.script
        script.log.append("stop")
        script.seen_at_stop.append(script.background)
        try:
            await trio.sleep(script.stop_sec)
            if script.stop_error is not None:
                raise script.stop_error
            script.log.append("stopped")
        finally:
            script.live -= 1

    async def work(self) -> None:
        script = self.script
        try:
            await script.die.wait()
            if script.deaths:
                raise script.deaths.pop()
        finally:
            script.background -= 1


class TellingManager(ScriptedManager):
    """Says itself when it is ready, and goes on."""

    async def start(self, *, task_status: trio.TaskStatus[None]) -> None:  # type: ignore[override]
        await super().start()
        task_status.started()
        self.script.log.append("goes on")
        try:
            await trio.sleep_forever()
        finally:
            self.script.log.append("went on")


class ScriptedService(Service):
    manager_class: type[ScriptedManager] = ScriptedManager

    def __init__(self, name: str | None = None, script: Script | None = None) -> None:
        self.script = script or Script()
        super().__init__(name)

    def create_manager(self) -> ServiceManager:
        return self.manager_class(self.script)

    def requires_configuration(self) -> bool:
        return False


class TellingService(ScriptedService):
    manager_class = TellingManager


class SizedConfiguration(ServiceConfiguration):
    size: int


class SizedService(ScriptedService):
    configuration_class = SizedConfiguration

    def requires_configuration(self) -> bool:
        return True


class Tree:
    """A supervisor of services."""

    def __init__(self, **options: Any) -> None:
        self.supervisor = Supervisor(keep=True, **options)

    def add(self, service: Any, **fields: Any) -> Any:
        self.supervisor.add(service_unit(service, **fields))
        service.attach(self.supervisor)
        return service

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Supervisor]:
        # (A virtual time that no test comes near: what would hang fails instead.)
        with trio.fail_after(1_000_000):
            async with trio.open_nursery() as nursery:
                await nursery.start(self.supervisor.run)
                yield self.supervisor
                nursery.cancel_scope.cancel()

    def events(self, name: str, *, after: int = 0) -> list[UnitEvent]:
        entries = self.supervisor.events.tail()
        return [e.item for e in entries if e.item.unit == name and e.sequence > after]

    def moves(self, name: str, *, after: int = 0) -> list[str]:
        """Return the states that a unit has been in, by its events, which have to be legal."""
        moved = [event for event in self.events(name, after=after) if event.kind is EventKind.MOVED]
        for one, next_one in pairwise(moved):
            assert one.new == next_one.old
        for event in moved:
            assert event.new in SERVICE_TABLE.successors(event.old)  # type: ignore[arg-type]
            assert event.reason
        return [str(event.new) for event in moved]


@pytest.fixture
def tree() -> Callable[..., Tree]:
    return Tree


@pytest.fixture
def kit() -> Any:
    """The classes above, for tests to use and to derive from."""
    return sys.modules[__name__]
