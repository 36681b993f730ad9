"""What a tool leaves behind when it is killed, and whether it can start again over that."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

from bench.rows.base import Group, Plan, Row
from bench.stage import START_SEC, Stage
from bench.tools.base import Tool

_CHILDREN = 10
_LOOK_AFTER_SEC = 1.0
# Where all children still run, a tool that finds them may start none, and there is no end to see.
_AGAIN_SEC = 5.0


def _measure(stage: Stage, tool: Tool, plan: Plan) -> Mapping[str, float]:
    """Kill each process that supervises, in an act of its own, and return the worst."""
    left: list[float] = []
    running: list[float] = []
    victims = 1
    while len(left) < victims:
        with stage.open_act(tool, _CHILDREN) as act:
            act.start()
            time.sleep(plan.settle_sec)
            supervisors = tool.supervisors(act.pid)
            victims = len(supervisors)
            os.kill(supervisors[len(left)], signal.SIGKILL)
            time.sleep(_LOOK_AFTER_SEC)
            left.append(len(act.list_children()))
            act.launch()
            act.reports.gather(_CHILDREN, _AGAIN_SEC if left[-1] == _CHILDREN else START_SEC)
            running.append(len(act.list_children()))
    return {"left": max(left), "again": _furthest(running)}


def _furthest(running: Sequence[float]) -> float:
    return max(running, key=lambda count: abs(count - _CHILDREN))


ORPHANS: Final = Group(
    name="orphans",
    rows=[
        Row(
            key="left",
            what=f"left behind of {_CHILDREN}, 1 s after `kill -9` of the supervisor",
            digits=0,
            summarise=max,
        ),
        Row(
            key="again",
            what=f"running of {_CHILDREN}, after its start with the same configuration",
            digits=0,
            summarise=_furthest,
        ),
    ],
    measure=_measure,
)
