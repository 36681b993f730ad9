"""A day of many entries on the virtual clock: every moment is where arithmetic puts it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from time import perf_counter

import pytest
import trio
from trio.testing import MockClock

from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitBody, UnitHandle

DAY_SEC = 86_400.0
Moments = Iterator[float]


@dataclass(frozen=True)
class Entry:
    """One entry of the day: what it runs, and when that has to happen.

    *make* is given a function that notes the moment; *moments* is the arithmetic.
    """

    name: str
    make: Callable[[Callable[[], None]], Unit]
    moments: Callable[[], Moments]


def crashing(name: str, policy: RestartPolicy, lives_sec: float, *, ready: bool = True) -> Entry:
    """Return an entry that starts, lives for so long, and crashes."""

    def make(note: Callable[[], None]) -> Unit:
        async def crash(*, task_status: UnitHandle) -> None:
            note()
            if ready:
                task_status.started()
            await trio.sleep(lives_sec)
            raise OSError("exited with 1")

        body: UnitBody = crash
        return Unit(name=name, body=body, restart=policy)

    return Entry(name, make, lambda: starts(policy, lives_sec if ready else 0.0, lives_sec))


def starts(policy: RestartPolicy, ready_sec: float, lives_sec: float) -> Moments:
    """Yield when such an entry starts: the blueprint of a backoff, written once more."""
    now, delay = 0.0, policy.delay_sec
    for started in count(1):
        yield now
        now += lives_sec
        if policy.max_restarts is not None and started > policy.max_restarts:
            return
        if ready_sec >= policy.forgive_after_sec:
            delay = policy.delay_sec
        now += 0.0 if policy.first_at_once and started == 1 else min(delay, policy.max_delay_sec)
        if not (policy.first_at_once and started == 1):
            delay *= policy.factor


def policy(delay_sec: float, factor: float, max_delay_sec: float) -> RestartPolicy:
    return RestartPolicy(
        when=RestartWhen.ALWAYS, delay_sec=delay_sec, factor=factor, max_delay_sec=max_delay_sec
    )


# Binary fractions, so that sums are exact and what is due at the end of the day is so here, too.
ENTRIES = [
    *(
        crashing(f"doubling-{cap}-{lives}", policy(0.125, 2, cap), lives)
        for cap in (300, 600, 1_800)
        for lives in (0.5, 2, 7)
    ),
    *(
        crashing(f"steady-{delay}", policy(delay, 1, delay), 1, ready=False)
        for delay in (120, 300, 900)
    ),
    *(crashing(f"forgiven-{lives}", policy(64, 4, 4_096), lives) for lives in (60, 300, 3_600)),
    *(crashing(f"never-ready-{n}", policy(1, 3, 900), n, ready=False) for n in (90, 120)),
    crashing(
        "at-once",
        RestartPolicy(
            when=RestartWhen.ALWAYS, delay_sec=0.25, first_at_once=True, max_delay_sec=512
        ),
        1,
    ),
    crashing("given-up", RestartPolicy(when=RestartWhen.FAILURE, delay_sec=0.5, max_restarts=9), 1),
    crashing("slow", policy(3_600, 2, 40_000), 1),
]


def test_there_are_twenty_rows() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES) == 20


def test_a_day_of_backoffs_is_exact(record_property: Callable[..., None]) -> None:
    found: dict[str, list[float]] = {entry.name: [] for entry in ENTRIES}

    async def main() -> None:
        began = trio.current_time()

        def noting(name: str) -> Callable[[], None]:
            return lambda: found[name].append(trio.current_time() - began)

        units = [entry.make(noting(entry.name)) for entry in ENTRIES]
        supervisor = Supervisor(units, keep=True)
        with trio.move_on_after(DAY_SEC):
            await supervisor.run()

    before = perf_counter()
    trio.run(main, clock=MockClock(autojump_threshold=0))
    record_property("real_sec", perf_counter() - before)
    for entry in ENTRIES:
        expected = list(until_evening(entry.moments()))
        assert found[entry.name] == pytest.approx(expected, abs=1e-6), entry.name
        assert len(found[entry.name]) == len(expected) > 4


def until_evening(moments: Moments) -> Moments:
    for moment in moments:
        if moment >= DAY_SEC:
            return
        yield moment
