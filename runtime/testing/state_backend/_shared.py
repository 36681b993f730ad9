"""Two that are open on one store at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.models import AppInfo, Registered, WorkflowIdentity
from runtime.invocation.moves import Recovery
from runtime.state_backend.base import BaseStateBackend

from ._kit import (
    LIMIT_SEC,
    Kit,
    S,
    asked,
    ids,
    let_time_pass,
    move,
    put,
    put_many,
    raises,
    record_of,
    runner,
    started,
)
from ._outcomes import until_watched


class SharedTests(Kit):
    """What one has done is there for the other, and neither does what the other has done."""

    @asynccontextmanager
    async def both(self) -> AsyncGenerator[tuple[BaseStateBackend, BaseStateBackend]]:
        """Open a store twice."""
        with anyio.fail_after(LIMIT_SEC):
            async with self.make_backend() as one, self.make_backend() as other:
                yield one, other

    async def test_what_one_has_written_the_other_reads(self) -> None:
        """As soon as the one knows that it is written."""
        async with self.both() as (one, other):
            for _ in range(5):
                invocation_id = await put(one)
                assert (await other.get_invocation(invocation_id)).status is S.REGISTERED
                assert ids(await other.claim("r", 1, start=True)) == [invocation_id]
                assert (await record_of(one, invocation_id)).runner_id == "r"
                await one.apply([move(invocation_id, S.SUCCESS, result="1")])
                assert (await other.get_outcome(invocation_id)).result == "1"
            workflow = WorkflowIdentity("w", "f")
            await one.set_workflow_data(workflow, "a", 1)
            assert await other.get_workflow_data(workflow, "a") == 1

    async def test_everything_is_there_when_it_is_opened_again(self) -> None:
        """Who waits, who runs, and who is held back."""
        async with self.opened() as store:
            first, second = await put_many(store, 2, running_key="k")
            await store.claim("r", 9, start=True)
            result = await started(store)
            await store.apply([move(result, S.SUCCESS, result="1")])
            before = [await store.get_invocation(each) for each in (first, second, result)]
            await store.heartbeat(runner(store, "r"))
        async with self.opened() as store:
            after = [await store.get_invocation(each) for each in (first, second, result)]
            assert after == before
            assert (await store.get_outcome(result)).result == "1"
            assert [each.runner_id for each in await store.get_runners()] == ["r"]
            await store.set_status(first, S.SUCCESS, "r")
            assert ids(await store.claim("s", 9)) == [second]

    async def test_each_is_taken_by_one(self) -> None:
        """However many ask at the same time."""
        async with self.both() as (one, other):
            wanted = await put_many(one, 40)
            taken: list[str] = []

            async def claim(store: BaseStateBackend, name: str) -> None:
                while claimed := await store.claim(name, 3, start=True):
                    taken.extend(ids(claimed))

            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(claim, (one, other)[number % 2], f"r{number}")
            assert sorted(taken) == sorted(wanted)

    async def test_keys_hold_for_both(self) -> None:
        """Of idempotency, of registration, and of running."""
        async with self.both() as (one, other):
            first = await put(one, idempotency_key="i", registration_key="g", running_key="k")
            for facts in ({"idempotency_key": "i"}, {"registration_key": "g"}):
                assert await other.register([asked(other, **facts)]) == [
                    Registered(first, False, S.REGISTERED)
                ]
            assert ids(await one.claim("r", 9)) == [first]
            second = await put(other, running_key="k")
            assert await other.claim("s", 9) == []
            await one.set_status(first, S.KILLED, "r")
            assert ids(await other.claim("s", 9)) == [second]

    async def test_one_submission_wins(self) -> None:
        """Of those with one key that come at the same time."""
        async with self.both() as (one, other):
            done: list[Registered] = []

            async def submit(store: BaseStateBackend) -> None:
                done.extend(await store.register([asked(store, idempotency_key="i")]))

            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(submit, (one, other)[number % 2])
            assert len({each.invocation_id for each in done}) == 1
            assert [each.created for each in done].count(True) == 1

    async def test_who_waits_at_one_is_told_what_the_other_has_done(self) -> None:
        """Its end, and that it is forgotten."""
        async with self.both() as (one, other):
            invocation_id, forgotten = await put(one), await put(one)
            results: list[str | None] = []

            async def wait() -> None:
                results.append((await one.wait_over(invocation_id)).result)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                group.start_soon(one.wait_over, forgotten)
                await until_watched(one, 2)
                await other.claim("r", 1, start=True)
                await other.apply([move(invocation_id, S.SUCCESS, result="1")])
                await other.cancel(forgotten, "me")
            assert results == ["1"]

    async def test_who_has_heard_of_an_end_hears_that_it_was_changed_or_forgotten(self) -> None:
        """By the other one, and soon."""
        async with self.both() as (one, other):
            invocation_id = await started(one)
            await one.apply([move(invocation_id, S.SUCCESS, result="1")])
            assert (await one.wait_over(invocation_id)).result == "1"
            await other.set_result(invocation_id, 2)
            while (await one.wait_over(invocation_id)).result != "2":  # noqa: ASYNC110 - no event
                await anyio.sleep(0.01)
            await let_time_pass(other)
            assert await other.purge(over_before=other.now()) == 1
            with raises(InvocationNotFoundError):
                while True:
                    await one.wait_over(invocation_id)
                    await anyio.sleep(0.01)

    async def test_an_owner_finds_what_another_has_asked_it_to_cancel(self) -> None:
        """Among what it owns."""
        async with self.both() as (one, other):
            invocation_id = await started(one)
            await other.cancel(invocation_id, "me")
            assert await one.get_owned("r") == {invocation_id: True}

    async def test_one_hears_of_the_others_new_runner(self) -> None:
        """That something has changed, so that it can watch it."""
        async with self.both() as (one, other):
            heard = anyio.Event()
            with other.changes.listen(lambda _: heard.set()):
                await one.heartbeat(runner(one, "r"))
                await heard.wait()
            assert [each.runner_id for each in await other.get_runners()] == ["r"]

    async def test_one_recovers_what_the_others_runner_has_left(self) -> None:
        """And the other one sees it."""
        async with self.both() as (one, other):
            await one.heartbeat(runner(one, "r"))
            assert [each.runner_id for each in await other.get_runners()] == ["r"]
            invocation_id = await started(one)
            why = Recovery("sweeper", "it is gone", 3)
            assert await other.recover(why, runners=["r"]) == [invocation_id]
            assert (await record_of(one, invocation_id)).status is S.REROUTED
            assert await one.get_runners() == []

    async def test_a_lease_holds_for_both(self) -> None:
        """One of them has it."""
        async with self.both() as (one, other):
            assert await one.take_lease("sweep", "a", 3600)
            assert not await other.take_lease("sweep", "b", 3600)
            assert await other.take_lease("sweep", "a", 0)
            assert await other.take_lease("sweep", "b", 3600)

    async def test_both_applications_are_found(self) -> None:
        """Each of its own, and both by both."""
        shop, mail = AppInfo("shop", "shop.app"), AppInfo("mail", "mail.app")
        async with self.make_backend(shop) as one, self.make_backend(mail) as other:
            assert (await one.get_app_info(), await other.get_app_info()) == (shop, mail)
            both = {"shop": shop, "mail": mail}
            assert await one.get_all_app_infos() == await other.get_all_app_infos() == both
