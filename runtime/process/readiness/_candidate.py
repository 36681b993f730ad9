"""What a check is about, and how it goes about it: what every strategy has in common."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from runtime import _procfs
from runtime.process.family import Family
from runtime.process.host import Host
from runtime.process.output import Output
from runtime.process.spawn import Command
from runtime.supervision.unit import UnitHandle

from ._listeners import PortOwner

_FIRST_INTERVAL_SEC = 0.001
_GROWTH = 1.5


class Candidate:
    """The process that a check is about; one without a *family* is not known any closer.

    *output* is what it prints, *command* how it was started, *unit* whose time is used for what
    the check starts itself. A check may say what keeps it from being ready as `obstacle`, for
    whoever has waited for nothing.
    """

    family: Family | None
    output: Output
    command: Command | None
    unit: UnitHandle | None
    obstacle: str

    __slots__ = ("_owners", "command", "family", "obstacle", "output", "unit")

    def __init__(
        self,
        family: Family | None = None,
        *,
        output: Output | None = None,
        command: Command | None = None,
        unit: UnitHandle | None = None,
    ) -> None:
        self.family, self.command, self.unit = family, command, unit
        self.output = Output() if output is None else output
        self.obstacle = ""
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


#: Returns once it is true; the deadline belongs to the caller.
Check = Callable[[Mapping[str, Any], Host, Candidate], Awaitable[None]]
#: Looks once, and returns whether it is true; the deadline belongs to the caller.
Probe = Callable[[Mapping[str, Any], Host, Candidate], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A way to find out whether a process is ready: *wait* for it, or have one look with *probe*.

    A strategy without a probe learns of a moment and not of a state, and cannot be asked again.
    *needs* are the parameters that it cannot do without.
    """

    wait: Check
    probe: Probe | None = None
    needs: tuple[str, ...] = ()


def probing(probe: Probe) -> Check:
    """Return a check that tries *probe* at once and then at a growing interval.

    What is outside of us and cannot notify us is looked at so.
    """

    async def wait(params: Mapping[str, Any], host: Host, candidate: Candidate) -> None:
        async def holds() -> bool:
            return await probe(params, host, candidate)

        await until(holds, host)

    return wait


async def until(holds: Callable[[], Awaitable[bool]], host: Host) -> None:
    """Return once *holds* does: tried at once and then at a growing interval."""
    interval = min(_FIRST_INTERVAL_SEC, host.check_interval_sec)
    while not await holds():
        await trio.sleep(interval)
        interval = min(interval * _GROWTH, host.check_interval_sec)
