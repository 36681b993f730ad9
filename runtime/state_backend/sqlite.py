"""Invocations in a file of SQLite: durable when a call returns, for many processes at once.

Two connections, each with a thread of its own: one writes, and many writes share a commit; the
other reads, and does not wait for commits. Other processes are told of changes by datagrams, and
look now and then in case one was lost.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Concatenate, Final, ParamSpec, TypeVar

import anyio
import apsw

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

from . import _sqlite_facts as facts
from . import _sqlite_looks as looks
from . import _sqlite_queue as queue
from ._exceptions import NotOpenError, StateBackendError
from ._sqlite_connection import Soon, call_soon, close_connection, open_connection, run
from ._sqlite_rows import Step
from ._sqlite_schema import (
    check,
    look_at_place,
    migrate,
    path_of,
    refusal,
    set_up_reader,
    set_up_writer,
)
from ._sqlite_wakeups import Wakeups, open_wakeups
from ._sqlite_writer import Batch, Queue, Writer, commit_together
from .base import BaseStateBackend, HasId, InvocationFilter, InvocationHistory, Page, id_of
from .changes import Change

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: How often to look whether others have changed something, in seconds, while that matters.
LOOK_SEC: Final = 1.0


class SQLiteStateBackend(BaseStateBackend):
    """A store in the file that ``sqlite:///PATH`` (relative) or ``sqlite:////PATH`` names.

    The file is made where there is none, and brought up to date where it is an older one. Beside it
    are ``PATH-wal`` and ``PATH-shm``, which are part of it, and the folder ``PATH-wake``. Raises
    `StoreFileError` where the file cannot be used, when it is opened as well as later.
    """

    def __init__(self, url: str, app: AppInfo | None = None) -> None:
        super().__init__(url, app)
        #: The absolute path of the file.
        self.path: Final[str] = path_of(url)
        self._stack: AsyncExitStack | None = None
        self._writer: Writer | None = None
        self._reader: apsw.AsyncConnection | None = None
        self._seen = 0
        #: Set by who says that something has changed, and not what.
        self._is_to_look: anyio.Event
        self._owes = False  # a look to those who wait

    def look_at_place(self) -> None:
        """Raise `StoreFileError` where there is no folder for the file, or no permission."""
        look_at_place(self.path)

    # --- opening and closing ----------------------------------------------------------------------

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            writer_db = await self._connect(stack, _prepare_writer)
            self._reader = await self._connect(stack, _prepare_reader)
            wakeups = open_wakeups(self.path)
            if wakeups is not None:
                stack.callback(wakeups.close)
            soon = call_soon()

            async def commit(waiting: Queue) -> None:
                await run(writer_db, self._commit, wakeups, soon, waiting)

            self._is_to_look = anyio.Event()
            self._writer = Writer(self.url, commit, self._tell)
            await self._start(stack, self._writer, wakeups)
            self._seen = await self._write(_data_version)
            self._stack = stack.pop_all()

    async def _start(self, stack: AsyncExitStack, writer: Writer, wakeups: Wakeups | None) -> None:
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        ended = anyio.Event()

        async def serve() -> None:
            try:
                async with anyio.create_task_group() as beside:
                    beside.start_soon(self._look_now_and_then)
                    if wakeups is not None:
                        beside.start_soon(wakeups.run, self._heard)
                    await writer.run()
                    beside.cancel_scope.cancel()
            finally:
                ended.set()

        async def end(*_: object) -> None:
            writer.close()
            with anyio.CancelScope(shield=True):  # as long as the last commit takes
                await ended.wait()
            # What the block of the user has raised is none of this: it would be wrapped in a group.
            await tasks.__aexit__(None, None, None)

        stack.push_async_exit(end)
        tasks.start_soon(serve)

    async def _connect(
        self, stack: AsyncExitStack, prepare: Callable[[apsw.Connection, str], None]
    ) -> apsw.AsyncConnection:
        # Shielded: a connection that nobody holds has a thread that nobody ends.
        with anyio.CancelScope(shield=True):
            try:
                look_at_place(self.path)
                db = await open_connection(self.path)
                stack.push_async_callback(close_connection, db)
                await run(db, prepare, self.path)
            except apsw.Error as error:
                raise refusal(self.path, error) from error
        # What is shielded for good is not cut short.
        return db  # pyright: ignore[reportPossiblyUnboundVariable]

    async def _close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(kind, error, trace)
        self._reader = None

    def now(self) -> datetime:
        """Return the time of this host."""
        return datetime.now(UTC)

    def _step(self, db: apsw.Connection) -> Step:
        return Step(db, self.now())

    # --- writing and reading ----------------------------------------------------------------------

    async def _write(
        self, operation: Callable[Concatenate[Step, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._writer is None:
            raise NotOpenError(self.url)
        return await self._writer.do(operation, *args, **kwargs)

    async def _read(
        self, look: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._reader is None:
            raise NotOpenError(self.url)
        try:
            return await run(self._reader, look, *args, **kwargs)
        except apsw.Error as error:
            raise refusal(self.path, error) from error

    def _commit(
        self, db: apsw.Connection, wakeups: Wakeups | None, soon: Soon, waiting: Queue
    ) -> None:
        """Commit what waits; in the thread of *db*."""
        batch = commit_together(db, self.path, waiting, partial(self._step, db))
        if self._writer is not None:
            # By itself, and not by what the writer's task would do later: a turn of the loop less.
            soon(self._writer.answer, batch)
        if wakeups is None:
            return
        if batch.changes or batch.untold:
            wakeups.tell(None if batch.untold else batch.changes)
        if batch.stale and not batch.untold:
            wakeups.tell([])

    def _tell(self, batch: Batch) -> None:
        if batch.changes:
            self.changes.publish(batch.changes)
        if batch.untold:
            self.changes.forget_all()
            self._is_to_look.set()  # for what may not be there any more

    async def _flush(self) -> None:
        await self._write(_nothing)

    async def check_integrity(self) -> list[str]:
        """Return what is wrong in the file, a sentence each; nothing else waits for that."""
        if self._reader is None:
            raise NotOpenError(self.url)
        return await anyio.to_thread.run_sync(check, self.path)

    # --- what others change -----------------------------------------------------------------------

    def _heard(self, changes: list[Change] | None) -> None:
        if changes is None:
            self.changes.publish_unknown()
            self._is_to_look.set()
        elif not changes:
            self.changes.forget_all()
        else:
            self.changes.publish(changes)

    async def _look_now_and_then(self) -> None:
        while True:
            with anyio.move_on_after(LOOK_SEC):
                await self._is_to_look.wait()
            self._owes |= self._is_to_look.is_set()
            self._is_to_look = anyio.Event()
            if not self.changes.wanted:
                self.changes.forget_all()  # nobody looks whether that is still so
                continue
            try:
                await self._look()
            except StateBackendError as error:  # whoever asks for something is told as well
                _log.warning("%s cannot be looked at: %s", self.url, error)

    async def _look(self) -> None:
        """Look once for all who wait, if something has changed; owe it to them if that fails."""
        # The writing connection sees what others have committed, and not what it has itself.
        if not self._owes and (seen := await self._write(_data_version)) != self._seen:
            self._seen, self._owes = seen, True
            self.changes.publish_unknown()
        if self._owes:
            self.changes.tell_ends(await self._read(looks.ends, self.changes.watched))
            self._owes = False

    # --- the queue --------------------------------------------------------------------------------

    async def register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
        """See `BaseStateBackend.register`; raises `ValueError` for an id that is there already."""
        return await self._write(queue.register, invocations)

    async def claim(
        self,
        runner_id: str,
        limit: int,
        *,
        queues: Collection[str] | None = None,
        tasks: Collection[str] | None = None,
        start: bool = False,
    ) -> list[StoredInvocation]:
        """See `BaseStateBackend.claim`."""
        return await self._write(
            queue.claim, runner_id, limit, queues=queues, tasks=tasks, start=start
        )

    async def apply(self, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
        """See `BaseStateBackend.apply`."""
        return await self._write(queue.apply, moves)

    async def apply_each(self, steps: Sequence[Sequence[Move]]) -> list[Exception | None]:
        """See `BaseStateBackend.apply_each`."""
        return await self._write(queue.apply_each, steps)

    async def cancel(self, invocation_id: str, by: str) -> InvocationStatusRecord:
        """See `BaseStateBackend.cancel`."""
        return await self._write(queue.cancel, invocation_id, by)

    async def next_due(self, queues: Collection[str] | None = None) -> datetime | None:
        """See `BaseStateBackend.next_due`."""
        return await self._read(looks.next_due, queues)

    async def recover(
        self,
        recovery: Recovery,
        *,
        runners: Collection[str] | None = None,
        invocations: Collection[str] = (),
        owner: str | None = None,
        pending_before: datetime | None = None,
    ) -> list[str]:
        """See `BaseStateBackend.recover`."""
        return await self._write(
            queue.recover,
            recovery,
            runners=runners,
            invocations=invocations,
            owner=owner,
            pending_before=pending_before,
        )

    async def purge(self, *, over_before: datetime | None = None, limit: int | None = None) -> int:
        """See `BaseStateBackend.purge`."""
        if over_before is None:
            return await self._write(queue.purge)
        gone = await self._write(queue.purge_over, over_before, limit)
        for invocation_id in gone:
            self.changes.forget(invocation_id)
        return len(gone)

    # --- looking ----------------------------------------------------------------------------------

    async def get_outcome(self, invocation_id: str) -> Outcome:
        """See `BaseStateBackend.get_outcome`."""
        return await self._read(looks.outcome, invocation_id)

    async def _get_invocation(self, invocation_id: str) -> StoredInvocation | None:
        return await self._read(looks.invocation, invocation_id)

    async def list_invocations(
        self,
        which: InvocationFilter = InvocationFilter(),  # noqa: B008 - immutable
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """See `BaseStateBackend.list_invocations`."""
        return await self._read(looks.page, which, limit, after)

    async def count_by_status(self) -> dict[InvocationStatus, int]:
        """See `BaseStateBackend.count_by_status`."""
        return await self._read(looks.counts)

    # --- what pynenc's stores do ------------------------------------------------------------------

    async def _upsert_invocation(self, invocation: NewInvocation) -> None:
        await self._write(queue.upsert, invocation)

    async def _add_history(self, invocation: HasId, invocation_history: InvocationHistory) -> None:  # noqa: ARG002 - the line has its id
        await self._write(queue.add_history, invocation_history)

    async def _get_history(self, invocation: HasId) -> list[InvocationHistory]:
        return await self._read(looks.history, id_of(invocation))

    async def _get_result(self, invocation: HasId) -> str | None:
        return await self._read(looks.result, id_of(invocation))

    async def _set_result(self, invocation: HasId, result: str) -> None:
        await self._write(queue.set_result, id_of(invocation), result)

    async def _get_exception(self, invocation: HasId) -> ErrorRecord | None:
        return await self._read(looks.error, id_of(invocation))

    async def _set_exception(self, invocation: HasId, exception: ErrorRecord) -> None:
        await self._write(queue.set_error, id_of(invocation), exception)

    # --- runners ----------------------------------------------------------------------------------

    async def heartbeat(self, runner: RunnerRecord) -> None:
        """See `BaseStateBackend.heartbeat`."""
        await self._write(facts.heartbeat, runner)

    async def get_owned(self, runner_id: str) -> dict[str, bool]:
        """See `BaseStateBackend.get_owned`."""
        return await self._read(looks.owned, runner_id)

    async def remove_runner(self, runner_id: str) -> None:
        """See `BaseStateBackend.remove_runner`."""
        await self._write(facts.remove_runner, runner_id)

    async def get_runners(self) -> list[RunnerRecord]:
        """See `BaseStateBackend.get_runners`."""
        return await self._read(looks.runners)

    async def take_lease(self, name: str, holder: str, lease_sec: float) -> bool:
        """See `BaseStateBackend.take_lease`."""
        return await self._write(facts.take_lease, name, holder, lease_sec)

    # --- workflows and applications ---------------------------------------------------------------

    async def _get_workflow_value(self, workflow_id: str, kind: str, key: str) -> str | None:
        return await self._read(looks.workflow_value, workflow_id, kind, key)

    async def _set_workflow_value(self, workflow_id: str, key: str, value: str) -> None:
        await self._write(facts.set_workflow_value, workflow_id, key, value)

    async def _decide_workflow_value(self, workflow_id: str, key: str, value: str) -> None:
        await self._write(facts.decide_workflow_value, workflow_id, key, value)

    async def store_app_info(self, app_info: AppInfo) -> None:
        """See `BaseStateBackend.store_app_info`."""
        await self._write(facts.store_app, app_info)

    async def get_all_app_infos(self) -> dict[str, AppInfo]:
        """See `BaseStateBackend.get_all_app_infos`."""
        return await self._read(looks.apps)

    async def store_workflow_run(self, workflow_identity: WorkflowIdentity) -> None:
        """See `BaseStateBackend.store_workflow_run`."""
        await self._write(facts.store_run, workflow_identity)

    async def get_all_workflows(self) -> AsyncIterator[str]:
        """See `BaseStateBackend.get_all_workflows`."""
        for each in await self._read(looks.workflow_types):
            yield each

    async def get_all_workflows_runs(self) -> AsyncIterator[WorkflowIdentity]:
        """See `BaseStateBackend.get_all_workflows_runs`."""
        for each in await self._read(looks.workflow_runs, None):
            yield each

    async def get_workflow_runs(self, workflow_task_id: str) -> AsyncIterator[WorkflowIdentity]:
        """See `BaseStateBackend.get_workflow_runs`."""
        for each in await self._read(looks.workflow_runs, workflow_task_id):
            yield each

    async def store_workflow_sub_invocation(
        self, parent_workflow_id: str, sub_invocation_id: str
    ) -> None:
        """See `BaseStateBackend.store_workflow_sub_invocation`."""
        await self._write(facts.store_sub_invocation, parent_workflow_id, sub_invocation_id)

    async def get_workflow_sub_invocations(self, workflow_id: str) -> AsyncIterator[str]:
        """See `BaseStateBackend.get_workflow_sub_invocations`."""
        for each in await self._read(looks.sub_invocations, workflow_id):
            yield each


def _prepare_writer(db: apsw.Connection, path: str) -> None:
    set_up_writer(db)
    migrate(db, path)


def _prepare_reader(db: apsw.Connection, path: str) -> None:  # noqa: ARG001 - as for the writer
    set_up_reader(db)


def _nothing(step: Step) -> None:
    """Do nothing, after all that was asked for before."""


def _data_version(step: Step) -> int:
    version: int = step.one("PRAGMA data_version")[0]
    return version
