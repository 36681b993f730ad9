"""ProcessPilot: runs the processes of a manifest."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import Any, Protocol, overload

from runtime import _late
from runtime._control import control_unit
from runtime._plugin_files import find_plugins
from runtime._plugin_registry import PluginRegistry
from runtime._problems import Problem, raise_any
from runtime._tree_block import Companion, TreeBlock, act_on_all
from runtime.plugin import Plugin
from runtime.process import (
    NotRunningError,
    Process,
    ProcessManifest,
    ProcessState,
    ProcessStatus,
)
from runtime.process.host import Host
from runtime.process.models import ProcessHookType, call_hooks
from runtime.process.popen import PopenView
from runtime.process.sampler import Sampler
from runtime.process.specs import known_signal
from runtime.process.stats import ProcessStats
from runtime.process.unit import process_unit
from runtime.supervision._exceptions import UnknownUnitError
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit


class HasPid(Protocol):
    """Whatever knows the pid of a process, such as `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """The pid."""
        ...


class ProcessPilot(TreeBlock):
    """Runs the processes of a *manifest* as one tree.

    ``async with ProcessPilot(manifest) as pilot:`` returns control when everything is ready, and
    stops all of it, in order, at the end of the block. ``await pilot.start()`` runs until the tree
    has ended instead, and can be given to ``nursery.start``.

    *plugin_directory* is searched for plugins, besides the folder that the manifest names.
    *process_poll_interval* is the period, in seconds, in which statistics are taken while somebody
    wants them, unless the manifest says another; ends of processes are not polled for.
    *ready_check_interval* is what the growing interval between two looks of a readiness check grows
    to. *logger_config* is given to `logging.config.dictConfig`. *host* says where processes run.
    With *keep* the tree goes on when all processes have ended. An `Application` gives the
    *supervisor* that runs the rest as well.
    """

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
        supervisor: Supervisor | None = None,
    ) -> None:
        others = {entry.kind for entry in manifest.entries()} - {"process"}
        if supervisor is None and others:
            raise ValueError(f"this manifest has a {others.pop()}, too; run it as an Application")
        if logger_config is not None:
            _late.logging_config().dictConfig(logger_config)
        self.manifest = manifest
        self._members = manifest.members_by_name()
        self.process_poll_interval = process_poll_interval
        self._host = replace(
            host or Host(),
            kill_timeout=manifest.kill_timeout,
            check_interval_sec=ready_check_interval,
        )
        #: Takes the statistics of the processes, while somebody wants them.
        self.sampler: Sampler = Sampler(
            manifest.processes,
            manifest.stats_interval_sec or process_poll_interval,
            plugins=self._host.plugins,
        )
        self._host = replace(self._host, sampler=self.sampler)
        self._plugins = PluginRegistry()
        companions = manifest.companions()
        #: One for each process, and the control server's.
        self.units: list[Unit] = [
            process_unit(process, self._host, restarts_also=companions.get(process.name, ()))
            for process in manifest.processes
        ]
        if manifest.control_server is not None:
            find = self._plugins.control_server
            self.units.append(control_unit(manifest.control_server, self, find))
        super().__init__(
            supervisor
            or Supervisor(
                self.units,
                stop_within_sec=manifest.stop_within_sec,
                keep=keep,
                mask=self._host.secrets.mask,
            )
        )
        for folder in (manifest.plugins, plugin_directory):
            if folder is not None:
                self.load_plugins(folder)

    # --- plugins ----------------------------------------------------------------------------------

    def load_plugins(self, plugin_dir: Path) -> None:
        """Register every plugin that a Python file in *plugin_dir* defines."""
        self.register_plugins(find_plugins(plugin_dir))

    def register_plugins(self, plugins: list[Plugin]) -> None:
        """Let the processes use what *plugins* provide; a later one's names win."""
        self._plugins.register(plugins)
        self._equip()

    def _equip(self) -> None:
        for process in self.manifest.processes:
            self._plugins.equip(process)

    def unknown_names(self) -> list[Problem]:
        """Return a problem for each hook, strategy, handler or control server nobody provides.

        Where a name is missing, plugins that installed distributions offer are looked for first.
        """
        return self._plugins.unknown_names(self.manifest)

    # --- what a control server needs --------------------------------------------------------------

    @property
    def control_params(self) -> Mapping[str, Any]:
        """The settings that the manifest has for its control server."""
        return self.manifest.control_params

    @property
    def base_directory(self) -> Path:
        """Where relative paths start."""
        return self.manifest.base_directory or Path.cwd()

    @property
    def host(self) -> Host:
        """Where its processes run, and with them those of whatever else is in the tree."""
        return self._host

    @property
    def run_directory(self) -> Path | None:
        """The run directory of the tree; None where it has none, as in a program of one's own."""
        return self._host.folder

    # --- single functions -------------------------------------------------------------------------

    @staticmethod
    async def execute_lifecycle_hooks(
        process: Process, popen: PopenView | None, hook_type: ProcessHookType
    ) -> None:
        """Call the hooks that *process* has for *hook_type*; what they raise travels."""
        await call_hooks(process, popen, hook_type, Host())

    # --- the whole tree ---------------------------------------------------------------------------

    def check_names(self) -> None:
        """Raise `ProblemsError` when the manifest asks for what nobody provides."""
        has_run_directory = self._host.folder is not None
        raise_any(self._plugins.find_problems(self.manifest, has_run_directory=has_run_directory))
        if self._plugins.has_offers:
            self._equip()  # with what was found only now

    def _prepare(self) -> None:
        self.check_names()

    def _companions(self) -> Sequence[Companion]:
        return [self.sampler.run]

    def get_stats(self) -> list[ProcessStats]:
        """Return what each process that runs used when it was last looked at.

        Looks are taken while somebody wants them: processes that name ``stat_handlers`` or have
        ``ceilings``, and whoever is in a block of ``sampler.watch``.
        """
        return [process.get_stats() for process in self.manifest.processes if process.pid]

    # --- single processes -------------------------------------------------------------------------

    def get_manifest_processes(self) -> list[Process]:
        """Return the processes of the manifest, each after those it depends on."""
        return list(self.manifest.processes)

    def get_process_by_name(self, name: str) -> Process | None:
        """Return a process of the manifest, None when it has none of that name.

        For the name of an entry with replicas it is the first of them.
        """
        return next(iter(self._members.get(name, ())), None)

    @overload
    def get_running_process(self, process_id: None = None) -> list[ProcessStatus] | None: ...
    @overload
    def get_running_process(self, process_id: int) -> ProcessStatus | None: ...
    @overload
    def get_running_process(self, process_id: str) -> ProcessStatus | None: ...
    def get_running_process(
        self, process_id: int | str | None = None
    ) -> list[ProcessStatus] | ProcessStatus | None:
        """Return how a process that runs stands, by pid or name; all that run without either.

        For the name of an entry with replicas it is the first of them that runs.
        """
        running = [
            process
            for process in self.manifest.processes
            if process.get_status().status is not ProcessState.STOPPED
        ]
        if process_id is None:
            return [process.get_status() for process in running]
        for process in running:
            status = process.get_status()
            # Before its start and after its end a process has the pid 0, which is nobody's.
            if process_id in (status.pid or process.name, process.name, process.replica_of):
                return status
        return None

    async def start_process(self, name: str) -> None:
        """Start a process, and what it needs, and return when it is ready.

        The name of an entry with replicas stands for all of them, and that of a group for all its
        members, here and below. Raises `UnknownUnitError`, a `ValueError`, for an unknown name, and
        `UnitFailedError` when it has ended for good instead; several failures are a group.
        """
        await self.start_processes(name)

    async def start_processes(self, process_names: list[str] | str) -> None:
        """Start processes by name and return when all are ready; errors as in `start_process`.

        With an unknown name among them nothing is started.
        """
        await act_on_all(self.unit_names(process_names), self.supervisor.start_unit)

    async def stop_process(self, name: str) -> None:
        """Stop one process and return when nothing of it is left; errors as in `start_process`."""
        await self.stop_processes(name)

    async def stop_processes(self, process_names: list[str] | str) -> None:
        """Stop processes by name and return when nothing of them is left; see `start_processes`."""
        await act_on_all(self.unit_names(process_names), self.supervisor.stop_unit)

    async def restart_processes(self, process_names: list[str] | str) -> None:
        """Restart processes by name and return when all are ready; errors as in `start_process`.

        With an unknown name among them nothing is restarted.
        """
        await act_on_all(self.unit_names(process_names), self.supervisor.restart_unit)

    def send_signal(self, name: str, signal_name: str | Signals) -> None:
        """Send a signal, such as ``"SIGHUP"``, to a process, but not to what descends from it.

        The name of an entry with replicas stands for all of them. It is an event, and not a request
        to stop: an end that follows is one that nobody asked for. Raises `UnknownUnitError` and,
        where no such signal is known, `ValueError`; `NotRunningError` with nothing sent when one of
        the processes does not run.
        """
        signum = (
            signal_name if isinstance(signal_name, Signals) else Signals[known_signal(signal_name)]
        )
        members = self._members.get(name)
        if not members:
            raise UnknownUnitError(name, [process.name for process in self.manifest.processes])
        for process in members:
            if process.get_status().pid == 0:
                raise NotRunningError(process.name)
        for process in members:
            # Nobody but us reaps it, and it has that pid until then: the signal meets no stranger.
            os.kill(process.get_status().pid, signum)
            self.supervisor.note(process.name, f"was sent {signum.name}")

    def unit_names(self, names: Sequence[str] | str) -> list[str]:
        """Return the names of the units behind *names*, each once: of processes, and of others.

        Raises `UnknownUnitError`, a `ValueError`.
        """
        found: dict[str, None] = {}
        for name in [names] if isinstance(names, str) else names:
            members = self.manifest.unit_names(name)
            if not members and name not in self.supervisor.names:
                raise UnknownUnitError(name, self.supervisor.names)
            found.update(dict.fromkeys(members or [name]))
        return list(found)

    def set_process_affinity(self, process: HasPid, affinity: list[int] | None) -> None:
        """Let a running process run on the CPUs in *affinity* only; None changes nothing."""
        if affinity is not None:
            os.sched_setaffinity(process.pid, affinity)
