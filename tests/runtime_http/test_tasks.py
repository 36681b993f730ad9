"""Tasks and invocations over HTTP, against the real server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from runtime import Application
from runtime_http import Client, RefusedError

from .conftest import AUTHORIZED, TOKEN, Serve, Site


@dataclass
class Desk:
    """An application with a few tasks, a client of its server, and what lets `wait` go on."""

    site: Site
    client: Client
    gate: trio.Event

    async def end(self, invocation_id: str) -> Any:
        await self.site.application.state_backend.wait_over(invocation_id)
        return await self.client.result(invocation_id)


OpenDesk = Callable[[], AbstractAsyncContextManager[Desk]]


@pytest.fixture
def open_desk(serve: Serve) -> OpenDesk:
    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Desk]:
        gate = trio.Event()

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
                await gate.wait()
                return "waited"

        async with serve(set_up=define) as site, Client(site.address, TOKEN) as client:
            try:
                yield Desk(site, client, gate)
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


async def test_the_list_is_filtered_and_read_page_by_page(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
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
        counted = await desk.client.invocations(limit=1, counts=True)
        assert counted.counts == {"success": 5, "running": 1}
        assert (await desk.client.invocations(parent=waiting.invocation_id)).invocations == []


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


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/tasks/nothing", {}, 404),
        ("POST", "/tasks/double", {"arguments": {"number": "x"}}, 422),
        ("POST", "/tasks/double", {"arguments": {}}, 422),
        ("POST", "/tasks/double", {"arguments": {"number": 1, "other": 2}}, 422),
        ("POST", "/tasks/double", {"argument": {"number": 1}}, 422),
        ("POST", "/tasks/double", {"arguments": {"number": 1}, "delay_sec": -1}, 422),
        ("POST", "/tasks/double", [], 422),
        ("GET", "/tasks/double", None, 405),
        ("GET", "/invocations/nothing", None, 404),
        ("GET", "/invocations/nothing/history", None, 404),
        ("GET", "/invocations/nothing/result", None, 404),
        ("POST", "/invocations/nothing/cancel", None, 404),
        ("POST", "/invocations/nothing/retry", None, 404),
        ("GET", "/invocations?status=odd", None, 422),
        ("GET", "/invocations?limit=0", None, 422),
        ("GET", "/invocations?after=nowhere", None, 422),
        ("GET", "/invocations?colour=red", None, 422),
        ("DELETE", "/invocations", None, 405),
    ],
)
async def test_what_cannot_be_done_is_a_problem_document(
    open_desk: OpenDesk, method: str, path: str, body: object, status: int
) -> None:
    async with open_desk() as desk:
        answer = await desk.site.http.request(method, path, json=body, headers=AUTHORIZED)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"


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
