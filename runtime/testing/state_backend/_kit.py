"""What the tests are written with."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

from runtime.invocation.models import (
    AppInfo,
    Move,
    NewInvocation,
    RunnerRecord,
    StoredInvocation,
    new_invocation_id,
)
from runtime.invocation.status import InvocationStatus, InvocationStatusRecord
from runtime.state_backend.base import BaseStateBackend
from runtime.state_backend.changes import Change

S = InvocationStatus
E = TypeVar("E", bound=BaseException)
HOUR = timedelta(hours=1)
#: Long enough for any store: who comes to its end has found a fault.
LIMIT_SEC = 30
NOBODY = "00000000-0000-7000-8000-000000000000"


class raises(Generic[E]):  # noqa: N801 - it reads as a function does
    """A block that must raise an error of *kind*, which is `error` then."""

    error: E

    def __init__(self, kind: type[E]) -> None:
        self._kind = kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            raise AssertionError(f"{self._kind.__name__} was not raised")
        if not isinstance(error, self._kind):
            return False
        self.error = error
        return True


class Kit(ABC):
    """How a store is made, opened and filled."""

    @abstractmethod
    def make_backend(self, app: AppInfo | None = None) -> BaseStateBackend:
        """Return a store that is not open yet, for *app*; the first one of a test is empty."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[BaseStateBackend]:
        """Open a store for the length of a block, which must not last for ever."""
        with anyio.fail_after(LIMIT_SEC):
            async with self.make_backend() as store:
                yield store


def asked(store: BaseStateBackend, **facts: Any) -> NewInvocation:  # noqa: ANN401 - any fields
    """Return what asks for an invocation of task ``t``, with *facts*."""
    new = NewInvocation(invocation_id=new_invocation_id(store.now()), task="t")
    return replace(new, **facts)


async def put(store: BaseStateBackend, **facts: Any) -> str:  # noqa: ANN401 - any fields
    """Register one, and return its id."""
    new = asked(store, **facts)
    (registered,) = await store.register([new])
    assert registered.invocation_id == new.invocation_id, registered
    assert registered.created, registered
    return new.invocation_id


async def put_many(store: BaseStateBackend, number: int, **facts: Any) -> list[str]:  # noqa: ANN401
    """Register several at once, and return their ids, the oldest first."""
    now = store.now()
    new = [
        asked(store, **facts, invocation_id=new_invocation_id(now + timedelta(milliseconds=each)))
        for each in range(number)
    ]
    return [each.invocation_id for each in await store.register(new)]


def ids(claimed: Sequence[NewInvocation]) -> list[str]:
    """Return the ids of *claimed*."""
    return [each.invocation_id for each in claimed]


def facts_of(new: NewInvocation) -> NewInvocation:
    """Return what was asked for, without how it stands."""
    return NewInvocation(**{name: getattr(new, name) for name in NewInvocation.__slots__})


async def started(store: BaseStateBackend, runner_id: str = "r", **facts: Any) -> str:  # noqa: ANN401
    """Register one that *runner_id* runs, and return its id."""
    invocation_id = await put(store, **facts)
    assert ids(await store.claim(runner_id, 1, start=True)) == [invocation_id]
    return invocation_id


async def brought_to(store: BaseStateBackend, status: S, **facts: Any) -> str:  # noqa: ANN401
    """Register one, bring it to *status* by ``r`` in one step, and return its id."""
    invocation_id = await put(store, **facts)
    await store.apply([move(invocation_id, each) for each in WAYS[status]])
    assert (await store.get_status_record(invocation_id)).status is status
    return invocation_id


def move(invocation_id: str, status: S, runner_id: str | None = "r", **more: Any) -> Move:  # noqa: ANN401
    """Return a move by ``r``."""
    return replace(
        Move(invocation_id=invocation_id, status=status, runner_id=runner_id),
        **more,
    )


async def record_of(store: BaseStateBackend, invocation_id: str) -> InvocationStatusRecord:
    """Return how it stands, and look whether everything says the same of it."""
    stored: StoredInvocation = await store.get_invocation(invocation_id)
    record = await store.get_status_record(invocation_id)
    outcome = await store.get_outcome(invocation_id)
    assert stored.record == record
    assert outcome.status is record.status
    assert (await statuses(store, invocation_id))[-1] is record.status
    return record


async def statuses(store: BaseStateBackend, invocation_id: str) -> list[S]:
    """Return what it has gone through."""
    lines = await store.get_history(invocation_id)
    assert [line.timestamp for line in lines] == sorted(line.timestamp for line in lines)
    assert {line.invocation_id for line in lines} == {invocation_id}
    return [line.status for line in lines if line.status is not None]


async def contexts(store: BaseStateBackend, invocation_id: str) -> list[Any]:
    """Return what else its history says, of each line."""
    texts = [line.execution_context for line in await store.get_history(invocation_id)]
    return [None if text is None else json.loads(text) for text in texts]


async def let_time_pass(store: BaseStateBackend, until: datetime | None = None) -> datetime:
    """Return when the clock of the store has gone on, past *until*, with what it says then."""
    until = until or store.now() + timedelta(milliseconds=2)
    while store.now() <= until:  # noqa: ASYNC110 - its clock need not be that of the loop
        await anyio.sleep(0.002)
    return store.now()


def runner(store: BaseStateBackend, runner_id: str, alive_for: timedelta = HOUR) -> RunnerRecord:
    """Return a runner of this moment that is alive for that long."""
    now = store.now()
    return RunnerRecord(
        runner_id=runner_id,
        host="here",
        pid_space="b",
        pid=7,
        pid_started=123,
        started_at=now,
        alive_until=now + alive_for,
    )


class Heard:
    """What a store has told of its changes."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def __call__(self, changes: list[Change]) -> None:
        """Hear *changes*."""
        self.changes += changes

    def of(self, invocation_id: str) -> list[tuple[S, bool]]:
        """Return what was told of one: the statuses, and whether it is to be cancelled."""
        mine = [each for each in self.changes if each.invocation_id == invocation_id]
        return [(each.status, each.cancel) for each in mine]


#: The moves that bring one that is registered to each status.
WAYS: dict[S, list[S]] = {
    S.REGISTERED: [],
    S.CONCURRENCY_CONTROLLED: [S.CONCURRENCY_CONTROLLED],
    S.CONCURRENCY_CONTROLLED_FINAL: [S.CONCURRENCY_CONTROLLED_FINAL],
    S.REROUTED: [S.PENDING, S.REROUTED],
    S.PENDING: [S.PENDING],
    S.PENDING_RECOVERY: [S.PENDING, S.PENDING_RECOVERY],
    S.RUNNING: [S.PENDING, S.RUNNING],
    S.RUNNING_RECOVERY: [S.PENDING, S.RUNNING, S.RUNNING_RECOVERY],
    S.PAUSED: [S.PENDING, S.RUNNING, S.PAUSED],
    S.RESUMED: [S.PENDING, S.RUNNING, S.PAUSED, S.RESUMED],
    S.KILLED: [S.PENDING, S.KILLED],
    S.SUCCESS: [S.PENDING, S.RUNNING, S.SUCCESS],
    S.FAILED: [S.PENDING, S.RUNNING, S.FAILED],
    S.RETRY: [S.PENDING, S.RUNNING, S.RETRY],
}
OWNED = (S.PENDING, S.RUNNING, S.PAUSED, S.RESUMED)
OVER = (S.SUCCESS, S.FAILED, S.KILLED, S.CONCURRENCY_CONTROLLED_FINAL)
