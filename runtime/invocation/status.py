"""The states of an invocation, who may move it, and the one function that does.

The names and their meaning are those of ``pynenc.invocation.status``. The table has two edges more,
from paused and from resumed to running_recovery, so that a parent that waits for its child can be
recovered when its runner dies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from runtime.supervision._exceptions import IllegalTransitionError
from runtime.supervision.lifecycle import TransitionTable

from ._exceptions import InvocationStatusOwnershipError, InvocationStatusTransitionError


class InvocationStatus(StrEnum):
    """Where an invocation of a task is in its life."""

    REGISTERED = "registered"  #: it is in the store and waits for a runner
    CONCURRENCY_CONTROLLED = "concurrency_controlled"  #: another one of its key runs
    CONCURRENCY_CONTROLLED_FINAL = "concurrency_controlled_final"  #: refused, as a duplicate
    REROUTED = "rerouted"  #: it waits for a runner again
    PENDING = "pending"  #: a runner has taken it and has not begun
    PENDING_RECOVERY = "pending_recovery"  #: its runner did not begin in time, or died before
    RUNNING = "running"  #: its body runs
    RUNNING_RECOVERY = "running_recovery"  #: its runner died while the body ran
    PAUSED = "paused"  #: it waits for another invocation and holds no slot
    RESUMED = "resumed"  #: its body runs again
    KILLED = "killed"  #: it was cancelled, or stopped with its runner
    SUCCESS = "success"  #: its body has returned
    FAILED = "failed"  #: its body has raised, for the last time
    RETRY = "retry"  #: its body has raised, and it waits for another attempt

    def can_transition_to(self, target: InvocationStatus) -> bool:
        """Return whether *target* may follow."""
        return target in _CONFIG.table.successors(self)

    def is_final(self) -> bool:
        """Return whether nothing may follow."""
        return self in _CONFIG.final_statuses

    def is_available_for_run(self) -> bool:
        """Return whether a runner may take it."""
        return self in AVAILABLE

    def is_over(self) -> bool:
        """Return whether it ends here unless somebody asks for more: final, or killed."""
        return self in OVER

    @classmethod
    def get_final_statuses(cls) -> frozenset[InvocationStatus]:
        """Return those that nothing may follow."""
        return _CONFIG.final_statuses

    @classmethod
    def get_available_for_run_statuses(cls) -> frozenset[InvocationStatus]:
        """Return those in which a runner may take the invocation."""
        return _CONFIG.available_for_run_statuses


@dataclass(frozen=True, slots=True)
class InvocationStatusRecord:
    """The status of an invocation, who owns it (a runner, or nobody), and since when."""

    status: InvocationStatus
    runner_id: str | None = None
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold, for `from_json`."""
        return {
            "status": self.status.value,
            "runner_id": self.runner_id,
            "timestamp": self.timestamp.isoformat(),
        }

    @classmethod
    def from_json(cls, json_dict: dict[str, Any]) -> InvocationStatusRecord:
        """Return the record that `to_json` has told.

        Raises `KeyError` or `ValueError` for anything else.
        """
        return cls(
            InvocationStatus(json_dict["status"]),
            json_dict["runner_id"],
            datetime.fromisoformat(json_dict["timestamp"]),
        )


@dataclass(frozen=True, slots=True)
class StatusDefinition:
    """What may follow a status, and what entering it does to the ownership.

    A status that *requires_ownership* is left by its owner only, except for one that
    *overrides_ownership*. One that *acquires_ownership* makes the mover the owner, one that
    *releases_ownership* has no owner. Raises `ValueError` where these contradict each other.
    """

    allowed_transitions: frozenset[InvocationStatus] = field(default_factory=frozenset)
    is_final: bool = False
    available_for_run: bool = False
    requires_ownership: bool = False
    acquires_ownership: bool = False
    releases_ownership: bool = False
    overrides_ownership: bool = False

    def __post_init__(self) -> None:
        if self.acquires_ownership and self.releases_ownership:
            raise ValueError("a status cannot both acquire and release the ownership")
        if self.is_final and self.allowed_transitions:
            raise ValueError("nothing can follow a final status")
        if self.overrides_ownership and self.requires_ownership:
            raise ValueError("a status cannot both override and require the ownership")


@dataclass(frozen=True)
class StatusConfiguration:
    """The definitions of all statuses; that of None says what may come first.

    Raises `ValueError` when one is missing, names something that is no status, or ends although it
    is not final.
    """

    definitions: Mapping[InvocationStatus | None, StatusDefinition]

    def __post_init__(self) -> None:
        object.__setattr__(self, "definitions", MappingProxyType(dict(self.definitions)))
        if None not in self.definitions:
            raise ValueError("InvocationStatus: no row for what comes first")
        dead_ends = self.table.final() - self.final_statuses
        if dead_ends:
            raise ValueError(f"nothing follows, and not final: {', '.join(sorted(dead_ends))}")

    @cached_property
    def table(self) -> TransitionTable[InvocationStatus]:
        """The table of what may follow what."""
        rows = {status: rule.allowed_transitions for status, rule in self.definitions.items()}
        return TransitionTable(InvocationStatus, rows)

    def _having(self, attribute: str) -> frozenset[InvocationStatus]:
        rules = self.definitions.items()
        return frozenset(status for status, rule in rules if status and getattr(rule, attribute))

    @cached_property
    def final_statuses(self) -> frozenset[InvocationStatus]:
        """Those that nothing may follow."""
        return self._having("is_final")

    @cached_property
    def available_for_run_statuses(self) -> frozenset[InvocationStatus]:
        """Those in which a runner may take the invocation."""
        return self._having("available_for_run")

    @cached_property
    def ownership_required_statuses(self) -> frozenset[InvocationStatus]:
        """Those that the owner only may leave."""
        return self._having("requires_ownership")

    @cached_property
    def ownership_acquire_statuses(self) -> frozenset[InvocationStatus]:
        """Those that make the mover the owner."""
        return self._having("acquires_ownership")

    @cached_property
    def ownership_release_statuses(self) -> frozenset[InvocationStatus]:
        """Those that have no owner."""
        return self._having("releases_ownership")

    def get_definition(self, status: InvocationStatus | None) -> StatusDefinition:
        """Return the definition of *status*."""
        return self.definitions[status]


def _to(*statuses: InvocationStatus, **rules: bool) -> StatusDefinition:
    return StatusDefinition(frozenset(statuses), **rules)


_I = InvocationStatus
_CONFIG: Final[StatusConfiguration] = StatusConfiguration(
    {
        None: _to(_I.REGISTERED),
        _I.REGISTERED: _to(
            *(_I.PENDING, _I.CONCURRENCY_CONTROLLED, _I.CONCURRENCY_CONTROLLED_FINAL),
            available_for_run=True,
            releases_ownership=True,
        ),
        _I.CONCURRENCY_CONTROLLED: _to(_I.REROUTED, releases_ownership=True),
        _I.CONCURRENCY_CONTROLLED_FINAL: _to(is_final=True, releases_ownership=True),
        _I.REROUTED: _to(
            *(_I.PENDING, _I.CONCURRENCY_CONTROLLED),
            available_for_run=True,
            releases_ownership=True,
        ),
        _I.PENDING: _to(
            *(_I.RUNNING, _I.KILLED, _I.REROUTED, _I.PENDING_RECOVERY),
            requires_ownership=True,
            acquires_ownership=True,
        ),
        _I.PENDING_RECOVERY: _to(_I.REROUTED, overrides_ownership=True, releases_ownership=True),
        _I.RUNNING: _to(
            *(_I.PAUSED, _I.KILLED, _I.RETRY, _I.SUCCESS, _I.FAILED, _I.RUNNING_RECOVERY),
            requires_ownership=True,
        ),
        _I.RUNNING_RECOVERY: _to(_I.REROUTED, overrides_ownership=True, releases_ownership=True),
        _I.PAUSED: _to(*(_I.RESUMED, _I.KILLED, _I.RUNNING_RECOVERY), requires_ownership=True),
        _I.RESUMED: _to(
            *(_I.PAUSED, _I.KILLED, _I.RETRY, _I.SUCCESS, _I.FAILED, _I.RUNNING_RECOVERY),
            requires_ownership=True,
        ),
        _I.KILLED: _to(_I.REROUTED, releases_ownership=True),
        _I.RETRY: _to(_I.PENDING, available_for_run=True, releases_ownership=True),
        _I.SUCCESS: _to(is_final=True, releases_ownership=True),
        _I.FAILED: _to(is_final=True, releases_ownership=True),
    }
)


#: In these a runner may take the invocation.
AVAILABLE: Final = _CONFIG.available_for_run_statuses
#: Final, or killed: it ends here unless somebody asks for more.
OVER: Final = _CONFIG.final_statuses | {_I.KILLED}


class _Rules(NamedTuple):
    """What the definitions of two statuses say of a move from one to the other."""

    allowed: bool
    by_owner: bool  #: by its owner only
    by_somebody: bool
    releases: bool
    acquires: bool


def _rules(old: InvocationStatus | None, new: InvocationStatus) -> _Rules:
    before, after = _CONFIG.definitions[old], _CONFIG.definitions[new]
    checked = old is not None and not after.overrides_ownership
    return _Rules(
        new in before.allowed_transitions,
        checked and before.requires_ownership,
        checked and after.acquires_ownership,
        after.releases_ownership,
        after.acquires_ownership,
    )


# Each move of each invocation asks: the answers are there before.
_RULES: Final = {(old, new): _rules(old, new) for old in (None, *_I) for new in _I}


def get_status_definition(status: InvocationStatus | None) -> StatusDefinition:
    """Return what may follow *status* (None: what comes first), and its rules of ownership."""
    return _CONFIG.get_definition(status)


def validate_transition(from_status: InvocationStatus | None, to_status: InvocationStatus) -> None:
    """Raise `InvocationStatusTransitionError` unless *to_status* may follow *from_status*."""
    try:
        _CONFIG.table.advance("invocation", from_status, to_status)
    except IllegalTransitionError:
        allowed = _CONFIG.table.successors(from_status)
        raise InvocationStatusTransitionError(from_status, to_status, allowed) from None


def validate_ownership(
    current_record: InvocationStatusRecord | None,
    new_status: InvocationStatus,
    runner_id: str | None,
) -> None:
    """Raise `InvocationStatusOwnershipError` unless *runner_id* may move the invocation so."""
    if current_record is None:
        return
    owner = current_record.runner_id
    rules = _RULES[current_record.status, new_status]
    if rules.by_owner and runner_id != owner:
        reason = f"{current_record.status} is left by its owner only"
    elif rules.by_somebody and not runner_id:
        reason = f"{new_status} takes an owner"
    else:
        return
    raise InvocationStatusOwnershipError(
        current_record.status, new_status, owner, runner_id, reason
    )


def compute_new_owner(
    current_record: InvocationStatusRecord | None,
    new_status: InvocationStatus,
    runner_id: str | None,
) -> str | None:
    """Return who owns the invocation after this move: the mover, who did before, or nobody."""
    rules = _RULES[None if current_record is None else current_record.status, new_status]
    if rules.releases:
        return None
    if rules.acquires:
        return runner_id
    return None if current_record is None else current_record.runner_id


def status_record_transition(
    current_record: InvocationStatusRecord | None,
    new_status: InvocationStatus,
    runner_id: str | None,
    *,
    timestamp: datetime | None = None,
) -> InvocationStatusRecord:
    """Return the record after *runner_id* has moved the invocation to *new_status*.

    None stands for an invocation that has no status yet; *timestamp* is now, unless given. Raises
    `InvocationStatusTransitionError` and `InvocationStatusOwnershipError`, and changes nothing.
    """
    old = None if current_record is None else current_record.status
    rules = _RULES[old, new_status]
    if not rules.allowed:
        validate_transition(old, new_status)
    if rules.by_owner or rules.by_somebody:
        validate_ownership(current_record, new_status, runner_id)
    owner = compute_new_owner(current_record, new_status, runner_id)
    return InvocationStatusRecord(new_status, owner, timestamp or datetime.now(UTC))
