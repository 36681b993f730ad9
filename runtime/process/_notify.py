"""What a process tells of itself through a socket, by the protocol of sd_notify.

The protocol is described in the manual pages sd_notify(3) and sd_watchdog_enabled(3) of systemd: a
datagram has lines ``NAME=value``, and goes to the socket that NOTIFY_SOCKET names.

The name of ours is abstract (Linux): there is no file that could be left behind, or that a process
of another user could not reach. So anybody on this host may send to it who knows the name, which is
random; who has sent is what the kernel says.
"""

import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Final, final

import trio

from runtime import _procfs
from runtime._procfs import Member
from runtime.supervision.unit import UnitHandle

from .child import Child
from .family import Family

#: The variables that a process which may tell something is given.
SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"

#: Whether there are such sockets, and the kernel says who has sent.
SUPPORTED: Final = hasattr(socket, "SO_PASSCRED")

_LARGEST = 4096  # of a datagram; as with systemd
_LONGEST_STATUS = 200
_LONGEST_NUMBER = 18  # digits
# So many datagrams at a time. Who sends more waits, for the kernel queues a few for it only.
_BATCH = 64
_PAUSE_SEC = 0.01
_MOST_BATCHES = 16
_MOST_SENDERS = 1_000  # that are remembered
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid


def parse_notice(datagram: bytes) -> Iterator[tuple[str, str]]:
    """Yield the assignments of a datagram; what is none is left out, as is what is no UTF-8."""
    for line in datagram.decode(errors="replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            yield name, value


class Notices:
    """What one generation of a process has told so far."""

    ready: trio.Event
    stopping: trio.Event
    gave_up: trio.Event  #: it has asked to be ended as if its watchdog had expired
    alive_at: float  #: its last sign of life, on Trio's clock
    status_text: str
    #: What EXTEND_TIMEOUT_USEC puts off: the wait for it to be ready, or to be over.
    patience: trio.CancelScope | None
    extended: bool

    def __init__(self, on_status: Callable[[str], object] = lambda _: None) -> None:
        self.ready, self.stopping, self.gave_up = trio.Event(), trio.Event(), trio.Event()
        self.alive_at, self.status_text = 0.0, ""
        self.patience, self.extended = None, False
        self._on_status = on_status

    def take(self, datagram: bytes) -> None:
        """Take what a datagram says; what is not known is nothing."""
        for name, value in parse_notice(datagram):
            if name == "STATUS":
                self.status_text = _printable(value)
                self._on_status(self.status_text)
            elif name == "EXTEND_TIMEOUT_USEC":
                self._extend(value)
            elif name == "WATCHDOG":
                self._note_watchdog(value)
            elif value == "1" and name == "READY":
                self.ready.set()
            elif value == "1" and name == "STOPPING":
                self.stopping.set()

    def _note_watchdog(self, value: str) -> None:
        if value == "1":
            self.alive_at = trio.current_time()
        elif value == "trigger":
            self.gave_up.set()

    def _extend(self, value: str) -> None:
        is_number = value.isascii() and value.isdecimal() and len(value) <= _LONGEST_NUMBER
        if is_number and self.patience is not None:
            until = trio.current_time() + int(value) / 1e6
            self.extended = self.extended or until > self.patience.deadline
            self.patience.deadline = max(self.patience.deadline, until)


def _printable(text: str) -> str:
    shown = "".join(each if each.isprintable() else " " for each in text[: _LONGEST_STATUS + 1])
    whole = " ".join(shown.split())
    return whole if len(text) <= _LONGEST_STATUS else whole[: _LONGEST_STATUS - 1] + "…"


@final
class NotifySocket:
    """The socket of one generation of a process.

    Taken is what the process sends, or one of its family. A sender that has ended before it could
    be looked at, as the command of a shell script may have, is known by its user only: that of the
    process (*uid*), or root. All others are ignored, and the first of them is noted. Descriptors
    that come along are closed by the kernel.
    """

    variables: Mapping[str, str]
    notices: Notices

    def __init__(self, unit: UnitHandle, *, uid: int, watchdog_sec: float | None = None) -> None:
        name = f"runtime-{token_hex(16)}"
        self._unit, self._uids = unit, {uid, 0}
        self._senders: set[Member] = set()
        self._told = False
        self.notices = Notices(unit.report_status_text)
        self.variables = {SOCKET_VARIABLE: f"@{name}"}
        if watchdog_sec is not None:
            self.variables[WATCHDOG_VARIABLE] = str(round(watchdog_sec * 1e6))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind(f"\0{name}")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket; who still waits to send gets an error."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def listen(self, child: Child) -> None:
        """Take what is told, for ever. A flood is taken in bits, and keeps its senders waiting."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if self.take_waiting(child.family) == _BATCH:
                await trio.sleep(_PAUSE_SEC)

    def take_all_waiting(self, family: Family) -> None:
        """Take what has come and was not taken yet, as far as the kernel queues it."""
        for _ in range(_MOST_BATCHES):
            if self.take_waiting(family) < _BATCH:
                return

    def take_waiting(self, family: Family) -> int:
        """Take what has come and was not taken yet, a batch at most; return how much that was."""
        for count in range(_BATCH):
            try:
                self._take_one(family)
            except BlockingIOError:
                return count
        return _BATCH

    def _take_one(self, family: Family) -> None:
        # There is room for the credentials only: descriptors that are sent along are not installed.
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        datagram, extras, flags, _ = self._socket.recvmsg(
            _LARGEST, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
        pid, uid = 0, -1
        for level, kind, data in extras:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, uid, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
        if flags & socket.MSG_TRUNC:
            self._ignore(f"a message of pid {pid}, which is longer than {_LARGEST} bytes")
        elif self._is_ours(pid, uid, family):
            self.notices.take(datagram)
        else:
            name = _procfs.read_name(pid)
            self._ignore(f"what pid {pid} ({name}) of user {uid} tells, which is not part of it")

    def _is_ours(self, pid: int, uid: int, family: Family) -> bool:
        if pid <= 0:  # somebody outside of our pid namespace
            return False
        stat = _procfs.read_stat(pid)
        if stat is None:
            return uid in self._uids
        if stat.member in self._senders:
            return True
        if not family.includes(pid):
            return False
        if len(self._senders) >= _MOST_SENDERS:
            self._senders.clear()
        self._senders.add(stat.member)
        return True

    def _ignore(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._unit.note(f"ignores {what}")


@asynccontextmanager
async def open_notify_socket(
    unit: UnitHandle, *, wanted: bool, uid: int | None, watchdog_sec: float | None
) -> AsyncGenerator[NotifySocket | None]:
    """Hold a socket open for a process of that user (None: ours), or nothing if none is *wanted*.

    Raises `OSError` when there is none to be had.
    """
    if not wanted:
        yield None
        return
    uid = os.geteuid() if uid is None else uid
    notify = NotifySocket(unit, uid=uid, watchdog_sec=watchdog_sec)
    try:
        yield notify
    finally:
        notify.close()
