"""Service: what the user writes, with its configuration and its one state."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import trio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.lifecycle import Lifecycle

from ._exceptions import ConfigurationError, NotRegisteredError, ServiceFailedError
from ._state import service_lifecycle
from .manager import ServiceManager
from .models import ServiceState, ServiceStatus

if TYPE_CHECKING:
    from runtime.supervision.supervisor import Supervisor

_SUFFIX = "service"


class Living(Protocol):
    """A service's unit while it runs."""

    def fail(self, failure: Exception) -> None:
        """End it, because of *failure*."""


class ServiceConfiguration(BaseModel):
    """What every configuration of a service has; a subclass adds its own."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    enabled: bool = Field(
        default=True, description="Whether it starts together with the other services."
    )
    autostart: bool = Field(
        default=False, description="Whether it is started as soon as it is configured."
    )


class Service(ABC):
    """A part of the program with a life of its own, which an `Application` starts and stops.

    A subclass names its *configuration_class* and makes its manager in `create_manager`. It may
    override `start` and `stop`, which call the manager's: the service's unit calls them when it is
    their turn. Called by anybody else they ask for just that, and return when it has been done.
    """

    configuration_class: ClassVar[type[ServiceConfiguration]] = ServiceConfiguration

    def __init__(self, name: str | None = None) -> None:
        self._name = name or derive_name(type(self))
        self._lifecycle = service_lifecycle(self._name)
        self._config: ServiceConfiguration | None = None
        self._manager: ServiceManager | None = None
        self._metadata: dict[str, Any] = {}
        self._error: str | None = None
        self._supervisor: Supervisor | None = None
        self._generation: Living | None = None
        if not self.requires_configuration():
            self._manager = self.create_manager()

    @property
    def name(self) -> str:
        """Its name, by default that of its class in small letters without ``service``."""
        return self._name

    @property
    def logger(self) -> logging.Logger:
        """The logger that is named after it."""
        return logging.getLogger(f"runtime.services.{self._name}")

    @property
    def config(self) -> ServiceConfiguration | None:
        """Its configuration, None before there is one."""
        return self._config

    @property
    def manager(self) -> ServiceManager:
        """Its manager; where a configuration is required there is none before that is there."""
        if self._manager is None:
            raise ConfigurationError(self._name, "has no manager before it is configured")
        return self._manager

    @property
    def lifecycle(self) -> Lifecycle[ServiceState]:
        """The one cell that holds its state."""
        return self._lifecycle

    @property
    def status(self) -> ServiceStatus:
        """How it stands now. The metadata may be added to, or replaced by `set_metadata`."""
        state = self._lifecycle.state
        return ServiceStatus.model_construct(
            state=state,
            error=self._error if state is ServiceState.ERROR else None,
            metadata=self._metadata,
            is_configured=self._config is not None,
        )

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Let its status show *metadata* in the place of its configuration."""
        self._metadata = dict(metadata)

    # --- what a subclass may override -------------------------------------------------------------

    @abstractmethod
    def create_manager(self) -> ServiceManager:
        """Return its manager; called when it is configured, else when it is made.

        Where `requires_configuration`, `config` is there by then.
        """

    def create_router(self) -> object | None:
        """Return routes of its own, as its HTTP face understands them; None has just the usual."""
        return None

    def requires_configuration(self) -> bool:
        """Return whether it must be configured before it is started."""
        return True

    async def start(self) -> None:
        """Start it and return when it is ready.

        Raises `ConfigurationError` when it is not configured although it has to be,
        `IllegalTransitionError` where it stands at a state that no start may follow,
        `NotRegisteredError` when it belongs to no application, and whatever its start raises.
        Cancelled, the request stands.
        """
        hook = _take_hook(self, "start")
        if hook is None:
            await self._command_start()
        elif takes_task_status(type(self.manager)):
            await self.manager.start(task_status=hook.task_status)  # type: ignore[call-arg]
        else:
            await self.manager.start()

    async def stop(self) -> None:
        """Stop it and return when nothing of it runs; errors as in `start`."""
        if _take_hook(self, "stop") is None:
            await self._command_stop()
        else:
            await self.manager.stop()

    # --- configuration ----------------------------------------------------------------------------

    def configure(self, config: ServiceConfiguration | Mapping[str, Any]) -> None:
        """Give it a configuration, which replaces the one before; with ``autostart`` start it.

        Raises `ConfigurationError` when it does not fit its *configuration_class*, and
        `IllegalTransitionError` while it runs; nothing has changed then. A start that is asked for
        before there is an application is remembered.
        """
        config = self._validate(config)
        self._lifecycle.table.advance(self._name, self._lifecycle.state, ServiceState.CONFIGURED)
        before, self._config = self._config, config
        try:
            self._manager = self.create_manager()
        except BaseException:
            self._config = before
            raise
        self._metadata = config.model_dump(mode="json")
        self._move(ServiceState.CONFIGURED, "configured")
        if config.autostart:
            self._ask_start()

    def _ask_start(self) -> None:
        if self._supervisor is not None and self._supervisor.stopping is None:
            self._supervisor.ask_start(self._name, reason="configured to start by itself")

    async def configure_and_start(self, config: ServiceConfiguration | Mapping[str, Any]) -> Self:
        """Configure it, start it, and return it; errors as in both."""
        self.configure(config)
        await self.start()
        return self

    def _validate(self, config: ServiceConfiguration | Mapping[str, Any]) -> ServiceConfiguration:
        if isinstance(config, self.configuration_class):
            return config
        if not isinstance(config, Mapping):
            wanted, given = self.configuration_class.__name__, type(config).__name__
            raise ConfigurationError(self._name, f"needs a {wanted} or a mapping, not {given}")
        try:
            return self.configuration_class.model_validate(dict(config))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}"
                for each in error.errors(include_url=False)
            )
            raise ConfigurationError(self._name, f"cannot be configured so: {problems}") from error

    # --- how it fails -----------------------------------------------------------------------------

    def set_error(self, error: str) -> None:
        """Put it into the state error, with *error* as the reason; a service that runs ends then.

        What follows is decided by its restart policy.
        """
        self.logger.error(error)
        self._error = error
        if self._generation is not None:
            self._generation.fail(ServiceFailedError(self._name, error))
        else:
            self._move(ServiceState.ERROR, error)

    def note_error(self, error: str | None) -> None:
        """Let its status say what went wrong; the state is moved by whoever noticed."""
        self._error = error

    # --- its place in a tree ----------------------------------------------------------------------

    @property
    def is_enabled(self) -> bool:
        """Whether it starts together with the other services."""
        return (self._config or ServiceConfiguration()).enabled

    @property
    def can_start(self) -> bool:
        """Whether it has the configuration that it needs."""
        return self._config is not None or not self.requires_configuration()

    def attach(self, supervisor: Supervisor | None) -> None:
        """Note which supervisor starts and stops it; a start asked for before is asked for now."""
        self._supervisor = supervisor
        waits = self._lifecycle.state is ServiceState.CONFIGURED
        if waits and self._config is not None and self._config.autostart:
            self._ask_start()

    def enter(self, generation: Living | None) -> None:
        """Note which generation of it runs."""
        self._generation = generation

    def check_startable(self) -> None:
        """Raise `ConfigurationError` when it cannot be started as it is."""
        if not self.can_start:
            raise ConfigurationError(self._name, "must be configured before it is started")

    def _move(self, state: ServiceState, reason: str) -> None:
        if self._supervisor is None:
            self._lifecycle.move(state)
        else:
            self._supervisor.move(self._name, state, reason)

    def _registered(self) -> Supervisor:
        if self._supervisor is None:
            raise NotRegisteredError(self._name)
        return self._supervisor

    async def _command_start(self) -> None:
        supervisor = self._registered()
        try:
            self.check_startable()
        except ConfigurationError as error:
            self.set_error(str(error))
            raise
        self._lifecycle.table.advance(self._name, self._lifecycle.state, ServiceState.STARTING)
        try:
            await supervisor.start_unit(self._name)
        except UnitFailedError as failure:
            raise supervisor.status(self._name).error or failure from failure

    async def _command_stop(self) -> None:
        supervisor = self._registered()
        self._lifecycle.table.advance(self._name, self._lifecycle.state, ServiceState.STOPPING)
        if self._generation is None:  # it has failed, and is perhaps to be restarted
            supervisor.ask_stop(self._name)
            self._move(ServiceState.STOPPING, "asked to stop")
            self._move(ServiceState.STOPPED, "stopped")
        await supervisor.stop_unit(self._name)


@cache
def takes_task_status(manager: type[ServiceManager]) -> bool:
    """Return whether the `start` of these managers says itself when the service is ready."""
    return "task_status" in signature(manager.start).parameters


class _Hook:
    """Says to `Service.start` and `Service.stop` that their own unit calls them, once."""

    def __init__(
        self, service: Service, verb: Literal["start", "stop"], task_status: trio.TaskStatus[None]
    ) -> None:
        self._service, self._verb, self.task_status = service, verb, task_status
        self.open = True

    def take(self, service: Service, verb: str) -> bool:
        """Return whether this is the call that was announced."""
        announced = self.open and self._service is service and self._verb == verb
        if announced:
            self.open = False
        return announced


# Background tasks inherit it, so it is good for one call only.
_current_hook: ContextVar[_Hook | None] = ContextVar("current_hook", default=None)


async def call_hook(
    service: Service,
    verb: Literal["start", "stop"],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `start` or `stop` of *service* as its unit, not as somebody who asks for it."""
    hook = _Hook(service, verb, task_status)
    token = _current_hook.set(hook)
    try:
        await (service.start() if verb == "start" else service.stop())
    finally:
        hook.open = False
        _current_hook.reset(token)


def _take_hook(service: Service, verb: Literal["start", "stop"]) -> _Hook | None:
    hook = _current_hook.get()
    return hook if hook is not None and hook.take(service, verb) else None


def derive_name(made: object) -> str:
    """Return the name of a service class: its own in small letters, without ``service``."""
    name = str(getattr(made, "__name__", made)).lower()
    return name.removesuffix(_SUFFIX).rstrip("_") or name
