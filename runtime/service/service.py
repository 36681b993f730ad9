"""Service: what the user writes, with its configuration and its one state."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache, wraps
from inspect import signature
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, cast

import trio
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from runtime._secrets import SecretError, Secrets
from runtime.supervision._exceptions import UnitFailedError, UnknownUnitError
from runtime.supervision.graph import Stage
from runtime.supervision.lifecycle import Lifecycle

from ._exceptions import ConfigurationError, NotRegisteredError, ServiceFailedError
from ._late_configuration import LateConfiguration
from ._state import service_lifecycle
from .manager import ServiceManager
from .models import ServiceState, ServiceStatus

if TYPE_CHECKING:
    from runtime.supervision.supervisor import Supervisor

_SUFFIX = "service"


Verb = Literal["start", "stop"]


class Living(Protocol):
    """A service's unit while it runs."""

    def fail(self, failure: Exception) -> None:
        """End it, because of *failure*."""


class ServiceConfiguration(BaseModel):
    """What every configuration of a service has; a subclass adds its own."""

    # (An error of pydantic would show the values, and one of them may be a secret.)
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    enabled: bool = Field(
        default=True, description="Whether it starts together with the other services."
    )
    autostart: bool = Field(
        default=False, description="Whether it is started as soon as it is configured."
    )
    _runtime_secrets: Secrets | None = PrivateAttr(default=None)

    def _hide(self, secrets: Secrets) -> None:
        self._runtime_secrets = secrets

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what is shown of it in Python, without the secrets that a manifest refers to."""
        secrets = self._runtime_secrets
        for name, value in super().__repr_args__():
            shown = value if secrets is None else secrets.mask_data(value)
            text = "" if secrets is None else repr(shown)
            hidden = text if secrets is None else secrets.mask(text)
            yield name, shown if hidden == text else _AsIs(hidden)


class _AsIs(str):
    """A text that is its own `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Service(ABC):
    """A part of the program with a life of its own, which an `Application` starts and stops.

    A subclass names its *configuration_class* and makes its manager in `create_manager`. It may
    override `start` and `stop`, which call the manager's: the service's unit calls them, in a task
    of its own, when it is their turn. Called by anybody else they, and what overrides them, ask for
    just that, and return when it has been done.
    """

    configuration_class: ClassVar[type[ServiceConfiguration]] = ServiceConfiguration

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - whatever a base wants
        """Let an override run once, in the unit, however it is called."""
        super().__init_subclass__(**options)
        for verb, command in _COMMANDS.items():
            origin = next(base for base in cls.__mro__ if verb in vars(base))
            if origin is cls or not issubclass(origin, Service):
                setattr(cls, verb, _run_in_unit(getattr(cls, verb), verb, command))

    def __init__(self, name: str | None = None) -> None:
        self._name = name or derive_name(type(self))
        self._lifecycle = service_lifecycle(self._name)
        self._config: ServiceConfiguration | None = None
        self._late: LateConfiguration | None = None
        self._looked_up: dict[str, Any] | None = None
        self._manager: ServiceManager | None = None
        self._metadata: dict[str, Any] = {}
        self._error: str | None = None
        self._supervisor: Supervisor | None = None
        self._generation: Living | None = None
        self._deregistered = trio.Event()
        self._hooks: dict[Verb, Hook] = {}
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
        """How it stands now. The metadata may be added to, or replaced by `set_metadata`.

        Neither they nor the error have a secret in them that its manifest refers to.
        """
        state = self._lifecycle.state
        error = self._error if state is ServiceState.ERROR else None
        if self._late is not None:
            error = error and self._late.secrets.mask(error)
            hidden = self._late.secrets.mask_data(self._metadata)
            self._metadata.update(cast("dict[str, Any]", hidden))
        return ServiceStatus.model_construct(
            state=state,
            error=error,
            metadata=self._metadata,
            is_configured=self._config is not None or self._late is not None,
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
        """Return routes of its own, as its HTTP face understands them; None has just the usual.

        For ``runtime_http`` that is a blueprint of Quart, made anew for each call: it is called for
        the first request below the service's path, again when a server starts anew, and, at most
        once a second, where it or a hook before the first request has failed.
        """
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
        hook = self.announced("start")
        if hook is None or not hook.is_open:
            await self.ask_to_start()
            return
        with hook:
            if takes_task_status(type(self.manager)):
                await self.manager.start(task_status=hook.task_status)  # type: ignore[call-arg]
            else:
                await self.manager.start()

    async def stop(self) -> None:
        """Stop it and return when nothing of it runs; errors as in `start`.

        A start that waits for something, or a restart, is no longer wanted then.
        """
        hook = self.announced("stop")
        if hook is None or not hook.is_open:
            await self.ask_to_stop()
            return
        with hook:
            await self.manager.stop()

    async def restart(self) -> None:
        """Stop it, start it again, and return when it is ready; errors as in `start`."""
        supervisor = self._registered()
        self.check_startable()
        await supervisor.restart_unit(self._name)

    # --- configuration ----------------------------------------------------------------------------

    def configure(self, config: ServiceConfiguration | Mapping[str, Any]) -> None:
        """Give it a configuration, which replaces the one before; with ``autostart`` start it.

        Raises `ConfigurationError` when it does not fit its *configuration_class*, and
        `IllegalTransitionError` while it runs; nothing has changed then. A start that is asked for
        before there is an application is remembered.
        """
        self._configure(self._validate(config))

    def configure_late(self, late: LateConfiguration) -> None:
        """Let *late* be its configuration, whose secrets are looked up now, and at each start.

        What cannot be had now has to be there when it starts. Otherwise like `configure`, which
        puts another configuration in its place.
        """
        try:
            data = late.look_up()
        except SecretError:
            self._late, self._metadata = late, late.show()
            self._move(ServiceState.CONFIGURED, "configured, but for its secrets")
        else:
            self._configure(self._validate(data, late), late, data)

    async def look_up_secrets(self) -> None:
        """Look up what its configuration refers to: its unit does so before each start.

        Where something has changed it gets a new configuration and a new manager. Raises
        `SecretError`, and `ConfigurationError` when it does not fit any more.
        """
        late = self._late
        if late is None:
            return
        data = await late.reveal()
        if data != self._looked_up:
            self._adopt(self._validate(data, late), late, data)

    def _configure(
        self,
        config: ServiceConfiguration,
        late: LateConfiguration | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        if self._generation is not None and self._lifecycle.state is ServiceState.ERROR:
            raise ConfigurationError(self._name, "has failed and still stops; configure it then")
        self._lifecycle.table.advance(self._name, self._lifecycle.state, ServiceState.CONFIGURED)
        self._adopt(config, late, data)
        self._move(ServiceState.CONFIGURED, "configured")
        if config.autostart:
            self._ask_start()

    def _adopt(
        self,
        config: ServiceConfiguration,
        late: LateConfiguration | None,
        data: dict[str, Any] | None,
    ) -> None:
        before, self._config = self._config, config
        try:
            self._manager = self.create_manager()
        except BaseException:
            self._config = before
            raise
        self._late, self._looked_up = late, data
        self._metadata = _show(config) if late is None else late.show(_show(config))

    def _ask_start(self) -> None:
        supervisor = self._tree()
        if supervisor is not None and supervisor.stopping is None:
            supervisor.ask_start(self._name, reason="configured to start by itself")

    async def configure_and_start(self, config: ServiceConfiguration | Mapping[str, Any]) -> Self:
        """Configure it, start it, and return it; errors as in both."""
        self.configure(config)
        await self.start()
        return self

    def _validate(
        self,
        config: ServiceConfiguration | Mapping[str, Any],
        late: LateConfiguration | None = None,
    ) -> ServiceConfiguration:
        if isinstance(config, self.configuration_class):
            return config
        if not isinstance(config, Mapping):
            wanted, given = self.configuration_class.__name__, type(config).__name__
            raise ConfigurationError(self._name, f"needs a {wanted} or a mapping, not {given}")
        try:
            made = self.configuration_class.model_validate(dict(config))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}"
                for each in error.errors(include_url=False)
            )
            words = f"cannot be configured so: {problems}"
            if late is None:
                raise ConfigurationError(self._name, words) from error
            # (The error itself is not its cause: it has the values.)
            raise ConfigurationError(self._name, late.secrets.mask(words)) from None
        if late is not None:
            made._hide(late.secrets)  # noqa: SLF001 - a public name would be one less for fields
        return made

    # --- how it fails -----------------------------------------------------------------------------

    def set_error(self, error: str) -> None:
        """Put it into the state error, with *error* as the reason; a service that runs ends then.

        What follows is decided by its restart policy. Of several errors the first one counts, until
        the service is down. It is called as well when its start or its stop raises, or when one of
        its background tasks dies.
        """
        if self._late is not None:
            error = self._late.secrets.mask(error)
        self.logger.error("%s", error)
        if self._generation is not None:
            self._generation.fail(ServiceFailedError(self._name, error))
        else:
            self._error = error
            self._move(ServiceState.ERROR, error)

    def note_error(self, error: str | None) -> None:
        """Let its status say what went wrong; the state is moved by whoever noticed."""
        self._error = error

    # --- its place in a tree ----------------------------------------------------------------------

    @property
    def is_enabled(self) -> bool:
        """Whether it starts together with the other services."""
        if self._config is None and self._late is not None:
            default = self.configuration_class.model_fields["enabled"].default
            told = self._late.get("enabled", default)
            return ServiceConfiguration.model_validate({"enabled": told}).enabled
        return (self._config or ServiceConfiguration()).enabled

    @property
    def can_start(self) -> bool:
        """Whether it has the configuration that it needs."""
        is_configured = self._config is not None or self._late is not None
        return is_configured or not self.requires_configuration()

    @property
    def lacks_secrets(self) -> bool:
        """Whether it cannot be configured before the secrets of its manifest are there."""
        return self._config is None and self._late is not None

    def attach(self, supervisor: Supervisor | None) -> None:
        """Note which supervisor starts and stops it; a start asked for before is asked for now."""
        self._supervisor = supervisor
        if supervisor is None:
            self._deregistered.set()
        waits = self._lifecycle.state is ServiceState.CONFIGURED
        if waits and self._config is not None and self._config.autostart:
            self._ask_start()

    async def wait_deregistered(self) -> None:
        """Return once it has been deregistered: it belongs to its application no more."""
        await self._deregistered.wait()

    @property
    def is_live(self) -> bool:
        """Whether a generation of it runs, or is being stopped."""
        return self._generation is not None

    def enter(self, generation: Living | None) -> None:
        """Note which generation of it runs."""
        self._generation = generation

    def check_startable(self) -> None:
        """Raise `ConfigurationError` when it cannot be started as it is."""
        if not self.can_start:
            raise ConfigurationError(self._name, "must be configured before it is started")

    def _move(self, state: ServiceState, reason: str) -> None:
        supervisor = self._tree()
        if supervisor is None:
            self._lifecycle.move(state)
        else:
            supervisor.move(self._name, state, reason)

    def _tree(self) -> Supervisor | None:
        """Return the supervisor whose unit it is; it may have been removed there meanwhile."""
        try:
            unit = None if self._supervisor is None else self._supervisor.unit(self._name)
        except UnknownUnitError:
            return None
        return self._supervisor if unit and unit.lifecycle is self._lifecycle else None

    def _registered(self) -> Supervisor:
        supervisor = self._tree()
        if supervisor is None:
            raise NotRegisteredError(self._name)
        return supervisor

    async def ask_to_start(self) -> None:
        """Do what `start` does for everybody but the service's unit."""
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
            cause = failure.__cause__
            raised: BaseException = failure if cause is None else cause
        else:
            return
        raise raised  # here, where nothing is handled: what it has as its cause and context stays

    async def ask_to_stop(self) -> None:
        """Do what `stop` does for everybody but the service's unit."""
        supervisor = self._registered()
        state = self._lifecycle.state
        is_to_start = supervisor.status(self._name).stage in (Stage.WAITING, Stage.BACKOFF)
        if not is_to_start:
            self._lifecycle.table.advance(self._name, state, ServiceState.STOPPING)
        if self._generation is not None:
            await supervisor.stop_unit(self._name)
            return
        supervisor.ask_stop(self._name)
        if state is ServiceState.ERROR:
            self._move(ServiceState.STOPPING, "asked to stop")
            self._move(ServiceState.STOPPED, "stopped")
        await trio.lowlevel.checkpoint()

    # --- its unit's calls -------------------------------------------------------------------------

    async def call(self, hook: Hook) -> None:
        """Call `start` or `stop` as its unit, not as somebody who asks for it."""
        self._hooks[hook.verb] = hook
        try:
            await (self.start() if hook.verb == "start" else self.stop())
        finally:
            del self._hooks[hook.verb]

    def announced(self, verb: Verb) -> Hook | None:
        """Return the hook when it is the unit's task that calls."""
        hook = self._hooks.get(verb)
        return hook if hook is not None and hook.task is trio.lowlevel.current_task() else None


@cache
def takes_task_status(manager: type[ServiceManager]) -> bool:
    """Return whether the `start` of these managers says itself when the service is ready."""
    return "task_status" in signature(manager.start).parameters


class Hook:
    """Announces that the calling task, as the service's unit, calls `Service.start` or `stop`.

    It is good for one call of the manager that succeeds, and for this task only. So what is started
    in `start` can call both like anybody else.
    """

    verb: Verb
    task: trio.lowlevel.Task

    def __init__(
        self, verb: Verb, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.verb: Verb = verb
        self.task_status: trio.TaskStatus[None] = task_status
        self.succeeded: bool = False
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()
        self._taken = False

    @property
    def is_open(self) -> bool:
        """Whether the manager is still to be called."""
        return not self._taken

    def __enter__(self) -> None:
        self._taken = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._taken = self.succeeded = kind is None  # after a failure it may be tried again


_COMMANDS: Mapping[Verb, Callable[[Service], Awaitable[None]]] = MappingProxyType(
    {"start": Service.ask_to_start, "stop": Service.ask_to_stop}
)


def _run_in_unit(
    override: Callable[[Service], Awaitable[None]],
    verb: Verb,
    command: Callable[[Service], Awaitable[None]],
) -> Callable[[Service], Awaitable[None]]:
    @wraps(override)
    async def run(service: Service) -> None:
        await (override if service.announced(verb) else command)(service)

    return run


def _show(config: ServiceConfiguration) -> dict[str, Any]:
    """Return what a status shows of a configuration: as JSON has it, with its secrets masked."""
    try:
        return config.model_dump(mode="json", warnings=False, fallback=lambda v: type(v).__name__)
    except ValueError:  # bytes that are no text, say
        return {}


def derive_name(made: object) -> str:
    """Return the name of a service class: its own in small letters, without ``service``."""
    name = str(getattr(made, "__name__", made)).lower()
    return name.removesuffix(_SUFFIX).rstrip("_") or name
