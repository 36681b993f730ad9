"""Looks at what processes use: blocking, for a worker thread.

psutil reads cpu and memory of each. Who descends from whom is asked of the kernel directly:
`psutil.Process.children` reads the whole host's processes each time, for each process, and
`psutil.Process.net_connections` the whole host's connections.
"""

import os
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, final

from runtime import _late, _procfs
from runtime._procfs import Member, Stat

from .usage import Reading, Use

if TYPE_CHECKING:
    import psutil

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_TICKS_PER_SEC: Final = os.sysconf("SC_CLK_TCK")
# Between two processes, for the event loop: from a thread that lets go of the interpreter for short
# calls only, it would have it back after 5 ms each time.
_BREATH_SEC: Final = 0.000_05


@final
class Meter:
    """Takes readings, for one thread at a time; what psutil needs again is kept in between."""

    def __init__(self) -> None:
        self._handles: dict[Member, psutil.Process] = {}

    def read(self, pids: Mapping[str, int], details: Collection[str] = ()) -> dict[str, Reading]:
        """Return what each process and its descendants use, by the name that it has in *pids*.

        Those named in *details* are asked for open files and listening ports as well. A process
        that is gone, has ended, or may not be looked at is left out.
        """
        listening = _procfs.list_listening() if details else {}
        handles, self._handles = self._handles, {}  # what is not looked at again is forgotten
        readings: dict[str, Reading] = {}
        for name, pid in pids.items():
            time.sleep(_BREATH_SEC)
            reading = self._read_family(pid, handles)
            if reading is not None:
                asked = name in details
                readings[name] = _with_details(reading, listening) if asked else reading
        return readings

    def _read_family(self, pid: int, handles: Mapping[Member, "psutil.Process"]) -> Reading | None:
        # Without /proc nothing is known of its place, and it is taken to have no descendants.
        root = _procfs.read_stat(pid) or Stat(pid, 0, 0, 0, "?", 0)
        at = time.clock_gettime(_CLOCK)
        members: dict[Member, Use] = {}
        for stat in [root, *_procfs.list_descendants([pid])] if root.alive else []:
            use = self._read_one(stat, handles)
            if use is not None:
                members[stat.member] = use
        return (
            Reading(at=at, leader=root.member, members=members) if root.member in members else None
        )

    def _read_one(self, stat: Stat, handles: Mapping[Member, "psutil.Process"]) -> Use | None:
        loaded = _late.psutil()
        try:
            handle = handles.get(stat.member) or loaded.Process(stat.pid)
            times, memory = handle.cpu_times(), handle.memory_info().rss
        except loaded.Error:  # it has ended meanwhile, or is not ours to look at
            return None
        self._handles[stat.member] = handle
        own = times.user + times.system
        whole = own + times.children_user + times.children_system
        return Use(own, whole, memory, stat.start_ticks / _TICKS_PER_SEC, stat.alive)


def _with_details(reading: Reading, listening: Mapping[int, tuple[bytes, int]]) -> Reading:
    looks = [
        found for member in reading.members if (found := _procfs.count_open(member.pid)) is not None
    ]
    if not looks:
        return reading
    sockets = set().union(*(inodes for _, inodes in looks))
    return Reading(
        at=reading.at,
        leader=reading.leader,
        members=reading.members,
        open_files=sum(number for number, _ in looks),
        listening=_in_words(listening[inode] for inode in sockets & listening.keys()),
    )


def _in_words(addresses: Iterable[tuple[bytes, int]]) -> tuple[str, ...]:
    """Return addresses and ports as ``127.0.0.1:80`` and ``[::1]:80``, by port."""
    found: set[tuple[int, str]] = set()
    for address, port in addresses:
        if len(address) == 4:
            host = socket.inet_ntop(socket.AF_INET, address)
        else:
            host = f"[{socket.inet_ntop(socket.AF_INET6, address)}]"
        found.add((port, f"{host}:{port}"))
    return tuple(words for _, words in sorted(found))
