"""Where the body of a task runs: on the loop, in a thread, in a worker process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import anyio
import anyio.to_thread
import trio

from runtime.supervision.unit import current_unit

from .asking import answer
from .failures import Failure
from .running import RunningInvocation
from .workers import WorkerPool


class FailedInWorkerError(Exception):
    """A body has failed in a worker process, which has said what becomes of that."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Bodies:
    """Calls the functions of tasks; *pool* is there where some are cpu-bound."""

    def __init__(self, pool: WorkerPool | None) -> None:
        self._pool = pool
        #: The threads that were left behind and run still, as a plain function cannot be stopped:
        #: the names of the tasks, by the ids of the invocations.
        self.abandoned: dict[str, str] = {}
        # The slots are the limit; what was left behind in a thread must not take one of them.
        self._threads = anyio.CapacityLimiter(inf)

    async def call(self, running: RunningInvocation) -> str:
        """Call the function, where it belongs; return its result as JSON.

        Raises what it raises, `FailedInWorkerError`, `WorkerDiedError`.
        """
        task, signature = running.task, running.task.signature
        if task.options.cpu_bound:
            return await self._call_in_process(running)
        args, kwargs = signature.load(running.arguments_json)
        call = partial(task.function, *args, **kwargs)
        result = await (call() if task.is_async else self._call_in_thread(running, call))
        return signature.dump_result(result)

    async def _call_in_thread(self, running: RunningInvocation, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the function returns
        """Call a plain function in a thread; cancelled, leave the thread behind and say so."""
        key = running.invocation_id
        over = False

        def call_and_say() -> Any:  # noqa: ANN401 - as above
            nonlocal over
            try:
                return call()
            finally:
                over = True
                self.abandoned.pop(key, None)

        try:
            return await anyio.to_thread.run_sync(
                call_and_say, abandon_on_cancel=True, limiter=self._threads
            )
        except trio.Cancelled:
            self.abandoned[key] = running.task.name
            if over:  # at the last moment, before it was known as left behind
                self.abandoned.pop(key, None)
            else:
                note = f"a thread of {running.task.name} was left behind, it cannot be stopped"
                current_unit().note(f"{note} ({len(self.abandoned)} in all)")
            raise

    async def _call_in_process(self, running: RunningInvocation) -> str:
        if self._pool is None:  # the runner does not even claim such a task
            raise RuntimeError(f"{running.task.name} is cpu_bound, and there are no workers")
        message = {
            "invocation_id": running.invocation_id,
            "attempt": running.attempt,
            "module": running.task.module,
            "qualname": running.task.qualname,
            "arguments": running.arguments_json,
            "retries": running.retries,
        }
        what = f"{running.invocation_id} of {running.task.name}"
        ended = await self._pool.call(
            message, what, partial(answer, running.task.home.state_backend)
        )
        if "failure" in ended:
            raise FailedInWorkerError(Failure.from_json_object(ended["failure"]))
        result: str = ended["result"]
        return result
