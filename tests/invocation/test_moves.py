"""What moves do to an invocation, and which moves recovery and cancellation make: arithmetic."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runtime.invocation import (
    ErrorRecord,
    InvocationStatus,
    InvocationStatusOwnershipError,
    InvocationStatusRecord,
    InvocationStatusTransitionError,
    Move,
    StoredInvocation,
)
from runtime.invocation.models import stored_invocation
from runtime.invocation.moves import (
    BEGUN,
    OWNED,
    Recovery,
    advance,
    cancellation_moves,
    hold_back_moves,
    recovery_moves,
)

S = InvocationStatus
NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
RECOVERY = Recovery(by="sweeper", reason="its runner is gone", quarantine_after=3)
CONTEXT = {"by": "sweeper", "reason": "its runner is gone"}


def stored(status: S | None, **facts: object) -> StoredInvocation:
    owner = "owner" if status in OWNED else None
    record = None if status is None else InvocationStatusRecord(status, owner, NOW)
    one = StoredInvocation(invocation_id="i", task="t", created_at=NOW, record=record)
    return replace(one, **facts)  # type: ignore[arg-type]


def move(status: S, runner_id: str | None = "owner", **more: object) -> Move:
    return replace(Move(invocation_id="i", status=status, runner_id=runner_id), **more)  # type: ignore[arg-type]


def after(one: StoredInvocation, each: Move, at: datetime = LATER) -> StoredInvocation:
    standing = advance(one.standing, each.status, each.runner_id, at, each.due_at)
    return stored_invocation(one, one.created_at, standing)


def walked(one: StoredInvocation, moves: list[Move]) -> StoredInvocation:
    for each in moves:
        one = after(one, each)
    return one


def test_the_sets() -> None:
    assert {S.PENDING, S.RUNNING, S.PAUSED, S.RESUMED} == OWNED
    assert {S.RUNNING, S.PAUSED, S.RESUMED} == BEGUN


@pytest.mark.parametrize(
    ("old", "new", "counted"),
    [
        (S.REGISTERED, S.PENDING, {}),
        (S.PENDING, S.RUNNING, {"attempts": 1}),
        (S.RUNNING, S.PAUSED, {}),
        (S.PAUSED, S.RESUMED, {}),  # the same attempt
        (S.RUNNING, S.RETRY, {"retries": 1}),
        (S.RESUMED, S.RETRY, {"retries": 1}),
        (S.RUNNING, S.RUNNING_RECOVERY, {"deaths": 1}),
        (S.PAUSED, S.RUNNING_RECOVERY, {"deaths": 1}),
        (S.PENDING, S.PENDING_RECOVERY, {}),  # nothing had begun
        (S.RUNNING_RECOVERY, S.REROUTED, {}),
        (S.RUNNING, S.KILLED, {}),
        (S.RUNNING, S.SUCCESS, {}),
        (S.RUNNING, S.FAILED, {}),
    ],
)
def test_what_a_move_counts(old: S, new: S, counted: dict[str, int]) -> None:
    before = stored(old, attempts=5, retries=5, deaths=5)
    now = after(before, move(new))
    assert now.record is not None
    assert (now.status, now.record.timestamp) == (new, LATER)
    for name in ("attempts", "retries", "deaths"):
        assert getattr(now, name) - getattr(before, name) == counted.get(name, 0)
    kept = {"record", *counted}
    for name in StoredInvocation.__dataclass_fields__.keys() - kept:
        assert getattr(now, name) == getattr(before, name)


def test_the_due_time_of_a_submission_stays_until_it_waits_again() -> None:
    one = after(stored(None, due_at=LATER), move(S.REGISTERED, None), NOW)
    assert one.due_at == LATER
    one = walked(one, [move(S.PENDING), move(S.RUNNING)])
    assert one.due_at == LATER
    again = LATER + timedelta(hours=1)
    assert after(one, move(S.RETRY, due_at=again)).due_at == again
    assert after(one, move(S.RETRY)).due_at is None
    back = walked(one, [move(S.KILLED), move(S.REROUTED, None)])
    assert back.due_at is None


def test_a_request_to_cancel_ends_with_the_ownership() -> None:
    one = stored(S.RUNNING, cancel_requested=True)
    assert after(one, move(S.PAUSED)).cancel_requested
    for status in (S.KILLED, S.SUCCESS, S.FAILED, S.RETRY, S.RUNNING_RECOVERY):
        assert not after(one, move(status)).cancel_requested


def test_a_move_that_is_refused_changes_nothing() -> None:
    one = stored(S.RUNNING)
    with pytest.raises(InvocationStatusOwnershipError):
        after(one, move(S.SUCCESS, "other"))
    with pytest.raises(InvocationStatusTransitionError):
        after(one, move(S.REGISTERED))
    assert one == stored(S.RUNNING)


# --- recovery -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, *(each for each in S if each not in OWNED)], ids=str)
def test_what_nobody_owns_is_left_alone(status: S | None) -> None:
    assert list(recovery_moves(stored(status), RECOVERY)) == []


@pytest.mark.parametrize("deaths", [0, 2, 50])
def test_one_that_had_not_begun_waits_again_whatever_died_before(deaths: int) -> None:
    one = stored(S.PENDING, deaths=deaths)
    moves = list(recovery_moves(one, RECOVERY))
    assert [each.status for each in moves] == [S.PENDING_RECOVERY, S.REROUTED]
    assert {each.runner_id for each in moves} == {None}
    assert [each.context for each in moves] == [CONTEXT, CONTEXT]
    assert walked(one, moves).deaths == deaths


@pytest.mark.parametrize("status", sorted(BEGUN))
@pytest.mark.parametrize("deaths", [0, 1])
def test_one_that_had_begun_waits_again_and_the_death_counts(status: S, deaths: int) -> None:
    one = stored(status, deaths=deaths)
    moves = list(recovery_moves(one, RECOVERY))
    assert [each.status for each in moves] == [S.RUNNING_RECOVERY, S.REROUTED]
    assert [each.context for each in moves] == [CONTEXT, CONTEXT]
    after = walked(one, moves)
    assert (after.deaths, after.due_at) == (deaths + 1, None)
    assert after.record == InvocationStatusRecord(S.REROUTED, None, LATER)


@pytest.mark.parametrize("status", sorted(BEGUN))
@pytest.mark.parametrize("deaths", [2, 3])
def test_the_last_death_ends_it_and_says_why(status: S, deaths: int) -> None:
    one = stored(status, deaths=deaths)
    moves = list(recovery_moves(one, RECOVERY))
    steps = [S.RESUMED, S.FAILED] if status is S.PAUSED else [S.FAILED]
    assert [each.status for each in moves] == steps
    assert [each.context for each in moves] == [CONTEXT] * len(steps)
    assert walked(one, moves).status is S.FAILED
    error = moves[-1].error
    assert error is not None
    assert error.type == "QuarantinedError"
    assert error.message.startswith(f"its worker died {deaths + 1} times")
    assert "its runner is gone" in error.message
    assert "quarantine_after" in error.message
    assert ErrorRecord.from_json(error.to_json()) == error
    assert [each.error for each in moves[:-1]] == [None] * (len(steps) - 1)


def test_one_death_can_be_too_many() -> None:
    (failed,) = recovery_moves(stored(S.RUNNING), replace(RECOVERY, quarantine_after=1))
    assert failed.error is not None
    assert "died 1 time while it ran" in failed.error.message


@pytest.mark.parametrize("status", sorted(OWNED))
@pytest.mark.parametrize("deaths", [0, 9])
def test_one_that_was_to_be_cancelled_is_killed(status: S, deaths: int) -> None:
    one = stored(status, cancel_requested=True, deaths=deaths)
    moves = list(recovery_moves(one, RECOVERY))
    assert [each.status for each in moves] == [S.KILLED]
    assert moves[0].context == CONTEXT
    after = walked(one, moves)
    assert (after.status, after.cancel_requested) == (S.KILLED, False)


# --- cancellation -------------------------------------------------------------------------------

WAITING = [S.REGISTERED, S.REROUTED, S.RETRY]


@pytest.mark.parametrize("status", WAITING)
def test_one_that_waits_is_claimed_and_killed(status: S) -> None:
    one = stored(status)
    moves = list(cancellation_moves(one, "me"))
    assert [(each.status, each.runner_id) for each in moves] == [
        (S.PENDING, "me"),
        (S.KILLED, "me"),
    ]
    assert [each.context for each in moves] == [{"by": "me", "reason": "cancelled"}] * 2
    after = walked(one, moves)
    assert after.record == InvocationStatusRecord(S.KILLED, None, LATER)
    assert after.attempts == 0


@pytest.mark.parametrize(
    "status", [S.CONCURRENCY_CONTROLLED, S.PENDING_RECOVERY, S.RUNNING_RECOVERY]
)
def test_one_that_is_held_back_is_rerouted_first(status: S) -> None:
    moves = list(cancellation_moves(stored(status), "me"))
    assert [each.status for each in moves] == [S.REROUTED, S.PENDING, S.KILLED]
    assert walked(stored(status), moves).status is S.KILLED


@pytest.mark.parametrize("status", sorted(OWNED))
def test_one_that_is_owned_is_the_owners_to_kill(status: S) -> None:
    assert list(cancellation_moves(stored(status), "me")) == []


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        (None, {S.REGISTERED}),
        (S.KILLED, {S.REROUTED}),
        (S.SUCCESS, set()),
        (S.FAILED, set()),
        (S.CONCURRENCY_CONTROLLED_FINAL, set()),
    ],
)
def test_one_that_is_over_cannot_be_cancelled(status: S | None, allowed: set[S]) -> None:
    with pytest.raises(InvocationStatusTransitionError) as caught:
        list(cancellation_moves(stored(status), "me"))
    error = caught.value
    assert (error.from_status, error.to_status) == (status, S.KILLED)
    assert error.allowed_statuses == allowed


# --- a running key that is taken ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "steps"),
    [
        (S.REGISTERED, [S.CONCURRENCY_CONTROLLED]),
        (S.REROUTED, [S.CONCURRENCY_CONTROLLED]),
        (S.RETRY, [S.PENDING, S.REROUTED, S.CONCURRENCY_CONTROLLED]),
    ],
)
def test_one_whose_key_is_taken_is_held_back(status: S, steps: list[S]) -> None:
    one = stored(status, attempts=1)
    moves = list(hold_back_moves(one, "me"))
    assert [each.status for each in moves] == steps
    after = walked(one, moves)
    assert after.record == InvocationStatusRecord(S.CONCURRENCY_CONTROLLED, None, LATER)
    assert after.attempts == 1
