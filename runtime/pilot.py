"""ProcessPilot: runs the processes of a manifest."""

import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, overload

import trio

from runtime import _late
from runtime._documents import Location
from runtime._plugin_files import find_plugins
from runtime.plugin import ControlServerType, Plugin
from runtime.process import Process, ProcessManifest, ProcessState, ProcessStatus
from runtime.process._manifest import Problem, ProblemsError
from runtime.process.host import Host
from runtime.process.models import (
    LifecycleHookType,
    ProcessHookType,
    ReadyStrategyType,
    StatHandlerType,
)
from runtime.process.popen import PopenView
from runtime.process.readiness import STRATEGIES
from runtime.process.unit import call_hooks, process_unit
from runtime.supervision._exceptions import UnitFailedError, UnknownUnitError
from runtime.supervision.supervisor import Supervisor

_logger = logging.getLogger(__name__)


class HasPid(Protocol):
    """Whatever knows the pid of a process, such as `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """The pid."""
        ...


class ProcessPilot:
    """Runs the processes of a *manifest* as one tree.

    ``async with ProcessPilot(manifest) as pilot:`` returns control when everything is ready, and
    stops all of it, in order, at the end of the block. ``await pilot.start()`` runs until the tree
    has ended instead, and can be given to ``nursery.start``.

    *plugin_directory* is searched for plugins. *process_poll_interval* is the period, in seconds,
    in which statistics are taken while somebody wants them; ends of processes are not polled for.
    *ready_check_interval* is what the growing interval between two looks of a readiness check grows
    to. *logger_config* is given to `logging.config.dictConfig`. *host* says where processes run.
    With *keep* the tree goes on when all processes have ended.
    """

    supervisor: Supervisor

    def __init__(
        self,
        manifest: ProcessManifest,
        plugin_directory: Path | None = None,
        process_poll_interval: float = 0.1,
        ready_check_interval: float = 0.1,
        logger_config: dict[str, Any] | None = None,
        *,
        host: Host | None = None,
        keep: bool = False,
    ) -> None:
        if logger_config is not None:
            _late.logging_config().dictConfig(logger_config)
        self.manifest = manifest
        self.process_poll_interval = process_poll_interval
        self._host = replace(
            host or Host(),
            kill_timeout=manifest.kill_timeout,
            check_interval_sec=ready_check_interval,
        )
        self.supervisor = Supervisor(
            [process_unit(process, self._host) for process in manifest.processes],
            stop_within_sec=manifest.stop_within_sec,
            keep=keep,
        )
        self._hooks: dict[str, Mapping[ProcessHookType, Sequence[LifecycleHookType]]] = {}
        self._ready_strategies: dict[str, ReadyStrategyType] = {}
        self._stat_handlers: dict[str, Sequence[StatHandlerType]] = {}
        self._control_servers: dict[str, ControlServerType] = {}
        self._started = False
        self._block: AbstractAsyncContextManager[None] | None = None
        if plugin_directory is not None:
            self.load_plugins(plugin_directory)

    # --- plugins ----------------------------------------------------------------------------------

    def load_plugins(self, plugin_dir: Path) -> None:
        """Register every plugin that a Python file in *plugin_dir* defines."""
        self.register_plugins(find_plugins(plugin_dir))

    def register_plugins(self, plugins: list[Plugin]) -> None:
        """Let the processes use what *plugins* provide; a later one's names win."""
        for plugin in plugins:
            _logger.debug("plugin %s is registered", plugin.name)
            self._hooks.update(plugin.get_lifecycle_hooks())
            self._ready_strategies.update(plugin.get_ready_strategies())
            self._stat_handlers.update(plugin.get_stats_handlers())
            self._control_servers.update(plugin.get_control_servers())
        for process in self.manifest.processes:
            self._equip(process)

    def _equip(self, process: Process) -> None:
        """Hand *process* the functions that it names."""
        for hook_type, functions in process.lifecycle_hook_functions.items():
            functions[:] = [
                function
                for name in process.lifecycle_hooks
                for function in self._hooks.get(name, {}).get(hook_type, ())
            ]
        process.stats_handler_functions[:] = [
            handler
            for name in process.stat_handlers
            for handler in self._stat_handlers.get(name, ())
        ]
        strategy = self._ready_strategies.get(process.ready_strategy or "")
        if strategy is not None:
            process.provide_ready_strategy(strategy)

    def unknown_names(self) -> list[Problem]:
        """Return a problem for each hook, strategy, handler or control server nobody provides."""
        strategies = {**STRATEGIES, **self._ready_strategies}
        problems: list[Problem] = []
        for process in self.manifest.processes:
            here: Location = ("processes", process.name)
            for key, names, known in (
                ("lifecycle_hooks", process.lifecycle_hooks, self._hooks),
                ("stat_handlers", process.stat_handlers, self._stat_handlers),
            ):
                problems += _unknown((*here, key), names, known)
            if process.ready_strategy is not None and process.ready_strategy not in strategies:
                message = _no_such(process.ready_strategy, strategies)
                problems.append(Problem((*here, "ready_strategy"), message))
        server = self.manifest.control_server
        if server is not None and server not in self._control_servers:
            problems.append(Problem(("control_server",), _no_such(server, self._control_servers)))
        return problems

    @staticmethod
    async def execute_lifecycle_hooks(
        process: Process, popen: PopenView | None, hook_type: ProcessHookType
    ) -> None:
        """Call the hooks that *process* has for *hook_type*; what they raise travels."""
        await call_hooks(process, popen, hook_type, Host())

    # --- the whole tree ---------------------------------------------------------------------------

    async def start(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all processes until they have ended or `stop` is called; cancelled, stop in order.

        Reports started when each is ready, over, or known to be held up. Raises `RuntimeError` when
        the pilot has been started before, and `ProblemsError`, a `ValueError`, when the manifest
        names hooks, strategies, handlers or a control server that no plugin provides.
        """
        self._check_start()
        self._started = True
        await self.supervisor.run(task_status=task_status)

    def _check_start(self) -> None:
        if self._started:
            raise RuntimeError("this ProcessPilot has been started before")
        if problems := self.unknown_names():
            raise ProblemsError(problems)

    async def stop(self) -> None:
        """Stop all processes in reverse order and return when nothing is left of them."""
        if self.supervisor.running:
            self.supervisor.ask_stop_tree("asked to stop")
            await self.supervisor.wait_ended()

    async def __aenter__(self) -> Self:
        self._check_start()  # before there is a nursery, which would make a group of it
        self._block = self._open()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._block is None:
            raise RuntimeError("this ProcessPilot has not been entered")
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.start)
            try:
                yield
            finally:
                self.supervisor.ask_stop_tree("the block that it belongs to was left")

    def is_running(self) -> bool:
        """Return whether the tree runs."""
        return self.supervisor.running

    # --- single processes -------------------------------------------------------------------------

    def get_manifest_processes(self) -> list[Process]:
        """Return the processes of the manifest, each after those it depends on."""
        return list(self.manifest.processes)

    def get_process_by_name(self, name: str) -> Process | None:
        """Return a process of the manifest, None when it has none of that name."""
        return next((p for p in self.manifest.processes if p.name == name), None)

    @overload
    def get_running_process(self, process_id: None = None) -> list[ProcessStatus] | None: ...
    @overload
    def get_running_process(self, process_id: int) -> ProcessStatus | None: ...
    @overload
    def get_running_process(self, process_id: str) -> ProcessStatus | None: ...
    def get_running_process(
        self, process_id: int | str | None = None
    ) -> list[ProcessStatus] | ProcessStatus | None:
        """Return how a process that runs stands, by pid or name; all that run without either."""
        running = [
            status
            for process in self.manifest.processes
            if (status := process.get_status()).status is not ProcessState.STOPPED
        ]
        if process_id is None:
            return running
        # Before its start and after its end a process has the pid 0, which is nobody's.
        return next((s for s in running if process_id in (s.pid or s.name, s.name)), None)

    async def start_process(self, name: str) -> None:
        """Start a process, and what it needs, and return when it is ready.

        Raises `UnknownUnitError`, a `ValueError`, for an unknown name, and `UnitFailedError` when
        it has ended for good instead.
        """
        await self.supervisor.start_unit(name)

    async def stop_process(self, name: str) -> None:
        """Stop one process and return when nothing of it is left; errors as in `start_process`."""
        await self.supervisor.stop_unit(name)

    async def restart_processes(self, process_names: list[str] | str) -> None:
        """Restart processes by name and return when all are ready; errors as in `start_process`.

        With an unknown name among them nothing is restarted. Several failures are a group.
        """
        names = [process_names] if isinstance(process_names, str) else process_names
        known = self.supervisor.names
        for name in names:
            if name not in known:
                raise UnknownUnitError(name, known)
        failures: list[Exception] = []

        async def restart(name: str) -> None:
            try:
                await self.supervisor.restart_unit(name)
            except UnitFailedError as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for name in dict.fromkeys(names):
                nursery.start_soon(restart, name)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("processes that did not become ready", failures)

    def set_process_affinity(self, process: HasPid, affinity: list[int] | None) -> None:
        """Let a running process run on the CPUs in *affinity* only; None changes nothing."""
        if affinity is not None:
            os.sched_setaffinity(process.pid, affinity)


def _unknown(where: Location, names: Sequence[str], known: Mapping[str, object]) -> list[Problem]:
    return [
        Problem((*where, place), _no_such(name, known))
        for place, name in enumerate(names)
        if name not in known
    ]


def _no_such(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no plugin provides {name!r}{hint}"
