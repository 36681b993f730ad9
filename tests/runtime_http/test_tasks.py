"""Tasks and invocations over HTTP, against the real server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import ValidationError

from runtime import Application
from runtime.invocation import InvocationStatus, NewInvocation
from runtime.state_backend import BaseStateBackend
from runtime.tasks import TaskHome
from runtime_http import Client, RefusedError, views
from runtime_http._quart import _explain_validation
from runtime_http.models import TaskSubmission

from .conftest import AUTHORIZED, TOKEN, Serve, Site


@dataclass
class Desk:
    """An application with a few tasks, a client of its server.

    What says that `wait` *runs*, and the *gate* that lets it go on.
    """

    site: Site
    client: Client
    runs: trio.Event
    gate: trio.Event

    @property
    def store(self) -> BaseStateBackend:
        return self.site.application.state_backend

    async def end(self, invocation_id: str) -> Any:
        await self.store.wait_over(invocation_id)
        return await self.client.result(invocation_id)

    async def until_waited_for(self, invocation_id: str, *, not_any_more: bool = False) -> None:
        """Return once somebody waits for the end of this invocation, or nobody does."""
        while (invocation_id in self.store.changes.watched) == not_any_more:  # noqa: ASYNC110
            await trio.sleep(0.005)  # the server tells nobody of that


OpenDesk = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def open_desk(serve: Serve) -> OpenDesk:
    @asynccontextmanager
    async def open_one(**options: Any) -> AsyncGenerator[Desk]:
        runs, gate = trio.Event(), trio.Event()

        def define(application: Application) -> None:
            @application.task
            async def double(number: int) -> int:
                """Return twice the number.

                And nothing else.
                """
                return 2 * number

            @application.task
            async def fail(words: str) -> None:
                raise RuntimeError(words)

            @application.task(queue="slow")
            async def wait() -> str:
                runs.set()
                await gate.wait()
                return "waited"

            @application.task
            async def share(numbers: list[int]) -> int:
                calls = [await double.submit(each) for each in numbers]
                return sum([await each.result() for each in calls])

        async with serve(set_up=define, **options) as site, Client(site.address, TOKEN) as client:
            try:
                yield Desk(site, client, runs, gate)
            finally:
                gate.set()  # a stop lets what runs end

    return open_one


async def test_a_call_is_submitted_and_its_result_read(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        submitted = await desk.client.submit("double", {"number": 21})
        result = await desk.end(submitted.invocation_id)
        assert (result.status, result.result, result.error) == ("success", 42, None)
        shown = await desk.client.invocation(submitted.invocation_id)
        assert shown.task.endswith("double")
        assert shown.arguments == {"number": 21}
        assert (shown.attempts, shown.status, shown.runner_id) == (1, "success", None)
        lines = await desk.client.history(submitted.invocation_id)
        assert [line.status for line in lines] == ["registered", "pending", "running", "success"]
        assert lines[-1].timestamp == shown.timestamps.changed_at
        answer = await desk.site.get(f"/invocations/{submitted.invocation_id}/history")
        assert {"status", "timestamp", "runner_id"} <= answer.json()[0].keys()


async def test_the_tree_shows_what_its_runners_run(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        assert (await desk.client.tree()).invocations_in_flight == 0
        waiting = (await desk.client.submit("wait")).invocation_id
        await desk.runs.wait()
        tree = await desk.client.tree()
        assert tree.invocations_in_flight == 1
        (shown,) = tree.invocations
        assert shown.invocation_id == waiting
        assert shown.task.endswith(".wait")
        assert (shown.runner, shown.attempt, shown.paused) == ("runner", 1, False)
        assert shown.running_sec > 0
        assert [unit.name for unit in tree.units if unit.kind == "runner"] == [shown.runner]
        desk.gate.set()
        await desk.end(waiting)
        while (await desk.client.tree()).invocations:
            await trio.lowlevel.checkpoint()


async def test_of_many_that_run_the_oldest_are_shown(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_MOST_IN_FLIGHT", 3)
    async with open_desk() as desk:
        task = desk.site.application.tasks.find("wait")
        first = {(await task.submit()).invocation_id for _ in range(3)}
        while (await desk.client.tree()).invocations_in_flight < 3:
            await trio.lowlevel.checkpoint()
        await task.submit_many([()] * 2)
        while (tree := await desk.client.tree()).invocations_in_flight < 5:
            await trio.lowlevel.checkpoint()
        assert {shown.invocation_id for shown in tree.invocations} == first
        seconds = [shown.running_sec for shown in tree.invocations]
        assert seconds == sorted(seconds, reverse=True)


async def test_an_error_is_told_with_where_it_came_from(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        submitted = await desk.client.submit("fail", {"words": "no luck"})
        result = await desk.end(submitted.invocation_id)
        assert result.status == "failed"
        assert (result.error.type, result.error.message) == ("RuntimeError", "no luck")
        assert "raise RuntimeError(words)" in result.error.traceback
        again = await desk.client.change_invocation(submitted.invocation_id, "retry")
        assert again.invocation_id != submitted.invocation_id
        assert again.retry_of == submitted.invocation_id


async def test_one_that_runs_is_202_until_it_is_cancelled(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        submitted = await desk.client.submit("wait")
        path = f"/invocations/{submitted.invocation_id}"
        answer = await desk.site.get(f"{path}/result")
        assert answer.status_code == 202
        await desk.client.change_invocation(submitted.invocation_id, "cancel")
        assert (await desk.end(submitted.invocation_id)).status == "killed"
        with pytest.raises(RefusedError) as refusal:
            await desk.client.change_invocation(submitted.invocation_id, "cancel")
        assert refusal.value.status == 409
        again = await desk.client.change_invocation(submitted.invocation_id, "retry")
        assert again.invocation_id == submitted.invocation_id


@pytest.mark.parametrize(
    "store", ["memory://", "sqlite:///FOLDER/calls.db"], ids=["memory", "sqlite"]
)
async def test_the_list_is_filtered_and_read_page_by_page(
    open_desk: OpenDesk, store: str, tmp_path: Path
) -> None:
    async with open_desk(state_backend=store.replace("FOLDER", str(tmp_path))) as desk:
        made = [
            (await desk.client.submit("double", {"number": n}, priority=n)).invocation_id
            for n in range(5)
        ]
        waiting = await desk.client.submit("wait")
        for each in made:
            await desk.end(each)
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await desk.client.invocations(status="success", limit=2, after=after)
            seen += [each.invocation_id for each in page.invocations]
            after = page.next
            if after is None:
                break
        assert seen == made[::-1]
        (task,) = [each.name for each in await desk.client.tasks() if each.queue == "slow"]
        alone = await desk.client.invocations(task=task)
        assert [each.invocation_id for each in alone.invocations] == [waiting.invocation_id]
        await desk.runs.wait()
        counted = await desk.client.invocations(limit=1, counts=True)
        assert counted.counts == {"success": 5, "running": 1}
        assert len(counted.invocations) == 1
        assert (await desk.client.invocations()).counts is None
        several = await desk.client.invocations(status=["running", "success"], limit=2)
        assert [each.status for each in several.invocations] == ["running", "success"]
        assert (await desk.client.invocations(status=["failed", "killed"])).invocations == []
        parent = (await desk.client.submit("share", {"numbers": [3, 4]})).invocation_id
        assert (await desk.end(parent)).result == 14
        children = (await desk.client.invocations(parent=parent)).invocations
        assert [each.arguments for each in children] == [{"number": 4}, {"number": 3}]
        assert {each.parent for each in children} == {parent}
        one = await desk.client.invocations(parent=parent, status="success", limit=1, counts=True)
        assert (len(one.invocations), one.counts) == (1, {"success": 8, "running": 1})
        rest = await desk.client.invocations(parent=parent, status="success", after=one.next)
        assert [each.arguments for each in rest.invocations] == [{"number": 3}]
        assert (await desk.client.invocations(parent=waiting.invocation_id)).invocations == []


async def test_what_was_never_registered_is_in_no_list(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        await desk.store.upsert_invocation(
            NewInvocation(invocation_id="half", task="elsewhere.made", arguments="{}")
        )
        assert (await desk.client.invocations()).invocations == []


# --- to wait --------------------------------------------------------------------------------------


async def test_a_result_is_waited_for(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        waiting = (await desk.client.submit("wait")).invocation_id
        results: list[Any] = []

        async def wait() -> None:
            results.append(await desk.client.result(waiting, wait_sec=60))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await desk.until_waited_for(waiting)
            await desk.runs.wait()
            assert (await desk.client.result(waiting)).status == "running"
            desk.gate.set()
        assert [each.result for each in results] == ["waited"] * 3
        assert (await desk.client.result(waiting, wait_sec=60)).result == "waited"


async def test_a_wait_ends_with_its_time_and_says_how_it_stands(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        waiting = (await desk.client.submit("wait", delay_sec=3600)).invocation_id
        answer = await desk.site.get(f"/invocations/{waiting}/result?wait_sec=0.1")
        assert answer.status_code == 202
        assert answer.json() == {"status": "registered", "result": None, "error": None}
        assert answer.elapsed.total_seconds() >= 0.1
        assert desk.store.changes.watched == []


async def test_who_goes_away_waits_no_longer(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        waiting = (await desk.client.submit("wait", delay_sec=3600)).invocation_id
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.client.result, waiting, wait_sec=60))
            await desk.until_waited_for(waiting)
            nursery.cancel_scope.cancel()
        await desk.until_waited_for(waiting, not_any_more=True)


async def test_the_end_of_the_server_ends_a_wait(open_desk: OpenDesk) -> None:
    statuses: list[str] = []
    async with trio.open_nursery() as nursery, open_desk() as desk:
        waiting = (await desk.client.submit("wait", delay_sec=3600)).invocation_id

        async def wait() -> None:
            async with Client(desk.site.address) as client:
                result = await client.result(waiting, wait_sec=60)
                statuses.append(result.status)

        nursery.start_soon(wait)
        await desk.until_waited_for(waiting)
    assert statuses == ["registered"]


async def test_what_happens_is_in_the_stream_and_in_no_list_of_units(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        last = (await desk.client.tree()).last_event
        submitted = await desk.client.submit("double", {"number": 1})
        statuses: list[str] = []
        async with aclosing(desk.client.events(after=last)) as events:
            async for event in events:
                assert event.kind == "invocation"
                assert event.data["now"] is None
                assert event.data["invocation"]["invocation_id"] == submitted.invocation_id
                statuses.append(event.data["invocation"]["status"])
                if statuses[-1] == "success":
                    break
        assert statuses == ["registered", "pending", "running", "success"]
        recent = await desk.client.recent_events()
        assert recent
        assert {each.kind for each in recent} <= {"moved", "asked", "noted"}
        assert len(await desk.client.recent_events(limit=2)) == 2
        (task,) = {each.name for each in await desk.client.tasks() if each.name.endswith("double")}
        answer = await desk.site.get(f"/invocations?parent={submitted.invocation_id}&task={task}")
        assert answer.json()["invocations"] == []


async def test_a_list_has_the_beginning_of_long_arguments(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        words = "x" * 5000
        long = (await desk.client.submit("fail", {"words": words})).invocation_id
        await desk.client.submit("double", {"number": 1})
        brief = {each.arguments_cut: each for each in (await desk.client.invocations()).invocations}
        assert brief[False].arguments == {"number": 1}
        assert isinstance(brief[True].arguments, str)
        assert brief[True].arguments.startswith('{"words":"xxx')
        assert len(brief[True].arguments) == 501
        whole = await desk.client.invocation(long)
        assert (whole.arguments, whole.arguments_cut) == ({"words": words}, False)


async def test_a_key_is_submitted_once(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        first = await desk.client.submit("double", {"number": 1}, idempotency_key="k")
        second = await desk.client.submit("double", {"number": 1}, idempotency_key="k")
        assert first.invocation_id == second.invocation_id


async def test_when_and_where_a_call_is_run_may_be_said(open_desk: OpenDesk) -> None:
    due_at = datetime(2126, 3, 2, 9, tzinfo=timezone(timedelta(hours=2)))
    async with open_desk() as desk:
        call = await desk.client.submit(
            "double", {"number": 1}, due_at=due_at, priority=-3, queue="mails"
        )
        shown = await desk.client.invocation(call.invocation_id)
        assert (shown.timestamps.due_at, shown.priority, shown.queue) == (due_at, -3, "mails")
        path, body = "/tasks/wait", {"due_at": "2126-03-02T09:00+02:00", "delay_sec": 0}
        answer = await desk.site.http.post(path, json=body, headers=AUTHORIZED)
        shown = await desk.client.invocation(answer.json()["invocation_id"])
        assert (shown.timestamps.due_at, shown.priority, shown.queue) == (due_at, 0, "slow")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"due_at": "2126-03-02T09:00:00"}, "due_at: must be a time with its zone, such as"),
        ({"due_at": "tomorrow"}, "due_at: must be a time with its zone"),
        ({"due_at": 4_928_000_000}, "due_at: must be a time with its zone"),
        ({"due_at": "9999-12-31T23:59:59-01:00"}, "due_at: must be a time with its zone"),
        ({"due_at": "2126-03-02T09:00:00Z", "delay_sec": 1}, "due_at: goes without a delay"),
        ({"delay_sec": 315_360_001}, "delay_sec: Input should be less than or equal to 315360000"),
        ({"priority": 1_000_001}, "priority: Input should be less than or equal to 1000000"),
        ({"queue": ""}, "queue: String should have at least 1 character"),
        ({"queue": "q" * 201}, "queue: String should have at most 200 characters"),
        ({"idempotency_key": ""}, "idempotency_key: String should have at least 1 character"),
    ],
)
def test_what_cannot_be_said_of_a_submission_is_told(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskSubmission.model_validate(said)
    assert _explain_validation(caught.value).detail.startswith(words)


REFUSED: list[tuple[str, str, object, int]] = [
    ("POST", "/tasks/nothing", {}, 404),
    ("POST", "/tasks/double", {"arguments": {"number": "x"}}, 422),
    ("POST", "/tasks/double", {"arguments": {}}, 422),
    ("POST", "/tasks/double", {"arguments": {"number": 1, "other": 2}}, 422),
    ("POST", "/tasks/double", {"argument": {"number": 1}}, 422),
    ("POST", "/tasks/double", {"arguments": {"number": 1}, "delay_sec": -1}, 422),
    ("POST", "/tasks/double", {"arguments": {"number": 1}, "due_at": 5}, 422),
    ("POST", "/tasks/double", {"arguments": {"number": 1}, "queue": ""}, 422),
    ("POST", "/tasks/double", [], 422),
    ("GET", "/tasks/double", None, 405),
    ("GET", "/invocations/nothing", None, 404),
    ("GET", "/invocations/nothing/history", None, 404),
    ("GET", "/invocations/nothing/result", None, 404),
    ("POST", "/invocations/nothing/cancel", None, 404),
    ("POST", "/invocations/nothing/retry", None, 404),
    ("GET", "/invocations?status=odd", None, 422),
    ("GET", "/invocations?status=failed&status=odd", None, 422),
    ("GET", "/invocations?limit=0", None, 422),
    ("GET", "/invocations?after=nowhere", None, 422),
    ("GET", "/invocations?limit=1&limit=2", None, 422),
    ("GET", "/invocations/nothing/result?wait_sec=1", None, 404),
    ("GET", "/invocations/nothing/result?wait_sec=60.1", None, 422),
    ("GET", "/invocations/nothing/result?wait_sec=-1", None, 422),
    ("GET", "/invocations/nothing/result?wait_sec=nan", None, 422),
    ("GET", "/invocations/nothing/result?wait_sec=long", None, 422),
    ("GET", "/invocations/nothing/result?wait=1", None, 422),
    ("GET", "/invocations?colour=red", None, 422),
    ("DELETE", "/invocations", None, 405),
]


async def test_what_cannot_be_done_is_a_problem_document(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        for method, path, body, status in REFUSED:
            answer = await desk.site.http.request(method, path, json=body, headers=AUTHORIZED)
            told = (answer.status_code, answer.json()["status"], answer.headers["content-type"])
            assert told == (status, status, "application/problem+json"), (method, path, body)


async def test_one_that_a_runner_has_taken_and_not_begun_cannot_be_retried(
    open_desk: OpenDesk,
) -> None:
    async with open_desk() as desk:
        call = (await desk.client.submit("wait", delay_sec=3600)).invocation_id
        await desk.store.set_status(call, InvocationStatus.PENDING, "somebody")
        with pytest.raises(RefusedError, match="pending cannot become rerouted") as refusal:
            await desk.client.change_invocation(call, "retry")
        assert refusal.value.status == 409


async def test_a_name_that_several_tasks_have_is_none(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:

        @desk.site.application.task
        async def double() -> None: ...

        with pytest.raises(RefusedError, match="several tasks are named 'double'") as refusal:
            await desk.client.submit("double", {"number": 1})
        assert refusal.value.status == 404
        assert len(refusal.value.fields["tasks"]) == 2


async def test_a_store_that_cannot_be_used_is_told_with_the_reason(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        TaskHome().adopt(desk.site.application.tasks)  # which has no store that is open
        with pytest.raises(RefusedError, match="submitted while their application runs") as refusal:
            await desk.client.submit("double", {"number": 1})
        assert refusal.value.status == 503


async def test_changing_anything_takes_the_token(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        submitted = await desk.client.submit("double", {"number": 1})
        for path in (
            "/tasks/double",
            f"/invocations/{submitted.invocation_id}/cancel",
            f"/invocations/{submitted.invocation_id}/retry",
        ):
            assert (await desk.site.http.post(path, json={})).status_code == 401


async def test_a_tree_without_tasks_has_no_invocations(serve: Serve) -> None:
    async with serve() as site:
        assert (await site.get("/tasks")).json() == {"tasks": []}
        nothing = {"invocations": [], "next": None, "counts": None}
        assert (await site.get("/invocations")).json() == nothing
        assert (await site.get("/invocations?counts=1")).json() == {**nothing, "counts": {}}
        assert (await site.get("/invocations/x")).status_code == 404
