"""The keeper of a unit: the only code that runs the unit's body.

So there are never two live copies of one unit, whatever is asked for at whatever moment.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import final

import trio

from ._exceptions import EndedBeforeReadyError, IllegalTransitionError, in_words
from ._slot import Slot
from ._tree import Tree
from .budget import StopBudget
from .graph import Answer, Requirement, Stage
from .restart import GiveUp, RestartHistory, RestartIn, judge_end
from .unit import UnitHandle, as_current_unit, cut_off_by

_logger = logging.getLogger(__name__)


@final
class Keeper:
    """Starts one unit when it is wanted and may start, and judges how it ends."""

    def __init__(self, tree: Tree, slot: Slot, jitter: Callable[[], float]) -> None:
        self._tree, self._slot, self._jitter = tree, slot, jitter

    async def run(self) -> None:
        """Run the unit, generation after generation, for as long as the tree lives.

        What nobody may catch (a `KeyboardInterrupt`, say) makes the tree stop first, in order.
        """
        slot = self._slot
        try:
            await self._run()
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised again when all is down
            self._tree.break_off(slot, error)
        finally:
            slot.kept = False
            if slot.removed:
                self._tree.forget(slot)
                self._tree.consider_end()  # it may have been the last that went on

    async def _run(self) -> None:
        slot = self._slot
        while self._tree.stopping is None and not slot.removed:
            if not slot.wanted or slot.over is not None:
                self._tree.consider_end()
                with self._patience():
                    await trio.sleep_forever()
            elif await self._requirements_hold():
                await self._run_once()
                if slot.next_restart_at is not None and slot.wanted:
                    await self._back_off()

    @contextmanager
    def _patience(self) -> Generator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self._slot.interruptible = scope
            yield scope
        self._slot.interruptible = None

    # --- before the start -------------------------------------------------------------------------

    async def _requirements_hold(self) -> bool:
        """Wait for what the unit needs; False when that was interrupted or can no longer be had."""
        slot, tree = self._slot, self._tree
        told = ""
        while slot.wanted and slot.over is None:
            unmet = [r for r in slot.unit.requirements if tree.judge(r) is not Answer.MET]
            for met in set(slot.blocked_by).difference(unmet):
                slot.cause = tree.slots[met.name].last
            slot.blocked_by = tuple(unmet)
            obstacles = " and ".join(slot.obstacles())
            if not obstacles:
                return True
            if obstacles != told:
                told = obstacles
                tree.explain(slot, f"waiting for {obstacles}")
            for requirement in unmet:
                if tree.judge(requirement) is Answer.NEVER:
                    self._hold_back(requirement)
                    return False
            with self._patience() as patience:
                slot.nudge = trio.Event()
                await slot.nudge.wait()
            slot.nudge = None
            if patience.cancelled_caught:
                return False
        return False

    def _hold_back(self, requirement: Requirement) -> None:
        slot, needed = self._slot, self._tree.slots[requirement.name]
        slot.over, slot.blocked_by = Stage.HELD, ()
        slot.root_cause, through = f"{requirement.name} {needed.reason}", ""
        if needed.over is Stage.HELD:  # of a long chain its two ends are told
            slot.root_cause, through = needed.root_cause, f"needs {requirement.name}, and "
        self._tree.explain(slot, f"not started: {through}{slot.root_cause}", cause=needed.last)
        self._tree.after_end(slot)

    async def _back_off(self) -> None:
        if self._slot.restart_at > trio.current_time():
            with self._patience():
                await trio.sleep_until(self._slot.restart_at)
        else:  # whatever was asked for is seen at once
            await trio.lowlevel.checkpoint()
        self._slot.next_restart_at = None

    # --- one generation ---------------------------------------------------------------------------

    async def _run_once(self) -> None:
        slot = self._slot
        if not self._begin():
            return
        error = await self._run_generation()
        if error is None and not slot.stop_due and slot.ready is None:
            error = EndedBeforeReadyError(slot.unit.name)
        self._leave(error)
        self._judge_end(error)

    async def _run_generation(self) -> Exception | None:
        """Run the body once; return what it has raised.

        No frame that its traceback leads to may hold it, or both stay until a search for garbage.
        """
        slot = self._slot
        try:
            with self._tree.budget.open_child() as slot.budget:
                await self._run_body(slot.budget)
        except Exception as raised:  # noqa: BLE001 - the edge of a unit: whatever it is is judged
            return raised
        except BaseException as raised:
            # Cancelled for good from above, or something no supervisor may catch.
            self._leave(None)
            slot.wanted = False
            self._close_cycle(slot.unit.lifecycle.stages.failed, cut_off_by(raised))
            raise
        return None

    def _leave(self, error: Exception | None) -> None:
        slot = self._slot
        slot.live, slot.budget, slot.interruptible = False, None, None
        slot.error, slot.ended = error, trio.current_time()
        slot.healthy, slot.status_text, slot.pid = None, "", None

    def _begin(self) -> bool:
        """Enter the unit's next generation, unless it or its table forbids to start it as it is."""
        slot, tree = self._slot, self._tree
        try:
            slot.unit.admit()
        except Exception as refusal:  # noqa: BLE001 - the edge of a unit: whatever it is is told
            tree.fail(slot, in_words(refusal))
            self._refuse(refusal)
            return False
        try:
            number = tree.move(slot, slot.unit.lifecycle.stages.starting, "starting")
        except IllegalTransitionError as refusal:
            tree.explain(slot, str(refusal))
            self._refuse(refusal)
            return False
        slot.generation += 1
        slot.live, slot.stop_due, slot.stop_sent, slot.again = True, False, False, None
        slot.down_first = {}
        slot.error, slot.ready, slot.ended, slot.next_restart_at = None, None, None, None
        slot.note = slot.good_end = ""
        slot.started, slot.started_at = trio.current_time(), datetime.now(UTC)
        slot.cause = number
        return True

    def _refuse(self, refusal: Exception) -> None:
        self._slot.over, self._slot.error = Stage.FAILED, refusal
        self._tree.after_end(self._slot)

    async def _run_body(self, budget: StopBudget) -> None:
        slot = self._slot
        handle = UnitHandle(
            self._tree.chronicle.path(slot.unit.name),
            budget,
            on_started=self._became_ready,
            on_ending=self._is_ending,
            on_good_end=partial(setattr, slot, "good_end"),
            on_failing=partial(self._is_failing, budget),
            on_note=partial(self._tree.note, slot),
            on_health=self._note_health,
            on_status_text=self._note_status_text,
            on_pid=partial(setattr, slot, "pid"),
            hold=partial(self._hold, budget),
        )
        with as_current_unit(handle), trio.CancelScope() as slot.interruptible:
            await slot.unit.body(task_status=handle)

    async def _hold(
        self,
        budget: StopBudget,
        body: Callable[[], Awaitable[object]],
        ask_to_stop: Callable[[], object],
    ) -> None:
        # A stop comes from the tree, also one that was begun by a cancellation of the whole tree.
        # So nobody has to listen for one here.
        slot = self._slot
        if slot.on_stop is not None:
            raise RuntimeError(f"{slot.unit.name} holds already; a unit does so in one task")
        if slot.stop_sent:
            ask_to_stop()
        slot.on_stop = ask_to_stop
        try:
            with budget.to_the_end():
                await body()
        finally:
            slot.on_stop = None
        await trio.lowlevel.checkpoint_if_cancelled()

    def _became_ready(self) -> None:
        slot = self._slot
        stages = slot.unit.lifecycle.stages
        if slot.ready is not None:
            raise RuntimeError(f"{slot.unit.name} called task_status.started() twice")
        slot.ready = now = trio.current_time()
        if slot.unit.lifecycle.state == stages.starting:  # else it is being stopped already
            self._tree.move(slot, stages.running, f"ready after {now - slot.started:.2f} s")
            if not slot.stop_due:
                slot.cause = None  # whatever comes next is not the start's doing
            self._tree.start_up.note(slot)

    def _is_ending(self, reason: str) -> None:
        slot = self._slot
        stages = slot.unit.lifecycle.stages
        if slot.unit.lifecycle.state in (stages.starting, stages.running):
            self._tree.move(slot, stages.stopping, reason)

    def _is_failing(self, budget: StopBudget, reason: str) -> None:
        budget.begin(self._tree.stop_within_sec)  # its clearing up has a bound, too
        self._tree.fail(self._slot, reason)
        self._slot.cause = self._slot.last

    def _note_health(self, healthy: bool, words: str) -> None:
        self._slot.healthy = healthy
        if words:
            self._tree.explain(self._slot, words)
        else:
            self._slot.wake()

    def _note_status_text(self, text: str) -> None:
        self._slot.status_text = self._tree.chronicle.mask(text)

    # --- after the end ----------------------------------------------------------------------------

    def _judge_end(self, error: Exception | None) -> None:
        slot, tree = self._slot, self._tree
        stages = slot.unit.lifecycle.stages
        if slot.stop_due:
            slot.stop_due = False
            last = stages.stopped if error is None else stages.failed
            self._close_cycle(last, f"stopped, but {in_words(error)}" if error else "stopped")
            tree.after_end(slot)
            return
        if error is not None:
            path = tree.chronicle.path(slot.unit.name)
            _logger.debug("%s failed", path, exc_info=error)
        if slot.unit.lifecycle.state != stages.failed:  # else it is that it failed
            slot.cause = None
        ran_sec = trio.current_time() - slot.started
        how = f" ({slot.good_end})" if slot.good_end else ""
        words = f"completed after {ran_sec:.1f} s{how}" if error is None else in_words(error)
        last = stages.stopped if error is None else stages.failed
        number = self._close_cycle(last, words, self._decide(error))
        reason = slot.reason
        slot.cause = number if slot.again is None else slot.again
        tree.send_due_stops(tree.restart_companions(slot, number))
        if slot.unit.ends_tree and slot.over is not None and tree.stopping is None:
            tree.ended_by = slot.unit.name
            tree.ask_stop(f"{slot.unit.name} {reason}", number, None)
        tree.after_end(slot)

    def _decide(self, error: Exception | None) -> str:
        """Ask the unit's policy what follows; return in words what there is to say of that."""
        slot = self._slot
        if slot.again is not None:  # somebody has asked for a start while it ended
            slot.history = RestartHistory()
            return ""
        now = trio.current_time()
        verdict, slot.history = judge_end(
            slot.unit.restart,
            slot.history,
            failed=error is not None,
            ready_sec=None if slot.ready is None else now - slot.ready,
            now=now,
            random=self._jitter(),
        )
        if isinstance(verdict, RestartIn):
            slot.restarts += 1
            slot.restart_at = now + verdict.delay_sec
            slot.next_restart_at = _date_in(verdict.delay_sec)
            return f"restart in {verdict.delay_sec:.3g} s" if verdict.delay_sec else ""
        slot.over = Stage.COMPLETED if error is None else Stage.FAILED
        return verdict.reason if isinstance(verdict, GiveUp) else ""

    def _close_cycle(self, last: str, reason: str, verdict: str = "") -> int:
        """Move to *last*, if it is not there already; return the number of the last event."""
        slot, lifecycle = self._slot, self._slot.unit.lifecycle
        whole = f"{reason}; {verdict}" if verdict else reason
        if lifecycle.state == last == lifecycle.stages.failed and slot.last is not None:
            if verdict:  # that it failed was said when it did
                self._tree.explain(slot, verdict)
            slot.reason = self._tree.chronicle.mask(whole)
            slot.wake()
            return slot.last
        if last not in lifecycle.table.successors(lifecycle.state):
            self._tree.move(slot, lifecycle.stages.stopping, whole)
        return self._tree.move(slot, last, whole)


def _date_in(seconds: float) -> datetime:
    """Return the date after so many *seconds*, the last that there is where none is so late."""
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
