"""Which status may follow which, and who may move an invocation; told here once more, as data."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest

from runtime.invocation._exceptions import (
    InvocationStatusOwnershipError,
    InvocationStatusTransitionError,
)
from runtime.invocation.status import (
    _CONFIG,
    InvocationStatus,
    InvocationStatusRecord,
    StatusConfiguration,
    StatusDefinition,
    compute_new_owner,
    get_status_definition,
    status_record_transition,
    validate_ownership,
    validate_transition,
)

I = InvocationStatus  # noqa: E741 - as in the module itself, it is short on purpose

#: Every allowed move: from, to, who may make it, and who owns the invocation then. "runner" is any
#: runner, "anyone" includes who names none; "mover" and "owner" own it, or nobody does.
MOVES = """
none                   registered                     anyone   nobody
registered             pending                        runner   mover
registered             concurrency_controlled         anyone   nobody
registered             concurrency_controlled_final   anyone   nobody
concurrency_controlled rerouted                       anyone   nobody
rerouted               pending                        runner   mover
rerouted               concurrency_controlled         anyone   nobody
pending                running                        owner    owner
pending                killed                         owner    nobody
pending                rerouted                       owner    nobody
pending                pending_recovery               anyone   nobody
pending_recovery       rerouted                       anyone   nobody
running                paused                         owner    owner
running                killed                         owner    nobody
running                retry                          owner    nobody
running                success                        owner    nobody
running                failed                         owner    nobody
running                running_recovery               anyone   nobody
running_recovery       rerouted                       anyone   nobody
paused                 resumed                        owner    owner
paused                 killed                         owner    nobody
paused                 running_recovery               anyone   nobody
resumed                paused                         owner    owner
resumed                killed                         owner    nobody
resumed                retry                          owner    nobody
resumed                success                        owner    nobody
resumed                failed                         owner    nobody
resumed                running_recovery               anyone   nobody
killed                 rerouted                       anyone   nobody
retry                  pending                        runner   mover
"""
RULES = {
    (None if old == "none" else I(old), I(new)): (who, then)
    for old, new, who, then in map(str.split, MOVES.strip().splitlines())
}
NAMES = {
    *("registered", "concurrency_controlled", "concurrency_controlled_final", "rerouted"),
    *("pending", "pending_recovery", "running", "running_recovery", "paused", "resumed"),
    *("killed", "success", "failed", "retry"),
}
OWNED = {I.PENDING, I.RUNNING, I.PAUSED, I.RESUMED}
FINAL = {I.SUCCESS, I.FAILED, I.CONCURRENCY_CONTROLLED_FINAL}
WAITING = {I.REGISTERED, I.REROUTED, I.RETRY}
OWNER, OTHER = "owner", "other"
MOVERS = {"owner": OWNER, "other": OTHER, "none": None}
MAY = {"anyone": set(MOVERS), "runner": {"owner", "other"}, "owner": {"owner"}}
BEFORE, NOW = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)


def record_of(status: I | None) -> InvocationStatusRecord | None:
    if status is None:
        return None
    return InvocationStatusRecord(status, OWNER if status in OWNED else None, BEFORE)


def test_the_states_are_these() -> None:
    assert {status.value for status in I} == NAMES
    assert {status.name.lower() for status in I} == NAMES
    assert len(RULES) == len(MOVES.strip().splitlines())


@pytest.mark.parametrize("old", [None, *I], ids=str)
@pytest.mark.parametrize("new", list(I), ids=str)
def test_the_whole_matrix(old: I | None, new: I) -> None:
    record = record_of(old)
    if (old, new) in RULES:
        validate_transition(old, new)
        moved = status_record_transition(record, new, OWNER, timestamp=NOW)
        assert (moved.status, moved.timestamp) == (new, NOW)
    else:
        for call in (
            lambda: validate_transition(old, new),
            lambda: status_record_transition(record, new, OWNER),
        ):
            with pytest.raises(InvocationStatusTransitionError) as caught:
                call()
            error = caught.value
            assert (error.from_status, error.to_status) == (old, new)
            assert error.allowed_statuses == {b for a, b in RULES if a == old}
    assert record == record_of(old)
    if old is not None:
        assert old.can_transition_to(new) == ((old, new) in RULES)


@pytest.mark.parametrize("mover", list(MOVERS))
@pytest.mark.parametrize(("old", "new"), list(product([None, *I], I)), ids=str)
def test_who_may_move_it_and_who_owns_it_then(old: I | None, new: I, mover: str) -> None:
    record, runner = record_of(old), MOVERS[mover]
    who, then = RULES.get((old, new), ("nobody", ""))
    if not then:
        with pytest.raises(InvocationStatusTransitionError):  # whoever asks for it
            status_record_transition(record, new, runner)
    elif mover in MAY[who]:
        owner = {"mover": runner, "owner": OWNER, "nobody": None}[then]
        moved = status_record_transition(record, new, runner, timestamp=NOW)
        assert moved == InvocationStatusRecord(new, owner, NOW)
        assert compute_new_owner(record, new, runner) == owner
        validate_ownership(record, new, runner)
    else:
        for call in (validate_ownership, status_record_transition):
            with pytest.raises(InvocationStatusOwnershipError) as caught:
                call(record, new, runner)
            error = caught.value
            assert (error.from_status, error.to_status) == (old, new)
            assert error.current_owner == (OWNER if old in OWNED else None)
            assert error.attempted_owner == runner
            assert error.reason
    assert record == record_of(old)


def test_nobody_is_no_runner() -> None:
    with pytest.raises(InvocationStatusOwnershipError, match="takes an owner"):
        status_record_transition(record_of(I.REGISTERED), I.PENDING, "")


def test_the_sets_that_matter() -> None:
    config = _CONFIG
    assert config.final_statuses == I.get_final_statuses() == FINAL
    assert config.available_for_run_statuses == I.get_available_for_run_statuses() == WAITING
    assert config.ownership_required_statuses == OWNED
    assert config.ownership_acquire_statuses == {I.PENDING}
    assert config.ownership_release_statuses == set(I) - OWNED
    overriding = {status for status in I if config.definitions[status].overrides_ownership}
    assert overriding == {I.PENDING_RECOVERY, I.RUNNING_RECOVERY}
    for status in I:
        assert status.is_final() == (status in FINAL)
        assert status.is_available_for_run() == (status in WAITING)
        assert status.is_over() == (status in FINAL | {I.KILLED})
        assert get_status_definition(status) is config.get_definition(status)
    assert config.get_definition(None).allowed_transitions == {I.REGISTERED}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        pytest.param(
            {"acquires_ownership": True, "releases_ownership": True},
            "both acquire and release",
            id="acquires and releases",
        ),
        pytest.param(
            {"is_final": True, "allowed_transitions": frozenset({I.RETRY})},
            "follow a final status",
            id="final with successors",
        ),
        pytest.param(
            {"overrides_ownership": True, "requires_ownership": True},
            "both override and require",
            id="overrides and requires",
        ),
    ],
)
def test_a_definition_that_contradicts_itself_is_refused(
    rules: dict[str, bool], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        StatusDefinition(**rules)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", [None, *I], ids=str)
def test_an_incomplete_table_is_refused(missing: I | None) -> None:
    definitions = {key: value for key, value in _CONFIG.definitions.items() if key != missing}
    with pytest.raises(ValueError, match=f"no row for {missing or 'what comes first'}"):
        StatusConfiguration(definitions)


def test_a_table_with_a_dead_end_is_refused() -> None:
    definitions = {**_CONFIG.definitions, I.RETRY: StatusDefinition(), I.KILLED: StatusDefinition()}
    with pytest.raises(ValueError, match="nothing follows, and not final: killed, retry"):
        StatusConfiguration(definitions)


def test_a_table_that_names_what_is_no_status_is_refused() -> None:
    nonsense = StatusDefinition(frozenset({"nonsense"}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such state: nonsense"):
        StatusConfiguration({**_CONFIG.definitions, I.RETRY: nonsense})


def test_a_table_cannot_be_changed() -> None:
    definitions = dict(_CONFIG.definitions)
    config = StatusConfiguration(definitions)
    definitions.clear()
    assert config.definitions == _CONFIG.definitions
    with pytest.raises(TypeError):
        config.definitions[None] = StatusDefinition()  # type: ignore[index]
    with pytest.raises(AttributeError):
        config.definitions = {}  # type: ignore[misc]


@pytest.mark.parametrize("status", list(I))
@pytest.mark.parametrize("runner", [None, "a", "käse/0"])
def test_a_record_comes_back_from_json(status: I, runner: str | None) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=-9, minutes=30)))
    record = InvocationStatusRecord(status, runner, at)
    back = InvocationStatusRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert back == record
    assert type(back.status) is I
    assert back.timestamp.utcoffset() == at.utcoffset()


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"status": "nonsense", "runner_id": None, "timestamp": BEFORE.isoformat()}, ValueError),
        ({"status": "retry", "runner_id": None, "timestamp": "yesterday"}, ValueError),
        ({"status": "retry", "timestamp": BEFORE.isoformat()}, KeyError),
        ({}, KeyError),
    ],
)
def test_what_is_no_record_is_refused(told: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        InvocationStatusRecord.from_json(told)


def test_a_record_is_of_now_unless_it_says_otherwise() -> None:
    before = datetime.now(UTC)
    records = [
        InvocationStatusRecord(I.REGISTERED),
        status_record_transition(None, I.REGISTERED, None),
    ]
    for record in records:
        assert before <= record.timestamp <= datetime.now(UTC)
        assert record.timestamp.tzinfo is UTC
        assert record.runner_id is None
        with pytest.raises(AttributeError):
            record.status = I.SUCCESS  # type: ignore[misc]
