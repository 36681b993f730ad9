"""Routes that a service brings along: there with it, and gone with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from quart import Blueprint

from runtime import Service, ServiceManager
from runtime_http import ServiceRegistrationRequest, ServiceRouter

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


def test_a_registration_has_the_fields_of_its_page() -> None:
    request = ServiceRegistrationRequest(service_name="echo")
    assert request.model_dump() == {"service_name": "echo", "instance_name": None}
