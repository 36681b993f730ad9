"""Results, errors, and waiting for the end."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from runtime.invocation._exceptions import InvocationNotFoundError, NoResultError, TaskFailedError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import Outcome
from runtime.state_backend.base import BaseStateBackend
from runtime.state_backend.changes import Change

from ._kit import (
    NOBODY,
    OVER,
    Heard,
    Kit,
    S,
    asked,
    brought_to,
    ids,
    move,
    put,
    raises,
    started,
    statuses,
)


async def until_watched(store: BaseStateBackend, number: int = 1) -> None:
    """Return when that many are waited for in this loop."""
    while len(store.changes.watched) < number:
        await checkpoint()


class OutcomeTests(Kit):
    """`BaseStateBackend.get_outcome`, `BaseStateBackend.wait_over`, results and exceptions."""

    async def test_the_outcome_of_what_is_not_over_is_its_status(self) -> None:
        """Whatever that is."""
        async with self.opened() as store:
            for status in S:
                invocation_id = await brought_to(store, status)
                assert await store.get_outcome(invocation_id) == Outcome(invocation_id, status)

    async def test_a_success_after_a_failed_attempt_has_no_error(self) -> None:
        """It has ended well; the history says that it was tried again."""
        async with self.opened() as store:
            invocation_id = await started(store)
            error = ErrorRecord.of(ValueError("bad"))
            await store.apply([move(invocation_id, S.RETRY, error=error)])
            assert (await store.get_outcome(invocation_id)).error == error
            await store.claim("r", 1, start=True)
            await store.apply([move(invocation_id, S.SUCCESS, result="2")])
            outcome = await store.get_outcome(invocation_id)
            assert outcome == Outcome(invocation_id, S.SUCCESS, "2", None)
            assert await store.get_result(invocation_id) == 2
            with raises(NoResultError):
                await store.get_exception(invocation_id)

    async def test_a_result_is_recorded_once(self) -> None:
        """A late one is refused, of the owner as well as of others."""
        async with self.opened() as store:
            invocation_id = await started(store)
            await store.apply([move(invocation_id, S.SUCCESS, result="1")])
            for late in ("r", "s", None):
                with raises(Exception):
                    await store.apply([move(invocation_id, S.SUCCESS, late, result="2")])
            assert (await store.get_outcome(invocation_id)).result == "1"
            assert (await statuses(store, invocation_id)).count(S.SUCCESS) == 1

    async def test_results_are_whatever_json_holds(self) -> None:
        """None as well, which is a result."""
        async with self.opened() as store:
            invocation_id = await put(store)
            with raises(NoResultError) as caught:
                await store.get_result(invocation_id)
            assert (caught.error.invocation_id, caught.error.wanted) == (invocation_id, "result")
            nested = {"käse": ["\U0001f9c0", 1.5, None]}
            values: list[object] = [None, 0, "", [], nested, "x" * 300_000]
            for value in values:
                await store.set_result(invocation_id, value)
                assert await store.get_result(invocation_id) == value
            for unfit, kind in ((float("nan"), ValueError), (object(), TypeError)):
                with raises(kind):
                    await store.set_result(invocation_id, unfit)
            assert await store.get_result(invocation_id) == "x" * 300_000
            assert await statuses(store, invocation_id) == [S.REGISTERED]

    async def test_an_exception_comes_back_as_its_own_class(self) -> None:
        """Or as words, where JSON does not hold its data."""
        async with self.opened() as store:
            invocation_id = await put(store)
            with raises(NoResultError) as caught:
                await store.get_exception(invocation_id)
            assert caught.error.wanted == "exception"
            await store.set_exception(invocation_id, KeyError("käse", 7))
            back = await store.get_exception(invocation_id)
            assert (type(back), back.args) == (KeyError, ("käse", 7))
            await store.set_exception(invocation_id, ValueError(object()))
            assert isinstance(await store.get_exception(invocation_id), TaskFailedError)
            assert await statuses(store, invocation_id) == [S.REGISTERED]

    # --- waiting ----------------------------------------------------------------------------------

    async def test_waiting_for_what_is_over_returns_at_once(self) -> None:
        """However it has ended."""
        async with self.opened() as store:
            for status in OVER:
                invocation_id = await brought_to(store, status)
                assert (await store.wait_over(invocation_id)).status is status
            assert store.changes.watched == []

    async def test_who_waits_is_told_of_the_end(self) -> None:
        """All who do, with the result, and not before."""
        async with self.opened() as store:
            invocation_id, other = await put(store), await put(store)
            outcomes: list[Outcome] = []
            expected = Outcome(invocation_id, S.SUCCESS, "[1]")

            async def wait(waited_for: str) -> None:
                outcomes.append(await store.wait_over(waited_for))

            async with anyio.create_task_group() as group:
                for each in (invocation_id, invocation_id, invocation_id, other):
                    group.start_soon(wait, each)
                await until_watched(store, 2)
                await store.claim("r", 9, start=True)
                for status in (S.PAUSED, S.RESUMED, S.RETRY, S.PENDING, S.RUNNING):
                    await store.set_status(invocation_id, status, "r")
                assert outcomes == []
                await store.apply([move(invocation_id, S.SUCCESS, result="[1]")])
                assert await store.wait_over(invocation_id) == expected
                await store.apply([move(other, S.FAILED)])
            assert sorted(outcomes, key=lambda each: each.status) == [
                Outcome(other, S.FAILED),
                *[expected] * 3,
            ]
            assert store.changes.watched == []

    async def test_what_is_waited_for_is_as_the_store_has_it(self) -> None:
        """Also where it was heard of before: its result was set anew, or it was forgotten."""
        async with self.opened() as store:
            invocation_id = await started(store)
            await store.apply([move(invocation_id, S.SUCCESS, result="1")])
            assert (await store.wait_over(invocation_id)).result == "1"
            await store.set_result(invocation_id, 2)
            assert (await store.wait_over(invocation_id)).result == "2"
            await store.purge()
            with raises(InvocationNotFoundError):
                await store.wait_over(invocation_id)

    async def test_what_was_killed_and_goes_on_is_waited_for(self) -> None:
        """It was over for a moment, and that was heard of."""
        async with self.opened() as store:
            invocation_id = await started(store)
            await store.apply([move(invocation_id, S.KILLED)])
            await store.set_status(invocation_id, S.REROUTED)
            with anyio.move_on_after(0) as scope:
                await store.wait_over(invocation_id)
            assert scope.cancelled_caught
            await store.claim("r", 1, start=True)
            await store.apply([move(invocation_id, S.SUCCESS, result="1")])
            assert (await store.wait_over(invocation_id)).result == "1"

    async def test_being_cancelled_is_an_end(self) -> None:
        """For who waits as well."""
        async with self.opened() as store:
            invocation_id = await put(store)
            async with anyio.create_task_group() as group:
                group.start_soon(store.cancel, invocation_id, "me")
                assert (await store.wait_over(invocation_id)).status is S.KILLED

    async def test_being_stopped_with_its_runner_is_none(self) -> None:
        """Who is killed and rerouted in one step goes on, and so does who waits for it."""
        async with self.opened() as store:
            invocation_id = await started(store)
            outcomes: list[Outcome] = []

            async def wait() -> None:
                outcomes.append(await store.wait_over(invocation_id))

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await until_watched(store)
                await store.apply([move(invocation_id, S.KILLED), move(invocation_id, S.REROUTED)])
                assert ids(await store.claim("s", 1, start=True)) == [invocation_id]
                await store.apply([move(invocation_id, S.SUCCESS, "s", result="1")])
            assert outcomes == [Outcome(invocation_id, S.SUCCESS, "1")]

    async def test_who_waits_no_longer_leaves_nothing_behind(self) -> None:
        """And the others go on waiting."""
        async with self.opened() as store:
            invocation_id = await put(store)
            async with anyio.create_task_group() as group:
                group.start_soon(store.wait_over, invocation_id)
                await until_watched(store)
                with anyio.move_on_after(0) as scope:
                    await store.wait_over(invocation_id)
                assert scope.cancelled_caught
                assert store.changes.watched == [invocation_id]
                await store.cancel(invocation_id, "me")
            assert store.changes.watched == []

    async def test_who_waits_for_what_is_forgotten_is_told(self) -> None:
        """It will never be over."""
        async with self.opened() as store:
            invocation_id = await put(store)
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    with raises(InvocationNotFoundError):
                        await store.wait_over(invocation_id)

                group.start_soon(wait)
                await until_watched(store)
                await store.purge()
            assert store.changes.watched == []

    async def test_an_end_between_the_look_and_the_wait_is_not_missed(self) -> None:
        """Whatever the moment at which it comes."""
        async with self.opened() as store:
            for ticks in range(12):
                invocation_id = await started(store)

                async def end(invocation_id: str, ticks: int) -> None:
                    for _ in range(ticks):
                        await checkpoint()
                    await store.apply([move(invocation_id, S.SUCCESS, result="1")])

                async with anyio.create_task_group() as group:
                    group.start_soon(end, invocation_id, ticks)
                    assert (await store.wait_over(invocation_id)).result == "1"

    # --- changes ----------------------------------------------------------------------------------

    async def test_a_change_is_told_once_it_can_be_read(self) -> None:
        """Who looks when he is told finds it."""
        heard, invocation_id, waiting = Heard(), "", ""
        async with self.opened() as store:
            async with anyio.create_task_group() as group:

                async def look(invocation_id: str, status: S) -> None:
                    assert status in await statuses(store, invocation_id)

                def listen(changes: list[Change]) -> None:
                    heard(changes)
                    for change in changes:
                        group.start_soon(look, change.invocation_id, change.status)

                with store.changes.listen(listen):
                    invocation_id = await put(store)
                    await store.claim("r", 1, start=True)
                    await store.apply([move(invocation_id, S.SUCCESS, result="1")])
                    waiting = await put(store)
                    await store.cancel(waiting, "me")
            steps = [S.REGISTERED, S.PENDING, S.RUNNING, S.SUCCESS]
            assert heard.of(invocation_id) == [(each, False) for each in steps]
            steps = [S.REGISTERED, S.PENDING, S.KILLED]
            assert heard.of(waiting) == [(each, False) for each in steps]

    async def test_who_listens_no_longer_hears_nothing(self) -> None:
        """And who listens hears only what is new."""
        async with self.opened() as store:
            await store.register([asked(store)])
            heard = Heard()
            with store.changes.listen(heard):
                pass
            await put(store)
            assert heard.changes == []

    async def test_what_there_is_not_has_no_outcome(self) -> None:
        """Nor an end to be waited for, a history, or anything else."""
        async with self.opened() as store:
            unregistered = asked(store)
            await store.upsert_invocation(unregistered)
            for call in (
                lambda: store.get_invocation(NOBODY),
                lambda: store.get_status_record(NOBODY),
                lambda: store.get_outcome(NOBODY),
                lambda: store.wait_over(NOBODY),
                lambda: store.get_history(NOBODY),
                lambda: store.get_result(NOBODY),
                lambda: store.get_exception(NOBODY),
                lambda: store.set_result(NOBODY, 1),
                lambda: store.set_exception(NOBODY, ValueError()),
                lambda: store.add_history(NOBODY),
                lambda: store.set_status(NOBODY, S.REGISTERED),
                lambda: store.apply([move(NOBODY, S.PENDING)]),
                lambda: store.cancel(NOBODY, "me"),
            ):
                with raises(InvocationNotFoundError) as caught:
                    await call()
                assert caught.error.invocation_id == NOBODY
            for call in (
                lambda: store.get_status_record(unregistered.invocation_id),
                lambda: store.get_outcome(unregistered.invocation_id),
            ):
                with raises(InvocationNotFoundError):
                    await call()
            assert store.changes.watched == []
            assert await store.count_by_status() == {}
