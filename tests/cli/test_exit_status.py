"""The exit status says how it went, as the help of the command promises."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Site

ENDS_TREE = {"shutdown_strategy": "shutdown_everything"}
NEVER_READY = {"ready_strategy": "file", "ready_params": {"path": "never"}}


@pytest.mark.parametrize(
    ("processes", "status"),
    [
        pytest.param([("exit 0", {}), ("exit 0", {})], 0, id="all have completed well"),
        pytest.param([("exit 0", {}), ("exit 3", {})], 3, id="one has failed"),
        pytest.param([("kill -9 $$", {})], 137, id="killed"),
        pytest.param([("kill -s USR1 $$", {})], 138, id="ended by a signal"),
        pytest.param([("exit 0", ENDS_TREE), ("sleep 1000", {})], 0, id="ends the tree well"),
        pytest.param([("exit 5", ENDS_TREE), ("sleep 1000", {})], 5, id="ends the tree"),
        pytest.param([("kill -9 $$", ENDS_TREE), ("sleep 1000", {})], 137, id="kill ends the tree"),
        pytest.param(
            [("exit 6", {"restart": {"delay_sec": 0, "max_restarts": 2}}), ("exit 0", {})],
            6,
            id="given up after restarts",
        ),
        pytest.param(
            [("sleep 1000", {**NEVER_READY, "ready_timeout_sec": 0.1})], 1, id="never ready"
        ),
        pytest.param([("exit 0", NEVER_READY)], 1, id="gone before it was ready"),
    ],
)
def test_the_status_of_what_ends_by_itself(
    site: Site, processes: list[tuple[str, dict[str, Any]]], status: int
) -> None:
    for number, (code, fields) in enumerate(processes):
        site.add(f"p{number}", code, **fields)
    program = site.start()
    assert program.wait() == status
    assert site.find_left() == []


def test_what_depends_on_a_failure_is_not_started_and_the_status_is_the_failures(
    site: Site,
) -> None:
    site.add("setup", "exit 3")
    needed = {"name": "setup", "condition": "completed_successfully"}
    site.add("main", "echo started >FIFO", dependencies=[needed])
    program = site.start()
    assert program.wait() == 3
    assert "main not started: setup exited with 3 after " in program.err.text
    assert site.heard_all()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_is_0_even_though_something_failed_before(site: Site, signum: int) -> None:
    site.add("failed", "exit 3")
    site.add("runs", "SAY; exec sleep 1000")
    program = site.start()
    site.hear_everyone()
    program.read_until("failed exited with 3")
    program.send(signum)
    assert program.wait() == 0
    assert site.find_left() == []


def test_to_keep_means_to_stay_when_everything_has_completed(site: Site) -> None:
    site.add("once", "exit 0")
    program = site.start("--keep")
    program.read_until("once completed")
    program.read_until("READY AFTER")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    # Had it been about to end by itself, that would be the reason.
    assert [line for line in program.err.lines if "stop:" in line] == [
        "runtime | stop: SIGTERM received"
    ]


def test_exit_7_is_always_7(site: Site) -> None:
    # With orphans for the guard to reap, and an end at the same moment.
    site.add("seven", "(true &) & (exit 3) & exit 7", **ENDS_TREE)
    site.add("other", "(true &) & exec sleep 1000")
    statuses = []
    for _ in range(5):
        folders = (
            ["--run-directory", str(site.folder / "a")],
            ["--run-directory", str(site.folder / "b")],
        )
        # Not measured: the other tests run the same code.
        unmeasured = {"COVERAGE_PROCESS_CONFIG": None}
        programs = [site.start("run", *options, env=unmeasured) for options in folders]
        statuses += [program.wait() for program in programs]
    assert statuses == [7] * 10


#: Runs the program with a function for its exit, and a thread that a plugin might have left behind.
LEAVE_A_THREAD = """
import atexit, runpy, sys, threading, time
def leave_one(event, arguments):
    if event == "subprocess.Popen" and arguments[0].endswith("/sh"):
        threading.Thread(target=time.sleep, args=[1000]).start()
sys.addaudithook(leave_one)
atexit.register(print, "at exit, not flushed")
runpy.run_module("runtime", run_name="__main__", alter_sys=True)
"""


def test_the_end_calls_exit_functions_and_waits_for_no_thread_of_a_plugin(site: Site) -> None:
    site.add("a", "exit 0")
    program = site.start(python=("-c", LEAVE_A_THREAD))
    assert program.wait() == 0
    assert program.out.lines[-1] == "at exit, not flushed"


# When it cannot run.


IMPOSSIBLE = [
    "processes.bad.dependencies.0: there is no process 'god'; did you mean 'good'?",
    "processes.worse.path: there is no 'no-such-program' in {folder} nor on PATH",
]
MISSPELT = [
    "processes.odd.timeuot: unknown key; did you mean 'timeout'?",
    "processes.odd.args.0: must be text; put it in quotes",
]


@pytest.mark.parametrize(
    ("impossible", "misspelt"),
    [
        pytest.param(True, False, id="what cannot be"),
        pytest.param(False, True, id="what cannot be read"),
        pytest.param(True, True, id="both"),
    ],
)
def test_a_bad_manifest_is_2_with_a_line_for_each_problem_and_nothing_started(
    site: Site, *, impossible: bool, misspelt: bool
) -> None:
    site.add("good", "echo started >FIFO")
    if impossible:
        site.add("worse", "exit 0", path="no-such-program")
        site.add("bad", "exit 0", dependencies=["god"])
    if misspelt:
        site.add("odd", "", args=[1], timeuot=3)
    program = site.start()
    assert program.wait() == 2
    assert program.out.text == ""
    assert site.heard_all()
    expected = IMPOSSIBLE * impossible + MISSPELT * misspelt
    assert sorted(program.err.lines) == sorted(
        f"{site.manifest}:1: {problem.format(folder=site.folder)}" for problem in expected
    )


def test_a_manifest_that_is_no_manifest_is_2(site: Site) -> None:
    site.manifest.write_text("processes:\n  - name: [\n")
    program = site.start()
    assert program.wait() == 2
    assert program.err.text.startswith(f"{site.manifest}:")
    assert len(program.err.lines) == 1


def test_a_file_that_is_not_there_is_2(site: Site) -> None:
    program = site.start()
    assert program.wait() == 2
    assert program.err.lines == [f"{site.manifest}:1: No such file or directory"]


def test_a_run_directory_that_cannot_be_had_is_1(site: Site) -> None:
    site.add("good", "echo started >FIFO")
    (site.folder / "file").touch()
    program = site.start("--run-directory", "file/below")
    assert program.wait() == 1
    assert "cannot be used: Not a directory" in program.err.text
    assert len(program.err.lines) == 1
    assert site.heard_all()
