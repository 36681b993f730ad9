"""What was begun by a runner that is dead goes on elsewhere. A unit beside the runners."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import trio

from runtime.invocation.models import RunnerRecord
from runtime.invocation.moves import Recovery
from runtime.state_backend.base import BaseStateBackend
from runtime.state_backend.changes import Change
from runtime.supervision.unit import UnitHandle

from .whereabouts import is_dead, is_of_this_host

_LEASE = "recovery"
#: How many old invocations are forgotten in one step, so that others get their turn in between.
_PURGED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySettings:
    """When somebody counts as lost, and how long what is over is kept (None: for ever).

    Every *sweep_sec* seconds one of all sweepers looks for runners that were not heard of
    until their lease was over, and for what was taken and not begun for *max_pending_sec* seconds.
    """

    sweep_sec: float = 1.0
    max_pending_sec: float = 5.0
    quarantine_after: int = 3
    keep_results_sec: float | None = None


class RecoverySweep:
    """Takes invocations from those who cannot go on with them; ``run`` is the body of its unit.

    The death of a runner's process on this host is seen at once, by a pidfd: of each runner from
    when the store has told of it, which is when the runner begins.
    """

    def __init__(self, backend: BaseStateBackend, settings: RecoverySettings) -> None:
        self.backend: BaseStateBackend = backend
        self.settings: RecoverySettings = settings
        self.sweeper_id: str = f"recovery-{secrets.token_hex(6)}"
        #: The ids of the runners whose processes are watched.
        self.watched: set[str] = set()
        self._changed = trio.Event()

    async def run(self, *, task_status: UnitHandle) -> None:
        """Sweep, at once and time after time, until cancelled."""
        with self.backend.changes.listen(self._hear):
            async with trio.open_nursery() as watches:
                watches.start_soon(self._meet, watches, task_status)
                task_status.started()
                while True:
                    self._changed.set()  # in case nobody has told of one
                    await self._sweep(task_status)
                    await trio.sleep(self.settings.sweep_sec)

    def _hear(self, changes: list[Change]) -> None:
        if not changes:  # a runner may be new
            self._changed.set()

    async def _meet(self, watches: trio.Nursery, unit: UnitHandle) -> None:
        """Look at the runners whenever one may be new: who is dead, and who is to be watched."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            runners = await self.backend.get_runners()
            await self._take_from_dead(runners, unit)
            self._watch_all(runners, watches, unit)

    def _recovery(self, reason: str) -> Recovery:
        return Recovery(self.sweeper_id, reason, self.settings.quarantine_after)

    async def _take_from_dead(self, runners: Iterable[RunnerRecord], unit: UnitHandle) -> None:
        """Take at once from the runners of this host whose process is not there any more."""
        dead = [each for each in runners if is_of_this_host(each) and is_dead(each)]
        for runner in dead:
            await self._take_from(runner, unit)

    async def _take_from(self, runner: RunnerRecord, unit: UnitHandle) -> None:
        reason = f"its runner {runner.runner_id} (pid {runner.pid}) has died"
        taken = await self.backend.recover(self._recovery(reason), runners=[runner.runner_id])
        unit.note(f"{len(taken)} invocations of {runner.runner_id} go on elsewhere, it has died")

    def _watch_all(
        self, runners: Iterable[RunnerRecord], watches: trio.Nursery, unit: UnitHandle
    ) -> None:
        for runner in runners:
            elsewhere = runner.pid == os.getpid() or not is_of_this_host(runner)
            if runner.runner_id not in self.watched and not elsewhere:
                self.watched.add(runner.runner_id)
                watches.start_soon(self._watch, runner, unit)

    async def _watch(self, runner: RunnerRecord, unit: UnitHandle) -> None:
        """Wait for the death of a runner's process, and take what it owned if it ended badly."""
        try:
            pidfd = os.pidfd_open(runner.pid)
        except (OSError, AttributeError):
            # It has ended; or the platform has none, and there are its heartbeats.
            self.watched.discard(runner.runner_id)
            return
        try:
            if not is_dead(runner):  # else the pid is somebody else's already
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
            self.watched.discard(runner.runner_id)
        known = [each.runner_id for each in await self.backend.get_runners()]
        if runner.runner_id in known:
            await self._take_from(runner, unit)

    async def _sweep(self, unit: UnitHandle) -> None:
        """Look for the others, and for what is too old, unless somebody else does just now."""
        lease_sec = 3 * self.settings.sweep_sec
        if not await self.backend.take_lease(_LEASE, self.sweeper_id, lease_sec):
            return
        now = self.backend.now()
        taken = await self.backend.recover(
            self._recovery("nothing was heard of its runner in time"),
            pending_before=now - timedelta(seconds=self.settings.max_pending_sec),
        )
        if taken:
            unit.note(f"{len(taken)} invocations go on elsewhere, their runners were lost")
        if self.settings.keep_results_sec is not None:
            over_before = now - timedelta(seconds=self.settings.keep_results_sec)
            # As many steps as it takes: more may end between two sweeps than one step forgets.
            while await self.backend.purge(over_before=over_before, limit=_PURGED_AT_ONCE):
                pass
