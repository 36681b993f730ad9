"""What a manifest says of the ends of one process: the good ones, its time, who asks it to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime.exceptions import UnknownUnitError
from runtime.pilot import ProcessPilot
from runtime.process import NotRunningError, Process, RunLimitError
from runtime.process.child import Child
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
NEVER_READY: dict[str, Any] = {
    "ready_strategy": "file",
    "ready_params": {"path": "never"},
    "ready_timeout_sec": 1000,
}
ON_FAILURE: dict[str, Any] = {"restart": {"when": "failure", "delay_sec": 0}}


def notes(pilot: ProcessPilot, name: str = "p") -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.NOTED)]


# --- good ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "codes", "how"),
    [
        ("exit 3", [0, 3], "exited with 3"),
        ("exit 3", ["3"], "exited with 3"),
        ("kill -TERM $$", [0, "SIGTERM"], "killed by SIGTERM"),
        ("kill -USR1 $$", ["usr1"], "killed by SIGUSR1"),
    ],
)
async def test_an_end_that_counts_as_a_success_completes_it_and_says_how_it_ended(
    make_pilot: Any, sh: Any, script: str, codes: list[object], how: str
) -> None:
    pilot = make_pilot(
        sh(script, success_exit_codes=codes, **ON_FAILURE),
        sh(
            "exit 0",
            name="next",
            dependencies=[{"name": "p", "condition": "completed_successfully"}],
            shutdown_strategy="do_not_restart",
        ),
    )
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert (status.stage, status.generation, status.error) == (Stage.COMPLETED, 1, None)
    assert status.reason.startswith("completed after ")
    assert status.reason.endswith(f" ({how})")
    assert pilot.supervisor.status("next").stage is Stage.COMPLETED
    assert not pilot.supervisor.status("next").reason.endswith(")")  # who wonders about a 0?


async def test_an_end_that_is_not_among_the_good_ones_is_a_failure_be_it_zero(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh("exit 0", success_exit_codes=[3], shutdown_strategy="do_not_restart"))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert status.stage is Stage.FAILED
    assert status.reason.startswith("exited with 0 after ")


def test_codes_and_signals_are_told_apart() -> None:
    process = Process(name="p", path="/bin/sh", success_exit_codes=[15, "int"])
    ends = [0, 2, 15, 130, -2, -15, -9, -40]
    assert [end for end in ends if process.is_success(end)] == [15, -2]


# --- the limit of a run ---------------------------------------------------------------------------


async def test_what_runs_longer_than_it_may_is_stopped_as_failed_and_its_policy_applies(
    make_pilot: Any, sh: Any
) -> None:
    restart = {"when": "failure", "delay_sec": 0, "max_restarts": 1}
    # (Long enough for a shell to say something on a busy machine.)
    pilot = make_pilot(sh("echo up; exec sleep 60", max_run_sec=1, restart=restart))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert (status.stage, status.generation) == (Stage.FAILED, 2)
    assert isinstance(status.error, RunLimitError)
    words = "ran longer than 1 s (the limit is max_run_sec); given up after 1 restart in "
    assert status.reason.startswith(words)
    process = pilot.get_process_by_name("p")
    assert process.get_status().return_code == -signal.SIGTERM
    assert process.output.lines.last == 2


async def test_the_limit_counts_while_it_gets_ready_too(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(
        sh(SLEEP, max_run_sec=0.1, shutdown_strategy="do_not_restart", **NEVER_READY)
    )
    await pilot.start()
    assert isinstance(pilot.supervisor.status("p").error, RunLimitError)


async def test_what_ends_within_its_limit_is_judged_by_its_end(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh("exit 0", max_run_sec=1000, **ON_FAILURE))
    await pilot.start()
    assert pilot.supervisor.status("p").stage is Stage.COMPLETED


# --- signals by hand ------------------------------------------------------------------------------

HEARS = "trap 'echo heard' HUP; echo ready; for i in $(seq 6000); do sleep 0.01; done"


async def test_a_signal_reaches_every_replica_and_is_an_event(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    async with make_pilot(sh(HEARS, replicas=2)) as pilot:
        outputs = [process.output for process in pilot.manifest.processes]
        for output in outputs:
            await look.line(output, "ready")
        pilot.send_signal("p", "hup")
        for output in outputs:
            await look.line(output, "heard")
        pilot.send_signal("p-1", signal.SIGHUP)
        assert notes(pilot, "p-0") == ["was sent SIGHUP"]
        assert notes(pilot, "p-1") == ["was sent SIGHUP"] * 2
        assert all(status.generation == 1 for status in pilot.supervisor.statuses())


async def test_a_signal_to_what_does_not_run_or_is_not_known_says_so(
    make_pilot: Any, sh: Any
) -> None:
    async with make_pilot(sh(SLEEP)) as pilot:
        with pytest.raises(UnknownUnitError):
            pilot.send_signal("q", "SIGHUP")
        with pytest.raises(ValueError, match="there is no signal 'SIGHOP'"):
            pilot.send_signal("p", "SIGHOP")
        await pilot.stop_process("p")
        with pytest.raises(NotRunningError, match="p does not run"):
            pilot.send_signal("p", "SIGHUP")
        assert notes(pilot) == []


# --- why it was given up --------------------------------------------------------------------------


async def test_giving_up_names_the_last_failure_and_how_often_and_dependents_say_through_whom(
    make_pilot: Any, sh: Any
) -> None:
    restart = {"when": "failure", "delay_sec": 0, "max_restarts": 2, "window_sec": 60}
    pilot = make_pilot(
        sh(
            "exit 3", name="db", ready_strategy="file", ready_params={"path": "no"}, restart=restart
        ),
        sh(SLEEP, name="api", dependencies=["db"]),
        sh(SLEEP, name="web", dependencies=["api"]),
    )
    await pilot.start()
    reasons = {status.name: status.reason for status in pilot.supervisor.statuses()}
    assert reasons["db"].startswith("exited with 3 before it was ready after ")
    assert reasons["db"].endswith("; given up after 2 restarts within 60 s")
    assert reasons["api"] == f"not started: db {reasons['db']}"
    assert reasons["web"] == f"not started: needs api, and db {reasons['db']}"
    told = [entry.item.reason for entry in pilot.supervisor.events.tail()]
    assert set(reasons.values()) <= set(told)


# --- a command that stops it ----------------------------------------------------------------------

#: Ends by USR1 only, and says so.
BY_COMMAND = """
trap '' TERM
trap 'echo obeyed; exit 0' USR1
echo ready
for i in $(seq 6000); do sleep 0.01; done
"""
TELL = ["sh", "-c", "echo told $RUNTIME_PID $RUNTIME_UNIT $COLOUR $PWD; kill -USR1 $RUNTIME_PID"]


async def test_a_stop_command_stops_it_in_its_own_environment_and_folder(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Any
) -> None:
    (tmp_path / "here").mkdir()
    pilot = make_pilot(
        sh(
            BY_COMMAND,
            stop_command=TELL,
            env={"COLOUR": "red"},
            working_directory="here",
            timeout=1000,
        )
    )
    process = pilot.get_process_by_name("p")
    async with pilot:
        await look.line(process.output, "ready")
        pid = process.get_status().pid
        await pilot.restart_processes("p")  # a restart stops it in the same way
        assert process.get_status().pid != pid
    lines = [entry.item.text for entry in process.output.lines.tail()]
    told = [line for line in lines if line.startswith("told ")]
    assert told[0] == f"told {pid} p/stop red {tmp_path / 'here'}"
    assert len(told) == lines.count("obeyed") == 2
    assert process.get_status().return_code == 0
    assert notes(pilot) == []


async def test_the_rest_of_the_family_is_sent_the_signal_when_the_leader_has_gone(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    script = """
    (trap 'echo child heard; exit' TERM; echo child ready
        for i in $(seq 6000); do sleep 0.01; done) &
    trap 'exit 0' USR1
    for i in $(seq 6000); do sleep 0.01; done
    """
    pilot = make_pilot(sh(script, stop_command=TELL, timeout=1000))
    output = pilot.get_process_by_name("p").output
    async with pilot:
        await look.line(output, "child ready")
    lines = [entry.item.text for entry in output.lines.tail()]
    assert lines.count("child heard") == 1
    assert notes(pilot) == []


@pytest.mark.parametrize(
    ("command", "timeout", "words"),
    [
        (["sh", "-c", "echo busy; exit 7"], 1000, "exited with 7: busy; SIGTERM is sent instead"),
        (["sh", "-c", "kill -9 $$"], 1000, "killed by SIGKILL; SIGTERM is sent instead"),
        (["sleep", "60"], 2.5, "was still running after 2.0 s; SIGTERM is sent instead"),
    ],
    ids=["fails", "is killed", "hangs"],
)
async def test_a_stop_command_that_does_not_do_is_told_and_the_signal_is_sent(  # noqa: PLR0917
    make_pilot: Any, sh: Any, look: Any, command: list[str], timeout: float, words: str
) -> None:
    script = "trap 'echo term; exit 0' TERM; echo ready; for i in $(seq 6000); do sleep 0.01; done"
    pilot = make_pilot(sh(script, stop_command=command, timeout=timeout))
    process = pilot.get_process_by_name("p")
    async with pilot:
        await look.line(process.output, "ready")
    told = [note for note in notes(pilot) if note.startswith("stop command /")]
    assert [note.partition(" ")[2].partition(" ")[2].partition(" ")[2] for note in told] == [words]
    lines = [entry.item.text for entry in process.output.lines.tail()]
    if timeout > 100:  # with half a second the machine may be too busy
        assert lines.count("term") == 1


async def test_a_stop_command_that_cannot_be_started_is_told_and_the_signal_is_sent(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Any
) -> None:
    command = tmp_path / "halt"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    pilot = make_pilot(sh(f"echo ready; {SLEEP}", stop_command=["./halt"], timeout=1000))
    async with pilot:
        await look.line(pilot.get_process_by_name("p").output, "ready")
        command.unlink()
    (note,) = notes(pilot)
    start = f"stop command {command} failed: cannot start {command}: No such file or directory"
    assert note == f"{start}; SIGTERM is sent instead"


async def test_what_does_not_obey_its_stop_command_is_killed_in_time(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh(f"trap '' TERM; echo ready; {SLEEP}", stop_command=["true"], timeout=0.3))
    process = pilot.get_process_by_name("p")
    async with pilot:
        await look.line(process.output, "ready")
        pid = process.get_status().pid
    (note,) = notes(pilot)
    assert note.startswith(f"killed: pid {pid} (sleep); still there ")
    assert note.endswith(" after its stop command began")
    assert process.get_status().return_code == -signal.SIGKILL


async def test_a_process_that_ended_by_itself_is_not_told_to_stop(make_pilot: Any, sh: Any) -> None:
    fields = {"stop_command": ["sh", "-c", "echo told"], "shutdown_strategy": "do_not_restart"}
    pilot = make_pilot(sh("exit 0", **fields))
    await pilot.start()
    assert pilot.get_process_by_name("p").output.lines.last == 0


async def test_neither_the_process_nor_its_stop_command_takes_the_others_descendants(
    make_pilot: Any, sh: Any, look: Any, list_marked: Callable[[], list[int]]
) -> None:
    # What the command leaves behind goes with the command: before the process has ended.
    leave = "setsid sleep 60 >/dev/null 2>&1 & kill -USR1 $RUNTIME_PID"
    pilot = make_pilot(sh(BY_COMMAND, stop_command=["sh", "-c", leave], timeout=1000))
    output = pilot.get_process_by_name("p").output
    async with pilot:
        await look.line(output, "ready")
        await pilot.stop_process("p")
        assert list_marked() == []
        assert pilot.get_process_by_name("p").get_status().return_code == 0


async def test_a_stop_by_force_waits_for_no_stop_command(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    command = ["sh", "-c", "echo begun; exec sleep 60"]
    pilot = make_pilot(sh(f"echo ready; {SLEEP}", stop_command=command, timeout=1000))
    output = pilot.get_process_by_name("p").output
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        await look.line(output, "ready")
        pilot.supervisor.ask_stop_tree("enough")
        await look.line(output, "begun")
        wait = pilot.supervisor.stop_wait("p")
        assert wait is not None
        assert wait.what.startswith("stop command /")
        pilot.supervisor.force()
    assert pilot.supervisor.status("p").stage is Stage.IDLE


async def test_what_a_stop_command_leaves_behind_for_good_is_told_of_the_command(
    make_pilot: Any, sh: Any, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Child._signal

    def lose(self: Child, signum: signal.Signals, family: list[Any]) -> None:
        if signum is not signal.SIGKILL:  # nothing can be done about a process in the kernel
            send(self, signum, family)

    leave = """
    (trap '' TERM; echo > up; exec sleep 60 >/dev/null 2>&1) &
    until [ -e up ]; do sleep 0.01; done
    kill -USR1 $RUNTIME_PID
    """
    fields = {"stop_command": ["sh", "-c", leave], "working_directory": ".", "timeout": 1000}
    pilot = make_pilot(sh(BY_COMMAND, **fields), kill_timeout=0.05)
    process = pilot.get_process_by_name("p")
    async with pilot:
        await look.line(process.output, "ready")
        with monkeypatch.context() as patch:
            patch.setattr(Child, "_signal", lose)
            await pilot.stop_process("p")
        assert process.get_status().return_code == 0
        killed, told = notes(pilot)
        pid = int(told.partition(": pid ")[2].partition(" ")[0])
        assert told.endswith(f": pid {pid} (sleep) outlived SIGKILL")
        assert killed.startswith(f"killed: pid {pid} (sleep); ")
        os.kill(pid, signal.SIGKILL)
        await look.true(lambda: not look.alive(pid))


@pytest.mark.parametrize("timeout", [0, 1000])
async def test_without_any_polite_time_no_stop_command_is_begun(
    make_pilot: Any, sh: Any, look: Any, timeout: float
) -> None:
    command = ["sh", "-c", "echo begun"]
    pilot = make_pilot(sh(f"echo ready; {SLEEP}", stop_command=command, timeout=timeout))
    output = pilot.get_process_by_name("p").output
    async with pilot:
        await look.line(output, "ready")
        if timeout:
            pilot.supervisor.force()
    assert "begun" not in [entry.item.text for entry in output.lines.tail()]
