"""Moves: all of a list or none, checked by the table and the owner, each with its history line."""

from __future__ import annotations

from itertools import product

from runtime.invocation._exceptions import (
    InvocationNotFoundError,
    InvocationStatusOwnershipError,
    InvocationStatusTransitionError,
)
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.status import InvocationStatusRecord, get_status_definition

from ._kit import (
    NOBODY,
    OVER,
    OWNED,
    Heard,
    Kit,
    S,
    brought_to,
    contexts,
    ids,
    move,
    put,
    raises,
    record_of,
    started,
    statuses,
)


class MoveTests(Kit):
    """`BaseStateBackend.apply`, `BaseStateBackend.set_status`, `BaseStateBackend.cancel`."""

    async def test_every_move_is_one_of_the_table(self) -> None:
        """Any other is refused with both names, and changes nothing."""
        async with self.opened() as store:
            for old, new in product(S, S):
                invocation_id = await brought_to(store, old)
                before = await store.get_invocation(invocation_id)
                history = await store.get_history(invocation_id)
                allowed = get_status_definition(old).allowed_transitions
                if new in allowed:
                    record = await store.set_status(invocation_id, new, "r")
                    assert record == await record_of(store, invocation_id)
                    assert record.runner_id == ("r" if new in OWNED else None)
                    continue
                with raises(InvocationStatusTransitionError) as caught:
                    await store.set_status(invocation_id, new, "r")
                error = caught.error
                assert (error.from_status, error.to_status) == (old, new)
                assert error.allowed_statuses == allowed
                assert await store.get_invocation(invocation_id) == before
                assert await store.get_history(invocation_id) == history

    async def test_only_the_owner_moves_what_is_owned(self) -> None:
        """Unless it is to be recovered."""
        async with self.opened() as store:
            for old, mover in product(OWNED, ("other", None)):
                for new in get_status_definition(old).allowed_transitions:
                    invocation_id = await brought_to(store, old)
                    if new in {S.PENDING_RECOVERY, S.RUNNING_RECOVERY}:
                        record = await store.set_status(invocation_id, new, mover)
                        assert (record.status, record.runner_id) == (new, None)
                        continue
                    history = await store.get_history(invocation_id)
                    with raises(InvocationStatusOwnershipError) as caught:
                        await store.set_status(invocation_id, new, mover)
                    error = caught.error
                    assert (error.from_status, error.to_status) == (old, new)
                    assert (error.current_owner, error.attempted_owner) == ("r", mover)
                    assert (await record_of(store, invocation_id)).runner_id == "r"
                    assert await store.get_history(invocation_id) == history

    async def test_a_list_of_moves_is_made_as_a_whole(self) -> None:
        """Several on one invocation as well, each by what the one before has led to."""
        async with self.opened() as store:
            a, b = await put(store), await put(store)
            heard = Heard()
            with store.changes.listen(heard):
                records = await store.apply(
                    [
                        move(a, S.PENDING),
                        move(b, S.PENDING, "s"),
                        move(a, S.RUNNING),
                        move(a, S.PAUSED),
                        move(b, S.REROUTED, "s"),
                    ]
                )
            assert [(each.status, each.runner_id) for each in records] == [
                (S.PENDING, "r"),
                (S.PENDING, "s"),
                (S.RUNNING, "r"),
                (S.PAUSED, "r"),
                (S.REROUTED, None),
            ]
            assert await statuses(store, a) == [S.REGISTERED, S.PENDING, S.RUNNING, S.PAUSED]
            assert await statuses(store, b) == [S.REGISTERED, S.PENDING, S.REROUTED]
            assert [(each.invocation_id, each.status) for each in heard.changes] == [
                (a, S.PENDING),
                (b, S.PENDING),
                (a, S.RUNNING),
                (a, S.PAUSED),
                (b, S.REROUTED),
            ]
            assert await store.apply([]) == []

    async def test_of_several_steps_one_that_is_refused_spoils_no_other(self) -> None:
        """Each step is made as a whole or not at all, and why not is returned."""
        async with self.opened() as store:
            a, b, c = [await started(store) for _ in range(3)]
            errors = await store.apply_each(
                [
                    [move(a, S.SUCCESS, result="1")],
                    [move(b, S.KILLED), move(b, S.RUNNING)],
                    [move("nobody", S.KILLED)],
                    [],
                    [move(c, S.KILLED), move(c, S.REROUTED, None)],
                ]
            )
            kinds = [type(each) for each in errors]
            assert kinds[1:3] == [InvocationStatusTransitionError, InvocationNotFoundError]
            assert [errors[0], *errors[3:]] == [None, None, None]
            assert (await store.get_outcome(a)).result == "1"
            assert await statuses(store, b) == [S.REGISTERED, S.PENDING, S.RUNNING]
            assert (await statuses(store, c))[-2:] == [S.KILLED, S.REROUTED]

    async def test_one_bad_move_refuses_the_whole_list(self) -> None:
        """Nothing of it was done, nothing was told, and the error is that of the bad one."""
        async with self.opened() as store:
            a, b = await started(store), await put(store)
            good = move(a, S.SUCCESS, result="1")
            bad = [
                ([good, move(b, S.RUNNING)], InvocationStatusTransitionError),
                ([good, move(b, S.PENDING, None)], InvocationStatusOwnershipError),
                ([good, move(NOBODY, S.PENDING)], InvocationNotFoundError),
                ([move(a, S.PAUSED), move(a, S.SUCCESS)], InvocationStatusTransitionError),
                ([good, move(a, S.SUCCESS)], InvocationStatusTransitionError),
                ([move(a, S.PAUSED), move(a, S.RESUMED, "s")], InvocationStatusOwnershipError),
            ]
            before = [await store.get_invocation(each) for each in (a, b)]
            heard = Heard()
            for moves, kind in bad:
                with store.changes.listen(heard), raises(kind):
                    await store.apply(moves)
                assert [await store.get_invocation(each) for each in (a, b)] == before
                assert await statuses(store, a) == [S.REGISTERED, S.PENDING, S.RUNNING]
                assert await statuses(store, b) == [S.REGISTERED]
                assert (await store.get_outcome(a)).result is None
            assert heard.changes == []

    async def test_a_move_brings_along_what_is_stored_with_it(self) -> None:
        """Its result or its error, and what the history is to say."""
        async with self.opened() as store:
            a, b = await started(store), await started(store)
            error = ErrorRecord.of(ValueError("bad", 7))
            await store.apply(
                [
                    move(a, S.SUCCESS, result='{"x": 1}', context={"why": "käse"}),
                    move(b, S.FAILED, error=error),
                ]
            )
            one, other = await store.get_outcome(a), await store.get_outcome(b)
            assert (one.status, one.result, one.error) == (S.SUCCESS, '{"x": 1}', None)
            assert (other.status, other.result, other.error) == (S.FAILED, None, error)
            assert (await contexts(store, a))[-1] == {"why": "käse"}
            assert (await contexts(store, b))[-1] is None

    async def test_the_history_has_a_line_of_each_move_and_who_made_it(self) -> None:
        """From the submission to the end."""
        async with self.opened() as store:
            invocation_id = await put(store)
            await store.claim("a", 1)
            await store.set_status(invocation_id, S.REROUTED, "a")
            await store.claim("b", 1, start=True)
            for status in (S.PAUSED, S.RESUMED, S.SUCCESS):
                await store.set_status(invocation_id, status, "b")
            lines = await store.get_history(invocation_id)
            assert [(line.status, line.runner_id) for line in lines] == [
                (S.REGISTERED, None),
                (S.PENDING, "a"),
                (S.REROUTED, "a"),
                (S.PENDING, "b"),
                (S.RUNNING, "b"),
                (S.PAUSED, "b"),
                (S.RESUMED, "b"),
                (S.SUCCESS, "b"),
            ]
            record = await record_of(store, invocation_id)
            assert record.timestamp == lines[-1].timestamp

    async def test_attempts_retries_and_deaths_are_counted(self) -> None:
        """Each by its own move."""
        async with self.opened() as store:
            invocation_id = await put(store)
            for end in (S.RETRY, S.RETRY, S.RUNNING_RECOVERY, S.SUCCESS):
                await store.claim("r", 1, start=True)
                await store.set_status(invocation_id, end, "r")
                if end is S.RUNNING_RECOVERY:
                    await store.set_status(invocation_id, S.REROUTED)
            stored = await store.get_invocation(invocation_id)
            assert (stored.attempts, stored.retries, stored.deaths) == (4, 2, 1)

    # --- cancelling -------------------------------------------------------------------------------

    async def test_what_waits_is_killed_by_being_cancelled(self) -> None:
        """In one step, by who cancels it, and nobody takes it after."""
        async with self.opened() as store:
            waiting = set(S) - {*OWNED, *OVER}
            for status in sorted(waiting):
                invocation_id = await brought_to(store, status)
                before = await statuses(store, invocation_id)
                record = await store.cancel(invocation_id, "me")
                assert record == await record_of(store, invocation_id)
                assert (record.status, record.runner_id) == (S.KILLED, None)
                steps = (await statuses(store, invocation_id))[len(before) :]
                assert steps[-2:] == [S.PENDING, S.KILLED]
                assert steps[:-2] == ([] if status.is_available_for_run() else [S.REROUTED])
                assert (await contexts(store, invocation_id))[-1] == {
                    "by": "me",
                    "reason": "cancelled",
                }
                line = (await store.get_history(invocation_id))[-1]
                assert line.runner_id == "me"
            assert await store.claim("r", 9) == []

    async def test_the_owner_is_asked_to_cancel_what_it_owns(self) -> None:
        """It is told, and finds it among what it owns; asked twice it is asked once."""
        async with self.opened() as store:
            for status in OWNED:
                invocation_id = await brought_to(store, status)
                before = await store.get_status_record(invocation_id)
                heard = Heard()
                with store.changes.listen(heard):
                    assert await store.cancel(invocation_id, "me") == before
                assert heard.of(invocation_id) == [(status, True)]
                assert await store.cancel(invocation_id, "me") == before
                assert (await store.get_invocation(invocation_id)).cancel_requested
                assert await store.get_owned("r") == {invocation_id: True}
                await store.set_status(invocation_id, S.KILLED, "r")
                assert await store.get_owned("r") == {}
                assert not (await store.get_invocation(invocation_id)).cancel_requested

    async def test_what_is_over_cannot_be_cancelled(self) -> None:
        """And stays as it is."""
        async with self.opened() as store:
            for status in OVER:
                invocation_id = await brought_to(store, status)
                before = await store.get_invocation(invocation_id)
                with raises(InvocationStatusTransitionError) as caught:
                    await store.cancel(invocation_id, "me")
                assert caught.error.from_status == status
                assert caught.error.to_status == S.KILLED
                assert await store.get_invocation(invocation_id) == before

    async def test_a_killed_one_is_tried_again_by_hand(self) -> None:
        """It waits again, and is not to be cancelled any more."""
        async with self.opened() as store:
            invocation_id = await started(store)
            await store.cancel(invocation_id, "me")
            await store.set_status(invocation_id, S.KILLED, "r")
            assert await store.claim("r", 9) == []
            record = await store.set_status(invocation_id, S.REROUTED)
            assert record == InvocationStatusRecord(S.REROUTED, None, record.timestamp)
            assert ids(await store.claim("s", 9, start=True)) == [invocation_id]
            assert await store.get_owned("s") == {invocation_id: False}
            await store.apply([move(invocation_id, S.SUCCESS, "s", result="1")])
            assert (await store.get_outcome(invocation_id)).result == "1"
