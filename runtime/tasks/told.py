"""Tells of invocations in the stream of a tree's events, and never faster than can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf

import trio

from runtime.invocation.events import InvocationEvent
from runtime.invocation.status import InvocationStatus
from runtime.state_backend.changes import Change, Changes
from runtime.supervision.events import EventKind, Journal, UnitEvent

#: So many of each status are told one by one in each second; of the others the number, at its end.
TOLD_AT_ONCE = 10
PERIOD_SEC = 1.0
_LONGEST_WORDS, _LOOKED_AT = 300, 10_000


class InvocationNews:
    """Writes into *events* what changes in a store.

    Of each status, the first `TOLD_AT_ONCE` within a period are events of their own, in the order
    in which they were committed; the rest is one event that says how many more there were. *mask*
    takes out of words what nobody may see.
    """

    def __init__(self, events: Journal[UnitEvent], mask: Callable[[str], str]) -> None:
        self._events, self._mask = events, mask
        self._told: Counter[InvocationStatus | None] = Counter()
        self._held_back: Counter[InvocationStatus | None] = Counter()
        self._ends_at = -inf
        self._holds_back = trio.Event()

    @contextmanager
    def listening(self, changes: Changes) -> Generator[None]:
        """Tell of *changes* during the block; what is held back at its end is told then."""
        with changes.listen(self._hear):
            try:
                yield
            finally:
                self._tell_more()

    async def run(self) -> None:
        """Tell at the end of each period what was held back; until cancelled."""
        while True:
            await self._holds_back.wait()
            await trio.sleep_until(self._ends_at)
            self._tell_more()

    def _hear(self, changes: list[Change]) -> None:
        now = trio.current_time()
        if now >= self._ends_at:
            self._tell_more()
            self._told.clear()
            self._ends_at = now + PERIOD_SEC
        if not changes:
            self._hear_of_others()
        for change in changes:
            if change.cancel:
                continue
            if change.elsewhere:
                self._hear_of_others()
            elif self._told[change.status] < TOLD_AT_ONCE:
                self._told[change.status] += 1
                self._tell_one(change)
            else:
                self._hold_back(change.status)

    def _hear_of_others(self) -> None:
        """Tell once in a period that somebody else has changed something: nobody asks what."""
        if not self._told[None]:
            self._told[None] += 1
            self._tell_others()
        else:
            self._hold_back(None)

    def _hold_back(self, status: InvocationStatus | None) -> None:
        if not self._held_back:
            self._holds_back.set()
        self._held_back[status] += 1

    def _tell_more(self) -> None:
        if not self._held_back:
            return
        self._holds_back = trio.Event()
        held_back, self._held_back = self._held_back, Counter()
        for status, count in held_back.items():
            if status is None:
                self._tell_others()
            else:
                self._tell(f"{count} more invocations: {status}", status=status, count=count)

    def _tell_others(self) -> None:
        self._tell("another process has changed invocations", status=None)

    def _tell_one(self, change: Change) -> None:
        error = None
        if change.status is InvocationStatus.FAILED and change.outcome is not None:
            error = change.outcome.error
        of = "" if change.task is None else f" of {change.task}"
        why = "" if error is None else f", {error.type}: {error.message[:_LOOKED_AT]}"
        self._tell(
            f"{change.invocation_id}{of}: {change.status}{why}",
            status=change.status,
            invocation_id=change.invocation_id,
            task=change.task,
        )

    def _tell(
        self,
        words: str,
        *,
        status: InvocationStatus | None,
        invocation_id: str | None = None,
        task: str | None = None,
        count: int = 1,
    ) -> None:
        words = " ".join(self._mask(words).split())
        self._events.append(
            InvocationEvent(
                timestamp=datetime.now(UTC),
                unit="",
                kind=EventKind.INVOCATION,
                reason=words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]}…",
                status=status,
                invocation_id=invocation_id,
                task=task,
                count=count,
            )
        )
