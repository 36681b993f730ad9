"""A runner takes invocations from the store and runs each in a cancel scope of its own. A unit."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from math import inf
from typing import Any

import anyio
import anyio.to_thread
import trio

from runtime.invocation._exceptions import InvocationStatusError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import Move, RunnerRecord, StoredInvocation
from runtime.invocation.status import InvocationStatus
from runtime.state_backend.base import BaseStateBackend
from runtime.state_backend.changes import Change
from runtime.supervision.unit import UnitHandle, current_unit

from ._exceptions import TaskError
from .home import TaskHome
from .invocation import Invocation, cancel_children, waiting_in
from .task import Task
from .whereabouts import this_process

_I = InvocationStatus


class Ended(StrEnum):
    """Why a body was not left to its own end."""

    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    STOPPED = "stopped with its runner"
    LOST = "lost: its runner does not own it any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How a runner works: how many bodies at once, of which queues (None: all).

    *processes* is how many worker processes it has for tasks that are cpu_bound. It says
    every *heartbeat_sec* seconds that it is alive, and counts as dead when that was *lease_sec*
    seconds ago. A task that was the death of *quarantine_after* workers ends failed. At its end it
    waits *drain_sec* seconds at most, and never longer than the tree's stop, for what runs.
    """

    name: str = "runner"
    concurrency: int = 10
    queues: tuple[str, ...] | None = None
    processes: int = 0
    heartbeat_sec: float = 1.0
    lease_sec: float = 10.0
    quarantine_after: int = 3
    drain_sec: float | None = None


class RunningInvocation(Invocation[Any]):
    """An invocation whose body runs in this runner."""

    task: Task[..., Any]

    def __init__(self, task: Task[..., Any], stored: StoredInvocation, runner: Runner) -> None:
        super().__init__(task, stored.invocation_id, stored.arguments)
        self.attempt = stored.attempts
        self.scope = trio.CancelScope()
        self.ended: Ended | None = None
        self.paused = False
        self._retries, self._runner = stored.retries, runner
        self._waits = 0  # of its tasks that wait for others
        self._moving = trio.Lock()

    @property
    def retries(self) -> int:
        """How often it was tried again before this attempt."""
        return self._retries

    def end(self, why: Ended) -> None:
        """Cancel the body, unless it has been already."""
        if self.ended is None:
            self.ended = why
            self.scope.cancel()

    @asynccontextmanager
    async def pausing(self) -> AsyncGenerator[None]:
        """Be paused while any of its tasks is in this block, and hold no slot of the runner."""
        self._waits += 1
        try:
            await self._pause_or_resume()
            yield
        finally:
            self._waits -= 1
            await self._pause_or_resume()

    async def _pause_or_resume(self) -> None:
        # Shielded, for a move that has been made and is not known of would leave it paused for
        # good; one at a time, for its tasks come and go while a move is on its way.
        with current_unit().budget.to_the_end():
            async with self._moving:
                wanted = self._waits > 0
                if wanted is not self.paused:
                    self.paused = wanted
                    await self._runner.move(self, _I.PAUSED if wanted else _I.RESUMED)
                    self._runner.wake()


class Runner:
    """Takes what waits in the store, as much as it has free slots for, and runs it.

    ``run`` is the body of its unit. Told to stop it takes no more, waits for what runs, as long as
    it may, cancels the rest and gives it back to the store.
    """

    def __init__(self, home: TaskHome, backend: BaseStateBackend, settings: RunnerSettings) -> None:
        self.home, self.backend, self.settings = home, backend, settings
        #: Its id in the store; another one each time that it runs.
        self.runner_id = ""
        #: The threads that were left behind and run still, as a plain function cannot be stopped:
        #: the names of the tasks, by the ids of the invocations.
        self.abandoned: dict[str, str] = {}
        self._running: dict[str, RunningInvocation] = {}
        self._stopping = trio.Event()
        self._wake = trio.Event()
        self._may_be_more = True

    @property
    def running(self) -> Collection[RunningInvocation]:
        """What runs in it now, paused ones included."""
        return self._running.values()

    @property
    def free_slots(self) -> int:
        """How many bodies more it may run."""
        return self.settings.concurrency - sum(not each.paused for each in self.running)

    async def run(self, *, task_status: UnitHandle) -> None:
        """Run until told to stop."""
        self.runner_id = f"{self.settings.name}-{secrets.token_hex(6)}"
        self._stopping, self._wake, self._may_be_more = trio.Event(), trio.Event(), True
        # The slots are the limit; what was left behind in a thread must not take one of them.
        self._threads = anyio.CapacityLimiter(inf)
        await task_status.hold(lambda: self._live(task_status), ask_to_stop=self._stop)

    def _stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    async def _live(self, unit: UnitHandle) -> None:
        await self.backend.heartbeat(self._record())
        try:
            with self.backend.changes.listen(self._hear):
                async with trio.open_nursery() as beating:
                    beating.start_soon(self._beat)
                    async with trio.open_nursery() as bodies:
                        unit.started()
                        await self._take(bodies)
                        await self._drain(unit)
                    beating.cancel_scope.cancel()
        finally:
            # What it owns still, if it has failed, belongs to nobody then: it will be recovered.
            with unit.budget.closing(None):
                await self.backend.remove_runner(self.runner_id)

    # --- being alive ------------------------------------------------------------------------------

    def _record(self) -> RunnerRecord:
        now, me = self.backend.now(), this_process()
        return RunnerRecord(
            runner_id=self.runner_id,
            host=me.host,
            pid_space=me.pid_space,
            pid=me.pid,
            pid_started=me.start_ticks,
            started_at=now,
            alive_until=now + timedelta(seconds=self.settings.lease_sec),
        )

    async def _beat(self) -> None:
        """Say time after time that this runner is alive, and see what it owns still."""
        while True:
            await trio.sleep(self.settings.heartbeat_sec)
            known = dict(self._running)
            await self.backend.heartbeat(self._record())
            owned = await self.backend.get_owned(self.runner_id)
            for invocation_id, running in known.items():
                if self._running.get(invocation_id) is not running:
                    continue
                if invocation_id not in owned:
                    running.end(Ended.LOST)
                elif owned[invocation_id]:
                    running.end(Ended.CANCELLED)

    def _hear(self, changes: list[Change]) -> None:
        for change in changes:
            if change.cancel:
                running = self._running.get(change.invocation_id)
                if running is not None:
                    running.end(Ended.CANCELLED)
            elif change.status.is_available_for_run():
                self._may_be_more = True
                self._wake.set()

    # --- taking -----------------------------------------------------------------------------------

    async def _take(self, bodies: trio.Nursery) -> None:
        """Take what waits, whenever there is a slot for it, until this runner is to stop."""
        queues, names = self.settings.queues, tuple(self.home.tasks)
        while not self._stopping.is_set():
            free = self.free_slots
            if free < 1 or not self._may_be_more:
                await self._rest(None if free < 1 else await self.backend.next_due(queues))
                continue
            self._may_be_more = False
            claimed = await self.backend.claim(
                self.runner_id, free, queues=queues, tasks=names, start=True
            )
            self._may_be_more |= len(claimed) == free
            for stored in claimed:
                running = RunningInvocation(self.home.tasks[stored.task], stored, self)
                self._running[stored.invocation_id] = running
                bodies.start_soon(self._run_one, running, name=stored.invocation_id)

    async def _rest(self, due: datetime | None) -> None:
        """Wait until there may be something to do, at the latest until *due*."""
        if self._stopping.is_set() or (self._may_be_more and self.free_slots > 0):
            return
        self._wake = trio.Event()
        with trio.CancelScope() as until:
            if due is not None:
                until.deadline = trio.current_time() + (due - self.backend.now()).total_seconds()
            await self._wake.wait()
        if until.cancelled_caught:
            self._may_be_more = True

    def wake(self) -> None:
        """Look again whether there is a slot.

        One that has been paused goes on also where that makes one more than there are slots for:
        it would wait for others that wait for it.
        """
        self._wake.set()

    # --- stopping ---------------------------------------------------------------------------------

    async def _drain(self, unit: UnitHandle) -> None:
        """Wait for what runs, as long as may be; then cancel it, and give it back."""
        what = lambda: f"{len(self._running)} running invocations"  # noqa: E731 - its only use
        with unit.budget.polite(self.settings.drain_sec, what=what):
            while self._running:
                self._wake = trio.Event()
                await self._wake.wait()
        for running in list(self._running.values()):
            running.end(Ended.STOPPED)

    # --- one body ---------------------------------------------------------------------------------

    async def _run_one(self, running: RunningInvocation) -> None:
        try:
            moves = await self._attempt(running)
            with current_unit().budget.to_the_end():
                await self._record_end(running, moves)
        finally:
            del self._running[running.invocation_id]
            self._wake.set()

    async def _record_end(self, running: RunningInvocation, moves: Sequence[Move]) -> None:
        try:
            if moves:
                await self.backend.apply(moves)
            if running.ended is Ended.CANCELLED:
                await cancel_children(self.backend, running.invocation_id)
        except InvocationStatusError as error:
            # It was taken from this runner meanwhile, and its result with it.
            current_unit().note(f"{running.invocation_id} of {running.task.name}: {error}")

    async def move(self, running: RunningInvocation, status: InvocationStatus) -> None:
        """Move an invocation of this runner; when it is not its own any more, cancel the body."""
        try:
            await self.backend.set_status(running.invocation_id, status, self.runner_id)
        except InvocationStatusError:
            running.end(Ended.LOST)
            await trio.lowlevel.checkpoint()

    async def _attempt(self, running: RunningInvocation) -> list[Move]:
        """Run the body once; return the moves that record how it went."""
        options = running.task.options
        token = waiting_in.set(running)
        error: Exception | None = None
        result = ""
        try:
            with running.scope as scope:
                if options.timeout_sec is not None:
                    scope.deadline = trio.current_time() + options.timeout_sec
                result = await self._call(running)
        except Exception as raised:  # noqa: BLE001 - the edge of a task: whatever it is is kept
            error = raised
        except SystemExit as raised:  # it may end its own work, and nobody else's
            error = TaskError(f"{running.task.name} has called sys.exit({raised.code!r})")
        finally:
            waiting_in.reset(token)
        if running.scope.cancelled_caught:
            ended = running.ended or Ended.TIMED_OUT
            return self._moves_of_cut_off(running, ended)
        if error is None:
            return [self._move(running, _I.SUCCESS, result=result)]
        return [self._failure(running, error)]

    def _moves_of_cut_off(self, running: RunningInvocation, ended: Ended) -> list[Move]:
        if ended is Ended.LOST:
            return []
        if ended is Ended.TIMED_OUT:
            seconds = running.task.options.timeout_sec
            words = f"{running.task.name} took longer than {seconds:g} s (timeout_sec)"
            return [self._failure(running, TimeoutError(words), timed_out=True)]
        killed = self._move(running, _I.KILLED, context={"reason": ended.value})
        if ended is Ended.CANCELLED:
            return [killed]
        return [killed, Move(invocation_id=running.invocation_id, status=_I.REROUTED)]

    def _failure(
        self, running: RunningInvocation, error: Exception, *, timed_out: bool = False
    ) -> Move:
        kept = ErrorRecord.of(error)
        try:
            delay = running.task.options.retry_after(error, running.retries, timed_out=timed_out)
        except Exception as failure:  # noqa: BLE001 - a predicate of the user's
            kept, delay = ErrorRecord.of(failure), None
        if delay is None:
            return self._move(running, _I.FAILED, error=kept)
        due_at = self.backend.now() + timedelta(seconds=delay)
        context = {"error": f"{kept.type}: {kept.message}"[:1000]}
        return self._move(running, _I.RETRY, error=kept, due_at=due_at, context=context)

    def _move(self, running: RunningInvocation, status: InvocationStatus, **more: Any) -> Move:  # noqa: ANN401 - fields of Move
        return Move(
            invocation_id=running.invocation_id, status=status, runner_id=self.runner_id, **more
        )

    async def _call(self, running: RunningInvocation) -> str:
        """Call the function, where it belongs; return its result as JSON."""
        task, signature = running.task, running.task.signature
        args, kwargs = signature.load(running.arguments_json)
        call = partial(task.function, *args, **kwargs)
        result = await (call() if task.is_async else self._call_in_thread(running, call))
        return signature.dump_result(result)

    async def _call_in_thread(self, running: RunningInvocation, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the function returns
        """Call a plain function in a thread; cancelled, leave the thread behind and say so."""
        key = running.invocation_id

        def call_and_say() -> Any:  # noqa: ANN401 - as above
            try:
                return call()
            finally:
                self.abandoned.pop(key, None)

        try:
            return await anyio.to_thread.run_sync(
                call_and_say, abandon_on_cancel=True, limiter=self._threads
            )
        except trio.Cancelled:
            self.abandoned[key] = running.task.name
            note = f"a thread of {running.task.name} was left behind, it cannot be stopped"
            current_unit().note(f"{note} ({len(self.abandoned)} in all)")
            raise


def current_invocation() -> RunningInvocation | None:
    """Return the invocation whose body the caller is part of; None outside of every task."""
    found = waiting_in.get()
    return found if isinstance(found, RunningInvocation) else None
