"""Who waits for whom, and for what: the arithmetic of the dependency graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from ._exceptions import DependencyCycleError, UnknownUnitError


class Condition(StrEnum):
    """What a unit waits for in another one."""

    STARTED = "started"  #: it has been spawned or entered
    READY = "ready"  #: its readiness check has passed
    COMPLETED = "completed"  #: it has ended for good, well or not
    COMPLETED_SUCCESSFULLY = "completed_successfully"  #: it has ended for good, and well


@dataclass(frozen=True, slots=True)
class Requirement:
    """One edge of the graph: *name* has to meet *condition* first."""

    name: str
    condition: Condition = Condition.READY


class Stage(StrEnum):
    """Where a unit stands, whatever its kind; derived from its facts and never stored."""

    IDLE = "idle"  #: not wanted: never started, or stopped by request
    WAITING = "waiting"  #: wanted, and something it needs is not there yet
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"  #: it ended unasked and will be started again
    COMPLETED = "completed"  #: ended for good, and well
    FAILED = "failed"  #: ended for good, and not well
    HELD = "held"  #: never ran: what it needs can no longer be had


class Answer(StrEnum):
    """Whether a condition holds."""

    MET = "met"
    NOT_YET = "not yet"
    NEVER = "never"  #: and it can no longer be met


_MET: Mapping[Condition, frozenset[Stage]] = {
    Condition.STARTED: frozenset({Stage.STARTING, Stage.READY, Stage.STOPPING, Stage.COMPLETED}),
    Condition.READY: frozenset({Stage.READY, Stage.COMPLETED}),
    Condition.COMPLETED: frozenset({Stage.COMPLETED, Stage.FAILED}),
    Condition.COMPLETED_SUCCESSFULLY: frozenset({Stage.COMPLETED}),
}
_HOPELESS = frozenset({Stage.FAILED, Stage.HELD})


def judge_condition(condition: Condition, stage: Stage) -> Answer:
    """Say whether *condition* holds for a unit that stands at *stage*."""
    if stage in _MET[condition]:
        return Answer.MET
    return Answer.NEVER if stage in _HOPELESS else Answer.NOT_YET


def start_order(needs: Mapping[str, Iterable[Requirement]]) -> list[str]:
    """Return the names so that each comes after all it needs, in the given order otherwise.

    Raises `UnknownUnitError` for a requirement that names nobody, and `DependencyCycleError`.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, requirements in needs.items():
        for requirement in requirements:
            if requirement.name not in needs:
                raise UnknownUnitError(requirement.name, needs)
        sorter.add(name, *(requirement.name for requirement in requirements))
    position = {name: index for index, name in enumerate(needs)}
    order: list[str] = []
    try:
        sorter.prepare()
    except CycleError as error:
        # graphlib lists each node before the one that needs it; we say who needs whom.
        raise DependencyCycleError(error.args[1][::-1]) from None
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        order += ready
        sorter.done(*ready)
    return order
