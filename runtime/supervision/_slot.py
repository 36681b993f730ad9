"""What the supervisor knows of one unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import trio

from .budget import StopBudget
from .graph import Requirement, Stage
from .restart import RestartHistory
from .unit import Unit, UnitStatus


@dataclass(slots=True, eq=False)
class Slot:
    """Everything the supervisor knows of one unit; only the supervisor writes it."""

    unit: Unit
    wanted: bool = False
    live: bool = False  # its body runs
    stop_due: bool = False  # the body is to be cancelled, once its dependents are down
    stop_sent: bool = False  # the body has been cancelled
    again: int | None = None  # it ends by itself, and is to be started then: who asked for that
    kept: bool = False  # it has a keeper
    removed: bool = False
    over: Stage | None = None  # COMPLETED, FAILED or HELD
    blocked_by: tuple[Requirement, ...] = ()
    down_first: dict[Slot, int] = field(default_factory=dict)  # with the generations that count
    history: RestartHistory = field(default_factory=RestartHistory)
    generation: int = 0
    generations_before: int = 0  # this run
    restarts: int = 0
    reason: str = "not started"
    note: str = ""  # the newest fact that is no reason
    good_end: str = ""  # how it has ended, where somebody might not take that for a good end
    root_cause: str = ""  # of its being HELD: who could not be had, and why
    error: Exception | None = None
    started: float = 0.0
    started_at: datetime | None = None
    ready: float | None = None
    ended: float | None = None
    healthy: bool | None = None
    status_text: str = ""
    pid: int | None = None
    restart_at: float = 0.0
    next_restart_at: datetime | None = None
    cause: int | None = None  # the event that will explain this unit's next move
    last: int | None = None  # the newest event of this unit
    budget: StopBudget | None = None
    interruptible: trio.CancelScope | None = None  # what the keeper waits in
    on_stop: Callable[[], object] | None = None  # what a body that holds wants instead
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    nudge: trio.Event | None = None  # what the keeper waits for while its requirements do not hold
    dependents: list[Slot] = field(default_factory=list)

    @property
    def steady(self) -> bool:
        """Whether its body runs and neither ends nor is told to."""
        return self.live and not self.stop_due and self.stage is not Stage.STOPPING

    @property
    def untouched(self) -> bool:
        """Whether it does not start by itself, and has not been started in this run."""
        never = self.generation == self.generations_before
        return never and not self.unit.autostart and self.stage is Stage.IDLE

    @property
    def still_up(self) -> list[Slot]:
        """Those that are restarted with this unit, and have to be down before it starts."""
        return [s for s, number in self.down_first.items() if s.live and s.generation == number]

    @property
    def stage(self) -> Stage:
        """Where the unit stands, from the facts above."""
        if self.live:
            stages, state = self.unit.lifecycle.stages, self.unit.lifecycle.state
            if state == stages.running:
                return Stage.READY
            return Stage.STARTING if state == stages.starting else Stage.STOPPING
        if self.over is not None:
            return self.over
        if not self.wanted:
            return Stage.IDLE
        return Stage.WAITING if self.next_restart_at is None else Stage.BACKOFF

    def obstacles(self) -> list[str]:
        """Return in words what keeps it from starting."""
        unmet = ((r.name, r.condition.value.replace("_", " ")) for r in self.blocked_by)
        going = ((slot.unit.name, "down") for slot in self.still_up)
        return [f"{name} to be {condition}" for name, condition in (*unmet, *going)]

    def wake(self) -> None:
        """Tell everybody who waits for this unit that something about it changed."""
        for dependent in self.dependents:
            if dependent.nudge is not None:
                dependent.nudge.set()
        if self.changed:
            self.changed.unpark_all()

    def interrupt(self) -> None:
        """Make the keeper look at what is wanted now."""
        if self.on_stop is not None:
            self.on_stop()
        elif self.interruptible is not None:
            self.interruptible.cancel()

    def describe(self, path: str) -> UnitStatus:
        """Return a snapshot of the facts above for those outside."""
        needed = (requirement.name for requirement in self.blocked_by)
        going = (slot.unit.name for slot in self.still_up)
        waiting_for = tuple(dict.fromkeys((*needed, *going)))
        return UnitStatus(
            name=path,
            kind=self.unit.kind,
            state=self.unit.lifecycle.state,
            stage=self.stage,
            generation=self.generation,
            restarts=self.restarts,
            reason=self.reason,
            note=self.note,
            requirements=self.unit.requirements,
            waiting_for=waiting_for if self.stage is Stage.WAITING else (),
            next_restart_at=self.next_restart_at,
            started_at=self.started_at,
            ready_after_sec=self.ready - self.started if self.ready is not None else None,
            ran_sec=self.ended - self.started if self.ended is not None else None,
            error=self.error,
            healthy=self.healthy,
            status_text=self.status_text,
            pid=self.pid,
        )


def nearest_live(first: Iterable[Slot], behind: Callable[[Slot], Iterable[Slot]]) -> list[Slot]:
    """Return those of *first* that are live, and the nearest live ones behind the others."""
    to_visit = list(dict.fromkeys(first))
    seen = set(to_visit)
    for slot in to_visit:  # grows as we go
        if not slot.live:
            further = [other for other in behind(slot) if other not in seen]
            seen.update(further)
            to_visit += further
    return [slot for slot in to_visit if slot.live]


class StartUp:
    """When the start of a tree is over: every unit ready, over, or known to be held up."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self._noted = trio.lowlevel.ParkingLot()
        self._expected: set[Slot] = set()

    def expect(self, slot: Slot) -> None:
        """Wait for the first verdict on *slot* too, unless the start is over already."""
        if not self.settled.is_set():
            self._expected.add(slot)

    def note(self, slot: Slot) -> None:
        """Take the first verdict on *slot*; who can only wait for it now has one, too."""
        self._expected.discard(slot)
        held_up = [slot] if slot.stage in (Stage.BACKOFF, Stage.IDLE) else []
        while held_up:
            waiting = [
                other
                for other in held_up.pop().dependents
                if other in self._expected and other.stage is Stage.WAITING
            ]
            self._expected.difference_update(waiting)
            held_up += waiting
        self._noted.unpark_all()
        self.check()

    async def wait_others(self, slot: Slot) -> None:
        """Return once there is a verdict on each but *slot*."""
        while self._expected - {slot} and not self.settled.is_set():
            await self._noted.park()

    def check(self) -> None:
        """Say that the start is over, if it is."""
        if not self._expected:
            self.settle()

    def settle(self) -> None:
        """Say that the start is over, whatever was still expected."""
        self.settled.set()
        self._noted.unpark_all()


# What is kept back of the time to stop for those that stop last: a tenth, at most a second.
_MOST_KEPT_FOR_LAST_SEC = 1.0
_SHARE_FOR_LAST = 10


class LastOnes:
    """The units that are stopped when all others are down, and those others, while a tree stops."""

    def __init__(self) -> None:
        self.others: set[Slot] = set()  # what is live and does not stop last
        self.alone = trio.Event()  # a stop is under way, and none of the others is live
        self._last: set[Slot] = set()

    def begin(self, slots: Mapping[str, Slot]) -> None:
        """Take note of what is live when the stop begins; what a last one needs is one, too."""
        to_visit = [slot for slot in slots.values() if slot.unit.stops_last]
        for slot in to_visit:  # grows as we go
            if slot not in self._last:
                self._last.add(slot)
                to_visit += [slots[requirement.name] for requirement in slot.unit.requirements]
        self.others = {slot for slot in slots.values() if slot.live} - self._last
        if not self.others:
            self.alone.set()

    def lets_stop(self, slot: Slot) -> bool:
        """Return whether none is in the way that has to be down before this one."""
        return not self.others or slot not in self._last

    def time_for(self, slot: Slot, left_sec: float) -> float:
        """Return which part of the time that is left the stop of this one may take."""
        if slot in self.others and any(other.live for other in self._last):
            return left_sec - min(_MOST_KEPT_FOR_LAST_SEC, left_sec / _SHARE_FOR_LAST)
        return left_sec

    def note_down(self, slot: Slot) -> list[Slot]:
        """Note that a unit is down; return those that may be stopped now."""
        if slot not in self.others:
            return []
        self.others.remove(slot)
        if self.others:
            return []
        self.alone.set()
        return list(self._last)
