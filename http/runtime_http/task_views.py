"""Makes the models of the HTTP face from tasks and their invocations."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from pydantic import JsonValue

from runtime._secrets import Secrets
from runtime.invocation import (
    InvocationNotFoundError,
    InvocationStatus,
    Outcome,
    StoredInvocation,
)
from runtime.state_backend import InvocationHistory
from runtime.tasks import Task

from .models import (
    ErrorView,
    HistoryLine,
    InvocationHistoryView,
    InvocationResult,
    InvocationTimes,
    InvocationView,
    TaskView,
)

#: So many characters of arguments are in a list of invocations.
MOST_ARGUMENTS = 500


def view_task(task: Task[..., Any]) -> TaskView:
    """Return a task as a list shows it."""
    lines = (task.function.__doc__ or "").strip().splitlines()
    return TaskView(
        name=task.name,
        description=lines[0] if lines else "",
        parameters=list(task.signature.names),
        queue=task.options.queue,
    )


def view_invocation(stored: StoredInvocation) -> InvocationView:
    """Return how an invocation stands."""
    if stored.record is None:
        raise InvocationNotFoundError(stored.invocation_id)
    return InvocationView(
        invocation_id=stored.invocation_id,
        task=stored.task,
        status=stored.record.status,
        runner_id=stored.record.runner_id,
        arguments=json.loads(stored.arguments),
        timestamps=InvocationTimes(
            created_at=stored.created_at,
            changed_at=stored.record.timestamp,
            due_at=stored.due_at,
        ),
        parent=stored.parent_id,
        workflow=None if stored.workflow is None else stored.workflow.workflow_id,
        queue=stored.queue,
        priority=stored.priority,
        attempts=stored.attempts,
        cancel_requested=stored.cancel_requested,
        retry_of=stored.retry_of,
    )


def view_briefly(stored: StoredInvocation) -> InvocationView:
    """Return how an invocation stands, for a list: of long arguments there is the beginning."""
    text = stored.arguments
    if len(text) <= MOST_ARGUMENTS:
        return view_invocation(stored)
    view = view_invocation(replace(stored, arguments="null"))
    return view.model_copy(update={"arguments": f"{text[:MOST_ARGUMENTS]}…", "arguments_cut": True})


def view_history(lines: Iterable[InvocationHistory], secrets: Secrets) -> InvocationHistoryView:
    """Return the history of an invocation, *secrets* hidden in what is remarked in it."""
    return InvocationHistoryView(
        [
            HistoryLine(
                status=line.status,
                timestamp=line.timestamp,
                runner_id=line.runner_id,
                context=None
                if line.execution_context is None
                else cast("JsonValue", secrets.mask_data(json.loads(line.execution_context))),
            )
            for line in lines
        ]
    )


def view_result(outcome: Outcome, secrets: Secrets) -> InvocationResult:
    """Return how an invocation has ended, *secrets* hidden in its error, and not in its result.

    The error of an attempt before the last is no result.
    """
    error = outcome.error if outcome.status is InvocationStatus.FAILED else None
    result = outcome.result if outcome.status is InvocationStatus.SUCCESS else None
    return InvocationResult(
        status=outcome.status,
        result=_parsed(result),
        error=None
        if error is None
        else ErrorView(
            type=error.type,
            message=secrets.mask(error.message),
            traceback=secrets.mask(error.traceback),
        ),
    )


def _parsed(text: str | None) -> Any:  # noqa: ANN401 - whatever JSON holds
    return None if text is None else json.loads(text)
