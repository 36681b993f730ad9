"""A call whose caller is cancelled has happened as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.lowlevel import checkpoint

from ._kit import Kit, S, asked, move, put_many, record_of, statuses

TICKS = range(10)


async def cancelled_after(ticks: int, call: Callable[[], Awaitable[object]]) -> None:
    """Begin *call*, and cancel it when the others have had that many turns."""
    async with anyio.create_task_group() as group:

        async def act() -> None:
            await call()

        group.start_soon(act)
        for _ in range(ticks):
            await checkpoint()
        group.cancel_scope.cancel()


class CancellationTests(Kit):
    """Cancelling who has called a store, at whatever moment."""

    async def test_a_submission_is_there_as_a_whole_or_not_at_all(self) -> None:
        """Those that are there have their history."""
        async with self.opened() as store:
            for ticks in TICKS:
                new = [asked(store) for _ in range(3)]
                before = sum((await store.count_by_status()).values())
                await cancelled_after(ticks, lambda new=new: store.register(new))  # type: ignore[misc]
                await store.wait_for_all_async_operations()
                after = sum((await store.count_by_status()).values())
                assert after - before in {0, 3}
                if after > before:
                    assert await statuses(store, new[-1].invocation_id) == [S.REGISTERED]

    async def test_what_was_taken_by_who_was_cancelled_is_owned_or_waits(self) -> None:
        """Its runner finds it among what it owns."""
        async with self.opened() as store:
            for ticks in TICKS:
                await store.purge()
                made = await put_many(store, 3)
                await cancelled_after(ticks, lambda: store.claim("r", 2, start=True))
                await store.wait_for_all_async_operations()
                owned = await store.get_owned("r")
                assert list(owned) in ([], made[:2])
                for each in owned:
                    assert (await record_of(store, each)).status is S.RUNNING
                    assert await statuses(store, each) == [S.REGISTERED, S.PENDING, S.RUNNING]

    async def test_a_list_of_moves_is_made_as_a_whole_or_not_at_all(self) -> None:
        """With the results that come along."""
        async with self.opened() as store:
            for ticks in TICKS:
                await store.purge()
                a, b = await put_many(store, 2)
                await store.claim("r", 2, start=True)
                moves = [move(each, S.SUCCESS, result="1") for each in (a, b)]
                await cancelled_after(ticks, lambda moves=moves: store.apply(moves))  # type: ignore[misc]
                await store.wait_for_all_async_operations()
                outcomes = [await store.get_outcome(each) for each in (a, b)]
                ends = {(each.status, each.result) for each in outcomes}
                assert ends in ({(S.RUNNING, None)}, {(S.SUCCESS, "1")})
                for each in (a, b):
                    await record_of(store, each)
