"""Rounds in which the tools take turns, so that noise hits all of them alike."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.children import BenchError
from bench.limits.pair import Pair
from bench.rows import GROUPS
from bench.rows.base import Group, Plan, Row
from bench.stage import Stage
from bench.tools.base import Tool


@dataclass(slots=True)
class Results:
    """All figures: those of a run stand at the same place of every list, None if it failed."""

    tools: Sequence[Tool]
    plan: Plan
    figures: dict[tuple[str, str], list[float | None]] = field(default_factory=dict)
    limits: list[Pair] = field(default_factory=list)
    failed: bool = False

    def add(self, row: Row, tool: Tool, figure: float | None) -> None:
        """Keep one figure of *row* and *tool*, which comes behind those of earlier runs."""
        self.figures.setdefault((row.key, tool.name), []).append(figure)

    def summarise(self, row: Row, tool: str) -> float | None:
        """Return what stands for all runs, or None where there is not a single figure."""
        known = [f for f in self.figures.get((row.key, tool), []) if f is not None]
        return row.summarise(known) if known else None

    def pairs(self, row: Row, one: str, other: str) -> list[tuple[float, float]]:
        """Return the figures of two tools, run by run, where both have one."""
        columns = (self.figures.get((row.key, tool), []) for tool in (one, other))
        return [(a, b) for a, b in zip(*columns, strict=False) if a is not None and b is not None]


def run_rounds(stage: Stage, tools: Sequence[Tool], plan: Plan) -> Results:
    """Measure all *tools*, run by run, after a short first one that does not count."""
    results = Results(tools, plan)
    groups = [group for group in GROUPS if group.choose(plan)]
    for tool in tools if groups else ():
        _warm_up(stage, tool)
    for run in range(plan.runs if groups else 0):
        for group in groups:
            for turn in range(len(tools)):
                tool = tools[(run + turn) % len(tools)]
                if group.name not in tool.cannot:
                    _measure(results, stage, group, tool)
        _say(f"run {run + 1} of {plan.runs} is done")
    return results


def _warm_up(stage: Stage, tool: Tool) -> None:
    """Have everything read from the disk, and compiled, before anything counts."""
    try:
        with stage.open_act(tool, 10) as act:
            act.start()
    except (BenchError, OSError) as error:
        _say(f"{tool.name}, warming up: {error}")


def _measure(results: Results, stage: Stage, group: Group, tool: Tool) -> None:
    rows = group.choose(results.plan)
    try:
        found = group.measure(stage, tool, results.plan)
    except (BenchError, OSError) as error:  # OSError: a process that should be there is gone
        results.failed = True
        _say(f"{tool.name}, {group.name}: {error}")
        found = {}
    else:
        _say(f"{tool.name}: " + ", ".join(f"{row.key} {found[row.key]:.5g}" for row in rows))
    for row in rows:
        results.add(row, tool, found.get(row.key))


def measure_limits(runs: int) -> list[Pair]:
    """Measure what happens inside of a program, in a program of its own."""
    command = [sys.executable, "-m", "bench.limits", str(runs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return [Pair(**pair) for pair in json.loads(done.stdout)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
