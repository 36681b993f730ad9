"""Finds what a tree has left whose runtime and guard were both killed.

By the mark in its environment, and by the tree's roster, as many a server overwrites the memory
that its environment is shown from. A pid of the roster means the process that was started as long
as that has the same start time. The session that it leads is then ours as well, with all that is in
it, and so is everything below. A pid is not given to another process while a session has its
number; but one that is led by nobody any more may be that of a later owner of the pid. So it is
ours only if a process in it has the mark, or holds the output pipe that the roster knows.
"""

import os
from collections.abc import Sequence
from typing import final

from runtime._procfs import (
    Member,
    Stat,
    has_environ,
    holds_pipe,
    list_pids,
    list_processes,
    read_stat,
)
from runtime._roster import Entry


@final
class Leftovers:
    """What bears a *mark*, and what belongs to the *entries* of a roster.

    Spared are the calling process and all above it, the guard most likely among them; and of the
    entries those that it lives below itself, or whose session it is in.
    """

    def __init__(self, mark: bytes, entries: Sequence[Entry]) -> None:
        self._mark = mark
        self._above = _list_lineage()
        around = {pid for stat in self._above.values() for pid in (stat.pid, stat.session)}
        self._entries = [entry for entry in entries if entry.pid not in around]
        self._sessions: set[int] = set()  # all that is in them is ours
        self._present: set[int] = set()  # those that had members when we looked last
        self._found: set[Member] = set()
        self._groups: set[int] = set()

    @property
    def groups(self) -> frozenset[int]:
        """The process groups with nobody but ours in them, as we looked last.

        What replaces itself faster than we look may be in none of the looks, but is in its group.
        """
        spared = {stat.group for stat in self._above.values()}
        return frozenset(self._groups - spared)

    def look(self) -> list[Member]:
        """Return what is left now; ask again after killing it, until nothing is."""
        self._groups = set()
        left = self._look()
        if not left and self._found:
            # One that forks and ends while we look can hide its child from us, but not twice.
            left = self._look()
        # A session with members at this look, and at the next, keeps its number taken in between:
        # pids are given in a circle, and nothing goes round it in so short a time.
        self._sessions &= self._present
        return left

    def _look(self) -> list[Member]:
        marked = [s for pid in list_pids() if pid not in self._above and (s := self._marked(pid))]
        enrolled = self._list_enrolled({stat.member for stat in marked}) if self._entries else []
        found = {stat.member for stat in (*marked, *enrolled) if stat.pid not in self._above}
        return sorted(found)

    def _marked(self, pid: int) -> Stat | None:
        if not has_environ(pid, self._mark, prefix=True):
            return None
        stat = read_stat(pid)
        # Asked again, or the pid was recycled in between.
        return stat if has_environ(pid, self._mark, prefix=True) else None

    def _list_enrolled(self, marked: set[Member]) -> list[Stat]:
        processes = list_processes()
        present = {stat.pid: stat for stat in processes}
        sessions: dict[int, list[Stat]] = {}
        for stat in processes:
            sessions.setdefault(stat.session, []).append(stat)
        self._present = set(sessions)
        for entry in self._entries:
            leader, members = present.get(entry.pid), sessions.get(entry.pid, [])
            if leader is not None:
                if leader.start_ticks == entry.start_ticks:
                    self._sessions.add(entry.pid)
            elif any(stat.member in marked or _holds_output(stat, entry) for stat in members):
                self._sessions.add(entry.pid)
        roots = [s for s in processes if s.session in self._sessions or s.member in self._found]
        ours = [*roots, *_list_below(roots, processes)]
        # Who has left a session of ours is in one that was begun below it.
        self._sessions |= {stat.session for stat in ours}
        self._found |= {stat.member for stat in ours}
        self._groups |= {stat.group for stat in ours if stat.session in self._sessions}
        return [stat for stat in ours if stat.alive]


def _holds_output(stat: Stat, entry: Entry) -> bool:
    return any(holds_pipe(stat.pid, pipe) for pipe in (entry.stdout, entry.stderr))


def _list_below(roots: Sequence[Stat], processes: Sequence[Stat]) -> list[Stat]:
    """Return those of the *processes* that are below the *roots*, themselves not included."""
    children: dict[int, list[Stat]] = {}
    for stat in processes:
        children.setdefault(stat.parent, []).append(stat)
    to_visit = [stat.pid for stat in roots]
    seen = set(to_visit)
    found: list[Stat] = []
    for parent in to_visit:  # grows as we go
        new = [stat for stat in children.get(parent, []) if stat.pid not in seen]
        seen.update(stat.pid for stat in new)
        to_visit += (stat.pid for stat in new)
        found += new
    return found


def _list_lineage() -> dict[int, Stat]:
    """Return our own process, our parent, and so on up to the first."""
    lineage: dict[int, Stat] = {}
    pid = os.getpid()
    while (stat := read_stat(pid)) is not None:
        lineage[pid] = stat
        pid = stat.parent
    return lineage
