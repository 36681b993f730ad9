"""What a store of invocations brings into a tree: its runners, and the sweep that recovers."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from types import ModuleType
from typing import Any

from runtime._problems import did_you_mean
from runtime._tasks_spec import JobEntry, TasksSpec
from runtime.process.host import Host
from runtime.state_backend._exceptions import StateBackendError
from runtime.state_backend._urls import make_state_backend as make_state_backend
from runtime.supervision.events import Journal, UnitEvent
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from ._exceptions import TaskArgumentsError, TaskError, UnknownTaskError
from .client import open_blocking as open_blocking
from .home import TaskHome as TaskHome
from .jobs import job_unit
from .recovery import RecoverySettings, RecoverySweep
from .runner import Runner, RunnerSettings
from .task import Task
from .told import InvocationNews as InvocationNews
from .workers import WorkerPool

#: The name of the sweep in a tree that has runners.
RECOVERY = "recovery"
_ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)


def task_units(
    home: TaskHome,
    runners: Iterable[RunnerSettings | Mapping[str, Any]] | None = None,
    recovery: RecoverySettings | None = None,
    *,
    keep_results_sec: float | None = None,
    host: Host | None = None,
    events: Journal[UnitEvent] | None = None,
) -> list[Unit]:
    """Return the units of these *runners* (default: one), and of the recovery where there are any.

    They run while *home* has an open store. Where nothing is said of the *recovery*, it is as the
    runners say, and forgets what has been over for *keep_results_sec* seconds (None: nothing).
    Worker processes run on *host*, and what becomes of them is told in *events*. Raises
    `TaskDefinitionError`, and `ValueError` for settings of runners that cannot be.
    """
    home.check()
    wanted = [RunnerSettings()] if runners is None else [_settings(each) for each in runners]
    place = Host() if host is None else host
    units = [_runner_unit(home, settings, place, events) for settings in wanted]
    if units:
        recovery = recovery or _recovery_for(wanted, keep_results_sec)
        units.append(_recovery_unit(home, recovery))
    return units


def _recovery_for(
    runners: Sequence[RunnerSettings], keep_results_sec: float | None
) -> RecoverySettings:
    return RecoverySettings(
        keep_results_sec=keep_results_sec,
        sweep_sec=min(each.heartbeat_sec for each in runners),
        quarantine_after=max(each.quarantine_after for each in runners),
    )


def _settings(runner: RunnerSettings | Mapping[str, Any]) -> RunnerSettings:
    if isinstance(runner, RunnerSettings):
        return runner
    known = RunnerSettings.__slots__
    for name in runner:
        if name not in known:
            problem = f"there is no setting {name!r}{did_you_mean(name, known)}"
            raise ValueError(f"runners: {problem}")
    return RunnerSettings(**runner)


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


def store_problem(url: str) -> str | None:
    """Return why there cannot be a store at *url*, as far as that is seen without opening it."""
    try:
        make_state_backend(url).look_at_place()
    except StateBackendError as error:
        return str(error)
    return None


@asynccontextmanager
async def open_store(
    home: TaskHome, url: str, news: InvocationNews | None = None
) -> AsyncGenerator[None]:
    """Have the store *url* open, and the tasks of *home* submitted to it, during the block.

    What changes in it is heard by *news*.
    """
    async with make_state_backend(url) as backend:
        heard = nullcontext() if news is None else news.listening(backend.changes)
        with home.using(backend), heard:
            yield


# --- of a manifest --------------------------------------------------------------------------------


def adopt_tasks(home: TaskHome, module: ModuleType) -> None:
    """Take all tasks of the applications in *module* into *home*; raise `ValueError` for none."""
    found = {
        id(each.origin): each.origin for each in vars(module).values() if isinstance(each, Task)
    }
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


def manifest_units(
    home: TaskHome,
    tasks: TasksSpec,
    jobs: Iterable[JobEntry],
    companions: Mapping[str, tuple[str, ...]],
    *,
    host: Host,
    events: Journal[UnitEvent],
) -> list[Unit]:
    """Return the units of the runners and jobs of a manifest; see `task_units`.

    *companions* says which units are restarted with each that is in a group.
    """
    runners = [
        (
            RunnerSettings(
                name=each.name,
                concurrency=each.concurrency,
                queues=None if each.queues is None else tuple(each.queues),
                processes=each.processes,
                recycle_after=each.recycle_after,
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
    units = [
        replace(_runner_unit(home, s, host, events), requirements=needs) for s, needs in runners
    ]
    if units:
        units.append(_recovery_unit(home, recovery))
    units += [job_unit(home, job) for job in jobs]
    return [replace(each, restarts_also=companions.get(each.name, ())) for each in units]
