"""Runners: what they take, how they stop, and what becomes of what they leave behind."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from runtime import Application, Supervisor
from runtime.invocation import InvocationCancelledError, InvocationStatus, NewInvocation
from runtime.invocation.moves import Recovery
from runtime.state_backend.base import MOST_HELD_BACK
from runtime.state_backend.memory import MemoryStateBackend
from runtime.supervision import Unit
from runtime.tasks import Invocation, RunnerSettings, TaskError, TaskHome
from runtime.tasks.recovery import RecoverySettings
from runtime.tasks.runner import Runner
from runtime.tasks.running import RunningInvocation, Slots
from runtime.tasks.units import task_units
from runtime.tasks.workers import WorkerDiedError

_I = InvocationStatus
virtual = pytest.mark.usefixtures("autojump_clock")


async def statuses(invocation: Invocation[Any]) -> list[str]:
    return [str(line.status) for line in await invocation.history()]


def events_of(supervisor: Supervisor) -> str:
    entries = supervisor.events.tail(1000)
    return "\n".join(str(entry.item) for entry in entries)


@virtual
async def test_a_stop_waits_for_what_runs_and_gives_back_what_takes_too_long() -> None:
    backend = MemoryStateBackend()
    home = TaskHome()
    slept: list[str] = []

    @home.task
    async def sleep(name: str, seconds: float) -> str:
        await trio.sleep(seconds)
        slept.append(name)
        return name

    async with backend:
        with home.using(backend):
            settings = RunnerSettings(concurrency=2)
            supervisor = Supervisor(task_units(home, [settings]), stop_within_sec=20)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                short = await sleep.submit("short", 10)
                long = await sleep.submit("long", 60)
                waiting = await sleep.submit("waiting", 1)
                await trio.sleep(1)
                supervisor.ask_stop_tree("that is the test")
            assert slept == ["short"]
            assert await statuses(short) == ["registered", "pending", "running", "success"]
            assert (await statuses(long))[-2:] == ["killed", "rerouted"]
            assert await waiting.status() is _I.REGISTERED
            assert await backend.get_runners() == []
            again = Supervisor(task_units(home, [settings]))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(again.run)
                assert await long.result() == "long"
                assert await waiting.result() == "waiting"
                again.ask_stop_tree("all is done")
            assert (await long.stored()).attempts == 2


@virtual
async def test_a_drain_of_its_own_is_shorter_than_the_stop() -> None:
    app = Application(runners=[{"drain_sec": 2}])

    @app.task
    async def forever() -> None:
        await trio.sleep_forever()

    async with app:
        await forever.submit()
        await trio.sleep(1)
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(2)


@virtual
async def test_the_store_is_asked_what_is_due_when_something_was_put_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    next_due = MemoryStateBackend.next_due

    async def find(self: MemoryStateBackend, queues: Collection[str] | None = None) -> Any:
        asked.append(trio.current_time())
        return await next_due(self, queues)

    monkeypatch.setattr(MemoryStateBackend, "next_due", find)
    app = Application()

    @app.task
    async def now() -> float:
        return trio.current_time()

    async with app:
        began = trio.current_time()
        for _ in range(20):
            await (await now.submit()).result()
        assert len(asked) <= 2
        late = await now.with_options(delay_sec=50).submit()
        for _ in range(20):
            await (await now.submit()).result()
        assert len(asked) <= 4
        early = await now.with_options(delay_sec=20).submit()
        assert await early.result() - began == pytest.approx(20, abs=0.1)
        assert await late.result() - began == pytest.approx(50, abs=0.1)
        assert len(asked) <= 8


@virtual
async def test_one_that_lost_an_invocation_cancels_its_body_and_records_nothing() -> None:
    """Also where the same runner is the next to take it."""
    app = Application()
    begun, cancelled = 0, 0

    @app.task
    async def work() -> int:
        nonlocal begun, cancelled
        begun += 1
        attempt = begun
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            cancelled += 1
            raise
        return attempt

    async with app:
        invocation = await work.submit()
        await trio.sleep(0.5)
        taken = await app.state_backend.recover(
            Recovery("somebody", "a test", 3), runners=(), invocations=[invocation.invocation_id]
        )
        assert taken == [invocation.invocation_id]
        assert await invocation.result() == 2
        assert (begun, cancelled) == (2, 1)
        assert (await statuses(invocation)).count("success") == 1
        assert app.supervisor.status("runner").restarts == 0


async def test_one_that_sees_the_death_of_a_worker_late_takes_nothing_from_the_next_owner() -> None:
    home = TaskHome()

    @home.task
    async def work() -> None: ...

    async with MemoryStateBackend() as backend:
        with home.using(backend):
            runner = Runner(home, backend, RunnerSettings())
            invocation = await work.submit()
            [stored] = await backend.claim("another", 1, start=True)
            slots = Slots(lambda: 1, lambda: None)
            running = RunningInvocation(work, stored, slots, runner._move_one)
            await runner._recover(running, WorkerDiedError("cpu-0", 1, "was killed"))
            record = await backend.get_status_record(invocation.invocation_id)
            assert (record.status, record.runner_id) == (_I.RUNNING, "another")


@virtual
async def test_a_runner_that_crashes_is_restarted_and_what_it_ran_goes_on() -> None:
    class Sick(MemoryStateBackend):
        sick = False

        async def heartbeat(self, runner: Any) -> None:
            if self.sick:
                self.sick = False
                raise OSError("disk full")
            await super().heartbeat(runner)

    home = TaskHome()
    begun = 0

    @home.task
    async def work() -> int:
        nonlocal begun
        begun += 1
        if begun == 1:
            await trio.sleep_forever()
        return begun

    async with Sick() as backend:
        with home.using(backend):
            recovery = RecoverySettings(sweep_sec=100)
            supervisor = Supervisor(task_units(home, recovery=recovery))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                invocation = await work.submit()
                began = trio.current_time()
                await trio.sleep(0.5)
                backend.sick = True
                assert await invocation.result() == 2
                # At the failed heartbeat, and not after a lease or at the next sweep.
                assert trio.current_time() - began < 1.5
                assert supervisor.status("runner").restarts == 1
                supervisor.ask_stop_tree("done")
            assert "running_recovery" in await statuses(invocation)


@virtual
async def test_an_application_goes_on_when_a_runner_of_it_crashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runners = [{"name": "sick", "queues": ["default"]}, {"name": "well", "queues": ["other"]}]
    app = Application(runners=runners)
    begun: list[str] = []
    claim: Any = MemoryStateBackend.claim

    @app.task
    async def work(name: str) -> str:
        begun.append(name)
        await trio.sleep(10)
        return name

    async with app:
        one = await work.submit("one")
        other = await work.with_options(queue="other").submit("other")
        await trio.sleep(0.5)
        for crashes in range(1, 4):
            with monkeypatch.context() as patch:

                async def fail_once(
                    store: object, runner_id: str, *args: Any, undo: Any = patch.undo, **more: Any
                ) -> Any:
                    if runner_id.startswith("sick"):
                        undo()
                        raise OSError("disk full")
                    return await claim(store, runner_id, *args, **more)

                patch.setattr(MemoryStateBackend, "claim", fail_once)
                lost = await work.submit("lost")
                assert await lost.result() == "lost"
            assert app.supervisor.status("sick").restarts == crashes
        assert await one.result() == "one"
        assert await other.result() == "other"
        assert app.state == "running"
        assert (await statuses(one)).count("running_recovery") == 1
        assert await statuses(other) == ["registered", "pending", "running", "success"]
    assert (begun.count("one"), begun.count("other")) == (2, 1)


@virtual
async def test_two_runners_share_what_waits_and_one_takes_over_from_the_other() -> None:
    home = TaskHome()
    ran: list[str] = []

    @home.task
    async def work(number: int) -> int:
        await trio.sleep(1)
        ran.append("")
        return number

    async with MemoryStateBackend() as backend:
        with home.using(backend):
            runners = [RunnerSettings(name=name, concurrency=2) for name in ("a", "b")]
            supervisor = Supervisor(task_units(home, runners))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                invocations = await work.submit_many([(n,) for n in range(8)])
                await trio.sleep(0.5)
                supervisor.ask_stop("a")
                assert [await each.result() for each in invocations] == list(range(8))
                supervisor.ask_stop_tree("done")
            owners = {
                line.runner_id.partition("-")[0]
                for each in invocations
                for line in await each.history()
                if line.runner_id
            }
    assert owners == {"a", "b"}
    assert len(ran) == 8


@virtual
async def test_what_was_taken_by_one_that_is_gone_is_recovered_after_its_lease() -> None:
    home = TaskHome()

    @home.task
    async def work() -> str:
        return "done"

    async with MemoryStateBackend() as backend:
        with home.using(backend):
            lost = await work.submit()
            [stored] = await backend.claim("ghost", 1, start=True)
            assert stored.invocation_id == lost.invocation_id
            supervisor = Supervisor(task_units(home, recovery=RecoverySettings(sweep_sec=1)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                assert await lost.result() == "done"
                supervisor.ask_stop_tree("done")
            assert "running_recovery" in await statuses(lost)


@virtual
async def test_old_results_are_forgotten() -> None:
    home = TaskHome()

    @home.task
    async def work() -> None: ...

    recovery = RecoverySettings(keep_results_sec=5)
    async with MemoryStateBackend() as backend:
        with home.using(backend):
            supervisor = Supervisor(task_units(home, recovery=recovery))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                for each in await work.submit_many([()] * 2_500):
                    await each.result()
                await trio.sleep(5.5)  # there was a sweep at its fifth second
                assert await backend.count_by_status() == {_I.SUCCESS: 2_500}
                await trio.sleep(1)  # more than are forgotten in one step, in one sweep
                assert await backend.count_by_status() == {}
                supervisor.ask_stop_tree("done")


async def test_a_thread_that_is_left_behind_is_named_and_its_result_refused() -> None:
    go_on = threading.Event()
    over = threading.Event()
    home = TaskHome()

    @home.task(timeout_sec=0.05)
    def stubborn() -> str:
        go_on.wait(30)
        over.set()
        return "too late"

    try:
        with trio.fail_after(30):
            async with MemoryStateBackend() as backend:
                with home.using(backend):
                    runner = Runner(home, backend, RunnerSettings())
                    supervisor = Supervisor([Unit(name="runner", body=runner.run)])
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(supervisor.run)
                        invocation = await stubborn.submit()
                        with pytest.raises(TimeoutError):
                            await invocation.result()
                        assert list(runner.abandoned.values()) == [stubborn.name]
                        go_on.set()
                        while runner.abandoned:  # noqa: ASYNC110 - a thread cannot set a Trio event
                            await trio.sleep(0.01)
                        supervisor.ask_stop_tree("done")
                    assert over.is_set()
                    assert await invocation.status() is _I.FAILED
                    assert f"a thread of {stubborn.name} was left behind" in events_of(supervisor)
    finally:
        go_on.set()


async def test_a_thread_that_waits_and_is_left_behind_ends_once_and_leaves_its_slot() -> None:
    app = Application(runners=[{"concurrency": 1, "heartbeat_sec": 0.05}])
    children: list[Invocation[None]] = []
    said: list[str] = []

    @app.task
    async def work() -> str:
        return "done"

    @app.task
    async def forever() -> None:
        await trio.sleep_forever()

    @app.task(timeout_sec=1_000)
    def parent() -> None:
        children.append(forever.submit_from_thread())
        try:
            children[0].wait_result()
        except InvocationCancelledError:
            said.append("goes on")
        try:
            forever.submit_from_thread()
        except TaskError as error:
            said.append(str(error))

    with trio.fail_after(30):
        async with app:
            invocation = await parent.submit()
            while await invocation.status() is not _I.PAUSED:  # noqa: ASYNC110 - of a thread's wait
                await trio.sleep(0.01)
            (running,) = (
                each
                for each in app.tasks.in_flight["runner"]
                if each.invocation_id == invocation.invocation_id
            )
            running.scope.deadline = trio.current_time()  # its time is over
            with pytest.raises(TimeoutError):
                await invocation.result()
            assert await statuses(invocation) == [
                *("registered", "pending", "running", "paused", "resumed", "failed"),
            ]
            await children[0].cancel()
            while len(said) < 2:  # noqa: ASYNC110 - a thread cannot set a Trio event
                await trio.sleep(0.01)
            assert "was left behind, and can submit nothing" in said[1]
            assert await (await work.submit()).result() == "done"
            assert len(children) == 1


@virtual
async def test_what_waits_behind_many_that_are_held_back_is_not_forgotten() -> None:
    app = Application(runners=[{"concurrency": 2}])

    @app.task(running_concurrency="task")
    async def alone(number: int) -> None:
        await trio.sleep(10_000)

    @app.task
    async def other() -> str:
        return "done"

    with trio.move_on_after(10):
        async with app:
            new = [
                NewInvocation(
                    invocation_id=str(number),
                    task=alone.name,
                    arguments=f'{{"number": {number}}}',
                    running_key="k",
                )
                for number in range(MOST_HELD_BACK + 10)
            ]
            last = NewInvocation(invocation_id="last", task=other.name)
            await app.state_backend.register([*new, last])  # all of them in one step
            with trio.fail_after(5):
                assert await other.invocation("last").result() == "done"


@virtual
async def test_a_pause_that_the_store_cannot_record_takes_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Application(runners=[{"concurrency": 1}])

    @app.task
    async def work() -> str:
        return "done"

    @app.task
    async def parent() -> str:
        child = await work.submit()
        with monkeypatch.context() as patch:

            async def fail(*_: object) -> None:
                raise OSError("disk full")

            patch.setattr(MemoryStateBackend, "set_status", fail)
            return await child.result()

    with trio.fail_after(30):
        async with app:
            with pytest.raises(OSError, match="disk full"):
                await (await parent.submit()).result()
            assert await (await work.submit()).result() == "done"


@virtual
async def test_a_stop_does_not_wait_for_what_nobody_runs_any_more() -> None:
    app = Application(runners=[{"concurrency": 1, "queues": ("default",)}])
    parents: list[Invocation[None]] = []

    @app.task
    async def sleep(seconds: float) -> None:
        await trio.sleep(seconds)

    @app.task
    async def parent(queue: str) -> None:
        await (await sleep.with_options(queue=queue).submit(5)).result()

    async with app:
        parents += [await parent.submit("mail"), await parent.submit("default")]
        await trio.sleep(1)
        began, backend = trio.current_time(), app.state_backend
        await app.supervisor.stop_unit("runner")
        # As long as what runs still takes.
        assert trio.current_time() - began == pytest.approx(4, abs=0.1)
        ends = [(await backend.get_status_record(each.invocation_id)).status for each in parents]
    assert ends == [_I.REROUTED, _I.SUCCESS]


@virtual
async def test_what_is_due_is_seen_at_the_next_heartbeat_when_the_clock_was_set() -> None:
    """As after a sleep of the host, in which the clock of the event loop stands still."""

    class Clock(MemoryStateBackend):
        ahead = timedelta(0)

        def now(self) -> datetime:
            return super().now() + self.ahead

    home = TaskHome()

    @home.task
    async def work() -> str:
        return "done"

    async with Clock() as backend:
        with home.using(backend):
            supervisor = Supervisor(task_units(home))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                invocation = await work.with_options(delay_sec=7200).submit()
                await trio.sleep(10)
                began = trio.current_time()
                backend.ahead = timedelta(hours=2)
                assert await invocation.result() == "done"
                assert trio.current_time() - began <= 1.5
                supervisor.ask_stop_tree("done")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"concurrency": 0}, "concurrency is a whole number from 1 on"),
        ({"concurrency": 2.5}, "concurrency is"),
        ({"processes": -1}, "processes is"),
        ({"quarantine_after": 0}, "quarantine_after is"),
        ({"recycle_after": 0}, "recycle_after is"),
        ({"drain_sec": -1}, "drain_sec is"),
        ({"heartbeat_sec": 0}, "heartbeat_sec is"),
        ({"heartbeat_sec": 10}, r"lease_sec is longer than heartbeat_sec \(10\)"),
        ({"queues": "mails"}, r"queues are several names: \['mails'\]"),
        ({"concurency": 3}, "no setting 'concurency'; did you mean 'concurrency'"),
    ],
)
def test_a_runner_that_cannot_be_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        task_units(TaskHome(), [setting])
