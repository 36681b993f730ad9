"""Who belongs to a process can be told from its session, its marker, its parents, and its pipes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
import trio

from runtime import _procfs
from runtime._procfs import Member
from runtime.process.family import Family, wait_gone
from runtime.process.host import Host

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that has replaced the fork of ours, and end it after the test."""
    with ExitStack() as stack:

        def start_one(*argv: str, **options: object) -> subprocess.Popen[bytes]:
            popen: subprocess.Popen[bytes] = subprocess.Popen(
                argv or ["sleep", "60"],
                **options,  # type: ignore[call-overload]
            )
            stack.enter_context(popen)
            stack.callback(popen.kill)
            return popen

        yield start_one


@pytest.fixture
def orphans() -> list[int]:
    """The pids that are said to be orphans."""
    return []


@pytest.fixture
def host(orphans: list[int]) -> Host:
    return replace(Host(), orphans=lambda: list(orphans))


def pids(family: Family) -> list[int]:
    return [stat.pid for stat in family.look()]


def test_children_of_the_leader_belong_to_it_and_the_leader_is_left_out(
    start: Start, host: Host
) -> None:
    leader = start("sh", "-c", "sleep 60 & echo; wait", stdout=subprocess.PIPE)
    assert leader.stdout is not None
    leader.stdout.read(1)
    (child,) = pids(family := Family(leader.pid, "p", host))
    assert _procfs.read_stat(child).parent == leader.pid  # type: ignore[union-attr]
    os.kill(child, signal.SIGKILL)
    leader.wait()
    assert pids(family) == []
    leader.stdout.close()


def test_an_orphan_with_the_marker_belongs_to_the_unit_and_so_does_what_is_below(
    start: Start, host: Host, orphans: list[int]
) -> None:
    leader = start()
    mine = start("sh", "-c", "sleep 60 & echo; wait", env=host.marker("p"), stdout=subprocess.PIPE)
    assert mine.stdout is not None
    mine.stdout.read(1)
    of_another_unit = start(env=host.marker("q"))
    of_another_tree = start(env=Host().marker("p"))
    orphans += [mine.pid, of_another_unit.pid, of_another_tree.pid, leader.pid]
    found = pids(Family(leader.pid, "p", host))
    below = _procfs.list_children(mine.pid)
    assert found == [mine.pid, *below]
    for pid in below:
        os.kill(pid, signal.SIGKILL)
    mine.stdout.close()


def test_an_orphan_in_the_session_of_the_leader_belongs_to_it(
    start: Start, host: Host, orphans: list[int]
) -> None:
    script = "(env -i sh -c 'echo $$; exec sleep 60' &); exec sleep 60"
    leader = start("sh", "-c", script, start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    orphan = int(leader.stdout.readline())
    stranger = start(env={}, start_new_session=True)
    while orphan in {stat.pid for stat in _procfs.list_descendants([leader.pid])}:
        pass  # the shell between the two has not ended yet
    orphans += [orphan, stranger.pid]
    assert pids(Family(leader.pid, "p", host)) == [orphan]
    os.kill(orphan, signal.SIGKILL)
    leader.stdout.close()


def test_what_was_seen_below_the_leader_still_belongs_to_it_as_an_orphan(
    start: Start, host: Host, orphans: list[int]
) -> None:
    script = "env -i setsid sh -c 'echo $$; exec sleep 60' & wait"
    leader = start("sh", "-c", script, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    family = Family(leader.pid, "p", host)
    assert child in pids(family)
    os.kill(leader.pid, signal.SIGKILL)
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    orphans.append(child)
    assert pids(family) == [child]
    assert pids(Family(leader.pid, "p", host)) == []  # who has not looked before cannot tell
    os.kill(child, signal.SIGKILL)
    leader.stdout.close()


def test_what_is_older_than_the_leader_is_not_asked(
    start: Start, host: Host, orphans: list[int]
) -> None:
    orphans.append(os.getpid())
    read: list[int] = []

    def list_children(pid: int) -> list[int]:
        read.append(pid)
        return []

    leader = start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_procfs, "list_children", list_children)
        assert pids(Family(leader.pid, "p", host)) == []
        assert Family(leader.pid, "p", host).holders([]) == []
    assert read == [leader.pid]


def test_a_family_of_nobody_is_empty(host: Host, orphans: list[int]) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    orphans.append(gone.pid)
    family = Family(gone.pid, "p", host)
    assert family.look() == []
    assert family.holders([1]) == []


def test_who_holds_a_pipe_is_found_among_the_orphans_and_below_them(
    start: Start, host: Host, orphans: list[int]
) -> None:
    ours, theirs = os.pipe()
    leader = start()
    holder = start("sh", "-c", "sleep 60 & echo; wait", stdout=theirs)
    stranger = start()
    os.close(theirs)
    os.read(ours, 1)
    orphans += [holder.pid, stranger.pid]
    family = Family(leader.pid, "p", host)
    found = {stat.pid for stat in family.holders([os.fstat(ours).st_ino])}
    (below,) = _procfs.list_children(holder.pid)
    assert found == {holder.pid, below}
    assert family.holders([1]) == []
    os.kill(below, signal.SIGKILL)
    os.close(ours)


def member(popen: subprocess.Popen[bytes]) -> Member:
    stat = _procfs.read_stat(popen.pid)
    assert stat is not None
    return stat.member


@pytest.mark.usefixtures("fds_kept")
async def test_waiting_until_they_are_gone_ends_with_the_last_of_them(start: Start) -> None:
    members = [start(), start()]
    async with trio.open_nursery() as nursery:
        for killed in range(len(members)):
            nursery.start_soon(wait_gone, [member(each) for each in members])
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == killed + 1
        for popen in members:
            popen.kill()
    await wait_gone(map(member, members))  # zombies are gone


@pytest.mark.usefixtures("fds_kept")
async def test_who_is_gone_or_another_one_by_now_is_not_waited_for(start: Start) -> None:
    gone, other = start(), start()
    members = [member(gone), Member(other.pid, 1)]
    gone.kill()
    gone.wait()
    await wait_gone(members)


@pytest.mark.usefixtures("fds_kept")
async def test_waiting_can_be_cancelled(start: Start) -> None:
    with trio.move_on_after(0.01) as scope:
        await wait_gone([member(start())])
    assert scope.cancelled_caught
