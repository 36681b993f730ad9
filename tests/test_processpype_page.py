"""The two services of ProcessPype's page run as they are written there, but for the import line."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from runtime import Application
from runtime.service import (
    ConfigurationError,
    ServiceState,
    ServiceStatus,
    get_service_class,
    register_service_class,
)
from runtime.testing import open_service

pytestmark = pytest.mark.usefixtures("autojump_clock")

MINIMAL = """
from runtime import Service, ServiceManager, ServiceConfiguration


class EchoManager(ServiceManager):
    async def start(self) -> None:
        self.logger.info("Echo service ready")

    async def stop(self) -> None:
        self.logger.info("Echo service stopped")


class EchoService(Service):
    configuration_class = ServiceConfiguration

    def create_manager(self) -> EchoManager:
        return EchoManager(self.logger)

    def requires_configuration(self) -> bool:
        return False
"""

CONFIGURED = """
from pydantic import Field
from runtime import ServiceConfiguration


class EchoConfiguration(ServiceConfiguration):
    prefix: str = Field(default="Echo", description="Message prefix")
    max_length: int = Field(default=1000, description="Maximum message length")


class EchoService(Service):
    configuration_class = EchoConfiguration

    def create_manager(self) -> EchoManager:
        return EchoManager(self.logger)
"""

#: The page's manager that is given the configuration, and its service with hooks of its own.
MANAGER_WITH_CONFIGURATION = """
class EchoManager(ServiceManager):
    def __init__(self, logger, config: EchoConfiguration):
        super().__init__(logger)
        self._config = config

    async def start(self) -> None:
        self.logger.info(f"Echo service ready with prefix: {self._config.prefix}")

    async def stop(self) -> None:
        pass


class EchoService(Service):
    configuration_class = EchoConfiguration

    def create_manager(self) -> EchoManager:
        return EchoManager(self.logger, self.config)
"""

HOOKS = """
class EchoService(EchoService):
    async def start(self) -> None:
        said.append("pre-start")
        await super().start()
        said.append("post-start")

    async def stop(self) -> None:
        said.append("pre-stop")
        await super().stop()
        said.append("post-stop")
"""

FAILING = """
class RobustManager(ServiceManager):
    async def start(self) -> None:
        try:
            raise OSError("no disk")
        except Exception as e:
            raise RuntimeError(f"Failed to initialize: {e}") from e

    async def stop(self) -> None:
        # ... clean up ...
        pass


class EchoService(EchoService):
    def create_manager(self):
        return RobustManager(self.logger)
"""


def page(*blocks: str) -> Any:
    """Return what the blocks of the page define, run one after the other."""
    namespace: dict[str, Any] = {"__name__": "page", "said": []}
    for block in blocks:
        exec(compile(block, "page", "exec"), namespace)  # noqa: S102 - it is what is tested
    return SimpleNamespace(**namespace)


async def test_the_minimal_service(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_service(page(MINIMAL).EchoService) as opened:
        assert opened.service.name == "echo"
        assert opened.service.status == ServiceStatus(state=ServiceState.RUNNING)
    assert [record.message for record in caplog.records] == [
        "Echo service ready",
        "Echo service stopped",
    ]
    assert {record.name for record in caplog.records} == {opened.service.logger.name}


async def test_the_service_with_a_configuration() -> None:
    made = page(MINIMAL, CONFIGURED)
    with pytest.raises(ConfigurationError):
        async with open_service(made.EchoService):
            raise AssertionError("it was started without the configuration that it requires")
    async with open_service(made.EchoService, {"prefix": "Hello"}) as opened:
        assert opened.service.status.is_configured
        assert opened.service.config == made.EchoConfiguration(prefix="Hello", max_length=1000)
    async with open_service(made.EchoService, made.EchoConfiguration()) as opened:
        assert opened.service.config.prefix == "Echo"


async def test_the_manager_that_is_given_the_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    made = page(MINIMAL, CONFIGURED, MANAGER_WITH_CONFIGURATION)
    async with open_service(made.EchoService, {"prefix": "Hello"}):
        assert [record.message for record in caplog.records] == [
            "Echo service ready with prefix: Hello"
        ]


async def test_with_autostart_a_configuration_starts_it() -> None:
    made = page(MINIMAL, CONFIGURED)
    async with open_service(made.EchoService, start=False) as opened:
        opened.service.configure({"autostart": True, "prefix": "Hello"})
        assert opened.service.status.state == "configured"
        assert await opened.wait_state("running") == "running"


async def test_hooks_around_start_and_stop() -> None:
    made = page(MINIMAL, HOOKS)
    async with open_service(made.EchoService):
        assert made.said == ["pre-start", "post-start"]
    assert made.said[2:] == ["pre-stop", "post-stop"]


async def test_a_start_that_fails_sets_the_error_and_raises() -> None:
    made = page(MINIMAL, FAILING)
    service = made.EchoService()
    with pytest.raises(RuntimeError, match="Failed to initialize: no disk"):
        async with open_service(service):
            raise AssertionError("it was started")
    assert service.status.state == ServiceState.ERROR
    assert "Failed to initialize: no disk" in service.status.error


async def test_it_is_registered_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.service.registry._classes", {})
    made = page(MINIMAL)
    assert register_service_class(made.EchoService) is made.EchoService
    assert get_service_class("echo") is made.EchoService
    async with Application() as app:
        service = app.register_service_by_name("echo")
        await app.start_service("echo")
        assert service.status.state == "running"
        assert app.register_service_by_name("echo").name == "echo_1"
