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
from contextlib import suppress
from pathlib import Path
from typing import Final

_REQUEST: Final = b"GET /events HTTP/1.0\r\nhost: localhost\r\n\r\n"
_HEAD: Final = re.compile(rb"id: (\d+)\nevent: (\w+)\n")
_ID: Final = b"\nid: "
_MOST_AT_ONCE: Final = 2**20


class Reader:
    """One client; it keeps the number of the last event and counts."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(_REQUEST)
        self._rest = b""
        self.last = self.events = self.gaps = self.told = 0

    def read(self, room: memoryview) -> None:
        """Take what is there, by way of *room*."""
        size = self.socket.recv_into(room)
        if not size:
            raise ConnectionError("the server has closed a stream")
        whole, end, self._rest = (self._rest + room[:size]).rpartition(b"\n\n")
        whole += end
        if not self._take_row(whole):
            for number, kind in _HEAD.findall(whole):
                self._take(int(number), resync=kind == b"resync")

    def _take_row(self, whole: bytes) -> bool:
        """Take events as a row without a gap; return whether they are one.

        The first and the last are looked at and the others counted: what a client uses of a machine
        of few cores, the server lacks.
        """
        first = _HEAD.search(whole)
        if first is None or first[2] == b"resync" or int(first[1]) != self.last + 1:
            return False
        count = whole.count(_ID) + whole.startswith(_ID[1:])
        last = _HEAD.match(whole, whole.rfind(_ID) + 1) or first
        if int(last[1]) != self.last + count:
            return False
        self.events, self.last = self.events + count, self.last + count
        return True

    def _take(self, number: int, *, resync: bool) -> None:
        self.events += 1
        if self.last and number != self.last + 1:
            self.gaps += 1
            self.told += resync
        self.last = number


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
        begun, goal = False, None
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
    sums = (sum(each) for each in zip(*((r.events, r.gaps, r.told) for r in readers), strict=True))
    print(*sums, min(reader.events for reader in readers), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
