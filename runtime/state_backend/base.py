"""Where invocations are kept: what every store can do, each operation one atomic step.

The names of pynenc's ``BaseStateBackend`` are here, as coroutines, with what a queue needs beside
them. A store of one's own implements the abstract methods; `runtime.testing` has a suite of tests
for it.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import anyio.lowlevel

from runtime.invocation._exceptions import (
    InvocationNotFoundError,
    InvocationStatusError,
    NoResultError,
)
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import (
    AppInfo,
    Move,
    NewInvocation,
    Outcome,
    Registered,
    RunnerRecord,
    StoredInvocation,
    WorkflowIdentity,
)
from runtime.invocation.moves import Recovery
from runtime.invocation.status import InvocationStatus, InvocationStatusRecord

from ._exceptions import NotOpenError, UnknownCursorError
from .changes import Changes


@dataclass(frozen=True, slots=True)
class InvocationHistory:
    """One line of the history of an invocation.

    *runner_id* is who owned it then, *execution_context* what else was told, as JSON text. A line
    without a *status* annotates.
    """

    invocation_id: str
    _timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: InvocationStatus | None = None
    execution_context: str | None = None
    runner_id: str | None = None

    @property
    def timestamp(self) -> datetime:
        """When it was written."""
        return self._timestamp

    def to_json(self) -> str:
        """Return it as JSON, for `from_json`."""
        return json.dumps(
            {
                "invocation_id": self.invocation_id,
                "_timestamp": self._timestamp.isoformat(),
                "status": self.status,
                "execution_context": self.execution_context,
                "runner_id": self.runner_id,
            }
        )

    @classmethod
    def from_json(cls, json_str: str) -> InvocationHistory:
        """Return what `to_json` has told; raises `KeyError` or `ValueError` for anything else."""
        told = json.loads(json_str)
        status = told["status"]
        return cls(
            told["invocation_id"],
            datetime.fromisoformat(told["_timestamp"]),
            None if status is None else InvocationStatus(status),
            told.get("execution_context"),
            told.get("runner_id"),
        )


class InvocationFilter(NamedTuple):
    """Which invocations are asked for: those that fit everything that is given.

    *since* and *until* concern the time of the submission; *until* itself is not included.
    """

    statuses: Collection[InvocationStatus] | None = None
    task: str | None = None
    workflow_id: str | None = None
    parent_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Page(NamedTuple):
    """Some invocations, the newest first, and the cursor that gives the next ones, if any."""

    invocations: list[StoredInvocation]
    next: str | None


def read_cursor(cursor: str | None) -> int | None:
    """Return the place that a cursor of the bundled stores means; raise `UnknownCursorError`."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= _LONGEST_CURSOR):
        raise UnknownCursorError(cursor)
    return int(cursor)


_LONGEST_CURSOR: Final = 18  # digits; a higher place is no number of SQLite

#: So many are held back by one claim of the bundled stores.
MOST_HELD_BACK: Final = 1_000

#: What is wrong with a move, and not with the store.
MOVE_ERRORS: Final = (InvocationStatusError, InvocationNotFoundError)

HasId = NewInvocation | str | Any


def id_of(invocation: HasId) -> str:
    """Return the id of an invocation that is given as itself, or by its id."""
    if isinstance(invocation, str):
        return invocation
    found: str = invocation.invocation_id
    return found


class BaseStateBackend(ABC):
    """A store of invocations, opened by ``async with``.

    *url* says where; *app* is the application that it belongs to, if any. Each method is one atomic
    step: it has happened as a whole when it returns, and not at all when it raises. Cancelled, it
    may have happened, and never in part. For one event loop, of Trio or of asyncio.
    """

    url: str
    app: AppInfo | None
    changes: Changes

    def __init__(self, url: str, app: AppInfo | None = None) -> None:
        self.url, self.app = url, app
        #: Tells what has changed, in this event loop; what others have changed as well.
        self.changes = Changes()

    def look_at_place(self) -> None:  # noqa: B027 - most have nothing to look at
        """Raise `StateBackendError` where it is known, before it is opened, that it cannot be."""

    async def __aenter__(self) -> Self:
        """Open the store. Raises `StateBackendError` where that cannot be."""
        await self._open()
        if self.app is not None:
            try:
                await self.store_app_info(self.app)
            except BaseException:
                await self._close(*sys.exc_info())
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is still to be written, and close."""
        await self._close(kind, error, trace)

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    def now(self) -> datetime:
        """Return the time by the clock of this store, in UTC."""

    # --- what pynenc's stores do ------------------------------------------------------------------

    @abstractmethod
    async def _upsert_invocation(self, invocation: NewInvocation) -> None: ...

    @abstractmethod
    async def _get_invocation(self, invocation_id: str) -> StoredInvocation | None: ...

    @abstractmethod
    async def _add_history(
        self, invocation: HasId, invocation_history: InvocationHistory
    ) -> None: ...

    @abstractmethod
    async def _get_history(self, invocation: HasId) -> list[InvocationHistory]: ...

    @abstractmethod
    async def _get_result(self, invocation: HasId) -> str | None:
        """Return the result as JSON text, or None where there is none."""

    @abstractmethod
    async def _set_result(self, invocation: HasId, result: str) -> None: ...

    @abstractmethod
    async def _get_exception(self, invocation: HasId) -> ErrorRecord | None: ...

    @abstractmethod
    async def _set_exception(self, invocation: HasId, exception: ErrorRecord) -> None: ...

    async def upsert_invocation(self, invocation: NewInvocation) -> None:
        """Store what was asked for; its status, if it has one, stays as it is."""
        await self._upsert_invocation(invocation)

    async def get_invocation(self, invocation_id: str) -> StoredInvocation:
        """Return the invocation; raise `InvocationNotFoundError` where there is none."""
        found = await self._get_invocation(invocation_id)
        if found is None:
            raise InvocationNotFoundError(invocation_id)
        return found

    async def add_history(
        self,
        invocation: HasId,
        status: InvocationStatus | None = None,
        execution_context: Any | None = None,  # noqa: ANN401 - anything that JSON can hold
    ) -> None:
        """Annotate the history; that never moves the status, which `set_status` does.

        Raises `InvocationNotFoundError`.
        """
        text = None if execution_context is None else json.dumps(execution_context)
        line = InvocationHistory(id_of(invocation), self.now(), status, text)
        await self._add_history(invocation, line)

    async def get_history(self, invocation: HasId) -> list[InvocationHistory]:
        """Return the history, the oldest first; raises `InvocationNotFoundError`."""
        return await self._get_history(invocation)

    async def set_result(self, invocation: HasId, result: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
        """Store a result, which JSON must be able to hold, and leave the status as it is.

        Raises `InvocationNotFoundError`, and `TypeError` or `ValueError` for what JSON cannot hold.
        """
        await self._set_result(invocation, json.dumps(result, allow_nan=False))
        self.changes.forget(id_of(invocation))

    async def get_result(self, invocation: HasId) -> Any:  # noqa: ANN401 - as above
        """Return the result; raises `InvocationNotFoundError`, `NoResultError`."""
        text = await self._get_result(invocation)
        if text is None:
            raise NoResultError(id_of(invocation), "result")
        return json.loads(text)

    async def set_exception(self, invocation: HasId, exception: Exception) -> None:
        """Store an exception, and leave the status as it is; raises `InvocationNotFoundError`."""
        await self._set_exception(invocation, ErrorRecord.of(exception))
        self.changes.forget(id_of(invocation))

    async def get_exception(self, invocation: HasId) -> Exception:
        """Return the exception; raises `InvocationNotFoundError`, `NoResultError`."""
        kept = await self._get_exception(invocation)
        if kept is None:
            raise NoResultError(id_of(invocation), "exception")
        return kept.to_exception()

    async def wait_for_all_async_operations(self) -> None:
        """Return when all that was asked for until now is written; the others wait themselves."""
        await self._flush()

    async def wait_for_invocation_async_operations(self, invocation_id: str) -> None:  # noqa: ARG002 - commits are shared
        """Return when all that was asked for until now of this invocation is written."""
        await self._flush()

    @abstractmethod
    async def _flush(self) -> None: ...

    # --- the queue --------------------------------------------------------------------------------

    @abstractmethod
    async def register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
        """Register new invocations, all of them or none, and return what became of each, in order.

        One whose idempotency key the task has had already is the one that is there. So is one
        whose registration key is that of one that is not over, where it says so; else it ends as
        concurrency_controlled_final.
        """

    @abstractmethod
    async def claim(
        self,
        runner_id: str,
        limit: int,
        *,
        queues: Collection[str] | None = None,
        tasks: Collection[str] | None = None,
        start: bool = False,
    ) -> list[StoredInvocation]:
        """Take up to *limit* invocations that are due: highest priority first, then the oldest.

        What it returns is pending and owned, with *start* running. Where *queues* or *tasks* are
        given only theirs are taken. One whose running key is taken becomes concurrency_controlled,
        and is rerouted when the key is free. A claim that has held many back may stop before
        *limit*, so that nobody waits long for it: who hears that some were held back asks again.
        """

    @abstractmethod
    async def apply(self, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
        """Make these moves, all of them or none, with their history lines; return the new records.

        Raises `InvocationNotFoundError`, `InvocationStatusTransitionError`,
        `InvocationStatusOwnershipError`.
        """

    async def apply_each(self, steps: Sequence[Sequence[Move]]) -> list[Exception | None]:
        """Make each of these steps, or none of its moves; return why each was not made, if so.

        A step is moves of one invocation. What is returned is what `apply` raises; the others are
        made nevertheless. A store of one's own may do better than one by one, as is done here.
        """
        errors: list[Exception | None] = []
        for moves in steps:
            try:
                await self.apply(moves)
            except MOVE_ERRORS as error:
                errors.append(error)
            else:
                errors.append(None)
        return errors

    async def set_status(
        self,
        invocation_id: str,
        status: InvocationStatus,
        runner_id: str | None = None,
    ) -> InvocationStatusRecord:
        """Move one invocation, checked by the table and the owner, and return its new record.

        Raises what `apply` does.
        """
        move = Move(invocation_id=invocation_id, status=status, runner_id=runner_id)
        return (await self.apply([move]))[0]

    async def get_status_record(self, invocation_id: str) -> InvocationStatusRecord:
        """Return the status and the owner; raises `InvocationNotFoundError`."""
        record = (await self.get_invocation(invocation_id)).record
        if record is None:
            raise InvocationNotFoundError(invocation_id)
        return record

    @abstractmethod
    async def cancel(self, invocation_id: str, by: str) -> InvocationStatusRecord:
        """Kill an invocation that waits, or ask its owner to; return how it stands then.

        Raises `InvocationNotFoundError`, and `InvocationStatusTransitionError` when it is over.
        """

    @abstractmethod
    async def next_due(self, queues: Collection[str] | None = None) -> datetime | None:
        """Return when the next of those that wait for their time is due."""

    @abstractmethod
    async def get_outcome(self, invocation_id: str) -> Outcome:
        """Return how it stands, with its result or its error; raises `InvocationNotFoundError`."""

    async def wait_over(self, invocation_id: str) -> Outcome:
        """Return the outcome once the invocation is over; the caller owns the deadline.

        Raises `InvocationNotFoundError`.
        """
        with self.changes.watch(invocation_id) as watch:
            if watch.not_over:
                await watch.wait()
            elif watch.outcome is not None:
                await anyio.lowlevel.checkpoint()
            while True:
                outcome = watch.outcome or await self.get_outcome(invocation_id)
                if outcome.status.is_over():
                    return outcome
                if watch.outcome is None:
                    await watch.wait()

    @abstractmethod
    async def list_invocations(
        self,
        which: InvocationFilter = InvocationFilter(),  # noqa: B008 - immutable
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """Return those that fit, the newest first, from the cursor *after* on.

        Those that were stored and never registered are not among them. Raises `UnknownCursorError`.
        """

    @abstractmethod
    async def count_by_status(self) -> dict[InvocationStatus, int]:
        """Return how many there are of each status that there is."""

    @abstractmethod
    async def purge(self, *, over_before: datetime | None = None, limit: int | None = None) -> int:
        """Forget invocations with their histories and results, and return how many.

        Those that were over before *over_before*, at most *limit* of them; without a time
        everything that is in the store.
        """

    # --- runners ----------------------------------------------------------------------------------

    @abstractmethod
    async def heartbeat(self, runner: RunnerRecord) -> None:
        """Store that this runner is alive, the first time as well as later.

        The first time, others who have the store open hear that something has changed, so that
        they can watch it.
        """

    @abstractmethod
    async def get_owned(self, runner_id: str) -> dict[str, bool]:
        """Return the ids of what this runner owns, and whether it is to cancel it."""

    @abstractmethod
    async def remove_runner(self, runner_id: str) -> None:
        """Forget a runner that has ended in order and owns nothing."""

    @abstractmethod
    async def get_runners(self) -> list[RunnerRecord]:
        """Return all that were heard of and have not ended in order."""

    @abstractmethod
    async def recover(
        self,
        recovery: Recovery,
        *,
        runners: Collection[str] | None = None,
        invocations: Collection[str] = (),
        owner: str | None = None,
        pending_before: datetime | None = None,
    ) -> list[str]:
        """Take invocations from those who cannot go on with them, and return their ids.

        What *runners* own, who are dead and are forgotten; where that is None, what is owned by
        somebody who is not alive by his heartbeat. These *invocations*, whose worker has died,
        unless they have another owner than *owner* by now, where that is given; and what has been
        pending since before *pending_before*. See `recovery_moves`.
        """

    @abstractmethod
    async def take_lease(self, name: str, holder: str, lease_sec: float) -> bool:
        """Take or prolong the lease *name*; return False while somebody else holds it."""

    # --- workflows and applications ---------------------------------------------------------------

    @abstractmethod
    async def _get_workflow_value(self, workflow_id: str, kind: str, key: str) -> str | None:
        """Return a value as JSON text; *kind* is ``data`` or ``decided``."""

    @abstractmethod
    async def _set_workflow_value(self, workflow_id: str, key: str, value: str) -> None:
        """Store ``data``, as JSON text."""

    @abstractmethod
    async def _decide_workflow_value(self, workflow_id: str, key: str, value: str) -> None:
        """Store what was ``decided``, as JSON text; the first value stays."""

    async def set_workflow_data(
        self,
        workflow_identity: WorkflowIdentity,
        key: str,
        value: Any,  # noqa: ANN401 - anything that JSON can hold
    ) -> None:
        """Store a value for a workflow, which JSON must be able to hold.

        Raises `TypeError` or `ValueError` for what it cannot.
        """
        text = json.dumps(value, allow_nan=False)
        await self._set_workflow_value(workflow_identity.workflow_id, key, text)

    async def get_workflow_data(
        self,
        workflow_identity: WorkflowIdentity,
        key: str,
        default: Any = None,  # noqa: ANN401 - as above
    ) -> Any:  # noqa: ANN401 - as above
        """Return a value of a workflow, or *default*."""
        text = await self._get_workflow_value(workflow_identity.workflow_id, "data", key)
        return default if text is None else json.loads(text)

    async def get_workflow_deterministic_value(self, workflow: WorkflowIdentity, key: str) -> Any:  # noqa: ANN401 - as above
        """Return what was decided once in this workflow, or None."""
        text = await self._get_workflow_value(workflow.workflow_id, "decided", key)
        return None if text is None else json.loads(text)

    async def set_workflow_deterministic_value(
        self,
        workflow: WorkflowIdentity,
        key: str,
        value: Any,  # noqa: ANN401 - as above
    ) -> None:
        """Store what was decided in this workflow; the first value stays.

        Raises as `set_workflow_data` does.
        """
        text = json.dumps(value, allow_nan=False)
        await self._decide_workflow_value(workflow.workflow_id, key, text)

    @abstractmethod
    async def store_app_info(self, app_info: AppInfo) -> None:
        """Store an application, so that others find it."""

    async def get_app_info(self) -> AppInfo:
        """Return the application that this store was opened for.

        Raises `StateBackendError` where it was opened for none.
        """
        if self.app is None:
            raise NotOpenError(self.url, "it was opened without an application")
        return self.app

    @abstractmethod
    async def get_all_app_infos(self) -> dict[str, AppInfo]:
        """Return all applications in the store, by their ids."""

    @abstractmethod
    async def store_workflow_run(self, workflow_identity: WorkflowIdentity) -> None:
        """Store a run of a workflow."""

    @abstractmethod
    def get_all_workflows(self) -> AsyncIterator[str]:
        """Iterate over the types of all workflows in the store."""

    @abstractmethod
    def get_all_workflows_runs(self) -> AsyncIterator[WorkflowIdentity]:
        """Iterate over the runs of all workflows."""

    @abstractmethod
    def get_workflow_runs(self, workflow_task_id: str) -> AsyncIterator[WorkflowIdentity]:
        """Iterate over the runs of the workflows of one type."""

    @abstractmethod
    async def store_workflow_sub_invocation(
        self, parent_workflow_id: str, sub_invocation_id: str
    ) -> None:
        """Store that an invocation runs inside a workflow."""

    @abstractmethod
    def get_workflow_sub_invocations(self, workflow_id: str) -> AsyncIterator[str]:
        """Iterate over the ids of the invocations that run inside a workflow."""
