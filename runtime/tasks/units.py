"""What a store of invocations brings into a tree: its runners, and the sweep that recovers."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from runtime.process.host import Host
from runtime.state_backend._urls import make_state_backend
from runtime.supervision.events import Journal, UnitEvent
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from .client import open_blocking as open_blocking
from .home import TaskHome as TaskHome
from .recovery import RecoverySettings, RecoverySweep
from .runner import Runner, RunnerSettings
from .workers import WorkerPool

#: The name of the sweep in a tree that has runners.
RECOVERY = "recovery"
_ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)


def task_units(
    home: TaskHome,
    runners: Iterable[RunnerSettings | Mapping[str, Any]] | None = None,
    recovery: RecoverySettings = RecoverySettings(),  # noqa: B008 - immutable
    *,
    host: Host | None = None,
    events: Journal[UnitEvent] | None = None,
) -> list[Unit]:
    """Return the units of these *runners* (default: one), and of the recovery where there are any.

    They run while *home* has an open store. Worker processes run on *host*, and what becomes of
    them is told in *events*. Raises `TaskDefinitionError`.
    """
    home.check()
    wanted = [RunnerSettings()] if runners is None else [_settings(each) for each in runners]
    place = Host() if host is None else host
    units = [_runner_unit(home, settings, place, events) for settings in wanted]
    if units:
        units.append(_recovery_unit(home, recovery))
    return units


def _settings(runner: RunnerSettings | Mapping[str, Any]) -> RunnerSettings:
    return runner if isinstance(runner, RunnerSettings) else RunnerSettings(**runner)


def _runner_unit(
    home: TaskHome, settings: RunnerSettings, host: Host, events: Journal[UnitEvent] | None
) -> Unit:
    pool = _worker_pool(home, settings, host, events)

    async def run(*, task_status: UnitHandle) -> None:
        await Runner(home, home.state_backend, settings, pool).run(task_status=task_status)

    inner = None if pool is None else pool.supervisor
    return Unit(name=settings.name, body=run, kind="runner", restart=_ALWAYS, inner=inner)


def _worker_pool(
    home: TaskHome, settings: RunnerSettings, host: Host, events: Journal[UnitEvent] | None
) -> WorkerPool | None:
    if not any(task.options.cpu_bound for task in home.tasks.values()):
        return None
    return WorkerPool(
        home.tasks.values,
        host,
        number=settings.processes or len(os.sched_getaffinity(0)),
        path=settings.name,
        events=events,
        recycle_after=settings.recycle_after,
    )


def _recovery_unit(home: TaskHome, settings: RecoverySettings) -> Unit:
    async def run(*, task_status: UnitHandle) -> None:
        await RecoverySweep(home.state_backend, settings).run(task_status=task_status)

    return Unit(name=RECOVERY, body=run, kind="recovery", restart=_ALWAYS, keeps_alive=False)


@asynccontextmanager
async def open_store(home: TaskHome, url: str) -> AsyncGenerator[None]:
    """Have the store *url* open, and the tasks of *home* submitted to it, during the block."""
    async with make_state_backend(url) as backend:
        with home.using(backend):
            yield
