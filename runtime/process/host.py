"""What all processes of one tree have in common, and how their orphans are found."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex

import trio

from runtime import _procfs
from runtime._roster import Roster
from runtime._secrets import Secrets

from ._inherited import Inherited
from .output import Line
from .sampler import Sampler


def _ancestors_other_children() -> list[int]:
    """Return the pids that an orphan of ours must be among when there is no guard.

    The kernel gives an orphan to the nearest subreaper or init above it, which is above us, too.
    The chain that leads down to us is left out.
    """
    chain = [os.getpid()]
    while (stat := _procfs.read_stat(chain[-1])) is not None and stat.parent > 0:
        chain.append(stat.parent)
    return [
        pid for ancestor in chain[1:] for pid in _procfs.list_children(ancestor) if pid not in chain
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where processes are started: the tree they are marked with, and limits they share.

    *orphans* lists the pids to search for descendants that lost their parent: the guard knows them,
    otherwise the ancestors' other children are asked. *echo* is called with the name and the new
    lines of a process, whenever it prints some; it must not block.

    *roster* is where each child is noted, for the case that nobody is left to end it. *folder* is
    the run directory, where there is one: for the token of requests, and for addresses.

    *sampler* takes the statistics of the processes, where somebody runs one.

    *secrets* are those of the tree, which hide what has been looked up. *inherited* is what its
    processes have of our own environment.

    *open_files* is the limit that children get, soft and hard, where ours is not the one to hand
    down; unset, they inherit ours.

    *close_on_exec* lets each start mark all descriptors of this program so, the standard ones left
    out, in place of having the child close them one by one: for a program that is the runtime's own
    and may have thousands. A caller who has others inherit some would not be asked.

    Spawning, checks, plugins and log files have limiters of their own, because Trio's default one
    is shared with everything else in threads: blocking plugins must never delay a spawn, nor one
    disk that hangs the log files on another. *exits* is how many ends of children are taken up at
    a time, each of which takes a few turns of the loop: when a hundred end at once, all others have
    theirs in between.
    """

    tree_id: str = field(default_factory=lambda: token_hex(8))
    orphans: Callable[[], Sequence[int]] = _ancestors_other_children
    echo: Callable[[str, Sequence[Line]], None] | None = None
    roster: Roster | None = None
    folder: Path | None = None
    kill_timeout: float = 5.0
    check_interval_sec: float = 0.1
    open_files: tuple[int, int] | None = None
    close_on_exec: bool = False
    sampler: Sampler | None = None
    secrets: Secrets = field(default_factory=Secrets)
    inherited: Inherited = field(default_factory=Inherited)
    spawning: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 2))
    checks: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 4))
    plugins: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 40))
    logs: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 40))
    exits: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 1))

    def marker(self, unit: str) -> dict[str, str]:
        """Return the variables that tell every descendant's unit and tree."""
        return {_procfs.TREE_VARIABLE: self.tree_id, _procfs.UNIT_VARIABLE: unit}
