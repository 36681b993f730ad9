"""What is shown: on a terminal, in a pipe, and to a reader who is slow, gone, or never reads."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime._procfs import list_children

if TYPE_CHECKING:
    from tests.cli.conftest import Site

ESCAPE = "\x1b"
ERASE = "\r\x1b[2K"  # what takes a line away
COLOURED: Mapping[str, str | None] = {"TERM": "xterm-256color", "NO_COLOR": None}

#: Prints without end, and tells of every 8 MiB.
FLOOD = """
import os
print(f"flood={os.getpid()}", file=fifo)
lines = (b"all work and no play; " * 50 + b"\\n") * 60
written = 0
while True:
    written += os.write(1, lines)
    if written >= 8 << 20:
        print("8 MiB", file=fifo)
        written = 0
"""


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def read_memory_mb(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) / 1024


# In a pipe.


def test_in_a_pipe_everything_is_plain_and_each_has_a_stream_of_its_own(site: Site) -> None:
    site.add("a", "echo hello; echo oops >&2; printf 'no end of line'; SAY")
    site.add("number-two", "echo hello; SAY; exec sleep 1000")
    program = site.start(env=COLOURED)
    site.hear_everyone()
    program.read_until("READY AFTER.*\n.*\n.*\n")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert sorted(program.out.lines) == [
        "a          | hello",
        "a          | no end of line",
        "a          | oops",
        "number-two | hello",
    ]
    assert ESCAPE not in program.err.text
    head, _, rest = program.err.text.partition("NAME")
    assert {line[:13] for line in head.splitlines()} == {"runtime    | "}
    assert re.search(r"^runtime    \| number-two is ready after \d+\.\d\d s$", head, re.MULTILINE)
    table = [line.split() for line in rest.splitlines()[1:3]]
    assert [row[0] for row in table] == ["a", "number-two"]
    assert table[1][1:3] == ["running", str(site.pid_of("number-two"))]
    assert re.fullmatch(r"\d+\.\d\d s", " ".join(table[1][3:]))


AGAIN_ONCE = {"restart": {"delay_sec": 0.01, "max_restarts": 1}}
NEVER_READY = {
    "ready_strategy": "tcp",
    "ready_params": {"port": 1},
    "ready_timeout_sec": 600,
}
OBSTACLE = ": nothing accepts a connection at localhost:1"
UNREADY = "not ready within N s by its tcp check (the limit is ready_timeout_sec)"
ENDS: Mapping[str, tuple[str, dict[str, Any], list[str]]] = {
    "failed": ("exit 7", {}, ["exited with 7 after N s"]),
    "done": ("exit 0", {}, ["completed after N s"]),
    "killed": ("kill -9 $$", {}, ["killed by SIGKILL after N s"]),
    "died": ("kill -9 $$", NEVER_READY, ["killed by SIGKILL before it was ready after N s"]),
    "unready": (
        "exec sleep 1000",
        {**NEVER_READY, "ready_timeout_sec": 1.5},  # enough to have looked
        [f"{UNREADY}{OBSTACLE}"],
    ),
    "again": (
        "exit 3",
        AGAIN_ONCE,
        [
            "exited with 3 after N s; restart in N s",
            "exited with 3 after N s; given up after 1 restart in N s",
        ],
    ),
}


def test_what_ends_says_why_in_words(site: Site) -> None:
    for name, (code, fields, _) in ENDS.items():
        site.add(name, code, **fields)
    program = site.start()
    assert program.wait() == 7
    said = re.sub(r"\d+\.\d+ s", "N s", program.err.text)
    # Who dies at once may have been looked at before, or not.
    said = said.replace(f"ready after N s{OBSTACLE}", "ready after N s")
    ends = {
        name: [
            sentence
            for sentence in re.findall(rf"^runtime \| {name} (.*)", said, re.MULTILINE)
            if not sentence.startswith("is ready")
        ]
        for name in ENDS
    }
    assert ends == {name: sentences for name, (_, _, sentences) in ENDS.items()}
    assert said.endswith("runtime | stop: everything has ended\n")


def test_one_that_others_wait_for_to_complete_is_told_once(site: Site) -> None:
    site.add("prepare", "exit 0")
    site.add("other", "exit 0")
    for name, condition in (("a", "completed"), ("b", "completed_successfully")):
        needed = {"name": "prepare", "condition": condition}
        site.add(name, "exec sleep 1000", dependencies=[needed, "other"])
    program = site.start()
    program.read_until("READY AFTER(.*\n){5}")
    program.read_until("other completed")  # who is ready is not waited for
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    said = re.sub(r"\d+\.\d+ s", "N s", program.err.text)
    assert re.findall("runtime +[|] prepare (.*)", said) == ["completed after N s"]
    assert re.findall("runtime +[|] other (.*)", said) == [
        "is ready after N s",
        "completed after N s",
    ]
    assert re.search("^prepare +completed +N s *$", said, re.MULTILINE)


def test_what_ends_the_tree_is_said_to_be_the_reason(site: Site) -> None:
    site.add("b", "exit 4", shutdown_strategy="shutdown_everything")
    program = site.start()
    assert program.wait() == 4
    said = re.sub(r"\d+\.\d+ s", "N s", program.err.text)
    assert "runtime | b exited with 4 after N s\n" in said
    assert "runtime | stop: b exited with 4 after N s\n" in said


def test_a_stop_tells_in_which_order_all_went_down_and_what_it_waits_for(site: Site) -> None:
    site.add("db", "trap '' TERM; SAY; exec sleep 1000", timeout=3)
    site.add("api", "SAY; exec sleep 1000", dependencies=["db"])
    program = site.start()
    site.hear_everyone()
    program.read_until("NAME")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    said = re.sub(r"\d+\.\d s", "N s", program.err.text.partition("stop: ")[2])
    said = re.sub(r"pid \d+", "pid P", said)
    assert [line.partition("| ")[2] or line for line in said.splitlines()] == [
        "SIGTERM received",
        "waiting for db to stop, N s left of 3 s: pid P (sleep)",
        "db killed: pid P (sleep); still there N s after SIGTERM",
        "stopped: api, db (N s); killed: db (pid P (sleep))",
    ]


# On a terminal.


def test_a_terminal_shows_colours_progress_and_a_table(site: Site) -> None:
    late = {"ready_strategy": "file", "ready_params": {"path": "late"}, "ready_timeout_sec": 600}
    site.add("a", "SAY; echo hello; exec sleep 1000", **late)
    site.add("b", "echo so long; exit 0", dependencies=["a"])
    site.add("c", "exit 7", dependencies=["a"])
    over = [{"name": name, "condition": "completed"} for name in "bc"]
    site.add("d", "exec sleep 1000", dependencies=over)
    program = site.start(terminal=True, env=COLOURED)
    site.hear_everyone()
    program.read_until(re.escape("\x1b[36m\x1b[22ma       | \x1b[0mhello\n"))
    program.read_until("\n0 of 4 ready; starting a$")
    (site.folder / "late").touch()
    program.read_until("READY AFTER.*\n(.*\n){4}")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    text = program.err.text
    assert f"{ESCAPE}[35m{ESCAPE}[22mb       | {ESCAPE}[0mso long\n" in text
    assert f"{ESCAPE}[31m{ESCAPE}[1mruntime | {ESCAPE}[0mc exited with 7" in text
    assert "is ready after" not in text  # the line of progress tells it
    progress = re.findall(r"(\d of 4 ready[^\r\n]*)([\r\n]\S{4})", text)
    assert ("0 of 4 ready; starting a", ERASE) in progress
    assert {following for _, following in progress} == {ERASE}  # none is left standing
    table = without_colour(text).partition("NAME")[2].splitlines()[1:]
    assert re.fullmatch(rf"a +running +{site.pid_of('a')} +\d+\.\d\d s *", table[0])
    assert [row.split()[:2] for row in table[1:4]] == [
        ["b", "completed"],
        ["c", "failed"],
        ["d", "running"],
    ]
    assert re.search(r"exited with 7 after \d\.\d s *$", table[2])
    assert f"\n{ESCAPE}[31mc" in text


@pytest.mark.parametrize(
    ("environment", "moves"),
    [
        pytest.param({"TERM": "xterm", "NO_COLOR": "1"}, True, id="NO_COLOR"),
        pytest.param({"TERM": "dumb", "NO_COLOR": None}, False, id="a dumb terminal"),
    ],
)
def test_who_wants_no_colours_gets_none(
    site: Site, environment: dict[str, str | None], *, moves: bool
) -> None:
    site.add("a", "echo hello; exec sleep 1000")
    program = site.start(terminal=True, env=environment)
    program.read_until("a       . hello\n")
    program.read_until("READY AFTER.*\n.*running.*\n")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert (ERASE in program.err.text) == moves
    assert ESCAPE not in program.err.text.replace(ERASE, "")


# To a reader who is not there.


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_a_reader_that_goes_away_is_no_reason_to_stop(site: Site, *, both: bool) -> None:
    site.add("a", "SAY; while read x <GO; do echo line; echo line; echo went on >FIFO; done")
    program = site.start()
    site.hear_everyone()
    site.let_go()
    assert site.hear() == "went on"
    program.read_until("a       . line\n", program.out)
    program.out.close()
    if both:
        program.err.close()
    for _ in range(3):
        site.let_go()
        assert site.hear() == "went on"
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert site.find_left() == []


def test_a_reader_that_never_reads_holds_up_nothing(site: Site) -> None:
    site.add_python("flood", FLOOD)
    site.add("a", "SAY; exec sleep 1000")
    _, stdout = never_read = os.pipe()
    program = site.start(stdout=stdout)
    awaited = {"flood", "a", "8 MiB"}
    while awaited:
        awaited.discard(site.hear())
    program.read_until("READY AFTER")  # what draws the table has been loaded
    before = read_memory_mb(site.runtime_pid)
    assert [site.hear() for _ in range(4)] == ["8 MiB"] * 4
    assert read_memory_mb(site.runtime_pid) < before + 16  # half of what was printed since
    program.send(signal.SIGTERM)
    program.read_until("stop: SIGTERM received")  # the other stream still has a reader
    assert program.wait() == 0
    assert site.find_left() == []
    for fd in never_read:
        os.close(fd)


def test_a_reader_that_is_too_slow_is_told_what_was_not_shown(site: Site) -> None:
    site.add_python("flood", FLOOD)
    program = site.start()
    assert [site.hear(), site.hear()] == ["flood", "8 MiB"]
    program.read_until(r"\d+ lines of output were not shown: it is read too slowly")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert {line[:30] for line in program.out.lines[:-1]} == {"flood   | all work and no play"}


# To nobody at all.


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_without_a_standard_stream_nothing_else_is_taken_for_it(site: Site, closed: str) -> None:
    site.add("a", "echo hello; echo oops >&2; SAY; exec sleep 1000")
    program = site.start(wrapper=["sh", "-c", f'exec "$@" {closed}', "sh"])
    site.hear_everyone()
    (runtime,) = [pid for pid in list_children(program.pid) if pid == site.runtime_pid]
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert site.read_lock()["pid"] == runtime
    assert ("hello" in program.out.text) == (">&-" not in closed.split())
    assert ("stop: SIGTERM" in program.err.text) == ("2>&-" not in closed.split())


def test_a_bad_manifest_is_2_though_there_is_nobody_to_tell(site: Site) -> None:
    site.add("a", "exit 0", path="no-such-program")
    program = site.start(wrapper=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    assert program.wait() == 2
