"""The dependency graph is arithmetic."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.supervision._exceptions import DependencyCycleError, UnknownUnitError
from runtime.supervision.graph import (
    Answer,
    Condition,
    Requirement,
    Stage,
    judge_condition,
    start_order,
)


def needs(**edges: str) -> dict[str, list[Requirement]]:
    return {name: [Requirement(n) for n in on.split()] for name, on in edges.items()}


def test_each_unit_comes_after_what_it_needs_and_else_in_the_given_order() -> None:
    assert start_order(needs(web="api cache", api="db", cache="", db="", log="")) == [
        "cache",
        "db",
        "log",
        "api",
        "web",
    ]


@given(st.lists(st.lists(st.integers(0, 100), max_size=4), max_size=30))
def test_the_order_respects_every_edge(rows: list[list[int]]) -> None:
    graph = {
        str(i): [Requirement(str(j % i)) for j in row] if i else [] for i, row in enumerate(rows)
    }
    order = start_order(graph)
    assert sorted(order) == sorted(graph)
    place = {name: i for i, name in enumerate(order)}
    assert all(place[r.name] < place[name] for name in graph for r in graph[name])


def test_a_cycle_is_named_in_the_direction_of_need() -> None:
    with pytest.raises(DependencyCycleError) as caught:
        start_order(needs(a="b", b="c", c="a", d=""))
    cycle = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert set(pairwise(cycle)) == {("a", "b"), ("b", "c"), ("c", "a")}
    assert " -> ".join(cycle) in str(caught.value)


def test_a_unit_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(DependencyCycleError, match="a -> a"):
        start_order(needs(a="a"))


def test_an_unknown_name_comes_with_the_nearest_right_one() -> None:
    with pytest.raises(UnknownUnitError, match="'cahce'; did you mean 'cache'"):
        start_order(needs(api="cahce", cache=""))


_S, _C = Stage, Condition
_MET = {
    _C.STARTED: {_S.STARTING, _S.READY, _S.STOPPING, _S.COMPLETED},
    _C.READY: {_S.READY, _S.COMPLETED},
    _C.COMPLETED: {_S.COMPLETED, _S.FAILED},
    _C.COMPLETED_SUCCESSFULLY: {_S.COMPLETED},
}


@pytest.mark.parametrize("condition", list(Condition))
@pytest.mark.parametrize("stage", list(Stage))
def test_when_a_condition_holds(condition: Condition, stage: Stage) -> None:
    if stage in _MET[condition]:
        expected = Answer.MET
    elif stage in {_S.FAILED, _S.HELD}:
        expected = Answer.NEVER
    else:
        expected = Answer.NOT_YET
    assert judge_condition(condition, stage) is expected
