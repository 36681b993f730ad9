"""An invocation whose body runs: what can end it before its time, and how it pauses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from typing import Any, TypeVar

import anyio.from_thread
import trio

from runtime.invocation.models import StoredInvocation
from runtime.invocation.status import InvocationStatus
from runtime.supervision.unit import current_unit

from .invocation import Invocation, waiting_in
from .task import Task

T = TypeVar("T")
_I = InvocationStatus


class Ended(StrEnum):
    """Why a body was not left to its own end."""

    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    STOPPED = "stopped with its runner"
    LOST = "lost: its runner does not own it any more"


class Slots:
    """How many bodies of one kind may run at once, and how many do."""

    def __init__(self, limit: Callable[[], int], wake: Callable[[], object]) -> None:
        self._limit, self._wake = limit, wake
        self._taken = 0

    @property
    def free(self) -> int:
        """How many more may run."""
        return self._limit() - self._taken

    def take(self) -> None:
        """Take one, also where none is free: what goes on after a pause would wait for itself."""
        self._taken += 1

    def give(self) -> None:
        """Give one back."""
        self._taken -= 1
        self._wake()


Mover = Callable[["RunningInvocation", InvocationStatus], Awaitable[None]]


class CurrentInvocation(Invocation[Any]):
    """The invocation whose body asks: what its body may want to know of it."""

    # What is run is a task itself; others know it by less.
    task: Task[..., Any]  # pyright: ignore[reportIncompatibleVariableOverride]
    attempt: int  #: 1 for the first one
    retries: int  #: how often it was tried again before this attempt

    @abstractmethod
    def pausing(self) -> AbstractAsyncContextManager[None]:
        """Be paused for the length of the block, while the body waits for another one."""

    @abstractmethod
    def call_from_plain(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine function returns, in the plain code of the body."""


class RunningInvocation(CurrentInvocation):
    """An invocation whose body runs in this runner."""

    def __init__(
        self, task: Task[..., Any], stored: StoredInvocation, slots: Slots, move: Mover
    ) -> None:
        super().__init__(task, stored.invocation_id, stored.arguments)
        self.attempt: int = stored.attempts
        self.scope: trio.CancelScope = trio.CancelScope()
        self.ended: Ended | None = None
        self.paused: bool = False
        self.retries: int = stored.retries
        self._slots, self._move = slots, move
        self._waits = 0  # of its tasks that wait for others
        self._moving = trio.Lock()

    def end(self, why: Ended) -> None:
        """Cancel the body, unless it has been already."""
        if self.ended is None:
            self.ended = why
            self.scope.cancel()

    @asynccontextmanager
    async def pausing(self) -> AsyncGenerator[None]:
        """Be paused while any of its tasks is in this block, and hold no slot of the runner."""
        self._waits += 1
        try:
            await self._pause_or_resume()
            yield
        finally:
            self._waits -= 1
            await self._pause_or_resume()

    def call_from_plain(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what *function* returns on the loop; for threads that the loop has started."""
        return anyio.from_thread.run(function)

    async def _pause_or_resume(self) -> None:
        # Shielded, for a move that has been made and is not known of would leave it paused for
        # good; one at a time, for its tasks come and go while a move is on its way.
        with current_unit().budget.to_the_end():
            async with self._moving:
                wanted = self._waits > 0
                if wanted is not self.paused:
                    self.paused = wanted
                    if not wanted:
                        self._slots.take()
                    await self._move(self, _I.PAUSED if wanted else _I.RESUMED)
                    if wanted:
                        self._slots.give()

    def give_slot(self) -> None:
        """Give its slot back, at its end."""
        if not self.paused:
            self._slots.give()


def current_invocation() -> CurrentInvocation | None:
    """Return the invocation whose body the caller is part of; None outside of every task.

    In a worker process as well: there it knows of itself, and can be asked for nothing else.
    """
    found = waiting_in.get()
    return found if isinstance(found, CurrentInvocation) else None
