"""The supervisor: one nursery, one task for each unit in it, and nothing that polls.

Each unit has a *keeper* (`_keeper.py`), the only code that runs the unit's body. Requests only
change what is wanted (`_tree.py`) and cancel what the keeper is in at that moment: its patience
(waiting for requirements, backing off) or the body. What a unit waits for is a fact about another
one, and every change of a fact wakes those that wait.

A stop goes in reverse order without anybody directing it: a unit whose stop is due is cancelled
as soon as no live unit that depends on it has a stop due as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

import trio

from ._exceptions import UnitFailedError, UnitInUseError, UnknownUnitError
from ._keeper import Keeper
from ._slot import Slot, nearest_live
from ._tree import Tree
from .budget import DEFAULT_STOP_SEC, Wait
from .events import Chronicle, Entry, Journal, UnitEvent, is_passing
from .graph import Condition, Stage
from .unit import Unit, UnitStatus, current_unit, cut_off_by

_EVENTS_KEPT = 10_000


class Supervisor:
    """Runs units of any kind as one tree.

    ``await supervisor.run()`` starts everything that wants to start and lasts until the tree has
    been stopped or, unless *keep* is set, until nothing is left that keeps it alive. It is a unit's
    body itself, so supervisors nest; when it has ended it may be run again, from the beginning.

    Cancelling ``run`` stops the units in reverse order, within *stop_within_sec* seconds.

    *mask* takes out of reasons and other words of the units what nobody may see.
    """

    mask: Callable[[str], str]

    def __init__(
        self,
        units: Iterable[Unit] = (),
        *,
        path: str = "",
        events: Journal[UnitEvent] | None = None,
        stop_within_sec: float = DEFAULT_STOP_SEC,
        keep: bool = False,
        jitter: Callable[[], float] = random.random,
        mask: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.path: str = path
        self.mask: Callable[[str], str] = mask
        self.events: Journal[UnitEvent] = (
            Journal(_EVENTS_KEPT, passing=is_passing) if events is None else events
        )
        chronicle = Chronicle(path, self.events, mask)
        self._tree = Tree(chronicle, stop_within_sec=stop_within_sec, keep=keep)
        self._jitter = jitter
        self._nursery: trio.Nursery | None = None
        self._ended = trio.Event()
        self.add(*units)

    # --- what there is --------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The units' names, each after what it depends on where they were given so."""
        return list(self._tree.slots)

    @property
    def stop_within_sec(self) -> float:
        """Seconds that the stop of the whole tree may take."""
        return self._tree.stop_within_sec

    @stop_within_sec.setter
    def stop_within_sec(self, value: float) -> None:
        self._tree.stop_within_sec = value

    @property
    def keep(self) -> bool:
        """Whether the tree goes on when nothing is left that keeps it alive."""
        return self._tree.keep

    @keep.setter
    def keep(self, value: bool) -> None:
        self._tree.keep = value

    @property
    def ended_by(self) -> str | None:
        """The unit whose end stopped the tree, once there is one."""
        return self._tree.ended_by

    @property
    def running(self) -> bool:
        """Whether `run` is under way."""
        return self._nursery is not None

    @property
    def settled(self) -> bool:
        """Whether start-up is over: each unit is ready, over, or known to be held up."""
        return self._tree.start_up.settled.is_set()

    @property
    def stopping(self) -> str | None:
        """Why the whole tree stops or has stopped, None while it does not."""
        return self._tree.stopping

    @property
    def stop_left_sec(self) -> float:
        """Seconds that are left of a stop under way; infinite without one."""
        return self._tree.budget.left_sec

    def stop_wait(self, name: str) -> Wait | None:
        """Return how long a unit may still take to stop, and in words what that waits for.

        None while it is not waited for. Of a unit with units in it they are what is waited for.
        """
        slot = self._tree.slot(name)
        inner = slot.unit.inner
        if isinstance(inner, Supervisor) and (wait := inner.longest_stop_wait()) is not None:
            return wait
        return None if slot.budget is None else slot.budget.wait

    def longest_stop_wait(self) -> Wait | None:
        """Return how long the stop of these units may still take, and what each of them waits for.

        None while none of them is waited for.
        """
        stopping = [slot.unit.name for slot in self._tree.slots.values() if slot.stop_sent]
        waits = {name: wait for name in stopping if (wait := self.stop_wait(name)) is not None}
        if not waits:
            return None
        longest = max(waits.values())
        what = "; ".join(f"{name}: {wait.what}" for name, wait in waits.items() if wait.what)
        return longest._replace(what=what)

    def blocked_by(self, name: str) -> str:
        """Return in words what the stop of a unit waits for, empty while it waits for nothing.

        That may be another unit that has to stop first.
        """
        slot = self._tree.slot(name)
        if slot.live and slot.stop_due and not slot.stop_sent:
            first = nearest_live(slot.dependents, lambda other: other.dependents)
            return (
                f"{', '.join(other.unit.name for other in first if other.stop_due)} to stop first"
            )
        wait = self.stop_wait(name)
        return "" if wait is None else wait.what

    def locate(self, path: str) -> tuple[Supervisor, str]:
        """Return the supervisor that ``worker/cpu-0`` belongs to, and its name there."""
        head, _, rest = path.partition("/")
        inner = self._tree.slot(head).unit.inner
        if not rest:
            return self, head
        if not isinstance(inner, Supervisor):
            raise UnknownUnitError(path, self._tree.slots)
        return inner.locate(rest)

    def unit(self, name: str) -> Unit:
        """Return a unit of this supervisor; `UnknownUnitError` when there is none."""
        return self._tree.slot(name).unit

    def is_awaited(self, name: str, *conditions: Condition) -> bool:
        """Return whether another unit waits, or has waited, for one of *conditions* of a unit."""
        requirements = (r for s in self._tree.slot(name).dependents for r in s.unit.requirements)
        return any(r.name == name and r.condition in conditions for r in requirements)

    def status(self, name: str) -> UnitStatus:
        """Return how one unit stands."""
        slot = self._tree.slot(name)
        return slot.describe(self._tree.chronicle.path(name))

    def statuses(self) -> list[UnitStatus]:
        """Return how every unit stands, nested ones behind the unit that they belong to."""
        found: list[UnitStatus] = []
        for name, slot in self._tree.slots.items():
            found.append(self.status(name))
            if slot.unit.inner is not None:
                found += slot.unit.inner.statuses()
        return found

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """Yield the kind and the stage of every unit, nested ones too: what `statuses` says of it.

        Costs a fraction of what `statuses` costs, for who asks often.
        """
        for slot in self._tree.slots.values():
            yield slot.unit.kind, slot.stage
            if slot.unit.inner is not None:
                yield from slot.unit.inner.stages()

    def why(self, name: str) -> list[UnitEvent]:
        """Return the chain of events behind the last change of a unit, the newest first."""
        return [entry.item for entry in self.trace(name)]

    def trace(self, name: str) -> list[Entry[UnitEvent]]:
        """Return what `why` does, each event with its number."""
        return self._tree.chronicle.chain(self._tree.slot(name).last)

    # --- changing what there is -----------------------------------------------------------------

    def add(self, *units: Unit) -> None:
        """Add units; while the tree runs they are started as they would have been at the beginning.

        Raises `DuplicateUnitError`, `UnknownUnitError` and `DependencyCycleError`, with nothing
        changed.
        """
        slots = self._tree.add(units)
        if self._nursery is not None and self._tree.stopping is None:
            for slot in slots:
                self._enter(slot, self._nursery)
        for slot in slots:
            self._tree.pull_needed(slot)

    def move(self, name: str, state: str, reason: str) -> None:
        """Move the state of a unit that is not live, for a kind with states of its own.

        Raises `IllegalTransitionError` where its table forbids it, and `RuntimeError` while its
        body runs: then the body says what it does.
        """
        slot = self._tree.slot(name)
        if slot.live:
            raise RuntimeError(f"{name} is live; only its body can say where it is")
        slot.cause = None
        self._tree.move(slot, state, reason)
        if slot.over is not None and state != slot.unit.lifecycle.stages.failed:
            slot.over, slot.wanted = None, False  # how it ended before has been dealt with

    def note(self, name: str, fact: str) -> None:
        """Record a fact about a unit that changes no state."""
        self._tree.note(self._tree.slot(name), fact)

    async def remove(self, name: str) -> None:
        """Stop a unit and forget it; `UnitInUseError` while another one depends on it.

        Cancelled, the unit is stopped and forgotten all the same, only later than the caller.
        """
        slot = self._tree.slot(name)
        if slot.dependents:
            raise UnitInUseError(name, [other.unit.name for other in slot.dependents])
        slot.removed = True
        self.ask_stop(name, reason="removed")
        if not slot.kept:
            self._tree.forget(slot)
        else:
            await self._until(slot, lambda: slot.unit.name not in self._tree.slots)

    # --- the life of the tree -------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tree; report started once every unit is ready, over, or known to be held up.

        Failing units never make it raise: what became of them is in `status`. What nobody may
        catch (`KeyboardInterrupt`, `SystemExit`) travels on when everything has been stopped.
        """
        if self._nursery is not None:
            raise RuntimeError("this supervisor runs already")
        await trio.lowlevel.checkpoint_if_cancelled()  # then nothing is even begun
        if self._ended.is_set():
            self._tree.rewind()
            self._ended = trio.Event()
        with current_unit().budget.open_child() as self._tree.budget:
            if self._tree.stopping is not None:  # told to stop before it began
                self._tree.budget.begin(self.stop_within_sec)
            await self._tree.budget.hold(
                lambda: self._run(task_status),
                ask_to_stop=lambda: self.ask_stop_tree("cancelled from outside"),
            )

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for slot in self._tree.slots.values():
                    self._enter(slot, nursery)
                for slot in self._tree.slots.values():
                    self._tree.pull_needed(slot)
                nursery.start_soon(self._report_started, task_status)
                self._tree.start_up.check()
                self._tree.consider_end()
                # Keepers may come later: the nursery stays open until the tree is told to stop.
                await self._wait_stop_asked()
        finally:
            self._nursery = None
            self._ended.set()
        if self._tree.broken_off:
            first, *more = self._tree.broken_off
            raise BaseExceptionGroup("units were cut off", [first, *more]) if more else first

    async def _wait_stop_asked(self) -> None:
        try:
            await self._tree.stop_asked.wait()
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again when all is down
            # Ctrl-C in a program that has `run` as its main task: Trio raises it here.
            self._tree.broken_off.append(error)
            self._tree.ask_stop(cut_off_by(error), None, None)

    async def _report_started(self, task_status: trio.TaskStatus[None]) -> None:
        await self._tree.start_up.settled.wait()
        task_status.started()

    def _enter(self, slot: Slot, nursery: trio.Nursery) -> None:
        self._tree.expect(slot)
        slot.kept = True
        path = self._tree.chronicle.path(slot.unit.name)
        nursery.start_soon(Keeper(self._tree, slot, self._jitter).run, name=f"unit {path}")

    def ask_stop_tree(
        self, reason: str, *, cause: int | None = None, within_sec: float | None = None
    ) -> None:
        """Ask for the ordered stop of everything, which ends `run`; again, to make it shorter."""
        self._tree.ask_stop(reason, cause, within_sec)

    def force(self, within_sec: float = 1.0) -> None:
        """Stop everything without politeness: what still runs is killed now."""
        self.ask_stop_tree("forced")
        self._tree.force(within_sec)

    async def wait_settled(self) -> None:
        """Return once every unit is ready, over, or known to be held up by one that is not."""
        await self._tree.start_up.settled.wait()

    async def wait_others_settled(self, name: str) -> None:
        """Return once every unit but *name* is ready, over, or known to be held up.

        What a unit waits for is this, which is to be no hindrance to the start of the others.
        """
        await self._tree.start_up.wait_others(self._tree.slot(name))

    async def wait_stopping(self) -> None:
        """Return once the whole tree has been told to stop, for whatever reason."""
        await self._tree.stop_asked.wait()

    async def wait_last_ones(self) -> None:
        """Return once, of a tree that stops, none is live but units that are stopped last.

        What these wait for is this: the end of the tree would wait for them.
        """
        await self._tree.last_ones.alone.wait()

    async def wait_ended(self) -> None:
        """Return once `run` is over; cancelled, nothing happens to the tree."""
        await self._ended.wait()

    # --- requests for one unit ------------------------------------------------------------------

    def ask_start(
        self, name: str, *, reason: str = "asked to start", cause: int | None = None
    ) -> None:
        """Ask a unit to start, after what it needs, which is asked as well; do not wait."""
        slot = self._tree.slot(name)
        number = self._tree.chronicle.asked(name, reason, cause=cause)
        self._tree.want_start(slot, number)

    def ask_stop(
        self, name: str, *, reason: str = "asked to stop", cause: int | None = None
    ) -> None:
        """Ask a unit to stop, itself only, and to stay so; do not wait."""
        slot = self._tree.slot(name)
        number = self._tree.chronicle.asked(name, reason, cause=cause)
        self._tree.want_stop(slot, number)
        self._tree.send_due_stops([slot])

    def ask_restart(
        self, name: str, *, reason: str = "asked to restart", cause: int | None = None
    ) -> None:
        """Ask a unit to stop and start again, whatever it is doing; do not wait."""
        slot = self._tree.slot(name)
        number = self._tree.chronicle.asked(name, reason, cause=cause)
        self._tree.want_start(slot, number)
        companions = self._tree.restart_companions(slot, number)
        self._tree.due(slot, number)
        self._tree.send_due_stops([slot, *companions])

    async def start_unit(self, name: str) -> None:
        """Start a unit and return when it is ready, or has completed.

        Raises `UnitFailedError` when it ends for good otherwise; its cause is what the unit has
        raised. Cancelled, the request stands.
        """
        self.ask_start(name)
        await self._until_ready(self._tree.slot(name), 0)

    async def stop_unit(self, name: str) -> None:
        """Stop a unit and return when nothing of it runs; cancelled, the request stands."""
        self.ask_stop(name)
        slot = self._tree.slot(name)
        await self._until(slot, lambda: not slot.live)

    async def restart_unit(self, name: str) -> None:
        """Restart a unit and return when it is ready again; otherwise like `start_unit`."""
        slot = self._tree.slot(name)
        before = slot.generation
        self.ask_restart(name)
        await self._until_ready(slot, before)

    async def wait_until(self, name: str, *stages: Stage) -> Stage:
        """Return as soon as a unit stands at one of *stages*; the caller owns the deadline."""
        slot = self._tree.slot(name)
        await self._until(slot, lambda: slot.stage in stages)
        return slot.stage

    async def _until_ready(self, slot: Slot, before: int) -> None:
        def arrived() -> bool:
            if slot.stage is Stage.READY:
                return slot.generation > before and not slot.stop_due
            return slot.stage in {Stage.IDLE, Stage.COMPLETED, Stage.FAILED, Stage.HELD}

        await self._until(slot, arrived)
        if slot.stage not in {Stage.READY, Stage.COMPLETED}:
            cause = slot.error if slot.stage is Stage.FAILED else None
            raise UnitFailedError(slot.unit.name, slot.reason) from cause

    async def _until(self, slot: Slot, holds: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        while not holds():
            await slot.changed.park()
