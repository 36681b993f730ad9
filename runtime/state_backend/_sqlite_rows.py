"""Rows of the file and what they mean, and the one way in which an invocation is moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import apsw

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import (
    Move,
    NewInvocation,
    OnDuplicate,
    Outcome,
    StoredInvocation,
    WorkflowIdentity,
)
from runtime.invocation.moves import OWNED, advance
from runtime.invocation.status import InvocationStatus, InvocationStatusRecord

from ._sqlite_schema import HELD_BACK, TALLIED
from .changes import Change

_I: Final = InvocationStatus
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_STATUS: Final = {status.value: status for status in InvocationStatus}
_ON_DUPLICATE: Final = {each.value: each for each in OnDuplicate}

#: Longer arguments lie in a table of their own, so that moves do not write them again.
INLINE_ARGUMENTS: Final = 1_000


def micros(moment: datetime) -> int:
    """Return *moment* as the file keeps it."""
    return (moment - _EPOCH) // _MICROSECOND


def maybe_micros(moment: datetime | None) -> int | None:
    """Return *moment* as the file keeps it, or None."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def moment(micros: int) -> datetime:
    """Return the moment that the file keeps as *micros*."""
    return _EPOCH + timedelta(microseconds=micros)


def maybe_moment(micros: int | None) -> datetime | None:
    """Return the moment that the file keeps as *micros*, or None."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def status_of(text: Any) -> InvocationStatus:  # noqa: ANN401 - a value of a row
    """Return the status that a row names."""
    return _STATUS[text]


@dataclass(slots=True)
class Row:
    """An invocation with its place in the file, and how many lines its history has."""

    seq: int
    stored: StoredInvocation
    lines: int


#: What `row` reads; *arguments* wherever they lie.
COLUMNS: Final = (
    "seq, lines, id, task, coalesce(arguments, (SELECT arguments FROM large"
    " WHERE large.seq = invocation.seq)), queue, rank, due_at, idempotency_key,"
    " registration_key, on_duplicate, running_key, parent_id, workflow_id, workflow_type,"
    " parent_workflow_id, retry_of, created_at, status, runner_id, changed_at, attempts, retries,"
    " deaths, cancel_requested"
)


def row(values: Sequence[Any]) -> Row:
    """Return the row that these values of `COLUMNS` are."""
    status = values[18]
    record = None
    if status is not None:
        record = InvocationStatusRecord(_STATUS[status], values[19], moment(values[20]))
    workflow = values[13]
    stored = StoredInvocation(
        invocation_id=values[2],
        task=values[3],
        arguments=values[4],
        queue=values[5],
        priority=-values[6],
        due_at=maybe_moment(values[7]),
        idempotency_key=values[8],
        registration_key=values[9],
        on_duplicate=_ON_DUPLICATE[values[10]],
        running_key=values[11],
        parent_id=values[12],
        workflow=workflow and WorkflowIdentity(workflow, values[14], values[15]),
        retry_of=values[16],
        created_at=moment(values[17]),
        record=record,
        attempts=values[21],
        retries=values[22],
        deaths=values[23],
        cancel_requested=bool(values[24]),
    )
    return Row(values[0], stored, values[1])


def record_of(stored: StoredInvocation) -> InvocationStatusRecord:
    """Return the record of one that was registered; raise `InvocationNotFoundError`."""
    if stored.record is None:
        raise InvocationNotFoundError(stored.invocation_id)
    return stored.record


def error_of(text: Any) -> ErrorRecord | None:  # noqa: ANN401 - a value of a row
    """Return the error that a row keeps."""
    return None if text is None else ErrorRecord.from_json(text)


_INSERT = """INSERT INTO invocation (seq, id, status, changed_at, waiting, due_at, over_at, lines,
    created_at, task, queue, rank, idempotency_key, registration_key, on_duplicate, running_key,
    parent_id, workflow_id, workflow_type, parent_workflow_id, retry_of, arguments)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LAST = "SELECT coalesce(max(seq), 0) FROM invocation"
_LARGE = "INSERT OR REPLACE INTO large (seq, arguments) VALUES (?, ?)"
_HISTORY = """INSERT INTO history (seq, line, at, status, runner_id, context)
    VALUES (?, ?, ?, ?, ?, ?)"""
# Each names only what changes: SQLite rewrites the entry of every index that has a column of it.
_GO_ON = """UPDATE invocation SET status = ?, runner_id = ?, changed_at = ?, attempts = ?,
    retries = ?, deaths = ?, cancel_requested = ?, lines = ?, waiting = ?, due_at = ?
    WHERE seq = ?"""
_END = """UPDATE invocation SET status = ?, runner_id = ?, changed_at = ?, attempts = ?,
    retries = ?, deaths = ?, cancel_requested = ?, lines = ?, over_at = ?,
    result = coalesce(?, result), error = iif(?, ?, error)
    WHERE seq = ? RETURNING result, error"""
_ANYHOW = """UPDATE invocation SET status = ?, runner_id = ?, changed_at = ?, attempts = ?,
    retries = ?, deaths = ?, cancel_requested = ?, lines = ?, waiting = ?, due_at = ?, over_at = ?,
    result = coalesce(?, result), error = iif(?, ?, error)
    WHERE seq = ? RETURNING result, error"""
_KEY_TAKEN = """SELECT 1 FROM invocation WHERE running_key = ? AND running_key IS NOT NULL
    AND runner_id IS NOT NULL LIMIT 1"""
_HELD_BACK = f"""SELECT {COLUMNS} FROM invocation WHERE {HELD_BACK}
    AND running_key = ? ORDER BY rank, seq LIMIT 1"""
_BY_ID = f"SELECT {COLUMNS} FROM invocation WHERE id = ?"


def _waiting(stored: StoredInvocation, now: datetime) -> int:
    status = stored.status
    if status is None or not status.is_available_for_run():
        return 0
    return 2 if stored.due_at is not None and stored.due_at > now else 1


class Step:
    """One operation inside a transaction, at the moment *now*: what it does, and what it changes.

    Lines of history and new invocations are written together at its end, or by `flush`.
    """

    __slots__ = (
        "_history",
        "_inserts",
        "_updates",
        "changes",
        "cursor",
        "forgotten",
        "now",
        "tally",
    )

    def __init__(self, db: apsw.Connection, now: datetime) -> None:
        self.cursor: Final = db.cursor()
        self.now: Final = now
        self.changes: Final[list[Change]] = []
        #: By how much the kept number of each status has changed.
        self.tally: Final[Counter[InvocationStatus | None]] = Counter()
        #: Whether there are invocations that are not there any more.
        self.forgotten = False
        self._history: list[tuple[Any, ...]] = []
        self._updates: list[tuple[Any, ...]] = []
        self._inserts: list[tuple[Any, ...]] = []

    def execute(self, sql: str, *values: Any) -> apsw.Cursor:  # noqa: ANN401 - values of rows
        """Execute one statement, after what is still to be written."""
        if self._inserts or self._updates:
            self._write_rows()
        return self.cursor.execute(sql, values)

    def one(self, sql: str, *values: Any) -> Any:  # noqa: ANN401 - values of rows
        """Return the first row that a query finds, or None."""
        found = self.execute(
            sql, *values
        ).fetchall()  # to its end: half a statement blocks a commit
        return found[0] if found else None

    def all(self, sql: str, *values: Any) -> list[Any]:  # noqa: ANN401 - values of rows
        """Return all rows that a query finds."""
        return self.execute(sql, *values).fetchall()

    def flush(self) -> None:
        """Write what is still to be written."""
        if self._inserts or self._updates:
            self._write_rows()
        if self._history:
            self.cursor.executemany(_HISTORY, self._history)
            self._history = []

    def _write_rows(self) -> None:
        if self._inserts:
            inserts, self._inserts = self._inserts, []
            self.cursor.executemany(_INSERT, inserts)
        if self._updates:
            updates, self._updates = self._updates, []
            self.cursor.executemany(_GO_ON, updates)

    # --- one invocation ---------------------------------------------------------------------------

    def find(self, invocation_id: str) -> Row:
        """Return an invocation; raise `InvocationNotFoundError`."""
        found = self.one(_BY_ID, invocation_id)
        if found is None:
            raise InvocationNotFoundError(invocation_id)
        return row(found)

    def last(self) -> int:
        """Return the place of the newest invocation."""
        place: int = self.one(_LAST)[0]
        return place

    def insert(self, seq: int, new: NewInvocation, statuses: Sequence[InvocationStatus]) -> None:
        """Add an invocation that has come to *statuses*, one after the other."""
        at = micros(self.now)
        status = statuses[-1] if statuses else None
        over = status is not None and status.is_over()
        waiting = 0
        if status is _I.REGISTERED:
            waiting = 2 if new.due_at is not None and new.due_at > self.now else 1
        workflow = new.workflow
        arguments: str | None = new.arguments
        if len(new.arguments) > INLINE_ARGUMENTS:
            self.execute(_LARGE, seq, arguments)
            arguments = None
        self._inserts.append(
            (
                *(seq, new.invocation_id, status, at, waiting, maybe_micros(new.due_at)),
                *(at if over else None, len(statuses), at, new.task, new.queue, -new.priority),
                *(new.idempotency_key, new.registration_key, new.on_duplicate, new.running_key),
                new.parent_id,
                *((None, None, None) if workflow is None else _columns_of(workflow)),
                *(new.retry_of, arguments),
            )
        )
        for number, each in enumerate(statuses):
            if number:  # the first one is known from created_at
                self._history.append((seq, number, at, each, None, None))
            outcome = Outcome(new.invocation_id, each) if each.is_over() else None
            self.changes.append(Change(new.invocation_id, each, outcome=outcome, task=new.task))
        if status in TALLIED:
            self.tally[status] += 1

    def move(self, row: Row, moves: Iterable[Move]) -> StoredInvocation:
        """Make these moves of one invocation, and what follows from them; return how it is then.

        Raises what `advance` does, before anything is written.
        """
        before = after = row.stored
        made: list[tuple[Move, InvocationStatusRecord]] = []
        owned = False
        for move in moves:
            after = advance(after, move, self.now)
            record = record_of(after)
            owned = owned or record.status in OWNED
            made.append((move, record))
        owned = owned or before.status in OWNED
        if not made:
            return after
        self._write(row, after, made)
        row.stored = after
        key = after.running_key
        if key is not None and owned and after.status not in OWNED:
            self._release(key)
        return after

    def _write(
        self, row: Row, after: StoredInvocation, made: list[tuple[Move, InvocationStatusRecord]]
    ) -> None:
        at = micros(self.now)
        for number, (move, record) in enumerate(made, row.lines):
            context = None if move.context is None else json.dumps(move.context)
            owner = record.runner_id or move.runner_id
            self._history.append((row.seq, number, at, record.status, owner, context))
        row.lines += len(made)
        for status, by in ((row.stored.status, -1), (after.status, 1)):
            if status in TALLIED:
                self.tally[status] += by
        outcome = self._update(row, after, [move for move, _ in made], at)
        for move, record in made:
            last = outcome if record is made[-1][1] else None
            self.changes.append(
                Change(move.invocation_id, record.status, outcome=last, task=after.task)
            )

    def _update(
        self, row: Row, after: StoredInvocation, moves: list[Move], at: int
    ) -> Outcome | None:
        before, record = row.stored, record_of(after)
        status = record.status
        common = (
            *(status, record.runner_id, at, after.attempts, after.retries, after.deaths),
            *(after.cancel_requested, row.lines),
        )
        place = (_waiting(after, self.now), maybe_micros(after.due_at))
        results = [move.result for move in moves if move.result is not None]
        errors: list[ErrorRecord | None] = [each.error for each in moves if each.error is not None]
        if status is _I.SUCCESS:  # the error of an attempt before is none of what has ended well
            errors = [moves[-1].error]
        was_over = before.status is not None and before.status.is_over()
        over = status.is_over()
        if not (was_over or over or results or errors):
            self._updates.append((*common, *place, row.seq))
            return None
        error = errors[-1] if errors else None
        ended = (
            at if over else None,
            results[-1] if results else None,
            bool(errors),
            error and error.to_json(),
            row.seq,
        )
        if over and before.status in OWNED:
            kept = self.one(_END, *common, *ended)
        else:
            kept = self.one(_ANYHOW, *common, *place, *ended)
        if not over:
            return None
        return Outcome(after.invocation_id, status, kept[0], error or error_of(kept[1]))

    def key_taken(self, key: str) -> bool:
        """Return whether somebody runs who has this running key."""
        return self.one(_KEY_TAKEN, key) is not None

    def _release(self, key: str) -> None:
        """Let the first of those go on that a key has held back, if nobody has the key."""
        if self.key_taken(key):
            return
        found = self.one(_HELD_BACK, key)
        if found is not None:
            held = row(found)
            self.move(held, [Move(invocation_id=held.stored.invocation_id, status=_I.REROUTED)])


def _columns_of(workflow: WorkflowIdentity) -> Iterator[str | None]:
    yield workflow.workflow_id
    yield workflow.workflow_type
    yield workflow.parent_workflow_id
