"""A job: one call of a task for each run of the tree, as a unit that others may wait for."""

from __future__ import annotations

from contextlib import suppress

import trio

from runtime._tasks_spec import JobEntry
from runtime.invocation._exceptions import (
    InvocationCancelledError,
    InvocationRejectedError,
    InvocationStatusError,
)
from runtime.invocation.status import InvocationStatus
from runtime.supervision.unit import Unit, UnitHandle

from ._exceptions import JobFailedError
from .home import TaskHome
from .invocation import cancel


def job_unit(home: TaskHome, job: JobEntry) -> Unit:
    """Return the unit of *job*: it submits the call, and ends as that ends.

    Stopped before, it cancels the call: it belongs to this run, and the next one makes another.
    """

    async def run(*, task_status: UnitHandle) -> None:
        backend, task = home.state_backend, home.find(job.task)
        submission = task.with_options(priority=job.priority, queue=job.queue)
        invocation = await submission.submit_arguments(job.arguments)
        task_status.started()
        task_status.note(f"calls {task.name} (invocation {invocation.invocation_id})")
        try:
            outcome = await backend.wait_over(invocation.invocation_id)
        except trio.Cancelled:
            with (
                task_status.budget.polite(None, what=lambda: "its call to be cancelled"),
                suppress(InvocationStatusError),  # it has ended meanwhile
            ):
                await cancel(backend, invocation.invocation_id)
            raise
        if outcome.status is InvocationStatus.KILLED:
            raise InvocationCancelledError(invocation.invocation_id)
        if outcome.status is InvocationStatus.FAILED and outcome.error is not None:
            raise JobFailedError(job.name, task.name, outcome.error.type, outcome.error.message)
        if outcome.status is InvocationStatus.CONCURRENCY_CONTROLLED_FINAL:
            raise InvocationRejectedError(invocation.invocation_id)

    return Unit(name=job.name, body=run, kind="job", requirements=job.requirements)
