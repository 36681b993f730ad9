"""Tasks, runners and jobs of a manifest, in a tree of this test's own loop."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import trio
import yaml

from runtime import Application, load_manifest
from runtime.cli._check import describe
from runtime.cli._drawing import draw, to_dot, to_mermaid
from runtime.state_backend.base import InvocationFilter
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage

LIMIT_SEC = 30
CODE = """
import trio
from runtime import Application

app = Application()
done = []
begun = trio.Event()

@app.task
async def note(words: str) -> str:
    done.append(words)
    return words

@app.task
async def wait_twice() -> str:
    if not begun.is_set():
        begun.set()
        await trio.sleep_forever()
    return "went on"

@app.task
async def fail() -> None:
    raise RuntimeError("no luck")
"""
Write = Callable[..., Path]
_numbers = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a manifest and its module of tasks, whose name nobody else has."""
    monkeypatch.setattr("sys.path", [*sys.path])

    def written(**keys: Any) -> Path:
        module = f"manifest_tasks_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(CODE)
        tasks = {"modules": [module], **keys.pop("tasks", {})}
        path = tmp_path / "manifest.yaml"
        path.write_text(yaml.safe_dump({"tasks": tasks, **keys}))
        return path

    return written


async def test_who_waits_for_a_job_starts_when_its_call_has_succeeded(write: Write) -> None:
    after = [{"name": "migrate", "condition": "completed_successfully"}]
    path = write(
        tasks={"state_backend": "sqlite:///calls.db"},
        jobs=[{"name": "migrate", "task": "note", "arguments": {"words": "up"}}],
        services=[{"name": "s", "class": "runtime.service.plain:idle", "dependencies": after}],
    )
    with trio.fail_after(LIMIT_SEC):
        async with Application(load_manifest(path)) as app:
            assert app.supervisor.status("migrate").stage is Stage.COMPLETED
            assert app.supervisor.status("s").stage is Stage.READY
            (call,) = (await app.state_backend.list_invocations(InvocationFilter())).invocations
            assert (call.status, call.attempts) == ("success", 1)
    assert (path.parent / "calls.db").exists()


async def test_a_job_that_fails_holds_back_who_waits_for_it(write: Write) -> None:
    after = [{"name": "migrate", "condition": "completed_successfully"}]
    path = write(
        jobs=[
            {"name": "migrate", "task": "fail"},
            {"name": "later", "task": "fail", "dependencies": after},
        ]
    )
    with trio.fail_after(LIMIT_SEC):
        async with trio.open_nursery() as nursery:
            app = Application(load_manifest(path), keep=True)
            nursery.start_soon(app.start)
            await app.supervisor.wait_settled()
            status = app.supervisor.status("migrate")
            assert status.stage is Stage.FAILED
            assert "no luck" in status.reason
            assert app.supervisor.status("later").stage is Stage.HELD
            await app.stop()


async def test_runners_restart_and_go_on(write: Write) -> None:
    path = write(tasks={"runners": [{"name": "one"}, {"name": "two", "queues": ["mails"]}]})
    with trio.fail_after(LIMIT_SEC):
        async with Application(load_manifest(path)) as app:
            assert {"one", "two", "recovery"} <= set(app.supervisor.names)
            await app.supervisor.restart_unit("one")
            assert app.supervisor.status("one").stage is Stage.READY
            invocation = await app.tasks.find("note").submit("again")
            assert await invocation.result() == "again"


async def test_processes_wait_for_runners_and_jobs_and_runners_for_processes(write: Write) -> None:
    after = {"name": "first", "condition": "completed_successfully"}
    path = write(
        tasks={"runners": [{"name": "r", "dependencies": ["db"]}]},
        jobs=[{"name": "first", "task": "note", "arguments": {"words": "up"}}],
        processes=[
            {"name": "db", "path": "sleep", "args": ["1000"]},
            {"name": "api", "path": "sleep", "args": ["1000"], "dependencies": ["r", after]},
        ],
    )
    with trio.fail_after(LIMIT_SEC):
        async with Application(load_manifest(path)) as app:
            moves = [
                (entry.item.unit, entry.item.new)
                for entry in app.supervisor.events.tail(1000)
                if entry.item.kind is EventKind.MOVED
            ]
    places = {move: place for place, move in enumerate(moves)}
    assert places["db", "running"] < places["r", "starting"] < places["r", "running"]
    assert places["r", "running"] < places["first", "stopped"] < places["api", "starting"]


async def test_a_runner_is_restarted_with_its_group_and_takes_it_along(write: Write) -> None:
    path = write(
        tasks={"runners": [{"name": "r", "drain_sec": 0}]},
        processes=[{"name": "db", "path": "sleep", "args": ["1000"]}],
        groups=[{"name": "both", "strategy": "one_for_all", "members": ["db", "r"]}],
    )
    with trio.fail_after(LIMIT_SEC):
        async with Application(load_manifest(path)) as app:
            supervisor, pilot = app.supervisor, app.pilot
            assert pilot is not None
            task = app.tasks.find("wait_twice")
            invocation = await task.submit()
            await task.function.__globals__["begun"].wait()
            os.kill(pilot.get_process_by_name("db").pid, SIGKILL)
            assert await invocation.result() == "went on"
            history = [line.status for line in await invocation.history()]
            assert history[3:5] == ["killed", "rerouted"]
            await supervisor.wait_until("db", Stage.READY)
            assert [supervisor.status(name).generation for name in ("db", "r")] == [2, 2]
            await supervisor.restart_unit("r")
            await supervisor.wait_until("db", Stage.READY)
            assert [supervisor.status(name).generation for name in ("db", "r")] == [3, 3]


async def test_without_runners_a_unit_may_be_called_recovery(write: Write) -> None:
    idle = {"name": "recovery", "class": "runtime.service.plain:idle"}
    path = write(tasks={"runners": []}, services=[idle])
    with trio.fail_after(LIMIT_SEC):
        async with Application(load_manifest(path)) as app:
            assert list(app.supervisor.names) == ["recovery"]


def test_runners_and_jobs_are_counted_and_drawn(write: Write) -> None:
    path = write(jobs=[{"name": "j", "task": "fail", "dependencies": ["runner"]}])
    manifest = load_manifest(path)
    assert describe(manifest) == "no processes, 1 runner, 1 job, 1 dependency"
    drawing = draw(manifest)
    assert [(n.name, n.readiness) for n in drawing.nodes] == [("runner", "runner"), ("j", "job")]
    assert 'n0["runner"]:::runner' in to_mermaid(drawing)
    assert '"runner" -> "j"' in to_dot(drawing)
