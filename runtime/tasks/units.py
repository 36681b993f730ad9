"""What a store of invocations brings into a tree: its runners, and the sweep that recovers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from runtime._tasks_spec import JobEntry, TasksSpec
from runtime.state_backend._urls import make_state_backend as make_state_backend
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from ._exceptions import TaskArgumentsError, TaskError, UnknownTaskError
from .home import TaskHome as TaskHome
from .jobs import job_unit
from .recovery import RecoverySettings, RecoverySweep
from .runner import Runner, RunnerSettings
from .task import Task

#: The name of the sweep in a tree that has runners.
RECOVERY = "recovery"
_ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)


def task_units(
    home: TaskHome,
    runners: Iterable[RunnerSettings | Mapping[str, Any]] | None = None,
    recovery: RecoverySettings = RecoverySettings(),  # noqa: B008 - immutable
) -> list[Unit]:
    """Return the units of these *runners* (default: one), and of the recovery where there are any.

    They run while *home* has an open store.
    """
    wanted = [RunnerSettings()] if runners is None else [_settings(each) for each in runners]
    units = [runner_unit(home, settings) for settings in wanted]
    if units:
        units.append(_recovery_unit(home, recovery))
    return units


def _settings(runner: RunnerSettings | Mapping[str, Any]) -> RunnerSettings:
    return runner if isinstance(runner, RunnerSettings) else RunnerSettings(**runner)


def runner_unit(home: TaskHome, settings: RunnerSettings) -> Unit:
    """Return the unit of one runner, which is started again whenever it ends unasked."""

    async def run(*, task_status: UnitHandle) -> None:
        await Runner(home, home.state_backend, settings).run(task_status=task_status)

    return Unit(name=settings.name, body=run, kind="runner", restart=_ALWAYS)


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


# --- of a manifest --------------------------------------------------------------------------------


def adopt_tasks(home: TaskHome, module: ModuleType) -> None:
    """Take all tasks of the applications in *module* into *home*; raise `ValueError` for none."""
    found = {id(each.home): each.home for each in vars(module).values() if isinstance(each, Task)}
    if not found:
        raise ValueError(f"module {module.__name__!r} has no task; make one with @app.task")
    for other in found.values():
        if other is not home and isinstance(other, TaskHome):
            home.adopt(other)


def signature_problems(home: TaskHome) -> Iterator[str]:
    """Yield what is wrong with the definitions of tasks."""
    for task in home.tasks.values():
        try:
            _ = task.signature
        except TaskError as error:
            yield str(error)


def call_problems(
    home: TaskHome, name: str, arguments: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a call by name: with the ``task``, or with its ``arguments``."""
    try:
        home.find(name).signature.check(arguments)
    except UnknownTaskError as error:
        yield "task", str(error)
    except TaskArgumentsError as error:
        for problem in error.problems:
            yield "arguments", problem
    except TaskError:
        return  # it is told where the tasks are


def manifest_units(home: TaskHome, tasks: TasksSpec, jobs: Iterable[JobEntry]) -> list[Unit]:
    """Return the units of the runners and jobs of a manifest."""
    runners = [
        (
            RunnerSettings(
                name=each.name,
                concurrency=each.concurrency,
                queues=None if each.queues is None else tuple(each.queues),
                processes=each.processes,
                heartbeat_sec=tasks.heartbeat_sec,
                lease_sec=tasks.lease_sec,
                quarantine_after=tasks.quarantine_after,
                drain_sec=each.drain_sec,
            ),
            each.requirements,
        )
        for each in tasks.runners
    ]
    recovery = RecoverySettings(
        sweep_sec=tasks.heartbeat_sec,
        max_pending_sec=tasks.max_pending_sec,
        quarantine_after=tasks.quarantine_after,
        keep_results_sec=tasks.keep_results_sec,
    )
    units = [replace(runner_unit(home, s), requirements=needs) for s, needs in runners]
    if units:
        units.append(_recovery_unit(home, recovery))
    return [*units, *(job_unit(home, job) for job in jobs)]
