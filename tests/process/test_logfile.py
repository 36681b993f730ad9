"""What a process prints is in its log too: all of it, in its order, and nobody waits for that."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.pilot import ProcessPilot
from runtime.plugin import Plugin
from runtime.process import LogSpec, logfile
from runtime.process.logfile import LogFile, Trouble
from runtime.process.output import Line
from runtime.process.rotation import Appended, append_lines, current_of, rotated
from runtime.supervision.events import EventKind

SLEEP = "exec sleep 60"
ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
LOG: dict[str, Any] = {"log": {"file": "logs/p.log"}}
#: Prints that many lines, each at once, now to one stream and now to the other.
CHATTER = """
import sys
for number in range(int(sys.argv[1])):
    print("line", number, file=sys.stderr if number % 3 else sys.stdout, flush=True)
"""
#: Prints that many lines of a hundred bytes.
FLOOD = "import sys\nfor number in range(int(sys.argv[1])): print(f'{number:099}')"
#: Says something when it is told to stop, and something without a newline at its very end.
LAST_WORDS = """
import os, signal
def stop(*_):
    os.write(1, b"bye\\nend")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while True:
    signal.pause()
"""
#: More than what may wait for a slow disk, and several times so.
MANY = 300_000
TOO_SLOW = "takes the lines too slowly; some of them are left out"


def read_log(path: Path) -> list[str]:
    """Return the lines of the file and of the older ones, the oldest first."""
    found = (current_of(each) for each in path.parent.iterdir())
    numbers = {number for current, number in found if current == path}
    texts = [rotated(path, number).read_bytes() for number in sorted(numbers, reverse=True)]
    assert all(text == b"" or text.endswith(b"\n") for text in texts)
    return b"".join(texts).decode().split("\n")[:-1]


def printed(pilot: ProcessPilot, name: str = "p") -> list[str]:
    process = pilot.get_process_by_name(name)
    assert process is not None
    return [entry.item.text for entry in process.output.lines.tail()]


def notes(pilot: ProcessPilot, name: str = "p") -> list[str]:
    """Return what was noted about the log, without its path."""
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    facts = [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.NOTED)]
    return [fact.split(" ", 2)[2] for fact in facts if fact.startswith("log ")]


async def wait_note(pilot: ProcessPilot, words: str) -> None:
    async for entry in pilot.supervisor.events.read(after=0):
        if entry.item.kind is EventKind.NOTED and words in entry.item.reason:
            return


class Logged:
    """One child with a log; *busy* is what its writer has to wait for, like a slow disk."""

    def __init__(self, room: Any) -> None:
        self.room, self.path = room, room.folder / "logs" / "p.log"
        self.limiter = trio.CapacityLimiter(1)
        self.set_up()

    def set_up(self, **fields: Any) -> None:
        self.room.log = LogFile(LogSpec(file=self.path, **fields), self.limiter)
        self.room.output.listeners["log"] = self.room.log.add

    async def run(self, command: Any, *, stop_at_end_sec: float | None = None) -> None:
        """Run to the end of the program and of its output; then there is so much time left."""
        async with self.room.open(command) as child:
            await child.wait_exit()
            if stop_at_end_sec is not None:
                await trio.testing.wait_all_tasks_blocked(0.1)
                self.room.handle.budget.begin(stop_at_end_sec)

    @asynccontextmanager
    async def busy(self) -> AsyncGenerator[None]:
        await self.limiter.acquire_on_behalf_of(self)
        try:
            yield
        finally:
            self.limiter.release_on_behalf_of(self)

    @property
    def notes(self) -> list[str]:
        return [words.removeprefix(f"log {self.path} ") for words in self.room.handle.notes]

    @property
    def lines(self) -> list[str]:
        return read_log(self.path)


@pytest.fixture
def logged(room: Any) -> Logged:
    return Logged(room)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon, and find that all is well soon."""
    monkeypatch.setattr(logfile, "_RETRY_SEC", 0.01)
    monkeypatch.setattr(logfile, "_CALM_SEC", 0.05)


# --- what is in the file --------------------------------------------------------------------------


async def test_both_streams_are_in_the_file_in_the_order_in_which_they_came(
    make_pilot: Any, py: Any, tmp_path: Path
) -> None:
    pilot = make_pilot(py(CHATTER, 500, **ONCE, **LOG))
    await pilot.start()
    lines = read_log(tmp_path / "logs" / "p.log")
    assert lines == printed(pilot)
    assert sorted(lines) == sorted(f"line {number}" for number in range(500))
    assert notes(pilot) == []


async def test_lines_are_written_as_they_came(logged: Logged) -> None:
    odd = r"\033[31mred\033[0m\r\n\377\n\n  grüße\tund\0mehr\nno end"
    await logged.run(logged.room.sh(f"printf '{odd}'"))
    bad = "\N{REPLACEMENT CHARACTER}"
    assert logged.lines == ["\x1b[31mred\x1b[0m", bad, "", "  grüße\tund\0mehr", "no end"]


async def test_a_process_that_prints_nothing_has_an_empty_file(logged: Logged) -> None:
    await logged.run(logged.room.sh("exit 0"))
    assert logged.path.read_bytes() == b""
    assert logged.notes == []


async def test_each_line_may_begin_with_its_time(logged: Logged) -> None:
    logged.set_up(timestamps=True)
    await logged.run(logged.room.sh("echo one; echo two >&2"))
    stamped = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (one|two)")
    assert all(stamped.fullmatch(line) for line in logged.lines)
    log = LogFile(LogSpec(file=logged.path, timestamps=True), logged.limiter)
    log.add([Line("stdout", "a", 0.0), Line("stderr", "b", 1_700_000_000.1234)])
    assert log._take()
    assert log._batch.data == b"1970-01-01T00:00:00.000Z a\n2023-11-14T22:13:20.123Z b\n"


async def test_the_last_words_during_a_stop_are_in_the_file_when_the_unit_is_down(
    make_pilot: Any, py: Any, look: Any, tmp_path: Path
) -> None:
    seen: list[list[str]] = []

    class Reader(Plugin):
        def get_lifecycle_hooks(self) -> Any:
            def read(process: Any, popen: object) -> None:
                seen.append(read_log(process.log.file))

            return {"read": {"on_shutdown": [read]}}

    pilot = make_pilot(py(LAST_WORDS, lifecycle_hooks=["read"], **LOG))
    pilot.register_plugins([Reader()])
    async with pilot:
        await look.line(pilot.get_process_by_name("p").output, "up")
        await pilot.stop_process("p")
        assert read_log(tmp_path / "logs" / "p.log") == ["up", "bye", "end"]
    assert seen == [["up", "bye", "end"]]


async def test_a_restart_and_a_second_runtime_go_on_in_the_same_file(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Path
) -> None:
    for _ in range(2):
        async with make_pilot(sh(f"echo up; {SLEEP}", **LOG)) as pilot:
            await look.line(pilot.get_process_by_name("p").output, "up")
            os.kill(pilot.get_running_process("p").pid, signal.SIGKILL)
            await look.generation(pilot, "p", 2)
            await look.true(lambda: printed(pilot) == ["up", "up"])
    assert read_log(tmp_path / "logs" / "p.log") == ["up"] * 4


@pytest.mark.parametrize("keep", [0, 2, 1000])
async def test_the_file_is_rotated_by_its_size_and_nothing_is_lost_between(
    make_pilot: Any, py: Any, tmp_path: Path, keep: int
) -> None:
    log = {"file": "logs/p.log", "max_mb": 5_000 / 1024 / 1024, "keep": keep}
    await make_pilot(py(FLOOD, 2_000, log=log, **ONCE)).start()
    lines = read_log(tmp_path / "logs" / "p.log")
    kept = min((keep + 1) * 50, 2_000)
    assert lines == [f"{number:099}" for number in range(2_000 - kept, 2_000)]
    assert {file.stat().st_size for file in (tmp_path / "logs").iterdir()} == {5_000}


async def test_what_is_in_the_file_from_before_counts(logged: Logged) -> None:
    logged.set_up(max_mb=10 / 1024 / 1024, keep=1)
    for _ in range(3):
        await logged.run(logged.room.sh("echo one"))
    assert logged.path.read_text() == "one\n"
    assert rotated(logged.path, 1).read_text() == "one\none\n"


@pytest.mark.parametrize("how", ["removed", "renamed", "with its folder"])
async def test_a_file_that_somebody_takes_away_is_made_anew(
    logged: Logged, look: Any, open_gate: Any, how: str
) -> None:
    path = logged.path
    script = f"echo one; read -r line < gate; echo two; {SLEEP}"
    async with logged.room.open(logged.room.sh(script)):
        await look.true(lambda: path.exists() and path.read_text() == "one\n")
        if how == "renamed":
            path.rename(path.with_name("p.log-yesterday"))
        else:
            path.unlink()
        if how == "with its folder":
            path.parent.rmdir()
        open_gate()
        await look.true(lambda: path.exists() and path.read_text())
    assert path.read_text() == "two\n"
    assert logged.notes == []


# --- a disk that is slow, full, or away -----------------------------------------------------------


async def test_a_flood_on_a_slow_disk_loses_lines_and_neither_the_count_nor_the_memory(
    logged: Logged, look: Any
) -> None:
    before = look.rss_mb()
    async with logged.room.open(logged.room.py(FLOOD, MANY)) as child, logged.busy():
        assert await child.wait_exit() == 0  # it is not held up
        await look.line(logged.room.output, f"{MANY - 1:099}")
        grown = look.rss_mb() - before
    lines = logged.lines
    (gap,) = (line for line in lines if line.startswith("[lines missing here: "))
    missing = int(gap.rstrip("]").split()[-1])
    assert lines.index(gap) == len(lines) - 1  # in its place: what came after it was left out, too
    assert lines[:-1] == [f"{number:099}" for number in range(MANY - missing)]
    assert missing > MANY / 2
    assert logged.notes == [TOO_SLOW, f"is written again; lines missing in it: {missing}"]
    assert grown < 20  # MiB, of the 30 that were printed; 8 at most are the log's


async def test_a_gap_is_told_where_it_is_and_the_lines_after_it_are_there(
    logged: Logged, look: Any, open_gate: Any
) -> None:
    logged.set_up(timestamps=True)
    script = f"{FLOOD}\nprint('all', flush=True)\nopen('gate').read(1)\nprint('more')"
    async with logged.room.open(logged.room.py(script, 50_000)) as child:
        async with logged.busy():
            await look.line(logged.room.output, "all")
        await look.true(lambda: logged.limiter.borrowed_tokens == 0)
        await look.true(lambda: b"missing" in logged.path.read_bytes()[-80:])
        open_gate()
        await child.wait_exit()
    kinds = [kind for kind, _ in groupby(line.split(" ", 1)[1][:1] for line in logged.lines)]
    assert kinds == ["0", "[", "m"]


@pytest.mark.usefixtures("impatient")
async def test_a_folder_in_the_files_place_is_told_once_and_once_that_it_is_gone(
    make_pilot: Any, sh: Any, look: Any, open_gate: Any, tmp_path: Path
) -> None:
    path = tmp_path / "logs" / "p.log"
    script = "while read -r line < gate; do echo line; done"
    async with make_pilot(sh(script, working_directory=".", **LOG)) as pilot:
        await look.true(path.exists)
        path.unlink()
        path.mkdir()
        for count in range(1, 4):
            open_gate()
            await look.true(lambda: printed(pilot) == ["line"] * count)  # noqa: B023 - at once
        await wait_note(pilot, "cannot be written: Is a directory; it is tried again")
        path.rmdir()
        await wait_note(pilot, "is written again")
        # Of several batches it is told after the first.
        await look.true(lambda: read_log(path) == ["line"] * 3)
        assert len(notes(pilot)) == 2
        assert pilot.supervisor.status("p").generation == 1


@pytest.mark.usefixtures("impatient")
async def test_a_place_where_no_file_can_be_is_told_before_the_first_line(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Path
) -> None:
    pilot = make_pilot(sh(SLEEP, **LOG))
    (tmp_path / "logs").touch()
    async with pilot:
        await wait_note(pilot, f"cannot be written: File exists: {tmp_path / 'logs'}")
        (tmp_path / "logs").unlink()
        await look.true((tmp_path / "logs" / "p.log").exists)
        await wait_note(pilot, "is written again")
    assert len(notes(pilot)) == 2


async def test_what_is_not_in_the_file_at_the_end_is_counted_and_written_by_the_next_generation(
    logged: Logged,
) -> None:
    logged.path.mkdir(parents=True)
    await logged.run(logged.room.sh("echo one; echo two"))
    assert logged.notes == [
        "cannot be written: Is a directory; it is tried again",
        "does not have its last lines, 2 of them: Is a directory",
    ]
    logged.path.rmdir()
    await logged.run(logged.room.sh("echo three"))
    assert logged.lines == ["one", "two", "three"]
    assert logged.notes == ["is written again"]


async def test_a_file_that_was_never_written_is_not_said_to_be_written_again(
    logged: Logged,
) -> None:
    logged.path.mkdir(parents=True)
    await logged.run(logged.room.sh("exit 0"))
    assert logged.notes == ["cannot be written: Is a directory; it is tried again"]


@pytest.mark.parametrize("lines", [0, 2])
async def test_a_stop_waits_for_the_log_as_long_as_the_budget_lets_it_and_names_it(
    logged: Logged, lines: int
) -> None:
    async with logged.busy():
        await logged.run(logged.room.sh("echo line\n" * lines + "exit"), stop_at_end_sec=2)
    (note,) = logged.notes
    words = "does not have its last lines, 2 of them" if lines else "has held up the end"
    assert re.fullmatch(rf"{words}: a write was waited for, \d+\.\d s, in vain", note)


class HangingDisk:
    """Lets nobody come back from a write until it is told to. No real one does so on demand."""

    def __init__(self) -> None:
        self.hangs, self.entered = threading.Event(), threading.Event()
        self.calls = 0

    def append(self, path: Path, data: bytes, **limits: int) -> Appended:
        self.calls += 1
        self.entered.set()
        self.hangs.wait(60)
        return append_lines(path, data, **limits)


@pytest.mark.usefixtures("impatient")
async def test_a_write_that_hangs_is_left_behind_and_never_joined_by_a_second_one(
    logged: Logged, look: Any, monkeypatch: pytest.MonkeyPatch, open_gate: Any
) -> None:
    logged.limiter.total_tokens = 10
    disk = HangingDisk()
    monkeypatch.setattr(logfile, "append_lines", disk.append)
    await logged.run(logged.room.sh("echo one"), stop_at_end_sec=1.0)
    assert disk.entered.is_set()
    assert logged.notes[-1].startswith("does not have its last lines, 1 of them: a write was ")
    async with logged.room.open(logged.room.sh("echo two; read -r line < gate")):
        await look.true(lambda: logged.notes)
        assert logged.notes == ["cannot be written: an earlier write hangs; it is tried again"]
        assert disk.calls == 1
        disk.hangs.set()
        await look.true(lambda: logged.path.exists() and logged.lines == ["one", "two"])
        open_gate()
    assert logged.lines == ["one", "two"]


async def test_a_stop_that_has_no_time_left_says_what_was_not_written(logged: Logged) -> None:
    async with logged.busy():
        await logged.run(logged.room.sh("echo late"), stop_at_end_sec=0.0)
    assert logged.notes == [
        "does not have its last lines, 1 of them: a write was waited for, 0.0 s, in vain"
    ]


async def test_a_stop_that_nobody_had_to_wait_for_says_nothing(logged: Logged) -> None:
    async with logged.busy():
        await logged.run(logged.room.sh("exit 0"), stop_at_end_sec=0.0)
    assert logged.notes == []


@pytest.mark.usefixtures("fds_kept")
async def test_many_logs_share_the_limit_of_the_host(
    make_pilot: Any, py: Any, tmp_path: Path
) -> None:
    pilot = make_pilot(
        *(py(CHATTER, 50, name=f"p{i}", log={"file": f"logs/{i}.log"}, **ONCE) for i in range(4))
    )
    pilot._host.logs.total_tokens = 1
    await pilot.start()
    for i in range(4):
        assert read_log(tmp_path / "logs" / f"{i}.log") == printed(pilot, f"p{i}")


# --- what is told ---------------------------------------------------------------------------------


def test_a_trouble_is_told_once_and_its_end_when_all_has_been_well_for_a_while() -> None:
    trouble = Trouble()
    assert trouble.calm_at == inf
    assert trouble.pass_over(0.0) == ""
    assert trouble.happen("is full", 10.0) == "is full"
    assert trouble.happen("is full", 11.0, missing=3) == ""
    assert trouble.happen("is slow", 12.0, missing=4) == "is slow"
    assert trouble.calm_at == 17.0
    assert trouble.pass_over(16.9) == ""
    assert trouble.pass_over(17.0) == "is written again; lines missing in it: 7"
    assert trouble.pass_over(inf) == ""
    assert trouble.happen("is full", 20.0) == "is full"
    assert trouble.pass_over(inf) == "is written again"
