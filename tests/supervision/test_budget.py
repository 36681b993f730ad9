"""Every shield has a bound, and a deadline further up tightens it."""

from functools import partial
from math import inf

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.supervision.budget import DEFAULT_STOP_SEC, Deadlines, StopBudget, plan_stop, share
from runtime.supervision.budget import tighten as tighten_deadlines

pytestmark = pytest.mark.usefixtures("autojump_clock")


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_time_for_the_kill_is_kept_back(now: float, within: float) -> None:
    polite_until, over_at = plan_stop(now, within)
    assert now <= polite_until <= over_at == now + within
    assert over_at - polite_until <= 1 + 1e-6


def test_a_share_is_the_smaller_of_ones_own_and_what_is_left() -> None:
    assert share(5, 100, 103) == 103
    assert share(2, 100, 103) == 102
    assert share(None, 100, 103) == 103


def test_a_deadline_is_never_put_off() -> None:
    assert tighten_deadlines(Deadlines(1, 9), Deadlines(2, 3)) == Deadlines(1, 3)


async def shielded_for(budget: StopBudget, own_sec: float | None, *, final: bool = False) -> float:
    start = trio.current_time()
    with budget.final(own_sec) if final else budget.polite(own_sec):
        await trio.sleep_forever()
    return trio.current_time() - start


async def test_a_unit_waits_for_its_own_timeout_when_there_is_time() -> None:
    budget = StopBudget()
    budget.begin(30)
    assert await shielded_for(budget, 5) == 5
    assert budget.left_sec == 25
    assert await shielded_for(budget, None) == 24
    assert await shielded_for(budget, 5, final=True) == 1


async def test_a_shield_that_nobody_budgeted_is_bounded_all_the_same() -> None:
    budget = StopBudget()
    assert budget.left_sec == inf
    assert await shielded_for(budget, None) == DEFAULT_STOP_SEC - 1


async def test_beginning_again_can_only_shorten_it() -> None:
    budget = StopBudget()
    budget.begin(10)
    budget.begin(20)
    assert await shielded_for(budget, None, final=True) == 10


@pytest.mark.parametrize(("force", "expected"), [(False, 3.0), (True, 2.0)])
async def test_a_stop_further_up_tightens_a_shield_already_waited_in(
    force: bool, expected: float
) -> None:
    root = StopBudget()
    took: list[float] = []
    async with trio.open_nursery() as nursery:
        with root.open_child() as child, child.open_child() as grandchild:
            grandchild.begin(100)
            nursery.start_soon(_record, grandchild, took)
            await trio.sleep(2)
            if force:
                root.force(1)
            else:
                root.begin(1.25)
            await trio.sleep(5)
    assert took == [expected]


async def _record(budget: StopBudget, took: list[float]) -> None:
    took.append(await shielded_for(budget, None))


async def test_hold_lets_the_body_end_when_the_caller_is_cancelled() -> None:
    budget, told, log = StopBudget(), trio.Event(), []

    def ask() -> None:
        budget.begin(10)
        told.set()

    async def body() -> None:
        await told.wait()
        await trio.sleep(3)
        log.append(trio.current_time())

    start = trio.current_time()
    with trio.move_on_after(5) as scope:
        await budget.hold(body, ask_to_stop=ask)
        log.append("not reached")
    assert scope.cancelled_caught
    assert log == [start + 8]


async def test_hold_ends_a_body_that_outlasts_the_budget() -> None:
    budget = StopBudget()
    start = trio.current_time()
    with trio.move_on_after(5):
        await budget.hold(trio.sleep_forever, ask_to_stop=lambda: budget.begin(10))
    assert trio.current_time() - start == 15


async def test_hold_asks_nobody_to_stop_when_the_body_ends_by_itself() -> None:
    asked: list[bool] = []
    await StopBudget().hold(partial(trio.sleep, 1), ask_to_stop=lambda: asked.append(True))
    assert asked == []


async def test_it_knows_how_long_the_innermost_wait_has_left() -> None:
    budget = StopBudget()
    with budget.to_the_end():  # that is around all of it, and waits for nothing
        assert budget.wait is None
    with budget.to_the_end(), budget.polite(5):
        await trio.sleep(1.5)
        assert budget.wait == (pytest.approx(3.5), 5, "")
        with budget.final(2):
            assert budget.wait == (2, 2, "")
        budget.begin(2.5)  # half a second of it is kept back
        assert budget.wait == (pytest.approx(2), pytest.approx(3.5), "")
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        assert budget.wait == (0, pytest.approx(3.5), "")
    assert budget.wait is None


async def test_what_is_waited_for_is_said_only_to_who_asks() -> None:
    asked: list[str] = []

    def say(words: str) -> str:
        asked.append(words)
        return words

    budget = StopBudget()
    with budget.name(partial(say, "a hook")):
        assert budget.wait is None  # nothing stops
        budget.begin(10)
        await trio.sleep(1)
        assert budget.wait == (9, 10, "a hook")
        with budget.polite(5, what=partial(say, "pid 12")):
            assert budget.wait == (5, 5, "pid 12")
        assert budget.wait == (9, 10, "a hook")
    assert budget.wait is None
    assert asked == ["a hook", "pid 12", "a hook"]
    with budget.name(partial(say, "another")):  # in a stop that has begun
        await trio.sleep(1)
        assert budget.wait == (8, 9, "another")


async def closing_for(budget: StopBudget, own_sec: float | None) -> float:
    start = trio.current_time()
    with budget.closing(own_sec):
        await trio.sleep_forever()
    return trio.current_time() - start


async def test_what_is_due_at_the_end_has_the_polite_time_or_half_of_what_is_left() -> None:
    budget = StopBudget()
    budget.begin(10)
    assert await closing_for(budget, 2) == 2
    assert await closing_for(budget, None) == 7
    assert await closing_for(budget, None) == 0.5
    assert await closing_for(budget, 0.125) == 0.125
    assert await closing_for(budget, None) == pytest.approx(0.1875)
    budget.force(0)
    assert await closing_for(budget, 5) == 0


async def test_a_stop_further_up_leaves_half_of_its_time_to_what_comes_after_this_end() -> None:
    budget, took = StopBudget(), []
    budget.begin(100)

    async def close() -> None:
        took.append(await closing_for(budget, None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await trio.sleep(2)
        budget.force(1)
    assert took == [2.5]
