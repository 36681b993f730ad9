"""cpu-bound tasks run in worker processes, each a unit within that of the runner."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio

from runtime import Application, Supervisor
from runtime.exceptions import InvocationCancelledError, TaskError, TaskFailedError
from runtime.invocation import InvocationStatus
from runtime.process.host import Host
from runtime.process.output import Line
from runtime.state_backend.memory import MemoryStateBackend
from runtime.supervision import Stage
from runtime.tasks import Invocation, RunnerSettings, TaskHome
from runtime.tasks.units import task_units

HERE = Path(__file__).parent


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tasks, in a module of that name that is new for each test."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delitem(sys.modules, "cpu_tasks", raising=False)
    import cpu_tasks

    return cpu_tasks


@pytest.fixture
async def app(tasks: ModuleType) -> AsyncGenerator[Application]:
    with trio.fail_after(60):
        async with tasks.app as app:
            yield app


@asynccontextmanager
async def run_alone(
    runner: RunnerSettings, tasks: ModuleType, host: Host | None = None
) -> AsyncGenerator[None]:
    """Run the tasks by *runner*, in a tree that has nothing else."""
    home: TaskHome = tasks.app.tasks
    supervisor = Supervisor(task_units(home, [runner], host=host))
    async with MemoryStateBackend() as backend, trio.open_nursery() as nursery:
        with home.using(backend):
            nursery.start_soon(supervisor.run)
            yield
            supervisor.ask_stop_tree("all is done")


async def statuses(invocation: Invocation[object]) -> list[str]:
    return [str(line.status) for line in await invocation.history()]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a worker process cannot set an event
        await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


async def test_they_run_in_processes_that_are_units_of_the_tree(
    tasks: ModuleType, app: Application, tmp_path: Path
) -> None:
    pids = {await (await tasks.where.submit()).result() for _ in range(4)}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    assert await (await tasks.say.submit("hello", tmp_path)).result() == tmp_path / "hello"
    kinds = {each.name: each.kind for each in app.supervisor.statuses()}
    assert kinds["worker/cpu-0"] == kinds["worker/cpu-1"] == "worker"
    # An exception comes back as its own class, is tried again as it asks for, and ends nobody else.
    failing = await tasks.out_of_range.submit(7)
    with pytest.raises(tasks.OutOfRangeError) as caught:
        await failing.result()
    assert caught.value.limit == 7
    assert (await statuses(failing)).count("retry") == 1
    with pytest.raises(TaskError, match=r"sys\.exit\(5\)"):
        await (await tasks.leave.submit(5)).result()
    assert [s.restarts for s in app.supervisor.statuses() if s.kind == "worker"] == [0, 0]


async def test_what_they_print_is_shown_at_once_behind_their_name(
    tasks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, str, str]] = []
    monkeypatch.setenv("WORKERS_SECRET", "s3same")

    def echo(name: str, lines: Sequence[Line]) -> None:
        heard.extend((name, line.stream, line.text) for line in lines)

    host = Host(echo=echo)
    host.secrets.add(["s3same"])
    with trio.fail_after(60):
        async with run_alone(RunnerSettings(name="w", processes=1), tasks, host):
            await (await tasks.say.submit("hello", tmp_path)).result()
            await (await tasks.say_secret.submit()).result()
            # They run still: nothing waits for a buffer to be full.
            await until(lambda: len(heard) == 3)
    assert sorted(heard) == [
        ("w/cpu-0", "stderr", "hello, again"),
        ("w/cpu-0", "stdout", "hello"),
        ("w/cpu-0", "stdout", "it is ***"),
    ]


async def test_without_a_console_what_they_print_is_logged(
    tasks: ModuleType, app: Application, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runtime.tasks.workers")
    await (await tasks.say.submit("hello", tmp_path)).result()
    await until(lambda: len(caplog.messages) == 2)
    names = {message.partition(": ")[0] for message in caplog.messages}
    texts = {message.partition(": ")[2] for message in caplog.messages}
    assert names < {"worker/cpu-0", "worker/cpu-1"}
    assert texts == {"hello", "hello, again"}


async def test_the_status_of_a_worker_has_its_pid(tasks: ModuleType, app: Application) -> None:
    pid = await (await tasks.where.submit()).result()
    assert pid in {each.pid for each in app.supervisor.statuses() if each.kind == "worker"}
    assert app.supervisor.status("worker").pid is None


async def test_they_know_themselves_and_submit_others(tasks: ModuleType, app: Application) -> None:
    parent = await tasks.submit_others.submit([3, 4])
    me, three, four, once, again = await parent.result()
    assert me == parent.invocation_id
    assert once == again  # the second submission was answered with the first
    results = [await tasks.double.invocation(each).result() for each in (three, four, once)]
    assert results == [6, 8, 6]
    for each in (three, four, once):
        assert (await tasks.double.invocation(each).stored()).parent_id == parent.invocation_id
    # What they cannot do says so, and so does the store.
    *wanted, refusal = await (await tasks.ask_too_much.submit()).result()
    assert wanted == ["get_outcome", "get_status_record", "get_outcome"]
    assert "input should be a valid string" in refusal
    with pytest.raises(ValueError, match="there is an invocation"):
        await (await tasks.submit_twice.submit()).result()


async def test_a_worker_is_replaced_after_so_many_calls(tasks: ModuleType) -> None:
    with trio.fail_after(60):
        async with run_alone(RunnerSettings(processes=1, recycle_after=2), tasks):
            pids = [await (await tasks.where.submit()).result() for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_the_death_of_a_worker_is_seen_at_once_and_its_task_goes_on(
    tasks: ModuleType, app: Application, tmp_path: Path
) -> None:
    invocation = await tasks.die_once.submit(tmp_path / "mark")
    assert await invocation.result() == "survived"
    assert (await statuses(invocation))[-5:] == [
        *("running_recovery", "rerouted", "pending", "running", "success"),
    ]
    history = await invocation.history()
    reasons = [line.execution_context for line in history if line.execution_context]
    assert any("killed by SIGKILL" in reason for reason in reasons), reasons
    # And so do the events of its unit, which its policy has restarted.
    assert sum(each.restarts for each in app.supervisor.statuses() if each.kind == "worker") == 1
    told = [entry.item for entry in app.supervisor.events.tail()]
    assert any("SIGKILL" in each.reason for each in told if each.unit.startswith("worker/"))


async def test_a_runner_that_is_restarted_has_workers_again(
    tasks: ModuleType, app: Application, tmp_path: Path
) -> None:
    note, go_on = tmp_path / "pid", tmp_path / "go on"
    with trio.fail_after(60), pytest.MonkeyPatch.context() as patch:
        invocation = await tasks.work_hard.submit(go_on, note)
        await until(note.exists)
        note.unlink()
        await app.supervisor.restart_unit("worker")  # by request: it is given back
        await until(note.exists)
        assert (await statuses(invocation))[3:5] == ["killed", "rerouted"]
        note.unlink()

        async def fail(*_: object) -> None:
            patch.undo()
            raise OSError("disk full")

        patch.setattr(MemoryStateBackend, "heartbeat", fail)  # by a failure of its own
        await until(note.exists)
        go_on.touch()
        assert await invocation.result() == "done"
        assert "running_recovery" in await statuses(invocation)
        assert app.supervisor.status("worker").restarts == 1
        assert {each.name for each in app.supervisor.statuses() if each.kind == "worker"} == {
            *("worker/cpu-0", "worker/cpu-1")
        }


async def test_what_kills_its_worker_again_and_again_ends_failed(
    tasks: ModuleType, app: Application
) -> None:
    invocation = await tasks.end_at_once.submit()
    with pytest.raises(TaskFailedError, match=r"died 3 times .*exited with 3") as caught:
        await invocation.result()
    assert caught.value.type == "QuarantinedError"
    assert (await statuses(invocation)).count("running") == 3
    assert await (await tasks.where.submit()).result()


async def test_a_timeout_and_a_cancellation_kill_the_worker_and_its_family(
    tasks: ModuleType, app: Application, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    while not note.exists():  # its time may be over before it has begun
        with pytest.raises(TimeoutError, match="timeout_sec"):
            await (await tasks.hang.submit(note)).result()
    assert not any(is_alive(int(pid)) for pid in note.read_text().split())

    note = tmp_path / "pid"
    invocation = await tasks.hang_for_ever.submit(note)
    await until(note.exists)
    await invocation.cancel()
    with pytest.raises(InvocationCancelledError):
        await invocation.result()
    assert not is_alive(int(note.read_text()))
    for name in ("cpu-0", "cpu-1"):
        inner, unit = app.supervisor.locate(f"worker/{name}")
        await inner.wait_until(unit, Stage.READY)
    assert await (await tasks.where.submit()).result()


async def test_no_more_is_taken_than_there_are_workers(
    tasks: ModuleType, app: Application, tmp_path: Path
) -> None:
    notes = [tmp_path / str(number) for number in range(5)]
    invocations = await tasks.hang_for_ever.submit_many([(note,) for note in notes])
    await until(lambda: sum(note.exists() for note in notes) == 2)
    counts = await app.state_backend.count_by_status()
    assert counts == {InvocationStatus.RUNNING: 2, InvocationStatus.REGISTERED: 3}
    for invocation in invocations:
        await invocation.cancel()


async def test_a_stop_kills_the_workers_and_gives_their_tasks_back(
    tasks: ModuleType, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    app = tasks.app
    app.supervisor.stop_within_sec = 20
    with trio.fail_after(30):
        async with app:
            invocation = await tasks.hang_for_ever.submit(note)
            await until(note.exists)
            backend = app.state_backend
        record = await backend.get_status_record(invocation.invocation_id)
    assert record.status is InvocationStatus.REROUTED
    assert not is_alive(int(note.read_text()))
