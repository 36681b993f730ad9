"""How a process runs: the body of its unit."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from signal import Signals

from runtime import _procfs
from runtime._procfs import Member
from runtime._secrets import has_secrets, reveal
from runtime.supervision.unit import Unit, UnitHandle

from ._attendance import Attendance
from ._exceptions import SurvivorsError
from ._notify import NotifySocket, open_notify_socket
from .child import Child, StopPlan, open_child
from .host import Host
from .logfile import LogFile
from .models import Process, call_hooks, call_last_hooks
from .popen import PopenView
from .spawn import Command


class _Run:
    """Runs one process, generation after generation, for its supervisor."""

    def __init__(self, process: Process, host: Host) -> None:
        self._process, self._host = process, host
        self._generation = 0
        self._log: LogFile | None = None
        if process.log is not None:
            self._log = LogFile(process.log, host.logs)
            process.output.listeners["log"] = self._log.add
        self._survivors: list[Member] = []

    async def __call__(self, *, task_status: UnitHandle) -> None:
        process = self._process
        self._refuse_second_copy()
        self._generation += 1
        if self._generation > 1:
            await call_hooks(process, None, "on_restart", self._host, task_status)
        await call_hooks(process, None, "pre_start", self._host, task_status)
        command = await self._command()
        child: Child | None = None
        failure: Exception | None = None
        try:
            async with (
                self._open_notify_socket(task_status) as notify,
                open_child(
                    command if notify is None else _with_variables(command, notify.variables),
                    self._host,
                    process.output,
                    self._stop_plan(command),
                    task_status,
                    log=self._log,
                    beside=None if notify is None else notify.listen,
                ) as child,
            ):
                process.note_spawned(child.pid)
                task_status.report_pid(child.pid)
                attendance = Attendance(process, self._host, child, task_status, notify)
                failure = await attendance.run()
        except SurvivorsError as error:
            self._remember(error)
            raise
        finally:
            if child is not None:
                process.note_ended(child.returncode)
                task_status.report_pid(None)
                await call_last_hooks(process, PopenView(child), self._host, task_status)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # or it would keep this frame, and this frame it

    def _open_notify_socket(
        self, unit: UnitHandle
    ) -> AbstractAsyncContextManager[NotifySocket | None]:
        process, given = self._process, self._process.privileges
        return open_notify_socket(
            unit,
            wanted=process.may_notify,
            uid=None if given is None else given.uid,
            watchdog_sec=process.watchdog_sec,
        )

    async def _command(self) -> Command:
        """Return what is to be run; `SecretError` where a secret that it needs cannot be had."""
        process, host = self._process, self._host
        own = process.env
        if has_secrets(own):
            own = await reveal(
                process.name,
                own,
                process.secret_source,
                host.secrets,
                at=(*process.location, "env"),
                limiter=host.spawning,
            )
        return Command(
            name=process.name,
            argv=process.command,
            working_directory=process.working_directory,
            env=process.merged_env(host.marker(process.name), own, host.inherited.get()),
            affinity=process.affinity,
            privileges=process.privileges,
        )

    def _stop_plan(self, command: Command) -> StopPlan:
        process = self._process
        plan = StopPlan(
            signum=Signals[process.stop_signal], timeout=process.timeout, output=process.output
        )
        if process.stop_command is None:
            return plan
        # A name of its own: neither of the two takes what descends from the other for its own.
        name = f"{process.name}/stop"
        env = {**command.env, **self._host.marker(name)}
        stop = replace(command, name=name, argv=process.stop_command, env=env)

        def for_pid(pid: int) -> Command:
            return replace(stop, env={**env, "RUNTIME_PID": str(pid)})

        return replace(plan, command=for_pid)

    def _remember(self, error: SurvivorsError) -> None:
        stats = (_procfs.read_stat(pid) for pid in error.pids)
        self._survivors = [stat.member for stat in stats if stat is not None]

    def _refuse_second_copy(self) -> None:
        """Raise `SurvivorsError` while something of the generation before is still there."""
        stats = (_procfs.read_stat(member.pid) for member in self._survivors)
        left = [s.pid for s in stats if s is not None and s.alive and s.member in self._survivors]
        if left:
            names = [_procfs.read_name(pid) for pid in left]
            raise SurvivorsError(self._process.name, left, names)
        self._survivors = []


def _with_variables(command: Command, variables: Mapping[str, str]) -> Command:
    return replace(command, env={**command.env, **variables})


def process_unit(process: Process, host: Host, *, restarts_also: tuple[str, ...] = ()) -> Unit:
    """Return the unit that runs *process* on *host*; *restarts_also* is that of a `Unit`.

    Raises `ValueError` for one with ceilings where nobody would see that it exceeds them.
    """
    if process.ceilings is not None and host.sampler is None:
        raise ValueError(f"{process.name} has ceilings, and its host no sampler that looks at it")
    process.output.secrets = host.secrets
    if host.echo is not None:
        process.output.listeners["echo"] = partial(host.echo, process.name)
    return Unit(
        name=process.name,
        body=_Run(process, host),
        kind="process",
        lifecycle=process.lifecycle,
        requirements=process.requirements,
        restart=process.restart_policy,
        ends_tree=process.shutdown_strategy == "shutdown_everything",
        restart_dependents=process.restart_dependents,
        restarts_also=restarts_also,
        autostart=process.autostart,
    )
