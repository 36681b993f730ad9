"""Readiness strategies: each in a module of its own, and how a process finds its one by name."""

from collections.abc import Awaitable, Mapping

import trio

from ._candidate import Candidate as Candidate
from ._candidate import Check as Check
from ._candidate import Strategy as Strategy
from .file import FILE
from .pipe import PIPE
from .tcp import TCP

#: The built-in strategies by the names that a manifest uses.
STRATEGIES: Mapping[str, Strategy] = {"tcp": TCP, "file": FILE, "pipe": PIPE}
#: The parameters that each of them cannot do without.
REQUIRED_PARAMS: Mapping[str, tuple[str, ...]] = {
    name: strategy.needs for name, strategy in STRATEGIES.items()
}


async def wait_ready(check: Awaitable[bool], within_sec: float) -> bool:
    """Return what *check* returns, or False after *within_sec* seconds."""
    with trio.move_on_after(within_sec):
        return await check
    return False
