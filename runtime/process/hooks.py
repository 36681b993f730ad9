"""The functions of plugins that concern one process, and how they are called.

A plain function runs in a worker thread under a limiter of plugins' own, a coroutine function on
the loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import trio

from .popen import PopenView
from .stats import ProcessStats

if TYPE_CHECKING:
    from .models import Process

ProcessHookType = Literal["pre_start", "post_start", "on_shutdown", "on_restart"]
LifecycleHookType = Callable[["Process", PopenView | None], Awaitable[None] | None]
ReadyStrategyType = Callable[["Process", float], Awaitable[bool] | bool]
StatHandlerType = Callable[[list[ProcessStats]], Awaitable[None] | None]
HOOK_TYPES: tuple[ProcessHookType, ...] = ("pre_start", "post_start", "on_shutdown", "on_restart")

T = TypeVar("T")


async def call_plugin(
    function: Callable[..., Awaitable[T] | T], *args: object, limiter: trio.CapacityLimiter
) -> T:
    """Call a function of a plugin and return what it returns.

    Cancelled, a coroutine function is cancelled; a thread cannot be, and is left to itself.
    """
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        return await cast("Awaitable[T]", function(*args))
    result: Any = await trio.to_thread.run_sync(
        function, *args, limiter=limiter, abandon_on_cancel=True
    )
    if inspect.isawaitable(result):  # a plain function that returns a coroutine, as a lambda does
        result = await result
    return cast("T", result)
