"""Many readers at once, in a program of their own, while a hundred processes restart."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from bench.limits.answers import Site, open_program, open_site

#: The snapshots, the pieces that are kept, and what the kernel has not taken yet.
MOST_GROWTH = 300 * 2**20


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4_096 if hard == resource.RLIM_INFINITY else min(hard, 4_096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def rage(site: Site, seconds: float) -> tuple[float, int]:
    """Return the seconds between one restart of all and the next, and the last event's number."""
    site.say("storm", "begun")
    time.sleep(seconds)  # how long the storm lasts
    _, taken, last = site.say("quiet", "ended")
    return float(taken), int(last)


def memory_of(program: psutil.Process) -> int:
    """Return the memory of the site, in bytes: of all below *program* what is part of the bench."""
    found = 0
    for process in program.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # in a storm many come and go
            found += process.memory_info().rss if "bench" in name(process) else 0
    return found


def name(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


@pytest.mark.parametrize(
    ("readers", "seconds", "turns"),
    [
        pytest.param(50, 1.0, 1, id="50 readers"),
        pytest.param(500, 4.0, 5, id="500 readers", marks=pytest.mark.slow),
    ],
)
def test_nobody_misses_an_event_in_a_storm(
    readers: int, seconds: float, turns: int, descriptors: None, record_property: Any
) -> None:
    ratios: list[float] = []
    with open_site("ours") as site:
        (program,) = (p for p in psutil.Process().children() if "limits.site" in name(p))
        before, first = rage(site, seconds)
        for _ in range(turns):
            memory = memory_of(program)
            with open_program("bench.limits.readers", str(site.port), str(readers)) as (
                tells,
                hears,
            ):
                assert hears.readline() == "begun\n"
                beside, last = rage(site, seconds)
                tells.write(f"{last}\n")
                tells.flush()
                events, gaps, told, least = map(int, hears.readline().split())
                memory = memory_of(program) - memory
            assert last > first
            assert gaps == told
            assert told <= readers  # a resync is for who is late, and not the way events are told
            assert events >= readers * least > readers
            assert memory < MOST_GROWTH
            after, first = rage(site, seconds)
            # Against what is before and after: how fast a machine is changes within seconds.
            ratios.append(2 * beside / (before + after) if before + after else 0.0)
            before = after
    record_property("ratio", statistics.median(ratios))
    record_property("ratios", ratios)
    record_property("memory_mb", memory / 2**20)
