"""``kill -9`` at seeded moments: nothing is lost, and what runs twice does so for a reason."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import trio

from runtime.invocation import InvocationStatus, NewInvocation
from runtime.invocation.models import new_invocation_id
from runtime.state_backend.base import InvocationHistory
from runtime.state_backend.sqlite import SQLiteStateBackend

S = InvocationStatus
HERE = Path(__file__).parent
MODULE = "crash_program"
#: How often each kind of task is submitted, and each kind of death chosen.
TASKS = {"work": 6, "work_in_thread": 2, "wait_for_another": 2}
IN_WORKER = "work_in_worker"
DEATHS = {"runtime": 5, "commit": 3, "worker": 2, "all": 1}
#: After so many writes and syncs, at most, a runtime dies that is to die in a commit.
MOST_STEPS = 60


class Execution(NamedTuple):
    """A line of the log: in which process a body has begun, and which runtime that belongs to."""

    runtime: int
    pid: int


@dataclass
class Runtimes:
    """The runtimes that share a file; those that are killed are replaced."""

    folder: Path
    chance: random.Random
    starter: trio.Process
    ready: set[int] = field(default_factory=set)
    killed: dict[int, datetime] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    changed: trio.Event = field(default_factory=trio.Event)

    async def start(self, *, at_step: int = 0) -> int:
        """Start one more; return its pid when it works, or has died at that step."""
        known = self.ready | set(self.killed)
        assert self.starter.stdin is not None
        await self.starter.stdin.send_all(b"%d\n" % at_step)
        while not (new := (self.ready | set(self.killed)) - known):
            await self.wait_change()
        return new.pop()

    async def wait_change(self) -> None:
        changed = self.changed
        await changed.wait()

    def tell_change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def listen(self, nursery: trio.Nursery) -> None:
        """Hear of those that have begun."""
        assert self.starter.stdout is not None
        text = b""
        while piece := await self.starter.stdout.receive_some():
            *lines, text = (text + piece).split(b"\n")
            for line in lines:
                word, pid = line.split()
                if word == b"started":
                    nursery.start_soon(self.watch, int(pid))
                elif int(pid) not in self.killed:  # its death may be heard of first
                    self.ready.add(int(pid))
                    self.tell_change()

    async def watch(self, pid: int) -> None:
        """Note its death."""
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        self.killed.setdefault(pid, datetime.now(UTC))
        self.ready.discard(pid)
        self.tell_change()

    async def kill(self, pid: int) -> None:
        """Kill a runtime; return when it is dead."""
        self.killed[pid] = datetime.now(UTC)
        self.ready.discard(pid)
        os.kill(pid, signal.SIGKILL)
        await trio.lowlevel.checkpoint()

    async def kill_something(self) -> None:
        """Let a runtime, a worker or all of them die, and replace what has died."""
        kind = self.chance.choices(list(DEATHS), list(DEATHS.values()))[0]
        workers = self.workers() if kind == "worker" else []
        if kind == "worker" and not workers:
            kind = "runtime"
        self.deaths[kind] += 1
        if kind == "worker":
            os.kill(self.chance.choice(workers), signal.SIGKILL)
        elif kind == "commit":
            pid = await self.start(at_step=self.chance.randint(1, MOST_STEPS))
            while pid not in self.killed:
                await self.wait_change()
        else:
            pids = sorted(self.ready)
            victims = pids if kind == "all" else [self.chance.choice(pids)]
            for victim in victims:
                await self.kill(victim)
            for _ in victims:
                await self.start()

    def workers(self) -> list[int]:
        """Return the worker processes of all."""
        found: list[int] = []
        for pid in sorted(self.ready):
            with suppress(psutil.NoSuchProcess):
                found += [each.pid for each in psutil.Process(pid).children()]
        return found


@asynccontextmanager
async def open_runtimes(
    folder: Path, chance: random.Random, *, number: int, **settings: str
) -> AsyncGenerator[Runtimes]:
    """Have *number* runtimes on one file; kill what is there at the end."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
        "CRASH_STORE": f"sqlite:///{folder}/store.db",
        "CRASH_LOG": str(folder / "log"),
        **settings,
    }
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    starter = await trio.lowlevel.open_process(
        [sys.executable, "-m", MODULE],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    runtimes = Runtimes(folder, chance, starter)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtimes.listen, nursery)
            for _ in range(number):
                await runtimes.start()
            yield runtimes
            nursery.cancel_scope.cancel()
    finally:
        os.killpg(starter.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):  # it ends at once
            await starter.wait()


class Submitted(NamedTuple):
    """What was submitted, and what is to come of it."""

    invocation_id: str
    result: int


async def submit(
    store: SQLiteStateBackend,
    chance: random.Random,
    tasks: dict[str, int],
    number: int,
    longest_sec: float,
) -> list[Submitted]:
    """Submit *number* calls of all kinds; what is returned is durable."""
    now = store.now()
    new, submitted = [], []
    for _ in range(number):
        task = chance.choices(list(tasks), list(tasks.values()))[0]
        value, invocation_id = chance.randrange(1000), new_invocation_id(now)
        call: dict[str, object] = {"number": value, "pause_sec": chance.uniform(0, longest_sec)}
        if task == IN_WORKER:
            call["told_as"] = invocation_id
        new.append(
            NewInvocation(
                invocation_id=invocation_id,
                task=f"{MODULE}.{task}",
                arguments=json.dumps(call),
            )
        )
        submitted.append(Submitted(invocation_id, value * value))
    await store.register(new)
    return submitted


def read_log(folder: Path) -> dict[str, dict[int, list[Execution]]]:
    """Return the executions by invocation and attempt."""
    found: dict[str, dict[int, list[Execution]]] = defaultdict(lambda: defaultdict(list))
    for line in (folder / "log").read_text().splitlines():
        invocation_id, attempt, runtime, pid = line.split()
        found[invocation_id][int(attempt)].append(Execution(int(runtime), int(pid)))
    return found


def executions_explained(
    history: list[InvocationHistory], executions: dict[int, list[Execution]], killed: set[int]
) -> None:
    """Look whether each execution but the last has been cut off by a death, as its history says."""
    statuses = [line.status for line in history]
    told = " ".join(str(status) for status in statuses)
    assert statuses.count(S.SUCCESS) == 1, told
    assert statuses[-1] is S.SUCCESS, told
    attempts = statuses.count(S.RUNNING)
    if in_worker := executions.pop(0, []):
        executions = {}
        assert len(in_worker) <= attempts, told
    else:
        assert attempts in executions, told
    # A death between the claim and the first line of the body costs an attempt and runs nothing.
    assert set(executions) <= set(range(1, attempts + 1)), told
    for attempt, begun in executions.items():
        assert len(begun) == 1, (attempt, told)
        assert attempt == attempts or killed & set(begun[0]), (attempt, told)
    begins = [index for index, status in enumerate(statuses) if status is S.RUNNING]
    for first, then in pairwise(begins):
        assert S.RUNNING_RECOVERY in statuses[first:then], told
    assert statuses.count(S.RUNNING_RECOVERY) == attempts - 1, told


def takeovers(history: list[InvocationHistory], killed_at: dict[str, datetime]) -> list[float]:
    """Return the milliseconds from each death of a runtime until what it ran ran elsewhere."""
    found, died_at = [], None
    for line in history:
        if line.status is S.RUNNING:
            if died_at is not None:
                found.append((line.timestamp - died_at).total_seconds() * 1000)
            died_at = killed_at.get(line.runner_id or "")
    return found


async def check(
    store: SQLiteStateBackend, runtimes: Runtimes, submitted: list[Submitted], killed: set[int]
) -> int:
    """Look whether all is as promised; return how many executions were cut off."""
    cursor: str | None = None
    everything: list[str] = []
    while True:
        page = await store.list_invocations(limit=1000, after=cursor)
        everything += [each.invocation_id for each in page.invocations]
        if page.next is None:
            break
        cursor = page.next
    for invocation_id in everything:  # also what was submitted by a body that was cut off
        outcome = await store.wait_over(invocation_id)
        assert outcome.status is S.SUCCESS, outcome
    assert {each.invocation_id for each in submitted} <= set(everything)
    for each in submitted:
        assert await store.get_result(each.invocation_id) == each.result
    log, again = read_log(runtimes.folder), 0
    assert set(log) == set(everything)
    for invocation_id in everything:
        history = await store.get_history(invocation_id)
        again += sum(map(len, log[invocation_id].values())) - 1
        executions_explained(history, log[invocation_id], killed)
    assert await store.check_integrity() == []
    return again


async def kill_and_check(
    folder: Path,
    *,
    seed: int,
    runtimes: int,
    kills: int,
    invocations: int,
    longest_sec: float,
    workers: bool = False,
) -> str:
    """Do it all; return a sentence about what has happened."""
    chance = random.Random(seed)  # noqa: S311 - the same moments each time
    tasks = TASKS | ({IN_WORKER: 3} if workers else {})
    settings = {"CRASH_WORKERS": "1"} if workers else {}
    async with (
        SQLiteStateBackend(f"sqlite:///{folder}/store.db") as store,
        open_runtimes(folder, chance, number=runtimes, **settings) as group,
    ):
        submitted: list[Submitted] = []
        for index in range(kills):
            part = invocations * (index + 1) // kills - len(submitted)
            submitted += await submit(store, chance, tasks, part, longest_sec)
            await trio.sleep(chance.uniform(0, longest_sec))  # the moment
            await group.kill_something()
        for each in submitted:
            await store.wait_over(each.invocation_id)
        again = await check(store, group, submitted, set(group.killed))
        return f"{dict(group.deaths)}: {len(submitted)} submitted, {again} bodies begun again"


async def test_what_is_killed_is_taken_over_and_nothing_is_lost(tmp_path: Path) -> None:
    with trio.fail_after(100):
        said = await kill_and_check(
            tmp_path, seed=7, runtimes=2, kills=8, invocations=120, longest_sec=0.2
        )
    print(said)  # noqa: T201 - for `pytest -s`


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_two_hundred_kills_with_two_thousand_invocations_lose_none(
    tmp_path: Path, seed: int
) -> None:
    with trio.fail_after(115):
        said = await kill_and_check(
            tmp_path,
            seed=seed,
            runtimes=3,
            kills=10,
            invocations=100,
            longest_sec=0.3,
            workers=seed % 4 == 0,
        )
    print(said)  # noqa: T201 - for `pytest -s`


async def who_has_most(store: SQLiteStateBackend, runners: list[str]) -> str:
    """Return the runner that has taken most, once one has taken something."""
    while True:
        await trio.sleep(0.1)
        taken = {each: len(await store.get_owned(each)) for each in runners}
        if any(taken.values()):
            return max(taken, key=taken.__getitem__)


@pytest.mark.slow
async def test_what_a_runtime_ran_runs_elsewhere_soon_after_its_death(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - the same moments each time
    found: list[float] = []
    with trio.fail_after(115):
        async with (
            SQLiteStateBackend(f"sqlite:///{tmp_path}/store.db") as store,
            open_runtimes(tmp_path, chance, number=2, CRASH_SLOTS="40") as group,
        ):
            for _ in range(5):
                submitted = await submit(store, chance, {"work": 1}, 20, 2.0)
                pids = {each.runner_id: each.pid for each in await store.get_runners()}
                await group.kill(pids[await who_has_most(store, list(pids))])
                for each in submitted:
                    await store.wait_over(each.invocation_id)
                died_at = {r: group.killed[p] for r, p in pids.items() if p in group.killed}
                for each in submitted:
                    found += takeovers(await store.get_history(each.invocation_id), died_at)
                await group.start()
    assert found
    median = statistics.median(found)
    print(f"{len(found)} taken over, after {median:.1f} ms")  # noqa: T201 - for `pytest -s`
