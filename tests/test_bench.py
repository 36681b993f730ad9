"""The bench measures and cleans up; which times it finds is nobody's promise here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import bench.queues.__main__ as queues
from bench import table
from bench.children import BenchError, Reports, Workshop
from bench.limits import answers
from bench.limits.pair import Pair
from bench.measure import Results
from bench.rows import GROUPS
from bench.rows.base import Plan, Row
from bench.tools import FLOOR, OURS, make_tools
from bench.tools.base import NONE

ROOT = Path(__file__).parents[1]
#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 120
ROWS = {row.key: row for group in GROUPS for row in group.rows}


@contextmanager
def started(folder: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The bench on our own two tools, with all its files below *folder*."""
    environment = {k: v for k, v in os.environ.items() if k != "COVERAGE_PROCESS_CONFIG"}
    command = [sys.executable, "-m", "bench", "--quick", "--tools", OURS, FLOOR, *arguments]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "TMPDIR": str(folder)},
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def what_is_left(folder: Path) -> list[str]:
    """Return the files of the bench, and the commands that run out of its folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            commands.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended
            continue
    running = [command for command in commands if str(folder / "bench-") in command]
    return [*map(str, folder.glob("bench-*")), *running]


def cells(markdown: str, what: str) -> list[str]:
    (line,) = (line for line in markdown.splitlines() if line.startswith(f"| {what} |"))
    return [cell.strip(" *") for cell in line.split("|")[2:-1]]


@pytest.mark.slow
def test_it_measures_the_runtime_and_the_floor_and_writes_the_table(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{table.TOOLS.begin}\nold\n{table.TOOLS.end}\nbelow\n")
    wanted = ["crash", "chain", "start-10", "stop-10", "left", "again"]
    with started(tmp_path, "--write", str(readme), "--rows", *wanted) as program:
        printed, said = program.communicate(timeout=LIMIT_SEC)
    assert program.returncode == 0, said
    assert readme.read_text() == f"above\n{table.TOOLS.begin}\n{printed}{table.TOOLS.end}\nbelow\n"
    for key in wanted:
        ours, floor, *ratios = cells(printed, ROWS[key].what)
        assert re.fullmatch(r"\d+(\.\d+)?", ours), (key, ours)
        assert re.fullmatch(r"\d+(\.\d+)?", floor), (key, floor)
        assert len(ratios) == 2
    assert cells(printed, ROWS["again"].what)[:2] == ["10", "20"]  # we leave none, the floor all
    assert what_is_left(tmp_path) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(tmp_path: Path, signum: signal.Signals) -> None:
    with started(tmp_path, "--runs", "1000", "--rows", "start-10", "chain") as program:
        assert program.stderr is not None
        said = program.stderr.readline()  # the first figure: from here on something is on stage
        assert "chain" in said, said
        program.send_signal(signum)
        _, said = program.communicate(timeout=LIMIT_SEC)
    assert program.returncode == 128 + signum, said
    assert what_is_left(tmp_path) == []


def test_a_file_without_its_markers_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{table.TOOLS.end} {table.TOOLS.begin}")
    with started(tmp_path, "--write", str(readme)) as program:
        _, said = program.communicate(timeout=LIMIT_SEC)
    assert program.returncode == 2
    assert table.TOOLS.begin in said.splitlines()[-1]


@pytest.mark.parametrize("compiler", [None, shutil.which("false")])
def test_without_a_compiler_the_children_are_scripts_that_do_the_same(
    tmp_path: Path, compiler: str | None
) -> None:
    workshop = Workshop(tmp_path, compiler=compiler)
    assert not workshop.compiled
    program, ready = workshop.program(7), tmp_path / "ready"
    with Reports(tmp_path / "reports") as reports:
        with subprocess.Popen([program, reports.path, ready]) as child:
            (report,) = reports.wait(1, LIMIT_SEC)
            while child.poll() is None and not ready.exists():  # the script makes it after that
                time.sleep(0.001)
            child.terminate()
        with pytest.raises(BenchError, match="0 of 1 children started within 0 s"):
            reports.wait(1, 0)
    assert (report.name, report.pid) == (program.name, child.pid)
    assert ready.exists()


@pytest.mark.slow
async def test_the_runtime_and_the_limit_are_measured_in_the_same_program() -> None:
    with trio.fail_after(LIMIT_SEC):
        done = await trio.run_process(
            [sys.executable, "-m", "bench.limits", "1"], cwd=ROOT, capture_stdout=True
        )
    assert done.stdout.count(b'"what"') == 17


def test_the_table_says_why_there_is_no_figure_and_never_makes_one_up() -> None:
    tools = {tool.name: tool for tool in make_tools(Path())}
    shown = [tools[name] for name in (OURS, FLOOR, "circus", "honcho")]
    results = Results(shown, Plan(wanted={"crash", "idle"}, runs=3))
    for row, tool, figures in [
        (ROWS["crash"], OURS, [3.0, 2.0, 40.0]),
        (ROWS["crash"], FLOOR, [2.0, 1.0, 20.0]),
        (ROWS["crash"], "circus", [None, 1926.0, 800.0]),
        (ROWS["idle"], OURS, [0.0001, 0.0002, 0.0003]),
        (ROWS["idle"], FLOOR, [0.0, 0.0, 0.0]),
        (ROWS["idle"], "circus", [None, None, None]),
    ]:
        for figure in figures:
            results.add(row, tools[tool], figure)
    for figure in (0.002, 0.0004, 0.001):
        results.add(ROWS["idle"], tools["honcho"], figure)
    results.limits.append(Pair("a start", [30.0], [20.0]))
    versions = {tool.name: "1" for tool in shown} | {"runit": None}

    markdown = table.render(results, versions, "programs")

    assert cells(markdown, ROWS["crash"].what) == [
        *("3.0", "2.0", "1363", "never", "not installed"),
        *("2.00", "0.03 (circus)"),
    ]
    assert cells(markdown, ROWS["idle"].what) == [
        *("0.00020", "0", "failed", "0.00100", "not installed"),
        *(NONE, "0.30 (honcho)"),
    ]
    assert cells(markdown, "a start") == ["30.00", "20.00", "1.50"]
    assert "never restarts" in markdown
    assert "(not installed: runit)" in markdown


def test_of_a_promise_the_worst_run_is_shown() -> None:
    rows: list[tuple[Row, list[float], float]] = [
        (ROWS["left"], [0.0, 0.0, 1.0], 1.0),
        (ROWS["again"], [10.0, 10.0, 9.0], 9.0),
    ]
    for row, figures, worst in rows:
        assert row.summarise(figures) == worst


@pytest.mark.slow
def test_answers_are_measured_side_by_side() -> None:
    pairs = answers.measure(1, turn_sec=0.1)
    assert len(pairs) == 7
    for pair in pairs:
        assert len(pair.ours) == len(pair.limit) == 1, pair
        assert min(*pair.ours, *pair.limit) > 0, pair


@pytest.mark.slow
async def test_our_queue_and_the_bare_file_are_measured() -> None:
    with trio.fail_after(110):
        done = await trio.run_process(
            [sys.executable, "-m", "bench.queues", "--ours", "--runs", "1", "--number", "20"],
            cwd=ROOT,
            capture_stdout=True,
        )
    markdown = done.stdout.decode()
    for kept in ("memory, ten callers", "SQLite, one caller", "SQLite, ten callers"):
        *figures, _ = cells(markdown, f"ours, {kept}")
        assert all(re.fullmatch(r"[\d,]+(\.\d+)?", figure) for figure in figures), figures
    assert cells(markdown, "bare SQLite, 10 waiting")[0] != NONE


def test_a_queue_without_a_figure_has_a_dash() -> None:
    name = queues.CONTENDERS[0].name
    markdown = queues.render({name: [None, {"submit": 1234.5, "p50_ms": 0.25}]})
    assert cells(markdown, name) == ["1,234", NONE, "0.25", "none"]
