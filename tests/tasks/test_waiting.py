"""A task that waits for others is paused, and holds no slot."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime import Application
from runtime.invocation import InvocationStatus
from runtime.tasks import Invocation

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def statuses(invocation: Invocation[object]) -> list[str]:
    return [str(line.status) for line in await invocation.history()]


async def test_nested_children_need_one_slot_only() -> None:
    app = Application(runners=[{"concurrency": 1}])

    @app.task
    async def count_down(number: int) -> int:
        if number == 0:
            return 0
        child = await count_down.submit(number - 1)
        return 1 + await child.result()

    with trio.fail_after(30):
        async with app:
            invocation = await count_down.submit(5)
            assert await invocation.result() == 5
            assert await statuses(invocation) == [
                *("registered", "pending", "running", "paused", "resumed", "success"),
            ]


async def test_one_that_waits_for_many_is_paused_until_the_last_of_its_waits_is_over() -> None:
    app = Application(runners=[{"concurrency": 1}])

    @app.task
    async def square(number: int) -> int:
        await trio.sleep(number)
        return number * number

    @app.task
    async def add_up() -> int:
        total = 0
        async with square.map([(3,), (1,), (2,)]) as squares:
            async for each in squares:
                total += each
        return total

    with trio.fail_after(30):
        async with app:
            invocation = await add_up.submit()
            assert await invocation.result() == 14
            assert (await statuses(invocation)).count("paused") == 1


async def test_a_wait_that_is_given_up_resumes_its_task() -> None:
    app = Application(runners=[{"concurrency": 1}])

    @app.task
    async def slow() -> None:
        await trio.sleep(100)

    @app.task
    async def impatient() -> str:
        child = await slow.submit()
        for _ in range(2):
            with trio.move_on_after(1):
                await child.result()
        await child.cancel()
        return "gave up"

    with trio.fail_after(30):
        async with app:
            invocation = await impatient.submit()
            assert await invocation.result() == "gave up"
            assert (await statuses(invocation))[-5:] == [
                *("paused", "resumed", "paused", "resumed", "success"),
            ]


async def test_what_is_paused_and_cancelled_is_killed_with_its_children() -> None:
    app = Application(runners=[{"concurrency": 1}])
    children: list[Invocation[None]] = []
    waits = trio.Event()

    @app.task
    async def forever() -> None:
        await trio.sleep_forever()

    @app.task
    async def parent() -> None:
        children.append(await forever.submit())
        children.append(await forever.submit())
        waits.set()
        await children[0].result()

    with trio.fail_after(30):
        async with app:
            invocation = await parent.submit()
            await waits.wait()
            await wait_all_tasks_blocked()
            assert await invocation.status() is InvocationStatus.PAUSED
            await invocation.cancel()
            for each in (invocation, *children):
                assert (await each.wait()).status is InvocationStatus.KILLED
