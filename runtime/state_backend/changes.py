"""What has changed in a store, told to those who wait for it in this event loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from runtime.invocation.models import Outcome
from runtime.invocation.status import InvocationStatus


@dataclass(frozen=True, slots=True)
class Change:
    """An invocation has come to *status*, or (*cancel*) its owner is to cancel it.

    *outcome* is there when it is over and that became known here; others look into the store.
    """

    invocation_id: str
    status: InvocationStatus
    cancel: bool = False
    outcome: Outcome | None = None


#: Called with what has been committed together, in the order in which it happened. An empty list:
#: something has changed, nobody here knows what.
Listener = Callable[[list[Change]], None]


class Watch:
    """Waits until one invocation is over; made by `Changes.watch`."""

    __slots__ = ("_event", "outcome")

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        #: How it has ended, where that is known without looking.
        self.outcome: Outcome | None = None

    def wake(self, outcome: Outcome | None) -> None:
        """Let the waiter look now."""
        self.outcome = outcome or self.outcome
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return at the next change that may be the end."""
        self._event = anyio.Event()
        await self._event.wait()
        self._event = None


class Changes:
    """Who wants to know of changes; not for use from other threads."""

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._watches: dict[str, list[Watch]] = {}

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

        Look after the watch was made: what ended before it is not told.
        """
        watch = Watch()
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
        if self._watches:
            for change in changes:
                if change.status.is_over():
                    self._wake(change.invocation_id, change.outcome)
        for listener in list(self._listeners.values()):
            listener(changes)

    def publish_unknown(self) -> None:
        """Tell who listens that something has changed that nobody here knows."""
        for listener in list(self._listeners.values()):
            listener([])

    def look_again(self, invocation_ids: Iterable[str] | None = None) -> None:
        """Let who waits for these (for any, without ids) look: nobody knows what has changed."""
        for invocation_id in list(self._watches if invocation_ids is None else invocation_ids):
            self._wake(invocation_id, None)

    def _wake(self, invocation_id: str, outcome: Outcome | None) -> None:
        for watch in self._watches.get(invocation_id, ()):
            watch.wake(outcome)
