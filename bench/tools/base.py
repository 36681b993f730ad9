"""What a tool is: everything that the rows need to know of a program that supervises others."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One program that a tool is to run, to restart when it dies, and to stop."""

    name: str
    argv: tuple[str, ...]
    #: It is ready once this file exists (in a chain only).
    ready_file: Path | None = None
    #: The child that must be ready before this one starts (in a chain, all but the first).
    after: str | None = None


#: What stands in the place of a figure that there cannot be.
NONE: Final = "–"  # noqa: RUF001 - a dash is what it is


class Cannot(NamedTuple):
    """What a tool has instead of a figure."""

    shown: str
    reason: str


class Tool(ABC):
    """One program that is measured. A new peer is one small subclass, listed in `bench.tools`."""

    name: ClassVar[str]
    #: By the name of a group of rows: why there is no figure of this tool.
    cannot: ClassVar[Mapping[str, Cannot]] = MappingProxyType({})
    #: What asks it to stop its children and to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: What a reader of the figures must know.
    remark: ClassVar[str] = ""

    @abstractmethod
    def version(self) -> str | None:
        """Return its version, or None when it is not installed and cannot be."""

    @abstractmethod
    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        """Write what it needs to run *children* into *folder*; all else by its defaults."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """Return the command that runs in the foreground what `write_config` wrote there."""

    def supervisors(self, pid: int) -> list[int]:
        """Return the processes whose sudden death is to be survived; *pid* was started by us."""
        return [pid]
