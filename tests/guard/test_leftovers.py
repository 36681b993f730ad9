"""What a tree has left is found although it hides its environment, and nothing else is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime._leftovers import Leftovers
from runtime._procfs import Member, list_processes, read_stat
from runtime._roster import Entry, Roster, read_roster
from runtime.run_directory import open_run_directory

#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 60.0

#: Nobody has this one in its environment.
NO_MARK = b"RUNTIME_TREE=nobody-"

#: Has children of an empty environment, which say their pids when they are as they should be.
WITH_CHILDREN = """
import os, signal, subprocess, sys
options = {"session": {"start_new_session": True}, "silent": {"stderr": subprocess.DEVNULL}}
for kind in sys.argv[1:]:
    code = "import os, signal; print(os.getpid(), flush=True);"
    if kind == "silent":
        code += "os.dup2(os.open('/dev/null', os.O_RDWR), 1);"
    argv = [sys.executable, "-S", "-E", "-c", code + "os.write(5, b'.'); signal.pause()"]
    read, write = os.pipe()
    os.dup2(write, 5)
    subprocess.Popen(argv, env={}, pass_fds=[5], **options.get(kind, {}))
    os.read(read, 1)
print("ready", flush=True)
signal.pause()
"""


class Tree:
    """What a runtime has started and noted; its members are known by their pids alone."""

    def __init__(self, folder: Path, hide_environ: str) -> None:
        self._folder, self._code = folder, hide_environ + WITH_CHILDREN
        self._roster = Roster(folder)
        self._leaders: list[subprocess.Popen[bytes]] = []
        self.members: list[Member] = []

    def start(self, *children: str) -> list[int]:
        """Start a process that hides and has such *children*; return all pids, its own first."""
        pipe = subprocess.PIPE
        leader = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", self._code, *children],
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        self._leaders.append(leader)
        self._roster.note_started(leader.pid, leader.stdout.fileno(), leader.stderr.fileno())
        pids = [leader.pid]
        while (line := leader.stdout.readline()) != b"ready\n":
            pids.append(int(line))  # at its end there is no number
        self.members += [read_stat(pid).member for pid in pids]
        return pids

    def kill_leader(self) -> None:
        """Kill the leader that was started last, and reap it."""
        self._leaders[-1].kill()
        self._leaders[-1].wait()

    @property
    def entries(self) -> list[Entry]:
        return read_roster(self._folder)

    def look(self, mark: bytes = NO_MARK) -> list[int]:
        return [pid for pid, _ in Leftovers(mark, self.entries).look()]

    def close(self) -> None:
        for member in self.members:
            stat = read_stat(member.pid)
            if stat is not None and stat.member == member:
                with suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        for leader in self._leaders:
            leader.wait()
            leader.stdout.close()
            leader.stderr.close()
        self._roster.close()


@pytest.fixture
def tree(tmp_path: Path, hide_environ: str) -> Iterator[Tree]:
    made = Tree(tmp_path, hide_environ)
    yield made
    made.close()


def test_who_hides_its_environment_is_found_with_all_that_belongs_to_it(tree: Tree) -> None:
    pids = [*tree.start("plain", "session"), *tree.start()]
    assert tree.look() == sorted(pids)


def test_what_has_left_the_session_is_found_after_its_parent_was_killed(
    tree: Tree, kill: Callable[[int], None]
) -> None:
    leader, child = tree.start("session")
    leftovers = Leftovers(NO_MARK, tree.entries)
    assert [pid for pid, _ in leftovers.look()] == sorted([leader, child])
    tree.kill_leader()
    assert [pid for pid, _ in leftovers.look()] == [child]
    kill(child)  # who has inherited it may reap it, or not
    assert leftovers.look() == []


def test_an_entry_of_another_start_time_is_about_nobody(tree: Tree) -> None:
    tree.start("plain", "session")
    changed = [entry._replace(start_ticks=entry.start_ticks + 1) for entry in tree.entries]
    assert Leftovers(NO_MARK, changed).look() == []


def test_a_session_without_its_leader_is_known_by_the_output_that_it_holds(tree: Tree) -> None:
    _, *children = tree.start("plain", "silent")
    tree.kill_leader()
    assert tree.look() == sorted(children)


def test_a_session_without_its_leader_that_holds_nothing_of_ours_is_left_alone(tree: Tree) -> None:
    tree.start("silent")
    tree.kill_leader()
    assert tree.look() == []


def test_a_session_without_its_leader_is_known_by_the_mark_of_one_in_it(tree: Tree) -> None:
    # Both were started by the shell; one kept the mark, the other one neither mark nor output.
    script = (
        "exec 3>&1 >/dev/null 2>&1; env -i sh -c 'echo $$ >&3; exec 3>&-; kill -STOP $$' &"
        " sh -c 'echo $$ >&3; exec 3>&-; kill -STOP $$' & wait"
    )
    pipe = subprocess.PIPE
    mark = {**os.environ, "RUNTIME_TREE": "some-body"}
    with subprocess.Popen(
        ["sh", "-c", script], stdout=pipe, stderr=pipe, start_new_session=True, env=mark
    ) as leader:
        entry = Entry(*read_stat(leader.pid).member, 0, 0)
        pids = sorted(int(leader.stdout.readline()) for _ in range(2))
        tree.members += [read_stat(pid).member for pid in pids]
        leader.kill()
    assert [pid for pid, _ in Leftovers(b"RUNTIME_TREE=some-", [entry]).look()] == pids
    assert Leftovers(NO_MARK, [entry]).look() == []


@pytest.mark.parametrize("leads", [True, False], ids=["above", "of the session"])
def test_what_we_live_below_ourselves_is_left_alone(leads: bool) -> None:
    stat = read_stat(os.getpid())
    pid = stat.parent if leads else stat.session
    found = read_stat(pid)
    entry = Entry(pid, found.start_ticks if found is not None else 1, 0, 0)
    assert Leftovers(NO_MARK, [entry]).look() == []


def test_a_session_whose_members_replace_each_other_is_ended(tree: Tree, tmp_path: Path) -> None:
    # Nobody in it stays, none has the mark, and each is an orphan as soon as it has a child.
    script = tmp_path / "hop"
    # Where nobody ends it, as when this test is killed, it must not go on for ever.
    hops = '[ "$1" -eq 0 ] || env -i "$0" $(($1 - 1)) &'
    script.write_text(f"#!/bin/sh\nsleep 0.002\n{hops}\n")
    script.chmod(0o755)
    pids = tree.start()
    with subprocess.Popen(
        ["sh", "-c", f"{script} 20000 & wait; echo; kill -STOP $$"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leader:
        roster = Roster(tmp_path)
        fd = leader.stdout.fileno()
        roster.note_started(pids[0], fd, fd)
        roster.note_started(leader.pid, fd, fd)
        leader.stdout.readline()
        said: list[str] = []
        with open_run_directory(tmp_path, say=said.append):
            left = [stat for stat in list_processes() if stat.session == leader.pid]
            assert [stat for stat in left if stat.alive] == []
        # All of them hold it, and one of them may be in no list: it ends when the last one does.
        assert select.select([fd], [], [], LIMIT_SEC)[0] == [fd]
        assert leader.stdout.read() == b""
    assert f"sh ({leader.pid})" in said[0]
    assert f"({pids[0]})" in said[0]
