"""Notes in histories, what workflows keep, and applications."""

from __future__ import annotations

import json

from runtime.invocation.models import AppInfo, WorkflowIdentity
from runtime.state_backend._exceptions import StateBackendError

from ._kit import Kit, S, asked, let_time_pass, put, raises, record_of, started

ONE = WorkflowIdentity("w1", "shop.tasks.all")
TWO = WorkflowIdentity("w2", "shop.tasks.all", parent_workflow_id="w1")
THREE = WorkflowIdentity("w3", "shop.tasks.some")


class RecordTests(Kit):
    """What pynenc's stores keep beside invocations."""

    async def test_a_note_in_the_history_moves_nothing(self) -> None:
        """With a status or without."""
        async with self.opened() as store:
            invocation_id = await started(store)
            before = await store.get_invocation(invocation_id)
            await store.add_history(invocation_id, execution_context={"note": "käse"})
            await store.add_history(before, S.SUCCESS)
            assert await store.get_invocation(invocation_id) == before
            lines = await store.get_history(before)
            assert [line.status for line in lines] == [
                *(S.REGISTERED, S.PENDING, S.RUNNING, None, S.SUCCESS),
            ]
            assert json.loads(lines[3].execution_context or "") == {"note": "käse"}
            with raises(TypeError):
                await store.add_history(invocation_id, execution_context=object())
            await store.set_status(invocation_id, S.SUCCESS, "r")
            assert (await record_of(store, invocation_id)).status is S.SUCCESS

    async def test_an_invocation_is_named_by_itself_or_its_id(self) -> None:
        """Wherever pynenc's stores take one."""
        async with self.opened() as store:
            new = asked(store)
            await store.register([new])
            await store.set_result(new, 1)
            assert await store.get_result(new.invocation_id) == await store.get_result(new) == 1
            await store.set_exception(new, KeyError("x"))
            assert isinstance(await store.get_exception(new), KeyError)
            assert await store.get_history(new) == await store.get_history(new.invocation_id)

    async def test_what_was_asked_for_is_written_after_the_barrier(self) -> None:
        """That of all, and that of one."""
        async with self.opened() as store:
            invocation_id = await put(store)
            await store.set_result(invocation_id, 1)
            await store.wait_for_all_async_operations()
            await store.wait_for_invocation_async_operations(invocation_id)
            assert await store.get_result(invocation_id) == 1

    async def test_a_workflow_keeps_values(self) -> None:
        """The last one of each key; other workflows have their own."""
        async with self.opened() as store:
            assert await store.get_workflow_data(ONE, "a") is None
            assert await store.get_workflow_data(ONE, "a", 7) == 7
            values: list[object] = [{"n": [1, 2.5, "käse"]}, None, 0]
            for value in values:
                await store.set_workflow_data(ONE, "a", value)
                assert await store.get_workflow_data(ONE, "a", 7) == value
            await store.set_workflow_data(TWO, "a", 2)
            assert await store.get_workflow_data(ONE, "a") == 0
            assert await store.get_workflow_data(ONE, "b", "none") == "none"
            for unfit, kind in ((object(), TypeError), (float("nan"), ValueError)):
                with raises(kind):
                    await store.set_workflow_data(ONE, "a", unfit)
            assert await store.get_workflow_data(ONE, "a") == 0

    async def test_what_was_decided_once_stays(self) -> None:
        """The first value of each key."""
        async with self.opened() as store:
            assert await store.get_workflow_deterministic_value(ONE, "a") is None
            for value in ([1], 2, None):
                await store.set_workflow_deterministic_value(ONE, "a", value)
                assert await store.get_workflow_deterministic_value(ONE, "a") == [1]
            await store.set_workflow_deterministic_value(TWO, "a", 2)
            assert await store.get_workflow_deterministic_value(TWO, "a") == 2
            assert await store.get_workflow_data(ONE, "a") is None
            with raises(TypeError):
                await store.set_workflow_deterministic_value(ONE, "b", object())

    async def test_runs_of_workflows_are_found_by_their_types(self) -> None:
        """Each once, however often it was stored."""
        async with self.opened() as store:
            assert [each async for each in store.get_all_workflows()] == []
            for run in (ONE, TWO, THREE, ONE):
                await store.store_workflow_run(run)
            types = [each async for each in store.get_all_workflows()]
            assert sorted(types) == ["shop.tasks.all", "shop.tasks.some"]
            runs = [each async for each in store.get_all_workflows_runs()]
            assert sorted(runs, key=lambda run: run.workflow_id) == [ONE, TWO, THREE]
            some = [each async for each in store.get_workflow_runs("shop.tasks.all")]
            assert sorted(some, key=lambda run: run.workflow_id) == [ONE, TWO]
            assert [each async for each in store.get_workflow_runs("nothing")] == []

    async def test_what_runs_inside_a_workflow_is_listed(self) -> None:
        """In the order in which it was stored, each once."""
        async with self.opened() as store:
            made = [await put(store) for _ in range(3)]
            for each in (*made, made[0]):
                await store.store_workflow_sub_invocation("w1", each)
                await let_time_pass(store)
            assert [each async for each in store.get_workflow_sub_invocations("w1")] == made
            assert [each async for each in store.get_workflow_sub_invocations("w2")] == []

    async def test_applications_are_found(self) -> None:
        """By their ids, as they were stored last."""
        async with self.opened() as store:
            assert await store.get_all_app_infos() == {}
            shop, mail = AppInfo("shop", "shop.app"), AppInfo("mail", "mail.app")
            for each in (AppInfo("shop", "old"), shop, mail):
                await store.store_app_info(each)
            assert await store.get_all_app_infos() == {"shop": shop, "mail": mail}
            with raises(StateBackendError):
                await store.get_app_info()

    async def test_the_application_of_a_store_is_found_in_it(self) -> None:
        """It is stored when the store is opened."""
        shop = AppInfo("shop", "shop.app")
        async with self.make_backend(shop) as store:
            assert await store.get_app_info() == shop
            assert await store.get_all_app_infos() == {"shop": shop}
