"""Signals at awkward moments: before there is a tree, after it, and when nobody listens."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Site

#: What the runtime imports, in this order, before it starts anything.
MOMENTS = [
    (signal.SIGTERM, "trio._core"),
    (signal.SIGINT, "pydantic_core"),
    (signal.SIGTERM, "runtime.process"),
    (signal.SIGINT, "runtime.cli._report"),
]

#: Gets a signal when the tree has ended, and the last words are being said.
SIGNAL_AT_THE_END = """
import os, runpy, signal
from runtime.cli._console import Console
close = Console.close
def signal_and_close(console):
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(os.getpid(), signum)
    close(console)
Console.close = signal_and_close
runpy.run_module("runtime", run_name="__main__", alter_sys=True)
"""


def has_pending(pid: int, signum: int) -> bool:
    """Return whether a process has yet to take *signum* from the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = re.findall(r"ShdPnd:\s+([0-9a-f]+)", status)
    return bool(int(pending, 16) >> (signum - 1) & 1)


def is_stopped(pid: int) -> bool:
    """Return whether no thread of a process runs any more, to take a signal before SIGSTOP."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has ended meanwhile
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@pytest.mark.parametrize(("signum", "moment"), MOMENTS)
def test_a_signal_while_the_runtime_is_being_loaded_ends_it(
    site: Site, signum: int, moment: str
) -> None:
    site.add("a", "exec sleep 1000")
    program = site.start(python=("-X", "importtime", "-m", "runtime"))
    program.read_until(rf"\| +{re.escape(moment)}\n")
    program.send(signum)
    assert program.wait() == 0
    assert site.find_left() == []
    assert "Traceback" not in program.err.text


def test_a_signal_after_the_end_of_the_tree_changes_nothing_of_its_status(site: Site) -> None:
    site.add("a", "exit 7")
    program = site.start("run", "--no-guard", python=("-c", SIGNAL_AT_THE_END))
    assert program.wait() == 7
    assert "Traceback" not in program.err.text


def test_the_third_signal_ends_a_runtime_that_hangs(site: Site) -> None:
    site.add("a", "trap '' INT TERM; SAY; exec sleep 1000")
    site.add("b", "(setsid sh -c 'SAY; exec sleep 1000' &) & SAY; exec sleep 1000")
    program = site.start()
    site.hear_everyone()
    runtime = site.runtime_pid
    os.kill(runtime, signal.SIGSTOP)
    site.wait_until(lambda: is_stopped(runtime))
    for _ in range(2):
        program.send(signal.SIGINT)
        site.wait_until(lambda: not has_pending(program.pid, signal.SIGINT))
        site.wait_until(lambda: has_pending(runtime, signal.SIGINT))
    program.send(signal.SIGINT)
    assert program.wait() == 128 + signal.SIGKILL
    assert site.find_left() == []


def test_the_second_signal_kills_also_while_the_tree_stops_by_itself(site: Site) -> None:
    site.settings["stop_within_sec"] = 600
    site.add("deaf", "trap '' TERM; SAY; exec sleep 1000", timeout=600)
    site.add("last", "SAY; read x <GO; exit 5", shutdown_strategy="shutdown_everything")
    program = site.start()
    site.hear_everyone()
    site.let_go()
    program.read_until("stop: last exited with 5")
    program.send(signal.SIGINT)  # the stop is under way, and goes on
    program.send(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert site.find_left() == []


def test_under_nohup_the_end_of_a_terminal_is_no_reason_to_stop(site: Site) -> None:
    site.add("a", "SAY; exec sleep 1000")
    program = site.start(wrapper=["nohup"])
    site.hear_everyone()
    program.send(signal.SIGHUP)
    program.send(signal.SIGTERM)  # forwarded after the other one, whose number is lower
    assert program.wait() == 0
    assert "stop: SIGTERM received" in program.err.text
    assert "SIGHUP" not in program.err.text
