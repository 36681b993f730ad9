"""Jobs, and what pauses, in a store of SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from runtime import Application, Supervisor, current_invocation
from runtime._tasks_spec import JobEntry
from runtime.invocation import (
    InvocationRejectedError,
    InvocationStatus,
    NewInvocation,
    Registered,
)
from runtime.state_backend.memory import MemoryStateBackend
from runtime.supervision import Stage
from runtime.tasks import TaskHome
from runtime.tasks.jobs import job_unit
from runtime.tasks.units import task_units


async def test_a_job_that_is_stopped_cancels_its_call() -> None:
    home, begun = TaskHome(), trio.Event()

    @home.task
    async def migrate() -> None:
        begun.set()
        await trio.sleep_forever()

    with trio.fail_after(30):
        async with MemoryStateBackend() as backend:
            with home.using(backend):
                job = job_unit(home, JobEntry(name="job", task="migrate"))
                supervisor = Supervisor([*task_units(home), job])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervisor.run)
                    await begun.wait()
                    supervisor.ask_stop_tree("that is the test")
                assert await backend.count_by_status() == {InvocationStatus.KILLED: 1}


async def test_a_job_that_is_stopped_lets_a_call_go_on_that_was_there_before() -> None:
    home, begun, go_on = TaskHome(), trio.Event(), trio.Event()

    @home.task(registration_concurrency="task")
    async def migrate() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    with trio.fail_after(30):
        async with MemoryStateBackend() as backend, trio.open_nursery() as nursery:
            with home.using(backend):
                runners = Supervisor(task_units(home))
                nursery.start_soon(runners.run)
                theirs = await migrate.submit()
                await begun.wait()
                jobs = Supervisor([job_unit(home, JobEntry(name="job", task="migrate"))])
                async with trio.open_nursery() as inner:
                    inner.start_soon(jobs.run)
                    await jobs.wait_until("job", Stage.READY)
                    jobs.ask_stop_tree("that is the test")
                words = f"that was there already (invocation {theirs.invocation_id})"
                assert any(words in str(entry.item) for entry in jobs.events.tail())
                go_on.set()
                assert await theirs.result() == "done"
                runners.ask_stop_tree("all is done")


async def test_a_job_that_is_stopped_while_it_submits_leaves_no_call_behind() -> None:
    home, registered, go_on = TaskHome(), trio.Event(), trio.Event()

    class Slow(MemoryStateBackend):
        async def register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
            done = await super().register(invocations)
            registered.set()
            await go_on.wait()
            return done

    @home.task
    async def migrate() -> None: ...

    with trio.fail_after(30):
        async with Slow() as backend:
            with home.using(backend):
                supervisor = Supervisor([job_unit(home, JobEntry(name="job", task="migrate"))])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervisor.run)
                    await registered.wait()
                    supervisor.ask_stop_tree("that is the test")
                    await wait_all_tasks_blocked()
                    go_on.set()
                assert await backend.count_by_status() == {InvocationStatus.KILLED: 1}


async def test_a_job_whose_call_is_refused_has_failed() -> None:
    home = TaskHome()

    @home.task(registration_concurrency="task", on_duplicate="reject")
    async def migrate() -> None: ...

    with trio.fail_after(30):
        async with MemoryStateBackend() as backend:
            with home.using(backend):
                await migrate.submit()
                supervisor = Supervisor([job_unit(home, JobEntry(name="job", task="migrate"))])
                await supervisor.run()
                assert isinstance(supervisor.status("job").error, InvocationRejectedError)


async def test_who_waits_for_a_child_is_paused_and_resumed_in_a_file(tmp_path: Path) -> None:
    app = Application(
        state_backend=f"sqlite:///{tmp_path}/jobs.db", runners=[{"name": "one", "concurrency": 1}]
    )
    seen: list[InvocationStatus] = []

    @app.task
    async def child(parent_id: str) -> int:
        seen.append((await app.state_backend.get_status_record(parent_id)).status)
        return 1

    @app.task
    async def parent() -> int:
        me = current_invocation()
        assert me is not None
        return 1 + await (await child.submit(me.invocation_id)).result()

    with trio.fail_after(30):
        async with app:
            invocation = await parent.submit()
            assert await invocation.result() == 2
            statuses = [str(line.status) for line in await invocation.history()]
    assert seen == [InvocationStatus.PAUSED]
    assert statuses[-5:] == ["pending", "running", "paused", "resumed", "success"]
