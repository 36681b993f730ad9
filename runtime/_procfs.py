# ruff: noqa: PTH110, PTH115, PTH208
"""What Linux's ``/proc`` says of processes.

Everything here is a snapshot: a process may be gone, or have a new parent, before the caller looks
at the answer. Who needs to be sure that nothing is left asks until the answer is empty. A process
that is gone, or that may not be looked at, is not there; nothing here raises because of it.

On a platform without ``/proc`` every list is empty and no process is ever found.

Plain paths instead of `pathlib`: this is asked often, and imported before anything else.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple

#: The variables that tell whose a process is: they are in the environment of each, and all below.
TREE_VARIABLE: Final = "RUNTIME_TREE"
UNIT_VARIABLE: Final = "RUNTIME_UNIT"
MARKERS: Final = frozenset({TREE_VARIABLE, UNIT_VARIABLE})
#: What is said to who would set one of them.
MARKER_IS_OURS: Final = "is ours to set, for it tells whose a process is; leave it out"

_CHUNK = 65_536
_LISTENS = b"0A"
_LONGEST_TITLE = 60


def _in_hex(address: bytes) -> bytes:
    """Return an address as the kernel's tables of sockets have it: words in the host's order."""
    words = (address[i : i + 4] for i in range(0, len(address), 4))
    return b"".join(b"%08X" % int.from_bytes(word, sys.byteorder) for word in words)


def _from_hex(address: bytes) -> bytes:
    """Return an address in network order, of one that the kernel's tables have."""
    words = (int(address[i : i + 8], 16) for i in range(0, len(address), 8))
    return b"".join(word.to_bytes(4, sys.byteorder) for word in words)


_LOOPBACK = bytes([127, 0, 0, 1])
# What a socket may be bound to that this host reaches as itself: any address, or the loopback.
_HERE = {
    _in_hex(address)
    for address in (
        bytes(4),
        _LOOPBACK,
        bytes(16),
        bytes(15) + b"\1",
        bytes(10) + b"\xff\xff" + _LOOPBACK,
    )
}


class Member(NamedTuple):
    """One process, told apart from a later one that was given the same pid."""

    pid: int
    start_ticks: int  #: when it started, in clock ticks since the host did


class Stat(NamedTuple):
    """What ``/proc/PID/stat`` says of a process's place among the others."""

    pid: int
    parent: int
    group: int
    session: int
    state: str  #: one letter; ``Z`` and ``X`` have ended
    start_ticks: int

    @property
    def member(self) -> Member:
        """The process itself, whatever becomes of its place."""
        return Member(self.pid, self.start_ticks)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet; a zombie has."""
        return self.state not in "ZX"


def read_stat(pid: int) -> Stat | None:
    """Return where process *pid* stands, or None when there is no such process."""
    # The command's name is in parentheses and may itself hold spaces and parentheses.
    _, _, after_name = _read(f"/proc/{pid}/stat").rpartition(b") ")
    fields = after_name.split()
    if not fields:
        return None
    state, (parent, group, session) = fields[0].decode(), map(int, fields[1:4])
    return Stat(pid, parent, group, session, state, start_ticks=int(fields[19]))


def read_name(pid: int) -> str:
    """Return the command's name as the kernel keeps it (15 bytes), or "?"."""
    return _read(f"/proc/{pid}/comm").decode(errors="replace").strip() or "?"


def read_title(pid: int) -> str:
    """Return what a process calls itself: "nginx: worker process" where it says so, else its name.

    A server writes its title over its arguments, in this form.
    """
    title = _read(f"/proc/{pid}/cmdline").partition(b"\0")[0].strip()
    if b": " not in title:
        return read_name(pid)
    return title[:_LONGEST_TITLE].decode(errors="replace")


def list_children(pid: int, *, one_thread: bool = False) -> list[int]:
    """Return the pids of the children of all threads of *pid*, zombies among them.

    With *one_thread* it is known to have no other thread than its first.
    """
    if not _kernel_lists_children():
        return [stat.pid for stat in list_processes() if stat.parent == pid]
    threads = [pid] if one_thread else _list_numbers(f"/proc/{pid}/task")
    listed = (_read(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for children in listed for child in children.split()]


def where_pids_mean_the_same() -> str:
    """Return what names this boot of the host and this PID namespace, nothing if unknown."""
    boot = _read("/proc/sys/kernel/random/boot_id").decode(errors="replace").strip()
    namespace = _read_link("/proc/self/ns/pid")
    return f"{boot} {namespace}" if boot and namespace else ""


def list_pids() -> list[int]:
    """Return the pid of every process that may be seen from here."""
    return _list_numbers("/proc")


def list_descendants(roots: Iterable[int]) -> list[Stat]:
    """Return everything that is below the *roots*, themselves not included, parents first."""
    to_visit = list(roots)
    seen = set(to_visit)
    found: list[Stat] = []
    for parent in to_visit:  # grows as we go
        for pid in list_children(parent):
            if pid not in seen and (stat := read_stat(pid)) is not None:
                seen.add(pid)
                found.append(stat)
                to_visit.append(pid)
    return found


def list_processes() -> list[Stat]:
    """Return every process that may be seen from here."""
    return [stat for pid in list_pids() if (stat := read_stat(pid)) is not None]


def has_environ(pid: int, entry: bytes, *, prefix: bool = False) -> bool:
    """Return whether *pid* was started with ``NAME=value`` as an entry of its environment.

    With *prefix* an entry that begins with *entry* is enough. False when the environment may not
    be read, and once the process has ended. A process just forked still shows its parent's, and for
    a moment in the midst of exec none at all: who looks for a newborn looks twice.
    """
    environ = b"\0" + _read(f"/proc/{pid}/environ") + b"\0"
    return b"\0" + entry + (b"" if prefix else b"\0") in environ


def holds_pipe(pid: int, inode: int) -> bool:
    """Return whether *pid* has an end of the pipe with that *inode* open."""
    return f"pipe:[{inode}]" in _list_links(pid)


def list_sockets(pid: int) -> set[int]:
    """Return the inodes of the sockets that *pid* has open, none if it may not be looked at."""
    return _sockets_among(_list_links(pid))


def count_open(pid: int) -> tuple[int, set[int]] | None:
    """Return how many descriptors *pid* has open, and the inodes of the sockets among them.

    None when there is no such process, or it may not be looked at.
    """
    try:
        os.scandir(f"/proc/{pid}/fd").close()
    except OSError:
        return None
    links = _list_links(pid)
    return len(links), _sockets_among(links)


def _sockets_among(links: Iterable[str]) -> set[int]:
    prefix = "socket:["
    return {int(link[len(prefix) : -1]) for link in links if link.startswith(prefix)}


def list_listeners(port: int) -> set[int]:
    """Return the inodes of the sockets that take what comes for *port* from this very host.

    It is our network namespace that is asked, and IPv4 and IPv6.
    """
    return {inode for inode, (address, at) in _listening() if at == port and address in _HERE}


def list_listening() -> dict[int, tuple[bytes, int]]:
    """Return the address (in network order) and port of each listening socket, by its inode.

    It is our network namespace that is asked, once for all, and TCP over IPv4 and IPv6.
    """
    return {inode: (_from_hex(address), port) for inode, (address, port) in _listening()}


def _listening() -> Iterator[tuple[int, tuple[bytes, int]]]:
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _read(path, until=_no_listener).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTENS:
                break  # the listening ones come first, then all connections of the host
            address, _, number = fields[1].partition(b":")
            yield int(fields[9]), (address, int(number, 16))


def _no_listener(text: bytes) -> bool:
    """Return whether the last whole line of a table of sockets is of one that is connected."""
    lines = text.splitlines()[1:-1]
    return bool(lines) and lines[-1].split()[3:4] != [_LISTENS]


def send_signal(member: Member, signum: int) -> bool:
    """Send *signum* to that process and to no other; return whether it was sent.

    False when the process is gone, its pid recycled perhaps, and when the kernel does not let us
    (a set-user-ID program).
    """
    pidfd = None
    try:
        pidfd = _open_pidfd(member.pid)
        # From here on the descriptor means one process for good; is it the one we were told?
        stat = read_stat(member.pid)
        if stat is None or stat.member != member:
            return False
        if pidfd is None:
            os.kill(member.pid, signum)
        else:
            signal.pidfd_send_signal(pidfd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def kill_groups(groups: Iterable[int]) -> None:
    """SIGKILL all that is in these process groups.

    A whole group dies at one stroke, which one by one would never catch up with what forks faster
    than we look.
    """
    for group in groups:
        if group > 1:  # 1 would mean everybody
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def _open_pidfd(pid: int) -> int | None:
    """Return a descriptor of *pid*, or None where there are none to be had."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:  # an old kernel, a sandbox that forbids it, no descriptor left
        return None


@cache
def _kernel_lists_children() -> bool:
    """Return whether the kernel was built to say who is whose child."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _read(path: str, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """Return what is in *path*, nothing if it may not be read or its process is gone.

    It is read to the end, or until what has been read so far is enough.
    """
    # A third of the time that a file object takes, for what is read at the end of every process.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    found = b""
    try:
        while chunk := os.read(fd, _CHUNK):
            found += chunk
            if until(found):
                break
    except OSError:
        return b""
    finally:
        os.close(fd)
    return found


def _list_links(pid: int) -> list[str]:
    """Return what the descriptors of *pid* lead to."""
    return [_read_link(f"/proc/{pid}/fd/{fd}") for fd in _list_numbers(f"/proc/{pid}/fd")]


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _list_numbers(path: str) -> list[int]:
    """Return the entries of *path* that are numbers: processes, threads, descriptors."""
    try:
        return [int(name) for name in os.listdir(path) if name.isdecimal()]
    except OSError:
        return []
