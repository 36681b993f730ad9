"""Health is arithmetic, and one loop acts on it at exact moments."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from runtime.supervision._health_watch import Failing, watch_health
from runtime.supervision.health import CheckTimes, Health, HealthPolicy, judge_health, spread_of

policies = st.builds(
    HealthPolicy, failures=st.integers(min_value=1, max_value=5), successes=st.integers(1, 5)
)


def ended_in_a_row(answers: list[bool], count: int) -> bool:
    return len(answers) >= count and all(answers[-count:])


@given(policies, st.lists(st.booleans(), max_size=40))
def test_thresholds_are_those_of_a_naive_reading(policy: HealthPolicy, answers: list[bool]) -> None:
    """The model looks at all answers so far, every time."""
    known = Health()
    for count in range(1, len(answers) + 1):
        seen = answers[:count]
        known = judge_health(policy, known, passed=seen[-1])
        healthy_at = [n for n in range(1, count + 1) if ended_in_a_row(seen[:n], policy.successes)]
        failures = seen[healthy_at[-1] if healthy_at else 0 :].count(False)
        assert known.failures == failures
        assert known.has_failed(policy) == (failures >= policy.failures)
        if healthy_at and healthy_at[-1] == count:
            assert known.healthy is True
        elif not healthy_at and failures < policy.failures:
            assert known.healthy is None
        else:
            assert known.healthy is (failures == 0)
        if known.has_failed(policy):
            return


@given(
    interval=st.floats(0.01, 1e6),
    spread=st.floats(0, 1, exclude_max=True),
    lasts=st.lists(st.floats(0, 5), max_size=50),
)
def test_checks_begin_in_a_fixed_rhythm_however_long_each_takes(
    interval: float, spread: float, lasts: list[float]
) -> None:
    first = 1234.5
    times, now = CheckTimes(first, interval, spread), first
    base = first + spread * interval / 2
    for last in lasts:
        ended = now + last * interval
        now = times.next(ended)
        place = (now - base) / interval
        assert place == pytest.approx(round(place), abs=1e-6)
        assert now >= ended - interval * 1e-6
        assert now < ended + interval * (1 + 1e-6) or round(place) == 1


def test_a_thousand_names_are_spread_evenly() -> None:
    shares = sorted(spread_of(f"worker-{number}") for number in range(1000))
    assert shares[0] >= 0
    assert shares[-1] < 1
    tenths = [
        sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) for tenth in range(10)
    ]
    assert min(tenths) > 50


# --- the loop -------------------------------------------------------------------------------------


class Scripted:
    """A check that answers by a list, for ever by its last item: words, None, seconds or errors."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.moments: list[float] = []
        self.changes: list[tuple[float, bool, str]] = []
        self.under_way = 0

    async def check(self) -> str | None:
        self.moments.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        assert self.under_way == 0, "two checks at once"
        self.under_way += 1
        try:
            if isinstance(answer, float):
                await trio.sleep(answer)
                return None
            if isinstance(answer, Exception):
                raise answer
            assert answer is None or isinstance(answer, str)
            return answer
        finally:
            self.under_way -= 1

    def note(self, healthy: bool, words: str) -> None:
        self.changes.append((trio.current_time(), healthy, words))

    async def run(self, *, spread: float = 0.0, for_sec: float = 1e9, **policy: float) -> object:
        with trio.move_on_after(for_sec):
            return await watch_health(
                self.check,
                HealthPolicy(**policy),  # type: ignore[arg-type]
                self.note,
                spread=spread,
            )
        return None


async def test_the_third_failure_ends_it_and_a_success_between_forgets(
    autojump_clock: MockClock,
) -> None:
    script = Scripted(None, "a", "b", None, "c", "d", "e")
    assert await script.run(start_delay_sec=5) == Failing(3, "e")
    assert script.moments == [5, 15, 25, 35, 45, 55, 65]
    assert script.changes == [
        (5, True, ""),
        (15, False, "fails its health check (1 of 3): a"),
        (35, True, "is healthy again"),
        (45, False, "fails its health check (1 of 3): c"),
    ]


async def test_what_was_never_healthy_is_unknown_until_it_has_failed(
    autojump_clock: MockClock,
) -> None:
    script = Scripted("refused")
    assert await script.run(failures=2, interval_sec=1) == Failing(2, "refused")
    assert script.changes == [(1, False, "")]


async def test_a_check_that_takes_too_long_or_raises_has_failed_and_says_so(
    autojump_clock: MockClock,
) -> None:
    script = Scripted(7.0, OSError("gone"))
    found = await script.run(failures=2, timeout_sec=2)
    assert found == Failing(2, "gone")
    script = Scripted(2.5)
    found = await script.run(failures=1, timeout_sec=2)
    assert found == Failing(1, "no answer within 2 s (the limit is timeout_sec)")
    assert script.under_way == 0


async def test_a_slow_check_delays_no_later_one_and_is_never_joined_by_another(
    autojump_clock: MockClock,
) -> None:
    script = Scripted(3.0, 10.0, 25.0, 0.0)
    await script.run(interval_sec=10, timeout_sec=60, for_sec=75)
    # The third ends at 45: the moments 30 and 40 are over, 50 is the next.
    assert script.moments == [0, 10, 20, 50, 60, 70]


async def test_the_rhythm_is_shifted_by_the_spread_after_the_first_check(
    autojump_clock: MockClock,
) -> None:
    script = Scripted(None)
    await script.run(spread=0.5, interval_sec=8, for_sec=30)
    assert script.moments == [0, 10, 18, 26]


@pytest.mark.parametrize("ticks", range(8))
async def test_cancelled_at_any_tick_no_check_goes_on(ticks: int) -> None:
    script = Scripted(0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(script.run, interval_sec=0.01))
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert script.under_way == 0
    assert len(script.moments) <= ticks + 1


async def test_a_day_of_checks_of_many_has_the_exact_moments_and_takes_no_time(
    autojump_clock: MockClock,
) -> None:
    day, count = 86_400, 20
    scripts = [Scripted(None) for _ in range(count)]

    async def run(number: int, script: Scripted) -> None:
        await script.run(
            spread=spread_of(f"p-{number}"), interval_sec=120 * (number + 1), for_sec=day
        )

    async with trio.open_nursery() as nursery:
        for number, script in enumerate(scripts):
            nursery.start_soon(run, number, script)
    for number, script in enumerate(scripts):
        interval = 120 * (number + 1)
        base = spread_of(f"p-{number}") * interval / 2
        # No drift: the moments are sums of one product each, to the last bit.
        expected = [base + n * interval for n in range(1, len(script.moments))]
        assert script.moments == [0, *expected]
        assert base + len(script.moments) * interval > day
        assert all(0 < b - a < 1.51 * interval for a, b in pairwise(script.moments))
