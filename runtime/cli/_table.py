"""The table that is shown when everything has started."""

import io
from collections.abc import Mapping, Sequence

from runtime import _late
from runtime.supervision.graph import Stage
from runtime.supervision.unit import UnitStatus

_STYLES: Mapping[Stage, str] = {
    Stage.READY: "green",
    Stage.COMPLETED: "green",
    Stage.FAILED: "red",
    Stage.HELD: "red",
    Stage.BACKOFF: "yellow",
}


def render_table(
    statuses: Sequence[UnitStatus], pids: Mapping[str, int], *, coloured: bool, width: int
) -> str:
    """Return name, state, pid and time to readiness, or to completion, of each unit, as text."""
    rich_console, rich_table = _late.rich()
    table = rich_table.Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NAME", "STATE", "PID", "READY AFTER", ""):
        table.add_column(heading, overflow="fold", no_wrap=heading == "NAME")
    for status in statuses:
        style = _STYLES.get(status.stage, "")
        completed = status.stage is Stage.COMPLETED
        seconds = status.ran_sec if completed else status.ready_after_sec
        ready = "" if seconds is None else f"{seconds:.2f} s"
        well = status.stage in (Stage.READY, Stage.COMPLETED) and status.healthy is not False
        remark = status.status_text if well else status.reason
        pid = pids.get(status.name, 0)
        state = str(status.stage if status.stage is not Stage.READY else status.state)
        table.add_row(status.name, state, str(pid or ""), ready, remark, style=style)
    text = io.StringIO()
    # Names and reasons are what they are: [brackets] and :colons: in them mean nothing.
    console = rich_console.Console(
        file=text,
        force_terminal=coloured,
        width=width,
        color_system="auto" if coloured else None,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return text.getvalue()
