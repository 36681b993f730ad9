"""``python -m bench.limits.readers PORT COUNT``: clients that follow the events of a tree.

It says when all of them have begun. Told a number, it reads on until each of them has the event of
that number, and prints how many events they had, how many gaps, and how many of these they were
told of.
"""

import os
import re
import selectors
import socket
import sys
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

_REQUEST: Final = b"GET /events HTTP/1.0\r\nhost: localhost\r\naccept-encoding: gzip\r\n\r\n"
_GZIP_HEAD_BYTES: Final = 10
_FLUSHED: Final = b"\0\0\xff\xff"  # where a piece ends
_HEAD_END: Final = b"\r\n\r\n"
_EVENT: Final = re.compile(rb"^id: (\d+)\nevent: (\w+)\n", re.MULTILINE)
_MOST_AT_ONCE: Final = 2**20
_COUNTED: Final = ("events", "gaps", "told")


class Row(NamedTuple):
    """Events of numbers without a gap between them."""

    first: int
    last: int
    resync: bool  #: whether it begins with that


@lru_cache(maxsize=32)
def _rows(pieces: bytes) -> list[Row]:
    """Return what is in whole pieces of a stream.

    All clients are sent the same ones, and each is looked at once: what clients use of a machine of
    few cores, the server lacks.
    """
    rows: list[Row] = []
    for number, kind in _EVENT.findall(zlib.decompressobj(-zlib.MAX_WBITS).decompress(pieces)):
        event = Row(int(number), int(number), kind == b"resync")
        if rows and event.first == rows[-1].last + 1 and not event.resync:
            rows[-1] = rows[-1]._replace(last=event.last)
        else:
            rows.append(event)
    return rows


class Reader:
    """One client; it keeps the number of the last event and counts."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(_REQUEST)
        self._begun = False
        self._coded = b""
        self.last = self.events = self.gaps = self.told = 0

    def read(self, room: memoryview) -> None:
        """Take what is there, by way of *room*."""
        size = self.socket.recv_into(room)
        if not size:
            raise ConnectionError("the server has closed a stream")
        self._coded += room[:size]
        if not self._coded.endswith(_FLUSHED):
            return
        if not self._begun:
            self._begun = True
            self._coded = self._coded.partition(_HEAD_END)[2][_GZIP_HEAD_BYTES:]
        pieces, self._coded = self._coded, b""
        for row in _rows(pieces):
            self._take(row)

    def _take(self, row: Row) -> None:
        if self.last and row.first != self.last + 1:
            self.gaps += 1
            self.told += row.resync
        self.events += row.last - row.first + 1
        self.last = row.last


def _give_way() -> None:
    """Let all others have the cpu first.

    Where the kernel groups the processes of each session, a priority counts within the group alone,
    and the group has one of its own.
    """
    os.setsid()
    os.nice(5)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("5")


def main(port: int, count: int) -> None:
    """Follow with *count* clients."""
    _give_way()  # what is measured is the server
    readers = [Reader(port) for _ in range(count)]
    room = memoryview(bytearray(_MOST_AT_ONCE))
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.socket, selectors.EVENT_READ, reader)
        selector.register(sys.stdin, selectors.EVENT_READ)
        begun, goal = not readers, None
        if begun:
            print("begun", flush=True)
        while goal is None or any(reader.last < goal for reader in readers):
            for key, _ in selector.select():
                if key.data is not None:
                    key.data.read(room)
                else:
                    goal = int(sys.stdin.readline() or 0)
                    selector.unregister(sys.stdin)
            if not begun and all(reader.last for reader in readers):
                begun = True
                print("begun", flush=True)
    for reader in readers:
        reader.socket.close()
    sums = [sum(getattr(reader, what) for reader in readers) for what in _COUNTED]
    print(*sums, min((reader.events for reader in readers), default=0), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
