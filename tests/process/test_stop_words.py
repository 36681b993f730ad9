"""What blocks a stop is named while it blocks: processes, hooks, pipes, inner units."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime import _procfs
from runtime.pilot import ProcessPilot
from runtime.process import SurvivorsError
from runtime.process.child import Child
from runtime.supervision.events import EventKind
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle

DEAF = "trap '' TERM; echo ready; exec sleep 60"


def notes(pilot: ProcessPilot, name: str = "p") -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.NOTED)]


async def test_processes_are_named_with_pid_and_name_and_who_has_to_stop_first(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    script = "trap '' TERM; (exec sleep 50) & echo $!; wait; sleep 60"
    pilot = make_pilot(
        sh("exec sleep 60", name="db"),
        sh(script, name="api", dependencies=["db"], timeout=1000),
    )
    supervisor = pilot.supervisor
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        assert not supervisor.blocked_by("api")
        child = int(await look.line(pilot.get_process_by_name("api").output, ""))
        leader = pilot.get_running_process("api").pid
        await look.true(lambda: _procfs.read_name(child) == "sleep")
        supervisor.ask_stop_tree("enough")
        await trio.testing.wait_all_tasks_blocked()
        wait = supervisor.stop_wait("api")
        assert wait is not None
        assert wait.what == f"pid {leader} (sh), pid {child} (sleep)"
        assert supervisor.blocked_by("api") == wait.what
        assert supervisor.blocked_by("db") == "api to stop first"
        supervisor.force()
    assert not supervisor.blocked_by("api")
    note = notes(pilot, "api")[-1]
    assert note.startswith(f"killed: pid {leader} (sh), pid {child} (sleep); still there ")


async def test_a_server_is_named_by_the_title_that_it_gives_itself(
    make_pilot: Any, look: Any
) -> None:
    code = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
    bash = "/bin/bash"
    if not os.access(bash, os.X_OK):
        pytest.skip("there is no bash, which sets the first argument of what it runs")
    script = f"exec -a 'postgres: writer' /bin/sh -c \"{code}\""
    definition = {"name": "p", "path": bash, "args": ["-c", script], "timeout": 0.1}
    pilot = make_pilot(definition)
    async with pilot:
        await look.line(pilot.get_process_by_name("p").output, "ready")
        pid = pilot.get_running_process("p").pid
    (note,) = notes(pilot)
    assert note.startswith(f"killed: pid {pid} (postgres: writer)")


async def test_who_holds_the_output_is_killed_and_named(
    make_pilot: Any, py: Any, look: Any, tmp_path: Any
) -> None:
    code = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", "echo $$ > held; exec sleep 60"], {})
    os._exit(0)
os.wait()
while not os.path.exists("held"):
    pass
"""
    pilot = make_pilot(py(code, working_directory=".", shutdown_strategy="do_not_restart"))
    await pilot.start()
    pid = int((tmp_path / "held").read_text())
    (note,) = notes(pilot)
    assert note in {
        f"killed: pid {pid} (sleep); held its output open",
        f"killed: pid {pid} (sh); held its output open",
    }
    assert not look.alive(pid)


async def test_what_outlives_sigkill_is_named_in_the_reason(
    make_pilot: Any, sh: Any, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Child._signal

    def lose(self: Child, signum: signal.Signals, family: list[Any]) -> None:
        if signum is not signal.SIGKILL:  # nothing can be done about a process in the kernel
            send(self, signum, family)

    script = """
    (trap '' TERM; echo > up; exec sleep 60 >/dev/null 2>&1) &
    until [ -e up ]; do sleep 0.01; done
    exit 1
    """
    fields = {"working_directory": ".", "shutdown_strategy": "do_not_restart", "timeout": 0.05}
    pilot = make_pilot(sh(script, **fields), kill_timeout=0.05)
    monkeypatch.setattr(Child, "_signal", lose)
    await pilot.start()
    error = pilot.supervisor.status("p").error
    assert isinstance(error, SurvivorsError)
    (pid,) = error.pids
    assert error.programs == ("sleep",)
    assert pilot.supervisor.status("p").reason.startswith(f"pid {pid} (sleep) outlived SIGKILL")
    os.kill(pid, signal.SIGKILL)
    await look.true(lambda: not look.alive(pid))


async def test_of_a_unit_with_units_in_it_these_are_named(autojump_clock: Any) -> None:
    release = trio.Event()

    def stays(what: Callable[[], str], own_sec: float) -> Any:
        async def body(*, task_status: UnitHandle) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with task_status.budget.polite(own_sec, what=what):
                    await release.wait()

        return body

    outer = Supervisor()
    inner = Supervisor(path="worker", events=outer.events)
    inner.add(Unit(name="cpu-0", body=stays(lambda: "pid 12 (python3)", 5)))
    inner.add(Unit(name="cpu-1", body=stays(lambda: "pid 13 (python3)", 7)))
    outer.add(Unit(name="worker", body=inner.run, inner=inner))
    async with trio.open_nursery() as nursery:
        await nursery.start(outer.run)
        assert outer.stop_wait("worker") is None
        outer.ask_stop_tree("enough")
        await trio.sleep(1)
        words = "cpu-0: pid 12 (python3); cpu-1: pid 13 (python3)"
        assert outer.stop_wait("worker") == (6, 7, words)
        release.set()
