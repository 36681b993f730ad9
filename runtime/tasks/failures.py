"""What becomes of an attempt whose body has raised. Decided where the exception is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.invocation.errors import ErrorRecord

from ._exceptions import TaskError
from .task import Task


@dataclass(frozen=True, slots=True)
class Failure:
    """The error to be kept, and the seconds until the next attempt; None: there is none."""

    error: ErrorRecord
    retry_after_sec: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return the failure that is final."""
        return cls(ErrorRecord.of(error))

    def to_json_object(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {"error": self.error.to_json(), "retry_after_sec": self.retry_after_sec}

    @classmethod
    def from_json_object(cls, told: dict[str, Any]) -> Failure:
        """Return what `to_json_object` has told."""
        return cls(ErrorRecord.from_json(told["error"]), told["retry_after_sec"])


def failure_of(
    task: Task[..., Any], error: BaseException, retries: int, *, timed_out: bool = False
) -> Failure:
    """Return what becomes of an attempt that has raised *error*, after so many retries."""
    if (code := _exit_code(error)) is not None:  # it may end its own work, and nobody else's
        return failure_of(task, TaskError(f"{task.name} has called sys.exit({code})"), retries)
    if not isinstance(error, Exception):
        raise error
    try:
        delay = task.options.retry_after(error, retries, timed_out=timed_out)
    except Exception as failure:  # noqa: BLE001 - a predicate of the user's
        failure.add_note(f"retry_for was asked about {type(error).__name__}: {error}")
        return Failure.of(failure)
    return Failure(ErrorRecord.of(error), delay)


def _exit_code(error: BaseException) -> str | None:
    """Return the code of the sys.exit that *error* is, or is a group of; None where it is none."""
    if isinstance(error, SystemExit):
        return repr(error.code)
    if isinstance(error, BaseExceptionGroup):
        exits, others = error.split(SystemExit)
        if exits is not None and (others is None or isinstance(others, ExceptionGroup)):
            return _exit_code(exits.exceptions[0])
    return None
