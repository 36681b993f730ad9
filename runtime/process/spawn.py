"""The one place that starts a program."""

import os
import resource
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ._descriptors import close_all_on_exec
from ._exceptions import SpawnError
from .host import Host
from .privileges import Privileges

# From the start of the shim until it has become the program; what takes longer hangs.
_SHIM_SEC = 10.0
_SHIM_HANGS = f"path\0is not executed within {_SHIM_SEC:g} s".encode()
_LONGEST_REPORT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is to be run: *argv* without a shell, in *working_directory*, with exactly *env*.

    The descriptors *pass_fds* are open in it, under the same numbers, until it closes them.
    """

    name: str
    argv: Sequence[str]
    working_directory: Path | None
    env: Mapping[str, str] = field(repr=False)  # there may be secrets in it
    affinity: Sequence[int] | None = None
    privileges: Privileges | None = None
    pass_fds: tuple[int, ...] = ()


@dataclass(slots=True)
class Spawned:
    """A child just started: its handle, a descriptor of its exit, the read ends of its output."""

    popen: subprocess.Popen[bytes]
    pidfd: int
    stdout: int
    stderr: int


async def spawn(command: Command, host: Host) -> Spawned:
    """Start *command* in a session and group of its own; raise `SpawnError` when it cannot be.

    The child's standard input is empty. Cancelled before it begins, nothing was started; it is not
    cancelled while it starts.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        problem = "SIGCHLD is ignored, so the kernel would not say how it ends; set it to SIG_DFL"
        raise SpawnError(command.name, command.argv[0], problem)
    return await trio.to_thread.run_sync(_spawn, command, host, limiter=host.spawning)


def _spawn(command: Command, host: Host) -> Spawned:
    open_files = host.open_files
    opened: list[int] = []
    try:
        stdout, childs_stdout = _open_pipe(opened)
        stderr, childs_stderr = _open_pipe(opened)
        if command.privileges is None:
            # One by one, and before the exec, the child would close them while this thread has the
            # GIL: a millisecond for a few thousand, as long as the start takes without them.
            closed = host.close_on_exec and not command.pass_fds and close_all_on_exec()
            popen = _start(
                command, command.argv, childs_stdout, childs_stderr, close_fds=not closed
            )
            if open_files is not None:
                _limit_open_files(popen.pid, open_files)
        else:
            privileges = command.privileges.with_open_files(open_files)
            popen = _start_by_shim(command, privileges, childs_stdout, childs_stderr)
        pidfd = _open_pidfd(popen)
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument, and the like
        for fd in opened:
            os.close(fd)
        # The system names the folder when that is what is missing, else the program.
        path = getattr(error, "filename", None) or command.argv[0]
        problem = getattr(error, "strerror", None) or str(error)
        raise SpawnError(command.name, path, problem) from error
    if host.roster is not None:
        host.roster.note_started(popen.pid, stdout, stderr)
    os.close(childs_stdout)
    os.close(childs_stderr)
    return Spawned(popen, pidfd, stdout, stderr)


def _open_pipe(opened: list[int]) -> tuple[int, int]:
    ours, childs = ends = os.pipe()
    opened.extend(ends)
    os.set_blocking(ours, False)
    return ours, childs


def _open_pidfd(popen: subprocess.Popen[bytes]) -> int:
    try:
        return os.pidfd_open(popen.pid)
    except OSError:  # no descriptor left, or a sandbox without it: nobody could watch the child
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
        raise


def _limit_open_files(pid: int, limits: tuple[int, int]) -> None:
    # Our own soft limit is not lowered for the fork instead: it holds for all threads, and a file
    # that another one opens meanwhile would be one too many.
    with suppress(OSError):  # it has ended, or is a set-user-ID program
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _start_by_shim(
    command: Command, privileges: Privileges, stdout: int, stderr: int
) -> subprocess.Popen[bytes]:
    """Start the shim, and return once it has become the program."""
    pipe, shims_pipe = os.pipe()
    with os.fdopen(pipe, "rb", buffering=0) as reports:
        with os.fdopen(shims_pipe, "wb"):
            argv = privileges.shim(command.argv, command.working_directory, command.env, shims_pipe)
            popen = _start(command, argv, stdout, stderr, shims_pipe)
        poll = select.poll()
        poll.register(reports, select.POLLIN)
        in_time = poll.poll(_SHIM_SEC * 1000)
        report = reports.read(_LONGEST_REPORT) if in_time else _SHIM_HANGS
    if report:
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
        raise privileges.failure(report.decode(), command.argv[0], command.working_directory)
    return popen


def _start(
    command: Command,
    argv: Sequence[str],
    stdout: int,
    stderr: int,
    shims_pipe: int | None = None,
    *,
    close_fds: bool = True,
) -> subprocess.Popen[bytes]:
    # A child inherits the affinity of the thread that forks it. So it has its own from its first
    # instruction, without code of ours between fork and exec.
    before = None
    if command.affinity is not None:
        before = os.sched_getaffinity(0)
        _set_affinity(command.affinity)
    try:
        return subprocess.Popen(
            list(argv),
            cwd=command.working_directory if shims_pipe is None else None,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            close_fds=close_fds,
            pass_fds=(*command.pass_fds, *(() if shims_pipe is None else (shims_pipe,))),
        )
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def _set_affinity(cpus: Sequence[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:  # a control group may have less CPUs than the host
        words = f"none of the CPUs {', '.join(map(str, cpus))} may be used here (affinity)"
        raise OSError(error.errno, words) from error
