"""How processes that share a file wake each other: datagrams between sockets beside it.

Each open store has a socket in a folder that only its user can enter. After a commit it tells all
the others there what has changed. Nothing depends on that: who hears nothing looks now and then.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio

from runtime.invocation.status import InvocationStatus

from .changes import Change

_log = logging.getLogger(__name__)

#: The longest message; the kernel takes more.
MOST_BYTES: Final = 16_384
#: "Something has changed": what is sent instead of too many changes, or after some were lost.
LOOK: Final = b"look"
#: Longer than times of files stay the same while things happen: a tick of any kernel.
_TICK_NS: Final = 100_000_000


def pack(changes: list[Change]) -> bytes:
    """Return *changes* as a message."""
    told = [(each.invocation_id, each.status, each.cancel) for each in changes]
    message = json.dumps(told, separators=(",", ":")).encode()
    return message if len(message) <= MOST_BYTES else LOOK


def unpack(message: bytes) -> list[Change] | None:
    """Return the changes that a message tells, or None where it tells only that there are some."""
    if message == LOOK:
        return None
    try:
        told: Any = json.loads(message)
        return [
            Change(str(each), InvocationStatus(status), bool(cancel), elsewhere=True)
            for each, status, cancel in told
        ]
    except (ValueError, TypeError):
        return None


class Wakeups:
    """The socket of one open store; opened by `open_wakeups`.

    `tell` is for the thread that commits, the rest for the event loop.
    """

    def __init__(self, folder: Path, directory: int, own: socket.socket, name: str) -> None:
        self._folder, self._directory, self._socket, self._name = folder, directory, own, name
        self._known_at = -1
        self._in_trouble = False
        self._others: dict[str, bytes] = {}  #: what each is still to be told first

    def tell(self, changes: list[Change] | None) -> None:
        """Tell all others (None: that they are to look); who cannot take it now is told later.

        An empty list: nobody waits for what has changed, but who remembers it is to forget it.
        """
        try:
            if not self._find_others():
                return
        except OSError as error:  # too many open files, say
            if not self._in_trouble:
                words = "%s cannot be looked into, so nobody is told of changes: %s"
                _log.warning(words, self._folder, error)
            self._in_trouble, self._known_at = True, -1
            self._others = dict.fromkeys(self._others, LOOK)
            return
        self._in_trouble = False
        message = LOOK if changes is None else pack(changes)
        for name, owed in list(self._others.items()):
            self._send(name, owed or message)

    def _send(self, name: str, message: bytes) -> None:
        try:
            self._socket.sendto(message, socket.MSG_DONTWAIT, self._address(name))
        except BlockingIOError:
            self._others[name] = LOOK
        except (ConnectionRefusedError, FileNotFoundError):  # it has ended, maybe not in order
            del self._others[name]
            with suppress(OSError):
                os.unlink(name, dir_fd=self._directory)
        except OSError as error:
            _log.warning("%s/%s cannot be told of changes: %s", self._folder, name, error)
            self._others[name] = LOOK
        else:
            self._others[name] = b""

    def _find_others(self) -> bool:
        changed_at = os.fstat(self._directory).st_mtime_ns
        if changed_at != self._known_at:
            # Who comes in the same tick of the kernel's clock as this look changes that no more.
            settled = time.time_ns() - changed_at > _TICK_NS
            self._known_at = changed_at if settled else -1
            names = {each.name for each in os.scandir(self._directory)} - {self._name}
            self._others = {name: self._others.get(name, b"") for name in names}
        return bool(self._others)

    def _address(self, name: str) -> str:
        return _address(self._directory, name)

    async def run(self, tell: Callable[[list[Change] | None], None]) -> None:
        """Call *tell* with what others have changed, see `tell`; None when it is not known what."""
        while True:
            await anyio.wait_readable(self._socket)
            for changes in self._received():
                tell(changes)

    def _received(self) -> list[list[Change] | None]:
        received: list[list[Change] | None] = []
        for _ in range(100):
            try:
                received.append(unpack(self._socket.recv(MOST_BYTES + 1)))
            except BlockingIOError:
                break
        return received

    def close(self) -> None:
        """Leave the folder; who leaves it last takes it away."""
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._directory)
        self._socket.close()
        os.close(self._directory)
        with suppress(OSError):
            self._folder.rmdir()


def _address(directory: int, name: str) -> str:
    # An address has 107 bytes, less than many a path.
    return f"/proc/self/fd/{directory}/{name}"


def open_wakeups(path: str) -> Wakeups | None:
    """Return a socket beside the file *path*, or None where there cannot be one."""
    folder = Path(f"{path}-wake")
    for _ in range(10):
        try:
            return _open(folder)
        except FileNotFoundError:  # the last one has just left and taken the folder away
            continue
        except OSError as error:
            _log.warning("no wake-ups in %s: %s", folder, error)
            return None
    return None


def _look_at_owner(directory: int) -> None:
    """Raise `PermissionError` where others could send something: what is said is believed."""
    owner = os.fstat(directory)
    if owner.st_uid != os.geteuid() or owner.st_mode & 0o077:
        raise PermissionError("others may enter it; remove it, or give it mode 0700")


def _open(folder: Path) -> Wakeups:
    folder.mkdir(mode=0o700, exist_ok=True)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        _look_at_owner(directory)
        own.setblocking(False)
        name = secrets.token_hex(8)
        own.bind(_address(directory, name))
    except BaseException:
        own.close()
        os.close(directory)
        raise
    return Wakeups(folder, directory, own, name)
