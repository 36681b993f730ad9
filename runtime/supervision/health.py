"""When what runs is well, and when it has failed by its checks. Arithmetic only."""

import math
from binascii import crc32
from dataclasses import dataclass

# The second check, and with it all that follow, comes later by up to this share of the interval.
_SPREAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """How often health is checked, and what follows from the answers.

    The first check comes *start_delay_sec* seconds after the unit is ready, the others every
    *interval_sec*, counted from one start of a check to the next. One that takes longer than
    *timeout_sec* has failed. After *failures* of them the unit has failed; *successes* in a row
    make it healthy, and forget the failures before.
    """

    interval_sec: float = 10.0
    timeout_sec: float = 3.0
    failures: int = 3
    successes: int = 1
    start_delay_sec: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """What is known after some checks; *healthy* is None before it is known.

    *failures* are those that count, *successes* those in a row.
    """

    healthy: bool | None = None
    failures: int = 0
    successes: int = 0

    def has_failed(self, policy: HealthPolicy) -> bool:
        """Return whether that is enough to end the unit."""
        return self.failures >= policy.failures


def judge_health(policy: HealthPolicy, before: Health, *, passed: bool) -> Health:
    """Return what is known after one check more."""
    if passed:
        successes = before.successes + 1
        if successes >= policy.successes:
            return Health(True, successes=policy.successes)
        return Health(before.healthy, before.failures, successes)
    failures = before.failures + 1
    unknown = before.healthy is None and failures < policy.failures
    return Health(None if unknown else False, failures)


def spread_of(name: str) -> float:
    """Return a number in [0, 1) that is always the same for *name*, and another one for others."""
    return crc32(name.encode()) / 2**32


class CheckTimes:
    """The moments at which checks begin: the first one at *first*, the others in a fixed rhythm.

    *spread*, in [0, 1), shifts the rhythm by up to half an interval, so that what was started
    together is not checked together for ever. A moment that is over when a check ends is left out.
    """

    def __init__(self, first: float, interval_sec: float, spread: float = 0.0) -> None:
        self._base = first + spread * _SPREAD * interval_sec
        self._interval_sec = interval_sec
        self._number = 0

    def next(self, now: float) -> float:
        """Return the next moment that is not before *now*."""
        due = (now - self._base) / self._interval_sec
        # (What division makes of a moment that is just now must not count as being over.)
        self._number = max(self._number + 1, math.ceil(due - 1e-9))
        return self._base + self._number * self._interval_sec
