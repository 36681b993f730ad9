"""Many readers at once, in a program of their own, while a hundred processes restart."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
import pytest

from bench.limits.answers import Site, open_program, open_site

#: Of the restarts beside readers against those without: one, and what the noise makes of it.
MOST_RATIO = 1.15
#: Of fewer turns than this the median is noise.
MANY_TURNS = 9
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


class Counted(NamedTuple):
    """What readers had in a storm, and how long the restarts took."""

    taken_sec: float
    last: int
    events: int
    gaps: int
    told: int
    least: int  #: the fewest that one of them had
    grown: int  #: the memory of the site, in bytes


def rage_beside(site: Site, readers: int, seconds: float) -> Counted:
    """Let the storm rage beside so many readers; also where that is none, with all around it."""
    (program,) = (p for p in psutil.Process().children() if "limits.site" in name(p))
    memory = memory_of(program)
    with open_program("bench.limits.readers", str(site.port), str(readers)) as (tells, hears):
        assert hears.readline() == "begun\n"
        taken_sec, last = rage(site, seconds)
        tells.write(f"{last}\n")
        tells.flush()
        events, gaps, told, least = map(int, hears.readline().split())
        return Counted(taken_sec, last, events, gaps, told, least, memory_of(program) - memory)


@pytest.mark.parametrize(
    ("readers", "seconds", "turns"),
    [
        pytest.param(50, 1.0, 1, id="50 readers"),
        pytest.param(500, 2.0, 15, id="500 readers", marks=pytest.mark.slow),
        pytest.param(500, 4.0, 11, id="500 readers, for longer", marks=pytest.mark.slow),
    ],
)
def test_nobody_misses_an_event_in_a_storm(
    readers: int, seconds: float, turns: int, descriptors: None, record_property: Any
) -> None:
    ratios: list[float] = []
    grown: list[int] = []
    with open_site("ours") as site:
        before = rage_beside(site, 0, seconds)
        for _ in range(turns):
            beside = rage_beside(site, readers, seconds)
            assert beside.last > before.last
            assert beside.gaps == beside.told
            assert beside.told <= readers  # that is for who is late, and not the usual way
            assert beside.events >= readers * beside.least > readers
            assert beside.grown < MOST_GROWTH
            grown.append(beside.grown)
            after = rage_beside(site, 0, seconds)
            # Against what is before and after: how fast a machine is changes within seconds.
            if alone_sec := (before.taken_sec + after.taken_sec) / 2:  # 0: all died only once
                ratios.append(beside.taken_sec / alone_sec)
            before = after
    ratio = statistics.median(ratios) if ratios else 0.0
    record_property("ratio", ratio)
    record_property("ratios", ratios)
    record_property("memory_mb", max(grown) / 2**20)
    assert turns < MANY_TURNS or 0 < ratio < MOST_RATIO
