"""Groups and autostart in a manifest, with real processes and a service among them."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import trio

from runtime.application import Application
from runtime.manifest import Manifest
from runtime.process import ProcessManifest
from runtime.supervision._exceptions import UnknownUnitError
from runtime.supervision.graph import Stage
from runtime.supervision.supervisor import Supervisor

SLEEP = {"path": "/bin/sleep", "args": ["infinity"]}


def manifest(*processes: dict[str, Any], **settings: Any) -> Manifest:
    entries = [{**SLEEP, **process} for process in processes]
    return Manifest.model_validate({"processes": entries, **settings})


def group(strategy: str, *members: str) -> dict[str, Any]:
    return {"groups": [{"name": "web", "strategy": strategy, "members": list(members)}]}


def generations(supervisor: Supervisor) -> dict[str, int]:
    return {status.name: status.generation for status in supervisor.statuses()}


async def reached(supervisor: Supervisor, **wanted: int) -> None:
    """Return once each of these units is ready in its generation; others are as they were."""
    async for _ in supervisor.events.read(after=0):
        statuses = {name: supervisor.status(name) for name in wanted}
        if all(s.ready and s.generation == wanted[name] for name, s in statuses.items()):
            return


def kill(app: Application, name: str) -> None:
    assert app.pilot is not None
    status = app.pilot.get_running_process(name)
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)


async def test_a_crash_restarts_the_group_a_service_in_it_included() -> None:
    app = Application(
        manifest(
            {"name": "api"},
            {"name": "worker", "replicas": 2},
            {"name": "aside"},
            services=[{"name": "cache", "class": "runtime.service.plain:idle"}],
            **group("one_for_all", "api", "cache", "worker"),
        )
    )
    async with app:
        kill(app, "worker-1")
        changed = {"api": 2, "cache": 2, "worker_0": 2, "worker_1": 2}
        await reached(app.supervisor, **{k.replace("_", "-"): v for k, v in changed.items()})
        assert generations(app.supervisor)["aside"] == 1
        chain = [event.unit for event in app.supervisor.why("cache")]
        assert chain[0] == "cache"
        assert chain[-1] == "worker-1"


async def test_the_end_of_a_service_restarts_those_behind_it() -> None:
    app = Application(
        manifest(
            {"name": "front"},
            {"name": "back"},
            services=[{"name": "cache", "class": "runtime.service.plain:idle"}],
            **group("rest_for_one", "front", "cache", "back"),
        )
    )
    async with app:
        await app.supervisor.restart_unit("cache")
        await reached(app.supervisor, cache=2, back=2, front=1)


async def test_the_name_of_a_group_stands_for_its_members() -> None:
    app = Application(
        manifest(
            {"name": "api", "replicas": 2, "autostart": False},
            {"name": "worker", "autostart": False},
            {"name": "aside"},
            **group("one_for_all", "api", "worker"),
        )
    )
    async with app:
        pilot, supervisor = app.pilot, app.supervisor
        assert pilot is not None
        assert generations(supervisor) == {"api-0": 0, "api-1": 0, "worker": 0, "aside": 1}
        await pilot.start_process("web")
        assert generations(supervisor) == {"api-0": 1, "api-1": 1, "worker": 1, "aside": 1}
        await pilot.restart_processes("web")
        await reached(supervisor, **{"api-0": 2, "api-1": 2, "worker": 2})  # one round
        await pilot.stop_process("web")
        assert [s.stage for s in supervisor.statuses()].count(Stage.IDLE) == 3
        with pytest.raises(UnknownUnitError):
            await pilot.start_process("wbe")


async def test_a_process_that_was_never_started_does_not_keep_the_tree() -> None:
    app = Application(
        manifest(
            {"name": "manual", "autostart": False},
            {"name": "job", "path": "/bin/true", "args": [], "shutdown_strategy": "do_not_restart"},
        )
    )
    with trio.fail_after(30):
        await app.start()
    assert generations(app.supervisor) == {"manual": 0, "job": 1}


async def test_a_process_that_something_needs_is_started_with_it() -> None:
    app = Application(
        manifest({"name": "tools", "autostart": False}, {"name": "api", "dependencies": ["tools"]})
    )
    async with app:
        assert generations(app.supervisor) == {"tools": 1, "api": 1}


def test_a_manifest_with_groups_can_be_dumped_and_validated_again() -> None:
    made = manifest({"name": "api", "autostart": False}, **group("rest_for_one", "api"))
    assert made.unit_names("web") == ["api"] == made.unit_names("api")
    dump = made.model_dump()
    assert Manifest.model_validate(dump).model_dump() == dump


def test_a_bad_group_is_a_problem_in_python_too() -> None:
    processes = [{"name": "api", **SLEEP}]
    with pytest.raises(ValueError, match="there is no unit 'aip'; did you mean 'api'"):
        ProcessManifest.model_validate({"processes": processes, **group("one_for_all", "aip")})
