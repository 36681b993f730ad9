"""Invocations in memory: gone with the process, and as fast as it gets."""

from __future__ import annotations

import heapq
import json
from collections import Counter, deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Sequence,
)
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple, ParamSpec, TypeVar

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
    Standing,
    StoredInvocation,
    WorkflowIdentity,
    stored_invocation,
)
from runtime.invocation.moves import (
    OWNED,
    Recovery,
    advance,
    cancellation_moves,
    hold_back_moves,
    recovery_moves,
)
from runtime.invocation.status import (
    AVAILABLE,
    OVER,
    InvocationStatus,
    InvocationStatusRecord,
)

from ._loop import ANY_LOOP, this_loop
from .base import (
    MOST_HELD_BACK,
    MOVE_ERRORS,
    BaseStateBackend,
    HasId,
    InvocationFilter,
    InvocationHistory,
    Page,
    id_of,
    read_cursor,
)
from .changes import Change

P = ParamSpec("P")
T = TypeVar("T")
_I: Final = InvocationStatus


#: When, which status, what else was told (JSON text), and who owned it: a line of the history.
_Line = tuple[datetime, InvocationStatus | None, str | None, str | None]


@dataclass(slots=True, eq=False)
class _Row:
    asked: NewInvocation
    created_at: datetime
    sequence: int
    standing: Standing
    history: list[_Line] = field(default_factory=list)
    result: str | None = None
    error: ErrorRecord | None = None

    @property
    def stored(self) -> StoredInvocation:
        return stored_invocation(self.asked, self.created_at, self.standing)

    @property
    def status(self) -> InvocationStatus | None:
        record = self.standing.record
        return None if record is None else record.status

    @property
    def order(self) -> tuple[int, int]:
        return (-self.asked.priority, self.sequence)


class _Waiting:
    """Who waits for a runner: those that are due in order, and the others by their time.

    Entries are not removed when an invocation is taken by another way: who takes them out looks
    whether they still hold.
    """

    def __init__(self) -> None:
        self._ready: dict[str, list[tuple[int, int, _Row]]] = {}
        self._delayed: list[tuple[datetime, int, _Row]] = []

    def add(self, row: _Row, now: datetime) -> None:
        due = row.standing.due_at
        if due is not None and due > now:
            heapq.heappush(self._delayed, (due, row.sequence, row))
        else:
            queue = self._ready.setdefault(row.asked.queue, [])
            heapq.heappush(queue, (-row.asked.priority, row.sequence, row))

    def promote(self, now: datetime) -> None:
        """Let those wait for a runner only whose time has come."""
        while self._delayed and self._delayed[0][0] <= now:
            due, _, row = heapq.heappop(self._delayed)
            if _waits(row) and row.standing.due_at == due:
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
            if entry[2].asked.queue in queues and self._is_delayed(entry)
        )
        return min(fitting, default=None)

    @staticmethod
    def _is_delayed(entry: tuple[datetime, int, _Row]) -> bool:
        due, _, row = entry
        return _waits(row) and row.standing.due_at == due

    def take(
        self, now: datetime, queues: Collection[str] | None, tasks: Collection[str] | None
    ) -> Generator[_Row]:
        """Yield those that may be taken, in order; who does not take one stops here.

        Those of other tasks stay.
        """
        self.promote(now)
        passed_over: list[_Row] = []
        try:
            while (queue := self._first(queues)) is not None:
                rank, sequence, row = heapq.heappop(self._ready[queue])
                if not _still_waits(row, queue, (rank, sequence), now):
                    continue
                if tasks is not None and row.asked.task not in tasks:
                    passed_over.append(row)
                    continue
                yield row
        finally:
            for row in passed_over:
                self.add(row, now)

    def _first(self, queues: Collection[str] | None) -> str | None:
        """Return the queue whose first one is the first of all."""
        first, found = None, None
        for name, queue in self._ready.items():
            if queue and (queues is None or name in queues) and (first is None or queue[0] < first):
                first, found = queue[0], name
        return found


def _waits(row: _Row) -> bool:
    return row.status in AVAILABLE


def _still_waits(row: _Row, queue: str, order: tuple[int, int], now: datetime) -> bool:
    """Return whether *row* may be taken by its entry in *queue* with *order*."""
    due_at = row.standing.due_at
    return (
        row.status in AVAILABLE
        and (due_at is None or due_at <= now)
        and row.asked.queue == queue
        and row.order == order
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
        self._loop = ANY_LOOP

    def _clear(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._sequence = 0
        self._waiting = _Waiting()
        self._by_idempotency: dict[tuple[str, str], str] = {}
        self._owned: dict[str, _Row] = {}
        self._over: deque[tuple[datetime, _Row]] = deque()  #: since when; some are not any more
        self._registered_keys: dict[str, dict[str, _Row]] = {}
        self._running_keys: dict[str, str] = {}
        self._held_back: dict[str, list[tuple[int, int, _Row]]] = {}
        self._workflow_values: dict[tuple[str, str, str], str] = {}
        self._workflow_runs: dict[str, WorkflowIdentity] = {}
        self._sub_invocations: dict[str, list[str]] = {}

    async def _open(self) -> None:
        self._loop = this_loop()
        self._began = (datetime.now(UTC), self._loop.current_time())
        await self._flush()

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
        return wall + timedelta(seconds=self._loop.current_time() - began)

    async def _step(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do *step*, unless the caller was cancelled before."""
        await self._loop.checkpoint_if_cancelled()
        result = step(*args, **kwargs)
        await self._loop.cancel_shielded_checkpoint()
        return result

    # --- one invocation ---------------------------------------------------------------------------

    def _row(self, invocation_id: str) -> _Row:
        try:
            return self._rows[invocation_id]
        except KeyError:
            raise InvocationNotFoundError(invocation_id) from None

    def _insert(self, new: NewInvocation, now: datetime) -> _Row:
        self._sequence += 1
        row = _Row(new, now, self._sequence, Standing(due_at=new.due_at))
        self._rows.pop(new.invocation_id, None)  # they are in the order of their sequence
        self._rows[new.invocation_id] = row
        return row

    def _move(self, row: _Row, move: Move, now: datetime, changes: list[Change]) -> None:
        """Make one move, and what follows from it; add what has changed to *changes*."""
        standing = advance(row.standing, move.status, move.runner_id, now, move.due_at)
        if move.result is not None:
            row.result = move.result
        if move.error is not None or move.status is _I.SUCCESS:
            row.error = move.error  # that of an attempt before is none of what has ended well
        context = None if move.context is None else json.dumps(move.context)
        self._enter(row, standing, move.runner_id, changes, context)

    def _enter(
        self,
        row: _Row,
        standing: Standing,
        runner_id: str | None,
        changes: list[Change],
        context: str | None = None,
    ) -> None:
        """Let *row* stand so from now on, moved by *runner_id*, with all that follows from it."""
        record = standing.record
        if record is None:  # it has been moved, so it has one
            return
        row.standing = standing
        now, status, invocation_id = record.timestamp, record.status, row.asked.invocation_id
        row.history.append((now, status, context, record.runner_id or runner_id))
        if status in OWNED:
            self._owned[invocation_id] = row
        else:
            self._owned.pop(invocation_id, None)
            if status in AVAILABLE:
                self._waiting.add(row, now)
        if row.asked.registration_key is not None:
            self._note_key(row.asked.registration_key, row, over=status in OVER)
        outcome = None
        if status in OVER:
            self._over.append((now, row))
            outcome = Outcome(invocation_id, status, row.result, row.error)
        changes.append(Change(invocation_id, status, False, outcome, row.asked.task))
        if row.asked.running_key is not None:
            self._note_running(row.asked.running_key, row, status, now, changes)

    def _note_running(
        self,
        key: str,
        row: _Row,
        status: InvocationStatus,
        now: datetime,
        changes: list[Change],
    ) -> None:
        """Note whether *row* has its running key, waits for it, or gives it back."""
        invocation_id = row.asked.invocation_id
        if status in OWNED:
            # One that is held back or cancelled is taken as well, while another one has the key.
            self._running_keys.setdefault(key, invocation_id)
            return
        if status is _I.CONCURRENCY_CONTROLLED:
            heapq.heappush(self._held_back.setdefault(key, []), (*row.order, row))
        if self._running_keys.get(key) == invocation_id:
            del self._running_keys[key]
            self._release(key, now, changes)

    def _note_key(self, key: str, row: _Row, *, over: bool) -> None:
        rows = self._registered_keys.setdefault(key, {})
        if over:
            rows.pop(row.asked.invocation_id, None)
        else:
            rows[row.asked.invocation_id] = row
        if not rows:
            del self._registered_keys[key]

    def _release(self, key: str, now: datetime, changes: list[Change]) -> None:
        """Let the first of those go on that this key has held back."""
        held = self._held_back.get(key, [])
        while held:
            *_, row = heapq.heappop(held)
            if row.status is _I.CONCURRENCY_CONTROLLED:
                self._enter(row, advance(row.standing, _I.REROUTED, None, now), None, changes)
                break
        if not held:
            self._held_back.pop(key, None)

    def _make(self, moves: Iterable[Move], now: datetime, changes: list[Change]) -> None:
        """Make moves that are known to be allowed."""
        for move in moves:
            self._move(self._rows[move.invocation_id], move, now, changes)

    # --- the queue --------------------------------------------------------------------------------

    async def register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
        """See `BaseStateBackend.register`."""
        return await self._step(self._register, invocations)

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
                return Registered(same.asked.invocation_id, False, _record(same).status)
        row = self._insert(new, now)
        if new.idempotency_key is not None:
            self._by_idempotency[new.task, new.idempotency_key] = new.invocation_id
        statuses = [_I.REGISTERED]
        if rejected:
            statuses.append(_I.CONCURRENCY_CONTROLLED_FINAL)
        for status in statuses:
            self._enter(row, advance(row.standing, status, None, now), None, changes)
        return Registered(new.invocation_id, True, statuses[-1])

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
        return await self._step(self._claim, runner_id, limit, queues, tasks, start=start)

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
        held_back = 0
        with closing(self._waiting.take(now, queues, tasks)) as waiting:
            for row in waiting:
                key = row.asked.running_key
                if key is not None and key in self._running_keys:
                    self._make(hold_back_moves(row.stored, runner_id), now, changes)
                    held_back += 1
                    if held_back == MOST_HELD_BACK:
                        break
                    continue
                for status in steps:
                    standing = advance(row.standing, status, runner_id, now)
                    self._enter(row, standing, runner_id, changes)
                claimed.append(row.stored)
                if len(claimed) >= limit:
                    break
        self.changes.publish(changes)
        return claimed

    async def apply(self, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
        """See `BaseStateBackend.apply`."""
        return await self._step(self._apply, moves)

    def _apply(self, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
        now = self.now()
        changes: list[Change] = []
        records = self._apply_all(moves, now, changes)
        self.changes.publish(changes)
        return records

    async def apply_each(self, steps: Sequence[Sequence[Move]]) -> list[Exception | None]:
        """See `BaseStateBackend.apply_each`."""
        return await self._step(self._apply_each, steps)

    def _apply_each(self, steps: Sequence[Sequence[Move]]) -> list[Exception | None]:
        now = self.now()
        changes: list[Change] = []
        errors: list[Exception | None] = []
        for moves in steps:
            try:
                self._apply_all(moves, now, changes)
            except MOVE_ERRORS as error:
                errors.append(error)
            else:
                errors.append(None)
        self.changes.publish(changes)
        return errors

    def _apply_all(
        self, moves: Sequence[Move], now: datetime, changes: list[Change]
    ) -> list[InvocationStatusRecord]:
        if len(moves) > 1:
            self._try_out(moves, now)
        records: list[InvocationStatusRecord] = []
        for move in moves:
            row = self._row(move.invocation_id)
            self._move(row, move, now, changes)
            records.append(_record(row))
        return records

    def _try_out(self, moves: Sequence[Move], now: datetime) -> None:
        """Raise what is wrong with one of *moves*, before any of them is made."""
        standings: dict[str, Standing] = {}
        for move in moves:
            invocation_id = move.invocation_id
            before = standings.get(invocation_id) or self._row(invocation_id).standing
            standings[invocation_id] = advance(before, move.status, move.runner_id, now)

    async def cancel(self, invocation_id: str, by: str) -> InvocationStatusRecord:
        """See `BaseStateBackend.cancel`."""
        return await self._step(self._cancel, invocation_id, by)

    def _cancel(self, invocation_id: str, by: str) -> InvocationStatusRecord:
        row, now = self._row(invocation_id), self.now()
        moves = list(cancellation_moves(row.stored, by))
        changes: list[Change] = []
        if moves:
            self._make(moves, now, changes)
        else:
            row.standing = row.standing._replace(cancel_requested=True)
            changes.append(Change(invocation_id, _record(row).status, cancel=True))
        self.changes.publish(changes)
        return _record(row)

    async def next_due(self, queues: Collection[str] | None = None) -> datetime | None:
        """See `BaseStateBackend.next_due`."""
        return await self._step(self._waiting.next_due, queues)

    # --- looking ----------------------------------------------------------------------------------

    async def get_outcome(self, invocation_id: str) -> Outcome:
        """See `BaseStateBackend.get_outcome`."""
        return await self._step(self._outcome, invocation_id)

    def _outcome(self, invocation_id: str) -> Outcome:
        row = self._row(invocation_id)
        return Outcome(invocation_id, _record(row).status, row.result, row.error)

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
        before = read_cursor(after)

        def look() -> Page:
            fitting = (
                row
                for row in reversed(self._rows.values())
                if _fits(row, which) and (before is None or row.sequence < before)
            )
            rows = list(islice(fitting, limit + 1))
            shown = rows[:limit]
            more = len(rows) > len(shown) > 0
            return Page([row.stored for row in shown], str(shown[-1].sequence) if more else None)

        return await self._step(look)

    async def count_by_status(self) -> dict[InvocationStatus, int]:
        """See `BaseStateBackend.count_by_status`."""

        def count() -> dict[InvocationStatus, int]:
            counts = Counter(row.status for row in self._rows.values())
            return {status: number for status, number in counts.items() if status is not None}

        return await self._step(count)

    async def purge(self, *, over_before: datetime | None = None, limit: int | None = None) -> int:
        """See `BaseStateBackend.purge`."""
        return await self._step(self._purge, over_before, limit)

    def _purge(self, over_before: datetime | None, limit: int | None) -> int:
        if over_before is None:
            number = len(self._rows)
            self._clear()
            self.changes.look_again()  # for what is not there any more
            return number
        gone = 0
        while self._over and self._over[0][0] < over_before and gone != limit:
            at, row = self._over.popleft()
            record, asked = row.standing.record, row.asked
            if self._rows.get(asked.invocation_id) is not row or not record:
                continue
            if record.status not in OVER or record.timestamp != at:
                continue
            gone += 1
            del self._rows[asked.invocation_id]
            if asked.idempotency_key is not None:
                self._by_idempotency.pop((asked.task, asked.idempotency_key), None)
            self.changes.forget(asked.invocation_id)
        return gone

    # --- what pynenc's stores do ------------------------------------------------------------------

    async def _upsert_invocation(self, invocation: NewInvocation) -> None:
        def upsert() -> None:
            row = self._rows.get(invocation.invocation_id)
            if row is None:
                self._insert(invocation, self.now())
                return
            row.asked = invocation
            row.standing = row.standing._replace(due_at=invocation.due_at)
            if _waits(row):
                self._waiting.add(row, self.now())

        await self._step(upsert)

    async def _add_history(self, invocation: HasId, invocation_history: InvocationHistory) -> None:
        line = invocation_history
        told = (line.timestamp, line.status, line.execution_context, line.runner_id)
        await self._step(lambda: self._row(id_of(invocation)).history.append(told))

    async def _get_history(self, invocation: HasId) -> list[InvocationHistory]:
        invocation_id = id_of(invocation)
        return await self._step(
            lambda: [
                InvocationHistory(invocation_id, *line) for line in self._row(invocation_id).history
            ]
        )

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
        await self._step(lambda: None)  # nothing is ever left to be written

    # --- runners ----------------------------------------------------------------------------------

    async def heartbeat(self, runner: RunnerRecord) -> None:
        """See `BaseStateBackend.heartbeat`."""
        await self._step(lambda: self._runners.update({runner.runner_id: runner}))

    async def get_owned(self, runner_id: str) -> dict[str, bool]:
        """See `BaseStateBackend.get_owned`."""

        def look() -> dict[str, bool]:
            return {
                row.asked.invocation_id: row.standing.cancel_requested
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
        owner: str | None = None,
        pending_before: datetime | None = None,
    ) -> list[str]:
        """See `BaseStateBackend.recover`."""

        def recover() -> list[str]:
            now = self.now()
            these = _Lost(runners, invocations, owner, pending_before)
            alive = {each.runner_id for each in self._runners.values() if each.alive_until >= now}
            lost = [row for row in self._owned.values() if these.has(row, alive)]
            changes: list[Change] = []
            for row in lost:
                self._make(list(recovery_moves(row.stored, recovery)), now, changes)
            gone = set(self._runners) - alive if runners is None else runners
            for runner_id in gone:
                self._runners.pop(runner_id, None)
            self.changes.publish(changes)
            return [row.asked.invocation_id for row in lost]

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

    async def _get_workflow_value(self, workflow_id: str, kind: str, key: str) -> str | None:
        return await self._step(lambda: self._workflow_values.get((workflow_id, kind, key)))

    async def _set_workflow_value(self, workflow_id: str, key: str, value: str) -> None:
        await self._step(lambda: self._workflow_values.update({(workflow_id, "data", key): value}))

    async def _decide_workflow_value(self, workflow_id: str, key: str, value: str) -> None:
        place = (workflow_id, "decided", key)
        await self._step(lambda: self._workflow_values.setdefault(place, value))

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


def _record(row: _Row) -> InvocationStatusRecord:
    record = row.standing.record
    if record is None:  # it was stored, and never registered
        raise InvocationNotFoundError(row.asked.invocation_id)
    return record


def _fits(row: _Row, which: InvocationFilter) -> bool:
    asked = row.asked
    workflow_id = None if asked.workflow is None else asked.workflow.workflow_id
    return (
        row.standing.record is not None
        and (which.statuses is None or row.status in which.statuses)
        and which.task in {None, asked.task}
        and which.workflow_id in {None, workflow_id}
        and which.parent_id in {None, asked.parent_id}
        and (which.since is None or row.created_at >= which.since)
        and (which.until is None or row.created_at < which.until)
    )


class _Lost(NamedTuple):
    """Which invocations are to be recovered."""

    runners: Collection[str] | None
    invocations: Collection[str]
    owner: str | None
    pending_before: datetime | None

    def has(self, row: _Row, alive: Collection[str]) -> bool:
        """Return whether *row* is one of them, while these runners are *alive*."""
        record = row.standing.record
        if record is None or record.status not in OWNED:
            return False
        if self.runners is None:
            dead = record.runner_id not in alive
        else:
            dead = record.runner_id in self.runners
        return dead or self._is_named(row, record) or self._is_late(record)

    def _is_named(self, row: _Row, record: InvocationStatusRecord) -> bool:
        named = row.asked.invocation_id in self.invocations
        return named and self.owner in {None, record.runner_id}

    def _is_late(self, record: InvocationStatusRecord) -> bool:
        before = self.pending_before
        late = before is not None and record.timestamp < before
        return late and record.status is _I.PENDING
