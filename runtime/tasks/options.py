"""How a task is to be run: what its decorator says. Arithmetic only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from inspect import iscoroutinefunction
from math import inf
from typing import Final, Literal, TypedDict, TypeGuard

from runtime.invocation.models import DEFAULT_QUEUE, MOST_DELAY_SEC, OnDuplicate
from runtime.supervision.restart import RestartPolicy, delay_before


class ConcurrencyControl(StrEnum):
    """Which invocations of a task are in each other's way."""

    DISABLED = "disabled"  #: none
    TASK = "task"  #: all of them
    ARGUMENTS = "arguments"  #: those with the same arguments
    KEYS = "keys"  #: those with the same values of the key arguments


#: Priorities are from minus this to this.
MOST_PRIORITY: Final = 1_000_000

#: Which errors are tried again: classes, or a function that says so.
RetryFor = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class TaskKeywords(TypedDict, total=False):
    """The fields of `TaskOptions`, as keywords; concurrency and duplicates may be given as text."""

    queue: str
    priority: int
    max_retries: int
    retry_for: RetryFor | list[type[Exception]]
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
        check_place(self.queue, self.priority)
        self._check_numbers()
        self._check_retry_for()
        by_keys = ConcurrencyControl.KEYS in {
            self.running_concurrency,
            self.registration_concurrency,
        }
        if by_keys != bool(self.key_arguments):
            raise ValueError('key_arguments go with a concurrency of "keys", and with no other')

    def _check_numbers(self) -> None:
        if not is_whole(self.max_retries, 0):
            raise ValueError("max_retries is a whole number from 0 on")
        if not is_number(self.retry_factor):
            raise ValueError("retry_factor is a number from 0 on")
        for name in ("retry_delay_sec", "max_retry_delay_sec"):
            check_delay(name, getattr(self, name))
        if self.timeout_sec is not None and not (is_number(self.timeout_sec) and self.timeout_sec):
            raise ValueError("timeout_sec is a number greater than 0; leave it out for no limit")

    def _check_retry_for(self) -> None:
        wanted: object = self.retry_for
        if isinstance(wanted, list):
            wanted = tuple(wanted)
            object.__setattr__(self, "retry_for", wanted)
        if callable(wanted) and not isinstance(wanted, type) and not iscoroutinefunction(wanted):
            return
        for each in wanted if isinstance(wanted, tuple) else (wanted,):
            if not (isinstance(each, type) and issubclass(each, Exception)):
                words = "retry_for is a tuple of classes of errors, or a plain function that takes"
                raise TypeError(f"{words} an error and says whether to try again; not {each!r}")

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


def is_number(value: object) -> TypeGuard[float]:
    """Return whether *value* is a number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < inf  # nor NaN


def is_whole(value: object, least: int) -> bool:
    """Return whether *value* is a whole number from *least* on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_delay(name: str, value: object) -> None:
    """Raise `ValueError` where *value* is not what something can be put off by."""
    if not is_number(value) or value > MOST_DELAY_SEC:
        words = f"a number of seconds from 0 to {MOST_DELAY_SEC} (ten years)"
        raise ValueError(f"{name} is {words}, and not {value!r}")


def check_key(key: object) -> None:
    """Raise `ValueError` for what is no idempotency key; None is none, and right."""
    if key is not None and not (isinstance(key, str) and key):
        # An empty one is mostly a variable that was not set, and would be the same for all.
        raise ValueError(f"idempotency_key is a text that is not empty, and not {key!r}")


def check_place(queue: object, priority: object) -> None:
    """Raise `ValueError` for a queue or a priority that no invocation can have."""
    if not (isinstance(queue, str) and queue):
        raise ValueError(f"queue is the name of a queue, and not {queue!r}")
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > MOST_PRIORITY:
        raise ValueError(
            f"priority is a whole number from -{MOST_PRIORITY} to {MOST_PRIORITY}, not {priority!r}"
        )
