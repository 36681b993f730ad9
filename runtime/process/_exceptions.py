"""What can go wrong with a process.

ProcessError
├── SpawnError            it could not be started at all
├── ProcessExitedError    it ended although nobody asked it to
├── NotReadyError         its readiness check did not pass in time, or gave up
├── RunLimitError         it ran longer than it may
├── HookError             a hook of a plugin failed
├── NotRunningError       it was to be sent a signal, and nothing of it runs
├── CeilingError          it has used more cpu or memory than it may
├── UnresponsiveError     it has not done in time what it had to do to be let alone
└── SurvivorsError        something of it outlived SIGKILL
"""

import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any


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


# So many processes are named. There may be thousands, and each event would have all of them.
_MOST_NAMED = 20


def processes_in_words(pids: Sequence[int], find_name: Callable[[int], str | None]) -> str:
    """Return pids and their names as a person would say them: ``pid 12 (python3), pid 13 (sh)``.

    The first twenty are named, and the others counted.
    """
    names = ((pid, find_name(pid)) for pid in pids[:_MOST_NAMED])
    named = ", ".join(f"pid {pid} ({name})" if name else f"pid {pid}" for pid, name in names)
    more = len(pids) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


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
    """A readiness check did not pass within *within_sec* seconds, or *gave_up* before.

    *obstacle* is what kept it from that, in words, where it is known.
    """

    name: str
    strategy: str
    within_sec: float
    setting: str
    obstacle: str
    gave_up: bool

    def __init__(
        self,
        name: str,
        strategy: str,
        within_sec: float,
        setting: str,
        obstacle: str = "",
        *,
        gave_up: bool = False,
    ) -> None:
        super().__init__(name, strategy, within_sec, setting, obstacle, gave_up)
        self.name, self.strategy, self.within_sec = name, strategy, within_sec
        self.setting, self.obstacle, self.gave_up = setting, obstacle, gave_up

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_not_ready, self.args

    def __str__(self) -> str:
        if self.gave_up:
            return f"its {self.strategy} check has given up on it{_because(self.obstacle)}"
        return (
            f"not ready within {self.within_sec:g} s by its {self.strategy} check"
            f" (the limit is {self.setting}){_because(self.obstacle)}"
        )


def _rebuild_not_ready(*args: Any) -> NotReadyError:  # noqa: ANN401 - as they were given
    return NotReadyError(*args[:-1], gave_up=args[-1])


class RunLimitError(ProcessError):
    """The process ran for longer than *limit_sec* seconds, which *setting* allows it."""

    name: str
    limit_sec: float
    setting: str

    def __init__(self, name: str, limit_sec: float, setting: str) -> None:
        super().__init__(name, limit_sec, setting)
        self.name, self.limit_sec, self.setting = name, limit_sec, setting

    def __str__(self) -> str:
        return f"ran longer than {self.limit_sec:g} s (the limit is {self.setting})"


class HookError(ProcessError):
    """A *hook* failed when it was called for an *event* of the process; its cause says why.

    *hook* is the name that the manifest has for it, or that of the function where that is not
    known; *problem* is what was raised, in words.
    """

    name: str
    hook: str
    event: str
    problem: str

    def __init__(self, name: str, hook: str, event: str, problem: str) -> None:
        super().__init__(name, hook, event, problem)
        self.name, self.hook, self.event, self.problem = name, hook, event, problem

    def __str__(self) -> str:
        return f"hook {self.hook} ({self.event}) failed: {self.problem}"


class NotRunningError(ProcessError):
    """Something was asked of a process of which nothing runs."""

    name: str

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} does not run; start it first"


class UnresponsiveError(ProcessError):
    """A process has not done what it had to do within *within_sec* seconds, or gave itself up.

    *problem* says what; *setting* is the limit, empty where there was none.
    """

    name: str
    problem: str
    within_sec: float
    setting: str

    def __init__(self, name: str, problem: str, within_sec: float, setting: str) -> None:
        super().__init__(name, problem, within_sec, setting)
        self.name, self.problem, self.within_sec = name, problem, within_sec
        self.setting = setting

    def __str__(self) -> str:
        if not self.setting:
            return self.problem
        return f"{self.problem} for {self.within_sec:.1f} s (the limit is {self.setting})"


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
    """What belonged to the process is still there after SIGKILL: the kernel holds on to it.

    *programs* are the names of what has the *pids*, one for each, as far as they are known.
    """

    name: str
    pids: tuple[int, ...]
    programs: tuple[str, ...]

    def __init__(self, name: str, pids: Sequence[int], programs: Sequence[str] = ()) -> None:
        super().__init__(name, tuple(pids), tuple(programs))
        self.name, self.pids, self.programs = name, tuple(pids), tuple(programs)

    @property
    def survivors(self) -> str:
        """What is still there, in words: ``pid 12 (python3), pid 13 (sh)``; twenty are named."""
        return processes_in_words(self.pids, dict(zip(self.pids, self.programs, strict=False)).get)

    def __str__(self) -> str:
        return f"{self.survivors} outlived SIGKILL; it is not started again while that is there"
