"""What is read: each function is one look, on the connection that only reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import apsw

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import (
    AppInfo,
    Outcome,
    RunnerRecord,
    StoredInvocation,
    WorkflowIdentity,
)
from runtime.invocation.moves import OWNED
from runtime.invocation.status import InvocationStatus

from ._sqlite_rows import COLUMNS, Row, error_of, maybe_moment, micros, moment, status_of
from ._sqlite_schema import HELD_BACK, IS_RARE, RARE
from .base import InvocationFilter, InvocationHistory, Page, read_cursor

_I: Final = InvocationStatus
# Where those of these statuses are found without looking at all that there are.
_PLACES: Final[tuple[tuple[frozenset[InvocationStatus], str], ...]] = (
    (OWNED, "SELECT seq FROM invocation INDEXED BY owned WHERE runner_id IS NOT NULL"),
    (
        _I.get_available_for_run_statuses(),
        (
            "SELECT seq FROM invocation INDEXED BY ready WHERE waiting = 1"
            " UNION ALL SELECT seq FROM invocation INDEXED BY delayed WHERE waiting = 2"
        ),
    ),
    (
        frozenset({_I.CONCURRENCY_CONTROLLED}),
        f"SELECT seq FROM invocation INDEXED BY held_back WHERE {HELD_BACK}",
    ),
    (
        RARE,
        f"SELECT seq FROM invocation INDEXED BY rare WHERE {IS_RARE}",
    ),
)

_SINCE = "seq IN (SELECT seq FROM invocation INDEXED BY by_time WHERE created_at >= ?)"
_BY_ID = f"SELECT {COLUMNS} FROM invocation WHERE id = ?"
_ENDS = "SELECT status, result, error FROM invocation WHERE id = ?"
_MADE = "SELECT seq, created_at, status FROM invocation WHERE id = ?"
_HISTORY = "SELECT line, at, status, context, runner_id FROM history WHERE seq = ? ORDER BY line"
_NEXT_DUE = "SELECT min(due_at) FROM invocation WHERE waiting = 2"
_NEXT_DUE_IN = """SELECT min(due_at) FROM invocation WHERE waiting = 2
    AND queue IN (SELECT value FROM json_each(?))"""
_ENDS_OF = """SELECT value, status, result, error FROM json_each(?) LEFT JOIN invocation
    ON invocation.id = value WHERE seq IS NULL OR over_at IS NOT NULL"""
_COUNTS = f"""SELECT status, number FROM tally WHERE number > 0
    UNION ALL SELECT status, count(*) FROM invocation WHERE waiting = 1 GROUP BY status
    UNION ALL SELECT status, count(*) FROM invocation WHERE waiting = 2 GROUP BY status
    UNION ALL SELECT status, count(*) FROM invocation WHERE runner_id IS NOT NULL GROUP BY status
    UNION ALL SELECT status, count(*) FROM invocation WHERE {HELD_BACK} GROUP BY status"""
_RUNNERS = """SELECT runner_id, host, pid_space, pid, pid_started, started_at, alive_until
    FROM runner ORDER BY rowid"""
_OWNED = "SELECT id, cancel_requested FROM invocation WHERE runner_id = ? ORDER BY seq"
_VALUE = "SELECT value FROM workflow_value WHERE workflow_id = ? AND kind = ? AND key = ?"
_APPS = "SELECT app_id, module FROM app ORDER BY rowid"
_RUNS = "SELECT workflow_id, workflow_type, parent_workflow_id FROM workflow ORDER BY rowid"
_RUNS_OF = """SELECT workflow_id, workflow_type, parent_workflow_id FROM workflow
    WHERE workflow_type = ? ORDER BY rowid"""
_TYPES = "SELECT workflow_type FROM workflow GROUP BY workflow_type ORDER BY min(rowid)"
_SUB_INVOCATIONS = "SELECT invocation_id FROM sub_invocation WHERE workflow_id = ? ORDER BY seq"


def _first(db: apsw.Connection, sql: str, *values: Any) -> Any:  # noqa: ANN401 - values of a row
    found = db.execute(sql, values).fetchall()
    return found[0] if found else None


def _known(db: apsw.Connection, sql: str, invocation_id: str) -> Any:  # noqa: ANN401 - a row
    found = _first(db, sql, invocation_id)
    if found is None:
        raise InvocationNotFoundError(invocation_id)
    return found


def invocation(db: apsw.Connection, invocation_id: str) -> StoredInvocation | None:
    """Return an invocation, if there is one of this id."""
    found = _first(db, _BY_ID, invocation_id)
    return None if found is None else Row(found).stored


def outcome(db: apsw.Connection, invocation_id: str) -> Outcome:
    """See `BaseStateBackend.get_outcome`."""
    status, result, error = _known(db, _ENDS, invocation_id)
    if status is None:
        raise InvocationNotFoundError(invocation_id)
    return Outcome(invocation_id, status_of(status), result, error_of(error))


def result(db: apsw.Connection, invocation_id: str) -> str | None:
    """Return the result as JSON text, if there is one; raises `InvocationNotFoundError`."""
    text: str | None = _known(db, _ENDS, invocation_id)[1]
    return text


def error(db: apsw.Connection, invocation_id: str) -> ErrorRecord | None:
    """Return the error, if there is one; raises `InvocationNotFoundError`."""
    return error_of(_known(db, _ENDS, invocation_id)[2])


def history(db: apsw.Connection, invocation_id: str) -> list[InvocationHistory]:
    """Return the history, the oldest first; raises `InvocationNotFoundError`."""
    seq, created_at, status = _known(db, _MADE, invocation_id)
    lines: list[Any] = db.execute(_HISTORY, (seq,)).fetchall()
    if status is not None and not (lines and lines[0][0] == 0):
        lines.insert(0, (0, created_at, _I.REGISTERED.value, None, None))
    return [
        InvocationHistory(
            invocation_id, moment(at), None if status is None else status_of(status), context, owner
        )
        for _, at, status, context, owner in lines
    ]


def next_due(db: apsw.Connection, queues: Collection[str] | None) -> datetime | None:
    """See `BaseStateBackend.next_due`."""
    if queues is None:
        found = _first(db, _NEXT_DUE)
    else:
        found = _first(db, _NEXT_DUE_IN, json.dumps(list(queues)))
    return maybe_moment(found[0])


def ends(db: apsw.Connection, invocation_ids: Sequence[str]) -> dict[str, Outcome | None]:
    """Return how those of these that are over have ended; None for what is not there any more."""
    found: list[Any] = db.execute(_ENDS_OF, (json.dumps(list(invocation_ids)),)).fetchall()
    return {
        invocation_id: None
        if status is None
        else Outcome(invocation_id, status_of(status), result, error_of(error))
        for invocation_id, status, result, error in found
    }


def page(db: apsw.Connection, which: InvocationFilter, limit: int, after: str | None) -> Page:
    """See `BaseStateBackend.list_invocations`; the cursor is a place in the file."""
    conditions, values = _conditions(which, after)
    # The places first: to put them in order needs no more of them.
    sql = (
        f"SELECT {COLUMNS} FROM invocation WHERE seq IN (SELECT seq FROM invocation"
        f" WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?) ORDER BY seq DESC"
    )
    rows = [Row(each) for each in db.execute(sql, (*values, limit + 1))]
    shown = rows[:limit]
    more = len(rows) > len(shown) > 0
    return Page([each.stored for each in shown], str(shown[-1].seq) if more else None)


def _conditions(which: InvocationFilter, after: str | None) -> tuple[list[str], list[Any]]:
    told: list[tuple[str, Any]] = [
        ("seq < ?", read_cursor(after)),
        ("task = ?", which.task),
        ("workflow_id = ?", which.workflow_id),
        ("parent_id = ?", which.parent_id),
        (_SINCE, None if which.since is None else micros(which.since)),
        ("created_at < ?", None if which.until is None else micros(which.until)),
    ]
    conditions = [sql for sql, value in told if value is not None]
    values = [value for _, value in told if value is not None]
    conditions.append("status IS NOT NULL")
    if which.statuses is not None:
        statuses = frozenset(which.statuses)
        conditions.append("status IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(list(statuses)))
        if _I.SUCCESS not in statuses:  # of the others there are few, and small indexes of them
            places = " UNION ALL ".join(sql for those, sql in _PLACES if those & statuses)
            conditions.append(f"seq IN ({places or 'NULL'})")
    return conditions, values


def counts(db: apsw.Connection) -> dict[InvocationStatus, int]:
    """See `BaseStateBackend.count_by_status`."""
    numbers: Counter[InvocationStatus] = Counter()
    found: list[Any] = db.execute(_COUNTS).fetchall()
    for status, number in found:
        numbers[status_of(status)] += number
    return dict(numbers)


def runners(db: apsw.Connection) -> list[RunnerRecord]:
    """See `BaseStateBackend.get_runners`."""
    found: list[Any] = db.execute(_RUNNERS).fetchall()
    return [
        RunnerRecord(
            runner_id=runner_id,
            host=host,
            pid_space=pid_space,
            pid=pid,
            pid_started=pid_started,
            started_at=moment(started_at),
            alive_until=moment(alive_until),
        )
        for runner_id, host, pid_space, pid, pid_started, started_at, alive_until in found
    ]


def owned(db: apsw.Connection, runner_id: str) -> dict[str, bool]:
    """See `BaseStateBackend.get_owned`."""
    found: list[Any] = db.execute(_OWNED, (runner_id,)).fetchall()
    return {invocation_id: bool(cancel) for invocation_id, cancel in found}


def workflow_value(db: apsw.Connection, workflow_id: str, kind: str, key: str) -> str | None:
    """Return a value of a workflow as JSON text, if there is one."""
    found = _first(db, _VALUE, workflow_id, kind, key)
    return None if found is None else found[0]


def apps(db: apsw.Connection) -> dict[str, AppInfo]:
    """See `BaseStateBackend.get_all_app_infos`."""
    found: list[Any] = db.execute(_APPS).fetchall()
    return {app_id: AppInfo(app_id, module) for app_id, module in found}


def workflow_types(db: apsw.Connection) -> list[str]:
    """Return the types of all workflows."""
    found: list[Any] = db.execute(_TYPES).fetchall()
    return [values[0] for values in found]


def workflow_runs(db: apsw.Connection, workflow_type: str | None) -> list[WorkflowIdentity]:
    """Return the runs of the workflows of one type, or of all."""
    sql, values = (_RUNS, ()) if workflow_type is None else (_RUNS_OF, (workflow_type,))
    found: list[Any] = db.execute(sql, values).fetchall()
    return [WorkflowIdentity(*each) for each in found]


def sub_invocations(db: apsw.Connection, workflow_id: str) -> list[str]:
    """Return the ids of what runs inside a workflow."""
    found: list[Any] = db.execute(_SUB_INVOCATIONS, (workflow_id,)).fetchall()
    return [values[0] for values in found]
