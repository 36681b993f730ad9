"""Units made of a few lines, and a tree that is run for the length of a block."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from runtime.supervision.graph import Condition, Requirement
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle


class Body:
    """A body under remote control that writes down what it does into a shared log."""

    def __init__(
        self, name: str, log: list[str], *, start_sec: float = 0, stop_sec: float = 0
    ) -> None:
        self.name, self.log = name, log
        self.start_sec, self.stop_sec = start_sec, stop_sec
        self.live = 0
        self.end = trio.Event()
        self.error: Exception | None = None

    def crash(self, message: str = "boom") -> None:
        self.error = ValueError(message)
        self.end.set()

    def finish(self) -> None:
        self.end.set()

    async def __call__(self, *, task_status: UnitHandle) -> None:
        self.live += 1
        assert self.live == 1, "two live copies of one unit"
        self.end, self.error = trio.Event(), None
        try:
            self.log.append(f"{self.name} starts")
            await trio.sleep(self.start_sec)
            task_status.started()
            self.log.append(f"{self.name} ready")
            await self.end.wait()
            if self.error is not None:
                raise self.error
        finally:
            try:
                with (
                    task_status.budget.polite(None) if not self.end.is_set() else trio.CancelScope()
                ):
                    await trio.sleep(self.stop_sec)
            finally:
                self.live -= 1
                self.log.append(f"{self.name} down")


def requirement(text: str) -> Requirement:
    name, _, condition = text.partition(":")
    return Requirement(name, Condition(condition or "ready"))


class Tree:
    """A supervisor of scripted bodies."""

    def __init__(self, **options: object) -> None:
        self.log: list[str] = []
        self.bodies: dict[str, Body] = {}
        self.supervisor = Supervisor(**options)  # type: ignore[arg-type]

    def unit(
        self, name: str, *needs: str, start_sec: float = 0, stop_sec: float = 0, **fields: object
    ) -> Unit:
        self.bodies[name] = Body(name, self.log, start_sec=start_sec, stop_sec=stop_sec)
        return Unit(
            name=name,
            body=self.bodies[name],
            requirements=tuple(map(requirement, needs)),
            **fields,  # type: ignore[arg-type]
        )

    def add(self, name: str, *needs: str, **fields: object) -> Body:
        self.supervisor.add(self.unit(name, *needs, **fields))  # type: ignore[arg-type]
        return self.bodies[name]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Supervisor]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.supervisor.run)
            yield self.supervisor
            nursery.cancel_scope.cancel()


@pytest.fixture
def tree() -> Callable[..., Tree]:
    return Tree
