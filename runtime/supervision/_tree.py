"""What there is and what is wanted: the facts that a supervisor and its keepers share.

A request changes what is wanted, and cancels what a keeper is in at that moment. Nothing here
waits for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from ._exceptions import (
    DuplicateUnitError,
    UnitFailedError,
    UnitNameError,
    UnknownUnitError,
)
from ._slot import LastOnes, Slot, StartUp, nearest_live
from .budget import StopBudget
from .events import Chronicle
from .graph import Answer, Requirement, Stage, judge_condition, start_order
from .restart import RestartHistory
from .unit import Unit, cut_off_by


class Tree:
    """The units of one supervisor, and how far its run is."""

    def __init__(self, chronicle: Chronicle, *, stop_within_sec: float, keep: bool) -> None:
        self.chronicle = chronicle
        self.stop_within_sec, self.keep = stop_within_sec, keep
        self.slots: dict[str, Slot] = {}
        self.budget = StopBudget()
        self.stopping: str | None = None  # why everything stops
        self.ended_by: str | None = None
        self.broken_off: list[BaseException] = []  # what has to be raised when all is down
        self.start_up = StartUp()
        self.stop_asked = trio.Event()
        self.last_ones = LastOnes()

    def slot(self, name: str) -> Slot:
        """Return what is known of a unit; `UnknownUnitError` when there is none."""
        try:
            return self.slots[name]
        except KeyError:
            raise UnknownUnitError(name, self.slots) from None

    def add(self, units: Iterable[Unit]) -> list[Slot]:
        """Add *units*, or raise with nothing changed."""
        new: dict[str, Unit] = {}
        for unit in units:
            if not unit.name or "/" in unit.name:
                raise UnitNameError(unit.name)
            if unit.name in self.slots or unit.name in new:
                raise DuplicateUnitError(unit.name)
            new[unit.name] = unit
        known = self.slots.keys() | new.keys()
        for requirement in (r for unit in new.values() for r in unit.requirements):
            if requirement.name not in known:
                raise UnknownUnitError(requirement.name, known)
        # What is there already cannot depend on what is new, so a circle is among the new ones.
        start_order({n: [r for r in u.requirements if r.name in new] for n, u in new.items()})
        slots = [Slot(unit) for unit in new.values()]
        self.slots.update((slot.unit.name, slot) for slot in slots)
        for slot in slots:
            for needed in dict.fromkeys(r.name for r in slot.unit.requirements):
                self.slots[needed].dependents.append(slot)
        return slots

    def forget(self, slot: Slot) -> None:
        """Know nothing of a unit any more."""
        del self.slots[slot.unit.name]
        for needed in {r.name for r in slot.unit.requirements}:
            self.slots[needed].dependents.remove(slot)
        slot.wake()

    def rewind(self) -> None:
        """Forget how the run before went."""
        self.stopping, self.ended_by, self.broken_off = None, None, []
        self.start_up, self.stop_asked = StartUp(), trio.Event()
        self.last_ones = LastOnes()
        for slot in self.slots.values():
            slot.over, slot.history, slot.cause = None, RestartHistory(), None
            slot.generations_before = slot.generation

    # --- what is wanted ---------------------------------------------------------------------------

    def expect(self, slot: Slot) -> None:
        """Want a unit that starts by itself, or was asked to, for this run."""
        slot.wanted = (slot.wanted or slot.unit.autostart) and self.stopping is None
        if slot.wanted:
            self.start_up.expect(slot)

    def pull_needed(self, slot: Slot) -> None:
        """Want what a wanted unit needs, unless that has had its chance."""
        for requirement in slot.unit.requirements if slot.wanted else ():
            needed = self.slots[requirement.name]
            if needed.stage is Stage.IDLE:
                needed.wanted = True
                needed.interrupt()
                self.pull_needed(needed)

    def want_start(self, slot: Slot, cause: int) -> None:
        """Want a unit, and what it needs."""
        if self.stopping is not None:
            raise UnitFailedError(slot.unit.name, f"the tree stops: {self.stopping}")
        for requirement in slot.unit.requirements:
            needed = self.slots[requirement.name]
            if needed.stage in {Stage.IDLE, Stage.HELD, Stage.FAILED, Stage.STOPPING}:
                self.want_start(needed, cause)
        slot.wanted = True
        if slot.stage is Stage.STOPPING and not slot.stop_due:
            slot.again = cause
        if not slot.live:
            slot.over, slot.history, slot.cause = None, RestartHistory(), cause
            slot.interrupt()
            slot.wake()

    def want_stop(self, slot: Slot, cause: int) -> None:
        """Want a unit no more; `send_due_stops` is what stops it."""
        if slot.stage in {Stage.WAITING, Stage.BACKOFF}:
            self.explain(slot, "stopped before it was started", cause=cause)
        slot.wanted, slot.again = False, None
        self.due(slot, cause)
        if not slot.live:
            self.start_up.note(slot)

    def due(self, slot: Slot, cause: int) -> None:
        """Let the keeper give up what it does now; a live body is cancelled when its turn comes."""
        slot.cause = cause
        if slot.live:
            slot.stop_due = True
        else:
            slot.interrupt()
            slot.wake()

    def restart_companions(self, slot: Slot, cause: int) -> list[Slot]:
        """Let those that go with a unit be stopped and started again; return these.

        Who ends already, by itself or by request, is left to that. Nobody starts before all of
        them are down, so that nothing of before meets what comes after.
        """
        live = self._companions(slot)
        due = [s for s in live if s.steady]
        for other in due:
            words = f"to restart with {slot.unit.name}"
            self.due(other, self.chronicle.asked(other.unit.name, words, cause=cause))
        going = {s: s.generation for s in (slot, *live) if s.live}
        for other in (slot, *due):
            other.down_first.update(going)
        return due

    def _companions(self, slot: Slot) -> list[Slot]:
        """Return what is live of those that go with a unit, directly or through each other."""
        found = {slot: None}
        walked: set[Slot] = set()
        to_visit = [slot]
        for each in to_visit:  # grows as we go
            new = [s for s in self._next_companions(each, walked) if s.live and s not in found]
            found.update(dict.fromkeys(new))
            if slot.over is not Stage.FAILED:  # else they do not start again, but are held
                to_visit += [s for s in new if s.steady]
        return list(found)[1:]

    def _next_companions(self, slot: Slot, walked: set[Slot]) -> list[Slot]:
        """Return who goes with *slot* itself, without the dependents of those *walked* before."""
        dependents = [slot] if slot.unit.restart_dependents else []
        for each in dependents:  # grows as we go
            if each not in walked:
                walked.add(each)
                dependents += each.dependents
        others = slot.unit.restarts_also if slot.over is None else ()
        return [*dependents[1:], *(self.slots[name] for name in others if name in self.slots)]

    def send_due_stops(self, slots: Iterable[Slot]) -> None:
        """Cancel those whose stop is due, and of whose dependents none is still to be stopped."""
        for slot in slots:
            if (
                slot.live
                and slot.stop_due
                and not slot.stop_sent
                and self.last_ones.lets_stop(slot)
            ):
                above = nearest_live(slot.dependents, lambda other: other.dependents)
                if any(other.stop_due for other in above):
                    continue
                self._send_stop(slot)

    def _send_stop(self, slot: Slot) -> None:
        slot.stop_sent = True
        if slot.budget is not None:
            within_sec = self.last_ones.time_for(slot, self.budget.left_sec)
            slot.budget.begin(min(self.stop_within_sec, within_sec))
        stages = slot.unit.lifecycle.stages
        if stages.stopping in slot.unit.lifecycle.table.successors(slot.unit.lifecycle.state):
            self.move(slot, stages.stopping, self.chronicle.words(slot.cause) or "told to stop")
        slot.interrupt()

    # --- the ends of start-up and of everything ---------------------------------------------------

    def ask_stop(self, reason: str, cause: int | None, within_sec: float | None) -> None:
        """Want nothing any more; again, to make the time for it shorter."""
        self.budget.begin(self.stop_within_sec if within_sec is None else within_sec)
        if self.stopping is None:
            self._begin_stop(reason, cause)
        self._tighten_others(StopBudget.begin)

    def _begin_stop(self, reason: str, cause: int | None) -> None:
        self.stopping = reason
        self.last_ones.begin(self.slots)
        number = self.chronicle.asked("", f"stop: {reason}", cause=cause)
        for slot in self.slots.values():
            self.want_stop(slot, number)
        self.send_due_stops(self.slots.values())
        self.stop_asked.set()
        self.start_up.settle()

    def _tighten_others(self, tighten: Callable[[StopBudget, float], None]) -> None:
        """Leave some of the time that there is to those that stop last."""
        for slot in self.last_ones.others:
            if slot.budget is not None and slot.stop_sent:
                tighten(slot.budget, self.last_ones.time_for(slot, self.budget.left_sec))

    def break_off(self, slot: Slot, error: BaseException) -> None:
        """Stop everything because of what one unit has raised and nobody may catch."""
        self.broken_off.append(error)
        self.ended_by = self.ended_by or slot.unit.name
        self.ask_stop(f"{slot.unit.name} {cut_off_by(error)}", slot.last, None)
        self.after_end(slot)

    def force(self, within_sec: float) -> None:
        """End all politeness, and cancel what is live in no order, except what stops last."""
        self.budget.force(within_sec)
        self._tighten_others(StopBudget.force)
        for slot in self.slots.values():
            if slot.live and not slot.stop_sent and self.last_ones.lets_stop(slot):
                self._send_stop(slot)

    def after_end(self, slot: Slot) -> None:
        """Let those go on that waited for a unit to be down, or known not to come."""
        for other in self.slots.values():
            if other.nudge is not None and slot in other.down_first:
                other.nudge.set()
        self.send_due_stops(nearest_live(self._needed(slot), self._needed))
        self.send_due_stops(self.last_ones.note_down(slot))
        self.start_up.note(slot)
        self.consider_end()

    def consider_end(self) -> None:
        """Stop the tree when all that keeps it alive has ended for good."""
        if self.keep or self.stopping is not None or not self.slots:
            return
        keeping = begun = False
        # As a rule the first one goes on: this is asked at each end of each of many units.
        for slot in self.slots.values():
            if slot.unit.keeps_alive:
                keeping = True
                if slot.over is not None:
                    begun = True
                elif not slot.untouched:
                    return
        # What was never started does not keep the tree, but may still be asked to start.
        if begun or not keeping:
            self.ask_stop("everything has ended", None, None)

    def _needed(self, slot: Slot) -> list[Slot]:
        return [self.slots[requirement.name] for requirement in slot.unit.requirements]

    # --- facts ------------------------------------------------------------------------------------

    def judge(self, requirement: Requirement) -> Answer:
        """Say whether a requirement is met as things stand."""
        return judge_condition(requirement.condition, self.slots[requirement.name].stage)

    def move(self, slot: Slot, new: str, reason: str) -> int:
        """Move a unit to another state and record it; return the number of the event."""
        lifecycle = slot.unit.lifecycle
        old = lifecycle.state
        lifecycle.move(new)
        slot.reason = reason = self.chronicle.mask(reason)
        slot.last = self.chronicle.moved(
            slot.unit.name, old, new, reason, generation=slot.generation, cause=slot.cause
        )
        slot.wake()
        return slot.last

    def fail(self, slot: Slot, reason: str) -> None:
        """Move a unit to its failed state where its table lets it, else record the reason only."""
        lifecycle = slot.unit.lifecycle
        if lifecycle.stages.failed in lifecycle.table.successors(lifecycle.state):
            self.move(slot, lifecycle.stages.failed, reason)
        else:
            self.explain(slot, reason)

    def explain(self, slot: Slot, reason: str, *, cause: int | None = None) -> None:
        """Record why a unit is as it is, where no change of its state says so."""
        slot.reason = reason = self.chronicle.mask(reason)
        slot.last = self.chronicle.noted(slot.unit.name, reason, cause=cause or slot.cause)
        slot.wake()

    def note(self, slot: Slot, fact: str) -> None:
        """Record a fact about a unit that is not why it is as it is."""
        slot.note = fact = self.chronicle.mask(fact)
        self.chronicle.noted(slot.unit.name, fact, cause=slot.cause)
        slot.wake()
