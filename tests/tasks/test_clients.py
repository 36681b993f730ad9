"""Tasks are submitted and awaited from asyncio, and from programs without an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
import trio

from runtime import Application
from runtime.exceptions import InvocationCancelledError, NotOpenError
from runtime.invocation import InvocationStatus, Move
from runtime.state_backend.base import BaseStateBackend

_I = InvocationStatus
RUNNER = "by hand"


async def run_by_hand(backend: BaseStateBackend) -> None:
    """Do what a runner does, on whatever loop this is."""
    for stored in await backend.claim(RUNNER, 10, start=True):
        move = Move(
            invocation_id=stored.invocation_id, status=_I.SUCCESS, runner_id=RUNNER, result="7"
        )
        await backend.apply([move])


def test_the_client_side_works_under_asyncio() -> None:
    app = Application(runners=[])

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async def main() -> None:
        async with app.open_client():
            invocation = await add.submit(3, 4)
            many = await add.submit_many([(1, 6), (2, 5)])
            later = await add.with_options(delay_sec=3600).submit(1, 1)
            await later.cancel()
            with pytest.raises(InvocationCancelledError):
                await later.result()
            async with anyio.create_task_group() as group, add.map([(0, 7)]) as results:
                group.start_soon(run_by_hand, add.home.state_backend)
                assert [each async for each in results] == [7]
            assert [await each.result() for each in (invocation, *many)] == [7, 7, 7]
            assert len(await invocation.history()) == 4
            assert (await (await later.retry()).stored()).status is _I.REROUTED
        with pytest.raises(NotOpenError):
            await add.submit(1, 2)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_program_without_a_loop_runs_the_application_in_a_thread() -> None:
    app = Application()
    seen: list[Any] = []

    @app.task
    def add(a: int, b: int = 1) -> int:
        seen.append((a, b))
        return a + b

    @app.task
    async def forever() -> None:
        await trio.sleep_forever()

    with app.open_blocking(run=True) as client:
        invocation = client.submit(add, 3, b=4)
        assert client.result(invocation, timeout_sec=30) == 7
        first = client.submit(add.with_options(idempotency_key="k"), 1)
        assert client.result(first) == 2
        stuck = client.submit(forever)
        with pytest.raises(TimeoutError):
            client.result(stuck, timeout_sec=0.01)
        assert client.call(stuck.cancel).status in {_I.RUNNING, _I.KILLED}
        assert client.call(stuck.wait).status is _I.KILLED
    assert seen == [(3, 4), (1, 1)]


def test_a_program_without_a_loop_submits_to_others() -> None:
    app = Application(runners=[])

    @app.task
    def seven() -> int:
        return 7

    with app.open_blocking() as client:
        invocation = client.submit(seven)
        client.call(run_by_hand, app.state_backend)
        assert client.result(invocation) == 7
    assert not app.is_running()
