"""What an invocation is: what was asked for, how it stands, and how it has ended."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from .errors import ErrorRecord
from .status import InvocationStatus, InvocationStatusRecord

#: The queue of what names none.
DEFAULT_QUEUE = "default"
#: Nothing is put off by more seconds: ten years.
MOST_DELAY_SEC: Final = 315_360_000


def new_invocation_id(at: datetime) -> str:
    """Return a new id that sorts by *at*: a UUID of version 7 (RFC 9562, section 5.7)."""
    milliseconds = int(at.timestamp() * 1000) & 0xFFFF_FFFF_FFFF
    noise = int.from_bytes(os.urandom(10), "big")
    # 48 bits of time, 4 of version, 12 of noise, 2 of variant, 62 of noise
    first = (milliseconds << 16) | 0x7000 | (noise >> 68)
    second = (0b10 << 62) | (noise & 0x3FFF_FFFF_FFFF_FFFF)
    digits = ((first << 64) | second).to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def due_in_utc(due_at: object) -> datetime:
    """Return a time that has a time zone as one in UTC; raise `ValueError` for anything else."""
    if isinstance(due_at, datetime) and due_at.utcoffset() is not None:
        with suppress(OverflowError):  # in UTC it is before or after all years that there are
            return due_at.astimezone(UTC)
    raise ValueError(f"due_at is a time with its zone, and not {due_at!r}")


class OnDuplicate(StrEnum):
    """What becomes of a submission while another one of its registration key is not over."""

    REUSE = "reuse"  #: it gets the invocation that is there
    REJECT = "reject"  #: it is kept, and ends as concurrency_controlled_final


@dataclass(frozen=True, slots=True)
class WorkflowIdentity:
    """One run of a workflow; *workflow_type* is the name of the task that it began with."""

    workflow_id: str
    workflow_type: str
    parent_workflow_id: str | None = None


@dataclass(frozen=True, slots=True)
class AppInfo:
    """An application that uses the store, and the module that it lives in."""

    app_id: str
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvocation:
    """What is asked for: *task* is called with *arguments*, a JSON object by parameter names.

    Higher *priority* goes first, then what was registered first. Nobody takes it before *due_at*.
    A task has one invocation for each *idempotency_key*, for good. While one with the same
    *registration_key* is not over, *on_duplicate* says what becomes of this one. Of those with the
    same *running_key* one runs at a time. *retry_of* is the failed one that this one repeats.
    """

    invocation_id: str
    task: str
    arguments: str = "{}"
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    due_at: datetime | None = None
    idempotency_key: str | None = None
    registration_key: str | None = None
    on_duplicate: OnDuplicate = OnDuplicate.REUSE
    running_key: str | None = None
    parent_id: str | None = None
    workflow: WorkflowIdentity | None = None
    retry_of: str | None = None


class Standing(NamedTuple):
    """How an invocation stands: those fields of a `StoredInvocation` that its moves change."""

    record: InvocationStatusRecord | None = None
    due_at: datetime | None = None
    attempts: int = 0
    retries: int = 0
    deaths: int = 0
    cancel_requested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInvocation(NewInvocation):
    """An invocation as the store has it at one moment.

    *attempts* counts how often a body was begun, *retries* how often it raised and was to be tried
    again, *deaths* how often its runner or its worker died of it. *record* is None for one that
    was stored and never registered.
    """

    created_at: datetime
    record: InvocationStatusRecord | None
    attempts: int = 0
    retries: int = 0
    deaths: int = 0
    cancel_requested: bool = False

    @property
    def status(self) -> InvocationStatus | None:
        """Its status, without the owner."""
        return None if self.record is None else self.record.status

    @property
    def standing(self) -> Standing:
        """How it stands."""
        return Standing(
            *(self.record, self.due_at, self.attempts, self.retries, self.deaths),
            self.cancel_requested,
        )


def stored_invocation(
    asked: NewInvocation, created_at: datetime, standing: Standing
) -> StoredInvocation:
    """Return the invocation that was *asked* for, as it stands."""
    return StoredInvocation(
        invocation_id=asked.invocation_id,
        task=asked.task,
        arguments=asked.arguments,
        queue=asked.queue,
        priority=asked.priority,
        due_at=standing.due_at,
        idempotency_key=asked.idempotency_key,
        registration_key=asked.registration_key,
        on_duplicate=asked.on_duplicate,
        running_key=asked.running_key,
        parent_id=asked.parent_id,
        workflow=asked.workflow,
        retry_of=asked.retry_of,
        created_at=created_at,
        record=standing.record,
        attempts=standing.attempts,
        retries=standing.retries,
        deaths=standing.deaths,
        cancel_requested=standing.cancel_requested,
    )


@dataclass(frozen=True, slots=True)
class Registered:
    """What a submission has led to: a new invocation, or one that was there (not *created*)."""

    invocation_id: str
    created: bool
    status: InvocationStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of an invocation by *runner_id*, and what is stored together with it.

    *result* is JSON text. *due_at* is when what waits for a runner again may be taken. *context*
    says more, in the history.
    """

    invocation_id: str
    status: InvocationStatus
    runner_id: str | None = None
    result: str | None = None
    error: ErrorRecord | None = None
    due_at: datetime | None = None
    context: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation stands, and, when it is over, its result (JSON text) or its error."""

    invocation_id: str
    status: InvocationStatus
    result: str | None = None
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRecord:
    """A runner that takes invocations, and how others see that it is dead.

    Where pids mean the same (*pid_space*): when no process of *pid* has *pid_started* (clock ticks
    since boot) any more; anywhere: when nothing was heard of it until *alive_until*.
    """

    runner_id: str
    host: str
    pid_space: str
    pid: int
    pid_started: int
    started_at: datetime
    alive_until: datetime
