"""From the death of a child to the first act of its successor."""

import os
import random
import signal
import statistics
import time
from collections.abc import Mapping
from typing import Final

from bench.children import BenchError
from bench.rows.base import Group, Plan, Row
from bench.stage import Act, Stage
from bench.tools.base import Tool

_CHILDREN = 10
# s6 and runit hold back what dies within a second, and to supervisor it has not started yet.
_SETTLE_SEC = 1.3
_RESTART_SEC = 15.0


def _measure(stage: Stage, tool: Tool, plan: Plan) -> Mapping[str, float]:
    """Kill children with SIGKILL, another one each time, so that all are a first crash."""
    with stage.open_act(tool, _CHILDREN) as act:
        act.start()
        time.sleep(_SETTLE_SEC)
        taken = [_crash(act, index) for index in range(plan.crashes)]
    return {"crash": statistics.median(taken)}


def _crash(act: Act, index: int) -> float:
    victim = act.reports.all[index]
    # Whoever looks about only every so often must not be met at the same point of it each time.
    time.sleep(random.uniform(0.1, 1.1))
    began_ns = time.monotonic_ns()
    os.kill(victim.pid, signal.SIGKILL)
    (successor,) = act.reports.wait(1, _RESTART_SEC)
    if successor.name != victim.name:
        raise BenchError(f"{victim.name} was killed, and {successor.name} was restarted")
    return (successor.at_ns - began_ns) / 1e6


CRASH: Final = Group(
    name="crash", rows=[Row(key="crash", what="crash to restart, ms")], measure=_measure
)
