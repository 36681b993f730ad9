"""What can go wrong with a process.

ProcessError
├── SpawnError            it could not be started at all
├── ProcessExitedError    it ended although nobody asked it to
├── NotReadyError         its readiness check did not pass in time
├── CeilingError          it has used more cpu or memory than it may
└── SurvivorsError        something of it outlived SIGKILL
"""

import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path


class ProcessError(Exception):
    """The base of every error of a process."""


class SpawnError(ProcessError):
    """The program could not be started; *problem* is the system's own word for why."""

    name: str
    path: str
    problem: str

    def __init__(self, name: str, path: str | Path, problem: str) -> None:
        super().__init__(name, str(path), problem)
        self.name, self.path, self.problem = name, str(path), problem

    def __str__(self) -> str:
        return f"cannot start {self.path}: {self.problem}"


def exit_in_words(returncode: int) -> str:
    """Return how a process ended, as a person would say it; -9 is ``killed by SIGKILL``."""
    if returncode >= 0:
        return f"exited with {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"killed by {name}"


class ProcessExitedError(ProcessError):
    """A process ended although nobody asked it to; a *returncode* of -9 is SIGKILL.

    *ready* tells whether its readiness check had passed before, *obstacle* in words what kept it
    from that, where it is known.
    """

    name: str
    returncode: int
    uptime_sec: float
    ready: bool
    obstacle: str

    def __init__(
        self, name: str, returncode: int, uptime_sec: float, *, ready: bool, obstacle: str = ""
    ) -> None:
        super().__init__(name, returncode, uptime_sec, ready, obstacle)
        self.name, self.returncode, self.uptime_sec = name, returncode, uptime_sec
        self.ready, self.obstacle = ready, obstacle

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_exited, self.args

    def __str__(self) -> str:
        before = "" if self.ready else " before it was ready"
        words = f"{exit_in_words(self.returncode)}{before} after {self.uptime_sec:.1f} s"
        return words + _because(self.obstacle)


def _rebuild_exited(
    name: str, returncode: int, uptime_sec: float, ready: bool, obstacle: str
) -> ProcessExitedError:
    return ProcessExitedError(name, returncode, uptime_sec, ready=ready, obstacle=obstacle)


class NotReadyError(ProcessError):
    """A readiness check did not pass within *within_sec* seconds, or said that it never will.

    *obstacle* is what kept it from that, in words, where it is known.
    """

    name: str
    strategy: str
    within_sec: float
    setting: str
    obstacle: str

    def __init__(
        self, name: str, strategy: str, within_sec: float, setting: str, obstacle: str = ""
    ) -> None:
        super().__init__(name, strategy, within_sec, setting, obstacle)
        self.name, self.strategy, self.within_sec = name, strategy, within_sec
        self.setting, self.obstacle = setting, obstacle

    def __str__(self) -> str:
        return (
            f"not ready within {self.within_sec:g} s by its {self.strategy} check"
            f" (the limit is {self.setting}){_because(self.obstacle)}"
        )


def _because(obstacle: str) -> str:
    return f": {obstacle}" if obstacle else ""


class CeilingError(ProcessError):
    """A process has used more than it may, for *for_sec* seconds without interruption.

    *setting* is the ceiling that was exceeded: ``memory_mb``, in MiB, or ``cpu_percent``, in
    percent of one core. *of* tells whose use that is: the ``process`` alone, or its ``family``.
    """

    name: str
    setting: str
    used: float
    ceiling: float
    for_sec: float
    of: str

    def __init__(
        self, name: str, setting: str, used: float, ceiling: float, *, for_sec: float, of: str
    ) -> None:
        super().__init__(name, setting, used, ceiling, for_sec, of)
        self.name, self.setting, self.used, self.ceiling = name, setting, used, ceiling
        self.for_sec, self.of = for_sec, of

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), for_sec=self.for_sec, of=self.of), self.args[:4]

    def __str__(self) -> str:
        what = "MiB of memory" if self.setting == "memory_mb" else "% of a cpu"
        lasting = f" for {self.for_sec:g} s" if self.for_sec else ""
        return (
            f"uses {self.used:.0f} {what}, more than its ceiling of {self.ceiling:g}{lasting}"
            f" (ceilings.{self.setting})"
        )


class SurvivorsError(ProcessError):
    """What belonged to the process is still there after SIGKILL: the kernel holds on to it."""

    name: str
    pids: tuple[int, ...]

    def __init__(self, name: str, pids: Sequence[int]) -> None:
        super().__init__(name, tuple(pids))
        self.name, self.pids = name, tuple(pids)

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.pids))
        return f"pid {listed} outlived SIGKILL; it is not started again while that is there"
