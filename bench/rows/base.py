"""What a row of the table is, and how much is done to fill it."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from bench.stage import Stage
from bench.tools.base import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure that every tool is asked for; less is better in all of them."""

    key: str
    what: str
    #: Digits behind the point of a figure below ten; there are none above.
    digits: int = 1
    #: What stands for all runs. A cost has a median, a promise has none: there it is the worst.
    summarise: Callable[[Sequence[float]], float] = statistics.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured, and how much is done for it in one run."""

    wanted: AbstractSet[str]  #: the keys of rows
    runs: int = 5
    crashes: int = 3
    #: After the last child has started, some tools have still a little to do.
    settle_sec: float = 2.0
    idle_sec: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that are measured together."""

    name: str
    rows: Sequence[Row]
    #: Returns the figures of one run by the keys of their rows, the wanted ones at least.
    measure: Callable[[Stage, Tool, Plan], Mapping[str, float]]

    def choose(self, plan: Plan) -> list[Row]:
        """Return the rows of it that *plan* wants."""
        return [row for row in self.rows if row.key in plan.wanted]
