"""Invocations in memory: gone with the process, and as fast as it gets."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import (
    AppInfo,
    Move,
    NewInvocation,
    OnDuplicate,
    Outcome,
    Registered,
    RunnerRecord,
    StoredInvocation,
    WorkflowIdentity,
)
from runtime.invocation.moves import (
    OWNED,
    Recovery,
    advance,
    cancellation_moves,
    hold_back_moves,
    recovery_moves,
)
from runtime.invocation.status import InvocationStatus, InvocationStatusRecord

from .base import (
    BaseStateBackend,
    HasId,
    InvocationFilter,
    InvocationHistory,
    Page,
    id_of,
)
from .changes import Change

T = TypeVar("T")
_I: Final = InvocationStatus


@dataclass(slots=True, eq=False)
class _Row:
    stored: StoredInvocation
    sequence: int
    changed_at: datetime
    history: list[InvocationHistory] = field(default_factory=list)
    result: str | None = None
    error: ErrorRecord | None = None

    @property
    def order(self) -> tuple[int, int]:
        return (-self.stored.priority, self.sequence)


class _Waiting:
    """Who waits for a runner: those that are due in order, and the others by their time.

    Entries are not removed when an invocation is taken by another way: who takes them out looks
    whether they still hold.
    """

    def __init__(self) -> None:
        self._ready: dict[str, list[tuple[int, int, _Row]]] = {}
        self._delayed: list[tuple[datetime, int, _Row]] = []

    def add(self, row: _Row, now: datetime) -> None:
        due = row.stored.due_at
        if due is not None and due > now:
            heapq.heappush(self._delayed, (due, row.sequence, row))
        else:
            queue = self._ready.setdefault(row.stored.queue, [])
            heapq.heappush(queue, (*row.order, row))

    def promote(self, now: datetime) -> None:
        """Let those wait for a runner only whose time has come."""
        while self._delayed and self._delayed[0][0] <= now:
            due, _, row = heapq.heappop(self._delayed)
            if _waits(row) and row.stored.due_at == due:
                self.add(row, now)

    def next_due(self, queues: Collection[str] | None) -> datetime | None:
        delayed = self._delayed
        while delayed and not self._is_delayed(delayed[0]):
            heapq.heappop(delayed)
        if queues is None:
            return delayed[0][0] if delayed else None
        fitting = (
            entry[0]
            for entry in delayed
            if entry[2].stored.queue in queues and self._is_delayed(entry)
        )
        return min(fitting, default=None)

    @staticmethod
    def _is_delayed(entry: tuple[datetime, int, _Row]) -> bool:
        due, _, row = entry
        return _waits(row) and row.stored.due_at == due

    def take(
        self, now: datetime, queues: Collection[str] | None, tasks: Collection[str] | None
    ) -> Generator[_Row]:
        """Yield those that may be taken, in order; who does not take one stops here.

        Those of other tasks stay.
        """
        self.promote(now)
        passed_over: list[_Row] = []
        try:
            while True:
                names = [
                    name
                    for name, queue in self._ready.items()
                    if queue and (queues is None or name in queues)
                ]
                if not names:
                    return
                name = min(names, key=lambda name: self._ready[name][0][:2])
                *order, row = heapq.heappop(self._ready[name])
                if not _still_waits(row, name, order, now):
                    continue
                if tasks is not None and row.stored.task not in tasks:
                    passed_over.append(row)
                    continue
                yield row
        finally:
            for row in passed_over:
                self.add(row, now)


def _waits(row: _Row) -> bool:
    status = row.stored.status
    return status is not None and status.is_available_for_run()


def _still_waits(row: _Row, queue: str, order: list[int], now: datetime) -> bool:
    """Return whether *row* may be taken by its entry in *queue* with *order*."""
    stored = row.stored
    return (
        _waits(row)
        and (stored.due_at is None or stored.due_at <= now)
        and stored.queue == queue
        and row.order == tuple(order)
    )


class MemoryStateBackend(BaseStateBackend):
    """A store in the memory of this process and event loop, for ``memory://``.

    Its clock is that of the event loop: under a virtual clock a delay of an hour is over at once.
    """

    def __init__(self, url: str = "memory://", app: AppInfo | None = None) -> None:
        super().__init__(url, app)
        self._clear()
        self._runners: dict[str, RunnerRecord] = {}
        self._leases: dict[str, tuple[str, datetime]] = {}
        self._apps: dict[str, AppInfo] = {}
        self._began: tuple[datetime, float] | None = None

    def _clear(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._sequence = 0
        self._waiting = _Waiting()
        self._by_idempotency: dict[tuple[str, str], str] = {}
        self._owned: dict[str, _Row] = {}
        self._registered_keys: dict[str, dict[str, _Row]] = {}
        self._running_keys: dict[str, str] = {}
        self._held_back: dict[str, list[tuple[int, int, _Row]]] = {}
        self._workflow_data: dict[tuple[str, str], str] = {}
        self._decided: dict[tuple[str, str], str] = {}
        self._workflow_runs: dict[str, WorkflowIdentity] = {}
        self._sub_invocations: dict[str, list[str]] = {}

    async def _open(self) -> None:
        self._began = (datetime.now(UTC), anyio.current_time())
        await anyio.lowlevel.checkpoint()

    async def _close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass  # what is in memory needs no end

    def now(self) -> datetime:
        """Return the time: when this was opened, and what the event loop has counted since."""
        if self._began is None:
            return datetime.now(UTC)
        wall, began = self._began
        return wall + timedelta(seconds=anyio.current_time() - began)

    async def _step(self, step: Callable[[], T]) -> T:
        """Do *step*, unless the caller was cancelled before."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        result = step()
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return result

    # --- one invocation ---------------------------------------------------------------------------

    def _row(self, invocation_id: str) -> _Row:
        try:
            return self._rows[invocation_id]
        except KeyError:
            raise InvocationNotFoundError(invocation_id) from None

    def _insert(self, new: NewInvocation, now: datetime) -> _Row:
        self._sequence += 1
        facts = {name: getattr(new, name) for name in NewInvocation.__slots__}
        row = _Row(StoredInvocation(**facts, created_at=now, record=None), self._sequence, now)
        self._rows[new.invocation_id] = row
        return row

    def _move(self, row: _Row, move: Move, now: datetime) -> Iterator[Change]:
        """Make one move, and what follows from it; yield what has changed."""
        self._follow(row, advance(row.stored, move, now), move, now)
        status = move.status
        outcome = None
        if status.is_over():
            outcome = Outcome(move.invocation_id, status, row.result, row.error)
        yield Change(move.invocation_id, status, outcome=outcome, task=row.stored.task)
        key = row.stored.running_key
        if (
            key is not None
            and status not in OWNED
            and self._running_keys.get(key) == move.invocation_id
        ):
            del self._running_keys[key]
            yield from self._release(key, now)

    def _follow(self, row: _Row, stored: StoredInvocation, move: Move, now: datetime) -> None:
        status = move.status
        row.stored, row.changed_at = stored, now
        if move.result is not None:
            row.result = move.result
        if move.error is not None or status is _I.SUCCESS:
            row.error = move.error  # that of an attempt before is none of what has ended well
        context = None if move.context is None else json.dumps(move.context)
        owner = move.runner_id if stored.record is None else stored.record.runner_id
        row.history.append(
            InvocationHistory(move.invocation_id, now, status, context, owner or move.runner_id)
        )
        if status in OWNED:
            self._owned[move.invocation_id] = row
        else:
            self._owned.pop(move.invocation_id, None)
        if status.is_available_for_run():
            self._waiting.add(row, now)
        elif status in OWNED and stored.running_key is not None:
            # One that is held back or cancelled is taken as well, while another one has the key.
            self._running_keys.setdefault(stored.running_key, move.invocation_id)
        elif status is _I.CONCURRENCY_CONTROLLED and stored.running_key is not None:
            held = self._held_back.setdefault(stored.running_key, [])
            heapq.heappush(held, (*row.order, row))
        if stored.registration_key is not None:
            self._note_key(stored.registration_key, row, over=status.is_over())

    def _note_key(self, key: str, row: _Row, *, over: bool) -> None:
        rows = self._registered_keys.setdefault(key, {})
        if over:
            rows.pop(row.stored.invocation_id, None)
        else:
            rows[row.stored.invocation_id] = row
        if not rows:
            del self._registered_keys[key]

    def _release(self, key: str, now: datetime) -> Iterator[Change]:
        """Let the first of those go on that this key has held back."""
        held = self._held_back.get(key, [])
        while held:
            *_, row = heapq.heappop(held)
            if row.stored.status is _I.CONCURRENCY_CONTROLLED:
                move = Move(invocation_id=row.stored.invocation_id, status=_I.REROUTED)
                yield from self._move(row, move, now)
                break
        if not held:
            self._held_back.pop(key, None)

    def _make(self, moves: Iterable[Move], now: datetime) -> list[Change]:
        """Make moves that are known to be allowed."""
        changes: list[Change] = []
        for move in moves:
            changes += self._move(self._rows[move.invocation_id], move, now)
        return changes

    # --- the queue --------------------------------------------------------------------------------

    async def register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
        """See `BaseStateBackend.register`."""
        return await self._step(lambda: self._register(invocations))

    def _register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
        seen: set[str] = set()
        for new in invocations:
            if new.invocation_id in self._rows or new.invocation_id in seen:
                raise ValueError(f"there is an invocation {new.invocation_id!r} already")
            seen.add(new.invocation_id)
        now = self.now()
        changes: list[Change] = []
        done = [self._register_one(new, now, changes) for new in invocations]
        self.changes.publish(changes)
        return done

    def _register_one(self, new: NewInvocation, now: datetime, changes: list[Change]) -> Registered:
        same = self._same(new)
        rejected = False
        if same is not None:
            rejected = new.on_duplicate is OnDuplicate.REJECT and not self._idempotent(new)
            if not rejected:
                return Registered(same.stored.invocation_id, False, _record(same).status)
        row = self._insert(new, now)
        if new.idempotency_key is not None:
            self._by_idempotency[new.task, new.idempotency_key] = new.invocation_id
        moves = [Move(invocation_id=new.invocation_id, status=_I.REGISTERED)]
        if rejected:
            moves.append(replace(moves[0], status=_I.CONCURRENCY_CONTROLLED_FINAL))
        for move in moves:
            changes += self._move(row, move, now)
        return Registered(new.invocation_id, True, moves[-1].status)

    def _idempotent(self, new: NewInvocation) -> bool:
        key = new.idempotency_key
        return key is not None and (new.task, key) in self._by_idempotency

    def _same(self, new: NewInvocation) -> _Row | None:
        """Return the invocation that stands in for this one, or in its way."""
        if new.idempotency_key is not None:
            found = self._by_idempotency.get((new.task, new.idempotency_key))
            if found is not None:
                return self._rows[found]
        if new.registration_key is not None:
            rows = self._registered_keys.get(new.registration_key)
            if rows:
                return next(iter(rows.values()))
        return None

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
        return await self._step(lambda: self._claim(runner_id, limit, queues, tasks, start=start))

    def _claim(
        self,
        runner_id: str,
        limit: int,
        queues: Collection[str] | None,
        tasks: Collection[str] | None,
        *,
        start: bool,
    ) -> list[StoredInvocation]:
        claimed: list[StoredInvocation] = []
        if limit < 1:
            return claimed
        now = self.now()
        changes: list[Change] = []
        steps = (_I.PENDING, _I.RUNNING) if start else (_I.PENDING,)
        with closing(self._waiting.take(now, queues, tasks)) as waiting:
            for row in waiting:
                invocation_id, key = row.stored.invocation_id, row.stored.running_key
                if key is not None and key in self._running_keys:
                    changes += self._make(hold_back_moves(row.stored, runner_id), now)
                    continue
                for status in steps:
                    move = Move(invocation_id=invocation_id, status=status, runner_id=runner_id)
                    changes += self._move(row, move, now)
                claimed.append(row.stored)
                if len(claimed) >= limit:
                    break
        self.changes.publish(changes)
        return claimed

    async def apply(self, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
        """See `BaseStateBackend.apply`."""
        return await self._step(lambda: self._apply(moves))

    def _apply(self, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
        now = self.now()
        if len(moves) > 1:
            self._try_out(moves, now)
        changes: list[Change] = []
        records: list[InvocationStatusRecord] = []
        for move in moves:
            row = self._row(move.invocation_id)
            changes += self._move(row, move, now)
            records.append(_record(row))
        self.changes.publish(changes)
        return records

    def _try_out(self, moves: Sequence[Move], now: datetime) -> None:
        """Raise what is wrong with one of *moves*, before any of them is made."""
        stored: dict[str, StoredInvocation] = {}
        for move in moves:
            invocation_id = move.invocation_id
            before = stored.get(invocation_id) or self._row(invocation_id).stored
            stored[invocation_id] = advance(before, move, now)

    async def cancel(self, invocation_id: str, by: str) -> InvocationStatusRecord:
        """See `BaseStateBackend.cancel`."""
        return await self._step(lambda: self._cancel(invocation_id, by))

    def _cancel(self, invocation_id: str, by: str) -> InvocationStatusRecord:
        row, now = self._row(invocation_id), self.now()
        moves = list(cancellation_moves(row.stored, by))
        if moves:
            self.changes.publish(self._make(moves, now))
        else:
            row.stored = replace(row.stored, cancel_requested=True)
            status = _record(row).status
            self.changes.publish([Change(invocation_id, status, cancel=True)])
        return _record(row)

    async def next_due(self, queues: Collection[str] | None = None) -> datetime | None:
        """See `BaseStateBackend.next_due`."""
        return await self._step(lambda: self._waiting.next_due(queues))

    # --- looking ----------------------------------------------------------------------------------

    async def get_outcome(self, invocation_id: str) -> Outcome:
        """See `BaseStateBackend.get_outcome`."""
        return await self._step(lambda: self._outcome(self._row(invocation_id)))

    @staticmethod
    def _outcome(row: _Row) -> Outcome:
        return Outcome(row.stored.invocation_id, _record(row).status, row.result, row.error)

    async def _get_invocation(self, invocation_id: str) -> StoredInvocation | None:
        def look() -> StoredInvocation | None:
            row = self._rows.get(invocation_id)
            return None if row is None else row.stored

        return await self._step(look)

    async def list_invocations(
        self,
        which: InvocationFilter = InvocationFilter(),  # noqa: B008 - immutable
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """See `BaseStateBackend.list_invocations`."""

        def look() -> Page:
            fitting = sorted(
                (
                    row.stored
                    for row in self._rows.values()
                    if _fits(row.stored, which)
                    and (after is None or row.stored.invocation_id < after)
                ),
                key=_id,
                reverse=True,
            )
            page = fitting[:limit]
            return Page(page, page[-1].invocation_id if len(fitting) > len(page) > 0 else None)

        return await self._step(look)

    async def count_by_status(self) -> dict[InvocationStatus, int]:
        """See `BaseStateBackend.count_by_status`."""

        def count() -> dict[InvocationStatus, int]:
            counts = Counter(row.stored.status for row in self._rows.values())
            return {status: number for status, number in counts.items() if status is not None}

        return await self._step(count)

    async def purge(self, *, over_before: datetime | None = None, limit: int | None = None) -> int:
        """See `BaseStateBackend.purge`."""
        return await self._step(lambda: self._purge(over_before, limit))

    def _purge(self, over_before: datetime | None, limit: int | None) -> int:
        if over_before is None:
            number = len(self._rows)
            self._clear()
            self.changes.look_again()  # for what is not there any more
            return number
        old = [row for row in self._rows.values() if _over(row) and row.changed_at < over_before]
        for row in old[:limit]:
            new = row.stored
            del self._rows[new.invocation_id]
            if new.idempotency_key is not None:
                self._by_idempotency.pop((new.task, new.idempotency_key), None)
        return len(old[:limit])

    # --- what pynenc's stores do ------------------------------------------------------------------

    async def _upsert_invocation(self, invocation: NewInvocation) -> None:
        def upsert() -> None:
            row = self._rows.get(invocation.invocation_id)
            if row is None:
                self._insert(invocation, self.now())
                return
            facts = {name: getattr(invocation, name) for name in NewInvocation.__slots__}
            row.stored = replace(row.stored, **facts)
            if _waits(row):
                self._waiting.add(row, self.now())

        await self._step(upsert)

    async def _add_history(self, invocation: HasId, invocation_history: InvocationHistory) -> None:
        await self._step(lambda: self._row(id_of(invocation)).history.append(invocation_history))

    async def _get_history(self, invocation: HasId) -> list[InvocationHistory]:
        return await self._step(lambda: list(self._row(id_of(invocation)).history))

    async def _get_result(self, invocation: HasId) -> str | None:
        return await self._step(lambda: self._row(id_of(invocation)).result)

    async def _set_result(self, invocation: HasId, result: str) -> None:
        def put() -> None:
            self._row(id_of(invocation)).result = result

        await self._step(put)

    async def _get_exception(self, invocation: HasId) -> ErrorRecord | None:
        return await self._step(lambda: self._row(id_of(invocation)).error)

    async def _set_exception(self, invocation: HasId, exception: ErrorRecord) -> None:
        def put() -> None:
            self._row(id_of(invocation)).error = exception

        await self._step(put)

    async def _flush(self) -> None:
        await anyio.lowlevel.checkpoint()  # nothing is ever left to be written

    # --- runners ----------------------------------------------------------------------------------

    async def heartbeat(self, runner: RunnerRecord) -> None:
        """See `BaseStateBackend.heartbeat`."""
        await self._step(lambda: self._runners.update({runner.runner_id: runner}))

    async def get_owned(self, runner_id: str) -> dict[str, bool]:
        """See `BaseStateBackend.get_owned`."""

        def look() -> dict[str, bool]:
            return {
                row.stored.invocation_id: row.stored.cancel_requested
                for row in self._owned.values()
                if _record(row).runner_id == runner_id
            }

        return await self._step(look)

    async def remove_runner(self, runner_id: str) -> None:
        """See `BaseStateBackend.remove_runner`."""
        await self._step(lambda: self._runners.pop(runner_id, None))

    async def get_runners(self) -> list[RunnerRecord]:
        """See `BaseStateBackend.get_runners`."""
        return await self._step(lambda: list(self._runners.values()))

    async def recover(
        self,
        recovery: Recovery,
        *,
        runners: Collection[str] | None = None,
        invocations: Collection[str] = (),
        pending_before: datetime | None = None,
    ) -> list[str]:
        """See `BaseStateBackend.recover`."""

        def recover() -> list[str]:
            now = self.now()
            alive = {each.runner_id for each in self._runners.values() if each.alive_until >= now}
            lost = [
                row
                for row in self._owned.values()
                if _is_lost(row, alive, runners, invocations, pending_before)
            ]
            changes: list[Change] = []
            for row in lost:
                changes += self._make(list(recovery_moves(row.stored, recovery)), now)
            gone = set(self._runners) - alive if runners is None else runners
            for runner_id in gone:
                self._runners.pop(runner_id, None)
            self.changes.publish(changes)
            return [row.stored.invocation_id for row in lost]

        return await self._step(recover)

    async def take_lease(self, name: str, holder: str, lease_sec: float) -> bool:
        """See `BaseStateBackend.take_lease`."""

        def take() -> bool:
            now = self.now()
            held_by, until = self._leases.get(name, (holder, now))
            if held_by != holder and until > now:
                return False
            self._leases[name] = (holder, now + timedelta(seconds=lease_sec))
            return True

        return await self._step(take)

    # --- workflows and applications ---------------------------------------------------------------

    async def set_workflow_data(
        self,
        workflow_identity: WorkflowIdentity,
        key: str,
        value: Any,  # noqa: ANN401 - anything that JSON can hold
    ) -> None:
        """See `BaseStateBackend.set_workflow_data`."""
        text = json.dumps(value, allow_nan=False)
        await self._step(
            lambda: self._workflow_data.update({(workflow_identity.workflow_id, key): text})
        )

    async def get_workflow_data(
        self,
        workflow_identity: WorkflowIdentity,
        key: str,
        default: Any = None,  # noqa: ANN401 - as above
    ) -> Any:  # noqa: ANN401 - as above
        """See `BaseStateBackend.get_workflow_data`."""
        text = await self._step(
            lambda: self._workflow_data.get((workflow_identity.workflow_id, key))
        )
        return default if text is None else json.loads(text)

    async def get_workflow_deterministic_value(self, workflow: WorkflowIdentity, key: str) -> Any:  # noqa: ANN401 - as above
        """See `BaseStateBackend.get_workflow_deterministic_value`."""
        text = await self._step(lambda: self._decided.get((workflow.workflow_id, key)))
        return None if text is None else json.loads(text)

    async def set_workflow_deterministic_value(
        self,
        workflow: WorkflowIdentity,
        key: str,
        value: Any,  # noqa: ANN401 - as above
    ) -> None:
        """See `BaseStateBackend.set_workflow_deterministic_value`."""
        text = json.dumps(value, allow_nan=False)
        await self._step(lambda: self._decided.setdefault((workflow.workflow_id, key), text))

    async def store_app_info(self, app_info: AppInfo) -> None:
        """See `BaseStateBackend.store_app_info`."""
        await self._step(lambda: self._apps.update({app_info.app_id: app_info}))

    async def get_all_app_infos(self) -> dict[str, AppInfo]:
        """See `BaseStateBackend.get_all_app_infos`."""
        return await self._step(lambda: dict(self._apps))

    async def store_workflow_run(self, workflow_identity: WorkflowIdentity) -> None:
        """See `BaseStateBackend.store_workflow_run`."""
        await self._step(
            lambda: self._workflow_runs.update({workflow_identity.workflow_id: workflow_identity})
        )

    async def get_all_workflows(self) -> AsyncIterator[str]:
        """See `BaseStateBackend.get_all_workflows`."""
        runs = await self._step(lambda: list(self._workflow_runs.values()))
        for workflow_type in dict.fromkeys(run.workflow_type for run in runs):
            yield workflow_type

    async def get_all_workflows_runs(self) -> AsyncIterator[WorkflowIdentity]:
        """See `BaseStateBackend.get_all_workflows_runs`."""
        for run in await self._step(lambda: list(self._workflow_runs.values())):
            yield run

    async def get_workflow_runs(self, workflow_task_id: str) -> AsyncIterator[WorkflowIdentity]:
        """See `BaseStateBackend.get_workflow_runs`."""
        for run in await self._step(lambda: list(self._workflow_runs.values())):
            if run.workflow_type == workflow_task_id:
                yield run

    async def store_workflow_sub_invocation(
        self, parent_workflow_id: str, sub_invocation_id: str
    ) -> None:
        """See `BaseStateBackend.store_workflow_sub_invocation`."""

        def store() -> None:
            known = self._sub_invocations.setdefault(parent_workflow_id, [])
            if sub_invocation_id not in known:
                known.append(sub_invocation_id)

        await self._step(store)

    async def get_workflow_sub_invocations(self, workflow_id: str) -> AsyncIterator[str]:
        """See `BaseStateBackend.get_workflow_sub_invocations`."""
        for each in await self._step(lambda: list(self._sub_invocations.get(workflow_id, ()))):
            yield each


def _id(stored: StoredInvocation) -> str:
    return stored.invocation_id


def _record(row: _Row) -> InvocationStatusRecord:
    if row.stored.record is None:  # it was stored, and never registered
        raise InvocationNotFoundError(row.stored.invocation_id)
    return row.stored.record


def _over(row: _Row) -> bool:
    status = row.stored.status
    return status is not None and status.is_over()


def _fits(stored: StoredInvocation, which: InvocationFilter) -> bool:
    workflow_id = None if stored.workflow is None else stored.workflow.workflow_id
    return (
        stored.record is not None
        and (which.statuses is None or stored.record.status in which.statuses)
        and which.task in {None, stored.task}
        and which.workflow_id in {None, workflow_id}
        and which.parent_id in {None, stored.parent_id}
        and (which.since is None or stored.created_at >= which.since)
        and (which.until is None or stored.created_at < which.until)
    )


def _is_lost(
    row: _Row,
    alive: Collection[str],
    runners: Collection[str] | None,
    invocations: Collection[str],
    pending_before: datetime | None,
) -> bool:
    record = row.stored.record
    if record is None or record.status not in OWNED:
        return False
    dead = record.runner_id not in alive if runners is None else record.runner_id in runners
    late = pending_before is not None and record.status is _I.PENDING
    return (
        dead
        or row.stored.invocation_id in invocations
        or (late and record.timestamp < pending_before)  # type: ignore[operator]
    )
