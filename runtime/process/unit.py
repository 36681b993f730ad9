"""How a process runs: the body of its unit."""

from functools import partial
from signal import Signals

import trio

from runtime import _procfs
from runtime._procfs import Member
from runtime.supervision.unit import Unit, UnitHandle

from ._exceptions import (
    NotReadyError,
    ProcessError,
    ProcessExitedError,
    SurvivorsError,
    exit_in_words,
)
from .child import Child, StopPlan, open_child
from .hooks import call_plugin
from .host import Host
from .logfile import LogFile
from .models import Process, ProcessHookType
from .popen import PopenView
from .readiness import Candidate
from .spawn import Command


async def call_hooks(
    process: Process, view: PopenView | None, hook_type: ProcessHookType, host: Host
) -> None:
    """Call the hooks that the process has for *hook_type*, one after the other."""
    for hook in process.lifecycle_hook_functions[hook_type]:
        await call_plugin(hook, process, view, limiter=host.plugins)


class _Run:
    """Runs one process, generation after generation, for its supervisor."""

    def __init__(self, process: Process, host: Host) -> None:
        self._process, self._host = process, host
        self._generation = 0
        self._log: LogFile | None = None
        if process.log is not None:
            self._log = LogFile(process.log, host.logs)
            process.output.log = self._log.add
        self._survivors: list[Member] = []

    async def __call__(self, *, task_status: UnitHandle) -> None:
        process = self._process
        self._refuse_second_copy()
        self._generation += 1
        if self._generation > 1:
            await call_hooks(process, None, "on_restart", self._host)
        await call_hooks(process, None, "pre_start", self._host)
        plan = StopPlan(signum=Signals[process.stop_signal], timeout=process.timeout)
        child: Child | None = None
        failure: ProcessError | None = None
        try:
            async with open_child(
                self._command(), self._host, process.output, plan, task_status, log=self._log
            ) as child:
                process.note_spawned(child.pid)
                await call_hooks(process, PopenView(child), "post_start", self._host)
                failure = await self._attend(child, task_status)
        except SurvivorsError as error:
            self._remember(error)
            raise
        finally:
            if child is not None:
                process.note_ended(child.returncode)
                if process.lifecycle_hook_functions["on_shutdown"]:
                    with task_status.budget.polite(process.timeout):
                        await call_hooks(process, PopenView(child), "on_shutdown", self._host)
        if failure is not None:
            raise failure

    async def _attend(self, child: Child, unit: UnitHandle) -> ProcessError | None:
        """Wait for readiness and for the end; return what was wrong about that."""
        started = trio.current_time()
        if self._process.ready_strategy is None:
            unit.started()
            return self._judge(await child.wait_exit(), unit, started, ready=True)
        candidate = Candidate(child.family)
        ready = False
        failure: ProcessError | None = None

        async def watch_readiness() -> None:
            nonlocal ready, failure
            with trio.move_on_after(self._process.ready_timeout_sec):
                ready = await self._process.check_ready(self._host, candidate)
            if ready:
                unit.started()
            else:
                failure = self._not_ready(candidate.obstacle)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_readiness)
            returncode = await child.wait_exit()
            nursery.cancel_scope.cancel()
        if failure is not None:
            unit.ending(str(failure))
            return failure
        obstacle = "" if ready else candidate.obstacle
        return self._judge(returncode, unit, started, ready=ready, obstacle=obstacle)

    def _judge(
        self,
        returncode: int,
        unit: UnitHandle,
        started: float,
        *,
        ready: bool,
        obstacle: str = "",
    ) -> ProcessError | None:
        unit.ending(exit_in_words(returncode))
        if returncode == 0 and ready:
            return None
        uptime = trio.current_time() - started
        name = self._process.name
        return ProcessExitedError(name, returncode, uptime, ready=ready, obstacle=obstacle)

    def _command(self) -> Command:
        process = self._process
        return Command(
            name=process.name,
            argv=process.command,
            working_directory=process.working_directory,
            env=process.merged_env(self._host.marker(process.name)),
            affinity=process.affinity,
            privileges=process.privileges,
        )

    def _not_ready(self, obstacle: str) -> NotReadyError:
        process = self._process
        strategy, within_sec = process.ready_strategy or "plugin's", process.ready_timeout_sec
        return NotReadyError(process.name, strategy, within_sec, "ready_timeout_sec", obstacle)

    def _remember(self, error: SurvivorsError) -> None:
        stats = (_procfs.read_stat(pid) for pid in error.pids)
        self._survivors = [stat.member for stat in stats if stat is not None]

    def _refuse_second_copy(self) -> None:
        """Raise `SurvivorsError` while something of the generation before is still there."""
        stats = (_procfs.read_stat(member.pid) for member in self._survivors)
        left = [s.pid for s in stats if s is not None and s.alive and s.member in self._survivors]
        if left:
            raise SurvivorsError(self._process.name, left)
        self._survivors = []


def process_unit(process: Process, host: Host) -> Unit:
    """Return the unit that runs *process* on *host*."""
    if host.echo is not None:
        process.output.echo = partial(host.echo, process.name)
    return Unit(
        name=process.name,
        body=_Run(process, host),
        kind="process",
        lifecycle=process.lifecycle,
        requirements=process.requirements,
        restart=process.restart_policy,
        ends_tree=process.shutdown_strategy == "shutdown_everything",
        restart_dependents=process.restart_dependents,
    )
