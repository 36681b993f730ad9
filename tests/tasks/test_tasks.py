"""Submitting, and what comes of it, under the virtual clock."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime import Application, current_invocation
from runtime.exceptions import (
    DuplicateTaskError,
    InvocationCancelledError,
    InvocationNotFoundError,
    InvocationRejectedError,
    InvocationStatusTransitionError,
    NotOpenError,
    TaskArgumentsError,
    TaskDefinitionError,
    TaskError,
    TaskFailedError,
    TaskResultError,
    UnknownTaskError,
)
from runtime.invocation import InvocationStatus
from runtime.tasks import Call, Invocation

from . import typed_calls

pytestmark = pytest.mark.usefixtures("autojump_clock")
_I = InvocationStatus


class QuotaError(Exception):
    def __init__(self, tenant: str, left: int) -> None:
        super().__init__(tenant, left)
        self.tenant, self.left = tenant, left

    def __str__(self) -> str:
        return f"{self.tenant} has {self.left} left"


@pytest.fixture
def app() -> Application:
    return Application(runners=[{"concurrency": 2}])


async def statuses(invocation: Invocation[Any]) -> list[str]:
    return [str(line.status) for line in await invocation.history()]


async def test_what_type_checkers_know_of_tasks_is_so() -> None:
    async with typed_calls.app:
        await typed_calls.use()


async def test_a_task_is_still_its_function_and_a_submitted_call_of_it_is_run(
    app: Application,
) -> None:
    @app.task
    async def join(folder: Path, *names: str) -> Path:
        """Join."""
        return folder.joinpath(*names)

    assert await join(Path("a"), "b") == Path("a/b")
    assert join.__doc__ == "Join."
    assert repr(join) == f"<Task {join.name}>"
    async with app:
        invocation = await join.submit(Path("a"), "b", "c")
        assert invocation.arguments == {"folder": "a", "names": ["b", "c"]}
        assert await invocation.result() == Path("a/b/c")
        assert await invocation.status() is _I.SUCCESS
        assert await statuses(invocation) == ["registered", "pending", "running", "success"]
        again = join.invocation(invocation.invocation_id)
        assert await again.result() == Path("a/b/c")
        with pytest.raises(TaskError, match="stored"):
            assert again.arguments
        assert (await again.stored()).attempts == 1
        assert again.arguments == invocation.arguments


async def test_plain_functions_run_in_threads_from_which_they_submit_and_wait() -> None:
    app = Application(runners=[{"concurrency": 1}])

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    @app.task
    def quadruple(number: int) -> int:
        me = current_invocation()
        assert me is not None
        assert me.attempt == 1
        child = double.submit_from_thread(number)
        return double.submit_from_thread(child.wait_result()).wait_result()

    with trio.fail_after(1e6):
        async with app:
            parent = await quadruple.submit(3)
            assert await parent.result() == 12
            page = await app.state_backend.list_invocations()
            parents = {each.parent_id for each in page.invocations if each.task == double.name}
            assert parents == {parent.invocation_id}
    assert current_invocation() is None


async def test_many_calls_are_submitted_in_one_step_or_none_is(app: Application) -> None:
    @app.task
    async def power(base: int, exponent: int = 2) -> int:
        return base**exponent

    async with app:
        invocations = await power.submit_many([(2,), [3, 3], Call((4,), {"exponent": 1})])
        assert [await each.result() for each in invocations] == [4, 27, 4]
        assert await power.submit_many([]) == []
        with pytest.raises(TaskArgumentsError):
            await power.submit_many([(2,), ("x",)])
        assert await app.state_backend.count_by_status() == {_I.SUCCESS: 3}


async def test_results_of_a_map_come_as_they_are_finished(app: Application) -> None:
    @app.task
    async def wait(seconds: int) -> int:
        await trio.sleep(seconds)
        if seconds == 50:
            raise QuotaError("acme", seconds)
        return seconds

    async with app:
        async with wait.map([(3,), (1,)]) as results:
            assert [each async for each in results] == [1, 3]
        async with wait.map([]) as results:
            assert [each async for each in results] == []
        with pytest.raises(QuotaError, match="acme has 50 left"):
            async with wait.map([(50,), (1,)]) as results:
                assert [each async for each in results] == [1]
        async with wait.map([(100,), (2,)]) as results:
            assert await anext(results) == 2  # to leave it cancels nothing
        assert await app.state_backend.count_by_status() == {
            _I.SUCCESS: 4,
            _I.FAILED: 1,
            _I.RUNNING: 1,
        }


async def test_what_has_been_over_for_long_is_forgotten() -> None:
    app = Application(keep_results_sec=5)

    @app.task
    async def work() -> str:
        return "done"

    async with app:
        invocation = await work.submit()
        assert await invocation.result() == "done"
        await trio.sleep(4)
        assert await app.state_backend.count_by_status() == {_I.SUCCESS: 1}
        await trio.sleep(3)
        assert await app.state_backend.count_by_status() == {}


async def test_what_a_map_waits_for_and_is_forgotten_is_said(app: Application) -> None:
    @app.task
    async def wait(seconds: int) -> int:
        await trio.sleep(seconds)
        return seconds

    async with app:
        async with wait.map([(50,), (60,)]) as results:
            await app.state_backend.purge()
            await trio.sleep(1)
            with pytest.raises(InvocationNotFoundError):
                await anext(results)
        assert trio.current_time() < 50


async def test_delays_and_times_are_kept_exactly(app: Application) -> None:
    began: dict[str, float] = {}

    @app.task
    async def note(name: str) -> None:
        began[name] = trio.current_time()

    async with app:
        start = trio.current_time()
        later = app.state_backend.now() + timedelta(minutes=2)
        invocations = [
            await note.with_options(due_at=later).submit("later"),
            await note.with_options(delay_sec=5).submit("soon"),
            await note.submit("now"),
        ]
        for each in invocations:
            await each.result()
        assert began["now"] == start
        assert began["soon"] == pytest.approx(start + 5, abs=1e-3)
        assert began["later"] == pytest.approx(start + 120, abs=1e-3)
    for wrong in (
        {"delay_sec": -1},
        {"delay_sec": float("nan")},
        {"delay_sec": 1e12},
        {"due_at": datetime(2026, 1, 1)},
        {"due_at": "2026-01-01T00:00:00Z"},
        {"due_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
        {"due_at": datetime(2026, 1, 1, tzinfo=UTC), "delay_sec": 1},
        {"priority": 1 << 64},
        {"priority": "high"},
        {"queue": ""},
        {"idempotency_key": ""},
        {"idempotency_key": 7},
    ):
        with pytest.raises(ValueError, match=rf"\b{next(iter(wrong))} (is|goes)"):
            note.with_options(**wrong)  # type: ignore[arg-type]


async def test_higher_priorities_first_and_queues_apart() -> None:
    app = Application(
        runners=[
            {"name": "one", "concurrency": 1, "queues": ("default",)},
            {"name": "two", "concurrency": 1, "queues": ("mail",)},
        ]
    )
    order: list[str] = []

    @app.task
    async def note(name: str) -> None:
        await trio.sleep(1)
        order.append(name)

    async with app:
        first = await note.submit("first")
        await trio.sleep(0.5)
        low = await note.with_options(priority=-1).submit("low")
        middle = await note.submit("middle")
        high = await note.with_options(priority=5).submit("high")
        mail = await note.with_options(queue="mail").submit("mail")
        for each in (first, low, middle, high, mail):
            await each.result()
        owners = {line.runner_id for line in await mail.history() if line.runner_id}
    assert order == ["first", "mail", "high", "middle", "low"]
    assert {owner.partition("-")[0] for owner in owners} == {"two"}


async def test_an_idempotency_key_has_one_invocation(app: Application) -> None:
    @app.task
    async def number(value: int) -> int:
        return value

    async with app:
        once = number.with_options(idempotency_key="k")
        first, second = await once.submit(1), await once.submit(2)
        assert first.invocation_id == second.invocation_id
        assert await second.result() == 1


async def test_an_exception_comes_back_as_its_own_class_where_that_can_be(
    app: Application,
) -> None:
    class HiddenError(Exception):
        pass

    @app.task
    async def fail(how: str) -> None:
        if how == "quota":
            raise QuotaError("acme", 3)
        if how == "hidden":
            raise HiddenError("somewhere")
        if how == "group":
            raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise SystemExit(4)

    async with app:
        with pytest.raises(QuotaError) as caught:
            await (await fail.submit("quota")).result()
        assert (caught.value.tenant, caught.value.left) == ("acme", 3)
        with pytest.raises(TaskFailedError, match="somewhere") as failed:
            await (await fail.submit("hidden")).result()
        assert failed.value.type.endswith("HiddenError")
        with pytest.raises(TaskFailedError, match="two") as failed:
            await (await fail.submit("group")).result()
        assert failed.value.type == "ExceptionGroup"
        assert "KeyError: 'b'" in failed.value.traceback_text
        with pytest.raises(TaskError, match=r"has called sys\.exit\(4\)"):
            await (await fail.submit("exit")).result()


async def test_a_result_that_does_not_fit_is_a_failure(app: Application) -> None:
    @app.task
    async def wrong() -> int:
        return "text"  # type: ignore[return-value]

    async with app:
        with pytest.raises((TaskResultError, TaskFailedError), match="has returned what it may"):
            await (await wrong.submit()).result()


async def test_retries_wait_longer_each_time_and_end(app: Application) -> None:
    began: list[float] = []

    @app.task(max_retries=4, retry_delay_sec=10, retry_factor=3, max_retry_delay_sec=100)
    async def fail() -> None:
        began.append(trio.current_time())
        raise QuotaError("acme", 0)

    async with app:
        invocation = await fail.submit()
        with pytest.raises(QuotaError):
            await invocation.result()
        assert (await invocation.stored()).retries == 4
    delays = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert delays == pytest.approx([10, 30, 90, 100], abs=1e-3)


async def test_only_what_is_wanted_is_tried_again(app: Application) -> None:
    def few_left(error: Exception) -> bool:
        return isinstance(error, QuotaError) and error.left > 0

    async def attempt(left: int) -> None:
        raise QuotaError("acme", left)

    def broken(error: Exception) -> bool:
        raise LookupError("no idea")

    counts: dict[str, int] = {}
    for name, retry_for in (
        ("predicate says yes", few_left),
        ("predicate says no", few_left),
        ("another class", (OSError,)),
        ("one class", QuotaError),
        ("a list of classes", [OSError, QuotaError]),
        ("a predicate that fails", broken),
    ):
        library = Application()
        library.task(max_retries=1, retry_delay_sec=1, retry_for=retry_for)(attempt).name = name
        ((_, task),) = library.tasks.tasks.items()
        app.tasks.add(task)
        task.home = app.tasks
    async with app:
        for name, task in app.tasks.tasks.items():
            invocation = await task.submit(0 if name == "predicate says no" else 1)
            outcome = await invocation.wait()
            assert outcome.error is not None
            counts[name] = (await invocation.stored()).attempts
            if name == "a predicate that fails":
                assert outcome.error.type == "LookupError"
    assert counts == {
        "predicate says yes": 2,
        "predicate says no": 1,
        "another class": 1,
        "one class": 2,
        "a list of classes": 2,
        "a predicate that fails": 1,
    }


async def test_a_timeout_is_tried_again_only_where_that_is_asked_for(app: Application) -> None:
    @app.task(timeout_sec=5, max_retries=1)
    async def slow() -> None:
        await trio.sleep(10)

    @app.task(timeout_sec=5, max_retries=1, retry_delay_sec=1, retry_for=(TimeoutError,))
    async def again() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        try:
            await trio.sleep(10)
        finally:
            raise ValueError("what it says when it is cut off does not count")

    @app.task(max_retries=1, retry_delay_sec=1)
    async def its_own() -> None:
        raise TimeoutError("of something else")

    async with app:
        for task, attempts in ((slow, 1), (again, 2), (its_own, 2)):
            start = trio.current_time()
            invocation = await task.submit()
            with pytest.raises(TimeoutError):
                await invocation.result()
            assert (await invocation.stored()).attempts == attempts
            if task is slow:
                assert trio.current_time() - start == pytest.approx(5)


async def test_what_waits_is_killed_and_what_runs_is_cancelled(app: Application) -> None:
    cleaned: list[str] = []

    @app.task
    async def hold(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(name)

    async with app:
        running = await hold.submit("running")
        later = await hold.with_options(delay_sec=100).submit("later")
        await trio.sleep(1)
        for invocation in (running, later):
            await invocation.cancel()
            with pytest.raises(InvocationCancelledError):
                await invocation.result()
            with pytest.raises(InvocationStatusTransitionError):
                await invocation.cancel()
        assert cleaned == ["running"]


async def test_a_killed_one_goes_on_and_a_failed_one_anew(app: Application) -> None:
    works = False

    @app.task
    async def maybe() -> str:
        if not works:
            raise QuotaError("acme", 0)
        return "done"

    async with app:
        killed = await maybe.with_options(delay_sec=100).submit()
        await killed.cancel()
        failed = await maybe.submit()
        assert (await failed.wait()).status is _I.FAILED
        works = True
        again, anew = await killed.retry(), await failed.retry()
        assert await again.result() == await anew.result() == "done"
        assert again.invocation_id == killed.invocation_id
        assert (await anew.stored()).retry_of == failed.invocation_id
        with pytest.raises(InvocationStatusTransitionError):
            await anew.retry()


async def test_one_at_a_time_for_each_key() -> None:
    app = Application(runners=[{"concurrency": 10}])
    now: dict[str, int] = {}
    most: dict[str, int] = {}

    @app.task(running_concurrency="keys", key_arguments=("tenant",))
    async def work(tenant: str, number: int) -> None:
        now[tenant] = now.get(tenant, 0) + 1
        most[tenant] = max(most.get(tenant, 0), now[tenant])
        most["all"] = max(most.get("all", 0), sum(now.values()))
        await trio.sleep(1)
        now[tenant] -= 1

    async with app:
        start = trio.current_time()
        async with work.map([(tenant, n) for tenant in "ab" for n in range(3)]) as results:
            assert len([each async for each in results]) == 6
        assert trio.current_time() - start == pytest.approx(3)
    assert most == {"a": 1, "b": 1, "all": 2}


@pytest.mark.parametrize("control", ["task", "arguments"])
async def test_duplicates_are_reused_or_rejected(control: Any) -> None:
    app = Application()

    @app.task(registration_concurrency=control)
    async def reuse(number: int) -> int:
        await trio.sleep(1)
        return number

    @app.task(registration_concurrency=control, on_duplicate="reject")
    async def reject(number: int) -> int:
        await trio.sleep(1)
        return number

    async with app:
        first, same, other = [await reuse.submit(each) for each in (1, 1, 2)]
        assert first.invocation_id == same.invocation_id
        assert (other.invocation_id == first.invocation_id) is (control == "task")
        assert same.arguments == {"number": 1}
        assert (first.created, same.created, other.created) == (True, False, control != "task")
        kept, rejected = await reject.submit(1), await reject.submit(1)
        with pytest.raises(InvocationRejectedError):
            await rejected.result()
        assert await kept.result() == 1
        assert await (await reuse.submit(1)).result() == 1  # the first one is over: a new one


def test_a_definition_that_cannot_be_is_refused(app: Application) -> None:
    async def function(a: int) -> None: ...
    def plain() -> None: ...

    for options, words in (
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"retry_for": "OSError"}, "retry_for is a tuple of classes"),
        ({"retry_for": (OSError, 5)}, "retry_for is a tuple of classes"),
        ({"retry_for": BaseException}, "retry_for is a tuple of classes"),
        ({"retry_for": function}, "retry_for is a tuple of classes"),
        ({"timeout_sec": "60"}, "timeout_sec"),
        ({"queue": 5}, "queue"),
        ({"timeout_sec": 0}, "timeout_sec"),
        ({"timeout_sec": float("nan")}, "timeout_sec"),
        ({"retry_delay_sec": -1}, "retry_delay_sec"),
        ({"max_retry_delay_sec": 1e300}, "max_retry_delay_sec"),
        ({"retry_factor": -1}, "retry_factor"),
        ({"priority": "high"}, "priority"),
        ({"running_concurrency": "some"}, "some"),
        ({"running_concurrency": "keys"}, "key_arguments"),
        ({"key_arguments": ("a",)}, "key_arguments"),
        ({"running_concurrency": "keys", "key_arguments": "a"}, "tuple of names"),
        ({"running_concurrency": "keys", "key_arguments": ("b",)}, "no parameter 'b'"),
        ({"cpu_bound": True}, "async"),
        ({"unknown": 1}, "unknown"),
    ):
        with pytest.raises(TaskDefinitionError, match=words):
            app.task(**options)(function)  # type: ignore[arg-type]
    with pytest.raises(TaskDefinitionError, match="top of a module"):
        app.task(cpu_bound=True)(plain)
    app.task(function)
    with pytest.raises(DuplicateTaskError):
        app.task(function)


async def test_what_json_cannot_hold_keeps_the_application_from_starting(
    app: Application,
) -> None:
    @app.task
    async def wrong(connection: trio.SocketStream) -> None: ...

    with pytest.raises(TaskDefinitionError, match="annotate what pydantic knows"):
        async with app:
            raise AssertionError


async def test_nothing_is_submitted_while_nothing_runs(app: Application) -> None:
    @app.task
    async def nothing() -> None: ...

    with pytest.raises(NotOpenError):
        await nothing.submit()


def test_a_task_is_found_by_the_name_of_its_function_where_that_is_one(app: Application) -> None:
    async def nothing() -> None: ...

    task = app.task(nothing)
    assert app.tasks.find(task.name) is task
    assert app.tasks.find("nothing") is task
    with pytest.raises(UnknownTaskError, match="did you mean 'nothing'"):
        app.tasks.find("nothin")
    other = Application().task(nothing)
    other.name = "elsewhere.nothing"
    app.tasks.add(other)
    with pytest.raises(UnknownTaskError, match="several tasks"):
        app.tasks.find("nothing")
    with pytest.raises(UnknownTaskError, match="did you mean") as caught:
        app.tasks.find("elsewhere.nothin")
    assert not caught.value.ambiguous


async def test_tasks_of_another_application_are_taken_in(app: Application) -> None:
    library = Application()

    @library.task
    async def one() -> int:
        return 1

    app.tasks.adopt(library.tasks)
    async with app:
        assert await (await one.submit()).result() == 1
