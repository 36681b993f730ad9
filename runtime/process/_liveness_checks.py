"""What can be wrong with how a manifest wants to know that a process is alive and well."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime._problems import Problem, ProblemsError

from ._executable import Finder
from ._inherited import OURS_ALONE
from ._notify import SUPPORTED
from .models import Process
from .readiness import STRATEGIES

_ASKED_AGAIN = [name for name, strategy in STRATEGIES.items() if strategy.probe is not None]
_REMEDY = f"write one of {', '.join(_ASKED_AGAIN)}, or a plugin's"


def find_liveness_problems(processes: Sequence[Process], base: Path) -> Iterator[Problem]:
    """Yield what is wrong with health checks, ``notify`` and watchdogs; bind what is right."""
    find = Finder()
    for process in processes:
        if process.health is not None:
            yield from _judge_health(process, base, find)
        if process.may_notify:
            yield from _judge_notify(process)


def _judge_health(process: Process, base: Path, find: Finder) -> Iterator[Problem]:
    here = (*process.location, "health")
    name = process.health_strategy
    if name is None:
        words = f"is missing, for there is no `ready_strategy` to ask again; {_REMEDY}"
        yield Problem((*here, "strategy"), words)
    elif name in STRATEGIES and name not in _ASKED_AGAIN:
        words = f"{name!r} waits for a moment, and cannot be asked again; {_REMEDY}"
        yield Problem((*here, "strategy"), words)
    elif process.health is not None:
        try:
            process.bind_health(base, find)
        except ProblemsError as error:
            # What is wrong with the readiness check is told there.
            if process.health.params is not None or name != process.ready_strategy:
                params = (*here, "params")
                yield from (Problem((*params, *where), what) for where, what in error.problems)


def _judge_notify(process: Process) -> Iterator[Problem]:
    asks = "watchdog_sec" if process.watchdog_sec is not None else "ready_strategy"
    if not SUPPORTED:
        yield Problem((*process.location, asks), "needs Linux, which says who has sent a message")
    for name in sorted(OURS_ALONE.intersection(process.env)):
        if not name.startswith("LISTEN_"):
            words = f"is ours to set, because of `{asks}`; leave it out"
            yield Problem((*process.location, "env", name), words)
