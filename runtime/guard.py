"""The guard: a small process above the runtime that outlives it and leaves nothing behind.

`open_guard` forks. The parent, which the shell or the container started and waits for, becomes the
guard; the child goes on as the runtime. As *child subreaper* the guard inherits whatever loses its
parent below the runtime, so that a process may call setsid, fork twice and clean its environment,
and still has the guard above it when the runtime has ended, however that came about. The guard
then kills all of it and ends with the runtime's own exit status.

The guard blocks every signal before the fork and takes them one at a time with ``sigwait``. Hence
no signal is lost between fork and loop, no default action is relied on (PID 1 has none), nothing
polls, and nothing but SIGKILL and SIGSTOP can touch it: Ctrl-Z does not stop the guard alone.

Two channels connect the halves. The guard holds the write end of a pipe, so that the runtime reads
end of file when the guard has died. And it holds one end of a socket pair whose messages it leaves
in the queue: the kernel keeps a descriptor that is under way open, until the guard, the last to
leave, takes the queue with it.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Final, NoReturn, final

from runtime._procfs import (
    Stat,
    kill_groups,
    list_children,
    list_descendants,
    read_name,
    read_stat,
    send_signal,
)

LAST_WAIT_SEC: Final = 5.0
"""How long the guard waits for what it has killed to be gone, before it names it and leaves."""

PATIENCE: Final = 3
"""Which request to stop (SIGINT or SIGTERM) kills the runtime instead of being forwarded."""

_STOP: Final = frozenset({signal.SIGINT, signal.SIGTERM})
_FORWARDED: Final = _STOP | {signal.SIGHUP, signal.SIGQUIT}
_AWAITED: Final = _FORWARDED | {signal.SIGCHLD}

# A death can be hidden from us by a subreaper of its own that refuses to die; look again then.
_LOOK_AGAIN_SEC: Final = 0.1

_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36


@final
class Guard:
    """The runtime's hold on its guard; only `open_guard` makes one."""

    __slots__ = ("_deposit", "_life", "_session", "pid", "subreaper")

    def __init__(self, pid: int, session: int, life: int, deposit: int, *, subreaper: bool) -> None:
        self.pid: Final = pid
        """The guard's pid: what the shell knows this program by."""
        self.subreaper: Final = subreaper
        """Whether the guard inherits orphans; False where the platform has no such thing."""
        self._session = session
        self._life = life
        self._deposit = deposit

    def fileno(self) -> int:
        """Return a descriptor that becomes readable, with end of file, once the guard has died."""
        return self._life

    def is_alive(self) -> bool:
        """Return whether the guard is still there, without waiting."""
        poll = select.poll()
        poll.register(self._life, select.POLLIN)
        return not poll.poll(0)

    def hold(self, fd: int) -> None:
        """Have the guard keep open what *fd* refers to, until the whole tree is gone.

        The caller may close *fd* right after. Raises `OSError` when the guard has died.
        """
        with socket.socket(fileno=os.dup(self._deposit)) as deposit:
            socket.send_fds(deposit, [b"\0"], [fd])

    def orphans(self) -> list[int]:
        """Return the pids of the runtime's descendants that the guard has inherited.

        Zombies are among them until the guard has reaped them. As PID 1 of a container the guard
        inherits the orphans of others as well (``docker exec``), and they are listed here.
        """
        runtime = os.getpid()
        others = [pid for pid in list_children(self.pid, one_thread=True) if pid != runtime]
        return [stat.pid for stat in _inherited(others, self._session)]


def open_guard() -> Guard:
    """Go on below a guard: return in a child of the calling process, which becomes the guard.

    The child leads a session of its own, so that a terminal's signals reach the guard only. The
    guard forwards SIGINT, SIGTERM, SIGHUP and SIGQUIT; the third request to stop kills the runtime
    instead. When the runtime has ended, the guard kills everything that is left below it and ends
    with the same exit status, 128 + n if signal n ended the runtime.

    To be called once, before there are threads, or `RuntimeError`. When no process can be forked
    `OSError` travels and the caller is what it was.
    """
    if _count_threads() > 1:
        raise RuntimeError("open_guard() forks, and must be called before there are threads")
    guard, session = os.getpid(), os.getsid(0)
    life, guards_life = os.pipe()
    deposit, guards_deposit = (end.detach() for end in socket.socketpair())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # inherited; it would cost us the status
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    subreaper = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        runtime = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        for fd in (life, guards_life, deposit, guards_deposit):
            os.close(fd)
        raise
    if runtime != 0:
        os.close(life)
        os.close(deposit)
        _become_guard(runtime, guards_deposit)
    os.close(guards_life)
    os.close(guards_deposit)
    _leave_terminal()
    os.write(deposit, b"\0")
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Guard(guard, session, life, deposit, subreaper=subreaper)


def _count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 -- pathlib is not imported yet
    except OSError:
        threading = sys.modules.get("threading")
        return 1 if threading is None else int(threading.active_count())


def _prctl(option: int, argument: int | bytes) -> bool:
    """Return whether the kernel did as told; False on a platform that has no prctl."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(option, argument, 0, 0, 0) == 0


def _leave_terminal() -> None:
    """Start a session, and forget what the terminal said before: the guard has heard it too."""
    os.setsid()
    for signum in signal.sigpending() & _FORWARDED:
        signal.sigwait({signum})


def _become_guard(runtime: int, deposit: int) -> NoReturn:
    """Be the guard to the end of this process; nothing of the caller's runs here any more."""
    status = 1
    try:
        _prctl(_PR_SET_NAME, b"runtime-guard")
        os.read(deposit, 1)  # the runtime has left the terminal, or is dead
        status = _run_guard(runtime)
    except BaseException as error:  # noqa: BLE001 -- nothing may unwind into the caller
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(status)


def _run_guard(runtime: int) -> int:
    """Watch *runtime* to its end, end what it left, return the exit status; signals are blocked."""
    exit_code = os.waitstatus_to_exitcode(_watch(runtime))
    survivors = _end_descendants()
    if survivors:
        names = ", ".join(f"{read_name(pid)} ({pid})" for pid in survivors)
        with suppress(OSError):  # the terminal may be gone
            os.write(2, f"runtime-guard: could not be killed and is left: {names}\n".encode())
    return exit_code if exit_code >= 0 else 128 - exit_code


def _watch(runtime: int) -> int:
    """Forward signals and reap orphans until *runtime* has ended; return its wait status."""
    requests = 0
    while True:
        signum = signal.sigwait(_AWAITED)
        if signum == signal.SIGCHLD:
            pid, status = _reap_one()
            if pid == runtime:
                return status
            if pid != 0:  # there may be more; one by one, so that a storm hides no other signal
                signal.raise_signal(signal.SIGCHLD)
        else:
            requests += signum in _STOP
            os.kill(runtime, signal.SIGKILL if requests >= PATIENCE else signum)


def _end_descendants() -> list[int]:
    """SIGKILL everything below us until nothing is left; return the pids that outlast our wait."""
    deadline = time.monotonic() + LAST_WAIT_SEC
    while True:
        while _reap_one() != (0, 0) and time.monotonic() < deadline:
            pass
        children = _inherited(list_children(os.getpid()), os.getsid(0))
        left = [*children, *list_descendants(child.pid for child in children)]
        remaining_sec = deadline - time.monotonic()
        if not left or remaining_sec <= 0:
            return [stat.pid for stat in left if stat.alive]
        _kill(left)
        signal.sigtimedwait({signal.SIGCHLD}, min(remaining_sec, _LOOK_AGAIN_SEC))


def _inherited(children: list[int], session: int) -> list[Stat]:
    """Return the guard's *children* except those it had before there was a runtime.

    ``helper & exec python -m runtime`` gives it such children. They are in the guard's own session,
    which the runtime has left before it had children, so that nothing of the runtime's ever is.
    """
    stats = (read_stat(pid) for pid in children)
    return [stat for stat in stats if stat is not None and stat.session != session]


def _kill(processes: list[Stat]) -> None:
    """SIGKILL the *processes* and what is in a group with them.

    A group is part of a session, and the sessions below us have members of ours only.
    """
    kill_groups({stat.group for stat in processes})
    for stat in processes:
        send_signal(stat.member, signal.SIGKILL)


def _reap_one() -> tuple[int, int]:
    """Reap a child that has ended; return its pid and wait status, zeros if there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0
