"""Just enough of a client for PostgreSQL and for Redis, so that nothing need be installed."""

import ctypes
import socket
from contextlib import suppress
from typing import BinaryIO


class StoreError(Exception):
    """A store cannot be asked now."""


libpq = ctypes.CDLL("libpq.so.5")  # PostgreSQL's own client library, which psql uses as well
for function, result, arguments in (
    ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
    ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
    ("PQreset", None, [ctypes.c_void_p]),
    ("PQerrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
    ("PQexec", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
    ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    ("PQclear", None, [ctypes.c_void_p]),
):
    getattr(libpq, function).restype = result
    getattr(libpq, function).argtypes = arguments
CONNECTION_OK, TUPLES_OK = 0, 2


class Postgres:
    """A connection to a database; one that was lost is made anew."""

    def __init__(self, conninfo: str) -> None:
        self._connection = libpq.PQconnectdb(conninfo.encode())

    def value(self, query: str) -> str:
        """Return the first field of the first row that *query* finds, or raise `StoreError`."""
        for _ in range(2):  # only the asking shows whether the connection is lost
            if libpq.PQstatus(self._connection) != CONNECTION_OK:
                libpq.PQreset(self._connection)
            result = libpq.PQexec(self._connection, query.encode())
            try:
                if libpq.PQresultStatus(result) == TUPLES_OK:
                    return libpq.PQgetvalue(result, 0, 0).decode()
            finally:
                libpq.PQclear(result)
        raise StoreError(libpq.PQerrorMessage(self._connection).decode().strip())


class Redis:
    """A connection to Redis; one that was lost is made anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: BinaryIO | None = None

    def increment(self, key: str) -> int:
        """Add one to the counter *key* and return it, or raise `StoreError`."""
        problem = ""
        for _ in range(2):  # only the asking shows whether the connection is lost
            try:
                return int(self._ask(f"INCR {key}").removeprefix(":"))
            except (OSError, ValueError) as error:
                problem = str(error)
                self._close()
        raise StoreError(f"Redis on port {self._port}: {problem}")

    def _ask(self, command: str) -> str:
        if self._stream is None:
            with socket.create_connection(("127.0.0.1", self._port), timeout=2) as connection:
                self._stream = connection.makefile("rwb")
        self._stream.write(f"{command}\r\n".encode())
        self._stream.flush()
        return self._stream.readline().decode().strip()

    def _close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # what was not written is not written now either
                self._stream.close()
        self._stream = None
