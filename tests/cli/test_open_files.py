"""The runtime raises its own limit of open files and hands down the one that it was given.

What was open when it was started, it keeps to itself.
"""

from __future__ import annotations

import os
import resource
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Site

SOFT = 64
COUNT = 40  #: of children; with three descriptors for each the limit would not do


def read_open_files(pid: int) -> tuple[int, int]:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft, hard = line.split()[3:5]
            return int(soft), int(hard)
    raise AssertionError(pid)


def test_a_low_limit_neither_holds_the_runtime_up_nor_is_it_raised_for_children(site: Site) -> None:
    names = [f"p{number}" for number in range(COUNT)]
    for name in names:
        site.add(name, "SAY; exec sleep 1000")
    site.add("shim", "SAY; exec sleep 1000", umask="022")
    site.add("own", "SAY; exec sleep 1000", rlimits={"nofile": [32, 48]})
    program = site.start(wrapper=("sh", "-c", f'ulimit -Sn {SOFT}; exec "$@"', "sh"))
    site.hear_everyone()
    program.read_until(r"p39 +running")  # each has been started, and has what it was to be given
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert {read_open_files(site.pid_of(name)) for name in (*names, "shim")} == {(SOFT, hard)}
    assert read_open_files(site.pid_of("own")) == (32, 48)
    assert read_open_files(site.runtime_pid) == (min(hard, 2**20), hard)
    assert read_open_files(program.pid) == (SOFT, hard)  # the guard needs no more
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert site.find_left() == []


def test_a_limit_that_is_as_high_as_it_may_be_is_left_alone(site: Site) -> None:
    site.add("a", "SAY; exec sleep 1000")
    program = site.start(wrapper=("sh", "-c", f'ulimit -n {SOFT}; exec "$@"', "sh"))
    site.hear_everyone()
    assert read_open_files(site.runtime_pid) == read_open_files(site.pid_of("a")) == (SOFT, SOFT)
    program.send(signal.SIGTERM)
    assert program.wait() == 0


def test_what_the_runtime_was_given_open_reaches_no_process(site: Site) -> None:
    site.add("plain", "SAY; exec sleep 1000")
    site.add("shim", "SAY; exec sleep 1000", umask="022")
    ours, theirs = os.pipe()
    program = site.start(pass_fds=(theirs,))
    site.hear_everyone()
    program.read_until(r"shim +running")
    assert theirs in read_fds(site.runtime_pid)
    for name in ("plain", "shim"):
        # The shell has more while it tells us, and `sleep` while it is loaded.
        pid = site.pid_of(name)
        site.wait_until(partial(has_open, pid, {0, 1, 2}))
    os.close(ours)
    os.close(theirs)
    program.send(signal.SIGTERM)
    assert program.wait() == 0


def has_open(pid: int, fds: set[int]) -> bool:
    return read_fds(pid) == fds


def read_fds(pid: int) -> set[int]:
    return {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
