"""A runner takes invocations from the store and runs each in a cancel scope of its own. A unit."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, NamedTuple

import trio

from runtime.invocation._exceptions import InvocationNotFoundError
from runtime.invocation.models import Move, RunnerRecord
from runtime.invocation.moves import OWNED, Recovery
from runtime.invocation.status import InvocationStatus
from runtime.state_backend.base import MOVE_ERRORS, BaseStateBackend
from runtime.state_backend.changes import Change
from runtime.supervision.unit import UnitHandle, current_unit

from .bodies import Bodies, FailedInWorkerError
from .failures import Failure, failure_of
from .home import TaskHome
from .invocation import cancel_children, waiting_in
from .options import is_number, is_whole
from .running import Ended, RunningInvocation, Slots
from .whereabouts import this_process
from .workers import WorkerDiedError, WorkerPool

_I = InvocationStatus
_MOST_KEPT_BACK_SEC = 2.0
_MOST_UNTAKEN = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How a runner works: how many bodies at once, of which queues (None: all).

    Where there are tasks that are cpu_bound it has *processes* worker processes for them, which do
    not count as bodies; 0: one for each core that it may use. With *recycle_after* a worker is
    replaced after so many calls.

    It says every *heartbeat_sec* seconds that it is alive, and counts as dead when that was
    *lease_sec* seconds ago. A task that was the death of *quarantine_after* workers ends failed. At
    its end it waits *drain_sec* seconds at most, and never longer than the tree's stop, for what
    runs. Raises `ValueError` for a value that cannot be.
    """

    name: str = "runner"
    concurrency: int = 10
    queues: tuple[str, ...] | None = None
    processes: int = 0
    recycle_after: int | None = None
    heartbeat_sec: float = 1.0
    lease_sec: float = 10.0
    quarantine_after: int = 3
    drain_sec: float | None = None

    def __post_init__(self) -> None:
        if self.queues is not None and not isinstance(self.queues, str):
            object.__setattr__(self, "queues", tuple(self.queues))
        for problem in self._problems():
            raise ValueError(f"runner {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        for name, least in (("concurrency", 1), ("processes", 0), ("quarantine_after", 1)):
            if not is_whole(getattr(self, name), least):
                yield f"{name} is a whole number from {least} on"
        if self.recycle_after is not None and not is_whole(self.recycle_after, 1):
            yield "recycle_after is a whole number from 1 on; leave it out for never"
        if self.drain_sec is not None and not is_number(self.drain_sec):
            yield "drain_sec is a number of seconds from 0 on; leave it out for the whole stop"
        if not (is_number(self.heartbeat_sec) and self.heartbeat_sec):
            yield "heartbeat_sec is a number of seconds greater than 0"
        elif not (is_number(self.lease_sec) and self.lease_sec > self.heartbeat_sec):
            yield f"lease_sec is longer than heartbeat_sec ({self.heartbeat_sec:g})"
        if isinstance(self.queues, str):
            yield f"queues are several names: [{self.queues!r}]"


class _Lane:
    """Those tasks that share slots, and whether some of them may wait in the store."""

    def __init__(self, tasks: Collection[str], slots: Slots) -> None:
        self.tasks, self.slots = tasks, slots
        self.may_be_more = True

    @property
    def can_take(self) -> bool:
        """Whether it is worth while to ask the store."""
        return self.may_be_more and self.slots.free > 0


class _Due:
    """When the next invocation of some queues is due, asked of the store when that may be another.

    That is when one has come to wait and nobody has taken it: it may have been put off.
    """

    def __init__(self, backend: BaseStateBackend, queues: tuple[str, ...] | None) -> None:
        self._backend, self._queues = backend, queues
        self._known = False
        self._next: datetime | None = None
        self._untaken: set[str] = set()

    def hear(self, changes: list[Change]) -> None:
        """Take note of what has changed in the store."""
        untaken = self._untaken
        for change in changes:
            if change.status.is_available_for_run():
                untaken.add(change.invocation_id)
            else:
                untaken.discard(change.invocation_id)
        if not changes or len(untaken) > _MOST_UNTAKEN:
            self.forget()

    def forget(self) -> None:
        """Ask the next time."""
        self._known = False
        self._untaken.clear()

    def is_past(self, now: datetime) -> bool:
        """Return whether the one that was found is due *now*, by the clock of the store."""
        return self._known and self._next is not None and self._next <= now

    async def find(self) -> datetime | None:
        """Return when the next one is due, or an earlier time; None if none is."""
        if not self._known or self._untaken:
            self._known = True  # what is heard meanwhile counts for the next time
            self._untaken.clear()
            self._next = await self._backend.next_due(self._queues)
        return self._next


class _Ending(NamedTuple):
    """How a body has ended, as the moves that are to be recorded."""

    running: RunningInvocation
    moves: Sequence[Move]


class Runner:
    """Takes what waits in the store, as much as it has free slots for, and runs it.

    ``run`` is the body of its unit. Told to stop it takes no more, waits for what runs, as long as
    it may, cancels the rest and gives it back to the store. *pool* is for tasks that are cpu-bound;
    without one they are left to others.
    """

    def __init__(
        self,
        home: TaskHome,
        backend: BaseStateBackend,
        settings: RunnerSettings,
        pool: WorkerPool | None = None,
    ) -> None:
        self.home: TaskHome = home
        self.backend: BaseStateBackend = backend
        self.settings: RunnerSettings = settings
        #: Its id in the store; another one each time that it runs.
        self.runner_id: str = f"{settings.name}-{secrets.token_hex(6)}"
        self._pool = pool
        self._bodies = Bodies(pool)
        self._running: dict[str, RunningInvocation] = {}
        self._stopping = trio.Event()
        self._wake = trio.Event()
        self._lanes = list(self._make_lanes())
        self._due = _Due(backend, settings.queues)
        self._endings: list[_Ending] = []
        self._ended = trio.Event()
        self._no_more = False  #: bodies, whose ends are to be recorded

    def _make_lanes(self) -> Iterator[_Lane]:
        by_kind: tuple[list[str], list[str]] = ([], [])
        for name, task in self.home.tasks.items():
            by_kind[task.options.cpu_bound].append(name)
        others, cpu_bound = by_kind
        yield _Lane(others, Slots(lambda: self.settings.concurrency, self._look_again))
        pool = self._pool
        if pool is not None:
            pool.on_ready = self._look_again
            yield _Lane(cpu_bound, Slots(lambda: pool.ready, self._look_again))

    @property
    def running(self) -> Collection[RunningInvocation]:
        """What runs in it now, paused ones included."""
        return self._running.values()

    @property
    def abandoned(self) -> Mapping[str, str]:
        """The threads that were left behind and run still, as plain functions cannot be stopped.

        The names of the tasks, by the ids of the invocations.
        """
        return self._bodies.abandoned

    async def run(self, *, task_status: UnitHandle) -> None:
        """Run until told to stop; once only."""
        await task_status.hold(lambda: self._live(task_status), ask_to_stop=self._stop)

    def _look_again(self) -> None:
        self._wake.set()

    def _stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    async def _live(self, unit: UnitHandle) -> None:
        await self.backend.heartbeat(self._record())
        try:
            with (
                self.home.showing(self.settings.name, self._running.values()),
                self.backend.changes.listen(self._hear),
            ):
                async with trio.open_nursery() as around:
                    around.start_soon(self._beat)
                    if self._pool is not None:
                        around.start_soon(self._pool.supervisor.run)
                    async with trio.open_nursery() as recording:
                        recording.start_soon(self._record_ends)
                        with self._bodies_until_here():
                            async with trio.open_nursery() as bodies:
                                unit.started()
                                await self._take(bodies)
                                await self._drain(unit)
                    around.cancel_scope.cancel()
        finally:
            with unit.budget.closing(None):
                await self._leave()

    async def _leave(self) -> None:
        """Be forgotten by the store; what it owns still, as it has failed, goes on at once."""
        if await self.backend.get_owned(self.runner_id):
            recovery = self._recovery("its runner has failed")
            await self.backend.recover(recovery, runners=[self.runner_id])
        else:
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
        unknown: set[str] = set()
        while True:
            await trio.sleep(self.settings.heartbeat_sec)
            known = dict(self._running)
            await self.backend.heartbeat(self._record())
            if self._due.is_past(self.backend.now()):  # the host has slept, or its clock was set
                self._due.forget()
                self._expect_more()
            owned = await self.backend.get_owned(self.runner_id)
            unknown = await self._give_back(unknown, owned.keys() - known.keys())
            for invocation_id, running in known.items():
                if self._running.get(invocation_id) is not running:
                    continue
                if invocation_id not in owned:
                    running.end(Ended.LOST)
                elif owned[invocation_id]:
                    running.end(Ended.CANCELLED)

    async def _give_back(self, before: AbstractSet[str], unknown: set[str]) -> set[str]:
        """Give back what the store took for this runner, and its answer never arrived.

        That is what it has not heard of from one beat to the next; return what it is to be then.
        """
        lost = (before & unknown) - self._running.keys()
        if lost:
            recovery = self._recovery("its runner has not heard of it")
            await self.backend.recover(recovery, runners=(), invocations=lost, owner=self.runner_id)
        return unknown - lost

    def _recovery(self, reason: str) -> Recovery:
        return Recovery(self.runner_id, reason, self.settings.quarantine_after)

    def _hear(self, changes: list[Change]) -> None:
        self._due.hear(changes)
        for change in changes:
            if change.cancel:
                running = self._running.get(change.invocation_id)
                if running is not None:
                    running.end(Ended.CANCELLED)
            elif (
                # A claim that has held some back may have stopped for that.
                change.status.is_available_for_run() or change.status is _I.CONCURRENCY_CONTROLLED
            ):
                self._expect_more()
        if not changes:  # something has changed, nobody here knows what
            self._expect_more()

    def _expect_more(self) -> None:
        for lane in self._lanes:
            lane.may_be_more = True
        self._wake.set()

    # --- taking -----------------------------------------------------------------------------------

    async def _take(self, bodies: trio.Nursery) -> None:
        """Take what waits, whenever there is a slot for it, until this runner is to stop."""
        while not self._stopping.is_set():
            lanes = [lane for lane in self._lanes if lane.can_take]
            for lane in lanes:
                await self._take_for(lane, bodies)
            if not lanes:
                await self._rest()

    async def _take_for(self, lane: _Lane, bodies: trio.Nursery) -> None:
        lane.may_be_more = False
        free = lane.slots.free
        claimed = await self.backend.claim(
            self.runner_id, free, queues=self.settings.queues, tasks=lane.tasks, start=True
        )
        lane.may_be_more |= len(claimed) == free
        for stored in claimed:
            task = self.home.tasks[stored.task]
            running = RunningInvocation(task, stored, lane.slots, self._move_one)
            lane.slots.take()
            if (before := self._running.get(stored.invocation_id)) is not None:
                before.end(Ended.LOST)  # taken from this runner, and given to it again
            self._running[stored.invocation_id] = running
            bodies.start_soon(self._run_one, running, name=stored.invocation_id)

    async def _rest(self) -> None:
        """Wait until there may be something to do, at the latest until the next one is due."""
        due: datetime | None = None
        if any(lane.slots.free > 0 for lane in self._lanes):
            due = await self._due.find()
        if self._stopping.is_set() or any(lane.can_take for lane in self._lanes):
            return
        self._wake = trio.Event()
        with trio.CancelScope() as until:
            if due is not None:
                until.deadline = trio.current_time() + (due - self.backend.now()).total_seconds()
            await self._wake.wait()
        if until.cancelled_caught:
            self._due.forget()
            self._expect_more()

    # --- stopping ---------------------------------------------------------------------------------

    async def _drain(self, unit: UnitHandle) -> None:
        """Wait for what runs, as long as may be; then cancel it, and give it back."""
        what = lambda: f"{len(self._running)} running invocations"  # noqa: E731 - its only use
        left_sec = unit.budget.left_sec
        # To be cancelled, killed and given back takes them some time, too.
        wait_sec = left_sec - min(_MOST_KEPT_BACK_SEC, left_sec / 3) if left_sec < inf else inf
        if self.settings.drain_sec is not None:
            wait_sec = min(wait_sec, self.settings.drain_sec)
        with unit.budget.polite(wait_sec, what=what):
            while self._running:
                self._wake = trio.Event()
                if await self._waits_in_vain():
                    break
                await self._wake.wait()
        for running in list(self._running.values()):
            running.end(Ended.STOPPED)

    async def _waits_in_vain(self) -> bool:
        """Return whether all that runs is paused, and waits for what waits for a runner itself.

        This one takes it no more, and nobody may.
        """
        if not all(running.paused for running in self._running.values()):
            return False
        for awaited in {each for running in self._running.values() for each in running.awaited}:
            with suppress(InvocationNotFoundError):
                status = (await self.backend.get_outcome(awaited)).status
                if status in OWNED or status.is_over():
                    return False
        return True

    # --- one body ---------------------------------------------------------------------------------

    async def _run_one(self, running: RunningInvocation) -> None:
        handed_over = False
        try:
            moves, death = await self._attempt(running)
            if running.paused and moves:  # it ends in a thread that waits, and was left behind
                moves.insert(0, self._move(running, _I.RESUMED))
            if running.ended is Ended.LOST:
                return
            if death is None and running.ended is not Ended.CANCELLED:
                # Not recorded here: others end at the same time, and it costs a wait less.
                self._endings.append(_Ending(running, moves))
                self._ended.set()
                handed_over = True
                return
            with current_unit().budget.to_the_end():
                await self._record_one(running, moves, death)
        finally:
            if not handed_over:
                running.give_slot()
                self._forget(running)

    def _forget(self, running: RunningInvocation) -> None:
        # It may be this runner's again, for another attempt.
        if self._running.get(running.invocation_id) is running:
            del self._running[running.invocation_id]
        if self._stopping.is_set():  # it is waited for
            self._wake.set()

    async def _record_one(
        self, running: RunningInvocation, moves: Sequence[Move], death: WorkerDiedError | None
    ) -> None:
        """Record an end that has consequences."""
        try:
            if moves:
                await self.backend.apply(moves)
            if death is not None:
                await self._recover(running, death)
            if running.ended is Ended.CANCELLED:
                await cancel_children(self.backend, running.invocation_id)
        except MOVE_ERRORS as error:
            self._note_refusal(running, error)

    @staticmethod
    def _note_refusal(running: RunningInvocation, error: Exception) -> None:
        # It was taken from this runner meanwhile, or purged, and its result with it.
        current_unit().note(f"{running.invocation_id} of {running.task.name}: {error}")

    @contextmanager
    def _bodies_until_here(self) -> Generator[None]:
        """Let the recording end after the block."""
        try:
            yield
        finally:
            self._no_more = True
            self._ended.set()

    async def _record_ends(self) -> None:
        """Record how bodies have ended, all those together that have since the last time."""
        with current_unit().budget.to_the_end():
            while self._endings or not self._no_more:
                if not self._endings:
                    self._ended = trio.Event()
                    await self._ended.wait()
                    continue
                endings, self._endings = self._endings, []
                await self._record_together(endings)

    async def _record_together(self, endings: list[_Ending]) -> None:
        # Nothing runs in their slots any more. What is taken for them comes after these ends in the
        # store, and shares their commit where there are commits.
        for running, _ in endings:
            running.give_slot()
        # What was lost meanwhile may be this runner's again, for another attempt.
        told = [each for each in endings if each.running.ended is not Ended.LOST]
        try:
            errors = await self.backend.apply_each([moves for _, moves in told])
            for (running, _), error in zip(told, errors, strict=True):
                if error is not None:
                    self._note_refusal(running, error)
        finally:
            for running, _ in endings:
                self._forget(running)

    async def _recover(self, running: RunningInvocation, death: WorkerDiedError) -> None:
        """Let go on elsewhere, at once, what was the death of its worker."""
        recovery, which = self._recovery(str(death)), [running.invocation_id]
        await self.backend.recover(recovery, runners=(), invocations=which, owner=self.runner_id)

    async def _move_one(self, running: RunningInvocation, status: InvocationStatus) -> None:
        """Move an invocation of this runner; when it is not its own any more, cancel the body."""
        if running.ended is Ended.LOST:  # it may be this runner's again, for another attempt
            return
        try:
            await self.backend.set_status(running.invocation_id, status, self.runner_id)
        except MOVE_ERRORS:
            running.end(Ended.LOST)

    async def _attempt(
        self, running: RunningInvocation
    ) -> tuple[list[Move], WorkerDiedError | None]:
        """Run the body once; return the moves that record how it went, or its worker's death."""
        timeout_sec = running.task.options.timeout_sec
        token = waiting_in.set(running)
        failure: Failure | None = None
        try:
            with running.scope as scope:
                if timeout_sec is not None:
                    scope.deadline = trio.current_time() + timeout_sec
                result = await self._bodies.call(running)
                return [self._move(running, _I.SUCCESS, result=result)], None
        except FailedInWorkerError as told:
            failure = told.failure
        except WorkerDiedError as death:
            return [], death
        except BaseException as error:  # noqa: BLE001 - the edge of a task: whatever it is is kept
            # What it raises when it has been cut off says nothing; what is not its own travels on.
            failure = failure_of(running.task, error, running.retries)
        finally:
            running.note_over()
            waiting_in.reset(token)
        if failure is None or running.scope.cancel_called:
            return self._moves_of_cut_off(running), None
        return [self._failure(running, failure)], None

    def _moves_of_cut_off(self, running: RunningInvocation) -> list[Move]:
        ended = running.ended
        if ended is None:
            words = f"{running.task.name} took longer than {running.task.options.timeout_sec:g} s"
            error = TimeoutError(f"{words} (timeout_sec)")
            failure = failure_of(running.task, error, running.retries, timed_out=True)
            return [self._failure(running, failure)]
        if ended is Ended.LOST:
            return []
        killed = self._move(running, _I.KILLED, context={"reason": ended.value})
        if ended is Ended.CANCELLED:
            return [killed]
        return [killed, Move(invocation_id=running.invocation_id, status=_I.REROUTED)]

    def _failure(self, running: RunningInvocation, failure: Failure) -> Move:
        kept, delay = failure.error, failure.retry_after_sec
        if delay is None:
            return self._move(running, _I.FAILED, error=kept)
        due_at = self.backend.now() + timedelta(seconds=delay)
        context = {"error": f"{kept.type}: {kept.message}"[:1000]}
        return self._move(running, _I.RETRY, error=kept, due_at=due_at, context=context)

    def _move(self, running: RunningInvocation, status: InvocationStatus, **more: Any) -> Move:  # noqa: ANN401 - fields of Move
        return Move(
            invocation_id=running.invocation_id, status=status, runner_id=self.runner_id, **more
        )
