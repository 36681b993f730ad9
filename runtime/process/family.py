"""Who belongs to a process: all that descends from it, as far as that can be told from outside."""

import os
from collections.abc import Iterable

import trio

from runtime import _procfs
from runtime._procfs import Member, Stat

from .host import Host

# Parents above a process that are looked at, lest a tree that changes meanwhile leads on and on.
_DEEPEST = 100


class Family:
    """The descendants of one child.

    To it belongs what is below the leader, and of the orphans in the tree those that kept its
    session or group, carry its marker, were seen below it before, or are below such a one. What is
    older than the leader is not looked at: a crowded host has a thousand processes of others.
    """

    leader: int

    def __init__(self, leader: int, unit: str, host: Host) -> None:
        self.leader = leader
        self._since: int | None = None  # when the leader started; read when somebody is to be older
        self._host = host
        self._marks = [f"{key}={value}".encode() for key, value in host.marker(unit).items()]
        self._seen: set[Member] = set()

    def look(self, *, leader_ended: bool = False) -> list[Stat]:
        """Return who lives now, without the leader; all of them are remembered.

        The kernel takes its children from a leader that has ended, so they are orphans then.
        """
        living = self._look(leader_ended=leader_ended)
        if not living and self._seen:
            # One that forks and ends while we look can hide its child from us, but not twice.
            living = self._look(leader_ended=leader_ended)
        return living

    def _look(self, *, leader_ended: bool) -> list[Stat]:
        found = [] if leader_ended else _procfs.list_descendants([self.leader])
        # What is below an orphan need not be asked: it cannot have come back into our session, nor
        # to a marker that its parent had lost.
        strays = [stat for stat in self._orphans() if self._is_relative(stat)]
        found += strays
        found += _procfs.list_descendants(stat.pid for stat in strays)
        # One whose parent ends while we look is met below the leader and among the orphans.
        once = {stat.member: stat for stat in found}
        self._seen.update(once)
        return [stat for stat in once.values() if stat.alive]

    def includes(self, pid: int) -> bool:
        """Return whether *pid* is the leader or belongs to it; a zombie may still be told.

        For one process this is surer than `look`, and quicker: it looks upwards from there.
        """
        for _ in range(_DEEPEST):
            stat = _procfs.read_stat(pid)
            if stat is None or stat.pid <= 1:
                return False
            if stat.pid == self.leader or self._is_relative(stat):
                return True
            pid = stat.parent
        return False

    def holders(self, inodes: Iterable[int]) -> list[Stat]:
        """Return the orphans, and what is below them, that hold one of these pipes open."""
        roots = self._orphans()
        below = [*roots, *_procfs.list_descendants(root.pid for root in roots)]
        wanted = list(inodes)
        return [
            stat
            for stat in below
            if stat.alive and any(_procfs.holds_pipe(stat.pid, inode) for inode in wanted)
        ]

    def _orphans(self) -> list[Stat]:
        pids = [pid for pid in self._host.orphans() if pid != self.leader]
        if not pids:
            return []
        if self._since is None:
            leader = _procfs.read_stat(self.leader)
            self._since = leader.start_ticks if leader is not None else 0
        stats = (_procfs.read_stat(pid) for pid in pids)
        return [s for s in stats if s is not None and s.start_ticks >= self._since]

    def _is_relative(self, stat: Stat) -> bool:
        return (
            self.leader in (stat.session, stat.group)
            or stat.member in self._seen
            or all(_procfs.has_environ(stat.pid, mark) for mark in self._marks)
        )


async def wait_gone(members: Iterable[Member]) -> None:
    """Return once none of these processes lives; the caller owns the deadline."""
    for member in members:
        try:
            pidfd = os.pidfd_open(member.pid)
        except ProcessLookupError:
            continue
        try:
            stat = _procfs.read_stat(member.pid)
            if stat is not None and stat.member == member:
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)
