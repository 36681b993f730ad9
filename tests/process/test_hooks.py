"""Functions of plugins are called on the loop when they are coroutines, else in a thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime.process.hooks import call_plugin


@pytest.fixture
def limiter() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(1)


def in_loop_thread() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def plain(*args: object) -> tuple[object, ...]:
    return (*args, in_loop_thread())


async def coroutine(*args: object) -> tuple[object, ...]:
    await trio.lowlevel.checkpoint()
    return (*args, in_loop_thread())


class CallableObject:
    def __call__(self, *args: object) -> tuple[object, ...]:
        return plain(*args)


class AsyncCallableObject:
    async def __call__(self, *args: object) -> tuple[object, ...]:
        return await coroutine(*args)


class WithMethods:
    def plain(self, *args: object) -> tuple[object, ...]:
        return plain(*args)

    async def coroutine(self, *args: object) -> tuple[object, ...]:
        return await coroutine(*args)


@functools.wraps(plain)
async def coroutine_around_plain(*args: object) -> tuple[object, ...]:
    return await coroutine(*args)


@functools.wraps(coroutine)
def plain_around_coroutine(*args: object) -> tuple[object, ...]:
    return plain(*args)


@functools.wraps(coroutine)
def forwards_to_coroutine(*args: object) -> Any:
    return coroutine(*args)


@pytest.mark.parametrize(
    ("function", "on_the_loop"),
    [
        (plain, False),
        (coroutine, True),
        (functools.partial(plain), False),
        (functools.partial(coroutine), True),
        (lambda *args: plain(*args), False),  # noqa: PLW0108 - that is the case
        (lambda *args: coroutine(*args), True),  # noqa: PLW0108 - and this
        (CallableObject(), False),
        (AsyncCallableObject(), True),
        (WithMethods().plain, False),
        (WithMethods().coroutine, True),
        (coroutine_around_plain, True),
        (plain_around_coroutine, False),
        (forwards_to_coroutine, True),
    ],
    ids=[
        *("function", "coroutine function", "partial", "partial of a coroutine function"),
        *("lambda", "lambda with a coroutine", "object", "object with a coroutine"),
        *("method", "coroutine method", "coroutine that wraps a function"),
        *("function that wraps a coroutine", "function that forwards to a coroutine"),
    ],
)
async def test_any_function_is_called_once_with_its_arguments(
    function: Callable[..., Any], on_the_loop: bool, limiter: trio.CapacityLimiter
) -> None:
    assert await call_plugin(function, 1, "two", limiter=limiter) == (1, "two", on_the_loop)


async def test_what_a_function_raises_travels(limiter: trio.CapacityLimiter) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def fail_later() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    for function in (fail, fail_later):
        with pytest.raises(ZeroDivisionError):
            await call_plugin(function, limiter=limiter)


async def test_plain_functions_run_under_the_limiter_and_coroutines_do_not(
    limiter: trio.CapacityLimiter,
) -> None:
    running: list[int] = []
    most = 0
    lock = threading.Lock()

    def count() -> None:
        nonlocal most
        with lock:
            running.append(1)
            most = max(most, len(running))
        with lock:
            running.pop()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(functools.partial(call_plugin, count, limiter=limiter))
    assert most == 1
    async with limiter:
        assert await call_plugin(coroutine, limiter=limiter) == (True,)  # type: ignore[arg-type]


async def test_a_cancelled_call_abandons_the_thread_and_cancels_the_coroutine(
    limiter: trio.CapacityLimiter,
) -> None:
    release, ended = threading.Event(), threading.Event()
    cancelled = trio.Event()

    def block() -> None:
        release.wait()
        ended.set()

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with trio.open_nursery() as nursery:
        for function in (block, wait):
            nursery.start_soon(functools.partial(call_plugin, function, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert cancelled.is_set()
    assert not ended.is_set()
    release.set()
    await trio.to_thread.run_sync(ended.wait)
