"""The table of a process's states."""

from __future__ import annotations

import pytest

from runtime.process import ProcessState
from runtime.process._state import PROCESS_TABLE, process_lifecycle
from runtime.supervision._exceptions import IllegalTransitionError

STOPPED, STARTING, RUNNING, STOPPING = (
    ProcessState.STOPPED,
    ProcessState.STARTING,
    ProcessState.RUNNING,
    ProcessState.STOPPING,
)
ALLOWED = {
    STOPPED: {STARTING},
    STARTING: {RUNNING, STOPPING, STOPPED},
    RUNNING: {STOPPING, STOPPED},
    STOPPING: {STOPPED},
}


def test_the_states_have_the_values_that_users_see() -> None:
    assert {state.value for state in ProcessState} == {"stopped", "starting", "running", "stopping"}


@pytest.mark.parametrize("old", ProcessState)
@pytest.mark.parametrize("new", ProcessState)
def test_what_may_follow_what(old: ProcessState, new: ProcessState) -> None:
    assert (new in PROCESS_TABLE.successors(old)) == (new in ALLOWED[old])


def test_no_state_is_final() -> None:
    assert PROCESS_TABLE.final() == frozenset()


def test_an_illegal_move_names_both_states_and_changes_nothing() -> None:
    cell = process_lifecycle("api")
    assert cell.state is STOPPED
    with pytest.raises(IllegalTransitionError, match="api: stopped cannot become running"):
        cell.move(RUNNING)
    assert cell.state is STOPPED
