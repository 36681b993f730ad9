"""How a task is to be run: what its decorator says. Arithmetic only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Literal, TypedDict

from runtime.invocation.models import DEFAULT_QUEUE, OnDuplicate
from runtime.supervision.restart import RestartPolicy, delay_before


class ConcurrencyControl(StrEnum):
    """Which invocations of a task are in each other's way."""

    DISABLED = "disabled"  #: none
    TASK = "task"  #: all of them
    ARGUMENTS = "arguments"  #: those with the same arguments
    KEYS = "keys"  #: those with the same values of the key arguments


#: Which errors are tried again: classes, or a function that says so.
RetryFor = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class TaskKeywords(TypedDict, total=False):
    """The fields of `TaskOptions`, as keywords; concurrency and duplicates may be given as text."""

    queue: str
    priority: int
    max_retries: int
    retry_for: RetryFor
    retry_delay_sec: float
    retry_factor: float
    max_retry_delay_sec: float
    timeout_sec: float | None
    running_concurrency: ConcurrencyControl | Literal["disabled", "task", "arguments", "keys"]
    registration_concurrency: ConcurrencyControl | Literal["disabled", "task", "arguments", "keys"]
    key_arguments: tuple[str, ...]
    on_duplicate: OnDuplicate | Literal["reuse", "reject"]
    cpu_bound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What the decorator of a task may say.

    After an error that is one of *retry_for* it is tried again up to *max_retries* times, the n-th
    time after ``retry_delay_sec * retry_factor ** (n - 1)`` seconds, at most *max_retry_delay_sec*.
    An attempt that takes longer than *timeout_sec* ends with a `TimeoutError`, which is tried again
    only where *retry_for* names that very class. The other fields are those of the invocations:
    see `NewInvocation`. *cpu_bound* runs it in a worker process.
    """

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    max_retries: int = 0
    retry_for: RetryFor = (Exception,)
    retry_delay_sec: float = 1.0
    retry_factor: float = 2.0
    max_retry_delay_sec: float = 60.0
    timeout_sec: float | None = None
    running_concurrency: ConcurrencyControl = ConcurrencyControl.DISABLED
    registration_concurrency: ConcurrencyControl = ConcurrencyControl.DISABLED
    key_arguments: tuple[str, ...] = ()
    on_duplicate: OnDuplicate = OnDuplicate.REUSE
    cpu_bound: bool = False

    def __post_init__(self) -> None:
        for name in ("running_concurrency", "registration_concurrency"):
            object.__setattr__(self, name, ConcurrencyControl(getattr(self, name)))
        object.__setattr__(self, "on_duplicate", OnDuplicate(self.on_duplicate))
        if isinstance(self.key_arguments, str):
            raise TypeError(f"key_arguments are a tuple of names: ({self.key_arguments!r},)")
        object.__setattr__(self, "key_arguments", tuple(self.key_arguments))
        self._check_numbers()
        by_keys = ConcurrencyControl.KEYS in {
            self.running_concurrency,
            self.registration_concurrency,
        }
        if by_keys != bool(self.key_arguments):
            raise ValueError('key_arguments go with a concurrency of "keys", and with no other')

    def _check_numbers(self) -> None:
        if self.max_retries < 0:
            raise ValueError("max_retries cannot be negative")
        for name in ("retry_delay_sec", "max_retry_delay_sec", "retry_factor"):
            if not 0 <= getattr(self, name) < inf:  # nor NaN
                raise ValueError(f"{name} is a number from 0 on")
        if self.timeout_sec is not None and not 0 < self.timeout_sec < inf:
            raise ValueError("timeout_sec is a number greater than 0; leave it out for no limit")
        if not isinstance(self.priority, int):
            raise TypeError("priority is a whole number")

    def retry_after(self, error: Exception, retries: int, *, timed_out: bool) -> float | None:
        """Return the seconds until the next attempt, or None when *error* is the end.

        *retries* is how often it was tried again already; *timed_out*, whether it is its own limit
        that the attempt came to.
        """
        if retries >= self.max_retries or not self._is_retried(error, timed_out=timed_out):
            return None
        policy = RestartPolicy(
            delay_sec=self.retry_delay_sec,
            factor=self.retry_factor,
            max_delay_sec=self.max_retry_delay_sec,
        )
        return delay_before(policy, retries + 1, 0.0)

    def _is_retried(self, error: Exception, *, timed_out: bool) -> bool:
        wanted = self.retry_for
        if not isinstance(wanted, tuple | type):
            return wanted(error)
        classes = wanted if isinstance(wanted, tuple) else (wanted,)
        return TimeoutError in classes if timed_out else isinstance(error, classes)
