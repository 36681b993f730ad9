"""Routes that a service brings along: there with it, and gone with it."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
import trio
from quart import Blueprint, current_app

from runtime import Service, ServiceManager
from runtime_http import ServiceRegistrationRequest, ServiceRouter, dispatch

from .conftest import Serve


class QuietManager(ServiceManager):
    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class PlainService(Service):
    def create_manager(self) -> QuietManager:
        return QuietManager(self.logger)

    def requires_configuration(self) -> bool:
        return False


def with_router(make: Callable[[Service], Any]) -> type[Service]:
    """Return a service class whose `create_router` is *make*."""

    class RoutedService(PlainService):
        def create_router(self) -> Any:
            return make(self)

    return RoutedService


def extend(service: Service) -> ServiceRouter:
    router = ServiceRouter(service)

    @router.get("/count")
    async def count() -> dict[str, object]:
        return {"count": 3, "of": service.name}

    @router.post("/count/<int:more>")
    async def add(more: int) -> dict[str, int]:
        return {"count": 3 + more}

    return router


def plain(service: Service) -> Blueprint:
    blueprint = Blueprint("own", __name__)

    @blueprint.get("/hello")
    async def hello() -> str:
        return f"hello from {service.name}"

    return blueprint


def failing(service: Service) -> Blueprint:
    blueprint = Blueprint("own", __name__)

    @blueprint.get("/fail")
    async def fail() -> str:
        raise RuntimeError("the secret of the service")

    return blueprint


async def test_an_extended_router_comes_and_goes_with_its_service(serve: Serve) -> None:
    async with serve() as site:
        assert (await site.get("/services/shop/count")).status_code == 404
        site.application.register_service(with_router(extend), "shop")
        assert (await site.get("/services/shop/count")).json() == {"count": 3, "of": "shop"}
        assert (await site.post("/services/shop/count/4")).json() == {"count": 7}
        assert (await site.http.post("/services/shop/count/4")).status_code == 401
        assert (await site.http.put("/services/shop/count")).status_code == 401
        wrong = await site.get("/services/shop/count/4")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "OPTIONS, POST")
        # The usual ones are its own now, and do the same.
        assert (await site.get("/services/shop")).json()["state"] == "initialized"
        done = await site.post("/services/shop/start")
        assert done.json() == {"status": "started", "service": "shop"}
        assert (await site.post("/services/shop/start")).status_code == 409
        assert (await site.post("/services/shop/configure", content="[")).status_code == 422
        assert (await site.delete("/services/shop")).json()["status"] == "deregistered"
        for path in ("/services/shop", "/services/shop/count"):
            assert (await site.get(path)).status_code == 404
        # The next one of the same name has routes of its own class.
        site.application.register_service(with_router(plain), "shop")
        assert (await site.get("/services/shop/count")).status_code == 404
        assert (await site.get("/services/shop/hello")).text == "hello from shop"


async def test_two_services_of_one_class_have_routes_of_their_own(serve: Serve) -> None:
    async with serve() as site:
        routed = with_router(extend)
        for name in ("a", "b.c"):
            site.application.register_service(routed, name)
        assert (await site.get("/services/a/count")).json()["of"] == "a"
        assert (await site.get("/services/b.c/count")).json()["of"] == "b.c"


async def test_a_plain_blueprint_stands_beside_the_usual_routes(serve: Serve) -> None:
    async with serve() as site:
        site.application.register_service(with_router(plain), "shop")
        answer = await site.get("/services/shop/hello")
        assert answer.text == "hello from shop"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert (await site.post("/services/shop/start")).status_code == 200
        assert (await site.get("/services/shop/nothing")).status_code == 404


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: 1 / 0, id="raises"),
        pytest.param(lambda _: "nonsense", id="returns nonsense"),
    ],
)
async def test_routes_that_cannot_be_made_are_told_of_and_harm_nothing(
    serve: Serve, make: Callable[[Service], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as site:
        site.application.register_service(with_router(make), "shop")
        site.application.register_service(with_router(plain), "other")
        assert (await site.get("/services/shop")).json()["state"] == "initialized"
        assert (await site.post("/services/shop/start")).status_code == 200
        assert (await site.get("/services/shop/hello")).status_code == 404
        assert (await site.get("/services/other/hello")).status_code == 200
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert told == ["the routes of service shop are left out"]


async def test_an_error_of_an_own_route_is_told_without_its_words(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as site:
        site.application.register_service(with_router(failing), "shop")
        answer = await site.get("/services/shop/fail")
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert (await site.get("/services/shop")).status_code == 200
    assert "the secret of the service" in caplog.text  # who runs it is told


# --- hooks around the time in which they are served -----------------------------------------------


class Hooked:
    """A router with all hooks that Quart has, which writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ended = trio.Event()

    def make(self, service: Service) -> Blueprint:
        calls, router = self.calls, ServiceRouter(service)

        async def work() -> None:
            calls.append("works")
            try:
                await trio.sleep_forever()
            finally:
                calls.append("works no more")

        @router.before_app_serving
        async def before() -> None:
            await trio.lowlevel.checkpoint()
            calls.append("before")

        @router.before_app_serving
        def before_in_a_thread() -> None:
            calls.append("before, in a thread")

        @router.while_app_serving
        async def during() -> AsyncGenerator[None]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
                yield
                nursery.cancel_scope.cancel()
            self.ended.set()

        @router.after_app_serving
        async def after() -> None:
            await trio.lowlevel.checkpoint()
            calls.append("after")

        @router.get("/calls")
        async def list_calls() -> list[str]:
            return calls

        @router.post("/background")
        async def background() -> str:
            current_app.add_background_task(work)
            return ""

        return router


FIRST = ["before", "before, in a thread", "works"]
LAST = ["after", "works no more"]


async def test_hooks_are_run_before_the_first_request_and_when_the_service_goes(
    serve: Serve,
) -> None:
    hooked = Hooked()
    async with serve() as site:
        site.application.register_service(with_router(hooked.make), "shop")
        assert hooked.calls == []
        for _ in range(2):
            assert (await site.get("/services/shop/calls")).json() == FIRST
        await site.post("/services/shop/background")
        assert (await site.get("/services/shop/calls")).json() == [*FIRST, "works"]
        await site.delete("/services/shop")
        await hooked.ended.wait()
        assert (await site.get("/services/shop/calls")).status_code == 404
    assert hooked.calls == [*FIRST, "works", *LAST, "works no more"]


async def test_hooks_are_run_when_the_server_ends(serve: Serve) -> None:
    hooked = Hooked()
    async with serve() as site:
        site.application.register_service(with_router(hooked.make), "shop")
        assert (await site.get("/services/shop")).json()["state"] == "initialized"
    assert hooked.calls == FIRST + LAST


async def test_a_service_that_has_gone_is_let_go_with_its_routes(serve: Serve) -> None:
    hooked = Hooked()
    async with serve() as site:
        service = weakref.ref(site.application.register_service(with_router(hooked.make), "shop"))
        assert (await site.get("/services/shop/calls")).status_code == 200
        await site.delete("/services/shop")
        await hooked.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert service() is None


def note_of(site: Any, name: str = "shop") -> str:
    return str(site.application.supervisor.status(name).note)


async def test_a_hook_that_fails_is_told_to_the_service_and_called_again_later(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    there = False

    def make(service: Service) -> Blueprint:
        router = plain(service)

        @router.while_app_serving
        async def during() -> AsyncGenerator[None]:
            try:
                yield
            finally:
                closed.append("closed")

        @router.while_app_serving
        async def connect() -> AsyncGenerator[None]:
            if not there:
                raise ConnectionError("no pool of connections")
            yield

        return router

    monkeypatch.setattr(dispatch, "RETRY_SEC", 1000)
    async with serve() as site:
        site.application.register_service(with_router(make), "shop")
        for _ in range(2):
            refused = await site.get("/services/shop/hello")
            assert refused.status_code == 503
            words = "the routes of service 'shop' could not be started; its `note` says why"
            assert refused.json()["detail"] == words
        assert closed == ["closed"]  # it was begun once
        words = "its routes did not start: ConnectionError: no pool of connections"
        assert note_of(site) == words
        assert [r.getMessage() for r in caplog.records if r.name == "runtime.services.shop"] == [
            words
        ]
        assert (await site.post("/services/shop/start")).status_code == 200  # the usual ones go on
        monkeypatch.setattr(dispatch, "RETRY_SEC", -1)
        site.application.register_service(with_router(make), "other")
        assert (await site.get("/services/other/hello")).status_code == 503
        there = True
        assert (await site.get("/services/other/hello")).text == "hello from other"
    assert closed == ["closed"] * 3


@pytest.mark.parametrize("hook", ["before_app_serving", "after_app_serving"])
@pytest.mark.parametrize("in_thread", [False, True], ids=["coroutine", "plain function"])
async def test_a_hook_that_hangs_holds_up_neither_the_routes_nor_the_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, hook: str, in_thread: bool
) -> None:
    monkeypatch.setattr(dispatch, "START_SEC", 0.05 if hook == "before_app_serving" else 1000)
    monkeypatch.setattr(dispatch, "STOP_SEC", 0.05)

    def hang_in_thread() -> None:
        time.sleep(10)

    def make(service: Service) -> Blueprint:
        router = plain(service)
        getattr(router, hook)(hang_in_thread if in_thread else trio.sleep_forever)
        return router

    async with serve() as site:
        site.application.register_service(with_router(make), "shop")
        status = (await site.get("/services/shop/hello")).status_code
        assert status == (503 if hook == "before_app_serving" else 200)
        began = trio.current_time()
    assert trio.current_time() - began < 9
    verb = "start" if hook == "before_app_serving" else "stop"
    assert note_of(site) == f"its routes did not {verb}: its hooks took too long, and were cut off"


async def test_a_server_that_ends_waits_for_no_hook_that_hangs_before_the_first_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "STOP_SEC", 0.05)
    begun = trio.Event()

    async def hang() -> None:
        begun.set()
        await trio.sleep_forever()

    def make(service: Service) -> Blueprint:
        router = plain(service)
        router.before_app_serving(hang)
        return router

    async def ask(site: Any) -> None:
        with pytest.raises(httpx.TransportError):  # it is cut off by the end of the server
            await site.get("/services/shop/hello")

    async with trio.open_nursery() as nursery, serve() as site:
        site.application.register_service(with_router(make), "shop")
        nursery.start_soon(ask, site)
        await begun.wait()
        await site.application.stop()
    assert note_of(site).startswith("its routes did not start: its hooks took too long")


async def test_a_request_under_way_when_the_service_goes_is_cut_off(serve: Serve) -> None:
    hooked, asked, told = Hooked(), trio.Event(), trio.Event()

    def make(service: Service) -> Blueprint:
        router = hooked.make(service)

        @router.get("/slow")
        async def slow() -> str:
            asked.set()
            try:
                await trio.sleep_forever()
            finally:
                hooked.calls.append("cut off")
            return ""

        return router

    async def ask(site: Any) -> None:
        assert (await site.get("/services/shop/slow")).status_code >= 500
        told.set()

    async with serve() as site, trio.open_nursery() as nursery:
        site.application.register_service(with_router(make), "shop")
        nursery.start_soon(ask, site)
        await asked.wait()
        await site.delete("/services/shop")
        await told.wait()
        await hooked.ended.wait()
    assert hooked.calls == [*FIRST, "cut off", *LAST]


async def test_a_task_of_a_hook_that_dies_takes_no_other_routes_with_it(
    serve: Serve,
) -> None:
    die = trio.Event()

    async def dies() -> None:
        await die.wait()
        raise LookupError("nothing there")

    def make(service: Service) -> Blueprint:
        router = plain(service)

        @router.while_app_serving
        async def during() -> AsyncGenerator[None]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dies)
                yield

        return router

    async with serve() as site:
        site.application.register_service(with_router(make), "shop")
        site.application.register_service(with_router(plain), "other")
        assert (await site.get("/services/shop/hello")).status_code == 200
        generation = site.application.supervisor.status("http").generation
        die.set()
        while not note_of(site):  # noqa: ASYNC110 - it is told by an event of many
            await trio.sleep(0.01)
        assert note_of(site) == "its routes did not stop: LookupError: nothing there"
        assert (await site.get("/services/other/hello")).status_code == 200
        assert site.application.supervisor.status("http").generation == generation


def test_a_registration_has_the_fields_of_its_page() -> None:
    request = ServiceRegistrationRequest(service_name="echo")
    assert request.model_dump() == {"service_name": "echo", "instance_name": None}
