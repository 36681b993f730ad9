"""What may be asked of the store of some tasks, in the models of the HTTP face.

The routes answer by it, and the command line where it has opened a store itself.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import trio

from runtime._secrets import Secrets
from runtime.invocation import InvocationStatus
from runtime.state_backend import InvocationFilter
from runtime.tasks import TaskHome
from runtime.tasks.invocation import cancel, retry

from .models import HistoryLine, InvocationList, InvocationResult, InvocationView, Submitted
from .task_views import view_briefly, view_history, view_invocation, view_result


class StoreInvocations:
    """The invocations in the store that the tasks of *home* are submitted to, while it is open.

    It has the methods of `runtime_http.Client` that concern them. They raise what the store and
    the tasks raise: `InvocationNotFoundError`, `InvocationStatusError`, `UnknownTaskError`,
    `TaskArgumentsError`, `StateBackendError`. *secrets* are hidden in errors and histories.
    """

    def __init__(self, home: TaskHome, secrets: Secrets | None = None) -> None:
        self._home = home
        self._secrets = Secrets() if secrets is None else secrets

    async def submit(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        delay_sec: float = 0,
        due_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Submit a call of a task, by ``module.function`` or the function's name alone.

        Raises `ValueError` as `Task.with_options` does.
        """
        submission = self._home.find(task).with_options(
            delay_sec=delay_sec,
            due_at=due_at,
            priority=priority,
            queue=queue,
            idempotency_key=idempotency_key,
        )
        invocation = await submission.submit_arguments(arguments or {})
        status = await invocation.status()
        return Submitted(invocation_id=invocation.invocation_id, status=status)

    async def invocations(
        self,
        *,
        status: str | Sequence[str] | None = None,
        task: str | None = None,
        workflow: str | None = None,
        parent: str | None = None,
        limit: int = 100,
        after: str | None = None,
        counts: bool = False,
    ) -> InvocationList:
        """Return invocations, the newest first, and the cursor for more; see `Client`.

        One that was stored and never registered has no status to be shown, and is left out.
        """
        wanted = [status] if isinstance(status, str) else status or ()
        which = InvocationFilter(
            statuses={InvocationStatus(each) for each in wanted} or None,
            task=task,
            workflow_id=workflow,
            parent_id=parent,
        )
        store = self._home.state_backend
        page = await store.list_invocations(which, limit=limit, after=after)
        return InvocationList(
            invocations=[view_briefly(each) for each in page.invocations],
            next=page.next,
            counts=await store.count_by_status() if counts else None,
        )

    async def invocation(self, invocation_id: str) -> InvocationView:
        """Return how an invocation stands."""
        return view_invocation(await self._home.state_backend.get_invocation(invocation_id))

    async def history(self, invocation_id: str) -> list[HistoryLine]:
        """Return all that has happened to an invocation, the oldest first."""
        lines = await self._home.state_backend.get_history(invocation_id)
        return view_history(lines, self._secrets).root

    async def result(self, invocation_id: str, *, wait_sec: float = 0) -> InvocationResult:
        """Return how an invocation has ended, or its status while it has not.

        That is waited for up to *wait_sec* seconds.
        """
        store = self._home.state_backend
        if wait_sec > 0:
            with trio.move_on_after(wait_sec):
                return view_result(await store.wait_over(invocation_id), self._secrets)
        return view_result(await store.get_outcome(invocation_id), self._secrets)

    async def change_invocation(
        self, invocation_id: str, verb: Literal["cancel", "retry"]
    ) -> InvocationView:
        """Cancel an invocation, or try it again; return how the one in question stands then."""
        store = self._home.state_backend
        if verb == "cancel":
            await cancel(store, invocation_id)
            return await self.invocation(invocation_id)
        return await self.invocation(await retry(store, invocation_id))
