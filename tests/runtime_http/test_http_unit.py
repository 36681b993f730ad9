"""The server as a unit: it comes, dies and goes without harm to anything else."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import httpx
import pytest
import trio

import runtime_http
from runtime import Application
from runtime.supervision.graph import Stage
from runtime_http import HttpSettings, _serving, http_unit, server

from .conftest import AUTHORIZED, TOKEN, Serve, follow, sleeper

MANIFEST: dict[str, Any] = {"processes": [sleeper("db")]}


async def test_its_death_restarts_it_and_nothing_else(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = trio.Event()
    run = server.UsageWatch.run

    async def run_until_death(watch: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, watch)
            await deaths.wait()
            raise RuntimeError("as it was told to")

    monkeypatch.setattr(server.UsageWatch, "run", run_until_death)
    async with serve(MANIFEST) as site:
        supervisor = site.application.supervisor
        pid = (await site.get("/processes/db")).json()["pid"]
        events = supervisor.events.read()
        before, deaths = deaths, trio.Event()
        before.set()
        async for _ in events:
            status = supervisor.status("http")
            if status.restarts == 1 and status.stage is Stage.READY:
                break
        db = supervisor.status("db")
        assert (db.generation, db.restarts, db.stage) == (1, 0, Stage.READY)
        assert site.application.pilot is not None
        process = site.application.pilot.get_process_by_name("db")
        assert process is not None
        assert process.pid == pid


async def test_a_port_that_is_taken_is_named(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as site:
        settings = HttpSettings(token=TOKEN, bind=f"127.0.0.1:{site.port}")
        other = Application(faces=[partial(http_unit, settings=settings)], keep=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.start)
            async for entry in other.supervisor.events.read(after=0):
                if str(site.port) in entry.item.reason:
                    assert "in use" in entry.item.reason
                    break
            await other.stop()


async def test_the_default_port_gives_way(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as first:
        monkeypatch.setattr(server, "DEFAULT_BIND", f"127.0.0.1:{first.port}")
        async with serve(bind=None) as second:
            assert second.port > first.port
            assert (await second.get("/healthz")).status_code == 200


async def test_it_stops_at_once_with_streams_open(serve: Serve) -> None:
    async with trio.open_nursery() as nursery:
        async with serve() as site:
            streams = []
            for _ in range(20):
                scope = follow(site, "/events")
                stream = await scope.__aenter__()
                streams.append((scope, stream))
                await anext(stream)
            silent = await site.connect()
            started = trio.current_time()
        took = trio.current_time() - started
        for scope, stream in streams:
            async for _ in stream:
                pass
            await scope.__aexit__(None, None, None)
        assert await silent.receive_some() == b""
        await silent.aclose()
        nursery.cancel_scope.cancel()
    assert took < 10 * _serving.GRACE_SEC


async def test_it_is_shown_until_all_else_is_down(serve: Serve) -> None:
    async with serve(MANIFEST) as site, follow(site, "/events") as events:
        await anext(events)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.application.stop)
            told = [event["data"] async for event in events]
    assert [e["new"] for e in told if e["unit"] == "db"][-1] == "stopped"


async def test_a_failing_connection_harms_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parse = _serving.Connection._read_data

    async def fail_once(self: Any) -> None:
        monkeypatch.setattr(_serving.Connection, "_read_data", parse)
        raise RuntimeError("of this connection alone")

    async with serve() as site:
        monkeypatch.setattr(_serving.Connection, "_read_data", fail_once)
        async with await site.connect() as stream:
            assert await stream.receive_some() == b""
        assert (await site.get("/healthz")).status_code == 200
        assert site.application.supervisor.status("http").restarts == 0
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert told == ["a connection has failed"]


async def test_an_application_is_shown_to_whoever_made_it() -> None:
    addresses: list[str | None] = []
    settings = HttpSettings(token=TOKEN, bind="127.0.0.1:0", announce=addresses.append)
    application = Application(faces=[partial(http_unit, settings=settings)], keep=True)
    async with application:
        assert addresses[0] is not None
        async with httpx.AsyncClient(base_url=addresses[0], timeout=30) as http:
            answer = await http.get("/", headers=AUTHORIZED)
        assert answer.json()["state"] == "running"


def test_the_package_names_what_it_has() -> None:
    names = dir(runtime_http)
    assert {"Client", "ServiceRouter", "http_unit"} <= set(names)
    for name in names:
        assert getattr(runtime_http, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = runtime_http.nothing
