"""Readiness strategies: each in a module of its own, and how a process finds its one by name."""

from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import trio

from runtime._problems import Problem, ProblemsError, did_you_mean
from runtime.process._executable import Finder

from ._bound import BoundCheck as BoundCheck
from ._bound import bind_strategy
from ._candidate import Candidate as Candidate
from ._candidate import Check as Check
from ._candidate import Probe as Probe
from ._candidate import Strategy as Strategy
from ._params import Params as Params
from ._params import Places
from .exec import EXEC
from .file import FILE
from .http import HTTP
from .log import LOG
from .notify import NOTIFY
from .pipe import PIPE
from .tcp import TCP

#: The built-in strategies by the names that a manifest uses.
STRATEGIES: Mapping[str, Strategy[Any]] = {
    "tcp": TCP,
    "http": HTTP,
    "exec": EXEC,
    "file": FILE,
    "pipe": PIPE,
    "notify": NOTIFY,
    "log": LOG,
}


def bind(
    name: str,
    params: Mapping[str, Any],
    base: Path,
    *,
    find: Finder | None = None,
    search: str | None = None,
) -> BoundCheck:
    """Return the built-in check *name* with *params*, whose relative paths start at *base*.

    *search* is the PATH of the process that it is for; *find* may be shared by several. Raises
    `ProblemsError` with all that is wrong, its locations beginning inside of the params.
    """
    strategy = STRATEGIES.get(name)
    if strategy is None:
        words = f"there is no check {name!r}{did_you_mean(name, STRATEGIES)}"
        raise ProblemsError([Problem((), words)])
    return bind_strategy(name, strategy, params, Places(base, find, search))


async def wait_ready(check: Awaitable[bool], within_sec: float) -> bool:
    """Return what *check* returns, or False after *within_sec* seconds."""
    with trio.move_on_after(within_sec):
        return await check
    return False
