"""A command decides whether a process is ready; nothing of it is left, and nothing else is hurt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.process.family import Family
from runtime.process.host import Host
from runtime.process.readiness import Candidate, bind
from runtime.process.readiness import exec as module
from runtime.supervision.budget import StopBudget
from runtime.supervision.graph import Stage
from runtime.supervision.unit import UnitHandle

ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}


def by_exec(script: str) -> dict[str, Any]:
    return {"ready_strategy": "exec", "ready_params": {"command": ["sh", "-c", script]}}


async def ask(*command: str) -> str:
    """Return what keeps it from being ready, nothing when it is."""
    candidate = Candidate()
    if await bind("exec", {"command": command}, Path("/")).probe(Host(), candidate):
        return ""
    return candidate.obstacle


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", ""),
        ("exit 3", "its command exited with 3"),
        ("echo ' refused ' >&2; echo out; echo; exit 3", "its command exited with 3: refused"),
        ("echo refused; echo; exit 3", "its command exited with 3: refused"),
        ("kill -9 $$", "its command killed by SIGKILL"),
        ("printf '\\377\\000x'; exit 1", "its command exited with 1: \N{REPLACEMENT CHARACTER}\0x"),
        ("printf '%0300d' 0; exit 1", f"its command exited with 1: {'0' * 200}"),
    ],
)
async def test_it_is_ready_when_the_command_exits_with_0(script: str, words: str) -> None:
    assert await ask("sh", "-c", script) == words


async def test_a_flood_of_words_is_taken_and_forgotten() -> None:
    script = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; exit 1"
    assert await ask("sh", "-c", script) == "its command exited with 1: line 29999"


async def test_a_program_that_has_gone_is_an_obstacle(tmp_path: Path) -> None:
    program = tmp_path / "check"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    check, candidate = bind("exec", {"command": ["./check"]}, tmp_path), Candidate()
    assert await check.probe(Host(), candidate)
    program.unlink()
    assert not await check.probe(Host(), candidate)
    assert candidate.obstacle == (f"its command: cannot start {program}: No such file or directory")


@pytest.mark.usefixtures("fds_kept")
async def test_a_command_that_hangs_is_killed_with_its_children_at_once(
    list_marked: Callable[[], list[int]], look: Any, tmp_path: Path
) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 60) & (setsid sleep 60 &) ; echo > up; wait"
    command = ["sh", "-c", f"cd {tmp_path}; {script}"]
    check, candidate = bind("exec", {"command": command}, tmp_path), Candidate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check.wait, Host(), candidate)
        await look.true((tmp_path / "up").exists)
        assert len(list_marked()) >= 3
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 5  # it would sleep for a minute
    assert list_marked() == []
    assert candidate.obstacle == "its command has not ended yet"


async def test_what_a_command_leaves_behind_is_killed_and_nothing_of_the_process(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Path
) -> None:
    # The process has an orphan in a session of its own, which only its marker tells.
    script = "(setsid sh -c 'echo $$ > orphan; exec sleep 60' &); exec sleep 60"
    left = "(setsid sh -c 'echo $$ > left; exec sleep 60' &) ; "
    wait = "while ! [ -s orphan ]; do sleep 0.01; done; while ! [ -s left ]; do sleep 0.01; done"
    definition = sh(script, working_directory=".", ready_timeout_sec=20, **by_exec(left + wait))
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready
        orphan, left_pid = (int((tmp_path / name).read_text()) for name in ("orphan", "left"))
        assert look.alive(orphan)
        assert not look.alive(left_pid)
    assert not look.alive(orphan)


async def test_the_end_of_a_command_takes_nothing_from_the_time_that_its_process_has_to_stop(
    tmp_path: Path,
) -> None:
    unit = UnitHandle("p", StopBudget())
    script = "[ -e left ] || { sleep 60 & touch left; }"  # first it leaves something behind
    check = bind("exec", {"command": ["sh", "-c", f"cd {tmp_path}; {script}"]}, tmp_path)
    for _ in range(2):
        assert await check.probe(Host(), Candidate(unit=unit))
    with trio.move_on_after(0.1):
        await bind("exec", {"command": ["sleep", "60"]}, tmp_path).probe(
            Host(), Candidate(unit=unit)
        )
    assert not unit.budget.begun
    unit.budget.begin(30)
    with unit.budget.polite(5) as patience:
        assert patience.deadline - trio.current_time() > 4


async def test_a_command_runs_as_its_process_does(make_pilot: Any, sh: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    check = (
        '[ "$SHOP" = a ] && [ "$RUNTIME_UNIT" = p/check ] && kill -0 $RUNTIME_PID'
        ' && [ "$(ulimit -n)" = 99 ] && [ "$(umask)" = 0027 ] && pwd > ../where'
    )
    definition = sh(
        "exec sleep 60",
        working_directory="data",
        env={"SHOP": "a"},
        rlimits={"nofile": 99},
        umask="027",
        ready_timeout_sec=20,
        **by_exec(check),
    )
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready
    assert (tmp_path / "where").read_text().strip() == str(tmp_path / "data")


async def test_it_is_asked_until_it_says_yes_one_after_the_other(
    make_pilot: Any, sh: Any, tmp_path: Path
) -> None:
    check = (
        "mkdir busy || exit 9; echo >> asked; sleep 0.02; rmdir busy; [ $(wc -l < asked) -ge 4 ]"
    )
    definition = sh("exec sleep 60", working_directory=".", ready_timeout_sec=20, **by_exec(check))
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready
    assert (tmp_path / "asked").read_text() == "\n" * 4


async def test_the_last_word_of_a_check_is_the_reason_of_a_process_that_is_not_ready(
    make_pilot: Any, sh: Any
) -> None:
    fields = {**by_exec("echo connection refused; exit 3"), **ONCE}
    pilot = make_pilot(sh("exec sleep 60", ready_timeout_sec=1, **fields))
    await pilot.start()
    assert pilot.supervisor.status("p").stage is Stage.FAILED
    assert pilot.supervisor.status("p").reason.startswith(
        "not ready within 1 s by its exec check (the limit is ready_timeout_sec): its command "
    )


def test_it_is_a_unit_of_its_own(tmp_path: Path) -> None:
    params: Any = bind("exec", {"command": ["true"]}, tmp_path).params
    host = Host()
    bare = module._derive(params, host, Candidate())
    assert (bare.name, bare.env["RUNTIME_UNIT"]) == ("process/check", "process/check")
    assert module.PID_VARIABLE not in bare.env
    known = module._derive(params, host, Candidate(Family(os.getpid(), "p", host)))
    assert known.env[module.PID_VARIABLE] == str(os.getpid())
