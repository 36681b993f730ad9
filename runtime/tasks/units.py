"""What a store of invocations brings into a tree: its runners, and the sweep that recovers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from runtime.state_backend.base import BaseStateBackend
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from .home import TaskHome
from .recovery import RecoverySettings, RecoverySweep
from .runner import Runner, RunnerSettings

#: The name of the sweep in a tree that has runners.
RECOVERY = "recovery"
_ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)


def task_units(
    home: TaskHome, runners: Sequence[RunnerSettings], recovery: RecoverySettings
) -> list[Unit]:
    """Return the units of these *runners*, and of the recovery where there are any.

    They run while *home* has an open store.
    """
    units = [_runner_unit(home, settings) for settings in runners]
    if units:
        units.append(_recovery_unit(home, recovery))
    return units


def _runner_unit(home: TaskHome, settings: RunnerSettings) -> Unit:
    async def run(*, task_status: UnitHandle) -> None:
        await Runner(home, home.state_backend, settings).run(task_status=task_status)

    return Unit(name=settings.name, body=run, kind="runner", restart=_ALWAYS)


def _recovery_unit(home: TaskHome, settings: RecoverySettings) -> Unit:
    async def run(*, task_status: UnitHandle) -> None:
        await RecoverySweep(home.state_backend, settings).run(task_status=task_status)

    return Unit(name=RECOVERY, body=run, kind="recovery", restart=_ALWAYS, keeps_alive=False)


@asynccontextmanager
async def open_store(home: TaskHome, backend: BaseStateBackend) -> AsyncGenerator[None]:
    """Have *backend* open, and the tasks of *home* submitted to it, during the block."""
    async with backend:
        with home.using(backend):
            yield
