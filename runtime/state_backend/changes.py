"""What has changed in a store, told to those who wait for it in this event loop."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from runtime.invocation.models import Outcome
from runtime.invocation.status import OVER, InvocationStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """An invocation has come to *status*, or (*cancel*) its owner is to cancel it.

    *outcome* is there when it is over and that became known here; others look into the store.
    *task* is what it calls, where that is known; *elsewhere* says that another process has made it.
    """

    invocation_id: str
    status: InvocationStatus
    cancel: bool = False
    outcome: Outcome | None = None
    task: str | None = None
    elsewhere: bool = False


#: Called with what has been committed together, in the order in which it happened. An empty list:
#: something has changed, nobody here knows what.
Listener = Callable[[list[Change]], None]

#: Of so many invocations it is remembered how they stand, the ones that have changed last.
_REMEMBERED: Final = 10_000
#: Longer results, in characters, are not kept: who asks for them reads the store.
_LONGEST_RESULT: Final = 1_000


class Watch:
    """Waits until one invocation is over; made by `Changes.watch`."""

    __slots__ = ("_event", "_woken", "not_over", "outcome")

    def __init__(self, outcome: Outcome | None = None, *, not_over: bool = False) -> None:
        self._event: anyio.Event | None = None
        self._woken = False  # also while its owner looks, and does not wait
        #: How it has ended, where that is known without looking.
        self.outcome: Outcome | None = outcome
        #: Whether it was known not to be over when this was made: there is no need to look first.
        self.not_over: bool = not_over

    def wake(self, outcome: Outcome | None) -> None:
        """Let the waiter look now."""
        self.outcome = outcome or self.outcome
        self._woken = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return at the next change since the last one that may be the end."""
        if not self._woken:
            self._event = anyio.Event()
            await self._event.wait()
            self._event = None
        self._woken = False


class Changes:
    """Who wants to know of changes; not for use from other threads.

    How the invocations stand that have changed last is remembered, so that who waits for one after
    the other need not look for each. All of that is forgotten as soon as something has changed that
    nobody here knows.
    """

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._watches: dict[str, list[Watch]] = {}
        self._known: OrderedDict[str, Outcome | None] = OrderedDict()  #: None: it is not over

    @contextmanager
    def listen(self, listener: Listener) -> Generator[None]:
        """Call *listener*, which must not wait, with all changes during the block."""
        key = object()
        self._listeners[key] = listener
        try:
            yield
        finally:
            del self._listeners[key]

    @contextmanager
    def watch(self, invocation_id: str) -> Generator[Watch]:
        """Watch for the end of one invocation during the block.

        Look after the watch was made, unless it says how that stands: what ended before it is not
        told.
        """
        known = self._known.get(invocation_id)
        watch = Watch(known, not_over=known is None and invocation_id in self._known)
        watches = self._watches.setdefault(invocation_id, [])
        watches.append(watch)
        try:
            yield watch
        finally:
            watches.remove(watch)
            if not watches:
                self._watches.pop(invocation_id, None)

    @property
    def wanted(self) -> bool:
        """Whether anybody listens or waits."""
        return bool(self._listeners or self._watches)

    @property
    def watched(self) -> list[str]:
        """The ids of all that somebody waits for."""
        return list(self._watches)

    def publish(self, changes: list[Change]) -> None:
        """Tell *changes*, once they are committed; none are not told."""
        if not changes:
            return
        # What comes last counts: one that is stopped with its runner is killed and rerouted.
        for invocation_id, change in {each.invocation_id: each for each in changes}.items():
            over = change.status in OVER
            self._remember(invocation_id, change.outcome, over=over)
            if over:
                self._wake(invocation_id, change.outcome)
        self._tell(changes)

    def _remember(self, invocation_id: str, outcome: Outcome | None, *, over: bool) -> None:
        known = self._known
        known.pop(invocation_id, None)
        if not over:
            known[invocation_id] = None
        elif outcome is not None and outcome.error is None:
            if len(outcome.result or "") > _LONGEST_RESULT:
                return
            known[invocation_id] = outcome
        if len(known) > _REMEMBERED:
            known.popitem(last=False)

    def forget(self, invocation_id: str) -> None:
        """Remember no more of this one: its result was changed, or it is not there any more."""
        self._known.pop(invocation_id, None)

    def forget_all(self) -> None:
        """Remember nothing more: it may be that nobody has told of what was changed."""
        self._known.clear()

    def publish_unknown(self) -> None:
        """Tell who listens that something has changed that nobody here knows."""
        self._known.clear()
        self._tell([])

    def _tell(self, changes: list[Change]) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(changes)
            except Exception:  # noqa: BLE001 - what is committed is committed; the others are to know
                _log.exception("a listener for changes of the store has failed")

    def look_again(self, invocation_ids: Iterable[str] | None = None) -> None:
        """Let who waits for these (for any, without ids) look: nobody knows what has changed."""
        if invocation_ids is None:
            self._known.clear()
        for invocation_id in list(self._watches if invocation_ids is None else invocation_ids):
            self._wake(invocation_id, None)

    def tell_ends(self, ends: Mapping[str, Outcome | None]) -> None:
        """Let who waits for these know how they have ended, or look himself (None)."""
        for invocation_id, outcome in ends.items():
            self._wake(invocation_id, outcome)

    def _wake(self, invocation_id: str, outcome: Outcome | None) -> None:
        for watch in self._watches.get(invocation_id, ()):
            watch.wake(outcome)
