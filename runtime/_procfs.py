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
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

_CHUNK = 65_536


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


def list_children(pid: int, *, one_thread: bool = False) -> list[int]:
    """Return the pids of the children of all threads of *pid*, zombies among them.

    With *one_thread* it is known to have no other thread than its first.
    """
    if not _kernel_lists_children():
        return [stat.pid for stat in list_processes() if stat.parent == pid]
    threads = [pid] if one_thread else _list_numbers(f"/proc/{pid}/task")
    listed = (_read(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for children in listed for child in children.split()]


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
    wanted = f"pipe:[{inode}]"
    return any(
        _read_link(f"/proc/{pid}/fd/{fd}") == wanted for fd in _list_numbers(f"/proc/{pid}/fd")
    )


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


def _read(path: str) -> bytes:
    """Return what is in *path*, nothing if it may not be read or its process is gone."""
    # A third of the time that a file object takes, for what is read at the end of every process.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    found = b""
    try:
        while chunk := os.read(fd, _CHUNK):
            found += chunk
    except OSError:
        return b""
    finally:
        os.close(fd)
    return found


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
