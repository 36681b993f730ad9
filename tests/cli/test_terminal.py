"""In the foreground of a terminal: Ctrl-C, and what happens when the terminal goes away."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Program, Site

CTRL_C, CTRL_BACKSLASH = b"\x03", b"\x1c"

#: Tells of every signal that it gets, and ends only when the test says so.
TELL_SIGNALS = """
signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print(f"first={os.getpid()}", file=fifo)
while (signum := signal.sigwait(signals)) != signal.SIGUSR1:
    print(signum.name, file=fifo)
print("and no other" if not signal.sigpending() else "and more", file=fifo)
"""


def start_two(site: Site) -> Program:
    """Start two processes in a terminal, of which the first tells what signals it gets."""
    site.settings["stop_within_sec"] = 600
    site.add_python("first", TELL_SIGNALS, timeout=600)
    site.add("second", "SAY; exec sleep 1000", dependencies=["first"])
    program = site.start(terminal=True)
    assert {site.hear(), site.hear()} == {"first", "second"}
    return program


def assert_it_stops_in_order_and_once(site: Site, program: Program) -> None:
    assert site.hear() == "SIGTERM"
    assert {left.unit for left in site.find_left()} == {"", "first"}
    os.kill(site.pid_of("first"), signal.SIGUSR1)
    assert site.hear() == "and no other"
    assert program.wait() == 0
    assert site.find_left() == []


def test_ctrl_c_stops_in_order_and_once(site: Site) -> None:
    program = start_two(site)
    program.type(CTRL_C)
    assert_it_stops_in_order_and_once(site, program)
    assert "stop: SIGINT received" in program.err.text
    assert "killing" not in program.err.text


def test_the_end_of_the_terminal_stops_in_order_and_once(site: Site) -> None:
    program = start_two(site)
    program.err.close()
    assert_it_stops_in_order_and_once(site, program)


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        pytest.param([CTRL_C, CTRL_C], 128 + signal.SIGINT, id="Ctrl-C twice"),
        pytest.param([CTRL_BACKSLASH], 128 + signal.SIGQUIT, id="Ctrl-backslash"),
    ],
)
def test_who_does_not_want_to_wait_kills_what_is_left_and_is_told_what(
    site: Site, keys: list[bytes], status: int
) -> None:
    site.settings["stop_within_sec"] = 600
    site.add("deaf", "trap '' TERM; SAY; exec sleep 1000", timeout=600)
    site.add("obedient", "SAY; exec sleep 1000")
    program = site.start(terminal=True)
    site.hear_everyone()
    for key in keys[:-1]:
        program.type(key)
        program.read_until("once more kills what is left")
    program.type(keys[-1])
    assert program.wait() == status
    assert "killing what is left" in program.err.text
    assert f"deaf killed: pid {site.pid_of('deaf')} (sleep); still there" in program.err.text
    assert "killed: ;" not in program.err.text  # whoever ended at the last moment was not killed
    assert site.find_left() == []
