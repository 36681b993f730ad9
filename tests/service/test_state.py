"""The table of the states of a service, each legal and each illegal move of it."""

import pytest

from runtime.service._state import SERVICE_TABLE, service_lifecycle
from runtime.service.models import ServiceState
from runtime.supervision._exceptions import IllegalTransitionError

S = ServiceState
#: As the design has it, written down a second time.
LEGAL = {
    (S.INITIALIZED, S.CONFIGURED),
    (S.INITIALIZED, S.STARTING),
    (S.CONFIGURED, S.CONFIGURED),
    (S.CONFIGURED, S.STARTING),
    (S.STARTING, S.RUNNING),
    (S.STARTING, S.STOPPING),
    (S.RUNNING, S.STOPPING),
    (S.STOPPING, S.STOPPED),
    (S.STOPPED, S.CONFIGURED),
    (S.STOPPED, S.STARTING),
    (S.ERROR, S.CONFIGURED),
    (S.ERROR, S.STARTING),
    (S.ERROR, S.STOPPING),
    *((state, S.ERROR) for state in S),
}
WAY_TO = {
    S.INITIALIZED: [],
    S.CONFIGURED: [S.CONFIGURED],
    S.STARTING: [S.STARTING],
    S.RUNNING: [S.STARTING, S.RUNNING],
    S.STOPPING: [S.STARTING, S.STOPPING],
    S.STOPPED: [S.STARTING, S.STOPPING, S.STOPPED],
    S.ERROR: [S.ERROR],
}
MOVES = [pytest.param(old, new, id=f"{old} to {new}") for old in S for new in S]


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_each_move_is_made_or_refused_as_the_table_says(
    old: ServiceState, new: ServiceState
) -> None:
    cell = service_lifecycle("cache")
    for state in WAY_TO[old]:
        cell.move(state)
    assert cell.state is old
    if (old, new) in LEGAL:
        cell.move(new)
        assert cell.state is new
        return
    with pytest.raises(IllegalTransitionError) as caught:
        cell.move(new)
    assert (caught.value.subject, caught.value.old, caught.value.new) == ("cache", old, new)
    assert f"cache: {old} cannot become {new}" in str(caught.value)
    assert set(caught.value.allowed) == {to for frm, to in LEGAL if frm is old}
    assert cell.state is old


def test_no_state_is_final_and_every_one_may_fail() -> None:
    assert SERVICE_TABLE.final() == frozenset()
    assert all(S.ERROR in SERVICE_TABLE.successors(state) for state in S)
