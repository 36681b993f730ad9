"""An invocation whose body runs: what can end it before its time, and how it pauses."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from typing import Any, TypeVar

import anyio.from_thread
import trio

from runtime.invocation.models import StoredInvocation
from runtime.invocation.status import InvocationStatus
from runtime.supervision.unit import current_unit

from ._exceptions import TaskError
from .invocation import Invocation, waiting_in
from .task import Task

T = TypeVar("T")
_I = InvocationStatus


class Ended(StrEnum):
    """Why a body was not left to its own end."""

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
    def pausing(self, awaited: str) -> AbstractAsyncContextManager[None]:
        """Be paused for the length of the block, while the body waits for *awaited*."""

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
        #: When its body was begun, by Trio's clock.
        self.began: float = trio.current_time()
        self.scope: trio.CancelScope = trio.CancelScope()
        self.ended: Ended | None = None
        self.paused: bool = False
        self.retries: int = stored.retries
        #: The ids of what its tasks wait for, and how many of them do.
        self.awaited: Counter[str] = Counter()
        self._slots, self._move = slots, move
        self._holds_slot = True
        self._over = False  # its attempt, which a thread may outlive
        self._moving = trio.Lock()

    def end(self, why: Ended) -> None:
        """Cancel the body, unless it has been already."""
        if self.ended is None:
            self.ended = why
            self.scope.cancel()

    @asynccontextmanager
    async def pausing(self, awaited: str) -> AsyncGenerator[None]:
        """Be paused while any of its tasks is in this block, and hold no slot of the runner."""
        self.awaited[awaited] += 1
        try:
            await self._pause_or_resume()
            yield
        finally:
            self.awaited[awaited] -= 1
            if not self.awaited[awaited]:
                del self.awaited[awaited]
            await self._pause_or_resume()

    def call_from_plain(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what *function* returns on the loop; for threads that the loop has started.

        Raises `TaskError` in one that was left behind: nobody is there for what it would submit.
        """
        if self._over:
            words = "its thread was left behind, and can submit nothing and wait for nothing"
            raise TaskError(f"{self} has been cut off: {words}")
        return anyio.from_thread.run(function)

    async def _pause_or_resume(self) -> None:
        # Shielded, for a move that has been made and is not known of would leave it paused for
        # good; one at a time, for its tasks come and go while a move is on its way.
        with current_unit().budget.to_the_end():
            async with self._moving:
                wanted = bool(self.awaited)
                if wanted is self.paused or self._over:
                    return
                self.paused = wanted
                if not wanted:
                    self._take_slot()
                try:
                    await self._move(self, _I.PAUSED if wanted else _I.RESUMED)
                except BaseException:  # it stands as before
                    self.paused = not wanted
                    raise
                if wanted:
                    self.give_slot()

    def note_over(self) -> None:
        """Note that the attempt is over: a thread that was left behind moves nothing any more."""
        self._over = True

    def _take_slot(self) -> None:
        if not self._holds_slot:
            self._holds_slot = True
            self._slots.take()

    def give_slot(self) -> None:
        """Give its slot back, if it has one: in a pause, and at its end."""
        if self._holds_slot:
            self._holds_slot = False
            self._slots.give()


def current_invocation() -> CurrentInvocation | None:
    """Return the invocation whose body the caller is part of; None outside of every task.

    In a worker process as well: there it knows of itself, and can be asked for nothing else.
    """
    found = waiting_in.get()
    return found if isinstance(found, CurrentInvocation) else None
