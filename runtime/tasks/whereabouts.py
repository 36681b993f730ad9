"""On which host and in which process a runner lives, and whether it lives there still."""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import NamedTuple

from runtime._procfs import read_stat, where_pids_mean_the_same
from runtime.invocation.models import RunnerRecord


class ProcessIdentity(NamedTuple):
    """One process, which no other one can be taken for: the pid alone may be used again."""

    host: str
    pid_space: str
    pid: int
    start_ticks: int


@cache
def _pid_space() -> str:
    return where_pids_mean_the_same()


def this_process() -> ProcessIdentity:
    """Return who we are."""
    pid = os.getpid()
    stat = read_stat(pid)
    return ProcessIdentity(
        socket.gethostname(), _pid_space(), pid, 0 if stat is None else stat.start_ticks
    )


def is_of_this_host(runner: RunnerRecord) -> bool:
    """Return whether the runner's process can be looked for here: same boot, same namespace."""
    return bool(runner.pid_space) and runner.pid_space == _pid_space()


def is_dead(runner: RunnerRecord) -> bool:
    """Return whether a runner of this host is known to be dead: its process is not there."""
    stat = read_stat(runner.pid)
    return stat is None or not stat.alive or stat.start_ticks != runner.pid_started
