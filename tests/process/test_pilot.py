"""ProcessPilot runs the processes of a manifest, for a block or until they have ended."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime._problems import Problem, ProblemsError
from runtime.pilot import ProcessPilot
from runtime.plugin import Plugin
from runtime.process import Process, ProcessManifest, ProcessState
from runtime.process.host import Host
from runtime.supervision._exceptions import UnitFailedError, UnknownUnitError
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
IGNORES_SIGTERM = "trap '' TERM; echo ready $$; exec sleep 60"
ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
needs_two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs a machine with two CPUs"
)


# --- the whole tree -------------------------------------------------------------------------------


async def test_a_block_begins_when_all_are_ready_and_ends_when_all_are_gone(
    make_pilot: Any, sh: Any, look: Any, list_marked: Callable[[], list[int]]
) -> None:
    pilot = make_pilot(sh(SLEEP, name="a"), sh(SLEEP, name="b", dependencies=["a"]))
    assert not pilot.is_running()
    async with pilot as entered:
        assert entered is pilot
        assert pilot.is_running()
        statuses = pilot.get_running_process()
        assert [status.status for status in statuses] == [ProcessState.RUNNING] * 2
        pids = {status.pid for status in statuses}
        await look.true(lambda: {*list_marked()} == pids)  # in the midst of exec there is no mark
    assert not pilot.is_running()
    assert pilot.get_running_process() == []
    assert pilot.supervisor.stopping == "the block that it belongs to was left"
    assert list_marked() == []


async def test_as_a_library_without_a_guard_a_block_leaves_nothing_even_of_daemons(
    make_pilot: Any, py: Any, look: Any, list_marked: Callable[[], list[int]]
) -> None:
    code = """
import os, signal, sys
signal.alarm(60)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.alarm(60)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"daemon %d\\n" % os.getpid())
        while True:
            signal.pause()
    os._exit(0)
os.wait()
while True:
    signal.pause()
"""
    pilot = make_pilot(*(py(code, name=name, timeout=0.2) for name in ("a", "b", "c")))
    daemons: list[int] = []
    async with pilot:
        processes = pilot.get_manifest_processes()
        daemons += [int(await look.line(process.output, "daemon ")) for process in processes]
        assert all(map(look.alive, daemons))
        await look.true(lambda: len(list_marked()) == 6)
    assert not any(map(look.alive, daemons))


async def test_start_runs_until_all_have_ended(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh("exit 0", **ONCE), sh("exit 3", name="q", **ONCE))
    await pilot.start()
    assert pilot.supervisor.stopping == "everything has ended"


async def test_start_can_be_given_to_a_nursery_and_stopped(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh(SLEEP))
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        assert pilot.is_running()
        await pilot.stop()
        assert not pilot.is_running()
        await pilot.stop()  # there is nothing to stop any more


async def test_with_keep_the_tree_goes_on_when_all_have_ended(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh("exit 0", **ONCE), options={"keep": True})
    async with pilot:
        await pilot.supervisor.wait_until("p", Stage.COMPLETED)
        assert pilot.is_running()


async def test_a_block_goes_on_when_all_have_ended(make_pilot: Any, sh: Any) -> None:
    async with make_pilot(sh("exit 0", **ONCE)) as pilot:
        await pilot.supervisor.wait_ended()
        assert not pilot.is_running()


async def test_a_pilot_is_started_once_only(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh(SLEEP))
    async with pilot:
        with pytest.raises(RuntimeError, match="started before"):
            await pilot.start()
        with pytest.raises(RuntimeError, match="started before"):
            await pilot.__aenter__()
        assert pilot.is_running()
    with pytest.raises(RuntimeError, match="started before"):
        async with pilot:
            raise AssertionError


async def test_a_block_that_was_not_entered_cannot_be_left(make_pilot: Any, sh: Any) -> None:
    with pytest.raises(RuntimeError, match="has not been entered"):
        await make_pilot(sh(SLEEP)).__aexit__(None, None, None)


async def test_an_error_in_the_block_stops_everything_and_travels_on(
    make_pilot: Any, sh: Any, list_marked: Callable[[], list[int]]
) -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with make_pilot(sh(SLEEP)):
            raise error
    assert caught.value is error  # as it is: in no group
    assert list_marked() == []


async def test_what_cannot_start_does_not_hold_up_the_block(make_pilot: Any, sh: Any) -> None:
    never = {"ready_strategy": "file", "ready_params": {"path": "never"}}
    async with make_pilot(
        sh("exit 1", name="dies", **ONCE),
        sh(SLEEP, name="held", dependencies=["dies"]),
        sh(SLEEP, name="late", ready_timeout_sec=0.05, **never, **ONCE),
        sh(SLEEP, name="fine"),
    ) as pilot:
        assert pilot.supervisor.status("fine").ready
        assert pilot.supervisor.status("late").stage is Stage.FAILED


async def test_a_child_that_ignores_the_stop_is_killed_within_the_budget_of_the_tree(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(
        *(sh(IGNORES_SIGTERM, name=name, timeout=None) for name in ("a", "b")),
        sh(IGNORES_SIGTERM, name="c", timeout=1000, dependencies=["a", "b"]),
        stop_within_sec=0.6,
    )
    async with pilot:
        for process in pilot.get_manifest_processes():
            await look.line(process.output, "ready")
    for process in pilot.get_manifest_processes():
        assert process.get_status().return_code == -signal.SIGKILL


async def test_a_logger_configuration_is_applied(make_pilot: Any, sh: Any) -> None:
    configuration = {"version": 1, "incremental": True, "loggers": {"a.test": {"level": "ERROR"}}}
    make_pilot(sh(SLEEP), options={"logger_config": configuration})
    assert logging.getLogger("a.test").level == logging.ERROR
    logging.getLogger("a.test").setLevel(logging.NOTSET)


def test_the_arguments_of_the_page_are_taken_in_their_order(tmp_path: Path) -> None:
    manifest = ProcessManifest(processes=[Process(name="p", path=Path("/bin/sh"))], kill_timeout=7)
    pilot = ProcessPilot(manifest, tmp_path, 0.5, 0.25, {"version": 1, "incremental": True})
    assert pilot.manifest is manifest
    assert pilot.process_poll_interval == 0.5
    assert (pilot._host.check_interval_sec, pilot._host.kill_timeout) == (0.25, 7)
    assert ProcessPilot(manifest, host=Host(tree_id="x"))._host.tree_id == "x"


# --- single processes -----------------------------------------------------------------------------


async def test_processes_are_found_by_name_in_the_manifest(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh(SLEEP, name="b", dependencies=["a"]), sh(SLEEP, name="a"))
    processes = pilot.get_manifest_processes()
    assert [process.name for process in processes] == ["a", "b"]
    assert pilot.get_process_by_name("b") is processes[1]
    assert pilot.get_process_by_name("c") is None
    processes.clear()
    assert len(pilot.get_manifest_processes()) == 2


async def test_a_running_process_is_found_by_pid_and_by_name(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh(SLEEP, name="a"), sh(SLEEP, name="b"))
    assert pilot.get_running_process() == []
    assert pilot.get_running_process("a") is None
    async with pilot:
        status = pilot.get_running_process("a")
        assert (status.name, status.status, status.return_code) == ("a", "running", None)
        os.kill(status.pid, 0)
        assert pilot.get_running_process(status.pid) == status
        assert [each.name for each in pilot.get_running_process(None)] == ["a", "b"]
        for unknown in ("c", 1, 0, -1):
            assert pilot.get_running_process(unknown) is None
        await pilot.stop_process("a")
        assert pilot.get_running_process("a") is None
        assert pilot.get_running_process(status.pid) is None
        assert [each.name for each in pilot.get_running_process()] == ["b"]


async def test_the_pid_0_is_nobodys(make_pilot: Any, sh: Any) -> None:
    entered, release = trio.Event(), trio.Event()

    class Waiting(Plugin):
        def get_lifecycle_hooks(self) -> Any:
            async def wait(process: Process, popen: object) -> None:
                entered.set()
                await release.wait()

            return {"wait": {"pre_start": [wait]}}

    pilot = make_pilot(sh(SLEEP, lifecycle_hooks=["wait"]))
    pilot.register_plugins([Waiting()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await entered.wait()
        assert pilot.get_running_process("p").pid == 0
        assert pilot.get_running_process(0) is None
        release.set()
        await pilot.stop()


async def test_a_process_is_stopped_and_started_by_name(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    async with make_pilot(sh(SLEEP), sh(SLEEP, name="other")) as pilot:
        first, other = (status.pid for status in pilot.get_running_process())
        await pilot.stop_process("p")
        assert not look.alive(first)
        assert pilot.get_process_by_name("p").get_status().return_code == -signal.SIGTERM
        await pilot.stop_process("p")  # it is stopped already
        await pilot.start_process("p")
        second = pilot.get_running_process("p").pid
        assert second != first
        await pilot.start_process("p")  # it runs already
        assert pilot.get_running_process("p").pid == second
        assert pilot.get_running_process("other").pid == other


async def test_starting_a_process_starts_what_it_needs(make_pilot: Any, sh: Any) -> None:
    async with make_pilot(
        sh(SLEEP, name="db"), sh(SLEEP, name="api", dependencies=["db"])
    ) as pilot:
        await pilot.stop_process("api")
        await pilot.stop_process("db")
        assert pilot.get_running_process() == []
        await pilot.start_process("api")
        assert [status.name for status in pilot.get_running_process()] == ["db", "api"]


@pytest.mark.parametrize("names", ["p", ["p"], ["p", "q", "p"]], ids=["one", "list", "several"])
async def test_processes_are_restarted_by_name_each_once(
    make_pilot: Any, sh: Any, look: Any, names: str | list[str]
) -> None:
    async with make_pilot(*(sh(SLEEP, name=name) for name in ("p", "q", "r"))) as pilot:
        before = {status.name: status.pid for status in pilot.get_running_process()}
        await pilot.restart_processes(names)
        after = {status.name: status.pid for status in pilot.get_running_process()}
        assert after.keys() == before.keys()
        for name, pid in before.items():
            restarted = name in names
            assert (after[name] != pid) == restarted
            assert look.alive(pid) != restarted
            assert pilot.supervisor.status(name).generation == 1 + restarted


async def test_a_dependent_and_what_it_needs_are_restarted_together(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh(SLEEP, name="db"), sh(SLEEP, name="api", dependencies=["db"]))
    async with pilot:
        await pilot.restart_processes(["api", "db"])
        assert [pilot.supervisor.status(name).generation for name in ("db", "api")] == [2, 2]
        assert all(pilot.supervisor.status(name).ready for name in ("db", "api"))


async def test_replicas_answer_to_the_name_of_their_entry(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh(SLEEP, name="api", replicas=2), sh(SLEEP, name="web"))
    names = ["api-0", "api-1"]
    async with pilot:
        assert pilot.get_process_by_name("api").name == "api-0"
        assert pilot.get_running_process("api").name == "api-0"
        assert [pilot.get_running_process(name).name for name in names] == names
        await pilot.restart_processes(["api", "api-1"])
        generations = [pilot.supervisor.status(name).generation for name in (*names, "web")]
        assert generations == [2, 2, 1]
        await pilot.stop_process("api-0")
        assert pilot.get_running_process("api").name == "api-1"
        await pilot.stop_process("api")
        assert pilot.get_running_process("api") is None
        assert [status.name for status in pilot.get_running_process()] == ["web"]
        await pilot.start_process("api")
        assert [pilot.get_running_process(name).name for name in names] == names


async def test_unknown_names_are_errors_that_change_nothing(make_pilot: Any, sh: Any) -> None:
    async with make_pilot(sh(SLEEP, name="api")) as pilot:
        before = pilot.get_running_process()
        for call, names in (
            (pilot.start_process, "apy"),
            (pilot.stop_process, "apy"),
            (pilot.restart_processes, "apy"),
            (pilot.restart_processes, ["api", "apy"]),
        ):
            with pytest.raises(ValueError, match="no unit 'apy'; did you mean 'api'") as caught:
                await call(names)
            assert isinstance(caught.value, UnknownUnitError)
        assert pilot.get_running_process() == before
        assert pilot.supervisor.status("api").generation == 1


async def test_a_process_that_does_not_come_up_is_an_error_for_who_waits_for_it(
    make_pilot: Any, sh: Any
) -> None:
    never = {"ready_strategy": "file", "ready_params": {"path": "never"}, "ready_timeout_sec": 0.01}
    pilot = make_pilot(
        *(sh(SLEEP, name=name, **never, **ONCE) for name in ("p", "q")), sh(SLEEP, name="r")
    )
    async with pilot:
        with pytest.raises(UnitFailedError, match="p did not become ready: not ready within"):
            await pilot.start_process("p")
        for names in ("p", ["p", "r"]):
            with pytest.raises(UnitFailedError, match="p did not become ready: not ready within"):
                await pilot.restart_processes(names)
        with pytest.RaisesGroup(UnitFailedError, UnitFailedError):
            await pilot.restart_processes(["p", "q"])
        assert pilot.supervisor.status("r").ready


async def test_nothing_is_started_by_name_while_the_tree_stops(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    pilot = make_pilot(sh(IGNORES_SIGTERM, timeout=0.2), sh(SLEEP, name="idle"))
    async with pilot:
        await look.line(pilot.get_process_by_name("p").output, "ready")
        await pilot.stop_process("idle")
        pilot.supervisor.ask_stop_tree("enough")
        with pytest.raises(UnitFailedError, match="the tree stops: enough"):
            await pilot.start_process("idle")


@needs_two_cpus
async def test_the_affinity_of_a_running_process_can_be_set(make_pilot: Any, sh: Any) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    async with make_pilot(sh(SLEEP)) as pilot:
        status = pilot.get_running_process("p")
        pilot.set_process_affinity(status, [cpus[0]])
        assert os.sched_getaffinity(status.pid) == {cpus[0]}
        pilot.set_process_affinity(status, None)
        assert os.sched_getaffinity(status.pid) == {cpus[0]}
    assert os.sched_getaffinity(0) == set(cpus)


# --- plugins --------------------------------------------------------------------------------------


class Full(Plugin):
    """Provides one of everything, and counts the calls of its hooks."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    async def hook(self, process: Process, popen: object) -> None:
        self.calls.append((process.name, popen))

    def ready(self, process: Process, interval_sec: float) -> bool:
        return True

    def handle(self, stats: object) -> None:
        raise AssertionError

    def serve(self, pilot: object) -> Any:
        raise AssertionError

    def get_lifecycle_hooks(self) -> Any:
        return {"hook": {"pre_start": [self.hook], "on_restart": [self.hook, self.hook]}}

    def get_ready_strategies(self) -> Any:
        return {"strategy": self.ready}

    def get_stats_handlers(self) -> Any:
        return {"handler": [self.handle]}

    def get_control_servers(self) -> Any:
        return {"server": self.serve}


async def test_hooks_are_executed_by_moment_for_one_process(make_pilot: Any, sh: Any) -> None:
    full = Full()
    pilot = make_pilot(sh(SLEEP, lifecycle_hooks=["hook"]), sh(SLEEP, name="other"))
    pilot.register_plugins([full])
    process, other = (pilot.get_process_by_name(name) for name in ("p", "other"))
    for moment in ("pre_start", "on_restart", "on_shutdown"):
        await ProcessPilot.execute_lifecycle_hooks(process, None, moment)
        await pilot.execute_lifecycle_hooks(other, None, moment)
    assert full.calls == [("p", None)] * 3


def test_processes_are_given_what_they_name_and_nothing_else(make_pilot: Any, sh: Any) -> None:
    full = Full()
    names = {"lifecycle_hooks": ["hook"], "stat_handlers": ["handler"]}
    pilot = make_pilot(sh(SLEEP, ready_strategy="strategy", **names), sh(SLEEP, name="other"))
    pilot.register_plugins([full])
    pilot.register_plugins([Plugin()])  # again, with nothing new
    process, other = (pilot.get_process_by_name(name) for name in ("p", "other"))
    assert process.lifecycle_hook_functions == {
        "pre_start": [full.hook],
        "post_start": [],
        "on_shutdown": [],
        "on_restart": [full.hook, full.hook],
    }
    assert process.stats_handler_functions == [full.handle]
    assert process.ready_strategy_function == full.ready
    assert not any(other.lifecycle_hook_functions.values())
    assert other.stats_handler_functions == []
    assert other.ready_strategy_function is None


def test_a_later_plugin_wins_a_name(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh(SLEEP, ready_strategy="strategy"))
    later = Full()
    pilot.register_plugins([Full(), later])
    assert pilot.get_process_by_name("p").ready_strategy_function == later.ready


async def test_unknown_names_are_told_all_at_once_and_nothing_is_started(
    make_pilot: Any, sh: Any, list_marked: Callable[[], list[int]]
) -> None:
    pilot = make_pilot(
        sh(SLEEP, lifecycle_hooks=["hook", "hok"], stat_handlers=["handlr"]),
        sh(SLEEP, name="q", ready_strategy="tpc"),
        control_server="other",
    )
    pilot.register_plugins([Full()])
    problems = [
        Problem(
            ("processes", "p", "lifecycle_hooks", 1),
            "no plugin provides 'hok'; did you mean 'hook'?",
        ),
        Problem(
            ("processes", "p", "stat_handlers", 0),
            "no plugin provides 'handlr'; did you mean 'handler'?",
        ),
        Problem(
            ("processes", "q", "ready_strategy"), "no plugin provides 'tpc'; did you mean 'tcp'?"
        ),
        Problem(("control_server",), "no plugin provides 'other'"),
    ]
    assert pilot.unknown_names() == problems
    for enter in (pilot.start, pilot.__aenter__):
        with pytest.raises(ProblemsError) as caught:
            await enter()
        assert caught.value.problems == problems
    with pytest.raises(ValueError, match="no plugin provides 'tpc'"):
        async with pilot:
            raise AssertionError
    assert not pilot.is_running()
    assert list_marked() == []


def test_known_names_are_no_problem(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(
        sh(SLEEP, lifecycle_hooks=["hook"], stat_handlers=["handler"], ready_strategy="strategy"),
        sh(SLEEP, name="q", ready_strategy="file", ready_params={"path": "x"}),
        control_server="server",
    )
    pilot.register_plugins([Full()])
    assert pilot.unknown_names() == []


PLUGIN_FILE = """
from pathlib import Path
from runtime import Plugin
class FromFile(Plugin):
    def get_lifecycle_hooks(self):
        return {"note": {"pre_start": [lambda process, popen: Path(process.env["NOTE"]).touch()]}}
"""


async def test_plugins_are_loaded_from_a_folder(make_pilot: Any, sh: Any, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "note.py").write_text(PLUGIN_FILE)
    env = {"NOTE": str(tmp_path / "noted")}
    definition = sh("exit 0", lifecycle_hooks=["note"], env=env, **ONCE)
    await make_pilot(definition, options={"plugin_directory": folder}).start()
    assert (tmp_path / "noted").exists()
    with pytest.raises(ValueError, match="there is no plugin folder"):
        make_pilot(definition).load_plugins(tmp_path / "missing")
