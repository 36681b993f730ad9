"""Tasks and their invocations: to submit, to look at, to cancel and to try again."""

# quart-schema makes answers of models; Quart's types know nothing of that.
# pyright: reportArgumentType=false

from collections.abc import Callable
from typing import Literal

import trio
from quart_schema import document_request, tag, validate_querystring, validate_response

from runtime.application import Application
from runtime.invocation import InvocationNotFoundError
from runtime_http._quart import Blueprint, read_json
from runtime_http.feed import until
from runtime_http.invocations import StoreInvocations
from runtime_http.models import (
    InvocationHistoryView,
    InvocationList,
    InvocationQuery,
    InvocationResult,
    InvocationView,
    ResultQuery,
    Submitted,
    TaskList,
    TaskSubmission,
)
from runtime_http.task_views import view_task


def make_tasks(application: Application) -> Blueprint:
    """Return the routes of the tasks of *application*."""
    blueprint = Blueprint("tasks", __name__, url_prefix="/tasks")

    @blueprint.get("")
    @validate_response(TaskList)
    @tag(["tasks"])
    async def list_tasks() -> TaskList:
        """List the tasks."""
        tasks = application.tasks.tasks.values() if application.has_tasks else ()
        return TaskList(tasks=[view_task(each) for each in tasks])

    @blueprint.post("/<name>")
    @document_request(TaskSubmission)
    @validate_response(Submitted, 202)
    @tag(["tasks"])
    async def submit(name: str) -> tuple[Submitted, int]:
        """Submit a call of a task: it is in the store when this answers, and will be run."""
        wanted = TaskSubmission.model_validate(await read_json())
        calls = StoreInvocations(application.tasks)
        return await calls.submit(name, **dict(wanted)), 202

    return blueprint


def make_invocations(application: Application, shutdown: trio.Event) -> Blueprint:
    """Return the routes of all invocations in the store of *application*.

    At *shutdown* nothing is waited for any more.
    """
    blueprint = Blueprint("invocations", __name__, url_prefix="/invocations")

    def having(invocation_id: str) -> StoreInvocations:
        if not application.has_tasks:
            raise InvocationNotFoundError(invocation_id)
        return StoreInvocations(application.tasks, application.secrets)

    @blueprint.get("")
    @validate_querystring(InvocationQuery)
    @validate_response(InvocationList)
    @tag(["invocations"])
    async def list_invocations(query_args: InvocationQuery) -> InvocationList:
        """List the invocations, the newest first."""
        if not application.has_tasks:
            return InvocationList(
                invocations=[], next=None, counts={} if query_args.counts else None
            )
        return await StoreInvocations(application.tasks).invocations(**dict(query_args))

    @blueprint.get("/<invocation_id>")
    @validate_response(InvocationView)
    @tag(["invocations"])
    async def show(invocation_id: str) -> InvocationView:
        """Tell how an invocation stands."""
        return await having(invocation_id).invocation(invocation_id)

    @blueprint.get("/<invocation_id>/history")
    @validate_response(InvocationHistoryView)
    @tag(["invocations"])
    async def history(invocation_id: str) -> InvocationHistoryView:
        """Tell all that has happened to an invocation, the oldest first."""
        return InvocationHistoryView(await having(invocation_id).history(invocation_id))

    @blueprint.get("/<invocation_id>/result")
    @validate_querystring(ResultQuery)
    @validate_response(InvocationResult)
    @validate_response(InvocationResult, 202)
    @tag(["invocations"])
    async def result(invocation_id: str, query_args: ResultQuery) -> tuple[InvocationResult, int]:
        """Tell what an invocation has returned or raised; 202 while it is not over."""
        calls = having(invocation_id)
        found = await calls.result(invocation_id)
        if query_args.wait_sec and not found.status.is_over():
            async with until(shutdown):
                found = await calls.result(invocation_id, wait_sec=query_args.wait_sec)
        return found, 200 if found.status.is_over() else 202

    _add_changes(blueprint, having)
    return blueprint


def _add_changes(blueprint: Blueprint, having: Callable[[str], StoreInvocations]) -> None:
    def add(verb: Literal["cancel", "retry"], words: str) -> None:
        @validate_response(InvocationView)
        @tag(["invocations"])
        async def change(invocation_id: str) -> InvocationView:
            return await having(invocation_id).change_invocation(invocation_id, verb)

        change.__name__, change.__doc__ = verb, words
        blueprint.add_url_rule(f"/<invocation_id>/{verb}", verb, change, methods=["POST"])

    add("cancel", "Cancel an invocation: at once if it waits, by its runner if it runs.")
    add("retry", "Try again: a cancelled one goes on, of a failed one a new one is made and shown.")
