"""States are data: a table says what may follow what, and one function checks every move.

Services, processes and invocations each have a table of this class; no other code of the
project decides whether a state may change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, TypeVar

from ._exceptions import IllegalTransitionError

S = TypeVar("S", bound=StrEnum)


class TransitionTable(Generic[S]):
    """A frozen table of the states that may follow each state.

    *successors* must have a row for every member of *states*; a row for ``None`` says what may
    come first. Raises `ValueError` when a row is missing or names something that is no state.
    """

    states: type[S]

    __slots__ = ("_successors", "states")

    def __init__(self, states: type[S], successors: Mapping[S | None, Iterable[S]]) -> None:
        rows = {state: frozenset(following) for state, following in successors.items()}
        missing = set(states) - rows.keys()
        unknown = (rows.keys() - {None}).union(*rows.values()) - set(states)
        if missing or unknown:
            parts = [f"no row for {', '.join(sorted(missing))}"] if missing else []
            parts += [f"no such state: {', '.join(sorted(map(str, unknown)))}"] if unknown else []
            raise ValueError(f"{states.__name__}: {'; '.join(parts)}")
        self.states = states
        self._successors: Mapping[S | None, frozenset[S]] = MappingProxyType(rows)

    def successors(self, state: S | None) -> frozenset[S]:
        """Return what may follow *state*; nothing may follow a state that is final."""
        return self._successors.get(state, frozenset())

    def final(self) -> frozenset[S]:
        """Return the states that nothing may follow."""
        return frozenset(state for state in self.states if not self._successors[state])

    def advance(self, subject: str, old: S | None, new: S) -> S:
        """Return *new* when it may follow *old*; raise `IllegalTransitionError` when it may not."""
        allowed = self.successors(old)
        if new not in allowed:
            raise IllegalTransitionError(subject, old, new, allowed)
        return new


@dataclass(frozen=True, slots=True)
class Stages(Generic[S]):
    """Which states of a kind stand for the stages that the supervisor drives every unit through.

    *stopped* is how a unit ends that was asked to, or whose work is done; *failed* how it ends
    otherwise.
    """

    starting: S
    running: S
    stopping: S
    stopped: S
    failed: S


class Lifecycle(Generic[S]):
    """The one cell that holds a unit's state; it changes by `move` only, through its table."""

    name: str
    stages: Stages[S]
    table: TransitionTable[S]

    __slots__ = ("_state", "name", "stages", "table")

    def __init__(self, name: str, table: TransitionTable[S], stages: Stages[S], initial: S) -> None:
        self.name, self.table, self.stages = name, table, stages
        self._state = initial

    @property
    def state(self) -> S:
        """The state now."""
        return self._state

    def move(self, new: S) -> None:
        """Move to *new*, or raise `IllegalTransitionError` and stay."""
        self._state = self.table.advance(self.name, self._state, new)
