"""Each route, against a real server over a real socket: what it answers, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from runtime import Service, ServiceConfiguration, ServiceManager
from runtime.service import register_service_class
from runtime.service.registry import _classes
from runtime.supervision.graph import Stage

from .conftest import AUTHORIZED, TOKEN, Serve, script, sleeper


class EchoConfiguration(ServiceConfiguration):
    prefix: str = "Echo"


class EchoManager(ServiceManager):
    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class EchoService(Service):
    configuration_class = EchoConfiguration

    def create_manager(self) -> EchoManager:
        return EchoManager(self.logger)


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    register_service_class(EchoService)
    yield
    del _classes["echo"]


MANIFEST: dict[str, Any] = {
    "processes": [
        sleeper("db"),
        script("api", "echo hello; echo oh >&2; exec sleep 1000", dependencies=["db"]),
        script(
            "job",
            "exit 3",
            shutdown_strategy="do_not_restart",
            ready_strategy="file",
            ready_params={"path": "never"},
        ),
    ],
    "version": "1.2.3",
}

#: Method, path, body, status, and what the answer has in it.
ROWS = [
    ("GET", "/", None, 200, {"version": "1.2.3", "services": {}}),
    ("GET", "/services", None, 200, {"services": []}),
    ("GET", "/services/none", None, 404, {"name": "none"}),
    ("POST", "/services/none/start", None, 404, {"name": "none"}),
    ("POST", "/services/none/stop", None, 404, {"name": "none"}),
    ("POST", "/services/none/configure", {}, 404, {"name": "none"}),
    ("POST", "/services/none/configure_and_start", {}, 404, {"name": "none"}),
    ("DELETE", "/services/none", None, 404, {"name": "none"}),
    ("POST", "/services/register", {"service_name": "none"}, 404, {"name": "none"}),
    ("POST", "/services/register", {"service_nam": "echo"}, 422, {}),
    ("POST", "/services/register", [], 422, {}),
    ("GET", "/processes/db", None, 200, {"name": "db", "status": "running", "ready": True}),
    ("GET", "/processes/none", None, 404, {"name": "none"}),
    ("POST", "/processes/db/restart", None, 200, {"name": "db", "status": "running"}),
    ("POST", "/processes/db/stop", None, 200, {"name": "db", "status": "stopped", "pid": 0}),
    ("POST", "/processes/db/start", None, 200, {"name": "db", "status": "running"}),
    ("POST", "/processes/job/start", None, 409, {"name": "job"}),
    ("POST", "/processes/none/restart", None, 404, {"name": "none"}),
    ("GET", "/processes/none/logs", None, 404, {"name": "none"}),
    ("GET", "/processes/api/logs?lines=x", None, 422, {}),
    ("GET", "/processes/api/logs?lines=-1", None, 422, {}),
    ("GET", "/processes/api/logs?stream=stdin", None, 422, {}),
    ("GET", "/processes/api/logs?line=1", None, 422, {}),
    ("GET", "/tree/db", None, 200, {"name": "db", "kind": "process", "stage": "ready"}),
    ("GET", "/tree/none", None, 404, {"name": "none"}),
    ("GET", "/why/none", None, 404, {"name": "none"}),
    ("GET", "/healthz", None, 200, {"status": "alive"}),
    ("GET", "/nothing", None, 404, {"status": 404}),
    ("PUT", "/tree", None, 405, {"status": 405}),
    ("POST", "/", None, 405, {"status": 405}),
    ("DELETE", "/processes/db", None, 405, {"status": 405}),
    ("GET", "/services/register", None, 404, {}),
    ("GET", "/events?after=x", None, 422, {}),
    ("GET", "/tasks", None, 200, {"tasks": []}),
    ("POST", "/tasks/none", {}, 404, {"name": "none"}),
    ("GET", "/invocations", None, 200, {"invocations": [], "next": None}),
    ("GET", "/invocations/none", None, 404, {"invocation_id": "none"}),
    ("GET", "/invocations/none/history", None, 404, {"invocation_id": "none"}),
    ("GET", "/invocations/none/result", None, 404, {"invocation_id": "none"}),
    ("POST", "/invocations/none/cancel", None, 404, {"invocation_id": "none"}),
    ("POST", "/invocations/none/retry", None, 404, {"invocation_id": "none"}),
]


CHANGES = [
    ("POST", "/services/register"),
    ("DELETE", "/services/echo"),
    *(
        ("POST", f"/services/echo/{verb}")
        for verb in ("start", "stop", "restart", "configure", "configure_and_start")
    ),
    *(("POST", f"/processes/db/{verb}") for verb in ("start", "stop", "restart")),
    ("POST", "/tasks/none"),
    *(("POST", f"/invocations/none/{verb}") for verb in ("cancel", "retry")),
]
READS = [
    "/",
    "/services",
    "/services/echo",
    "/processes",
    "/processes/db",
    "/processes/db/logs",
    "/processes/db/stats",
    "/stats",
    "/events",
    "/tree",
    "/tree/db",
    "/why/db",
    "/tasks",
    "/invocations",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/ui/",
    "/docs/",
]


async def test_every_change_takes_the_token(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        site.application.register_service(EchoService, "echo")
        before = [status.state for status in site.application.supervisor.statuses()]
        last = site.application.supervisor.events.last
        for method, path in CHANGES:
            for given in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
                headers = {} if given is None else {"authorization": given}
                answer = await site.http.request(method, path, headers=headers, content="{}")
                assert answer.status_code == 401, (method, path, given)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["status"] == 401
        assert [status.state for status in site.application.supervisor.statuses()] == before
        assert site.application.supervisor.events.last == last


async def test_no_route_takes_a_method_that_it_has_not(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        site.application.register_service(EchoService, "echo")
        for path in READS:
            answer = await site.http.request("PATCH", path, headers=AUTHORIZED)
            assert answer.status_code == 405, path
            assert "GET" in answer.headers["allow"]
        for _, path in CHANGES[2:]:
            answer = await site.get(path)
            assert answer.status_code == 405, path
            assert "POST" in answer.headers["allow"]


async def test_every_reading_route_answers_a_head(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        site.application.register_service(EchoService, "echo")
        for path in [*READS, "/processes/db/logs?follow=1"]:
            answer = await site.http.head(path)
            assert answer.status_code == (503 if path == "/readyz" else 200), path
            assert answer.content == b""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]} {row[3]}")
async def test_a_route_answers(
    serve: Serve, row: tuple[str, str, Any, int, dict[str, Any]]
) -> None:
    method, path, body, status, wanted = row
    content = None if body is None else json.dumps(body)
    async with serve(MANIFEST) as site:
        response = await site.http.request(method, path, content=content, headers=AUTHORIZED)
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer.items() >= wanted.items()
    problem = response.headers["content-type"] == "application/problem+json"
    assert problem == (status >= 400)
    if problem:
        assert answer["detail"]
        assert "Traceback" not in response.text


async def test_a_service_goes_through_its_life(serve: Serve) -> None:
    async with serve() as site:

        async def say(path: str, **options: Any) -> tuple[int, Any]:
            response = await site.post(path, **options)
            return response.status_code, response.json()

        done = await say("/services/register", json={"service_name": "echo"})
        assert done == (200, {"status": "registered", "service": "echo", "type": "EchoService"})
        assert (
            await say("/services/register", json={"service_name": "echo", "instance_name": "echo"})
        )[0] == 409
        assert (await say("/services/echo/start"))[0] == 422  # it has to be configured first
        assert (await say("/services/echo/configure", json={"prefix": 3}))[0] == 422
        assert (await say("/services/echo/configure", json=[]))[0] == 422
        assert (await say("/services/echo/configure", content="{"))[0] == 422
        done = await say("/services/echo/configure", json={"prefix": "Hi"})
        assert done == (200, {"status": "configured", "service": "echo"})
        assert await say("/services/echo/start") == (200, {"status": "started", "service": "echo"})
        assert (await say("/services/echo/start"))[0] == 409
        assert (await site.get("/services")).json() == {
            "services": [{"name": "echo", "state": "running", "is_configured": True, "error": None}]
        }
        assert (await site.get("/services/echo")).json()["metadata"]["prefix"] == "Hi"
        assert await say("/services/echo/restart") == (
            200,
            {"status": "restarted", "service": "echo"},
        )
        assert await say("/services/echo/stop") == (200, {"status": "stopped", "service": "echo"})
        done = await say("/services/echo/configure_and_start", json={"prefix": "Ho"})
        assert done == (200, {"status": "configured and started", "service": "echo"})
        gone = await site.delete("/services/echo")
        assert gone.json() == {"status": "deregistered", "service": "echo"}
        assert (await site.get("/services/echo")).status_code == 404


async def test_the_status_is_the_one_of_the_application(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        assert (await site.get("/")).json() == site.application.status.model_dump(mode="json")


async def test_lines_of_a_process(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        lines: list[dict[str, Any]] = []
        while len(lines) < 2:  # it may not have printed them yet
            lines = (await site.get("/processes/api/logs")).json()["lines"]
        found = {(line["stream"], line["text"]) for line in lines}
        assert found == {("stdout", "hello"), ("stderr", "oh")}
        errors = (await site.get("/processes/api/logs?stream=stderr&lines=5")).json()["lines"]
        assert [line["text"] for line in errors] == ["oh"]
        assert (await site.get("/processes/api/logs?lines=0")).json() == {"lines": []}


async def test_the_tree_tells_who_waits_for_whom(serve: Serve) -> None:
    manifest = {
        "processes": [
            sleeper(
                "db", ready_strategy="file", ready_params={"path": "never"}, ready_timeout_sec=900
            ),
            sleeper("api", dependencies=[{"name": "db", "condition": "started"}]),
            sleeper("web", dependencies=["db"]),
        ]
    }
    async with serve(manifest, settled=False) as site:
        await site.application.supervisor.wait_until("api", Stage.READY)
        tree = (await site.get("/tree")).json()
        units = {unit["name"]: unit for unit in tree["units"]}
        assert units["db"]["stage"] == "starting"
        assert units["web"]["waiting_for"] == ["db"]
        assert units["api"]["requirements"] == [{"name": "db", "condition": "started"}]
        assert (await site.get("/readyz")).status_code == 503


async def test_why_leads_back_to_the_cause(serve: Serve) -> None:
    manifest = {
        "processes": [sleeper("db", restart_dependents=True), sleeper("api", dependencies=["db"])]
    }
    async with serve(manifest) as site:
        await site.post("/processes/db/restart")
        await site.application.supervisor.wait_settled()
        units = [event["unit"] for event in (await site.get("/why/api")).json()["events"]]
        assert units[0] == "api"
        assert "db" in units


async def test_readiness_of_the_whole(serve: Serve) -> None:
    async with serve({"processes": [sleeper("db")]}) as site:
        assert (await site.get("/readyz")).status_code == 200
        await site.post("/processes/db/stop")
        assert (await site.get("/readyz")).status_code == 200  # nobody wants it to be ready


async def test_metrics(serve: Serve) -> None:
    async with serve({"processes": [sleeper("db")]}) as site:
        response = await site.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        assert 'runtime_unit_ready{kind="process",unit="db"} 1.0' in response.text


async def test_the_description_names_every_route(serve: Serve) -> None:
    async with serve({"processes": [sleeper("db")]}) as site:
        paths = (await site.get("/openapi.json")).json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described >= {
        ("GET", "/"),
        ("GET", "/services"),
        ("POST", "/services/register"),
        ("DELETE", "/services/{name}"),
        ("GET", "/processes/{name}/logs"),
        ("GET", "/events"),
        ("GET", "/tree"),
        ("GET", "/tasks"),
        ("POST", "/tasks/{name}"),
        ("GET", "/invocations"),
        *(("GET", f"/invocations/{{invocation_id}}{part}") for part in ("", "/history", "/result")),
        *(("POST", f"/invocations/{{invocation_id}}/{verb}") for verb in ("cancel", "retry")),
    }
