"""How a runner and its worker processes talk: JSON objects, each behind its length in 4 bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def pack(message: dict[str, Any]) -> bytes:
    """Return *message* as it is sent."""
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Puts messages together, in whatever pieces they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes | bytearray) -> dict[str, Any] | None:
        """Take *piece* in; return the message that is complete then, if any.

        One message at a time is on its way: each is answered before the next one is sent.
        """
        self._buffer += piece
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        message: dict[str, Any] = json.loads(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return message
