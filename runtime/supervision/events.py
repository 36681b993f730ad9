"""A bounded, ordered record that any number of readers follow, each at its own pace.

It carries the events of the units and, in the same form, the lines that a process prints.
A reader never holds up the writer: what it was too slow for is counted as missed.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain, islice
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

import trio

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """One item of a journal; *missed* items before it were gone before this reader came to them."""

    sequence: int
    item: T
    missed: int = 0


class Journal(Generic[T]):
    """The newest items, at most *limit* of them and at most *weight_limit* in weight.

    Items that are *passing* drive out no others: of these the newest *limit* are kept all the same,
    however many have passed since. Sequence numbers begin at 1 and never repeat. Not for use from
    other threads.
    """

    def __init__(
        self,
        limit: int,
        *,
        weight_limit: int | None = None,
        weigh: Callable[[T], int] = lambda _: 1,
        passing: Callable[[T], bool] | None = None,
    ) -> None:
        self._limit, self._weight_limit, self._weigh = limit, weight_limit, weigh
        self._passing = passing
        self._passing_kept = 0
        self._items: deque[T] = deque()
        #: Older than those, and kept because others would have been driven out by passing ones.
        self._older: deque[tuple[int, T]] = deque()
        self._lost = 0
        self._weight = 0
        self._last = 0
        self._closed = False
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def last(self) -> int:
        """The sequence number of the newest item, 0 before the first."""
        return self._last

    @property
    def lost(self) -> int:
        """The number of the newest item that is gone and was not passing, 0 where none is."""
        return self._lost

    def append(self, item: T) -> int:
        """Add *item*, drop the oldest above the limits, wake the readers; return its number."""
        self._items.append(item)
        self._last += 1
        if self._passing is not None and self._passing(item):
            self._passing_kept += 1
        if len(self._items) > self._limit:
            self._drop_oldest()
        if self._weight_limit is not None:
            self._weight += self._weigh(item)
            while self._weight > self._weight_limit and len(self._items) > 1:
                self._drop_oldest()
        if self._waiting:
            self._waiting.unpark_all()
        return self._last

    def _drop_oldest(self) -> None:
        item = self._items.popleft()
        number = self._last - len(self._items)
        if self._weight_limit is not None:
            self._weight -= self._weigh(item)
        if self._passing is None:
            self._lost = number
        elif self._passing(item):
            self._passing_kept -= 1
        else:
            self._older.append((number, item))
        while len(self._older) > self._passing_kept:  # with those that are kept anyway: the limit
            self._lost = self._older.popleft()[0]

    def close(self) -> None:
        """End every reader once it has read what is there."""
        self._closed = True
        self._waiting.unpark_all()

    def entry(self, sequence: int) -> Entry[T] | None:
        """Return the item with this number, or None when it is gone or not there yet."""
        index = sequence - (self._last - len(self._items) + 1)
        if 0 <= index < len(self._items):
            return Entry(sequence, self._items[index])
        older = next(self._older_after(sequence - 1), None)
        return older if older is not None and older.sequence == sequence else None

    def _older_after(self, sequence: int) -> Iterator[Entry[T]]:
        first = bisect_right(self._older, sequence, key=itemgetter(0))
        return (Entry(number, item) for number, item in islice(self._older, first, None))

    def tail(
        self, count: int | None = None, *, where: Callable[[T], bool] | None = None
    ) -> list[Entry[T]]:
        """Return the newest *count* entries (all that are kept, without a count), oldest first.

        With *where* those of whose items it is true.
        """
        most = None if count is None else max(count, 0)
        kept = zip(range(self._last, 0, -1), reversed(self._items), strict=False)
        newest = (
            Entry(number, item)
            for number, item in chain(kept, reversed(self._older))
            if where is None or where(item)
        )
        return list(islice(newest, most))[::-1]

    def after(self, sequence: int, limit: int) -> list[Entry[T]]:
        """Return up to *limit* entries after number *sequence*, oldest first, as they are now.

        Each tells how many before it were gone.
        """
        kept = len(self._items)
        oldest = self._last - kept + 1
        first = max(sequence + 1, oldest)
        found: list[Entry[T]] = []
        if self._older and sequence < self._older[-1][0]:
            found = list(islice(self._older_after(sequence), limit))
        found += [
            Entry(number, self._items[number - oldest])
            for number in range(first, min(first + limit - len(found), self._last + 1))
        ]
        before = sequence
        for place, entry in enumerate(found):
            if entry.sequence > before + 1:
                found[place] = entry._replace(missed=entry.sequence - before - 1)
            before = entry.sequence
        return found

    def read(self, *, after: int | None = None) -> "Reader[T]":
        """Return a reader of what comes after number *after* (default: after the newest)."""
        return Reader(self, self._last if after is None else after)

    async def wait_next(self, after: int) -> Entry[T]:
        """Return the entry after number *after* once there is one.

        Raises `StopAsyncIteration` when the journal is closed and has nothing more.
        """
        while self._last <= after:
            if self._closed:
                raise StopAsyncIteration
            await self._waiting.park()
        return self.after(after, 1)[0]


class Reader(Generic[T]):
    """An async iterator over a journal; it holds nothing but its place."""

    after: int

    __slots__ = ("_journal", "after")

    def __init__(self, journal: Journal[T], after: int) -> None:
        self._journal, self.after = journal, after

    def __aiter__(self) -> "Reader[T]":
        return self

    async def __anext__(self) -> Entry[T]:
        if self._journal.last > self.after:
            await trio.lowlevel.checkpoint()
        entry = await self._journal.wait_next(self.after)
        self.after = entry.sequence
        return entry


class EventKind(StrEnum):
    """What an event tells."""

    MOVED = "moved"  #: a unit's state changed
    ASKED = "asked"  #: somebody asked for something
    NOTED = "noted"  #: a fact that changes no state: what a unit waits for, what had to be killed
    INVOCATION = "invocation"  #: invocations of tasks have come to a status; of no unit


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEvent:
    """One fact about one unit, or about the whole tree where *unit* is empty.

    It is empty as well in what is told of invocations of tasks (`InvocationEvent`).

    *cause* is the sequence number of the event that led to this one; following the causes back
    answers why a unit is as it is. *old* and *new* are states, given when the kind is MOVED.
    """

    timestamp: datetime
    unit: str
    kind: EventKind
    reason: str
    old: str | None = None
    new: str | None = None
    generation: int = 0
    cause: int | None = None


def is_passing(event: UnitEvent) -> bool:
    """Return whether an event is one of many that explain nothing later: one of invocations."""
    return event.kind is EventKind.INVOCATION


class Chronicle:
    """Writes the events of one supervisor's units into the journal that the tree shares.

    *mask* takes out of a reason what nobody may see.
    """

    mask: Callable[[str], str]

    def __init__(
        self,
        prefix: str,
        journal: Journal[UnitEvent],
        mask: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._prefix, self._journal, self.mask = prefix, journal, mask

    def path(self, name: str) -> str:
        """Return the name of a unit as the whole tree knows it, such as ``worker/cpu-0``."""
        return f"{self._prefix}/{name}" if self._prefix and name else name or self._prefix

    def moved(
        self, name: str, old: str, new: str, reason: str, *, generation: int, cause: int | None
    ) -> int:
        """Record that a state changed."""
        return self._append(
            name, EventKind.MOVED, reason, cause, old=str(old), new=str(new), generation=generation
        )

    def asked(self, name: str, reason: str, *, cause: int | None = None) -> int:
        """Record that somebody asked for something; an empty *name* is the whole tree."""
        return self._append(name, EventKind.ASKED, reason, cause)

    def noted(self, name: str, reason: str, *, cause: int | None = None) -> int:
        """Record a fact that changes no state."""
        return self._append(name, EventKind.NOTED, reason, cause)

    def words(self, number: int | None) -> str:
        """Return the reason that an event gave, empty when it is gone or there is none."""
        entry = None if number is None else self._journal.entry(number)
        return "" if entry is None else entry.item.reason

    def chain(self, number: int | None) -> list[Entry[UnitEvent]]:
        """Return an event and the causes behind it, as far as they are kept, the newest first."""
        found: list[Entry[UnitEvent]] = []
        while number is not None and (entry := self._journal.entry(number)) is not None:
            found.append(entry)
            number = entry.item.cause
        return found

    def _append(
        self,
        name: str,
        kind: EventKind,
        reason: str,
        cause: int | None,
        *,
        old: str | None = None,
        new: str | None = None,
        generation: int = 0,
    ) -> int:
        return self._journal.append(
            UnitEvent(
                timestamp=datetime.now(UTC),
                unit=self.path(name),
                kind=kind,
                reason=reason,
                old=old,
                new=new,
                generation=generation,
                cause=cause,
            )
        )
