"""The loop that checks whether what runs is well, for units of every kind."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from ._exceptions import in_words
from .health import CheckTimes, Health, HealthPolicy, judge_health

#: Looks once; returns None if all is well, else what is wrong, in words. It may raise that, too.
HealthCheck = Callable[[], Awaitable[str | None]]
#: Takes whether the unit is healthy now, and what there is to tell of that (perhaps nothing).
OnHealth = Callable[[bool, str], object]


class Failing(NamedTuple):
    """So many checks have failed, and the last one for this reason."""

    failures: int
    obstacle: str


async def watch_health(
    check: HealthCheck, policy: HealthPolicy, on_change: OnHealth, *, spread: float = 0.0
) -> Failing:
    """Check, time after time, until that has failed too often; return how.

    There are never two checks at once. *spread* is that of `CheckTimes`. Cancelled, a check that is
    under way is cancelled.
    """
    if policy.start_delay_sec:
        await trio.sleep(policy.start_delay_sec)
    times = CheckTimes(trio.current_time(), policy.interval_sec, spread)
    known = Health()
    while True:
        obstacle = await _look(check, policy.timeout_sec)
        before, known = known, judge_health(policy, known, passed=obstacle is None)
        if known.healthy is not None and known.healthy is not before.healthy:
            on_change(known.healthy, _told(before, known, policy, obstacle))
        if known.has_failed(policy):
            return Failing(known.failures, obstacle or "")
        await trio.sleep_until(times.next(trio.current_time()))


async def _look(check: HealthCheck, timeout_sec: float) -> str | None:
    with trio.move_on_after(timeout_sec):
        try:
            return await check()
        except Exception as error:  # noqa: BLE001 - a user's check: whatever it raises is told
            return in_words(error)
    return f"no answer within {timeout_sec:g} s (the limit is timeout_sec)"


def _told(before: Health, known: Health, policy: HealthPolicy, obstacle: str | None) -> str:
    """Return what there is to tell of a change: nothing of a first success, nor of the end."""
    if known.has_failed(policy) or before.healthy is None:
        return ""
    if known.healthy:
        return "is healthy again"
    return f"fails its health check ({known.failures} of {policy.failures}): {obstacle}"
