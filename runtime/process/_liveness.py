"""What must stay true of a child that is ready: signs of life, health, and an end once announced.

Each function is a watch: it returns what is wrong with the child.
"""

import trio

from runtime.supervision._exceptions import UnhealthyError
from runtime.supervision._health_watch import watch_health
from runtime.supervision.budget import DEFAULT_STOP_SEC
from runtime.supervision.health import spread_of
from runtime.supervision.unit import UnitHandle

from ._exceptions import UnresponsiveError
from ._notify import NotifySocket
from .family import Family
from .host import Host
from .models import Process
from .readiness import Candidate

# Whose own task came later than this share of the limit was not awake to judge others.
_OVERSLEPT = 0.5


async def watch_signs_of_life(
    process: Process, watchdog_sec: float, notify: NotifySocket, family: Family
) -> UnresponsiveError:
    """Return once there was no sign of life for *watchdog_sec* seconds, or the process gave up."""
    notices, since = notify.notices, trio.current_time()
    while True:
        until = max(since, notices.alive_at) + watchdog_sec
        with trio.move_on_at(until):
            await notices.gave_up.wait()
            problem = "it asked to be ended as if its watchdog had expired"
            return UnresponsiveError(process.name, problem, watchdog_sec, "")
        now = trio.current_time()
        notify.take_all_waiting(family)  # what it has sent counts, even if we come late to it
        if max(since, notices.alive_at) + watchdog_sec > now:
            continue
        if now > until + _OVERSLEPT * watchdog_sec:
            since = now
            continue
        return UnresponsiveError(process.name, "no sign of life", watchdog_sec, "watchdog_sec")


async def watch_process_health(
    process: Process, host: Host, candidate: Candidate, unit: UnitHandle
) -> UnhealthyError | None:
    """Return once the process has failed by its ``health`` checks; None where it has none."""
    if process.health is None:
        return None
    strategy = process.health_strategy or ""

    async def look() -> str | None:
        candidate.obstacle = ""
        if await process.check_health(host, candidate):
            return None
        return candidate.obstacle or f"{strategy} says no"

    failing = await watch_health(
        look, process.health.to_policy(), unit.report_health, spread=spread_of(process.name)
    )
    return UnhealthyError(process.name, strategy, *failing)


async def wait_announced_end(process: Process, notify: NotifySocket) -> UnresponsiveError:
    """Return once a process that says that it stops has had its time for that.

    It may put that off by EXTEND_TIMEOUT_USEC.
    """
    within = DEFAULT_STOP_SEC if process.timeout is None else process.timeout
    began, setting = trio.current_time(), "timeout"
    with trio.move_on_at(began + within) as patience:
        notify.notices.patience = patience
        await trio.sleep_forever()
    if patience.deadline > began + within:
        within, setting = trio.current_time() - began, "its own EXTEND_TIMEOUT_USEC"
    return UnresponsiveError(process.name, "it has said that it stops, and ran on", within, setting)
