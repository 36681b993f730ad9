"""The events of a tree as server-sent events, encoded once for however many readers there are.

A reader is a place in the journal and little else. What is new is cut into pieces that all readers
are sent as they are; a reader that came in between is led to the next cut first. Who has had all
before is written a piece by the task that cuts them: to wake a task for each of hundreds of readers
takes many times what the kernel takes. His own goes on where he is new, or does not take it all.

Whoever is so slow that events are gone before he comes to them is told so by a ``resync`` event
with a snapshot of how all stands; where those that are gone were of invocations alone, which a
snapshot says nothing of, by an event ``missed``.
"""

import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from runtime.supervision.events import Entry, Journal, UnitEvent

from ._compress import GZIP_HEAD, deflated

T = TypeVar("T")
_KEPT = 4_096
#: How long events are gathered before they are sent: many in one piece cost little more than one.
_GATHER_SEC = 0.05
_MOST_AT_ONCE = 500
#: Pieces are sent together up to about so many bytes: a send costs as much as to copy all of them.
_ONE_SEND_BYTES = 32_768
#: How many pieces are kept for readers that are behind.
_CHUNKS_KEPT = 16
#: How long nothing more is sent after a piece, for each reader: to serve him takes a hundredth.
_REST_PER_READER_SEC = 0.004
#: How many are served before others have their turn.
_SERVED_AT_ONCE = 20
#: For how long a snapshot is good for others, if nothing happens.
_SHARED_SEC = 0.5
#: A comment is sent after so many seconds without an event, so that a dead connection is noticed.
ALIVE_SEC = 15.0
ALIVE = b": alive\n\n"
#: Writes a piece without waiting, and returns whether all of it has been taken. What has not is
#: kept, and goes before whatever is sent next.
Write = Callable[[bytes], bool]


def encode(kind: str, data: object, number: int | None = None) -> bytes:
    """Return one server-sent event."""
    return _frame(kind, _to_json(data), number)


# In ASCII: whatever a reader takes for the end of a line, and half of a character, is escaped.
_ENCODER = json.JSONEncoder(default=str, separators=(",", ":"))


def _to_json(data: object) -> bytes:
    return _ENCODER.encode(data).encode()


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


class _Chunk:
    """Events encoded in one piece, up to number *last*."""

    __slots__ = ("_packed", "data", "last")

    def __init__(self, last: int, data: bytes) -> None:
        self.last, self.data = last, data
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        """The piece as whoever takes it compressed is sent it; made once, and not for nobody."""
        if self._packed is None:
            self._packed = deflated(self.data)
        return self._packed


_ALIVE = _Chunk(0, ALIVE)
# A comment before the next event, which pushes out what a reader did not take at once.
_PUSH = _Chunk(0, b":\n")


def _newest_of_each(entries: list[Entry[UnitEvent]]) -> set[int]:
    """Return the numbers of the newest entry of each unit."""
    return set({entry.item.unit: entry.sequence for entry in entries}.values())


class _Reader:
    """One that has had all up to number *after*, and may be given more by *write*."""

    __slots__ = ("_push", "_woken", "after", "packed", "served_at", "write")

    def __init__(self, *, packed: bool) -> None:
        self.packed = packed
        self.after = 0
        self.served_at = 0.0
        self.write: Write | None = None
        self._push = b""
        self._woken = trio.Event()

    @property
    def behind(self) -> bool:
        """Whether he has not taken all that he was written."""
        return bool(self._push)

    def take(self, chunks: Mapping[int, _Chunk]) -> bool:
        """Write to him what comes next, as long as he takes it.

        Return whether he is to go on by himself: he has not taken what was left the last time.
        """
        if self.write is None:
            return True
        if self._push and not self.write(b""):
            return True
        self._push = b""
        while not self._push and (data := self._advance(chunks)):
            self.served_at = trio.current_time()
            if not self.write(data):
                self._push = self.coded(_PUSH)
        return False

    def _advance(self, chunks: Mapping[int, _Chunk]) -> bytes:
        """Return what comes next, as much as is sent in one go, and take it for sent."""
        pieces: list[bytes] = []
        size = 0
        while size < _ONE_SEND_BYTES and (chunk := chunks.get(self.after)) is not None:
            self.after = chunk.last
            pieces.append(self.coded(chunk))
            size += len(pieces[-1])
        return b"".join(pieces)

    def coded(self, chunk: _Chunk) -> bytes:
        """Return a piece as he takes it."""
        return chunk.packed if self.packed else chunk.data

    def wake(self) -> None:
        self._woken.set()

    async def wait(self) -> bytes:
        """Return once he is woken, or has had nothing for long: what he is to be sent then."""
        self._woken, self.served_at = trio.Event(), trio.current_time()
        while trio.current_time() < (deadline := self.served_at + ALIVE_SEC):
            with trio.move_on_at(deadline):
                await self._woken.wait()
                data, self._push = self._push, b""
                return data
        return self.coded(_ALIVE)


class EventFeed:
    """Sends the events of *journal* to any number of readers; `run` gathers and encodes them.

    *snapshot* says how all stands now, *describe* what is sent of an event; it is told whether that
    is the newest of its unit. Readers are served at once after a quiet, and then at most as often
    as takes a small share of the time, however many there are.
    """

    def __init__(
        self,
        journal: Journal[UnitEvent],
        snapshot: Callable[[], object],
        describe: Callable[[Entry[UnitEvent], bool], object],
    ) -> None:
        self._journal, self._snapshot, self._describe = journal, snapshot, describe
        self._encoded: OrderedDict[int, bytes] = OrderedDict()
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()
        self._published = journal.last
        self._ended = False
        self._following = 0
        self._waiting: dict[_Reader, None] = {}  # who has had all there is
        self._wanted = trio.Event()
        self._standing = (-1, 0.0, b"")

    async def run(self, shutdown: trio.Event) -> None:
        """Gather events and hand them to the readers, until *shutdown*; then let all end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_all)
            await shutdown.wait()
            nursery.cancel_scope.cancel()
        self._ended = True
        for reader in self._waiting:
            reader.wake()

    async def _publish_all(self) -> None:
        rested = trio.current_time()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                if not any(reader.behind for reader in self._waiting):
                    await self._journal.wait_next(self._published)
            except StopAsyncIteration:
                return
            await trio.sleep_until(max(trio.current_time() + _GATHER_SEC, rested))
            await self._publish()
            rested = trio.current_time() + len(self._waiting) * _REST_PER_READER_SEC

    async def _publish(self) -> None:
        """Encode what is new and serve the readers; all else has its turns meanwhile."""
        news = self._journal.after(self._published, _KEPT)
        newest = _newest_of_each(news)
        for number, entry in enumerate(news):
            if number % _SERVED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            self._encode(entry, newest=entry.sequence in newest)
        self._cut()
        for number, reader in enumerate(list(self._waiting)):
            if number % _SERVED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if reader in self._waiting:
                self._serve(reader)
        if self._waiting:
            self._wanted.set()

    def _serve(self, reader: _Reader) -> None:
        """Write to a reader what is new, or wake him to go on by himself."""
        if reader.take(self._chunks) or (not reader.behind and reader.after < self._published):
            del self._waiting[reader]
            reader.wake()

    def _cut(self) -> None:
        """Encode what is new, in pieces that all readers share."""
        while self._published < self._journal.last:
            entries = _unbroken(self._journal.after(self._published, _MOST_AT_ONCE))
            after, self._published = entries[0].sequence - 1, entries[-1].sequence
            newest = _newest_of_each(entries)
            data = b"".join(self._encode(e, newest=e.sequence in newest) for e in entries)
            self._chunks[after] = _Chunk(self._published, data)
        # For who is further behind, pieces are put together from what is kept of the events.
        while len(self._chunks) > _CHUNKS_KEPT:
            self._chunks.popitem(last=False)

    async def stream(
        self, after: int | None, write: Write | None = None, *, packed: bool = False
    ) -> AsyncGenerator[bytes]:
        """Yield what to send, until the end: the events after number *after*.

        Without a number, or with one that is yet to come, it begins with a snapshot. Whoever comes
        too late for an event gets a ``resync`` with a snapshot in its place.

        What is yielded is taken to be sent when the next piece is asked for. With *write*, what
        comes after the first piece goes there as long as all of it is taken. *packed* is the
        stream compressed with gzip, each piece as soon as it is there.
        """
        if not self._following:  # what nobody has followed is in no piece
            self._published = self._journal.last
            self._chunks.clear()
        self._following += 1
        reader = _Reader(packed=packed)
        try:
            if packed:
                yield GZIP_HEAD
            if after is None or after > self._journal.last:
                reader.after, data = self._begin()
                yield reader.coded(_Chunk(reader.after, _frame("snapshot", data, reader.after)))
                reader.write = write
            else:
                reader.after = after
            while (piece := await self._wait_piece(reader)) is not None:
                yield piece
                reader.write = write
        finally:
            self._following -= 1

    async def _wait_piece(self, reader: _Reader) -> bytes | None:
        """Return what a reader is to be sent next once there is something, None at the end."""
        while True:
            if reader.after < (self._journal.last if self._ended else self._published):
                chunk = self._next(reader.after)
                reader.after = chunk.last
                return reader.coded(chunk)
            if self._ended:
                return None
            if data := await self._wait(reader):
                return data

    async def _wait(self, reader: _Reader) -> bytes:
        self._wanted.set()
        self._waiting[reader] = None
        try:
            return await reader.wait()
        finally:
            self._waiting.pop(reader, None)

    def _next(self, after: int) -> _Chunk:
        chunk = self._chunks.get(after)
        if chunk is not None:
            return chunk
        self._cut()
        entries = _unbroken(self._journal.after(after, _MOST_AT_ONCE))
        missed = entries[0].missed
        if missed and after < self._journal.lost:
            last, data = self._begin()
            data = _frame("resync", b'{"missed":%d,"snapshot":%b}' % (missed, data), last)
            return _Chunk(last, data)
        told = _frame("missed", b'{"missed":%d}' % missed, None) if missed else b""
        # To the next place where all are: from there on there is a piece for this one as well.
        entries = entries[: self._to_boundary(entries[0].sequence - 1)]
        data = b"".join(self._encode(entry, newest=True) for entry in entries)
        return _Chunk(entries[-1].sequence, told + data)

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

    def _encode(self, entry: Entry[UnitEvent], *, newest: bool) -> bytes:
        known = self._encoded.get(entry.sequence)
        if known is None:
            known = encode(str(entry.item.kind), self._describe(entry, newest), entry.sequence)
            self._encoded[entry.sequence] = known
            if len(self._encoded) > _KEPT:
                self._encoded.popitem(last=False)
        return known
