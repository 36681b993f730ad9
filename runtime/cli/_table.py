"""The table of units, as it is shown when everything has started, and by `status`."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from runtime import _late
from runtime.supervision.graph import Stage

_STYLES: Mapping[Stage, str] = {
    Stage.READY: "green",
    Stage.COMPLETED: "green",
    Stage.FAILED: "red",
    Stage.HELD: "red",
    Stage.BACKOFF: "yellow",
}


_ENDLESS = 100_000  # columns


class Standing(Protocol):
    """How a unit stands: a status of the supervisor, or what HTTP shows of it."""

    @property
    def name(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def healthy(self) -> bool | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def status_text(self) -> str: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def ready_after_sec(self) -> float | None: ...
    @property
    def ran_sec(self) -> float | None: ...


def render_table(
    units: Sequence[Standing],
    pids: Mapping[str, int],
    *,
    coloured: bool,
    width: int | None,
    now: datetime | None = None,
) -> str:
    """Return a table of name, state, pid and what there is to say of each unit, as text.

    It is folded to *width* columns; None is for what no terminal shows. Without *now* it has the
    time to readiness, or to completion; with it, how long each has been up by then, and its
    restarts.
    """
    rich_console, rich_table = _late.rich()
    table = rich_table.Table(box=None, pad_edge=False, header_style="bold")
    times = ("READY AFTER",) if now is None else ("UP", "RESTARTS")
    for heading in ("NAME", "STATE", "PID", *times, ""):
        table.add_column(heading, overflow="fold", no_wrap=heading == "NAME")
    for unit in units:
        well = unit.stage in (Stage.READY, Stage.COMPLETED) and unit.healthy is not False
        state = unit.state if unit.stage == Stage.READY else unit.stage
        table.add_row(
            unit.name,
            str(state),
            str(pids.get(unit.name, 0) or ""),
            *(_start_times(unit) if now is None else _times(unit, now)),
            unit.status_text if well else unit.reason,
            style=_STYLES.get(Stage(unit.stage), ""),
        )
    text = io.StringIO()
    # Names and reasons are what they are: [brackets] and :colons: in them mean nothing.
    console = rich_console.Console(
        file=text,
        force_terminal=coloured,
        width=_ENDLESS if width is None else width,
        color_system="auto" if coloured else None,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return "\n".join(line.rstrip(" ") for line in text.getvalue().split("\n"))


def _start_times(unit: Standing) -> tuple[str]:
    seconds = unit.ran_sec if unit.stage == Stage.COMPLETED else unit.ready_after_sec
    return ("" if seconds is None else f"{seconds:.2f} s",)


def _times(unit: Standing, now: datetime) -> tuple[str, str]:
    lives = unit.stage in (Stage.STARTING, Stage.READY, Stage.STOPPING)
    up = (now - unit.started_at).total_seconds() if lives and unit.started_at else None
    return "" if up is None else _in_short(max(up, 0)), str(unit.restarts or "")


def _in_short(seconds: float) -> str:
    """Return a duration as a person reads it, in its two largest units."""
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])
