"""Who gets what, in which order, and who is held back."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain

import anyio

from runtime.invocation.status import InvocationStatusRecord

from ._kit import (
    HOUR,
    OVER,
    OWNED,
    Heard,
    Kit,
    S,
    asked,
    brought_to,
    ids,
    let_time_pass,
    move,
    put,
    put_many,
    record_of,
    started,
    statuses,
)


class ClaimTests(Kit):
    """`BaseStateBackend.claim`, `BaseStateBackend.next_due`, and running keys."""

    async def test_the_oldest_is_taken_first(self) -> None:
        """First in, first out, over several claims."""
        async with self.opened() as store:
            a = await put_many(store, 4)
            b = [await put(store), await put(store)]
            taken = [ids(await store.claim("r", limit)) for limit in (1, 3, 9)]
            assert taken == [a[:1], a[1:], b]
            assert await store.claim("r", 9) == []

    async def test_what_is_taken_is_pending_and_owned(self) -> None:
        """And says so, with its history line."""
        async with self.opened() as store:
            invocation_id = await put(store)
            (taken,) = await store.claim("me", 1)
            assert taken == await store.get_invocation(invocation_id)
            record = await record_of(store, invocation_id)
            assert (record.status, record.runner_id) == (S.PENDING, "me")
            assert taken.attempts == 0
            assert await statuses(store, invocation_id) == [S.REGISTERED, S.PENDING]
            assert [line.runner_id for line in await store.get_history(invocation_id)] == [
                None,
                "me",
            ]

    async def test_what_is_taken_may_be_running_at_once(self) -> None:
        """Both lines are in its history, and the attempt counts."""
        async with self.opened() as store:
            invocation_id = await put(store)
            (taken,) = await store.claim("me", 1, start=True)
            assert taken == await store.get_invocation(invocation_id)
            record = await record_of(store, invocation_id)
            assert (record.status, record.runner_id) == (S.RUNNING, "me")
            assert taken.attempts == 1
            assert await statuses(store, invocation_id) == [S.REGISTERED, S.PENDING, S.RUNNING]

    async def test_higher_priorities_go_first(self) -> None:
        """And within one the oldest."""
        async with self.opened() as store:
            new = [asked(store, priority=each) for each in (0, 5, -1, 5, 0, 2**31)]
            await store.register(new)
            taken = ids(await store.claim("r", 9))
            assert taken == [new[each].invocation_id for each in (5, 1, 3, 0, 4, 2)]

    async def test_priorities_hold_across_queues(self) -> None:
        """Queues that are asked for together are one."""
        async with self.opened() as store:
            a = await put(store, queue="a")
            b = await put(store, queue="b", priority=1)
            await put(store, queue="c", priority=9)
            d = await put(store, queue="a")
            assert ids(await store.claim("r", 9, queues=["b", "a"])) == [b, a, d]

    async def test_queues_and_tasks_choose(self) -> None:
        """What does not fit stays where it was."""
        async with self.opened() as store:
            a = await put(store, queue="a", task="x")
            b = await put(store, queue="b", task="x")
            c = await put(store, queue="b", task="y")
            assert await store.claim("r", 9, queues=["nothing"]) == []
            assert await store.claim("r", 9, queues=[]) == []
            assert await store.claim("r", 9, tasks=["nothing"]) == []
            assert await store.claim("r", 9, queues=["a"], tasks=["y"]) == []
            assert ids(await store.claim("r", 9, queues=["b"], tasks={"y"})) == [c]
            assert ids(await store.claim("r", 9, tasks=frozenset({"x"}))) == [a, b]

    async def test_those_of_other_tasks_keep_their_places(self) -> None:
        """Who was passed over is no later for it."""
        async with self.opened() as store:
            new = [asked(store, task="x" if each % 2 else "y") for each in range(6)]
            await store.register(new)
            wanted = [each.invocation_id for each in new]
            assert ids(await store.claim("r", 2, tasks=["x"])) == [wanted[1], wanted[3]]
            assert ids(await store.claim("r", 9)) == [wanted[0], wanted[2], wanted[4], wanted[5]]

    async def test_nothing_is_taken_by_who_wants_nothing(self) -> None:
        """A limit of 0 is one."""
        async with self.opened() as store:
            await put(store)
            assert await store.claim("r", 0) == []
            assert await store.count_by_status() == {S.REGISTERED: 1}

    async def test_each_is_taken_once(self) -> None:
        """However many ask at the same time."""
        async with self.opened() as store:
            wanted = await put_many(store, 30)
            taken: dict[str, list[str]] = {}

            async def claim(name: str) -> None:
                while claimed := await store.claim(name, 2, start=True):
                    taken.setdefault(name, []).extend(ids(claimed))

            async with anyio.create_task_group() as group:
                for each in range(5):
                    group.start_soon(claim, f"r{each}")
            assert sorted(chain.from_iterable(taken.values())) == sorted(wanted)
            for name, mine in taken.items():
                assert mine == sorted(mine)  # none before an older one
                assert await store.get_owned(name) == dict.fromkeys(mine, False)

    async def test_only_what_waits_is_taken(self) -> None:
        """Registered, rerouted and to be tried again."""
        async with self.opened() as store:
            made = {status: await brought_to(store, status) for status in S}
            waiting = {made[S.REGISTERED], made[S.REROUTED], made[S.RETRY]}
            assert set(ids(await store.claim("r", 99))) == waiting

    async def test_one_that_waits_again_is_at_its_old_place(self) -> None:
        """It is as old as it was."""
        async with self.opened() as store:
            first, *others = await put_many(store, 3)
            await store.claim("r", 1)
            await store.set_status(first, S.REROUTED, "r")
            assert ids(await store.claim("r", 9)) == [first, *others]

    # --- due times --------------------------------------------------------------------------------

    async def test_nobody_takes_what_is_not_due(self) -> None:
        """And the next time is known, for each queue."""
        async with self.opened() as store:
            now = store.now()
            assert await store.next_due() is None
            late = await put(store, due_at=now + 2 * HOUR, queue="a", priority=9)
            await put(store, due_at=now + HOUR, queue="b")
            past = await put(store, due_at=now - HOUR, queue="a")
            assert ids(await store.claim("r", 9)) == [past]
            assert await store.next_due() == now + HOUR
            assert await store.next_due(["a"]) == now + 2 * HOUR
            assert await store.next_due(["a", "b"]) == now + HOUR
            assert await store.next_due(["c"]) is None
            await store.cancel(late, "me")
            assert await store.next_due(["a"]) is None

    async def test_what_has_become_due_is_taken(self) -> None:
        """In the order of priority and age, not of the times."""
        async with self.opened() as store:
            soon = store.now() + timedelta(milliseconds=20)
            last = await put(store, due_at=soon + timedelta(milliseconds=3))
            first = await put(store, due_at=soon, priority=1)
            await let_time_pass(store, soon + timedelta(milliseconds=3))
            assert ids(await store.claim("r", 9)) == [first, last]
            assert await store.next_due() is None

    async def test_what_is_tried_again_waits_for_its_time(self) -> None:
        """The move says until when."""
        async with self.opened() as store:
            invocation_id = await brought_to(store, S.RUNNING)
            later = store.now() + HOUR
            await store.apply([move(invocation_id, S.RETRY, due_at=later)])
            assert (await store.get_invocation(invocation_id)).due_at == later
            assert await store.claim("r", 9) == []
            assert await store.next_due() == later

    async def test_what_was_delayed_once_is_not_delayed_again(self) -> None:
        """Without a time in its move it is due at once."""
        async with self.opened() as store:
            invocation_id = await put(store, due_at=store.now() + HOUR)
            await store.cancel(invocation_id, "me")
            await store.set_status(invocation_id, S.REROUTED)
            assert ids(await store.claim("r", 9)) == [invocation_id]
            assert await store.next_due() is None

    # --- running keys -----------------------------------------------------------------------------

    async def test_of_one_running_key_one_is_taken(self) -> None:
        """The others are held back, and go on one by one, the most urgent first."""
        async with self.opened() as store:
            a, b = await put_many(store, 2, running_key="k")
            c = await put(store, running_key="k", priority=-1)
            urgent = await put(store, running_key="k", priority=1)
            free, other = await put(store), await put(store, running_key="l")
            assert ids(await store.claim("r", 99)) == [urgent, free, other]
            for held in (a, b, c):
                assert (await record_of(store, held)).status is S.CONCURRENCY_CONTROLLED
            order = []
            now_running = urgent
            for _ in range(4):
                order.append(now_running)
                await store.apply([move(now_running, S.RUNNING), move(now_running, S.SUCCESS)])
                taken = await store.claim("r", 99)
                assert len(taken) <= 1
                now_running = taken[0].invocation_id if taken else ""
            assert order == [urgent, a, b, c]
            assert now_running == ""
            held_back = [S.REGISTERED, S.CONCURRENCY_CONTROLLED, S.REROUTED]
            ran = [S.PENDING, S.RUNNING, S.SUCCESS]
            assert await statuses(store, a) == [*held_back, *ran]

    async def test_a_running_key_is_free_however_its_invocation_ends(self) -> None:
        """Ended, given back, tried again, recovered: only who is owned holds a key."""
        ends = {
            S.PENDING: [S.REROUTED, S.KILLED, S.PENDING_RECOVERY],
            S.RUNNING: [S.SUCCESS, S.FAILED, S.RETRY, S.KILLED, S.RUNNING_RECOVERY],
            S.PAUSED: [S.KILLED, S.RUNNING_RECOVERY],
            S.RESUMED: [S.SUCCESS, S.FAILED, S.RETRY, S.KILLED, S.RUNNING_RECOVERY],
        }
        async with self.opened() as store:
            for before in OWNED:
                for end in ends[before]:
                    key = f"{before} {end}"
                    first = await brought_to(store, before, running_key=key, queue=key)
                    second = await put(store, running_key=key, queue=key)
                    assert await store.claim("s", 9, queues=[key]) == []
                    record = await record_of(store, second)
                    assert record.status is S.CONCURRENCY_CONTROLLED, key
                    later = store.now() + HOUR if end.is_available_for_run() else None
                    heard = Heard()
                    with store.changes.listen(heard):
                        await store.apply([move(first, end, due_at=later)])
                    assert heard.of(second) == [(S.REROUTED, False)], key
                    assert ids(await store.claim("s", 9, queues=[key])) == [second], key

    async def test_who_pauses_keeps_the_running_key(self) -> None:
        """It goes on with what it has begun."""
        async with self.opened() as store:
            first, second = await put_many(store, 2, running_key="k")
            assert ids(await store.claim("r", 9, start=True)) == [first]
            for status in (S.PAUSED, S.RESUMED, S.PAUSED):
                await store.set_status(first, status, "r")
                assert await store.claim("r", 9) == []
                assert (await record_of(store, second)).status is S.CONCURRENCY_CONTROLLED

    async def test_one_to_be_tried_again_is_held_back_without_letting_others_in(self) -> None:
        """Who holds the key goes on holding it."""
        async with self.opened() as store:
            first = await started(store, running_key="k", queue="a")
            second, third = await put_many(store, 2, running_key="k", queue="b")
            assert await store.claim("r", 9, queues=["b"]) == []
            await store.set_status(first, S.RETRY, "r")
            assert ids(await store.claim("r", 9, queues=["b"], start=True)) == [second]
            assert await store.claim("r", 9, queues=["a"]) == []
            assert (await record_of(store, first)).status is S.CONCURRENCY_CONTROLLED
            assert await store.claim("r", 9) == []
            assert await store.get_owned("r") == {second: False}
            assert (await record_of(store, third)).status is S.CONCURRENCY_CONTROLLED
            await store.set_status(second, S.SUCCESS, "r")
            assert ids(await store.claim("r", 9, start=True)) == [first]
            stored = await store.get_invocation(first)
            assert (stored.attempts, stored.retries) == (2, 1)

    async def test_cancelling_one_that_is_held_back_does_not_free_the_key(self) -> None:
        """Who holds it still does."""
        async with self.opened() as store:
            first, second, third = await put_many(store, 3, running_key="k")
            assert ids(await store.claim("r", 9)) == [first]
            record = await store.cancel(second, "me")
            assert record == InvocationStatusRecord(S.KILLED, None, record.timestamp)
            fourth = await put(store, running_key="k")
            await store.cancel(fourth, "me")  # it waits, and is not held back yet
            assert await store.claim("r", 9) == []
            assert (await record_of(store, third)).status is S.CONCURRENCY_CONTROLLED
            await store.set_status(first, S.REROUTED, "r")
            assert ids(await store.claim("r", 9)) == [first]

    async def test_cancelling_one_whose_turn_it_is_lets_the_next_one_go_on(self) -> None:
        """Nothing that is held back is forgotten."""
        async with self.opened() as store:
            first, second, third = await put_many(store, 3, running_key="k")
            await store.claim("r", 9, start=True)
            await store.set_status(first, S.SUCCESS, "r")
            assert (await record_of(store, second)).status is S.REROUTED
            await store.cancel(second, "me")
            assert ids(await store.claim("r", 9)) == [third]

    async def test_what_is_over_holds_no_key(self) -> None:
        """Nor does what waits."""
        async with self.opened() as store:
            for status in (*OVER, S.REGISTERED):
                await brought_to(store, status, running_key="k", due_at=store.now() + HOUR)
            last = await put(store, running_key="k", priority=1)
            assert ids(await store.claim("r", 1)) == [last]
