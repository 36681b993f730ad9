"""What two looks at a process and its descendants say of its use of cpu and memory: arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from runtime._procfs import Member

_MIB: Final = 1024 * 1024
# A start is told in ticks of the kernel, and is no later than that.
_TICK_SEC: Final = 0.01


class Use(NamedTuple):
    """What one process has used since it was started, as far as the kernel still tells."""

    own_sec: float  #: cpu time of its own
    whole_sec: float  #: with that of the children that it has waited for
    memory: int  #: resident, in bytes
    born: float  #: when it started, on the clock of `Reading.at`
    alive: bool  #: a zombie is not, but its cpu time has not gone to its parent yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at a process and all that descends from it; the process itself is a member, too.

    *at* is in seconds on a clock that goes on evenly. *open_files* and *listening* are None where
    nobody has asked for them, or nobody may know.
    """

    at: float
    leader: Member
    members: Mapping[Member, Use]
    open_files: int | None = None
    listening: tuple[str, ...] | None = None

    @property
    def memory_mb(self) -> float:
        """Resident memory of the process itself, in MiB."""
        return self.members[self.leader].memory / _MIB

    @property
    def family_memory_mb(self) -> float:
        """Resident memory of all members, in MiB; what they share counts for each."""
        return sum(use.memory for use in self.members.values()) / _MIB

    @property
    def family_size(self) -> int:
        """The number of members that live."""
        return sum(use.alive for use in self.members.values())


def cpu_percent(before: Reading | None, after: Reading) -> float:
    """Return the cpu time of the process itself between two looks, in percent of one core.

    0 where there is no look before, or one at another process.
    """
    passed = _passed(before, after)
    if before is None or passed <= 0:
        return 0.0
    used = after.members[after.leader].own_sec - before.members[before.leader].own_sec
    return max(used, 0.0) / passed * 100


def family_cpu_percent(before: Reading | None, after: Reading) -> float:
    """Return the cpu time of all members between two looks, in percent of one core.

    When a member ends and is waited for, its time goes to the parent that waited, so the sum over
    all members says what was used, also by those that came and went between the looks. Where it
    was not waited for, or its parent is no member, the time is lost; but what those that are
    there have used themselves is certain.
    """
    passed = _passed(before, after)
    if before is None or passed <= 0:
        return 0.0
    # One that is older than the look before and was not seen there had been overlooked: what of
    # its time is new nobody knows.
    counted = {
        member: use
        for member, use in after.members.items()
        if member in before.members or use.born > before.at - _TICK_SEC
    }
    whole = sum(use.whole_sec for use in counted.values())
    whole -= sum(use.whole_sec for use in before.members.values())
    certain = sum(
        max(use.own_sec - (before.members[member].own_sec if member in before.members else 0), 0)
        for member, use in counted.items()
    )
    return max(whole, certain) / passed * 100


def _passed(before: Reading | None, after: Reading) -> float:
    """Return the seconds between two looks at the same process, 0 where they are not."""
    return after.at - before.at if before is not None and before.leader == after.leader else 0.0
