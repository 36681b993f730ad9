"""Restart policies are arithmetic."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.supervision.restart import (
    Finished,
    GiveUp,
    GroupStrategy,
    RestartHistory,
    RestartIn,
    RestartPolicy,
    RestartWhen,
    delay_before,
    judge_end,
    restarted_with,
)

ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1, factor=2, max_delay_sec=8)


def delays(policy: RestartPolicy, count: int) -> list[float]:
    return [delay_before(policy, n, 0.0) for n in range(1, count + 1)]


def test_delays_double_up_to_the_cap() -> None:
    assert delays(ALWAYS, 6) == [1, 2, 4, 8, 8, 8]


def test_the_first_restart_may_be_at_once() -> None:
    policy = RestartPolicy(first_at_once=True, delay_sec=0.5, factor=3, max_delay_sec=10)
    assert delays(policy, 5) == [0, 0.5, 1.5, 4.5, 10]


def test_the_ten_thousandth_restart_in_a_row_waits_for_the_cap() -> None:
    assert delay_before(ALWAYS, 10_000, 0.0) == 8


def test_what_is_restarted_without_a_delay_is_so_for_ever() -> None:
    assert delay_before(RestartPolicy(delay_sec=0), 10_000, 0.0) == 0


def test_jitter_adds_at_most_its_share() -> None:
    policy = RestartPolicy(delay_sec=2, jitter=0.5)
    assert delay_before(policy, 1, 0.0) == 2
    assert delay_before(policy, 1, 0.5) == 2.5


@given(
    st.builds(
        RestartPolicy,
        delay_sec=st.floats(0, 100),
        factor=st.floats(1, 10),
        max_delay_sec=st.floats(0, 100),
        first_at_once=st.booleans(),
    )
)
def test_delays_never_shrink_and_never_exceed_the_cap(policy: RestartPolicy) -> None:
    found = delays(policy, 30)
    assert all(a <= b for a, b in pairwise(found))
    assert max(found) <= policy.max_delay_sec


@pytest.mark.parametrize(
    ("when", "failed", "again"),
    [
        (RestartWhen.ALWAYS, True, True),
        (RestartWhen.ALWAYS, False, True),
        (RestartWhen.FAILURE, True, True),
        (RestartWhen.FAILURE, False, False),
        (RestartWhen.NEVER, True, False),
        (RestartWhen.NEVER, False, False),
    ],
)
def test_which_ends_are_followed_by_a_restart(when: RestartWhen, failed: bool, again: bool) -> None:
    verdict, _ = judge_end(
        RestartPolicy(when=when),
        RestartHistory(),
        failed=failed,
        ready_sec=0,
        now=0,
        random=0,
    )
    assert isinstance(verdict, RestartIn if again else Finished)


def run(policy: RestartPolicy, ends: list[tuple[float, float | None]]) -> list[float | None]:
    """Return the delay that follows each end, given as (moment, seconds ready); None: given up."""
    history, found = RestartHistory(), []
    for now, ready_sec in ends:
        verdict, history = judge_end(
            policy, history, failed=True, ready_sec=ready_sec, now=now, random=0
        )
        found.append(verdict.delay_sec if isinstance(verdict, RestartIn) else None)
    return found


def test_a_long_healthy_life_is_forgiven() -> None:
    assert run(ALWAYS, [(0, 0), (1, 0), (100, 59.9), (200, 60), (300, 0)]) == [1, 2, 4, 1, 2]


def test_who_has_never_been_ready_is_not_forgiven() -> None:
    policy = RestartPolicy(
        when=RestartWhen.ALWAYS, max_restarts=2, forgive_after_sec=0, delay_sec=1
    )
    assert run(policy, [(0, 0), (1, 0), (2, 0)]) == [1, 1, 1]
    assert run(policy, [(0, None), (1, None), (2, None)]) == [1, 2, None]


def test_it_is_given_up_after_its_maximum_since_it_was_forgiven() -> None:
    policy = RestartPolicy(when=RestartWhen.ALWAYS, max_restarts=2, delay_sec=1)
    assert run(policy, [(0, 0), (1, 0), (99, 60), (100, 0), (101, 0)]) == [1, 2, 1, 2, None]


def test_a_window_counts_the_restarts_within_it_only() -> None:
    policy = RestartPolicy(
        when=RestartWhen.ALWAYS, max_restarts=2, window_sec=10, delay_sec=1, factor=1
    )
    assert run(policy, [(0, 0), (5, 0), (11, 0), (12, 0)]) == [1, 1, 1, None]
    assert run(policy, [(0, 0), (61, 60), (62, 0), (63, 0)]) == [1, 1, 1, None]


def test_giving_up_says_why() -> None:
    policy = RestartPolicy(when=RestartWhen.ALWAYS, max_restarts=0, window_sec=5)
    verdict, _ = judge_end(policy, RestartHistory(), failed=True, ready_sec=0, now=0, random=0)
    assert verdict == GiveUp("given up, for it may not be restarted (max_restarts is 0)")


@pytest.mark.parametrize(
    ("window_sec", "restarts", "words"),
    [
        (60, 5, "given up after 5 restarts within 60 s"),
        (60, 1, "given up after 1 restart within 60 s"),
        (None, 5, "given up after 5 restarts in 10.0 s"),
        (None, 1, "given up after 1 restart in 2.0 s"),
    ],
)
def test_giving_up_says_how_often_it_was_restarted_and_within_what_time(
    window_sec: float | None, restarts: int, words: str
) -> None:
    policy = RestartPolicy(
        when=RestartWhen.ALWAYS, max_restarts=restarts, window_sec=window_sec, delay_sec=0
    )
    history = RestartHistory()
    for end in range(restarts + 1):
        verdict, history = judge_end(
            policy, history, failed=True, ready_sec=0, now=100 + 2.0 * end, random=0
        )
    assert verdict == GiveUp(words)


def test_one_for_all_takes_the_whole_group_along() -> None:
    found = restarted_with(GroupStrategy.ONE_FOR_ALL, [["a"], ["b-0", "b-1"]])
    assert found.keys() == {"a", "b-0", "b-1"}
    assert all(set(others) == {"a", "b-0", "b-1"} for others in found.values())


def test_rest_for_one_takes_along_those_behind_and_no_replica_its_siblings() -> None:
    assert restarted_with(GroupStrategy.REST_FOR_ONE, [["a"], ["b-0", "b-1"], ["c"]]) == {
        "a": ("b-0", "b-1", "c"),
        "b-0": ("c",),
        "b-1": ("c",),
        "c": (),
    }
