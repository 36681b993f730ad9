"""The table decides every move."""

import pickle
from enum import StrEnum

import pytest

from runtime.supervision._exceptions import IllegalTransitionError
from runtime.supervision.lifecycle import Lifecycle, Stages, TransitionTable
from runtime.supervision.unit import UNIT_TABLE, UnitState, plain_lifecycle


class Door(StrEnum):
    OPEN = "open"
    SHUT = "shut"
    GONE = "gone"


_ROWS = {
    None: {Door.SHUT},
    Door.OPEN: {Door.SHUT},
    Door.SHUT: {Door.OPEN, Door.GONE},
    Door.GONE: set(),
}
TABLE = TransitionTable(Door, _ROWS)


@pytest.mark.parametrize("old", [None, *Door])
@pytest.mark.parametrize("new", list(Door))
def test_what_the_table_lists_is_allowed_and_nothing_else(old: Door | None, new: Door) -> None:
    if new in _ROWS[old]:
        assert TABLE.advance("door", old, new) is new
    else:
        with pytest.raises(IllegalTransitionError) as caught:
            TABLE.advance("door", old, new)
        error = caught.value
        assert (error.subject, error.old, error.new) == ("door", old, new)
        assert error.allowed == tuple(sorted(_ROWS[old]))
        assert str(old) in str(error)
        assert str(new) in str(error)


def test_the_error_survives_pickling() -> None:
    with pytest.raises(IllegalTransitionError) as caught:
        TABLE.advance("door", Door.GONE, Door.OPEN)
    assert str(caught.value) == "door: gone cannot become open (allowed: nothing, it is final)"
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert again.args == caught.value.args


def test_a_table_with_a_missing_row_is_refused() -> None:
    with pytest.raises(ValueError, match="Door: no row for gone, shut"):
        TransitionTable(Door, {Door.OPEN: set()})


def test_a_table_with_a_state_of_another_kind_is_refused() -> None:
    rows = {Door.OPEN: {UnitState.FAILED}, Door.SHUT: set(), Door.GONE: set()}
    with pytest.raises(ValueError, match="no such state: failed"):
        TransitionTable(Door, rows)


def test_final_states_are_those_that_nothing_follows() -> None:
    assert TABLE.final() == {Door.GONE}
    assert UNIT_TABLE.final() == frozenset()


def test_an_illegal_move_changes_nothing() -> None:
    cell = Lifecycle("door", TABLE, Stages(*[Door.OPEN] * 5), Door.SHUT)
    cell.move(Door.OPEN)
    with pytest.raises(IllegalTransitionError):
        cell.move(Door.GONE)
    assert cell.state is Door.OPEN


def test_a_plain_unit_begins_stopped() -> None:
    assert plain_lifecycle("x").state is UnitState.STOPPED
