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
from typing import Final

_REQUEST: Final = b"GET /events HTTP/1.0\r\nhost: localhost\r\n\r\n"
_HEAD: Final = re.compile(rb"id: (\d+)\nevent: (\w+)\n")


class Reader:
    """One client; it keeps the number of the last event and counts."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(_REQUEST)
        self._rest = b""
        self.last = self.events = self.gaps = self.told = 0

    def read(self) -> None:
        """Take what is there."""
        piece = self.socket.recv(262_144)
        if not piece:
            raise ConnectionError("the server has closed a stream")
        whole, end, rest = (self._rest + piece).rpartition(b"\n\n")
        self._rest = rest
        for number, kind in _HEAD.findall(whole + end):
            self._take(int(number), resync=kind == b"resync")

    def _take(self, number: int, *, resync: bool) -> None:
        self.events += 1
        if self.last and number != self.last + 1:
            self.gaps += 1
            self.told += resync
        self.last = number


def main(port: int, count: int) -> None:
    """Follow with *count* clients."""
    os.nice(19)  # what is measured is the server: its clients give way to it
    readers = [Reader(port) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.socket, selectors.EVENT_READ, reader)
        selector.register(sys.stdin, selectors.EVENT_READ)
        begun, goal = False, None
        while goal is None or any(reader.last < goal for reader in readers):
            for key, _ in selector.select():
                if key.data is not None:
                    key.data.read()
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
