"""``python -m bench``: measure the runtime beside its peers, and print the tables as Markdown."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Final

from bench import table
from bench.children import Workshop
from bench.measure import measure_limits, run_rounds
from bench.rows import GROUPS
from bench.rows.base import Plan
from bench.stage import Stage
from bench.tools import OURS, make_tools
from runtime import open_guard

_LIMITS: Final = "limits"


def main() -> int:
    """Do what the arguments say; return the exit status: 1 if a tool did not do its part."""
    options = _parse()
    guard = open_guard()  # as the command line does; from here on this is its child
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _leave)
    tools = [t for t in make_tools(options.peers) if t.name in (options.tools or [t.name])]
    versions = {tool.name: tool.version() for tool in tools}
    present = [tool for tool in tools if versions[tool.name] is not None]
    plan = _make_plan(options)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        workshop = Workshop(Path(name))
        results = run_rounds(Stage(guard, workshop), present, plan)
    if _LIMITS in plan.wanted and OURS in versions:
        results.limits = measure_limits(plan.runs)
    children = "tiny programs in C" if workshop.compiled else "shell scripts that become `sleep`"
    markdown = table.render(results, versions, children)
    print(markdown)
    if options.write is not None:
        table.TOOLS.write(options.write, markdown)
    return int(results.failed)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    rows = [key for group in GROUPS for key in (group.name, *(row.key for row in group.rows))]
    rows = [*dict.fromkeys(rows), _LIMITS]
    tools = [tool.name for tool in make_tools(Path())]
    parser.add_argument("--runs", type=int, help="runs in which each tool has its turn (5)")
    parser.add_argument("--quick", action="store_true", help="do less in a run, and one run only")
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=rows,
        metavar="NAME",
        help=f"only these rows, or groups of rows: {', '.join(rows)}",
    )
    parser.add_argument(
        "--tools",
        nargs="+",
        choices=tools,
        metavar="NAME",
        help=f"only these tools: {', '.join(tools)}",
    )
    parser.add_argument(
        "--write",
        type=table.TOOLS.file,
        metavar="FILE",
        help=f"put the tables between {table.TOOLS.begin} and {table.TOOLS.end} there as well",
    )
    parser.add_argument(
        "--peers",
        type=Path,
        metavar="FOLDER",
        default=Path(sys.prefix, "bench-peers"),
        help="where the peers from PyPI get an environment each (in the one that runs this)",
    )
    return parser.parse_args()


def _make_plan(options: argparse.Namespace) -> Plan:
    every = {row.key: group.name for group in GROUPS for row in group.rows} | {_LIMITS: _LIMITS}
    named = options.rows or every
    wanted = {key for key, group in every.items() if key in named or group in named}
    if options.quick:
        return Plan(wanted=wanted, runs=options.runs or 1, crashes=1, settle_sec=0.3, idle_sec=1.0)
    return Plan(wanted=wanted, runs=options.runs or 5)


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's
    sys.exit(128 + signum)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # all that was on stage is cleared by now
        sys.exit(128 + signal.SIGINT)
