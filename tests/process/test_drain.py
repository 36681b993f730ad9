"""The end of the output is waited for, but not for ever: somebody else may hold the pipe."""

from typing import Any

import pytest
import trio

from runtime._procfs import Member
from runtime.process.child import _drain
from runtime.supervision.budget import StopBudget
from runtime.supervision.unit import UnitHandle


class Child:
    """As much of a child as is asked about its output."""

    asked = 0

    def kill_holders(self, inodes: list[int]) -> tuple[list[Member], str]:
        self.asked += 1
        return [], ""


@pytest.mark.parametrize(
    ("left_sec", "waited_sec"), [(0.0, 0.0), (0.02, 0.02), (0.2, 0.2), (30.0, 0.5)]
)
async def test_output_without_an_end_is_waited_for_half_a_second_within_the_budget(
    left_sec: float, waited_sec: float, autojump_clock: Any
) -> None:
    child, began, budget = Child(), trio.current_time(), StopBudget()
    budget.force(left_sec)
    await _drain(child, [], trio.Event(), UnitHandle("p", budget))  # type: ignore[arg-type]
    assert trio.current_time() - began == pytest.approx(waited_sec)
    assert child.asked == 1  # whoever holds it is ended all the same


async def test_output_that_has_ended_is_not_waited_for(autojump_clock: Any) -> None:
    child, began, read = Child(), trio.current_time(), trio.Event()
    read.set()
    await _drain(child, [], read, UnitHandle("p", StopBudget()))  # type: ignore[arg-type]
    assert trio.current_time() == began
    assert child.asked == 0
