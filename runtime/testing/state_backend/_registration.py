"""A submission: all of it or none, and what becomes of one that there was before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from runtime.invocation.models import OnDuplicate, Registered, WorkflowIdentity
from runtime.invocation.status import InvocationStatusRecord

from ._kit import (
    HOUR,
    NOBODY,
    Heard,
    Kit,
    S,
    asked,
    brought_to,
    facts_of,
    ids,
    put,
    raises,
    statuses,
)


class RegistrationTests(Kit):
    """`BaseStateBackend.register`."""

    async def test_what_was_asked_for_is_kept(self) -> None:
        """Every field comes back, with the status registered."""
        async with self.opened() as store:
            before = store.now()
            parent = await put(store)
            new = asked(
                store,
                task="shop.tasks.resize",
                arguments='{"name": "k\\u00e4se \\ud83e\\uddc0", "n": [1, 2.5, null]}',
                queue="images",
                priority=-3,
                due_at=before + HOUR,
                idempotency_key="i",
                registration_key="g",
                on_duplicate=OnDuplicate.REJECT,
                running_key="k",
                parent_id=parent,
                workflow=WorkflowIdentity("w", "shop.tasks.all", "v"),
                retry_of=NOBODY,
            )
            assert await store.register([new]) == [
                Registered(new.invocation_id, True, S.REGISTERED)
            ]
            stored = await store.get_invocation(new.invocation_id)
            assert facts_of(stored) == new
            assert before <= stored.created_at <= store.now()
            assert stored.record == InvocationStatusRecord(
                S.REGISTERED, None, stored.record.timestamp if stored.record else before
            )
            assert (stored.attempts, stored.retries, stored.deaths) == (0, 0, 0)
            assert not stored.cancel_requested
            (line,) = await store.get_history(new.invocation_id)
            assert (line.status, line.runner_id) == (S.REGISTERED, None)

    async def test_nothing_is_registered_of_nothing(self) -> None:
        """An empty list is one."""
        async with self.opened() as store:
            assert await store.register([]) == []
            assert await store.count_by_status() == {}

    async def test_many_are_registered_at_once_in_their_order(self) -> None:
        """Each gets its answer at its place."""
        async with self.opened() as store:
            new = [asked(store, priority=each % 3) for each in range(20)]
            assert ids(await store.register(new)) == ids(new)  # type: ignore[arg-type]
            assert await store.count_by_status() == {S.REGISTERED: 20}

    async def test_an_id_that_there_is_refuses_all(self) -> None:
        """A second one of the same id is an error, in the store or in the same list."""
        async with self.opened() as store:
            there = await put(store, arguments='{"a": 1}')
            fresh = asked(store)
            again = asked(store, invocation_id=there)
            for batch in ([fresh, again], [fresh, replace(fresh, task="u")]):
                with raises(ValueError):
                    await store.register(batch)
                assert await store.count_by_status() == {S.REGISTERED: 1}
            assert (await store.get_invocation(there)).arguments == '{"a": 1}'
            await store.register([fresh])  # nothing of it was there

    async def test_changes_are_told_of_what_is_new(self) -> None:
        """And of nothing else."""
        async with self.opened() as store:
            heard = Heard()
            with store.changes.listen(heard):
                first = await put(store, idempotency_key="i")
                await store.register([asked(store, idempotency_key="i")])
            assert heard.of(first) == [(S.REGISTERED, False)]
            assert len(heard.changes) == 1

    # --- idempotency keys -------------------------------------------------------------------------

    async def test_a_task_has_one_of_each_idempotency_key_for_good(self) -> None:
        """Later ones are that one, whatever has become of it."""
        async with self.opened() as store:
            first = await put(store, idempotency_key="i")
            for moves in ([], [S.PENDING], [S.RUNNING], [S.SUCCESS]):
                for status in moves:
                    await store.set_status(first, status, "r")
                now = (await store.get_status_record(first)).status
                again = asked(store, idempotency_key="i", on_duplicate=OnDuplicate.REJECT)
                assert await store.register([again]) == [Registered(first, False, now)]
            assert await store.count_by_status() == {S.SUCCESS: 1}

    async def test_another_task_has_idempotency_keys_of_its_own(self) -> None:
        """And so has one without a key."""
        async with self.opened() as store:
            first = await put(store, idempotency_key="i")
            second = await put(store, idempotency_key="i", task="u")
            assert len({first, second, await put(store), await put(store)}) == 4

    async def test_two_of_one_idempotency_key_in_one_list_are_one(self) -> None:
        """The first of them."""
        async with self.opened() as store:
            a, b = asked(store, idempotency_key="i"), asked(store, idempotency_key="i")
            assert await store.register([a, b]) == [
                Registered(a.invocation_id, True, S.REGISTERED),
                Registered(a.invocation_id, False, S.REGISTERED),
            ]

    # --- registration keys ------------------------------------------------------------------------

    async def test_a_duplicate_is_the_first_one_while_that_is_not_over(self) -> None:
        """Waiting, held, running or paused: they are not over."""
        async with self.opened() as store:
            for status in S:
                key = f"key of {status}"
                first = await brought_to(store, status, registration_key=key)
                again = asked(store, registration_key=key)
                (done,) = await store.register([again])
                if status.is_over():
                    assert done == Registered(again.invocation_id, True, S.REGISTERED), status
                else:
                    assert done == Registered(first, False, status), status

    async def test_a_duplicate_that_is_to_be_rejected_ends_at_once(self) -> None:
        """It is kept, with its history, and does not stand in the way of others."""
        async with self.opened() as store:
            first = await put(store, registration_key="g")
            again = asked(store, registration_key="g", on_duplicate=OnDuplicate.REJECT)
            done = await store.register([again])
            final = S.CONCURRENCY_CONTROLLED_FINAL
            assert done == [Registered(again.invocation_id, True, final)]
            assert await statuses(store, again.invocation_id) == [S.REGISTERED, final]
            assert ids(await store.claim("r", 9, start=True)) == [first]
            await store.set_status(first, S.SUCCESS, "r")
            third = asked(store, registration_key="g", on_duplicate=OnDuplicate.REJECT)
            assert await store.register([third]) == [
                Registered(third.invocation_id, True, S.REGISTERED)
            ]

    async def test_two_of_one_registration_key_in_one_list(self) -> None:
        """The second is a duplicate of the first."""
        async with self.opened() as store:
            a, b = asked(store, registration_key="g"), asked(store, registration_key="g")
            c = asked(store, registration_key="g", on_duplicate=OnDuplicate.REJECT)
            assert await store.register([a, b, c]) == [
                Registered(a.invocation_id, True, S.REGISTERED),
                Registered(a.invocation_id, False, S.REGISTERED),
                Registered(c.invocation_id, True, S.CONCURRENCY_CONTROLLED_FINAL),
            ]

    async def test_one_that_is_rerouted_has_its_registration_key_again(self) -> None:
        """Killed it is over, rerouted it is not."""
        async with self.opened() as store:
            first = await brought_to(store, S.KILLED, registration_key="g")
            await store.set_status(first, S.REROUTED)
            again = asked(store, registration_key="g")
            assert await store.register([again]) == [Registered(first, False, S.REROUTED)]

    # --- as pynenc's stores do --------------------------------------------------------------------

    async def test_one_is_stored_first_and_registered_later(self) -> None:
        """Until then it has no status, and nobody takes it."""
        async with self.opened() as store:
            new = asked(store, due_at=store.now() - timedelta(seconds=1), priority=2)
            await store.upsert_invocation(new)
            stored = await store.get_invocation(new.invocation_id)
            assert (facts_of(stored), stored.record, stored.status) == (new, None, None)
            assert await store.claim("r", 9) == []
            assert await store.count_by_status() == {}
            record = await store.set_status(new.invocation_id, S.REGISTERED)
            assert (record.status, record.runner_id) == (S.REGISTERED, None)
            assert ids(await store.claim("r", 9)) == [new.invocation_id]

    async def test_what_is_stored_again_is_what_was_asked_for_last(self) -> None:
        """Its status, its owner and its counts stay."""
        async with self.opened() as store:
            new = asked(store)
            await store.register([new])
            await store.claim("r", 1, start=True)
            before = await store.get_invocation(new.invocation_id)
            later = replace(new, arguments='{"a": 2}', priority=5, queue="other")
            await store.upsert_invocation(later)
            after = await store.get_invocation(new.invocation_id)
            assert facts_of(after) == later
            assert (after.record, after.attempts) == (before.record, 1)

    async def test_one_that_waits_and_is_stored_again_waits_as_it_is_then(self) -> None:
        """In its new queue, with its new priority."""
        async with self.opened() as store:
            new = [asked(store), asked(store)]
            await store.register(new)
            await store.upsert_invocation(replace(new[1], priority=1))
            await store.upsert_invocation(replace(new[0], queue="other"))
            assert ids(await store.claim("r", 1)) == [new[1].invocation_id]
            assert await store.claim("r", 1, queues=["default"]) == []
            assert ids(await store.claim("r", 1, queues=["other"])) == [new[0].invocation_id]
