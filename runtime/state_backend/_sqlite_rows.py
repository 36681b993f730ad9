"""Rows of the file and what they mean, and the one way in which an invocation is moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
    Standing,
    StoredInvocation,
    WorkflowIdentity,
)
from runtime.invocation.moves import OWNED, advance
from runtime.invocation.status import (
    AVAILABLE,
    OVER,
    InvocationStatus,
    InvocationStatusRecord,
)

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


#: What a `Row` needs.
STANDING: Final = (
    "seq, lines, id, running_key, status, runner_id, changed_at, due_at, attempts, retries, deaths,"
    " cancel_requested, task"
)
#: What a `Row` needs to tell the whole invocation; *arguments* wherever they lie.
COLUMNS: Final = (
    f"{STANDING}, coalesce(arguments, (SELECT arguments FROM large"
    " WHERE large.seq = invocation.seq)), queue, rank, idempotency_key, registration_key,"
    " on_duplicate, parent_id, workflow_id, workflow_type, parent_workflow_id, retry_of, created_at"
)


class Row:
    """An invocation with its place in the file, and how many lines its history has.

    Made of the values of `STANDING`, or of `COLUMNS`, without which it has no `stored`.
    """

    __slots__ = ("_values", "invocation_id", "lines", "running_key", "seq", "standing", "task")

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values
        status, owner, changed_at, due_at, attempts, retries, deaths, cancel = values[4:12]
        record = None
        if status is not None:
            record = InvocationStatusRecord(_STATUS[status], owner, moment(changed_at))
        self.seq: int = values[0]
        self.lines: int = values[1]
        self.invocation_id: str = values[2]
        self.running_key: str | None = values[3]
        self.task: str = values[12]
        self.standing = Standing(
            record, maybe_moment(due_at), attempts, retries, deaths, bool(cancel)
        )

    @property
    def order(self) -> tuple[int, int]:
        """Its place among those that wait."""
        return self._values[15], self.seq

    @property
    def stored(self) -> StoredInvocation:
        """All that is stored of it, as it stands now."""
        values, standing = self._values, self.standing
        workflow = values[20]
        return StoredInvocation(
            invocation_id=self.invocation_id,
            task=self.task,
            arguments=values[13],
            queue=values[14],
            priority=-values[15],
            due_at=standing.due_at,
            idempotency_key=values[16],
            registration_key=values[17],
            on_duplicate=_ON_DUPLICATE[values[18]],
            running_key=self.running_key,
            parent_id=values[19],
            workflow=workflow and WorkflowIdentity(workflow, values[21], values[22]),
            retry_of=values[23],
            created_at=moment(values[24]),
            record=standing.record,
            attempts=standing.attempts,
            retries=standing.retries,
            deaths=standing.deaths,
            cancel_requested=standing.cancel_requested,
        )


def record_of(row: Row) -> InvocationStatusRecord:
    """Return the record of one that was registered; raise `InvocationNotFoundError`."""
    record = row.standing.record
    if record is None:
        raise InvocationNotFoundError(row.invocation_id)
    return record


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
_HELD_BACK = f"""SELECT {STANDING} FROM invocation WHERE {HELD_BACK}
    AND running_key = ? ORDER BY rank, seq LIMIT 1"""
_BY_ID = f"SELECT {STANDING} FROM invocation WHERE id = ?"
_WHOLE_BY_ID = f"SELECT {COLUMNS} FROM invocation WHERE id = ?"


def _waiting(standing: Standing, status: InvocationStatus, now: datetime) -> int:
    if status not in AVAILABLE:
        return 0
    return 2 if standing.due_at is not None and standing.due_at > now else 1


class Step:
    """One operation inside a transaction, at the moment *now*: what it does, and what it changes.

    Lines of history and new invocations are written together at its end, or by `flush`.
    """

    __slots__ = (
        "_history",
        "_inserts",
        "_updates",
        "at",
        "changes",
        "cursor",
        "now",
        "stale",
        "tally",
        "untold",
    )

    def __init__(self, db: apsw.Connection, now: datetime) -> None:
        self.cursor: Final = db.cursor()
        self.now: Final = now
        self.at: Final = micros(now)
        self.changes: Final[list[Change]] = []
        #: By how much the kept number of each status has changed.
        self.tally: Final[Counter[InvocationStatus | None]] = Counter()
        #: Whether something has changed that no change tells: what is gone, a runner that is new.
        self.untold = False
        #: Whether something that is over was changed or forgotten, which nobody waits for.
        self.stale = False
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
        return self._found(_BY_ID, invocation_id)

    def find_whole(self, invocation_id: str) -> Row:
        """Return an invocation with all that is stored of it; raise as `find` does."""
        return self._found(_WHOLE_BY_ID, invocation_id)

    def _found(self, sql: str, invocation_id: str) -> Row:
        found = self.one(sql, invocation_id)
        if found is None:
            raise InvocationNotFoundError(invocation_id)
        return Row(found)

    def last(self) -> int:
        """Return the place of the newest invocation."""
        place: int = self.one(_LAST)[0]
        return place

    def insert(self, seq: int, new: NewInvocation, statuses: Sequence[InvocationStatus]) -> None:
        """Add an invocation that has come to *statuses*, one after the other."""
        at = self.at
        status = statuses[-1] if statuses else None
        over = status in OVER
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
            outcome = Outcome(new.invocation_id, each) if each in OVER else None
            self.changes.append(Change(new.invocation_id, each, outcome=outcome, task=new.task))
        if status in TALLIED:
            self.tally[status] += 1

    def move(self, row: Row, moves: Iterable[Move]) -> None:
        """Make these moves of one invocation, and what follows from them.

        Raises what `advance` does, before anything is written.
        """
        before = after = row.standing
        made: list[tuple[Move, InvocationStatusRecord]] = []
        for move in moves:
            after = advance(after, move.status, move.runner_id, self.now, move.due_at)
            if after.record is not None:
                made.append((move, after.record))
        if not made:
            return
        row.standing = after
        self._write(row, before, made)
        key = row.running_key
        if key is not None and made[-1][1].status not in OWNED:
            owned = before.record is not None and before.record.status in OWNED
            if owned or any(record.status in OWNED for _, record in made):
                self._release(key)

    def _write(
        self, row: Row, before: Standing, made: list[tuple[Move, InvocationStatusRecord]]
    ) -> None:
        at, seq, number = self.at, row.seq, row.lines
        for move, record in made:
            context = None if move.context is None else json.dumps(move.context)
            owner = record.runner_id or move.runner_id
            self._history.append((seq, number, at, record.status, owner, context))
            number += 1
        row.lines = number
        was = None if before.record is None else before.record.status
        status = made[-1][1].status
        if was in TALLIED:
            self.tally[was] -= 1
        if status in TALLIED:
            self.tally[status] += 1
        outcome = self._update(row, was, made)
        changes, invocation_id = self.changes, row.invocation_id
        for _, record in made[:-1]:
            changes.append(Change(invocation_id, record.status, task=row.task))
        changes.append(Change(invocation_id, status, False, outcome, row.task))

    def _update(
        self,
        row: Row,
        was: InvocationStatus | None,
        made: list[tuple[Move, InvocationStatusRecord]],
    ) -> Outcome | None:
        after, record = row.standing, made[-1][1]
        status = record.status
        _, due_at, attempts, retries, deaths, cancel_requested = after
        common = (
            *(status, record.runner_id, self.at, attempts, retries, deaths, cancel_requested),
            row.lines,
        )
        results = [move.result for move, _ in made if move.result is not None]
        errors: list[ErrorRecord | None] = [
            move.error for move, _ in made if move.error is not None
        ]
        if status is _I.SUCCESS:  # the error of an attempt before is none of what has ended well
            errors = [made[-1][0].error]
        over = status in OVER
        place = (_waiting(after, status, self.now), maybe_micros(due_at))
        if not (over or was in OVER or results or errors):
            self._updates.append((*common, *place, row.seq))
            return None
        error = errors[-1] if errors else None
        ended = (
            self.at if over else None,
            results[-1] if results else None,
            bool(errors),
            error and error.to_json(),
            row.seq,
        )
        if over and was in OWNED:
            kept = self.one(_END, *common, *ended)
        else:
            kept = self.one(_ANYHOW, *common, *place, *ended)
        if not over:
            return None
        return Outcome(row.invocation_id, status, kept[0], error or error_of(kept[1]))

    def key_taken(self, key: str) -> bool:
        """Return whether somebody runs who has this running key."""
        return self.one(_KEY_TAKEN, key) is not None

    def _release(self, key: str) -> None:
        """Let the first of those go on that a key has held back, if nobody has the key."""
        if self.key_taken(key):
            return
        found = self.one(_HELD_BACK, key)
        if found is not None:
            held = Row(found)
            self.move(held, [Move(invocation_id=held.invocation_id, status=_I.REROUTED)])


def _columns_of(workflow: WorkflowIdentity) -> Iterator[str | None]:
    yield workflow.workflow_id
    yield workflow.workflow_type
    yield workflow.parent_workflow_id
