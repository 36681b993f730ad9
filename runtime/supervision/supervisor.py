"""The supervisor: one nursery, one task for each unit in it, and nothing that polls.

Each unit has a *keeper*, the only code that runs the unit's body; so there are never two live
copies of one unit, whatever is asked for at whatever moment. Requests only change what is wanted
and cancel what the keeper is in at that moment: its patience (waiting for requirements, backing
off) or the body. What a unit waits for is a fact about another one, and every change of a fact
wakes those that wait.

A stop goes in reverse order without anybody directing it: a unit whose stop is due is cancelled
as soon as no live unit that depends on it has a stop due as well.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import trio

from ._exceptions import (
    DuplicateUnitError,
    EndedBeforeReadyError,
    IllegalTransitionError,
    UnitFailedError,
    UnitInUseError,
    UnknownUnitError,
)
from ._slot import Slot, StartUp, nearest_live
from .budget import DEFAULT_STOP_SEC, StopBudget
from .events import Chronicle, Journal, UnitEvent
from .graph import Answer, Requirement, Stage, dependents_of, judge_condition, start_order
from .restart import GiveUp, RestartHistory, RestartIn, judge_end
from .unit import Unit, UnitHandle, UnitStatus, as_current_unit, current_unit

_logger = logging.getLogger(__name__)
_EVENTS_KEPT = 10_000


def _now() -> datetime:
    return datetime.now(UTC)


class Supervisor:
    """Runs units of any kind as one tree.

    ``await supervisor.run()`` starts everything that wants to start and lasts until the tree has
    been stopped or, unless *keep* is set, until nothing is left that keeps it alive. It is a unit's
    body itself, so supervisors nest; when it has ended it may be run again, from the beginning.

    Cancelling ``run`` stops the units in reverse order, within *stop_within_sec* seconds.
    """

    def __init__(
        self,
        units: Iterable[Unit] = (),
        *,
        path: str = "",
        events: Journal[UnitEvent] | None = None,
        stop_within_sec: float = DEFAULT_STOP_SEC,
        keep: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.path = path
        self.events: Journal[UnitEvent] = Journal(_EVENTS_KEPT) if events is None else events
        self._chronicle = Chronicle(path, self.events)
        self.stop_within_sec = stop_within_sec
        self.keep = keep
        #: The unit whose end stopped the tree, once there is one.
        self.ended_by: str | None = None
        self._jitter = jitter
        self._slots: dict[str, Slot] = {}
        self._budget = StopBudget()
        self._nursery: trio.Nursery | None = None
        self._stopping: str | None = None
        self._start_up = StartUp()
        self._stop_asked = trio.Event()
        self._ended = trio.Event()
        self._add_all(units)

    # --- what there is --------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The units' names, each after what it depends on where they were given so."""
        return list(self._slots)

    @property
    def running(self) -> bool:
        """Whether `run` is under way."""
        return self._nursery is not None

    @property
    def stopping(self) -> str | None:
        """Why the whole tree stops or has stopped, None while it does not."""
        return self._stopping

    @property
    def stop_left_sec(self) -> float:
        """Seconds that are left of a stop under way; infinite without one."""
        return self._budget.left_sec

    def locate(self, path: str) -> tuple[Supervisor, str]:
        """Return the supervisor that ``worker/cpu-0`` belongs to, and its name there."""
        head, _, rest = path.partition("/")
        inner = self._slot(head).unit.inner
        if not rest:
            return self, head
        if not isinstance(inner, Supervisor):
            raise UnknownUnitError(path, self._slots)
        return inner.locate(rest)

    def unit(self, name: str) -> Unit:
        """Return a unit of this supervisor; `UnknownUnitError` when there is none."""
        return self._slot(name).unit

    def status(self, name: str) -> UnitStatus:
        """Return how one unit stands."""
        slot = self._slot(name)
        return slot.describe(self._chronicle.path(name))

    def statuses(self) -> list[UnitStatus]:
        """Return how every unit stands, nested ones behind the unit that they belong to."""
        found: list[UnitStatus] = []
        for name, slot in self._slots.items():
            found.append(self.status(name))
            if slot.unit.inner is not None:
                found += slot.unit.inner.statuses()
        return found

    def why(self, name: str) -> list[UnitEvent]:
        """Return the chain of events behind the last change of a unit, the newest first."""
        return self._chronicle.chain(self._slot(name).last)

    # --- changing what there is -----------------------------------------------------------------

    def add(self, unit: Unit) -> None:
        """Add a unit; while the tree runs it is started as it would have been at the beginning.

        Raises `DuplicateUnitError` and `UnknownUnitError`, with nothing changed.
        """
        self._add_all([unit])

    async def remove(self, name: str) -> None:
        """Stop a unit and forget it; `UnitInUseError` while another one depends on it.

        Cancelled, the unit is stopped and forgotten all the same, only later than the caller.
        """
        slot = self._slot(name)
        if slot.dependents:
            raise UnitInUseError(name, [other.unit.name for other in slot.dependents])
        slot.removed = True
        self.ask_stop(name, reason="removed")
        if self._nursery is None:
            self._forget(slot)
        else:
            await self._until(slot, lambda: slot.unit.name not in self._slots)

    def _add_all(self, units: Iterable[Unit]) -> None:
        new = list(units)
        needs = {name: slot.unit.requirements for name, slot in self._slots.items()}
        for unit in new:
            if unit.name in needs:
                raise DuplicateUnitError(unit.name)
            needs[unit.name] = unit.requirements
        start_order(needs)
        slots = [Slot(unit) for unit in new]
        self._slots.update((slot.unit.name, slot) for slot in slots)
        for slot in slots:
            for needed in dict.fromkeys(r.name for r in slot.unit.requirements):
                self._slots[needed].dependents.append(slot)
            if self._nursery is not None and self._stopping is None:
                self._enter(slot, self._nursery)
        for slot in slots:
            self._pull_needed(slot)

    def _forget(self, slot: Slot) -> None:
        del self._slots[slot.unit.name]
        for needed in {r.name for r in slot.unit.requirements}:
            self._slots[needed].dependents.remove(slot)
        slot.wake()

    # --- the life of the tree -------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tree; report started once every unit is ready, over, or known to be held up.

        Failing units never make it raise: what became of them is in `status`.
        """
        if self._nursery is not None:
            raise RuntimeError("this supervisor runs already")
        await trio.lowlevel.checkpoint_if_cancelled()  # then nothing is even begun
        if self._ended.is_set():
            self._rewind()
        with current_unit().budget.open_child() as self._budget:
            if self._stopping is not None:  # told to stop before it began
                self._budget.begin(self.stop_within_sec)
            await self._budget.hold(
                lambda: self._run(task_status),
                ask_to_stop=lambda: self.ask_stop_tree("cancelled from outside"),
            )

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for slot in self._slots.values():
                    self._enter(slot, nursery)
                for slot in self._slots.values():
                    self._pull_needed(slot)
                nursery.start_soon(self._report_started, task_status)
                self._start_up.check()
                self._consider_end()
                if self._stopping is None:
                    # Keepers may come later: the nursery stays open until the tree is told to stop.
                    nursery.start_soon(self._stop_asked.wait)
        finally:
            self._nursery = None
            self._ended.set()

    def _rewind(self) -> None:
        self._stopping, self.ended_by = None, None
        self._start_up, self._stop_asked, self._ended = StartUp(), trio.Event(), trio.Event()
        for slot in self._slots.values():
            slot.over, slot.history, slot.cause = None, RestartHistory(), None

    async def _report_started(self, task_status: trio.TaskStatus[None]) -> None:
        await self._start_up.settled.wait()
        task_status.started()

    def _enter(self, slot: Slot, nursery: trio.Nursery) -> None:
        slot.wanted = slot.unit.autostart and self._stopping is None
        if slot.wanted:
            self._start_up.expect(slot)
        nursery.start_soon(self._keep, slot, name=f"unit {self._chronicle.path(slot.unit.name)}")

    def _pull_needed(self, slot: Slot) -> None:
        """Want what a wanted unit needs, unless that has had its chance."""
        for requirement in slot.unit.requirements if slot.wanted else ():
            needed = self._slots[requirement.name]
            if needed.stage is Stage.IDLE:
                needed.wanted = True
                needed.interrupt()
                self._pull_needed(needed)

    def ask_stop_tree(
        self, reason: str, *, cause: int | None = None, within_sec: float | None = None
    ) -> None:
        """Ask for the ordered stop of everything, which ends `run`; again, to make it shorter."""
        self._budget.begin(self.stop_within_sec if within_sec is None else within_sec)
        if self._stopping is not None:
            return
        self._stopping = reason
        number = self._chronicle.asked("", f"stop: {reason}", cause=cause)
        for slot in self._slots.values():
            self._want_stop(slot, number)
        self._send_due_stops(self._slots.values())
        self._stop_asked.set()
        self._start_up.settled.set()

    def force(self, within_sec: float = 1.0) -> None:
        """Stop everything without politeness: what still runs is killed now."""
        self.ask_stop_tree("forced")
        self._budget.force(within_sec)
        for slot in self._slots.values():  # no order any more
            if slot.live and not slot.stop_sent:
                self._send_stop(slot)

    async def wait_settled(self) -> None:
        """Return once every unit is ready, over, or known to be held up by one that is not."""
        await self._start_up.settled.wait()

    async def wait_stopping(self) -> None:
        """Return once the whole tree has been told to stop, for whatever reason."""
        await self._stop_asked.wait()

    async def wait_ended(self) -> None:
        """Return once `run` is over; cancelled, nothing happens to the tree."""
        await self._ended.wait()

    # --- requests for one unit ------------------------------------------------------------------

    def ask_start(
        self, name: str, *, reason: str = "asked to start", cause: int | None = None
    ) -> None:
        """Ask a unit to start, after what it needs, which is asked as well; do not wait."""
        slot = self._slot(name)
        number = self._chronicle.asked(name, reason, cause=cause)
        self._want_start(slot, number)

    def ask_stop(
        self, name: str, *, reason: str = "asked to stop", cause: int | None = None
    ) -> None:
        """Ask a unit to stop, itself only, and to stay so; do not wait."""
        slot = self._slot(name)
        number = self._chronicle.asked(name, reason, cause=cause)
        self._want_stop(slot, number)
        self._send_due_stops([slot])

    def ask_restart(
        self, name: str, *, reason: str = "asked to restart", cause: int | None = None
    ) -> None:
        """Ask a unit to stop and start again, whatever it is doing; do not wait."""
        slot = self._slot(name)
        number = self._chronicle.asked(name, reason, cause=cause)
        due = [slot]
        if slot.unit.restart_dependents:
            due += self._restart_dependents(slot, number)
        self._want_start(slot, number)
        self._due(slot, number)
        self._send_due_stops(due)

    async def start_unit(self, name: str) -> None:
        """Start a unit and return when it is ready, or has completed.

        Raises `UnitFailedError` when it ends for good otherwise. Cancelled, the request stands.
        """
        self.ask_start(name)
        await self._until_ready(self._slot(name), 0)

    async def stop_unit(self, name: str) -> None:
        """Stop a unit and return when nothing of it runs; cancelled, the request stands."""
        self.ask_stop(name)
        slot = self._slot(name)
        await self._until(slot, lambda: not slot.live)

    async def restart_unit(self, name: str) -> None:
        """Restart a unit and return when it is ready again; otherwise like `start_unit`."""
        slot = self._slot(name)
        before = slot.generation
        self.ask_restart(name)
        await self._until_ready(slot, before)

    async def wait_until(self, name: str, *stages: Stage) -> Stage:
        """Return as soon as a unit stands at one of *stages*; the caller owns the deadline."""
        slot = self._slot(name)
        await self._until(slot, lambda: slot.stage in stages)
        return slot.stage

    async def _until_ready(self, slot: Slot, before: int) -> None:
        def arrived() -> bool:
            if slot.stage is Stage.READY:
                return slot.generation > before and not slot.stop_due
            return slot.stage in {Stage.IDLE, Stage.COMPLETED, Stage.FAILED, Stage.HELD}

        await self._until(slot, arrived)
        if slot.stage not in {Stage.READY, Stage.COMPLETED}:
            raise UnitFailedError(slot.unit.name, slot.reason)

    async def _until(self, slot: Slot, holds: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        while not holds():
            await slot.changed.wait()

    # --- what requests do -----------------------------------------------------------------------

    def _want_start(self, slot: Slot, cause: int) -> None:
        if self._stopping is not None:
            raise UnitFailedError(slot.unit.name, f"the tree stops: {self._stopping}")
        for requirement in slot.unit.requirements:
            needed = self._slots[requirement.name]
            if needed.stage in {Stage.IDLE, Stage.HELD, Stage.FAILED}:
                self._want_start(needed, cause)
        slot.wanted = True
        if not slot.live:
            slot.over, slot.history, slot.cause = None, RestartHistory(), cause
            slot.interrupt()
            slot.wake()

    def _want_stop(self, slot: Slot, cause: int) -> None:
        if slot.stage in {Stage.WAITING, Stage.BACKOFF}:
            self._explain(slot, "stopped before it was started", cause=cause)
        slot.wanted = False
        self._due(slot, cause)
        if not slot.live:
            self._start_up.note(slot)

    def _due(self, slot: Slot, cause: int) -> None:
        """Let the keeper give up what it does now; a live body is cancelled when its turn comes."""
        slot.cause = cause
        if slot.live:
            slot.stop_due = True
        else:
            slot.interrupt()
            slot.wake()

    def _restart_dependents(self, slot: Slot, cause: int) -> list[Slot]:
        needs = {name: other.unit.requirements for name, other in self._slots.items()}
        live = [self._slots[name] for name in dependents_of(slot.unit.name, needs)]
        live = [other for other in live if other.live]
        for other in live:
            self._due(other, cause)
        return live

    def _send_due_stops(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            if slot.live and slot.stop_due and not slot.stop_sent:
                above = nearest_live(slot.dependents, lambda other: other.dependents)
                if any(other.stop_due for other in above):
                    continue
                self._send_stop(slot)

    def _needed(self, slot: Slot) -> list[Slot]:
        return [self._slots[requirement.name] for requirement in slot.unit.requirements]

    def _send_stop(self, slot: Slot) -> None:
        slot.stop_sent = True
        if slot.budget is not None:
            slot.budget.begin(self.stop_within_sec)
        stages = slot.unit.lifecycle.stages
        if stages.stopping in slot.unit.lifecycle.table.successors(slot.unit.lifecycle.state):
            self._move(slot, stages.stopping, self._chronicle.words(slot.cause) or "told to stop")
        slot.interrupt()

    # --- the keeper -----------------------------------------------------------------------------

    async def _keep(self, slot: Slot) -> None:
        """Run one unit for as long as the tree lives; the only caller of a unit's body."""
        while self._stopping is None and not slot.removed:
            if not slot.wanted or slot.over is not None:
                with self._patience(slot):
                    await trio.sleep_forever()
            elif await self._requirements_hold(slot):
                await self._run_once(slot)
                if slot.next_restart_at is not None and slot.wanted:
                    await self._back_off(slot)
        if slot.removed:
            self._forget(slot)

    @contextmanager
    def _patience(self, slot: Slot) -> Generator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            slot.interruptible = scope
            yield scope
        slot.interruptible = None

    async def _requirements_hold(self, slot: Slot) -> bool:
        """Wait for what the unit needs; False when that was interrupted or can no longer be had."""
        while slot.wanted and slot.over is None:
            unmet = [r for r in slot.unit.requirements if self._judge(r) is not Answer.MET]
            for met in set(slot.blocked_by).difference(unmet):
                slot.cause = self._slots[met.name].last
            if unmet != list(slot.blocked_by):
                slot.blocked_by = tuple(unmet)
                if unmet:
                    words = " and ".join(f"{r.name} to be {r.condition.value}" for r in unmet)
                    self._explain(slot, f"waiting for {words}".replace("_", " "))
            if not unmet:
                return True
            for requirement in unmet:
                if self._judge(requirement) is Answer.NEVER:
                    self._hold_back(slot, requirement)
                    return False
            with self._patience(slot) as patience:
                slot.nudge = trio.Event()
                await slot.nudge.wait()
            slot.nudge = None
            if patience.cancelled_caught:
                return False
        return False

    def _judge(self, requirement: Requirement) -> Answer:
        return judge_condition(requirement.condition, self._slots[requirement.name].stage)

    def _hold_back(self, slot: Slot, requirement: Requirement) -> None:
        needed = self._slots[requirement.name]
        slot.over, slot.blocked_by = Stage.HELD, ()
        condition = requirement.condition.value.replace("_", " ")
        self._explain(
            slot,
            f"not started: {requirement.name} can no longer be {condition} ({needed.reason})",
            cause=needed.last,
        )
        self._after_end(slot)

    async def _run_once(self, slot: Slot) -> None:
        error: Exception | None = None
        ended = False
        if not self._begin(slot):
            return
        try:
            try:
                with self._budget.open_child() as slot.budget:
                    await self._run_body(slot, slot.budget)
            except Exception as raised:  # noqa: BLE001 - the edge of a unit: whatever it is is judged
                error = raised
            if error is None and not slot.stop_due and slot.ready is None:
                error = EndedBeforeReadyError(slot.unit.name)
            ended = True
        finally:
            slot.live, slot.budget, slot.interruptible = False, None, None
            slot.error = error
            if not ended:  # cancelled for good from above, or something no supervisor may catch
                slot.wanted = False
                self._close_cycle(slot, slot.unit.lifecycle.stages.failed, "cut off")
        self._judge_end(slot, error)

    def _begin(self, slot: Slot) -> bool:
        """Enter the unit's next generation, unless its table forbids to start it as it is."""
        try:
            number = self._move(slot, slot.unit.lifecycle.stages.starting, "starting")
        except IllegalTransitionError as refusal:
            slot.over, slot.error = Stage.FAILED, refusal
            self._explain(slot, str(refusal))
            self._after_end(slot)
            return False
        slot.generation += 1
        slot.live, slot.stop_due, slot.stop_sent = True, False, False
        slot.error, slot.ready, slot.next_restart_at = None, None, None
        slot.started, slot.started_at = trio.current_time(), _now()
        slot.cause = number
        return True

    async def _run_body(self, slot: Slot, budget: StopBudget) -> None:
        handle = UnitHandle(
            self._chronicle.path(slot.unit.name),
            budget,
            on_started=lambda: self._became_ready(slot),
            on_ending=lambda reason: self._is_ending(slot, reason),
            on_note=lambda fact: self._explain(slot, fact),
        )
        with as_current_unit(handle), trio.CancelScope() as slot.interruptible:
            await slot.unit.body(task_status=handle)

    def _became_ready(self, slot: Slot) -> None:
        stages = slot.unit.lifecycle.stages
        if slot.ready is not None:
            raise RuntimeError(f"{slot.unit.name} called task_status.started() twice")
        slot.ready = now = trio.current_time()
        if slot.unit.lifecycle.state == stages.starting:  # else it is being stopped already
            self._move(slot, stages.running, f"ready after {now - slot.started:.2f} s")
            slot.cause = None  # whatever comes next is not the start's doing
            self._start_up.note(slot)

    def _is_ending(self, slot: Slot, reason: str) -> None:
        stages = slot.unit.lifecycle.stages
        if slot.unit.lifecycle.state in (stages.starting, stages.running):
            self._move(slot, stages.stopping, reason)

    def _judge_end(self, slot: Slot, error: Exception | None) -> None:
        stages = slot.unit.lifecycle.stages
        if slot.stop_due:
            slot.stop_due = False
            last = stages.stopped if error is None else stages.failed
            self._close_cycle(
                slot, last, f"stopped, but {_in_words(error)}" if error else "stopped"
            )
            self._after_end(slot)
            return
        if error is not None:
            _logger.debug("%s failed", self._chronicle.path(slot.unit.name), exc_info=error)
        slot.cause = None
        reason = "completed" if error is None else _in_words(error)
        now = trio.current_time()
        verdict, slot.history = judge_end(
            slot.unit.restart,
            slot.history,
            failed=error is not None,
            ready_sec=0.0 if slot.ready is None else now - slot.ready,
            now=now,
            random=self._jitter(),
        )
        if isinstance(verdict, RestartIn):
            slot.restarts += 1
            slot.restart_at = now + verdict.delay_sec
            slot.next_restart_at = _now() + timedelta(seconds=verdict.delay_sec)
            if verdict.delay_sec:
                reason += f"; restart in {verdict.delay_sec:.3g} s"
        else:
            slot.over = Stage.COMPLETED if error is None else Stage.FAILED
            if isinstance(verdict, GiveUp):
                reason += f"; {verdict.reason}"
        number = self._close_cycle(slot, stages.stopped if error is None else stages.failed, reason)
        slot.cause = number
        if slot.unit.restart_dependents:
            self._send_due_stops(self._restart_dependents(slot, number))
        if slot.unit.ends_tree and slot.over is not None and self._stopping is None:
            self.ended_by = slot.unit.name
            self.ask_stop_tree(f"{slot.unit.name} {reason}", cause=number)
        self._after_end(slot)

    def _close_cycle(self, slot: Slot, last: str, reason: str) -> int:
        lifecycle = slot.unit.lifecycle
        if last not in lifecycle.table.successors(lifecycle.state):
            self._move(slot, lifecycle.stages.stopping, reason)
        return self._move(slot, last, reason)

    def _after_end(self, slot: Slot) -> None:
        """Let those go on that waited for a unit to be down, or known not to come."""
        self._send_due_stops(nearest_live(self._needed(slot), self._needed))
        self._start_up.note(slot)
        self._consider_end()

    async def _back_off(self, slot: Slot) -> None:
        with self._patience(slot):
            await trio.sleep_until(slot.restart_at)
        slot.next_restart_at = None

    # --- the ends of start-up and of everything ---------------------------------------------------

    def _consider_end(self) -> None:
        """Stop the tree when all that keeps it alive has ended for good."""
        if self.keep or self._stopping is not None or not self._slots:
            return
        if all(s.over is not None for s in self._slots.values() if s.unit.keeps_alive):
            self.ask_stop_tree("everything has ended")

    # --- facts ------------------------------------------------------------------------------------

    def _slot(self, name: str) -> Slot:
        try:
            return self._slots[name]
        except KeyError:
            raise UnknownUnitError(name, self._slots) from None

    def _move(self, slot: Slot, new: str, reason: str) -> int:
        lifecycle = slot.unit.lifecycle
        old = lifecycle.state
        lifecycle.move(new)
        slot.reason = reason
        slot.last = self._chronicle.moved(
            slot.unit.name, old, new, reason, generation=slot.generation, cause=slot.cause
        )
        slot.wake()
        return slot.last

    def _explain(self, slot: Slot, reason: str, *, cause: int | None = None) -> None:
        slot.reason = reason
        slot.last = self._chronicle.noted(slot.unit.name, reason, cause=cause or slot.cause)
        slot.wake()


def _in_words(error: Exception) -> str:
    """Return what a person needs to hear of an error: a group is told by its first member."""
    if isinstance(error, ExceptionGroup):
        first: Exception = error.exceptions[0]
        return _in_words(first)
    return str(error) or type(error).__name__
