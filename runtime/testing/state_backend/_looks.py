"""Lists with filters and pages, counts, and forgetting."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.models import WorkflowIdentity, new_invocation_id
from runtime.state_backend._exceptions import UnknownCursorError
from runtime.state_backend.base import BaseStateBackend, InvocationFilter

from ._kit import (
    HOUR,
    OVER,
    Kit,
    S,
    asked,
    brought_to,
    ids,
    let_time_pass,
    put,
    put_many,
    raises,
    started,
)


async def found(store: BaseStateBackend, **which: object) -> list[str]:
    """Return the ids of those that fit, the newest first."""
    page = await store.list_invocations(InvocationFilter(**which))  # type: ignore[arg-type]
    assert page.next is None
    return ids(page.invocations)


class LookTests(Kit):
    """`BaseStateBackend.list_invocations`, `count_by_status`, `purge`."""

    async def test_the_newest_are_listed_first(self) -> None:
        """As they stand."""
        async with self.opened() as store:
            assert await found(store) == []
            made = await put_many(store, 5)
            await store.claim("r", 2, start=True)
            page = await store.list_invocations()
            assert ids(page.invocations) == made[::-1]
            assert page.next is None
            for stored in page.invocations:
                assert stored == await store.get_invocation(stored.invocation_id)

    async def test_filters_choose_and_combine(self) -> None:
        """Status, task, workflow, parent: all that are given must fit."""
        async with self.opened() as store:
            one, two = WorkflowIdentity("w1", "f"), WorkflowIdentity("w2", "f")
            base = store.now()
            facts: list[dict[str, Any]] = [
                {"task": "x"},
                {"task": "x", "workflow": one},
                {"task": "y", "workflow": one},
                {"task": "y", "workflow": two},
            ]
            a, b, c, d = (
                asked(
                    store,
                    invocation_id=new_invocation_id(base + timedelta(milliseconds=number)),
                    **fact,
                )
                for number, fact in enumerate(facts)
            )
            await store.register([a, b, c, d])
            child = await put(
                store,
                parent_id=a.invocation_id,
                task="x",
                invocation_id=new_invocation_id(base + HOUR),
            )
            taken = ids(await store.claim("r", 1, tasks=["y"]))
            assert taken == [c.invocation_id]
            assert await found(store, task="x") == [child, b.invocation_id, a.invocation_id]
            assert await found(store, task="nothing") == []
            assert await found(store, workflow_id="w1") == [c.invocation_id, b.invocation_id]
            assert await found(store, workflow_id="w1", task="y") == [c.invocation_id]
            assert await found(store, parent_id=a.invocation_id) == [child]
            assert await found(store, statuses=[S.PENDING]) == taken
            assert await found(store, statuses={S.PENDING}, task="x") == []
            assert await found(store, statuses=[]) == []
            assert len(await found(store, statuses=[S.PENDING, S.REGISTERED])) == 5

    async def test_a_range_of_times_chooses(self) -> None:
        """From *since* on, and before *until*."""
        async with self.opened() as store:
            made = []
            for _ in range(3):
                made.append(await put(store))
                await let_time_pass(store)
            times = [(await store.get_invocation(each)).created_at for each in made]
            assert times == sorted(set(times))
            assert await found(store, since=times[1]) == [made[2], made[1]]
            assert await found(store, until=times[1]) == [made[0]]
            assert await found(store, since=times[1], until=times[2]) == [made[1]]
            assert await found(store, since=times[2] + HOUR) == []
            assert await found(store, since=times[0] - HOUR, until=times[2] + HOUR) == made[::-1]

    async def test_pages_have_each_once(self) -> None:
        """Whatever is added, taken or ended meanwhile."""
        async with self.opened() as store:
            made = await put_many(store, 23)
            later = store.now() + HOUR
            seen: list[str] = []
            after, pages = None, 0
            while True:
                page = await store.list_invocations(limit=5, after=after)
                assert len(page.invocations) <= 5
                seen += ids(page.invocations)
                pages += 1
                if page.next is None:
                    break
                after = page.next
                await put(store, invocation_id=new_invocation_id(later + pages * HOUR))
                await store.claim("r", 1)
            assert seen == made[::-1]
            assert pages == 5

    async def test_a_page_that_is_just_full_is_the_last_one(self) -> None:
        """There is no empty one after it."""
        async with self.opened() as store:
            made = await put_many(store, 4)
            first = await store.list_invocations(limit=2)
            assert first.next is not None
            second = await store.list_invocations(limit=2, after=first.next)
            assert ids([*first.invocations, *second.invocations]) == made[::-1]
            assert second.next is None

    async def test_pages_of_a_filter_have_only_what_fits(self) -> None:
        """The cursor goes past what does not."""
        async with self.opened() as store:
            made = await put_many(store, 12)
            taken = [each.invocation_id for each in await store.claim("r", 7)]
            which, seen, after = InvocationFilter(statuses=[S.PENDING]), [], None
            for _ in range(4):
                page = await store.list_invocations(which, limit=2, after=after)
                seen += ids(page.invocations)
                after = page.next
            assert after is None
            assert seen == taken[::-1] == made[6::-1]

    async def test_the_newest_is_first_within_one_moment_as_well(self) -> None:
        """By the order of their registration, whatever their ids are."""
        async with self.opened() as store:
            moment = store.now()
            for each in (3, 1, 2):
                id_ = new_invocation_id(moment + each * HOUR)
                await put(store, invocation_id=id_, arguments=str(each))
            page = await store.list_invocations()
            assert [each.arguments for each in page.invocations] == ["2", "1", "3"]

    async def test_what_no_page_has_given_is_no_cursor(self) -> None:
        """It is refused, and not taken for some place."""
        async with self.opened() as store:
            await put_many(store, 2)
            for strange in ("x", "", "-1", "1.5", "\u0663", "9" * 40):
                with raises(UnknownCursorError) as caught:
                    await store.list_invocations(after=strange)
                assert caught.error.cursor == strange
                assert "is no cursor" in str(caught.error)

    async def test_each_status_is_counted(self) -> None:
        """Those that there are."""
        async with self.opened() as store:
            assert await store.count_by_status() == {}
            for number, status in enumerate(S, 1):
                for _ in range(number % 3 + 1):
                    await brought_to(store, status)
            counts = await store.count_by_status()
            assert counts == {status: n % 3 + 1 for n, status in enumerate(S, 1)}
            assert all(type(status) is S for status in counts)

    # --- forgetting -------------------------------------------------------------------------------

    async def test_what_is_over_for_long_is_forgotten(self) -> None:
        """With its history and its result, and nothing else."""
        async with self.opened() as store:
            made = {status: await brought_to(store, status) for status in S}
            await store.set_result(made[S.SUCCESS], 1)
            assert await store.purge(over_before=store.now() - HOUR) == 0
            border = await let_time_pass(store)
            await let_time_pass(store)
            late = await brought_to(store, S.SUCCESS)
            assert await store.purge(over_before=border) == len(OVER)
            for status, invocation_id in made.items():
                if status not in OVER:
                    await store.get_invocation(invocation_id)
                    assert await store.get_history(invocation_id)
                    continue
                for look in (store.get_invocation, store.get_history, store.get_result):
                    with raises(InvocationNotFoundError):
                        await look(invocation_id)
            await store.get_invocation(late)
            assert sorted(await found(store)) == sorted(
                [late, *(each for status, each in made.items() if status not in OVER)]
            )

    async def test_no_more_are_forgotten_than_asked_for(self) -> None:
        """The rest the next time."""
        async with self.opened() as store:
            for _ in range(5):
                await brought_to(store, S.SUCCESS)
            later = store.now() + HOUR
            done = [await store.purge(over_before=later, limit=2) for _ in range(4)]
            assert done == [2, 2, 1, 0]
            assert await store.count_by_status() == {}

    async def test_the_time_is_that_of_the_end(self) -> None:
        """Not that of the submission."""
        async with self.opened() as store:
            invocation_id = await started(store)
            border = await let_time_pass(store)
            await let_time_pass(store)
            await store.set_status(invocation_id, S.SUCCESS, "r")
            assert await store.purge(over_before=border) == 0
            assert await store.purge(over_before=store.now() + HOUR) == 1

    async def test_a_key_is_forgotten_with_its_invocation(self) -> None:
        """A task may have another one of it then."""
        async with self.opened() as store:
            first = await brought_to(store, S.SUCCESS, idempotency_key="i", registration_key="g")
            await store.purge(over_before=store.now() + HOUR)
            second = await put(store, idempotency_key="i", registration_key="g")
            assert first != second

    async def test_everything_is_forgotten_without_a_time(self) -> None:
        """Also what waits, what runs, and what workflows have kept."""
        async with self.opened() as store:
            workflow = WorkflowIdentity("w", "f")
            made = {
                status: await brought_to(store, status, running_key="k") for status in (S.PENDING,)
            }
            await put(store, running_key="k", idempotency_key="i", registration_key="g")
            await put(store, due_at=store.now() + HOUR)
            assert await store.claim("s", 9) == []
            await store.set_workflow_data(workflow, "a", 1)
            await store.set_workflow_deterministic_value(workflow, "a", 1)
            await store.store_workflow_run(workflow)
            await store.store_workflow_sub_invocation("w", made[S.PENDING])
            assert await store.purge() == 3
            assert await found(store) == []
            assert await store.count_by_status() == {}
            assert await store.claim("r", 9) == []
            assert await store.next_due() is None
            assert await store.get_owned("r") == {}
            assert await store.get_workflow_data(workflow, "a") is None
            assert await store.get_workflow_deterministic_value(workflow, "a") is None
            assert [each async for each in store.get_all_workflows_runs()] == []
            assert [each async for each in store.get_workflow_sub_invocations("w")] == []
            again = await put(store, running_key="k", idempotency_key="i", registration_key="g")
            assert ids(await store.claim("r", 9)) == [again]
            assert await store.purge() == 1
            assert await store.purge() == 0
