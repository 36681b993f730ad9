"""The events of a tree as server-sent events, encoded once for however many readers there are.

A reader is a place in the journal and nothing else. What is new is cut into pieces that all readers
are sent as they are; a reader that came in between is led to the next cut first. Whoever is too
slow for it, so that events are gone before he comes to them, is told so by a ``resync`` event with
a snapshot of how all stands; where those that are gone were of invocations alone, which a snapshot
says nothing of, by an event ``missed``.
"""

import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import trio

from runtime.supervision.events import Entry, Journal, UnitEvent

T = TypeVar("T")
_KEPT = 4_096
#: How long events are gathered before they are sent: many in one piece cost little more than one.
_GATHER_SEC = 0.05
_MOST_AT_ONCE = 500
#: How many pieces are kept for readers that are behind.
_CHUNKS_KEPT = 16
#: How much longer for each reader, and how many readers are woken before others have their turn.
_PER_READER_SEC = 0.001
_WOKEN_AT_ONCE = 20
#: For how long a snapshot is good for others, if nothing happens.
_SHARED_SEC = 0.5
#: A comment is sent after so many seconds without an event, so that a dead connection is noticed.
ALIVE_SEC = 15.0
ALIVE = b": alive\n\n"


def encode(kind: str, data: object, number: int | None = None) -> bytes:
    """Return one server-sent event."""
    return _frame(kind, _to_json(data), number)


def _to_json(data: object) -> bytes:
    return json.dumps(data, default=str, separators=(",", ":")).encode()


def _frame(kind: str, data: bytes, number: int | None) -> bytes:
    head = f"event: {kind}\n" if number is None else f"id: {number}\nevent: {kind}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)


@asynccontextmanager
async def until(shutdown: trio.Event) -> AsyncGenerator[None]:
    """Leave the block, wherever it waits, when *shutdown* is set; what it raises is in a group."""
    async with trio.open_nursery() as nursery:

        async def hear() -> None:
            await shutdown.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(hear)
        yield
        nursery.cancel_scope.cancel()


async def next_batch(
    journal: Journal[T], after: int, shutdown: trio.Event
) -> list[Entry[T]] | None:
    """Return what has come after number *after*, gathered for a moment.

    Nothing when there is nothing for a while, None when there will be no more, or at *shutdown*.
    """
    ended = False
    async with until(shutdown):
        with trio.move_on_after(ALIVE_SEC):
            try:
                await journal.wait_next(after)
                await trio.sleep(_GATHER_SEC)
            except StopAsyncIteration:
                ended = True
    entries = journal.after(after, _MOST_AT_ONCE)  # at shutdown, what happened last is told as well
    return entries if entries or not (ended or shutdown.is_set()) else None


def _unbroken(entries: list[Entry[T]]) -> list[Entry[T]]:
    """Return those before which none is gone, but for what is before the first."""
    gap = next((place for place, each in enumerate(entries) if place and each.missed), None)
    return entries[:gap]


class _Chunk(NamedTuple):
    """Events encoded in one piece, up to number *last*."""

    last: int
    data: bytes


class EventFeed:
    """Sends the events of *journal* to any number of readers; `run` gathers and encodes them.

    *snapshot* says how all stands now, *describe* what is sent of an event. How long events are
    gathered grows with the number of readers: to serve them takes a share of the time and no more.
    """

    def __init__(
        self,
        journal: Journal[UnitEvent],
        snapshot: Callable[[], object],
        describe: Callable[[Entry[UnitEvent]], object],
    ) -> None:
        self._journal, self._snapshot, self._describe = journal, snapshot, describe
        self._encoded: OrderedDict[int, bytes] = OrderedDict()
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()
        self._published = journal.last
        self._ended = False
        self._following = 0
        self._readers = trio.lowlevel.ParkingLot()
        self._wanted = trio.Event()
        self._standing = (-1, 0.0, b"")

    async def run(self, shutdown: trio.Event) -> None:
        """Gather events and hand them to the readers, until *shutdown*; then let all end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_all)
            await shutdown.wait()
            nursery.cancel_scope.cancel()
        self._ended = True
        self._readers.unpark_all()

    async def _publish_all(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                await self._journal.wait_next(self._published)
            except StopAsyncIteration:
                return
            await trio.sleep(_GATHER_SEC + len(self._readers) * _PER_READER_SEC)
            await self._publish()

    async def _publish(self) -> None:
        for number, entry in enumerate(self._journal.after(self._published, _KEPT)):
            if number % _WOKEN_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            self._encode(entry)
        self._cut()
        # A few at a time: whatever else is to be done has its turn between them.
        for _ in range(0, len(self._readers), _WOKEN_AT_ONCE):
            self._readers.unpark(count=_WOKEN_AT_ONCE)
            await trio.lowlevel.checkpoint()

    def _cut(self) -> None:
        """Encode what is new, in pieces that all readers share."""
        while self._published < self._journal.last:
            entries = _unbroken(self._journal.after(self._published, _MOST_AT_ONCE))
            after, self._published = entries[0].sequence - 1, entries[-1].sequence
            data = b"".join(map(self._encode, entries))
            self._chunks[after] = _Chunk(self._published, data)
        # For who is further behind, pieces are put together from what is kept of the events.
        while len(self._chunks) > _CHUNKS_KEPT:
            self._chunks.popitem(last=False)

    async def stream(self, after: int | None) -> AsyncGenerator[bytes]:
        """Yield what to send, until the end: the events after number *after*.

        Without a number, or with one that is yet to come, it begins with a snapshot. Whoever comes
        too late for an event gets a ``resync`` with a snapshot in its place.
        """
        if not self._following:  # what nobody has followed is in no piece
            self._published = self._journal.last
            self._chunks.clear()
        self._following += 1
        try:
            if after is None or after > self._journal.last:
                after, data = self._begin()
                yield _frame("snapshot", data, after)
            while True:
                if self._published > after or (self._ended and self._journal.last > after):
                    after, data = self._next(after)
                    yield data
                elif self._ended:
                    return
                elif not await self._wait():
                    yield ALIVE
        finally:
            self._following -= 1

    async def _wait(self) -> bool:
        """Return whether there may be something new, and not just nothing for a while."""
        self._wanted.set()
        with trio.move_on_after(ALIVE_SEC):
            await self._readers.park()
            return True
        return False

    def _next(self, after: int) -> tuple[int, bytes]:
        chunk = self._chunks.get(after)
        if chunk is not None:
            return chunk
        self._cut()
        entries = _unbroken(self._journal.after(after, _MOST_AT_ONCE))
        missed = entries[0].missed
        if missed and after < self._journal.lost:
            last, data = self._begin()
            return last, _frame("resync", b'{"missed":%d,"snapshot":%b}' % (missed, data), last)
        told = _frame("missed", b'{"missed":%d}' % missed, None) if missed else b""
        # To the next place where all are: from there on there is a piece for this one as well.
        entries = entries[: self._to_boundary(entries[0].sequence - 1)]
        return entries[-1].sequence, told + b"".join(map(self._encode, entries))

    def _to_boundary(self, after: int) -> int | None:
        return next((start - after for start in self._chunks if start > after), None)

    def _begin(self) -> tuple[int, bytes]:
        """Return a snapshot and its number, from which on the pieces of all go on."""
        self._cut()
        return self._published, self._stand()

    def _stand(self) -> bytes:
        """Return a snapshot as JSON, the same one for all that come at about the same time."""
        last, until, data = self._standing
        now = trio.current_time()
        if last != self._journal.last or now >= until:
            data = _to_json(self._snapshot())
            self._standing = (self._journal.last, now + _SHARED_SEC, data)
        return data

    def _encode(self, entry: Entry[UnitEvent]) -> bytes:
        known = self._encoded.get(entry.sequence)
        if known is None:
            known = encode(str(entry.item.kind), self._describe(entry), entry.sequence)
            self._encoded[entry.sequence] = known
            if len(self._encoded) > _KEPT:
                self._encoded.popitem(last=False)
        return known
