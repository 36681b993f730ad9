"""Application: services, processes and whatever else runs, as one tree."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

import trio

from runtime import _late
from runtime._secrets import Secrets
from runtime._tree_block import Companion, TreeBlock, act_on_all
from runtime.manifest import Manifest, load_manifest
from runtime.pilot import ProcessPilot
from runtime.process.host import Host
from runtime.process.sampler import DEFAULT_STATS_INTERVAL_SEC
from runtime.service._exceptions import UnknownServiceClassError
from runtime.service.models import ApplicationStatus, ServiceState
from runtime.service.plain import ServiceFunction, as_service_class
from runtime.service.registry import get_available_services, get_service_class
from runtime.service.service import Service, derive_name
from runtime.service.unit import DEFAULT_TIMEOUT_SEC, service_unit
from runtime.supervision._exceptions import UnknownUnitError
from runtime.supervision.budget import DEFAULT_STOP_SEC
from runtime.supervision.graph import Requirement, Stage
from runtime.supervision.health import HealthPolicy
from runtime.supervision.restart import RestartPolicy
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit

if TYPE_CHECKING:
    from runtime.state_backend.base import BaseStateBackend
    from runtime.tasks.client import BlockingClient
    from runtime.tasks.home import TaskDecorator, TaskHome
    from runtime.tasks.options import TaskKeywords
    from runtime.tasks.runner import RunnerSettings
    from runtime.tasks.task import AsyncTask, PlainTask
    from runtime.tasks.told import InvocationNews

S = TypeVar("S", bound=Service)
_NOT_RESTARTED = RestartPolicy()
#: Shows an application to the world outside, as a unit of the same tree: an HTTP server, say.
Face = Callable[["Application"], Unit]
P = ParamSpec("P")
R = TypeVar("R")


class Application(TreeBlock):
    """The root of a program: its services, and the processes and services of a manifest.

    ``async with Application() as app:`` returns control when everything is ready, and stops all of
    it, in order, at the end of the block. ``await app.start()`` runs until `stop` is called, or
    until everything in it has ended; it can be given to ``nursery.start``.

    *config* is a manifest; without one there is just what is registered. *version* is what the
    status shows where the manifest has none. Its tasks are kept in *state_backend*, a URL (default:
    ``memory://``), and run by *runners*, each a `RunnerSettings` or what one is made of (default:
    one, where there are tasks). What has been over for *keep_results_sec* seconds is forgotten
    (default: nothing); a manifest with tasks says so itself. *units* are run in the same tree, and
    so is what the *faces* make of the application. *host* says where processes run. With *keep* the
    tree goes on when everything has ended.
    """

    def __init__(
        self,
        config: Manifest | None = None,
        *,
        version: str = "0",
        plugin_directory: Path | None = None,
        state_backend: str | None = None,
        runners: Iterable[RunnerSettings | Mapping[str, Any]] | None = None,
        keep_results_sec: float | None = None,
        units: Iterable[Unit] = (),
        faces: Iterable[Face] = (),
        host: Host | None = None,
        keep: bool = False,
    ) -> None:
        within = DEFAULT_STOP_SEC if config is None else config.stop_within_sec
        host = host or Host()
        super().__init__(Supervisor(stop_within_sec=within, keep=keep, mask=host.secrets.mask))
        #: The secrets of its manifest, hidden in whatever is told of it.
        self.secrets: Secrets = host.secrets
        self.config = config
        self._version = version
        self._services: dict[str, Service] = {}
        self._home: TaskHome | None = (
            None if config is None or config.tasks is None else (config.tasks.home)
        )
        self._store_url = state_backend or "memory://"
        self._news: InvocationNews | None = None
        self._runners = None if runners is None else list(runners)
        self._keep_results_sec = keep_results_sec
        self._host = host
        #: The processes of the manifest, by their own face.
        self.pilot: ProcessPilot | None = None
        new = list(units)
        if config is not None:
            self.pilot = ProcessPilot(
                config,
                plugin_directory,
                process_poll_interval=DEFAULT_STATS_INTERVAL_SEC,
                host=host,
                supervisor=self.supervisor,
            )
            new += self.pilot.units
            new += self._make_services(config)
            if config.tasks is not None:
                new += _late.tasks().manifest_units(
                    self._home,
                    config.tasks,
                    config.jobs,
                    config.companions(),
                    host=self.pilot.host,
                    events=self.supervisor.events,
                )
                self._store_url = config.tasks.store_url(config.base_directory or Path.cwd())
        self.supervisor.add(*new)
        self.supervisor.add(*(face(self) for face in faces))
        for service in self._services.values():
            service.attach(self.supervisor)

    @classmethod
    async def create(cls, config_file: str | Path | None = None, **overrides: Any) -> Self:  # noqa: ANN401 - whatever a manifest may say
        """Return an application made from a manifest file, whose keys *overrides* replace.

        Raises `ManifestError` with all that is wrong with the file.
        """
        if config_file is None:
            return cls(Manifest.model_validate(overrides) if overrides else None)
        manifest = await trio.to_thread.run_sync(load_manifest, Path(config_file))
        if overrides:
            manifest = Manifest.model_validate({**manifest.model_dump(), **overrides})
        return cls(manifest)

    async def initialize(self) -> None:
        """Do nothing more: an application is complete when it is made; this may be called twice."""
        await trio.lowlevel.checkpoint()

    @property
    def is_initialized(self) -> bool:
        """Whether services can be registered, which is always so."""
        return True

    def _make_services(self, config: Manifest) -> list[Unit]:
        units: list[Unit] = []
        companions = config.companions()
        for entry in config.services:
            service = entry.make(self.secrets)
            self._services[service.name] = service
            units.append(
                service_unit(
                    service,
                    requirements=entry.requirements,
                    restart=entry.restart_policy,
                    restart_dependents=entry.restart_dependents,
                    restarts_also=companions.get(service.name, ()),
                    timeout=entry.timeout,
                    health=None if entry.health is None else entry.health.to_policy(),
                    autostart=entry.autostart and service.is_enabled,
                )
            )
        return units

    # --- tasks ------------------------------------------------------------------------------------

    @overload
    def task(  # type: ignore[overload-overlap]  # what is async goes first
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...
    @overload
    def task(self, **options: Unpack[TaskKeywords]) -> TaskDecorator: ...
    def task(self, *functions: Callable[..., Any], **options: Any) -> Any:
        """Make a task of a function: ``@app.task``, or ``@app.task(max_retries=3)``.

        See `TaskHome.task`.
        """
        return self.tasks.task(*functions, **options)

    @property
    def tasks(self) -> TaskHome:
        """All tasks, by name."""
        if self._home is None:
            made: TaskHome = _late.tasks().TaskHome()
            self._home = made
        return self._home

    @property
    def has_tasks(self) -> bool:
        """Whether it has any, and with them a store and what runs them."""
        return self._home is not None and bool(self._home.tasks)

    @property
    def state_backend(self) -> BaseStateBackend:
        """Where invocations are kept; raises `NotOpenError` while the application does not run."""
        return self.tasks.state_backend

    def open_client(self) -> AbstractAsyncContextManager[object]:
        """Have the store open during the ``async with`` block, to submit and to wait for results.

        Nothing of the application runs: no service, and no runner. It works under asyncio as well,
        and is of no use with ``memory://``, which other programs do not see.
        """
        client: AbstractAsyncContextManager[object] = _late.tasks().open_store(
            self.tasks, self._store_url
        )
        return client

    def open_blocking(self, *, run: bool = False) -> AbstractContextManager[BlockingClient]:
        """Return a block for a program without an event loop: it gets a `BlockingClient`.

        It has what `open_client` has. With *run* the whole application runs during the block, in a
        thread.
        """
        block = (lambda: self) if run else self.open_client
        client: AbstractContextManager[BlockingClient] = _late.tasks().open_blocking(block)
        return client

    def _surroundings(self) -> AbstractAsyncContextManager[object]:
        if not self.has_tasks:
            return nullcontext()
        tasks = _late.tasks()
        self._news = tasks.InvocationNews(self.supervisor.events, self.supervisor.mask)
        around: AbstractAsyncContextManager[object] = tasks.open_store(
            self.tasks, self._store_url, self._news
        )
        return around

    # --- services ---------------------------------------------------------------------------------

    @property
    def services(self) -> Mapping[str, Service]:
        """All services by name."""
        return MappingProxyType(self._services)

    def register_service(
        self,
        service_class: type[S] | ServiceFunction,
        name: str | None = None,
        *,
        requirements: Iterable[Requirement] = (),
        restart: RestartPolicy = _NOT_RESTARTED,
        restart_dependents: bool = False,
        timeout: float | None = DEFAULT_TIMEOUT_SEC,
        health: HealthPolicy | None = None,
    ) -> S:
        """Return a new service of this class, or of this short form, in the tree and not started.

        Without a *name* it has that of its class, with a number where that is taken. The other
        arguments are those of `service_unit`. While the application runs it is started by a
        configuration with ``autostart``, by `Service.start`, or because something needs it; before
        that, together with the application, if it is enabled and configured as far as it has to be.
        Raises `DuplicateUnitError` and `UnknownUnitError`, which are `ValueError`s.
        """
        made = as_service_class(service_class)
        service = made(name if name is not None else self._free_name(derive_name(made)))
        self.supervisor.add(
            service_unit(
                service,
                requirements=requirements,
                restart=restart,
                restart_dependents=restart_dependents,
                timeout=timeout,
                health=health,
            )
        )
        self._services[service.name] = service
        service.attach(self.supervisor)
        return service  # type: ignore[return-value]

    def register_service_by_name(
        self, service_name: str, instance_name: str | None = None
    ) -> Service:
        """Register a service of a registered class; see `register_service`.

        Raises `UnknownServiceClassError`, a `ValueError`, too.
        """
        found = get_service_class(service_name)
        if found is None:
            raise UnknownServiceClassError(service_name, get_available_services())
        return self.register_service(found, instance_name)

    async def deregister_service(self, service_name: str) -> bool:
        """Stop a service and forget it; return True.

        Raises `UnknownUnitError` and, when something depends on it, `UnitInUseError`; both are
        `ValueError`s. Cancelled, it is stopped and forgotten all the same.
        """
        service = self._service(service_name)
        try:
            await self.supervisor.remove(service_name)
        except trio.Cancelled:  # it goes all the same, only later
            self._forget(service)
            raise
        self._forget(service)
        return True

    def _forget(self, service: Service) -> None:
        service.attach(None)
        if self._services.get(service.name) is service:  # not yet another one of that name
            del self._services[service.name]

    def get_service(self, name: str) -> Service | None:
        """Return the service of this name, or None."""
        return self._services.get(name)

    def get_services_by_type(self, service_type: type[S]) -> list[S]:
        """Return all services of this class, or of one derived from it."""
        return [each for each in self._services.values() if isinstance(each, service_type)]

    async def start_service(self, service_name: str) -> None:
        """Start a service; errors as in `Service.start`, and `UnknownUnitError`."""
        await self._service(service_name).start()

    async def stop_service(self, service_name: str) -> None:
        """Stop a service; errors as in `Service.stop`, and `UnknownUnitError`."""
        await self._service(service_name).stop()

    async def start_enabled_services(self) -> None:
        """Start all services that are enabled and can be started, and return when they are ready.

        Raises `UnitFailedError` for one that does not become so, when all others are; several
        failures are an `ExceptionGroup`.
        """
        names = [service.name for service in self._enabled()]
        await act_on_all(names, self.supervisor.start_unit)

    def _enabled(self) -> list[Service]:
        return [each for each in self._services.values() if each.is_enabled and each.can_start]

    def _service(self, name: str) -> Service:
        try:
            return self._services[name]
        except KeyError:
            raise UnknownUnitError(name, self._services) from None

    def _free_name(self, name: str) -> str:
        taken = set(self.supervisor.names)
        if name not in taken:
            return name
        number = 1
        while f"{name}_{number}" in taken:
            number += 1
        return f"{name}_{number}"

    # --- the whole --------------------------------------------------------------------------------

    def _companions(self) -> Sequence[Companion]:
        companions: list[Companion] = [] if self.pilot is None else [self.pilot.sampler.run]
        return companions if self._news is None else [*companions, self._news.run]

    def _prepare(self) -> None:
        if self.has_tasks and (self.config is None or self.config.tasks is None):
            units = _late.tasks().task_units(
                self.tasks,
                self._runners,
                keep_results_sec=self._keep_results_sec,
                host=self._host,
                events=self.supervisor.events,
            )
            self.supervisor.add(*units)
        if self.pilot is not None:
            self.pilot.check_names()
        by_manifest = {entry.name for entry in self.config.services} if self.config else set()
        for service in self._enabled():
            if service.name not in by_manifest:
                self.supervisor.ask_start(service.name, reason="starts with the application")

    @property
    def state(self) -> ServiceState:
        """Where the application is: what its units make of it."""
        supervisor = self.supervisor
        if not self._started:
            return ServiceState.INITIALIZED
        if not supervisor.running:
            return ServiceState.STOPPED if supervisor.stopping else ServiceState.STARTING
        if supervisor.stopping is not None:
            return ServiceState.STOPPING
        if any(stage in (Stage.FAILED, Stage.HELD) for _, stage in supervisor.stages()):
            return ServiceState.ERROR
        return ServiceState.RUNNING if supervisor.settled else ServiceState.STARTING

    @property
    def version(self) -> str:
        """The version that its manifest gives, else its own."""
        version = None if self.config is None else self.config.version
        return version or self._version

    @property
    def status(self) -> ApplicationStatus:
        """How the application stands, with all its services."""
        return ApplicationStatus(
            version=self.version,
            state=self.state,
            services={name: service.status for name, service in self._services.items()},
        )
