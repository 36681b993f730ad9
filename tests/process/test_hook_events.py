"""Each hook is called exactly once for its event, a failing one is named, and none keeps a stop."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from runtime.pilot import ProcessPilot
from runtime.plugin import Plugin
from runtime.process import HookError, Process
from runtime.process.child import Child
from runtime.process.host import Host
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
MOMENTS = ("on_restart", "pre_start", "post_start", "on_shutdown")
ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
AT_ONCE: dict[str, Any] = {"restart": {"when": "always", "delay_sec": 0, "factor": 1}}
Hook = Callable[[Any, Any], Awaitable[None] | None]


class Hooks(Plugin):
    """Counts each call, by process and event; *extra* hooks come after that."""

    def __init__(self, **extra: Hook) -> None:
        self.calls: list[tuple[str, str]] = []
        self._extra = extra

    def get_lifecycle_hooks(self) -> Any:
        def count(moment: str) -> Hook:
            def hook(process: Any, popen: Any) -> None:
                self.calls.append((process.name, moment))

            return hook

        counting = {moment: [count(moment)] for moment in MOMENTS}
        return {"count": counting, "extra": {m: [hook] for m, hook in self._extra.items()}}

    def of(self, name: str = "p") -> dict[str, int]:
        """Return how often each event of a process was told."""
        calls = Counter(moment for process, moment in self.calls if process == name)
        return {moment: calls[moment] for moment in MOMENTS}


def with_hooks(pilot: ProcessPilot, hooks: Plugin) -> ProcessPilot:
    pilot.register_plugins([hooks])
    return pilot


def notes(pilot: ProcessPilot, name: str = "p") -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.NOTED)]


HOOKED: dict[str, Any] = {"lifecycle_hooks": ["count", "extra"]}


# --- once for each event --------------------------------------------------------------------------


async def test_over_starts_crashes_and_requests_each_event_is_told_once(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    hooks = Hooks()
    async with with_hooks(make_pilot(sh(SLEEP, **HOOKED, **AT_ONCE)), hooks) as pilot:
        assert hooks.of() == {"on_restart": 0, "pre_start": 1, "post_start": 1, "on_shutdown": 0}
        os.kill(pilot.get_running_process("p").pid, signal.SIGKILL)
        await look.generation(pilot, "p", 2)
        assert hooks.of() == {"on_restart": 1, "pre_start": 2, "post_start": 2, "on_shutdown": 1}
        await pilot.restart_processes("p")
        assert hooks.of() == {"on_restart": 2, "pre_start": 3, "post_start": 3, "on_shutdown": 2}
        await pilot.stop_process("p")
        assert hooks.of() == {"on_restart": 2, "pre_start": 3, "post_start": 3, "on_shutdown": 3}
        await pilot.start_process("p")
    assert hooks.of() == {"on_restart": 3, "pre_start": 4, "post_start": 4, "on_shutdown": 4}
    assert [m for _, m in hooks.calls[:6]] == [
        *("pre_start", "post_start", "on_shutdown", "on_restart", "pre_start", "post_start")
    ]


async def test_of_a_program_that_cannot_be_spawned_only_the_attempt_is_told(
    make_pilot: Any, tmp_path: Any
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    restart = {"when": "failure", "delay_sec": 0, "max_restarts": 2}
    definition = {"name": "p", "path": str(program), "restart": restart, **HOOKED}
    hooks = Hooks()
    pilot = with_hooks(make_pilot(definition), hooks)
    program.unlink()
    await pilot.start()
    assert hooks.of() == {"on_restart": 2, "pre_start": 3, "post_start": 0, "on_shutdown": 0}


async def test_each_replica_has_its_own_events(make_pilot: Any, sh: Any) -> None:
    hooks = Hooks()
    async with with_hooks(make_pilot(sh(SLEEP, replicas=2, **HOOKED)), hooks) as pilot:
        await pilot.restart_processes("p-1")
    once = {"on_restart": 0, "pre_start": 1, "post_start": 1, "on_shutdown": 1}
    assert hooks.of("p-0") == once
    assert hooks.of("p-1") == {"on_restart": 1, "pre_start": 2, "post_start": 2, "on_shutdown": 2}


@pytest.mark.parametrize("ticks", range(0, 40, 3))
async def test_cancelled_at_any_tick_what_was_spawned_is_told_to_have_ended_once(
    make_pilot: Any, sh: Any, ticks: int
) -> None:
    spawned: list[int] = []
    hooks = Hooks()
    pilot = with_hooks(make_pilot(sh(SLEEP, **HOOKED)), hooks)
    note_spawned = Process.note_spawned

    def note(self: Process, pid: int) -> None:
        spawned.append(pid)
        note_spawned(self, pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Process, "note_spawned", note)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pilot.start)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    told = hooks.of()
    assert told["on_shutdown"] == len(spawned)
    assert told["post_start"] <= len(spawned) <= told["pre_start"] <= 1
    assert told["on_restart"] == 0


async def test_an_end_during_post_start_is_the_reason_and_not_the_hook(
    make_pilot: Any, sh: Any, open_gate: Callable[[], object]
) -> None:
    async def endless(process: Any, popen: Any) -> None:
        open_gate()
        await trio.sleep_forever()

    hooks = Hooks(post_start=endless)
    script = "read -r line < gate; exit 3"
    pilot = with_hooks(make_pilot(sh(script, working_directory=".", **HOOKED, **ONCE)), hooks)
    await pilot.start()
    reason = pilot.supervisor.status("p").reason
    assert reason.startswith("exited with 3 before it was ready after ")
    assert hooks.of() == {"on_restart": 0, "pre_start": 1, "post_start": 1, "on_shutdown": 1}


# --- hooks that fail ------------------------------------------------------------------------------


def fail(process: Any, popen: Any) -> None:
    raise ValueError("no such queue")


async def fail_without_words(process: Any, popen: Any) -> None:
    raise ValueError


@pytest.mark.parametrize("moment", ["on_restart", "pre_start", "post_start"])
async def test_a_failing_hook_fails_the_start_like_a_crash_and_the_policy_applies(
    make_pilot: Any, sh: Any, moment: str
) -> None:
    restart = {"when": "always", "delay_sec": 0, "max_restarts": 2}
    script = "exit 1" if moment == "on_restart" else SLEEP  # that it is restarted at all
    hooks = Hooks(**{moment: fail})
    pilot = with_hooks(make_pilot(sh(script, restart=restart, **HOOKED)), hooks)
    await pilot.start()
    status = pilot.supervisor.status("p")
    words = (
        f"hook extra ({moment}) failed: ValueError: no such queue; given up after 2 restarts in "
    )
    assert status.reason.startswith(words)
    assert isinstance(status.error, HookError)
    assert isinstance(status.error.__cause__, ValueError)
    assert (status.error.hook, status.error.event) == ("extra", moment)
    assert hooks.of()["on_shutdown"] == {"on_restart": 1, "pre_start": 0, "post_start": 3}[moment]


@pytest.mark.parametrize("moment", ["pre_start", "post_start"])
async def test_a_failing_hook_that_is_to_be_ignored_is_an_event_and_the_start_goes_on(
    make_pilot: Any, sh: Any, moment: str
) -> None:
    hooks = Hooks(**{moment: fail_without_words})
    pilot = with_hooks(make_pilot(sh(SLEEP, hook_failure="ignore", **HOOKED)), hooks)
    async with pilot:
        status = pilot.supervisor.status("p")
        assert status.stage is Stage.READY
        assert notes(pilot) == [f"hook extra ({moment}) failed: ValueError"] == [status.note]
        assert status.reason.startswith("ready after ")


@pytest.mark.parametrize("policy", ["fail", "ignore"])
async def test_a_failing_hook_at_the_end_never_hides_that_end_nor_keeps_a_restart(
    make_pilot: Any, sh: Any, look: Any, policy: str
) -> None:
    hooks = Hooks(on_shutdown=fail)
    definition = sh("exit 3", hook_failure=policy, **HOOKED, **ONCE)
    pilot = with_hooks(make_pilot(definition), hooks)
    await pilot.start()
    assert pilot.supervisor.status("p").reason.startswith("exited with 3 ")
    words = "hook extra (on_shutdown) failed: ValueError: no such queue"
    assert notes(pilot) == [words]
    pilot = with_hooks(make_pilot(sh(SLEEP, hook_failure=policy, **HOOKED)), hooks)
    async with pilot:
        await pilot.restart_processes("p")
        assert pilot.supervisor.status("p").generation == 2
        await pilot.stop_process("p")
        assert pilot.supervisor.status("p").reason == "stopped"
        assert notes(pilot) == [words] * 2


async def test_a_hook_without_a_name_in_the_manifest_is_named_by_its_function(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh(SLEEP, **ONCE))
    (process,) = pilot.manifest.processes
    process.lifecycle_hook_functions["pre_start"].append(fail)
    await pilot.start()
    reason = pilot.supervisor.status("p").reason
    assert reason == "hook fail (pre_start) failed: ValueError: no such queue"
    with pytest.raises(HookError, match=r"hook fail \(pre_start\)"):
        await pilot.execute_lifecycle_hooks(process, None, "pre_start")


# --- hooks and the time of a stop -----------------------------------------------------------------


async def test_hooks_at_the_end_are_called_also_when_the_polite_time_is_used_up(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    hooks = Hooks()
    script = "trap '' TERM; echo ready; exec sleep 60"
    # Who is looked for on the whole host has less time left the more runs there.
    options = {"host": Host(orphans=list)}
    pilot = make_pilot(sh(script, timeout=None, **HOOKED), stop_within_sec=5, options=options)
    async with with_hooks(pilot, hooks):
        await look.line(pilot.get_process_by_name("p").output, "ready")
    assert hooks.of()["on_shutdown"] == 1
    (note,) = notes(pilot)
    assert note.startswith("killed: ")


async def test_a_hook_at_the_end_that_never_ends_is_left_and_the_next_is_called(
    make_pilot: Any, sh: Any
) -> None:
    entered = trio.Event()
    release = threading.Event()

    async def endless(process: Any, popen: Any) -> None:
        entered.set()
        await trio.sleep_forever()

    class Endless(Plugin):
        def get_lifecycle_hooks(self) -> Any:
            def block(process: Any, popen: Any) -> None:
                release.wait()

            return {"endless": {"on_shutdown": [endless]}, "blocks": {"on_shutdown": [block]}}

    hooks = Hooks()
    names = ["endless", "blocks", "count"]
    pilot = with_hooks(make_pilot(sh(SLEEP, lifecycle_hooks=names)), hooks)
    pilot.register_plugins([Endless()])
    try:
        async with trio.open_nursery() as nursery, pilot:
            nursery.start_soon(pilot.stop_process, "p")
            await entered.wait()
            assert pilot.supervisor.blocked_by("p") == "hook endless (on_shutdown)"
            pilot.supervisor.ask_stop_tree("enough", within_sec=3)
        assert [note.partition(" has not ended within ")[0] for note in notes(pilot)] == [
            "hook endless (on_shutdown)",
            "hook blocks (on_shutdown)",
        ]
        assert hooks.of()["on_shutdown"] == 1
    finally:
        release.set()


async def test_a_hook_for_which_no_time_is_left_is_said_to_be_not_called(
    make_pilot: Any, sh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Child] = []
    reap = Child.reap

    def note_and_reap(self: Child) -> None:
        left.append(self)
        reap(self)

    monkeypatch.setattr(Child, "reap", note_and_reap)
    hooks = Hooks()
    pilot = with_hooks(make_pilot(sh(SLEEP, **HOOKED)), hooks)
    async with pilot:
        pilot.supervisor.force(0)
    (child,) = left
    await trio.to_thread.run_sync(child._popen.wait)  # without any time nobody has
    assert hooks.of()["on_shutdown"] == 0
    assert "hook count (on_shutdown) was not called: no time was left" in notes(pilot)


async def test_a_hook_before_the_start_that_blocks_a_stop_is_named(
    make_pilot: Any, sh: Any
) -> None:
    entered, release = trio.Event(), trio.Event()

    async def deaf(process: Any, popen: Any) -> None:
        entered.set()
        with trio.CancelScope(shield=True):
            await release.wait()

    pilot = with_hooks(make_pilot(sh(SLEEP, **HOOKED)), Hooks(pre_start=deaf))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await entered.wait()
        assert pilot.supervisor.stop_wait("p") is None  # nothing stops
        assert not pilot.supervisor.blocked_by("p")
        pilot.supervisor.ask_stop_tree("enough")
        await trio.testing.wait_all_tasks_blocked()
        assert pilot.supervisor.blocked_by("p") == "hook extra (pre_start)"
        release.set()
