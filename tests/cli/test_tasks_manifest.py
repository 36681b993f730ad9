"""Tasks, runners and jobs of a manifest, in a tree of this test's own loop."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from runtime import Application, load_manifest
from runtime.cli._check import describe
from runtime.cli._drawing import draw, to_dot, to_mermaid
from runtime.state_backend.base import InvocationFilter
from runtime.supervision.graph import Stage

LIMIT_SEC = 30
CODE = """
from runtime import Application

app = Application()
done = []

@app.task
async def note(words: str) -> str:
    done.append(words)
    return words

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
