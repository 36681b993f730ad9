"""A unit is anything that runs: an async function that says when it is ready.

That is the protocol of Trio's own ``nursery.start``: the body calls ``task_status.started()`` once
it is ready, ends when its work ends, and stops when it is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import trio

from .budget import DEFAULT_STOP_SEC, StopBudget
from .graph import Requirement, Stage
from .lifecycle import Lifecycle, Stages, TransitionTable
from .restart import RestartPolicy


class UnitState(StrEnum):
    """The states of a unit of no kind of its own, such as a server or a nested supervisor."""

    STOPPED = "stopped"  #: nothing of it runs
    STARTING = "starting"  #: its body runs and has not reported that it is ready
    RUNNING = "running"  #: it has
    STOPPING = "stopping"  #: it was cancelled and has not ended yet
    FAILED = "failed"  #: its body raised


_U = UnitState
UNIT_TABLE: TransitionTable[UnitState] = TransitionTable(
    UnitState,
    {
        _U.STOPPED: {_U.STARTING},
        _U.STARTING: {_U.RUNNING, _U.STOPPING, _U.STOPPED, _U.FAILED},
        _U.RUNNING: {_U.STOPPING, _U.STOPPED, _U.FAILED},
        _U.STOPPING: {_U.STOPPED, _U.FAILED},
        _U.FAILED: {_U.STARTING},
    },
)
_UNIT_STAGES = Stages(_U.STARTING, _U.RUNNING, _U.STOPPING, _U.STOPPED, _U.FAILED)


class UnitBody(Protocol):
    """What a unit runs. Returning is a good end, raising an `Exception` a failure."""

    async def __call__(self, *, task_status: UnitHandle) -> object:
        """Run until the work ends; cancelled, stop within `current_unit().budget`."""


Holder = Callable[[Callable[[], Awaitable[object]], Callable[[], object]], Awaitable[None]]


class UnitHandle:
    """What the body of a running unit may say, and what it may ask: also a Trio ``TaskStatus``."""

    budget: StopBudget
    path: str

    __slots__ = (
        *("_hold", "_on_ending", "_on_failing", "_on_good_end", "_on_health", "_on_note"),
        *("_on_pid", "_on_started", "_on_status_text"),
        *("budget", "path"),
    )

    def __init__(
        self,
        path: str,
        budget: StopBudget,
        *,
        on_started: Callable[[], None] = lambda: None,
        on_ending: Callable[[str], None] = lambda _: None,
        on_good_end: Callable[[str], None] = lambda _: None,
        on_failing: Callable[[str], None] = lambda _: None,
        on_note: Callable[[str], None] = lambda _: None,
        on_health: Callable[[bool, str], None] = lambda _, __: None,
        on_status_text: Callable[[str], None] = lambda _: None,
        on_pid: Callable[[int | None], None] = lambda _: None,
        hold: Holder | None = None,
    ) -> None:
        self.path, self.budget = path, budget
        self._on_started, self._on_note = on_started, on_note
        self._on_ending, self._on_good_end, self._on_failing = on_ending, on_good_end, on_failing
        self._on_health, self._on_status_text = on_health, on_status_text
        self._on_pid = on_pid
        self._hold = hold or self._hold_alone

    def started(self, value: object = None) -> None:  # noqa: ARG002 - the protocol of Trio's TaskStatus
        """Report that the unit is ready; a second call raises `RuntimeError`, as Trio's does."""
        self._on_started()

    def ending(self, reason: str) -> None:
        """Report that the work is over and only the clearing up remains."""
        self._on_ending(reason)

    def ended_well(self, how: str) -> None:
        """Report how it has ended, where that is a good end and does not look like one."""
        self._on_good_end(how)

    def failing(self, reason: str) -> None:
        """Report that the unit has failed already, though its body has not ended yet."""
        self._on_failing(reason)

    async def hold(
        self, body: Callable[[], Awaitable[object]], *, ask_to_stop: Callable[[], object]
    ) -> None:
        """Run *body* to its own end, within the budget, also when the unit is to stop.

        Being told to stop calls *ask_to_stop* then, and cancels nothing.
        """
        await self._hold(body, ask_to_stop)

    async def _hold_alone(
        self, body: Callable[[], Awaitable[object]], ask_to_stop: Callable[[], object]
    ) -> None:
        def begin() -> None:
            self.budget.begin(DEFAULT_STOP_SEC)
            ask_to_stop()

        await self.budget.hold(body, ask_to_stop=begin)

    def note(self, fact: str) -> None:
        """Record a fact about the unit that changes no state, and is not the reason of it."""
        self._on_note(fact)

    def report_health(self, healthy: bool, words: str = "") -> None:
        """Report whether the unit is well; *words*, where there are some, are noted as a fact."""
        self._on_health(healthy, words)

    def report_status_text(self, text: str) -> None:
        """Let the status of the unit show *text*, which it says of itself; it is no event."""
        self._on_status_text(text)

    def report_pid(self, pid: int | None) -> None:
        """Let the status of the unit show the process that runs for it; None: it has ended."""
        self._on_pid(pid)


_current_unit: ContextVar[UnitHandle | None] = ContextVar("current_unit", default=None)


def current_unit() -> UnitHandle:
    """Return the unit that the calling task belongs to; outside every unit one that has no name."""
    return _current_unit.get() or UnitHandle("", StopBudget())


@contextmanager
def as_current_unit(handle: UnitHandle) -> Generator[None]:
    """Let `current_unit` return *handle* to the tasks of the block, and those that they start."""
    token = _current_unit.set(handle)
    try:
        yield
    finally:
        _current_unit.reset(token)


def cut_off_by(error: BaseException) -> str:
    """Return how a unit ended that was not left to its own end."""
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return "cut off" if isinstance(first, trio.Cancelled) else f"cut off by {type(first).__name__}"


def plain_lifecycle(name: str = "unit") -> Lifecycle[Any]:
    """Return the cell of a unit that is of no kind of its own."""
    return Lifecycle(name, UNIT_TABLE, _UNIT_STAGES, UnitState.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStatus:
    """How a unit stands at one moment; *reason* says in words why it stands so.

    *note* is the last fact about its newest generation that changes nothing, such as what had to be
    killed; empty where there is none.

    *ready_after_sec* is the time from start to ready of the running generation, *ran_sec* that to
    its end once there is one, *waiting_for* the names whose conditions do not hold yet, *error*
    what ended the last generation badly, *pid* the process that runs for it alone, if one does.
    """

    name: str
    kind: str
    state: str
    stage: Stage
    generation: int
    restarts: int
    reason: str
    requirements: tuple[Requirement, ...]
    waiting_for: tuple[str, ...] = ()
    next_restart_at: datetime | None = None
    started_at: datetime | None = None
    ready_after_sec: float | None = None
    ran_sec: float | None = None
    error: Exception | None = None
    note: str = ""
    healthy: bool | None = None
    status_text: str = ""
    pid: int | None = None

    @property
    def ready(self) -> bool:
        """Whether it runs and has reported that it is ready."""
        return self.stage is Stage.READY


class InnerUnits(Protocol):
    """The units that live within another one: a supervisor's."""

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """Yield the kind and the stage of each."""
        ...

    def statuses(self) -> list[UnitStatus]:
        """Return how they stand."""
        ...


_NOT_RESTARTED = RestartPolicy()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """What a supervisor needs to know to run something.

    *requirements* are met before it starts; then *admit* may still raise why it cannot. *restart*
    says what follows an end that nobody asked for; with *ends_tree* an end that no restart follows
    stops the whole supervisor. *restart_dependents* restarts what depends on it whenever it ends
    unasked or is restarted; *restarts_also* names others that are restarted with it, but not when
    it ends for good. A tree whose *keeps_alive* units have all ended for good is over; one without
    *autostart* counts only once it was wanted. One that *stops_last*, and what it needs, is stopped
    with its tree only when all others are down, for which some of the time to stop is kept back;
    nor is it forced before. *inner* is the supervisor whose ``run`` is the body.
    """

    name: str
    body: UnitBody
    kind: str = "unit"
    lifecycle: Lifecycle[Any] = field(default_factory=plain_lifecycle)
    requirements: tuple[Requirement, ...] = ()
    admit: Callable[[], None] = lambda: None
    restart: RestartPolicy = _NOT_RESTARTED
    ends_tree: bool = False
    restart_dependents: bool = False
    restarts_also: tuple[str, ...] = ()
    keeps_alive: bool = True
    stops_last: bool = False
    autostart: bool = True
    inner: InnerUnits | None = None
