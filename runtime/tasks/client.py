"""Tasks from a program that has no event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar, final

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from .invocation import Invocation
from .task import Submission, Task

P = ParamSpec("P")
R = TypeVar("R")


@final
class BlockingClient:
    """Submits and waits for plain code, each call blocking its thread; any thread may call.

    Made by `Application.open_blocking`.
    """

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal

    def submit(
        self,
        task: Task[P, R] | Submission[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Invocation[R]:
        """Submit a call of *task*, or of ``task.with_options(...)``; see `Task.submit`."""
        return self._portal.call(partial(task.submit, *args, **kwargs))

    def result(self, invocation: Invocation[R], timeout_sec: float | None = None) -> R:
        """Return the result, see `Invocation.result`; `TimeoutError` after *timeout_sec* seconds.

        That ends the wait and nothing else.
        """

        async def wait() -> R:
            with anyio.fail_after(timeout_sec):
                return await invocation.result()

        return self._portal.call(wait)

    def call(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,  # noqa: ANN401 - what the function takes
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> R:
        """Return what a coroutine function returns, such as ``invocation.history``."""
        return self._portal.call(partial(function, *args, **kwargs))


@contextmanager
def open_blocking(
    block: Callable[[], AbstractAsyncContextManager[object]],
) -> Generator[BlockingClient]:
    """Run an event loop in a thread, and *block* in it, as long as this block lasts."""
    with start_blocking_portal("trio") as portal, portal.wrap_async_context_manager(block()):
        yield BlockingClient(portal)
