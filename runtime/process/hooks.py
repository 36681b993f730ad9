"""How a function of a plugin is called, whether it is a plain one or a coroutine function."""

import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import trio

T = TypeVar("T")


def one_at_a_time(function: Callable[..., Awaitable[T] | T]) -> Callable[..., Awaitable[T] | T]:
    """Return *function* in a form that refuses to be called while an earlier call goes on.

    A thread that was left to itself is such a call: then it raises `RuntimeError`. Coroutine
    functions are cancelled instead, and stay as they are.
    """
    if inspect.iscoroutinefunction(function):
        return function
    under_way = threading.Lock()

    def call(*args: object) -> Awaitable[T] | T:
        if not under_way.acquire(blocking=False):
            raise RuntimeError("the call before this one has not returned yet")
        try:
            return function(*args)
        finally:
            under_way.release()

    return call


async def call_plugin(
    function: Callable[..., Awaitable[T] | T],
    *args: object,
    limiter: trio.CapacityLimiter,
    thread_name: str | None = None,
) -> T:
    """Call a function of a plugin and return what it returns.

    A plain function runs in a worker thread, under a *limiter* of plugins' own, called
    *thread_name* if that is given. Cancelled, a coroutine function is cancelled; a thread cannot
    be, and is left to itself.
    """
    if inspect.iscoroutinefunction(function):
        return await cast("Awaitable[T]", function(*args))

    def call() -> tuple[Any]:
        return (function(*args),)  # in a tuple, for Trio refuses what looks like a coroutine

    (result,) = await trio.to_thread.run_sync(
        call, limiter=limiter, abandon_on_cancel=True, thread_name=thread_name
    )
    if inspect.isawaitable(result):  # a plain function that returns a coroutine, as a lambda does
        result = await result
    return cast("T", result)
