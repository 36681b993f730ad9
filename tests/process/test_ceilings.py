"""What exceeds its ceiling for long enough has failed, and not a moment before."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trio.testing import MockClock

from runtime._procfs import Member
from runtime.process import CeilingError, CeilingsSpec, Process, ProcessSample, Sampler
from runtime.process.ceilings import Since, judge_sample
from runtime.process.host import Host
from runtime.process.unit import process_unit
from runtime.process.usage import Reading, Use
from runtime.supervision.graph import Stage


def sample(memory: float = 0, cpu: float = 0, *, more: float = 0) -> ProcessSample:
    return ProcessSample(
        timestamp=datetime.now(UTC),
        cpu_percent=cpu,
        memory_mb=memory,
        family_cpu_percent=cpu + more,
        family_memory_mb=memory + more,
        family_size=1,
    )


def judge(
    ceilings: CeilingsSpec, looks: Sequence[tuple[float, ProcessSample]]
) -> tuple[float, CeilingError] | None:
    """Return what failed, and when."""
    since: Since = {}
    for now, each in looks:
        since, failure = judge_sample("p", ceilings, since, each, now)
        if failure is not None:
            return now, failure
    return None


def test_what_stays_below_or_at_its_ceiling_never_fails() -> None:
    looks = [(n, sample(500, 180)) for n in range(100)]
    assert judge(CeilingsSpec(memory_mb=500, cpu_percent=180), looks) is None


def test_it_fails_when_it_has_been_above_for_long_enough() -> None:
    looks = [(float(n), sample(501 if n >= 5 else 100)) for n in range(100)]
    found = judge(CeilingsSpec(memory_mb=500, for_sec=10), looks)
    assert found is not None
    assert found[0] == 15.0
    assert (found[1].setting, found[1].used, found[1].ceiling) == ("memory_mb", 501, 500)


def test_without_a_time_the_first_look_decides() -> None:
    found = judge(CeilingsSpec(memory_mb=1, for_sec=0), [(3.0, sample(2))])
    assert found is not None
    assert found[0] == 3.0


def test_an_interruption_begins_anew() -> None:
    looks = [(float(n), sample(0, 0 if n % 10 == 9 else 300)) for n in range(100)]
    assert judge(CeilingsSpec(cpu_percent=200, for_sec=10), looks) is None
    assert judge(CeilingsSpec(cpu_percent=200, for_sec=8), looks) is not None


def test_each_ceiling_has_a_time_of_its_own() -> None:
    looks = [(float(n), sample(600 * (n % 2), 300 * ((n + 1) % 2))) for n in range(100)]
    assert judge(CeilingsSpec(memory_mb=500, cpu_percent=200, for_sec=2), looks) is None


def test_what_descends_from_it_counts_unless_it_is_said_otherwise() -> None:
    looks = [(0.0, sample(10, 10, more=1000))]
    assert judge(CeilingsSpec(memory_mb=500, for_sec=0), looks) is not None
    assert judge(CeilingsSpec(memory_mb=500, for_sec=0, of="process"), looks) is None
    assert judge(CeilingsSpec(cpu_percent=500, for_sec=0, of="process"), looks) is None
    alone = judge(CeilingsSpec(cpu_percent=5, for_sec=0, of="process"), looks)
    assert alone is not None
    assert (alone[1].used, alone[1].of) == (10, "process")


@given(
    above=st.lists(st.booleans(), max_size=40),
    for_looks=st.integers(0, 10),
)
def test_it_fails_at_the_end_of_the_first_run_that_is_long_enough(
    above: list[bool], for_looks: int
) -> None:
    looks = [(float(n), sample(2 if each else 1)) for n, each in enumerate(above)]
    runs = [all(above[n - for_looks : n + 1]) and n >= for_looks for n in range(len(above))]
    found = judge(CeilingsSpec(memory_mb=1, for_sec=for_looks), looks)
    assert (None if found is None else found[0]) == (runs.index(True) if any(runs) else None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            CeilingError("p", "memory_mb", 612.3, 500, for_sec=0, of="family"),
            "uses 612 MiB of memory, more than its ceiling of 500 (ceilings.memory_mb)",
        ),
        (
            CeilingError("p", "cpu_percent", 193.6, 180.5, for_sec=10, of="process"),
            "uses 194 % of a cpu, more than its ceiling of 180.5 for 10 s (ceilings.cpu_percent)",
        ),
    ],
)
def test_the_error_says_what_and_which_setting(error: CeilingError, words: str) -> None:
    assert str(error) == words
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert (str(other), other.args, other.of) == (words, error.args, error.of)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"for_sec": 3},
        {"memory_mb": 0},
        {"memory_mb": True},
        {"cpu_percent": float("nan")},
        {"cpu_percent": -1},
        {"memory_mb": 1, "for_sec": -1},
        {"memory_mb": 1, "of": "host"},
        {"memory_mb": 1, "mem": 1},
    ],
)
def test_a_ceiling_that_means_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CeilingsSpec(**fields)


def test_ceilings_that_nobody_would_look_at_are_refused() -> None:
    process = Process(name="p", path="/bin/p", ceilings={"memory_mb": 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="p has ceilings, and its host no sampler"):
        process_unit(process, Host())


# --- in a tree ------------------------------------------------------------------------------------

EATS = "block = bytearray(b'x') * (96 << 20)\nprint('fed', flush=True)\nimport time; time.sleep(60)"
BURNS = "while True: pass"
IN_A_CHILD = "import os, time\nif os.fork(): time.sleep(60)\n"
ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
OFTEN: dict[str, Any] = {"options": {"process_poll_interval": 0.05}}


@pytest.mark.parametrize(
    ("code", "ceilings", "words"),
    [
        pytest.param(
            EATS, {"memory_mb": 64, "for_sec": 0}, "MiB of memory, more than", id="memory"
        ),
        pytest.param(
            IN_A_CHILD + EATS, {"memory_mb": 64, "for_sec": 0}, "MiB of memory", id="of a child"
        ),
        pytest.param(BURNS, {"cpu_percent": 5, "for_sec": 0.2}, "% of a cpu, more", id="cpu"),
        pytest.param(
            IN_A_CHILD + BURNS, {"cpu_percent": 5, "for_sec": 0.2}, "for 0.2 s", id="cpu of a child"
        ),
    ],
)
async def test_a_process_that_uses_more_than_it_may_is_stopped_as_a_failure(
    make_pilot: Any, py: Any, list_marked: Any, *, code: str, ceilings: Any, words: str
) -> None:
    other = py("import time; time.sleep(60)", name="other", ceilings=ceilings)
    async with make_pilot(py(code, ceilings=ceilings, **ONCE), other, **OFTEN) as pilot:
        assert await pilot.supervisor.wait_until("p", Stage.FAILED) is Stage.FAILED
        status = pilot.supervisor.status("p")
        assert isinstance(status.error, CeilingError)
        assert words in status.reason
        assert pilot.supervisor.status("other").ready
        assert list_marked() == [pilot.get_process_by_name("other").pid]


async def test_memory_of_a_child_is_no_business_of_a_ceiling_of_the_process_alone(
    make_pilot: Any, py: Any, look: Any
) -> None:
    ceilings = {"memory_mb": 64, "for_sec": 0, "of": "process"}
    async with make_pilot(py(IN_A_CHILD + EATS, ceilings=ceilings), **OFTEN) as pilot:
        process = pilot.get_process_by_name("p")
        await look.line(process.output, "fed")
        seen = len(process.runtime_info.samples)
        await look.true(lambda: len(process.runtime_info.samples) > seen + 2)
        assert process.runtime_info.samples[-1].family_memory_mb > 96
        assert pilot.supervisor.status("p").generation == 1


async def test_the_restart_policy_applies_and_the_new_process_begins_anew(
    make_pilot: Any, py: Any, look: Any
) -> None:
    restart = {"when": "failure", "delay_sec": 0, "max_restarts": 2}
    ceilings = {"memory_mb": 64, "for_sec": 0}
    async with make_pilot(py(EATS, ceilings=ceilings, restart=restart), **OFTEN) as pilot:
        await pilot.supervisor.wait_until("p", Stage.FAILED)
        status = pilot.supervisor.status("p")
        assert (status.generation, status.restarts) == (3, 2)
        assert "(ceilings.memory_mb); given up after 2 restarts" in status.reason
        assert pilot.get_process_by_name("p").get_stats().max_memory_usage_mb > 64


async def test_the_time_above_is_that_of_the_clock(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds, in no time."""
    process: Any = Process(name="p", path="/bin/p")  # type: ignore[arg-type]
    process.note_spawned(7)
    number, member = count(), Member(7, 1)

    async def off_loop(self: Sampler, look: Any) -> Any:
        await trio.lowlevel.checkpoint()  # the clock would not wait for a thread
        return look()

    def take(pids: Any, details: Any) -> dict[str, Reading]:
        memory = (1 if next(number) < 4 else 2) << 20
        use = Use(0.0, 0.0, memory, 0.0, alive=True)
        return {"p": Reading(at=0.0, leader=member, members={member: use})}

    monkeypatch.setattr(Sampler, "_off_loop", off_loop)
    sampler = Sampler([process], 1, take=take)
    ceilings, since = CeilingsSpec(memory_mb=1, for_sec=6), {}
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch() as passes:
            async for entry in passes:
                one = entry.item.samples["p"]
                since, failure = judge_sample("p", ceilings, since, one, entry.item.at)
                if failure is not None:
                    break
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == 4 + 6
