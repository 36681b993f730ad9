"""However a tree ends, nothing is left of it, whatever its processes do to get away."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Left, OpenSite, Program, Site

#: What a process may be like; all that belongs to one says so once it is as it is.
KINDS = {
    "plain": "SAY; exec sleep 1000",
    "ignores-SIGTERM": "trap '' TERM; SAY; exec sleep 1000",
    "calls-setsid": "setsid sh -c 'SAY; exec sleep 1000' & SAY; exec sleep 1000",
    "forks-twice": "(sh -c 'SAY; exec sleep 1000' &) & SAY; exec sleep 1000",
    "closes-its-output": "exec >&- 2>&-; SAY; exec sleep 1000",
    "floods-stdout": "SAY; exec yes all work and no play",
    # The leader has ended by itself, and its unit waits for the other one as long as it may.
    "leaves-a-deaf-one": "trap '' TERM; sh -c 'SAY; exec sleep 1000' &",
    "hides": "(env -i setsid sh -c 'SAY; exec sleep 1000' &) & SAY; exec sleep 1000",
}

#: Nobody but the guard knows of what has no mark, no family and no output of ours any more.
OUT_OF_REACH = ("guard-killed", "hides")


class End(NamedTuple):
    """A way for a tree to end: how it comes about, its exit status, and what else it takes."""

    cause: Callable[[Site, Program], None]
    status: int
    prepare: Callable[[Site], None] = lambda site: None
    timeout: float = 0.2
    stop_within_sec: float = 2


class Outcome(NamedTuple):
    end: str
    status: int
    left: list[Left]
    files: set[str]
    said: str
    nothing_was_started_late: bool


def send(signum: int) -> Callable[[Site, Program], None]:
    return lambda site, program: program.send(signum)


def kill_the_runtime(site: Site, program: Program) -> None:
    os.kill(site.runtime_pid, signal.SIGKILL)


def let_one_crash(site: Site, program: Program) -> None:
    site.let_go()


def wait_for_backoff_and_stop(site: Site, program: Program) -> None:
    program.read_until("dies exited with 4 .*; restart in 600 s")
    program.send(signal.SIGTERM)


def stop_twice(site: Site, program: Program) -> None:
    program.send(signal.SIGTERM)
    program.read_until("stop: SIGTERM received")
    program.send(signal.SIGTERM)


def add_one_that_crashes(site: Site) -> None:
    site.add("crashes", "SAY; read x <GO; exit 5", shutdown_strategy="shutdown_everything")


def add_one_that_comes_back(site: Site) -> None:
    site.add("dies", "exit 4", restart={"when": "always", "delay_sec": 600, "max_delay_sec": 600})


def add_one_that_is_never_ready(site: Site) -> None:
    never = {"ready_strategy": "file", "ready_params": {"path": "never"}, "ready_timeout_sec": 600}
    site.add("unready", "SAY; exec sleep 1000", **never)
    site.add("waits", "echo waits >FIFO", dependencies=["unready"])


PATIENT = {"timeout": 600, "stop_within_sec": 600}
ENDS = {
    "stop": End(send(signal.SIGTERM), 0),
    "crash": End(let_one_crash, 5, add_one_that_crashes),
    "SIGINT-at-start-up": End(send(signal.SIGINT), 0, add_one_that_is_never_ready),
    "SIGTERM-at-start-up": End(send(signal.SIGTERM), 0, add_one_that_is_never_ready),
    "SIGTERM-in-backoff": End(wait_for_backoff_and_stop, 0, add_one_that_comes_back),
    "SIGTERM-twice": End(stop_twice, 128 + signal.SIGTERM, **PATIENT),
    "runtime-killed": End(kill_the_runtime, 128 + signal.SIGKILL, **PATIENT),
    "guard-killed": End(send(signal.SIGKILL), -signal.SIGKILL, **PATIENT),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(end, marks=pytest.mark.xdist_group(end)) for end in ENDS],
)
def outcome(request: pytest.FixtureRequest, open_new_site: OpenSite) -> Iterator[Outcome]:
    """What there is after a tree with a process of every kind has come to an end."""
    end = ENDS[request.param]
    with open_new_site() as site:
        site.settings["stop_within_sec"] = end.stop_within_sec
        for kind, code in KINDS.items():
            # Null: as long as the whole stop has; so it is still there when the end comes.
            timeout = None if kind == "leaves-a-deaf-one" else end.timeout
            site.add(kind, code, timeout=timeout)
        end.prepare(site)
        program = site.start(stdout=subprocess.DEVNULL)
        site.hear_everyone()
        end.cause(site, program)
        status = program.wait()
        left = site.find_left()
        files = {path.name for path in site.folder.rglob("*") if not path.is_dir()}
        yield Outcome(request.param, status, left, files, program.err.text, site.heard_all())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_process(outcome: Outcome, kind: str) -> None:
    # Without its guard a tree cannot find the one that hides from everything but the guard.
    out_of_reach = int((outcome.end, kind) == OUT_OF_REACH)
    assert len([left for left in outcome.left if left.unit == kind]) <= out_of_reach


def test_nothing_is_left_of_anything_else(outcome: Outcome) -> None:
    assert [left for left in outcome.left if left.unit not in KINDS] == []
    # The roster of a runtime that was killed is for the next one.
    roster = {"processes"} if outcome.end == "runtime-killed" else set()
    assert outcome.files == {"manifest.yaml", "lock", "fifo", "go", *roster}
    assert outcome.nothing_was_started_late


def test_it_goes_as_planned(outcome: Outcome) -> None:
    assert "Traceback" not in outcome.said
    assert "outlived" not in outcome.said


def test_the_exit_status_is_as_documented(outcome: Outcome) -> None:
    assert outcome.status == ENDS[outcome.end].status
