"""A child's lifetime is a block: whatever ends the block, nothing of the child is left behind."""

import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import trio

from runtime import _procfs
from runtime._procfs import Member, Stat
from runtime.supervision.unit import UnitHandle

from ._exceptions import SpawnError, SurvivorsError, exit_in_words, processes_in_words
from .family import Family, wait_gone
from .host import Host
from .logfile import LogFile
from .output import Output, StreamName, read_lines
from .spawn import Command, Spawned, spawn

# How long the end of the output is waited for when all of the family is gone: first until somebody
# else must be holding the pipe, then until what it still holds has been read.
_PIPE_HELD_SEC = 0.05
_DRAIN_SEC = 0.45
# Each end that is taken up makes work for a dozen turns. With so many of them before the next, a
# storm takes half of a loop that has others to serve; where it has none, it is as fast as without.
_TURNS_OF_AN_EXIT = 2
# Of the polite time a stop command has so much; what remains is there for the signal, if it hangs.
_SHARE_OF_COMMAND = 0.8
_END_OF_COMMAND_SEC = 0.5
_LONGEST_LINE_TOLD = 200
#: How a note of what had to be killed begins; who that was follows, up to a semicolon.
KILLED: Final = "killed: "


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPlan:
    """How a child is asked to stop: *signum* to its group, SIGKILL after *timeout* seconds.

    ``timeout=None`` waits as long as the budget of the unit lets it. A *command*, made for the pid
    of the child, is run in place of the signal; what it prints goes to *output*.
    """

    signum: signal.Signals = signal.SIGTERM
    timeout: float | None = 5.0
    command: Callable[[int], Command] | None = None
    output: Output | None = None


@final
class Child:
    """A started program; only `open_child` makes one."""

    command: Command
    pid: int
    family: Family
    output_ended: trio.Event  #: set once all of its output has been read

    def __init__(self, command: Command, host: Host, spawned: Spawned) -> None:
        self.command, self.pid = command, spawned.popen.pid
        self._popen, self._pidfd, self._host = spawned.popen, spawned.pidfd, host
        self._returncode: int | None = None
        self._asking = ""  # the stop command that runs
        self.family = Family(self.pid, command.name, host)
        self.output_ended = trio.Event()

    @property
    def returncode(self) -> int | None:
        """How it ended, -n for signal n; None while it runs. Looking does not reap it."""
        if self._returncode is None:
            try:
                status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # it is being reaped while a thread looks
                return self._popen.returncode
            if status is not None:
                exited = status.si_code == os.CLD_EXITED
                self._returncode = status.si_status if exited else -status.si_status
        return self._returncode

    async def wait_exit(self) -> int:
        """Return how it ended as soon as it has; it is not reaped by that."""
        await trio.lowlevel.wait_readable(self._pidfd)
        async with self._host.exits:
            for _ in range(_TURNS_OF_AN_EXIT):
                await trio.lowlevel.checkpoint()
        returncode = self.returncode
        if returncode is None:  # nobody but us may reap a child of ours
            raise RuntimeError(f"pid {self.pid} has ended, and the kernel does not say how")
        return returncode

    async def stop(self, plan: StopPlan, unit: UnitHandle) -> list[int]:
        """End the child and its family, return what outlived SIGKILL; shielded, within the budget.

        What has ended by itself is not waited for. A descendant that outlives the child is asked
        and killed in the same way.
        """
        if self.returncode is not None and not self._look():
            return []
        asked, timeout = trio.current_time(), plan.timeout
        obeys = await self._ask(plan, unit)
        if timeout is not None:  # however long the command has taken: the rest has its share
            passed = trio.current_time() - asked
            timeout = max(timeout - passed, timeout * (1 - _SHARE_OF_COMMAND))
        with unit.budget.polite(timeout, what=self._obstacle):
            if obeys:
                await self._wait_exit_of([])
                self._signal(plan.signum, self._look())
            await self._wait_all_gone()
            return []
        waited = trio.current_time() - asked
        if not (left := self._living_pids()):  # they ended at the very last moment
            return []
        how = plan.signum.name if plan.command is None else "its stop command began"
        unit.note(f"{KILLED}{_in_words(left)}; still there {waited:.1f} s after {how}")
        with unit.budget.final(self._host.kill_timeout, what=self._obstacle):
            while (family := self._look()) or self.returncode is None:
                self._signal(signal.SIGKILL, family)
                await self._wait_exit_of(family)
                await trio.lowlevel.checkpoint()
        return self._living_pids()

    async def _ask(self, plan: StopPlan, unit: UnitHandle) -> bool:
        """Ask the child to end, and return whether the plan's command has done so.

        Where it has not, or there is none, the signal has been sent.
        """
        if plan.command is None or self.returncode is not None:
            self._signal(plan.signum, self._look())
            return False
        command = plan.command(self.pid)
        failure = await self._run_stop_command(command, plan, unit)
        if failure:
            name = plan.signum.name
            unit.note(f"stop command {command.argv[0]} {failure}; {name} is sent instead")
        return failure == ""

    async def _run_stop_command(
        self, command: Command, plan: StopPlan, unit: UnitHandle
    ) -> str | None:
        """Run *command*; return what was wrong with it, the signal having been sent then.

        Empty where it has done; None where there was no time to begin, and the signal was sent.
        """
        output = Output(self._host.secrets)
        if plan.output is not None:
            output.listeners["process"] = plan.output.add
        helper: Child | None = None
        ended: int | None = None
        failure = ""
        began = trio.current_time()
        ending = StopPlan(timeout=_END_OF_COMMAND_SEC)
        # Its start is in it, too: that may have to wait for others, or take its time.
        with unit.budget.polite(
            plan.timeout, share=_SHARE_OF_COMMAND, what=self._obstacle
        ) as patience:
            if patience.deadline <= began:
                self._signal(plan.signum, self._look())
                return None
            self._asking = command.argv[0]
            try:
                async with open_child(command, self._host, output, ending, unit) as helper:
                    try:
                        await helper.wait_exit()
                    finally:
                        ended = helper.returncode
                        if ended != 0:  # now; to end the helper takes a while
                            self._signal(plan.signum, self._look())
            except SpawnError as error:
                failure = f"failed: {error}"
            except SurvivorsError as error:
                unit.note(f"stop command {command.argv[0]}: {error.survivors} outlived SIGKILL")
            finally:
                self._asking = ""
        limit_sec = patience.deadline - began
        if helper is None:
            self._signal(plan.signum, self._look())
            return failure or f"had not been started after {limit_sec:.1f} s"
        if ended == 0:
            return ""
        failure = _failure_in_words(ended, limit_sec)
        last = output.lines.tail(1)
        return f"{failure}: {last[0].item.text.strip()[:_LONGEST_LINE_TOLD]}" if last else failure

    def _obstacle(self) -> str:
        """Say what a stop waits for now."""
        left = _in_words(self._living_pids())
        return f"stop command {self._asking}, {left}" if self._asking else left

    def kill_holders(self, inodes: list[int]) -> tuple[list[Member], str]:
        """Kill what was not known as family and still holds the child's output open.

        Return it, and in words who it was.
        """
        holders = [stat.member for stat in self.family.holders(inodes)]
        words = _in_words([member.pid for member in holders])
        for member in holders:
            _procfs.send_signal(member, signal.SIGKILL)
        return holders, words

    def reap(self) -> None:
        """Let the kernel forget the child; until then its pid means it, and its group."""
        if self.returncode is not None and self._popen.returncode is None:
            self._popen.returncode = self._returncode
            os.waitid(os.P_PID, self.pid, os.WEXITED)
        trio.lowlevel.notify_closing(self._pidfd)
        os.close(self._pidfd)

    def _look(self) -> list[Stat]:
        return self.family.look(leader_ended=self.returncode is not None)

    def _living_pids(self) -> list[int]:
        family = [stat.pid for stat in self._look()]
        return family if self.returncode is not None else [self.pid, *family]

    def _signal(self, signum: signal.Signals, family: list[Stat]) -> None:
        self._send(signum, family)
        if signum != signal.SIGKILL:  # who is suspended could not act on it (as systemd does)
            self._send(signal.SIGCONT, family)

    def _send(self, signum: signal.Signals, family: list[Stat]) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)
        for stat in family:
            if stat.group != self.pid:
                _procfs.send_signal(stat.member, signum)

    async def _wait_all_gone(self) -> None:
        await self._wait_exit_of([])
        while left := self._look():
            await self._wait_exit_of(left)

    async def _wait_exit_of(self, family: list[Stat]) -> None:
        await wait_gone(stat.member for stat in family)
        await trio.lowlevel.wait_readable(self._pidfd)


@asynccontextmanager
async def open_child(
    command: Command,
    host: Host,
    output: Output,
    plan: StopPlan,
    unit: UnitHandle,
    *,
    log: LogFile | None = None,
    beside: Callable[[Child], Awaitable[None]] | None = None,
) -> AsyncGenerator[Child]:
    """Run *command* exactly as long as the block lasts, its output read to the end.

    When the block is left, *log* has written what was read. *beside*, which must not raise, goes
    on until then, and is cancelled when nothing of the child runs any more.

    Leaving the block, for whatever reason, stops the child and all that descends from it, shielded
    and within the budget of *unit*. Raises `SpawnError`, and `SurvivorsError` when something
    outlived SIGKILL.
    """
    spawned = await spawn(command, host)
    child = Child(command, host, spawned)
    survivors: list[int] | None = None
    try:
        async with (
            log.open(unit) if log is not None else nullcontext(),
            trio.open_nursery() as readers,
        ):
            reading = _Reading(output, child.output_ended)
            reading.start(readers, spawned.stdout, "stdout")
            reading.start(readers, spawned.stderr, "stderr")
            if beside is not None:
                readers.start_soon(reading.accompany, partial(beside, child))
            try:
                yield child
            finally:
                try:
                    survivors = await child.stop(plan, unit)
                    if not reading.ended.is_set():
                        pipes = [spawned.stdout, spawned.stderr]
                        await _drain(child, pipes, reading.ended, unit)
                finally:  # whatever is raised here: nothing else ends the readers
                    reading.cancel()
    finally:
        os.close(spawned.stdout)
        os.close(spawned.stderr)
        if host.roster is not None and survivors == []:
            host.roster.note_ended(child.pid)
        child.reap()
        if survivors:
            raise SurvivorsError(command.name, survivors, list(map(_procfs.read_name, survivors)))


def _in_words(pids: list[int]) -> str:
    return processes_in_words(pids, _procfs.read_title)


def _failure_in_words(returncode: int | None, limit_sec: float) -> str:
    if returncode is None:
        return f"was still running after {limit_sec:.1f} s"
    return exit_in_words(returncode)


class _Reading:
    """The reading of a child's output: every stream to its end, then `ended` is set.

    It outlives a cancellation, for the child may have something to say while it stops; its bound is
    that of the stop, and the drain after it.
    """

    def __init__(self, output: Output, ended: trio.Event) -> None:
        self.ended = ended
        self._output = output
        self._scopes: set[trio.CancelScope] = set()
        self._beside = trio.CancelScope(shield=True)

    def start(self, nursery: trio.Nursery, fd: int, name: StreamName) -> None:
        scope = trio.CancelScope(shield=True)
        self._scopes.add(scope)
        nursery.start_soon(self._read, scope, fd, name)

    async def accompany(self, beside: Callable[[], Awaitable[None]]) -> None:
        with self._beside:
            await beside()

    def cancel(self) -> None:
        self._beside.cancel()
        for scope in self._scopes:
            scope.cancel()

    async def _read(self, scope: trio.CancelScope, fd: int, name: StreamName) -> None:
        try:
            with scope:
                await read_lines(fd, name, self._output)
        finally:
            self._scopes.discard(scope)
            if not self._scopes:
                self.ended.set()


async def _drain(child: Child, pipes: list[int], read: trio.Event, unit: UnitHandle) -> None:
    """Wait for the end of the output, half a second at most: the pipe may be held for ever."""
    with unit.budget.final(_PIPE_HELD_SEC, what=lambda: "the end of its output"):
        await read.wait()
        return
    holders, held_by = child.kill_holders([os.fstat(fd).st_ino for fd in pipes])
    if holders:
        unit.note(f"{KILLED}{held_by}; held its output open")
    with unit.budget.final(_DRAIN_SEC, what=lambda: f"the end of its output, held by {held_by}"):
        await wait_gone(holders)
        await read.wait()
