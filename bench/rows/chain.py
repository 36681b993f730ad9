"""Children each of which waits until the one before it is ready."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from bench.children import BenchError
from bench.rows.base import Group, Plan, Row
from bench.stage import START_SEC, Stage
from bench.tools.base import Tool

_LINKS = 20


def _measure(stage: Stage, tool: Tool, _: Plan) -> Mapping[str, float]:
    """From the first act of the first to that of the last: what the launch takes is not in it."""
    with stage.open_act(tool, _LINKS, chain=True) as act:
        act.launch()
        reports = act.reports.wait(_LINKS, START_SEC)
        if any(a.name >= b.name or a.at_ns >= b.at_ns for a, b in pairwise(reports)):
            raise BenchError("the links of the chain did not start one after the other")
    return {"chain": (reports[-1].at_ns - reports[0].at_ns) / 1e6 / (_LINKS - 1)}


CHAIN: Final = Group(
    name="chain",
    rows=[Row(key="chain", what=f"chain of {_LINKS} that wait for a file, ms per link")],
    measure=_measure,
)
