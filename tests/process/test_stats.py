"""What a process uses is measured by psutil, now and at most."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runtime.process import ProcessRuntimeInfo, ProcessStats

BURN = "import sys\nblock = bytearray(40_000_000)\nprint(flush=True)\nsys.stdin.read()\n"
SPIN = "while True: pass"


def test_the_highest_values_are_kept() -> None:
    info = ProcessRuntimeInfo()
    for memory, cpu in ((5.0, 90.0), (7.0, 10.0), (1.0, 0.0)):
        info.memory_usage_mb, info.cpu_usage_percent = memory, cpu
    assert (info.memory_usage_mb, info.cpu_usage_percent) == (1.0, 0.0)
    assert (info.max_memory_usage_mb, info.max_cpu_usage) == (7.0, 90.0)


def test_nothing_is_known_before_the_first_measurement() -> None:
    info = ProcessRuntimeInfo()
    assert (info.memory_usage_mb, info.max_memory_usage_mb) == (0.0, 0.0)
    assert (info.cpu_usage_percent, info.max_cpu_usage) == (0.0, 0.0)


def test_memory_is_measured_in_mb_and_a_process_that_is_gone_uses_nothing() -> None:
    info = ProcessRuntimeInfo()
    command = [sys.executable, "-S", "-E", "-c", BURN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        info.measure(process.pid)
        assert 40 < info.memory_usage_mb < 150
    highest = info.memory_usage_mb
    info.measure(process.pid)
    assert (info.memory_usage_mb, info.cpu_usage_percent) == (0.0, 0.0)
    assert info.max_memory_usage_mb == highest


def test_cpu_is_measured_between_two_looks() -> None:
    info = ProcessRuntimeInfo()
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", SPIN]) as process:
        info.measure(process.pid)
        assert info.cpu_usage_percent == 0.0
        while info.cpu_usage_percent == 0.0:  # it counts in ticks of 10 ms
            info.measure(process.pid)
        process.kill()
    assert info.max_cpu_usage > 0


def test_another_pid_is_another_process() -> None:
    info = ProcessRuntimeInfo()
    info.measure(os.getpid())
    ours = info.memory_usage_mb
    with subprocess.Popen(["sleep", "60"]) as process:
        info.measure(process.pid)
        assert info.memory_usage_mb < ours
        process.kill()


def test_stats_are_plain_data() -> None:
    stats = ProcessStats("p", Path("/bin/p"), 1.0, 2.0, 3.0, 4.0)
    assert stats == ProcessStats(
        name="p",
        path=Path("/bin/p"),
        memory_usage_mb=1.0,
        cpu_usage_percent=2.0,
        max_memory_usage_mb=3.0,
        max_cpu_usage_percent=4.0,
    )
