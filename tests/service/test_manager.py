"""What a manager may rely on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime.service import Service, ServiceManager
from runtime.supervision.graph import Stage

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]


class Quiet(ServiceManager):
    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class Bare(Quiet):
    def __init__(self) -> None:
        pass  # and never calls the one above


def service_of(manager: ServiceManager, name: str) -> Service:
    class Made(Service):
        def create_manager(self) -> ServiceManager:
            return manager

        def requires_configuration(self) -> bool:
            return False

    return Made(name)


def test_a_manager_says_how_it_starts_and_stops() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ServiceManager()  # type: ignore[abstract]


def test_the_logger_is_the_one_it_was_given() -> None:
    logger = logging.getLogger("runtime.services.cache")
    assert Quiet(logger).logger is logger
    assert Quiet().logger.name == "runtime.service.manager"


def test_without_a_service_there_is_no_nursery_and_nothing_to_finish() -> None:
    manager = Quiet()
    with pytest.raises(RuntimeError, match=r"start background tasks in start\(\)"):
        _ = manager.nursery
    manager.finish()
    assert not manager.is_taken


async def test_the_nursery_is_there_from_start_to_stop(tree: MakeTree) -> None:
    seen: list[trio.Nursery] = []

    class Looks(Quiet):
        async def start(self) -> None:
            seen.append(self.nursery)

        async def stop(self) -> None:
            seen.append(self.nursery)

    t = tree()
    manager = Looks()
    service = t.add(service_of(manager, "a"))
    async with t.running() as supervisor:
        for _ in range(2):
            await service.start()
            assert manager.is_taken
            await service.stop()
            with pytest.raises(RuntimeError, match="the service is down"):
                _ = manager.nursery
        assert supervisor.status("a").reason == "stopped"
    first, second = seen[0], seen[2]
    assert seen == [first, first, second, second]
    assert first is not second


async def test_a_manager_that_never_calls_our_constructor_works(tree: MakeTree) -> None:
    t = tree()
    service = t.add(service_of(Bare(), "a"))
    async with t.running():
        await service.start()
        assert service.manager.logger.name == "runtime.service.manager"
        await service.stop()
        assert service.status.state == "stopped"


async def test_finish_completes_the_service_also_before_it_is_ready(tree: MakeTree) -> None:
    states: list[str] = []

    class OneShot(Quiet):
        async def start(self) -> None:
            self.finish()
            await trio.sleep(1)

        async def stop(self) -> None:
            states.append(service.status.state)

    t = tree()
    service = t.add(service_of(OneShot(), "a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("a", Stage.COMPLETED)
        assert supervisor.status("a").reason == "completed after 1.0 s"
        service.manager.finish()  # once more, which means nothing
        assert t.moves("a") == ["starting", "running", "stopping", "stopped"]
    assert states == ["stopping"]


async def test_two_services_cannot_share_a_manager_at_once(tree: MakeTree) -> None:
    t = tree()
    manager = Quiet()
    one, other = t.add(service_of(manager, "one")), t.add(service_of(manager, "other"))
    async with t.running():
        await one.start()
        with pytest.raises(Exception, match="create_manager has to make a new one"):
            await other.start()
        assert one.status.state == "running"
        assert "shares its manager" in other.status.error
        assert manager.nursery.cancel_scope.cancel_called is False
        await one.stop()
        await other.start()  # one after the other is nobody's harm
