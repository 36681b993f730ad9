"""What changes invocations: each function is one operation inside a transaction."""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import apsw

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import (
    Move,
    NewInvocation,
    OnDuplicate,
    Registered,
    StoredInvocation,
)
from runtime.invocation.moves import (
    Recovery,
    cancellation_moves,
    hold_back_moves,
    recovery_moves,
)
from runtime.invocation.status import InvocationStatus, InvocationStatusRecord

from ._sqlite_rows import (
    COLUMNS,
    INLINE_ARGUMENTS,
    Row,
    Step,
    maybe_micros,
    micros,
    record_of,
    status_of,
)
from .base import MOST_HELD_BACK, MOVE_ERRORS, InvocationHistory
from .changes import Change

_I: Final = InvocationStatus

_BY_IDEMPOTENCY = """SELECT id, status FROM invocation WHERE task = ? AND idempotency_key = ?
    AND idempotency_key IS NOT NULL AND status IS NOT NULL ORDER BY seq LIMIT 1"""
_BY_REGISTRATION = """SELECT id, status FROM invocation WHERE registration_key = ?
    AND registration_key IS NOT NULL AND over_at IS NULL AND status IS NOT NULL
    ORDER BY seq LIMIT 1"""
_DUE = "UPDATE invocation SET waiting = 1 WHERE waiting = 2 AND due_at <= ?"
# The queues that somebody waits in: one look into the index for each, however many wait.
_QUEUES = """WITH RECURSIVE queues (name) AS (
    SELECT min(queue) FROM invocation WHERE waiting = 1
    UNION ALL
    SELECT (SELECT min(queue) FROM invocation WHERE waiting = 1 AND queue > name)
    FROM queues WHERE name IS NOT NULL)
    SELECT name FROM queues WHERE name IS NOT NULL"""
_READY = f"""SELECT {COLUMNS} FROM invocation WHERE waiting = 1 AND queue = ?
    AND (rank, seq) > (?, ?) ORDER BY rank, seq LIMIT ?"""
_READY_OF_TASKS = f"""SELECT {COLUMNS} FROM invocation WHERE waiting = 1 AND queue = ?
    AND (rank, seq) > (?, ?) AND task IN (SELECT value FROM json_each(?))
    ORDER BY rank, seq LIMIT ?"""
_ASK_TO_CANCEL = "UPDATE invocation SET cancel_requested = 1 WHERE seq = ?"
_OF_THESE = "(id IN (SELECT value FROM json_each(?2)) AND (?3 IS NULL OR runner_id = ?3))"
_LOST = f"""SELECT {COLUMNS} FROM invocation INDEXED BY owned WHERE runner_id IS NOT NULL
    AND (runner_id NOT IN (SELECT runner_id FROM runner WHERE alive_until >= ?1)
    OR {_OF_THESE} OR (status = '{_I.PENDING}' AND changed_at < ?4))
    ORDER BY seq"""
_LOST_OF_RUNNERS = f"""SELECT {COLUMNS} FROM invocation INDEXED BY owned WHERE runner_id IS NOT NULL
    AND (runner_id IN (SELECT value FROM json_each(?1))
    OR {_OF_THESE} OR (status = '{_I.PENDING}' AND changed_at < ?4))
    ORDER BY seq"""
_FORGET_DEAD = "DELETE FROM runner WHERE alive_until < ?"
_FORGET_RUNNERS = "DELETE FROM runner WHERE runner_id IN (SELECT value FROM json_each(?))"
_PURGE = """DELETE FROM invocation WHERE seq IN (SELECT seq FROM invocation WHERE over_at < ?
    AND over_at IS NOT NULL ORDER BY over_at LIMIT ?) RETURNING id, status"""
_EVERYTHING = (
    *("history", "large", "tally", "workflow", "workflow_value", "sub_invocation"),
    "invocation",
)
_FACTS = """UPDATE invocation SET task = ?, queue = ?, rank = ?, due_at = ?, waiting = ?,
    idempotency_key = ?, registration_key = ?, on_duplicate = ?, running_key = ?, parent_id = ?,
    workflow_id = ?, workflow_type = ?, parent_workflow_id = ?, retry_of = ?, arguments = ?
    WHERE seq = ?"""
_FORGET_LARGE = "DELETE FROM large WHERE seq = ?"
_LARGE = "INSERT OR REPLACE INTO large (seq, arguments) VALUES (?, ?)"
_LINE = """INSERT INTO history (seq, line, at, status, runner_id, context)
    VALUES (?, ?, ?, ?, ?, ?)"""
_ANNOTATED = "UPDATE invocation SET lines = lines + 1 WHERE id = ? RETURNING seq, lines - 1"
_SET_RESULT = "UPDATE invocation SET result = ? WHERE id = ? RETURNING seq"
_SET_ERROR = "UPDATE invocation SET error = ? WHERE id = ? RETURNING seq"

#: As many are read at once of those that wait in a queue.
_PAGE: Final = 32
_BEFORE_ALL: Final = -(1 << 63)


def _json(values: Collection[str]) -> str:
    return json.dumps(list(values))


# --- registering ----------------------------------------------------------------------------------


def register(step: Step, invocations: Sequence[NewInvocation]) -> list[Registered]:
    """See `BaseStateBackend.register`."""
    seq = step.last()
    done: list[Registered] = []
    try:
        for new in invocations:
            there = _there_already(step, new)
            statuses = [_I.REGISTERED]
            if there is not None:
                found, idempotent = there
                if idempotent or new.on_duplicate is OnDuplicate.REUSE:
                    done.append(found)
                    continue
                statuses.append(_I.CONCURRENCY_CONTROLLED_FINAL)
            seq += 1
            step.insert(seq, new, statuses)
            done.append(Registered(new.invocation_id, True, statuses[-1]))
        step.flush()
    except apsw.ConstraintError as error:
        raise _taken(step, invocations) from error
    return done


def _taken(step: Step, invocations: Sequence[NewInvocation]) -> ValueError:
    ids = [new.invocation_id for new in invocations]
    known = step.cursor.execute(
        "SELECT id FROM invocation WHERE id IN (SELECT value FROM json_each(?))", (_json(ids),)
    ).fetchall()
    which = known[0][0] if known else ids[0]
    return ValueError(f"there is an invocation {which!r} already")


def _there_already(step: Step, new: NewInvocation) -> tuple[Registered, bool] | None:
    """Return what stands in for this one, or in its way, and whether it is the same for good."""
    if new.idempotency_key is not None:
        found = step.one(_BY_IDEMPOTENCY, new.task, new.idempotency_key)
        if found is not None:
            return Registered(found[0], False, status_of(found[1])), True
    if new.registration_key is not None:
        found = step.one(_BY_REGISTRATION, new.registration_key)
        if found is not None:
            return Registered(found[0], False, status_of(found[1])), False
    return None


def upsert(step: Step, new: NewInvocation) -> None:
    """Store what was asked for, and leave the status as it is."""
    try:
        found = step.find(new.invocation_id)
    except InvocationNotFoundError:
        step.insert(step.last() + 1, new, ())
        return
    record, workflow = found.standing.record, new.workflow
    waiting = 0
    if record is not None and record.status.is_available_for_run():
        waiting = 2 if new.due_at is not None and new.due_at > step.now else 1
    step.execute(_FORGET_LARGE, found.seq)
    arguments: str | None = new.arguments
    if len(new.arguments) > INLINE_ARGUMENTS:
        step.execute(_LARGE, found.seq, arguments)
        arguments = None
    step.execute(
        _FACTS,
        *(new.task, new.queue, -new.priority, maybe_micros(new.due_at), waiting),
        *(new.idempotency_key, new.registration_key, new.on_duplicate, new.running_key),
        new.parent_id,
        workflow and workflow.workflow_id,
        workflow and workflow.workflow_type,
        workflow and workflow.parent_workflow_id,
        *(new.retry_of, arguments, found.seq),
    )


# --- taking ---------------------------------------------------------------------------------------


def claim(
    step: Step,
    runner_id: str,
    limit: int,
    *,
    queues: Collection[str] | None,
    tasks: Collection[str] | None,
    start: bool,
) -> list[StoredInvocation]:
    """See `BaseStateBackend.claim`."""
    claimed: list[StoredInvocation] = []
    if limit < 1:
        return claimed
    step.execute(_DUE, micros(step.now))
    names = [name for (name,) in step.all(_QUEUES)] if queues is None else sorted(set(queues))
    of_tasks = None if tasks is None else _json(tasks)
    page = min(limit, _PAGE)
    waiting = [_ready(step, name, of_tasks, page) for name in names]
    in_order = waiting[0] if len(waiting) == 1 else heapq.merge(*waiting, key=_order)
    statuses = (_I.PENDING, _I.RUNNING) if start else (_I.PENDING,)
    held_back = 0
    for found in in_order:
        if found.running_key is not None and step.key_taken(found.running_key):
            step.move(found, hold_back_moves(found.stored, runner_id))
            held_back += 1
            if held_back == MOST_HELD_BACK:
                break
            continue
        invocation_id = found.invocation_id
        moves = [
            Move(invocation_id=invocation_id, status=status, runner_id=runner_id)
            for status in statuses
        ]
        step.move(found, moves)
        claimed.append(found.stored)
        if len(claimed) >= limit:
            break
    return claimed


def _order(found: Row) -> tuple[int, int]:
    return found.order


def _ready(step: Step, queue: str, tasks: str | None, page: int) -> Iterator[Row]:
    """Yield what waits in *queue*, in order, as it was when each page of it was read."""
    rank, seq = _BEFORE_ALL, 0
    while True:
        if tasks is None:
            found = step.all(_READY, queue, rank, seq, page)
        else:
            found = step.all(_READY_OF_TASKS, queue, rank, seq, tasks, page)
        rows = [Row(values) for values in found]
        yield from rows
        if len(rows) < page:
            return
        rank, seq = rows[-1].order


# --- moving ---------------------------------------------------------------------------------------


def apply(step: Step, moves: Sequence[Move]) -> list[InvocationStatusRecord]:
    """See `BaseStateBackend.apply`."""
    records: list[InvocationStatusRecord] = []
    for move in moves:
        found = step.find(move.invocation_id)
        step.move(found, [move])
        records.append(record_of(found))
    return records


def apply_each(step: Step, steps: Sequence[Sequence[Move]]) -> list[Exception | None]:
    """See `BaseStateBackend.apply_each`."""
    errors: list[Exception | None] = []
    for moves in steps:
        try:
            if moves:
                step.move(step.find(moves[0].invocation_id), moves)
        except MOVE_ERRORS as error:  # before anything of it was written
            errors.append(error)
        else:
            errors.append(None)
    return errors


def cancel(step: Step, invocation_id: str, by: str) -> InvocationStatusRecord:
    """See `BaseStateBackend.cancel`."""
    found = step.find_whole(invocation_id)
    moves = list(cancellation_moves(found.stored, by))
    if moves:
        step.move(found, moves)
    else:
        step.execute(_ASK_TO_CANCEL, found.seq)
    record = record_of(found)
    if not moves:
        step.changes.append(Change(invocation_id, record.status, cancel=True))
    return record


def recover(
    step: Step,
    recovery: Recovery,
    *,
    runners: Collection[str] | None,
    invocations: Collection[str],
    owner: str | None,
    pending_before: datetime | None,
) -> list[str]:
    """See `BaseStateBackend.recover`."""
    now, late = micros(step.now), maybe_micros(pending_before)
    these = (_json(invocations), owner, late)
    if runners is None:
        lost = step.all(_LOST, now, *these)
    else:
        lost = step.all(_LOST_OF_RUNNERS, _json(runners), *these)
    rows = [Row(values) for values in lost]
    for each in rows:
        step.move(each, recovery_moves(each.stored, recovery))
    if runners is None:
        step.execute(_FORGET_DEAD, now)
    elif runners:
        step.execute(_FORGET_RUNNERS, _json(runners))
    return [each.invocation_id for each in rows]


def purge(step: Step) -> int:
    """Forget everything, see `BaseStateBackend.purge`; return how many invocations that were."""
    step.untold = True
    number: int = step.one("SELECT count(*) FROM invocation")[0]
    for table in _EVERYTHING:
        step.execute(f"DELETE FROM {table}")
    return number


def purge_over(step: Step, over_before: datetime, limit: int | None) -> list[str]:
    """Forget what has been over, see `BaseStateBackend.purge`; return the ids."""
    gone = step.all(_PURGE, micros(over_before), -1 if limit is None else limit)
    step.stale = bool(gone)
    for _, status in gone:
        step.tally[status_of(status)] -= 1
    return [invocation_id for invocation_id, _ in gone]


# --- beside the status ----------------------------------------------------------------------------


def _known(found: Any, invocation_id: str) -> Any:  # noqa: ANN401 - a row
    if found is None:
        raise InvocationNotFoundError(invocation_id)
    return found


def add_history(step: Step, line: InvocationHistory) -> None:
    """Add a line that annotates; raises `InvocationNotFoundError`."""
    invocation_id = line.invocation_id
    seq, number = _known(step.one(_ANNOTATED, invocation_id), invocation_id)
    at, context = micros(line.timestamp), line.execution_context
    step.execute(_LINE, seq, number, at, line.status, line.runner_id, context)


def set_result(step: Step, invocation_id: str, result: str) -> None:
    """Store a result (JSON text); raises `InvocationNotFoundError`."""
    _known(step.one(_SET_RESULT, result, invocation_id), invocation_id)
    step.stale = True


def set_error(step: Step, invocation_id: str, error: ErrorRecord) -> None:
    """Store an error; raises `InvocationNotFoundError`."""
    _known(step.one(_SET_ERROR, error.to_json(), invocation_id), invocation_id)
    step.stale = True
