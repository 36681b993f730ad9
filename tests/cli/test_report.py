from __future__ import annotations

from typing import Any

import trio
import trio.testing

from runtime._tasks_spec import JobEntry
from runtime.application import Application
from runtime.cli._report import Report
from runtime.process import SurvivorsError
from runtime.supervision.events import Journal
from runtime.supervision.graph import Requirement, Stage
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle
from runtime.tasks.jobs import job_unit


class Heard:
    """Takes what a report says in the place of a console."""

    is_terminal = False
    coloured = False

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.bad: list[str] = []

    def say(self, sentence: str, *, bad: bool = False) -> None:
        self.sentences.append(sentence)
        if bad:
            self.bad.append(sentence)

    def progress(self, words: str) -> None:
        pass


class Pilot:
    """As much of a pilot as a report looks at."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor


async def stay(*, task_status: UnitHandle) -> None:
    task_status.started()
    await trio.sleep_forever()


def stays(
    *needed: str, stop_sec: float, own_sec: float | None = 5, what: str = ""
) -> dict[str, Any]:
    """Define a unit that takes some time to stop, of which it says so much beforehand."""

    async def body(*, task_status: UnitHandle) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with (
                task_status.budget.polite(own_sec, what=lambda: what)
                if own_sec
                else trio.CancelScope(shield=True)
            ):
                await trio.sleep(stop_sec)

    return {"body": body, "requirements": tuple(map(Requirement, needed))}


async def tell_stop_of(units: dict[str, dict[str, Any]]) -> list[str]:
    """Return what is said of the stop of these units."""
    supervisor = Supervisor([Unit(name=name, **fields) for name, fields in units.items()])
    heard = Heard()
    report = Report(Pilot(supervisor), heard)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        nursery.start_soon(report.tell_stop)
        async with trio.open_nursery() as telling:
            telling.start_soon(report.run)
            await trio.testing.wait_all_tasks_blocked()
            heard.sentences.clear()
            supervisor.ask_stop_tree("enough")
            await supervisor.wait_ended()
            supervisor.events.close()
        nursery.cancel_scope.cancel()
    return heard.sentences


async def test_a_stop_is_told_once_it_is_over_in_the_order_in_which_all_went_down(
    autojump_clock: Any,
) -> None:
    units = {
        "db": stays(stop_sec=0.4),
        "cache": stays(stop_sec=0.3),
        "api": stays("db", "cache", stop_sec=0.5),
    }
    assert await tell_stop_of(units) == ["stop: enough", "stopped: api, cache, db (0.9 s)"]


async def test_what_takes_long_to_stop_is_told_once_with_the_time_that_it_has(
    autojump_clock: Any,
) -> None:
    units = {
        "log": stays(stop_sec=3, own_sec=None),  # it has what the whole stop has left
        "db": stays("log", stop_sec=4.2),
        "cache": stays("log", stop_sec=0.9),
        "web": stays("log", stop_sec=2, own_sec=10),
        "api": stays("db", "cache", stop_sec=1.5, own_sec=2),
    }
    assert await tell_stop_of(units) == [
        "stop: enough",
        "waiting for web, api to stop, 9.0 s left of 10 s",
        "waiting for db to stop, 4.0 s left of 5 s",
        "waiting for log to stop, 23.3 s left of 30 s",
        "stopped: api, web, cache, db, log (8.7 s)",
    ]


async def test_what_is_waited_for_is_told_and_told_again_while_it_lasts(
    autojump_clock: Any,
) -> None:
    units = {
        "db": stays(stop_sec=24, own_sec=29, what="pid 12 (postgres)"),
        "web": stays(stop_sec=2, own_sec=10, what="hook bye (on_shutdown)"),
        "api": stays(stop_sec=3),
    }
    whats = "db: pid 12 (postgres); web: hook bye (on_shutdown)"
    assert await tell_stop_of(units) == [
        "stop: enough",
        f"waiting for db, web, api to stop, 28.0 s left of 29 s: {whats}",
        "waiting for db to stop, 18.0 s left of 29 s: pid 12 (postgres)",
        "waiting for db to stop, 8.0 s left of 29 s: pid 12 (postgres)",
        "stopped: web, api, db (24.0 s)",
    ]


async def test_at_the_end_it_is_told_what_had_to_be_killed_and_what_is_still_there(
    autojump_clock: Any,
) -> None:
    def killed(*who: str, left: SurvivorsError | None = None) -> dict[str, Any]:
        async def body(*, task_status: UnitHandle) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for each in who:
                    task_status.note(f"killed: {each}; still there 5.0 s after SIGTERM")
                if left is not None:
                    raise left

        return {"body": body}

    units = {
        "db": killed("pid 3 (sh)", left=SurvivorsError("db", [3], ["sh"])),
        "api": killed("pid 12 (python3), pid 13 (sh)", "pid 14 (tee)"),
    }
    told = await tell_stop_of(units)
    _, killed_ones, left = told[-1].split("; ")
    db, api = "db (pid 3 (sh))", "api (pid 12 (python3), pid 13 (sh), pid 14 (tee))"
    assert killed_ones in {f"killed: {db}, {api}", f"killed: {api}, {db}"}
    assert left == f"still there after SIGKILL: {db}"


async def test_of_many_units_that_stop_the_first_are_named(autojump_clock: Any) -> None:
    units = {f"u{number}": stays(stop_sec=2 + number / 100) for number in range(25)}
    first = ", ".join(f"u{number}" for number in range(20))
    assert await tell_stop_of(units) == [
        "stop: enough",
        f"waiting for {first} and 5 more to stop, 4.0 s left of 5 s",
        f"stopped: {first} and 5 more (2.2 s)",
    ]


async def test_events_that_came_too_fast_are_counted(autojump_clock: Any) -> None:
    units = [Unit(name=f"u{number}", body=stay) for number in range(4)]
    supervisor = Supervisor(units, events=Journal(3))
    heard = Heard()
    report = Report(Pilot(supervisor), heard)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)  # each has two events: starting, ready
        nursery.start_soon(report.run)
        await trio.testing.wait_all_tasks_blocked()
        assert heard.sentences[0] == "5 events came too fast to be told"
        assert len(heard.sentences) == 3
        supervisor.ask_stop_tree("enough")
        await supervisor.wait_ended()
        supervisor.events.close()


async def test_of_invocations_those_are_told_that_have_failed(autojump_clock: Any) -> None:
    app = Application(keep=True)

    @app.task(max_retries=1)
    async def divide(by: int) -> float:
        return 1 / by

    heard = Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Report(app, heard).run)
        async with app:
            await trio.testing.wait_all_tasks_blocked()
            heard.sentences.clear()
            good, bad = await divide.submit_many([(1,), (0,)])
            await good.wait()
            await bad.wait()
            await trio.testing.wait_all_tasks_blocked()
            words = f"{bad.invocation_id} of {divide.name}: failed, ZeroDivisionError: division by"
            (told,) = heard.sentences
            assert told.startswith(words)
            assert heard.bad == [told]
            # Of a flood the number is told.
            for each in await divide.submit_many([(0,)] * 25):
                await each.wait()
            await trio.sleep(2)
            assert heard.bad[-1] == "15 more invocations: failed"
            assert len(heard.bad) == 1 + 10 + 1
            assert len(heard.sentences) == len(heard.bad)
        app.supervisor.events.close()


async def test_a_unit_that_has_been_removed_since_is_told_of(autojump_clock: Any) -> None:
    async def brief(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    app = Application(keep=True)
    heard = Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Report(app, heard).run)
        async with app:
            for number in range(20):  # who is first, the report or the removal, is up to Trio
                name = f"s{number}"
                await app.register_service(brief, name).start()
                await app.deregister_service(name)
            await trio.testing.wait_all_tasks_blocked()
            told = [words for words in heard.sentences if words.startswith("s")]
            assert [words for words in told if words.endswith(" stopped")] == [
                f"s{number} stopped" for number in range(20)
            ]
        app.supervisor.events.close()


async def test_the_call_of_a_job_that_fails_is_told_as_the_end_of_the_job(
    autojump_clock: Any,
) -> None:
    app = Application(keep=True)

    @app.task
    async def divide(by: int) -> float:
        return 1 / by

    heard = Heard()
    job = JobEntry(name="job", task=divide.name, arguments={"by": 0})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Report(app, heard).run)
        async with app:
            app.supervisor.add(job_unit(app.tasks, job))
            await app.supervisor.wait_until("job", Stage.FAILED)
            await trio.testing.wait_all_tasks_blocked()
            told = [words for words in heard.sentences if "ZeroDivisionError" in words]
            assert told == heard.bad
            assert len(told) == 1
            assert told[0].startswith(f"job {divide.name} has failed: ZeroDivisionError")
            (calls,) = [words for words in heard.sentences if words.startswith("job calls")]
            (bad,) = (await app.state_backend.list_invocations()).invocations
            assert bad.invocation_id in calls  # to be looked up by
        app.supervisor.events.close()
