"""What was measured, as Markdown, and its place in a file."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.limits.pair import Pair
from bench.measure import Results
from bench.rows import GROUPS
from bench.rows.base import Group, Row
from bench.tools import FLOOR, OURS
from bench.tools.base import NONE, Tool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table belongs in a file: between two markers."""

    begin: str
    end: str

    def find(self, text: str) -> tuple[str, str]:
        """Return what stands before and after it; raise `ValueError` where it is not."""
        before, begin, rest = text.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end:
            raise ValueError(f"there is no {self.begin} with a {self.end} behind it")
        return before, after

    def write(self, path: Path, markdown: str) -> None:
        """Put *markdown* there in the file *path*."""
        before, after = self.find(path.read_text())
        path.write_text(f"{before}{self.begin}\n{markdown}\n{self.end}{after}")

    def file(self, name: str) -> Path:
        """Return the file of an argument that has it; told now, not after all the measuring."""
        path = Path(name)
        try:
            self.find(path.read_text())
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return path


#: Of what is measured beside other supervisors, and beside other queues.
TOOLS: Final = Place("<!-- bench:begin -->", "<!-- bench:end -->")
QUEUES: Final = Place("<!-- bench-queues:begin -->", "<!-- bench-queues:end -->")


def render(results: Results, versions: Mapping[str, str | None], children: str) -> str:
    """Return the tables of *results*, with what a reader must know to judge them."""
    parts = [_caption(results.plan.runs, versions, children)]
    if any(group.choose(results.plan) for group in GROUPS):
        parts += [_table(results, versions), _notes(results)]
    if results.limits:
        parts += [_limits(results.limits)]
    return "\n\n".join(filter(None, parts))


def machine() -> str:
    """Return when it was measured, and on what."""
    return (
        f"measured on {time.strftime('%Y-%m-%d')} with {os.cpu_count()} cores "
        f"({_processor()}), {platform.system()} {platform.release()} and Python "
        f"{platform.python_version()}"
    )


def _caption(runs: int, versions: Mapping[str, str | None], children: str) -> str:
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = ", ".join(name for name, version in versions.items() if version is None)
    return (
        f"Medians of {runs} runs in which the tools took turns (of what is left behind, the "
        f"worst), {machine()}. The tools are {named}"
        f"{f' (not installed: {missing})' if missing else ''}, each with its default settings; "
        f"the children are {children}. Less is better everywhere."
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _table(results: Results, versions: Mapping[str, str | None]) -> str:
    missing = [name for name, version in versions.items() if version is None]
    names = [*(tool.name for tool in results.tools), *missing]
    head = ["", *names]
    if OURS in names:
        head += ["against the floor", "against the best peer"]
    lines = [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    for group in GROUPS:
        for row in group.choose(results.plan):
            cells = [_cell(results, group, row, tool) for tool in results.tools]
            ratios = _ratios(results, row) if OURS in names else []
            lines.append(_line([row.what, *cells, *("not installed" for _ in missing), *ratios]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(results: Results, group: Group, row: Row, tool: Tool) -> str:
    if group.name in tool.cannot:
        return tool.cannot[group.name].shown
    figure = results.summarise(row, tool.name)
    if figure is None:
        return "failed"
    cell = f"{figure:.{row.digits if 0 < figure < 10 else 0}f}"
    return f"**{cell}**" if tool.name == OURS else cell


def _ratios(results: Results, row: Row) -> list[str]:
    """Return how many times as much ours takes as the floor does, and as the best peer does."""
    if row.summarise is not statistics.median:
        return ["", ""]
    peers = {
        tool.name: figure
        for tool in results.tools
        if tool.name not in (OURS, FLOOR)
        and (figure := results.summarise(row, tool.name)) is not None
    }
    best = min(peers, key=peers.__getitem__, default=None)
    return [_ratio(results, row, FLOOR), f"{_ratio(results, row, best)} ({best})" if best else NONE]


def _ratio(results: Results, row: Row, other: str) -> str:
    """Return the median of the ratios run by run, which noise hits less than the figures."""
    ratios = [ours / theirs for ours, theirs in results.pairs(row, OURS, other) if theirs]
    return f"{statistics.median(ratios):.2f}" if ratios else NONE


def _notes(results: Results) -> str:
    lines = []
    for tool in results.tools:
        said = [tool.remark] if tool.remark else []
        said += [
            f"“{tool.cannot[group.name].shown}”: {tool.cannot[group.name].reason}"
            for group in GROUPS
            if group.name in tool.cannot and group.choose(results.plan)
        ]
        if said:
            lines.append(f"- {tool.name}: {'; '.join(said)}.")
    return "\n".join(lines)


def _limits(pairs: Sequence[Pair]) -> str:
    head = ["against the limit", "runtime, ms", "limit, ms", "ratio"]
    lines = [_line(head), "|---|---:|---:|---:|"]
    for pair in pairs:
        ratio = statistics.median(a / b for a, b in zip(pair.ours, pair.limit, strict=True))
        ours, limit = (statistics.median(side) for side in (pair.ours, pair.limit))
        lines.append(_line([pair.what, f"{ours:.2f}", f"{limit:.2f}", f"{ratio:.2f}"]))
    return "\n".join(lines)
