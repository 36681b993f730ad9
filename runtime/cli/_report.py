"""Tells a person what happens to the units of a tree, from its events."""

import shutil
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

import trio

from runtime import _late
from runtime.application import Application
from runtime.process import SurvivorsError
from runtime.process.child import KILLED
from runtime.supervision._exceptions import UnknownUnitError
from runtime.supervision.budget import Wait
from runtime.supervision.events import EventKind, UnitEvent
from runtime.supervision.graph import Condition, Stage
from runtime.supervision.lifecycle import Stages
from runtime.supervision.supervisor import Supervisor

from ._console import Console
from ._http import KIND as HTTP_KIND
from ._table import render_table

if TYPE_CHECKING:
    from runtime.invocation.events import InvocationEvent

# What a start-up and an ordinary stop are made of: the line of progress and the prompt tell these.
_EXPECTED = ("waiting for ", "stopped before it was started")
_COMPLETION = (Condition.COMPLETED, Condition.COMPLETED_SUCCESSFULLY)
_SLOW_SEC = 1.0  # a unit whose stop takes so long is told
_AGAIN_SEC = 10.0
_MOST_NAMES = 20
_JOB = "job"


class Report:
    """Turns events into sentences, and start-up into a line of progress and a table."""

    def __init__(self, application: Application, console: Console) -> None:
        self._application, self._console = application, console
        self._supervisor = application.supervisor
        self._start_ended: int | None = None  # the last event of start-up
        self._stop_asked: float | None = None
        self._stopping: dict[str, float] = {}  # when each is to be told
        self._stopped: list[str] = []  # in the order in which they went down
        self._killed: dict[str, list[str]] = {}  # what of each unit had to be, in words
        self._survivors: dict[str, str] = {}
        self._stop_begun = trio.lowlevel.ParkingLot()
        self._stages: dict[str, Stages[Any]] = {}
        self._calls: dict[str, str] = {}  # what each job has said of its own

    async def run(self) -> None:
        """Tell every event until the journal is closed."""
        async for entry in self._supervisor.events.read(after=0):
            if entry.missed:
                self._console.say(f"{entry.missed} events came too fast to be told", bad=True)
            at_start = self._start_ended is None or entry.sequence <= self._start_ended
            self._tell(entry.item, at_start=at_start)
            newest = entry.sequence == self._supervisor.events.last
            if self._start_ended is None and newest and self._console.is_terminal:
                self._console.progress(self._progress())
        if self._stop_asked is not None and self._stopped:
            took = trio.current_time() - self._stop_asked
            words = [f"stopped: {_listed(self._stopped)} ({took:.1f} s)"]
            killed = [f"{unit} ({', '.join(who)})" for unit, who in self._killed.items()]
            words += [f"killed: {_listed(killed)}"] if killed else []
            left = [f"{unit} ({who})" for unit, who in self._survivors.items()]
            words += [f"still there after SIGKILL: {_listed(left)}"] if left else []
            self._console.say("; ".join(words), bad=bool(left))

    async def tell_start(self) -> None:
        """Show the table once start-up is over."""
        await self._wait_started()
        self._start_ended = self._supervisor.events.last
        self._console.progress("")
        # To load what draws the table takes longer than the short life of some trees.
        await trio.to_thread.run_sync(_late.rich, abandon_on_cancel=True)
        if self._supervisor.stopping is None:
            statuses = [s for s in self._supervisor.statuses() if s.kind != HTTP_KIND]
            pids = {status.name: status.pid or 0 for status in statuses}
            render = partial(
                render_table,
                coloured=self._console.coloured,
                width=shutil.get_terminal_size().columns if self._console.is_terminal else None,
            )
            table = await trio.to_thread.run_sync(render, statuses, pids, abandon_on_cancel=True)
            self._console.show(table)

    async def _wait_started(self) -> None:
        """Return once start-up is over, but for the HTTP server, which comes after all else."""
        late = [n for n in self._supervisor.names if self._supervisor.unit(n).kind == HTTP_KIND]
        if late:
            await self._supervisor.wait_others_settled(late[0])
        else:
            await self._supervisor.wait_settled()

    async def tell_stop(self) -> None:
        """Tell of each unit whose part in the stop of the tree takes long, and what it waits for.

        While that goes on it is told again, every ten seconds.
        """
        while True:
            with trio.move_on_at(min(self._stopping.values(), default=inf)):
                await self._stop_begun.park()
            now = trio.current_time()
            slow = [name for name, tell_at in self._stopping.items() if tell_at <= now]
            for name in slow:
                self._stopping[name] = now + _AGAIN_SEC
            if slow:
                self._tell_slow(slow)

    def _tell_slow(self, slow: Sequence[str]) -> None:
        waits = {path: wait for path in slow if (wait := self._stop_wait(path))}
        whole = Wait(self._supervisor.stop_left_sec, self._supervisor.stop_within_sec)
        wait = max(waits.values(), default=whole)
        left = f"{wait.left_sec:.1f} s left of {wait.of_sec:.3g} s"
        whats = [
            wait.what if len(slow) == 1 else f"{name}: {wait.what}"
            for name, wait in waits.items()
            if wait.what
        ]
        what = f": {_listed(whats, between='; ')}" if whats else ""
        self._console.say(f"waiting for {_listed(slow)} to stop, {left}{what}")

    def _tell(self, event: UnitEvent, *, at_start: bool) -> None:
        if event.kind is EventKind.INVOCATION:
            self._tell_failure(cast("InvocationEvent", event))
        elif not event.unit:
            self._stop_asked = trio.current_time()
            self._console.say(event.reason)
        elif event.kind is EventKind.NOTED and not event.reason.startswith(_EXPECTED):
            self._tell_note(event)
        elif event.kind is EventKind.MOVED:
            self._tell_move(event, at_start=at_start)

    def _tell_failure(self, event: "InvocationEvent") -> None:
        """Tell of an invocation that has failed.

        Of many that run in a second, a person is to see those alone that have not ended well; that
        of a job is told as the end of the job.
        """
        of_job = event.invocation_id is not None and any(
            event.invocation_id in said for said in self._calls.values()
        )
        if event.status == "failed" and not of_job:
            self._console.say(event.reason, bad=True)

    def _tell_note(self, event: UnitEvent) -> None:
        found = self._find(event.unit)
        of_job = found is not None and found[0].unit(found[1]).kind == _JOB
        if of_job:
            self._calls[event.unit] = event.reason
        self._console.say(f"{event.unit} {event.reason}", bad=not of_job)
        if self._stop_asked is not None and event.reason.startswith(KILLED):
            who = event.reason.removeprefix(KILLED).partition(";")[0]
            self._killed.setdefault(event.unit, []).append(who)

    def _tell_move(self, event: UnitEvent, *, at_start: bool) -> None:
        stages = self._stages_of(event)
        if stages is None:
            return
        if self._stop_asked is not None:
            self._note_stop(event.unit, event.new, stages)
        if event.new == stages.running:
            told = at_start and self._console.is_terminal
            # Who waits for its end is told of that.
            if not told and not self._is_awaited(event.unit):
                self._console.say(f"{event.unit} is {event.reason}")
        elif event.new in (stages.stopped, stages.failed):
            well = event.reason == "stopped" or _is_completion(event.reason)
            if event.reason != "stopped" or self._supervisor.stopping is None:
                self._console.say(f"{event.unit} {event.reason}", bad=not well)

    def _find(self, path: str) -> tuple[Supervisor, str] | None:
        """Return where a unit is; None for one that has been removed since."""
        try:
            supervisor, name = self._supervisor.locate(path)
            supervisor.unit(name)
        except UnknownUnitError:
            return None
        return supervisor, name

    def _stages_of(self, event: UnitEvent) -> Stages[Any] | None:
        """Return the stages of a unit that has moved; of one that has been removed, if known."""
        stages = self._stages.pop(event.unit, None)
        if (found := self._find(event.unit)) is not None:
            supervisor, name = found
            stages = supervisor.unit(name).lifecycle.stages
        # Kept until it has ended: those that come and go must not pile up.
        if stages is not None and event.new not in (stages.stopped, stages.failed):
            self._stages[event.unit] = stages
        return stages

    def _is_awaited(self, unit: str) -> bool:
        found = self._find(unit)
        return found is not None and found[0].is_awaited(found[1], *_COMPLETION)

    def _stop_wait(self, unit: str) -> Wait | None:
        found = self._find(unit)
        return None if found is None else found[0].stop_wait(found[1])

    def _note_stop(self, unit: str, new: str | None, stages: Stages[Any]) -> None:
        if new == stages.stopping:
            self._stopping[unit] = trio.current_time() + _SLOW_SEC
            self._stop_begun.unpark_all()
        elif new in (stages.stopped, stages.failed):
            self._stopping.pop(unit, None)
            self._stopped.append(unit)
            found = self._find(unit)
            error = None if found is None else found[0].status(found[1]).error
            if isinstance(error, SurvivorsError):
                self._survivors[unit] = error.survivors

    def _progress(self) -> str:
        statuses = [s for s in self._supervisor.statuses() if s.kind != HTTP_KIND]
        done = sum(s.stage in (Stage.READY, Stage.COMPLETED) for s in statuses)
        starting = ", ".join(s.name for s in statuses if s.stage is Stage.STARTING)
        words = f"{done} of {len(statuses)} ready" + (f"; starting {starting}" if starting else "")
        return words[: shutil.get_terminal_size().columns - 1]


def _listed(names: Sequence[str], *, between: str = ", ") -> str:
    more = len(names) - _MOST_NAMES
    return between.join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _is_completion(reason: str) -> bool:
    """Return whether *reason* tells a good end that nothing follows."""
    return reason.startswith("completed after ") and ";" not in reason
