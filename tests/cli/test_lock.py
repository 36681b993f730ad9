"""One manifest, one tree: what a second start does while the first one is in its way."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Program, Site

#: Holds a lock as long as anything of it lives, and says so if there is another copy of it.
ALONE = "exec 9>alone; flock -n 9 || { echo 'another one' >FIFO; exit 1; }; SAY; "

#: The same, which takes its time to stop: until the test says so.
ALONE_AND_SLOW = """
import fcntl
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
lock = open("alone", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another one", file=fifo)
    raise
print(f"a={os.getpid()}", file=fifo)
signal.sigwait({signal.SIGTERM})
print("asked", file=fifo)
signal.sigwait({signal.SIGUSR1})
"""

#: The same, which has a child in a session of its own.
ALONE_WITH_A_CHILD = """
import fcntl
lock = open("alone", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print(f"a={os.getpid()}", file=fifo)
if os.fork() == 0:
    os.setsid()
    print(f"child={os.getpid()}", file=fifo)
signal.pause()
"""


def kill_runtime_and_guard_at_once(site: Site, program: Program) -> None:
    runtime = site.runtime_pid
    os.kill(runtime, signal.SIGSTOP)  # so that it sees nothing of its guard's end
    program.send(signal.SIGKILL)
    os.kill(runtime, signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL


def test_a_second_start_is_refused_while_the_first_one_runs(site: Site) -> None:
    site.add("a", ALONE + "exec sleep 1000")
    first = site.start()
    site.hear_everyone()
    second = site.start()
    assert second.wait() == 1
    (line,) = second.err.lines
    assert line.startswith(f"{site.manifest} is running in {site.folder}/trio-runtime/manifest-")
    assert line.endswith(
        f" already, as process {site.runtime_pid}; to stop it: kill {site.runtime_pid}"
    )
    assert site.heard_all()
    first.send(signal.SIGTERM)
    assert first.wait() == 0


def test_a_second_start_waits_while_the_first_one_stops(site: Site) -> None:
    site.add_python("a", ALONE_AND_SLOW, timeout=600)
    site.settings["stop_within_sec"] = 600
    first = site.start()
    assert site.hear() == "a"
    first.send(signal.SIGTERM)
    assert site.hear() == "asked"
    site.wait_until(lambda: site.read_lock()["state"] == "stopping")
    second = site.start()
    second.read_until("waiting for the former runtime in .* to be gone")
    third = site.start()
    third.read_until("waiting for the former runtime in .* to be gone")
    third.send(signal.SIGTERM)
    assert third.wait() == 0
    assert site.heard_all()
    os.kill(site.pid_of("a"), signal.SIGUSR1)
    assert first.wait() == 0
    assert site.hear() == "a"
    second.send(signal.SIGTERM)
    assert site.hear() == "asked"
    os.kill(site.pid_of("a"), signal.SIGUSR1)
    assert second.wait() == 0
    assert site.find_left() == []


def test_leftovers_of_a_killed_tree_are_ended_before_anything_starts(site: Site) -> None:
    site.add("a", "trap '' TERM HUP; " + ALONE + "exec sleep 1000")
    first = site.start()
    site.hear_everyone()
    leftover = site.pid_of("a")
    kill_runtime_and_guard_at_once(site, first)
    assert [left.pid for left in site.find_left()] == [leftover]
    second = site.start()
    second.read_until(rf"ended what a former runtime had left: sleep \({leftover}\)")
    assert site.hear() == "a"
    assert site.pid_of("a") != leftover
    second.send(signal.SIGQUIT)
    assert second.wait() == 128 + signal.SIGQUIT
    assert site.find_left() == []
    assert site.heard_all()


def test_leftovers_are_ended_although_they_have_overwritten_their_environment(
    site: Site, hide_environ: str
) -> None:
    site.add_python("a", hide_environ + ALONE_WITH_A_CHILD)
    first = site.start()
    assert {site.hear(), site.hear()} == {"a", "child"}
    leftovers = {site.pid_of("a"), site.pid_of("child")}
    kill_runtime_and_guard_at_once(site, first)
    assert {left.pid for left in site.find_left()} == leftovers
    second = site.start()
    ended = second.read_until("ended what a former runtime had left: (.*)")[1]
    assert all(f"({pid})" in ended for pid in leftovers)
    assert {site.hear(), site.hear()} == {"a", "child"}
    assert leftovers.isdisjoint({site.pid_of("a"), site.pid_of("child")})
    second.send(signal.SIGTERM)
    assert second.wait() == 0
    assert site.find_left() == []
    assert list(site.folder.rglob("processes")) == []
