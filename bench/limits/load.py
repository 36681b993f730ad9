"""A client that costs little: requests that are ready as bytes, on connections that stay open."""

import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

CONNECTIONS: Final = 16
_END: Final = b"\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 "
_LENGTH: Final = b"\r\ncontent-length:"


class Load:
    """Connections to a server of this host, each with one request under way at a time.

    Answers have to be 200 and to have a length. Each run has connections of its own: a server may
    close one after some thousand requests.
    """

    def __init__(self, port: int, path: str, connections: int = CONNECTIONS) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
        self.size = 0  #: bytes of the body of the last answer
        self._port, self._connections = port, connections

    def run(self, seconds: float) -> list[float]:
        """Ask for so long on all connections; return how many seconds each answer took."""
        with ExitStack() as stack:
            return self._ask([self._connect(stack) for _ in range(self._connections)], seconds)

    def _connect(self, stack: ExitStack) -> socket.socket:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _ask(self, connections: Sequence[socket.socket], seconds: float) -> list[float]:
        taken: list[float] = []
        asked: dict[socket.socket, float] = {}
        with selectors.DefaultSelector() as selector:
            for each in connections:
                selector.register(each, selectors.EVENT_READ, bytearray())
                asked[each] = time.perf_counter()
                each.sendall(self.request)
            until = time.perf_counter() + seconds
            while asked:
                for key, _ in selector.select():
                    connection: socket.socket = key.fileobj  # type: ignore[assignment]
                    if not self._take(connection, key.data):
                        continue
                    now = time.perf_counter()
                    taken.append(now - asked.pop(connection))
                    if now < until:
                        asked[connection] = now
                        connection.sendall(self.request)
        return taken

    def _take(self, connection: socket.socket, buffer: bytearray) -> bool:
        """Return whether the answer on *connection* is whole now."""
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionError("the server has closed a connection")
        buffer += piece
        head = buffer.find(_END)
        if head < 0:
            return False
        self.size = _find_length(bytes(buffer[: head + 2]))
        if len(buffer) < head + len(_END) + self.size:
            return False
        if not buffer.startswith(_OK):
            raise ConnectionError(f"the server answered {bytes(buffer[:head])!r}")
        buffer.clear()
        return True


def _find_length(head: bytes) -> int:
    place = head.lower().index(_LENGTH) + len(_LENGTH)
    return int(head[place : head.index(b"\r\n", place)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
