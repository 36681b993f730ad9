"""An invocation in hand: what has been submitted, to be asked, awaited, cancelled, tried again."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import anyio.from_thread

from runtime.invocation._exceptions import (
    InvocationCancelledError,
    InvocationRejectedError,
    InvocationStatusTransitionError,
)
from runtime.invocation.models import (
    NewInvocation,
    Outcome,
    StoredInvocation,
    new_invocation_id,
)
from runtime.invocation.status import InvocationStatus, InvocationStatusRecord
from runtime.state_backend.base import BaseStateBackend, InvocationFilter, InvocationHistory

from ._exceptions import TaskError

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
_I = InvocationStatus
_NOT_OVER = frozenset(status for status in _I if not status.is_over())
_BY = "cancelled by request"  #: who owns for a moment what is killed while it waits


class Home(Protocol):
    """Where a task belongs: what says which store it is submitted to."""

    @property
    def state_backend(self) -> BaseStateBackend:
        """The open store; raises `NotOpenError` while there is none."""
        ...


class Invocable(Protocol[R_co]):
    """What an invocation needs of its task."""

    name: str
    home: Home

    def load_result(self, text: str) -> R_co:
        """Return a result that was stored as JSON."""
        ...


class Waiter(Protocol):
    """The invocation whose body runs: it is paused while it waits for another one."""

    invocation_id: str

    def pausing(self, awaited: str) -> AbstractAsyncContextManager[None]:
        """Pause for the length of the block, which waits for the invocation *awaited*."""
        ...

    def call_from_plain(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine function returns, in the plain code of a body."""
        ...


#: The invocation whose body the calling task is part of.
waiting_in: ContextVar[Waiter | None] = ContextVar("waiting_in", default=None)


class Invocation(Generic[R_co]):
    """One invocation of a task, known by its id; what it says is what the store says then.

    Its coroutines raise `InvocationNotFoundError` when it was purged, and can be awaited under Trio
    and asyncio. Cancelling one of them cancels nothing but the wait.
    """

    invocation_id: str
    task: Invocable[R_co]
    #: Whether it was made by the submission that has returned this, and not there before.
    created: bool

    def __init__(
        self,
        task: Invocable[R_co],
        invocation_id: str,
        arguments: str | None = None,
        *,
        created: bool = False,
    ) -> None:
        self.task, self.invocation_id, self.created = task, invocation_id, created
        self._arguments = arguments

    def __repr__(self) -> str:
        return f"<Invocation {self.invocation_id} of {self.task.name}>"

    @property
    def _backend(self) -> BaseStateBackend:
        return self.task.home.state_backend

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was called with, by name, as JSON has it.

        Raises `TaskError` for one that was found by its id, until `stored` was awaited.
        """
        found: dict[str, Any] = json.loads(self.arguments_json)
        return found

    @property
    def arguments_json(self) -> str:
        """What it was called with, as JSON text."""
        if self._arguments is None:
            raise TaskError(f"what {self} was called with is not known before stored() has told it")
        return self._arguments

    async def stored(self) -> StoredInvocation:
        """Return all that the store has of it, but for history and result."""
        stored = await self._backend.get_invocation(self.invocation_id)
        self._arguments = stored.arguments
        return stored

    async def status(self) -> InvocationStatus:
        """Return its status now."""
        return (await self._backend.get_status_record(self.invocation_id)).status

    async def history(self) -> list[InvocationHistory]:
        """Return all that has happened to it, the oldest first."""
        return await self._backend.get_history(self.invocation_id)

    async def wait(self) -> Outcome:
        """Return how it has ended, once it has; a task that waits is paused meanwhile."""
        waiter = waiting_in.get()
        if waiter is not None:
            outcome = await self._backend.get_outcome(self.invocation_id)
            if outcome.status.is_over():
                return outcome
        async with nullcontext() if waiter is None else waiter.pausing(self.invocation_id):
            return await self._backend.wait_over(self.invocation_id)

    async def result(self) -> R_co:
        """Return what the task has returned, once it has; raise what it has raised.

        That is an exception of its own class where it can be made again from JSON, otherwise a
        `TaskFailedError`. Raises `InvocationCancelledError` and `InvocationRejectedError`, too. A
        task that waits is paused meanwhile, and holds no slot of its runner.
        """
        outcome = await self.wait()
        if outcome.status is _I.SUCCESS:
            return self.task.load_result(outcome.result or "null")
        if outcome.status is _I.FAILED and outcome.error is not None:
            raise outcome.error.to_exception()
        if outcome.status is _I.KILLED:
            raise InvocationCancelledError(self.invocation_id)
        raise InvocationRejectedError(self.invocation_id)

    async def cancel(self) -> InvocationStatusRecord:
        """Kill it if it waits, have its runner cancel it if it runs; return how it stands then.

        What was submitted by its body and is not over is cancelled with it. Raises
        `InvocationStatusTransitionError` when it is over.
        """
        return await cancel(self._backend, self.invocation_id)

    async def retry(self) -> Invocation[R_co]:
        """Let a killed one wait for a runner again; submit a failed one anew.

        Returns the invocation that is to run: itself, or a new one, whose ``retry_of`` is this one.
        Raises `InvocationStatusError` for one that waits, runs, or has ended well.
        """
        return Invocation(self.task, await retry(self._backend, self.invocation_id))

    # --- from plain code in threads ---------------------------------------------------------------

    def wait_result(self) -> R_co:
        """Return as `result` does, in a plain function of a task or another thread of the loop.

        Raises `OnlySubmitsError` in a task that is cpu_bound.
        """
        return call_from_plain(self.result)


def call_from_plain(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a coroutine function returns, in the body of a task or a thread of the loop."""
    waiter = waiting_in.get()
    return anyio.from_thread.run(function) if waiter is None else waiter.call_from_plain(function)


async def cancel(backend: BaseStateBackend, invocation_id: str) -> InvocationStatusRecord:
    """Cancel an invocation and what it has submitted, see `Invocation.cancel`."""
    record = await backend.cancel(invocation_id, by=_BY)
    if record.status is _I.KILLED:  # else its runner sees to that
        await cancel_children(backend, invocation_id)
    return record


async def cancel_children(backend: BaseStateBackend, invocation_id: str) -> None:
    """Cancel all that an invocation has submitted and that is not over."""
    which = InvocationFilter(parent_id=invocation_id, statuses=_NOT_OVER)
    cursor: str | None = None
    while True:
        page = await backend.list_invocations(which, limit=1000, after=cursor)
        for child in page.invocations:
            with suppress(InvocationStatusTransitionError):  # it has ended meanwhile
                await cancel(backend, child.invocation_id)
        cursor = page.next
        if cursor is None:
            return


async def retry(backend: BaseStateBackend, invocation_id: str) -> str:
    """Try an invocation again by hand, see `Invocation.retry`; return the id of what is to run."""
    stored = await backend.get_invocation(invocation_id)
    if stored.status is not _I.FAILED:
        await backend.set_status(invocation_id, _I.REROUTED)
        return invocation_id
    facts = {name: getattr(stored, name) for name in NewInvocation.__slots__}
    new = replace(
        NewInvocation(**facts),
        invocation_id=new_invocation_id(backend.now()),
        due_at=None,
        idempotency_key=None,
        retry_of=invocation_id,
    )
    return (await backend.register([new]))[0].invocation_id
