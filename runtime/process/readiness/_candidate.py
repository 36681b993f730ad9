"""What a check is about, and how it goes about it: what every strategy has in common."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from runtime import _procfs
from runtime.process._notify import Notices
from runtime.process.family import Family
from runtime.process.host import Host
from runtime.process.output import Output
from runtime.process.spawn import Command
from runtime.supervision.unit import UnitHandle

from ._listeners import PortOwner
from ._params import Params

_FIRST_INTERVAL_SEC = 0.001
_GROWTH = 1.5


class Candidate:
    """The process that a check is about; one without a *family* is not known any closer.

    *output* is what it prints, *notices* what it tells through a socket if it has one, *command*
    how it was started, *unit* whose time is used for what the check starts itself. A check may say
    what keeps it from being ready as `obstacle`, for whoever has waited for nothing. *heard* has an
    event for each pattern that is listened for.
    """

    family: Family | None
    output: Output
    command: Command | None
    unit: UnitHandle | None
    notices: Notices | None
    obstacle: str
    heard: dict[str, trio.Event]

    __slots__ = ("_owners", "command", "family", "heard", "notices", "obstacle", "output", "unit")

    def __init__(
        self,
        family: Family | None = None,
        *,
        output: Output | None = None,
        command: Command | None = None,
        unit: UnitHandle | None = None,
        notices: Notices | None = None,
    ) -> None:
        self.family, self.command, self.unit = family, command, unit
        self.notices = notices
        self.output = Output() if output is None else output
        self.obstacle = ""
        self.heard = {}
        self._owners: dict[int, PortOwner] = {}

    def port_owner(self, port: int, host: Host) -> PortOwner | None:
        """Return who tells whose a port is; it remembers what it has found."""
        if self.family is None:
            return None
        return self._owners.setdefault(port, PortOwner(port, self.family, host))

    def has_ended(self) -> bool:
        """Return whether it is known to have ended; its family may live on."""
        if self.family is None:
            return False
        stat = _procfs.read_stat(self.family.leader)
        return stat is not None and not stat.alive


P_contra = TypeVar("P_contra", bound=Params, contravariant=True)

#: Returns once it is true; the deadline belongs to the caller.
Check = Callable[[P_contra, Host, Candidate], Awaitable[None]]
#: Looks once, and returns whether it is true; the deadline belongs to the caller.
Probe = Callable[[P_contra, Host, Candidate], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[P_contra]):
    """A way to find out whether a process is ready: *wait* for it, or have one look with *probe*.

    *params* is the model of what it is told. A strategy without a probe learns of a moment and not
    of a state, and cannot be asked again. *attend* is the block within which the candidate runs,
    for what must miss nothing of that; it is entered before anything of its output is read.
    """

    params: type[P_contra]
    wait: Check[P_contra]
    probe: Probe[P_contra] | None = None
    attend: Callable[[P_contra, Candidate], AbstractContextManager[object]] | None = None


def probing(probe: Probe[P_contra]) -> Check[P_contra]:
    """Return a check that tries *probe* at once and then at a growing interval.

    What is outside of us and cannot notify us is looked at so.
    """

    async def wait(params: P_contra, host: Host, candidate: Candidate) -> None:
        async def holds() -> bool:
            return await probe(params, host, candidate)

        await until(holds, host.check_interval_sec)

    return wait


async def until(
    holds: Callable[[], Awaitable[bool]],
    cap_sec: float,
    pause: Callable[[float], Awaitable[object]] = trio.sleep,
) -> None:
    """Return once *holds* does: tried at once and then at an interval that grows to *cap_sec*.

    A look that takes long is followed by a pause as long as that, so that looking never costs more
    than half of the time. *pause* waits for so many seconds, or until there is a reason to look.
    """
    interval = min(_FIRST_INTERVAL_SEC, cap_sec)
    while True:
        began = trio.current_time()
        if await holds():
            return
        await pause(max(interval, trio.current_time() - began))
        interval = min(interval * _GROWTH, cap_sec)
