"""Ten and a hundred children: their start and their stop, and what holding them costs."""

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.rows.base import Group, Plan, Row
from bench.stage import Act, Stage
from bench.tools.base import Tool

_FEW, _MANY = 10, 100


def _measure(stage: Stage, tool: Tool, plan: Plan) -> Mapping[str, float]:
    """Start all children at once, let them be, look at what the tool takes meanwhile, stop."""
    figures: dict[str, float] = {}
    if plan.wanted & {"start-10", "stop-10"}:
        with stage.open_act(tool, _FEW) as act:
            figures["start-10"] = act.start()
            time.sleep(plan.settle_sec)
            figures["stop-10"] = act.stop()
    if plan.wanted & {"start-100", "stop-100", "idle", "memory"}:
        with stage.open_act(tool, _MANY) as act:
            figures["start-100"] = act.start()
            time.sleep(plan.settle_sec)
            figures["memory"] = sum(map(_read_pss_mib, act.list_own()))
            if "idle" in plan.wanted:
                figures["idle"] = _idle(act, plan.idle_sec)
            figures["stop-100"] = act.stop()
    return figures


def _idle(act: Act, window_sec: float) -> float:
    own = act.list_own()
    before, began = _read_cpu_sec(own), time.monotonic()
    time.sleep(window_sec)
    after, ended = _read_cpu_sec(own), time.monotonic()
    return (after - before) / (ended - began)


def _read_cpu_sec(pids: Iterable[int]) -> float:
    """Return what *pids* have taken, by the kernel's exact clocks: its ticks are 10 ms."""
    # Linux makes the number of a process's CPU clock like this (clock_getcpuclockid).
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def _read_pss_mib(pid: int) -> float:
    """Return the memory of *pid*, what it shares with others counted in parts."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


FLEET: Final = Group(
    name="fleet",
    rows=[
        Row(key="start-10", what=f"{_FEW} started, ms from launch"),
        Row(key="start-100", what=f"{_MANY} started, ms from launch"),
        Row(key="stop-10", what=f"stop of {_FEW}, ms until all is gone"),
        Row(key="stop-100", what=f"stop of {_MANY}, ms until all is gone"),
        Row(key="idle", what=f"idle with {_MANY}, CPU seconds per second", digits=5),
        Row(key="memory", what=f"memory (PSS) with {_MANY}, MiB, without the children"),
    ],
    measure=_measure,
)
