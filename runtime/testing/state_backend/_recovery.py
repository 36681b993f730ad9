"""Runners, their deaths, who goes on with what they owned, and leases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from runtime.invocation._exceptions import InvocationStatusError, TaskFailedError
from runtime.invocation.moves import Recovery

from ._kit import (
    HOUR,
    NOBODY,
    OWNED,
    Heard,
    Kit,
    S,
    brought_to,
    contexts,
    ids,
    let_time_pass,
    move,
    put,
    raises,
    record_of,
    runner,
    started,
    statuses,
)

WHY = Recovery(by="sweeper", reason="its runner is gone", quarantine_after=3)
SAID = {"by": "sweeper", "reason": "its runner is gone"}


class RecoveryTests(Kit):
    """`heartbeat`, `get_runners`, `remove_runner`, `get_owned`, `recover`, `take_lease`."""

    async def test_runners_are_known_from_their_heartbeats(self) -> None:
        """Each once, as it was heard of last."""
        async with self.opened() as store:
            assert await store.get_runners() == []
            a, b = runner(store, "a"), runner(store, "b")
            for each in (a, b, later := replace(a, alive_until=a.alive_until + HOUR)):
                await store.heartbeat(each)
            known = sorted(await store.get_runners(), key=lambda each: each.runner_id)
            assert known == [later, b]
            for _ in range(2):
                await store.remove_runner("a")
            assert await store.get_runners() == [b]

    async def test_a_runner_finds_what_it_owns(self) -> None:
        """And nothing else."""
        async with self.opened() as store:
            assert await store.get_owned("r") == {}
            made = {status: await brought_to(store, status) for status in S}
            await started(store, "s", queue="q", priority=9)
            assert await store.get_owned("r") == {made[status]: False for status in OWNED}

    async def test_what_a_dead_runner_owned_waits_again(self) -> None:
        """With both steps in its history and why; the dead one is forgotten."""
        async with self.opened() as store:
            for name in ("r", "s"):
                await store.heartbeat(runner(store, name))
            mine = {status: await brought_to(store, status) for status in S}
            others = await started(store, "s", priority=9)
            heard = Heard()
            with store.changes.listen(heard):
                done = await store.recover(WHY, runners=["r"])
            assert sorted(done) == sorted(mine[status] for status in OWNED)
            assert [each.runner_id for each in await store.get_runners()] == ["s"]
            assert await store.get_owned("r") == {}
            for status in OWNED:
                invocation_id = mine[status]
                record = await record_of(store, invocation_id)
                assert (record.status, record.runner_id) == (S.REROUTED, None)
                step = S.PENDING_RECOVERY if status is S.PENDING else S.RUNNING_RECOVERY
                assert (await statuses(store, invocation_id))[-2:] == [step, S.REROUTED]
                assert (await contexts(store, invocation_id))[-2:] == [SAID, SAID]
                assert heard.of(invocation_id) == [(step, False), (S.REROUTED, False)]
                deaths = (await store.get_invocation(invocation_id)).deaths
                assert deaths == (0 if status is S.PENDING else 1)
            for status in set(S) - {*OWNED}:
                assert (await record_of(store, mine[status])).status is status
            assert (await record_of(store, others)).runner_id == "s"
            assert await store.recover(WHY, runners=["r"]) == []

    async def test_who_was_not_heard_of_for_too_long_is_dead(self) -> None:
        """And so is an owner of whom nobody has ever heard."""
        async with self.opened() as store:
            await store.heartbeat(runner(store, "alive"))
            await store.heartbeat(runner(store, "late", timedelta(seconds=-1)))
            of = {name: await started(store, name) for name in ("alive", "late", "unknown")}
            done = await store.recover(WHY)
            assert sorted(done) == sorted([of["late"], of["unknown"]])
            assert (await record_of(store, of["alive"])).runner_id == "alive"
            assert [each.runner_id for each in await store.get_runners()] == ["alive"]
            assert await store.recover(WHY) == []

    async def test_who_is_heard_of_again_in_time_is_alive(self) -> None:
        """The last heartbeat counts."""
        async with self.opened() as store:
            await store.heartbeat(runner(store, "r", timedelta(seconds=-1)))
            await store.heartbeat(runner(store, "r"))
            await started(store)
            assert await store.recover(WHY) == []

    async def test_a_heartbeat_lasts_until_its_time(self) -> None:
        """By the clock of the store."""
        async with self.opened() as store:
            record = runner(store, "r", timedelta(milliseconds=20))
            await store.heartbeat(record)
            invocation_id = await started(store)
            await let_time_pass(store, record.alive_until)
            assert await store.recover(WHY) == [invocation_id]

    async def test_what_was_taken_and_not_begun_in_time_waits_again(self) -> None:
        """What was begun does not."""
        async with self.opened() as store:
            for name in ("r", "s"):
                await store.heartbeat(runner(store, name))
            running, early = await started(store), await brought_to(store, S.PENDING)
            border = await let_time_pass(store)
            await let_time_pass(store)
            late = await brought_to(store, S.PENDING)
            for runners in (None, ()):
                before = store.now() - HOUR
                assert await store.recover(WHY, runners=runners, pending_before=before) == []
            assert await store.recover(WHY, pending_before=border) == [early]
            assert await statuses(store, early) == [
                *(S.REGISTERED, S.PENDING, S.PENDING_RECOVERY, S.REROUTED),
            ]
            assert await store.get_owned("r") == {running: False, late: False}

    async def test_what_has_killed_its_worker_waits_again(self) -> None:
        """The others of its runner go on."""
        async with self.opened() as store:
            a, b, waiting = await started(store), await started(store), await put(store)
            done = await store.recover(WHY, runners=(), invocations=[a, waiting, NOBODY])
            assert done == [a]
            assert (await record_of(store, a)).status is S.REROUTED
            assert (await store.get_invocation(a)).deaths == 1
            assert await store.get_owned("r") == {b: False}
            assert (await record_of(store, waiting)).status is S.REGISTERED

    async def test_what_has_another_owner_by_now_is_left_to_that_one(self) -> None:
        """Who has seen the death of a worker may be late."""
        async with self.opened() as store:
            a, b = await started(store, "s"), await started(store, "r")
            done = await store.recover(WHY, runners=(), invocations=[a, b], owner="r")
            assert done == [b]
            assert (await record_of(store, a)).runner_id == "s"
            assert await store.recover(WHY, invocations=[a], owner="r", runners=["q"]) == []

    async def test_what_was_recovered_is_refused_to_its_old_owner(self) -> None:
        """Before it is taken again, and after."""
        async with self.opened() as store:
            invocation_id = await started(store)
            await store.recover(WHY, runners=["r"])
            for _ in range(2):
                for status in (S.SUCCESS, S.FAILED, S.RETRY, S.PAUSED, S.KILLED):
                    with raises(InvocationStatusError):
                        await store.apply([move(invocation_id, status, result="0")])
                await store.claim("s", 1, start=True)
            await store.apply([move(invocation_id, S.SUCCESS, "s", result="1")])
            assert (await store.get_outcome(invocation_id)).result == "1"

    async def test_what_has_been_the_death_of_too_many_ends_failed(self) -> None:
        """And its error says why."""
        async with self.opened() as store:
            for last in (S.RUNNING, S.PAUSED):
                invocation_id = await put(store)
                for _ in range(3):
                    assert ids(await store.claim("r", 1, start=True)) == [invocation_id]
                    if last is S.PAUSED:
                        await store.set_status(invocation_id, last, "r")
                    assert await store.recover(WHY, runners=["r"]) == [invocation_id]
                record = await record_of(store, invocation_id)
                assert (record.status, record.runner_id) == (S.FAILED, None)
                error = (await store.wait_over(invocation_id)).error
                assert error is not None
                assert error.type == "QuarantinedError"
                assert "died 3 times" in error.message
                assert isinstance(await store.get_exception(invocation_id), TaskFailedError)
                assert (await contexts(store, invocation_id))[-1] == SAID
                assert await store.claim("r", 1) == []

    async def test_what_was_to_be_cancelled_is_killed(self) -> None:
        """Its owner cannot do it any more."""
        async with self.opened() as store:
            for status in OWNED:
                invocation_id = await brought_to(store, status)
                await store.cancel(invocation_id, "me")
                assert await store.recover(WHY, runners=["r"]) == [invocation_id]
                assert (await record_of(store, invocation_id)).status is S.KILLED
                assert (await contexts(store, invocation_id))[-1] == SAID
                assert not (await store.get_invocation(invocation_id)).cancel_requested

    async def test_what_is_recovered_frees_its_running_key(self) -> None:
        """The next one of it may go on, in its turn."""
        async with self.opened() as store:
            first = await started(store, running_key="k")
            second = await put(store, running_key="k")
            await store.claim("s", 9)
            assert await store.recover(WHY, runners=["r"]) == [first]
            assert (await record_of(store, second)).status is S.REROUTED
            assert ids(await store.claim("s", 9)) == [first]
            assert (await record_of(store, second)).status is S.CONCURRENCY_CONTROLLED

    # --- leases -----------------------------------------------------------------------------------

    async def test_a_lease_has_one_holder(self) -> None:
        """Who prolongs it; each name is one of its own."""
        async with self.opened() as store:
            assert await store.take_lease("sweep", "a", 3600)
            assert not await store.take_lease("sweep", "b", 3600)
            assert await store.take_lease("sweep", "a", 3600)
            assert await store.take_lease("other", "b", 3600)
            assert not await store.take_lease("other", "a", 3600)

    async def test_a_lease_ends_with_its_time(self) -> None:
        """Also when its holder has given it up so."""
        async with self.opened() as store:
            assert await store.take_lease("sweep", "a", 0.02)
            await let_time_pass(store, store.now() + timedelta(seconds=0.02))
            assert await store.take_lease("sweep", "b", 3600)
            assert not await store.take_lease("sweep", "a", 3600)
            assert await store.take_lease("sweep", "b", 0)
            assert await store.take_lease("sweep", "a", 3600)
