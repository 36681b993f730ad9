"""A job: one call of a task for each run of the tree, as a unit that others may wait for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from runtime._tasks_spec import JobEntry
from runtime.invocation._exceptions import InvocationCancelledError, InvocationRejectedError
from runtime.invocation.models import Outcome
from runtime.invocation.status import InvocationStatus
from runtime.state_backend.base import MOVE_ERRORS
from runtime.supervision.unit import Unit, UnitHandle

from ._exceptions import JobFailedError
from .home import TaskHome
from .invocation import Invocation, cancel


def job_unit(home: TaskHome, job: JobEntry) -> Unit:
    """Return the unit of *job*: it submits the call, and ends as that ends.

    Stopped before, it cancels the call: it belongs to this run, and the next one makes another. One
    that was there before, and that the task's options say to reuse, is not its own, and goes on.
    """

    async def run(*, task_status: UnitHandle) -> None:
        invocation = await _submit(home, job, task_status)
        task_status.started()
        task_status.note(_words_of(invocation))
        try:
            outcome = await home.state_backend.wait_over(invocation.invocation_id)
        except trio.Cancelled:
            if invocation.created:
                with (
                    task_status.budget.polite(None, what=lambda: "its call to be cancelled"),
                    suppress(*MOVE_ERRORS),  # it has ended meanwhile, or is not there any more
                ):
                    await cancel(home.state_backend, invocation.invocation_id)
            raise
        _raise_unless_good(job, invocation, outcome)

    return Unit(name=job.name, body=run, kind="job", requirements=job.requirements)


async def _submit(  # noqa: RET503 - it sleeps for ever
    home: TaskHome, job: JobEntry, unit: UnitHandle
) -> Invocation[Any]:
    submission = home.find(job.task).with_options(priority=job.priority, queue=job.queue)
    # Shielded: what is in the store, and nobody knows of, would be run beside the next run's call.
    with unit.budget.to_the_end():
        return await submission.submit_arguments(job.arguments)
    await trio.sleep_forever()  # the time to stop is over: this is cancelled as well


def _words_of(invocation: Invocation[Any]) -> str:
    name, invocation_id = invocation.task.name, invocation.invocation_id
    if invocation.created:
        return f"calls {name} (invocation {invocation_id})"
    return f"waits for a call of {name} that was there already (invocation {invocation_id})"


def _raise_unless_good(job: JobEntry, invocation: Invocation[Any], outcome: Outcome) -> None:
    if outcome.status is InvocationStatus.KILLED:
        raise InvocationCancelledError(invocation.invocation_id)
    if outcome.status is InvocationStatus.FAILED and outcome.error is not None:
        error = outcome.error
        raise JobFailedError(job.name, invocation.task.name, error.type, error.message)
    if outcome.status is InvocationStatus.CONCURRENCY_CONTROLLED_FINAL:
        raise InvocationRejectedError(invocation.invocation_id)
