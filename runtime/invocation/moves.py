"""What a move does to an invocation as it is stored: arithmetic, the same for every store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ._exceptions import InvocationStatusTransitionError
from .errors import ErrorRecord
from .models import Move, Standing, StoredInvocation
from .status import (
    AVAILABLE,
    InvocationStatus,
    get_status_definition,
    status_record_transition,
)

_I = InvocationStatus
#: In these a runner owns the invocation, and its running key is taken.
OWNED = frozenset({_I.PENDING, _I.RUNNING, _I.PAUSED, _I.RESUMED})
#: In these a body has been begun and has not ended.
BEGUN = OWNED - {_I.PENDING}


def advance(
    standing: Standing,
    status: InvocationStatus,
    runner_id: str | None,
    now: datetime,
    due_at: datetime | None = None,
) -> Standing:
    """Return how an invocation stands after *runner_id* has moved it to *status*.

    An attempt counts when the body is about to begin, a retry when it is to be tried again, a death
    when it is known that it was not left to its own end. Whoever waits for a runner again is
    cancelled no more, and waits until *due_at*. Raises `InvocationStatusTransitionError` and
    `InvocationStatusOwnershipError`.
    """
    before, was_due_at, attempts, retries, deaths, cancel_requested = standing
    record = status_record_transition(before, status, runner_id, timestamp=now)
    return Standing(
        record,
        due_at if before is not None and status in AVAILABLE else was_due_at,
        attempts + (status is _I.RUNNING),
        retries + (status is _I.RETRY),
        deaths + (status is _I.RUNNING_RECOVERY),
        cancel_requested and status in OWNED,
    )


@dataclass(frozen=True, slots=True)
class Recovery:
    """Why an invocation is taken from its owner, by whom, and how many deaths are too many."""

    by: str
    reason: str
    quarantine_after: int


def recovery_moves(stored: StoredInvocation, recovery: Recovery) -> Iterator[Move]:
    """Yield the moves by which an invocation whose owner is gone gets on.

    It waits for a runner again; one that has been the death of too many ends failed; one that was
    to be cancelled is killed. Nothing is yielded for one that nobody owns.
    """
    if stored.record is None or stored.record.status not in OWNED:
        return
    status, owner = stored.record.status, stored.record.runner_id
    context = {"by": recovery.by, "reason": recovery.reason}
    if stored.cancel_requested:
        # In the name of the owner, who cannot object any more.
        yield Move(
            invocation_id=stored.invocation_id, status=_I.KILLED, runner_id=owner, context=context
        )
        return
    if status is _I.PENDING:
        steps = [_I.PENDING_RECOVERY, _I.REROUTED]
    elif stored.deaths + 1 < recovery.quarantine_after:
        steps = [_I.RUNNING_RECOVERY, _I.REROUTED]
    else:
        if status is _I.PAUSED:
            yield Move(
                invocation_id=stored.invocation_id,
                status=_I.RESUMED,
                runner_id=owner,
                context=context,
            )
        yield Move(
            invocation_id=stored.invocation_id,
            status=_I.FAILED,
            runner_id=owner,
            error=quarantined(stored, recovery),
            context=context,
        )
        return
    for step in steps:
        yield Move(invocation_id=stored.invocation_id, status=step, context=context)


def quarantined(stored: StoredInvocation, recovery: Recovery) -> ErrorRecord:
    """Return the error of one that has been the death of too many."""
    times = stored.deaths + 1
    return ErrorRecord(
        "QuarantinedError",
        f"its worker died {times} time{'s' * (times > 1)} while it ran, the last time because "
        f"{recovery.reason}; the limit is quarantine_after",
    )


def cancellation_moves(stored: StoredInvocation, by: str) -> Iterator[Move]:
    """Yield the moves that kill an invocation that waits; none for one that a runner owns.

    Raises `InvocationStatusTransitionError` for one that is over.
    """
    status = stored.status
    if status is None or status.is_over():
        allowed = get_status_definition(status).allowed_transitions
        raise InvocationStatusTransitionError(status, _I.KILLED, allowed)
    if status in OWNED:
        return
    if not status.is_available_for_run():
        yield Move(invocation_id=stored.invocation_id, status=_I.REROUTED)
    context = {"by": by, "reason": "cancelled"}
    for step in (_I.PENDING, _I.KILLED):
        yield Move(invocation_id=stored.invocation_id, status=step, runner_id=by, context=context)


def hold_back_moves(stored: StoredInvocation, runner_id: str) -> Iterator[Move]:
    """Yield the moves of one that waits and whose running key is taken.

    What waits for another attempt can be taken only: *runner_id* takes it, and gives it back.
    """
    if stored.status is _I.RETRY:
        for step in (_I.PENDING, _I.REROUTED):
            yield Move(invocation_id=stored.invocation_id, status=step, runner_id=runner_id)
    yield Move(invocation_id=stored.invocation_id, status=_I.CONCURRENCY_CONTROLLED)
