"""Tasks and their invocations: to submit, to look at, to cancel and to try again."""

# quart-schema makes answers of models; Quart's types know nothing of that.
# pyright: reportArgumentType=false

from quart_schema import document_request, tag, validate_querystring, validate_response

from runtime.application import Application
from runtime.invocation import InvocationNotFoundError
from runtime.state_backend import BaseStateBackend
from runtime.state_backend.base import InvocationFilter
from runtime.tasks.invocation import cancel, retry
from runtime_http._quart import Blueprint, read_json
from runtime_http.models import (
    InvocationHistoryView,
    InvocationList,
    InvocationQuery,
    InvocationResult,
    InvocationView,
    Submitted,
    TaskList,
    TaskSubmission,
)
from runtime_http.task_views import (
    view_briefly,
    view_history,
    view_invocation,
    view_result,
    view_task,
)


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
        task = application.tasks.find(name)
        wanted = TaskSubmission.model_validate(await read_json())
        submission = task.with_options(
            delay_sec=wanted.delay_sec,
            priority=wanted.priority,
            idempotency_key=wanted.idempotency_key,
        )
        invocation = await submission.submit_arguments(wanted.arguments)
        status = await invocation.status()
        return Submitted(invocation_id=invocation.invocation_id, status=status), 202

    return blueprint


def make_invocations(application: Application) -> Blueprint:
    """Return the routes of all invocations in the store of *application*."""
    blueprint = Blueprint("invocations", __name__, url_prefix="/invocations")

    def store_of(invocation_id: str) -> BaseStateBackend:
        if not application.has_tasks:
            raise InvocationNotFoundError(invocation_id)
        return application.state_backend

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
        which = InvocationFilter(
            statuses=None if query_args.status is None else {query_args.status},
            task=query_args.task,
            workflow_id=query_args.workflow,
            parent_id=query_args.parent,
        )
        store = application.state_backend
        page = await store.list_invocations(which, limit=query_args.limit, after=query_args.after)
        return InvocationList(
            invocations=[view_briefly(each) for each in page.invocations],
            next=page.next,
            counts=await store.count_by_status() if query_args.counts else None,
        )

    @blueprint.get("/<invocation_id>")
    @validate_response(InvocationView)
    @tag(["invocations"])
    async def show(invocation_id: str) -> InvocationView:
        """Tell how an invocation stands."""
        return view_invocation(await store_of(invocation_id).get_invocation(invocation_id))

    @blueprint.get("/<invocation_id>/history")
    @validate_response(InvocationHistoryView)
    @tag(["invocations"])
    async def history(invocation_id: str) -> InvocationHistoryView:
        """Tell all that has happened to an invocation, the oldest first."""
        return view_history(await store_of(invocation_id).get_history(invocation_id))

    @blueprint.get("/<invocation_id>/result")
    @validate_response(InvocationResult)
    @validate_response(InvocationResult, 202)
    @tag(["invocations"])
    async def result(invocation_id: str) -> tuple[InvocationResult, int]:
        """Tell what an invocation has returned or raised; 202 while it is not over."""
        outcome = await store_of(invocation_id).get_outcome(invocation_id)
        return view_result(outcome), 200 if outcome.status.is_over() else 202

    @blueprint.post("/<invocation_id>/cancel")
    @validate_response(InvocationView)
    @tag(["invocations"])
    async def cancel_one(invocation_id: str) -> InvocationView:
        """Cancel an invocation: at once if it waits, by its runner if it runs."""
        store = store_of(invocation_id)
        await cancel(store, invocation_id)
        return view_invocation(await store.get_invocation(invocation_id))

    @blueprint.post("/<invocation_id>/retry")
    @validate_response(InvocationView)
    @tag(["invocations"])
    async def retry_one(invocation_id: str) -> InvocationView:
        """Try again: a cancelled one goes on, of a failed one a new one is made and shown."""
        store = store_of(invocation_id)
        return view_invocation(await store.get_invocation(await retry(store, invocation_id)))

    return blueprint
