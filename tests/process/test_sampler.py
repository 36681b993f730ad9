"""Statistics are taken while somebody wants them, and handlers get those of their processes."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime import Application, ProcessPilot, Supervisor
from runtime._procfs import Member
from runtime.manifest import Manifest
from runtime.plugin import Plugin
from runtime.process import Process, ProcessStats, Sampler
from runtime.process.stats import SAMPLES_KEPT
from runtime.process.usage import Reading, Use
from runtime.supervision._exceptions import UnknownUnitError

SLEEP = "exec sleep 60"
OFTEN: dict[str, Any] = {"process_poll_interval": 0.02}


def member(pid: int) -> Member:
    return Member(pid, 1)


class Fake:
    """Takes looks at no real process, and counts them."""

    def __init__(self) -> None:
        self.looks: list[tuple[dict[str, int], set[str]]] = []
        self.problem: Exception | None = None

    def __call__(self, pids: Any, details: Any) -> dict[str, Reading]:
        self.looks.append((dict(pids), set(details)))
        if self.problem is not None:
            raise self.problem
        at = float(len(self.looks))
        uses = {pid: Use(at / 2, at / 2, pid << 20, 0.0, alive=True) for pid in pids.values()}
        return {
            name: Reading(at=at, leader=member(pid), members={member(pid): uses[pid]})
            for name, pid in pids.items()
        }


def make(**pids: int) -> list[Process]:
    processes = [Process(name=name, path=Path("/bin/p")) for name in pids]
    for process, pid in zip(processes, pids.values(), strict=True):
        if pid:
            process.note_spawned(pid)
    return processes


@pytest.fixture
def on_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look on the loop: the clock of these tests would not wait for a thread."""

    async def off_loop(self: Sampler, look: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return look()

    monkeypatch.setattr(Sampler, "_off_loop", off_loop)


# --- who wants them -------------------------------------------------------------------------------


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_looks_are_taken_in_their_period_and_only_while_somebody_watches() -> None:
    fake = Fake()
    sampler = Sampler(make(a=1), 0.05, take=fake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        await trio.sleep(10)
        assert (fake.looks, sampler.watched) == ([], False)
        with sampler.watch():
            await trio.sleep(0.51)
            assert len(fake.looks) == 11
        await trio.sleep(10)
        assert len(fake.looks) == 11
        with sampler.watch(), sampler.watch():
            await trio.sleep(0.51)
        assert len(fake.looks) == 22
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_while_nobody_watches_no_task_wakes(autojump_clock: MockClock) -> None:
    class Wakes(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("Sampler.run"):
                woken.append(task.name)

    woken: list[str] = []
    sampler = Sampler(make(a=1), 0.01, take=Fake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(Wakes())
        await trio.sleep(20)
        assert woken == []
        with sampler.watch():
            await trio.sleep(1)
        assert woken
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_only_what_is_watched_is_looked_at_and_in_detail_where_that_is_asked_for() -> None:
    fake = Fake()
    processes = make(a=1, b=2, c=3, stopped=0)
    sampler = Sampler(processes, 1, take=fake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch(["a", "stopped"]), sampler.watch(details=["b"], names=()):
            await trio.sleep(0.5)
        assert fake.looks == [({"a": 1, "b": 2}, {"b"})]
        with sampler.watch():
            await trio.sleep(1)
        assert fake.looks[1:] == [({"a": 1, "b": 2, "c": 3}, set())]
        nursery.cancel_scope.cancel()
    assert [len(process.runtime_info.samples) for process in processes] == [2, 2, 1, 0]


def test_who_watches_a_process_that_there_is_not_is_told() -> None:
    sampler = Sampler(make(a=1))
    with pytest.raises(UnknownUnitError), sampler.watch(["b"]):
        raise AssertionError
    with pytest.raises(UnknownUnitError), sampler.watch(details=["b"]):
        raise AssertionError
    assert not sampler.watched


@pytest.mark.parametrize("period", [0, -1, float("nan")])
def test_a_period_is_above_zero(period: float) -> None:
    with pytest.raises(ValueError, match="a period above 0"):
        Sampler([], period)


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_slow_reader_gets_the_newest_and_knows_what_it_missed() -> None:
    sampler = Sampler(make(a=1), 1, take=Fake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch() as passes:
            first = await anext(passes)
            await trio.sleep(10.5)
            second = await anext(passes)
        assert (first.missed, second.missed) == (0, 9)
        assert second.item.at - first.item.at == 10
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_readers_end_with_the_tree() -> None:
    sampler = Sampler(make(a=1), 1, take=Fake())
    seen = []
    with sampler.watch() as passes, trio.move_on_after(3.5):
        await sampler.run()
    async for entry in passes:
        seen.append(entry.sequence)  # noqa: PERF401 - it ends
    assert seen == [4]


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_cpu_of_the_first_look_is_zero_also_after_a_time_in_which_nobody_looked() -> None:
    process, *_ = processes = make(a=1)
    sampler = Sampler(processes, 1, take=Fake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        for _ in range(2):
            with sampler.watch():
                await trio.sleep(2.5)
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [s.cpu_percent for s in process.runtime_info.samples] == [0, 50, 50, 0, 50, 50]


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_maxima_live_on_and_a_process_that_has_ended_uses_nothing() -> None:
    process, *_ = processes = make(a=9)
    sampler = Sampler(processes, 1, take=Fake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch():
            await trio.sleep(1.5)
            process.note_ended(0)
            await trio.sleep(1)
            gone = process.get_stats()
            process.note_spawned(4)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    path = Path("/bin/p")
    assert gone == ProcessStats("a", path, 0, 0, max_memory_usage_mb=9, max_cpu_usage_percent=50)
    assert process.get_stats() == ProcessStats("a", path, 4, 0, 9, 50)


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_so_many_samples_are_kept() -> None:
    process, *_ = processes = make(a=1)
    sampler = Sampler(processes, 0.01, take=Fake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch():
            await trio.sleep(0.02 * SAMPLES_KEPT)
        nursery.cancel_scope.cancel()
    samples = process.runtime_info.samples
    assert len(samples) == SAMPLES_KEPT == 300
    assert list(samples) == sorted(samples, key=lambda sample: sample.timestamp)


@pytest.mark.usefixtures("autojump_clock")
async def test_values_of_a_process_that_has_been_replaced_meanwhile_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, *_ = processes = make(a=1, b=2)

    async def off_loop(self: Sampler, look: Callable[[], Any]) -> Any:
        found = look()
        await trio.lowlevel.checkpoint()
        process.note_ended(0)
        process.note_spawned(3)
        return found

    monkeypatch.setattr(Sampler, "_off_loop", off_loop)
    sampler = Sampler(processes, 1, take=Fake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch() as passes:
            assert list((await anext(passes)).item.samples) == ["b"]
        nursery.cancel_scope.cancel()
    assert process.runtime_info.samples == ()


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_look_that_fails_is_told_once_in_a_row_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = Fake()
    sampler = Sampler(make(a=1), 1, take=fake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with sampler.watch():
            for problem in (OSError("no memory"), None, OSError("again"), None):
                fake.problem = problem
                await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "no statistics can be taken: no memory",
        "no statistics can be taken: again",
    ]
    assert sampler.passes.last == 10


# --- handlers -------------------------------------------------------------------------------------


def equip(processes: list[Process], **handlers: list[Any]) -> None:
    for process in processes:
        process.stats_handler_functions[:] = handlers.get(process.name, [])


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_handler_is_called_once_a_pass_with_exactly_the_processes_that_name_it() -> None:
    calls: list[tuple[str, list[str]]] = []

    async def one(stats: list[ProcessStats]) -> None:
        calls.append(("one", [each.name for each in stats]))

    async def other(stats: list[ProcessStats]) -> None:
        calls.append(("other", [each.name for each in stats]))

    processes = make(a=1, b=2, c=3, d=0, e=5)
    equip(processes, a=[one], b=[one, one, other], d=[one], c=[other])
    fake = Fake()
    sampler = Sampler(processes, 1, take=fake)
    with trio.move_on_after(2.5):
        await sampler.run()
    assert sorted(calls) == [("one", ["a", "b"])] * 3 + [("other", ["b", "c"])] * 3
    assert fake.looks == [({"a": 1, "b": 2, "c": 3}, set())] * 3


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_handler_none_of_whose_processes_runs_is_not_called() -> None:
    process, *_ = processes = make(a=0)
    calls: list[object] = []

    async def handler(stats: object) -> None:
        calls.append(stats)

    equip(processes, a=[handler])
    fake = Fake()
    sampler = Sampler(processes, 1, take=fake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        await trio.sleep(10.5)
        assert (calls, fake.looks) == ([], [])
        process.note_spawned(6)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert calls == [[ProcessStats("a", Path("/bin/p"), 6, 0, 6, 0)]]


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_slow_handler_is_not_called_twice_at_once_and_delays_nobody() -> None:
    running, most, quick = 0, 0, count()
    times: list[float] = []

    async def slow(stats: list[ProcessStats]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        times.append(trio.current_time() - began)
        await trio.sleep(3.5)
        running -= 1

    async def at_once(stats: list[ProcessStats]) -> None:
        next(quick)

    processes = make(a=1)
    equip(processes, a=[slow, at_once])
    sampler = Sampler(processes, 1, take=Fake())
    began = trio.current_time()
    with trio.move_on_after(20.5):
        await sampler.run()
    assert most == 1
    assert next(quick) == sampler.passes.last == 21
    # When it is done, the newest of what it missed is there already.
    assert times == [0, 3.5, 7, 10.5, 14, 17.5]


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_handler_that_raises_is_told_once_in_a_row_and_called_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    number, others = count(), count()

    async def fails(stats: list[ProcessStats]) -> None:
        if next(number) % 5 != 4:
            raise LookupError("no such metric")

    async def works(stats: list[ProcessStats]) -> None:
        next(others)

    processes = make(a=1)
    equip(processes, a=[fails, works])
    sampler = Sampler(processes, 1, take=Fake())
    with trio.move_on_after(14.5):
        await sampler.run()
    assert (next(number), next(others)) == (15, 15)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert all(".fails raised LookupError: no such metric" in message for message in messages)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


class Unhashable:
    """A callable that cannot be a key, and has no name."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def __call__(self, stats: list[ProcessStats]) -> None:
        self.calls.append([each.name for each in stats])
        raise ValueError("it is full")


@pytest.mark.usefixtures("autojump_clock", "on_loop")
async def test_a_handler_may_be_any_callable(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call(function: Any, *args: Any, limiter: Any) -> Any:
        return await function(*args)  # it is no coroutine function by its looks

    monkeypatch.setattr("runtime.process.sampler.call_plugin", call)
    processes = make(a=1, b=2)
    handler = Unhashable()
    equip(processes, a=[handler], b=[Unhashable()])  # equal, so one and the same
    with trio.move_on_after(0.5):
        await Sampler(processes, 1, take=Fake()).run()
    assert handler.calls == [["a", "b"]]
    assert "the statistics handler Unhashable raised ValueError: it is full" in caplog.text


# --- in a tree ------------------------------------------------------------------------------------


class Handlers(Plugin):
    """Handlers in the style of Process Pilot: plain functions, and a coroutine."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[list[str], str]]] = {}
        self.stuck = threading.Event()

    def note(self, which: str, stats: list[ProcessStats]) -> None:
        names = [each.name for each in stats]
        self.calls.setdefault(which, []).append((names, threading.current_thread().name))

    def plain(self, stats: list[ProcessStats]) -> None:
        self.note("plain", stats)

    async def waits(self, stats: list[ProcessStats]) -> None:
        self.note("waits", stats)

    def blocks(self, stats: list[ProcessStats]) -> None:
        self.note("blocks", stats)
        self.stuck.wait(60)

    def fails(self, stats: list[ProcessStats]) -> None:
        self.note("fails", stats)
        raise RuntimeError("the disk is full")

    def get_stats_handlers(self) -> Any:
        return {
            "both": [self.plain, self.waits],
            "blocks": [self.blocks],
            "fails": [self.fails],
        }

    def times(self, which: str) -> int:
        return len(self.calls.get(which, ()))


async def test_handlers_of_a_plugin_get_what_real_processes_use(
    make_pilot: Any, sh: Any, look: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = Handlers()
    pilot = make_pilot(
        sh(SLEEP, name="a", stat_handlers=["both", "fails"]),
        sh(SLEEP, name="b", stat_handlers=["blocks", "both"]),
        sh(SLEEP, name="c"),
        options=OFTEN,
    )
    pilot.register_plugins([handlers])
    async with pilot:
        await look.true(lambda: handlers.times("plain") > 5 and handlers.times("fails") > 2)
        stats = {each.name: each for each in pilot.get_stats()}
        assert handlers.times("blocks") == 1
        handlers.stuck.set()
    for name in ("plain", "waits"):  # at the start and at the end one of them may run alone
        told_of = {tuple(names) for names, _ in handlers.calls[name]}
        assert ("a", "b") in told_of
        assert told_of <= {("a",), ("a", "b"), ("b",)}
    assert {tuple(names) for names, _ in handlers.calls["fails"]} == {("a",)}
    main = threading.current_thread().name
    assert main not in {thread for _, thread in handlers.calls["plain"]}
    assert {thread for _, thread in handlers.calls["waits"]} == {main}
    assert list(stats) == ["a", "b", "c"]
    assert stats["a"].memory_usage_mb > 0.1
    assert stats["c"].memory_usage_mb == 0  # nobody wanted to know
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "Handlers.fails raised RuntimeError: the disk is full" in told[0]


async def test_a_tree_has_statistics_for_who_reads_them_in_detail(
    make_pilot: Any, py: Any, sh: Any, look: Any
) -> None:
    serves = """
import socket, time
made = socket.create_server(("127.0.0.1", 0))
print("port", made.getsockname()[1], flush=True)
time.sleep(60)
"""
    async with make_pilot(py(serves), sh("sleep 60; :", name="q"), options=OFTEN) as pilot:
        port = await look.line(pilot.get_process_by_name("p").output, "port")
        await look.true(lambda: True)
        with pilot.sampler.watch(details=["p"]) as passes:
            async for entry in passes:
                samples = entry.item.samples
                if samples["q"].family_size == 2:
                    break
        assert samples["p"].listening == (f"127.0.0.1:{port}",)
        assert samples["p"].open_files is not None
        assert samples["p"].open_files >= 4
        assert samples["q"].open_files is samples["q"].listening is None
        assert samples["q"].family_memory_mb > samples["q"].memory_mb > 0.1
    assert [e async for e in passes][1:] == []  # it has ended with the tree


async def test_a_process_that_is_restarted_again_and_again_is_no_trouble(
    make_pilot: Any, sh: Any, look: Any, caplog: pytest.LogCaptureFixture
) -> None:
    restart = {"when": "always", "delay_sec": 0, "factor": 1}
    pilot = make_pilot(
        *(sh("sleep 0.02; :", name=f"p{n}", restart=restart) for n in range(3)),
        options={"process_poll_interval": 0.005},
    )
    async with pilot:
        with pilot.sampler.watch(details=[f"p{n}" for n in range(3)]):
            await look.generation(pilot, "p0", 5)
        assert pilot.sampler.passes.last > 2
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


NOBODY = """
import sys, threading, trio
from runtime import ProcessManifest, ProcessPilot

async def main():
    data = {"processes": [{"name": "p", "path": "sleep", "args": ["60"]}]}
    async with ProcessPilot(ProcessManifest.model_validate(data)) as pilot:
        await trio.sleep(0.5)  # five periods
        print("psutil" in sys.modules, pilot.sampler.passes.last)
        with pilot.sampler.watch() as passes:
            await anext(passes)
        print("psutil" in sys.modules, pilot.sampler.passes.last)

trio.run(main)
"""


def test_while_nobody_watches_psutil_is_not_imported_and_no_look_is_taken() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOBODY], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["False", "0", "True", "1"]


@pytest.mark.parametrize(
    ("of_manifest", "of_pilot", "period"), [(None, None, 0.1), (None, 3, 3), (7, 3, 7)]
)
def test_the_period_is_the_manifests_then_the_pilots(
    make_pilot: Any, sh: Any, of_manifest: Any, of_pilot: Any, period: float
) -> None:
    options = {} if of_pilot is None else {"process_poll_interval": of_pilot}
    pilot = make_pilot(sh(SLEEP), stats_interval_sec=of_manifest, options=options)
    assert pilot.sampler.period_sec == period


def test_the_period_of_an_application_is_a_second_unless_its_manifest_says_another() -> None:
    entry: Any = {"name": "p", "path": "sleep", "args": ["60"]}
    for said, period in ((None, 1.0), (0.25, 0.25)):
        manifest = Manifest.model_validate({"processes": [entry], "stats_interval_sec": said})
        pilot = Application(manifest).pilot
        assert pilot is not None
        assert pilot.sampler.period_sec == period


async def test_an_application_takes_statistics_as_well(tmp_path: Path) -> None:
    entry: Any = {"name": "p", "path": "sleep", "args": ["60"]}
    data = {"processes": [entry], "base_directory": tmp_path, "stats_interval_sec": 0.02}
    async with Application(Manifest.model_validate(data)) as app:
        assert app.pilot is not None
        with trio.fail_after(10), app.pilot.sampler.watch() as passes:
            async for _ in passes:  # the first may see what is not executed yet, a page or two
                if app.pilot.get_stats()[0].memory_usage_mb > 0.1:
                    break
        # It is no unit: nobody sees it as one of the tree's, and it keeps no tree alive.
        assert app.supervisor.names == ["p"]


async def test_a_sampler_that_is_watched_does_not_keep_a_tree_alive(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh("exit 0", shutdown_strategy="do_not_restart"), options=OFTEN)
    with ExitStack() as stack:
        stack.enter_context(pilot.sampler.watch())
        await pilot.start()
    assert not pilot.is_running()
    assert isinstance(pilot, ProcessPilot)
    assert isinstance(pilot.supervisor, Supervisor)
